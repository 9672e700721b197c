//! Where the keys of a load stand in the table.
//!
//! ```text
//! files ─ bounds in the log ─ row groups ─ bounds and key filters in the file ─ key columns ─┬─ no key: nothing more is read
//!                                                                                           └─ order columns of those rows
//! ```

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use futures::{StreamExt as _, TryStreamExt as _};

use super::{
    Table,
    file::DataFile,
    latest::Latest,
    opened::Opened,
    prune::{self, KeyRange, may_match},
    tasks::side_by_side,
};
use crate::error::Result;

/// Pieces of files probed at once.
const PROBES_IN_FLIGHT_MAX: usize = 4;

/// Row groups probed by one task.
const GROUPS_A_TASK: usize = 4;

/// Order columns are read whole if more than one in so many rows is wanted.
const SELECTION_PART: usize = 16;

/// Files that can hold keys of a load.
pub(super) struct Candidates {
    /// Their numbers among the files of the table.
    pub(super) files: Vec<usize>,
    pub(super) ranges: Arc<Vec<KeyRange>>,
}

/// A winner's key found in a data file.
#[derive(Debug)]
pub(super) struct Match {
    pub(super) winner: usize,
    /// Row number in the file.
    pub(super) row: u64,
    /// Whether the winner is newer than that row.
    pub(super) newer: bool,
    /// Whether the winner is that row.
    pub(super) same: bool,
    /// Whether its sequence is another one.
    pub(super) changed: bool,
}

/// What was found in the files of a table.
#[derive(Default)]
pub(super) struct Probed {
    /// For each candidate its matches in the order of rows.
    pub(super) matches: Vec<Vec<Match>>,
    /// Row groups of the candidates.
    pub(super) groups: u64,
    /// Those whose keys were read.
    pub(super) groups_read: u64,
}

impl Table {
    /// Which of `files` can hold a key of `latest`.
    pub(super) fn candidates(&self, files: &[DataFile], keys: &[String], latest: &Latest) -> Candidates {
        if latest.winners.is_empty() {
            return Candidates {
                files: Vec::new(),
                ranges: Arc::default(),
            };
        }
        let ranges = prune::ranges(keys, &latest.rows);
        let can = |file: &DataFile| may_match(&file.partition, file.stats.as_deref(), &ranges);
        Candidates {
            files: (0..files.len()).filter(|number| can(&files[*number])).collect(),
            ranges: Arc::new(ranges),
        }
    }

    /// Finds the winners' keys in the candidates among `files`.
    pub(super) async fn probe_all(
        &self,
        files: &[DataFile],
        candidates: &Candidates,
        latest: &Arc<Latest>,
    ) -> Result<Probed> {
        let mut opening = Vec::with_capacity(candidates.files.len());
        for number in &candidates.files {
            let (store, file, ranges) = (
                self.store(),
                files[*number].clone(),
                Arc::clone(&candidates.ranges),
            );
            opening.push(async move {
                let opened = Opened::new(store, &file).await?;
                let groups = opened.groups_with(&ranges).await?;
                Ok((Arc::new(opened), groups))
            });
        }
        let opened = side_by_side(opening, PROBES_IN_FLIGHT_MAX).await?;
        let mut probed = Probed::default();
        let mut pieces = Vec::new();
        for (candidate, (file, groups)) in opened.into_iter().enumerate() {
            probed.matches.push(Vec::new());
            probed.groups += file.groups().len() as u64;
            probed.groups_read += groups.len() as u64;
            for groups in groups.chunks(GROUPS_A_TASK) {
                pieces.push((candidate, Arc::clone(&file), groups.to_vec()));
            }
        }
        let probing = pieces.into_iter().map(|(candidate, file, groups)| {
            let latest = Arc::clone(latest);
            async move {
                let mut matches = Vec::new();
                for group in groups {
                    probe(&file, group, &latest, &mut matches).await?;
                }
                Ok((candidate, matches))
            }
        });
        for (candidate, matches) in side_by_side(probing, PROBES_IN_FLIGHT_MAX).await? {
            probed.matches[candidate].extend(matches);
        }
        Ok(probed)
    }
}

/// Finds the winners' keys in the row group `group` of `file`.
async fn probe(file: &Opened, group: usize, latest: &Latest, matches: &mut Vec<Match>) -> Result<()> {
    let mut found: Vec<Found> = Vec::new();
    let mut live = 0;
    let mut batches = std::pin::pin!(file.rows_of(group..group + 1, Arc::clone(&latest.key_schema))?);
    while let Some(batch) = batches.try_next().await? {
        let keys = latest.key_of(&batch.rows)?;
        for row in 0..batch.rows.num_rows() {
            if let Some(winner) = latest.find(keys.row(row).data()) {
                found.push(Found {
                    at: live + row,
                    number: batch.number(row),
                    winner,
                });
            }
        }
        live += batch.rows.num_rows();
    }
    if found.is_empty() {
        return Ok(());
    }
    let few = found.len() < live / SELECTION_PART;
    let schema = SchemaRef::clone(&latest.order_schema);
    let (mut found, mut read) = (found.into_iter().peekable(), 0);
    let mut batches = if few {
        let numbers: Vec<u64> = found.clone().map(|row| row.number).collect();
        file.rows_at(&numbers, schema)?.boxed()
    } else {
        let rows = file.rows_of(group..group + 1, schema)?;
        rows.map_ok(|batch| batch.rows).boxed()
    };
    let mut matched = 0;
    while let Some(batch) = batches.try_next().await? {
        let orders = latest.order_of(&batch)?;
        let end = read + batch.num_rows();
        loop {
            // Of a selection the rows come without those between them.
            let place = |row: &Found| if few { matched } else { row.at };
            let Some(row) = found.next_if(|row| place(row) < end) else {
                break;
            };
            let (new, old) = (latest.order(row.winner), orders.row(place(&row) - read));
            matches.push(Match {
                winner: row.winner,
                row: row.number,
                newer: new > old.data(),
                same: new == old.data(),
                changed: sequence(new).is_empty() || sequence(new) != sequence(old.data()),
            });
            matched += 1;
        }
        read = end;
    }
    Ok(())
}

/// A row with the key of a winner.
#[derive(Clone)]
struct Found {
    /// Its place among the rows of its row group that are not deleted.
    at: usize,
    /// Its number in the file.
    number: u64,
    winner: usize,
}

/// The part of an order in comparable bytes that stands before the raw position.
///
/// Arrow writes a number as one byte and its own width, and a position is numbers of 8, 4 and 4 bytes.
fn sequence(order: &[u8]) -> &[u8] {
    const POSITION_BYTES: usize = 9 + 5 + 5;
    order.get(..order.len() - POSITION_BYTES).unwrap_or_default()
}
