//! Channels: how far a producer with a position of its own has come, so that it goes on from there and nowhere else.
//!
//! ```text
//! hold ─► epoch and offset as they should be? ─ spool: durable ─ complete: further by one body
//! ```
//!
//! A channel is held by one request at a time. Its last body is in the spool until the ledger has it on disk, and carries the
//! channel's epoch, number and offset: [`repair`](super::repair) puts back what the file lacks.

use std::{fmt, time::Duration};

use tokio::time::{Instant, timeout_at};

use crate::{
    clock::Timestamp,
    config::{Name, StreamName},
    error::Result,
    receive::{
        ReceiptId,
        idempotency::Key,
        ledger::{
            Ledger,
            answer::channel_name,
            claims::{Claim, Found},
            tables::Ends,
            writer::Change,
        },
    },
};

/// What a producer calls one of its channels to a stream: 1 to [`ChannelName::BYTES_MAX`] characters that need no escape in
/// a URL (RFC 3986, section 2.3), the first of them a letter or a digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChannelName(String);

/// What the names of channels of upload jobs begin with.
const OF_JOBS: &str = "~job.";

impl ChannelName {
    /// Longest name, in bytes.
    pub const BYTES_MAX: usize = 128;

    /// `text` as a name, if it is one.
    ///
    /// ```
    /// use landfall::receive::ledger::channel::ChannelName;
    /// assert!(ChannelName::new("orders-2026.jsonl").is_some());
    /// assert!(ChannelName::new("..").is_none());
    /// ```
    pub fn new(text: &str) -> Option<Self> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let begins = text.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
        let sound = begins && text.len() <= Self::BYTES_MAX && text.bytes().all(plain);
        sound.then(|| Self(text.to_owned()))
    }

    /// The channel of an upload job. No producer can open it: no name of theirs begins so.
    ///
    /// ```
    /// use landfall::receive::ledger::channel::ChannelName;
    /// let name = ChannelName::of_job("019ab3c4.1").unwrap();
    /// assert!(ChannelName::new(name.as_str()).is_none());
    /// assert_eq!(ChannelName::kept(name.as_str()), Some(name));
    /// ```
    pub fn of_job(job: &str) -> Option<Self> {
        Self::new(job).map(|name| Self(format!("{OF_JOBS}{name}")))
    }

    /// The name that a delivery was kept with: that of a producer or of an upload job.
    pub fn kept(text: &str) -> Option<Self> {
        match text.strip_prefix(OF_JOBS) {
            Some(job) => Self::of_job(job),
            None => Self::new(text),
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ChannelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// How far a channel has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// How often it was opened. Only who opened it last may append.
    pub epoch: u64,
    /// Bodies appended so far.
    pub number: u64,
    /// The offset token of the last of them; none before the first.
    pub offset: Option<Key>,
    /// The receipt of that body.
    pub receipt: Option<ReceiptId>,
    /// When it was opened last or that body was complete, whichever is later.
    pub at: Timestamp,
}

/// The right to change one channel. Dropped without [`ChannelClaim::complete`] the channel is as it was.
#[must_use = "dropped, the channel stays as it was"]
pub struct ChannelClaim {
    claim: Claim<Channel>,
    ledger: Ledger,
    before: Option<Channel>,
}

impl fmt::Debug for ChannelClaim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelClaim({:?})", self.before)
    }
}

impl ChannelClaim {
    /// The channel as it is, if it was ever opened.
    pub fn before(&self) -> Option<&Channel> {
        self.before.as_ref()
    }

    /// Changes the channel to `after`. The disk follows with the next group.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if the ledger does not write. The change is known until
    /// this process ends; that of a delivery is in the spool too, from which it is repaired.
    pub async fn complete(self, after: Channel) -> Result<()> {
        let name = self.claim.name();
        let ticket = self.claim.keep(after.clone());
        let record = after;
        self.ledger.send(Change::Channel { name, record, ticket }).await
    }
}

impl Ledger {
    /// Takes a channel for one change. If another request has it, waits for its end up to `patience`; `None` if it did not end.
    ///
    /// # Errors
    /// As [`Ledger::begin`].
    pub async fn hold_channel(
        &self,
        stream: &StreamName,
        producer: Option<&Name>,
        channel: &ChannelName,
        patience: Duration,
    ) -> Result<Option<ChannelClaim>> {
        let deadline = Instant::now() + patience;
        let name = channel_name(stream, producer, channel);
        let inner = &self.inner;
        loop {
            let until = Ends::at(inner.clock.now(), &inner.kept).channels;
            let found = inner.channels.find(
                name,
                // All that is done to a channel excludes all else: nothing is told apart.
                [0; 32],
                || inner.store.channel(&name),
                |_| false,
                || inner.room(),
            )?;
            match found {
                Found::Held { ended, .. } => {
                    if timeout_at(deadline, ended.wait()).await.is_err() {
                        return Ok(None);
                    }
                }
                Found::Kept(_) => return Err(super::confused()),
                Found::Claimed(claim, before) => {
                    return Ok(Some(ChannelClaim {
                        claim,
                        ledger: self.clone(),
                        before: before.filter(|before| before.at.timestamp_micros() > until),
                    }));
                }
            }
        }
    }

    /// How far a channel has come, if it is known.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) or
    /// [`ErrorKind::Corrupt`](crate::error::ErrorKind::Corrupt) if the file cannot be read.
    pub fn channel(
        &self,
        stream: &StreamName,
        producer: Option<&Name>,
        channel: &ChannelName,
    ) -> Result<Option<Channel>> {
        let inner = &self.inner;
        let name = channel_name(stream, producer, channel);
        let until = Ends::at(inner.clock.now(), &inner.kept).channels;
        let known = inner.channels.look(&name, || inner.store.channel(&name))?;
        Ok(known.filter(|known| known.at.timestamp_micros() > until))
    }
}
