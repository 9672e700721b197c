//! Templates are rewritten before the engine sees them, so that nothing in them can grow without being measured.
//!
//! ```text
//! {{ a ~ b }}              ─►  {{ __cat( a , b ) }}          likewise + - and *
//! {% set a = b %}          ─►  {% set a = __bound( b ) %}
//! ${env:KEY}, anywhere     ─►  __reference_0                 a variable, its value given as it is rendered
//! ```
//!
//! The engine counts steps; what one step may make (100 MB for one `*`, twice the text for each `~`) it does not
//! bound. Statements other than `if`, `for` and `set` are refused, and so is whatever nests so deep that reading it
//! would need more stack than a thread has.

use super::{
    fault::Fault,
    tokens::{self, Kind, MARK, Token},
};

/// Longest template, in bytes.
pub(super) const SOURCE_BYTES_MAX: usize = 64 * 1024;

/// Most tags of one template.
const TAGS_MAX: usize = 1000;

/// Most `elif` of one template; each nests in the one before.
const ELIFS_MAX: usize = 32;

/// Deepest nesting of `if` and `for`.
const BLOCKS_MAX: usize = 16;

/// Most words between two commas, and within the brackets among them.
const WORDS_DEEP_MAX: usize = 200;

/// Names of variables that stand for references begin so, and those of functions that only the rewriting calls.
pub(super) const OURS: &str = "__";

/// A template as the engine gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lowered {
    /// For the engine.
    pub(super) source: String,
    /// For messages: text around tags and in quotes is masked.
    pub(super) shown: String,
    /// Text outside of tags and references, each of which is one [`MARK`].
    pub(super) outside: String,
    /// The only expression, if there is nothing else.
    pub(super) whole: Option<String>,
    /// The filters it calls.
    pub(super) filters: Vec<String>,
    /// The tests it makes.
    pub(super) tests: Vec<String>,
    /// Variables with the members asked of them, outermost name first.
    pub(super) paths: Vec<Vec<String>>,
}

