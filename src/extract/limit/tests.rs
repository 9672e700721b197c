use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering::SeqCst},
};

use proptest::prelude::*;

use super::*;
use crate::{clock::Timestamp, extract::quota::Quota};

/// A limiter and the milliseconds its clock shows.
fn limiter(requests: u32, per_ms: u64) -> (Limiter, Arc<AtomicI64>) {
    let millis = Arc::new(AtomicI64::new(1_700_000_000_000));
    let shown = Arc::clone(&millis);
    let clock = Clock::from_fn(move || Timestamp::from_timestamp_millis(shown.load(SeqCst)).unwrap());
    let rate = (requests > 0).then(|| RateLimit::simple(requests, Duration::from_millis(per_ms)));
    (Limiter::new(rate.as_ref(), clock), millis)
}

/// Takes one request, or returns the wait, as [`Limiter::step`] does for one that waits alone.
fn try_acquire(limiter: &Limiter) -> Option<Duration> {
    let now = limiter.now();
    if let Some(wait) = lock(&limiter.words).wait(now) {
        return Some(wait);
    }
    let Budget::Process(ledger) = &limiter.budget else {
        panic!("not of this process")
    };
    let ask = Ask {
        demands: limiter.rules.demands(&Call::new("GET", "/")).into(),
        want: 1,
        member: limiter.member,
        contended: false,
    };
    match lock(ledger).take(&limiter.rules.rates, &ask, now) {
        Verdict::Granted { .. } => {
            lock(&limiter.words).granted(now);
            None
        }
        Verdict::Wait(wait) => Some(wait),
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect()
}

#[test]
fn r039_the_budget_goes_at_once_and_then_waits_for_the_window() {
    let (limiter, millis) = limiter(3, 1000);
    for _ in 0..3 {
        assert_eq!(try_acquire(&limiter), None);
    }
    assert_eq!(try_acquire(&limiter), Some(Duration::from_millis(1020)));
    millis.fetch_add(1019, SeqCst);
    assert_eq!(try_acquire(&limiter), Some(Duration::from_millis(1)));
    millis.fetch_add(1, SeqCst);
    assert_eq!(try_acquire(&limiter), None);
}

#[test]
fn r042_a_pause_holds_everyone() {
    let (limiter, millis) = limiter(0, 0);
    assert_eq!(try_acquire(&limiter), None);
    limiter.pause(Duration::from_secs(5));
    limiter.pause(Duration::from_secs(2));
    for _ in 0..3 {
        assert_eq!(try_acquire(&limiter), Some(Duration::from_secs(5)));
    }
    millis.fetch_add(5000, SeqCst);
    assert_eq!(try_acquire(&limiter), None);
}

#[test]
fn r034_a_spent_budget_waits_for_its_reset() {
    let (limiter, millis) = limiter(0, 0);
    limiter.observe(
        200,
        &headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "30")]),
    );
    assert_eq!(try_acquire(&limiter), Some(Duration::from_secs(30)));
    millis.fetch_add(30_000, SeqCst);
    assert_eq!(try_acquire(&limiter), None);
}

