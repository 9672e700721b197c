//! One page, with as many requests as it takes.

use std::sync::Arc;

use tracing::{debug, warn};
use url::Url;

use crate::{
    clock::{Clock, Timestamp},
    config::{Source, Stream, errors::Action},
    error::{Error, ErrorKind, Result},
    extract::{
        attempt::{Attempt, Health, Ranks, Said},
        breaker::BreakerState,
        channel::Channel,
        client::Response,
        cursor::Rank,
        download::Download,
        earlier::{Earlier, Untaken},
        graphql,
        mask::Masks,
        progress::{Progress, add},
        reading::{Reading, Unreadable},
        request::PageRequest,
        retry::{self, Decision},
        send::{Lane, Tries},
    },
};

/// Bodies up to this size are read on the thread that fetched them.
const INLINE_BYTES_MAX: usize = 128 * 1024;

/// Fetches the pages of one stream: within the budget, with retries and redirects.
#[derive(Clone)]
pub struct Fetcher {
    /// The API.
    pub source: Arc<Source>,
    /// Its endpoint.
    pub stream: Arc<Stream>,
    /// Connections, credentials and hosts.
    pub channel: Arc<Channel>,
    /// Now.
    pub clock: Clock,
    /// Counts.
    pub progress: Arc<Progress>,
}

/// An answer with what it says.
pub struct Answer {
    /// The answer.
    pub response: Response,
    /// What its body says; an `Err` body is evidence, not a page.
    pub reading: Result<Reading, Unreadable>,
    /// Requests it took, redirects not counted.
    pub attempts: u32,
    /// What must not be written down about it.
    pub masks: Masks,
    /// When the body was complete.
    pub fetched_at: Timestamp,
    /// What it is to the window.
    pub verdict: Verdict,
    /// The base URL it came from: that of the source, or one of its replicas. Links in it lead there.
    pub base: Url,
    /// Bodies of earlier attempts that differ from it and could not be taken.
    pub(crate) earlier: Vec<Untaken>,
}

/// What an answer is to its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A page, or evidence if it cannot be read.
    Page,
    /// A page of which the server says that something is missing. It is landed, and the watermark does not move.
    Partial,
    /// The window ends here, as `paginate.stop.on_status` has it.
    End,
    /// The slice ends here without an error, as a rule has it. What is behind the answer is not known, so the watermark
    /// stays.
    Ignored {
        /// The status of the answer.
        status: u16,
        /// The rule, and its words if it has any.
        rule: String,
    },
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// The last status, if there was one.
    pub status: Option<u16>,
    /// What to report.
    pub error: Error,
    /// What may be tried instead of the same request again.
    pub then: Option<Remedy>,
    /// Bodies of earlier attempts that could not be taken.
    pub(crate) earlier: Vec<Untaken>,
}

/// What may be tried instead of the same request again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// To begin the window again from the greatest cursor seen.
    Reset,
    /// To ask for half the records.
    Split,
    /// To ask for each half of the window.
    SplitWindow,
}

impl Fetcher {
    /// Fetches page number `page` (from 1); `previous` is the last cursor of the page before, `bound` the lower bound of
    /// the window.
    ///
    /// A 2xx answer that cannot be read is returned with its reason once nothing can be gained by asking again.
    ///
    /// # Errors
    /// [`Unanswered`] names the masked URL, the attempts and the last status.
    pub async fn fetch(
        &self,
        request: &PageRequest,
        page: u64,
        previous: Option<Rank>,
        bound: Option<Rank>,
    ) -> Result<Answer, Box<Unanswered>> {
        let ranks = Ranks { previous, bound };
        self.try_often(request, page, ranks, None).await
    }

    /// Fetches a file into `download`; the body of the answer is empty.
    ///
    /// # Errors
    /// Those of [`Self::fetch`].
    pub async fn fetch_file(
        &self,
        request: &PageRequest,
        download: &mut Download,
    ) -> Result<Answer, Box<Unanswered>> {
        let ranks = Ranks {
            previous: None,
            bound: None,
        };
        self.try_often(request, 0, ranks, Some(download)).await
    }

