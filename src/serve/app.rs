//! What all requests share.

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use crate::{
    clock::Clock,
    config::{Project, Stream, StreamName, push::Push, serve::Serve},
    receive::{
        ledger::Ledger,
        producer::{Producers, limit::Limiter},
        spool::acknowledger::Acknowledger,
        uploads::Jobs,
    },
    serve::{
        audit::Audit,
        body::{BodyLimits, budget::Budget},
        health::Health,
        hooks::Hooks,
        inspectors::Inspectors,
        lake::Lake,
        metrics::Metrics,
        problem::{Problem, code::Code},
        unusual::Unusual,
    },
};

/// Longest that a request waits for memory that other bodies hold.
pub(crate) const BUDGET_WAIT_MAX: Duration = Duration::from_secs(2);

/// Most pieces of work that go on although nobody may wait for them any more. Far more than requests are let in.
const WORKS_MAX: u32 = 1 << 20;

/// What all requests share.
pub(crate) struct App {
    pub(crate) project: Arc<Project>,
    pub(crate) serve: Serve,
    pub(crate) clock: Clock,
    pub(crate) producers: Producers,
    pub(crate) limiter: Arc<Limiter>,
    pub(crate) budget: Budget,
    pub(crate) acknowledger: Acknowledger,
    pub(crate) ledger: Ledger,
    pub(crate) jobs: Jobs,
    pub(crate) lake: Lake,
    pub(crate) hooks: Hooks,
    pub(crate) inspectors: Inspectors,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) audit: Audit,
    pub(crate) unusual: Unusual,
    pub(crate) health: Arc<Health>,
    /// Whether nobody is asked who it is: no producer is declared, and only this machine can reach the server.
    pub(crate) is_open: bool,
    pub(crate) works: Works,
    /// Where each stream stands in the project.
    pub(crate) places: HashMap<StreamName, (usize, usize)>,
}

/// Work that is not given up when its sender hangs up.
#[derive(Clone, Debug)]
pub(crate) struct Works(Arc<Semaphore>);

impl App {
    /// What stands before every path: empty, or with a slash in front and none behind.
    pub(crate) fn base_path(&self) -> &str {
        self.serve.base_path()
    }

    /// What stands before the path of a link: what producers call the server, without a slash behind, or nothing.
    pub(crate) fn base_url(&self) -> &str {
        self.serve.base_url()
    }

    /// The stream called `name` and how it takes what producers send, if it does.
    pub(crate) fn pushed(&self, name: &StreamName) -> Option<(&Stream, &Push)> {
        let (source, stream) = self.places.get(name)?;
        let stream = self.project.sources.get(*source)?.streams.get(*stream)?;
        Some((stream, stream.feed.push()?))
    }

    /// Every stream that takes what producers send.
    pub(crate) fn all_pushed(&self) -> impl Iterator<Item = (&Stream, &Push)> {
        let streams = self.project.streams();
        streams.filter_map(|(_, stream)| Some((stream, stream.feed.push()?)))
    }

    /// How much of a body is taken, and how long it may take.
    pub(crate) fn body_limits(&self, push: &Push) -> BodyLimits {
        let bytes_max = usize::try_from(push.bytes_max).unwrap_or(usize::MAX);
        BodyLimits {
            wire_bytes_max: bytes_max,
            decoded_bytes_max: bytes_max,
            grace: self.serve.timeouts.read,
            body_timeout: self.serve.timeouts.request,
            ..BodyLimits::BATCH
        }
    }
}

impl Works {
    /// None is under way.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Semaphore::new(WORKS_MAX as usize)))
    }

    /// Does `work` to its end, whether or not somebody goes on waiting for it.
    ///
    /// # Errors
    /// `internal` if it panicked; `shutting_down` if the server has stopped.
    pub(crate) async fn finish<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Problem>> + Send + 'static,
    ) -> Result<T, Problem> {
        let stopped = |_| Problem::new(Code::ShuttingDown, "the server is stopping");
        let place = Arc::clone(&self.0).acquire_owned().await.map_err(stopped)?;
        let done = tokio::spawn(async move {
            let result = work.await;
            drop(place);
            result
        });
        done.await
            .map_err(|_| Problem::new(Code::Internal, "the log has the cause"))?
    }

    /// Waits until none is under way; none begins after that.
    pub(crate) async fn all(&self) {
        // Fails only if it was called before.
        let _ = self.0.acquire_many(WORKS_MAX).await;
        self.0.close();
    }
}

/// Where each stream of `project` stands in it.
pub(crate) fn places(project: &Project) -> HashMap<StreamName, (usize, usize)> {
    let mut places = HashMap::new();
    for (source_index, source) in project.sources.iter().enumerate() {
        for (stream_index, stream) in source.streams.iter().enumerate() {
            places.insert(stream.name.clone(), (source_index, stream_index));
        }
    }
    places
}
