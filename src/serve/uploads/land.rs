//! The records of a file, batch by batch, into the spool: each once, through any ends of the process.
//!
//! ```text
//! channel: how far? ─ pass over that ─ batch ─ ruling (contract) ─ channel held ─ spool: durable ─ channel further ─ …
//! ```
//!
//! The offset of the channel is kept in the spool in the same step as the batch, so what it says is landed is, and nothing
//! else. Where batches go straight into the lake that does not hold: nothing is landed there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    config::{Name, Stream, push::Push},
    error::{Error, ErrorKind},
    failpoint,
    raw::{ChannelFact, Page, PageFacts},
    receive::{
        Delivery, ReceiptId,
        idempotency::Key,
        ledger::channel::{Channel, ChannelName},
        spool::level::Pressure,
        uploads::job::{Job, Position},
    },
    serve::{
        app::App,
        check::{Checked, Form, check_part},
        deliver::REPEAT_PATIENCE,
        problem::{Problem, code::Code},
        ruling::{Asked, Mode, Ruling},
        shutdown::Shutdown,
        uploads::{
            batches::{Batches, Cut},
            halt::Halt,
        },
    },
};

/// What the lines of a file are, to whoever reads them in raw.
const LINES: &str = "application/x-ndjson";

/// How long a batch waits for what is not there: room in the spool, memory, the contract.
const WAIT: Duration = Duration::from_secs(1);

/// Times a batch waits before the job makes way for others.
const WAITS_MAX: u32 = 15;

/// Who lands what where.
pub(super) struct Landing<'a> {
    pub(super) app: &'a Arc<App>,
    pub(super) job: &'a Job,
    pub(super) stream: &'a Stream,
    pub(super) push: &'a Push,
    pub(super) stop: &'a Shutdown,
    channel: ChannelName,
    producer: Option<Name>,
}

/// A batch, and where the landing is behind it.
struct Piece {
    body: Bytes,
    checked: Checked,
    /// How far it reaches, with nothing counted of it yet.
    reaches: Position,
}

impl<'a> Landing<'a> {
    /// The landing of `job`.
    ///
    /// # Errors
    /// [`Halt::Broken`] if it was kept under names that are none.
    pub(super) fn of(
        app: &'a Arc<App>,
        job: &'a Job,
        (stream, push): (&'a Stream, &'a Push),
        stop: &'a Shutdown,
    ) -> Result<Self, Halt> {
        let channel = ChannelName::of_job(&job.channel());
        let channel = channel.ok_or_else(|| Error::new(ErrorKind::Internal, "name channel of upload job"))?;
        let producer = job.producer.as_deref().map(Name::new).transpose()?;
        Ok(Self {
            app,
            job,
            stream,
            push,
            stop,
            channel,
            producer,
        })
    }

    /// Lands what is not landed yet, and says how far that is: to the end.
    ///
    /// # Errors
    /// [`Halt::Stopped`] behind a batch; [`Halt::Waits`] if one has to wait for long; [`Halt::Broken`] if the ledger or the disk
    /// does not answer.
    pub(super) async fn run(&self) -> Result<Position, Halt> {
        let mut position = self.begun().await?;
        let cut = Cut::of(self.push).verified();
        let verified = Push {
            record_bytes_max: u64::MAX,
            ..self.push.clone()
        };
        let (file, job) = (self.app.jobs.file(self.job.id), self.job.clone());
        let (from, stop) = (position.bytes, self.stop.clone());
        let mut batches = aside(move || {
            // What a file may have was looked at before the first batch, and may be less by now.
            let mut batches = Batches::open(&file, &job, u64::MAX, stop)?;
            batches.skip(from)?;
            Ok(batches)
        })
        .await?;
        // Ends with the file.
        loop {
            if self.stop.is_stopping() {
                return Err(Halt::Stopped);
            }
            let push = verified.clone();
            let read = aside(move || {
                let batch = batches.next(cut)?;
                let checked = batch.as_deref().map(|batch| check_part(batch, &push)).transpose();
                let checked = checked
                    .map_err(|problem| Halt::trouble(problem.code(), "the file is not what it was"))?;
                Ok((batches, batch.zip(checked)))
            });
            let (rest, batch) = read.await?;
            batches = rest;
            let Some((body, checked)) = batch else {
                return Ok(position);
            };
            let reaches = Position {
                bytes: position.bytes + body.len() as u64,
                ..position
            };
            if checked.accepted + checked.rejected == 0 {
                position = reaches;
                continue;
            }
            position = self
                .land(
                    Piece {
                        body,
                        checked,
                        reaches,
                    },
                    position,
                )
                .await?;
        }
    }

    /// How far an earlier process was.
    async fn begun(&self) -> Result<Position, Halt> {
        let channel = self
            .app
            .ledger
            .channel(&self.job.stream, self.producer.as_ref(), &self.channel)?;
        let last = channel.and_then(|channel| channel.offset.zip(channel.receipt));
        let Some((offset, receipt)) = last else {
            return Ok(self.job.position);
        };
        let position = offset.as_str().parse::<Position>()?;
        // The channel is never behind; it may be forgotten, or its ledger lost.
        if position.bytes <= self.job.position.bytes {
            return Ok(self.job.position);
        }
        self.landed(receipt, position).await?;
        Ok(position)
    }

