//! Text of the project file with templates and references in it.
//!
//! ```text
//! "Bearer ${env:TOKEN}"                 reference: resolved each time it is used, never shown
//! "/orders/{{ slice.order }}"           template: rendered for each request from Vars
//! "{{ page.number | hmac_sha256(${env:KEY}) }}"   both
//! ```
//!
//! Templates are those of [minijinja](https://docs.rs/minijinja) with `if`, `for` and `set`, without whatever reads
//! other files. Undefined values are errors. Steps, work and output have limits, and whatever could grow without them
//! is rewritten first (see `lower`), so that no template of a stranger takes the program down.
//!
//! # What templates can call
//!
//! | | |
//! |---|---|
//! | texts | `lower` `upper` `title` `capitalize` `trim` `replace(a, b)` `split(sep)` `join(sep)` `length` `string` `regex_find(re)` `regex_replace(re, with)` |
//! | numbers | `int` `float` `round(n)` `abs` `sum` `min` `max`, `range(n)`; `+ - *` are for numbers, `~` joins texts |
//! | lists and maps | `first` `last` `list` `map` `select` `selectattr` `reject` `rejectattr` `sort` `unique` `reverse` `items` `dictsort` |
//! | anything | `default(value)` `bool` `tojson`, and tests such as `is defined`, `is none`, `is string` |
//! | time | `now`, `now_utc()`, `today_utc()`, `day_delta(-1)`, `add('-1d')`, `date`, `epoch`, `epoch_ms`, `strftime('%Y-%m-%d')`, `format_datetime(value, format, format of the value)`, `duration('P1D')` to add or subtract |
//! | signing | `base64` `base64_decode` `sha256` `hmac_sha256(key)`, the last two in hex or, with `'base64'` behind, in base64 |
//! | URLs | `urlencode` |

mod engine;
mod fault;
mod functions;
mod json;
mod lower;
#[cfg(test)]
mod tests;
mod times;
mod tokens;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
};

use bytes::Bytes;
use chrono::SecondsFormat;
use minijinja::value::{Serde, Value as Variable};
use serde_json::Value;

use self::{engine::Mode, fault::Fault, lower::Lowered};
use crate::{
    clock::Timestamp,
    config::secret::Secret,
    error::{Error, ErrorKind, Result},
};

/// Steps one template may take.
pub const FUEL_MAX: u64 = 100_000;

/// Longest text a template may render to, or make on the way, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Most characters of a template repeated in an error.
const SHOWN_CHARS_MAX: usize = 120;

/// Text with `{{ … }}` templates and `${…}` references in it.
///
/// `Debug` and `Display` print references by name and never a value.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    secret: Secret,
    /// None if there is no template in it.
    template: Option<Box<Lowered>>,
}

/// An expression of the template language, without braces: `response.status == "done"`.
#[derive(Clone, PartialEq, Eq)]
pub struct Expr {
    written: String,
    lowered: Box<Lowered>,
}

