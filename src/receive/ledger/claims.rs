//! What is being received right now, in memory: one claim per name, and what it left behind until that is on disk.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use tokio::sync::watch;

use crate::error::{Error, ErrorKind, Result};

/// Parts of the map with a lock each: a lookup may read the disk, and holds up only its own part then.
const SHARDS: usize = 64;

/// The claims on names of one kind, and the records `K` that are not committed yet.
pub(super) struct Claims<K> {
    shards: [Mutex<HashMap<[u8; 32], Slot<K>>>; SHARDS],
    slots: AtomicUsize,
    slots_max: usize,
    tickets: AtomicU64,
}

struct Slot<K> {
    held: Option<Held>,
    kept: Option<(Ticket, K)>,
}

/// A name that somebody holds.
#[derive(Clone)]
struct Held {
    fingerprint: [u8; 32],
    // Dropped with the claim, which is what wakes those who wait.
    _alive: Arc<watch::Sender<()>>,
    ended: watch::Receiver<()>,
}

/// Which of several records kept under one name is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// How a name was found.
pub(super) enum Found<K: Clone> {
    /// Somebody else is at it, with a request of this fingerprint.
    Held { fingerprint: [u8; 32], ended: Ended },
    /// It is over, and this is what was kept.
    Kept(K),
    /// The caller holds it now. With it what was kept before, if it does not stand in the way.
    Claimed(Claim<K>, Option<K>),
}

/// Ends when the holder of a claim does.
pub(super) struct Ended(watch::Receiver<()>);

impl Ended {
    pub(super) async fn wait(mut self) {
        // Nothing is ever sent: the only change is that the holder is gone, which is an error here.
        let _ = self.0.changed().await;
    }
}

impl<K: Clone> Claims<K> {
    pub(super) fn new(slots_max: usize) -> Arc<Self> {
        Arc::new(Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            slots: AtomicUsize::new(0),
            slots_max,
            tickets: AtomicU64::new(0),
        })
    }

    /// Looks `name` up, in memory and then with `stored`, and claims it for `fingerprint` if nobody holds it and what was
    /// kept, if anything, does not `stand` in the way; `room` says whether a new name may be taken at all.
    ///
    /// `stored` runs under the lock of the name: whoever comes second sees a claim or a committed record, never neither.
    pub(super) fn find(
        self: &Arc<Self>,
        name: [u8; 32],
        fingerprint: [u8; 32],
        stored: impl FnOnce() -> Result<Option<K>>,
        stand: impl FnOnce(&K) -> bool,
        room: impl FnOnce() -> Result<()>,
    ) -> Result<Found<K>> {
        let mut shard = self.shard(&name);
        let slot = shard.get(&name);
        if let Some(held) = slot.and_then(|slot| slot.held.as_ref()) {
            return Ok(Found::Held {
                fingerprint: held.fingerprint,
                ended: Ended(held.ended.clone()),
            });
        }
        let kept = match slot.and_then(|slot| slot.kept.as_ref()) {
            Some((_, kept)) => Some(kept.clone()),
            None => stored()?,
        };
        if let Some(kept) = kept.as_ref().filter(|kept| stand(kept)) {
            return Ok(Found::Kept(kept.clone()));
        }
        room()?;
        self.hold(&mut shard, name, fingerprint)?;
        let claim = Claim {
            claims: Arc::clone(self),
            name,
            over: false,
        };
        Ok(Found::Claimed(claim, kept))
    }

    /// What was kept last under `name`, in memory or with `stored`, whoever holds it now.
    pub(super) fn look(
        &self,
        name: &[u8; 32],
        stored: impl FnOnce() -> Result<Option<K>>,
    ) -> Result<Option<K>> {
        let shard = self.shard(name);
        match shard.get(name).and_then(|slot| slot.kept.as_ref()) {
            Some((_, kept)) => Ok(Some(kept.clone())),
            None => stored(),
        }
    }

    /// Forgets what was kept under `ticket`: it is committed, and will be found on disk.
    pub(super) fn committed(&self, name: [u8; 32], ticket: Ticket) {
        let mut shard = self.shard(&name);
        if let Entry::Occupied(mut slot) = shard.entry(name) {
            if slot.get().kept.as_ref().is_some_and(|(kept, _)| *kept == ticket) {
                slot.get_mut().kept = None;
            }
            self.forget_if_empty(slot);
        }
    }

    /// Names in memory now.
    pub(super) fn len(&self) -> usize {
        self.slots.load(Ordering::Relaxed)
    }

    fn hold(
        &self,
        shard: &mut HashMap<[u8; 32], Slot<K>>,
        name: [u8; 32],
        fingerprint: [u8; 32],
    ) -> Result<()> {
        let (alive, ended) = watch::channel(());
        let held = Some(Held {
            fingerprint,
            _alive: Arc::new(alive),
            ended,
        });
        match shard.entry(name) {
            Entry::Occupied(mut slot) => slot.get_mut().held = held,
            Entry::Vacant(slot) => {
                if self.slots.fetch_add(1, Ordering::Relaxed) >= self.slots_max {
                    self.slots.fetch_sub(1, Ordering::Relaxed);
                    return Err(Error::new(ErrorKind::Limit, "begin request with a key")
                        .with("in_flight_max", self.slots_max)
                        .with("hint", "send fewer requests at once, or again later"));
                }
                slot.insert(Slot { held, kept: None });
            }
        }
        Ok(())
    }

    fn shard(&self, name: &[u8; 32]) -> MutexGuard<'_, HashMap<[u8; 32], Slot<K>>> {
        // Names are hashes: their bytes are evenly spread.
        let shard = &self.shards[usize::from(name[0]) % SHARDS];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_if_empty(&self, slot: std::collections::hash_map::OccupiedEntry<'_, [u8; 32], Slot<K>>) {
        if slot.get().held.is_none() && slot.get().kept.is_none() {
            slot.remove();
            self.slots.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// The right to be the one that does it. Dropped without [`Claim::keep`] it gives the name free again.
pub(super) struct Claim<K: Clone> {
    claims: Arc<Claims<K>>,
    name: [u8; 32],
    over: bool,
}

impl<K: Clone> Claim<K> {
    pub(super) fn name(&self) -> [u8; 32] {
        self.name
    }

    /// Ends the claim and keeps `record` in memory until it is [`Claims::committed`].
    pub(super) fn keep(mut self, record: K) -> Ticket {
        let ticket = Ticket(self.claims.tickets.fetch_add(1, Ordering::Relaxed));
        let mut shard = self.claims.shard(&self.name);
        if let Some(slot) = shard.get_mut(&self.name) {
            slot.kept = Some((ticket, record));
            slot.held = None;
        }
        drop(shard);
        self.over = true;
        ticket
    }
}

impl<K: Clone> Drop for Claim<K> {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut shard = self.claims.shard(&self.name);
        if let Entry::Occupied(mut slot) = shard.entry(self.name) {
            slot.get_mut().held = None;
            self.claims.forget_if_empty(slot);
        }
    }
}
