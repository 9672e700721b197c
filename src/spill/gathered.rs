//! Rows gathered one batch after the other, in memory as far as there is room.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use arrow::{array::RecordBatch, datatypes::SchemaRef};

use super::{
    run::{Run, undone},
    scratch::Scratch,
};
use crate::error::Result;

/// Part of the room that the rows of one gathering take at least before they go to a file: runs are not too many then.
const RUN_SHARE: usize = 8;

/// Parts of a run that would fill the room. A slice may read one part more of each run than it has rows in.
const PARTS_IN_ROOM: usize = 256;

/// How much memory rows may take, and where they go beyond.
///
/// Clones share the room: the parts of a load that are judged at the same time have one limit together.
#[derive(Clone, Debug)]
pub struct Spill {
    dir: PathBuf,
    held_bytes_max: usize,
    slice_bytes_max: usize,
    sorting: Option<Arc<Sorting>>,
    held_bytes: Arc<AtomicUsize>,
}

/// In which order rows stand in a run.
#[derive(Debug)]
pub(super) struct Sorting {
    /// Columns by which they are cut into slices.
    pub(super) keys: Vec<String>,
    /// Columns that order the rows of a key.
    pub(super) order: Vec<String>,
}

impl Spill {
    /// Rows of more than `held_bytes_max` go to a file in `dir`, and come back in slices of about `slice_bytes_max`.
    pub fn new(dir: &Path, held_bytes_max: u64, slice_bytes_max: u64) -> Self {
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            dir: dir.to_owned(),
            held_bytes_max: bytes(held_bytes_max),
            slice_bytes_max: bytes(slice_bytes_max),
            sorting: None,
            held_bytes: Arc::default(),
        }
    }

    /// Rows that all stay in memory, for whoever gathers few.
    pub fn never() -> Self {
        Self::new(Path::new(""), u64::MAX, u64::MAX)
    }

    /// Slices are ranges of the columns `keys`; the rows of a key come in the order of the columns `order`.
    #[must_use]
    pub fn sorted<'n>(mut self, keys: &[String], order: impl IntoIterator<Item = &'n str>) -> Self {
        self.sorting = Some(Arc::new(Sorting {
            keys: keys.to_vec(),
            order: order.into_iter().map(str::to_owned).collect(),
        }));
        self
    }

    /// The same room once more, for rows in the order in which they come.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self {
            sorting: None,
            held_bytes: Arc::default(),
            ..self.clone()
        }
    }
}

/// Rows of one schema.
///
/// ```
/// use landfall::spill::gathered::{Gathered, Spill};
/// let rows = Gathered::new(Spill::never());
/// assert_eq!(rows.held(), Some(&[][..]));
/// ```
#[derive(Clone, Debug)]
pub struct Gathered {
    spill: Spill,
    held: Vec<RecordBatch>,
    /// Bytes that those take.
    held_bytes: usize,
    runs: Vec<Arc<Run>>,
    file: Option<Arc<Mutex<Scratch>>>,
}

impl From<Vec<RecordBatch>> for Gathered {
    fn from(held: Vec<RecordBatch>) -> Self {
        Self {
            held,
            ..Self::new(Spill::never())
        }
    }
}

impl Gathered {
    /// No rows.
    pub fn new(spill: Spill) -> Self {
        Self {
            spill,
            held: Vec::new(),
            held_bytes: 0,
            runs: Vec::new(),
            file: None,
        }
    }

    /// Takes `rows`, which have the schema of all others.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`](crate::error::ErrorKind::Limit) if the disk does not take what memory has no room for.
    pub fn push(&mut self, rows: RecordBatch) -> Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let bytes = rows.get_array_memory_size();
        self.held.push(rows);
        self.held_bytes += bytes;
        let held_bytes = self.spill.held_bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if held_bytes > self.spill.held_bytes_max && self.held_bytes >= self.spill.held_bytes_max / RUN_SHARE
        {
            return self.put_down();
        }
        Ok(())
    }

    /// Takes the rows of `other` behind its own.
    ///
    /// # Errors
    /// As [`Gathered::push`].
    pub fn append(&mut self, mut other: Self) -> Result<()> {
        if !self.runs.is_empty() || !other.runs.is_empty() {
            self.put_down()?;
            other.put_down()?;
        }
        self.held.append(&mut other.held);
        self.held_bytes += other.held_bytes;
        self.runs.append(&mut other.runs);
        // Each of many parts may have held too little to put it down by itself.
        if self.spill.held_bytes.load(Ordering::Relaxed) > self.spill.held_bytes_max {
            return self.put_down();
        }
        Ok(())
    }

    /// Puts the rows that are held to the others, if there are some in a file.
    pub(super) fn settle(&mut self) -> Result<()> {
        if self.runs.is_empty() {
            Ok(())
        } else {
            self.put_down()
        }
    }

    /// Puts the rows that are held into a run.
    fn put_down(&mut self) -> Result<()> {
        if self.held.is_empty() {
            return Ok(());
        }
        let spill = &self.spill;
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => {
                let scratch = Scratch::create(&spill.dir).map_err(|cause| undone(&spill.dir, cause))?;
                Arc::clone(self.file.insert(Arc::new(Mutex::new(scratch))))
            }
        };
        self.runs.push(Arc::new(Run::write(
            &file,
            &spill.dir,
            &self.held,
            spill.sorting.as_deref(),
            self.held_bytes,
            (spill.held_bytes_max / PARTS_IN_ROOM).max(1),
        )?));
        self.held.clear();
        spill.held_bytes.fetch_sub(self.held_bytes, Ordering::Relaxed);
        self.held_bytes = 0;
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty() && self.runs.is_empty()
    }

    /// Their schema; none if there are no rows.
    pub fn schema(&self) -> Option<SchemaRef> {
        let of_runs = || self.runs.first().map(|run| Arc::clone(&run.schema));
        self.held.first().map(RecordBatch::schema).or_else(of_runs)
    }

    /// All rows as they came, if none of them is in a file.
    pub fn held(&self) -> Option<&[RecordBatch]> {
        self.runs.is_empty().then_some(self.held.as_slice())
    }

    /// All rows, one batch after the other: as they came, but sorted within each run.
    pub fn batches(&self) -> impl Iterator<Item = Result<RecordBatch>> + Send + use<> {
        let runs = self.runs.clone().into_iter();
        runs.flat_map(|run| (0..run.parts.len()).map(move |part| run.read(&run.parts[part])))
            .chain(self.held.clone().into_iter().map(Ok))
    }

    /// Gathers rows beside these under the limits of these, in the order in which they come.
    #[must_use]
    pub fn beside(&self) -> Self {
        Self::new(self.spill.beside())
    }

    pub(super) fn runs(&self) -> &[Arc<Run>] {
        &self.runs
    }

    pub(super) fn sorting(&self) -> Option<&Sorting> {
        self.spill.sorting.as_deref()
    }

    /// About how many bytes the rows of a slice take.
    pub fn slice_bytes_max(&self) -> usize {
        self.spill.slice_bytes_max
    }
}
