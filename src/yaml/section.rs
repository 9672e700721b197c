//! What a map of a project file may hold: one table from which it is read, checked and described.
//!
//! ```text
//!                 ┌─► fields: unknown keys, problems with hints
//! Section ─ Key ──┼─► JSON Schema, for editors
//!                 └─► reference, for people
//! ```

/// A map of known keys.
#[derive(Debug)]
pub struct Section {
    /// What the map is called in the JSON Schema and the reference: `rate_limit`. Unique; empty if it is in neither.
    pub id: &'static str,
    /// What the map describes, with an article, for messages: `a rate limit`.
    pub title: &'static str,
    /// One or two sentences.
    pub doc: &'static str,
    /// A whole map in one line of YAML with all that is required, from which the examples of its keys are completed.
    pub example: &'static str,
    /// Its own keys.
    pub own: &'static [Key],
    /// Keys it has in common with other maps, in groups.
    pub shared: &'static [&'static [Key]],
    /// Keys that are read or passed over and described elsewhere.
    pub names: &'static [&'static str],
    /// What holds between keys.
    pub rules: &'static [Rule],
    /// Keys that will be read one day; refused with words that say so.
    pub planned: &'static [&'static str],
    /// Whether a key with nothing behind it counts as absent; else it is a problem.
    pub null_is_absent: bool,
}

/// One key of a map.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// The key.
    pub name: &'static str,
    /// What may stand behind it.
    pub takes: Takes,
    /// Whether its absence is a problem.
    pub required: bool,
    /// What holds without it, as it would be written; `None` if that cannot be written, and then `doc` says it.
    pub default: Option<&'static str>,
    /// What it means, in sentences.
    pub doc: &'static str,
    /// A value in one line of YAML. Empty for a map whose section has an example.
    pub example: &'static str,
    /// Further values, for a key that takes several forms.
    pub more: &'static [&'static str],
    /// What else the example needs in the same map, as a map in one line of YAML.
    pub beside: &'static str,
}

/// What may stand behind a key.
#[derive(Clone, Copy, Debug)]
pub enum Takes {
    /// Text, not empty.
    Text,
    /// Text, perhaps empty.
    AnyText,
    /// Text that matches a regular expression, and in words what that is: `one word`.
    Matching(&'static str, &'static str),
    /// Text, a number, true or false, taken as written.
    Scalar,
    /// As [`Takes::Scalar`], with references in texts.
    Reference,
    /// As [`Takes::Scalar`], with templates and references in texts.
    Template,
    /// Text with references; as it stands in the file it gets a warning.
    Secret,
    /// An expression of the template language, without braces.
    Expression,
    /// `true` or `false`.
    Boolean,
    /// A whole number, from and to.
    Integer(u64, u64),
    /// A number, from and to.
    Number(f64, f64),
    /// A whole number and a unit.
    Duration,
    /// A number of bytes, plain or with a unit.
    Size,
    /// A JSONPath.
    Path,
    /// A JSONPath into the body of a response, or `header:NAME`.
    Place,
    /// An http or https URL.
    Url,
    /// A file or folder, relative to the project.
    File,
    /// The name of a source or stream.
    Name,
    /// This word alone; says which of several maps this is.
    Word(&'static str),
    /// One of some words, each with its meaning; that may be empty where the word says it.
    Choice(&'static [(&'static str, &'static str)]),
    /// Any JSON.
    Json,
    /// A list, each item of it.
    List(&'static Takes),
    /// Free keys, each with such a value.
    Map(&'static Takes),
    /// Names of sources or streams, each with such a map.
    Named(&'static Section),
    /// A map.
    Section(&'static Section),
    /// One of some maps; a key that takes a [`Takes::Word`] in each of them says which.
    Tagged(&'static [&'static Section]),
    /// A short form and a long one, or several.
    Either(&'static [Takes]),
}

/// What holds between the keys of a map.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// Exactly one of these.
    One(&'static [&'static str]),
    /// One of these or none.
    AtMostOne(&'static [&'static str]),
    /// One of these or more.
    AtLeastOne(&'static [&'static str]),
    /// The first key is required unless the second holds one of these words.
    RequiredUnless(&'static str, &'static str, &'static [&'static str]),
}

/// An optional key without a default. A table of keys reads as one line each.
pub const fn key(name: &'static str, takes: Takes) -> Key {
    Key {
        name,
        takes,
        required: false,
        default: None,
        doc: "",
        example: "",
        more: &[],
        beside: "",
    }
}

impl Takes {
    /// The words it may be, with their meanings, also those of a short form.
    pub fn words(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Choice(words) => words.to_vec(),
            Self::Either(forms) => forms.iter().flat_map(|form| form.words()).collect(),
            _ => Vec::new(),
        }
    }
}

