//! Upload jobs: files that are larger than a request may be, kept until their records are landed.
//!
//! ```text
//! make ─┬ waiting_for_upload ─ append … append ─┐                           ┌► done
//!       └ queued ─ fetching ────────────────────┴► queued ─ sound? ─ landing ┤
//!                                                            └────────────── ┴► quarantined ─► forgotten
//! ```
//!
//! Each job is two files: what is known of it, replaced in one step whenever that changes, and its bytes. The bytes up to the
//! offset that is known are durable; what a crash left behind them is void. Nothing here works on jobs: whoever does takes
//! them from [`Jobs::next`], in order, and again after every start until they have ended.

pub mod job;

mod folder;

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque},
    path::PathBuf,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::{
    clock::{Clock, Timestamp},
    config::uploads::Uploads,
    error::{Error, ErrorKind, Result},
    receive::uploads::{
        folder::Folder,
        job::{Announced, Job, JobId, State, Trouble},
    },
};

/// The part of all that one producer may have, in percent: something is left for the others.
const SHARE_PERCENT: u64 = 75;

/// Most jobs that are told of when they have ended; the oldest are forgotten before that.
const ENDED_MAX: usize = 10_000;

/// All jobs of a server. Clones are the same jobs.
#[derive(Clone)]
pub struct Jobs {
    inner: Arc<Inner>,
}

struct Inner {
    folder: Folder,
    clock: Clock,
    bytes_max: u64,
    jobs_max: u64,
    ended_max: usize,
    entries: Mutex<HashMap<JobId, Arc<Entry>>>,
    /// Held by whoever adds a job, so that two do not take the same room.
    adding: Mutex<()>,
    queue: Mutex<VecDeque<JobId>>,
    queued: Notify,
}

struct Entry {
    /// Held for a copy only.
    job: Mutex<Job>,
    /// Held by whoever changes the files.
    changing: Mutex<()>,
}

/// How an announced file is met.
pub enum Made {
    /// As a new job, or as one that is begun anew.
    New(Job),
    /// It was announced before.
    Known(Job),
    /// Another request had its key.
    Other,
    /// As many files are on their way as may be: all, or of this producer.
    TooMany,
    /// There is no room for so many bytes.
    NoRoom,
}

/// What came of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is durable, and so many bytes of the file are.
    Kept(u64),
    /// It does not begin where the file ends, which is here.
    Elsewhere(u64),
    /// The file ends before or behind it.
    OfAnotherLength,
    /// The file is complete, or the job has ended.
    Complete,
    /// It came too late.
    Expired,
}

