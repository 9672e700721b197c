//! One attempt: the host, the credential and its budget are chosen, the request is sent, redirects are followed.

use std::{sync::Arc, time::Duration};

use reqwest::header::LOCATION;
use tracing::debug;
use url::{Position, Url};

use crate::{
    config::{
        errors::Retry,
        request::{Body, Method},
    },
    error::{Error, ErrorKind, Result},
    extract::{
        attempt::{self, Attempt, Health, Ranks},
        auth::Applied,
        channel::{Host, Member, moved},
        client::{Failure, Head, Response},
        cost::Cost,
        facts,
        fetch::{Fetcher, off_thread},
        limit::rules::Call,
        mask::Masks,
        progress::add,
        request::PageRequest,
        retry::FailureKind,
        rules,
    },
    format::part::Streamed,
};

/// Most redirects followed for one attempt.
const REDIRECTS_MAX: u32 = 5;

/// Hosts that are left alone are asked for this often whether they still are.
const HELD_STEP: Duration = Duration::from_secs(1);

/// What is asked for, and what came of asking so far.
pub(crate) struct Tries<'a> {
    /// What is asked for.
    pub(crate) request: &'a PageRequest,
    /// The number of the page, from 1.
    pub(crate) page: u64,
    /// What its cursors are compared with.
    pub(crate) ranks: Ranks,
    /// What must not be written down.
    pub(crate) masks: Masks,
    /// Whether the credential was renewed for this page.
    pub(crate) renewed: bool,
    /// Whether this page has counted as a failure of its host.
    pub(crate) counted: bool,
}

/// The way of one attempt.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    pub(crate) host: &'a Host,
    pub(crate) member: &'a Member,
}

impl Fetcher {
    /// Asks once; once more if the credential had to be renewed. Returns the way it went, if anything was sent.
    pub(crate) async fn attempt(&self, tries: &mut Tries<'_>) -> (Attempt, Option<Lane<'_>>) {
        let host = match self.free_host(&self.stream.retry).await {
            Ok(host) => host,
            Err(left) => return (Attempt::Held(left), None),
        };
        let lane = Lane {
            host,
            member: self.channel.member(),
        };
        let (ended, applied) = self.once(lane, tries).await;
        let ended = match applied {
            Some(applied) if !tries.renewed && ended.asks_for_renewal() => {
                match lane.member.authorizer.renew(applied).await {
                    Ok(renewal) if renewal.send_again() => {
                        tries.renewed = true;
                        debug!(stream = %self.stream.name, page = tries.page, "credential renewed");
                        self.once(lane, tries).await.0
                    }
                    Ok(_) => ended,
                    Err(error) => Attempt::Failed(unsent(error)),
                }
            }
            _ => ended,
        };
        // A token fetched on the way may stand in what is written down next.
        tries.masks.hide(self.channel.secrets());
        (ended, Some(lane))
    }

    /// A host that may be asked, waited for as long as it is left alone.
    async fn free_host(&self, retry: &Retry) -> Result<&Host, Duration> {
        let mut waited = Duration::ZERO;
        let mut first = None;
        // Ends when a whole time of being left alone has passed.
        loop {
            let left = match self.channel.host() {
                Ok(host) => return Ok(host),
                Err(left) => left,
            };
            let period = *first.get_or_insert(left);
            if left > retry.retry_after_max || waited > period {
                return Err(left);
            }
            let step = left.min(HELD_STEP).max(Duration::from_millis(1));
            self.progress.add_waited(step);
            waited += step;
            tokio::time::sleep(step).await;
        }
    }

    /// Sends once, reads the answer and tells the host's breaker.
    async fn once(&self, lane: Lane<'_>, tries: &mut Tries<'_>) -> (Attempt, Option<Applied>) {
        let mut applied = None;
        let followed = self.follow(lane, tries, &mut applied).await;
        let ended = match followed {
            Ok(response) => self.read(response, tries.ranks).await,
            Err(failure) => Attempt::Failed(failure),
        };
        if let Attempt::Answered(response, _) = &ended
            && matches!(self.stream.request.body, Body::GraphQl { .. })
            && let Some(cost) = Cost::read(&response.body, self.clock.now())
        {
            lane.member.limiter().observe_cost(&cost);
        }
        match ended.health() {
            Some(Health::Good) => lane.host.breaker.succeeded(),
            // One page that always fails must not keep the others from a host that works.
            Some(Health::BadForOne) if tries.counted => {}
            Some(Health::Bad | Health::BadForOne) => {
                tries.counted = true;
                lane.host.breaker.failed();
            }
            None => {}
        }
        (ended, applied)
    }

