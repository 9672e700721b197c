//! What producers send, judged before it is acknowledged: by what will judge it again when it is loaded.
//!
//! ```text
//! body ─ records as the load reads them ─ the judge, the rules and the columns of the load ─► who does not fit, and why
//! ```

use std::{collections::BTreeMap, path::Path};

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    config::{Project, Stream, StreamName},
    contract::{
        Contract, Violation, ViolationClass, contracts::Contracts, export::json_schema, place::pointer,
        quality,
    },
    error::Result,
    format::{Defect, Limits, Piece, Recipe, pushed},
    json::Found,
    ops::contract,
    transform::{judges::Judges, scan::class_of, verdicts::Verdicts},
};

/// Most records that do not fit which are told one by one; the others are counted.
pub const MISFITS_MAX: usize = 400;

/// Most reasons that are told of one record.
pub const REASONS_MAX: usize = 5;

/// Longest text of a reason, in characters.
const DETAIL_CHARS_MAX: usize = 240;

/// Longest pointer that is told, in bytes; instead of a longer one that of the record is.
const POINTER_BYTES_MAX: usize = 200;

/// What judges the records of one stream.
pub struct Inspector {
    recipe: Recipe,
    contracts: Contracts,
    judges: Judges,
    keys: Vec<String>,
    sequence_by: Vec<String>,
}

/// How records stand in a body.
#[derive(Clone, Copy, Debug)]
pub enum Sent<'a> {
    /// As its content type says.
    Records(&'a str),
    /// As the stream says: a webhook.
    Event,
}

/// What was found of the records of a body.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspected {
    /// Whether each of the records fits, in their order. A body without readable records counts as one that does not.
    pub fits: Vec<bool>,
    /// How many do not.
    pub misfits: u64,
    /// How many of these by their first reason.
    pub codes: BTreeMap<&'static str, u64>,
    /// The first of them, at most [`MISFITS_MAX`].
    pub told: Vec<Misfit>,
}

/// A record that does not fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// Its number in the body, from 0; none if it is the body as a whole.
    pub index: Option<u64>,
    /// Why: one reason at least, at most [`REASONS_MAX`].
    pub reasons: Vec<Reason>,
}

/// Why a record does not fit. Nothing in it is the value of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The class of the violation, by which the quarantine knows it, too.
    pub code: &'static str,
    /// Where in the record: a JSON Pointer (RFC 6901), empty for the record itself.
    pub pointer: String,
    /// What the contract says.
    pub detail: String,
}

impl Inspector {
    /// What judges the records of the stream called `name` now; `None` if its contract was not drafted yet. Reads files:
    /// blocks.
    ///
    /// # Errors
    /// [`Config`](crate::error::ErrorKind::Config) if a contract cannot be read, or does not go with the stream.
    pub fn open(project: &Project, name: &StreamName) -> Result<Option<Self>> {
        let (source, stream) = project.stream(name)?;
        let Some(contracts) = contract::read_all(stream)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            recipe: Recipe::of(source, stream),
            judges: contract::judges(stream, &contracts)?,
            contracts,
            keys: stream.table.declared_keys().to_vec(),
            sequence_by: stream.table.sequence_by.clone(),
        }))
    }

    /// The version of the contract that judges records of no version.
    pub fn version(&self) -> &str {
        &self.contracts.main.version
    }

    /// The ODCS status of that contract.
    pub fn status(&self) -> &str {
        &self.contracts.main.status
    }

    /// Judges every record of `body`. Computes; takes about as long as the load will.
    ///
    /// # Errors
    /// [`Internal`](crate::error::ErrorKind::Internal), which only a defect can cause; never because of what a record holds.
    pub fn inspect(&self, sent: Sent<'_>, body: &Bytes) -> Result<Inspected> {
        let mut inspected = Inspected::default();
        let mut verdicts = Verdicts::new(&self.judges, &self.sequence_by);
        let mut broken = Ok(());
        let found = read(&self.recipe, sent, body, &mut |piece| {
            if broken.is_ok() {
                inspected.fits.push(true);
                let tell = &mut |number, reasons: Vec<Violation>| inspected.add(number, &reasons);
                broken = verdicts.push(piece.bytes(body), tell);
            }
        });
        broken?;
        match found {
            Ok(Found::Values(_)) => {
                let tell = &mut |number, reasons: Vec<Violation>| inspected.add(number, &reasons);
                verdicts.end(tell)?;
                Ok(inspected)
            }
            Ok(Found::Missing) => Ok(Inspected::of_body(
                ViolationClass::RecordsPathMissing,
                format!("expected records at {}", self.recipe.records),
            )),
            Err(defect) => Ok(Inspected::of_body(class_of(defect), defect.to_string())),
        }
    }

    /// The schema of a record, in JSON Schema 2020-12, with an example if one is known: what is valid is accepted, but for
    /// what [`json_schema`] and rules in SQL say.
    pub fn schema(&self) -> Value {
        let schemas: Vec<Value> = self
            .contracts
            .all()
            .map(|contract| self.schema_of(contract))
            .collect();
        match <[Value; 1]>::try_from(schemas) {
            Ok([schema]) => schema,
            Err(schemas) => json!({ "anyOf": schemas }),
        }
    }

    fn schema_of(&self, contract: &Contract) -> Value {
        let mut contract = contract.clone();
        for column in &mut contract.columns {
            // Of these the stream says more than the contract.
            column.primary_key |= self.keys.contains(&column.name);
            column.required |= self.sequence_by.contains(&column.name);
        }
        let mut schema = json_schema(&contract);
        if let Value::Object(members) = &mut schema {
            // It becomes a part of a document: its own name would stand in the way of another one's.
            members.remove("$schema");
            members.remove("$id");
            members.insert("x-contract-version".to_owned(), contract.version.into());
            members.retain(|name, value| name != "examples" || self.takes(&value[0]));
        }
        schema
    }

    /// Whether `record` fits.
    fn takes(&self, record: &Value) -> bool {
        let body = Bytes::from(record.to_string());
        let inspected = self.inspect(Sent::Records("application/json"), &body);
        inspected.is_ok_and(|inspected| inspected.misfits == 0)
    }
}

