//! Whole records for events that only name them: the settings.

use std::time::Duration;

use crate::{
    config::{
        Name, Stream,
        paginate::{Paginate, Paging},
        records::RecordPaths,
        request::Request,
        slice::{Parent, Patience, SliceBy, Slicing},
    },
    json::JsonPath,
};

/// How the records are fetched that events of another stream name.
///
/// The other stream's raw log is the queue: what is not fetched yet stands behind a bookmark within that of this stream.
#[derive(Clone, Debug)]
pub struct Hydrate {
    /// The stream of the same source whose records are the events, and what is taken out of each.
    pub events: Parent,
    /// The request for one record, over `slice`.
    pub request: Request,
    /// Where the record is in its answer.
    pub records: RecordPaths,
    /// Records fetched at the same time. Default 4.
    pub at_once: u32,
    /// How often an event is tried.
    pub patience: Patience,
    /// Whether nothing else is asked for the stream: it has no request of its own.
    pub is_alone: bool,
}

impl Hydrate {
    /// Most events of one pass that differ: they are held as hashes.
    const EVENTS_MAX: u64 = 10_000_000;

    /// The stream that the events come from.
    pub fn from(&self) -> &Name {
        &self.events.stream
    }

    /// `stream`, whose setting this is, as it is asked for one record at a time: a slice for each event.
    #[must_use]
    pub fn stream(&self, stream: &Stream) -> Stream {
        Stream {
            request: self.request.clone(),
            records: self.records.clone(),
            paginate: Paging::plain(Paginate::Single),
            slices: Some(Slicing {
                at_once: self.at_once,
                slices_max: Self::EVENTS_MAX,
                patience: Some(self.patience),
                ..Slicing::by(vec![SliceBy::Parent(self.events.clone())])
            }),
            incremental: None,
            complete: None,
            reconcile: None,
            job: None,
            ..stream.clone()
        }
    }

    /// The path within an event of each value that it must have.
    pub fn values(&self) -> &[(String, JsonPath)] {
        &self.events.values
    }
}

impl Patience {
    /// Used unless the file says otherwise: about four hours in all.
    pub const DEFAULT: Self = Self {
        attempts_max: 10,
        backoff_start: Duration::from_secs(30),
        backoff_max: Duration::from_secs(3600),
    };
}
