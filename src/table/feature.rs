//! What a table says of itself in the commit that needs it: columns that it lacked, and that its files have deletion
//! vectors.

use arrow::datatypes::Schema;
use deltalake::kernel::{Action, Metadata, MetadataExt as _, Protocol};
use serde_json::{Value, json};

use super::{Table, lower};
use crate::error::{Error, ErrorKind, Result};

/// The table feature, for readers and writers.
const FEATURE: &str = "deletionVectors";

/// The table property under which writers may make deletion vectors.
const ENABLED: &str = "delta.enableDeletionVectors";

/// The versions of reader and writer from which on features are named.
const NAMING: (i64, i64) = (3, 7);

/// What readers and writers of lower versions support without a name, by the version that brought it.
const UNNAMED_OF_READERS: [(i64, &str); 1] = [(2, "columnMapping")];
const UNNAMED_OF_WRITERS: [(i64, &str); 7] = [
    (2, "appendOnly"),
    (2, "invariants"),
    (3, "checkConstraints"),
    (4, "changeDataFeed"),
    (4, "generatedColumns"),
    (5, "columnMapping"),
    (6, "identityColumns"),
];

impl Table {
    /// Adds to `actions` what the table has to say of itself with them. It gets the columns of `schema`.
    pub(super) fn announce(&self, actions: &mut Vec<Action>, schema: Option<&Schema>) -> Result<()> {
        let marks = |action: &Action| matches!(action, Action::Add(file) if file.deletion_vector.is_some());
        let state = self.state()?;
        let metadata = match schema {
            Some(schema) => Some(self.metadata_with(schema)?),
            None => None,
        };
        if !actions.iter().any(marks) {
            actions.extend(metadata.map(Action::Metadata));
            return Ok(());
        }
        actions.extend(with_feature(state.protocol())?.map(Action::Protocol));
        let own: &Metadata = metadata.as_ref().unwrap_or(state.metadata());
        let enabled = own
            .configuration()
            .get(ENABLED)
            .is_some_and(|value| value == "true");
        let metadata = match enabled {
            true => metadata,
            false => {
                let enabled = own.clone().add_config_key(ENABLED.to_owned(), "true".to_owned());
                Some(enabled.map_err(|source| {
                    lower(source.into(), "allow deletion vectors").with("table", &self.path)
                })?)
            }
        };
        actions.extend(metadata.map(Action::Metadata));
        Ok(())
    }
}

/// `protocol` with the feature; `None` if it has it.
fn with_feature(protocol: &Protocol) -> Result<Option<Protocol>> {
    let unread = |source| Error::new(ErrorKind::Internal, "name table features").caused_by(source);
    let mut text = serde_json::to_value(protocol).map_err(unread)?;
    let sides = [
        (
            "minReaderVersion",
            "readerFeatures",
            NAMING.0,
            &UNNAMED_OF_READERS[..],
        ),
        (
            "minWriterVersion",
            "writerFeatures",
            NAMING.1,
            &UNNAMED_OF_WRITERS[..],
        ),
    ];
    let mut changed = false;
    for (version, features, naming, unnamed) in sides {
        let current = text[version].as_i64().unwrap_or(0);
        let mut names: Vec<Value> = if current < naming {
            let implied = unnamed.iter().filter(|(since, _)| *since <= current);
            implied.map(|(_, name)| json!(name)).collect()
        } else {
            text[features].as_array().cloned().unwrap_or_default()
        };
        if !names.contains(&json!(FEATURE)) {
            names.push(json!(FEATURE));
            changed = true;
        }
        text[version] = json!(naming.max(current));
        text[features] = names.into();
    }
    match changed {
        true => serde_json::from_value(text).map(Some).map_err(unread),
        false => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_protocol_keeps_what_it_meant_without_names() {
        let feature = |protocol: Value| {
            let protocol: Protocol = serde_json::from_value(protocol).unwrap();
            let with = with_feature(&protocol).unwrap();
            with.map(|with| serde_json::to_value(&with).unwrap().to_string())
        };
        insta::assert_snapshot!(
            feature(json!({"minReaderVersion": 1, "minWriterVersion": 2})).unwrap(),
            @r#"{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"],"writerFeatures":["appendOnly","invariants","deletionVectors"]}"#
        );
        insta::assert_snapshot!(
            feature(json!({"minReaderVersion": 2, "minWriterVersion": 5})).unwrap(),
            @r#"{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["columnMapping","deletionVectors"],"writerFeatures":["appendOnly","invariants","checkConstraints","changeDataFeed","generatedColumns","columnMapping","deletionVectors"]}"#
        );
        let zoneless = json!({
            "minReaderVersion": 3, "minWriterVersion": 7,
            "readerFeatures": ["timestampNtz"], "writerFeatures": ["timestampNtz"],
        });
        let with = feature(zoneless).unwrap();
        insta::assert_snapshot!(
            with,
            @r#"{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["timestampNtz","deletionVectors"],"writerFeatures":["timestampNtz","deletionVectors"]}"#
        );
        assert_eq!(feature(serde_json::from_str(&with).unwrap()), None, "it has it");
    }
}
