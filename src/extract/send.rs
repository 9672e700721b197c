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
        client::{Failure, Head, Party, Response},
        cost::Cost,
        download::Download,
        facts,
        fetch::{Fetcher, off_thread},
        limit::rules::Call,
        mask::Masks,
        progress::add,
        request::{PageRequest, Prepared},
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
    /// Takes the body of a good answer, if that is a file and not a page.
    pub(crate) download: Option<&'a mut Download>,
}

/// The way of one attempt.
#[derive(Clone, Copy)]
pub(crate) struct Lane<'a> {
    pub(crate) host: &'a Host,
    pub(crate) member: &'a Member,
}

/// What came of one attempt, and how far from home it went.
struct Trace {
    ended: Attempt,
    /// The credential that was sent last; none to a host beside the source.
    applied: Option<Applied>,
    /// Who answered, or should have.
    party: Party,
}

impl Fetcher {
    /// Asks once; once more if the credential had to be renewed. Returns the way it went, if anything was sent.
    ///
    /// A request that goes to a host beside the source has no way: nobody's budget, breaker or credential is concerned.
    pub(crate) async fn attempt(&self, tries: &mut Tries<'_>) -> (Attempt, Option<Lane<'_>>) {
        if tries.request.url.origin() != self.source.base_url.origin() && !tries.request.hosts.is_empty() {
            let trace = self.once(None, tries).await;
            return (trace.ended, None);
        }
        let mut host = match self.free_host(&self.stream.retry).await {
            Ok(host) => host,
            Err(left) => return (Attempt::Held(left), None),
        };
        match self.await_quota(host).await {
            Ok(Duration::ZERO) => {}
            // Much may have happened meanwhile.
            Ok(_) => match self.free_host(&self.stream.retry).await {
                Ok(free) => host = free,
                Err(left) => return (Attempt::Held(left), None),
            },
            Err(error) => return (Attempt::Failed(unsent(error)), None),
        }
        let lane = Lane {
            host,
            member: self.channel.member(),
        };
        let mut trace = self.once(Some(lane), tries).await;
        if let Some(applied) = trace.applied.take()
            && !tries.renewed
            && trace.ended.asks_for_renewal()
        {
            match lane.member.authorizer.renew(applied).await {
                Ok(renewal) if renewal.send_again() => {
                    tries.renewed = true;
                    debug!(stream = %self.stream.name, page = tries.page, "credential renewed");
                    trace = self.once(Some(lane), tries).await;
                }
                Ok(_) => {}
                Err(error) => trace.ended = Attempt::Failed(unsent(error)),
            }
        }
        // A token fetched on the way may stand in what is written down next.
        tries.masks.hide(self.channel.secrets());
        (trace.ended, Some(lane).filter(|_| trace.party == Party::Source))
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
    async fn once(&self, lane: Option<Lane<'_>>, tries: &mut Tries<'_>) -> Trace {
        let mut trace = Trace {
            ended: Attempt::Held(Duration::ZERO),
            applied: None,
            party: Party::Source,
        };
        let followed = self.follow(lane, tries, &mut trace).await;
        let ended = match followed {
            Ok(response) => self.read(response, tries.ranks).await,
            Err(failure) => Attempt::Failed(failure),
        };
        let Some(lane) = lane.filter(|_| trace.party == Party::Source) else {
            return Trace { ended, ..trace };
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
        Trace { ended, ..trace }
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

    /// Sends and follows redirects of the same origin, and to hosts that are listed.
    async fn follow(
        &self,
        lane: Option<Lane<'_>>,
        tries: &mut Tries<'_>,
        trace: &mut Trace,
    ) -> Result<Response, Failure> {
        let home = &self.source.base_url;
        let base = lane.map_or(home, |lane| &lane.host.base);
        let mut hop = tries.request.clone();
        if base != home {
            hop.url = moved(&hop.url, home, base);
        }
        for _ in 0..=REDIRECTS_MAX {
            let lane = lane.filter(|_| hop.url.origin() == base.origin());
            let (prepared, grant) = match lane {
                Some(lane) => {
                    let (prepared, applied, grant) = self.prepare(lane, &hop).await?;
                    (trace.applied, trace.party) = (Some(applied), Party::Source);
                    (prepared, grant)
                }
                None => {
                    (trace.applied, trace.party) = (None, Party::Other);
                    (hop.prepare_bare(), String::new())
                }
            };
            add(&self.progress.requests, 1);
            let wanted = |status| rules::may_accept(&self.source, &self.stream, status);
            let streamed = Streamed::of(&self.stream.format, &self.stream.records);
            let client = self.channel.client();
            let sent = match &mut tries.download {
                Some(download) => client.download(prepared, trace.party, download).await,
                None => {
                    client
                        .send(prepared, trace.party, wanted, streamed.as_ref())
                        .await
                }
            };
            self.log(&hop, tries, &grant, &sent);
            let response = sent?;
            if let Some(lane) = lane {
                let limiter = lane.member.limiter();
                limiter.observe(response.head.status, &response.head.headers);
            }
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

    /// Waits for the budget, and adds the credential.
    async fn prepare(
        &self,
        lane: Lane<'_>,
        hop: &PageRequest,
    ) -> Result<(Prepared, Applied, String), Failure> {
        let config = |error| Failure {
            kind: FailureKind::Config,
            error,
        };
        let asked = hop.prepare(&self.source, &self.stream.request).map_err(config)?;
        let call = Call {
            method: facts::method(hop.method),
            path: &asked.url[Position::BeforePath..Position::AfterQuery],
            headers: Some(&asked.headers),
        };
        // A token is fetched within the same budget, and what waits for the token holds no grant meanwhile.
        lane.member.authorizer.ready().await.map_err(unsent)?;
        let acquired = lane.member.acquire(&self.stream.name, &call).await;
        let grant = acquired.map_err(unsent)?;
        self.progress.add_waited(grant.waited);
        // Prepared again: a secret may have been rotated while this waited.
        let mut prepared = hop.prepare(&self.source, &self.stream.request).map_err(config)?;
        let applied = lane.member.authorizer.apply(&mut prepared).await;
        Ok((prepared, applied.map_err(unsent)?, grant.id))
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
