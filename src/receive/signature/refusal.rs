//! Why a request is not believed.

use std::fmt;

use crate::config::Name;

/// Why a request is not believed: for our log. Its sender is told nothing but 401.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A header that the scheme needs is not there, or is empty.
    Missing {
        /// Its name.
        header: String,
    },
    /// A header is there more than once, and who reads the first and who the last would differ.
    Duplicate {
        /// Its name.
        header: String,
    },
    /// A header holds what the scheme does not.
    Malformed {
        /// Its name.
        header: String,
        /// What it is not.
        problem: &'static str,
    },
    /// A header holds more signatures than are looked at.
    TooMany {
        /// Its name.
        header: String,
    },
    /// It was signed too long ago.
    Stale {
        /// How long ago.
        seconds: i64,
    },
    /// It was signed in the future.
    Early {
        /// How far in the future.
        seconds: i64,
    },
    /// No secret made any of its signatures.
    Mismatch,
    /// A secret made its signature that is no longer believed.
    Retired {
        /// The name of the secret.
        key: Name,
    },
}

impl Refusal {
    /// One word for counts by class.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::Duplicate { .. } => "duplicate",
            Self::Malformed { .. } => "malformed",
            Self::TooMany { .. } => "too_many",
            Self::Stale { .. } => "stale",
            Self::Early { .. } => "early",
            Self::Mismatch => "mismatch",
            Self::Retired { .. } => "retired",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { header } => write!(f, "{header} is missing"),
            Self::Duplicate { header } => write!(f, "{header} is there more than once"),
            Self::Malformed { header, problem } => write!(f, "{header} {problem}"),
            Self::TooMany { header } => write!(f, "{header} has too many signatures"),
            Self::Stale { seconds } => write!(f, "signed {seconds} s ago"),
            Self::Early { seconds } => write!(f, "signed {seconds} s in the future"),
            Self::Mismatch => f.write_str("no secret made its signature"),
            Self::Retired { key } => write!(f, "signed with {key}, which is retired"),
        }
    }
}