impl Jobs {
    /// How long a file that is sent may rest.
    pub const UPLOAD_WITHIN: Duration = Duration::from_secs(24 * 60 * 60);
    /// How long what became of a job is told, if no more than 10,000 end in that time.
    pub const TOLD_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);
    /// How often [`Jobs::sweep`] is to be called.
    pub const SWEEP_EVERY: Duration = Duration::from_secs(60);
    /// The code of what was not sent in time.
    pub const EXPIRED: &str = "upload_expired";

    /// Opens the jobs in their folder; those that have not ended are in the queue.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another server has the folder; [`ErrorKind::Unavailable`] if it cannot be used.
    pub fn open(settings: &Uploads, clock: Clock) -> Result<Self> {
        let folder = Folder::lock(&settings.dir)?;
        let mut jobs = folder.jobs(clock.now())?;
        jobs.sort_by_key(|job| job.updated_at);
        let is_to_do = |job: &&Job| !job.state.is_end() && job.state != State::WaitingForUpload;
        let queue = jobs.iter().filter(is_to_do).map(|job| job.id).collect();
        let entries = jobs.into_iter().map(|job| (job.id, Entry::new(job)));
        Ok(Self {
            inner: Arc::new(Inner {
                entries: Mutex::new(entries.collect()),
                queue: Mutex::new(queue),
                queued: Notify::new(),
                adding: Mutex::default(),
                bytes_max: settings.bytes_max,
                jobs_max: u64::from(settings.jobs_max),
                ended_max: ENDED_MAX,
                folder,
                clock,
            }),
        })
    }

    /// The job, if it is known.
    pub fn get(&self, id: JobId) -> Option<Job> {
        let entry = lock(&self.inner.entries).get(&id).cloned()?;
        let job = lock(&entry.job).clone();
        let over = job.state.is_end() && self.is_older(job.updated_at, Self::TOLD_FOR);
        (!over).then_some(job)
    }

    /// Whether nothing came for a file that is sent for too long.
    pub fn has_expired(&self, job: &Job) -> bool {
        job.state == State::WaitingForUpload && self.is_older(job.updated_at, Self::UPLOAD_WITHIN)
    }

    /// The job of a file that is announced. `is_keyed` says that its name does not follow from the file. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if the disk is full, [`ErrorKind::Unavailable`] if it cannot be written.
    pub fn make(&self, announced: Announced, is_keyed: bool) -> Result<Made> {
        let _adding = lock(&self.inner.adding);
        let now = self.inner.clock.now();
        if let Some(known) = self.get(announced.id) {
            if is_keyed && known.request != announced.request {
                return Ok(Made::Other);
            }
            if !known.may_begin_anew() && !self.has_expired(&known) {
                return Ok(Made::Known(known));
            }
        }
        if let Some(refused) = self.room(&announced) {
            return Ok(refused);
        }
        self.forget_oldest(&announced)?;
        let job = Job::new(announced, now);
        let before = lock(&self.inner.entries).get(&job.id).cloned();
        let _changing = before.as_ref().map(|entry| lock(&entry.changing));
        self.inner.folder.drop_bytes(job.id);
        self.inner.folder.keep(&job)?;
        lock(&self.inner.entries).insert(job.id, Entry::new(job.clone()));
        if job.state == State::Queued {
            self.push(job.id);
        }
        Ok(Made::New(job))
    }

    /// Forgets jobs that have ended, the oldest first, until one more may end: of all, and of the producer. The caller holds
    /// `adding`.
    fn forget_oldest(&self, announced: &Announced) -> Result<()> {
        let own_max = self.inner.ended_max * SHARE_PERCENT as usize / 100;
        let entries: Vec<_> = lock(&self.inner.entries).values().cloned().collect();
        if entries.len() < own_max {
            return Ok(());
        }
        let mut ended = Vec::new();
        for entry in entries {
            let job = lock(&entry.job);
            if job.state.is_end() && job.id != announced.id {
                let (at, id, is_own) = (job.updated_at, job.id, job.producer == announced.producer);
                drop(job);
                ended.push((at, id, is_own, entry));
            }
        }
        ended.sort_by_key(|(at, ..)| *at);
        let own = ended.iter().filter(|(_, _, is_own, _)| *is_own).count();
        let mut own_surplus = (own + 1).saturating_sub(own_max);
        let surplus = (ended.len() + 1).saturating_sub(self.inner.ended_max);
        let (first, mut rest): (Vec<_>, Vec<_>) = ended.into_iter().partition(|(_, _, is_own, _)| {
            let goes = *is_own && own_surplus > 0;
            own_surplus -= usize::from(goes);
            goes
        });
        rest.truncate(surplus.saturating_sub(first.len()));
        for (_, id, _, entry) in first.into_iter().chain(rest) {
            self.forget(id, &entry)?;
        }
        Ok(())
    }

    /// Forgets a job, unless it was begun anew meanwhile. The caller holds `adding`.
    fn forget(&self, id: JobId, entry: &Arc<Entry>) -> Result<()> {
        let _changing = lock(&entry.changing);
        if self.is_current(id, entry) {
            self.inner.folder.forget(id)?;
            lock(&self.inner.entries).remove(&id);
        }
        Ok(())
    }

    /// Whether `entry`, whose files the caller may change, is what is known of the job: it is not if that was begun anew, or
    /// forgotten.
    fn is_current(&self, id: JobId, entry: &Arc<Entry>) -> bool {
        let entries = lock(&self.inner.entries);
        entries.get(&id).is_some_and(|now| Arc::ptr_eq(now, entry))
    }

    /// Why there is no room for what is announced.
    fn room(&self, announced: &Announced) -> Option<Made> {
        let entries: Vec<_> = lock(&self.inner.entries).values().cloned().collect();
        let (mut all, mut own) = ((0, 0), (0, 0));
        for entry in entries {
            let job = lock(&entry.job);
            if job.state.is_end() || job.id == announced.id {
                continue;
            }
            let add = |(jobs, bytes): (u64, u64)| (jobs + 1, bytes + job.bytes);
            all = add(all);
            if job.producer == announced.producer {
                own = add(own);
            }
        }
        let share = |most: u64| (most.saturating_mul(SHARE_PERCENT)).div_ceil(100);
        let (jobs_max, bytes_max) = (self.inner.jobs_max, self.inner.bytes_max);
        if all.0 >= jobs_max || own.0 >= share(jobs_max) {
            return Some(Made::TooMany);
        }
        // The first file of a producer may be as large as any.
        let own_bytes_max = if own.0 == 0 { bytes_max } else { share(bytes_max) };
        let fits = |held: u64, most: u64| held.saturating_add(announced.bytes) <= most;
        (!fits(all.1, bytes_max) || !fits(own.1, own_bytes_max)).then_some(Made::NoRoom)
    }

    /// Keeps a piece of a file that is sent; `is_last` says that the file ends with it. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if the disk is full, [`ErrorKind::Unavailable`] if it cannot be written. Then nothing is kept, and
    /// the same piece may be sent again.
    pub fn append(&self, id: JobId, offset: u64, bytes: &[u8], is_last: bool) -> Result<Appended> {
        let entry = self.entry(id)?;
        let _changing = lock(&entry.changing);
        if !self.is_current(id, &entry) {
            return Ok(Appended::Expired);
        }
        let mut job = lock(&entry.job).clone();
        if let Some(refused) = self.piece(&job, offset, bytes.len() as u64, is_last) {
            return Ok(refused);
        }
        self.inner.folder.write(id, offset, bytes)?;
        job.offset = offset + bytes.len() as u64;
        if is_last {
            job.state = State::Queued;
        }
        let kept = job.offset;
        self.keep(&entry, job)?;
        if is_last {
            self.push(id);
        }
        Ok(Appended::Kept(kept))
    }

    /// Why a piece of so many `bytes` is not taken.
    pub fn piece(&self, job: &Job, offset: u64, bytes: u64, is_last: bool) -> Option<Appended> {
        if job.state != State::WaitingForUpload {
            return Some(Appended::Complete);
        }
        if self.has_expired(job) {
            return Some(Appended::Expired);
        }
        if offset != job.offset {
            return Some(Appended::Elsewhere(job.offset));
        }
        let end = offset.saturating_add(bytes);
        (end > job.bytes || is_last && end != job.bytes).then_some(Appended::OfAnotherLength)
    }

    /// Changes a job. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if the disk is full, [`ErrorKind::Unavailable`] if it cannot be written or is not known: then
    /// nothing is changed.
    pub fn change(&self, id: JobId, change: impl FnOnce(&mut Job)) -> Result<Job> {
        let entry = self.entry(id)?;
        let _changing = lock(&entry.changing);
        if !self.is_current(id, &entry) {
            return Err(Error::new(ErrorKind::Unavailable, "change upload job begun anew").with("job", id));
        }
        let mut job = lock(&entry.job).clone();
        change(&mut job);
        if job.state.is_end() {
            job.url = None;
            job.etag = None;
        }
        self.keep(&entry, job)
    }

    fn keep(&self, entry: &Entry, mut job: Job) -> Result<Job> {
        job.updated_at = job.updated_at.max(self.inner.clock.now());
        self.inner.folder.keep(&job)?;
        if job.state.is_end() {
            self.inner.folder.drop_bytes(job.id);
        }
        *lock(&entry.job) = job.clone();
        Ok(job)
    }

    /// Where the bytes of a job are.
    pub fn file(&self, id: JobId) -> PathBuf {
        self.inner.folder.bytes(id)
    }

    /// The job that has waited longest, out of the queue, as soon as there is one.
    pub async fn next(&self) -> JobId {
        loop {
            let mut queued = pin!(self.inner.queued.notified());
            queued.as_mut().enable();
            if let Some(id) = lock(&self.inner.queue).pop_front() {
                return id;
            }
            queued.await;
        }
    }

    /// Puts a job to the end of the queue.
    pub fn push(&self, id: JobId) {
        lock(&self.inner.queue).push_back(id);
        self.inner.queued.notify_waiters();
    }

    /// Ends what was not sent in time, and forgets what ended long ago. Waits for the disk.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written; the rest is done the next time.
    pub fn sweep(&self) -> Result<()> {
        let entries: Vec<_> = lock(&self.inner.entries).values().cloned().collect();
        for entry in entries {
            let job = lock(&entry.job).clone();
            if self.has_expired(&job) {
                self.expire(job.id, &entry)?;
            } else if job.state.is_end() && self.is_older(job.updated_at, Self::TOLD_FOR) {
                let _adding = lock(&self.inner.adding);
                self.forget(job.id, &entry)?;
            }
        }
        Ok(())
    }

    /// Ends a job that was not sent in time, unless it was meanwhile, or begun anew.
    fn expire(&self, id: JobId, entry: &Arc<Entry>) -> Result<()> {
        let _changing = lock(&entry.changing);
        let mut job = lock(&entry.job).clone();
        if self.is_current(id, entry) && self.has_expired(&job) {
            job.state = State::Quarantined;
            job.problem = Some(Trouble {
                code: Self::EXPIRED.to_owned(),
                detail: "nothing of the file was sent for 24 hours".to_owned(),
                retryable: true,
            });
            self.keep(entry, job)?;
        }
        Ok(())
    }

    fn entry(&self, id: JobId) -> Result<Arc<Entry>> {
        let known = lock(&self.inner.entries).get(&id).cloned();
        known.ok_or_else(|| Error::new(ErrorKind::Unavailable, "find upload job").with("job", id))
    }

    fn is_older(&self, at: Timestamp, age: Duration) -> bool {
        let elapsed = (self.inner.clock.now() - at).to_std();
        elapsed.is_ok_and(|elapsed| elapsed >= age)
    }
}

impl Entry {
    fn new(job: Job) -> Arc<Self> {
        Arc::new(Self {
            job: Mutex::new(job),
            changing: Mutex::default(),
        })
    }
}

/// Nobody who holds one of these locks leaves something half done: a panic within does not matter to others.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
