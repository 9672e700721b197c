//! One budget per credential, shared by every stream and worker that uses it, and by other processes if it says so.
//!
//! ```text
//! acquire ─► lanes (whose turn) ─► words (what the server said) ─► ledger ─┬─ of this process
//!                 ▲                                                        ├─ in a file     } while it is away: this
//!                 └────────────── granted, or wait so long ◄───────────────┴─ in Redis      } process's part of it
//! ```
//!
//! What is granted is decided by pure functions of the moment; only [`Limiter`] waits.

mod file;
mod lanes;
mod ledger;
mod redis;
pub(crate) mod rules;
mod shared;
mod words;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::redis::IntoConnectionInfo as _;
use reqwest::header::HeaderMap;
use tokio::sync::Notify;
use tracing::warn;

use crate::{
    clock::Clock,
    config::{
        StreamName,
        rate::{QuotaHeaders, RateLimit, Share},
    },
    error::{Error, ErrorKind, Result},
    extract::{
        cost::Cost,
        limit::{
            file::FileStore,
            lanes::{Lanes, Step, Turn},
            ledger::{Ask, Ledger, Verdict},
            redis::RedisStore,
            rules::{Call, Demand, Micros, Rules, micros},
            shared::{Shared, Store},
            words::Words,
        },
        quota::{self, Quota},
        retry::is_throttle,
    },
};

/// Lets requests go as the budget allows: never more than [`Rate::requests`](crate::config::rate::Rate::requests) in any
/// [`Rate::per`](crate::config::rate::Rate::per).
///
/// Requests up to the budget go at once, so a short extraction does not wait. A wait that the server asks of one
/// request is a wait for all. Streams that wait take turns.
pub struct Limiter {
    rules: Arc<Rules>,
    headers: QuotaHeaders,
    clock: Clock,
    budget: Budget,
    lanes: Mutex<Lanes>,
    words: Mutex<Words>,
    /// When the next grant can be had, as last told.
    free_at: Mutex<Micros>,
    /// Held by the one who asks for all that wait.
    lead: tokio::sync::Mutex<()>,
    /// Somebody came.
    arrived: Notify,
    /// Names this limiter among those that share a budget.
    member: u64,
}

/// Who keeps count.
enum Budget {
    Process(Mutex<Ledger>),
    Shared(Arc<Shared>),
}

/// Leave to send one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who granted it and the how manieth it was: `process-17`, `file-17`, `redis-17`, or `alone-17` while the store of
    /// a shared budget is away.
    pub id: String,
    /// The time waited for it.
    pub waited: Duration,
}

impl Limiter {
    /// A budget of this process alone, full. Without a rate only the server's own words slow requests down.
    pub fn new(rate: Option<&RateLimit>, clock: Clock) -> Self {
        let rules = Arc::new(Rules::new(rate));
        Self::with_budget(rate, rules, clock, Budget::Process(Mutex::default()))
    }

    /// As [`Limiter::new`], joined to the store that the rate names.
    ///
    /// `member` tells the credentials of a source apart, the same in every process; empty if there is only one.
    /// Nothing is asked of the store yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the address of the store cannot be read.
    pub fn open(rate: Option<&RateLimit>, clock: Clock, member: &str) -> Result<Self> {
        let Some(rate) = rate else {
            return Ok(Self::new(None, clock));
        };
        let rules = Arc::new(Rules::new(Some(rate)));
        let named = |key: &str| match member {
            "" => key.to_owned(),
            _ => format!("{key}/{member}"),
        };
        let store = match &rate.share {
            Share::Process => return Ok(Self::new(Some(rate), clock)),
            Share::File { path, key } => Store::File(FileStore::new(
                path.clone(),
                named(key),
                Arc::clone(&rules),
                clock.clone(),
            )),
            Share::Redis { url, key } => {
                // The cause may repeat the address, and with it a password.
                if url.reveal()?.into_connection_info().is_err() {
                    return Err(Error::new(ErrorKind::Config, "read the address of Redis")
                        .with("url", url)
                        .with("hint", "write redis://host:port/db"));
                }
                Store::Redis(Box::new(RedisStore::new(url.clone(), named(key))))
            }
        };
        let shared = Shared::new(store, Arc::clone(&rules), rate.processes, clock.clone());
        let budget = Budget::Shared(Arc::new(shared));
        Ok(Self::with_budget(Some(rate), rules, clock, budget))
    }

