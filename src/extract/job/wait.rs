//! The wait for a job, to the list of its results.

use std::{borrow::Cow, time::Duration};

use tracing::{debug, info, warn};

use crate::{
    config::request::Place,
    error::{Error, ErrorKind, Result},
    extract::{
        fetch::{Answer, Unanswered, Verdict},
        job::{
            Export,
            errand::Reads,
            results::{Results, names},
            shown,
            status::{Stage, next_poll, pause, stage},
            unsent,
        },
        paginate::token,
        request::Ask,
        retry,
    },
    raw::JobMark,
};

/// How the wait for a job ended.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Its results are known.
    Done,
    /// It has none.
    Empty,
    /// With an answer that a rule ignores, so that what it has is not known.
    Ignored,
    /// The server has forgotten it.
    Expired(Error),
    /// It failed.
    Failed(Error),
    /// It took too long, or nobody knows how it stands.
    GivenUp(Error),
}

impl Export {
    /// Asks how the job stands until that is settled.
    pub(crate) async fn wait(&mut self, ask: &Ask, mark: &JobMark) -> Result<Ended, Box<Unanswered>> {
        let poll = self.settings.poll.clone();
        let listed = self.settings.list.is_none() && self.settings.urls.is_some();
        let reads = self.reads(self.settings.status.is_some() || listed, "poll");
        let (elapsed, mut waited) = (self.elapsed(mark), Duration::ZERO);
        // Ends with the job, or at `timeout`: every wait but the last is at least as long as `every`.
        for polls in 0.. {
            let request = self.request(&poll, ask, mark).map_err(unsent)?;
            let answer = match self.send(&poll, &request, reads).await {
                Ok(answer) => answer,
                Err(lost) if matches!(lost.status, Some(404 | 410)) => return Ok(Ended::Expired(lost.error)),
                // It would be asked for by every run, for ever.
                Err(lost) if self.is_late(mark) => return Ok(Ended::GivenUp(lost.error)),
                Err(lost) => return Err(lost),
            };
            match answer.verdict {
                Verdict::End => return Ok(Ended::Empty),
                // A rule about the endpoint does not mean the job: of that the status says it is forgotten.
                Verdict::Ignored {
                    status: 404 | 410, ..
                } => return Ok(Ended::Expired(self.about_answer(mark, &answer))),
                Verdict::Ignored { .. } => {
                    self.note_ignored(&answer);
                    return Ok(Ended::Ignored);
                }
                Verdict::Page | Verdict::Partial => {}
            }
            let status = self.status(&answer).map_err(unsent)?;
            let stage = stage(&self.settings, status.as_deref());
            let said = status.as_deref().map(|status| answer.masks.text(status));
            debug!(stream = %self.fetcher.stream.name, job = shown(mark), status = said, ?stage, "export job polled");
            self.polled = serde_json::from_slice(&answer.response.body).ok();
            let problem = match stage {
                Stage::Done => return self.find(ask, mark, answer).await,
                Stage::Empty => return Ok(Ended::Empty),
                Stage::Running => None,
                Stage::Expired => Some("the job has expired"),
                Stage::Failed => Some("the job has failed"),
                Stage::Unknown => Some("a status that job does not name"),
            };
            if let Some(problem) = problem {
                let error = self
                    .failure(ErrorKind::Refused, mark)
                    .with("status", said.unwrap_or_default())
                    .with("problem", problem)
                    .with("body", answer.excerpt().unwrap_or_default());
                return Ok(match stage {
                    Stage::Expired => Ended::Expired(error),
                    Stage::Failed => Ended::Failed(error),
                    _ => Ended::GivenUp(error),
                });
            }
            let headers = &answer.response.head.headers;
            let asked = retry::wait_asked(headers, self.fetcher.clock.now()).unwrap_or_default();
            let wait = pause(self.settings.every, polls, rand::random()).max(asked);
            // By what was waited too: a clock may be set back.
            let elapsed = self.elapsed(mark).max(elapsed.saturating_add(waited));
            let Some(wait) = next_poll(elapsed, wait, self.settings.timeout) else {
                break;
            };
            waited = waited.saturating_add(wait);
            tokio::time::sleep(wait).await;
        }
        Ok(Ended::GivenUp(self.too_late(ask, mark).await))
    }

    /// Stops a job that took too long, or else removes it.
    async fn too_late(&self, ask: &Ask, mark: &JobMark) -> Error {
        if let Some(request) = self.settings.abort.as_ref().or(self.settings.delete.as_ref()) {
            self.tell(request, ask, mark).await;
        }
        self.failure(ErrorKind::Limit, mark)
            .with("timeout_s", self.settings.timeout.as_secs_f64())
            .with("hint", "raise job.timeout; the next run creates another job")
    }

    /// Finds the results of a job that is done.
    async fn find(&mut self, ask: &Ask, mark: &JobMark, polled: Answer) -> Result<Ended, Box<Unanswered>> {
        let answer = match &self.settings.list {
            None => polled,
            Some(list) => {
                let request = self.request(list, ask, mark).map_err(unsent)?;
                self.send(list, &request, Reads::Json).await?
            }
        };
        match answer.verdict {
            Verdict::End => return Ok(Ended::Empty),
            Verdict::Ignored { .. } => {
                self.note_ignored(&answer);
                return Ok(Ended::Ignored);
            }
            Verdict::Page | Verdict::Partial => {}
        }
        let found = match &self.settings.urls {
            // One request, and its pages.
            None => vec![String::new()],
            Some(path) => names(path, &answer.response.body)
                .map_err(|problem| unsent(self.about_answer(mark, &answer).with("problem", problem)))?,
        };
        info!(stream = %self.fetcher.stream.name, job = shown(mark), results = found.len(), "export job is done");
        if found.is_empty() {
            // It may be so, and it may be that job.urls is mistaken.
            let note = "an export job is done and has nothing at job.urls";
            warn!(stream = %self.fetcher.stream.name, job = shown(mark), "{note}");
            self.fetcher.progress.note(note.to_owned());
        }
        let at = answer.response.head.url.clone();
        self.results = Some(Results::new(found, at, answer.base));
        Ok(Ended::Done)
    }

    fn status(&self, answer: &Answer) -> Result<Option<String>> {
        let Some(path) = &self.settings.status else {
            return Ok(Some(answer.response.head.status.to_string()));
        };
        if answer.response.body.is_empty() {
            return Ok(None);
        }
        let place = Place::Body(path.clone());
        let text = token::text_at(&place, &answer.response.head, &answer.response.body)?;
        Ok(text.map(Cow::into_owned))
    }

    fn about_answer(&self, mark: &JobMark, answer: &Answer) -> Error {
        self.failure(ErrorKind::Refused, mark)
            .with("status", answer.response.head.status)
            .with("body", answer.excerpt().unwrap_or_default())
    }

    fn failure(&self, kind: ErrorKind, mark: &JobMark) -> Error {
        let error = self.error(kind, "wait for export job");
        match shown(mark) {
            Some(id) => error.with("job", id),
            None => error,
        }
    }
}
