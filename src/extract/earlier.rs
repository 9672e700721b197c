//! Bodies that were read and not taken, kept while their request is sent again.

use tracing::warn;

use crate::{
    clock::Timestamp,
    extract::{
        attempt::{Attempt, Said},
        client::Response,
        facts,
        send::Tries,
    },
    raw::PageFacts,
};

/// Bodies kept of one request beside the last one. The first ones: what comes after a while says nothing new.
pub(crate) const BODIES_MAX: usize = 3;

/// Bytes of them in memory. A body that does not fit is said and let go; those that are in files take no memory.
pub(crate) const HELD_BYTES_MAX: usize = 4 << 20;

/// The bodies of one request that were not taken.
#[derive(Debug, Default)]
pub(crate) struct Earlier {
    kept: Vec<Untaken>,
    held: usize,
}

/// A 2xx answer that was no page, or not all of one, and was followed by another attempt.
#[derive(Debug)]
pub(crate) struct Untaken {
    /// The answer.
    pub(crate) response: Response,
    /// Why it was not taken.
    pub(crate) reason: String,
    /// What is known about it.
    pub(crate) facts: PageFacts,
    /// Its records, if it is data of which the server says that something is missing.
    pub(crate) records: Option<u64>,
}

impl Earlier {
    /// Keeps what an attempt was answered with, if that is worth a look: a body that should have been a page.
    ///
    /// Not kept are answers of another status, those that say to come back later, be it by a rule, those that may be cut
    /// on the way, and those whose bytes are kept already.
    pub(crate) fn keep(&mut self, ended: Attempt, attempt: u32, tries: &Tries<'_>, now: Timestamp) {
        let reason = ended.reason(&tries.masks);
        let Attempt::Answered(response, said) = ended else {
            return;
        };
        let records = match said {
            Said::Partial(reading) => Some(reading.records),
            Said::Unreadable(..) => None,
            Said::Page(_)
            | Said::Cut
            | Said::End
            | Said::Ruled(..)
            | Said::Throttled(_)
            | Said::TooMuch
            | Said::Status => {
                return;
            }
        };
        let known = self.kept.iter().any(|kept| same(&kept.response, &response));
        if response.bytes() == 0 || known || self.kept.len() >= BODIES_MAX {
            return;
        }
        let held = self.held.saturating_add(response.body.len());
        if held > HELD_BYTES_MAX {
            warn!(
                attempt,
                bytes = response.bytes(),
                held_bytes_max = HELD_BYTES_MAX,
                "a body that could not be taken is too large to be kept while the request is sent again"
            );
            return;
        }
        self.held = held;
        let facts = facts::of(tries.request, &response.head, &tries.masks, attempt, now, None);
        self.kept.push(Untaken {
            response: *response,
            reason,
            facts,
            records,
        });
    }

    /// Those that differ from the answer that came last.
    pub(crate) fn besides(self, last: &Response) -> Vec<Untaken> {
        let mut kept = self.kept;
        kept.retain(|untaken| !same(&untaken.response, last));
        kept
    }

    /// All of them.
    pub(crate) fn all(self) -> Vec<Untaken> {
        self.kept
    }
}

fn same(one: &Response, other: &Response) -> bool {
    match (&one.spool, &other.spool) {
        (None, None) => one.body == other.body,
        (Some(one), Some(other)) => one.is_same(other),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use reqwest::header::HeaderMap;

    use super::*;
    use crate::{
        config::paginate::Paginate,
        extract::{
            attempt::{Again, Ranks},
            client::{Framing, Head},
            mask::Masks,
            reading::Unreadable,
            request::{Ask, PageRequest},
            tests::server::source,
        },
    };

    fn response(body: &[u8]) -> Response {
        Response {
            head: Head {
                status: 200,
                headers: HeaderMap::new(),
                url: "https://a.example/o".parse().unwrap(),
            },
            body: Bytes::copy_from_slice(body),
            spool: None,
            wire_bytes: body.len() as u64,
            framing: Framing::Told,
        }
    }

    fn keep(earlier: &mut Earlier, attempt: u32, body: &[u8], said: Said) {
        let source = source(&"https://a.example".parse().unwrap(), Paginate::Single);
        let request = PageRequest::build(&source, &source.streams[0], &Ask::default()).unwrap();
        let tries = Tries {
            request: &request,
            page: 1,
            ranks: Ranks {
                previous: None,
                bound: None,
            },
            masks: Masks::default(),
            renewed: false,
            counted: false,
            download: None,
        };
        let ended = Attempt::Answered(Box::new(response(body)), said);
        earlier.keep(ended, attempt, &tries, Timestamp::UNIX_EPOCH);
    }

    fn unreadable() -> Said {
        Said::Unreadable(Unreadable::RecordsMissing, Again::Worth)
    }

    fn attempts(kept: &[Untaken]) -> Vec<u32> {
        kept.iter().map(|untaken| untaken.facts.attempts).collect()
    }

    #[test]
    fn f063_a_few_bodies_are_kept_each_once_and_the_last_one_is_not_repeated() {
        let mut earlier = Earlier::default();
        keep(&mut earlier, 1, b"<html>", unreadable());
        keep(&mut earlier, 2, b"<html>", unreadable());
        keep(&mut earlier, 3, b"", unreadable());
        keep(&mut earlier, 4, b"{}", Said::Status);
        keep(&mut earlier, 5, b"{}", Said::Throttled(std::time::Duration::ZERO));
        keep(&mut earlier, 5, b"[0", Said::Cut);
        keep(&mut earlier, 6, b"{\"data\":", unreadable());
        keep(&mut earlier, 7, b"[1", unreadable());
        keep(&mut earlier, 8, b"[2", unreadable());
        assert_eq!(attempts(&earlier.besides(&response(b"[1"))), [1, 6]);
    }

    #[test]
    fn f063_what_is_kept_is_bounded_in_bytes() {
        let mut earlier = Earlier::default();
        keep(&mut earlier, 1, &vec![b'a'; HELD_BYTES_MAX - 1], unreadable());
        keep(&mut earlier, 2, b"bb", unreadable());
        keep(&mut earlier, 3, b"c", unreadable());
        assert_eq!(attempts(&earlier.all()), [1, 3]);
    }
}
