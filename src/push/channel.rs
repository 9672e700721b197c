//! Channels of a server: bodies one behind the other, each kept once.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;

use crate::{
    error::{Error, ErrorKind, Result},
    push::{
        batch::Batch,
        client::{Client, Mode, StreamLimits},
        exchange::Answered,
        sent::{Problem, Sent},
        target::Target,
    },
};

/// The code of a request to a channel that somebody else has opened since.
const FENCED: &str = "channel_fenced";

/// A channel that is open for this process, until somebody else opens it.
#[derive(Clone, Debug)]
pub struct Channel {
    client: Client,
    target: Target,
    name: String,
    epoch: u64,
    offset: Option<String>,
    limits: StreamLimits,
}

#[derive(Deserialize)]
struct Opened {
    epoch: u64,
    offset: Option<String>,
    on_violation: Option<String>,
    #[serde(default)]
    limits: BTreeMap<String, u64>,
}

impl Client {
    /// Opens the channel `name` of `target` and learns how far it is. Whoever had it open can append no more.
    ///
    /// # Errors
    /// As [`Client::send`].
    pub async fn open_channel(&self, target: &Target, name: &str) -> Result<Channel> {
        let url = self.url(&format!("{}/channels/{name}", target.path()))?;
        let answered = self.ask(Method::PUT, url).await?;
        if answered.status != 200 {
            return Err(answered.refusal("open channel").with("channel", name));
        }
        let opened: Opened = serde_json::from_slice(&answered.body).map_err(|source| {
            Error::new(ErrorKind::Refused, "read answer to open channel")
                .with("hint", "the server is not one of Landfall, or an older one")
                .caused_by(source)
        })?;
        Ok(Channel {
            client: self.clone(),
            target: target.clone(),
            name: name.to_owned(),
            epoch: opened.epoch,
            offset: opened.offset,
            limits: StreamLimits::of(&opened.limits, opened.on_violation.as_deref()),
        })
    }
}

impl Channel {
    /// Which opening this is, from 1. No two processes have the same.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The token of the last durable body; none if there is none.
    pub fn offset(&self) -> Option<&str> {
        self.offset.as_deref()
    }

    /// How large what is sent may be.
    pub fn limits(&self) -> StreamLimits {
        self.limits
    }

    /// Appends `batch`, with which the producer is at `offset`: 1 to 255 visible ASCII characters, never the same twice.
    ///
    /// If nothing of it can be kept because of its records, that is no error, and the channel stays where it is. Records that
    /// the server may take later are told, and not sent again: what comes behind would be before them.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if the channel was opened again since, or is not where it was left; else as [`Client::send`].
    pub async fn append(&mut self, batch: &Batch, offset: &str, mode: Mode) -> Result<Sent> {
        let answered = self.post(batch, offset, self.offset.as_deref(), mode).await?;
        let problem = Problem::of(&answered.headers, &answered.body);
        if problem.code == "offset_conflict" {
            let last = answered.headers.get("landfall-offset");
            if last.is_some_and(|last| last.as_bytes() == offset.as_bytes()) {
                // It was kept by an attempt whose answer was lost so long ago that it is forgotten.
                self.offset = Some(offset.to_owned());
                return Ok(Sent {
                    accepted: batch.len() as u64,
                    replayed: true,
                    attempts: answered.attempts,
                    ..Sent::default()
                });
            }
        }
        let sent = match self.client.taken(&answered, batch, mode) {
            Ok(sent) => sent,
            Err(error) => return Err(self.failed(error, &problem)),
        };
        if sent.receipt.is_some() {
            self.offset = Some(offset.to_owned());
        }
        Ok(sent)
    }

    /// What was answered to `batch`, the last that the channel has, sent in [`Mode::Partial`]; none if there is none, if the
    /// server has forgotten it, or if it was another batch. Nothing is kept, whatever it is.
    ///
    /// # Errors
    /// As [`Channel::append`] if the channel was opened again since, or the server cannot be asked.
    pub async fn answer_to_last(&self, batch: &Batch) -> Result<Option<Sent>> {
        let Some(offset) = &self.offset else {
            return Ok(None);
        };
        // Not behind the last, so that it can be a repeat or nothing.
        let answered = self.post(batch, offset, None, Mode::Partial).await?;
        let problem = Problem::of(&answered.headers, &answered.body);
        match self.client.taken(&answered, batch, Mode::Partial) {
            Ok(sent) => Ok(Some(sent)),
            // Whoever asks again may learn it.
            Err(error)
                if problem.code == FENCED
                    || error.kind() == ErrorKind::Unavailable
                    || matches!(answered.status, 401 | 403) =>
            {
                Err(self.failed(error, &problem))
            }
            Err(error) => {
                tracing::warn!(
                    channel = self.name,
                    error = error.chain(),
                    "what was refused of the last batch before the interruption is not known any more"
                );
                Ok(None)
            }
        }
    }

    async fn post(&self, batch: &Batch, offset: &str, after: Option<&str>, mode: Mode) -> Result<Answered> {
        let path = format!("{}/channels/{}/records", self.target.path(), self.name);
        let mut url = self.client.url(&path)?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("mode", mode.as_str());
            query.append_pair("epoch", &self.epoch.to_string());
            query.append_pair("offset", offset);
            if let Some(after) = after {
                query.append_pair("after", after);
            }
        }
        self.client.post(url, batch, offset, None).await
    }

    fn failed(&self, error: Error, problem: &Problem) -> Error {
        let error = error.with("channel", &self.name);
        if problem.code == FENCED {
            return error.with(
                "hint",
                "another process sends through this channel: let one of them end",
            );
        }
        error
    }
}
