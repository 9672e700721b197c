//! An extraction: one pass over a stream, from its first page to its last, across as many runs as it takes.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use object_store::ObjectStore;
use serde_json::{Map, Value};
use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};
use tracing::warn;

use crate::{
    clock::{Clock, Timestamp},
    config::{Source, Stream},
    error::{Error, ErrorKind, Result},
    extract::{
        channel::Channel,
        fetch::Fetcher,
        files::Filing,
        progress::Progress,
        pull::{Landed, Mark, Pull, Step, Waiting},
        spool::Parts,
        sweep::{Slices, Slot, Sweep, key, say_ignored},
    },
    raw::{Bookmark, Page},
};

/// Most pages fetched ahead of the one the caller holds.
pub(crate) const LOOKAHEAD_PAGES_MAX: usize = 8;

/// Bodies fetched ahead have no more bytes than this, unless one alone has: enough to go on while a batch is committed.
pub(crate) const LOOKAHEAD_BYTES_MAX: u32 = 16 << 20;

/// The pages of one stream, from where a bookmark stands to the end of the pass.
///
/// A bookmark with an open window resumes at its next page; one without opens a window at its watermark less the
/// lookback. Pages of one slice come in order; slices are pulled side by side. Memory: the caller's page,
/// [`LOOKAHEAD_BYTES_MAX`] or one page more, one that waits for room, and the encoded form of those being read. Dropping it stops the
/// fetches under way.
pub struct Extraction {
    fetcher: Fetcher,
    scope: Scope,
    bookmark: Bookmark,
    began_at: Timestamp,
    pages: Pages,
    /// The step whose body is handed out part by part.
    parted: Option<Parted>,
    progress: Arc<Progress>,
    /// Stores the files that records point to.
    filing: Option<Filing>,
}

/// A step whose body is handed out in parts; it counts with the last of them.
struct Parted {
    parts: Parts,
    slot: Option<Slot>,
    step: Step,
}

enum Pages {
    /// Not begun; the slices of a sliced stream.
    Ready(Option<Slices>),
    Whole {
        receiver: mpsc::Receiver<Waiting>,
        task: AbortHandle,
    },
    Sliced(Box<Sweep>),
    Done,
    Failed,
}

/// What a pass asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// What changed since the watermark; everything if there is none.
    Changes,
    /// Everything the API has, whatever the watermark says.
    Complete,
    /// A closed range of the cursor.
    Backfill {
        /// Its beginning, in the format of the cursor.
        from: String,
        /// Its end.
        to: String,
    },
}

/// A page with what it means for the extraction.
#[derive(Debug)]
pub struct Fetched {
    /// The page to land; none where only the bookmark is worth a commit.
    pub page: Option<Page>,
    /// Records in it.
    pub records: u64,
    /// Whether it ends the window.
    pub position: Position,
    /// The extraction does not go on before this is dropped: keep it until [`Extraction::bookmark`] is committed.
    pub hold: Option<oneshot::Sender<()>>,
}

/// What a page is to its window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// More pages follow, here or in another slice.
    Middle,
    /// A part of a body, and the next page is the part behind it: must not be committed without the others. Nothing has
    /// moved yet.
    Part,
    /// The pass is complete.
    Last,
    /// More pages follow, and where the extraction stands now has to be committed at once.
    Kept,
    /// Not a page, or not all of one: landed to show what was answered, for this reason. No mark has moved. Either another
    /// answer to the same request follows, or the slice fails.
    Evidence(String),
}

/// A request that would be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// The HTTP method.
    pub method: &'static str,
    /// The URL with secrets masked.
    pub url: String,
    /// The lower bound of its window.
    pub since: Option<String>,
    /// The upper bound of its window.
    pub until: Option<String>,
    /// The values of its slice; empty for a stream without slices.
    pub slice: Map<String, Value>,
}

/// What one request showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The URL with secrets masked.
    pub url: String,
    /// HTTP status.
    pub status: u16,
    /// Bytes of the decoded body.
    pub bytes: u64,
    /// Requests it took.
    pub attempts: u32,
    /// Records found.
    pub records: u64,
    /// Records whose cursor could not be read; `None` for a stream without a cursor.
    pub cursors_missing: Option<u64>,
    /// The token of the next page, masked.
    pub next: Option<String>,
    /// The body, for those who want to look at the records; of one too large for memory as much as is one part of it.
    pub body: Bytes,
    /// The first record, cut to 4 KiB.
    pub first_record: Option<Bytes>,
}