    fn with_budget(rate: Option<&RateLimit>, rules: Arc<Rules>, clock: Clock, budget: Budget) -> Self {
        Self {
            rules,
            headers: rate.map(|rate| rate.headers.clone()).unwrap_or_default(),
            clock,
            budget,
            lanes: Mutex::default(),
            words: Mutex::default(),
            free_at: Mutex::default(),
            lead: tokio::sync::Mutex::default(),
            arrived: Notify::new(),
            member: rand::random(),
        }
    }

    /// Returns when one request may go. `path` is that of the URL, with its query if any bucket looks at it.
    ///
    /// Each wait is bounded by the rate's window, [`quota::RESET_MAX`] or the retry limits of the one who paused.
    /// Dropping the future gives up the place in the queue.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if the store of a shared budget has been away for five minutes and this process's part
    /// of the budget is less than the request takes; [`ErrorKind::Internal`] if the limiter forgets the request.
    pub async fn acquire(&self, who: &StreamName, method: &str, path: &str) -> Result<Grant> {
        self.acquire_for(who, &Call::new(method, path)).await
    }

    /// As [`Limiter::acquire`], for budgets that look at headers too.
    ///
    /// # Errors
    /// As [`Limiter::acquire`].
    pub async fn acquire_for(&self, who: &StreamName, call: &Call<'_>) -> Result<Grant> {
        self.wait_for(who, self.rules.demands(call)).await
    }

    /// As [`Limiter::acquire_for`], for a request that is free unless a bucket names it by a pattern.
    ///
    /// # Errors
    /// As [`Limiter::acquire`].
    pub(crate) async fn acquire_named(&self, who: &StreamName, call: &Call<'_>) -> Result<()> {
        let demands = self.rules.demands_by_name(call);
        if !demands.is_empty() {
            self.wait_for(who, demands).await?;
        }
        Ok(())
    }

    async fn wait_for(&self, who: &StreamName, demands: Vec<Demand>) -> Result<Grant> {
        let begun = self.now();
        let mut ticket = lock(&self.lanes).enter(who, demands);
        self.arrived.notify_one();
        let id = tokio::select! {
            biased;
            granted = &mut ticket => granted,
            // Whoever holds this asks for everyone, until its own request may go.
            _lead = self.lead.lock() => loop {
                match ticket.try_recv() {
                    Err(tokio::sync::oneshot::error::TryRecvError::Empty) => self.step().await,
                    Ok(id) => break Ok(id),
                    Err(tokio::sync::oneshot::error::TryRecvError::Closed) => break (&mut ticket).await,
                }
            },
        };
        let id = id.map_err(|cause| {
            Error::new(ErrorKind::Internal, "wait for a request to be granted").caused_by(cause)
        })??;
        let waited = u64::try_from(self.now().saturating_sub(begun)).unwrap_or_default();
        Ok(Grant {
            id,
            waited: Duration::from_micros(waited),
        })
    }

    /// How long a request that asks now would wait, as far as this process knows. Takes nothing.
    ///
    /// Of several limiters with a budget for the same requests, the one with the shortest hint is the one to ask.
    pub fn wait_hint(&self) -> Duration {
        let now = self.now();
        let said = lock(&self.words).wait(now).unwrap_or_default();
        let kept = match &self.budget {
            Budget::Process(ledger) => {
                lock(ledger).peek(&self.rules.rates, &self.rules.demands_of_all(), now)
            }
            Budget::Shared(_) => rules::ahead(now, *lock(&self.free_at)).unwrap_or_default(),
        };
        said.max(kept)
    }

    /// Whether no request goes for now, whatever it asks for: the server has asked for that.
    pub(crate) fn is_paused(&self) -> bool {
        lock(&self.words).paused_until() > self.now()
    }

    /// No request of the credential goes for `wait` from now, in any process.
    pub fn pause(&self, wait: Duration) {
        lock(&self.words).pause(self.now(), wait);
        self.tell(wait);
    }

