//! Writing new data files.
//!
//! ```text
//! rows ─ by partition ─ gathered to a row group ─ columns encoded on all cores ─ file ─ uploaded in parts ─► add action
//!                                  │                        │                                │
//!                        the next is gathered    while this one is encoded     and files before it are completed
//! row groups of other files ─ edited column by column ───────────────────────────┘
//! ```
//!
//! In memory at once: two row groups of rows ([`GATHERED_BYTES_MAX`] being gathered over all partitions, one being encoded)
//! or [`UNDER_WAY_BYTES_MAX`] of encoded columns, what is encoded of a row group, and the parts under way.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use deltalake::kernel::{Action, Add};
use object_store::{ObjectStore, path::Path};
use parquet::schema::types::SchemaDescriptor;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{
    Table,
    columns::Group,
    copied::COPY_BYTES_MAX,
    edit::{Edits, Patches},
    encode::{batch_bytes, encode},
    encoding::{parquet_schema, properties, repeats},
    opened::Opened,
    output::{Leaf, Output},
    split::{self, PartitionValues},
    stats::{self, Indexed},
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
};

/// Data files are closed at about this size: large enough for few requests, small enough to rewrite cheaply.
pub(super) const FILE_BYTES_TARGET: u64 = 128 << 20;

/// Rows of a row group at most. A row group is what an update rewrites and what statistics and key filters can rule out:
/// with larger ones few spread updates touch all of them, with smaller ones readers pay for many pieces.
const ROW_GROUP_ROWS_MAX: usize = 64 << 10;

/// Bytes of a row group at most, as they lie in memory before they are encoded.
const ROW_GROUP_BYTES_MAX: usize = 32 << 20;

/// Bytes gathered for all partitions together, before the largest row group is written although it is not full.
const GATHERED_BYTES_MAX: usize = 64 << 20;

/// Encoded bytes of row groups of other files that are edited or copied at once, of one at least: while the last columns of
/// one are encoded, there is work on the next, also if those between them are only copied.
const UNDER_WAY_BYTES_MAX: usize = 12 << 20;

/// Row groups under way at most: each has encoders of its own, however few bytes it has.
const GROUPS_UNDER_WAY_MAX: usize = 8;

/// A row group with a smaller part of the rows and bytes that one may have is not edited by itself: its rows go together with
/// their neighbours'.
const GROUP_PART_MIN: usize = 4;

/// A row group of another writer that is so often larger than one may be is cut.
const GROUP_SIZES_MAX: usize = 2;

/// What a value takes in memory at least, mostly: one that repeats, or is null, takes nearly nothing in a file.
const LEAF_BYTES: usize = 4;

/// Completed files whose last parts are still under way.
const FILES_FINISHING_MAX: usize = 4;

/// Columns with statistics in a table that does not say which.
const INDEXED_COLUMNS_DEFAULT: usize = 32;

/// The table property that says how many columns have statistics; -1 for all.
const INDEXED_COUNT: &str = "delta.dataSkippingNumIndexedCols";

/// The table property that names them, separated by commas.
const INDEXED_NAMES: &str = "delta.dataSkippingStatsColumns";

impl Table {
    /// A writer for new data files of this table in the shape of `schema`.
    pub(super) fn writer(&self, schema: SchemaRef) -> Result<Writer> {
        self.writer_of(schema, FILE_BYTES_TARGET)
    }

    /// The same for files of about `target_bytes`.
    pub(super) fn writer_of(&self, schema: SchemaRef, target_bytes: u64) -> Result<Writer> {
        let partition_by = self.partition_by()?;
        let fields = schema
            .fields()
            .iter()
            .filter(|field| !partition_by.contains(field.name()));
        let file_schema: SchemaRef = Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()));
        let group_bytes_max = usize::try_from(target_bytes)
            .unwrap_or(usize::MAX)
            .min(ROW_GROUP_BYTES_MAX);
        Ok(Writer {
            store: self.store(),
            schema,
            parquet: parquet_schema(&file_schema)?,
            indexed: indexed(self.state()?.metadata().configuration()),
            file_schema,
            partition_by,
            filtered: Vec::new(),
            target_bytes,
            group_rows_max: ROW_GROUP_ROWS_MAX,
            group_bytes_max,
            partitions: BTreeMap::new(),
            gathered_bytes: 0,
            encoding: VecDeque::new(),
            finishing: JoinSet::new(),
            adds: Vec::new(),
        })
    }
}

