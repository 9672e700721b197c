//! The judgement of records: bytes in, typed columns or violations out.
//!
//! ```text
//! record ─ size, UTF-8 ─ scanner ─► members by path ─► type ─► rules ─► column   (row n of the batch)
//!                                        │               └──────┴─────► violations, or `_rescued`
//!                                        └─► counts (Observed)
//! ```
//!
//! One pass, and nothing is changed silently: a value is held exactly by its column, or the record says why not.
//! What times and dates may look like is a table in `times`; numbers:
//!
//! | column | accepted | `type_mismatch` | `out_of_range` |
//! |---|---|---|---|
//! | integer | `1`, `-0`; counted as coerced: `1.0`, `1e2`, `"1"` | `1.5`, `"01"`, `" 1"`, `""`, `true` | beyond 64 bits |
//! | number | the nearest double of a decimal fraction | | `1e999`; a whole number no double holds, as 2^53+1 |
//! | decimal | exact; zeros beyond the scale do not count | | other digits beyond scale or precision |
//! | boolean | `true`; counted as coerced: `"true"` | `1`, `"True"`, `"yes"` | |
//! | string | text, NUL included | any number | |
//! | json | any value as written; not searched for duplicate members | | |
//!
//! Coercion of text can be switched off for each column. `1.0` for an integer is not a coercion of text and stays accepted.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use arrow::{
    array::{ArrayRef, RecordBatch, StringBuilder},
    datatypes::{DataType, Field, Schema, SchemaRef},
};

use super::{
    Contract, Violation, ViolationClass, columns,
    columns::{Sizes, Values},
    observed::{Observed, PathId},
    plan::{Hidden, Planner, Slot, Target},
    record::{RESCUED_BYTES_MAX, Reader},
    work::{Place, Work},
};
use crate::{
    config::{OnMismatch, OnUnknown},
    error::{Error, ErrorKind, Result},
    json::{self, DEPTH_MAX, Defect, scan::Scanner},
};

/// The column that keeps what no other column holds: a JSON object from path to value, or null.
pub const RESCUED: &str = "_rescued";

/// Most bytes of records, and of what is rescued of them, in one batch: Arrow counts the bytes of a text column in 31 bits.
pub const BATCH_BYTES_MAX: usize = 512 << 20;

/// What the stream says beyond the contract.
#[derive(Clone, Debug)]
pub struct JudgeOptions {
    /// Columns that identify a row. Missing, null or empty is `key_missing`.
    pub keys: Vec<String>,
    /// Columns that order the versions of a row. Judged as required.
    pub sequence_by: Vec<String>,
    /// What happens to members the contract does not name.
    pub on_unknown: OnUnknown,
    /// What happens to values that do not fit. Keys, `sequence_by` and required columns are never rescued.
    /// [`OnMismatch::Fail`] and [`OnMismatch::Evolve`] are judged as [`OnMismatch::Quarantine`]; to stop, or to judge again by
    /// another contract, is up to the caller.
    pub on_mismatch: OnMismatch,
    /// Largest record, in bytes.
    pub record_bytes_max: usize,
}

/// A contract made ready for judging. Cheap to clone.
#[derive(Clone)]
pub struct Judge {
    plan: Arc<Plan>,
}

struct Plan {
    slots: Vec<Slot>,
    schema: SchemaRef,
    observed: Observed,
    /// By path.
    places: Vec<Place>,
    /// By the object that says so itself.
    on_unknown: HashMap<PathId, OnUnknown>,
    hidden: Hidden,
    options: JudgeOptions,
    inspect: bool,
    /// What the last batch came to.
    sizes: Mutex<Sizes>,
}

/// The records of one batch, as far as they were pushed.
pub struct Judging {
    plan: Arc<Plan>,
    columns: Vec<Values>,
    rescued: StringBuilder,
    rescued_rows: u64,
    work: Work,
    rows: usize,
    bytes: usize,
}

