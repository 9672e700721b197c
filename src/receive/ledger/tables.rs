//! The tables of the ledger's file and what one transaction does to them.
//!
//! ```text
//! answers  scope ─► at, fingerprint, status, headers, body
//! events   stream and id ─► first, last, count, bodies
//! receipts id ─► stream, producer, received, updated, stage
//! channels stream, producer and name ─► epoch, number, last, offset, receipt
//! order    (kind, moment, name): what ends first stands first; for receipts also the order they are listed in
//! ```

use bytes::Bytes;
use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use crate::{
    clock::Timestamp,
    config::{Name, StreamName},
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
    receive::{
        ReceiptId,
        idempotency::Key,
        ledger::{
            Kept, Swept,
            answer::{Answer, Fingerprint},
            channel::Channel,
            event::EventRecord,
            receipt::{Receipt, Stage},
        },
    },
};

/// Layout of the tables. A file with another number is of another program: it is moved aside.
pub(super) const FORMAT: u64 = 1;

type AnswerRow<'a> = (i64, &'a [u8; 32], u16, Vec<(&'a str, &'a str)>, &'a [u8]);
type EventRow<'a> = (i64, i64, u64, Vec<(&'a [u8; 32], &'a [u8; 16])>);
// Without `Option`: redb announces another encoding of `Option<&str>` for its next version.
type ReceiptRow<'a> = (&'a str, &'a str, i64, i64, u8, i64, u64, &'a str);
type ChannelRow<'a> = (u64, u64, i64, &'a str, &'a [u8; 16]);
type OrderKey<'a> = (u8, i64, &'a [u8]);

pub(super) const ANSWERS: TableDefinition<'_, &[u8; 32], AnswerRow<'static>> =
    TableDefinition::new("answers");
pub(super) const EVENTS: TableDefinition<'_, &[u8; 32], EventRow<'static>> = TableDefinition::new("events");
pub(super) const RECEIPTS: TableDefinition<'_, &[u8; 16], ReceiptRow<'static>> =
    TableDefinition::new("receipts");
pub(super) const CHANNELS: TableDefinition<'_, &[u8; 32], ChannelRow<'static>> =
    TableDefinition::new("channels");
pub(super) const ORDER: TableDefinition<'_, OrderKey<'static>, ()> = TableDefinition::new("order");
pub(super) const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");

/// What the rows of `order` are about.
pub(super) const OF_ANSWERS: u8 = 0;
pub(super) const OF_EVENTS: u8 = 1;
pub(super) const OF_RECEIPTS: u8 = 2;
pub(super) const OF_CHANNELS: u8 = 3;

/// Room that an entry takes beyond its own bytes: its key, its row in `order`, and the free part of half-filled pages.
/// A test holds this against what the file really allocates.
const ENTRY_BYTES: u64 = 224;

/// An answer with what it answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AnswerRecord {
    pub(super) at: Timestamp,
    pub(super) fingerprint: Fingerprint,
    pub(super) answer: Answer,
}

/// The tables, open for writing.
pub(super) struct Tables<'t> {
    answers: Table<'t, &'static [u8; 32], AnswerRow<'static>>,
    events: Table<'t, &'static [u8; 32], EventRow<'static>>,
    receipts: Table<'t, &'static [u8; 16], ReceiptRow<'static>>,
    channels: Table<'t, &'static [u8; 32], ChannelRow<'static>>,
    order: Table<'t, OrderKey<'static>, ()>,
    about: Table<'t, &'static str, u64>,
    /// Room taken by all entries, in bytes, as counted by [`ENTRY_BYTES`] and the entries' own.
    pub(super) bytes: u64,
    /// The `updated_at` given last.
    pub(super) stamp: i64,
}

impl<'t> Tables<'t> {
    pub(super) fn open(write: &'t WriteTransaction, stamp: i64) -> Result<Self, redb::Error> {
        let about = write.open_table(ABOUT)?;
        let bytes = about.get("bytes")?.map_or(0, |bytes| bytes.value());
        Ok(Self {
            answers: write.open_table(ANSWERS)?,
            events: write.open_table(EVENTS)?,
            receipts: write.open_table(RECEIPTS)?,
            channels: write.open_table(CHANNELS)?,
            order: write.open_table(ORDER)?,
            about,
            bytes,
            stamp,
        })
    }

