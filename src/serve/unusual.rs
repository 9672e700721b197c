//! What is not as it was before: many more requests, another kind of body.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use chrono::TimeDelta;

use crate::{
    clock::Timestamp,
    config::{Name, Project, StreamName},
    receive::producer::limit::Who,
};

/// What is counted together.
const WINDOW: Duration = Duration::from_secs(10);

/// So many times what is usual is a spike …
const SPIKE_TIMES: f64 = 10.0;

/// … of no fewer requests than this: who sends little sends ten times as much now and then.
const SPIKE_REQUESTS_MIN: u64 = 200;

/// Windows before it is known what is usual.
const WINDOWS_MIN: u32 = 6;

/// How much one window changes what is usual. A new habit is usual after some minutes.
const WEIGHT: f64 = 0.1;

/// Most kinds of bodies that are told apart of one stream.
const KINDS_MAX: usize = 16;

/// Longest name of a kind that is told, in characters.
const KIND_CHARS_MAX: usize = 100;

/// How it was before, for every producer and every stream.
#[derive(Debug)]
pub(crate) struct Unusual {
    producers: HashMap<Name, Mutex<Pace>>,
    senders: HashMap<StreamName, Mutex<Pace>>,
    kinds: HashMap<StreamName, Mutex<BTreeSet<String>>>,
}

/// Far more requests than usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spike {
    /// Requests of this window, so far.
    pub(crate) requests: u64,
    /// What a window has usually.
    pub(crate) usual: f64,
}

/// How fast one sends.
#[derive(Debug)]
struct Pace {
    began: Timestamp,
    requests: u64,
    usual: f64,
    windows: u32,
    told: bool,
}

impl Unusual {
    /// Nothing is known yet of the producers and streams of `project`.
    pub(crate) fn new(project: &Project, now: Timestamp) -> Self {
        let pushed = || {
            project
                .streams()
                .filter(|(_, stream)| stream.feed.push().is_some())
        };
        let names = || pushed().map(|(_, stream)| stream.name.clone());
        Self {
            producers: project
                .producers
                .iter()
                .map(|producer| (producer.name.clone(), Mutex::new(Pace::new(now))))
                .collect(),
            senders: names().map(|name| (name, Mutex::new(Pace::new(now)))).collect(),
            kinds: names().map(|name| (name, Mutex::default())).collect(),
        }
    }

    /// A request of `who` came; says once per spike that it is one.
    pub(crate) fn came(&self, who: Who<'_>, now: Timestamp) -> Option<Spike> {
        let pace = match who {
            Who::Producer(name) => self.producers.get(name),
            Who::Sender(stream) => self.senders.get(stream),
        };
        pace?.lock().unwrap_or_else(PoisonError::into_inner).add(now)
    }

    /// A body of this media type was sent to `stream`; returns its kind if no other body was of it and others were.
    pub(crate) fn kind(&self, stream: &StreamName, media: Option<&str>) -> Option<String> {
        let kind = media.unwrap_or("none").split(';').next().unwrap_or_default();
        let kind: String = kind.trim().chars().take(KIND_CHARS_MAX).collect();
        let kind = kind.to_ascii_lowercase();
        let mut kinds = self
            .kinds
            .get(stream)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if kinds.contains(&kind) || kinds.len() >= KINDS_MAX {
            return None;
        }
        kinds.insert(kind.clone());
        (kinds.len() > 1).then_some(kind)
    }
}

impl Pace {
    fn new(now: Timestamp) -> Self {
        Self {
            began: now,
            requests: 0,
            usual: 0.0,
            windows: 0,
            told: false,
        }
    }

    fn add(&mut self, now: Timestamp) -> Option<Spike> {
        let elapsed = (now - self.began).to_std().unwrap_or_default();
        let over = u32::try_from(elapsed.as_millis() / WINDOW.as_millis()).unwrap_or(u32::MAX);
        if over > 0 {
            self.close(over, now);
        }
        self.requests += 1;
        let is_spike = self.windows >= WINDOWS_MIN
            && self.requests >= SPIKE_REQUESTS_MIN
            && self.requests as f64 >= SPIKE_TIMES * self.usual;
        if self.told || !is_spike {
            return None;
        }
        self.told = true;
        Some(Spike {
            requests: self.requests,
            usual: self.usual,
        })
    }

    /// Ends the window and those without requests after it, `over` in all.
    fn close(&mut self, over: u32, now: Timestamp) {
        // A spike that goes on is one.
        self.told = self.told && over == 1;
        let first = if self.windows == 0 { 1.0 } else { WEIGHT };
        self.usual += first * (self.requests as f64 - self.usual);
        self.usual *= (1.0 - WEIGHT).powf(f64::from(over - 1));
        self.windows = self.windows.saturating_add(over);
        self.requests = 0;
        self.began = self
            .began
            .checked_add_signed(TimeDelta::from_std(WINDOW * over).unwrap_or_default())
            .unwrap_or(now);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::read::parse;

    fn unusual() -> Unusual {
        let text = "lake: ./lake\nserve: {}\nsources:\n  shop:\n    streams:\n      orders: { push: {}, table: { keys: [id] } }\n";
        Unusual::new(
            &parse(text, Path::new("/srv/shop")).unwrap().project,
            Timestamp::UNIX_EPOCH,
        )
    }

    /// The spikes that are told when so many requests come in each window.
    fn spikes(windows: &[u64]) -> Vec<(usize, u64)> {
        let (unusual, stream) = (unusual(), StreamName::parse("shop.orders").unwrap());
        let mut told = Vec::new();
        for (number, requests) in windows.iter().enumerate() {
            let now = Timestamp::UNIX_EPOCH + TimeDelta::from_std(WINDOW).unwrap() * number as i32;
            for _ in 0..*requests {
                let spike = unusual.came(Who::Sender(&stream), now);
                told.extend(spike.map(|spike| (number, spike.requests)));
            }
        }
        told
    }

    #[test]
    fn r146_ten_times_what_is_usual_is_told_once() {
        let usual = [50; 8];
        assert_eq!(spikes(&[&usual[..], &[499]].concat()), []);
        assert_eq!(spikes(&[&usual[..], &[5_000, 5_000]].concat()), [(8, 500)]);
        // Who never sent much, and who has just come.
        assert_eq!(spikes(&[1, 1, 1, 1, 1, 1, 1, 199]), []);
        assert_eq!(spikes(&[1, 1, 1, 1, 1, 1, 1, 200]), [(7, 200)]);
        assert_eq!(spikes(&[1, 100_000]), []);
        // After a silence it is told again.
        let again = [&usual[..], &[5_000, 0, 0, 0, 50, 10_000]].concat();
        assert_eq!(spikes(&again).len(), 2);
    }

    #[test]
    fn r146_another_kind_of_body_is_told_once() {
        let (unusual, stream) = (unusual(), StreamName::parse("shop.orders").unwrap());
        let kind = |media: Option<&str>| unusual.kind(&stream, media);
        assert_eq!(kind(Some("application/json")), None);
        assert_eq!(kind(Some("Application/JSON; charset=utf-8")), None);
        assert_eq!(kind(Some("text/xml")), Some("text/xml".to_owned()));
        assert_eq!(kind(Some("text/xml")), None);
        assert_eq!(kind(None), Some("none".to_owned()));
        let told = (0..1000).filter_map(|number| kind(Some(&format!("x/{number}"))));
        assert!(told.count() < KINDS_MAX);
    }
}
