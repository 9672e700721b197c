//! That a delivery is safe, held by whoever was told so.

use std::sync::Arc;

use crate::receive::spool::backlog::Untold;

/// That a delivery is safe. Whoever keeps account of what was received drops it when that is done: before, the delivery's
/// segment is not taken to the lake and so not removed, and a start after a crash finds in it what the account lacks.
#[derive(Debug)]
pub struct Kept {
    _untold: Option<Arc<Untold>>,
}

impl Kept {
    /// In a segment of the spool.
    pub(crate) fn in_segment(untold: Option<Arc<Untold>>) -> Self {
        Self { _untold: untold }
    }

    /// In the lake, from where it is not removed.
    pub(crate) fn in_lake() -> Self {
        Self { _untold: None }
    }
}
