//! How fast each producer may send, and how much of the server is its own.
//!
//! ```text
//! admit ─ producer: requests, bytes, at once ─ its stream: the same, a share ─ server: at once, bytes in memory ─► Permit
//!          429, its own doing                    429                           503, by weight
//! ```
//!
//! Each producer has counters of its own behind a lock of its own, so that a busy one takes nothing from the others; each
//! decision takes the same time whatever their number. What all share is granted by what is *left*: a producer may hold as
//! much as `weight` times what would then still be free (the dynamic thresholds of Choudhury and Hahne for switches). One
//! alone gets half, none gets all, and whoever holds little is let in before whoever holds much.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::Timestamp,
    config::{
        Name, Project, StreamName,
        producers::{Producer, Rates},
        serve::ServeLimits,
    },
    receive::producer::{
        bucket::{Bucket, Pressure, Short},
        quota::{Quota, Standing, Unit},
    },
};

/// Least time a producer is told to wait: `Retry-After` counts whole seconds.
const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// Longest time a producer is told to wait. By then things are different.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// What is taken of the bytes of a body at a time, where they are taken as it comes.
pub const STEP_BYTES: u64 = 256 << 10;

/// Counts what is sent and what is under way.
pub struct Limiter {
    lanes: Vec<Lane>,
    of_producers: HashMap<Name, usize>,
    of_streams: HashMap<StreamName, usize>,
    pushed: HashSet<StreamName>,
    shared: Mutex<Shared>,
}

/// Whose counters are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who<'a> {
    /// A producer that is declared.
    Producer(&'a Name),
    /// Whoever signs what is sent to a stream, as webhooks do.
    Sender(&'a StreamName),
}

/// What is to be admitted.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Who asks.
    pub who: Who<'a>,
    /// The stream it is for, if it is for one.
    pub stream: Option<&'a StreamName>,
    /// The length of the body in bytes, or the most it can have if that is not said.
    pub bytes: u64,
    /// What is taken of that before the body comes; [`Permit::reach`] takes the rest.
    pub first: u64,
}

/// Whether a request may go on.
#[derive(Debug)]
pub enum Admission {
    /// It may, as long as the permit is held.
    Granted(Permit, Standing),
    /// It may not.
    Refused(Refusal),
}

/// That a request may not go on now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// When it may be tried again, in `Retry-After`: 1 s to 60 s.
    pub retry_after: Duration,
    /// How the producer stands.
    pub standing: Standing,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The producer has sent its requests of the window.
    Requests,
    /// It has sent its bytes of the window.
    Bytes,
    /// It has as many requests under way as it may.
    AtOnce,
    /// What stands behind is filling, and less is granted than otherwise.
    Pressure,
    /// The server has as much under way as it can, and this producer has its part of it.
    Capacity,
    /// Nobody of this name is declared.
    Unknown,
}

/// The right to go on with one request. Dropped, it is over.
///
/// What it took of the rates for bytes that did not come is given back then; all that it took, if nobody vouches for
/// the sender: whoever may not send must not use up what those may who do.
#[derive(Debug)]
pub struct Permit {
    limiter: Arc<Limiter>,
    lane: usize,
    stream: Option<StreamName>,
    /// What is taken of rates and memory.
    bytes: u64,
    /// The most that is: more than a bucket holds could never be granted.
    bytes_max: u64,
    /// What came of the body.
    came: u64,
    /// Whether the rates have back what was taken of them for the body.
    given_back: bool,
    vouched: Vouched,
}

/// Whether it is known that a request comes from whom it is counted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vouched {
    Yes,
    /// Not before [`Permit::settle`].
    NotYet,
}

/// What a request needs of the rates.
#[derive(Clone, Copy, Debug)]
struct Need {
    requests: u64,
    bytes: u64,
}

struct Lane {
    rates: Rates,
    counters: Mutex<Counters>,
}

/// What one producer has sent and has under way.
struct Counters {
    own: Meter,
    /// By stream, where a stream may take a part alone. Only streams of the project, each made when it is first used.
    streams: HashMap<StreamName, Meter>,
    /// Its bytes in memory.
    bytes_held: u64,
}

struct Meter {
    requests: Bucket,
    bytes: Bucket,
    at_once: u32,
    at_once_max: u32,
}

/// What all producers share.
struct Shared {
    requests: Pool,
    bytes: Pool,
}

struct Pool {
    capacity: u64,
    used: u64,
}

