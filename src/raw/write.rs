//! Landing: pages into objects, objects into one log entry.
//!
//! ```text
//! append ─► compress, a few pages at once ─► object in memory ─ full, or a new hour ─► upload
//! commit ─► upload the rest ─► log entry
//! ```
//!
//! Uploading early is safe: without an entry an object does not exist.

use std::{collections::VecDeque, mem, sync::Arc, thread};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, PutPayload, path::Path};
use tokio::task::JoinHandle;

use crate::{
    clock::{Clock, Timestamp},
    config::StreamName,
    error::{Error, ErrorKind, Result},
    failpoint,
    raw::{
        BatchId, BatchNumber, Bookmark, Page,
        frame::{Frame, PageIndex, hex, sha256},
        layout,
        log::{BatchKind, FORMAT_PLAIN_FACTS, Landed, LogEntry, ObjectEntry, RawLog},
        store::lower,
    },
};

/// An object is uploaded when it has reached this many bytes, so it is longer by one page at most.
pub const OBJECT_BYTES_MAX: usize = 32 << 20;

/// Longer objects are uploaded in parts.
const SINGLE_PUT_BYTES_MAX: usize = 16 << 20;

/// Length of those parts; S3 wants at least 5 MiB.
const PART_BYTES: usize = 8 << 20;

/// Most objects in one batch.
const OBJECTS_MAX: usize = 10_000;

/// Most pages in one batch; bounds the log entry.
pub const PAGES_MAX: u64 = 100_000;

/// Pages shorter than this are compressed where they are; longer ones would hold up other tasks.
const INLINE_BYTES_MAX: usize = 256 << 10;

/// Pages shorter than this share a frame, where they may: alone they compress badly, and each frame has its cost.
const SHARED_PAGE_BYTES_MAX: usize = 16 << 10;

/// Bytes from which on a shared frame takes no more pages. To read one of them all are decompressed.
const SHARED_FRAME_BYTES: usize = 64 << 10;

/// Most pages of a shared frame.
const SHARED_FRAME_PAGES_MAX: usize = 256;

/// Bodies that are compressed at once have no more bytes than this, unless one alone has.
const COMPRESSING_BYTES_MAX: usize = 16 << 20;

/// Most bodies that are compressed at once.
const COMPRESSING_PAGES_MAX: usize = 8;

/// Entries of other writers that a commit goes past before it gives up.
const RACES_MAX: usize = 1_000;

/// One run's way into one stream's raw log.
///
/// After an error it is of no more use: open another, which starts from what really stands.
pub struct Landing {
    log: RawLog,
    clock: Clock,
    run_id: String,
    config_hash: String,
    contract_version: Option<String>,
    next: BatchNumber,
    bookmark: Option<Bookmark>,
    /// The latest hour that pages were filed under.
    hour: Timestamp,
    shares: Shares,
    /// Processors of this machine; to ask for them takes longer than to compress a small page.
    cores: usize,
    pending: Pending,
    over: bool,
}

/// Whether small pages share frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shares {
    Yes,
    No,
}

/// What an entry of a producer under our own run id is to a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    /// Another batch of the run.
    Another,
    /// This batch, from an earlier attempt.
    IsThis,
}

/// The batch in the making.
#[derive(Debug)]
struct Pending {
    batch_id: BatchId,
    /// The least that a reader must know.
    format: u32,
    objects: Vec<ObjectEntry>,
    pages_count: u64,
    body_bytes: u64,
    /// Pages for the open object, in its order.
    compressing: VecDeque<Compressing>,
    /// Those behind them that wait to share a frame.
    sharing: Vec<Page>,
    open: Open,
}

/// A frame on its way into the open object.
#[derive(Debug)]
struct Compressing {
    body_bytes: usize,
    frame: JoinHandle<Result<Frame>>,
}

/// The object in the making.
#[derive(Debug, Default)]
struct Open {
    hour: Timestamp,
    bytes: Vec<u8>,
    pages: Vec<PageIndex>,
}

