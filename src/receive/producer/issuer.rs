//! An issuer and its keys, kept, renewed and counted on while it cannot be reached.
//!
//! ```text
//! age of the keys   0 ────────── RENEW_AFTER ─────────────── keys_ttl ──────►
//!                   used          used, renewed beside        none: 503 until they can be had
//! unknown key       renewed at once, but not twice within RENEW_MIN
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio::sync::Mutex;

use crate::{
    clock::{Clock, Timestamp},
    config::{Name, serve::Issuer},
    receive::producer::{
        denial::{Denial, Denied, Via},
        fetch::Fetcher,
        jwt::{Proven, Unverified},
        keys::KeySet,
    },
};

/// Keys older than this are renewed while they are used.
const RENEW_AFTER: Duration = Duration::from_secs(5 * 60);

/// Least time between two attempts, whoever wants them: strangers can name as many unknown keys as they like.
pub const RENEW_MIN: Duration = Duration::from_secs(10);

/// An issuer with its keys.
pub struct Trusted {
    /// Its settings.
    pub issuer: Issuer,
    /// Producers by what the claim that names them holds.
    pub table: HashMap<String, Name>,
    fetcher: Fetcher,
    clock: Clock,
    kept: RwLock<Option<Arc<Kept>>>,
    /// Held while the keys are fetched.
    turn: Mutex<Option<Attempt>>,
}

/// Keys, and when they were had.
struct Kept {
    keys: KeySet,
    at: Timestamp,
}

/// When it was tried last, and how that ended.
#[derive(Clone, Copy)]
struct Attempt {
    at: Timestamp,
    succeeded: bool,
}

impl Trusted {
    /// An issuer whose keys are fetched when they are first needed.
    pub fn new(issuer: Issuer, fetcher: Fetcher, clock: Clock) -> Self {
        Self {
            table: issuer.producers.iter().cloned().collect(),
            issuer,
            fetcher,
            clock,
            kept: RwLock::new(None),
            turn: Mutex::new(None),
        }
    }

    /// What `token` proves.
    ///
    /// # Errors
    /// Why it proves nothing; [`Denial::IssuerUnavailable`] if that cannot be told without keys that cannot be had.
    pub async fn verify(self: &Arc<Self>, token: &Unverified<'_>) -> Result<Proven, Denied> {
        let kept = self.current().await?;
        let denied = |denial| Denied {
            credential: Some(self.issuer.name.to_string()),
            ..Denied::new(denial, Via::Jwt)
        };
        match token.verify(&self.issuer, &kept.keys, self.clock.now()) {
            // The issuer may have begun to sign with another key.
            Err(Denial::JwtKeyUnknown) => {
                let renewed = self.renewed(&kept).await?;
                token
                    .verify(&self.issuer, &renewed.keys, self.clock.now())
                    .map_err(denied)
            }
            outcome => outcome.map_err(denied),
        }
    }

    /// Keys that may be used; fetched if there are none.
    async fn current(self: &Arc<Self>) -> Result<Arc<Kept>, Denied> {
        let now = self.clock.steady();
        if let Some(kept) = self.usable(now) {
            if since(kept.at, now) >= RENEW_AFTER && self.may_renew(now) {
                let trusted = Arc::clone(self);
                // Nobody waits for this: the keys at hand are still good.
                tokio::spawn(async move { trusted.renew(now).await });
            }
            return Ok(kept);
        }
        self.renew(now).await;
        self.usable(self.clock.steady()).ok_or_else(|| self.unavailable())
    }

    /// Keys that are newer than `old`, if it may be asked for them now; else those.
    async fn renewed(&self, old: &Arc<Kept>) -> Result<Arc<Kept>, Denied> {
        let now = self.clock.steady();
        let succeeded = self.renew(now).await;
        let kept = self
            .usable(self.clock.steady())
            .ok_or_else(|| self.unavailable())?;
        // Keys of somebody else's attempt may be the ones that are looked for.
        if succeeded || kept.at > old.at {
            Ok(kept)
        } else {
            Err(self.unavailable())
        }
    }

    /// Fetches the keys unless that was just done. Returns how the last attempt ended.
    ///
    /// Keys that are kept stay if it fails.
    pub async fn renew(&self, now: Timestamp) -> bool {
        let mut last = self.turn.lock().await;
        if let Some(attempt) = last.filter(|attempt| since(attempt.at, now) < RENEW_MIN) {
            return attempt.succeeded;
        }
        let fetched = self.fetcher.keys(&self.issuer).await;
        *last = Some(Attempt {
            at: now,
            succeeded: fetched.is_ok(),
        });
        match fetched {
            Ok(keys) => {
                let kept = Arc::new(Kept { keys, at: now });
                *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some(kept);
                true
            }
            Err(error) => {
                tracing::warn!(issuer = %self.issuer.name, error = %error.chain(), "keys not renewed");
                false
            }
        }
    }

    /// Whether nobody fetches them and it was not just tried.
    fn may_renew(&self, now: Timestamp) -> bool {
        let last = self.turn.try_lock();
        last.is_ok_and(|last| last.is_none_or(|attempt| since(attempt.at, now) >= RENEW_MIN))
    }

    fn usable(&self, now: Timestamp) -> Option<Arc<Kept>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner).clone();
        kept.filter(|kept| since(kept.at, now) < self.issuer.keys_ttl)
    }

    fn unavailable(&self) -> Denied {
        Denied {
            credential: Some(self.issuer.name.to_string()),
            retry_after: Some(RENEW_MIN),
            ..Denied::new(Denial::IssuerUnavailable, Via::Jwt)
        }
    }
}

/// From `then` to `now`; nothing if that is not yet.
fn since(then: Timestamp, now: Timestamp) -> Duration {
    (now - then).to_std().unwrap_or_default()
}