impl Limiter {
    /// Counters for the producers and pushed streams of `project`, all at rest at `now`.
    pub fn new(project: &Project, now: Timestamp) -> Arc<Self> {
        let limits = project
            .serve
            .as_ref()
            .map_or(ServeLimits::DEFAULT, |serve| serve.limits);
        let tier = |name: &str| {
            let tiers = project.serve.as_ref().map_or(&[][..], |serve| &serve.tiers);
            let found = tiers.iter().find(|(known, _)| known.as_str() == name);
            found.map_or(Rates::DEFAULT, |(_, rates)| rates.clone())
        };
        let mut lanes = Vec::new();
        let mut lane = |rates: Rates| {
            let counters = Counters {
                own: Meter::new(&rates, rates.requests, rates.bytes, rates.at_once, now),
                streams: HashMap::new(),
                bytes_held: 0,
            };
            lanes.push(Lane {
                rates,
                counters: Mutex::new(counters),
            });
            lanes.len() - 1
        };
        let producers = project.producers.iter();
        let of_producers = producers
            .map(|producer| (producer.name.clone(), lane(producer.rates.clone())))
            .collect();
        let pushed: HashSet<StreamName> = project
            .streams()
            .filter(|(_, stream)| stream.feed.push().is_some())
            .map(|(_, stream)| stream.name.clone())
            .collect();
        let standard = tier(Producer::TIER_DEFAULT);
        let of_streams = pushed
            .iter()
            .map(|stream| (stream.clone(), lane(standard.clone())))
            .collect();
        Arc::new(Self {
            lanes,
            of_producers,
            of_streams,
            pushed,
            shared: Mutex::new(Shared {
                requests: Pool::new(u64::from(limits.requests_at_once)),
                bytes: Pool::new(limits.bytes_at_once),
            }),
        })
    }

    /// How fast `who` may send; none if nobody of this name is declared.
    pub fn rates(&self, who: Who<'_>) -> Option<&Rates> {
        Some(&self.lanes.get(self.lane(who)?)?.rates)
    }

    fn lane(&self, who: Who<'_>) -> Option<usize> {
        match who {
            Who::Producer(name) => self.of_producers.get(name),
            Who::Sender(stream) => self.of_streams.get(stream),
        }
        .copied()
    }

    /// Whether `ask` may go on at `now`, which is to come from a clock that goes on evenly. Takes the same time always.
    pub fn admit(self: &Arc<Self>, ask: &Ask<'_>, now: Timestamp, pressure: Pressure) -> Admission {
        let number = self.lane(ask.who);
        let Some((number, lane)) = number.and_then(|number| Some((number, self.lanes.get(number)?))) else {
            return Admission::Refused(Refusal::new(Reason::Unknown, None, Standing::default()));
        };
        // What a client names and the project does not have is never counted by itself.
        let stream = ask
            .stream
            .filter(|stream| self.pushed.contains(*stream) && lane.rates.stream_share < 1.0);
        // More than a bucket ever holds could never be granted: such a request empties it.
        let stream_bytes = stream.map_or(u64::MAX, |_| lane.rates.stream_bytes());
        let bytes_max = ask.bytes.min(lane.rates.bytes).min(stream_bytes);
        let bytes = ask.first.min(bytes_max);
        let mut counters = lane.lock();
        let need = Need { requests: 1, bytes };
        let outcome = self.decide(&mut counters, &lane.rates, stream, need, now, pressure);
        let standing = counters.standing(stream, pressure);
        match outcome {
            Ok(()) => {
                let permit = Permit {
                    limiter: Arc::clone(self),
                    lane: number,
                    stream: stream.cloned(),
                    bytes,
                    bytes_max,
                    came: 0,
                    given_back: false,
                    vouched: match ask.who {
                        Who::Producer(_) => Vouched::Yes,
                        Who::Sender(_) => Vouched::NotYet,
                    },
                };
                Admission::Granted(permit, standing)
            }
            Err((reason, wait)) => Admission::Refused(Refusal::new(reason, wait, standing)),
        }
    }

