//! `landfall extract`: from an API's pages to raw batches.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::{
    clock::Timestamp,
    config::{Name, Project, Source, Stream, StreamName, slice::SliceBy},
    error::{Error, ErrorKind, Result},
    extract::{
        breaker::BreakerState,
        channel::Channel,
        parents,
        progress::{Counts, Progress},
        window::{Extraction, Planned, Position, Scope},
    },
    failpoint,
    format::part::Streamed,
    ops::{
        Workspace, contract,
        extract::{adopt::adopt, groups::Groups, hydrate::DeadLetters},
        heard::Ear,
        landings::Landings,
        lineage,
        transform::load::load_bytes,
    },
    raw::{
        Backfill, Bookmark,
        heard::Heard,
        log::{BatchKind, RawLog},
        write::{Landing, OBJECT_BYTES_MAX, PAGES_MAX},
    },
    report::metrics::Circuit,
};

mod adopt;
mod groups;
pub mod hydrate;

/// Most streams extracted at the same time, however much memory there is.
pub const STREAMS_AT_ONCE_MAX: usize = 8;

/// Pages, or parts of bodies too large for memory, that one extraction, or one slice of it, holds at most: one being
/// compressed, one to be landed behind it, one ahead, and one that waits for room there, or is being read. Small pages
/// share a place.
const PAGES_HELD: u64 = 4;

/// Pages after which a commit is due at the latest, so that a body in parts always finds room in the batch.
const PAGES_PENDING_MAX: u64 = PAGES_MAX / 4;

/// Bytes of one permit of the memory that streams share.
const PERMIT_BYTES: u64 = 1 << 20;

/// What is to be extracted.
#[derive(Clone, Debug)]
pub struct Options {
    /// The streams; their parents are not added.
    pub streams: Vec<StreamName>,
    /// What of them.
    pub scope: Scope,
    /// Those of them that are asked for nothing but what events name.
    pub only_events: Vec<StreamName>,
    /// What is done with events that were given up.
    pub dead_letters: DeadLetters,
    /// Where it is told how far each of them has come.
    pub landings: Arc<Landings>,
}

impl Options {
    /// What changed in `streams` since their watermarks.
    pub fn changes(streams: Vec<StreamName>) -> Self {
        Self::of(streams, Scope::Changes)
    }

    /// Everything there is of `streams`.
    pub fn complete(streams: Vec<StreamName>) -> Self {
        Self::of(streams, Scope::Complete)
    }

    /// A closed range of the cursors of `streams`, as the API writes them.
    pub fn backfill(streams: Vec<StreamName>, from: String, to: String) -> Self {
        Self::of(streams, Scope::Backfill { from, to })
    }

    fn of(streams: Vec<StreamName>, scope: Scope) -> Self {
        Self {
            landings: Arc::new(Landings::of(&streams)),
            streams,
            scope,
            only_events: Vec::new(),
            dead_letters: DeadLetters::Left,
        }
    }
}

/// What one extraction landed.
#[derive(Clone, Debug)]
pub struct Extracted {
    /// Raw batches committed.
    pub batches: u64,
    /// Pages, records, bytes, requests, retries and waiting.
    pub counts: Counts,
    /// What somebody should look at although nothing failed.
    pub notes: Vec<String>,
}

/// How one stream's extraction ended.
#[derive(Debug)]
pub struct Outcome {
    /// The stream.
    pub stream: StreamName,
    /// What was landed, or why it stopped. Pages landed before an error stay landed.
    pub result: Result<Extracted>,
}

/// What the streams of each source share: connections, credentials, budgets, and whose turn it is in a group. To be kept
/// as long as the program runs, or what was spent of a budget is forgotten.
pub struct Channels {
    of_sources: HashMap<Name, Arc<Channel>>,
    groups: Groups,
}

impl Channels {
    /// A channel for every source that can have one; a source that cannot says why to each of its streams.
    pub fn open(workspace: &Workspace) -> Self {
        let channels = workspace.project.sources.iter().filter_map(|source| {
            let channel = open(workspace, source).ok()?;
            Some((source.name.clone(), channel))
        });
        Self {
            of_sources: channels.collect(),
            groups: Groups::of(&workspace.project),
        }
    }

