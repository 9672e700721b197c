//! Push: what producers send, kept safe before it is acknowledged and landed in the raw logs.
//!
//! ```text
//! request ─ signature, ledger ─► Delivery ─► spool ─ durable ─► acknowledged ─ shipper ─► raw batch
//! ```

pub mod idempotency;
pub mod ledger;
pub mod producer;
pub mod signature;
pub mod spool;
pub mod uploads;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Uuid};

use crate::{
    clock::Timestamp,
    config::{Name, StreamName},
    error::{Error, ErrorKind, Result},
    raw::Page,
};

/// What a producer is given for a delivery, to ask by where it is now: a version 7 UUID, so that receipts sort by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReceiptId(Uuid);

impl ReceiptId {
    /// A new receipt for a delivery that was complete at `now`; 74 of its bits are random.
    pub fn new(now: Timestamp) -> Self {
        let seconds = u64::try_from(now.timestamp()).unwrap_or(0);
        let time = uuid::Timestamp::from_unix(NoContext, seconds, now.timestamp_subsec_nanos());
        Self(Uuid::new_v7(time))
    }

    /// When its delivery was complete, to the millisecond.
    pub fn received_at(self) -> Timestamp {
        let mut milliseconds = [0; 8];
        // A version 7 UUID begins with 48 bits of milliseconds (RFC 9562, section 5.7).
        milliseconds[2..].copy_from_slice(&self.to_bytes()[..6]);
        i64::try_from(u64::from_be_bytes(milliseconds))
            .ok()
            .and_then(Timestamp::from_timestamp_millis)
            .unwrap_or_default()
    }

    /// The id as it is kept in tables of bytes; sorts as the text does.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    /// The id that [`ReceiptId::to_bytes`] gave.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl FromStr for ReceiptId {
    type Err = Error;

    /// Reads the hyphenated lowercase form that [`fmt::Display`] writes, and no other.
    fn from_str(text: &str) -> Result<Self> {
        match Uuid::try_parse(text) {
            Ok(id) if id.to_string() == text => Ok(Self(id)),
            _ => Err(Error::new(ErrorKind::Corrupt, "read receipt id")),
        }
    }
}

impl TryFrom<String> for ReceiptId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<ReceiptId> for String {
    fn from(id: ReceiptId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for ReceiptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One request body of a producer, on its way into the raw log of a stream.
///
/// `page.body` is the body after content decoding, unmodified. Of `page.facts`, `fetched_at` is when the body was
/// complete, `status` what was answered, and `headers` are chosen ones of the request, lowercase: never those that prove
/// who sent it.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// What the producer was given for it.
    pub receipt: ReceiptId,
    /// The stream it is for.
    pub stream: StreamName,
    /// Who sent it, if that was asked.
    pub producer: Option<Name>,
    /// The body and the facts about it.
    pub page: Page,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_reads_back_in_one_spelling_only() {
        let receipt = ReceiptId::new(Timestamp::from_timestamp(1_795_309_506, 0).unwrap());
        let text = receipt.to_string();
        assert_eq!(text.parse::<ReceiptId>().unwrap(), receipt);
        assert_eq!(ReceiptId::from_bytes(receipt.to_bytes()), receipt);
        assert_eq!(receipt.received_at().timestamp(), 1_795_309_506);
        for other in [text.to_uppercase(), text.replace('-', ""), format!("{{{text}}}")] {
            assert_eq!(other.parse::<ReceiptId>().unwrap_err().kind(), ErrorKind::Corrupt);
        }
        let later = ReceiptId::new(Timestamp::from_timestamp(1_795_309_507, 0).unwrap());
        assert!(receipt < later && receipt.to_bytes() < later.to_bytes() && text < later.to_string());
    }
}
