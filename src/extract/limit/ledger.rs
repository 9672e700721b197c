//! What has been granted, and so what may be: pure, with the moment as an argument.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::rate::WindowKind,
    extract::limit::rules::{Demand, Micros, Rule, ahead, micros},
};

/// Grants of a window remembered one by one; a larger budget is remembered in groups, each counted as late as its
/// last grant.
const GROUPS_MAX: u32 = 250;

/// Members that wait their turn at once; further ones take theirs after them.
const QUEUE_MAX: usize = 64;

/// Rates remembered; a store may be shared by processes with other settings.
const WINDOWS_MAX: usize = 64;

/// How much later than it was told to a member may come back before it loses its turn.
pub(super) const LATE_MAX: Duration = Duration::from_millis(250);

/// The wait of a member whose turn it is not, although there is budget.
pub(super) const TURN_WAIT: Duration = Duration::from_millis(5);

/// How long a budget is shared out after several were seen to want it: one of them may be on its way back.
pub(super) const RIVALS_LAST: Duration = Duration::from_secs(1);

/// The longest time between two grants while several wait for a budget that was spent.
pub(super) const PACE_MAX: Duration = Duration::from_secs(1);

/// Every grant that still counts.
///
/// Grants go at once as far as the budget allows. From the moment it is spent, and as long as several wait for more,
/// they go evenly and in turns: who waits with one worker is not overrun by who waits with ten.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Ledger {
    /// By [`Rule::key`].
    windows: BTreeMap<String, Window>,
    /// Nothing goes before.
    paused_until: Micros,
    /// Every budget counts as spent at this moment.
    spent_at: Option<Micros>,
    /// The greatest moment seen.
    last: Micros,
    /// Requests granted so far.
    granted: u64,
    queue: VecDeque<Waiting>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Window {
    groups: VecDeque<Group>,
    /// When none of them counts any longer.
    free_at: Micros,
    /// The budget was spent and somebody wanted more; until a window after it is free again.
    scarce_until: Micros,
    /// Several wanted it, not longer than [`RIVALS_LAST`] ago.
    contended_until: Micros,
}

/// Requests that went close to each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Group {
    first: Micros,
    last: Micros,
    count: u32,
}

/// A member that was told to come back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Waiting {
    member: u64,
    due: Micros,
    /// The [`Rule::bit`]s of what it waits for.
    bits: u64,
}

/// A wish for requests of one kind.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// What each takes.
    pub(super) demands: Arc<[Demand]>,
    /// How many are wanted, at least 1.
    pub(super) want: u32,
    /// Who asks.
    pub(super) member: u64,
    /// Several streams of the member wait for the same budget.
    pub(super) contended: bool,
}

/// What comes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// So many may go.
    Granted {
        /// Between 1 and what was wanted.
        count: u32,
        /// The number of the first; the others follow it.
        first: u64,
        /// How long one more of the kind would wait.
        next: Duration,
    },
    /// None may go; ask again after this long, which is more than nothing.
    Wait(Duration),
}

impl Ledger {
    /// Takes up to [`Ask::want`] requests from every rate they count for, or from none.
    pub(super) fn take(&mut self, rules: &[Rule], ask: &Ask, now: Micros) -> Verdict {
        if now < self.last {
            self.turn_back(now);
        }
        self.last = now;
        if let Some(wait) = ahead(now, self.paused_until) {
            return Verdict::Wait(wait);
        }
        let bits = ask
            .demands
            .iter()
            .fold(0, |bits, demand| bits | rules[demand.rate].bit());
        let room = match self.room(rules, &ask.demands, now) {
            Ok(room) => room,
            Err(free_at) => {
                for demand in ask.demands.iter() {
                    let rule = &rules[demand.rate];
                    self.window(rule).scarce_until = free_at.saturating_add(rule.per + rule.margin());
                }
                return self.wait(ask, bits, now, free_at);
            }
        };
        let count = match self.turn(rules, ask, bits, room, now) {
            Ok(most) => ask.want.clamp(1, most.max(1)),
            Err(come_back) => return self.wait(ask, bits, now, come_back),
        };
        for demand in ask.demands.iter() {
            let rule = &rules[demand.rate];
            self.window(rule)
                .record(rule, count.saturating_mul(demand.weight), now);
        }
        self.queue.retain(|waiting| waiting.member != ask.member);
        let first = self.granted;
        self.granted += u64::from(count);
        let next = match self.room(rules, &ask.demands, now) {
            Ok(_) => Duration::ZERO,
            Err(free_at) => ahead(now, free_at).unwrap_or_default(),
        };
        Verdict::Granted { count, first, next }
    }

