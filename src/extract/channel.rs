//! What all streams of a source share: connections, credentials with their budgets, hosts with their breakers.
//!
//! ```text
//!            ┌─ credential: Authorizer, Limiter      the one that is free first
//! Channel ───┤
//!            └─ host: URL, Breaker                   the first whose breaker lets a request through
//! ```

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use url::{Origin, Url};

use crate::{
    clock::Clock,
    config::{Name, Source, StreamName},
    error::Result,
    extract::{
        auth::{self, Authorizer, gate::Gate},
        breaker::{Admission, Breaker, BreakerState},
        client::Client,
        limit::{Grant, Limiter, rules::Call},
        quota::{Quota, standing::Standing},
    },
};

/// What all streams of a source share.
pub struct Channel {
    client: Client,
    members: Vec<Member>,
    hosts: Vec<Host>,
}

/// One credential with its budget.
pub(crate) struct Member {
    pub(crate) authorizer: Authorizer,
    /// What the API told of its quota when it was asked for it.
    pub(crate) standing: Standing,
    limiter: Arc<Limiter>,
    /// Requests that were given to it, ever.
    taken: AtomicU64,
    /// Requests that wait for its budget now.
    waiting: AtomicU64,
}

/// One address of the API.
pub(crate) struct Host {
    /// The base URL, or a replica of it.
    pub(crate) base: Url,
    pub(crate) breaker: Arc<Breaker>,
}

impl Channel {
    /// One authorizer and one limiter for each credential of `source`, one breaker for each of its hosts. Bodies too large
    /// for memory go through files in `spool_dir`. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::error::ErrorKind::Config) if a credential, a certificate or the store of the budget
    /// cannot be used as set; [`ErrorKind::Unavailable`](crate::error::ErrorKind::Unavailable) if the machine has no
    /// certificates to trust and the source needs them.
    pub fn open(source: &Source, clock: &Clock, credentials_dir: &Path, spool_dir: &Path) -> Result<Self> {
        let auths = auth::members(source)?;
        let bases = std::iter::once(&source.base_url).chain(&source.replicas);
        let hosts: Vec<Host> = bases
            .map(|base| Host {
                base: base.clone(),
                breaker: Arc::new(Breaker::new(source.breaker, clock.clone())),
            })
            .collect();
        // Hosts of tokens that are not the API's own.
        let mut others: Vec<(Origin, Arc<Breaker>)> = Vec::new();
        let mut members = Vec::new();
        for (number, auth) in auths.iter().enumerate() {
            // The place in the pool tells its credentials apart, across processes and runs.
            let (name, place) = match auths.len() {
                1 => (source.name.to_string(), String::new()),
                _ => (format!("{}.{number}", source.name), number.to_string()),
            };
            let limiter = Limiter::open(source.rate_limit.as_ref(), clock.clone(), &place)?;
            let limiter = Arc::new(limiter);
            let mut gate = |origin: &Origin| {
                let who = StreamName {
                    source: source.name.clone(),
                    stream: Name::new("token").ok()?,
                };
                let (breaker, limiter) = match hosts.iter().find(|host| host.base.origin() == *origin) {
                    Some(host) => (Arc::clone(&host.breaker), Some(Arc::clone(&limiter))),
                    None => (other(&mut others, origin, source, clock), None),
                };
                Some(Gate {
                    breaker,
                    limiter,
                    who,
                })
            };
            members.push(Member {
                authorizer: Authorizer::guarded(
                    source,
                    auth,
                    clock.clone(),
                    credentials_dir,
                    &name,
                    &mut gate,
                )?,
                standing: Standing::default(),
                limiter,
                taken: AtomicU64::new(0),
                waiting: AtomicU64::new(0),
            });
        }
        Ok(Self {
            client: Client::new(source, spool_dir)?,
            members,
            hosts,
        })
    }

    /// How long a request that asks now would wait for the budget of any credential.
    pub fn wait_hint(&self) -> Duration {
        let hints = self.members.iter().map(|member| member.limiter.wait_hint());
        hints.min().unwrap_or_default()
    }

    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// What the API told of the quota of each credential when it was asked for it; none for one of which it did not.
    pub fn quotas(&self) -> Vec<Option<Quota>> {
        self.members
            .iter()
            .map(|member| member.standing.quota())
            .collect()
    }

    /// The credential that is free first; among those that are free the one that was used least.
    pub(crate) fn member(&self) -> &Member {
        let load = |member: &Member| {
            load(
                member.limiter.wait_hint(),
                member.waiting.load(Relaxed),
                member.taken.load(Relaxed),
            )
        };
        let mut best = &self.members[0];
        for member in &self.members[1..] {
            if load(member) < load(best) {
                best = member;
            }
        }
        best.taken.fetch_add(1, Relaxed);
        best
    }

    /// The first host that may be asked now.
    ///
    /// # Errors
    /// How long every host is left alone.
    pub(crate) fn host(&self) -> Result<&Host, Duration> {
        let mut wait = Duration::MAX;
        for host in &self.hosts {
            match host.breaker.admit() {
                Admission::Go | Admission::Probe => return Ok(host),
                Admission::Wait(left) => wait = wait.min(left),
            }
        }
        Err(wait)
    }

