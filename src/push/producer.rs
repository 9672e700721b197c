//! A stream of records, sent as batches of one size.

use crate::{
    error::{Error, ErrorKind, Result},
    push::{
        batch::{Batch, BatchLimits, Batcher, Form},
        client::{Client, Mode},
        key::Place,
        sent::Sent,
        target::Target,
    },
};

/// Gathers records and sends them when a batch is full. Holds one batch, whatever comes.
///
/// A process that begins again with the same origin and gives the same records in the same order makes the same batches with
/// the same keys: what was kept is not kept again, for 24 hours.
#[derive(Debug)]
pub struct Producer {
    client: Client,
    target: Target,
    origin: String,
    mode: Mode,
    batcher: Batcher,
    /// What is being sent. It stays here until it is answered, so that whoever stops waiting loses nothing.
    pending: Option<Batch>,
    number: u64,
}

impl Producer {
    /// Sends to `target`; `origin` is what its records are of, as [`Place::origin`].
    pub fn new(
        client: Client,
        target: Target,
        origin: impl Into<String>,
        mode: Mode,
        limits: BatchLimits,
    ) -> Self {
        Self {
            client,
            target,
            origin: origin.into(),
            mode,
            batcher: Batcher::new(Form::Lines, limits),
            pending: None,
            number: 0,
        }
    }

    /// Adds one JSON object without line breaks. Sends what was gathered before if there is no more room, and tells how that
    /// went. After an error, and after the call was given up, the record is not added, and what was gathered is kept to be
    /// tried again.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] for a record with a line break; those of [`Client::send`].
    pub async fn push(&mut self, record: &[u8]) -> Result<Option<Sent>> {
        if record.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Err(Error::new(ErrorKind::Config, "add record").with("problem", "it has a line break"));
        }
        // Nothing is gathered behind a batch that is not answered: one of them is there at most.
        let sent = match self.pending.is_none() && self.batcher.has_room(record.len()) {
            true => None,
            false => self.flush().await?,
        };
        self.batcher.put(record);
        Ok(sent)
    }

    /// Sends what was gathered, if anything. After an error it is still there, and after the call was given up, as by
    /// [`tokio::time::timeout`]: the next one sends the same batch with the same key.
    ///
    /// # Errors
    /// Those of [`Client::send`].
    pub async fn flush(&mut self) -> Result<Option<Sent>> {
        if self.pending.is_none() && !self.batcher.is_empty() {
            self.pending = Some(self.batcher.take());
        }
        let Some(batch) = &self.pending else {
            return Ok(None);
        };
        let place = Place {
            origin: &self.origin,
            number: self.number,
        };
        let sent = self.client.send(&self.target, place, batch, self.mode).await?;
        self.pending = None;
        self.number += 1;
        Ok(Some(sent))
    }
}
