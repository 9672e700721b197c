//! The memory all bodies in flight may use together.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::serve::problem::{Problem, code::Code};

/// Bytes that bodies in flight may use together. Clones share them.
#[derive(Clone, Debug)]
pub struct Budget {
    free: Arc<Semaphore>,
    wait_max: Duration,
}

/// Bytes taken out of a [`Budget`]; they return when this is dropped.
#[derive(Debug)]
pub struct Hold {
    permit: OwnedSemaphorePermit,
}

impl Budget {
    /// A budget of `bytes`, for whose bytes a request waits at most `wait_max`.
    ///
    /// It should be several times the largest body (wire and decoded together): a body that needs more than the whole
    /// budget can never be received.
    pub fn new(bytes: usize, wait_max: Duration) -> Self {
        Self {
            free: Arc::new(Semaphore::new(bytes.min(Semaphore::MAX_PERMITS))),
            wait_max,
        }
    }

    /// Bytes nobody holds.
    pub fn bytes_free(&self) -> usize {
        self.free.available_permits()
    }

    /// Takes `bytes`, first come first served.
    ///
    /// # Errors
    /// `overloaded` if they are not free in time.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Hold, Problem> {
        let overloaded = || Problem::new(Code::Overloaded, "no memory for another body at the moment");
        let bytes = u32::try_from(bytes).map_err(|_| overloaded())?;
        let taken = timeout(self.wait_max, self.free.clone().acquire_many_owned(bytes)).await;
        match taken {
            Ok(Ok(permit)) => Ok(Hold { permit }),
            Ok(Err(_)) | Err(_) => Err(overloaded()),
        }
    }
}

impl Hold {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.permit.num_permits()
    }

    /// Adds what `other` holds.
    pub(crate) fn join(&mut self, other: Self) {
        self.permit.merge(other.permit);
    }

    /// Returns all but `bytes`.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let surplus = self.permit.num_permits().saturating_sub(bytes);
        drop(self.permit.split(surplus));
    }
}
