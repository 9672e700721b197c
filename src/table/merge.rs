//! The merge: accepted rows of one load into the main table, one current row per key.
//!
//! ```text
//! rows ─ latest per key ─ prune files by key statistics ─ probe keys and sequence ─┬─ file without a loser: untouched
//!                                                                                 └─ else: rewritten without them
//! winners ─ into the rewritten file they replace rows of, or into new files
//! ```
//!
//! Order is `sequence_by`, then the raw position. Memory follows the rows of the load, not the table.

use std::{collections::HashMap, hash::BuildHasher as _, sync::Arc};

use arrow::{
    array::{BooleanArray, RecordBatch},
    compute::{filter_record_batch, interleave_record_batch},
    datatypes::{Schema, SchemaRef},
    row::{RowConverter, Rows, SortField},
};
use deltalake::{
    kernel::{Action, schema::cast_record_batch},
    protocol::{DeltaOperation, SaveMode},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::{
    CommitNote, Committed, Table, evolve,
    file::{DataFile, close, write},
    lower,
    prune::{self, may_match},
};
use crate::{
    config::ScdType,
    error::{Error, ErrorKind, Result},
};

/// The columns of a row's raw position, in order of significance.
pub const POSITION: [&str; 3] = ["_lf_batch", "_lf_page", "_lf_record"];

/// Files probed at once.
const PROBE_CONCURRENCY: usize = 4;

/// Winning rows gathered into one Arrow batch at a time.
const GATHER_ROWS: usize = 16 * 1024;

/// How rows meet the table.
#[derive(Clone, Debug)]
pub struct MergeOptions {
    /// Column names that identify a row.
    pub keys: Vec<String>,
    /// Column names that order the versions of a row.
    pub sequence_by: Vec<String>,
    /// Whether older versions are replaced or kept.
    pub scd_type: ScdType,
}

/// What a merge will do, and did to the rows of its load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MergeCounts {
    /// Rows that are in the table afterwards.
    pub merged: u64,
    /// Rows that lost against a newer version, in the load or in the table.
    pub superseded: u64,
    /// Rows of the table that a merged row replaces.
    pub replaced: u64,
    /// Data files of the table version.
    pub files: u64,
    /// Files whose keys were read.
    pub files_probed: u64,
    /// Files rewritten.
    pub files_rewritten: u64,
}

/// New files that are written but not yet visible.
#[derive(Debug)]
pub struct Planned {
    /// What will have happened once it is committed.
    pub counts: MergeCounts,
    actions: Vec<Action>,
    schema: Option<Schema>,
    operation: DeltaOperation,
}