    /// Takes everything that is needed, or nothing.
    fn decide(
        &self,
        counters: &mut Counters,
        rates: &Rates,
        stream: Option<&StreamName>,
        need: Need,
        now: Timestamp,
        pressure: Pressure,
    ) -> Result<(), (Reason, Option<Duration>)> {
        let Need { requests, bytes } = need;
        if let Some(stream) = stream {
            let meter = counters.streams.entry(stream.clone()).or_insert_with(|| {
                let (requests, bytes) = (rates.stream_requests(), rates.stream_bytes());
                Meter::new(rates, requests, bytes, rates.stream_at_once(), now)
            });
            meter.check(need, now, pressure)?;
        }
        counters.own.check(need, now, pressure)?;
        let mut shared = self.lock();
        let (weight, own) = (u64::from(rates.weight), u64::from(counters.own.at_once));
        let free = shared.requests.admits(own, requests, weight)
            && shared.bytes.admits(counters.bytes_held, bytes, weight);
        if !free {
            return Err((Reason::Capacity, None));
        }
        shared.requests.used += requests;
        shared.bytes.used += bytes;
        drop(shared);
        counters.bytes_held += bytes;
        counters.own.take(need);
        if let Some(meter) = stream.and_then(|stream| counters.streams.get_mut(stream)) {
            meter.take(need);
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Says that so many bytes of the body came, and takes what is needed for some more to come.
    ///
    /// # Errors
    /// Why they are not granted now. All that was taken of the rates for the body is given back then, or a sender
    /// whose bodies are larger than what is left would never get one through.
    pub fn reach(&mut self, bytes: u64, now: Timestamp, pressure: Pressure) -> Result<(), Refusal> {
        self.came = bytes;
        if bytes <= self.bytes || self.bytes == self.bytes_max {
            return Ok(());
        }
        let wanted = bytes.saturating_add(STEP_BYTES).min(self.bytes_max);
        let limiter = Arc::clone(&self.limiter);
        let Some(lane) = limiter.lanes.get(self.lane) else {
            return Ok(());
        };
        let mut counters = lane.lock();
        let stream = self.stream.as_ref();
        let need = |bytes| Need { requests: 0, bytes };
        let more = need(wanted - self.bytes);
        let taken = limiter.decide(&mut counters, &lane.rates, stream, more, now, pressure);
        let Err((reason, wait)) = taken else {
            self.bytes = wanted;
            return Ok(());
        };
        if !self.given_back {
            counters.give_back(stream, need(self.bytes));
        }
        self.given_back = true;
        let standing = counters.standing(stream, pressure);
        // All of it has to be there when it comes again.
        let whole = counters.own.check(need(wanted), now, pressure);
        let wait = whole.err().map_or(wait, |(_, wait)| wait);
        Err(Refusal::new(reason, wait, standing))
    }

    /// Says how many bytes there were, and that they are from whom they are counted for: the rest is given back.
    pub fn settle(&mut self, bytes: u64) {
        self.vouched = Vouched::Yes;
        self.came = bytes;
        let rest = self.bytes.saturating_sub(bytes);
        self.bytes -= rest;
        let Some(lane) = self.limiter.lanes.get(self.lane) else {
            return;
        };
        let mut counters = lane.lock();
        counters.bytes_held = counters.bytes_held.saturating_sub(rest);
        let rest = Need {
            requests: 0,
            bytes: rest,
        };
        counters.give_back(self.stream.as_ref(), rest);
        let mut shared = self.limiter.lock();
        shared.bytes.used = shared.bytes.used.saturating_sub(rest.bytes);
    }

    /// Bytes it stands for.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Some(lane) = self.limiter.lanes.get(self.lane) else {
            return;
        };
        let mut counters = lane.lock();
        let (requests, bytes) = match self.vouched {
            Vouched::Yes => (0, self.bytes.saturating_sub(self.came)),
            Vouched::NotYet => (1, self.bytes),
        };
        let bytes = if self.given_back { 0 } else { bytes };
        let unused = Need { requests, bytes };
        counters.give_back(self.stream.as_ref(), unused);
        counters.own.at_once = counters.own.at_once.saturating_sub(1);
        counters.bytes_held = counters.bytes_held.saturating_sub(self.bytes);
        if let Some(meter) = self
            .stream
            .as_ref()
            .and_then(|stream| counters.streams.get_mut(stream))
        {
            meter.at_once = meter.at_once.saturating_sub(1);
        }
        let mut shared = self.limiter.lock();
        shared.requests.used = shared.requests.used.saturating_sub(1);
        shared.bytes.used = shared.bytes.used.saturating_sub(self.bytes);
    }
}