/// A word, or brackets with what is in them.
enum Item<'a> {
    Word(Token<'a>),
    Group(Token<'a>, Vec<Item<'a>>, Token<'a>),
}

/// Rewrites a template. References are given as their numbers between [`MARK`]s.
pub(super) fn template(text: &str) -> Result<Lowered, Fault> {
    let mut writer = Writer::new(text)?;
    writer.template(text)?;
    Ok(writer.finish())
}

/// Rewrites an expression without braces.
pub(super) fn expression(text: &str) -> Result<Lowered, Fault> {
    let mut writer = Writer::new(text)?;
    let (tokens, _) = tokens::read(text, None)?;
    if tokens.is_empty() {
        return Err(Fault::new("an expression is missing"));
    }
    writer.show(&tokens);
    writer.lowered.source = writer.tag(&tokens)?;
    Ok(writer.finish())
}

struct Writer {
    lowered: Lowered,
    tags: usize,
    elifs: usize,
    blocks: usize,
    /// The expression of the first tag, while there is nothing beside it.
    whole: Option<String>,
    /// Whether there is anything but one expression and white space.
    mixed: bool,
}

impl Writer {
    fn new(text: &str) -> Result<Self, Fault> {
        if text.len() > SOURCE_BYTES_MAX {
            return Err(Fault::new(format!(
                "a template is longer than {SOURCE_BYTES_MAX} bytes"
            )));
        }
        Ok(Self {
            lowered: Lowered {
                source: String::with_capacity(text.len()),
                shown: String::new(),
                outside: String::new(),
                whole: None,
                filters: Vec::new(),
                tests: Vec::new(),
                paths: Vec::new(),
            },
            tags: 0,
            elifs: 0,
            blocks: 0,
            whole: None,
            mixed: false,
        })
    }

    fn finish(mut self) -> Lowered {
        self.lowered.whole = self.whole.filter(|_| !self.mixed);
        self.lowered
    }

    fn template(&mut self, text: &str) -> Result<(), Fault> {
        let mut rest = text;
        // Each round takes at least one byte.
        while !rest.is_empty() {
            let Some((at, kind)) = next_tag(rest) else {
                return self.outside(rest);
            };
            self.outside(&rest[..at])?;
            let tag = &rest[at..];
            rest = match kind {
                '#' => self.comment(tag)?,
                '{' => self.inside(tag, "}}")?,
                _ => self.inside(tag, "%}")?,
            };
        }
        Ok(())
    }

    /// Text between tags.
    fn outside(&mut self, text: &str) -> Result<(), Fault> {
        self.mixed |= !text.trim().is_empty();
        if !text.is_empty() && !self.lowered.shown.ends_with("****") {
            self.lowered.shown.push_str("****");
        }
        // Plain text and numbers of references take turns.
        for (turn, part) in text.split(MARK).enumerate() {
            if turn % 2 == 0 {
                self.lowered.source.push_str(part);
                self.lowered.outside.push_str(part);
            } else {
                self.lowered.outside.push(MARK);
                self.lowered
                    .source
                    .push_str(&format!("{{{{ {} }}}}", reference(part)?));
            }
        }
        Ok(())
    }

    fn comment<'a>(&mut self, tag: &'a str) -> Result<&'a str, Fault> {
        let end = tag.find("#}").ok_or_else(|| Fault::new("#} is missing"))? + 2;
        let comment = &tag[..end];
        if comment.contains(MARK) {
            return Err(Fault::new("a reference stands in a comment"));
        }
        self.lowered.source.push_str(comment);
        Ok(&tag[end..])
    }

    fn inside<'a>(&mut self, tag: &'a str, end: &'static str) -> Result<&'a str, Fault> {
        self.tags += 1;
        self.lowered.outside.push(MARK);
        if self.tags > TAGS_MAX {
            return Err(Fault::new(format!("a template has more than {TAGS_MAX} tags")));
        }
        let control = usize::from(tag[2..].starts_with(['-', '+']));
        let (opening, text) = tag.split_at(2 + control);
        let (tokens, rest) = tokens::read(text, Some(end))?;
        let closing = rest.find(end).unwrap_or_default() + end.len();
        self.lowered.shown.push_str(opening);
        self.show(&tokens);
        let inner = if end == "}}" {
            let inner = self.tag(&tokens)?;
            self.mixed |= self.whole.is_some();
            self.whole = Some(inner.clone());
            inner
        } else {
            self.mixed = true;
            self.statement(&tokens)?
        };
        for part in [opening, " ", inner.as_str(), " ", &rest[..closing]] {
            self.lowered.source.push_str(part);
        }
        self.lowered.shown.push(' ');
        self.lowered.shown.push_str(&rest[..closing]);
        Ok(&rest[closing..])
    }

    fn statement(&mut self, tokens: &[Token<'_>]) -> Result<String, Fault> {
        let Some((word, body)) = tokens.split_first() else {
            return Err(Fault::new("a statement is missing"));
        };
        match word.text {
            "if" | "for" => self.blocks += 1,
            "endif" | "endfor" => self.blocks = self.blocks.saturating_sub(1),
            "elif" => self.elifs += 1,
            "else" | "set" => {}
            _ => {
                return Err(Fault::new("a statement other than if, for and set").hint(
                    "templates have {% if %}, {% elif %}, {% else %}, {% for %} and {% set name = value %}",
                ));
            }
        }
        if self.blocks > BLOCKS_MAX || self.elifs > ELIFS_MAX {
            return Err(Fault::new(format!(
                "more than {BLOCKS_MAX} statements within each other or {ELIFS_MAX} elif"
            )));
        }
        let plain = |name: &str| {
            let mut words = body
                .iter()
                .zip(std::iter::once(None).chain(body.iter().map(Some)));
            words.any(|(word, before)| word.text == name && before.is_none_or(|before| before.text != "."))
        };
        let inner = match word.text {
            "for" if plain("recursive") => return Err(Fault::new("a loop that calls itself")),
            "set" => self.assignment(body)?,
            _ => self.tag(body)?,
        };
        Ok(format!("{} {inner}", word.text))
    }

    /// `name = value`, the value bounded.
    fn assignment(&mut self, body: &[Token<'_>]) -> Result<String, Fault> {
        let [name, equals, value @ ..] = body else {
            return Err(assignment_expected());
        };
        if name.kind != Kind::Name || name.text.starts_with(OURS) || equals.text != "=" || value.is_empty() {
            return Err(assignment_expected());
        }
        Ok(format!("{} = {OURS}bound( {} )", name.text, self.tag(value)?))
    }

    /// One expression, or whatever a statement has behind its name.
    fn tag(&mut self, tokens: &[Token<'_>]) -> Result<String, Fault> {
        self.remember(tokens);
        let mut words = tokens.iter().copied();
        let (items, depth) = tree(&mut words, None)?;
        if depth > WORDS_DEEP_MAX {
            return Err(Fault::new(format!(
                "an expression has more than {WORDS_DEEP_MAX} words in one piece"
            ))
            .hint("keep parts of it with {% set name = … %}"));
        }
        let mut source = String::new();
        pieces(&items, &mut source)?;
        Ok(source)
    }

    fn show(&mut self, tokens: &[Token<'_>]) {
        for token in tokens {
            if token.spaced || self.lowered.shown.ends_with(['{', '%']) {
                self.lowered.shown.push(' ');
            }
            self.lowered.shown.push_str(match token.kind {
                Kind::Text => "'****'",
                Kind::Reference => "${…}",
                _ => token.text,
            });
        }
    }

    fn remember(&mut self, tokens: &[Token<'_>]) {
        for (at, token) in tokens.iter().enumerate() {
            if token.kind != Kind::Name {
                continue;
            }
            let before = |count: usize| at.checked_sub(count).map_or("", |at| tokens[at].text);
            match (before(1), before(2)) {
                ("|", _) => self.lowered.filters.push(token.text.to_owned()),
                ("is", _) if token.text != "not" => self.lowered.tests.push(token.text.to_owned()),
                ("not", "is") => self.lowered.tests.push(token.text.to_owned()),
                _ => {}
            }
            let follows = matches!(before(1), "." | "|" | "is");
            let called = tokens
                .get(at + 1)
                .is_some_and(|next| matches!(next.text, "(" | "="));
            if follows || called {
                continue;
            }
            let mut path = vec![token.text.to_owned()];
            let mut rest = &tokens[at + 1..];
            while let [dot, name, behind @ ..] = rest {
                let member = dot.text == "." && name.kind == Kind::Name;
                // A method is not a member.
                if !member || behind.first().is_some_and(|next| next.text == "(") {
                    break;
                }
                path.push(name.text.to_owned());
                rest = behind;
            }
            self.lowered.paths.push(path);
        }
    }
}

fn assignment_expected() -> Fault {
    Fault::new("set is for one name and one value").hint("write {% set name = value %}")
}

/// The name of the variable a reference is given in.
pub(super) fn reference(number: &str) -> Result<String, Fault> {
    match number.parse::<usize>() {
        Ok(number) => Ok(format!("{OURS}reference_{number}")),
        Err(_) => Err(Fault::new("a character that templates may not hold")),
    }
}

/// Where the first tag begins, and which character makes it one.
fn next_tag(text: &str) -> Option<(usize, char)> {
    text.match_indices('{')
        .find_map(|(at, _)| match text[at + 1..].chars().next() {
            Some(kind @ ('{' | '%' | '#')) => Some((at, kind)),
            _ => None,
        })
}

/// Words as a tree of brackets, and how many words stand in one piece within each other. Recurses as deep as
/// brackets nest, which [`WORDS_DEEP_MAX`] bounds as well.
fn tree<'a>(
    words: &mut impl Iterator<Item = Token<'a>>,
    opened: Option<usize>,
) -> Result<(Vec<Item<'a>>, usize), Fault> {
    let mut items = Vec::new();
    let (mut deepest, mut here, mut inner) = (0, 0, 0);
    let level = opened.unwrap_or_default();
    if level > WORDS_DEEP_MAX / 8 {
        return Err(Fault::new(format!(
            "brackets nest deeper than {}",
            WORDS_DEEP_MAX / 8
        )));
    }
    while let Some(word) = words.next() {
        here += 1;
        match (word.kind, word.text) {
            (Kind::Sign, "(" | "[" | "{") => {
                let (content, depth) = tree(words, Some(level + 1))?;
                inner = inner.max(depth);
                let Some(Item::Word(close)) = content.last().filter(|_| !content.is_empty()) else {
                    return Err(Fault::new("a bracket is not closed"));
                };
                let close = *close;
                let wanted = match word.text {
                    "(" => ")",
                    "[" => "]",
                    _ => "}",
                };
                if close.text != wanted {
                    return Err(Fault::new(format!("{wanted} is missing")));
                }
                let mut content = content;
                content.pop();
                items.push(Item::Group(word, content, close));
            }
            (Kind::Sign, ")" | "]" | "}") => {
                items.push(Item::Word(word));
                return Ok((items, deepest.max(here + inner)));
            }
            (Kind::Sign, ",") => {
                deepest = deepest.max(here + inner);
                (here, inner) = (0, 0);
                items.push(Item::Word(word));
            }
            _ => items.push(Item::Word(word)),
        }
    }
    Ok((items, deepest.max(here + inner)))
}

/// Writes items: each piece between words that bind less than arithmetic is rewritten by itself.
fn pieces(items: &[Item<'_>], out: &mut String) -> Result<(), Fault> {
    let mut start = 0;
    for at in 0..items.len() {
        if separates(items, at) {
            piece(&items[start..at], 0, out)?;
            write(&items[at], out)?;
            start = at + 1;
        }
    }
    piece(&items[start..], 0, out)
}

fn separates(items: &[Item<'_>], at: usize) -> bool {
    let Item::Word(word) = &items[at] else {
        return false;
    };
    let before = at.checked_sub(1).map(|at| &items[at]);
    let is =
        |item: Option<&Item<'_>>, text: &str| matches!(item, Some(Item::Word(word)) if word.text == text);
    match word.kind {
        Kind::Sign => matches!(word.text, "," | ":" | "=" | "==" | "!=" | "<" | ">" | "<=" | ">="),
        Kind::Name => {
            let keyword = matches!(word.text, "if" | "else" | "or" | "and" | "not" | "in");
            // Behind these words stands the name of a member, a filter or a test.
            let before_that = at.checked_sub(2).map(|at| &items[at]);
            let named = is(before, ".") || is(before, "|") || is(before, "is");
            keyword && !named && !(is(before, "not") && is(before_that, "is"))
        }
        _ => false,
    }
}

/// Signs of arithmetic, those that bind least first.
const LEVELS: [&[&str]; 4] = [&["+", "-"], &["~"], &["*", "/", "//", "%"], &["**"]];

/// What stands for the signs whose results can be larger than what they are given, or speak of it when they fail.
const FUNCTIONS: [(&str, &str); 4] = [("+", "__add"), ("-", "__sub"), ("~", "__cat"), ("*", "__mul")];

/// Writes a piece of arithmetic from `level` on. All of them group to the left.
fn piece(items: &[Item<'_>], level: usize, out: &mut String) -> Result<(), Fault> {
    let Some(signs) = LEVELS.get(level) else {
        return operand(items, out);
    };
    let mut parts = Vec::new();
    let mut start = 0;
    for at in 0..items.len() {
        if let Some(sign) = binary(items, at).filter(|sign| signs.contains(sign)) {
            parts.push((&items[start..at], sign));
            start = at + 1;
        }
    }
    let Some((first, _)) = parts.first() else {
        return piece(items, level + 1, out);
    };
    if parts.iter().any(|(part, _)| part.is_empty()) || start == items.len() {
        return Err(Fault::new("a value is missing beside a sign"));
    }
    let mut whole = String::new();
    piece(first, level + 1, &mut whole)?;
    let ends = parts
        .iter()
        .skip(1)
        .map(|(part, _)| *part)
        .chain([&items[start..]]);
    let mut last = "";
    for ((_, sign), right) in parts.iter().zip(ends) {
        let mut other = String::new();
        piece(right, level + 1, &mut other)?;
        let function = FUNCTIONS.iter().find(|(known, _)| known == sign);
        whole = match function {
            // One call for a chain, so that it does not nest.
            Some(_) if last == *sign => format!("{},{other})", &whole[..whole.len() - 1]),
            Some((_, function)) => format!("{function}({whole},{other})"),
            None => format!("({whole} {sign} {other})"),
        };
        last = sign;
    }
    out.push(' ');
    out.push_str(&whole);
    Ok(())
}

/// The sign at `at`, if it stands between two operands.
fn binary<'a>(items: &[Item<'a>], at: usize) -> Option<&'a str> {
    let sign = arithmetic(&items[at])?;
    let before = items.get(at.checked_sub(1)?)?;
    arithmetic(before).is_none().then_some(sign)
}

fn arithmetic<'a>(item: &Item<'a>) -> Option<&'a str> {
    match item {
        Item::Word(word) if word.kind == Kind::Sign => LEVELS
            .iter()
            .any(|signs| signs.contains(&word.text))
            .then_some(word.text),
        _ => None,
    }
}

fn operand(items: &[Item<'_>], out: &mut String) -> Result<(), Fault> {
    for item in items {
        write(item, out)?;
    }
    Ok(())
}

fn write(item: &Item<'_>, out: &mut String) -> Result<(), Fault> {
    match item {
        Item::Word(word) => {
            space(word, out);
            match word.kind {
                Kind::Reference => out.push_str(&reference(word.text)?),
                Kind::Name if word.text.starts_with(OURS) => {
                    return Err(Fault::new("names that begin with __ are not for templates"));
                }
                _ => out.push_str(word.text),
            }
        }
        Item::Group(open, content, close) => {
            space(open, out);
            out.push_str(open.text);
            pieces(content, out)?;
            space(close, out);
            out.push_str(close.text);
        }
    }
    Ok(())
}

/// Line ends are kept, because the engine counts them.
fn space(word: &Token<'_>, out: &mut String) {
    if word.spaced {
        out.push(' ');
    }
    out.extend(std::iter::repeat_n('\n', word.lines));
}
