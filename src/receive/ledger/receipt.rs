//! Receipts: where a delivery is now, and the list of them in the order of their last change.

use std::{fmt, str::FromStr};

use crate::{
    clock::Timestamp,
    config::{Name, StreamName},
    error::{Error, ErrorKind, Result},
    raw::BatchNumber,
    receive::{Delivery, ReceiptId},
};

/// Where a delivery is. What the transform made of it is asked by its batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Durable here, not yet in the lake.
    Spooled,
    /// In the raw log of its stream.
    Landed {
        /// The raw batch.
        batch: BatchNumber,
        /// Its page in that batch, from 0.
        page: u64,
    },
    /// Given up; it will not be landed. Never the end of a delivery that was acknowledged as accepted.
    Refused {
        /// Why, in the words of the problem that the sender was given. Cut to [`Receipt::REASON_BYTES_MAX`].
        reason: String,
    },
}

/// What is known of one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The receipt's id, which the sender was given.
    pub id: ReceiptId,
    /// The stream it is for.
    pub stream: StreamName,
    /// Who sent it, if that was asked.
    pub producer: Option<Name>,
    /// When its body was complete.
    pub received_at: Timestamp,
    /// When its stage last changed. Given by the ledger, strictly increasing over all receipts; of a receipt that was not
    /// yet kept it is `received_at`.
    pub updated_at: Timestamp,
    /// Where it is.
    pub stage: Stage,
}

impl Receipt {
    /// Longest reason of a refusal, in bytes.
    pub const REASON_BYTES_MAX: usize = 512;

    /// The receipt of `delivery`, which is at `stage` now.
    pub fn of(delivery: &Delivery, stage: Stage) -> Self {
        Self {
            id: delivery.receipt,
            stream: delivery.stream.clone(),
            producer: delivery.producer.clone(),
            received_at: delivery.page.facts.fetched_at,
            updated_at: delivery.page.facts.fetched_at,
            stage,
        }
    }
}

impl Stage {
    /// Whether a receipt at this stage may still change: what is landed or refused stays so, whoever says otherwise later.
    pub(super) fn open(&self) -> bool {
        matches!(self, Self::Spooled)
    }
}

/// Where a listing goes on: after the receipt that was last changed at this moment.
///
/// Text of 48 hexadecimal digits; opaque to senders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    pub(super) updated_at: i64,
    pub(super) id: [u8; 16],
}

impl Cursor {
    /// The place behind the entry `id` of a list, which changed last at `updated_at`.
    pub fn new(updated_at: Timestamp, id: [u8; 16]) -> Self {
        Self {
            updated_at: updated_at.timestamp_micros(),
            id,
        }
    }

    /// When the entry changed last, to the microsecond.
    pub fn updated_at(self) -> Timestamp {
        Timestamp::from_timestamp_micros(self.updated_at).unwrap_or_default()
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:032x}", self.updated_at, u128::from_be_bytes(self.id))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    /// Reads what [`fmt::Display`] writes, and nothing else.
    fn from_str(text: &str) -> Result<Self> {
        let refused =
            || Error::new(ErrorKind::Refused, "read cursor").with("expected", "48 hexadecimal digits");
        let digits = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 48 || !text.bytes().all(digits) {
            return Err(refused());
        }
        let (updated_at, id) = text.split_at(16);
        Ok(Self {
            updated_at: u64::from_str_radix(updated_at, 16)
                .map_err(|_| refused())?
                .cast_signed(),
            id: u128::from_str_radix(id, 16).map_err(|_| refused())?.to_be_bytes(),
        })
    }
}

/// Which receipts are asked for.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Only those changed at this moment or later.
    pub updated_at_gte: Option<Timestamp>,
    /// Only those after this place: [`Listed::next`] of the page before.
    pub after: Option<Cursor>,
    /// Only those of this producer.
    pub producer: Option<Name>,
    /// Only those of this stream.
    pub stream: Option<StreamName>,
    /// Most receipts wanted; at least 1 and at most [`Listing::LIMIT_MAX`] count.
    pub limit: usize,
}

impl Listing {
    /// Most receipts given at once.
    pub const LIMIT_MAX: usize = 1_000;
    /// Receipts looked at for one page. With a narrow filter a page can be short or empty though more follow.
    pub const SCAN_MAX: usize = 20_000;

    /// Whether `receipt` is asked for.
    pub(super) fn asks(&self, receipt: &Receipt) -> bool {
        self.producer
            .as_ref()
            .is_none_or(|name| receipt.producer.as_ref() == Some(name))
            && self.stream.as_ref().is_none_or(|name| receipt.stream == *name)
    }
}

/// One page of receipts, ordered by `updated_at`.
///
/// A receipt that changes while it is listed comes again at its new place; none is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The receipts.
    pub receipts: Vec<Receipt>,
    /// Where it goes on, if there may be more.
    pub next: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_cursor_reads_back(updated_at in any::<i64>(), id in any::<[u8; 16]>()) {
            let cursor = Cursor { updated_at, id };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }

        #[test]
        fn any_other_text_is_refused(text in "\\PC{0,60}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text);
            }
        }
    }
}
