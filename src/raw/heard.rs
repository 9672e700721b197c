//! How far what was pushed is known to be whole.

use serde::{Deserialize, Serialize};

use crate::{clock::Timestamp, raw::BatchNumber};

/// What was looked at when the stream was last asked for: whatever was missing before is not missing any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The newest raw batch looked at, of the log that is pushed to; none if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<BatchNumber>,
    /// The number that the next one is compared with; none if the next one is the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<i64>,
    /// When the stream was asked for.
    pub at: Timestamp,
}
