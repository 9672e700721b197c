//! Which rates count a request, and by how much.

use std::{fmt::Write as _, time::Duration};

use reqwest::header::HeaderMap;
use sha2::{Digest as _, Sha256};
use url::form_urlencoded;

use crate::config::rate::{Choose, RateLimit, RequestPattern, WindowKind};

/// Part of a moving window added to it, because requests arrive less evenly than they are sent.
const WINDOW_MARGIN: u32 = 50;

/// Most time kept free at either end of a fixed window, for requests on their way and for clocks that differ.
const GUARD_MAX: Duration = Duration::from_secs(2);

/// A moment or a length of time in microseconds; moments count from 1970.
pub(super) type Micros = i64;

/// The budget of a credential in the form it is asked.
pub(super) struct Rules {
    buckets: Vec<Compiled>,
    choose: Choose,
    /// Every rate of every bucket, without doubles.
    pub(super) rates: Vec<Rule>,
}

struct Compiled {
    matches: Vec<RequestPattern>,
    rates: Vec<usize>,
}

/// One rate of a bucket.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    /// Names the rate where it is stored: what counts, and over which windows.
    pub(super) key: String,
    /// A number that stands for the key, the same in every process.
    pub(super) id: u64,
    /// Granted per window.
    pub(super) requests: u32,
    /// The window.
    pub(super) per: Micros,
    /// How windows follow each other.
    pub(super) kind: WindowKind,
}

/// What one request takes from a rate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Demand {
    /// Index into [`Rules::rates`].
    pub(super) rate: usize,
    /// How many requests it counts as, at least 1.
    pub(super) weight: u32,
}

/// A request as far as its budget depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The HTTP method in capitals.
    pub method: &'a str,
    /// The path of the URL, with or without its query.
    pub path: &'a str,
    /// The headers, if any bucket looks at them.
    pub headers: Option<&'a HeaderMap>,
}

impl Rules {
    pub(super) fn new(rate: Option<&RateLimit>) -> Self {
        let mut rules = Self {
            buckets: Vec::new(),
            choose: rate.map_or(Choose::All, |rate| rate.choose),
            rates: Vec::new(),
        };
        for bucket in rate.iter().flat_map(|rate| &rate.buckets) {
            let what = name_of(&bucket.matches);
            let rates = bucket.rates.iter().map(|rate| {
                let per = micros(rate.per).max(1);
                let key = match bucket.window {
                    WindowKind::Moving => format!("moving {per} {what}"),
                    WindowKind::Fixed => format!("fixed {per} {what}"),
                };
                rules.add(key, rate.requests.max(1), per, bucket.window)
            });
            let rates = rates.collect();
            rules.buckets.push(Compiled {
                matches: bucket.matches.clone(),
                rates,
            });
        }
        rules
    }

    fn add(&mut self, key: String, requests: u32, per: Micros, kind: WindowKind) -> usize {
        if let Some(at) = self.rates.iter().position(|known| known.key == key) {
            self.rates[at].requests = self.rates[at].requests.min(requests);
            return at;
        }
        let digest = Sha256::digest(key.as_bytes());
        let id = digest[..8].iter().fold(0, |id, byte| id << 8 | u64::from(*byte));
        self.rates.push(Rule {
            key,
            id,
            requests,
            per,
            kind,
        });
        self.rates.len() - 1
    }

    /// What a request takes; nothing if no bucket matches it.
    pub(super) fn demands(&self, call: &Call<'_>) -> Vec<Demand> {
        self.demands_of(call, |_| true)
    }

    /// What a request takes that is free unless a bucket names it by a pattern.
    pub(super) fn demands_by_name(&self, call: &Call<'_>) -> Vec<Demand> {
        self.demands_of(call, |bucket| !bucket.matches.is_empty())
    }

    fn demands_of(&self, call: &Call<'_>, counts: impl Fn(&Compiled) -> bool) -> Vec<Demand> {
        let mut demands: Vec<Demand> = Vec::new();
        for bucket in &self.buckets {
            let Some(weight) = weight(&bucket.matches, call) else {
                continue;
            };
            let rates = if counts(bucket) { &bucket.rates[..] } else { &[] };
            for &rate in rates {
                // A request heavier than the whole budget must not wait for ever.
                let weight = weight.clamp(1, self.rates[rate].requests);
                match demands.iter_mut().find(|known| known.rate == rate) {
                    Some(known) => known.weight = known.weight.max(weight),
                    None => demands.push(Demand { rate, weight }),
                }
            }
            if self.choose == Choose::First {
                break;
            }
        }
        demands.sort();
        demands
    }

    /// What any request takes, whatever it asks for.
    pub(super) fn demands_of_all(&self) -> Vec<Demand> {
        let all = self.buckets.iter().filter(|bucket| bucket.matches.is_empty());
        let mut demands: Vec<Demand> = all
            .flat_map(|bucket| &bucket.rates)
            .map(|&rate| Demand { rate, weight: 1 })
            .collect();
        demands.sort();
        demands.dedup();
        demands
    }