/// Writes rows into new data files, partition by partition.
///
/// After an error it cannot be used any more.
pub(super) struct Writer {
    store: Arc<dyn ObjectStore>,
    schema: SchemaRef,
    /// Without the partition columns.
    file_schema: SchemaRef,
    parquet: SchemaDescriptor,
    indexed: Indexed,
    partition_by: Vec<String>,
    filtered: Vec<String>,
    target_bytes: u64,
    group_rows_max: usize,
    group_bytes_max: usize,
    /// By folder.
    partitions: BTreeMap<Path, Partition>,
    gathered_bytes: usize,
    /// The row groups being encoded, in the order of their rows.
    encoding: VecDeque<Encoding>,
    finishing: JoinSet<Result<Add>>,
    adds: Vec<Add>,
}

/// A row group being encoded.
struct Encoding {
    /// Of its partition.
    folder: Path,
    /// For each leaf column whether a dictionary pays, should it be the first of its file.
    repeats: Vec<bool>,
    /// What it holds: rows, or encoded columns of another file. Never none.
    bytes: usize,
    /// One task, which ends if nobody waits for it.
    leaves: JoinSet<Result<Vec<Leaf>>>,
}

/// The file of one partition that is being written, and what comes into it next.
struct Partition {
    values: PartitionValues,
    /// The part of names of files that no other writer has.
    id: Uuid,
    /// Files so far.
    files: usize,
    gathered: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    output: Option<Output>,
}

impl Writer {
    /// Files get a key filter for each of these columns.
    #[must_use]
    pub(super) fn with_filters(mut self, columns: &[String]) -> Self {
        self.filtered = columns.to_vec();
        self
    }

