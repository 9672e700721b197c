//! Contracts that judge the records of one stream at the same time, each those of its versions, for one table.
//!
//! ```text
//! main    id integer   total decimal(12,2)   state string     ─┐
//! 2024-06 id integer   total integer         status string    ─┴─► id, total decimal(12,2), state, status
//! ```
//!
//! A column that several declare has one type: that of the first, the main one before the others, in which the values of
//! the others are the same values.

use std::path::{Path, PathBuf};

use super::{
    Column, ColumnType, Contract,
    classified::{Classified, is_classified},
    widening::{Room, room},
};
use crate::error::{Error, ErrorKind, Result};

/// The contracts of one stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Contracts {
    /// Judges every record that names no other.
    pub main: Contract,
    /// Where the main one is.
    pub file: PathBuf,
    /// Those of other versions, in the order of the project file.
    pub older: Vec<Older>,
    /// The main one with the columns of all: what the table has. It judges no record.
    pub union: Contract,
}

/// A contract for the records of some versions.
#[derive(Clone, Debug, PartialEq)]
pub struct Older {
    /// What such a record says of its version.
    pub values: Vec<String>,
    /// The contract.
    pub contract: Contract,
    /// Where it is.
    pub file: PathBuf,
}

impl Contracts {
    /// Puts contracts together.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] naming two files and a column if its types do not go together, or if two contracts have one
    /// version.
    pub fn new(main: Contract, file: PathBuf, older: Vec<Older>) -> Result<Self> {
        let mut union = main.clone();
        let mut before: Vec<(&Path, &Contract)> = vec![(&file, &main)];
        for next in &older {
            if let Some((known, _)) = before
                .iter()
                .find(|(_, known)| known.version == next.contract.version)
            {
                return Err(Error::new(ErrorKind::Config, "join contracts of one stream")
                    .with("contract", known.display())
                    .with("other contract", next.file.display())
                    .with("both have version", &next.contract.version)
                    .with(
                        "hint",
                        "give each a `version` of its own: it says which one judged a record",
                    ));
            }
            join(&mut union.columns, &next.contract.columns).map_err(|clash| {
                // The one that the type comes from is told: the columns of a union have no file.
                let first = before
                    .iter()
                    .find(|(_, contract)| declares(&contract.columns, &clash.names));
                let (first, _) = first.unwrap_or(&before[0]);
                clash.error(first, &next.file)
            })?;
            before.push((&next.file, &next.contract));
        }
        Ok(Self {
            main,
            file,
            older,
            union,
        })
    }

    /// The same with another main contract.
    ///
    /// # Errors
    /// As [`Contracts::new`].
    pub fn with_main(&self, main: Contract) -> Result<Self> {
        Self::new(main, self.file.clone(), self.older.clone())
    }

    /// Every contract, the main one first.
    pub fn all(&self) -> impl Iterator<Item = &Contract> {
        std::iter::once(&self.main).chain(self.older.iter().map(|older| &older.contract))
    }

    /// The contract of a version, such as `1.2.0`; the main one if none has it.
    pub fn of_version(&self, version: &str) -> &Contract {
        let mut all = self.all();
        all.find(|contract| contract.version == version)
            .unwrap_or(&self.main)
    }

    /// The versions of all, such as `2.0.0, 1.4.0`.
    pub fn versions(&self) -> String {
        let versions: Vec<&str> = self.all().map(|contract| contract.version.as_str()).collect();
        versions.join(", ")
    }

    /// The places that any of them classifies.
    pub fn classified(&self) -> Classified {
        let mut places = Classified::default();
        self.all()
            .for_each(|contract| places.extend(Classified::of(contract)));
        places
    }
}

/// Two columns of one name whose types do not go together.
struct Clash {
    /// Names of columns down to it.
    names: Vec<String>,
    /// The type in the union, or the name there if only letter case differs.
    own: String,
    theirs: String,
}

impl Clash {
    fn error(&self, first: &Path, other: &Path) -> Error {
        Error::new(ErrorKind::Config, "join contracts of one stream")
            .with("column", self.names.join("."))
            .with("contract", first.display())
            .with("type", &self.own)
            .with("other contract", other.display())
            .with("type there", &self.theirs)
            .with(
                "hint",
                "give it the same name and type in both, or another name in one of them with `path` at its place in the record",
            )
    }

    fn within(mut self, name: &str) -> Self {
        self.names.insert(0, name.to_owned());
        self
    }
}

/// Adds `others` to `columns`.
fn join(columns: &mut Vec<Column>, others: &[Column]) -> Result<(), Clash> {
    for own in columns.iter_mut() {
        own.required &= others.iter().any(|other| other.name == own.name);
    }
    for other in others {
        let lower = other.name.to_lowercase();
        match columns.iter_mut().find(|own| own.name.to_lowercase() == lower) {
            Some(own) if own.name != other.name => {
                return Err(Clash {
                    names: vec![other.name.clone()],
                    own: format!("called {}", own.name),
                    theirs: format!("called {}", other.name),
                });
            }
            Some(own) => {
                own.required &= other.required;
                if !is_classified(own) {
                    own.classification.clone_from(&other.classification);
                }
                one_type(own, other).map_err(|clash| clash.within(&other.name))?;
            }
            None => columns.push(Column {
                required: false,
                ..other.clone()
            }),
        }
    }
    Ok(())
}

