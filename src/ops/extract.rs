//! `landfall extract`: from an API's pages to raw batches.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use tracing::{info, warn};

use crate::{
    clock::{Clock, Timestamp},
    config::{Project, Source, Stream, StreamName},
    error::Result,
    extract::{
        client::Client,
        limit::Limiter,
        progress::{Counts, Progress},
        window::{Extraction, Position},
    },
    failpoint,
    ops::{Workspace, contract},
    raw::{
        Bookmark,
        log::BatchKind,
        write::{Landing, OBJECT_BYTES_MAX},
    },
};

/// Most streams extracted at the same time, however much memory there is.
pub const STREAMS_AT_ONCE_MAX: usize = 8;

/// Pages one extraction holds at most: one being landed, one ahead, and one being read in encoded and decoded form.
const PAGES_HELD: u64 = 4;

/// What one extraction landed.
#[derive(Clone, Copy, Debug)]
pub struct Extracted {
    /// Raw batches committed.
    pub batches: u64,
    /// Pages, records, bytes, requests, retries and waiting.
    pub counts: Counts,
}

/// How one stream's extraction ended.
#[derive(Debug)]
pub struct Outcome {
    /// The stream.
    pub stream: StreamName,
    /// What was landed, or why it stopped. Pages landed before an error stay landed.
    pub result: Result<Extracted>,
}

/// Extracts `streams`, several at once, each on its own: one failing does not hold the others.
///
/// `begun` is called as each stream starts, with counters that move while it runs. Outcomes are in the order of `streams`.
pub async fn extract(
    workspace: &Workspace,
    streams: &[StreamName],
    begun: &(dyn Fn(&StreamName, Arc<Progress>) + Sync),
) -> Vec<Outcome> {
    let run_id = uuid::Uuid::now_v7().to_string();
    let mut channels = HashMap::new();
    for source in &workspace.project.sources {
        // A source that cannot have one says so again below, to each of its streams.
        if let Ok(channel) = Channel::open(source, &workspace.clock) {
            channels.insert(&source.name, channel);
        }
    }
    let runs = streams.iter().enumerate().map(|(place, name)| {
        let (channels, run_id) = (&channels, &run_id);
        async move {
            let result = async {
                let (source, stream) = workspace.project.stream(name)?;
                let channel = match channels.get(&source.name) {
                    Some(channel) => channel.clone(),
                    None => Channel::open(source, &workspace.clock)?,
                };
                Run {
                    workspace,
                    source,
                    stream,
                    channel,
                    run_id,
                }
                .extract(begun)
                .await
            };
            let outcome = Outcome {
                stream: name.clone(),
                result: result.await,
            };
            (place, outcome)
        }
    });
    // Unordered, so that a stream that waits for its quota keeps only its own place.
    let at_once = streams_at_once(&workspace.project);
    let mut outcomes: Vec<(usize, Outcome)> = stream::iter(runs).buffer_unordered(at_once).collect().await;
    outcomes.sort_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// As many streams as the memory limit allows: each may hold one object and a few of the largest pages it accepts.
fn streams_at_once(project: &Project) -> usize {
    let page_bytes = project
        .sources
        .iter()
        .map(|source| source.limits.page_bytes_max)
        .max()
        .unwrap_or(0);
    let stream_bytes = PAGES_HELD
        .saturating_mul(page_bytes)
        .saturating_add(OBJECT_BYTES_MAX as u64);
    let fit = project.memory_bytes_max / stream_bytes;
    usize::try_from(fit)
        .unwrap_or(STREAMS_AT_ONCE_MAX)
        .clamp(1, STREAMS_AT_ONCE_MAX)
}

/// What all streams of a source share: its connections and its budget.
#[derive(Clone)]
struct Channel {
    client: Arc<Client>,
    limiter: Arc<Limiter>,
}

impl Channel {
    fn open(source: &Source, clock: &Clock) -> Result<Self> {
        Ok(Self {
            client: Arc::new(Client::new(source)?),
            limiter: Arc::new(Limiter::new(source.rate_limit.as_ref(), clock.clone())),
        })
    }
}

/// One stream in one run.
struct Run<'a> {
    workspace: &'a Workspace,
    source: &'a Source,
    stream: &'a Stream,
    channel: Channel,
    run_id: &'a str,
}

