//! One growing, bounded, accounted buffer.

use bytes::Bytes;

use super::budget::{Budget, Hold};
use crate::serve::problem::Problem;

/// Bytes of one body while they arrive; its capacity is always paid for out of the budget.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    hold: Hold,
    /// Most bytes this buffer may ever have.
    bytes_max: usize,
}

impl Buffer {
    /// Smallest step of growth. Bodies up to this size are paid for at once.
    pub(super) const STEP_BYTES: usize = 256 << 10;

    /// An empty buffer for a body of `expected` bytes, or of a size not known, never more than `bytes_max`.
    ///
    /// Only the first step is paid for now: who declares much and sends little shall not hold much.
    pub(super) async fn open(expected: usize, bytes_max: usize, budget: &Budget) -> Result<Self, Problem> {
        let first = expected.min(bytes_max).min(Self::STEP_BYTES);
        Ok(Self {
            hold: budget.take(first).await?,
            bytes: Vec::with_capacity(first),
            bytes_max,
        })
    }

    /// Makes room for `more` bytes behind those that are there.
    pub(super) async fn reserve(&mut self, more: usize, budget: &Budget) -> Result<(), Problem> {
        let needed = self.bytes.len().saturating_add(more);
        let capacity = self.bytes.capacity();
        if needed <= capacity {
            return Ok(());
        }
        let comfortable = capacity + (capacity / 2).max(Self::STEP_BYTES);
        let wanted = needed.max(comfortable.min(self.bytes_max));
        self.hold
            .join(budget.take(wanted.saturating_sub(self.hold.bytes())).await?);
        self.bytes.reserve_exact(wanted - self.bytes.len());
        Ok(())
    }

    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes and what they hold of the budget.
    pub(super) fn finish(mut self) -> (Bytes, Hold) {
        self.bytes.shrink_to_fit();
        self.hold.keep(self.bytes.len());
        (Bytes::from(self.bytes), self.hold)
    }
}