impl Landing {
    /// Reads where the stream's log stands.
    ///
    /// # Errors
    /// Those of [`RawLog::head`]. A log that cannot be read is never taken for an empty one.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        stream: StreamName,
        clock: Clock,
        run_id: String,
        config_hash: String,
    ) -> Result<Self> {
        let log = RawLog { store, stream };
        let head = log.head().await?;
        let pending = Pending::new(&clock);
        Ok(Self {
            log,
            clock,
            run_id,
            config_hash,
            contract_version: None,
            next: head
                .as_ref()
                .map_or(BatchNumber::FIRST, |head| head.number.next()),
            bookmark: head.and_then(|head| head.bookmark),
            hour: Timestamp::MIN_UTC,
            shares: Shares::No,
            cores: thread::available_parallelism().map_or(1, usize::from),
            pending,
            over: false,
        })
    }

    /// Has every entry from now on name the contract version in force.
    #[must_use]
    pub fn with_contract_version(mut self, version: String) -> Self {
        self.contract_version = Some(version);
        self
    }

    /// Has small pages share frames: for many that come one by one. Where a frame is damaged, so are all its pages.
    #[must_use]
    pub fn with_shared_frames(mut self) -> Self {
        self.shares = Shares::Yes;
        self
    }

    /// Where extraction stands after the newest entry known here; the beginning if there is none.
    pub fn bookmark(&self) -> Bookmark {
        self.bookmark.clone().unwrap_or_default()
    }

    /// Pages appended and not yet committed.
    pub fn pages_pending(&self) -> u64 {
        self.pending.pages_count
    }

    /// Body bytes appended and not yet committed.
    pub fn body_bytes_pending(&self) -> u64 {
        self.pending.body_bytes
    }

    /// The number that the next batch is tried under first.
    pub fn next_number(&self) -> BatchNumber {
        self.next
    }

    /// The batch of a producer that stands under this landing's run id, from the number `from` up to the newest that was
    /// there when the landing was opened.
    ///
    /// Together with [`Landing::commit_push_once`] this lands a batch once over any number of attempts, also of processes
    /// that died: each has the same run id for the stream, opens a landing, looks here from the
    /// [`Landing::next_number`] of the first attempt on, and then commits.
    ///
    /// # Errors
    /// Those of [`RawLog::entries`].
    pub async fn landed_since(&self, from: BatchNumber) -> Result<Option<BatchNumber>> {
        let Ok(last) = BatchNumber::new(self.next.get() - 1) else {
            return Ok(None);
        };
        let mut entries = self.log.entries(from..=last);
        while let Some(entry) = entries.try_next().await? {
            if self.is_own(&entry) {
                return Ok(Some(entry.number));
            }
        }
        Ok(None)
    }

    /// Takes `page` into the batch. It counts for nothing before [`Landing::commit`].
    ///
    /// At most [`OBJECT_BYTES_MAX`] and one page are held in memory compressed, and beside them one page as it is, or
    /// several small ones. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] for a page too long or one too many; whatever the store says about a full object. What is
    /// wrong with a page may come out with a later one, or with the commit.
    pub async fn append(&mut self, page: Page) -> Result<()> {
        self.begin()?;
        if self.pending.pages_count >= PAGES_MAX {
            return Err(self.limit("pages_max", PAGES_MAX));
        }
        // A clock that is set back while pages come in moves nothing to an hour that was done with.
        let hour = layout::hour(page.facts.fetched_at).max(self.hour);
        self.hour = hour;
        if self.pending.open.hour != hour {
            self.flush().await?;
            self.pending.open.hour = hour;
        }
        let body_bytes = page.body.len();
        self.pending.pages_count += 1;
        self.pending.body_bytes += body_bytes as u64;
        if self.shares == Shares::Yes && body_bytes < SHARED_PAGE_BYTES_MAX {
            self.pending.sharing.push(page);
            let bytes: usize = self.pending.sharing.iter().map(|page| page.body.len()).sum();
            if bytes >= SHARED_FRAME_BYTES || self.pending.sharing.len() >= SHARED_FRAME_PAGES_MAX {
                self.share().await?;
            }
        } else {
            self.share().await?;
            self.compress(vec![page], body_bytes).await?;
        }
        self.over = false;
        Ok(())
    }

    /// Puts the pages that wait to share a frame into one.
    async fn share(&mut self) -> Result<()> {
        let pages = mem::take(&mut self.pending.sharing);
        if pages.is_empty() {
            return Ok(());
        }
        let bytes = pages.iter().map(|page| page.body.len()).sum();
        self.compress(pages, bytes).await
    }

    /// Makes a frame of `pages`, whose bodies have so many bytes, at once or beside others.
    async fn compress(&mut self, pages: Vec<Page>, body_bytes: usize) -> Result<()> {
        self.make_room(body_bytes).await?;
        if body_bytes < INLINE_BYTES_MAX && pages.len() == 1 && self.pending.compressing.is_empty() {
            return self.place(Frame::of(&pages)?).await;
        }
        let frame = tokio::task::spawn_blocking(move || Frame::of(&pages));
        let compressing = Compressing { body_bytes, frame };
        self.pending.compressing.push_back(compressing);
        Ok(())
    }

    /// Waits until a page of `body_bytes` may be compressed beside those that are.
    async fn make_room(&mut self, body_bytes: usize) -> Result<()> {
        let compressing = &self.pending.compressing;
        let mut bytes: usize = compressing.iter().map(|page| page.body_bytes).sum();
        while self.pending.compressing.len() >= self.cores.min(COMPRESSING_PAGES_MAX)
            || bytes.saturating_add(body_bytes) > COMPRESSING_BYTES_MAX
        {
            let Some(page) = self.pending.compressing.pop_front() else {
                break;
            };
            bytes -= page.body_bytes;
            let frame = page.frame.await.map_err(torn)??;
            self.place(frame).await?;
        }
        Ok(())
    }

    /// Puts the next page into the open object, or into a new one if that is full.
    async fn place(&mut self, frame: Frame) -> Result<()> {
        if self.pending.open.bytes.len() >= OBJECT_BYTES_MAX {
            self.upload_open().await?;
        }
        self.pending.format = self.pending.format.max(frame.format());
        let open = &mut self.pending.open;
        open.pages.extend(frame.append_to(&mut open.bytes));
        Ok(())
    }

    /// Makes everything appended a raw batch and moves the bookmark, in one step: after it both stand, before it neither.
    ///
    /// Entries of producers that came in between are passed by; they move no bookmark. A batch without pages is allowed:
    /// it moves the bookmark alone. With [`BatchKind::Push`] `bookmark` is not used, see [`Landing::commit_push`].
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] if another extractor landed first: nothing of this batch stands.
    /// [`ErrorKind::Unavailable`] if the store does not answer well: whether it stands is for the next run to see.
    pub async fn commit(
        &mut self,
        kind: BatchKind,
        bookmark: Bookmark,
        records: Option<u64>,
    ) -> Result<BatchNumber> {
        match kind {
            BatchKind::Push => self.land(kind, None, records, Own::Another).await,
            BatchKind::Pull | BatchKind::Complete => {
                self.land(kind, Some(bookmark), records, Own::Another).await
            }
        }
    }

    /// Makes everything appended a raw batch of a producer, behind whatever else was landed. The bookmark stays.
    ///
    /// # Errors
    /// As in [`Landing::commit`], except that other writers are no conflict.
    pub async fn commit_push(&mut self, records: Option<u64>) -> Result<BatchNumber> {
        self.land(BatchKind::Push, None, records, Own::Another).await
    }

    /// As [`Landing::commit_push`], unless a batch of a producer stands under this landing's run id already, since the
    /// landing was opened: an attempt whose answer was lost may have come through late. Its number is returned then, and
    /// what was appended here is dropped.
    ///
    /// # Errors
    /// As in [`Landing::commit_push`].
    pub async fn commit_push_once(&mut self, records: Option<u64>) -> Result<BatchNumber> {
        self.land(BatchKind::Push, None, records, Own::IsThis).await
    }

    fn is_own(&self, entry: &LogEntry) -> bool {
        entry.kind == BatchKind::Push && entry.run_id == self.run_id
    }

    async fn land(
        &mut self,
        kind: BatchKind,
        moved: Option<Bookmark>,
        records: Option<u64>,
        own: Own,
    ) -> Result<BatchNumber> {
        self.begin()?;
        self.flush().await?;
        let mut entry = LogEntry {
            format: self.pending.format,
            batch_id: self.pending.batch_id,
            number: self.next,
            kind,
            run_id: self.run_id.clone(),
            config_hash: self.config_hash.clone(),
            contract_version: self.contract_version.clone(),
            committed_at: self.clock.now(),
            records,
            objects: mem::take(&mut self.pending.objects),
            bookmark: moved.or_else(|| self.bookmark.clone()),
        };
        for _ in 0..RACES_MAX {
            failpoint::point("raw::before_commit");
            let found = match self.log.commit(&entry).await? {
                Landed::Committed(number) => {
                    failpoint::point("raw::after_commit");
                    self.moved_to(number, entry.bookmark);
                    return Ok(number);
                }
                Landed::Conflicted { found } => found,
            };
            if own == Own::IsThis && self.is_own(&found) {
                self.discard(&entry).await;
                self.moved_to(found.number, found.bookmark);
                return Ok(found.number);
            }
            match (kind, found.kind) {
                (BatchKind::Push, _) => entry.bookmark = found.bookmark,
                (_, BatchKind::Push) => {}
                _ => {
                    self.discard(&entry).await;
                    return Err(Error::new(
                        ErrorKind::Conflict,
                        "commit batch: another extractor landed first",
                    )
                    .with("stream", &self.log.stream)
                    .with("batch", entry.number)
                    .with("our run", &self.run_id)
                    .with("their run", &found.run_id)
                    .with("hint", "let one extractor work on a stream at a time"));
                }
            }
            entry.number = entry.number.next();
        }
        self.discard(&entry).await;
        Err(self.limit("races_max", RACES_MAX as u64))
    }

    /// The batch in the making stands under `number`; the next one begins.
    fn moved_to(&mut self, number: BatchNumber, bookmark: Option<Bookmark>) {
        self.next = number.next();
        self.bookmark = bookmark;
        self.pending = Pending::new(&self.clock);
        self.over = false;
    }

    /// Uploads the open object with all pages that are on their way into it, if there are any.
    async fn flush(&mut self) -> Result<()> {
        self.share().await?;
        // Room beside what is largest: none is left over.
        self.make_room(usize::MAX).await?;
        self.upload_open().await
    }

    /// Uploads the open object, if it has pages.
    async fn upload_open(&mut self) -> Result<()> {
        let hour = self.pending.open.hour;
        let open = mem::replace(
            &mut self.pending.open,
            Open {
                hour,
                ..Open::default()
            },
        );
        if open.pages.is_empty() {
            return Ok(());
        }
        let index = self.pending.objects.len();
        if index >= OBJECTS_MAX {
            return Err(self.limit("objects_max", OBJECTS_MAX as u64));
        }
        let key = layout::object(&self.log.stream, open.hour, self.pending.batch_id, index as u32);
        let bytes = Bytes::from(open.bytes);
        let hashed = bytes.clone();
        let digest = if bytes.len() < INLINE_BYTES_MAX {
            sha256(&bytes)
        } else {
            apart(move || sha256(&hashed)).await?
        };
        failpoint::point("raw::before_put");
        // Overwriting is safe to repeat, and nobody else writes under this batch id.
        upload(&*self.log.store, &key, &bytes).await?;
        failpoint::point("raw::after_put");
        self.pending.objects.push(ObjectEntry {
            path: key.into(),
            bytes: bytes.len() as u64,
            sha256: hex(&digest),
            pages: open.pages,
        });
        Ok(())
    }

    /// Removes the objects of an entry that certainly does not stand. What is left over is swept later.
    async fn discard(&self, entry: &LogEntry) {
        for object in &entry.objects {
            if let Err(error) = self.log.store.delete(&Path::from(object.path.as_str())).await {
                tracing::debug!(stream = %self.log.stream, %error, "object without entry not removed");
            }
        }
    }

    /// Marks the landing as over; only success takes the mark away, so that no error and no cancelled call is built upon.
    fn begin(&mut self) -> Result<()> {
        if mem::replace(&mut self.over, true) {
            return Err(Error::new(ErrorKind::Internal, "land pages after a failure")
                .with("stream", &self.log.stream));
        }
        Ok(())
    }

    fn limit(&self, name: &'static str, limit: u64) -> Error {
        Error::new(ErrorKind::Limit, "land pages")
            .with("stream", &self.log.stream)
            .with(name, limit)
    }
}