    async fn read(&self, response: Response, ranks: Ranks) -> Attempt {
        let (source, stream) = (Arc::clone(&self.source), Arc::clone(&self.stream));
        let (now, jitter) = (self.clock.now(), rand::random());
        let bytes = usize::try_from(response.bytes()).unwrap_or(usize::MAX);
        let work = move || {
            let said = attempt::read(&source, &stream, &response, now, ranks, jitter);
            (response, said)
        };
        match off_thread(bytes, work).await {
            Ok((response, Ok(said))) => Attempt::Answered(Box::new(response), said),
            Ok((_, Err(error))) => Attempt::Failed(Failure {
                kind: FailureKind::Config,
                error,
            }),
            Err(error) => Attempt::Failed(Failure {
                kind: FailureKind::Cut,
                error,
            }),
        }
    }

    /// Sends and follows redirects of the same origin.
    async fn follow(
        &self,
        lane: Lane<'_>,
        tries: &Tries<'_>,
        applied: &mut Option<Applied>,
    ) -> Result<Response, Failure> {
        let (home, base) = (&self.source.base_url, &lane.host.base);
        let mut hop = tries.request.clone();
        if base != home {
            hop.url = moved(&hop.url, home, base);
        }
        for _ in 0..=REDIRECTS_MAX {
            let method = facts::method(hop.method);
            let config = |error| Failure {
                kind: FailureKind::Config,
                error,
            };
            let asked = hop.prepare(&self.source, &self.stream.request).map_err(config)?;
            let call = Call {
                method,
                path: &asked.url[Position::BeforePath..Position::AfterQuery],
                headers: Some(&asked.headers),
            };
            let grant = lane
                .member
                .acquire(&self.stream.name, &call)
                .await
                .map_err(unsent)?;
            self.progress.add_waited(grant.waited);
            // Prepared again: a secret may have been rotated while this waited.
            let mut prepared = hop
                .prepare(&self.source, &self.stream.request)
                .map_err(|error| Failure {
                    kind: FailureKind::Config,
                    error,
                })?;
            *applied = Some(
                lane.member
                    .authorizer
                    .apply(&mut prepared)
                    .await
                    .map_err(unsent)?,
            );
            add(&self.progress.requests, 1);
            let wanted = |status| rules::may_accept(&self.source, &self.stream, status);
            let streamed = Streamed::of(&self.stream.format, &self.stream.records);
            let sent = self
                .channel
                .client()
                .send(prepared, wanted, streamed.as_ref())
                .await;
            self.log(&hop, tries, &grant.id, &sent);
            let response = sent?;
            lane.member
                .limiter()
                .observe(response.head.status, &response.head.headers);
            let to = redirect(base, &hop, &response.head).map_err(|error| Failure {
                kind: FailureKind::Unsafe,
                error,
            })?;
            let Some(mut url) = to else {
                return Ok(response);
            };
            tries.masks.strip(&mut url);
            hop.url = url;
        }
        let error = Error::new(ErrorKind::Refused, "follow redirects").with("redirects_max", REDIRECTS_MAX);
        Err(Failure {
            kind: FailureKind::Unsafe,
            error,
        })
    }

    fn log(&self, request: &PageRequest, tries: &Tries<'_>, grant: &str, sent: &Result<Response, Failure>) {
        let number = self.progress.counts().requests;
        let method = facts::method(request.method);
        let masks = &tries.masks;
        let (stream, page, token) = (&self.stream.name, tries.page, masks.token(&request.token));
        let url = masks.url(request.url.as_str());
        match sent {
            Ok(response) => debug!(
                %stream, request = number, page, grant, %method, %url, %token,
                status = response.head.status,
                bytes = response.bytes(),
                wire_bytes = response.wire_bytes,
                server_request_id = facts::request_id(&response.head),
                "request answered"
            ),
            Err(failure) => debug!(
                %stream, request = number, page, grant, %method, %url, %token,
                reason = %failure.kind,
                "request failed"
            ),
        }
    }
}

fn unsent(error: Error) -> Failure {
    Failure {
        kind: FailureKind::Unsent(error.kind()),
        error,
    }
}

/// Where an answer redirects to, or `None` if it does not.
///
/// # Errors
/// [`ErrorKind::Refused`] for a place of another origin, and for a POST that would become a GET.
fn redirect(base: &Url, request: &PageRequest, head: &Head) -> Result<Option<Url>> {
    let keeps_method = match head.status {
        301..=303 => request.method == Method::Get,
        307 | 308 => true,
        _ => return Ok(None),
    };
    let Some(location) = head.headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    if !keeps_method {
        return Err(Error::new(ErrorKind::Refused, "follow redirect")
            .with("status", head.status)
            .with("problem", "a POST would become a GET"));
    }
    let url = head.url.join(location).map_err(|cause| {
        Error::new(ErrorKind::Refused, "follow redirect")
            .with("problem", "not a URL")
            .caused_by(cause)
    })?;
    Ok(Some(request.at(base, url)?.url))
}