/// Makes the type of `own` one that also has the values of `other`.
fn one_type(own: &mut Column, other: &Column) -> Result<(), Clash> {
    let held = room(other, own);
    match (&mut own.kind, &other.kind) {
        (ColumnType::Object(members), ColumnType::Object(others)) => join(members, others),
        (ColumnType::Array(element), ColumnType::Array(other)) => one_type(element, other),
        // However it is written, a moment is a moment.
        (ColumnType::Timestamp(_), ColumnType::Timestamp(_)) => Ok(()),
        _ if held != Room::No => Ok(()),
        (kind, other) => Err(Clash {
            names: Vec::new(),
            own: kind.words(),
            theirs: other.words(),
        }),
    }
}

/// Whether there is a column under `names`.
fn declares(columns: &[Column], names: &[String]) -> bool {
    let Some((first, rest)) = names.split_first() else {
        return true;
    };
    let Some(column) = columns
        .iter()
        .find(|column| column.name.eq_ignore_ascii_case(first))
    else {
        return false;
    };
    let mut kind = &column.kind;
    // The element of a list has no name of its own.
    while let ColumnType::Array(element) = kind {
        kind = &element.kind;
    }
    match kind {
        ColumnType::Object(members) => declares(members, rest),
        _ => rest.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::judge::tests::contract;

    fn joined(main: &str, older: &str) -> Result<String, String> {
        let older = Older {
            values: vec!["1".to_owned()],
            contract: Contract {
                version: "0.9.0".to_owned(),
                ..contract(older)
            },
            file: "old.yaml".into(),
        };
        let all = Contracts::new(contract(main), "new.yaml".into(), vec![older]);
        all.map(|all| shown(&all.union.columns))
            .map_err(|error| error.chain())
    }

    fn shown(columns: &[Column]) -> String {
        let one = |column: &Column| {
            let within = match &column.kind {
                ColumnType::Object(members) => format!("({})", shown(members)),
                ColumnType::Array(element) => format!("[{}]", shown(std::slice::from_ref(element))),
                _ => String::new(),
            };
            let mark = if column.required { "!" } else { "" };
            format!("{} {}{within}{mark}", column.name, column.kind.words())
        };
        columns.iter().map(one).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn the_union_has_every_column_and_asks_only_for_what_all_ask_for() {
        let union = joined(
            "id integer!; total decimal; state string!; sent date",
            "status string! =state; total integer; id integer!; sent date!",
        );
        insta::assert_snapshot!(union.unwrap_err(), @"join contracts of one stream (column: total, contract: new.yaml, type: decimal(10,2), other contract: old.yaml, type there: integer, hint: give it the same name and type in both, or another name in one of them with `path` at its place in the record)");
        let union = joined(
            "id integer!; total number; state string!; at naive; sent date",
            "status string!; total integer!; id integer!; sent date!; at date",
        );
        insta::assert_snapshot!(union.unwrap(), @"id integer!; total number; state string; at timestamp; sent date; status string");
        let nested = joined(
            "lines list:line; at epoch_s",
            "at moment; lines list:line; home address",
        );
        insta::assert_snapshot!(nested.unwrap(), @"lines array[element object(sku string!; price decimal(10,2); tags array[element string])]; at timestamp (epoch seconds); home object(city string!; zip string; lines array[element object(sku string!; price decimal(10,2); tags array[element string])])");
    }

    #[test]
    fn types_that_do_not_go_together_are_told_with_both_files() {
        insta::assert_snapshot!(joined("id integer", "id string").unwrap_err(), @"join contracts of one stream (column: id, contract: new.yaml, type: integer, other contract: old.yaml, type there: string, hint: give it the same name and type in both, or another name in one of them with `path` at its place in the record)");
        insta::assert_snapshot!(joined("id integer", "ID integer").unwrap_err(), @"join contracts of one stream (column: ID, contract: new.yaml, type: called id, other contract: old.yaml, type there: called ID, hint: give it the same name and type in both, or another name in one of them with `path` at its place in the record)");
        insta::assert_snapshot!(joined("a list:string", "a list:date").unwrap_err(), @"join contracts of one stream (column: a, contract: new.yaml, type: string, other contract: old.yaml, type there: date, hint: give it the same name and type in both, or another name in one of them with `path` at its place in the record)");
        insta::assert_snapshot!(joined("a integer", "a number").unwrap_err(), @"join contracts of one stream (column: a, contract: new.yaml, type: integer, other contract: old.yaml, type there: number, hint: give it the same name and type in both, or another name in one of them with `path` at its place in the record)");
    }

    #[test]
    fn two_contracts_have_two_versions() {
        let older = Older {
            values: Vec::new(),
            contract: contract("id integer"),
            file: "old.yaml".into(),
        };
        let error = Contracts::new(contract("id integer"), "new.yaml".into(), vec![older]).unwrap_err();
        insta::assert_snapshot!(error.chain(), @"join contracts of one stream (contract: new.yaml, other contract: old.yaml, both have version: 1.0.0, hint: give each a `version` of its own: it says which one judged a record)");
    }
}
