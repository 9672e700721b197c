//! What the bodies of a stream are written in: the settings.

use std::time::Duration;

use crate::{
    config::{request::Request, text::Expr},
    json::JsonPath,
};

/// What the bodies of a stream are written in. They are landed as they came; this says how records are read out of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    /// The file format around the body.
    pub container: Container,
    /// How records are written.
    pub syntax: Syntax,
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
    /// One JSON text a line.
    JsonLines,
    /// RFC 4180 and its relatives.
    Csv(Csv),
    /// XML as JSON: attributes as `@name`, text beside elements as `#text`, repeated elements as arrays.
    Xml,
}

/// How a CSV body is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Csv {
    /// Between fields. Default `,`.
    pub delimiter: u8,
    /// Around fields. Default `"`.
    pub quote: u8,
    /// The names of the columns; none: they stand in the first line.
    pub columns: Option<Vec<String>>,
    /// Lines before the first that counts.
    pub skip_lines: u32,
    /// `utf-8`, `latin1` or `utf-16`. Default `utf-8`.
    pub encoding: Encoding,
}

/// How text is written in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// UTF-8, with or without a byte order mark.
    Utf8,
    /// ISO 8859-1.
    Latin1,
    /// UTF-16 with a byte order mark, else little endian.
    Utf16,
}

/// An export job: asked for, waited for, downloaded.
#[derive(Clone, Debug)]
pub struct Job {
    /// Asks for the export; the stream's own request.
    pub id: JsonPath,
    /// Asks how it stands; `job.id` and `job.response` (the answer to the first request) in templates.
    pub poll: Request,
    /// Where the answer holds the status.
    pub status: JsonPath,
    /// Statuses of a finished job.
    pub done: Vec<String>,
    /// Statuses of a job that will never finish.
    pub failed: Vec<String>,
    /// Between two polls. Default 5 s, growing to a minute.
    pub every: Duration,
    /// A job that takes longer is given up. Default 1 h.
    pub timeout: Duration,
    /// Where the last poll's answer holds the URLs of the result; of the same origin unless `anywhere`.
    pub urls: Option<JsonPath>,
    /// Fetches the result when there are no URLs.
    pub download: Option<Request>,
    /// Removes the job afterwards.
    pub delete: Option<Request>,
    /// Hosts that results may be downloaded from besides the source's own, without credentials.
    pub hosts: Vec<String>,
}

/// Files that records point to.
#[derive(Clone, Debug)]
pub struct Files {
    /// The URL within a record. A record without one has no file.
    pub url: JsonPath,
    /// The SHA-256 or MD5 of the file within a record, in hex or base64; checked if there is one.
    pub checksum: Option<JsonPath>,
    /// Only for records for which this holds, over `record`.
    pub only: Option<Expr>,
    /// Larger files are refused, in bytes. Default 1 GiB.
    pub bytes_max: u64,
    /// The member that each record gets: path in the lake, bytes, SHA-256, type.
    pub column: String,
    /// Hosts that files may be downloaded from besides the source's own, without credentials.
    pub hosts: Vec<String>,
}

impl Format {
    /// Plain JSON.
    pub const JSON: Self = Self {
        container: Container::Plain,
        syntax: Syntax::Json,
        key_as: None,
    };
}
