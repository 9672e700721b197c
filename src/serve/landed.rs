//! What joins spool and ledger: what the spool still holds is put back into the ledger, what reaches the lake is noted.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use crate::{
    clock::{Clock, Timestamp},
    config::{Project, push::Push, spool},
    error::{Error, ErrorKind, Result},
    receive::{
        Delivery, ReceiptId,
        ledger::{
            Ledger,
            answer::Answer,
            receipt::{Receipt, Stage},
            repair::{Remembered, Repaired},
        },
        spool::{Options, Spool, part::Landed, recovery::Recovered},
    },
    serve::{
        answer::{Outcome, Standpoint, accepted},
        check::{Form, check},
        metrics::Metrics,
    },
};

/// Deliveries put back into the ledger at once.
const REPAIR_DELIVERIES: usize = 1_000;

/// Receipts noted at once.
const NOTE_RECEIPTS: usize = 1_000;

/// Opens the spool and puts what it knows back into `ledger`. Blocks.
///
/// # Errors
/// Those of [`Spool::open`] and [`Ledger::repair`], and of a delivery that can no longer be read.
pub(crate) fn open_spool(
    config: &spool::Spool,
    project: &Project,
    ledger: &Ledger,
    clock: &Clock,
    runtime: &Handle,
) -> Result<(Spool, Recovered, Repaired)> {
    let mut repair = Repair {
        ledger,
        runtime,
        waiting: Vec::new(),
        repaired: Repaired::default(),
        failed: None,
    };
    let opened = Spool::open(
        &config.dir,
        Options::of(config),
        clock.clone(),
        &mut |spooled, read| {
            let is_keyed = spooled.facts.idempotency_key.is_some() || spooled.facts.event_id.is_some();
            // Without a key nothing but the receipt is put back, and that asks for no body.
            let delivery = if is_keyed {
                read()
            } else {
                Ok(Delivery {
                    receipt: spooled.receipt,
                    stream: spooled.stream,
                    producer: spooled.producer,
                    page: crate::raw::Page {
                        body: bytes::Bytes::new(),
                        facts: spooled.facts,
                    },
                })
            };
            repair.take(
                delivery
                    .and_then(|delivery| Remembered::of(&delivery, |delivery| answered(project, delivery))),
            );
        },
    );
    let (spool, recovered) = opened?;
    repair.put_back();
    match repair.failed {
        Some(error) => Err(error),
        None => Ok((spool, recovered, repair.repaired)),
    }
}

struct Repair<'a> {
    ledger: &'a Ledger,
    runtime: &'a Handle,
    waiting: Vec<Remembered>,
    repaired: Repaired,
    failed: Option<Error>,
}

impl Repair<'_> {
    fn take(&mut self, remembered: Result<Remembered>) {
        match remembered {
            Ok(remembered) => self.waiting.push(remembered),
            Err(error) => self.failed = self.failed.take().or(Some(error)),
        }
        if self.waiting.len() >= REPAIR_DELIVERIES {
            self.put_back();
        }
    }

    fn put_back(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        if waiting.is_empty() || self.failed.is_some() {
            return;
        }
        match self.runtime.block_on(self.ledger.repair(waiting)) {
            Ok(repaired) => {
                self.repaired.answers += repaired.answers;
                self.repaired.events += repaired.events;
                self.repaired.receipts += repaired.receipts;
                self.repaired.channels += repaired.channels;
            }
            Err(error) => self.failed = Some(error),
        }
    }
}

/// What the sender of `delivery` was answered: it follows from what was kept.
fn answered(project: &Project, delivery: &Delivery) -> Result<Answer> {
    let mut streams = project.streams();
    let stream = streams.find(|(_, stream)| stream.name == delivery.stream);
    let push = stream.and_then(|(_, stream)| stream.feed.push()).cloned();
    // Limits that were tightened since do not matter: it was accepted under others.
    let push = Push {
        records_max: u64::MAX,
        record_bytes_max: u64::MAX,
        ..push.unwrap_or(Push::DEFAULT)
    };
    let headers = &delivery.page.facts.headers;
    let content_type = headers.iter().find(|(name, _)| name == "content-type");
    let form = Form::of(content_type.map(|(_, value)| value.as_str())).unwrap_or(Form::Json);
    let checked = check(form, &delivery.page.body, &push).unwrap_or_default();
    let base_path = project.serve.as_ref().map_or("", |serve| serve.base_path());
    let outcome = match &delivery.page.facts.judged {
        Some(judged) => Outcome::remembered(&checked, judged),
        None => Outcome::of(&checked, Standpoint::NotAsked),
    };
    accepted(delivery.receipt, &delivery.stream, base_path, &outcome)
}

/// Is told of deliveries that stand in the lake.
pub(crate) type Note = dyn Fn(&Landed) -> Result<()> + Send + Sync;

/// What is to be told of deliveries that stand in the lake: their receipts say so, durably, before they leave the spool.
pub(crate) fn note_landed(
    ledger: Ledger,
    runtime: Handle,
    seen: Arc<LakeSeen>,
    metrics: Arc<Metrics>,
    clock: Clock,
) -> Box<Note> {
    Box::new(move |landed| {
        seen.now();
        runtime.block_on(note(&ledger, landed))?;
        let now = clock.now();
        let age = |id: &ReceiptId| (now - id.received_at()).to_std().unwrap_or_default();
        metrics.landed(landed.receipts.iter().map(age));
        Ok(())
    })
}

async fn note(ledger: &Ledger, landed: &Landed) -> Result<()> {
    for (group, receipts) in landed.receipts.chunks(NOTE_RECEIPTS).enumerate() {
        let mut noted = Vec::with_capacity(receipts.len());
        for (index, id) in receipts.iter().enumerate() {
            // One that is not known was forgotten, or is about to be told: what is said here stands then.
            let known = ledger.receipt(*id).await?.unwrap_or_else(|| unknown(*id, landed));
            let page = u64::try_from(group * NOTE_RECEIPTS + index)
                .map_err(|source| Error::new(ErrorKind::Internal, "count pages").caused_by(source))?;
            noted.push(Receipt {
                stage: Stage::Landed {
                    batch: landed.batch,
                    page,
                },
                ..known
            });
        }
        ledger.record(noted).await?;
    }
    ledger.flush().await
}

fn unknown(id: ReceiptId, landed: &Landed) -> Receipt {
    Receipt {
        id,
        stream: landed.stream.clone(),
        producer: None,
        received_at: id.received_at(),
        updated_at: id.received_at(),
        stage: Stage::Spooled,
    }
}

/// When the lake was last seen to answer.
pub(crate) struct LakeSeen {
    clock: Clock,
    at: Mutex<Option<Timestamp>>,
}

impl LakeSeen {
    /// Not seen yet.
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            clock,
            at: Mutex::new(None),
        })
    }

    /// It answers.
    pub(crate) fn now(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(self.clock.steady());
    }

    /// How long ago that was.
    pub(crate) fn age(&self) -> Option<std::time::Duration> {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.map(|at| (self.clock.steady() - at).to_std().unwrap_or_default())
    }
}
