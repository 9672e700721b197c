//! How far the extractions of a run have come, for those who wait for them.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::config::StreamName;

/// What the extractions of some streams have landed since they began.
#[derive(Debug)]
pub struct Landings {
    of_streams: BTreeMap<StreamName, watch::Sender<Landed>>,
}

/// How far one extraction has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Landed {
    /// Bytes of bodies in raw batches that stand.
    pub bytes: u64,
    /// Whether it is over, well or badly.
    pub over: bool,
}

impl Landings {
    /// Of `streams`, none of which has begun.
    pub fn of(streams: &[StreamName]) -> Self {
        let begun = |name: &StreamName| (name.clone(), watch::Sender::new(Landed::default()));
        Self {
            of_streams: streams.iter().map(begun).collect(),
        }
    }

    /// A batch of `bytes` stands.
    pub(super) fn land(&self, stream: &StreamName, bytes: u64) {
        if let Some(landed) = self.of_streams.get(stream) {
            landed.send_modify(|landed| landed.bytes += bytes);
        }
    }

    /// The extraction of `stream` is over.
    pub(super) fn end(&self, stream: &StreamName) {
        if let Some(landed) = self.of_streams.get(stream) {
            landed.send_modify(|landed| landed.over = true);
        }
    }

    /// What `stream` lands from now on; none if it is not among those that are extracted.
    pub(super) fn watch(&self, stream: &StreamName) -> Option<watch::Receiver<Landed>> {
        self.of_streams.get(stream).map(watch::Sender::subscribe)
    }
}
