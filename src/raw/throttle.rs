//! Fewer requests at once to a remote store while it asks to slow down.
//!
//! ```text
//! object_store: repeats each request, with growing waits ─► Polite: a place among those under way ─► HTTP
//!                                   halved by 503 and 429, one more for each round of other answers ┘
//! ```
//!
//! The store repeats each request on its own; without this as many as before would go on asking side by side.

use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use object_store::{
    ClientOptions, Result as StoreResult,
    client::{
        HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
    },
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{info, warn};

/// Requests to one store that are under way at once at most; answers whose bodies are still being read do not count.
const AT_ONCE_MAX: usize = 64;

/// Makes HTTP clients that go slower when they are asked to.
#[derive(Debug, Default)]
pub(super) struct PoliteConnector(ReqwestConnector);

/// An HTTP client with a pace.
#[derive(Debug)]
struct Polite {
    inner: HttpClient,
    pace: Pace,
}

/// How many requests may be under way at once.
#[derive(Debug)]
struct Pace {
    places: Semaphore,
    standing: Mutex<Standing>,
}

#[derive(Debug)]
struct Standing {
    /// How many may be under way.
    most: usize,
    /// Places there are, taken or free: more than `most` until enough requests have ended.
    places: usize,
    /// How often it was halved.
    halved: u64,
    /// Good answers since `most` last changed.
    good: usize,
}

/// A place among the requests under way; gone with the request, however that ends.
struct Place<'a> {
    pace: &'a Pace,
    permit: Option<SemaphorePermit<'a>>,
    /// [`Standing::halved`] when it was taken.
    halved: u64,
}

impl HttpConnector for PoliteConnector {
    fn connect(&self, options: &ClientOptions) -> StoreResult<HttpClient> {
        Ok(polite(self.0.connect(options)?))
    }
}

fn polite(inner: HttpClient) -> HttpClient {
    let pace = Pace::new(AT_ONCE_MAX);
    HttpClient::new(Polite { inner, pace })
}

#[async_trait]
impl HttpService for Polite {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let place = self.pace.take().await;
        let answered = self.inner.execute(request).await;
        if let Ok(response) = &answered {
            match response.status().as_u16() {
                status @ (429 | 503) => place.refused(status),
                _ => place.answered(),
            }
        }
        answered
    }
}

impl Pace {
    fn new(most: usize) -> Self {
        Self {
            places: Semaphore::new(most),
            standing: Mutex::new(Standing {
                most,
                places: most,
                halved: 0,
                good: 0,
            }),
        }
    }

    async fn take(&self) -> Place<'_> {
        // The semaphore is never closed, so there always is a permit.
        let permit = self.places.acquire().await.ok();
        Place {
            pace: self,
            permit,
            halved: self.standing().halved,
        }
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        // Nothing in here panics half-way.
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// The store asks to slow down. Requests that went before it last did say nothing new.
    fn refused(&self, status: u16) {
        let mut standing = self.pace.standing();
        standing.good = 0;
        if self.halved < standing.halved {
            return;
        }
        standing.halved += 1;
        let full = standing.most == AT_ONCE_MAX;
        standing.most = (standing.most / 2).max(1);
        if full {
            warn!(
                status,
                at_once = standing.most,
                "the lake's store asks to slow down: requests are repeated, and fewer go at once"
            );
        }
    }

