//! What is asked for instead when the server says that this will not do.

use tracing::warn;

use crate::{
    config::incremental::{Incremental, OnExpired, Order},
    error::{Error, Result},
    extract::{
        bounds::{Bounds, windows},
        cursor::{self, Rank},
        fetch::{Remedy, Unanswered},
        paginate::{
            guard::{Guard, Seen},
            resize,
        },
        pull::{
            Ahead, Pull, REMEDIES_MAX, Start,
            whole::{self, EXPIRED_HINT},
            windows::opened,
        },
        request::START,
        shape,
        window::Scope,
    },
    raw::pass::Tally,
};

impl Pull {
    /// Changes what is asked for, or returns the error to stop with.
    pub(super) fn remedy(&mut self, unanswered: Unanswered) -> Result<()> {
        let Unanswered {
            status, error, then, ..
        } = unanswered;
        self.remedies += 1;
        if self.remedies > REMEDIES_MAX {
            return Err(error.with("remedies_max", REMEDIES_MAX));
        }
        match then {
            Some(Remedy::Split) => return self.split(error),
            Some(Remedy::SplitWindow) => return self.split_window(error),
            Some(Remedy::Reset) | None => {}
        }
        let expired = match self.start {
            Start::Resumed => matches!(status, Some(400 | 404 | 410 | 422)),
            Start::Settled => status == Some(410),
        };
        if !expired && then != Some(Remedy::Reset) {
            return Err(error);
        }
        if self.window.next != START {
            if self.start == Start::Settled && self.remedies > 1 {
                return Err(error.with("problem", "the page token expires before it is used"));
            }
            warn!(stream = %self.fetcher.stream.name, status, "page token has expired, window begins again");
            self.begin_again();
            return Ok(());
        }
        self.expired(error)
    }

    /// Asks for the same place in smaller pages.
    pub(super) fn split(&mut self, error: Error) -> Result<()> {
        let Some(size) = self.size() else {
            return Err(error.with(
                "hint",
                "set paginate.size, so that a smaller page can be asked for",
            ));
        };
        let Some(split) = resize::split(&self.fetcher.stream, &self.window.next, size)? else {
            return Err(error
                .with("page_size", size)
                .with("problem", "no smaller page is possible"));
        };
        warn!(stream = %self.fetcher.stream.name, from = size, to = split.size, "page size reduced");
        self.mark.page_size = Some(split.size);
        self.window.next = split.token;
        Ok(())
    }

    /// Asks for the first half of the window, and for the other one after it.
    pub(super) fn split_window(&mut self, error: Error) -> Result<()> {
        let halves = self.fetcher.stream.incremental.as_ref().and_then(|incremental| {
            let now = self.fetcher.clock.now();
            self.bounds.halves(incremental, now)
        });
        let Some((first, second)) = halves else {
            return Err(error.with("problem", "the window cannot be halved"));
        };
        warn!(stream = %self.fetcher.stream.name, since = first.since, until = first.until, "window halved");
        let later = std::mem::replace(&mut self.ahead, Box::new(std::iter::empty()));
        self.ahead = Box::new(std::iter::once(second).chain(later));
        self.open(first);
        Ok(())
    }

    /// The API no longer knows where the stream stood.
    pub(super) fn expired(&mut self, error: Error) -> Result<()> {
        let Some(incremental) = &self.fetcher.stream.incremental else {
            return Err(error);
        };
        if self.window.since.is_none() {
            return Err(error);
        }
        match incremental.on_expired {
            OnExpired::Stop => Err(error
                .with("problem", "cursor_expired")
                .with("since", self.window.since.as_deref().unwrap_or_default())
                .with("hint", EXPIRED_HINT)),
            OnExpired::Resync => {
                warn!(stream = %self.fetcher.stream.name, since = self.window.since,
                    "the position has expired, everything is asked for again");
                let now = self.fetcher.clock.now();
                let mut ahead: Ahead = Box::new(windows(incremental, None, now)?);
                let first = ahead.next().unwrap_or_default();
                self.scope = Scope::Complete;
                self.fetcher = whole::fetcher(self.fetcher.clone(), &self.scope, &self.mark);
                self.shape = shape::of(&self.fetcher.source, &self.fetcher.stream);
                (self.mark.tally, self.mark.opened_at) = (Tally::default(), None);
                self.ahead = ahead;
                self.open(first);
                Ok(())
            }
        }
    }

    /// The same window from its first page; from the greatest cursor seen if the API sends the oldest first.
    pub(super) fn begin_again(&mut self) {
        let sorted = |incremental: &&Incremental| incremental.order == Order::OldestFirst;
        let sorted = self
            .fetcher
            .stream
            .incremental
            .as_ref()
            .is_some_and(|incremental| sorted(&incremental));
        self.narrow(self.cursor_max.filter(|_| sorted));
    }

    /// Opens the window again, from `reached` if that is known.
    pub(super) fn narrow(&mut self, reached: Option<Rank>) {
        let mut bounds = self.bounds.clone();
        self.mark.tally.unstable |= self.guard.seen().unstable;
        if reached.is_some() {
            // What was read so far is not read again.
            self.mark.tally.records += self.window.records;
        }
        if let (Some(rank), Some(incremental)) = (reached, &self.fetcher.stream.incremental) {
            bounds.since = Some(cursor::canonical(&incremental.format, rank));
            bounds.from = Some(rank);
        }
        let opened_at = self.window.opened_at;
        self.open(bounds);
        self.window.opened_at = opened_at;
    }

    pub(super) fn open(&mut self, bounds: Bounds) {
        self.window = opened(&bounds, &self.scope, &self.shape, self.fetcher.clock.now());
        self.bounds = bounds;
        self.start = Start::Settled;
        self.cursor_max = None;
        self.cursor_last = None;
        self.guard = Guard::new(&self.fetcher.source.limits, Seen::default(), [START]);
    }
}
