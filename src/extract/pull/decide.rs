//! What follows a page, and what is odd about it.

use std::sync::Arc;

use bytes::Bytes;
use tracing::info;
use url::Url;

use crate::{
    config::{
        Stream,
        incremental::{Filter, Incremental, Order},
        paginate::Paginate,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        channel::moved,
        client::Response,
        fetch::{Answer, off_thread},
        paginate::{
            self, Next, Turn, Why,
            detect::{Certainty, detect},
            guard::{Guard, Seen},
        },
        pull::{After, Decided, Pull},
        reading::Reading,
        request::PageRequest,
    },
    format,
};

impl Pull {
    /// What follows this page, and what is odd about it.
    pub(super) async fn decide(
        &mut self,
        request: &PageRequest,
        answer: &Answer,
        reading: &Reading,
    ) -> Result<Decided> {
        self.detect(request, answer, reading)?;
        let work = self.turning(request, answer, reading);
        let limits = self.fetcher.source.limits;
        let mut guard = std::mem::replace(&mut self.guard, Guard::new(&limits, Seen::default(), []));
        let body_bytes = answer.response.body.len();
        let (guard, next, found) = off_thread(body_bytes, move || {
            let document = work.document();
            let turn = work.turn(&document);
            let next = paginate::next(&turn);
            let found = next.as_ref().ok().map(|next| guard.page(&turn, next));
            (guard, next, found)
        })
        .await?;
        self.guard = guard;
        let after = self.after(answer, reading, next)?;
        let (alarms, stuck) = match found {
            Some(Ok(alarms)) => (alarms, None),
            Some(Err(stuck)) => (Vec::new(), Some(stuck)),
            None => (Vec::new(), None),
        };
        Ok(Decided { after, alarms, stuck })
    }

    /// The token after a page, without our secrets.
    pub(super) fn after(&self, answer: &Answer, reading: &Reading, next: Result<Next>) -> Result<After> {
        let token = match next.map_err(|error| error.with("stream", &self.fetcher.stream.name))? {
            Next::End(why) => return Ok(After::End(why)),
            Next::Token(token) => token,
        };
        if self.is_behind(reading) {
            return Ok(After::End(Why::Condition));
        }
        if !paginate::is_url(&self.fetcher.stream.paginate.next) {
            return Ok(After::Token(token));
        }
        let mut url = Url::parse(&token)
            .map_err(|cause| Error::new(ErrorKind::Internal, "read next link").caused_by(cause))?;
        answer.masks.strip(&mut url);
        let home = moved(&url, &answer.base, &self.fetcher.source.base_url);
        Ok(After::Token(home.into()))
    }

    /// Everything a paginator looks at, to be taken to another thread.
    pub(super) fn turning(&self, request: &PageRequest, answer: &Answer, reading: &Reading) -> Turning {
        Turning {
            stream: Arc::clone(&self.fetcher.stream),
            base: answer.base.clone(),
            request: request.clone(),
            answered: answer.response.clone(),
            reading: reading.clone(),
            size: self.size(),
            page: self.window.pages + 1,
        }
    }

    /// Finds out how the pages of a stream follow each other, if the project file leaves that to us.
    pub(super) fn detect(&mut self, request: &PageRequest, answer: &Answer, reading: &Reading) -> Result<()> {
        if !matches!(self.fetcher.stream.paginate.next, Paginate::Auto) {
            return Ok(());
        }
        let work = self.turning(request, answer, reading);
        let detected = detect(&work.turn(&work.document()))?;
        let note = format!("paginate auto: {}", detected.found);
        info!(stream = %self.fetcher.stream.name, found = detected.found, "pagination detected");
        if detected.certainty != Certainty::Open {
            self.fetcher.progress.note(note);
        }
        // What is not settled holds for this page alone: the next window has to look again.
        if detected.certainty == Certainty::Settled {
            self.mark.paginator = detected.to_text();
            self.fetcher.stream = Arc::new(detected.applied(&self.fetcher.stream));
        }
        Ok(())
    }

    /// Whether everything that follows a page is older than what was asked for.
    pub(super) fn is_behind(&self, reading: &Reading) -> bool {
        let newest_first = |incremental: &Incremental| incremental.order == Order::NewestFirst;
        self.fetcher.stream.incremental.as_ref().is_some_and(newest_first)
            && reading.records > 0
            && reading.cursors_before == reading.records
    }

    /// Whether a page holds anything to land.
    pub(super) fn is_new(&self, reading: &Reading) -> bool {
        let here = |incremental: &Incremental| incremental.filter == Filter::Here;
        !(self.fetcher.stream.incremental.as_ref().is_some_and(here)
            && reading.records > 0
            && reading.cursors_before == reading.records)
    }
}

/// What is taken to another thread to decide about a page.
pub(super) struct Turning {
    stream: Arc<Stream>,
    base: Url,
    request: PageRequest,
    answered: Response,
    reading: Reading,
    size: Option<u64>,
    page: u64,
}

impl Turning {
    /// The whole body as one JSON text, for paths outside the records; as it came if its format has no such thing.
    pub(super) fn document(&self) -> Bytes {
        let body = &self.answered.body;
        let document = format::document(&self.stream.format, body, &format::Limits::DEFAULT);
        // What cannot be read has been reported as such when its records were counted.
        document.ok().flatten().unwrap_or_else(|| body.clone())
    }

    pub(super) fn turn<'a>(&'a self, document: &'a Bytes) -> Turn<'a> {
        Turn {
            stream: &self.stream,
            base: &self.base,
            request: &self.request,
            head: &self.answered.head,
            body: document,
            reading: &self.reading,
            size: self.size,
            page: self.page,
        }
    }
}
