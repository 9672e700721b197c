//! Which nested objects become columns of the table itself.

/// Which nested objects become columns of the table itself, where a contract is drafted or takes new fields.
///
/// A contract that stands is not changed by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Flatten {
    /// None: an object is one column with members. The default.
    #[default]
    None,
    /// All, however deep; not those in lists.
    All,
    /// These, and those around them, as the names of members from the record down.
    Paths(Vec<Vec<String>>),
}

impl Flatten {
    /// Whether the object at `path`, the names of members from the record down, is one of them.
    ///
    /// ```
    /// use landfall::config::flatten::Flatten;
    /// let path = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    /// let flatten = Flatten::Paths(vec![path(&["customer", "address"])]);
    /// assert!(flatten.takes(&path(&["customer"])));
    /// assert!(!flatten.takes(&path(&["customer", "contact"])));
    /// ```
    pub fn takes(&self, path: &[String]) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Paths(paths) => paths.iter().any(|chosen| chosen.starts_with(path)),
        }
    }
}
