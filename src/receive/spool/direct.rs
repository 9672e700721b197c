//! Deliveries straight into the lake, for machines without a disk that outlasts them.
//!
//! ```text
//! append ─► gathered by stream, for some milliseconds ─► one raw batch ─► all of it is acknowledged
//! ```

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::{Instant, sleep, timeout, timeout_at},
};

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    raw::{BatchId, BatchNumber, write::Landing},
    receive::{
        Delivery,
        spool::{
            level::Level,
            pace::Pace,
            part::{Lake, Landed, blocking, page},
        },
    },
};

/// How long the first delivery of a batch waits for others to go with it. While one batch is on its way the next one
/// gathers anyhow, so this only matters when there is little to do.
pub const GATHER: Duration = Duration::from_millis(5);

/// A batch gathers no more bytes than this, unless one delivery alone has more.
pub const BATCH_BYTES_MAX: usize = 16 << 20;

/// A batch gathers no more deliveries than this.
const BATCH_DELIVERIES_MAX: usize = 10_000;

/// A stream nothing came for in this time gives back what is held for it.
const IDLE: Duration = Duration::from_secs(60);

/// Longest that senders wait for one batch.
pub const LAND_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a batch is tried again.
const RETRIES_MAX: u32 = 8;

/// How long that waits in between.
const PACE: Pace = Pace {
    backoff_start: Duration::from_millis(100),
    backoff_max: Duration::from_secs(10),
    ..Pace::USUAL
};

/// Deliveries that count when they are in the lake.
pub struct Direct {
    lake: Arc<Lake>,
    bytes_max: u32,
    waiting: Arc<Semaphore>,
    /// As [`IDLE`].
    pub(crate) idle: Duration,
    /// Who lands the deliveries of a stream. There are no more than the project has streams.
    streams: Mutex<HashMap<StreamName, mpsc::UnboundedSender<Waiting>>>,
}

/// A landing that nothing went wrong with, and the run it lands for.
struct Kept {
    landing: Landing,
    run_id: String,
}

struct Waiting {
    delivery: Delivery,
    permit: OwnedSemaphorePermit,
    done: oneshot::Sender<Result<()>>,
}

impl Direct {
    /// Into `lake`, with at most `bytes_max` bytes of deliveries in memory.
    pub fn new(lake: Lake, bytes_max: u32) -> Self {
        Self {
            lake: Arc::new(lake),
            bytes_max,
            waiting: Arc::new(Semaphore::new(bytes_max as usize)),
            idle: IDLE,
            streams: Mutex::default(),
        }
    }

    /// Lands `delivery`: when this has returned without an error it stands in the lake. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Limit`] if too much waits; else what the store said in the end. Whether it stands is not known then: a
    /// sender that tries again may have it stand twice, under one event id or idempotency key.
    pub async fn append(&self, delivery: Delivery) -> Result<()> {
        let bytes = u32::try_from(delivery.page.body.len()).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.waiting)
            .try_acquire_many_owned(bytes.clamp(1, self.bytes_max))
            .map_err(|_| {
                Error::new(ErrorKind::Limit, "land delivery: too much waits for the lake")
                    .with("stream", &delivery.stream)
                    .with("bytes_max", self.bytes_max)
            })?;
        let stream = delivery.stream.clone();
        let (done, answer) = oneshot::channel();
        self.hand_over(
            &stream,
            Waiting {
                delivery,
                permit,
                done,
            },
        );
        let gone = |_| {
            Error::new(ErrorKind::Internal, "land delivery: nobody lands the stream").with("stream", &stream)
        };
        answer.await.map_err(gone)?
    }

    /// How much waits.
    pub fn level(&self) -> Level {
        let free = self.waiting.available_permits() as u64;
        Level {
            bytes: u64::from(self.bytes_max).saturating_sub(free),
            bytes_max: u64::from(self.bytes_max),
            age: None,
            segments: 0,
        }
    }

    fn hand_over(&self, stream: &StreamName, waiting: Waiting) {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let waiting = match streams.get(stream) {
            Some(sender) => match sender.send(waiting) {
                Ok(()) => return,
                Err(refused) => refused.0,
            },
            None => waiting,
        };
        // Bounded by the permits of what is in it.
        let (sender, receiver) = mpsc::unbounded_channel();
        // Its receiver is right here, so it is not refused; if it were, the sender would be told that nobody lands it.
        let _ = sender.send(waiting);
        streams.insert(stream.clone(), sender);
        tokio::spawn(land_all(
            Arc::clone(&self.lake),
            stream.clone(),
            self.idle,
            receiver,
        ));
    }
}

