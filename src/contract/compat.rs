//! Whether a new version of a contract goes together with those before it, and what to call it.

use std::{fmt, str::FromStr};

use super::{
    Contract,
    diff::{Compatible, Difference, What, diff},
};

/// What a new version of a contract must be to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    /// Whether what was written under an older version must be readable by the new one.
    pub backward: bool,
    /// Whether what is written under the new version must be readable by an older one.
    pub forward: bool,
    /// Whether every version before counts, not only the last.
    pub transitive: bool,
}

impl Mode {
    /// Anything goes.
    pub const NONE: Self = Self {
        backward: false,
        forward: false,
        transitive: false,
    };

    /// What was written under the last version stays readable.
    pub const BACKWARD: Self = Self {
        backward: true,
        ..Self::NONE
    };

    /// Who reads by the last version can go on.
    pub const FORWARD: Self = Self {
        forward: true,
        ..Self::NONE
    };

    /// Both.
    pub const FULL: Self = Self {
        backward: true,
        ..Self::FORWARD
    };

    /// Every mode with its name, the ones that ask for less first.
    pub const ALL: [(&'static str, Self); 7] = [
        ("none", Self::NONE),
        ("backward", Self::BACKWARD),
        ("backward_transitive", Self::BACKWARD.transitive()),
        ("forward", Self::FORWARD),
        ("forward_transitive", Self::FORWARD.transitive()),
        ("full", Self::FULL),
        ("full_transitive", Self::FULL.transitive()),
    ];

    const fn transitive(self) -> Self {
        Self {
            transitive: true,
            ..self
        }
    }

    /// Its name, such as `backward_transitive`.
    pub fn as_str(self) -> &'static str {
        Self::ALL
            .into_iter()
            .find(|(_, mode)| *mode == self)
            .map_or("none", |(name, _)| name)
    }

    fn allows(self, compatible: Compatible) -> bool {
        (!self.backward || compatible.is_backward()) && (!self.forward || compatible.is_forward())
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|(name, _)| *name == text);
        found.map(|(_, mode)| mode).ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|(name, _)| *name).collect();
            format!("not a mode of compatibility; allowed: {}", names.join(", "))
        })
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A difference that a mode does not allow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The older version.
    pub version: String,
    /// What the new one does to it.
    pub difference: Difference,
}

/// What about `new` is against `mode`, seen from `before`, the versions so far in their order.
///
/// ```
/// use landfall::contract::{compat::{Mode, conflicts}, infer::infer};
/// let draft = |record: &str| infer("orders", &[], [record.as_bytes()].into_iter()).unwrap();
/// let (old, new) = (draft(r#"{"id": 1, "note": "x"}"#), draft(r#"{"id": 1}"#));
/// let found = conflicts(Mode::BACKWARD, &[&old], &new);
/// assert_eq!(found[0].difference.path, "note");
/// assert!(conflicts(Mode::NONE, &[&old], &new).is_empty());
/// ```
pub fn conflicts(mode: Mode, before: &[&Contract], new: &Contract) -> Vec<Conflict> {
    let compared = match before {
        [.., last] if !mode.transitive => std::slice::from_ref(last),
        all => all,
    };
    let mut found = Vec::new();
    for old in compared {
        for difference in diff(old, new) {
            if !mode.allows(difference.compatible) {
                found.push(Conflict {
                    version: old.version.clone(),
                    difference,
                });
            }
        }
    }
    found
}

/// Which part of a semantic version has to grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bump {
    /// Nothing is different.
    None,
    /// Words only.
    Patch,
    /// History can be read as before.
    Minor,
    /// It cannot.
    Major,
}

impl Bump {
    /// What the differences ask for.
    pub fn of(differences: &[Difference]) -> Self {
        let one = |difference: &Difference| match difference.what {
            What::WordsChanged | What::StatusChanged => Self::Patch,
            _ if difference.compatible.is_backward() => Self::Minor,
            _ => Self::Major,
        };
        differences.iter().map(one).max().unwrap_or(Self::None)
    }

    /// Its name, such as `minor`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Patch => "patch",
            Self::Minor => "minor",
            Self::Major => "major",
        }
    }

    /// The version after `version`. Before 1.0.0 nothing was promised, so there a major change grows the minor part.
    ///
    /// ```
    /// use landfall::contract::compat::Bump;
    /// assert_eq!(Bump::Minor.after("1.2.3"), "1.3.0");
    /// assert_eq!(Bump::Major.after("1.2.3"), "2.0.0");
    /// assert_eq!(Bump::Major.after("0.2.3"), "0.3.0");
    /// ```
    pub fn after(self, version: &str) -> String {
        let mut parts = version.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        let (major, minor, patch) = (next(), next(), next());
        match self {
            Self::None => version.to_owned(),
            Self::Patch => format!("{major}.{minor}.{}", patch + 1),
            Self::Major if major > 0 => format!("{}.0.0", major + 1),
            Self::Minor | Self::Major => format!("{major}.{}.0", minor + 1),
        }
    }
}

#[cfg(test)]
pub(in crate::contract) mod tests;