    /// How long one request would wait. Takes nothing.
    pub(super) fn peek(&self, rules: &[Rule], demands: &[Demand], now: Micros) -> Duration {
        let now = now.max(self.last);
        let paused = ahead(now, self.paused_until).unwrap_or_default();
        match self.room(rules, demands, now) {
            Ok(_) => paused,
            Err(free_at) => paused.max(ahead(now, free_at).unwrap_or_default()),
        }
    }

    /// Nothing goes before `until`.
    pub(super) fn pause(&mut self, until: Micros) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Nobody knows what was granted up to `now`, so all of it was.
    pub(super) fn spend_all(&mut self, now: Micros) {
        self.spent_at = Some(now);
    }

    /// How many requests every rate has room for, or when there is room for one.
    fn room(&self, rules: &[Rule], demands: &[Demand], now: Micros) -> Result<u32, Micros> {
        let unused = Window::default();
        let (mut room, mut free_at) = (u32::MAX, now);
        for demand in demands {
            let rule = &rules[demand.rate];
            let spent_until = self.spent_at.map_or(now, |moment| rule.free_at(moment));
            let window = self.windows.get(&rule.key).unwrap_or(&unused);
            free_at = free_at.max(spent_until);
            match window.room(rule, demand.weight, now) {
                Ok(some) => room = room.min(some),
                Err(moment) => free_at = free_at.max(moment),
            }
        }
        if free_at > now { Err(free_at) } else { Ok(room) }
    }

    /// How many of `room` requests the member may take without overrunning others, or when it may ask again.
    fn turn(&mut self, rules: &[Rule], ask: &Ask, bits: u64, room: u32, now: Micros) -> Result<u32, Micros> {
        let late = micros(LATE_MAX);
        self.queue
            .retain(|waiting| now <= waiting.due.saturating_add(late));
        let mine = self.queue.iter().position(|waiting| waiting.member == ask.member);
        let rivals = |waiting: &Waiting| waiting.member != ask.member && waiting.bits & bits != 0;
        let ahead_of_me = self
            .queue
            .iter()
            .take(mine.unwrap_or(QUEUE_MAX))
            .filter(|waiting| rivals(waiting) && waiting.due <= now)
            .count();
        let ahead_of_me = u32::try_from(ahead_of_me).unwrap_or(u32::MAX);
        let turn_at = now.saturating_add(micros(TURN_WAIT));
        if ask.contended || self.queue.iter().any(rivals) {
            for demand in ask.demands.iter() {
                self.window(&rules[demand.rate]).contended_until = now.saturating_add(micros(RIVALS_LAST));
            }
        }
        let windows = &self.windows;
        let paced = ask.demands.iter().filter_map(|demand| {
            let rule = &rules[demand.rate];
            let window = windows.get(&rule.key)?;
            let last = window.groups.back()?.last;
            let shared_out = window.scarce_until > now && window.contended_until > now;
            shared_out.then(|| last + rule.pace(demand.weight).min(micros(PACE_MAX)))
        });
        match paced.max() {
            Some(moment) if moment > now => Err(moment),
            Some(_) if ahead_of_me > 0 => Err(turn_at),
            Some(_) => Ok(1),
            None if ahead_of_me >= room => Err(turn_at),
            None => Ok(room - ahead_of_me),
        }
    }