    /// Writes the counts down; the last thing of a transaction.
    pub(super) fn close(mut self) -> Result<(u64, i64), redb::Error> {
        self.about.insert("bytes", self.bytes)?;
        Ok((self.bytes, self.stamp))
    }

    pub(super) fn format(&self) -> Result<Option<u64>, redb::Error> {
        Ok(self.about.get("format")?.map(|format| format.value()))
    }

    pub(super) fn set_format(&mut self) -> Result<(), redb::Error> {
        self.about.insert("format", FORMAT)?;
        Ok(())
    }

    pub(super) fn put_answer(&mut self, name: &[u8; 32], record: &AnswerRecord) -> Result<()> {
        let headers: Vec<(&str, &str)> = record
            .answer
            .headers()
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let at = record.at.timestamp_micros();
        let row: AnswerRow<'_> = (
            at,
            &record.fingerprint.0,
            record.answer.status(),
            headers,
            record.answer.body(),
        );
        let before = self
            .answers
            .insert(name, row)
            .map_err(failed)?
            .map(|row| answer_bytes(&row.value()));
        self.bytes += ENTRY_BYTES + 2 * record.answer.bytes() as u64;
        self.filed(OF_ANSWERS, at, name, before)
    }

    pub(super) fn answer(&self, name: &[u8; 32]) -> Result<Option<AnswerRecord>> {
        answer_in(&self.answers, name)
    }

    pub(super) fn put_event(&mut self, name: &[u8; 32], record: &EventRecord) -> Result<()> {
        let receipts: Vec<[u8; 16]> = record.bodies.iter().map(|(_, id)| id.to_bytes()).collect();
        let bodies = record.bodies.iter().zip(&receipts);
        let last = record.last_seen_at.timestamp_micros();
        let row: EventRow<'_> = (
            record.first_seen_at.timestamp_micros(),
            last,
            record.count,
            bodies
                .map(|((fingerprint, _), id)| (&fingerprint.0, id))
                .collect(),
        );
        let before = self
            .events
            .insert(name, row)
            .map_err(failed)?
            .map(|row| event_bytes(row.value().3.len()));
        self.bytes += event_bytes(record.bodies.len());
        self.filed(OF_EVENTS, last, name, before)
    }

    pub(super) fn event(&self, name: &[u8; 32]) -> Result<Option<EventRecord>> {
        event_in(&self.events, name)
    }

    pub(super) fn put_channel(&mut self, name: &[u8; 32], channel: &Channel) -> Result<()> {
        let offset = channel.offset.as_ref().map_or("", Key::as_str);
        let at = channel.at.timestamp_micros();
        // No receipt has these bytes: they are no UUID of version 7.
        let receipt = channel.receipt.map_or([0; 16], ReceiptId::to_bytes);
        let row: ChannelRow<'_> = (channel.epoch, channel.number, at, offset, &receipt);
        let before = self
            .channels
            .insert(name, row)
            .map_err(failed)?
            .map(|row| channel_bytes(row.value().3));
        self.bytes += channel_bytes(offset);
        self.filed(OF_CHANNELS, at, name, before)
    }

    pub(super) fn channel(&self, name: &[u8; 32]) -> Result<Option<Channel>> {
        channel_in(&self.channels, name)
    }

    /// Keeps `receipt` as of `now`, unless its end is kept already. Says whether anything changed.
    pub(super) fn put_receipt(&mut self, receipt: &Receipt, now: Timestamp) -> Result<bool> {
        let id = receipt.id.to_bytes();
        let before = receipt_in(&self.receipts, receipt.id)?;
        if let Some(before) = &before {
            if !before.stage.open() || before.stage == receipt.stage {
                return Ok(false);
            }
            let place = (OF_RECEIPTS, before.updated_at.timestamp_micros(), id.as_slice());
            self.order.remove(place).map_err(failed)?;
            self.bytes = self.bytes.saturating_sub(receipt_bytes(before));
        }
        self.stamp = now.timestamp_micros().max(self.stamp.saturating_add(1));
        let stream = receipt.stream.to_string();
        let (stage, batch, page, reason) = match &receipt.stage {
            Stage::Spooled => (0, 0, 0, ""),
            Stage::Landed { batch, page } => (1, batch.get(), *page, ""),
            Stage::Refused { reason } => (2, 0, 0, cut(reason)),
        };
        let row: ReceiptRow<'_> = (
            &stream,
            receipt.producer.as_ref().map_or("", Name::as_str),
            receipt.received_at.timestamp_micros(),
            self.stamp,
            stage,
            batch,
            page,
            reason,
        );
        self.receipts.insert(&id, row).map_err(failed)?;
        let place = (OF_RECEIPTS, self.stamp, id.as_slice());
        self.order.insert(place, ()).map_err(failed)?;
        self.bytes += receipt_bytes(receipt);
        Ok(true)
    }

    /// One bounded step of forgetting: what ended before the moments of `until`, and, while the entries take more than
    /// `bytes_max`, the receipts that ended, oldest first.
    pub(super) fn sweep(&mut self, until: &Ends, bytes_max: u64, steps_max: usize) -> Result<Swept> {
        let mut swept = Swept::default();
        let names = self.ended(OF_ANSWERS, until.answers, steps_max)?;
        for (at, name) in &names {
            let last = |tables: &Self| Ok(tables.answer(name)?.map(|record| record.at));
            if let Some(name) = self.end(OF_ANSWERS, *at, name, until.answers, last)? {
                let row = self.answers.remove(&name).map_err(failed)?;
                self.bytes -= row.map_or(0, |row| answer_bytes(&row.value())).min(self.bytes);
                swept.answers += 1;
            }
        }
        let events = self.ended(OF_EVENTS, until.events, steps_max)?;
        for (at, name) in &events {
            let last = |tables: &Self| Ok(tables.event(name)?.map(|record| record.last_seen_at));
            if let Some(name) = self.end(OF_EVENTS, *at, name, until.events, last)? {
                let row = self.events.remove(&name).map_err(failed)?;
                let bytes = row.map_or(0, |row| event_bytes(row.value().3.len()));
                self.bytes -= bytes.min(self.bytes);
                swept.events += 1;
            }
        }
        let channels = self.ended(OF_CHANNELS, until.channels, steps_max)?;
        for (at, name) in &channels {
            let last = |tables: &Self| Ok(tables.channel(name)?.map(|channel| channel.at));
            if let Some(name) = self.end(OF_CHANNELS, *at, name, until.channels, last)? {
                let row = self.channels.remove(&name).map_err(failed)?;
                let bytes = row.map_or(0, |row| channel_bytes(row.value().3));
                self.bytes -= bytes.min(self.bytes);
                swept.channels += 1;
            }
        }
        self.end_receipts(until.receipts, bytes_max, steps_max, &mut swept)?;
        let looked_at = [names.len(), events.len(), channels.len()].map(|count| count as u64);
        swept.more = looked_at.contains(&(steps_max as u64)) || swept.receipts == steps_max as u64;
        Ok(swept)
    }

    /// Files a name that was not there `before`. One that was has its place already: when that is reached it is moved on.
    fn filed(&mut self, kind: u8, at: i64, name: &[u8; 32], before: Option<u64>) -> Result<()> {
        match before {
            Some(bytes) => self.bytes = self.bytes.saturating_sub(bytes),
            None => {
                self.order
                    .insert((kind, at, name.as_slice()), ())
                    .map_err(failed)?;
            }
        }
        Ok(())
    }

    /// The first names of `kind` that were filed before `until`, and when.
    fn ended(&self, kind: u8, until: i64, names_max: usize) -> Result<Vec<(i64, [u8; 32])>> {
        let none: &[u8] = &[];
        let places = self.order.range((kind, i64::MIN, none)..(kind, until, none));
        let mut names = Vec::new();
        for place in places.map_err(failed)?.take(names_max) {
            let place = place.map_err(failed)?.0;
            let (_, at, name) = place.value();
            names.push((at, name.try_into().map_err(|_| strange("order"))?));
        }
        Ok(names)
    }

    /// Takes a name out of its place; if it was used since, files it anew. Otherwise its row is to be removed: given back.
    fn end(
        &mut self,
        kind: u8,
        at: i64,
        name: &[u8; 32],
        until: i64,
        last: impl FnOnce(&Self) -> Result<Option<Timestamp>>,
    ) -> Result<Option<[u8; 32]>> {
        self.order.remove((kind, at, name.as_slice())).map_err(failed)?;
        let last = last(self)?.map(|last| last.timestamp_micros());
        if let Some(last) = last.filter(|last| *last >= until) {
            self.order
                .insert((kind, last, name.as_slice()), ())
                .map_err(failed)?;
            return Ok(None);
        }
        Ok(last.map(|_| *name))
    }

    /// Forgets receipts. Of those that may go early only the first `steps_max` are looked at: behind that many deliveries
    /// still spooled, none goes until these are landed.
    fn end_receipts(
        &mut self,
        until: i64,
        bytes_max: u64,
        steps_max: usize,
        swept: &mut Swept,
    ) -> Result<()> {
        let none: &[u8] = &[];
        let mut looked_at = Vec::new();
        let places = self
            .order
            .range((OF_RECEIPTS, i64::MIN, none)..(OF_RECEIPTS + 1, i64::MIN, none));
        for place in places.map_err(failed)?.take(steps_max) {
            let place = place.map_err(failed)?.0;
            let (_, at, id) = place.value();
            looked_at.push((at, <[u8; 16]>::try_from(id).map_err(|_| strange("order"))?));
        }
        for (at, id) in looked_at {
            let old = at < until;
            if !old && self.bytes <= bytes_max {
                break;
            }
            let receipt = receipt_in(&self.receipts, ReceiptId::from_bytes(id))?;
            // A delivery that is still spooled is somebody's open question, however old it is.
            if receipt
                .as_ref()
                .is_some_and(|receipt| receipt.stage.open() && !old)
            {
                continue;
            }
            self.order
                .remove((OF_RECEIPTS, at, id.as_slice()))
                .map_err(failed)?;
            self.receipts.remove(&id).map_err(failed)?;
            self.bytes -= receipt
                .map_or(0, |receipt| receipt_bytes(&receipt))
                .min(self.bytes);
            swept.receipts += 1;
            swept.receipts_early += u64::from(!old);
        }
        Ok(())
    }
}

