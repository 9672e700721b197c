//! Who works on upload jobs: a few at a time, each from where it is to its end.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;

use crate::{
    error::{Error, ErrorKind},
    receive::uploads::{
        Jobs,
        job::{JobId, Position, State, Trouble},
    },
    serve::{
        app::App,
        body::budget::{Budget, Hold},
        problem::code::Code,
        shutdown::Shutdown,
        uploads::{
            batches::Cut,
            fetch::fetch,
            halt::Halt,
            land::{Landing, aside},
            takes_jobs,
            verify::verify,
        },
    },
};

/// Jobs that are worked on at the same time: enough that one that waits for a slow server does not hold up all.
const WORKERS: usize = 2;

/// How long a job waits that cannot go on because something here is broken.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// How long a job makes way for others when it waits for what does not come soon. It reads its file again then, up to where it
/// was.
const MAKE_WAY: Duration = Duration::from_secs(60);

/// The part of the memory for bodies that all work on jobs may have: the rest is for requests, and for what a contract leaves of
/// a batch.
const MEMORY_PART: u64 = 4;

/// The memory of all work on jobs: its own share of that for bodies.
#[derive(Clone)]
struct Memory {
    share: Budget,
    share_bytes: usize,
}

/// Begins to work on what there is; what it returns is ready when all have ended after `stop`.
pub(crate) fn begin(app: &Arc<App>, stop: &Shutdown) -> impl Future<Output = ()> + use<> {
    let memory = Memory::new(app.serve.limits.bytes_at_once);
    let workers = (0..WORKERS).map(|_| tokio::spawn(work(Arc::clone(app), memory.clone(), stop.clone())));
    let mut tasks: Vec<_> = workers.collect();
    tasks.push(tokio::spawn(sweep(app.jobs.clone(), stop.clone())));
    async move {
        for ended in join_all(tasks).await {
            if ended.is_err() {
                tracing::error!("work on upload jobs panicked: they go on at the next start");
            }
        }
    }
}

impl Memory {
    /// A share of `bytes_at_once`.
    fn new(bytes_at_once: u64) -> Self {
        let share_bytes = usize::try_from(bytes_at_once / MEMORY_PART).unwrap_or(usize::MAX);
        Self {
            // Who finds it taken comes again, and does not stand in the way.
            share: Budget::new(share_bytes, Duration::ZERO),
            share_bytes,
        }
    }

    /// Takes `bytes`, or all of the share if it has fewer, out of the share and of `all`; none if they are not free.
    async fn take(&self, bytes: usize, all: &Budget) -> Option<[Hold; 2]> {
        let bytes = bytes.min(self.share_bytes);
        let own = self.share.take(bytes).await.ok()?;
        Some([own, all.take(bytes).await.ok()?])
    }
}

async fn work(app: Arc<App>, memory: Memory, stop: Shutdown) {
    while !stop.is_stopping() {
        let id = tokio::select! {
            () = stop.stopping() => return,
            id = app.jobs.next() => id,
        };
        let halt = match run(&app, id, &memory, &stop).await {
            Ok(()) => continue,
            Err(Halt::Stopped) => return,
            Err(Halt::Trouble(trouble)) if is_half_landed(&app, id, &trouble) => {
                let Trouble { code, detail, .. } = trouble;
                tracing::error!(job = %id, code, detail, "rest of upload cannot be landed, and is kept");
                later(&app, id, MAKE_WAY, &stop);
                continue;
            }
            Err(Halt::Trouble(trouble)) => match quarantine(&app, id, trouble).await {
                Ok(()) => continue,
                Err(halt) => halt,
            },
            Err(halt) => halt,
        };
        let pause = match halt {
            Halt::Waits(code) => {
                tracing::warn!(job = %id, code = code.row().name, "upload job makes way for others");
                MAKE_WAY
            }
            Halt::Broken(error) => {
                tracing::warn!(job = %id, error = error.chain(), "upload job waits");
                RETRY_AFTER
            }
            Halt::Stopped | Halt::Trouble(_) => RETRY_AFTER,
        };
        later(&app, id, pause, &stop);
    }
}

/// Has a job come again after `pause`, with nobody held up by it: it is in the queue of the next start anyhow.
fn later(app: &App, id: JobId, pause: Duration, stop: &Shutdown) {
    let (jobs, stop) = (app.jobs.clone(), stop.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = stop.stopping() => {}
            () = tokio::time::sleep(pause) => jobs.push(id),
        }
    });
}