    /// The state of the circuit to each host, in order of source and host.
    pub(super) fn circuits(&self) -> Vec<Circuit> {
        let mut circuits: Vec<Circuit> = self
            .of_sources
            .iter()
            .flat_map(|(source, channel)| {
                channel.circuits().into_iter().map(|(host, state)| Circuit {
                    source: source.to_string(),
                    host,
                    state: match state {
                        BreakerState::Closed => "closed",
                        BreakerState::Open => "open",
                        BreakerState::HalfOpen => "half_open",
                    },
                })
            })
            .collect();
        circuits.sort_by(|a, b| (&a.source, &a.host).cmp(&(&b.source, &b.host)));
        circuits
    }
}

/// Extracts streams, several at once, each on its own: one failing does not hold the others. A stream whose slices are
/// the records of another waits for that one's end, good or bad.
///
/// `begun` is called as each stream starts, with counters that move while it runs. Outcomes are in the order of
/// [`Options::streams`].
pub async fn extract(
    workspace: &Workspace,
    channels: &Channels,
    options: &Options,
    begun: &(dyn Fn(&StreamName, Arc<Progress>) + Sync),
) -> Vec<Outcome> {
    let run_id = uuid::Uuid::now_v7().to_string();
    let memory = Memory::of(&workspace.project);
    let landings = &*options.landings;
    let runs = parents_first(&workspace.project, &options.streams)
        .into_iter()
        .map(|place| {
            let name = &options.streams[place];
            let (run_id, memory) = (&run_id, &memory);
            async move {
                let result = async {
                    let (source, stream) = workspace.project.stream(name)?;
                    let channel = match channels.of_sources.get(&source.name) {
                        Some(channel) => Arc::clone(channel),
                        None => open(workspace, source)?,
                    };
                    for parent in parents_of(source, stream) {
                        if let Some(mut landed) = landings.watch(&parent) {
                            // The sender lives as long as the options.
                            let _ = landed.wait_for(|landed| landed.over).await;
                        }
                    }
                    let _turn = channels.groups.turn(source, stream).await;
                    let _held = memory.take(source, stream).await;
                    let run = Run {
                        workspace,
                        source,
                        stream,
                        channel,
                        run_id,
                        landings,
                    };
                    // On the heap: futures within futures grow with every level, and the compiler counts them.
                    Box::pin(run.extract(options, begun)).await
                };
                let outcome = Outcome {
                    stream: name.clone(),
                    result: lineage::told(workspace, name, result).await,
                };
                landings.end(name);
                (place, outcome)
            }
        });
    // Unordered, so that a stream that waits for its quota keeps only its own place. Parents come first, so a stream
    // that waits for one never holds the place that it needs.
    let mut outcomes: Vec<(usize, Outcome)> = stream::iter(runs)
        .buffer_unordered(STREAMS_AT_ONCE_MAX)
        .collect()
        .await;
    outcomes.sort_by_key(|(place, _)| *place);
    outcomes.into_iter().map(|(_, outcome)| outcome).collect()
}

/// The first requests that extracting each stream would send, at most `most` a stream, and before those of the first one
/// of a source what asks for its quota. Nothing is sent.
pub async fn plan(
    workspace: &Workspace,
    options: &Options,
    most: usize,
) -> Vec<(StreamName, Result<Vec<Planned>>)> {
    let mut plans = Vec::new();
    let mut begun = HashSet::new();
    for name in &options.streams {
        let first = begun.insert(&name.source);
        plans.push((
            name.clone(),
            plan_one(workspace, name, &options.scope, most, first).await,
        ));
    }
    plans
}

async fn plan_one(
    workspace: &Workspace,
    name: &StreamName,
    asked: &Scope,
    most: usize,
    first: bool,
) -> Result<Vec<Planned>> {
    let (source, stream) = workspace.project.stream(name)?;
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: name.clone(),
    };
    let head = log.head().await?;
    let mut standing = head.and_then(|head| head.bookmark).unwrap_or_default();
    let hydration = Box::pin(hydrate::plan(workspace, source, stream, &standing, most)).await?;
    if !stream.is_polled() {
        return Ok(hydration);
    }
    adopt(workspace, stream, &mut standing).await?;
    let scope = scope(stream, workspace.clock.now(), asked, &standing)?;
    let bookmark = Whose::of(&scope, standing, None).begin();
    let channel = Channel::open(
        source,
        &workspace.clock,
        &workspace.project.credentials_dir,
        &workspace.project.spool_dir(),
    )?;
    let mut extraction = Extraction::new(
        source,
        stream,
        Arc::new(channel),
        workspace.clock.clone(),
        bookmark.clone(),
    )?
    .with_scope(scope);
    if stream.slices.is_some() {
        let slices = parents::slices(&workspace.store, source, stream, &bookmark).await?;
        extraction = extraction.with_slices(slices);
    }
    let mut planned = extraction.plan(most).await?;
    if first && !planned.is_empty() {
        planned.splice(..0, extraction.plan_quota()?);
    }
    planned.extend(hydration);
    planned.truncate(most);
    Ok(planned)
}