/// The moments before which things are forgotten, in microseconds.
pub(super) struct Ends {
    pub(super) answers: i64,
    pub(super) events: i64,
    pub(super) receipts: i64,
    pub(super) channels: i64,
}

impl Ends {
    pub(super) fn at(now: Timestamp, kept: &Kept) -> Self {
        let before = |keep: std::time::Duration| {
            let micros = i64::try_from(keep.as_micros()).unwrap_or(i64::MAX);
            now.timestamp_micros().saturating_sub(micros)
        };
        Self {
            answers: before(kept.answers_for),
            events: before(kept.events_for),
            receipts: before(kept.receipts_for),
            channels: before(kept.channels_for),
        }
    }
}

pub(super) fn answer_in(
    table: &impl ReadableTable<&'static [u8; 32], AnswerRow<'static>>,
    name: &[u8; 32],
) -> Result<Option<AnswerRecord>> {
    let Some(row) = table.get(name).map_err(failed)? else {
        return Ok(None);
    };
    let (at, fingerprint, status, headers, body) = row.value();
    let headers = headers.into_iter();
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Some(AnswerRecord {
        at: moment(at)?,
        fingerprint: Fingerprint(*fingerprint),
        answer: Answer::new(status, headers.collect(), Bytes::copy_from_slice(body))?,
    }))
}