    /// The shape of the rows that it takes.
    pub(super) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Writes `batch`, which has the schema of the writer.
    pub(super) async fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let written = self.take_in(batch).await;
        self.checked(written).await
    }

    /// Row groups have `rows` at most.
    #[cfg(test)]
    #[must_use]
    pub(super) fn with_group_rows(mut self, rows: usize) -> Self {
        self.group_rows_max = rows;
        self
    }

    /// Columns with a key filter in `opened` get one in files from now on, too.
    pub(super) fn keep_filters(&mut self, opened: &Opened) {
        for column in opened.filtered() {
            if !self.filtered.contains(&column) {
                self.filtered.push(column);
            }
        }
    }

    /// Whether `group` can be in a file of this writer as it is, but for the columns that change.
    pub(super) fn can_edit(&self, group: &Group) -> Result<bool> {
        Ok(self.can_copy(&group.opened, group.number)
            && (group.edits.is_empty() || self.is_of_size(group) && group.stays(&self.schema)?))
    }

    /// Whether the rows of `group` make a row group of their own.
    fn is_of_size(&self, group: &Group) -> bool {
        let stored = &group.opened.groups()[group.number];
        let number = |number: i64| usize::try_from(number).unwrap_or(usize::MAX);
        let rows = number(stored.num_rows()).max(1);
        let bytes = number(stored.total_byte_size()).max(rows * stored.num_columns() * LEAF_BYTES);
        let left = group.rows();
        rows <= self.group_rows_max * GROUP_SIZES_MAX
            && bytes <= self.group_bytes_max * GROUP_SIZES_MAX
            && (left >= self.group_rows_max / GROUP_PART_MIN
                || bytes / rows * left >= self.group_bytes_max / GROUP_PART_MIN)
    }

    /// Whether the row groups of `opened` are edited column by column, by the first of them.
    pub(super) fn edits_columns_of(&self, opened: &Arc<Opened>) -> bool {
        let first = Group {
            opened: Arc::clone(opened),
            number: 0,
            edits: Edits::default(),
            patches: Patches::default(),
        };
        self.can_copy(opened, 0) && self.is_of_size(&first)
    }

    /// Whether the row group `number` of `opened`, with its indexes of pages, can be in a file of this writer as it is.
    fn can_copy(&self, opened: &Opened, number: usize) -> bool {
        let Some(group) = opened.groups().get(number) else {
            return false;
        };
        // Either every row group of a file has an index of pages, or none may have.
        let pages = opened
            .metadata()
            .offset_index()
            .and_then(|index| index.get(number));
        pages.is_some_and(|pages| pages.len() == group.num_columns())
            && opened.columns().root_schema().get_fields() == self.parquet.root_schema().get_fields()
            && group.compressed_size() <= COPY_BYTES_MAX
    }

    /// Puts a row group of another file, which [can](Self::can_edit) be in a file of this writer, behind what is written.
    pub(super) async fn edit(&mut self, group: Group) -> Result<()> {
        let taken = self.take_group(group).await;
        self.checked(taken).await
    }

    /// Has everything written so far encoded. What is left to [`close`](Self::close) waits for the store.
    pub(super) async fn settle_all(&mut self) -> Result<()> {
        let settled = self.encode_all().await;
        self.checked(settled).await
    }

    /// Completes the files and returns what adds them to the table.
    pub(super) async fn close(mut self) -> Result<Vec<Action>> {
        let completed = self.complete().await;
        self.checked(completed).await?;
        self.adds.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(self.adds.into_iter().map(Action::Add).collect())
    }

    /// Parts of files that will never be complete must not stay in the store.
    async fn checked(&mut self, result: Result<()>) -> Result<()> {
        if result.is_err() {
            self.encoding.clear();
            for partition in std::mem::take(&mut self.partitions).into_values() {
                if let Some(output) = partition.output {
                    output.abort().await;
                }
            }
            // Those that are as good as complete are found by the next vacuum.
            while self.finishing.join_next().await.is_some() {}
        }
        result
    }

    async fn take_in(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if batch.schema_ref() != &self.schema {
            return Err(Error::new(ErrorKind::Internal, "write rows of another shape")
                .with("expected", &self.schema)
                .with("found", batch.schema_ref()));
        }
        for (values, rows) in split::by_partition(batch, &self.partition_by)? {
            let folder = self.partition(values)?;
            self.gather(&folder, rows).await?;
        }
        Ok(())
    }

    /// The folder of a partition, which is there afterwards.
    fn partition(&mut self, values: PartitionValues) -> Result<Path> {
        let folder = split::folder(&values)?;
        self.partitions
            .entry(folder.clone())
            .or_insert_with(|| Partition {
                values,
                id: Uuid::now_v7(),
                files: 0,
                gathered: Vec::new(),
                rows: 0,
                bytes: 0,
                output: None,
            });
        Ok(folder)
    }

    async fn gather(&mut self, folder: &Path, mut rows: RecordBatch) -> Result<()> {
        while rows.num_rows() > 0 {
            let partition = known(&mut self.partitions, folder)?;
            let room = self.group_rows_max - partition.rows;
            // A batch of long rows is cut, too.
            let bytes = batch_bytes(&rows);
            let fit = (self.group_bytes_max.saturating_sub(partition.bytes))
                .saturating_mul(rows.num_rows())
                .checked_div(bytes)
                .unwrap_or(usize::MAX);
            let count = rows.num_rows().min(room).min(fit.max(1));
            let now = rows.slice(0, count);
            rows = rows.slice(count, rows.num_rows() - count);
            let now_bytes = if rows.num_rows() == 0 && partition.rows == 0 {
                bytes
            } else {
                batch_bytes(&now)
            };
            partition.rows += count;
            partition.bytes += now_bytes;
            self.gathered_bytes += now_bytes;
            partition.gathered.push(now);
            if partition.rows >= self.group_rows_max || partition.bytes >= self.group_bytes_max {
                self.flush(folder).await?;
            }
        }
        while self.gathered_bytes > GATHERED_BYTES_MAX {
            let largest = self
                .partitions
                .iter()
                .max_by_key(|(_, partition)| partition.bytes);
            let Some(largest) = largest.map(|(folder, _)| folder.clone()) else {
                break;
            };
            self.flush(&largest).await?;
        }
        Ok(())
    }

    /// Starts to encode the rows gathered for a partition, once the row group before them is in its file.
    async fn flush(&mut self, folder: &Path) -> Result<()> {
        if known(&mut self.partitions, folder)?.gathered.is_empty() {
            return Ok(());
        }
        self.settle(0).await?;
        let partition = known(&mut self.partitions, folder)?;
        let rows = std::mem::take(&mut partition.gathered);
        let bytes = std::mem::take(&mut partition.bytes);
        self.gathered_bytes -= bytes;
        partition.rows = 0;
        let mut of_file = Vec::new();
        if partition.output.is_none() {
            let largest = rows.iter().max_by_key(|batch| batch.num_rows());
            of_file = largest.map(repeats).transpose()?.unwrap_or_default();
            self.begin(folder, &of_file)?;
        }
        let encoded = encode(rows, self.output(folder)?.encoders()?);
        self.encoding.push_back(Encoding {
            folder: folder.clone(),
            repeats: of_file,
            bytes: bytes.max(1),
            leaves: JoinSet::from_iter([encoded]),
        });
        Ok(())
    }

    async fn take_group(&mut self, group: Group) -> Result<()> {
        if group.rows() == 0 {
            return Ok(());
        }
        let value = |name: &String| {
            let mut values = group.opened.file.partition.iter();
            values
                .find(|(of, _)| of == name)
                .and_then(|(_, value)| value.clone())
        };
        let values = self
            .partition_by
            .iter()
            .map(|name| (name.clone(), value(name)))
            .collect();
        let folder = self.partition(values)?;
        self.flush(&folder).await?;
        let bytes = group.opened.groups()[group.number].compressed_size();
        let bytes = usize::try_from(bytes)
            .unwrap_or(usize::MAX)
            .max(UNDER_WAY_BYTES_MAX / GROUPS_UNDER_WAY_MAX);
        self.settle(UNDER_WAY_BYTES_MAX.saturating_sub(bytes)).await?;
        let repeats = group.opened.dictionaries(group.number);
        if known(&mut self.partitions, &folder)?.output.is_none() {
            self.begin(&folder, &repeats)?;
        }
        let writers = if group.edits.is_empty() {
            Vec::new()
        } else {
            self.output(&folder)?.encoders()?
        };
        let leaves = group.leaves(Arc::clone(&self.file_schema), writers, self.filtered.clone());
        self.encoding.push_back(Encoding {
            folder,
            repeats,
            bytes,
            leaves: JoinSet::from_iter([leaves]),
        });
        Ok(())
    }

    /// Begins a file in a partition that has none.
    fn begin(&mut self, folder: &Path, repeats: &[bool]) -> Result<()> {
        let partition = known(&mut self.partitions, folder)?;
        let name = format!("part-{:0>5}-{}-c000.zstd.parquet", partition.files, partition.id);
        partition.files += 1;
        partition.output = Some(Output::open(
            Arc::clone(&self.store),
            folder.clone().join(name),
            Arc::clone(&self.file_schema),
            &self.parquet,
            properties(
                &self.file_schema,
                &self.parquet,
                &self.filtered,
                repeats,
                self.group_rows_max,
            )?,
        )?);
        Ok(())
    }

    fn output(&mut self, folder: &Path) -> Result<&mut Output> {
        let output = known(&mut self.partitions, folder)?.output.as_mut();
        output.ok_or_else(|| {
            Error::new(ErrorKind::Internal, "find data file of partition").with("folder", folder)
        })
    }

    /// Puts row groups that are being encoded into their files until those under way have `left` bytes at most, and closes
    /// files that are large enough.
    async fn settle(&mut self, left: usize) -> Result<()> {
        while self.encoding.iter().map(|group| group.bytes).sum::<usize>() > left
            && let Some(mut next) = self.encoding.pop_front()
        {
            let torn = || Error::new(ErrorKind::Internal, "encode rows");
            let leaves = next.leaves.join_next().await.ok_or_else(torn)?;
            let leaves = leaves.map_err(|source| torn().caused_by(source))??;
            // The one before it may have been the last of its file.
            if known(&mut self.partitions, &next.folder)?.output.is_none() {
                self.begin(&next.folder, &next.repeats)?;
            }
            let output = self.output(&next.folder)?;
            output.append(leaves).await?;
            if output.bytes() >= self.target_bytes {
                self.finish(&next.folder).await?;
            }
        }
        Ok(())
    }

    /// Lets the file of a partition be completed in the background.
    async fn finish(&mut self, folder: &Path) -> Result<()> {
        let partition = known(&mut self.partitions, folder)?;
        let (values, indexed) = (partition.values.clone(), self.indexed.clone());
        let Some(output) = partition.output.take() else {
            return Ok(());
        };
        if self.finishing.len() >= FILES_FINISHING_MAX {
            self.finished().await?;
        }
        self.finishing.spawn(async move {
            let (path, bytes, metadata) = output.finish().await?;
            Ok(Add {
                path: path.to_string(),
                size: i64::try_from(bytes).unwrap_or(i64::MAX),
                partition_values: values.into_iter().collect(),
                modification_time: Clock::system().now().timestamp_millis(),
                data_change: true,
                stats: Some(stats::json(&metadata, &indexed)),
                tags: None,
                deletion_vector: None,
                base_row_id: None,
                default_row_commit_version: None,
                clustering_provider: None,
            })
        });
        Ok(())
    }

    /// Waits for one of the files being completed.
    async fn finished(&mut self) -> Result<()> {
        if let Some(add) = self.finishing.join_next().await {
            let add =
                add.map_err(|source| Error::new(ErrorKind::Internal, "write data files").caused_by(source))?;
            self.adds.push(add?);
        }
        Ok(())
    }

    async fn encode_all(&mut self) -> Result<()> {
        let folders: Vec<Path> = self.partitions.keys().cloned().collect();
        for folder in &folders {
            self.flush(folder).await?;
        }
        self.settle(0).await
    }

    async fn complete(&mut self) -> Result<()> {
        self.encode_all().await?;
        let folders: Vec<Path> = self.partitions.keys().cloned().collect();
        for folder in &folders {
            self.finish(folder).await?;
        }
        while !self.finishing.is_empty() {
            self.finished().await?;
        }
        Ok(())
    }
}

