//! Encoding the columns of a row group on all cores.

use std::{
    num::NonZeroUsize,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    thread,
};

use arrow::array::{Array as _, ArrayRef, RecordBatch};
use parquet::{
    arrow::arrow_writer::{ArrowColumnWriter, ArrowLeafColumn, compute_leaves},
    errors::ParquetError,
};
use tokio::{sync::Semaphore, task::JoinSet};

use super::output::Leaf;
use crate::error::{Error, ErrorKind, Result};

/// Most threads that work on columns.
const WORKERS_MAX: usize = 16;

/// Threads that work on columns: one for each core, and one more, with which rewriting was measured to be 6 to 10 % faster.
/// Work on several row groups shares them: what is decoded at a time follows the cores, not the row groups under way.
static THREADS: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(*THREADS_MAX));

static THREADS_MAX: LazyLock<usize> =
    LazyLock::new(|| WORKERS_MAX.min(thread::available_parallelism().map_or(1, NonZeroUsize::get) + 1));

/// One column of some batches, and how many bytes it has in memory.
struct Column {
    bytes: usize,
    arrays: Vec<ArrayRef>,
}

/// Encodes `batches`, which share a schema, as one row group by `writers`, one per leaf column.
pub(super) async fn encode(batches: Vec<RecordBatch>, writers: Vec<ArrowColumnWriter>) -> Result<Vec<Leaf>> {
    let Some(schema) = batches.first().map(RecordBatch::schema) else {
        return Ok(Vec::new());
    };
    let columns: Vec<_> = schema.fields().iter().cloned().zip(columns(&batches)).collect();
    drop(batches);
    let columns = columns
        .into_iter()
        .map(|(field, column)| (column.bytes, (field, column)));
    let leaves = in_parallel(columns.collect(), |(field, column)| {
        let mut leaves: Vec<Vec<ArrowLeafColumn>> = Vec::new();
        for array in &column.arrays {
            for (number, leaf) in compute_leaves(&field, array)
                .map_err(unencodable)?
                .into_iter()
                .enumerate()
            {
                match leaves.get_mut(number) {
                    Some(batches) => batches.push(leaf),
                    None => leaves.push(vec![leaf]),
                }
            }
        }
        let bytes = column.bytes / leaves.len().max(1);
        Ok(leaves.into_iter().map(|leaf| (bytes, leaf)).collect::<Vec<_>>())
    })
    .await?;
    let leaves = leaves.into_iter().flatten().zip(writers);
    let leaves = leaves.map(|((bytes, leaf), writer)| (bytes, (leaf, writer)));
    in_parallel(leaves.collect(), |(leaf, mut writer)| {
        for batch in leaf {
            writer.write(&batch).map_err(unencodable)?;
        }
        writer.close().map(Leaf::Encoded).map_err(unencodable)
    })
    .await
}

fn columns(batches: &[RecordBatch]) -> Vec<Column> {
    let count = batches.first().map_or(0, RecordBatch::num_columns);
    (0..count)
        .map(|index| {
            let arrays: Vec<ArrayRef> = batches
                .iter()
                .map(|batch| Arc::clone(batch.column(index)))
                .collect();
            Column {
                bytes: arrays.iter().map(bytes_of).sum(),
                arrays,
            }
        })
        .collect()
}

/// Bytes that the values of `batch` take in memory, whatever they share with others.
pub(super) fn batch_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(bytes_of).sum()
}

pub(super) fn bytes_of(array: &ArrayRef) -> usize {
    array
        .to_data()
        .get_slice_memory_size()
        .unwrap_or_else(|_| array.get_array_memory_size())
}

/// Does `work` for each of `jobs` on the cores of the machine, the heaviest first; the results are in the order of `jobs`.
pub(super) async fn in_parallel<T, R>(
    jobs: Vec<(usize, T)>,
    work: impl Fn(T) -> Result<R> + Send + Sync + 'static,
) -> Result<Vec<R>>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let count = jobs.len();
    let mut jobs: Vec<(usize, (usize, T))> = jobs.into_iter().enumerate().collect();
    // Taken from the end.
    jobs.sort_by_key(|(_, (weight, _))| *weight);
    let jobs = Arc::new(Mutex::new(jobs));
    let _rest = Rest(Arc::clone(&jobs));
    let work = Arc::new(work);
    let mut workers: JoinSet<Result<Vec<(usize, R)>>> = JoinSet::new();
    let died = |source| Error::new(ErrorKind::Internal, "work on a table").caused_by(source);
    for _ in 0..THREADS_MAX.min(count) {
        let (jobs, work) = (Arc::clone(&jobs), Arc::clone(&work));
        workers.spawn(async move {
            // Nobody closes it.
            let thread = THREADS.acquire().await;
            let working = tokio::task::spawn_blocking(move || -> Result<Vec<(usize, R)>> {
                let _thread = thread;
                let mut done = Vec::new();
                loop {
                    let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some((number, (_, job))) = next else {
                        return Ok(done);
                    };
                    done.push((number, work(job)?));
                }
            });
            working.await.map_err(died)?
        });
    }
    let mut done = Vec::with_capacity(count);
    while let Some(results) = workers.join_next().await {
        done.extend(results.map_err(died)??);
    }
    done.sort_unstable_by_key(|(number, _)| *number);
    Ok(done.into_iter().map(|(_, result)| result).collect())
}

/// Jobs that nobody has begun: they go with whoever waits for them, and when one before them fails.
struct Rest<T>(Arc<Mutex<Vec<T>>>);

impl<T> Drop for Rest<T> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

pub(super) fn unencodable(source: ParquetError) -> Error {
    Error::new(ErrorKind::Internal, "encode rows").caused_by(source)
}
