//! Two sorted lists of keys and hashes, side by side.

use std::{cmp::Ordering, collections::BTreeSet};

use arrow::array::{Array as _, AsArray as _, BinaryArray};
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt as _;

use super::{Comparison, Kind, reading};
use crate::error::Result;

/// What a walk over both tables found.
pub(super) struct Walked {
    pub(super) comparison: Comparison,
    /// Keys of some rows that differ.
    pub(super) keys: BTreeSet<Vec<u8>>,
}

/// Pairs the rows of both, which are sorted by key and hash, and counts.
///
/// Several rows of one key, on either side, are paired as far as they are the same; of the others as many as there are on
/// both sides count as changed.
pub(super) async fn walk(
    live: SendableRecordBatchStream,
    rebuilt: SendableRecordBatchStream,
    limit: usize,
) -> Result<Walked> {
    let (mut live, mut rebuilt) = (Cursor::new(live), Cursor::new(rebuilt));
    live.settle().await?;
    rebuilt.settle().await?;
    let mut walked = Walked {
        comparison: Comparison::default(),
        keys: BTreeSet::new(),
    };
    let mut kept = [0_usize; 3];
    // Ends with the rows: each round takes at least the row with the least key.
    loop {
        let key = match (live.key(), rebuilt.key()) {
            (Some(one), Some(other)) => one.min(other).to_vec(),
            (Some(one), None) => one.to_vec(),
            (None, Some(other)) => other.to_vec(),
            (None, None) => return Ok(walked),
        };
        let (equal, ones, others) = group(&mut live, &mut rebuilt, &key).await?;
        let changed = ones.min(others);
        let counts = &mut walked.comparison;
        counts.equal += equal;
        counts.changed += changed;
        counts.only_live += ones - changed;
        counts.only_rebuilt += others - changed;
        let kinds = [
            (Kind::Changed, changed),
            (Kind::OnlyLive, ones - changed),
            (Kind::OnlyRebuilt, others - changed),
        ];
        for (kind, rows) in kinds {
            let kept = &mut kept[kind as usize];
            if rows > 0 && *kept < limit {
                *kept += 1;
                walked.keys.insert(key.clone());
            }
        }
    }
}

/// The rows of `key`: the same on both sides, left over in the live table, left over in the rebuilt one.
async fn group(live: &mut Cursor, rebuilt: &mut Cursor, key: &[u8]) -> Result<(u64, u64, u64)> {
    let (mut equal, mut ones, mut others) = (0, 0, 0);
    loop {
        let order = match (live.hash_of(key), rebuilt.hash_of(key)) {
            (Some(one), Some(other)) => one.cmp(other),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => return Ok((equal, ones, others)),
        };
        match order {
            Ordering::Equal => equal += 1,
            Ordering::Less => ones += 1,
            Ordering::Greater => others += 1,
        }
        if order != Ordering::Greater {
            live.next().await?;
        }
        if order != Ordering::Less {
            rebuilt.next().await?;
        }
    }
}

/// A place in a stream of keys and hashes.
struct Cursor {
    stream: SendableRecordBatchStream,
    /// The batch under way; none behind the end.
    batch: Option<(BinaryArray, BinaryArray)>,
    row: usize,
}

impl Cursor {
    fn new(stream: SendableRecordBatchStream) -> Self {
        Self {
            stream,
            batch: None,
            row: 0,
        }
    }

    fn key(&self) -> Option<&[u8]> {
        let (keys, _) = self.batch.as_ref()?;
        Some(keys.value(self.row))
    }

    /// The hash of the row here, if its key is `key`.
    fn hash_of(&self, key: &[u8]) -> Option<&[u8]> {
        let (keys, hashes) = self.batch.as_ref()?;
        (keys.value(self.row) == key).then(|| hashes.value(self.row))
    }

    async fn next(&mut self) -> Result<()> {
        self.row += 1;
        match &self.batch {
            Some((keys, _)) if self.row < keys.len() => Ok(()),
            _ => self.settle().await,
        }
    }

    /// Goes to the first row of the next batch that has one.
    async fn settle(&mut self) -> Result<()> {
        self.row = 0;
        self.batch = None;
        while let Some(batch) = self.stream.try_next().await.map_err(reading)? {
            if batch.num_rows() > 0 {
                let column = |number: usize| batch.column(number).as_binary::<i32>().clone();
                self.batch = Some((column(0), column(1)));
                return Ok(());
            }
        }
        Ok(())
    }
}