    /// A request was refused because too many were sent; everyone waits. `asked` is the wait the server asked for,
    /// `wait` that of the request itself before it is sent again.
    ///
    /// Afterwards requests go at the pace at which they were answered before, and faster with each answer. Requests that
    /// were on their way meanwhile and are refused too prolong the wait only if the server asks for more.
    pub fn throttled(&self, asked: Option<Duration>, wait: Duration) {
        let news = lock(&self.words).refused(self.now(), asked, wait);
        match asked {
            _ if news => self.tell(wait),
            Some(asked) => self.tell(asked),
            None => {}
        }
    }

    /// Takes note of an answer: waits for the reset of a budget that the server calls spent, slows down when it is low.
    pub fn observe(&self, status: u16, headers: &HeaderMap) {
        if !is_throttle(status, headers) {
            lock(&self.words).answered(self.now());
        }
        self.observe_quota(quota::read_with(headers, &self.headers, self.clock.now()));
    }

    /// Takes note of what the server says of its budget, as [`Limiter::observe`] does.
    pub(crate) fn observe_quota(&self, quota: Quota) {
        let now = self.now();
        let (warns, paused) = {
            let mut words = lock(&self.words);
            let before = words.paused_until();
            let warns = words.observe(quota, now);
            (warns, words.paused_until() > before)
        };
        if warns {
            warn!(
                remaining = quota.remaining,
                limit = quota.limit,
                reset_s = quota.reset.map(|reset| reset.as_secs()),
                "rate limit is low"
            );
        }
        if paused && let Some(reset) = quota.reset {
            self.tell(reset);
        }
    }

    /// Takes note of what a GraphQL request cost: waits or slows down until the budget has refilled.
    pub fn observe_cost(&self, cost: &Cost) {
        lock(&self.words).observe_cost(cost, self.now());
    }

    /// Tells the others who share the budget of a pause.
    fn tell(&self, wait: Duration) {
        if let Budget::Shared(shared) = &self.budget {
            shared.pause(wait);
            // Without a runtime, the next request tells them.
            if let Ok(runtime) = tokio::runtime::Handle::try_current() {
                let shared = Arc::clone(shared);
                runtime.spawn(async move { shared.publish().await });
            }
        }
    }

    /// One step for everyone who waits: asks for the one whose turn it is, or waits.
    async fn step(&self) {
        let now = self.now();
        let said = lock(&self.words).wait(now);
        let next = match said {
            Some(wait) => Step::Wait(wait),
            None => lock(&self.lanes).next(now),
        };
        match next {
            Step::Ask(turn) => self.ask(&turn).await,
            Step::Wait(wait) => {
                tokio::select! {
                    () = tokio::time::sleep(wait) => {
                        if said.is_none() {
                            lock(&self.lanes).wake();
                        }
                    }
                    // Who came may ask for something else, but no one goes while the server has asked to wait.
                    () = self.arrived.notified(), if said.is_none() => {}
                }
            }
        }
    }

    async fn ask(&self, turn: &Turn) {
        let spaced = lock(&self.words).is_spaced();
        let ask = Ask {
            demands: Arc::clone(&turn.demands),
            want: if spaced || turn.contended { 1 } else { turn.want },
            member: self.member,
            contended: turn.contended,
        };
        let (verdict, by) = match &self.budget {
            Budget::Process(ledger) => {
                let verdict = lock(ledger).take(&self.rules.rates, &ask, self.now());
                (verdict, "process")
            }
            Budget::Shared(shared) => match shared.take(&ask).await {
                Ok(taken) => taken,
                Err(away) => return lock(&self.lanes).fail(turn, away),
            },
        };
        let now = self.now();
        match verdict {
            Verdict::Granted { count, first, next } => {
                lock(&self.words).granted(now);
                *lock(&self.free_at) = now.saturating_add(micros(next));
                let ids = (0..u64::from(count)).map(|more| format!("{by}-{}", first + more));
                lock(&self.lanes).grant(turn, ids);
            }
            Verdict::Wait(wait) => {
                let until = now.saturating_add(micros(wait));
                *lock(&self.free_at) = until;
                lock(&self.lanes).defer(turn, until);
            }
        }
    }

    fn now(&self) -> Micros {
        self.clock.steady().timestamp_micros()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics half-way while it holds one of these.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