/// Lands what comes for `stream` until nothing has come for a while.
async fn land_all(
    lake: Arc<Lake>,
    stream: StreamName,
    idle: Duration,
    mut receiver: mpsc::UnboundedReceiver<Waiting>,
) {
    let mut landing = None;
    loop {
        let first = match timeout(idle, receiver.recv()).await {
            Ok(Some(first)) => first,
            Ok(None) => return,
            Err(_) => {
                // Whoever comes from now on finds it closed and has another one begun; who came just now is still served.
                receiver.close();
                match receiver.recv().await {
                    Some(first) => first,
                    None => return,
                }
            }
        };
        let group = gather(first, &mut receiver).await;
        let (deliveries, done): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|waiting| (waiting.delivery, (waiting.permit, waiting.done)))
            .unzip();
        let landed = match timeout(LAND_TIMEOUT, land_once(&lake, &stream, &mut landing, deliveries)).await {
            Ok(landed) => landed,
            Err(late) => Err(Error::new(ErrorKind::Unavailable, "land deliveries in time")
                .with("stream", &stream)
                .caused_by(late)),
        };
        if let Err(error) = &landed {
            landing = None;
            tracing::warn!(%stream, error = error.chain(), "deliveries not landed");
        }
        for (permit, done) in done {
            drop(permit);
            let answer = match &landed {
                Ok(_) => Ok(()),
                Err(error) => Err(Error::new(error.kind(), "land delivery")
                    .with("stream", &stream)
                    .with("reason", error)),
            };
            // A sender that is gone asks again.
            let _ = done.send(answer);
        }
    }
}

async fn gather(first: Waiting, receiver: &mut mpsc::UnboundedReceiver<Waiting>) -> Vec<Waiting> {
    let until = Instant::now() + GATHER;
    let mut bytes = first.delivery.page.body.len();
    let mut group = vec![first];
    while bytes < BATCH_BYTES_MAX && group.len() < BATCH_DELIVERIES_MAX {
        let Ok(Some(next)) = timeout_at(until, receiver.recv()).await else {
            break;
        };
        bytes += next.delivery.page.body.len();
        group.push(next);
    }
    group
}

/// Lands one batch through `kept`, which stays open as long as nothing goes wrong.
///
/// What the store did not answer well is tried again, under the same run id: an attempt whose answer was lost is found,
/// and is not landed a second time.
async fn land_once(
    lake: &Arc<Lake>,
    stream: &StreamName,
    kept: &mut Option<Kept>,
    deliveries: Vec<Delivery>,
) -> Result<BatchNumber> {
    let mut before = kept.take();
    let run_id = match &before {
        Some(kept) => kept.run_id.clone(),
        None => BatchId::new(lake.clock.now()).to_string(),
    };
    let mut begun = None;
    let mut failures = 0;
    let (batch, landing) = loop {
        let landing = before.take().map(|kept| kept.landing);
        match attempt(lake, stream, &run_id, landing, &mut begun, &deliveries).await {
            Ok(landed) => break landed,
            Err(error) if error.kind() == ErrorKind::Unavailable && failures < RETRIES_MAX => {
                failures += 1;
                tracing::warn!(%stream, failures, error = error.chain(), "deliveries wait for the lake");
                sleep(PACE.backoff(failures, rand::random())).await;
            }
            Err(error) => return Err(error),
        }
    };
    *kept = Some(Kept { landing, run_id });
    let receipts = deliveries.iter().map(|delivery| delivery.receipt).collect();
    let landed = Landed {
        stream: stream.clone(),
        batch,
        receipts,
    };
    let told = Arc::clone(lake);
    // It is landed whatever becomes of the telling: an error here would have it sent again.
    if let Err(error) = blocking(move || (told.landed)(&landed)).await {
        tracing::warn!(error = error.chain(), batch = batch.get(), "landed and not noted");
    }
    Ok(batch)
}

/// Tries once to have `deliveries` stand as one batch of the run. `begun` is the first number they may stand under: by
/// it an earlier attempt of theirs is told from earlier batches of the run.
async fn attempt(
    lake: &Lake,
    stream: &StreamName,
    run_id: &str,
    landing: Option<Landing>,
    begun: &mut Option<BatchNumber>,
    deliveries: &[Delivery],
) -> Result<(BatchNumber, Landing)> {
    let mut landing = match landing {
        Some(landing) => landing,
        None => {
            let (store, clock) = (Arc::clone(&lake.store), lake.clock.clone());
            let hash = lake.config_hash.clone();
            let opened = Landing::open(store, stream.clone(), clock, run_id.to_owned(), hash).await?;
            opened.with_shared_frames()
        }
    };
    match *begun {
        None => *begun = Some(landing.next_number()),
        Some(from) => {
            if let Some(batch) = landing.landed_since(from).await? {
                return Ok((batch, landing));
            }
        }
    }
    for delivery in deliveries {
        landing.append(page(delivery.clone())).await?;
    }
    let batch = landing.commit_push_once(None).await?;
    Ok((batch, landing))
}
