//! The one error of the crate: what was attempted, where, and why it failed.
//!
//! Bad data is never an error here; it is a [`Violation`](crate::contract::Violation).

use std::{borrow::Cow, error::Error as StdError, fmt};

/// What an [`Error`] means to the caller; decides the exit code and whether a retry can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The project files or the command line are wrong. Exit code 2.
    Config,
    /// The other side understood and said no (a 4xx answer, an unsafe link).
    Refused,
    /// Something outside did not answer or not well enough. The only retryable kind.
    Unavailable,
    /// Somebody else moved first: another extractor or another transform.
    Conflict,
    /// A contract policy forbids going on. Nothing was written. Exit code 3.
    Contract,
    /// A named limit was reached.
    Limit,
    /// Stored bytes are not what was written.
    Corrupt,
    /// A defect of this program or of a library below it.
    Internal,
}

impl ErrorKind {
    /// The process exit code of this kind: 2 for configuration, 3 for a contract policy, else 1.
    ///
    /// ```
    /// use landfall::error::ErrorKind;
    /// assert_eq!(ErrorKind::Config.exit_code(), 2);
    /// assert_eq!(ErrorKind::Unavailable.exit_code(), 1);
    /// ```
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Config => 2,
            Self::Contract => 3,
            _ => 1,
        }
    }
}

/// A failure with its coordinates.
///
/// The message is a lowercase verb phrase naming what was attempted; the context says where.
/// Neither ever holds record contents or secrets.
///
/// ```
/// use landfall::error::{Error, ErrorKind};
/// let error = Error::new(ErrorKind::Unavailable, "read raw page").with("key", "raw/shop/orders");
/// assert_eq!(error.to_string(), "read raw page (key: raw/shop/orders)");
/// ```
pub struct Error {
    kind: ErrorKind,
    message: Cow<'static, str>,
    context: Vec<(&'static str, String)>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// The result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` for the attempt described by `message`.
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            message: message.into(),
            context: Vec::new(),
            source: None,
        }
    }

    /// Adds one coordinate: where it happened, which limit it met.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        self.context.push((key, value.to_string()));
        self
    }

    /// Records the failure underneath.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What this failure means to the caller.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The attempt alone, without its coordinates.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The whole chain on one line, outermost first, parts separated by `: `.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut next: Option<&(dyn StdError + 'static)> = self.source();
        while let Some(error) = next {
            let part = error.to_string();
            // Libraries often repeat their cause in their own text.
            if !text.ends_with(&part) {
                text.push_str(": ");
                text.push_str(&part);
            }
            next = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for (index, (key, value)) in self.context.iter().enumerate() {
            f.write_str(if index == 0 { " (" } else { ", " })?;
            write!(f, "{key}: {value}")?;
        }
        if !self.context.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.chain())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn StdError + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_names_every_cause_once() {
        let error = Error::new(ErrorKind::Corrupt, "load table").caused_by(
            Error::new(ErrorKind::Unavailable, "read raw page")
                .with("key", "a/b")
                .with("bytes", 3),
        );
        assert_eq!(error.chain(), "load table: read raw page (key: a/b, bytes: 3)");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}