/// A batch of judged records.
#[derive(Debug)]
pub struct Judged {
    /// [`Judge::schema`], one row for each record pushed. What stands in a row with violations means nothing.
    pub batch: RecordBatch,
    /// Why rows are to be set aside, in the order of rows; none for a row that is accepted.
    /// Of one row at most 100 of each class.
    pub violations: Vec<RowViolation>,
    /// What the records were like.
    pub observed: Observed,
    /// Values taken by coercion.
    pub coerced: u64,
    /// Rows with something in `_rescued`.
    pub rescued: u64,
}

/// A violation with the row it was found in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowViolation {
    /// Row of the batch, from 0.
    pub row: usize,
    /// What is wrong.
    pub violation: Violation,
}

impl Judge {
    /// Makes a contract ready.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if a key or sequence column is not declared or cannot be compared, a name is used twice
    /// (letter case does not count) or reserved, two columns read one place, a pattern is not a regular expression,
    /// or a rule does not apply to its type.
    pub fn new(contract: &Contract, options: JudgeOptions) -> Result<Self> {
        Self::build(contract, options, false)
    }

    /// A judge that counts the formats of undeclared values too.
    pub(crate) fn inspecting(contract: &Contract, options: JudgeOptions) -> Result<Self> {
        Self::build(contract, options, true)
    }

    fn build(contract: &Contract, options: JudgeOptions, inspect: bool) -> Result<Self> {
        let mut planner = Planner {
            keys: &options.keys,
            sequence_by: &options.sequence_by,
            on_mismatch: options.on_mismatch,
            on_unknown: HashMap::new(),
            classified: false,
            hidden: Hidden::default(),
            observed: Observed::new(),
            targets: vec![Target::Undeclared],
        };
        let slots = planner
            .record(&contract.columns)
            .map_err(|error| error.with("contract", &contract.id))?;
        let mut fields: Vec<Field> = contract.columns.iter().map(columns::field).collect();
        fields.push(Field::new(RESCUED, DataType::Utf8, true));
        let places = planner.places();
        let Planner {
            observed,
            on_unknown,
            hidden,
            ..
        } = planner;
        let schema = Arc::new(Schema::new(fields));
        Ok(Self {
            plan: Arc::new(Plan {
                slots,
                schema,
                observed,
                places,
                on_unknown,
                hidden,
                options,
                inspect,
                sizes: Mutex::default(),
            }),
        })
    }

    /// The columns of the contract, all nullable, then [`RESCUED`].
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.plan.schema)
    }

    /// Begins a batch.
    pub fn start(&self) -> Judging {
        let plan = Arc::clone(&self.plan);
        let sizes = plan.sizes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut sizes = sizes.iter();
        let columns = plan
            .slots
            .iter()
            .zip(plan.schema.fields())
            .map(|(_, field)| Values::new(field.data_type(), &mut sizes));
        Judging {
            columns: columns.collect(),
            rescued: StringBuilder::new(),
            rescued_rows: 0,
            work: Work::new(plan.observed.clone(), plan.places.clone()),
            rows: 0,
            bytes: 0,
            plan,
        }
    }
}

impl Judging {
    /// Judges one record and appends one row, whatever the bytes are.
    ///
    /// The caller finishes the batch before it holds [`BATCH_BYTES_MAX`]; records beyond are `too_large`.
    pub fn push(&mut self, record: &[u8]) {
        self.work.begin();
        self.rows += 1;
        match self.read(record) {
            Ok(()) => self.work.keep(),
            Err((class, expected, found)) => {
                for column in &mut self.columns {
                    column.settle();
                    column.pad(self.rows);
                }
                self.work.refuse(class, expected, found);
            }
        }
        if self.work.rescued.is_empty() {
            self.rescued.append_null();
        } else {
            self.rescued_rows += 1;
            self.bytes += self.work.rescued.len();
            self.work.rescued.push('}');
            self.rescued.append_value(&self.work.rescued);
        }
    }