    /// The state of the circuit to each host of the API, by its origin.
    pub fn circuits(&self) -> Vec<(String, BreakerState)> {
        let of = |host: &Host| (host.base.origin().ascii_serialization(), host.breaker.state());
        self.hosts.iter().map(of).collect()
    }

    /// Tokens of all credentials, which must not be written down.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let secrets = self.members.iter().map(|member| member.authorizer.secrets());
        secrets.flatten().collect()
    }
}

/// The breaker of a host that is not the API's own, the same for every credential.
fn other(
    others: &mut Vec<(Origin, Arc<Breaker>)>,
    origin: &Origin,
    source: &Source,
    clock: &Clock,
) -> Arc<Breaker> {
    if let Some((_, breaker)) = others.iter().find(|(known, _)| known == origin) {
        return Arc::clone(breaker);
    }
    let breaker = Arc::new(Breaker::new(source.breaker, clock.clone()));
    others.push((origin.clone(), Arc::clone(&breaker)));
    breaker
}

impl Member {
    /// Waits for the budget.
    pub(crate) async fn acquire(&self, who: &StreamName, call: &Call<'_>) -> Result<Grant> {
        let _waiting = Waiting::of(&self.waiting);
        self.limiter.acquire_for(who, call).await
    }

    pub(crate) fn limiter(&self) -> &Limiter {
        &self.limiter
    }
}

/// Counts somebody who waits, however the wait ends.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn of(count: &'a AtomicU64) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// The order in which credentials are chosen, the least first: by the wait of those who wait already and of one more,
/// then by use.
fn load(wait: Duration, waiting: u64, taken: u64) -> (Duration, u64) {
    let waiting = u32::try_from(waiting).unwrap_or(u32::MAX).saturating_add(1);
    (wait.saturating_mul(waiting), taken)
}

/// The place of `url`, which is below `from`, below `to`. What does not stand below the path of `from` keeps its path.
///
/// ```
/// use url::Url;
/// use landfall::extract::channel::moved;
/// let url = |text| Url::parse(text).unwrap();
/// let (home, replica) = (url("https://a.example/v1"), url("https://b.example/api/v1"));
/// let there = moved(&url("https://a.example/v1/orders?page=2"), &home, &replica);
/// assert_eq!(there.as_str(), "https://b.example/api/v1/orders?page=2");
/// assert_eq!(moved(&there, &replica, &home).as_str(), "https://a.example/v1/orders?page=2");
/// ```
pub fn moved(url: &Url, from: &Url, to: &Url) -> Url {
    let below = |base: &Url| base.path().trim_end_matches('/').to_owned();
    let mut there = to.clone();
    match url.path().strip_prefix(below(from).as_str()) {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            there.set_path(&format!("{}{rest}", below(to)));
        }
        _ => there.set_path(url.path()),
    }
    there.set_query(url.query());
    there
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn r044_the_credential_that_is_free_first_is_chosen_and_use_is_spread() {
        let ms = Duration::from_millis;
        let table = [
            // (wait, waiting, taken) of two; whether the first is chosen
            ((ms(0), 0, 5), (ms(0), 0, 4), false),
            ((ms(0), 0, 5), (ms(0), 0, 5), true),
            ((ms(0), 9, 5), (ms(1), 0, 0), true),
            ((ms(100), 1, 0), (ms(101), 0, 9), false),
            ((ms(3_600_000), 0, 0), (ms(10), 1, 9), false),
            ((ms(100), 3, 0), (ms(100), 2, 9), false),
            ((Duration::MAX, u64::MAX, 1), (Duration::MAX, 1, 2), true),
        ];
        for (one, other, expected) in table {
            let chosen = load(one.0, one.1, one.2) <= load(other.0, other.1, other.2);
            assert_eq!(chosen, expected, "{one:?} {other:?}");
        }
    }

    #[test]
    fn r048_a_url_keeps_its_place_on_a_replica() {
        let url = |text: &str| Url::parse(text).unwrap();
        let table = [
            (
                "https://a.example",
                "https://b.example",
                "https://a.example/o?x=1",
                "https://b.example/o?x=1",
            ),
            (
                "https://a.example/v1/",
                "http://b.example:81",
                "https://a.example/v1/o%2Fp",
                "http://b.example:81/o%2Fp",
            ),
            (
                "https://a.example/v1",
                "https://b.example/v2",
                "https://a.example/v10/o",
                "https://b.example/v10/o",
            ),
            (
                "https://a.example/v1",
                "https://b.example/v2",
                "https://a.example/v1",
                "https://b.example/v2",
            ),
        ];
        for (from, to, at, expected) in table {
            assert_eq!(moved(&url(at), &url(from), &url(to)).as_str(), expected);
        }
    }

    proptest! {
        #[test]
        fn r048_there_and_back_is_the_same_place(path in "(/[a-z%0-9.]{0,5}){0,4}", query in "([a-z]=[a-z0-9]{0,4})?") {
            let home = Url::parse("https://a.example/v1").unwrap();
            let replica = Url::parse("https://b.example/x/v1").unwrap();
            let mut url = home.clone();
            url.set_path(&format!("/v1{path}"));
            url.set_query(Some(query.as_str()).filter(|query| !query.is_empty()));
            prop_assume!(url.path().starts_with("/v1/") || url.path() == "/v1");
            prop_assert_eq!(moved(&moved(&url, &home, &replica), &replica, &home), url);
        }
    }
}