impl Refusal {
    fn new(reason: Reason, wait: Option<Duration>, standing: Standing) -> Self {
        let wait = wait.unwrap_or(RETRY_AFTER_MAX);
        Self {
            reason,
            retry_after: wait.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX),
            standing,
        }
    }

    /// The HTTP status: 429 for what the producer has done, 503 for what it has not.
    pub fn status(&self) -> u16 {
        match self.reason {
            Reason::Capacity => 503,
            _ => 429,
        }
    }
}

impl Reason {
    /// Its name in metrics and the audit log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Bytes => "bytes",
            Self::AtOnce => "at_once",
            Self::Pressure => "pressure",
            Self::Capacity => "capacity",
            Self::Unknown => "unknown",
        }
    }
}

impl Lane {
    fn lock(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    /// Gives back what was taken of the rates.
    fn give_back(&mut self, stream: Option<&StreamName>, unused: Need) {
        let meter = stream.and_then(|stream| self.streams.get_mut(stream));
        for meter in std::iter::once(&mut self.own).chain(meter) {
            meter.requests.give_back(unused.requests);
            meter.bytes.give_back(unused.bytes);
        }
    }

    fn standing(&self, stream: Option<&StreamName>, pressure: Pressure) -> Standing {
        let mut quotas = Vec::with_capacity(6);
        self.own.tell(
            ["producer", "producer-bytes", "producer-at-once"],
            pressure,
            &mut quotas,
        );
        if let Some(meter) = stream.and_then(|stream| self.streams.get(stream)) {
            meter.tell(
                ["stream", "stream-bytes", "stream-at-once"],
                pressure,
                &mut quotas,
            );
        }
        Standing(quotas)
    }
}

impl Meter {
    fn new(rates: &Rates, requests: u64, bytes: u64, at_once_max: u32, now: Timestamp) -> Self {
        Self {
            requests: Bucket::new(requests, rates.per, now),
            bytes: Bucket::new(bytes, rates.per, now),
            at_once: 0,
            at_once_max,
        }
    }

    fn check(
        &mut self,
        need: Need,
        now: Timestamp,
        pressure: Pressure,
    ) -> Result<(), (Reason, Option<Duration>)> {
        if need.requests > 0 && self.at_once >= self.at_once_max {
            return Err((Reason::AtOnce, None));
        }
        let mut granted = |bucket: fn(&mut Self) -> &mut Bucket, amount, reason| {
            let short: Result<(), Short> = bucket(self).check(amount, now, pressure);
            short.map_err(|short| {
                // At the same moment nothing more comes in, so that this asks about the pressure alone.
                let eased = bucket(self).check(amount, now, Pressure::NONE).is_ok();
                (if eased { Reason::Pressure } else { reason }, short.wait)
            })
        };
        granted(|meter| &mut meter.requests, need.requests, Reason::Requests)?;
        granted(|meter| &mut meter.bytes, need.bytes, Reason::Bytes)
    }

    fn take(&mut self, need: Need) {
        self.requests.take(need.requests);
        self.bytes.take(need.bytes);
        self.at_once += u32::from(need.requests > 0);
    }

    fn tell(&self, names: [&'static str; 3], pressure: Pressure, quotas: &mut Vec<Quota>) {
        for (policy, unit, bucket) in [
            (names[0], Unit::Requests, &self.requests),
            (names[1], Unit::Bytes, &self.bytes),
        ] {
            quotas.push(Quota {
                policy,
                unit,
                granted: bucket.capacity(),
                window: Some(bucket.window()),
                left: bucket.left(pressure),
                reset: bucket.full_in(pressure),
            });
        }
        quotas.push(Quota {
            policy: names[2],
            unit: Unit::AtOnce,
            granted: u64::from(self.at_once_max),
            window: None,
            left: u64::from(self.at_once_max.saturating_sub(self.at_once)),
            reset: None,
        });
    }
}

impl fmt::Debug for Limiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Limiter({} lanes)", self.lanes.len())
    }
}

impl Pool {
    fn new(capacity: u64) -> Self {
        Self { capacity, used: 0 }
    }

    /// Whether one that holds `own` may have `more`: no more than `weight` times what is free afterwards.
    fn admits(&self, own: u64, more: u64, weight: u64) -> bool {
        let taken = self.used.saturating_add(more);
        let free = self.capacity.saturating_sub(taken);
        more == 0 || (taken <= self.capacity && own.saturating_add(more) <= weight.saturating_mul(free))
    }
}

#[cfg(test)]
mod tests;
