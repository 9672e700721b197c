//! Files that records point to: the settings.

use crate::{
    config::{request::Request, text::Expr},
    json::JsonPath,
};

/// Files that records point to. They are stored by their content beside the pages, and rows point to them.
#[derive(Clone, Debug)]
pub struct Files {
    /// The URL within a record, of the source or of one of [`Files::hosts`], or whatever else `request` is made of. A
    /// record without one has no file.
    pub url: JsonPath,
    /// Asks the source for the file, over `file.url` and `config`; without it the URL is fetched.
    pub request: Option<Request>,
    /// Where the answer to `request` holds the URL of the file; without it that answer is the file.
    pub target: Option<JsonPath>,
    /// The SHA-256 or MD5 of the file within a record, in hex or base64; checked if there is one.
    pub checksum: Option<JsonPath>,
    /// Only for records for which this holds, over `record` and `config`.
    pub only: Option<Expr>,
    /// Larger files are refused, in bytes. Default 1 GiB.
    pub bytes_max: u64,
    /// The member that each record gets: path in the lake, bytes, SHA-256, type; or why there is no file.
    pub column: String,
    /// Hosts that files may be downloaded from besides the source's own, without credentials.
    pub hosts: Vec<String>,
    /// Files of one page downloaded at the same time. Default 4.
    pub at_once: u32,
}

impl Files {
    /// Default of [`Files::bytes_max`].
    pub const BYTES_MAX_DEFAULT: u64 = 1 << 30;
    /// Default of [`Files::column`].
    pub const COLUMN_DEFAULT: &str = "_file";
    /// Default of [`Files::at_once`].
    pub const AT_ONCE_DEFAULT: u32 = 4;
}
