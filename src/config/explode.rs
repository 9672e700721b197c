//! Lists that get tables of their own.

/// A list of the main table whose elements are rows of a child table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explode {
    /// Column names from the table down to the list. Lists on the way are taken apart too.
    pub path: Vec<String>,
}

impl Explode {
    /// What the child table is called behind the name of its stream and two underscores: the names of the path in lower
    /// case, every other character an underscore.
    ///
    /// ```
    /// use landfall::config::explode::Explode;
    /// let explode = Explode { path: vec!["lines".into(), "Tax rates".into()] };
    /// assert_eq!(explode.name(), "lines__tax_rates");
    /// ```
    pub fn name(&self) -> String {
        let plain = |letter: char| match letter.to_ascii_lowercase() {
            letter @ ('a'..='z' | '0'..='9' | '-') => letter,
            _ => '_',
        };
        let names = self
            .path
            .iter()
            .map(|name| name.chars().map(plain).collect::<String>());
        names.collect::<Vec<_>>().join("__")
    }
}
