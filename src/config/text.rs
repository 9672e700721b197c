//! Text of the project file with templates and references in it.
//!
//! ```text
//! "Bearer ${env:TOKEN}"          reference: resolved each time it is used, never shown
//! "/orders/{{ slice.order }}"    template: rendered for each request from Vars
//! ```
//!
//! Templates are those of [minijinja](https://docs.rs/minijinja): no loader, no include, undefined values are errors,
//! and both work and output have limits, so that no template of a stranger takes the program down.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    path::Path,
};

use minijinja::{
    Environment, UndefinedBehavior,
    value::{Serde, Value as Variable},
};
use serde_json::Value;

use crate::{
    config::secret::Secret,
    error::{Error, ErrorKind, Result},
};

/// Steps one template may take.
pub const FUEL_MAX: u64 = 100_000;

/// Longest text a template may render to, in bytes.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

/// Functions that every template can call.
const FUNCTIONS: [&str; 1] = ["range"];

/// Text with `{{ … }}` templates and `${…}` references in it.
///
/// `Debug` and `Display` print references by name and never a value.
#[derive(Clone, PartialEq, Eq)]
pub struct Text {
    secret: Secret,
    /// The template with its references replaced by variables; none if there is no template in it.
    template: Option<String>,
}

/// An expression of the template language, without braces: `response.status == "done"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expr(String);

/// The variables of templates and expressions, by name.
#[derive(Clone, Debug, Default)]
pub struct Vars(BTreeMap<&'static str, Variable>);

impl Text {
    /// Reads `text`; nothing is rendered yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a reference that cannot be read or a template that cannot be parsed.
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
        let template = if text.contains("{{") || text.contains("{%") {
            let source = secret.as_template();
            environment()
                .template_from_str(&source)
                .map_err(|cause| Error::new(ErrorKind::Config, "read template").caused_by(cause))?;
            Some(source)
        } else {
            None
        };
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

    /// The top-level names its templates use and do not set themselves, in order; functions are not among them.
    pub fn variables(&self) -> BTreeSet<String> {
        let environment = environment();
        let template = self
            .template
            .as_deref()
            .and_then(|source| environment.template_from_str(source).ok());
        template.map_or_else(BTreeSet::new, |template| {
            foreign(template.undeclared_variables(false))
        })
    }

    /// The values of its references alone, read now.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming the variable or file that cannot be read.
    pub fn reveal_references(&self) -> Result<Vec<String>> {
        self.secret.reveal_references()
    }

    /// The text, references revealed and templates rendered.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a reference cannot be read, a variable is undefined, or the template goes beyond
    /// [`FUEL_MAX`] or [`OUTPUT_BYTES_MAX`].
    pub fn render(&self, vars: &Vars) -> Result<String> {
        let Some(source) = &self.template else {
            return self.secret.reveal();
        };
        let environment = environment();
        let template = environment.template_from_str(source).map_err(failed)?;
        let mut output = Capped(Vec::new());
        template
            .render_captured_to(Variable::from(self.values(vars)?), &mut output)
            .map_err(failed)?;
        String::from_utf8(output.0)
            .map_err(|cause| Error::new(ErrorKind::Internal, "render template").caused_by(cause))
    }

    /// The value of a text that is one expression, `{{ … }}` and nothing around it, with its type; else its text.
    ///
    /// # Errors
    /// Those of [`Self::render`].
    pub fn render_json(&self, vars: &Vars) -> Result<Value> {
        let whole = self.template.as_deref().map(str::trim);
        let inner = whole.and_then(|text| text.strip_prefix("{{")?.strip_suffix("}}"));
        match inner {
            Some(inner) if !inner.contains("{{") && !inner.contains("}}") && !self.is_reference() => {
                Expr::parse(inner)?.value(vars)
            }
            _ => self.render(vars).map(Value::String),
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

    fn values(&self, vars: &Vars) -> Result<BTreeMap<String, Variable>> {
        let mut all: BTreeMap<String, Variable> = vars
            .0
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()))
            .collect();
        for (number, value) in self.secret.reveal_references()?.into_iter().enumerate() {
            all.insert(format!("__reference_{number}"), Variable::from(value));
        }
        Ok(all)
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
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let bare = text
            .strip_prefix("{{")
            .and_then(|text| text.strip_suffix("}}"))
            .unwrap_or(text);
        environment()
            .compile_expression(bare)
            .map_err(|cause| Error::new(ErrorKind::Config, "read expression").caused_by(cause))?;
        Ok(Self(bare.trim().to_owned()))
    }

    /// Its value.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a variable is undefined or the work goes beyond [`FUEL_MAX`].
    pub fn value(&self, vars: &Vars) -> Result<Value> {
        let found = self.eval(vars)?;
        serde_json::to_value(&found)
            .map_err(|cause| Error::new(ErrorKind::Config, "evaluate expression").caused_by(cause))
    }

    /// Whether its value counts as true.
    ///
    /// # Errors
    /// Those of [`Self::value`].
    pub fn is_true(&self, vars: &Vars) -> Result<bool> {
        self.eval(vars).map(|value| value.is_true())
    }

    /// The top-level names it uses, in order; functions are not among them.
    pub fn variables(&self) -> BTreeSet<String> {
        let environment = environment();
        let expression = environment.compile_expression(&self.0).ok();
        expression.map_or_else(BTreeSet::new, |expression| {
            foreign(expression.undeclared_variables(false))
        })
    }

    /// The expression as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn eval(&self, vars: &Vars) -> Result<Variable> {
        let environment = environment();
        let expression = environment.compile_expression(&self.0).map_err(failed)?;
        expression.eval(&vars.0).map_err(failed)
    }
}

impl Vars {
    /// The same variables and one more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: &impl serde::Serialize) -> Self {
        self.0.insert(name, Variable::from(Serde(value)));
        self
    }
}

/// Refuses what goes beyond [`OUTPUT_BYTES_MAX`].
struct Capped(Vec<u8>);

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > OUTPUT_BYTES_MAX {
            return Err(io::Error::other(format!("more than {OUTPUT_BYTES_MAX} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_fuel(Some(FUEL_MAX));
    environment
}

/// Without functions and what stands for references.
fn foreign(names: impl IntoIterator<Item = String>) -> BTreeSet<String> {
    let ours = |name: &String| name.starts_with("__") || FUNCTIONS.contains(&name.as_str());
    names.into_iter().filter(|name| !ours(name)).collect()
}

fn failed(cause: minijinja::Error) -> Error {
    Error::new(ErrorKind::Config, "render template").caused_by(cause)
}
