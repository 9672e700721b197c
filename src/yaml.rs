//! YAML with the place of every node, so that a problem can name its line.
//!
//! ```text
//! text ─ parse ─► Node tree ─ fields (known keys, types, bounds) ─► values
//!          └──────── every problem ──────┴─► Problems
//! ```
//!
//! Only the part of YAML that cannot surprise is read: one document, text keys, no anchors, no aliases, no tags.

pub mod edit;
pub mod fields;
pub mod parse;
pub mod section;

use std::{cell::RefCell, fmt};

use serde_json::{Map, Number, Value as Json};

/// Most problems reported for one file; what is beyond is only counted.
pub const PROBLEMS_MAX: usize = 100;

/// Most characters of a file's own text repeated in a message.
const QUOTE_CHARS_MAX: usize = 60;

/// A line and a column, both counted from 1; columns count characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Place {
    /// Where a file begins.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong in a project file, and where. Sorts by file and place.
///
/// ```
/// use landfall::yaml::Problem;
/// let problem = Problem {
///     file: "landfall.yml".to_owned(),
///     line: 12,
///     column: 7,
///     message: "unknown key \"recrods\"".to_owned(),
///     hint: Some("did you mean \"records\"?".to_owned()),
/// };
/// assert_eq!(
///     problem.to_string(),
///     "landfall.yml:12:7: unknown key \"recrods\"\n  hint: did you mean \"records\"?",
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file as the user knows it, relative to the project.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong. Never holds a secret.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n  hint: {hint}"),
            None => Ok(()),
        }
    }
}

/// Collects everything wrong in one file while reading goes on.
#[derive(Debug)]
pub struct Problems {
    file: String,
    found: RefCell<Found>,
}

#[derive(Debug, Default)]
struct Found {
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
    beyond: usize,
}

impl Problems {
    /// An empty collection for the file the user knows as `file`.
    pub fn new(file: &str) -> Self {
        Self {
            file: file.to_owned(),
            found: RefCell::default(),
        }
    }

    /// Adds a problem.
    pub fn add(&self, place: Place, message: impl Into<String>, hint: Option<String>) {
        let problem = self.problem(place, message.into(), hint);
        let mut found = self.found.borrow_mut();
        if found.errors.len() < PROBLEMS_MAX {
            found.errors.push(problem);
        } else {
            found.beyond += 1;
        }
    }

    /// Adds something that is worth saying but stops nothing.
    pub fn warn(&self, place: Place, message: impl Into<String>, hint: Option<String>) {
        let problem = self.problem(place, message.into(), hint);
        let mut found = self.found.borrow_mut();
        if found.warnings.len() < PROBLEMS_MAX {
            found.warnings.push(problem);
        }
    }

    /// Ends the reading of a file: `value` with the warnings, or the problems, each sorted by place.
    ///
    /// # Errors
    /// Every problem added, at most [`PROBLEMS_MAX`] and one that counts the rest. A missing value without a
    /// problem would be a defect of the reader; it is reported as a problem rather than hidden.
    pub fn finish<T>(self, value: Option<T>) -> Result<(T, Vec<Problem>), Vec<Problem>> {
        let Found {
            mut errors,
            mut warnings,
            beyond,
        } = self.found.into_inner();
        warnings.sort();
        warnings.dedup();
        errors.sort();
        errors.dedup();
        match (value, errors.is_empty()) {
            (Some(value), true) => return Ok((value, warnings)),
            (None, true) => errors.push(Problem {
                file: self.file.clone(),
                line: 1,
                column: 1,
                message: "cannot be read".to_owned(),
                hint: None,
            }),
            _ => {}
        }
        if let (Some(last), true) = (errors.last().cloned(), beyond > 0) {
            errors.push(Problem {
                message: format!("and {beyond} more problems"),
                hint: None,
                ..last
            });
        }
        Err(errors)
    }

    fn problem(&self, place: Place, message: String, hint: Option<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            line: place.line,
            column: place.column,
            message,
            hint,
        }
    }
}

/// One value of a YAML file and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Where it begins.
    pub place: Place,
}

/// What a node is. Plain scalars are told apart by the core schema of YAML 1.2: `no` and `12:30` are text.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`, with its source text.
    Bool(bool, String),
    /// A whole number, as written.
    Int(String),
    /// A number with a fraction or an exponent, `.inf` or `.nan`, as written.
    Float(String),
    /// Text: quoted, a block, or plain and nothing of the above.
    String(String),
    /// A list.
    Seq(Vec<Node>),
    /// Keys with values, in the order of the file.
    Map(Vec<Entry>),
    /// Something refused and already reported; readers say nothing more about it.
    Refused,
}

