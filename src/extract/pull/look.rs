//! What would be asked for, and what the first answer shows; nothing moves.

use crate::{
    error::{Error, ErrorKind, Result},
    extract::{
        fetch::Fetcher,
        mask::Masks,
        paginate,
        pull::{After, Pull, SAMPLE_BYTES_MAX, excerpt},
        request::START,
        window::{Planned, Probe},
    },
    format,
};

impl Pull {
    /// See [`Extraction::plan`](crate::extract::window::Extraction::plan).
    pub(crate) fn plan(mut self, most: usize) -> Result<Vec<Planned>> {
        let mut planned = Vec::new();
        // Ends with the windows, or at `most`.
        while planned.len() < most {
            let Fetcher { source, stream, .. } = &self.fetcher;
            let (request, settings) = match &self.export {
                Some(export) => export.first(&self.ask(START), self.window.job.as_ref())?,
                None => (self.request()?, &stream.request),
            };
            let prepared = request.prepare(source, settings)?;
            let masks = Masks::of(source, settings)?;
            planned.push(Planned {
                method: request.method.as_str(),
                url: masks.url(prepared.url.as_str()),
                since: self.window.since.clone(),
                until: self.window.until.clone(),
                slice: self.slice.clone(),
            });
            match self.ahead.next() {
                Some(bounds) => self.open(bounds),
                None => break,
            }
        }
        Ok(planned)
    }

    /// Why there is no request for the values of the slice, if there is none: they cannot be rendered.
    ///
    /// # Errors
    /// A reference that cannot be read, and a defect of this program: neither is for the values to blame.
    pub(crate) fn misfit(&self) -> Result<Option<Error>> {
        let Fetcher { source, stream, .. } = &self.fetcher;
        let rendered = self
            .request()
            .and_then(|request| request.prepare(source, &stream.request));
        match rendered {
            Ok(_) => Ok(None),
            Err(error) if error.kind() == ErrorKind::Internal => Err(error),
            Err(error) => Masks::of(source, &stream.request).map(|_| Some(error)),
        }
    }

    /// See [`Extraction::rehearse`](crate::extract::window::Extraction::rehearse).
    pub(crate) async fn rehearse(self) -> Result<Option<Planned>> {
        let Fetcher {
            source,
            stream,
            channel,
            ..
        } = &self.fetcher;
        let Some(export) = &self.export else {
            return Ok(None);
        };
        let request = export.creation(&self.ask(START), None)?;
        channel
            .member()
            .authorizer
            .apply(&mut request.prepare(source, &stream.request)?)
            .await?;
        Ok(self.plan(1)?.pop())
    }

    /// See [`Extraction::probe`](crate::extract::window::Extraction::probe).
    pub(crate) async fn probe(&mut self) -> Result<Probe> {
        if self.export.is_some() {
            let problem = "the first request of an export creates a job";
            return Err(self
                .error(ErrorKind::Refused, "probe stream")
                .with("problem", problem));
        }
        let request = self.request()?;
        let answered = Box::pin(self.fetcher.fetch(&request, 1, None, None)).await;
        let answer = answered.map_err(|unanswered| unanswered.error)?;
        let stream = &self.fetcher.stream;
        let response = &answer.response;
        let url = answer.masks.url(response.head.url.as_str());
        let reading = answer.reading.clone().map_err(|reason| {
            self.error(ErrorKind::Refused, "read page")
                .with("url", &url)
                .with("status", response.head.status)
                .with("problem", reason)
        })?;
        let work = self.turning(&request, &answer, &reading);
        let next = match self.after(&answer, &reading, paginate::next(&work.turn(&work.document())))? {
            After::Token(token) => Some(excerpt(&answer.masks.token(&token))),
            After::End(_) => None,
        };
        let body = match &response.spool {
            None => response.body.clone(),
            Some(spool) => spool.sample(&response.body)?,
        };
        let mut first = None;
        // The text was checked as a whole a moment ago.
        let limits = &format::Limits::DEFAULT;
        let _ = format::records(&stream.format, &stream.records, &body, limits, &mut |piece| {
            first.get_or_insert_with(|| piece.to_bytes(&body));
        });
        Ok(Probe {
            url,
            status: response.head.status,
            bytes: response.bytes(),
            attempts: answer.attempts,
            records: reading.records,
            cursors_missing: stream.incremental.as_ref().map(|_| reading.cursors_missing),
            next,
            first_record: first.map(|mut record| {
                record.truncate(SAMPLE_BYTES_MAX);
                record
            }),
            body,
        })
    }
}
