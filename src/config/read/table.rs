//! How accepted records become rows.

use crate::{
    config::{Deletes, ScdType, Table},
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Rule, Section,
            Takes::{Choice, List, Text},
            key,
        },
    },
};

/// Longest deletion condition, in bytes.
const CONDITION_BYTES_MAX: usize = 4096;

/// `table`
pub(super) static TABLE: Section = Section::new(
    "table",
    "a table",
    "How accepted records become rows.",
    &[
        key("keys", List(&Text))
            .doc("Columns that identify a row. Needed unless scd_type is append.")
            .example("[id]"),
        key("sequence_by", List(&Text))
            .default("[]")
            .doc("Columns that order versions of a row; the order of arrival breaks ties.")
            .example("[updated_at]"),
        key(
            "scd_type",
            Choice(&[
                ("1", "one current row per key"),
                ("append", "every record is a row"),
            ]),
        )
        .default("1")
        .doc("What happens to older versions of a row.")
        .example("append"),
        key("apply_as_deletes", Text)
            .doc("A SQL condition over the columns that marks a record as a deletion; at most 4096 bytes.")
            .example("deleted = true"),
        key(
            "deletes",
            Choice(&[("soft", "the row stays and `_deleted` is true")]),
        )
        .default("soft")
        .doc("What a deletion does.")
        .example("soft"),
        key("partition_by", List(&Text))
            .default("[]")
            .doc("Columns the table is partitioned by.")
            .example("[day]"),
    ],
)
.rules(&[Rule::RequiredUnless("keys", "scd_type", "append")])
.planned(&["explode", "flatten", "merge"])
.example("{ keys: [id] }");

/// Reads `table`.
pub(super) fn table(value: Value<'_>) -> Option<Table> {
    let fields = value.fields(&TABLE)?;
    let scd_type = match fields.value("scd_type") {
        Some(value) => value.choice(
            &[("1", ScdType::Upsert), ("append", ScdType::Append)],
            &["2", "replace"],
        ),
        None => Some(ScdType::Upsert),
    };
    let columns = |key| match fields.value(key) {
        Some(value) => columns(value),
        None => Some(Vec::new()),
    };
    let keys = columns("keys");
    let sequence_by = columns("sequence_by");
    let partition_by = columns("partition_by");
    check_keys(&fields, scd_type, keys.as_deref());
    let apply_as_deletes = fields.optional("apply_as_deletes", |value| {
        let text = value.text()?;
        if text.len() > CONDITION_BYTES_MAX {
            return value.refuse(format!("longer than {CONDITION_BYTES_MAX} bytes"), None);
        }
        if scd_type == Some(ScdType::Append) {
            let hint = "with append every record stays a row".to_owned();
            return value.refuse("a table of scd_type append has no deletes", Some(hint));
        }
        Some(text.to_owned())
    });
    let deletes = fields.optional("deletes", |value| {
        value.choice(&[("soft", Deletes::Soft)], &["hard"])
    });
    Some(Table {
        keys: keys?,
        sequence_by: sequence_by?,
        scd_type: scd_type?,
        apply_as_deletes,
        deletes: deletes.unwrap_or(Deletes::Soft),
        partition_by: partition_by?,
    })
}

fn check_keys(fields: &Fields<'_>, scd_type: Option<ScdType>, keys: Option<&[String]>) {
    if scd_type != Some(ScdType::Upsert) || keys != Some(&[]) {
        return;
    }
    match fields.value("keys") {
        Some(value) => {
            value.refuse::<()>(
                "at least one column is needed",
                Some("or set scd_type: append".to_owned()),
            );
        }
        None => fields.missing("\"keys\""),
    }
}

/// Column names; those of our own columns cannot be used.
fn columns(value: Value<'_>) -> Option<Vec<String>> {
    let columns = value.text_list()?;
    match columns
        .iter()
        .find(|name| name.starts_with("_lf_") || ["_rescued", "_deleted"].contains(&name.as_str()))
    {
        Some(name) => value.refuse(
            format!("{} is a column of the program itself", quoted(name)),
            None,
        ),
        None => Some(columns),
    }
}
