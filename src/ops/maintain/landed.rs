//! The raw side: what has expired goes, and what nobody refers to.

use std::time::Duration;

use futures::TryStreamExt as _;
use object_store::{ObjectMeta, path::Path};

use super::{
    Run, StepResult, Task,
    keep::{Kept, held, kept, log, newest, watermark},
};
use crate::{
    clock::Timestamp,
    config::{Stream, StreamName},
    error::{Error, ErrorKind, Result},
    ops::rebuild::swapping,
    raw::{
        BatchNumber,
        expire::{self, Expired},
        layout, orphans,
        store::{self, lower},
    },
};

/// Steps of expiry in one run for one stream: a million batches.
const STEPS_MAX: usize = 1000;

/// A rebuilt table waits for as long beside the live one to be looked at. No replay takes so long either.
const STAGED_AGE_MIN: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Objects that nobody refers to and that one run deletes for one stream.
const ORPHANS_MAX: usize = 1_000_000;

impl Run<'_> {
    /// Deletes the raw objects of `streams` whose retention has ended.
    pub(super) async fn expire(&mut self, streams: &[StreamName]) {
        for name in streams {
            let result = self.expire_stream(name).await;
            self.took(Task::Expire, layout::raw(name), result);
        }
    }

    async fn expire_stream(&self, name: &StreamName) -> Result<StepResult> {
        let workspace = self.workspace;
        let (source, stream) = workspace.project.stream(name)?;
        let log = log(workspace, name);
        let expired = Expired::of(&log).await?;
        let Some(retention) = stream.retention.raw else {
            return Ok(StepResult::NOTHING);
        };
        let keep = match kept(workspace, source, stream).await? {
            Kept::All(reason) => return Ok(StepResult::kept(reason)),
            Kept::Some(keep) => keep,
        };
        self.refuse_links(&layout::raw(name)).await?;
        let (mut objects, mut bytes, mut batches) = (0, 0, 0);
        if !self.is_dry() {
            for range in expired.open() {
                let (found, size) = expire::finish(&log, *range).await?;
                objects += found;
                bytes += size;
            }
        }
        let now = workspace.clock.now();
        let Some(before) = now.checked_sub_signed(span(retention)?) else {
            return Ok(StepResult::NOTHING);
        };
        let mut next = Some(BatchNumber::FIRST);
        for _ in 0..STEPS_MAX {
            let Some(from) = next else { break };
            let due = expire::due(&log, &expired, &keep, before, from).await?;
            objects += due.objects.len() as u64;
            bytes += due.bytes();
            let counts = due
                .ranges
                .iter()
                .map(|(first, last)| last.get() - first.get() + 1);
            batches += counts.sum::<i64>();
            if !self.is_dry() && !due.ranges.is_empty() {
                self.prove_loaded(stream, due.ranges.last().map(|range| range.1))
                    .await?;
                expire::expire(&log, &due, now).await?;
            }
            next = due.next;
        }
        let mut notes = Vec::new();
        if batches > 0 {
            notes.push(format!("{batches} batches"));
        }
        let held = keep.single.range(..keep.from).count();
        if held > 0 {
            notes.push(format!("{held} kept for records in quarantine"));
        }
        if next.is_some() {
            notes.push("more is left to the next run".to_owned());
        }
        Ok(StepResult::Done {
            objects,
            bytes,
            note: (!notes.is_empty()).then(|| notes.join(", ")),
        })
    }

    /// Asks the live table once more, right before something goes for good.
    async fn prove_loaded(&self, stream: &Stream, last: Option<BatchNumber>) -> Result<()> {
        if let Some(reason) = held(self.workspace, stream).await? {
            return Err(Error::new(ErrorKind::Refused, "expire raw batches")
                .with("stream", &stream.name)
                .with("problem", reason));
        }
        let loaded = watermark(self.workspace, &stream.name).await?;
        if loaded >= last {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Conflict, "expire raw batches")
            .with("stream", &stream.name)
            .with("problem", "the table no longer holds what was about to expire"))
    }

    /// Deletes what processes that died left behind.
    pub(super) async fn sweep(&mut self, streams: &[StreamName], whole: bool) {
        for name in streams {
            let result = self.sweep_raw(name).await;
            self.took(Task::Sweep, layout::raw(name), result);
            let staged = layout::staged(name);
            let result = self.sweep_staged(&staged).await;
            self.took(Task::Sweep, staged, result);
        }
        if whole {
            let probes = layout::probes();
            let result = self.sweep_probes(&probes).await;
            self.took(Task::Sweep, probes, result);
            let result = self.sweep_unfinished().await;
            self.took(Task::Sweep, Path::default(), result);
        }
    }

    fn age_min(&self) -> Duration {
        self.workspace.project.maintain.sweep_after
    }

    async fn sweep_raw(&self, name: &StreamName) -> Result<StepResult> {
        let (_, stream) = self.workspace.project.stream(name)?;
        if let Some(reason) = held(self.workspace, stream).await? {
            return Ok(StepResult::kept(reason));
        }
        self.refuse_links(&layout::raw(name)).await?;
        let log = log(self.workspace, name);
        let limits = orphans::Limits {
            age_min: self.age_min(),
            orphans_max: ORPHANS_MAX,
        };
        let now = self.workspace.clock.now();
        if self.is_dry() {
            let (found, _) = orphans::find(&log, now, limits).await?;
            let files = found
                .iter()
                .filter(|orphan| matches!(orphan.key, layout::Key::File { .. }))
                .count();
            return Ok(StepResult::Done {
                objects: found.len() as u64,
                bytes: found.iter().map(|orphan| orphan.bytes).sum(),
                note: (files > 0).then(|| format!("{files} are files, which go in two runs")),
            });
        }
        let swept = orphans::sweep(&log, now, limits).await?;
        let mut notes = Vec::new();
        if swept.condemned > 0 {
            notes.push(format!("{} files go with a later run", swept.condemned));
        }
        if swept.more {
            notes.push("more is left to the next run".to_owned());
        }
        Ok(StepResult::Done {
            objects: swept.objects + swept.files,
            bytes: swept.bytes,
            note: (!notes.is_empty()).then(|| notes.join(", ")),
        })
    }

    /// Deletes tables beside the live ones, once nobody has written to any of them for long.
    async fn sweep_staged(&self, staged: &Path) -> Result<StepResult> {
        let age_min = self.age_min().max(STAGED_AGE_MIN);
        let mut objects = self.list(staged).await?;
        if objects.iter().any(|object| swapping::is_word(&object.location)) {
            let reason =
                "a rebuild died while it put its tables in place; `landfall rebuild --promote` finishes it";
            return Ok(StepResult::kept(reason));
        }
        if !self.is_stale(newest(&objects), age_min) {
            return Ok(StepResult::NOTHING);
        }
        self.refuse_links(staged).await?;
        // Nobody takes what is half gone for a table: its log goes first.
        objects.sort_by_key(|object| !object.location.as_ref().contains("/_delta_log/"));
        self.remove(&objects).await?;
        Ok(StepResult::of(&objects))
    }

    async fn sweep_probes(&self, probes: &Path) -> Result<StepResult> {
        let mut objects = self.list(probes).await?;
        objects.retain(|object| self.is_stale(Some(object.last_modified), self.age_min()));
        if objects.is_empty() {
            return Ok(StepResult::NOTHING);
        }
        self.refuse_links(probes).await?;
        self.remove(&objects).await?;
        Ok(StepResult::of(&objects))
    }

    /// Removes files of a local lake that were never finished.
    async fn sweep_unfinished(&self) -> Result<StepResult> {
        if self.is_dry() {
            return Ok(StepResult::NOTHING);
        }
        let workspace = self.workspace;
        let removed = store::sweep(&workspace.project.lake, &workspace.clock, self.age_min()).await?;
        Ok(StepResult::Done {
            objects: removed,
            bytes: 0,
            note: (removed > 0).then(|| "files that were never finished".to_owned()),
        })
    }

    fn is_stale(&self, written: Option<Timestamp>, age_min: Duration) -> bool {
        let age = written.and_then(|written| (self.workspace.clock.now() - written).to_std().ok());
        age.is_some_and(|age| age >= age_min)
    }

    async fn list(&self, folder: &Path) -> Result<Vec<ObjectMeta>> {
        let listed = self.workspace.store.list(Some(folder)).try_collect().await;
        listed.map_err(|error| lower(error, "list objects", folder))
    }
}

/// A duration as one that can be taken from a moment.
pub(super) fn span(duration: Duration) -> Result<chrono::TimeDelta> {
    chrono::TimeDelta::from_std(duration)
        .map_err(|source| Error::new(ErrorKind::Internal, "count back in time").caused_by(source))
}
