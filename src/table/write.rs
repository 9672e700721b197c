//! Writing new data files.
//!
//! ```text
//! rows ─ by partition ─ gathered to a row group ─ columns encoded on all cores ─ file ─ uploaded in parts ─► add action
//!                                  │                        │                                │
//!                        the next is gathered    while this one is encoded     and files before it are completed
//! ```
//!
//! In memory at once: two row groups of rows ([`GATHERED_BYTES_MAX`] being gathered over all partitions, one being encoded),
//! what is encoded of a row group, and the parts under way.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use arrow::{
    array::RecordBatch,
    datatypes::{Schema, SchemaRef},
};
use deltalake::kernel::{Action, Add};
use object_store::{ObjectStore, path::Path};
use parquet::{arrow::arrow_writer::ArrowColumnChunk, schema::types::SchemaDescriptor};
use tokio::task::{JoinHandle, JoinSet};
use uuid::Uuid;

use super::{
    Table,
    copied::{COPY_BYTES_MAX, Copied},
    encode::{batch_bytes, encode},
    encoding::{parquet_schema, properties, repeats},
    opened::Opened,
    output::Output,
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
            encoding: None,
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
    /// The row group being encoded, and its partition.
    encoding: Option<(Path, JoinHandle<Result<Vec<ArrowColumnChunk>>>)>,
    finishing: JoinSet<Result<Add>>,
    adds: Vec<Add>,
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

    /// Whether the row group `number` of `opened`, with its indexes of pages, can be in a file of this writer as it is.
    pub(super) fn can_copy(&self, opened: &Opened, number: usize) -> bool {
        let group = &opened.groups()[number];
        // Either every row group of a file has an index of pages, or none may have.
        let pages = opened
            .metadata()
            .offset_index()
            .and_then(|index| index.get(number));
        pages.is_some_and(|pages| pages.len() == group.num_columns())
            && opened.columns().root_schema().get_fields() == self.parquet.root_schema().get_fields()
            && group.compressed_size() <= COPY_BYTES_MAX
    }

    /// Puts a row group of another file of the partition `values` behind what is written, as it is.
    pub(super) async fn copy(&mut self, values: &[(String, Option<String>)], copied: Copied) -> Result<()> {
        let taken = self.take_copy(values, copied).await;
        self.checked(taken).await
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
        self.settle().await?;
        let partition = known(&mut self.partitions, folder)?;
        let rows = std::mem::take(&mut partition.gathered);
        self.gathered_bytes -= std::mem::take(&mut partition.bytes);
        partition.rows = 0;
        if rows.is_empty() {
            return Ok(());
        }
        if partition.output.is_none() {
            let largest = rows.iter().max_by_key(|batch| batch.num_rows());
            let repeats = largest.map(repeats).transpose()?.unwrap_or_default();
            self.begin(folder, &repeats)?;
        }
        let output = self.output(folder)?;
        let encoded = encode(rows, output.encoders()?);
        self.encoding = Some((folder.clone(), tokio::spawn(encoded)));
        Ok(())
    }

    async fn take_copy(&mut self, values: &[(String, Option<String>)], copied: Copied) -> Result<()> {
        let value = |name: &String| {
            values
                .iter()
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
        self.settle().await?;
        if known(&mut self.partitions, &folder)?.output.is_none() {
            self.begin(&folder, &copied.dictionaries)?;
        }
        self.output(&folder)?.append_copied(copied).await?;
        self.finish_if_large(&folder).await
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

    /// Puts the row group that is being encoded into its file, and closes the file if it is large enough.
    async fn settle(&mut self) -> Result<()> {
        let Some((folder, encoding)) = self.encoding.take() else {
            return Ok(());
        };
        let columns = encoding
            .await
            .map_err(|source| Error::new(ErrorKind::Internal, "encode rows").caused_by(source))??;
        self.output(&folder)?.append(columns).await?;
        self.finish_if_large(&folder).await
    }

    async fn finish_if_large(&mut self, folder: &Path) -> Result<()> {
        if self.output(folder)?.bytes() >= self.target_bytes {
            self.finish(folder).await?;
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

    async fn complete(&mut self) -> Result<()> {
        let folders: Vec<Path> = self.partitions.keys().cloned().collect();
        for folder in &folders {
            self.flush(folder).await?;
        }
        self.settle().await?;
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
