//! What the bodies of a stream are written in: the settings.

/// What the bodies of a stream are written in. They are landed as they came; this says how records are read out of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The file format around the body.
    pub container: Container,
    /// How records are written.
    pub syntax: Syntax,
    /// How text is written in bytes. A byte order mark wins over it, and so does an XML declaration over the default.
    pub encoding: Encoding,
    /// For records that are the members of an object: the name under which each gets the member's own name.
    pub key_as: Option<String>,
}

/// A file format around a body, beyond what HTTP's own content coding undid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// None.
    Plain,
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// A ZIP archive; the records of its files in the order of the archive.
    Zip,
}

/// How records are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Syntax {
    /// One JSON text; records are at the stream's path.
    Json,
    /// One JSON text a line; blank lines are passed over.
    JsonLines,
    /// Each line that is not blank is the text of a record with one member, `{"record": "…"}`.
    Lines,
    /// RFC 4180 and its relatives. Every value is a text, or null; see [`Csv`].
    Csv(Csv),
    /// XML as JSON; see [`Xml`].
    Xml(Xml),
}

/// How a CSV body is written.
///
/// A second column of one name is `name_2`, one without a name `column_3` by its number. A row with more or fewer fields
/// than there are columns is a record that is no object but an array of its fields: nothing is shifted, nothing lost, and
/// the record is quarantined as `not_an_object`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csv {
    /// Between fields. Default `,`.
    pub delimiter: u8,
    /// Around fields that hold delimiters, quotes or line ends; doubled within them. Default `"`; none: a quote is a
    /// letter like others.
    pub quote: Option<u8>,
    /// The names of the columns; none: they stand in the first line that counts.
    pub columns: Option<Vec<String>>,
    /// Lines before the first that counts, in each file of an archive.
    pub skip_lines: u32,
    /// Fields that are null, in quotes or not. Default: the empty one.
    pub nulls: Vec<String>,
}

/// How XML becomes JSON.
///
/// Attributes are members `@name`, child elements members of their name with its prefix; elements of one name side by
/// side are an array. Text is the value of an element that has nothing else, else the member `#text`, without white
/// space at its ends unless that is in a CDATA section. An element without anything, or with `xsi:nil="true"`, is null;
/// a record is an object always. Only XML's own five entities and numbered characters are known: a document with others
/// is not readable, and what a document type declares is never expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Xml {
    /// Names of elements that become an array even when there is only one.
    pub lists: Vec<String>,
}

/// How text is written in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// ISO 8859-1.
    Latin1,
    /// Windows-1252: ISO 8859-1 with letters in the place of control characters.
    Windows1252,
    /// UTF-16 with a byte order mark, else little endian.
    Utf16,
}

impl Format {
    /// Plain JSON.
    pub const JSON: Self = Self {
        container: Container::Plain,
        syntax: Syntax::Json,
        encoding: Encoding::Utf8,
        key_as: None,
    };

    /// Whether bodies are JSON, whatever they are packed in.
    pub fn is_json(&self) -> bool {
        self.syntax == Syntax::Json
    }

    /// Where the records are unless the file says otherwise.
    pub fn records_default(&self) -> &'static str {
        match (&self.syntax, &self.key_as) {
            (Syntax::Json, None) => "$[*]",
            (Syntax::Json, Some(_)) => "$.*",
            (Syntax::Xml(_), _) => "$.*.*",
            (Syntax::JsonLines | Syntax::Lines | Syntax::Csv(_), _) => "$",
        }
    }
}

impl Container {
    /// Its name in the project file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
            Self::Zip => "zip",
        }
    }
}

impl Syntax {
    /// Its name in the project file.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::JsonLines => "jsonl",
            Self::Lines => "lines",
            Self::Csv(_) => "csv",
            Self::Xml(_) => "xml",
        }
    }
}

impl Encoding {
    /// Its name in the project file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Utf8 => "utf-8",
            Self::Latin1 => "latin1",
            Self::Windows1252 => "windows-1252",
            Self::Utf16 => "utf-16",
        }
    }
}

impl Csv {
    /// RFC 4180 with a header line; an empty field is null.
    pub fn standard() -> Self {
        Self {
            delimiter: b',',
            quote: Some(b'"'),
            columns: None,
            skip_lines: 0,
            nulls: vec![String::new()],
        }
    }
}