/// The streams whose records are slices of `stream`, or events that name records of it.
fn parents_of(source: &Source, stream: &Stream) -> Vec<StreamName> {
    let by = stream.slices.as_ref().map_or(&[][..], |slices| &slices.by);
    let parents = by.iter().filter_map(|by| match by {
        SliceBy::Parent(parent) => Some(StreamName {
            source: source.name.clone(),
            stream: parent.stream.clone(),
        }),
        SliceBy::List { .. } => None,
    });
    let events = stream.hydrate.iter().map(|hydrate| StreamName {
        source: source.name.clone(),
        stream: hydrate.from().clone(),
    });
    parents.chain(events).collect()
}

/// The places of `streams`, parents before those that wait for them, else in their order.
fn parents_first(project: &Project, streams: &[StreamName]) -> Vec<usize> {
    let depth = |name: &StreamName| {
        let mut names = vec![name.clone()];
        // The project file has no circle of parents; its reader sees to that.
        for depth in 0..streams.len() {
            let above: Vec<StreamName> = names
                .iter()
                .filter_map(|name| project.stream(name).ok())
                .flat_map(|(source, stream)| parents_of(source, stream))
                .collect();
            if above.is_empty() {
                return depth;
            }
            names = above;
        }
        streams.len()
    };
    let mut places: Vec<usize> = (0..streams.len()).collect();
    places.sort_by_key(|place| depth(&streams[*place]));
    places
}

/// The memory that streams share: each may hold one object and, for every slice at work, a few of the largest pages it
/// accepts.
struct Memory {
    permits: Semaphore,
    total: u32,
}

impl Memory {
    fn of(project: &Project) -> Self {
        let total = permits(project.memory_bytes_max);
        Self {
            permits: Semaphore::new(total as usize),
            total,
        }
    }

    /// Waits until there is room for `stream`. One that needs more than there is runs alone.
    async fn take(&self, source: &Source, stream: &Stream) -> Option<tokio::sync::SemaphorePermit<'_>> {
        let at_once = stream
            .slices
            .as_ref()
            .map_or(1, |slices| u64::from(slices.at_once));
        let hydrated = stream
            .hydrate
            .as_ref()
            .map_or(1, |hydrate| u64::from(hydrate.at_once));
        let limits = &source.limits;
        let held = match Streamed::of(&stream.format, &stream.records) {
            Some(_) => limits.part_bytes,
            None => limits.held_bytes_max,
        };
        let bytes = PAGES_HELD
            .saturating_mul(held.min(limits.page_bytes_max))
            .saturating_mul(at_once.max(hydrated))
            .saturating_add(OBJECT_BYTES_MAX as u64);
        // The semaphore is never closed.
        self.permits
            .acquire_many(permits(bytes).min(self.total))
            .await
            .ok()
    }
}

fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes / PERMIT_BYTES)
        .unwrap_or(u32::MAX)
        .clamp(1, 1 << 24)
}

fn open(workspace: &Workspace, source: &Source) -> Result<Arc<Channel>> {
    Channel::open(
        source,
        &workspace.clock,
        &workspace.project.credentials_dir,
        &workspace.project.spool_dir(),
    )
    .map(Arc::new)
}

/// One stream in one run.
struct Run<'a> {
    workspace: &'a Workspace,
    source: &'a Source,
    stream: &'a Stream,
    channel: Arc<Channel>,
    run_id: &'a str,
    landings: &'a Landings,
}

