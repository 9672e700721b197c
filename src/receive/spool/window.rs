//! A file read a piece at a time.

use std::io;

use crate::receive::spool::folder::Stored;

/// Read at once, unless more is asked for.
pub(crate) const WINDOW_BYTES: usize = 256 << 10;

/// A piece of a file in memory.
pub(crate) struct Window<'a> {
    stored: &'a dyn Stored,
    /// Where the file ends, or what counts of it.
    pub(crate) end: u64,
    start: u64,
    buffer: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Over the first `bytes` of a file.
    pub(crate) fn new(stored: &'a dyn Stored, bytes: u64) -> Self {
        Self {
            stored,
            end: bytes.min(stored.bytes()),
            start: 0,
            buffer: Vec::new(),
        }
    }

    /// The `length` bytes from `offset` on; less at the end.
    pub(crate) fn at(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = length.min(left);
        let held = self.start + self.buffer.len() as u64;
        if offset < self.start || offset + length as u64 > held {
            self.buffer.resize(length.max(WINDOW_BYTES.min(left)), 0);
            self.start = offset;
            let read = self.stored.read_at(&mut self.buffer, offset)?;
            self.buffer.truncate(read);
        }
        let from = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let held = self.buffer.get(from..).unwrap_or_default();
        Ok(&held[..length.min(held.len())])
    }

    /// Where `mark` stands next, from `offset` on; the end if it does not.
    pub(crate) fn find(&mut self, mark: &[u8; 8], offset: u64) -> io::Result<u64> {
        let mut at = offset;
        while at < self.end {
            let piece = self.at(at, WINDOW_BYTES)?;
            if piece.len() < mark.len() {
                break;
            }
            if let Some(found) = piece.windows(mark.len()).position(|bytes| bytes == mark) {
                return Ok(at + found as u64);
            }
            at += (piece.len() - mark.len() + 1) as u64;
        }
        Ok(self.end)
    }
}