#[test]
fn r034_an_implausible_reset_is_not_waited_for() {
    let (limiter, _) = limiter(0, 0);
    limiter.observe(
        200,
        &headers(&[("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "999999")]),
    );
    limiter.observe(
        200,
        &headers(&[("x-ratelimit-remaining", "x"), ("ratelimit", "?")]),
    );
    assert_eq!(try_acquire(&limiter), None);
}

#[test]
fn r034_no_number_a_server_sends_makes_it_panic_or_wait_without_cause() {
    let numbers = [
        "0",
        "1",
        "4294967295",
        "18446744073709551614",
        "18446744073709551615",
    ];
    for limit in numbers {
        for remaining in numbers {
            for reset in ["0", "1", "3600", "9223372036854775807", "18446744073709551615"] {
                let (limiter, _) = limiter(0, 0);
                limiter.observe(
                    200,
                    &headers(&[
                        ("x-ratelimit-limit", limit),
                        ("x-ratelimit-remaining", remaining),
                        ("x-ratelimit-reset", reset),
                    ]),
                );
                let wait = try_acquire(&limiter);
                assert!(
                    wait.is_none() || remaining == "0",
                    "{limit} {remaining} {reset}: {wait:?}"
                );
            }
        }
    }
}

#[test]
fn r034_a_low_budget_slows_down_and_warns_once() {
    let (limiter, millis) = limiter(0, 0);
    let quota = |remaining| Quota {
        limit: Some(100),
        remaining: Some(remaining),
        reset: Some(Duration::from_secs(12)),
    };
    let now = limiter.now();
    assert!(!lock(&limiter.words).observe(quota(50), now));
    assert!(lock(&limiter.words).observe(quota(5), now));
    assert!(!lock(&limiter.words).observe(quota(4), now));
    assert!(!lock(&limiter.words).observe(quota(3), now));
    assert_eq!(try_acquire(&limiter), None);
    assert_eq!(try_acquire(&limiter), Some(Duration::from_secs(3)));
    millis.fetch_add(3000, SeqCst);
    assert_eq!(try_acquire(&limiter), None);
    assert!(!lock(&limiter.words).observe(quota(90), now));
    assert_eq!(try_acquire(&limiter), None);
    assert!(lock(&limiter.words).observe(quota(5), now));
}

#[test]
fn r039_a_clock_set_back_waits_one_window_at_most() {
    let (limiter, millis) = limiter(2, 1000);
    assert_eq!((try_acquire(&limiter), try_acquire(&limiter)), (None, None));
    millis.fetch_sub(3_600_000, SeqCst);
    assert_eq!(try_acquire(&limiter), Some(Duration::from_millis(1020)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn r039_no_window_ever_holds_more_than_the_budget(
        requests in prop_oneof![1u32..20, 1001u32..1500],
        per_ms in 1u64..3000,
        gaps in proptest::collection::vec(0i64..400, 50..400),
    ) {
        let (limiter, millis) = limiter(requests, per_ms);
        let mut granted: Vec<i64> = Vec::new();
        for gap in gaps {
            millis.fetch_add(gap / 100 * gap / 20, SeqCst);
            // A burst of everybody at once, as far as it goes.
            for _ in 0..40 {
                match try_acquire(&limiter) {
                    None => granted.push(millis.load(SeqCst)),
                    Some(wait) => {
                        prop_assert!(wait <= Duration::from_millis(per_ms + per_ms / 50 + 1));
                        break;
                    }
                }
            }
        }
        let per = i64::try_from(per_ms).unwrap();
        let mut start = 0;
        for end in 0..granted.len() {
            while granted[end] - granted[start] >= per {
                start += 1;
            }
            prop_assert!(end - start < requests as usize, "{} in one window of {requests}", end - start + 1);
        }
    }

    #[test]
    fn r039_whoever_waits_as_told_is_let_go(requests in 1u32..5, per_ms in 1u64..500) {
        let (limiter, millis) = limiter(requests, per_ms);
        for _ in 0..30 {
            if let Some(wait) = try_acquire(&limiter) {
                millis.fetch_add(i64::try_from(wait.as_micros().div_ceil(1000)).unwrap(), SeqCst);
                prop_assert_eq!(try_acquire(&limiter), None);
            }
        }
    }
}

fn name(text: &str) -> StreamName {
    StreamName::parse(text).unwrap()
}

/// `requests` per `per_ms` on the machine's clock.
fn running(requests: u32, per_ms: u64) -> Arc<Limiter> {
    let rate = RateLimit::simple(requests, Duration::from_millis(per_ms));
    Arc::new(Limiter::new(Some(&rate), Clock::system()))
}

#[tokio::test]
async fn r041_every_request_has_a_grant_of_its_own() {
    let limiter = running(1000, 10_000);
    let asked = (0..50).map(|number| {
        let limiter = Arc::clone(&limiter);
        async move {
            let stream = name(&format!("shop.s{}", number % 3));
            limiter.acquire(&stream, "GET", "/items").await.unwrap().id
        }
    });
    let mut ids = futures::future::join_all(asked).await;
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 50);
    assert!(ids.iter().all(|id| id.starts_with("process-")), "{ids:?}");
}

#[tokio::test]
async fn r043_streams_take_turns_however_many_workers_one_has() {
    let limiter = running(10, 100);
    let counts: Arc<[AtomicI64; 2]> = Arc::default();
    let mut workers = tokio::task::JoinSet::new();
    for worker in 0..12 {
        let (limiter, counts) = (Arc::clone(&limiter), Arc::clone(&counts));
        // Eleven for one stream, one for the other.
        let which = usize::from(worker == 0);
        workers.spawn(async move {
            let stream = name(["shop.busy", "shop.calm"][which]);
            loop {
                limiter.acquire(&stream, "GET", "/items").await.unwrap();
                counts[which].fetch_add(1, SeqCst);
            }
        });
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    workers.abort_all();
    let [busy, calm] = [counts[0].load(SeqCst), counts[1].load(SeqCst)];
    assert!(busy + calm <= 70, "{busy} {calm}");
    // The first ten go to whoever came first; from then on each has every other.
    assert!(busy + calm >= 30 && busy.abs_diff(calm) <= 12, "{busy} {calm}");
}

#[tokio::test]
async fn r039_who_waits_for_one_bucket_does_not_hold_up_another() {
    let mut rate = RateLimit::simple(1, Duration::from_secs(3600));
    let pattern = |path: &str| crate::config::rate::RequestPattern {
        method: None,
        path: Some(regex::Regex::new(path).unwrap()),
        params: Vec::new(),
        headers: Vec::new(),
        weight: 1,
    };
    rate.buckets[0].matches = vec![pattern("^/search")];
    let limiter = Arc::new(Limiter::new(Some(&rate), Clock::system()));
    let stream = name("shop.items");
    limiter.acquire(&stream, "GET", "/search").await.unwrap();
    let held = tokio::spawn({
        let (limiter, stream) = (Arc::clone(&limiter), stream.clone());
        async move { limiter.acquire(&stream, "GET", "/search").await }
    });
    while lock(&limiter.lanes).waiting() == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..5 {
        let free = limiter.acquire(&stream, "GET", "/items");
        tokio::time::timeout(Duration::from_secs(5), free)
            .await
            .unwrap()
            .unwrap();
    }
    assert!(!held.is_finished());
    held.abort();
}

#[tokio::test]
async fn r043_who_gives_up_leaves_the_queue_to_the_others() {
    let limiter = running(1, 50);
    let stream = name("shop.items");
    limiter.acquire(&stream, "GET", "/").await.unwrap();
    // The first leads, the second waits behind it; both give up.
    let first = limiter.acquire(&stream, "GET", "/");
    let second = limiter.acquire(&stream, "GET", "/");
    let brief = Duration::from_millis(5);
    let _ = tokio::time::timeout(brief, futures::future::join(first, second))
        .await
        .unwrap_err();
    let grant = limiter.acquire(&stream, "GET", "/").await.unwrap();
    assert_eq!(grant.id, "process-1");
    assert!(grant.waited >= Duration::from_millis(20), "{:?}", grant.waited);
    assert_eq!(lock(&limiter.lanes).waiting(), 0);
}

#[test]
fn r044_the_hint_tells_which_of_two_credentials_is_free_first() {
    let (one, _) = limiter(1, 1000);
    let (other, millis) = limiter(1, 5000);
    assert_eq!(
        (one.wait_hint(), other.wait_hint()),
        (Duration::ZERO, Duration::ZERO)
    );
    assert_eq!((try_acquire(&one), try_acquire(&other)), (None, None));
    assert_eq!(one.wait_hint(), Duration::from_millis(1020));
    assert_eq!(other.wait_hint(), Duration::from_millis(5100));
    other.pause(Duration::from_secs(9));
    assert_eq!(other.wait_hint(), Duration::from_secs(9));
    millis.fetch_add(9000, SeqCst);
    assert_eq!(other.wait_hint(), Duration::ZERO);
}

#[test]
fn f070_a_429_wins_over_a_count_that_says_there_is_room() {
    let (limiter, _) = limiter(0, 0);
    limiter.pause(Duration::from_secs(7));
    let said = [
        ("x-ratelimit-limit", "1000"),
        ("x-ratelimit-remaining", "1000"),
        ("x-ratelimit-reset", "1"),
    ];
    limiter.observe(200, &headers(&said));
    assert_eq!(try_acquire(&limiter), Some(Duration::from_secs(7)));
}

#[test]
fn f070_a_reset_in_the_past_is_no_wait() {
    let (limiter, _) = limiter(0, 0);
    limiter.observe(
        200,
        &headers(&[
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "1600000000"),
        ]),
    );
    assert_eq!(try_acquire(&limiter), None);
}

#[test]
fn f072_points_that_run_low_slow_everyone_down() {
    let (limiter, millis) = limiter(0, 0);
    let cost = |available| Cost {
        requested: 100.0,
        available: Some(available),
        maximum: Some(1000.0),
        restore: crate::extract::cost::Restore::PerSecond(50.0),
    };
    limiter.observe_cost(&cost(900.0));
    assert_eq!((try_acquire(&limiter), try_acquire(&limiter)), (None, None));
    limiter.observe_cost(&cost(200.0));
    assert_eq!(try_acquire(&limiter), Some(Duration::from_secs(2)));
    limiter.observe_cost(&cost(50.0));
    assert_eq!(try_acquire(&limiter), Some(Duration::from_secs(2)));
    millis.fetch_add(2000, SeqCst);
    assert_eq!(try_acquire(&limiter), None);
    limiter.observe_cost(&cost(600.0));
    assert_eq!(try_acquire(&limiter), None);
}

#[test]
fn r049_requests_refused_in_the_same_moment_make_everyone_wait_once() {
    let (limiter, millis) = limiter(0, 0);
    limiter.throttled(None, Duration::from_secs(2));
    limiter.throttled(None, Duration::from_secs(60));
    assert_eq!(try_acquire(&limiter), Some(Duration::from_secs(2)));
    limiter.throttled(Some(Duration::from_secs(5)), Duration::from_secs(60));
    assert_eq!(try_acquire(&limiter), Some(Duration::from_secs(5)));
    millis.fetch_add(5000, SeqCst);
    assert_eq!(try_acquire(&limiter), None);
}

#[test]
fn after_a_refusal_requests_go_as_fast_as_they_were_answered() {
    let (limiter, millis) = limiter(0, 0);
    for _ in 0..20 {
        assert_eq!(try_acquire(&limiter), None);
        millis.fetch_add(100, SeqCst);
        limiter.observe(200, &HeaderMap::new());
    }
    limiter.observe(429, &HeaderMap::new());
    limiter.throttled(Some(Duration::from_secs(1)), Duration::from_secs(1));
    millis.fetch_add(1000, SeqCst);
    assert_eq!(try_acquire(&limiter), None);
    let wait = try_acquire(&limiter).unwrap();
    assert!(
        wait > Duration::from_millis(80) && wait < Duration::from_millis(110),
        "{wait:?}"
    );
    // Each answer takes a little off the pace, until nothing is left of it.
    for _ in 0..500 {
        limiter.observe(200, &HeaderMap::new());
    }
    assert_eq!(try_acquire(&limiter), None);
}
