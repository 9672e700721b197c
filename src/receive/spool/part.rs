//! A part of a segment: the deliveries of one stream in it. It becomes one raw batch, once.
//!
//! ```text
//! open landing (the number it begins at is fixed) ─► begun before? look from there on ─► note the number, synced
//!    ─► pages ─► commit, unless an entry of ours comes up ─► batch number
//! ```
//!
//! The id of the segment is the run id of its batches: by that an entry is known as ours after any crash.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
};

use object_store::ObjectStore;

use crate::{
    clock::Clock,
    config::StreamName,
    error::{Error, ErrorKind, Result},
    failpoint,
    raw::{BatchNumber, Page, write::Landing},
    receive::{
        Delivery, ReceiptId,
        spool::{
            folder::Folder,
            progress::Progress,
            segment::{Frame, SegmentName, read},
        },
    },
};

/// Bytes of deliveries that are read at once, unless one alone has more.
const READ_BYTES: u64 = 4 << 20;

/// Where deliveries go from the spool.
pub struct Lake {
    /// The lake's store.
    pub store: Arc<dyn ObjectStore>,
    /// Tells the time of batches.
    pub clock: Clock,
    /// SHA-256 of the project file, noted in every batch.
    pub config_hash: String,
    /// Told of every part that stands in the lake, before it leaves the spool, at least once. Called where blocking is
    /// allowed. After an error the part stays in the spool, and it is told again; nothing is landed twice for that.
    pub landed: Hear,
}

/// Who is told of deliveries that stand in the lake.
pub type Hear = Box<dyn Fn(&Landed) -> Result<()> + Send + Sync>;

/// Deliveries that stand in the lake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    /// Their stream.
    pub stream: StreamName,
    /// The raw batch that they are.
    pub batch: BatchNumber,
    /// Their receipts, in the order of its pages.
    pub receipts: Vec<ReceiptId>,
}

/// The deliveries of one stream in one segment.
pub(crate) struct Part {
    pub(crate) folder: Arc<dyn Folder>,
    pub(crate) segment: SegmentName,
    pub(crate) stream: StreamName,
    pub(crate) frames: Arc<Vec<Frame>>,
    pub(crate) progress: Arc<Mutex<Progress>>,
}

/// The page of a delivery as it is landed.
pub(crate) fn page(delivery: Delivery) -> Page {
    let mut page = delivery.page;
    page.facts.receipt = Some(delivery.receipt.to_string());
    page.facts.producer = delivery.producer.map(|producer| producer.as_str().to_owned());
    page
}

impl Part {
    /// Has the part stand in the lake once, however often this is called, in however many processes after each other.
    /// It may be dropped at any point.
    ///
    /// # Errors
    /// Whatever the store says; [`ErrorKind::Corrupt`] if a delivery can no longer be read.
    pub(crate) async fn land(&self, lake: &Arc<Lake>) -> Result<BatchNumber> {
        let mut landing = Landing::open(
            Arc::clone(&lake.store),
            self.stream.clone(),
            lake.clock.clone(),
            self.segment.id.to_string(),
            lake.config_hash.clone(),
        )
        .await?
        .with_shared_frames();
        let begun = self
            .with_progress(|progress, stream| Ok(progress.marks().begun(stream)))
            .await?;
        let stands = match begun {
            Some(from) => landing.landed_since(from).await?,
            None => {
                let from = landing.next_number();
                self.with_progress(move |progress, stream| progress.begin(stream, from))
                    .await?;
                failpoint::point("spool::after_begin");
                None
            }
        };
        let receipts = self.read_into(stands.is_none().then_some(&mut landing)).await?;
        let batch = match stands {
            Some(batch) => batch,
            None => landing.commit_push_once(None).await?,
        };
        failpoint::point("spool::after_commit");
        let landed = Landed {
            stream: self.stream.clone(),
            batch,
            receipts,
        };
        let told = Arc::clone(lake);
        blocking(move || (told.landed)(&landed)).await?;
        self.with_progress(|progress, stream| progress.land(stream))
            .await?;
        failpoint::point("spool::after_landed");
        Ok(batch)
    }

    /// Reads the part a piece at a time, into `landing` if there is one; returns the receipts.
    async fn read_into(&self, mut landing: Option<&mut Landing>) -> Result<Vec<ReceiptId>> {
        let mut receipts = Vec::with_capacity(self.frames.len());
        let mut next = 0;
        while next < self.frames.len() {
            let (folder, segment) = (Arc::clone(&self.folder), self.segment);
            let (frames, first) = (Arc::clone(&self.frames), next);
            let piece = blocking(move || read_piece(&*folder, &segment, &frames[first..])).await?;
            next += piece.len();
            for delivery in piece {
                receipts.push(delivery.receipt);
                if let Some(landing) = &mut landing {
                    landing.append(page(delivery)).await?;
                }
            }
        }
        Ok(receipts)
    }

    async fn with_progress<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Progress, &StreamName) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (progress, stream, segment) = (Arc::clone(&self.progress), self.stream.clone(), self.segment);
        blocking(move || {
            let mut progress = progress.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut progress, &stream).map_err(|source| {
                Error::new(ErrorKind::Unavailable, "note spool progress")
                    .with("segment", segment.file())
                    .caused_by(source)
            })
        })
        .await
    }
}

/// The first of `frames`, at least one of them.
fn read_piece(folder: &dyn Folder, segment: &SegmentName, frames: &[Frame]) -> Result<Vec<Delivery>> {
    let stored = folder.open(&segment.file()).map_err(|source| {
        Error::new(ErrorKind::Unavailable, "read spool segment")
            .with("segment", segment.file())
            .caused_by(source)
    })?;
    let mut bytes = 0;
    let mut piece = Vec::new();
    for frame in frames {
        bytes += frame.bytes();
        if bytes > READ_BYTES && !piece.is_empty() {
            break;
        }
        piece.push(read(&*stored, segment, *frame)?);
    }
    Ok(piece)
}

/// Runs what blocks where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|source| Error::new(ErrorKind::Internal, "ship spool").caused_by(source))?
}