fn known<'a>(partitions: &'a mut BTreeMap<Path, Partition>, folder: &Path) -> Result<&'a mut Partition> {
    partitions
        .get_mut(folder)
        .ok_or_else(|| Error::new(ErrorKind::Internal, "find partition").with("folder", folder))
}

/// Which columns have statistics by the `properties` of a table.
fn indexed(properties: &HashMap<String, String>) -> Indexed {
    if let Some(names) = properties.get(INDEXED_NAMES) {
        return Indexed::Named(column_names(names));
    }
    match properties
        .get(INDEXED_COUNT)
        .map(|count| count.trim().parse::<i64>())
    {
        Some(Ok(count)) => usize::try_from(count).map_or(Indexed::All, Indexed::First),
        _ => Indexed::First(INDEXED_COLUMNS_DEFAULT),
    }
}

/// Names separated by commas, members of a struct by dots; what stands in backticks is one name.
fn column_names(text: &str) -> Vec<Vec<String>> {
    let (mut names, mut path, mut name, mut quoted) = (Vec::new(), Vec::new(), String::new(), false);
    for character in text.chars().chain([',']) {
        match character {
            '`' => quoted = !quoted,
            '.' if !quoted => path.push(std::mem::take(&mut name)),
            ',' if !quoted => {
                path.push(std::mem::take(&mut name).trim().to_owned());
                names.push(std::mem::take(&mut path));
            }
            other => name.push(other),
        }
    }
    names.retain(|path: &Vec<String>| path.iter().any(|name| !name.is_empty()));
    names
}