    fn read(&mut self, record: &[u8]) -> std::result::Result<(), (ViolationClass, String, String)> {
        let Self {
            plan,
            columns,
            work,
            bytes,
            ..
        } = self;
        let record_bytes_max = plan.options.record_bytes_max;
        if record.len() > record_bytes_max || record.len() > BATCH_BYTES_MAX.saturating_sub(*bytes) {
            let limit = record_bytes_max.min(BATCH_BYTES_MAX);
            let expected = format!("at most {limit} bytes");
            return Err((
                ViolationClass::TooLarge,
                expected,
                format!("{} bytes", record.len()),
            ));
        }
        *bytes += record.len();
        let not_json = |found: String| (ViolationClass::NotJson, "JSON (RFC 8259)".to_owned(), found);
        let text = json::utf8(record).map_err(|defect| not_json(defect.to_string()))?;
        let mut scanner = Scanner::new(record);
        scanner.blank();
        let first = scanner.peek();
        let mut reader = Reader {
            text,
            scanner,
            work,
            on_unknown: plan.options.on_unknown,
            on_unknown_in: &plan.on_unknown,
            hidden: &plan.hidden,
            rescue_mismatch: plan.options.on_mismatch == OnMismatch::Rescue,
            inspect: plan.inspect,
        };
        let read = if first == b'{' {
            reader.record(&plan.slots, columns)
        } else {
            reader.scanner.skip().and_then(|_| reader.scanner.end())
        };
        match (read, reader.scanner.lone_surrogate) {
            (Err(defect @ Defect::TooDeep { .. }), _) => Err((
                ViolationClass::TooDeep,
                format!("at most {DEPTH_MAX} levels"),
                defect.to_string(),
            )),
            (Err(defect), _) => Err(not_json(defect.to_string())),
            (Ok(()), Some(offset)) => Err(not_json(format!("half a surrogate pair at byte {offset}"))),
            (Ok(()), None) if first != b'{' => {
                let found = match first {
                    b'[' => "array",
                    b'"' => "string",
                    b'n' => "null",
                    b't' | b'f' => "boolean",
                    _ => "number",
                };
                Err((ViolationClass::NotAnObject, "object".to_owned(), found.to_owned()))
            }
            (Ok(()), None) if work.rescued_overflows => {
                let expected = format!("at most {RESCUED_BYTES_MAX} bytes in {RESCUED}");
                Err((
                    ViolationClass::TooLarge,
                    expected,
                    format!("{} bytes", record.len()),
                ))
            }
            (Ok(()), None) => Ok(()),
        }
    }

    /// Records pushed so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// About how many bytes the columns hold: those of the records, and a word for each row and column.
    pub fn bytes(&self) -> usize {
        self.bytes + self.rows * (self.columns.len() + 1) * size_of::<u64>()
    }

    /// Drops the columns and gives what the records were like.
    pub(crate) fn into_observed(self) -> Observed {
        self.work.into_observed()
    }

    /// Ends the batch.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the columns do not make an Arrow batch, which only a defect of this program can cause.
    pub fn finish(mut self) -> Result<Judged> {
        let internal = |source| Error::new(ErrorKind::Internal, "finish judged batch").caused_by(source);
        *self.plan.sizes.lock().unwrap_or_else(PoisonError::into_inner) = Sizes::of(&self.columns);
        let mut arrays = self
            .columns
            .iter_mut()
            .map(Values::finish)
            .collect::<Result<Vec<ArrayRef>, _>>()
            .map_err(internal)?;
        arrays.push(Arc::new(self.rescued.finish()));
        let batch = RecordBatch::try_new(Arc::clone(&self.plan.schema), arrays).map_err(internal)?;
        Ok(Judged {
            batch,
            violations: std::mem::take(&mut self.work.violations),
            coerced: self.work.coerced,
            observed: self.work.into_observed(),
            rescued: self.rescued_rows,
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
