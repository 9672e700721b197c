//! The beginning of a job: meant, committed as such, asked for.

use serde_json::json;
use tracing::{info, warn};
use uuid::Uuid;

use crate::{
    config::request::Place,
    error::{ErrorKind, Result},
    extract::{
        fetch::{Answer, Fetcher, Unanswered, Verdict},
        job::{
            Export,
            errand::{stream_of, uses_job},
            shown, unsent,
        },
        paginate::token,
        request::{Ask, PageRequest},
    },
    raw::JobMark,
};

/// Most bytes of the answer that created a job which are kept for the requests made from it.
const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// Stands for the key of a job in a request that is shown and not sent.
const KEY_SHOWN: &str = "00000000-0000-0000-0000-000000000000";

/// What came of the request that creates a job.
pub(crate) enum Created {
    /// A job.
    Job(JobMark),
    /// The word that there is nothing, as `paginate.stop.on_status` has it.
    Empty,
    /// An answer that a rule ignores.
    Ignored,
}

impl Export {
    /// The mark of a job that is about to be created.
    pub(crate) fn intend(&mut self) -> JobMark {
        self.forget();
        self.ours = true;
        JobMark {
            key: Some(Uuid::now_v7().to_string()),
            creating: true,
            id: None,
            created_at: self.fetcher.clock.now(),
            response: None,
            targets: None,
            done: 0,
            complete: false,
        }
    }

    /// Whether the job that `mark` means to create may be created now. If not, another one has to be meant: an earlier
    /// run meant this one, and its key is of no use.
    pub(crate) fn may_create(&mut self, mark: &mut JobMark) -> bool {
        if std::mem::replace(&mut self.ours, true) {
            return true;
        }
        let keyed = self.is_keyed();
        if keyed && !self.is_late(mark) {
            info!(stream = %self.fetcher.stream.name, "export job is asked for again with the same key");
            return true;
        }
        let note = "an earlier run ended while it created an export job: one may be left at the server";
        warn!(stream = %self.fetcher.stream.name, "{note}");
        self.fetcher.progress.note(note.to_owned());
        mark.created_at = self.fetcher.clock.now();
        !keyed
    }

    /// Whether the server can tell a job that is asked for twice.
    fn is_keyed(&self) -> bool {
        uses_job(&self.fetcher.stream.request, None)
    }

    /// Whether an answer of this status to the request that creates a job says that there is none, so that the next one
    /// is another. What the server keeps of a key that it has refused it may refuse for ever.
    pub(crate) fn is_refused(&self, status: Option<u16>) -> bool {
        match status {
            None => false,
            Some(401 | 403 | 408 | 425 | 429) => !self.is_keyed(),
            Some(status) => (400..=499).contains(&status) || !self.is_keyed(),
        }
    }

    /// The request that creates the job of `mark`.
    pub(crate) fn creation(&self, ask: &Ask, mark: Option<&JobMark>) -> Result<PageRequest> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        let key = mark.map_or(Some(KEY_SHOWN), |mark| mark.key.as_deref());
        let ask = Ask {
            job: Some(json!({ "key": key })),
            ..ask.clone()
        };
        PageRequest::build(source, &stream_of(stream, &stream.request), &ask)
    }

    /// Creates the job that `mark` means.
    pub(crate) async fn create(&self, ask: &Ask, mark: &JobMark) -> Result<Created, Box<Unanswered>> {
        let request = self.creation(ask, Some(mark)).map_err(unsent)?;
        let from_body = matches!(self.settings.id, Some(Place::Body(_)));
        let answer = self
            .send(
                &self.fetcher.stream.request,
                &request,
                self.reads(from_body, "response"),
            )
            .await?;
        match &answer.verdict {
            Verdict::End => return Ok(Created::Empty),
            Verdict::Ignored { .. } => {
                self.note_ignored(&answer);
                return Ok(Created::Ignored);
            }
            Verdict::Page | Verdict::Partial => {}
        }
        let created = self.mark(&answer, mark).map_err(unsent)?;
        Ok(Created::Job(created))
    }

    fn mark(&self, answer: &Answer, meant: &JobMark) -> Result<JobMark> {
        let (head, body) = (&answer.response.head, &answer.response.body);
        let wrong = |problem: &str| {
            self.error(ErrorKind::Refused, "create export job")
                .with("url", answer.masks.url(head.url.as_str()))
                .with("status", head.status)
                .with("problem", problem)
                .with("body", answer.excerpt().unwrap_or_default())
        };
        let id = match &self.settings.id {
            None => None,
            Some(place) => {
                let id =
                    token::text_at(place, head, body).map_err(|cause| wrong("not JSON").caused_by(cause))?;
                let id = id.filter(|id| !id.is_empty());
                Some(id.ok_or_else(|| wrong("no id at job.id"))?.into_owned())
            }
        };
        let kept = self
            .settings
            .requests()
            .any(|request| uses_job(request, Some("response")));
        let response = match kept {
            false => None,
            true if body.len() > RESPONSE_BYTES_MAX => {
                return Err(
                    wrong("the answer is too large to be kept for the requests made from it")
                        .with("response_bytes_max", RESPONSE_BYTES_MAX),
                );
            }
            true => serde_json::from_slice(body).ok(),
        };
        let created = JobMark {
            id,
            creating: false,
            response,
            ..meant.clone()
        };
        info!(stream = %self.fetcher.stream.name, job = shown(&created), "export job created");
        Ok(created)
    }
}