impl Run<'_> {
    async fn extract(&self, begun: &(dyn Fn(&StreamName, Arc<Progress>) + Sync)) -> Result<Extracted> {
        let workspace = self.workspace;
        let mut landing = Landing::open(
            Arc::clone(&workspace.store),
            self.stream.name.clone(),
            workspace.clock.clone(),
            self.run_id.to_owned(),
            workspace.project.config_hash.clone(),
        )
        .await?;
        // Only told: landing never looks at a schema, and an unreadable contract stops the transform, not this.
        if let Ok(Some(contract)) = contract::read(&self.stream.contract) {
            landing = landing.with_contract_version(contract.version);
        }
        let bookmark = landing.bookmark();
        let mut extraction = Extraction::new(
            self.source,
            self.stream,
            Arc::clone(&self.channel.client),
            Arc::clone(&self.channel.limiter),
            workspace.clock.clone(),
            bookmark.clone(),
        )?;
        let progress = extraction.progress();
        begun(&self.stream.name, Arc::clone(&progress));
        info!(stream = %self.stream.name, watermark = bookmark.watermark, resumed = bookmark.window.is_some(), "extract began");
        let mut committer = Committer {
            landing,
            kind: if self.stream.incremental.is_some() {
                BatchKind::Pull
            } else {
                BatchKind::Complete
            },
            bookmark,
            records: 0,
            batches: 0,
            since: workspace.clock.now(),
            landing_time: Duration::ZERO,
        };
        let begun = Instant::now();
        let ended = self.land(&mut extraction, &mut committer).await;
        if let Err(error) = ended {
            // What came before the failure is good: the next run resumes behind it.
            if let Err(lost) = committer.commit(workspace.clock.now()).await {
                warn!(stream = %self.stream.name, error = lost.chain(), "pages fetched before the failure are not landed");
            }
            return Err(error);
        }
        let extracted = Extracted {
            batches: committer.batches,
            counts: progress.counts(),
        };
        info!(stream = %self.stream.name, batches = extracted.batches, pages = extracted.counts.pages,
            records = extracted.counts.records, bytes = extracted.counts.bytes, elapsed_ms = begun.elapsed().as_millis(),
            land_ms = committer.landing_time.as_millis(), "extract ended");
        Ok(extracted)
    }

    async fn land(&self, extraction: &mut Extraction, committer: &mut Committer) -> Result<()> {
        let every = &self.stream.commit;
        // Ends with the window: the extraction itself is bounded by `pages_max`.
        while let Some(fetched) = extraction.next().await? {
            let begun = Instant::now();
            committer.landing.append(fetched.page).await?;
            committer.landing_time += begun.elapsed();
            committer.bookmark = fetched.bookmark;
            committer.records += fetched.records;
            failpoint::point("extract::page_appended");
            let now = self.workspace.clock.now();
            let elapsed = (now - committer.since).to_std().unwrap_or(Duration::ZERO);
            let due = committer.landing.pages_pending() >= u64::from(every.pages)
                || committer.landing.body_bytes_pending() >= every.bytes
                || elapsed >= every.elapsed;
            if let Position::Evidence(reason) = &fetched.position {
                warn!(stream = %self.stream.name, reason, "answer landed as evidence");
            }
            if due || fetched.position != Position::Middle {
                committer.commit(now).await?;
            }
        }
        Ok(())
    }
}

/// The batch being filled, and where extraction stands after it.
struct Committer {
    landing: Landing,
    kind: BatchKind,
    bookmark: Bookmark,
    records: u64,
    batches: u64,
    since: Timestamp,
    landing_time: Duration,
}

impl Committer {
    /// Commits what is pending; nothing pending is nothing to do.
    async fn commit(&mut self, now: Timestamp) -> Result<()> {
        self.since = now;
        if self.landing.pages_pending() == 0 {
            return Ok(());
        }
        let begun = Instant::now();
        self.landing
            .commit(self.kind, self.bookmark.clone(), Some(self.records))
            .await?;
        self.landing_time += begun.elapsed();
        self.records = 0;
        self.batches += 1;
        Ok(())
    }
}
