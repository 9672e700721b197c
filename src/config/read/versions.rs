//! `versions`

use std::path::Path;

use crate::{
    config::{
        read::values::{absolute, json_path},
        versions::Versions,
    },
    yaml::{
        fields::Value,
        section::{
            Section,
            Takes::{self, File, Map},
            key,
        },
    },
};

/// Most values of the version of one stream: each record is compared with them.
const VALUES_MAX: usize = 100;

/// `versions`
pub(super) static VERSIONS: Section = Section::new(
    "versions",
    "versions",
    "Records of several versions in one stream, each judged by the contract of its version. The table has the columns of \
     all of these contracts; a column that several declare needs one type, or in the others one that is held by that of \
     `contract` without loss. Keys and `sequence_by` have to be in each. Only `contract` evolves and is drafted and \
     patched: what the others do not name is kept in `_rescued` under `on_unknown: evolve`.",
    &[
        key("field", Takes::Path)
            .required()
            .doc(
                "Where a record says its version: a member, also in objects. Without it, null there, or another value \
                 than those below, `contract` judges; other values are counted as drift, unless they are the `version` of \
                 `contract`.",
            )
            .example("$.api_version"),
        key("contracts", Map(&File))
            .required()
            .doc(
                "The contract file of each value: text, a number, true or false. At most 100. The file of `contract` may \
                 be among them, to say that its value is known.",
            )
            .example("{ '2024-06': contracts/orders.v1.odcs.yaml }"),
    ],
)
.example("{ field: $.api_version, contracts: { '2024-06': contracts/orders.v1.odcs.yaml } }");

/// Reads `versions`.
pub(super) fn versions(value: Value<'_>, dir: &Path) -> Option<Versions> {
    let fields = value.fields(&VERSIONS)?;
    let field = fields.required("field", |value| {
        let path = json_path(value)?;
        if !path.is_member() {
            let hint = "write names only, such as $.meta.version".to_owned();
            return value.refuse(format!("{path} is not one member of a record"), Some(hint));
        }
        Some(path)
    });
    let contracts = fields.required("contracts", |value| {
        let entries = value.entries("contract files by version")?;
        if entries.is_empty() {
            return value.refuse("names no version", Some("write VALUE: contracts/FILE".to_owned()));
        }
        if entries.len() > VALUES_MAX {
            return value.refuse(format!("more than {VALUES_MAX} values"), None);
        }
        let file = |entry| {
            let value = value.child(entry);
            let text = value.text()?;
            match absolute(dir, text) {
                Some(path) if !text.ends_with('/') => Some((entry.key.clone(), path)),
                _ => value.refuse("not the path of a file", None),
            }
        };
        entries.iter().map(file).collect()
    });
    Some(Versions {
        field: field?,
        contracts: contracts?,
    })
}
