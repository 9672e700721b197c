//! A segment on its way into the lake.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use tokio::time::Instant;

use crate::{
    config::StreamName,
    receive::spool::{backlog::Sealed, load::Loaded, progress::Progress, segment::Frame},
};

/// A segment on its way.
pub(crate) struct Shipping {
    /// Which, and how long it is.
    pub(crate) sealed: Sealed,
    /// Where its deliveries are, as long as something can be done with them.
    pub(crate) loaded: Option<Arc<Loaded>>,
    /// Kept when the index is dropped.
    pub(crate) progress: Option<Arc<Mutex<Progress>>>,
    /// The streams whose part does not stand yet; none until the segment was read.
    pub(crate) left: Option<BTreeSet<StreamName>>,
    /// Bytes of their parts, as read.
    pub(crate) left_bytes: u64,
    /// Whether something of it cannot be read, so that it is kept aside in the end.
    pub(crate) is_damaged: bool,
    /// Whether a part of it came into the lake since it was taken over.
    pub(crate) some_stands: bool,
    /// Things that are done with it now.
    pub(crate) busy: usize,
    /// Failures in a row of what is done with all of it.
    pub(crate) failures: u32,
    /// When what failed may be tried again.
    pub(crate) retry_at: Option<Instant>,
}

impl Shipping {
    /// One that was sealed just now, or found.
    pub(crate) fn new(sealed: Sealed) -> Self {
        Self {
            sealed,
            loaded: None,
            progress: None,
            left: None,
            left_bytes: 0,
            is_damaged: false,
            some_stands: false,
            busy: 0,
            failures: 0,
            retry_at: None,
        }
    }

    /// What is in it is known now; none if it is gone already.
    pub(crate) fn take(&mut self, loaded: Option<Loaded>) {
        let Some(loaded) = loaded else {
            self.left = Some(BTreeSet::new());
            return;
        };
        if loaded.damage > 0 && !self.is_damaged {
            self.is_damaged = true;
            let file = self.sealed.name.file();
            tracing::error!(
                file,
                bytes = loaded.damage,
                "spool segment is damaged; what can be read is shipped"
            );
        }
        self.progress = Some(Arc::clone(&loaded.progress));
        self.left = Some(loaded.parts.keys().cloned().collect());
        self.left_bytes = loaded.parts.values().map(|frames| bytes(frames)).sum();
        self.loaded = Some(Arc::new(loaded));
    }

    /// The part of `stream` stands in the lake.
    pub(crate) fn part_stands(&mut self, stream: &StreamName) {
        self.some_stands = true;
        if let Some(left) = &mut self.left {
            left.remove(stream);
        }
        let frames = self.loaded.as_ref().and_then(|loaded| loaded.parts.get(stream));
        self.left_bytes = self
            .left_bytes
            .saturating_sub(frames.map_or(0, |frames| bytes(frames)));
    }

    /// Whether its index is in memory, or will be.
    pub(crate) fn holds_index(&self) -> bool {
        self.loaded.is_some() || (self.left.is_none() && self.busy > 0)
    }
}

fn bytes(frames: &[Frame]) -> u64 {
    frames.iter().map(Frame::bytes).sum()
}
