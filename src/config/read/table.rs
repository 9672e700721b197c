//! How accepted records become rows.

use crate::{
    config::{Deletes, ScdType, Table, read::sections},
    yaml::{
        fields::{Fields, Value},
        quoted,
    },
};

/// Longest deletion condition, in bytes.
const CONDITION_BYTES_MAX: usize = 4096;

/// Reads `table`.
pub(super) fn table(value: Value<'_>) -> Option<Table> {
    let fields = value.fields(&sections::TABLE)?;
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
