//! How much HTTP/2 connections may have on its way to us together.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limits;

/// What a connection begins with whatever it is told (RFC 9113, section 6.9.2).
const CONNECTION_BYTES_MIN: u32 = 65_535;

/// What may be given to connections beyond what each begins with.
#[derive(Debug)]
pub(super) struct Windows {
    free: Arc<Semaphore>,
    stream_bytes: u32,
}

/// What one connection was given. Returns when it is dropped.
#[derive(Debug)]
pub(super) struct Window {
    /// What may come into one stream before it is read.
    pub(super) stream_bytes: u32,
    /// What may come into all streams of the connection.
    pub(super) connection_bytes: u32,
    lent: Mutex<Option<OwnedSemaphorePermit>>,
}

impl Windows {
    pub(super) fn new(limits: &Limits) -> Self {
        let bytes = limits.windows_bytes.min(Semaphore::MAX_PERMITS);
        Self {
            free: Arc::new(Semaphore::new(bytes)),
            stream_bytes: limits.window_bytes,
        }
    }

    /// A full window if there still is one, else the least there can be.
    pub(super) fn lend(&self) -> Window {
        let full = self.stream_bytes.saturating_mul(2).max(CONNECTION_BYTES_MIN);
        let lent = Arc::clone(&self.free).try_acquire_many_owned(full - CONNECTION_BYTES_MIN);
        let (stream_bytes, connection_bytes) = match lent {
            Ok(_) => (self.stream_bytes, full),
            Err(_) => (self.stream_bytes.min(CONNECTION_BYTES_MIN), CONNECTION_BYTES_MIN),
        };
        Window {
            stream_bytes,
            connection_bytes,
            lent: Mutex::new(lent.ok()),
        }
    }
}

impl Window {
    /// Returns it before its connection ends: that speaks HTTP/1, which has none.
    pub(super) fn give_back(&self) {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_all_connections_are_within_their_bound() {
        let limits = Limits {
            windows_bytes: 2 << 20,
            ..Limits::DEFAULT
        };
        let windows = Windows::new(&limits);
        let lent: Vec<Window> = (0..1000).map(|_| windows.lend()).collect();
        let beyond: u64 = lent
            .iter()
            .map(|window| u64::from(window.connection_bytes - CONNECTION_BYTES_MIN))
            .sum();
        assert!(beyond <= 2 << 20, "{beyond}");
        assert_eq!(
            (lent[0].stream_bytes, lent[0].connection_bytes),
            (256 << 10, 512 << 10)
        );
        assert_eq!(lent[999].connection_bytes, CONNECTION_BYTES_MIN);
        assert!(lent[999].stream_bytes <= CONNECTION_BYTES_MIN);
        lent[0].give_back();
        assert_eq!(windows.lend().connection_bytes, 512 << 10);
        drop(lent);
        assert_eq!(windows.free.available_permits(), 2 << 20);
    }
}