/// What tells one state of the contracts of `stream` from another: a hash of their files. Blocks.
pub fn state(stream: &Stream) -> [u8; 32] {
    let listed = stream.versions.iter().flat_map(|versions| &versions.contracts);
    let older = listed.map(|(_, file)| file.as_path());
    let mut hasher = Sha256::new();
    for file in std::iter::once(stream.contract.as_path()).chain(older) {
        hash_file(file, &mut hasher);
    }
    hasher.finalize().into()
}

fn hash_file(file: &Path, hasher: &mut Sha256) {
    match contract::bytes_of(file) {
        Ok(text) => {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(&text);
        }
        // Longer than any file; and one that is not there is not one that cannot be read.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => hasher.update(u64::MAX.to_le_bytes()),
        Err(_) => hasher.update((u64::MAX - 1).to_le_bytes()),
    }
}

/// Calls `visit` with every record of `body`, as the load will see them.
fn read(
    recipe: &Recipe,
    sent: Sent<'_>,
    body: &Bytes,
    visit: &mut dyn FnMut(Piece<'_>),
) -> Result<Found, Defect> {
    match sent {
        Sent::Records(media) => pushed::read(Some(media), body, &recipe.limits, visit),
        Sent::Event => recipe.read(body, visit),
    }
}

/// The records of `body` that `fits` says so of, byte for byte, in the form of the whole.
///
/// An array is written without spaces between its elements, and lines end with a line feed each.
pub fn without_misfits(media: &str, body: &Bytes, fits: &[bool]) -> Bytes {
    let is_lines = pushed::is_lines(media);
    let mut rest = Vec::with_capacity(body.len() + 1);
    if !is_lines {
        rest.push(b'[');
    }
    let (mut number, mut kept) = (0, 0);
    // Every record was read before.
    let _ = pushed::read(Some(media), body, &Limits::DEFAULT, &mut |piece| {
        if fits.get(number) == Some(&true) {
            if !is_lines && kept > 0 {
                rest.push(b',');
            }
            rest.extend_from_slice(piece.bytes(body));
            if is_lines {
                rest.push(b'\n');
            }
            kept += 1;
        }
        number += 1;
    });
    if !is_lines {
        rest.push(b']');
    }
    Bytes::from(rest)
}

impl Inspected {
    fn of_body(class: ViolationClass, detail: String) -> Self {
        let reason = Reason {
            code: class.as_str(),
            pointer: String::new(),
            detail,
        };
        Self {
            fits: vec![false],
            misfits: 1,
            codes: BTreeMap::from([(reason.code, 1)]),
            told: vec![Misfit {
                index: None,
                reasons: vec![reason],
            }],
        }
    }

    fn add(&mut self, number: u64, violations: &[Violation]) {
        let Some(first) = violations.first() else { return };
        let index = usize::try_from(number).unwrap_or(usize::MAX);
        if let Some(fits) = self.fits.get_mut(index) {
            *fits = false;
        }
        self.misfits += 1;
        *self.codes.entry(first.class.as_str()).or_default() += 1;
        if self.told.len() < MISFITS_MAX {
            self.told.push(Misfit {
                index: Some(number),
                reasons: violations.iter().take(REASONS_MAX).map(Reason::of).collect(),
            });
        }
    }
}

impl Reason {
    fn of(violation: &Violation) -> Self {
        let Violation {
            class,
            path,
            expected,
            ..
        } = violation;
        let mut pointer = pointer(path);
        if pointer.len() > POINTER_BYTES_MAX {
            pointer.clear();
        }
        let detail = if quality::is_path(path) {
            format!("breaks {path}: {expected}")
        } else {
            format!("expected {expected}")
        };
        Self {
            code: class.as_str(),
            pointer,
            detail: detail.chars().take(DETAIL_CHARS_MAX).collect(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