impl Pending {
    fn new(clock: &Clock) -> Self {
        Self {
            batch_id: BatchId::new(clock.now()),
            format: FORMAT_PLAIN_FACTS,
            objects: Vec::new(),
            pages_count: 0,
            body_bytes: 0,
            compressing: VecDeque::new(),
            sharing: Vec::new(),
            open: Open::default(),
        }
    }
}

async fn upload(store: &dyn ObjectStore, key: &Path, bytes: &Bytes) -> Result<()> {
    let failed = |error| lower(error, "write raw object", key);
    if bytes.len() <= SINGLE_PUT_BYTES_MAX {
        store.put(key, bytes.clone().into()).await.map_err(failed)?;
        return Ok(());
    }
    let mut parts = store.put_multipart(key).await.map_err(failed)?;
    let mut sent = Ok(());
    for start in (0..bytes.len()).step_by(PART_BYTES) {
        let part = bytes.slice(start..bytes.len().min(start + PART_BYTES));
        sent = parts.put_part(PutPayload::from(part)).await;
        failpoint::point("raw::mid_put");
        if sent.is_err() {
            break;
        }
    }
    let sent = match sent {
        Ok(()) => parts.complete().await.map(drop),
        Err(error) => Err(error),
    };
    if sent.is_err() {
        // Parts without an end cost money on S3 until they are swept; the error that matters is the first one.
        let _ = parts.abort().await;
    }
    sent.map_err(failed)
}

/// Runs long computation where it does not hold up other tasks.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(torn)
}

fn torn(source: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Internal, "land pages").caused_by(source)
}
