//! What token requests have to pass, as all other requests to their host do.

use std::{sync::Arc, time::Duration};

use url::Position;

use crate::{
    config::{StreamName, errors::Retry},
    error::Result,
    extract::{
        attempt::Health,
        breaker::{Breaker, BreakerState},
        facts,
        limit::{Limiter, rules::Call},
        request::Prepared,
    },
};

/// While a host is left alone it is asked for this often whether it still is.
const HELD_STEP: Duration = Duration::from_secs(1);

/// The breaker of the host that tokens come from, and the budget if the host is the API's own.
///
/// Whoever sends a page has a leave of the breaker before the token for it is fetched, and may be the one probe of a host
/// that failed. So a token request waits while the circuit is open and never for a probe: it may be a part of that. It
/// waits for the budget before the page that needs it does, and nothing that it waits for waits for it.
#[derive(Clone)]
pub(crate) struct Gate {
    /// That of the host.
    pub(crate) breaker: Arc<Breaker>,
    /// That of the credential; none for a host beside the API.
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// Takes turns with the streams.
    pub(crate) who: StreamName,
}

impl Gate {
    /// Waits until the host may be asked.
    ///
    /// # Errors
    /// How long it is still left alone, if that is longer than `retry` allows, or if a whole time of being left alone has
    /// passed and another one has begun.
    pub(super) async fn admit(&self, retry: &Retry) -> Result<(), Duration> {
        let mut waited = Duration::ZERO;
        let mut first = None;
        // Ends when a whole time of being left alone has passed.
        while let Some(left) = self.breaker.left() {
            let period = *first.get_or_insert(left);
            if left > retry.retry_after_max || waited > period {
                return Err(left);
            }
            let step = left.min(HELD_STEP).max(Duration::from_millis(1));
            waited += step;
            tokio::time::sleep(step).await;
        }
        Ok(())
    }

    /// Waits for the budget.
    ///
    /// # Errors
    /// Those of [`Limiter::acquire`].
    pub(super) async fn acquire(&self, prepared: &Prepared) -> Result<()> {
        let Some(limiter) = &self.limiter else {
            return Ok(());
        };
        let call = Call {
            method: facts::method(prepared.method),
            path: &prepared.url[Position::BeforePath..Position::AfterQuery],
            headers: Some(&prepared.headers),
        };
        limiter.acquire_for(&self.who, &call).await.map(|_| ())
    }

    /// Tells the breaker how an attempt ended. Of one token request, failures that may be its own count once.
    pub(super) fn tell(&self, health: Option<Health>, counted: &mut bool) {
        match health {
            Some(Health::Good) => self.breaker.succeeded(),
            Some(Health::BadForOne) if *counted => {}
            Some(Health::Bad | Health::BadForOne) => {
                *counted = true;
                self.breaker.failed();
            }
            None => {}
        }
    }

    /// Whether a token request that failed may be sent again.
    pub(super) fn may_repeat(&self) -> bool {
        self.breaker.state() != BreakerState::Closed || self.breaker.may_repeat()
    }
}
