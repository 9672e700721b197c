//! The rows of a load that memory has no room for, a slice of their keys at a time.

use std::sync::Arc;

use arrow::array::RecordBatch;

use super::{
    latest::{GATHER_ROWS, Latest, arrow_error},
    merge::Shape,
};
use crate::{
    error::{Error, ErrorKind, Result},
    spill::{gathered::Gathered, slices::Slices},
};

/// Rows of a slice are more than its size says if some key has very many: so often its size is read before those that lost
/// are let go.
const SLICE_SIZES_HELD: usize = 2;

/// So often the size of a slice all versions of a key may take: they have to be there together.
const SLICE_SIZES_MAX: usize = 8;

/// What a slice is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    /// One row of each key.
    Latest,
    /// All versions of each key.
    Versions,
}

/// The rows of a load, in the shape of the table and slice by slice.
#[derive(Clone)]
pub(super) struct LoadSlices {
    slices: Slices,
    shape: Shape,
    identity: Vec<String>,
    order: Vec<String>,
    keep: Keep,
}

/// The latest rows of one slice.
pub(super) struct Slice {
    pub(super) latest: Arc<Latest>,
    /// Rows that lost and are not in `latest` any more.
    pub(super) beaten: u64,
}

impl Slice {
    /// Rows that lost against others of the load.
    pub(super) fn superseded(&self) -> u64 {
        self.beaten + self.latest.total() - self.latest.winners.len() as u64
    }
}

impl LoadSlices {
    /// Of rows with one `identity` the one counts that is the last in `order`.
    pub(super) fn new(
        rows: Gathered,
        shape: &Shape,
        identity: &[&str],
        order: &[&str],
        keep: Keep,
    ) -> Result<Self> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Ok(Self {
            slices: Slices::of(rows)?,
            shape: shape.clone(),
            identity: owned(identity),
            order: owned(order),
            keep,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.slices.count()
    }

    /// The slice `number`.
    pub(super) async fn read(&self, number: usize) -> Result<Slice> {
        if let Some(rows) = self.slices.whole().held() {
            let rows = rows
                .iter()
                .map(|rows| self.shape.of(rows))
                .collect::<Result<_>>()?;
            return Ok(Slice {
                latest: Arc::new(self.elect(rows)?),
                beaten: 0,
            });
        }
        let own = self.clone();
        // Reading files and decompressing them is work for a thread that may block.
        tokio::task::spawn_blocking(move || own.gather(number))
            .await
            .map_err(|source| Error::new(ErrorKind::Internal, "read spilled rows").caused_by(source))?
    }

    fn elect(&self, rows: Vec<RecordBatch>) -> Result<Latest> {
        let identity: Vec<&str> = self.identity.iter().map(String::as_str).collect();
        let order: Vec<&str> = self.order.iter().map(String::as_str).collect();
        Latest::of(rows, &self.shape.schema, &identity, &order)
    }

    fn gather(&self, number: usize) -> Result<Slice> {
        let size = self.slices.whole().slice_bytes_max();
        let bytes_max = size.saturating_mul(SLICE_SIZES_MAX);
        let mut room = size.saturating_mul(SLICE_SIZES_HELD);
        let (mut rows, mut bytes, mut beaten) = (Vec::new(), 0_usize, 0);
        for read in self.slices.rows(number) {
            let read = self.shape.of(&read?)?;
            bytes += own_bytes(&read)?;
            rows.push(read);
            if bytes <= room {
                continue;
            }
            let latest = self.elect(std::mem::take(&mut rows))?;
            let winners: Vec<usize> = (0..latest.winners.len()).collect();
            beaten += latest.total() - winners.len() as u64;
            for winners in winners.chunks(GATHER_ROWS) {
                rows.push(latest.gather(winners)?);
            }
            bytes = rows.iter().map(own_bytes).sum::<Result<usize>>()?;
            if self.keep == Keep::Versions && bytes > bytes_max {
                return Err(Error::new(ErrorKind::Limit, "hold all versions of a key")
                    .with("bytes", bytes)
                    .with("bytes_max", bytes_max)
                    .with("hint", "raise the memory limit for this load"));
            }
            room = room.max(bytes.saturating_mul(2));
        }
        Ok(Slice {
            latest: Arc::new(self.elect(rows)?),
            beaten,
        })
    }
}

/// What the rows of `batch` take. Columns that are read back share one allocation, which each of them would count whole.
fn own_bytes(batch: &RecordBatch) -> Result<usize> {
    let sizes = batch.columns().iter();
    sizes
        .map(|column| column.to_data().get_slice_memory_size().map_err(arrow_error))
        .sum()
}