impl Table {
    /// Writes the files that `rows` lead to; nothing is visible before [`Table::commit_merge`].
    ///
    /// `rows` are in raw order and share one schema; columns the table lacks are added to it.
    ///
    /// # Errors
    /// [`ErrorKind::Contract`] if a column would change its type, [`ErrorKind::Corrupt`] or
    /// [`ErrorKind::Unavailable`] if files cannot be read or written.
    pub async fn plan_merge(&self, rows: Vec<RecordBatch>, options: &MergeOptions) -> Result<Planned> {
        let existing = self.schema()?;
        let wanted = rows
            .first()
            .map_or_else(|| Arc::clone(&existing), RecordBatch::schema);
        let schema = Arc::new(evolve::union(&existing, &wanted)?);
        let changed = (*schema != *existing).then(|| schema.as_ref().clone());
        let rows = rows
            .iter()
            .map(|batch| cast_record_batch(batch, Arc::clone(&schema), false, true))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|source| lower(source, "shape rows"))?;
        match options.scd_type {
            ScdType::Append => self.plan_append(rows, schema, changed).await,
            ScdType::Upsert => self.plan_upsert(rows, schema, changed, options).await,
        }
    }

    /// Makes `planned` visible together with the watermark of `note`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the log can be neither written nor read back.
    pub async fn commit_merge(&mut self, planned: Planned, note: &CommitNote) -> Result<Committed> {
        self.commit(planned.actions, planned.schema.as_ref(), planned.operation, note)
            .await
    }

    async fn plan_append(
        &self,
        rows: Vec<RecordBatch>,
        schema: SchemaRef,
        changed: Option<Schema>,
    ) -> Result<Planned> {
        let mut writer = self.writer(schema)?;
        let mut counts = MergeCounts {
            files: self.files()?.len() as u64,
            ..MergeCounts::default()
        };
        for batch in &rows {
            counts.merged += batch.num_rows() as u64;
            write(&mut writer, batch).await?;
        }
        Ok(Planned {
            counts,
            actions: close(writer).await?,
            schema: changed,
            operation: DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            },
        })
    }

    async fn plan_upsert(
        &self,
        rows: Vec<RecordBatch>,
        schema: SchemaRef,
        changed: Option<Schema>,
        options: &MergeOptions,
    ) -> Result<Planned> {
        let total: u64 = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        let latest = Arc::new(Latest::of(rows, &schema, options)?);
        let files = self.files()?;
        let ranges = prune::ranges(&options.keys, &latest.rows);
        let candidates: Vec<DataFile> = if latest.winners.is_empty() {
            Vec::new()
        } else {
            files
                .iter()
                .filter(|file| may_match(&file.partition, file.stats.as_deref(), &ranges))
                .cloned()
                .collect()
        };
        let mut counts = MergeCounts {
            files: files.len() as u64,
            files_probed: candidates.len() as u64,
            ..MergeCounts::default()
        };
        let matches: Vec<Vec<Match>> = stream::iter(candidates.clone())
            .map(|file| {
                let latest = Arc::clone(&latest);
                async move { self.probe(&file, &latest).await }
            })
            .buffered(PROBE_CONCURRENCY)
            .try_collect()
            .await?;

        let mut actions = Vec::new();
        let mut placed = vec![false; latest.winners.len()];
        // A winner is written once, also where its key stands in several rows because the keys of the table were others before.
        let mut settled = vec![false; latest.winners.len()];
        for hit in matches.iter().flatten() {
            placed[hit.winner] = true;
            settled[hit.winner] |= !hit.newer;
        }
        let stale = settled.iter().filter(|stale| **stale).count() as u64;
        for (file, matches) in candidates.iter().zip(&matches) {
            let beaten: Vec<&Match> = matches.iter().filter(|hit| hit.newer).collect();
            if beaten.is_empty() {
                continue;
            }
            let mut winners: Vec<usize> = beaten.iter().map(|hit| hit.winner).collect();
            winners.retain(|winner| !std::mem::replace(&mut settled[*winner], true));
            counts.files_rewritten += 1;
            counts.replaced += beaten.len() as u64;
            counts.merged += winners.len() as u64;
            actions.extend(self.rewrite(file, &beaten, &winners, &latest, &schema).await?);
            actions.push(Action::Remove(file.view.remove_action(true)));
        }
        let new: Vec<usize> = (0..placed.len()).filter(|winner| !placed[*winner]).collect();
        counts.merged += new.len() as u64;
        // Counted for itself, not as what is left over: the caller checks that the two add up to what it gave.
        counts.superseded = total - latest.winners.len() as u64 + stale;
        let mut writer = self.writer(schema)?;
        latest.write(&new, &mut writer).await?;
        actions.extend(close(writer).await?);
        Ok(Planned {
            counts,
            actions,
            schema: changed,
            operation: DeltaOperation::Merge {
                predicate: None,
                merge_predicate: Some(options.keys.join(", ")),
                matched_predicates: Vec::new(),
                not_matched_predicates: Vec::new(),
                not_matched_by_source_predicates: Vec::new(),
            },
        })
    }

    /// Finds the winners' keys in `file`, reading only key, sequence and position columns.
    async fn probe(&self, file: &DataFile, latest: &Arc<Latest>) -> Result<Vec<Match>> {
        let mut matches = Vec::new();
        let mut start = 0_u64;
        let mut batches = std::pin::pin!(self.read(file, Arc::clone(&latest.probe_schema)).await?);
        while let Some(batch) = batches.try_next().await? {
            let keys = latest.key_of(&batch)?;
            let orders = latest.order_of(&batch)?;
            for row in 0..batch.num_rows() {
                if let Some(winner) = latest.find(keys.row(row).data()) {
                    let newer = latest.order(winner) > orders.row(row).data();
                    matches.push(Match {
                        winner,
                        row: start + row as u64,
                        newer,
                    });
                }
            }
            start += batch.num_rows() as u64;
        }
        Ok(matches)
    }

    /// Writes `file` anew without the beaten rows and with `winners`.
    async fn rewrite(
        &self,
        file: &DataFile,
        beaten: &[&Match],
        winners: &[usize],
        latest: &Latest,
        schema: &SchemaRef,
    ) -> Result<Vec<Action>> {
        let mut writer = self.writer(Arc::clone(schema))?;
        let mut losers = beaten.iter().map(|hit| hit.row).peekable();
        let mut start = 0_u64;
        let mut batches = std::pin::pin!(self.read(file, Arc::clone(schema)).await?);
        while let Some(batch) = batches.try_next().await? {
            let end = start + batch.num_rows() as u64;
            let mut keep = vec![true; batch.num_rows()];
            while let Some(row) = losers.next_if(|row| *row < end) {
                keep[(row - start) as usize] = false;
            }
            let kept = filter_record_batch(&batch, &BooleanArray::from(keep)).map_err(arrow_error)?;
            write(&mut writer, &kept).await?;
            start = end;
        }
        latest.write(winners, &mut writer).await?;
        close(writer).await
    }
}

/// A winner's key found in a data file.
#[derive(Debug)]
struct Match {
    winner: usize,
    /// Row number in the file.
    row: u64,
    /// Whether the winner is newer than that row.
    newer: bool,
}

