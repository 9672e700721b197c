//! How a table's columns follow its contract: columns and struct members are added, never taken away. A type that grew is
//! the business of [`widen`](super::widen), before; any other stays.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};

use crate::error::{Error, ErrorKind, Result};

/// The schema that holds everything in `existing` and everything in `wanted`.
///
/// Existing columns keep their place; new ones follow in the order of `wanted` and are nullable.
///
/// # Errors
/// [`ErrorKind::Contract`] naming the first column whose type would have to change.
pub(super) fn union(existing: &Schema, wanted: &Schema) -> Result<Schema> {
    Ok(Schema::new(fields(existing.fields(), wanted.fields(), "")?))
}

fn fields(existing: &Fields, wanted: &Fields, within: &str) -> Result<Fields> {
    let mut merged: Vec<FieldRef> = Vec::with_capacity(existing.len());
    for field in existing {
        merged.push(match wanted.find(field.name()) {
            Some((_, other)) => Arc::new(field_of_both(field, other, within)?),
            None => Arc::clone(field),
        });
    }
    for field in wanted {
        if existing.find(field.name()).is_some() {
            continue;
        }
        // Delta tells columns apart without letter case.
        if let Some(like) = existing
            .iter()
            .find(|old| old.name().eq_ignore_ascii_case(field.name()))
        {
            return Err(Error::new(ErrorKind::Contract, "add column")
                .with("column", path_of(within, field.name()))
                .with("table has", like.name())
                .with(
                    "hint",
                    "names must differ by more than letter case; give the column another name and a `path`",
                ));
        }
        merged.push(Arc::new(field.as_ref().clone().with_nullable(true)));
    }
    Ok(merged.into())
}

fn field_of_both(existing: &Field, wanted: &Field, within: &str) -> Result<Field> {
    let path = path_of(within, existing.name());
    let data_type = match (existing.data_type(), wanted.data_type()) {
        (DataType::Struct(old), DataType::Struct(new)) => DataType::Struct(fields(old, new, &path)?),
        (DataType::List(old), DataType::List(new)) => {
            DataType::List(Arc::new(field_of_both(old, new, &path)?))
        }
        (old, new) if old == new => old.clone(),
        (old, new) => {
            return Err(Error::new(ErrorKind::Contract, "change column type")
                .with("column", path)
                .with("table has", old)
                .with("contract wants", new)
                .with(
                    "hint",
                    "make the table anew from raw with `landfall rebuild --promote`, give the column another name, or change the contract back",
                ));
        }
    };
    Ok(Field::new(existing.name(), data_type, existing.is_nullable()))
}

pub(super) fn path_of(within: &str, name: &str) -> String {
    if within.is_empty() {
        name.to_owned()
    } else {
        format!("{within}.{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(columns: Vec<(&str, DataType)>) -> Schema {
        Schema::new(
            columns
                .into_iter()
                .map(|(name, kind)| Field::new(name, kind, true))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn r116_columns_and_members_are_added_at_the_end() {
        let member = |names: &[&str]| {
            DataType::Struct(
                names
                    .iter()
                    .map(|name| Field::new(*name, DataType::Utf8, true))
                    .collect(),
            )
        };
        let old = schema(vec![
            ("id", DataType::Int64),
            ("to", member(&["city"])),
            ("gone", DataType::Utf8),
        ]);
        let new = schema(vec![
            ("new", DataType::Utf8),
            ("id", DataType::Int64),
            ("to", member(&["zip", "city"])),
        ]);
        let both = union(&old, &new).unwrap();
        assert_eq!(
            both,
            schema(vec![
                ("id", DataType::Int64),
                ("to", member(&["city", "zip"])),
                ("gone", DataType::Utf8),
                ("new", DataType::Utf8),
            ])
        );
    }

    #[test]
    fn a_retyped_column_is_refused_by_name() {
        let error = union(
            &schema(vec![("id", DataType::Int64)]),
            &schema(vec![("id", DataType::Utf8)]),
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Contract);
        assert!(error.to_string().contains("column: id"), "{error}");
    }

    #[test]
    fn a_column_that_differs_only_in_letter_case_is_refused() {
        let error = union(
            &schema(vec![("name", DataType::Utf8)]),
            &schema(vec![("Name", DataType::Utf8)]),
        )
        .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Contract);
    }
}