    /// The part of the budget that one of `processes` may spend without asking the others; perhaps nothing.
    pub(super) fn part(&self, processes: u32) -> Vec<Rule> {
        let mut rates = self.rates.clone();
        for rate in &mut rates {
            rate.requests /= processes.max(1);
        }
        rates
    }
}

impl Rule {
    /// A bit that stands for the rate; two may share one.
    pub(super) fn bit(&self) -> u64 {
        1 << (self.id % 64)
    }

    /// When what was taken at `taken` no longer counts.
    pub(super) fn free_at(&self, taken: Micros) -> Micros {
        match self.kind {
            WindowKind::Moving => taken.saturating_add(self.per).saturating_add(self.margin()),
            WindowKind::Fixed => self.window_start(taken).saturating_add(self.per + self.guard()),
        }
    }

    /// When requests may go at all, from `now` on: a fixed window is left alone at both ends.
    pub(super) fn open_at(&self, now: Micros) -> Micros {
        if self.kind == WindowKind::Moving {
            return now;
        }
        let start = self.window_start(now);
        if now - start >= self.per - self.guard() {
            return start.saturating_add(self.per + self.guard());
        }
        now.max(start + self.guard())
    }

    /// The time between two requests if the budget is spread evenly.
    pub(super) fn pace(&self, weight: u32) -> Micros {
        (self.per / i64::from(self.requests.max(1))).saturating_mul(i64::from(weight))
    }

    /// Whether two moments lie in the same fixed window.
    pub(super) fn same_window(&self, one: Micros, other: Micros) -> bool {
        self.window_start(one) == self.window_start(other)
    }

    pub(super) fn margin(&self) -> Micros {
        self.per / i64::from(WINDOW_MARGIN)
    }

    pub(super) fn guard(&self) -> Micros {
        self.margin().min(micros(GUARD_MAX))
    }

    fn window_start(&self, moment: Micros) -> Micros {
        moment.div_euclid(self.per) * self.per
    }
}

impl<'a> Call<'a> {
    /// A request of which no more is known.
    pub fn new(method: &'a str, path: &'a str) -> Self {
        Self {
            method,
            path,
            headers: None,
        }
    }
}

/// The weight of a request, if it counts.
fn weight(patterns: &[RequestPattern], call: &Call<'_>) -> Option<u32> {
    if patterns.is_empty() {
        return Some(1);
    }
    let first = patterns.iter().find(|pattern| matches(pattern, call))?;
    Some(first.weight)
}

fn matches(pattern: &RequestPattern, call: &Call<'_>) -> bool {
    let (path, query) = call.path.split_once('?').unwrap_or((call.path, ""));
    let has_param = |name: &str, value: &str| {
        form_urlencoded::parse(query.as_bytes()).any(|(known, found)| known == name && found == value)
    };
    let has_header = |name: &str, value: &str| {
        let headers = call.headers.iter().flat_map(|headers| headers.get_all(name));
        headers
            .into_iter()
            .any(|found| found.as_bytes() == value.as_bytes())
    };
    pattern
        .method
        .as_ref()
        .is_none_or(|method| method.eq_ignore_ascii_case(call.method))
        && pattern.path.as_ref().is_none_or(|regex| regex.is_match(path))
        && pattern.params.iter().all(|(name, value)| has_param(name, value))
        && pattern
            .headers
            .iter()
            .all(|(name, value)| has_header(name, value))
}

/// The same text for the same patterns, in every process.
fn name_of(patterns: &[RequestPattern]) -> String {
    let mut name = String::new();
    for pattern in patterns {
        let RequestPattern {
            method,
            path,
            params,
            headers,
            weight,
        } = pattern;
        let path = path.as_ref().map(regex::Regex::as_str);
        // Writing to a String cannot fail.
        let _ = write!(name, "[{method:?} {path:?} {params:?} {headers:?} {weight}]");
    }
    name
}

pub(super) fn micros(duration: Duration) -> Micros {
    Micros::try_from(duration.as_micros()).unwrap_or(Micros::MAX / 4)
}