/// The latest row of each key of a load.
struct Latest {
    rows: Vec<RecordBatch>,
    /// Key, sequence and position columns of the table.
    probe_schema: SchemaRef,
    keys: Converter,
    orders: Converter,
    key_rows: Vec<Rows>,
    order_rows: Vec<Rows>,
    /// Batch and row of each winner, in key order once built.
    winners: Vec<(usize, usize)>,
    index: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

impl Latest {
    fn of(rows: Vec<RecordBatch>, schema: &Schema, options: &MergeOptions) -> Result<Self> {
        let order_names: Vec<&str> = options
            .sequence_by
            .iter()
            .map(String::as_str)
            .chain(POSITION)
            .collect();
        let key_names: Vec<&str> = options.keys.iter().map(String::as_str).collect();
        let keys = Converter::new(&key_names, schema)?;
        let orders = Converter::new(&order_names, schema)?;
        let mut probe: Vec<_> = Vec::new();
        for name in key_names.iter().chain(&order_names) {
            let field = schema.field_with_name(name).map_err(arrow_error)?;
            if !probe.contains(field) {
                probe.push(field.clone());
            }
        }
        let key_rows = rows
            .iter()
            .map(|batch| keys.convert(batch))
            .collect::<Result<Vec<_>>>()?;
        let order_rows = rows
            .iter()
            .map(|batch| orders.convert(batch))
            .collect::<Result<Vec<_>>>()?;
        let mut latest = Self {
            probe_schema: Arc::new(Schema::new(probe)),
            keys,
            orders,
            key_rows,
            order_rows,
            winners: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            rows,
        };
        latest.elect();
        Ok(latest)
    }

    fn elect(&mut self) {
        for batch in 0..self.rows.len() {
            for row in 0..self.rows[batch].num_rows() {
                let key = self.key_rows[batch].row(row);
                let hash = self.hasher.hash_one(key.data());
                let same = |winner: &usize| self.key(*winner) == key.data();
                match self.index.find(hash, same) {
                    Some(&winner) => {
                        if self.order_rows[batch].row(row).data() >= self.order(winner) {
                            self.winners[winner] = (batch, row);
                        }
                    }
                    None => {
                        let (winners, key_rows, hasher) = (&self.winners, &self.key_rows, &self.hasher);
                        self.index.insert_unique(hash, winners.len(), |winner| {
                            let (batch, row) = winners[*winner];
                            hasher.hash_one(key_rows[batch].row(row).data())
                        });
                        self.winners.push((batch, row));
                    }
                }
            }
        }
    }

    fn key(&self, winner: usize) -> &[u8] {
        let (batch, row) = self.winners[winner];
        self.key_rows[batch].row(row).data()
    }

    fn order(&self, winner: usize) -> &[u8] {
        let (batch, row) = self.winners[winner];
        self.order_rows[batch].row(row).data()
    }

    fn find(&self, key: &[u8]) -> Option<usize> {
        self.index
            .find(self.hasher.hash_one(key), |winner| self.key(*winner) == key)
            .copied()
    }

    fn key_of(&self, batch: &RecordBatch) -> Result<Rows> {
        self.keys.convert(batch)
    }

    fn order_of(&self, batch: &RecordBatch) -> Result<Rows> {
        self.orders.convert(batch)
    }

    /// Writes `winners` in key order, so that the statistics of the new files are narrow.
    async fn write(
        &self,
        winners: &[usize],
        writer: &mut deltalake::datafile::writer::DeltaWriter,
    ) -> Result<()> {
        let mut ordered = winners.to_vec();
        ordered.sort_unstable_by(|a, b| self.key(*a).cmp(self.key(*b)));
        let batches: Vec<&RecordBatch> = self.rows.iter().collect();
        for chunk in ordered.chunks(GATHER_ROWS) {
            let places: Vec<(usize, usize)> = chunk.iter().map(|winner| self.winners[*winner]).collect();
            let gathered = interleave_record_batch(&batches, &places).map_err(arrow_error)?;
            write(writer, &gathered).await?;
        }
        Ok(())
    }
}

/// Turns some columns of a batch into comparable bytes.
struct Converter {
    names: Vec<String>,
    rows: RowConverter,
}

impl Converter {
    fn new(names: &[&str], schema: &Schema) -> Result<Self> {
        let fields = names
            .iter()
            .map(|name| {
                let field = schema.field_with_name(name).map_err(|source| {
                    Error::new(ErrorKind::Config, "find column")
                        .with("column", name)
                        .caused_by(source)
                })?;
                Ok(SortField::new(field.data_type().clone()))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            rows: RowConverter::new(fields).map_err(arrow_error)?,
        })
    }

    fn convert(&self, batch: &RecordBatch) -> Result<Rows> {
        let by_name: HashMap<&str, usize> = batch
            .schema_ref()
            .fields()
            .iter()
            .enumerate()
            .map(|(index, field)| (field.name().as_str(), index))
            .collect();
        let columns = self
            .names
            .iter()
            .map(|name| {
                by_name
                    .get(name.as_str())
                    .map(|index| Arc::clone(batch.column(*index)))
                    .ok_or_else(|| Error::new(ErrorKind::Internal, "find column").with("column", name))
            })
            .collect::<Result<Vec<_>>>()?;
        self.rows.convert_columns(&columns).map_err(arrow_error)
    }
}

fn arrow_error(source: arrow::error::ArrowError) -> Error {
    Error::new(ErrorKind::Internal, "merge rows").caused_by(source)
}