impl Run<'_> {
    /// What events name first, then what the stream is asked for. One failing does not hold the other.
    async fn extract(
        &self,
        options: &Options,
        begun: &(dyn Fn(&StreamName, Arc<Progress>) + Sync),
    ) -> Result<Extracted> {
        let is_backfill = matches!(options.scope, Scope::Backfill { .. });
        let hydrated = match self.stream.hydrate.as_ref().filter(|_| !is_backfill) {
            Some(hydrate) => Box::pin(self.hydrate(hydrate, options.dead_letters, begun)).await,
            None => Ok(Extracted::nothing()),
        };
        if !self.stream.is_polled() || options.only_events.contains(&self.stream.name) {
            return hydrated;
        }
        let polled = Box::pin(self.poll(&options.scope, begun)).await;
        if let (Err(error), Err(_)) = (&hydrated, &polled) {
            warn!(stream = %self.stream.name, error = error.chain(), "records that events name are not fetched");
        }
        let mut extracted = polled?;
        extracted.add(hydrated?);
        Ok(extracted)
    }

    async fn landing(&self) -> Result<Landing> {
        let workspace = self.workspace;
        let landing = Landing::open(
            Arc::clone(&workspace.store),
            self.stream.name.clone(),
            workspace.clock.clone(),
            self.run_id.to_owned(),
            workspace.project.config_hash.clone(),
        )
        .await?;
        // Only told: landing never looks at a schema, and an unreadable contract stops the transform, not this.
        Ok(match contract::read(&self.stream.contract) {
            Ok(Some(contract)) => landing.with_contract_version(contract.version),
            _ => landing,
        })
    }

    /// The extraction of `stream`, which is that of this run, or how it is asked for what events name.
    fn extraction(&self, stream: &Stream, bookmark: Bookmark, scope: Scope) -> Result<Extraction> {
        let extraction = Extraction::new(
            self.source,
            stream,
            Arc::clone(&self.channel),
            self.workspace.clock.clone(),
            bookmark,
        )?;
        Ok(extraction.with_scope(scope).with_store(&self.workspace.store))
    }

    async fn poll(
        &self,
        asked: &Scope,
        begun: &(dyn Fn(&StreamName, Arc<Progress>) + Sync),
    ) -> Result<Extracted> {
        let workspace = self.workspace;
        let landing = self.landing().await?;
        let mut standing = landing.bookmark();
        adopt(workspace, self.stream, &mut standing).await?;
        let scope = scope(self.stream, workspace.clock.now(), asked, &standing)?;
        let heard = self.listen(&standing, &scope).await?;
        let whose = Whose::of(&scope, standing, heard);
        let bookmark = whose.begin();
        let mut extraction = self.extraction(self.stream, bookmark.clone(), scope.clone())?;
        if self.stream.slices.is_some() {
            let slices = parents::slices(&workspace.store, self.source, self.stream, &bookmark).await?;
            extraction = extraction.with_slices(slices);
        }
        info!(stream = %self.stream.name, watermark = bookmark.watermark, scope = ?scope,
            resumed = bookmark.window.is_some() || bookmark.pass.is_some(), "extract began");
        let complete = scope == Scope::Complete || self.stream.incremental.is_none();
        let kind = if complete {
            BatchKind::Complete
        } else {
            BatchKind::Pull
        };
        self.work(landing, extraction, whose, kind, begun).await
    }

    /// Looks for gaps in what was pushed, and says what to remember once the stream was asked for: nothing if that began
    /// before, and perhaps without what is missing now.
    async fn listen(&self, standing: &Bookmark, scope: &Scope) -> Result<Option<Heard>> {
        if self.stream.gaps.is_none() || matches!(scope, Scope::Backfill { .. }) {
            return Ok(None);
        }
        let mut ear = Ear::default();
        let missing = ear
            .listen(self.workspace, self.source, self.stream, standing)
            .await?;
        if let Some(missing) = missing {
            warn!(stream = %self.stream.name, %missing, "a gap in what was pushed: the stream is asked for it");
        }
        if ear.is_anew() {
            warn!(stream = %self.stream.name,
                "numbers of what was pushed are below those before: they are taken for a new count");
        }
        let is_resumed = standing.window.is_some() || standing.pass.is_some();
        Ok((!is_resumed).then(|| ear.heard(self.workspace.clock.now())))
    }

    /// Lands what `extraction` brings.
    async fn work(
        &self,
        landing: Landing,
        mut extraction: Extraction,
        whose: Whose,
        kind: BatchKind,
        begun: &(dyn Fn(&StreamName, Arc<Progress>) + Sync),
    ) -> Result<Extracted> {
        let workspace = self.workspace;
        let progress = extraction.progress();
        begun(&self.stream.name, Arc::clone(&progress));
        let mut committer = Committer {
            landed: landing.bookmark(),
            landing,
            kind,
            whose,
            records: 0,
            torn: false,
            batches: 0,
            since: workspace.clock.now(),
            landing_time: Duration::ZERO,
            stream: &self.stream.name,
            landings: self.landings,
        };
        let begun = Instant::now();
        let ended = self.land(&mut extraction, &mut committer).await;
        // After a failure too: what came before it is good, and the next run resumes behind it.
        let over = ended.is_ok();
        let committed = committer
            .commit(workspace.clock.now(), extraction.bookmark(), over)
            .await;
        if let Err(error) = ended {
            if let Err(lost) = committed {
                warn!(stream = %self.stream.name, error = lost.chain(), "pages fetched before the failure are not landed");
            }
            return Err(error);
        }
        committed?;
        let extracted = Extracted {
            batches: committer.batches,
            counts: progress.counts(),
            notes: progress.notes(),
        };
        info!(stream = %self.stream.name, batches = extracted.batches, pages = extracted.counts.pages,
            records = extracted.counts.records, bytes = extracted.counts.bytes, elapsed_ms = begun.elapsed().as_millis(),
            land_ms = committer.landing_time.as_millis(), "extract ended");
        Ok(extracted)
    }

    async fn land(&self, extraction: &mut Extraction, committer: &mut Committer<'_>) -> Result<()> {
        let every = &self.stream.commit;
        // A load takes one raw batch at least: no larger one than it has memory for.
        let bytes_max = every.bytes.min(load_bytes(self.workspace));
        // Ends with the window: the extraction itself is bounded by `pages_max`.
        while let Some(fetched) = extraction.next().await? {
            let begun = Instant::now();
            if let Some(mut page) = fetched.page {
                page.facts.hydrated = matches!(committer.whose, Whose::Hydration { .. });
                committer.landing.append(page).await?;
                failpoint::point("extract::page_appended");
            }
            committer.landing_time += begun.elapsed();
            committer.records += fetched.records;
            committer.torn = fetched.position == Position::Part;
            if committer.torn {
                continue;
            }
            let now = self.workspace.clock.now();
            let elapsed = (now - committer.since).to_std().unwrap_or(Duration::ZERO);
            let due = committer.landing.pages_pending() >= u64::from(every.pages).min(PAGES_PENDING_MAX)
                || committer.landing.body_bytes_pending() >= bytes_max
                || elapsed >= every.elapsed;
            if let Position::Evidence(reason) = &fetched.position {
                warn!(stream = %self.stream.name, reason, "answer landed as evidence");
            }
            if due || fetched.position != Position::Middle {
                let over = fetched.position == Position::Last;
                committer.commit(now, extraction.bookmark(), over).await?;
            }
        }
        Ok(())
    }
}