impl Extraction {
    /// Begins or resumes the extraction of `stream`, which is not sliced. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if the bookmark's watermark is not of the stream's cursor or not written in its format.
    pub fn new(
        source: &Source,
        stream: &Stream,
        channel: Arc<Channel>,
        clock: Clock,
        bookmark: Bookmark,
    ) -> Result<Self> {
        let progress = Arc::new(Progress::default());
        let fetcher = Fetcher {
            source: Arc::new(source.seen_by(stream)),
            stream: Arc::new(stream.clone()),
            channel,
            clock,
            progress: Arc::clone(&progress),
        };
        let extraction = Self {
            began_at: fetcher.clock.now(),
            fetcher,
            scope: Scope::Changes,
            bookmark,
            pages: Pages::Ready(None),
            parted: None,
            progress,
            filing: None,
        };
        if stream.slices.is_none() {
            // Says now what would be wrong later.
            extraction.pull()?;
        }
        Ok(extraction)
    }

    /// The same for what `scope` says instead of what changed.
    #[must_use]
    pub fn with_scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    /// The same, and the files that its records point to are stored in `store` as pages are handed out.
    #[must_use]
    pub fn with_store(mut self, store: &Arc<dyn ObjectStore>) -> Self {
        self.filing = Filing::of(&self.fetcher, store);
        self
    }

    /// The same over `slices`.
    #[must_use]
    pub fn with_slices(mut self, slices: Slices) -> Self {
        self.pages = Pages::Ready(Some(slices));
        self
    }

