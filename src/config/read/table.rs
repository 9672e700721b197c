//! How accepted records become rows.

use crate::{
    config::{CONTENT_KEY, Deletes, ScdType, Table, WriteMode, explode::Explode, flatten::Flatten},
    yaml::{
        Kind,
        fields::{Fields, Value},
        quoted,
        section::{
            Rule, Section,
            Takes::{Boolean, Choice, Either, List, Number, Text},
            key,
        },
    },
};

/// Columns of the program itself besides those that begin with `_lf_`.
const OWN_COLUMNS: [&str; 5] = ["_rescued", "_deleted", "_valid_from", "_valid_to", "_current"];

/// What stands behind the name of a stream in the names of its other tables.
const CHILDREN_RESERVED: [&str; 2] = ["quarantine", "raw"];

/// A source that returns half of its data deletes nothing.
const DELETE_RATIO_MAX: f64 = 0.1;

/// Longest deletion condition, in bytes.
const CONDITION_BYTES_MAX: usize = 4096;

/// `table`
pub(super) static TABLE: Section = Section::new(
    "table",
    "a table",
    "How accepted records become rows.",
    &[
        key("keys", List(&Text))
            .doc("Columns that identify a row. Needed if scd_type is 1 or 2. `[_lf_content]` for records without an id: a row is then what its record holds, by the SHA-256 of its canonical JSON (RFC 8785), so the same record is one row in whatever order or spelling its members come, and a changed one is another row.")
            .example("[id]"),
        key("sequence_by", List(&Text))
            .default("[]")
            .doc("Columns that order versions of a row; the order of arrival breaks ties. Of a version number and a time write the number first, or alone: clocks of several writers disagree, and the one that is ahead would win.")
            .example("[updated_at]"),
        key(
            "scd_type",
            Choice(&[
                ("1", "one current row per key"),
                ("2", "one row per version of a key, with the span in which it was current: `_valid_from`, `_valid_to`, `_current`"),
                ("append", "every record is a row"),
                ("replace", "the rows of the last complete pass"),
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
            Choice(&[
                ("soft", "the row stays and `_deleted` is true"),
                ("hard", "the row goes; only its keys and its place among the versions are kept, beside the table"),
            ]),
        )
        .default("soft")
        .doc("What a deletion does.")
        .example("hard"),
        key("delete_absent", Boolean)
            .default("false")
            .doc("Whether a row that a complete pass does not bring is a deletion. A pass that was partial, unstable or had answers ignored deletes nothing.")
            .example("true"),
        key("delete_ratio_max", Number(0.0, 1.0))
            .default("0.1")
            .doc("Largest part of the rows that one complete pass may delete; above it nothing is deleted, and the load says so.")
            .example("0.02"),
        key(
            "write_mode",
            Choice(&[
                ("copy_on_write", "files with such rows are written anew; every reader of Delta tables can read the table"),
                ("merge_on_read", "such rows are marked in deletion vectors and their files stay: loads that change a few rows of many files are much faster, and a reader has to know deletion vectors (reader version 3); `landfall maintain` writes files anew of which much is marked"),
            ]),
        )
        .default("copy_on_write")
        .doc("What a merge does with the rows that it replaces or deletes, for scd_type 1 and 2. The first load that marks a row gives the table the Delta feature `deletionVectors`, and the table keeps it. Changed back, loads write the files that they touch anew, and `landfall maintain` the others.")
        .example("merge_on_read"),
        key("partition_by", List(&Text))
            .default("[]")
            .doc("Columns the table is partitioned by.")
            .example("[day]"),
        key("flatten", Either(&[Boolean, List(&Text)]))
            .default("false")
            .doc("Which nested objects become columns of the table itself, where a contract is drafted or takes new fields: all, or those at some paths and those around them. `customer.name` becomes the column `customer__name`; lists stay lists. A contract that stands is not changed.")
            .example("true")
            .more(&["[customer, customer.address]"]),
        key("explode", List(&Text))
            .default("[]")
            .doc("Lists whose elements are rows of a child table too, by column: `lines` of the stream `orders` becomes `orders__lines`, and `lines.taxes` becomes `orders__lines__taxes`. A child row has the keys of its parent as `_parent_…` and its place in the list as `_position`; it comes and goes with the current version of its parent.")
            .example("[lines]"),
    ],
)
.rules(&[Rule::RequiredUnless("keys", "scd_type", &["append", "replace"])])
.planned(&["merge"])
.example("{ keys: [id], sequence_by: [updated_at] }");

/// Reads `table`.
pub(super) fn table(value: Value<'_>) -> Option<Table> {
    let fields = value.fields(&TABLE)?;
    let scd_type = match fields.value("scd_type") {
        Some(value) => value.choice(
            &[
                ("1", ScdType::Upsert),
                ("2", ScdType::History),
                ("append", ScdType::Append),
                ("replace", ScdType::Replace),
            ],
            &[],
        ),
        None => Some(ScdType::Upsert),
    };
    let columns = |key| match fields.value(key) {
        Some(value) => columns(value),
        None => Some(Vec::new()),
    };
    let keys = match fields.value("keys") {
        Some(value) if is_content(&value) => content(value, &fields, scd_type),
        _ => columns("keys"),
    };
    let sequence_by = columns("sequence_by");
    let partition_by = columns("partition_by");
    check_keys(&fields, scd_type, keys.as_deref());
    check_history(&fields, scd_type, sequence_by.as_deref());
    let apply_as_deletes = fields.optional("apply_as_deletes", |value| {
        let text = value.text()?;
        if text.len() > CONDITION_BYTES_MAX {
            return value.refuse(format!("longer than {CONDITION_BYTES_MAX} bytes"), None);
        }
        keyed(value, scd_type)?;
        Some(text.to_owned())
    });
    let deletes = fields.optional("deletes", |value| {
        let deletes = value.choice(&[("soft", Deletes::Soft), ("hard", Deletes::Hard)], &[])?;
        if deletes == Deletes::Hard && scd_type != Some(ScdType::Upsert) {
            return value.refuse("only a table of scd_type 1 has hard deletes", None);
        }
        Some(deletes)
    });
    let delete_absent = fields.optional("delete_absent", |value| {
        let absent = value.boolean()?;
        if absent && scd_type != Some(ScdType::Upsert) {
            return value.refuse("only a table of scd_type 1 can tell absent rows", None);
        }
        Some(absent)
    });
    let write_mode = fields.optional("write_mode", |value| {
        let modes = [
            ("copy_on_write", WriteMode::CopyOnWrite),
            ("merge_on_read", WriteMode::MergeOnRead),
        ];
        let mode = value.choice(&modes, &[])?;
        if mode == WriteMode::MergeOnRead && matches!(scd_type, Some(ScdType::Append | ScdType::Replace)) {
            return value.refuse("only a table of scd_type 1 or 2 is merged", None);
        }
        Some(mode)
    });
    let flatten = fields.optional("flatten", flatten);
    let delete_ratio_max = fields.optional("delete_ratio_max", |value| value.number(0.0..=1.0));
    let explode = fields.optional("explode", explode);
    Some(Table {
        keys: keys?,
        sequence_by: sequence_by?,
        scd_type: scd_type?,
        apply_as_deletes,
        deletes: deletes.unwrap_or(Deletes::Soft),
        delete_absent: delete_absent.unwrap_or(false),
        delete_ratio_max: delete_ratio_max.unwrap_or(DELETE_RATIO_MAX),
        write_mode: write_mode.unwrap_or(WriteMode::CopyOnWrite),
        partition_by: partition_by?,
        flatten: flatten.unwrap_or_default(),
        explode: explode.unwrap_or_default(),
    })
}

/// All, or some by the names of members from the record down.
fn flatten(value: Value<'_>) -> Option<Flatten> {
    if !matches!(value.node.kind, Kind::Seq(_)) {
        let which = value.boolean()?;
        return Some(if which { Flatten::All } else { Flatten::None });
    }
    let paths = value.text_list()?;
    let paths: Vec<Vec<String>> = paths
        .iter()
        .map(|path| path.split('.').map(str::to_owned).collect())
        .collect();
    if paths.iter().flatten().any(String::is_empty) {
        let hint = "write the names of members from the record down: [customer, customer.address]";
        return value.refuse("not the path of an object", Some(hint.to_owned()));
    }
    Some(Flatten::Paths(paths))
}

/// Lists that get tables of their own; no two of them tables of one name.
fn explode(value: Value<'_>) -> Option<Vec<Explode>> {
    let mut lists: Vec<Explode> = Vec::new();
    let mut good = true;
    for item in value.items()? {
        let Some(text) = item.text() else {
            good = false;
            continue;
        };
        let list = Explode {
            path: text.split('.').map(str::to_owned).collect(),
        };
        let name = list.name();
        let hint = || Some("give the column another name and a `path` in the contract".to_owned());
        let refused = if list.path.iter().any(String::is_empty) {
            Some(("a column of it has no name".to_owned(), None))
        } else if lists.iter().any(|known| known.name() == name) {
            Some((format!("two lists have a table called {}", quoted(&name)), hint()))
        } else if CHILDREN_RESERVED.contains(&name.as_str()) {
            Some((
                format!("a table of the program itself is called {}", quoted(&name)),
                hint(),
            ))
        } else {
            None
        };
        match refused {
            Some((message, hint)) => {
                good = false;
                item.refuse::<()>(message, hint);
            }
            None => lists.push(list),
        }
    }
    good.then_some(lists)
}

/// Deletions of a table whose rows have no keys mean nothing.
fn keyed(value: Value<'_>, scd_type: Option<ScdType>) -> Option<()> {
    match scd_type {
        Some(ScdType::Append) => {
            let hint = "with append every record stays a row".to_owned();
            value.refuse("a table of scd_type append has no deletes", Some(hint))
        }
        Some(ScdType::Replace) => {
            let hint = "with replace a row goes when a complete pass does not bring it".to_owned();
            value.refuse("a table of scd_type replace has no deletes", Some(hint))
        }
        _ => Some(()),
    }
}

/// Whether the keys are the content of the record.
fn is_content(value: &Value<'_>) -> bool {
    match &value.node.kind {
        Kind::Seq(items) => items.iter().any(|item| item.scalar_text() == Some(CONTENT_KEY)),
        _ => false,
    }
}

/// What a record holds identifies it alone, and nothing deletes it: a tombstone holds something else.
fn content(value: Value<'_>, fields: &Fields<'_>, scd_type: Option<ScdType>) -> Option<Vec<String>> {
    let keys = value.text_list()?;
    if keys.len() > 1 {
        return value.refuse(
            format!("{} identifies a row without other columns", quoted(CONTENT_KEY)),
            None,
        );
    }
    if scd_type != Some(ScdType::Upsert) {
        return value.refuse(
            format!(
                "only a table of scd_type 1 can have the key {}",
                quoted(CONTENT_KEY)
            ),
            None,
        );
    }
    for key in ["apply_as_deletes", "delete_absent"] {
        if let Some(value) = fields.value(key) {
            return value.refuse(
                format!("rows with the key {} are not deleted", quoted(CONTENT_KEY)),
                Some("give the rows keys of their own".to_owned()),
            );
        }
    }
    Some(keys)
}

/// History needs to know when a version began to hold.
fn check_history(fields: &Fields<'_>, scd_type: Option<ScdType>, sequence_by: Option<&[String]>) {
    if scd_type == Some(ScdType::History) && sequence_by == Some(&[]) {
        match fields.value("sequence_by") {
            Some(value) => {
                value.refuse::<()>(
                    "scd_type 2 needs a column that says since when a version holds",
                    None,
                );
            }
            None => fields.missing("\"sequence_by\""),
        }
    }
}

fn check_keys(fields: &Fields<'_>, scd_type: Option<ScdType>, keys: Option<&[String]>) {
    let keyed = matches!(scd_type, Some(ScdType::Upsert | ScdType::History));
    if !keyed || keys != Some(&[]) {
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
        .find(|name| name.starts_with("_lf_") || OWN_COLUMNS.contains(&name.as_str()))
    {
        Some(name) => value.refuse(
            format!("{} is a column of the program itself", quoted(name)),
            None,
        ),
        None => Some(columns),
    }
}