    fn answered(&self) {
        let mut standing = self.pace.standing();
        if standing.most >= AT_ONCE_MAX {
            return;
        }
        standing.good += 1;
        if standing.good < standing.most {
            return;
        }
        standing.good = 0;
        standing.most += 1;
        if standing.places < standing.most {
            standing.places += 1;
            self.pace.places.add_permits(1);
        }
        if standing.most == AT_ONCE_MAX {
            info!("the lake's store keeps up again");
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut standing = self.pace.standing();
        if standing.places > standing.most
            && let Some(permit) = self.permit.take()
        {
            permit.forget();
            standing.places -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };

    use futures::future::join_all;
    use object_store::client::{HttpRequestBody, HttpResponseBody};
    use tokio::sync::Barrier;

    use super::*;

    /// Answers 503 for a stretch of requests, and counts.
    #[derive(Debug, Default)]
    struct Busy {
        /// Requests that are still refused.
        refuses: AtomicUsize,
        under_way: AtomicUsize,
        /// The most that were under way since this was last set to 0.
        peak: AtomicUsize,
    }

    #[derive(Debug)]
    struct Shared(Arc<Busy>);

    #[async_trait]
    impl HttpService for Shared {
        async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
            let busy = &self.0;
            let now = busy.under_way.fetch_add(1, SeqCst) + 1;
            busy.peak.fetch_max(now, SeqCst);
            // Everybody who may go gets here before the first goes on.
            for _ in 0..8 {
                tokio::task::yield_now().await;
            }
            busy.under_way.fetch_sub(1, SeqCst);
            let refused = busy
                .refuses
                .fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
            let mut response = HttpResponse::new(HttpResponseBody::from(String::new()));
            *response.status_mut() = match refused {
                Ok(_) => 503.try_into().unwrap(),
                Err(_) => 200.try_into().unwrap(),
            };
            Ok(response)
        }
    }

    /// Sends `count` requests side by side and returns how many were refused, and how many were under way at most.
    async fn send(client: &HttpClient, busy: &Busy, count: usize) -> (usize, usize) {
        busy.peak.store(0, SeqCst);
        let requests = (0..count).map(|_| client.execute(HttpRequest::new(HttpRequestBody::empty())));
        let answers = join_all(requests).await;
        let refused = answers
            .iter()
            .filter(|answer| answer.as_ref().unwrap().status() == 503);
        (refused.count(), busy.peak.load(SeqCst))
    }

    #[tokio::test]
    async fn f014_a_store_that_asks_to_slow_down_gets_fewer_requests_at_once() {
        let busy = Arc::new(Busy::default());
        let client = polite(HttpClient::new(Shared(Arc::clone(&busy))));
        assert_eq!(send(&client, &busy, 200).await, (0, AT_ONCE_MAX));
        // One volley that is refused halves it once, however many were refused in it.
        busy.refuses.store(AT_ONCE_MAX, SeqCst);
        assert_eq!(
            send(&client, &busy, AT_ONCE_MAX).await,
            (AT_ONCE_MAX, AT_ONCE_MAX)
        );
        assert_eq!(send(&client, &busy, 30).await, (0, 30));
        // Volley after volley it goes down to one at a time.
        for at_most in [AT_ONCE_MAX / 2, 16, 8, 4, 2, 1, 1] {
            busy.refuses.store(at_most, SeqCst);
            assert_eq!(send(&client, &busy, at_most).await, (at_most, at_most));
        }
        // And up again with every round of answers, to where it was.
        assert_eq!(send(&client, &busy, 10).await, (0, 4));
        assert_eq!(send(&client, &busy, 5000).await, (0, AT_ONCE_MAX));
        assert_eq!(send(&client, &busy, 200).await, (0, AT_ONCE_MAX));
    }

    #[tokio::test]
    async fn a_request_that_is_given_up_leaves_its_place() {
        #[derive(Debug)]
        struct Silent(Arc<Barrier>);

        #[async_trait]
        impl HttpService for Silent {
            async fn call(&self, _: HttpRequest) -> Result<HttpResponse, HttpError> {
                self.0.wait().await;
                std::future::pending().await
            }
        }

        let barrier = Arc::new(Barrier::new(AT_ONCE_MAX + 1));
        let client = polite(HttpClient::new(Silent(Arc::clone(&barrier))));
        for _ in 0..2 {
            let requests =
                (0..AT_ONCE_MAX).map(|_| client.execute(HttpRequest::new(HttpRequestBody::empty())));
            tokio::select! {
                _ = join_all(requests) => panic!("nobody answers"),
                _ = barrier.wait() => {}
            }
        }
    }
}