    /// The counters, readable while pages are fetched.
    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.progress)
    }

    /// Where extraction stands after the last page handed out and whatever came after it without a page.
    pub fn bookmark(&self) -> &Bookmark {
        &self.bookmark
    }

    /// The next page, or `None` after the last one. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The first error ends the extraction; of a sliced stream it comes after the other slices ended. Pages handed out
    /// before it are good: commit them with [`Self::bookmark`], and the next run resumes there.
    pub async fn next(&mut self) -> Result<Option<Fetched>> {
        // Ends with the steps, of which a window has at most `pages_max`.
        loop {
            if let Some(parted) = self.parted.take() {
                let part = self.part(parted).await;
                return part.inspect_err(|_| self.pages = Pages::Failed).map(Some);
            }
            let stepped = match &mut self.pages {
                Pages::Done => return Ok(None),
                Pages::Failed => {
                    return Err(Error::new(ErrorKind::Internal, "fetch pages after a failure"));
                }
                Pages::Ready(_) => {
                    self.begin()?;
                    continue;
                }
                Pages::Whole { receiver, .. } => receiver
                    .recv()
                    .await
                    .map_or_else(
                        || Err(Error::new(ErrorKind::Internal, "fetch pages after a failure")),
                        |(stepped, _)| stepped,
                    )
                    .map(|step| (None, step)),
                Pages::Sliced(sweep) => match sweep.next(&mut self.bookmark).await {
                    Ok(Some((slot, step))) => Ok((Some(slot), step)),
                    Ok(None) => {
                        self.pages = Pages::Done;
                        return Ok(None);
                    }
                    Err(error) => Err(error),
                },
            };
            let (slot, mut step) = stepped.inspect_err(|_| self.pages = Pages::Failed)?;
            match step.landed.take() {
                Some(Landed::Parts(parts)) => self.parted = Some(Parted { parts, slot, step }),
                landed => {
                    let mut page = match landed {
                        Some(Landed::Page(page)) => Some(page),
                        _ => None,
                    };
                    self.file(page.as_mut(), &step.position).await?;
                    let (records, hold) = (step.records, step.hold.take());
                    let position = self.settle(slot, step);
                    if page.is_some() || position == Position::Kept {
                        return Ok(Some(Fetched {
                            page,
                            records,
                            position,
                            hold,
                        }));
                    }
                }
            }
        }
    }

    /// Hands out the next part of a body. The bookmark moves with the last, and that has the records of all.
    async fn part(&mut self, mut parted: Parted) -> Result<Fetched> {
        let part = parted.parts.next().await?;
        let mut part =
            part.ok_or_else(|| Error::new(ErrorKind::Internal, "hand out a body without parts"))?;
        self.file(Some(&mut part.page), &parted.step.position).await?;
        if part.goes_on {
            self.parted = Some(parted);
            return Ok(Fetched {
                page: Some(part.page),
                records: 0,
                position: Position::Part,
                hold: None,
            });
        }
        let records = parted.step.records;
        let hold = parted.step.hold.take();
        let position = self.settle(parted.slot, parted.step);
        Ok(Fetched {
            page: Some(part.page),
            records,
            position,
            hold,
        })
    }

    /// Stores the files that the records of a page point to. What is no page has none.
    async fn file(&mut self, page: Option<&mut Page>, position: &Position) -> Result<()> {
        let (Some(filing), Some(page)) = (&self.filing, page) else {
            return Ok(());
        };
        if matches!(position, Position::Evidence(_)) && !page.facts.partial {
            return Ok(());
        }
        let filed = filing.file(page).await;
        filed.inspect_err(|_| self.pages = Pages::Failed)
    }

    /// Moves the bookmark past a step, and says what that is to the pass.
    fn settle(&mut self, slot: Option<Slot>, step: Step) -> Position {
        match (&mut self.pages, slot) {
            (Pages::Sliced(sweep), Some(slot)) => sweep.apply(&mut self.bookmark, &slot, step),
            _ => {
                self.bookmark = self.moved(step.mark, &step.position);
                if step.position == Position::Last {
                    self.pages = Pages::Done;
                }
                step.position
            }
        }
    }

    /// The first requests that would be sent, at most `most`. Nothing is sent and nothing moves; needs an extraction not
    /// yet begun.
    ///
    /// # Errors
    /// Those of building a request.
    pub async fn plan(&mut self, most: usize) -> Result<Vec<Planned>> {
        match &mut self.pages {
            Pages::Ready(None) => match self.pull()? {
                Some(pull) => pull.plan(most),
                None => Ok(Vec::new()),
            },
            Pages::Ready(Some(slices)) => {
                let slicing = self.fetcher.stream.slices.as_ref();
                let is_patient = slicing.is_some_and(|slicing| slicing.patience.is_some());
                let mut planned = Vec::new();
                // Ends with the slices, or at `most`.
                while planned.len() < most {
                    let Some(slice) = slices.values.recv().await else {
                        break;
                    };
                    let slice = slice?;
                    let mark = self.bookmark.slices.get(&key(&slice));
                    let mark = Mark {
                        watermark: mark
                            .and_then(|mark| mark.watermark.clone())
                            .or(self.bookmark.watermark.clone()),
                        window: mark.and_then(|mark| mark.window.clone()),
                        ..Mark::default()
                    };
                    let Some(pull) = Pull::new(self.fetcher.clone(), slice, self.scope.clone(), mark)? else {
                        continue;
                    };
                    // Of what has no request none is sent: with patience it is set aside.
                    if is_patient && pull.misfit()?.is_some() {
                        continue;
                    }
                    planned.extend(pull.plan(most - planned.len())?);
                }
                Ok(planned)
            }
            _ => Err(Error::new(ErrorKind::Internal, "plan an extraction under way")),
        }
    }

    /// The request that asks for the quota before all others; none if the source has none. Nothing is sent.
    ///
    /// # Errors
    /// Those of building it.
    pub fn plan_quota(&self) -> Result<Option<Planned>> {
        self.fetcher.plan_quota()
    }

    /// The request that would create the export job of a new window, made ready with its credential and not sent: a
    /// token is asked for if it takes one. None for a stream without a job. Needs an extraction not yet begun.
    ///
    /// # Errors
    /// Those of building a request and of its credential; of a sliced stream also that it has no slice.
    pub async fn rehearse(&mut self) -> Result<Option<Planned>> {
        if self.fetcher.stream.job.is_none() {
            return Ok(None);
        }
        Box::pin(self.look().await?.rehearse()).await
    }

    /// Fetches the first page of a new window and says what is in it. Moves nothing; needs an extraction not yet begun.
    ///
    /// # Errors
    /// Those of a page that cannot be fetched or read; of a sliced stream also that it has no slice.
    /// [`ErrorKind::Refused`] for a stream whose first request creates an export job; see [`Self::rehearse`].
    pub async fn probe(&mut self) -> Result<Probe> {
        let mut pull = self.look().await?;
        Box::pin(pull.probe()).await
    }

    /// A pull of the stream, or of its first slice, for one look.
    async fn look(&mut self) -> Result<Pull> {
        let pull = match &mut self.pages {
            Pages::Ready(None) => self.pull()?,
            Pages::Ready(Some(slices)) => {
                let slice = slices.first().await?;
                Pull::new(self.fetcher.clone(), slice, self.scope.clone(), Mark::default())?
            }
            _ => return Err(Error::new(ErrorKind::Internal, "probe an extraction under way")),
        };
        pull.ok_or_else(nothing)
    }

    fn begin(&mut self) -> Result<()> {
        let Pages::Ready(slices) = std::mem::replace(&mut self.pages, Pages::Failed) else {
            return Ok(());
        };
        self.pages = match slices {
            None => match self.pull()? {
                Some(pull) => {
                    let (sender, receiver) = mpsc::channel(LOOKAHEAD_PAGES_MAX);
                    let task = tokio::spawn(Box::new(pull).run(sender)).abort_handle();
                    Pages::Whole { receiver, task }
                }
                None => Pages::Done,
            },
            Some(slices) => {
                let sweep = Sweep::begin(&self.fetcher, &self.scope, slices, &mut self.bookmark);
                Pages::Sliced(Box::new(sweep))
            }
        };
        Ok(())
    }

    fn pull(&self) -> Result<Option<Pull>> {
        let mark = Mark {
            watermark: self.bookmark.watermark.clone(),
            cursor: self.bookmark.cursor.clone(),
            window: self.bookmark.window.clone(),
            paginator: self.bookmark.paginator.clone(),
            page_size: self.bookmark.page_size,
            ..Mark::default()
        };
        Pull::new(self.fetcher.clone(), Map::new(), self.scope.clone(), mark)
    }

    /// Says so if there are no records any more where there were always some.
    fn count_whole(&self, bookmark: &mut Bookmark, records: u64) {
        if let Some(note) = bookmark.count_whole(records, self.fetcher.clock.now()) {
            warn!(stream = %self.fetcher.stream.name, "{note}");
            self.progress.note(note);
        }
    }

    /// The bookmark of a stream without slices after a step.
    fn moved(&self, mark: Mark, position: &Position) -> Bookmark {
        let mut bookmark = Bookmark {
            watermark: mark.watermark,
            cursor: mark.cursor,
            window: mark.window,
            paginator: mark.paginator,
            page_size: mark.page_size,
            unstable: self.bookmark.unstable | mark.tally.unstable,
            // Of a time when the stream was sliced.
            pass: None,
            slices: BTreeMap::new(),
            ..self.bookmark.clone()
        };
        bookmark.report(mark.alarms);
        if *position == Position::Last {
            let now = self.fetcher.clock.now();
            let opened_at = mark.opened_at.unwrap_or(self.began_at);
            bookmark.alarms.retain(|alarm| alarm.at >= opened_at);
            bookmark.last_success_at = Some(now);
            bookmark.last_pass = Some(mark.tally);
            say_ignored(&self.fetcher, mark.tally);
            let first = self.bookmark.last_success_at.is_none();
            if self.scope == Scope::Complete || self.fetcher.stream.incremental.is_none() || first {
                bookmark.complete_at = Some(now);
                // What shifted before has been seen now; what shifted during this pass is for the next one.
                bookmark.unstable = mark.tally.unstable;
                self.count_whole(&mut bookmark, mark.tally.records);
            }
        }
        bookmark
    }
}

fn nothing() -> Error {
    Error::new(ErrorKind::Refused, "ask for a page").with(
        "problem",
        "the stream's range has ended: there is nothing to ask for",
    )
}

impl Drop for Extraction {
    fn drop(&mut self) {
        if let Pages::Whole { task, .. } = &self.pages {
            task.abort();
        }
    }
}
