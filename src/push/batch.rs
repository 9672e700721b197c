//! Records gathered into bodies.

use std::ops::Range;

use bytes::Bytes;

/// How records stand in a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One a line; a record has no line break in it.
    Lines,
    /// In one JSON array.
    Array,
}

/// How much goes into one body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchLimits {
    /// Most records.
    pub records_max: u64,
    /// Most bytes, before packing, unless one record alone has more.
    pub bytes_max: usize,
}

impl BatchLimits {
    /// 5,000 records or 4 MiB: well below what a stream takes unless its settings say less, and large enough that the disk of
    /// the server is no matter.
    pub const USUAL: Self = Self {
        records_max: 5_000,
        bytes_max: 4 << 20,
    };
}

/// One body, complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    form: Form,
    body: Bytes,
    records: Vec<Range<usize>>,
}

impl Batch {
    /// The media type of the body.
    pub fn content_type(&self) -> &'static str {
        match self.form {
            Form::Lines => "application/x-ndjson",
            Form::Array => "application/json",
        }
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The record `index`, as it was added.
    pub fn record(&self, index: usize) -> Option<&[u8]> {
        self.body.get(self.records.get(index)?.clone())
    }

    /// A batch of some of its records, in their order.
    #[must_use]
    pub fn some(&self, indexes: &[usize]) -> Self {
        let mut batcher = Batcher::new(self.form, BatchLimits::USUAL);
        indexes
            .iter()
            .filter_map(|index| self.record(*index))
            .for_each(|record| batcher.put(record));
        batcher.take()
    }
}

/// Gathers records until a body is full.
///
/// ```
/// use landfall::push::batch::{BatchLimits, Batcher, Form};
/// let mut batcher = Batcher::new(Form::Lines, BatchLimits { records_max: 2, bytes_max: 1024 });
/// for record in ["{\"id\":1}", "{\"id\":2}"] {
///     assert!(batcher.has_room(record.len()));
///     batcher.put(record.as_bytes());
/// }
/// assert!(!batcher.has_room(1));
/// assert_eq!(batcher.take().body().as_ref(), b"{\"id\":1}\n{\"id\":2}");
/// ```
#[derive(Debug)]
pub struct Batcher {
    form: Form,
    limits: BatchLimits,
    body: Vec<u8>,
    records: Vec<Range<usize>>,
}

impl Batcher {
    /// An empty one.
    pub fn new(form: Form, limits: BatchLimits) -> Self {
        Self {
            form,
            limits,
            body: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Whether a record of so many bytes may go with those that are there; any may go alone.
    pub fn has_room(&self, bytes: usize) -> bool {
        // What stands around it: a bracket or line break on either side.
        let after = self.body.len().saturating_add(bytes).saturating_add(2);
        let counts = (self.records.len() as u64) < self.limits.records_max;
        self.records.is_empty() || (counts && after <= self.limits.bytes_max)
    }

    /// Whether nothing is gathered.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Adds one record.
    pub fn put(&mut self, record: &[u8]) {
        match (self.form, self.records.is_empty()) {
            (Form::Lines, true) => {}
            (Form::Lines, false) => self.body.push(b'\n'),
            (Form::Array, true) => self.body.push(b'['),
            (Form::Array, false) => self.body.push(b','),
        }
        let start = self.body.len();
        self.body.extend_from_slice(record);
        self.records.push(start..self.body.len());
    }

    /// What was gathered; the batcher is empty then.
    pub fn take(&mut self) -> Batch {
        if self.form == Form::Array && !self.records.is_empty() {
            self.body.push(b']');
        }
        Batch {
            form: self.form,
            body: Bytes::from(std::mem::take(&mut self.body)),
            records: std::mem::take(&mut self.records),
        }
    }
}