impl Key {
    /// Its absence is a problem.
    #[must_use]
    pub const fn required(self) -> Self {
        Self {
            required: true,
            ..self
        }
    }

    /// What holds without it, in YAML.
    #[must_use]
    pub const fn default(self, yaml: &'static str) -> Self {
        Self {
            default: Some(yaml),
            ..self
        }
    }

    /// What it means.
    #[must_use]
    pub const fn doc(self, doc: &'static str) -> Self {
        Self { doc, ..self }
    }

    /// A value, in one line of YAML.
    #[must_use]
    pub const fn example(self, yaml: &'static str) -> Self {
        Self {
            example: yaml,
            ..self
        }
    }

    /// Further values, for a key that takes several forms.
    #[must_use]
    pub const fn more(self, yaml: &'static [&'static str]) -> Self {
        Self { more: yaml, ..self }
    }

    /// What else the examples need in the same map: `{ records: 100 }`.
    #[must_use]
    pub const fn beside(self, yaml: &'static str) -> Self {
        Self { beside: yaml, ..self }
    }

    /// Every value that shows it, the first one first.
    pub fn examples(&self) -> impl Iterator<Item = &'static str> {
        let written = [self.example].into_iter().chain(self.more.iter().copied());
        written.filter(|example| !example.is_empty())
    }
}

impl Section {
    /// A map with these keys.
    pub const fn new(id: &'static str, title: &'static str, doc: &'static str, own: &'static [Key]) -> Self {
        Self {
            id,
            title,
            doc,
            own,
            ..Self::names(title, &[])
        }
    }

    /// A map of a format that somebody else describes.
    pub const fn names(title: &'static str, names: &'static [&'static str]) -> Self {
        Self {
            id: "",
            title,
            doc: "",
            example: "",
            own: &[],
            shared: &[],
            names,
            rules: &[],
            planned: &[],
            null_is_absent: false,
        }
    }

    /// A whole map in one line of YAML.
    #[must_use]
    pub const fn example(self, yaml: &'static str) -> Self {
        Self {
            example: yaml,
            ..self
        }
    }

    /// Groups of keys that other maps have too.
    #[must_use]
    pub const fn shared(self, groups: &'static [&'static [Key]]) -> Self {
        Self {
            shared: groups,
            ..self
        }
    }

    /// What holds between its keys.
    #[must_use]
    pub const fn rules(self, rules: &'static [Rule]) -> Self {
        Self { rules, ..self }
    }

    /// Keys that will be read one day.
    #[must_use]
    pub const fn planned(self, planned: &'static [&'static str]) -> Self {
        Self { planned, ..self }
    }

    /// A key with nothing behind it counts as absent.
    #[must_use]
    pub const fn null_is_absent(self) -> Self {
        Self {
            null_is_absent: true,
            ..self
        }
    }

    /// Every key that is described, its own first.
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> {
        let shared: &'static [&'static [Key]] = self.shared;
        self.own.iter().chain(shared.iter().copied().flatten())
    }

    /// The name of every key there may be.
    pub fn known(&self) -> impl Iterator<Item = &'static str> {
        self.keys().map(|key| key.name).chain(self.names.iter().copied())
    }
}