/// A key of a map with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// Where the key begins.
    pub place: Place,
    /// The value.
    pub value: Node,
}

impl Node {
    /// The kind in words, for messages.
    pub fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "nothing",
            Kind::Bool(..) => "true or false",
            Kind::Int(_) => "a whole number",
            Kind::Float(_) => "a number",
            Kind::String(_) => "text",
            Kind::Seq(_) => "a list",
            Kind::Map(_) => "a map",
            Kind::Refused => "something refused",
        }
    }

    /// The text of a scalar as written in the file, without its quotes; `None` for null, lists and maps.
    pub fn scalar_text(&self) -> Option<&str> {
        match &self.kind {
            Kind::Bool(_, text) | Kind::Int(text) | Kind::Float(text) | Kind::String(text) => Some(text),
            _ => None,
        }
    }

    /// The same value as JSON. What JSON cannot hold exactly is a problem: `.inf`, `.nan`, whole numbers beyond
    /// 64 bits, and numbers with a leading zero, which are as a rule codes that lost their quotes.
    pub fn to_json(&self, problems: &Problems) -> Option<Json> {
        match &self.kind {
            Kind::Null => Some(Json::Null),
            Kind::Bool(value, _) => Some(Json::Bool(*value)),
            Kind::String(text) => Some(Json::String(text.clone())),
            Kind::Int(_) | Kind::Float(_) => self.to_number(problems).map(Json::Number),
            Kind::Seq(items) => {
                // Every item is visited before the first failure counts, so that all problems are found.
                let items: Vec<Option<Json>> = items.iter().map(|item| item.to_json(problems)).collect();
                items.into_iter().collect::<Option<Vec<Json>>>().map(Json::Array)
            }
            Kind::Map(entries) => {
                let members: Vec<Option<(String, Json)>> = entries
                    .iter()
                    .map(|entry| Some((entry.key.clone(), entry.value.to_json(problems)?)))
                    .collect();
                members
                    .into_iter()
                    .collect::<Option<Map<String, Json>>>()
                    .map(Json::Object)
            }
            Kind::Refused => None,
        }
    }

    fn to_number(&self, problems: &Problems) -> Option<Number> {
        let text = self.scalar_text()?;
        let number = match &self.kind {
            Kind::Int(_) => parse::integer(text).and_then(Number::from_i128),
            _ => text.parse().ok().and_then(Number::from_f64),
        };
        if number.is_none() {
            let message = format!("{} is not a number that JSON can hold", quoted(text));
            problems.add(self.place, message, Some("quote it to make it text".to_owned()));
        }
        number
    }
}

/// `text` in quotes, escaped and cut, fit for a terminal.
///
/// ```
/// use landfall::yaml::quoted;
/// assert_eq!(quoted("a\u{1b}[2J"), r#""a\u{1b}[2J""#);
/// ```
pub fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTE_CHARS_MAX) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Result<Json, String> {
        let problems = Problems::new("f.yml");
        let value = parse::parse(text, &problems).and_then(|node| node.to_json(&problems));
        problems
            .finish(value)
            .map(|(value, _)| value)
            .map_err(|found| found[0].to_string())
    }

    #[test]
    fn a_request_body_becomes_the_same_json() {
        let body =
            json("query: {ids: [1, -2, 0x1F], exact: 1.5, on: yes, off: false, none: ~}\ntext: \"1\"\n");
        assert_eq!(
            body.unwrap().to_string(),
            r#"{"query":{"exact":1.5,"ids":[1,-2,31],"none":null,"off":false,"on":"yes"},"text":"1"}"#
        );
    }

    #[test]
    fn numbers_json_cannot_hold_are_problems() {
        for text in [".inf", "-.INF", ".nan", "1e999", "99999999999999999999999", "007"] {
            let problem = json(&format!("a: {text}")).unwrap_err();
            assert!(
                problem.starts_with("f.yml:1:4: ") && problem.contains(text),
                "{problem}"
            );
        }
    }

    #[test]
    fn problems_sort_by_place_and_are_bounded() {
        let problems = Problems::new("f.yml");
        for line in (1..=PROBLEMS_MAX + 7).rev() {
            problems.add(Place { line, column: 1 }, "wrong", None);
        }
        let found = problems.finish(Some(())).unwrap_err();
        assert_eq!(found.len(), PROBLEMS_MAX + 1);
        assert!(found.windows(2).all(|pair| pair[0].line <= pair[1].line));
        assert_eq!(found[PROBLEMS_MAX].message, "and 7 more problems");
    }
}