    /// Lands one batch, as soon as there is room for it.
    async fn land(&self, piece: Piece, before: Position) -> Result<Position, Halt> {
        let mut last = Code::Unavailable;
        for _ in 0..WAITS_MAX {
            match self.try_land(&piece, before).await? {
                Ok(position) => return Ok(position),
                Err(problem) => {
                    last = problem.code();
                    tracing::debug!(job = %self.job.id, code = last.row().name, "batch of upload waits");
                }
            }
            tokio::select! {
                () = self.stop.stopping() => return Err(Halt::Stopped),
                () = tokio::time::sleep(WAIT) => {}
            }
        }
        Err(Halt::Waits(last))
    }

    /// Lands one batch; or says why it has to wait.
    async fn try_land(&self, piece: &Piece, before: Position) -> Result<Result<Position, Problem>, Halt> {
        // It is safe where it is: what comes from others goes before.
        if self.app.acknowledger.level().pressure() > Pressure::Calm {
            return Ok(Err(Problem::new(Code::BacklogFull, "much waits for the lake")));
        }
        let asked = Asked {
            form: Form::Lines,
            media: LINES,
            mode: Mode::Partial,
        };
        let delivery = self.delivery(piece.body.clone());
        let ruled = self
            .app
            .rule((self.stream, self.push), asked, &piece.checked, delivery);
        let Ruling {
            mut delivery,
            hold,
            outcome,
        } = match ruled.await {
            Ok(ruling) => ruling,
            Err(problem) if problem.code() == Code::ContractViolation => {
                // None of it fits: there is nothing to keep, and the next batch says how far that was.
                let refused = piece.checked.accepted + piece.checked.rejected;
                return Ok(Ok(Position {
                    refused: before.refused + refused,
                    ..piece.reaches
                }));
            }
            Err(problem) => return Ok(Err(problem)),
        };
        let position = Position {
            bytes: piece.reaches.bytes,
            records: before.records + outcome.accepted,
            refused: before.refused + outcome.rejected,
        };
        let held = self
            .app
            .ledger
            .hold_channel(
                &self.job.stream,
                self.producer.as_ref(),
                &self.channel,
                REPEAT_PATIENCE,
            )
            .await?;
        let claim = held.ok_or_else(|| Error::new(ErrorKind::Internal, "hold channel of upload job"))?;
        let number = claim.before().map_or(0, |channel| channel.number) + 1;
        let offset = Key::new(&position.to_string()).map_err(|source| {
            Error::new(ErrorKind::Internal, "write position in upload").caused_by(source)
        })?;
        delivery.page.facts.channel = Some(ChannelFact {
            name: self.channel.to_string(),
            epoch: 1,
            number,
            offset: offset.as_str().to_owned(),
        });
        let after = Channel {
            epoch: 1,
            number,
            offset: Some(offset),
            receipt: Some(delivery.receipt),
            at: delivery.page.facts.fetched_at,
        };
        let (receipt, kept) = match self.app.append(delivery).await {
            Ok(kept) => kept,
            Err(problem) => return Ok(Err(problem)),
        };
        drop(hold);
        failpoint::point("uploads::after_append");
        if let Err(error) = claim.complete(after).await {
            // The spool has it: it is put back at the next start.
            tracing::warn!(error = error.chain(), "position of upload not in the ledger yet");
        }
        self.app.remember().await;
        let id = receipt.id;
        self.app.note(receipt).await;
        drop(kept);
        self.app
            .metrics
            .records(&self.job.stream, outcome.accepted, outcome.rejected);
        self.app.metrics.tagged(&self.job.stream, outcome.tagged);
        self.landed(id, position).await?;
        failpoint::point("uploads::after_batch");
        Ok(Ok(position))
    }

    /// Notes that the landing is at `position`, with the receipt of the batch that ends there.
    async fn landed(&self, receipt: ReceiptId, position: Position) -> Result<(), Halt> {
        let (jobs, job) = (self.app.jobs.clone(), self.job.id);
        aside(move || {
            jobs.change(job, |job| job.landed(receipt, position))?;
            Ok(())
        })
        .await
    }

    fn delivery(&self, body: Bytes) -> Delivery {
        let (job, now) = (self.job, self.app.clock.now());
        let url = format!("/v1/streams/{}/{}/jobs", job.stream.source, job.stream.stream);
        Delivery {
            receipt: ReceiptId::new(now),
            stream: job.stream.clone(),
            producer: self.producer.clone(),
            page: Page {
                body,
                facts: PageFacts {
                    headers: vec![("content-type".to_owned(), LINES.to_owned())],
                    trace_id: Some(job.trace_id.clone()),
                    first_seen_at: Some(job.made_at.min(now)),
                    ..PageFacts::new(now, "POST", url, 202)
                },
            },
        }
    }
}

/// Does `work`, which waits for the disk.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Halt> + Send + 'static,
) -> Result<T, Halt> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|source| Error::new(ErrorKind::Internal, "work on upload job").caused_by(source))?
}