    async fn try_often(
        &self,
        request: &PageRequest,
        page: u64,
        ranks: Ranks,
        download: Option<&mut Download>,
    ) -> Result<Answer, Box<Unanswered>> {
        let masks = Masks::of(&self.source, &self.stream.request).map_err(unmasked)?;
        let mut tries = Tries {
            request,
            page,
            ranks,
            masks,
            renewed: false,
            counted: false,
            download,
        };
        let policy = &self.stream.retry;
        let mut earlier = Earlier::default();
        for attempt in 1..=policy.attempts_max.max(1) {
            let (ended, lane) = self.attempt(&mut tries).await;
            let now = self.clock.now();
            let decision = retry::decide(policy, &ended.outcome(), attempt, now, rand::random());
            let wait = match decision {
                Decision::Wait(wait) if may_repeat(&ended, lane) => wait,
                decision => {
                    return match self.settle(tries, attempt, decision, ended, lane, now) {
                        Ok(answer) => Ok(Answer {
                            earlier: earlier.besides(&answer.response),
                            ..answer
                        }),
                        Err(lost) => Err(Box::new(Unanswered {
                            earlier: earlier.all(),
                            ..*lost
                        })),
                    };
                }
            };
            warn!(
                stream = %self.stream.name,
                page,
                attempt,
                wait_ms = wait.as_millis(),
                reason = %ended.reason(&tries.masks),
                url = %tries.masks.url(request.url.as_str()),
                "request will be sent again"
            );
            if let Some(lane) = lane
                && ended.asks_everyone()
            {
                let asked = retry::asked(&ended.outcome(), now);
                lane.member.limiter().throttled(asked, wait);
            }
            earlier.keep(ended, attempt, &tries, now);
            add(&self.progress.retries, 1);
            self.progress.add_waited(wait);
            tokio::time::sleep(wait).await;
        }
        let error = Error::new(ErrorKind::Limit, "fetch page").with("attempts_max", policy.attempts_max);
        Err(unmasked(error))
    }

    /// The answer, or why there is none.
    fn settle(
        &self,
        tries: Tries<'_>,
        attempts: u32,
        decision: Decision,
        ended: Attempt,
        lane: Option<Lane<'_>>,
        now: Timestamp,
    ) -> Result<Answer, Box<Unanswered>> {
        let kept = matches!(decision, Decision::Accept | Decision::GiveUp(ErrorKind::Refused));
        let (response, reading, verdict) = match ended {
            Attempt::Answered(response, Said::Page(reading)) => (response, Ok(reading), Verdict::Page),
            // What there is is better than nothing, whatever keeps it from being asked for again.
            Attempt::Answered(response, Said::Partial(reading)) => (response, Ok(reading), Verdict::Partial),
            Attempt::Answered(response, Said::End) => (response, Ok(Reading::default()), Verdict::End),
            Attempt::Answered(response, Said::Ruled(ruling, reading)) if ruling.action == Action::Accept => {
                (response, Ok(reading), Verdict::Page)
            }
            Attempt::Answered(response, Said::Ruled(ruling, reading)) if ruling.action == Action::Ignore => {
                let status = response.head.status;
                let rule = match &ruling.message {
                    Some(message) => format!("{}: {}", ruling.rule, tries.masks.text(message)),
                    None => ruling.rule,
                };
                debug!(stream = %self.stream.name, page = tries.page, status, rule, "answer ignored");
                (response, Ok(reading), Verdict::Ignored { status, rule })
            }
            Attempt::Answered(
                response,
                Said::Unreadable(reason @ (Unreadable::RecordsMissing | Unreadable::NotJson(_)), _),
            ) if kept => (response, Err(reason), Verdict::Page),
            ended => return Err(Box::new(self.unanswered(&tries, attempts, decision, ended))),
        };
        let base = lane.map_or(&self.source.base_url, |lane| &lane.host.base);
        Ok(Answer {
            response: *response,
            reading,
            attempts,
            masks: tries.masks,
            fetched_at: now,
            verdict,
            base: base.clone(),
            earlier: Vec::new(),
        })
    }