/// The variables of templates and expressions, by name. `Debug` prints the names alone.
#[derive(Clone, Default)]
pub struct Vars(BTreeMap<&'static str, Variable>);

impl Text {
    /// Reads `text`; nothing is rendered yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a reference that cannot be read or a template that cannot be parsed. The error
    /// repeats nothing of the text but names of the template language.
    ///
    /// ```
    /// use landfall::config::text::{Text, Vars};
    /// let path = Text::parse("/orders/{{ slice.order }}/lines")?;
    /// let vars = Vars::default().with("slice", &serde_json::json!({"order": 7}));
    /// assert_eq!(path.render(&vars)?, "/orders/7/lines");
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let secret = Secret::parse(text)?;
        let template = lowered(&secret).map_err(|fault| unread("read template", &fault))?;
        Ok(Self { secret, template })
    }

    /// As [`Self::parse`] for text whose references can be read; else what is wrong with its templates, and what to do.
    pub(crate) fn read(secret: Secret) -> std::result::Result<Self, (String, Option<&'static str>)> {
        let template = lowered(&secret).map_err(|fault| (fault.what().to_owned(), fault.what_to_do()))?;
        Ok(Self { secret, template })
    }

    /// Text that is taken as it stands.
    pub fn literal(text: impl Into<String>) -> Self {
        Self {
            secret: Secret::literal(text),
            template: None,
        }
    }

    /// The same text with the relative paths of its references taken from `dir`.
    #[must_use]
    pub fn relative_to(self, dir: &Path) -> Self {
        Self {
            secret: self.secret.relative_to(dir),
            ..self
        }
    }

    /// Whether it is rendered from variables.
    pub fn is_template(&self) -> bool {
        self.template.is_some()
    }

    /// Whether any part comes from outside the file and is secret.
    pub fn is_reference(&self) -> bool {
        self.secret.is_reference()
    }

    /// The top-level names its templates use and do not set themselves; functions are not among them.
    pub fn variables(&self) -> BTreeSet<String> {
        let template = self.template.as_deref();
        let parsed =
            template.and_then(|lowered| engine::of(Mode::Plain).template_from_str(&lowered.source).ok());
        parsed.map_or_else(BTreeSet::new, |parsed| {
            foreign(parsed.undeclared_variables(false))
        })
    }

    /// The values of its references alone, read now.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the variable or file that cannot be read.
    pub fn reveal_references(&self) -> Result<Vec<String>> {
        self.secret.reveal_references()
    }

    /// The text, references revealed and templates rendered. `none` gives nothing.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a reference cannot be read, a variable is undefined, or the template goes beyond
    /// [`FUEL_MAX`] or [`OUTPUT_BYTES_MAX`]. The error shows the expressions and no value.
    pub fn render(&self, vars: &Vars) -> Result<String> {
        match &self.template {
            Some(lowered) => self.run(lowered, vars, Mode::Plain),
            None => self.secret.reveal(),
        }
    }

    /// As [`Self::render`], for a part of a URL's path: what expressions and references give is percent-encoded, so
    /// that it stays within its segment.
    ///
    /// # Errors
    /// Those of [`Self::render`], and [`ErrorKind::Config`] for an expression that gives nothing, and for a segment
    /// that is `.` or `..` in the end: neither can be told from another path.
    ///
    /// ```
    /// use landfall::config::text::{Text, Vars};
    /// let path = Text::parse("/files/{{ slice.name }}")?;
    /// let vars = |name: &str| Vars::default().with("slice", &serde_json::json!({"name": name}));
    /// assert_eq!(path.render_path(&vars("a/b?c"))?, "/files/a%2Fb%3Fc");
    /// assert!(path.render_path(&vars("..")).is_err());
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn render_path(&self, vars: &Vars) -> Result<String> {
        let path = match &self.template {
            Some(lowered) => self.run(lowered, vars, Mode::Path)?,
            None if self.is_reference() => self.reveal_encoded()?,
            None => return self.secret.reveal(),
        };
        let dots = |segment: &str| {
            matches!(
                segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
                "." | ".."
            )
        };
        if path.split(['/', '?']).any(dots) {
            return Err(Error::new(ErrorKind::Config, "render path")
                .with("template", self.shown())
                .with(
                    "problem",
                    "a value makes a segment . or .., which would lead elsewhere",
                ));
        }
        Ok(path)
    }

    /// The value of a text that is one expression, `{{ … }}` and nothing around it, with its type; else its text.
    ///
    /// # Errors
    /// Those of [`Self::render`].
    pub fn render_json(&self, vars: &Vars) -> Result<Value> {
        let lowered = self.template.as_deref();
        let Some((lowered, whole)) = lowered.and_then(|lowered| Some((lowered, lowered.whole.as_deref()?)))
        else {
            return self.render(vars).map(Value::String);
        };
        engine::eval(whole, self.root(vars)?)
            .and_then(|value| Ok(json::to_json(&value)?))
            .map_err(|cause| failed(lowered, vars, &cause))
    }

    /// The text; of one that is one expression, `{{ … }}` and nothing around it, and gives a list, one for each element.
    ///
    /// # Errors
    /// Those of [`Self::render`].
    ///
    /// ```
    /// use landfall::config::text::{Text, Vars};
    /// let vars = Vars::default().with("slice", &serde_json::json!({"ids": [7, "a"]}));
    /// assert_eq!(Text::parse("{{ slice.ids }}")?.render_each(&vars)?, ["7", "a"]);
    /// assert_eq!(Text::parse("{{ slice.ids | join(',') }}")?.render_each(&vars)?, ["7,a"]);
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn render_each(&self, vars: &Vars) -> Result<Vec<String>> {
        let lowered = self.template.as_deref();
        let whole = lowered.and_then(|lowered| Some((lowered, lowered.whole.as_deref()?)));
        if let Some((lowered, whole)) = whole {
            let given = engine::eval(whole, self.root(vars)?).and_then(|value| engine::texts_of(&value));
            if let Some(texts) = given.map_err(|cause| failed(lowered, vars, &cause))? {
                return Ok(texts);
            }
        }
        Ok(vec![self.render(vars)?])
    }

    /// What stands outside its tags and references, each of which is one NUL character.
    pub(crate) fn outside(&self) -> String {
        match &self.template {
            Some(lowered) => lowered.outside.clone(),
            None => {
                let marked = self.secret.as_marked();
                let plain = marked.split(tokens::MARK).step_by(2);
                plain.collect::<Vec<&str>>().join("\0")
            }
        }
    }

    /// The text before its templates are rendered.
    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The text as it stands in the project file: references by name, literals in full. Never for a log.
    pub(crate) fn as_written(&self) -> String {
        self.secret.as_written()
    }

    fn run(&self, lowered: &Lowered, vars: &Vars, mode: Mode) -> Result<String> {
        engine::render(&lowered.source, self.root(vars)?, mode).map_err(|cause| failed(lowered, vars, &cause))
    }

    /// Everything its templates can name.
    fn root(&self, vars: &Vars) -> Result<Variable> {
        let references = self.secret.reveal_references()?.into_iter().enumerate();
        let named = |(number, value)| {
            (
                format!("{}reference_{number}", lower::OURS),
                Variable::from(value),
            )
        };
        Ok(vars.root(references.map(named)))
    }

    fn reveal_encoded(&self) -> Result<String> {
        let marked = self.secret.as_marked();
        let mut references = self.secret.reveal_references()?.into_iter();
        // Text and numbers of references take turns.
        let parts = marked.split(tokens::MARK).enumerate().map(|(turn, part)| {
            if turn % 2 == 0 {
                part.to_owned()
            } else {
                percent_encoded(&references.next().unwrap_or_default())
            }
        });
        Ok(parts.collect())
    }

    fn shown(&self) -> String {
        match &self.template {
            Some(lowered) => shown(lowered),
            None => self.secret.to_string(),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.secret.fmt(f)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({})", self.secret)
    }
}

impl From<Secret> for Text {
    fn from(secret: Secret) -> Self {
        Self {
            secret,
            template: None,
        }
    }
}

impl Expr {
    /// Reads an expression; braces around it may be left out.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it cannot be parsed.
    ///
    /// ```
    /// use landfall::config::text::{Expr, Vars};
    /// let done = Expr::parse("response.status in ['done', 'failed']")?;
    /// let vars = Vars::default().with_json("response", r#"{"status": "done"}"#.into())?;
    /// assert!(done.is_true(&vars)?);
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        Self::lowered(text).map_err(|fault| unread("read expression", &fault))
    }

    /// As [`Self::parse`]; else what is wrong with it, and what to do.
    pub(crate) fn read(text: &str) -> std::result::Result<Self, (String, Option<&'static str>)> {
        Self::lowered(text).map_err(|fault| (fault.what().to_owned(), fault.what_to_do()))
    }

    fn lowered(text: &str) -> std::result::Result<Self, Fault> {
        let text = text.trim();
        let bare = text
            .strip_prefix("{{")
            .and_then(|text| text.strip_suffix("}}"))
            .unwrap_or(text);
        if bare.contains("${") || bare.contains(tokens::MARK) {
            return Err(Fault::new("an expression takes no references"));
        }
        let lowered = lower::expression(bare)?;
        let parsed = engine::of(Mode::Plain).compile_expression(&lowered.source);
        parsed.map_err(|cause| Fault::of(&cause))?;
        engine::check_names(&lowered)?;
        Ok(Self {
            written: bare.trim().to_owned(),
            lowered: Box::new(lowered),
        })
    }

    /// Its value.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a variable is undefined or the work goes beyond [`FUEL_MAX`].
    pub fn value(&self, vars: &Vars) -> Result<Value> {
        self.eval(vars)
            .and_then(|value| Ok(json::to_json(&value)?))
            .map_err(|cause| failed(&self.lowered, vars, &cause))
    }

    /// As [`Self::value`], and none for what is not there: a value in answers of any shape.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it goes wrong in another way.
    pub fn value_if_any(&self, vars: &Vars) -> Result<Option<Value>> {
        match self.eval(vars) {
            Ok(value) if value.is_undefined() => Ok(None),
            Ok(value) => {
                let json = json::to_json(&value).map_err(minijinja::Error::from);
                json.map(Some)
                    .map_err(|cause| failed(&self.lowered, vars, &cause))
            }
            Err(cause) if Fault::of(&cause).is_missing() => Ok(None),
            Err(cause) => Err(failed(&self.lowered, vars, &cause)),
        }
    }

    /// Whether its value counts as true. Nothing, 0, an empty text, list or map, and a missing member do not.
    ///
    /// # Errors
    /// Those of [`Self::value`].
    pub fn is_true(&self, vars: &Vars) -> Result<bool> {
        self.eval(vars)
            .map(|value| value.is_true())
            .map_err(|cause| failed(&self.lowered, vars, &cause))
    }

    /// As [`Self::is_true`], and what is not there does not hold: a condition over answers of any shape.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it goes wrong in another way.
    ///
    /// ```
    /// use landfall::config::text::{Expr, Vars};
    /// let vars = Vars::default().with("response", &serde_json::json!({"error": {"code": 17}}));
    /// assert!(Expr::parse("response.error.code == 17")?.holds(&vars)?);
    /// assert!(!Expr::parse("response.fault.code == 17")?.holds(&vars)?);
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn holds(&self, vars: &Vars) -> Result<bool> {
        match self.eval(vars) {
            Ok(value) => Ok(value.is_true()),
            Err(cause) if Fault::of(&cause).is_missing() => Ok(false),
            Err(cause) => Err(failed(&self.lowered, vars, &cause)),
        }
    }

    /// The top-level names it uses; functions are not among them.
    pub fn variables(&self) -> BTreeSet<String> {
        let parsed = engine::of(Mode::Plain)
            .compile_expression(&self.lowered.source)
            .ok();
        parsed.map_or_else(BTreeSet::new, |parsed| {
            foreign(parsed.undeclared_variables(false))
        })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.written
    }

    fn eval(&self, vars: &Vars) -> std::result::Result<Variable, minijinja::Error> {
        engine::eval(&self.lowered.source, vars.root([]))
    }
}