    fn wait(&mut self, ask: &Ask, bits: u64, now: Micros, until: Micros) -> Verdict {
        let wait = ahead(now, until).unwrap_or(Duration::from_millis(1));
        let due = now.saturating_add(micros(wait));
        if let Some(waiting) = self.queue.iter_mut().find(|waiting| waiting.member == ask.member) {
            waiting.due = due;
            waiting.bits |= bits;
        } else if self.queue.len() < QUEUE_MAX {
            self.queue.push_back(Waiting {
                member: ask.member,
                due,
                bits,
            });
        }
        Verdict::Wait(wait)
    }

    fn window(&mut self, rule: &Rule) -> &mut Window {
        if self.windows.len() >= WINDOWS_MAX && !self.windows.contains_key(&rule.key) {
            let now = self.last;
            self.windows.retain(|_, window| window.free_at > now);
            if self.windows.len() >= WINDOWS_MAX {
                // What is forgotten counts as spent.
                self.windows.clear();
                self.spend_all(now);
            }
        }
        self.windows.entry(rule.key.clone()).or_default()
    }

    /// The clock was set back: what was granted counts as granted now, so that no wait outlasts the window.
    fn turn_back(&mut self, now: Micros) {
        for window in self.windows.values_mut() {
            let counts = window.groups.iter().map(|group| group.count);
            let count = counts.fold(0, u32::saturating_add);
            window.groups.clear();
            (window.scarce_until, window.contended_until) = (0, 0);
            if count > 0 {
                window.groups.push_back(Group {
                    first: now,
                    last: now,
                    count,
                });
            }
        }
        self.paused_until = 0;
        self.spent_at = self.spent_at.map(|moment| moment.min(now));
        self.queue.clear();
    }
}

impl Window {
    /// How many requests of this weight there is room for, or when there is for one.
    fn room(&self, rule: &Rule, weight: u32, now: Micros) -> Result<u32, Micros> {
        if weight > rule.requests {
            return Err(now.saturating_add(rule.per));
        }
        let counted = || self.groups.iter().filter(|group| rule.free_at(group.last) > now);
        let taken: u64 = counted().map(|group| u64::from(group.count)).sum();
        let left = u64::from(rule.requests).saturating_sub(taken);
        if let Some(missing) = u64::from(weight).checked_sub(left).filter(|missing| *missing > 0) {
            let mut freed = 0;
            let enough = counted().find(|group| {
                freed += u64::from(group.count);
                freed >= missing
            });
            let free_at = enough.map_or(now, |group| rule.free_at(group.last));
            return Err(rule.open_at(free_at).max(now + 1));
        }
        match rule.open_at(now) {
            open_at if open_at > now => Err(open_at),
            _ => Ok(u32::try_from(left / u64::from(weight.max(1))).unwrap_or(u32::MAX)),
        }
    }

    fn record(&mut self, rule: &Rule, count: u32, now: Micros) {
        while self
            .groups
            .front()
            .is_some_and(|group| rule.free_at(group.last) <= now)
        {
            self.groups.pop_front();
        }
        let width = match rule.kind {
            WindowKind::Moving if rule.requests > GROUPS_MAX => rule.per / i64::from(GROUPS_MAX),
            _ => 0,
        };
        match self.groups.back_mut() {
            Some(group)
                if group.last == now
                    || now < group.first.saturating_add(width)
                    || (rule.kind == WindowKind::Fixed && rule.same_window(group.last, now)) =>
            {
                group.last = now;
                group.count = group.count.saturating_add(count);
            }
            _ => self.groups.push_back(Group {
                first: now,
                last: now,
                count,
            }),
        }
        self.free_at = rule.free_at(now);
    }
}

#[cfg(test)]
mod tests;