/// What this run asks for: a complete pass if one is under way or due, else what was asked.
fn scope(stream: &Stream, now: Timestamp, asked: &Scope, bookmark: &Bookmark) -> Result<Scope> {
    match asked {
        Scope::Changes => {}
        Scope::Complete => return Ok(Scope::Complete),
        Scope::Backfill { .. } if stream.incremental.is_some() => return Ok(asked.clone()),
        Scope::Backfill { .. } => {
            return Err(Error::new(ErrorKind::Config, "backfill stream")
                .with("stream", &stream.name)
                .with(
                    "problem",
                    "it is not incremental, so there is no range to ask for",
                )
                .with("hint", "run it without --from and --to: it is always read whole"));
        }
    }
    let window = bookmark.window.as_ref();
    let under_way = window.is_some_and(|window| window.complete == Some(true))
        || bookmark.pass.as_ref().is_some_and(|pass| pass.complete);
    if under_way {
        return Ok(Scope::Complete);
    }
    let idle = window.is_none() && bookmark.pass.is_none();
    let (Some(reconcile), true, true) = (stream.reconcile, idle, stream.incremental.is_some()) else {
        return Ok(Scope::Changes);
    };
    let since = bookmark.complete_at.or(bookmark.last_success_at);
    let due = bookmark.unstable
        || since.is_some_and(|since| {
            (now - since)
                .to_std()
                .is_ok_and(|passed| passed >= reconcile.every)
        });
    if due {
        info!(stream = %stream.name, "a complete pass is due");
    }
    Ok(if due { Scope::Complete } else { Scope::Changes })
}

