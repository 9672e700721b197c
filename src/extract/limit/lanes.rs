//! Who waits for a grant within this process, and whose turn it is.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use crate::{
    config::StreamName,
    extract::limit::{
        rules::{Demand, Micros, ahead},
        shared::Away,
    },
};

/// The longest wait without a look at who came and who left.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// Everyone who waits, by stream and by what they ask for. Streams take turns, requests of a stream go in order.
#[derive(Default)]
pub(super) struct Lanes {
    /// The next in turn first; none is empty.
    lanes: VecDeque<Lane>,
}

struct Lane {
    who: StreamName,
    demands: Arc<[Demand]>,
    waiters: VecDeque<oneshot::Sender<Granted>>,
    /// It was told not to ask before.
    not_before: Micros,
}

/// The id of a grant, or why there is none.
pub(super) type Granted = Result<String, Away>;

/// What the one who asks for all does next.
pub(super) enum Step {
    /// Ask for requests of this lane.
    Ask(Turn),
    /// Nobody may ask for this long.
    Wait(Duration),
}

/// A lane whose turn it is.
pub(super) struct Turn {
    who: StreamName,
    /// What each of its requests takes.
    pub(super) demands: Arc<[Demand]>,
    /// How many wait.
    pub(super) want: u32,
    /// Other streams wait for the same budget.
    pub(super) contended: bool,
}

impl Lanes {
    /// Joins the queue. What came of it comes out of the receiver; dropping it leaves the queue.
    pub(super) fn enter(&mut self, who: &StreamName, demands: Vec<Demand>) -> oneshot::Receiver<Granted> {
        let (sender, receiver) = oneshot::channel();
        let known = self
            .lanes
            .iter_mut()
            .find(|lane| lane.who == *who && *lane.demands == *demands);
        match known {
            Some(lane) => lane.waiters.push_back(sender),
            None => {
                let demands: Arc<[Demand]> = demands.into();
                let same = self.lanes.iter().find(|lane| lane.demands == demands);
                self.lanes.push_back(Lane {
                    who: who.clone(),
                    not_before: same.map_or(0, |lane| lane.not_before),
                    demands,
                    waiters: VecDeque::from([sender]),
                });
            }
        }
        receiver
    }

    /// How many wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiters.len()).sum()
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self, now: Micros) -> Step {
        for lane in &mut self.lanes {
            lane.waiters.retain(|waiter| !waiter.is_closed());
        }
        self.lanes.retain(|lane| !lane.waiters.is_empty());
        let Some(lane) = self.lanes.iter().find(|lane| lane.not_before <= now) else {
            let first = self.lanes.iter().map(|lane| lane.not_before).min();
            let wait = first.and_then(|moment| ahead(now, moment));
            return Step::Wait(wait.map_or(IDLE_MAX, |wait| wait.min(IDLE_MAX)));
        };
        let shares = |other: &Lane| {
            other.who != lane.who
                && other
                    .demands
                    .iter()
                    .any(|demand| lane.demands.iter().any(|mine| mine.rate == demand.rate))
        };
        Step::Ask(Turn {
            who: lane.who.clone(),
            demands: Arc::clone(&lane.demands),
            want: u32::try_from(lane.waiters.len()).unwrap_or(u32::MAX),
            contended: self.lanes.iter().any(shares),
        })
    }

    /// Hands grants to the lane that asked, whose next turn comes after those of the others.
    pub(super) fn grant(&mut self, turn: &Turn, ids: impl Iterator<Item = String>) {
        let at = self
            .lanes
            .iter()
            .position(|lane| lane.who == turn.who && lane.demands == turn.demands);
        let Some(mut lane) = at.and_then(|at| self.lanes.remove(at)) else {
            return;
        };
        for mut id in ids.map(Ok) {
            // Who has left in the meantime gives way to the next in the lane.
            while let Some(waiter) = lane.waiters.pop_front() {
                match waiter.send(id) {
                    Ok(()) => break,
                    Err(returned) => id = returned,
                }
            }
        }
        if !lane.waiters.is_empty() {
            self.lanes.push_back(lane);
        }
    }

    /// Nobody who asks for the same waits any longer.
    pub(super) fn fail(&mut self, turn: &Turn, away: Away) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.demands == turn.demands) {
            for waiter in lane.waiters.drain(..) {
                // Who has left does not want to know.
                let _ = waiter.send(Err(away));
            }
        }
        self.lanes.retain(|lane| !lane.waiters.is_empty());
    }

    /// Everyone who asks for the same waits until `moment`.
    pub(super) fn defer(&mut self, turn: &Turn, moment: Micros) {
        for lane in self.lanes.iter_mut().filter(|lane| lane.demands == turn.demands) {
            lane.not_before = moment;
        }
    }

    /// The time told to those who wait least is over.
    pub(super) fn wake(&mut self) {
        if let Some(first) = self.lanes.iter().map(|lane| lane.not_before).min() {
            for lane in self.lanes.iter_mut().filter(|lane| lane.not_before <= first) {
                lane.not_before = 0;
            }
        }
    }
}
