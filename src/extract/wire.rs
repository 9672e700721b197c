//! The bytes of a body on their way from the task that receives them to the thread that decodes them.

use std::{
    io::{self, BufRead, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// Chunks the receiving side may be ahead.
const CHUNKS_AHEAD: usize = 16;

/// The decoding side. Reading waits for the other one, so it belongs on a thread that may block; a sender that is gone
/// is the end.
#[derive(Debug)]
pub(super) struct Wire {
    chunk: Bytes,
    receiver: mpsc::Receiver<Bytes>,
    length: Length,
}

/// How long the body is, as far as is known by now.
#[derive(Clone, Debug)]
pub(super) struct Length {
    declared: u64,
    received: Arc<AtomicU64>,
}

impl Wire {
    /// A way for the rest of a body that begins with `prefix` and is `declared` bytes long, if it says so.
    pub(super) fn new(prefix: Bytes, declared: Option<u64>) -> (mpsc::Sender<Bytes>, Self) {
        let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
        let length = Length {
            declared: declared.unwrap_or(0),
            received: Arc::new(AtomicU64::new(prefix.len() as u64)),
        };
        let wire = Self {
            chunk: prefix,
            receiver,
            length,
        };
        (sender, wire)
    }

    pub(super) fn length(&self) -> Length {
        self.length.clone()
    }
}

impl Length {
    pub(super) fn get(&self) -> u64 {
        self.declared.max(self.received.load(Relaxed))
    }
}

impl BufRead for Wire {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        // Every turn receives a chunk, or ends.
        while self.chunk.is_empty() {
            let Some(chunk) = self.receiver.blocking_recv() else {
                break;
            };
            self.length.received.fetch_add(chunk.len() as u64, Relaxed);
            self.chunk = chunk;
        }
        Ok(&self.chunk)
    }

    fn consume(&mut self, amount: usize) {
        self.chunk.advance(amount);
    }
}

impl Read for Wire {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}