/// Whether some of a file is landed whose rest is in trouble: that is no end, unless there is nowhere to land it any more.
fn is_half_landed(app: &App, id: JobId, trouble: &Trouble) -> bool {
    let is_withdrawn = trouble.code == Code::StreamNotFound.row().name;
    !is_withdrawn && app.jobs.get(id).is_some_and(|job| !job.receipts.is_empty())
}

/// Brings a job from where it is to its end.
async fn run(app: &Arc<App>, id: JobId, memory: &Memory, stop: &Shutdown) -> Result<(), Halt> {
    let Some(mut job) = app.jobs.get(id).filter(|job| !job.state.is_end()) else {
        return Ok(());
    };
    if !takes_jobs(app) {
        let error = Error::new(
            ErrorKind::Config,
            "land upload: the server acknowledges from the lake",
        );
        return Err(error.with("hint", "set `ack: spool` until it is landed").into());
    }
    let Some((stream, push)) = app.pushed(&job.stream) else {
        return Err(Halt::trouble(Code::StreamNotFound, "the stream is there no more"));
    };
    if job.is_fetched && job.state != State::Landing {
        fetch(app, &job, stop).await?;
    }
    let Some(hold) = memory.take(Cut::of(push).memory(job.packed), &app.budget).await else {
        tracing::debug!(job = %id, "upload job waits for memory");
        later(app, id, RETRY_AFTER, stop);
        return Ok(());
    };
    if job.state != State::Landing {
        let (file, checked, push, ending) = (app.jobs.file(id), job.clone(), push.clone(), stop.clone());
        let bytes_max = app.serve.uploads.job_bytes_max;
        aside(move || verify(&file, &checked, &push, bytes_max, &ending)).await?;
        let jobs = app.jobs.clone();
        job = aside(move || Ok(jobs.change(id, |job| job.state = State::Landing)?)).await?;
    }
    let position = Landing::of(app, &job, (stream, push), stop)?.run().await?;
    drop(hold);
    if position.records == 0 {
        let jobs = app.jobs.clone();
        aside(move || Ok(jobs.change(id, |job| job.position = position)?)).await?;
        let detail = "no record of the file fits the contract of the stream";
        return Err(Halt::trouble(Code::ContractViolation, detail));
    }
    finish(app, id, position).await
}

async fn finish(app: &App, id: JobId, position: Position) -> Result<(), Halt> {
    let jobs = app.jobs.clone();
    let job = aside(move || {
        Ok(jobs.change(id, |job| {
            job.position = position;
            job.state = State::Done;
        })?)
    })
    .await?;
    tracing::info!(
        job = %id,
        stream = %job.stream,
        records = position.records,
        refused = position.refused,
        "upload landed"
    );
    Ok(())
}

async fn quarantine(app: &App, id: JobId, trouble: Trouble) -> Result<(), Halt> {
    tracing::warn!(job = %id, code = trouble.code, detail = trouble.detail, "upload quarantined");
    let jobs = app.jobs.clone();
    aside(move || {
        jobs.change(id, |job| {
            job.state = State::Quarantined;
            job.problem = Some(trouble);
        })?;
        Ok(())
    })
    .await
}

/// Has what ended long ago be forgotten, until the end.
async fn sweep(jobs: Jobs, stop: Shutdown) {
    loop {
        let swept = jobs.clone();
        if let Err(Halt::Broken(error)) = aside(move || Ok(swept.sweep()?)).await {
            tracing::warn!(error = error.chain(), "upload jobs not swept");
        }
        tokio::select! {
            () = stop.stopping() => return,
            () = tokio::time::sleep(Jobs::SWEEP_EVERY) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_work_on_jobs_has_its_share_of_the_memory_and_no_more() {
        let (memory, all) = (Memory::new(400), Budget::new(400, Duration::ZERO));
        // More than the share is all of it.
        let held = memory.take(1000, &all).await.unwrap();
        assert_eq!(all.bytes_free(), 300);
        assert!(memory.take(1, &all).await.is_none());
        assert_eq!(all.bytes_free(), 300);
        drop(held);
        let both = (memory.take(50, &all).await, memory.take(50, &all).await);
        assert!(both.0.is_some() && both.1.is_some());
        // What requests have is not taken from them.
        drop(both);
        let requests = all.take(390).await.unwrap();
        assert!(memory.take(50, &all).await.is_none());
        drop(requests);
        assert!(memory.take(50, &all).await.is_some());
    }
}
