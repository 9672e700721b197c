//! Asks an API how much of a quota is left, before anything else is asked.
//!
//! ```text
//! attempt ─► each credential of which it is not known, or whose reset has come ─► ask, one for all ─┬─ standing: ask again when
//!               ▲                                                                                  └─ limiter: what the server said
//!               └───────────── none has requests left: wait for the first reset ◄───────────────────┘
//! ```

use std::time::Duration;

use futures::future::try_join_all;
use tracing::{debug, warn};
use url::Position;

use crate::{
    config::rate::QuotaStatus,
    error::{Error, ErrorKind, Result},
    extract::{
        channel::{Host, Member, moved},
        client::{Failure, Party},
        facts,
        fetch::Fetcher,
        limit::rules::Call,
        mask::Masks,
        quota::{self, Quota, status},
        request::{Ask, PageRequest},
        retry::FailureKind,
        window::Planned,
    },
};

/// Why the quota is not known.
enum Missed {
    /// The credential could not be had: the request that needs it cannot go either.
    Credential(Error),
    /// The API does not say it.
    Answer(Error),
}

impl Fetcher {
    /// Returns when some credential has requests left, as far as the API tells. The time it took, if it had to wait.
    ///
    /// Waits for [`quota::RESET_MAX`] in all, or the longest `Retry-After` that is heeded if that is more.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if that would take longer; those of a credential that cannot be had.
    pub(crate) async fn await_quota(&self, host: &Host) -> Result<Duration> {
        let mut waited = Duration::ZERO;
        let limit = self.source.rate_limit.as_ref();
        let Some(settings) = limit.and_then(|limit| limit.status.as_deref()) else {
            return Ok(waited);
        };
        let wait_max = self.stream.retry.retry_after_max.max(quota::RESET_MAX);
        // Ends at `wait_max`, or when a quota was found spent a few times in a row.
        loop {
            let members = self.channel.members();
            try_join_all(
                members
                    .iter()
                    .map(|member| self.ask_quota(settings, host, member)),
            )
            .await?;
            let now = self.clock.steady();
            let left = members.iter().map(|member| member.standing.left(now));
            let left = left.min().unwrap_or_default();
            if left.is_zero() {
                return Ok(waited);
            }
            if waited + left > wait_max {
                return Err(Error::new(ErrorKind::Limit, "wait for quota")
                    .with("problem", "no requests are left")
                    .with("reset_s", left.as_secs())
                    .with("wait_max_s", wait_max.as_secs())
                    .with(
                        "hint",
                        "run again after the reset, or raise retry.retry_after_max",
                    ));
            }
            self.progress.add_waited(left);
            waited += left;
            tokio::time::sleep(left).await;
        }
    }

    /// Asks with the credential of `member`, if it is time to and nobody else does.
    ///
    /// While a refusal makes all its requests wait, nothing is asked: these wait anyway.
    async fn ask_quota(&self, settings: &QuotaStatus, host: &Host, member: &Member) -> Result<()> {
        let spared = || !member.standing.is_due(self.clock.steady()) || member.limiter().is_paused();
        if spared() {
            return Ok(());
        }
        let _asking = member.standing.asking.lock().await;
        if spared() {
            return Ok(());
        }
        match self.quota(settings, host, member).await {
            Ok(quota) => {
                // In this order: when the one says that the time has come, the other does not hold the request.
                // What is held for days is held here, where it fails and is asked for again; the budget of all processes would
                // keep it even if the API takes it back.
                if !(quota.is_spent() && quota.reset.is_some_and(|reset| reset > super::RESET_MAX)) {
                    member.limiter().observe_quota(quota);
                }
                member.standing.told(quota, self.clock.steady());
            }
            Err(Missed::Credential(error)) => return Err(error),
            Err(Missed::Answer(error)) => {
                // A secret that cannot be read is not in the error either.
                let masks = Masks::of(&self.source, &settings.request).unwrap_or_default();
                warn!(
                    source = %self.source.name,
                    reason = masks.text(&error.chain()),
                    "quota is not known: requests go as without rate_limit.status"
                );
                member.standing.missed(self.clock.steady());
            }
        }
        Ok(())
    }

    async fn quota(&self, settings: &QuotaStatus, host: &Host, member: &Member) -> Result<Quota, Missed> {
        let mut request = self.quota_request(settings).map_err(Missed::Answer)?;
        request.url = moved(&request.url, &self.source.base_url, &host.base);
        let prepare = || {
            request
                .prepare(&self.source, &settings.request)
                .map_err(Missed::Answer)
        };
        let asked = prepare()?;
        let call = Call {
            method: facts::method(request.method),
            path: &asked.url[Position::BeforePath..Position::AfterQuery],
            headers: Some(&asked.headers),
        };
        member.authorizer.ready().await.map_err(Missed::Credential)?;
        let leave = member.limiter().acquire_named(&self.stream.name, &call).await;
        leave.map_err(Missed::Answer)?;
        // Prepared again: a secret may have been rotated while this waited.
        let mut prepared = prepare()?;
        let applied = member.authorizer.apply(&mut prepared).await;
        applied.map_err(Missed::Credential)?;
        let sent = self
            .channel
            .client()
            .send(prepared, Party::Source, |_| false, None)
            .await;
        match &sent {
            // This one place may fail while the others work.
            Ok(response) if response.head.status >= 500 => {}
            Ok(_) => host.breaker.succeeded(),
            Err(Failure {
                kind: FailureKind::Connect | FailureKind::Timeout | FailureKind::Tls,
                ..
            }) => host.breaker.failed(),
            Err(_) => {}
        }
        let response = sent.map_err(|failure| Missed::Answer(failure.error))?;
        debug!(source = %self.source.name, status = response.head.status, bytes = response.bytes(), "quota status answered");
        status::read(settings, &response, self.clock.now()).map_err(Missed::Answer)
    }

    fn quota_request(&self, settings: &QuotaStatus) -> Result<PageRequest> {
        let vars = Ask::default().vars(&self.source);
        PageRequest::of(&self.source, &settings.request, vars)
    }

    /// The request that would be sent before all others; none if the source has none.
    ///
    /// # Errors
    /// Those of building it.
    pub(crate) fn plan_quota(&self) -> Result<Option<Planned>> {
        let limit = self.source.rate_limit.as_ref();
        let Some(settings) = limit.and_then(|limit| limit.status.as_deref()) else {
            return Ok(None);
        };
        let request = self.quota_request(settings)?;
        let prepared = request.prepare(&self.source, &settings.request)?;
        let masks = Masks::of(&self.source, &settings.request)?;
        Ok(Some(Planned {
            method: request.method.as_str(),
            url: masks.url(prepared.url.as_str()),
            since: None,
            until: None,
            slice: serde_json::Map::new(),
        }))
    }
}