/// Whose bookmark the extraction moves: the stream's own, or that of a backfill or of what events name within it.
enum Whose {
    Stream {
        standing: Bookmark,
        /// What was pushed before it was asked for: of that nothing is missing at the end.
        heard: Option<Heard>,
    },
    Backfill {
        standing: Bookmark,
        from: String,
        to: String,
    },
    Hydration {
        standing: Bookmark,
        /// Whether nothing else moves the stream's own.
        is_alone: bool,
    },
}

impl Whose {
    fn of(scope: &Scope, standing: Bookmark, heard: Option<Heard>) -> Self {
        match scope {
            Scope::Backfill { from, to } => Self::Backfill {
                standing,
                from: from.clone(),
                to: to.clone(),
            },
            Scope::Changes | Scope::Complete => Self::Stream { standing, heard },
        }
    }

    /// Where the extraction begins.
    fn begin(&self) -> Bookmark {
        match self {
            Self::Stream { standing, .. } => standing.clone(),
            Self::Backfill { standing, from, to } => {
                let same = |backfill: &&Backfill| backfill.from == *from && backfill.to == *to;
                let under_way = standing.backfill.as_deref().filter(same);
                under_way.map_or_else(Bookmark::default, |backfill| backfill.bookmark.clone())
            }
            Self::Hydration { standing, .. } => standing.hydration.as_deref().cloned().unwrap_or_default(),
        }
    }

    /// The stream's bookmark when the extraction stands at `moved`.
    fn end(&self, moved: &Bookmark, over: bool) -> Bookmark {
        match self {
            Self::Stream { heard, .. } => Bookmark {
                heard: heard.filter(|_| over).or(moved.heard),
                ..moved.clone()
            },
            Self::Backfill { standing, from, to } => Bookmark {
                backfill: (!over).then(|| {
                    Box::new(Backfill {
                        from: from.clone(),
                        to: to.clone(),
                        bookmark: moved.clone(),
                    })
                }),
                ..standing.clone()
            },
            Self::Hydration { standing, is_alone } => {
                let own = moved.last_success_at.filter(|_| *is_alone);
                Bookmark {
                    hydration: Some(Box::new(moved.clone())),
                    last_success_at: own.or(standing.last_success_at),
                    ..standing.clone()
                }
            }
        }
    }

    /// The records that a batch of `count` has for the pass it is part of.
    fn counted(&self, count: u64) -> Option<u64> {
        match self {
            Self::Stream { .. } | Self::Backfill { .. } => Some(count),
            // They are part of no pass over the stream.
            Self::Hydration { .. } => None,
        }
    }
}

/// The batch being filled, and what was last committed.
struct Committer<'a> {
    landing: Landing,
    landed: Bookmark,
    kind: BatchKind,
    whose: Whose,
    records: u64,
    /// Whether the last page is a part of a body whose next part is missing.
    torn: bool,
    batches: u64,
    since: Timestamp,
    landing_time: Duration,
    stream: &'a StreamName,
    landings: &'a Landings,
}

impl Committer<'_> {
    /// Commits what is pending, with where the extraction stands; nothing pending and nothing moved is nothing to do.
    async fn commit(&mut self, now: Timestamp, moved: &Bookmark, over: bool) -> Result<()> {
        if self.torn {
            return Err(Error::new(ErrorKind::Internal, "commit a part of a body"));
        }
        self.since = now;
        let bookmark = self.whose.end(moved, over);
        if self.landing.pages_pending() == 0 && bookmark == self.landed {
            return Ok(());
        }
        let begun = Instant::now();
        let bytes = self.landing.body_bytes_pending();
        self.landing
            .commit(self.kind, bookmark.clone(), self.whose.counted(self.records))
            .await?;
        self.landing_time += begun.elapsed();
        self.landings.land(self.stream, bytes);
        self.landed = bookmark;
        self.records = 0;
        self.batches += 1;
        Ok(())
    }
}