    fn unanswered(&self, tries: &Tries<'_>, attempts: u32, decision: Decision, ended: Attempt) -> Unanswered {
        let (kind, asked) = match decision {
            Decision::GiveUp(kind) => (kind, None),
            Decision::TooLong(asked) => (ErrorKind::Limit, Some(asked)),
            Decision::Wait(_) => (ErrorKind::Unavailable, None),
            Decision::Accept => (ErrorKind::Internal, None),
        };
        let (status, then) = (ended.status(), ended.remedy());
        let mut error = Error::new(kind, "fetch page")
            .with("stream", &self.stream.name)
            .with("url", tries.masks.url(tries.request.url.as_str()))
            .with("attempts", attempts);
        if let Some(status) = status {
            error = error.with("status", status);
        }
        if let Some(asked) = asked {
            error = error
                .with("retry_after_s", asked.as_secs())
                .with("retry_after_max_s", self.stream.retry.retry_after_max.as_secs());
        }
        if let Decision::Wait(_) = decision {
            error = error
                .with("problem", "retry budget spent: the host fails too many requests")
                .with(
                    "hint",
                    "raise breaker.repeats_free or breaker.repeats_ratio if that is usual for it",
                );
        }
        if matches!(status, Some(401 | 403)) {
            error = error.with("hint", "the server does not accept the credentials");
        }
        Unanswered {
            status,
            error: ended.explain(error, &tries.masks),
            then,
            earlier: Vec::new(),
        }
    }
}

impl Answer {
    /// What the answer says, for an error: masked, on one line and short; `None` if it is no text.
    ///
    /// Of data with errors it is the errors.
    pub fn excerpt(&self) -> Option<String> {
        let body: &[u8] = &self.response.body;
        let said = match self.verdict {
            Verdict::Partial => graphql::errors(body).unwrap_or(body),
            _ => body,
        };
        self.masks.excerpt(said)
    }
}

impl Attempt {
    fn remedy(&self) -> Option<Remedy> {
        match self {
            Self::Answered(_, Said::TooMuch) => Some(Remedy::Split),
            Self::Answered(_, Said::Ruled(ruling, _)) => match ruling.action {
                Action::Reset => Some(Remedy::Reset),
                Action::Split => Some(Remedy::Split),
                Action::SplitWindow => Some(Remedy::SplitWindow),
                _ => None,
            },
            _ => None,
        }
    }
}

/// Whether a request that ended like this may be sent again: failures of a host have a budget, so that everybody
/// repeating everything does not keep it down.
///
/// A spent quota is no failure, and behind an open breaker nothing is sent but a probe.
fn may_repeat(ended: &Attempt, lane: Option<Lane<'_>>) -> bool {
    let Some(lane) = lane else { return true };
    let failed = match ended.health() {
        Some(Health::Bad | Health::BadForOne) => true,
        Some(Health::Good) => matches!(
            ended,
            Attempt::Answered(_, Said::Partial(_) | Said::Unreadable(..))
        ),
        None => false,
    };
    let breaker = &lane.host.breaker;
    !failed || ended.asks_everyone() || breaker.state() != BreakerState::Closed || breaker.may_repeat()
}

fn unmasked(error: Error) -> Box<Unanswered> {
    Box::new(Unanswered {
        status: None,
        error,
        then: None,
        earlier: Vec::new(),
    })
}

/// Does `work` on `bytes` bytes, on a thread of its own if that takes long enough to matter.
pub(crate) async fn off_thread<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T> {
    if bytes <= INLINE_BYTES_MAX {
        return Ok(work());
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|cause| Error::new(ErrorKind::Internal, "read body").caused_by(cause))
}