impl fmt::Debug for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expr({})", shown(&self.lowered))
    }
}

impl Vars {
    /// The same variables and one more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &impl serde::Serialize) -> Self {
        self.0.insert(name, Variable::from(Serde(value)));
        self
    }

    /// The same variables and one more from JSON text, looked into only where a template looks.
    ///
    /// A number that would not be written again as it is there (`1.10`, `1e5`, 2^64+1) is the text it is written as.
    /// Members keep their order; of a member given twice the first counts.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] if it is not one JSON text in UTF-8, or nests too deep.
    ///
    /// ```
    /// use landfall::config::text::{Text, Vars};
    /// let vars = Vars::default().with_json("response", r#"{"total": 1.10, "id": 18446744073709551617}"#.into())?;
    /// let text = Text::parse("{{ response.total }} {{ response.id }}")?;
    /// assert_eq!(text.render(&vars)?, "1.10 18446744073709551617");
    /// # Ok::<(), landfall::error::Error>(())
    /// ```
    pub fn with_json(mut self, name: &'static str, json: Bytes) -> Result<Self> {
        let value = json::value(&json).map_err(|defect| {
            Error::new(ErrorKind::Corrupt, "read JSON for templates")
                .with("variable", name)
                .with("problem", defect)
        })?;
        self.0.insert(name, value);
        Ok(self)
    }

    fn root(&self, more: impl IntoIterator<Item = (String, Variable)>) -> Variable {
        let ours = self
            .0
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        Variable::from(ours.chain(more).collect::<BTreeMap<_, _>>())
    }

    /// The same variables and the moment `now`, as RFC 3339 in UTC with milliseconds.
    #[must_use]
    pub fn with_now(self, now: Timestamp) -> Self {
        self.with("now", &now.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl fmt::Debug for Vars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// `text` as one segment of a path, or part of one: every byte but the unreserved ones of RFC 3986 is `%XX`.
///
/// ```
/// assert_eq!(landfall::config::text::percent_encoded("a b/é~"), "a%20b%2F%C3%A9~");
/// ```
pub fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The templates of a text as the engine gets them, if there are any.
fn lowered(secret: &Secret) -> std::result::Result<Option<Box<Lowered>>, Fault> {
    let marked = secret.as_marked();
    if !marked.contains("{{") && !marked.contains("{%") {
        return Ok(None);
    }
    let lowered = lower::template(&marked)?;
    let parsed = engine::of(Mode::Plain).template_from_str(&lowered.source);
    parsed.map_err(|cause| Fault::of(&cause))?;
    engine::check_names(&lowered)?;
    Ok(Some(Box::new(lowered)))
}

/// Without functions and what stands for references.
fn foreign(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let ours = |name: &String| name.starts_with(lower::OURS) || functions::NAMES.contains(&name.as_str());
    names.into_iter().filter(|name| !ours(name)).collect()
}

fn unread(attempt: &'static str, fault: &Fault) -> Error {
    let error = Error::new(ErrorKind::Config, attempt).with("problem", fault.what());
    match fault.what_to_do() {
        Some(hint) => error.with("hint", hint),
        None => error,
    }
}

/// What went wrong with a template, without anything it was rendered with.
fn failed(lowered: &Lowered, vars: &Vars, cause: &minijinja::Error) -> Error {
    let fault = Fault::of(cause);
    let mut error = unread("render template", &fault).with("template", shown(lowered));
    if let Some(line) = cause.line().filter(|_| lowered.source.contains('\n')) {
        error = error.with("line", line);
    }
    match missing(lowered, vars) {
        Some(path) if fault.is_missing() => error.with("undefined", path),
        _ => error,
    }
}

/// The first path of a template that leads nowhere.
fn missing(lowered: &Lowered, vars: &Vars) -> Option<String> {
    lowered.paths.iter().find_map(|path| {
        let (root, members) = path.split_first()?;
        let mut value = vars.0.get(root.as_str())?.clone();
        for (at, member) in members.iter().enumerate() {
            value = value.get_attr(member).ok()?;
            if value.is_undefined() {
                return Some(path[..at + 2].join("."));
            }
        }
        None
    })
}

fn shown(lowered: &Lowered) -> String {
    match lowered.shown.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((cut, _)) => format!("{}…", &lowered.shown[..cut]),
        None => lowered.shown.clone(),
    }
}
