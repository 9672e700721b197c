//! Records of several versions in one stream.

use std::path::{Path, PathBuf};

use crate::json::{JsonPath, member::Said};

/// How records say which version they are of, and what judges those that the contract of the stream does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versions {
    /// Where a record says it: a member of it, or of objects in it.
    pub field: JsonPath,
    /// What it says there, with the contract file of such records, in the order of the project file. The contract of the
    /// stream may be among them: then the value is a known one.
    pub contracts: Vec<(String, PathBuf)>,
}

impl Versions {
    /// The contract file of a record, if it says a version that is listed.
    ///
    /// ```
    /// use landfall::{config::versions::Versions, json::JsonPath};
    /// let versions = Versions {
    ///     field: JsonPath::parse("$.v").unwrap(),
    ///     contracts: vec![("1".to_owned(), "one.yaml".into())],
    /// };
    /// assert_eq!(versions.file_of(br#"{"id": 7, "v": "1"}"#), Some("one.yaml".as_ref()));
    /// assert_eq!(versions.file_of(br#"{"id": 7, "v": 1}"#), Some("one.yaml".as_ref()));
    /// assert_eq!(versions.file_of(br#"{"id": 7, "v": 2}"#), None);
    /// ```
    pub fn file_of(&self, record: &[u8]) -> Option<&Path> {
        let Said::Value(value) = self.field.said(record) else {
            return None;
        };
        let mut listed = self.contracts.iter();
        let (_, file) = listed.find(|(known, _)| *known == value)?;
        Some(file)
    }
}
