//! Why a template is refused, in words that hold nothing of what it was rendered with.

use std::{fmt, io};

use minijinja::ErrorKind;

/// A reason that may be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    what: String,
    hint: Option<&'static str>,
    /// Whether it is that a variable or a member of it is missing.
    missing: bool,
}

impl Fault {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            hint: None,
            missing: false,
        }
    }

    /// A value that is not there.
    pub(super) fn undefined() -> Self {
        Self {
            missing: true,
            ..Self::new("a value is not defined")
                .hint("give it one with | default(…), or ask for it with is defined")
        }
    }

    pub(super) fn hint(self, hint: &'static str) -> Self {
        Self {
            hint: Some(hint),
            ..self
        }
    }

    pub(super) fn what(&self) -> &str {
        &self.what
    }

    pub(super) fn is_missing(&self) -> bool {
        self.missing
    }

    pub(super) fn what_to_do(&self) -> Option<&'static str> {
        self.hint
    }

    /// The reason within an error of the engine, or what the engine says without the values it says it of.
    pub(super) fn of(cause: &minijinja::Error) -> Self {
        let mut next: Option<&(dyn std::error::Error + 'static)> = Some(cause);
        while let Some(error) = next {
            // What a writer refuses with is within its error, not behind it.
            let written = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            let written = written.and_then(|inner| inner.downcast_ref::<Self>());
            if let Some(fault) = error.downcast_ref::<Self>().or(written) {
                return fault.clone();
            }
            next = error.source();
        }
        // A detail may repeat a value; only those that speak of the template itself are shown.
        let about_template = matches!(
            cause.kind(),
            ErrorKind::SyntaxError
                | ErrorKind::UnknownFilter
                | ErrorKind::UnknownFunction
                | ErrorKind::UnknownTest
                | ErrorKind::TooManyArguments
                | ErrorKind::MissingArgument
        );
        let detail = cause.detail().filter(|_| about_template);
        Self::new(match (cause.kind(), detail) {
            (ErrorKind::UndefinedError, _) => return Self::undefined(),
            (ErrorKind::OutOfFuel, _) => "it takes too many steps".to_owned(),
            (ErrorKind::InvalidOperation, _) => "an operation does not fit the values it is given".to_owned(),
            (kind, Some(detail)) => format!("{kind}: {detail}"),
            (kind, None) => kind.to_string(),
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for minijinja::Error {
    fn from(fault: Fault) -> Self {
        Self::new(ErrorKind::InvalidOperation, "").with_source(fault)
    }
}