/// The time from one moment to another; none if the other has come.
pub(super) fn ahead(now: Micros, until: Micros) -> Option<Duration> {
    let wait = u64::try_from(until.saturating_sub(now)).ok()?;
    Some(Duration::from_micros(wait)).filter(|wait| !wait.is_zero())
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;
    use crate::config::rate::{Bucket, QuotaHeaders, Rate, Share};

    fn pattern(method: Option<&str>, path: Option<&str>, weight: u32) -> RequestPattern {
        RequestPattern {
            method: method.map(str::to_owned),
            path: path.map(|path| Regex::new(path).unwrap()),
            params: Vec::new(),
            headers: Vec::new(),
            weight,
        }
    }

    fn bucket(requests: &[u32], matches: Vec<RequestPattern>) -> Bucket {
        let rate = |(seconds, requests): (usize, &u32)| Rate {
            requests: *requests,
            per: Duration::from_secs(seconds as u64 + 1),
        };
        Bucket {
            rates: requests.iter().enumerate().map(rate).collect(),
            window: WindowKind::Moving,
            matches,
        }
    }

    fn rules(choose: Choose, buckets: Vec<Bucket>) -> Rules {
        Rules::new(Some(&RateLimit {
            buckets,
            choose,
            share: Share::Process,
            processes: 4,
            headers: QuotaHeaders::default(),
            status: None,
        }))
    }

    /// `requests×weight` of every rate that counts the request.
    fn asked(rules: &Rules, method: &str, path: &str) -> String {
        let demands = rules.demands(&Call::new(method, path));
        let shown = demands
            .iter()
            .map(|demand| format!("{}×{}", rules.rates[demand.rate].requests, demand.weight));
        shown.collect::<Vec<_>>().join(" ")
    }

    fn buckets() -> Vec<Bucket> {
        vec![
            bucket(&[], vec![pattern(None, Some("^/health$"), 1)]),
            bucket(
                &[5, 50],
                vec![pattern(Some("POST"), None, 3), pattern(None, Some("/search"), 2)],
            ),
            bucket(&[100], Vec::new()),
        ]
    }

    #[test]
    fn r039_every_bucket_that_matches_counts_a_request() {
        let rules = rules(Choose::All, buckets());
        assert_eq!(asked(&rules, "GET", "/items"), "100×1");
        assert_eq!(asked(&rules, "GET", "/v1/search?q=1"), "5×2 50×2 100×1");
        assert_eq!(asked(&rules, "POST", "/v1/search"), "5×3 50×3 100×1");
        assert_eq!(asked(&rules, "GET", "/health"), "100×1");
        assert_eq!(asked(&rules, "GET", "/x?path=/search"), "100×1");
    }

    #[test]
    fn r039_the_first_bucket_that_matches_may_be_the_only_one() {
        let rules = rules(Choose::First, buckets());
        assert_eq!(asked(&rules, "GET", "/health"), "");
        assert_eq!(asked(&rules, "POST", "/items"), "5×3 50×3");
        assert_eq!(asked(&rules, "GET", "/items"), "100×1");
    }

    #[test]
    fn r039_a_request_that_no_bucket_matches_is_free() {
        let rules = rules(
            Choose::All,
            vec![bucket(&[5], vec![pattern(Some("POST"), None, 1)])],
        );
        assert_eq!(asked(&rules, "GET", "/items"), "");
        assert_eq!(asked(&rules, "POST", "/items"), "5×1");
    }

    #[test]
    fn r039_parameters_and_headers_tell_requests_apart() {
        let mut only = pattern(None, None, 1);
        only.params = vec![("type".to_owned(), "a b".to_owned())];
        only.headers = vec![("x-tier".to_owned(), "bulk".to_owned())];
        let rules = rules(Choose::All, vec![bucket(&[5], vec![only])]);
        let headers = |tier: &str| HeaderMap::from_iter([("x-tier".parse().unwrap(), tier.parse().unwrap())]);
        let demands = |path, headers: Option<&HeaderMap>| {
            let call = Call {
                method: "GET",
                path,
                headers,
            };
            rules.demands(&call).len()
        };
        assert_eq!(demands("/x?type=a+b&n=1", Some(&headers("bulk"))), 1);
        assert_eq!(demands("/x?type=a+b", Some(&headers("slow"))), 0);
        assert_eq!(demands("/x?type=b", Some(&headers("bulk"))), 0);
        assert_eq!(demands("/x?type=a+b", None), 0);
    }

    #[test]
    fn r039_a_weight_beyond_the_budget_takes_the_whole_of_it() {
        let rules = rules(Choose::All, vec![bucket(&[2], vec![pattern(None, None, 9)])]);
        assert_eq!(asked(&rules, "GET", "/"), "2×2");
    }

    #[test]
    fn r039_two_buckets_over_the_same_requests_and_window_are_one() {
        let rules = rules(
            Choose::All,
            vec![bucket(&[9], Vec::new()), bucket(&[7], Vec::new())],
        );
        assert_eq!(asked(&rules, "GET", "/"), "7×1");
        assert_eq!(rules.part(2)[0].requests, 3);
        assert_eq!(rules.part(8)[0].requests, 0);
    }

    #[test]
    fn r039_a_fixed_window_is_left_alone_at_both_ends() {
        let rule = Rule {
            key: String::new(),
            id: 0,
            requests: 10,
            per: 1_000_000,
            kind: WindowKind::Fixed,
        };
        assert_eq!(rule.open_at(5_000_000), 5_020_000);
        assert_eq!(rule.open_at(5_500_000), 5_500_000);
        assert_eq!(rule.open_at(5_980_000), 6_020_000);
        assert_eq!(rule.free_at(5_500_000), 6_020_000);
    }
}