pub(super) fn event_in(
    table: &impl ReadableTable<&'static [u8; 32], EventRow<'static>>,
    name: &[u8; 32],
) -> Result<Option<EventRecord>> {
    let Some(row) = table.get(name).map_err(failed)? else {
        return Ok(None);
    };
    let (first, last, count, bodies) = row.value();
    let bodies = bodies.into_iter();
    Ok(Some(EventRecord {
        first_seen_at: moment(first)?,
        last_seen_at: moment(last)?,
        count,
        bodies: bodies
            .map(|(body, id)| (Fingerprint(*body), ReceiptId::from_bytes(*id)))
            .collect(),
    }))
}

pub(super) fn channel_in(
    table: &impl ReadableTable<&'static [u8; 32], ChannelRow<'static>>,
    name: &[u8; 32],
) -> Result<Option<Channel>> {
    let Some(row) = table.get(name).map_err(failed)? else {
        return Ok(None);
    };
    let (epoch, number, at, offset, receipt) = row.value();
    let offset = match offset {
        "" => None,
        text => Some(Key::new(text).map_err(|fault| strange("channels").caused_by(fault))?),
    };
    Ok(Some(Channel {
        epoch,
        number,
        offset,
        receipt: (*receipt != [0; 16]).then(|| ReceiptId::from_bytes(*receipt)),
        at: moment(at)?,
    }))
}

pub(super) fn receipt_in(
    table: &impl ReadableTable<&'static [u8; 16], ReceiptRow<'static>>,
    id: ReceiptId,
) -> Result<Option<Receipt>> {
    let Some(row) = table.get(&id.to_bytes()).map_err(failed)? else {
        return Ok(None);
    };
    let (stream, producer, received, updated, stage, batch, page, reason) = row.value();
    let named = |text| Name::new(text).map_err(|error| strange("receipts").caused_by(error));
    Ok(Some(Receipt {
        id,
        stream: StreamName::parse(stream).map_err(|error| strange("receipts").caused_by(error))?,
        producer: (!producer.is_empty()).then(|| named(producer)).transpose()?,
        received_at: moment(received)?,
        updated_at: moment(updated)?,
        stage: match stage {
            0 => Stage::Spooled,
            1 => Stage::Landed {
                batch: BatchNumber::new(batch)?,
                page,
            },
            2 => Stage::Refused {
                reason: reason.to_owned(),
            },
            _ => return Err(strange("receipts")),
        },
    }))
}

fn answer_bytes(row: &AnswerRow<'_>) -> u64 {
    let headers: usize = row.3.iter().map(|(name, value)| name.len() + value.len()).sum();
    ENTRY_BYTES + 2 * (headers + row.4.len()) as u64
}

fn event_bytes(bodies: usize) -> u64 {
    ENTRY_BYTES + 2 * 48 * bodies as u64
}

fn channel_bytes(offset: &str) -> u64 {
    ENTRY_BYTES + 2 * (48 + offset.len()) as u64
}

fn receipt_bytes(receipt: &Receipt) -> u64 {
    let reason = match &receipt.stage {
        Stage::Refused { reason } => cut(reason).len(),
        _ => 0,
    };
    let producer = receipt.producer.as_ref().map_or(0, |name| name.as_str().len());
    let stream = receipt.stream.source.as_str().len() + receipt.stream.stream.as_str().len();
    ENTRY_BYTES + 2 * (reason + producer + stream) as u64
}

fn cut(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(Receipt::REASON_BYTES_MAX)]
}

fn moment(micros: i64) -> Result<Timestamp> {
    Timestamp::from_timestamp_micros(micros).ok_or_else(|| strange("moment"))
}

fn strange(what: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "read ledger").with("table", what)
}

/// A failure of the file as an error of ours.
pub(super) fn failed(error: impl Into<redb::Error>) -> Error {
    let error = error.into();
    let kind = match &error {
        redb::Error::Corrupted(_) => ErrorKind::Corrupt,
        _ => ErrorKind::Unavailable,
    };
    Error::new(kind, "use ledger").caused_by(error)
}
