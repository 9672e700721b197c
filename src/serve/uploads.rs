//! Upload jobs: what is too large for a request, sent in pieces or fetched from where it is.
//!
//! ```text
//! POST  …/jobs             announce a file: size, checksum, packing, where it is if it is to be fetched
//! PATCH /v1/jobs/{id}/upload   a piece of it (draft-ietf-httpbis-resumable-upload, Upload Append)
//! HEAD  /v1/jobs/{id}/upload   how much of it is here (Offset Retrieval)
//! GET   /v1/jobs/{id}      what became of it
//!
//! work ─ fetch ─ verify ─ land
//! ```
//!
//! Nothing of a file is landed before all of it is found to be what was announced. It is landed in batches through a channel of
//! the job's own, whose offset is the position in the file: each record once, through any ends of the process. That rests on
//! the spool, where a batch and its offset are durable in one step; a server that acknowledges from the lake takes no jobs.

mod addresses;
mod batches;
mod fetch;
mod halt;
mod land;
mod request;
mod verify;
pub(crate) mod work;

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::Response,
};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::{
    clock::Timestamp,
    config::{
        Name, StreamName,
        producers::Scope,
        push::{Push, PushAuth},
    },
    error::{Error, ErrorKind},
    receive::{
        ReceiptId,
        producer::{Caller, limit::Who},
        spool::acknowledger::Acknowledger,
        uploads::{
            Appended, Jobs, Made,
            job::{Announced, Job, JobId, State, Trouble, fingerprint},
        },
    },
    serve::{
        answer::{REPLAYED, is_zero, json},
        app::App,
        body::{BodyLimits, coding::Coding},
        call::Call,
        check::Form,
        problem::{Problem, code::Code},
        records,
        uploads::request::{Wanted, read},
    },
};

/// Largest announcement, in bytes: that of an address of the greatest length, and some room.
const ANNOUNCEMENT_BYTES_MAX: usize = 16 << 10;

/// What a piece comes in.
pub(crate) const PARTIAL_UPLOAD: &str = "application/partial-upload";

const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");
const ACCEPT_PATCH: HeaderName = HeaderName::from_static("accept-patch");

/// `Upload-Complete` where the file goes on.
const MORE: HeaderValue = HeaderValue::from_static("?0");

/// `Upload-Complete` where it has ended.
const ALL: HeaderValue = HeaderValue::from_static("?1");

/// The problem types of the draft.
const MISMATCHING: &str = "https://iana.org/assignments/http-problem-types#mismatching-upload-offset";
const COMPLETED: &str = "https://iana.org/assignments/http-problem-types#completed-upload";
const INCONSISTENT: &str = "https://iana.org/assignments/http-problem-types#inconsistent-upload-length";

#[derive(Serialize)]
struct Shown<'a> {
    id: JobId,
    stream: String,
    state: &'static str,
    bytes: u64,
    sha256: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_encoding: Option<&'static str>,
    /// Bytes of it that are here.
    received: u64,
    created_at: Timestamp,
    updated_at: Timestamp,
    records: u64,
    refused: u64,
    receipts: &'a [ReceiptId],
    #[serde(skip_serializing_if = "is_zero")]
    receipts_omitted: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upload: Option<Upload>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<&'a Trouble>,
}

/// Where and how a file is sent.
#[derive(Serialize)]
struct Upload {
    href: String,
    offset: u64,
    chunk_bytes: u64,
    expires_at: Timestamp,
}

/// A piece of a file, as its headers say.
struct Piece {
    offset: u64,
    is_last: bool,
    length: Option<u64>,
}

/// A job of whoever asks for it.
struct Own<'a> {
    job: Job,
    push: &'a Push,
}

/// What leads from a request that was too large to what takes files of any size: a header and a member of the problem.
pub(crate) fn lead(app: &App, stream: Option<StreamName>, problem: Problem) -> Problem {
    let helps = matches!(
        problem.code(),
        Code::BodyTooLarge | Code::BodyExpandsTooMuch | Code::TooManyRecords
    ) && takes_jobs(app);
    let Some(StreamName { source, stream }) = stream.filter(|_| helps) else {
        return problem;
    };
    let href = format!("{}/v1/streams/{source}/{stream}/jobs", app.base_path());
    match HeaderValue::try_from(format!("<{href}>; rel=\"related\"")) {
        Ok(link) => problem
            .with_header(header::LINK, link)
            .with_member("upload", href),
        Err(_) => problem,
    }
}

/// Whether a batch is durable with its place in the file, so that no end of the process has it land twice.
fn takes_jobs(app: &App) -> bool {
    matches!(&app.acknowledger, Acknowledger::Spool(_))
}

/// Takes the announcement of a file.
pub(crate) fn create<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let caller = app.authenticate(call).await?;
        let Some(name) = call.stream() else {
            return Err(app.stream_not_found(call, "no stream has such a name"));
        };
        app.may(call, caller.as_ref(), Scope::Ingest, Some(&name))?;
        let Some((stream, push)) = app.pushed(&name) else {
            return Err(app.stream_not_found(call, "there is no such stream"));
        };
        if caller.is_none() && push.auth == PushAuth::None {
            let detail = "the stream takes signed webhooks alone: no producer is declared";
            return Err(Problem::new(Code::Unauthenticated, detail));
        }
        app.still_open(call, stream, push)?;
        if !takes_jobs(app) {
            let detail =
                "the server acknowledges from the lake (`spool.ack: lake`), and takes no upload jobs then";
            return Err(Problem::new(Code::UploadsNotTaken, detail));
        }
        admit(app, call, caller.as_ref(), &name, ANNOUNCEMENT_BYTES_MAX as u64)?;
        let key = records::idempotency_key(call)?;
        if Form::of(call.header("content-type"))? != Form::Json {
            let problem = Problem::new(
                Code::UnsupportedMediaType,
                "a job is announced as application/json",
            );
            return Err(problem.with_header(header::ACCEPT, HeaderValue::from_static("application/json")));
        }
        let limits = BodyLimits {
            wire_bytes_max: ANNOUNCEMENT_BYTES_MAX,
            decoded_bytes_max: ANNOUNCEMENT_BYTES_MAX,
            ..app.body_limits(push)
        };
        let body = call
            .receive(app, &limits)
            .await?
            .decode(&limits, &app.budget)
            .await?;
        let wanted = read(&body.bytes)?;
        let settings = &app.serve.uploads;
        if wanted.bytes > settings.job_bytes_max {
            let detail = format!(
                "a file may have {} bytes (serve.uploads.job_size)",
                settings.job_bytes_max
            );
            return Err(Problem::new(Code::LimitReached, detail));
        }
        if let Some(url) = &wanted.url {
            let found = settings.reference(url);
            found.map_err(|why| Problem::new(Code::UrlNotAllowed, why))?;
        }
        let producer = caller.map(|caller| caller.producer.name.clone());
        let announced = announced(
            call,
            &name,
            producer.as_ref(),
            key.as_ref().map(|key| key.as_str()),
            wanted,
        );
        let (jobs, is_keyed) = (app.jobs.clone(), key.is_some());
        let made = on_disk(app, move || jobs.make(announced, is_keyed)).await?;
        let (status, job) = match made {
            Made::New(job) => (StatusCode::CREATED, job),
            Made::Known(job) => (StatusCode::OK, job),
            Made::Other => {
                let detail = "the key stands for the job of another file";
                return Err(Problem::new(Code::IdempotencyKeyReused, detail));
            }
            Made::TooMany => {
                app.metrics.refused("upload_jobs");
                let detail = "as many files are on their way as may be (serve.uploads.jobs)";
                return Err(Problem::new(Code::ConcurrencyLimited, detail));
            }
            Made::NoRoom => {
                app.metrics.refused("upload_bytes");
                let detail = "there is no room for the file beside those on their way (serve.uploads.size)";
                return Err(Problem::new(Code::StorageFull, detail));
            }
        };
        let mut response = json(status, &shown(app, &job, Some(push)))?;
        if status == StatusCode::OK {
            let replayed = HeaderValue::from_static("true");
            response.headers_mut().insert(REPLAYED, replayed);
        }
        let location = format!("{}/v1/jobs/{}", app.base_path(), job.id);
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        Ok(response)
    })
}

/// Says what became of a job.
pub(crate) fn tell<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let own = own(app, call, 0).await?;
        json(StatusCode::OK, &shown(app, &own.job, Some(own.push)))
    })
}

/// Says how much of a file is here.
pub(crate) fn offset<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let Own { job, push } = own(app, call, 0).await?;
        is_sent(&job)?;
        if app.jobs.has_expired(&job)
            || job
                .problem
                .as_ref()
                .is_some_and(|problem| problem.code == Jobs::EXPIRED)
        {
            return Err(expired());
        }
        let is_complete = job.state != State::WaitingForUpload;
        let offset = if is_complete { job.bytes } else { job.offset };
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        let headers = response.headers_mut();
        headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
        headers.insert(UPLOAD_LENGTH, HeaderValue::from(job.bytes));
        headers.insert(UPLOAD_COMPLETE, if is_complete { ALL } else { MORE });
        headers.insert(UPLOAD_LIMIT, limit(&job, push));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    })
}

/// Takes a piece of a file.
pub(crate) fn append<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let taken = take(app, call).await;
        // Whoever is refused has to know that the file is not complete by that.
        taken.map_err(|problem| match problem.code() {
            Code::UploadCompleted => problem.with_header(UPLOAD_COMPLETE, ALL),
            _ => problem.with_header(UPLOAD_COMPLETE, MORE),
        })
    })
}

async fn take(app: &Arc<App>, call: &mut Call) -> Result<Response, Problem> {
    let bytes = call.body_bytes_declared().unwrap_or_default();
    let Own { job, push } = own(app, call, bytes).await?;
    let piece = Piece::of(call)?;
    is_sent(&job)?;
    let length = piece.length.unwrap_or(job.bytes);
    // Nothing is read of what will not be taken.
    let refused = app.jobs.piece(&job, piece.offset, bytes, false);
    let refused = refused.or_else(|| (length != job.bytes).then_some(Appended::OfAnotherLength));
    if let Some(refused) = refused {
        return Err(not_taken(&refused, &job, &piece));
    }
    let wire = call.receive(app, &app.body_limits(push)).await?;
    if wire.coding() != Coding::Identity {
        let detail = "a piece is not packed: `content_encoding` of the job says how the whole file is";
        return Err(Problem::new(Code::UnsupportedEncoding, detail));
    }
    if let Some(permit) = &mut call.permit {
        permit.settle(wire.bytes().len() as u64);
    }
    let (jobs, id, permit) = (app.jobs.clone(), job.id, call.permit.take());
    let Piece { offset, is_last, .. } = piece;
    let appended = on_disk(app, move || {
        let appended = jobs.append(id, offset, wire.bytes(), is_last);
        // Memory and place are free again when the piece is kept, not when its sender hangs up.
        drop((wire, permit));
        appended
    });
    let kept = match appended.await? {
        Appended::Kept(kept) => kept,
        refused => return Err(not_taken(&refused, &job, &piece)),
    };
    let mut response = if is_last {
        let job = app.jobs.get(id).ok_or_else(not_found)?;
        json(StatusCode::OK, &shown(app, &job, Some(push)))?
    } else {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NO_CONTENT;
        response
    };
    let headers = response.headers_mut();
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(kept));
    headers.insert(UPLOAD_COMPLETE, if is_last { ALL } else { MORE });
    headers.insert(UPLOAD_LIMIT, limit(&job, push));
    Ok(response)
}

impl Piece {
    /// What the headers of `call` say.
    ///
    /// # Errors
    /// `unsupported_media_type`, `invalid_request`.
    fn of(call: &Call) -> Result<Self, Problem> {
        let media = call.header("content-type").unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim();
        if !media.eq_ignore_ascii_case(PARTIAL_UPLOAD) {
            let problem = Problem::new(
                Code::UnsupportedMediaType,
                "a piece is application/partial-upload",
            );
            return Err(problem.with_header(ACCEPT_PATCH, HeaderValue::from_static(PARTIAL_UPLOAD)));
        }
        let wrong = |name: &HeaderName, is: &str| {
            Problem::new(
                Code::InvalidRequest,
                format!("the header {name} stands once and is {is}"),
            )
        };
        let offset = call.header(UPLOAD_OFFSET.as_str()).and_then(integer);
        let is_last = match call.header(UPLOAD_COMPLETE.as_str()).map(str::trim) {
            Some("?1") => Some(true),
            Some("?0") => Some(false),
            _ => None,
        };
        let length = match call.headers.contains_key(&UPLOAD_LENGTH) {
            false => None,
            true => {
                let length = call.header(UPLOAD_LENGTH.as_str()).and_then(integer);
                Some(length.ok_or_else(|| wrong(&UPLOAD_LENGTH, "a whole number"))?)
            }
        };
        Ok(Self {
            offset: offset.ok_or_else(|| wrong(&UPLOAD_OFFSET, "a whole number"))?,
            is_last: is_last.ok_or_else(|| wrong(&UPLOAD_COMPLETE, "?0 or ?1"))?,
            length,
        })
    }
}

/// An Integer (RFC 9651, section 3.3.1) that is not negative.
fn integer(text: &str) -> Option<u64> {
    const DIGITS_MAX: usize = 15;
    let text = text.trim();
    let sound = text.len() <= DIGITS_MAX && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| sound)
}

/// The job that `call` names, if it is one of whoever asks.
///
/// # Errors
/// 401, 403, 404, 429.
async fn own<'a>(app: &'a Arc<App>, call: &mut Call, bytes: u64) -> Result<Own<'a>, Problem> {
    let caller = app.authenticate(call).await?;
    let producer = caller.as_ref().map(|caller| caller.producer.name.as_str());
    let id = call.param("id").parse::<JobId>();
    let job = id.ok().and_then(|id| app.jobs.get(id));
    let Some(job) = job.filter(|job| job.producer.as_deref() == producer) else {
        app.may(call, caller.as_ref(), Scope::Ingest, None)?;
        return Err(not_found());
    };
    app.may(call, caller.as_ref(), Scope::Ingest, Some(&job.stream))?;
    let Some((_, push)) = app.pushed(&job.stream) else {
        return Err(app.stream_not_found(call, "there is no such stream any more"));
    };
    admit(app, call, caller.as_ref(), &job.stream, bytes.min(push.bytes_max))?;
    Ok(Own { job, push })
}

fn admit(
    app: &App,
    call: &mut Call,
    caller: Option<&Caller>,
    stream: &StreamName,
    bytes: u64,
) -> Result<(), Problem> {
    let who = match caller {
        Some(caller) => Who::Producer(&caller.producer.name),
        None => Who::Sender(stream),
    };
    app.admit(call, who, Some(stream), bytes)
}

/// What is announced, under the name that the same announcement has again.
fn announced(
    call: &Call,
    stream: &StreamName,
    producer: Option<&Name>,
    key: Option<&str>,
    wanted: Wanted,
) -> Announced {
    let Wanted {
        sha256,
        bytes,
        packed,
        url,
    } = wanted;
    let (count, packing) = (bytes.to_string(), packed.as_str().unwrap_or_default());
    let (producer, of) = (producer.map_or("", Name::as_str), stream.to_string());
    let id = match key {
        Some(key) => JobId::of(&[producer, &of, "key", key]),
        None => JobId::of(&[producer, &of, "file", &sha256, &count, packing]),
    };
    let request = fingerprint(&[&sha256, &count, packing, url.as_deref().unwrap_or_default()]);
    Announced {
        id,
        stream: stream.clone(),
        producer: Some(producer.to_owned()).filter(|producer| !producer.is_empty()),
        request,
        sha256,
        bytes,
        packed,
        url,
        trace_id: call.trace.id(),
    }
}

/// Does `work` on the disk to its end, whether or not somebody goes on waiting for it.
async fn on_disk<T: Send + 'static>(
    app: &App,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Problem> {
    let done = app.works.finish(async move {
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|_| Problem::new(Code::Internal, "the log has the cause"))
    });
    done.await?.map_err(|error| {
        tracing::error!(error = error.chain(), "upload not kept");
        match error.kind() {
            ErrorKind::Limit => Problem::new(Code::StorageFull, "the disk for uploads is full"),
            _ => Problem::new(Code::Unavailable, "it could not be made durable"),
        }
    })
}

/// A job as it is told.
fn shown<'a>(app: &App, job: &'a Job, push: Option<&Push>) -> Shown<'a> {
    let upload = push
        .filter(|_| job.state == State::WaitingForUpload)
        .map(|push| Upload {
            href: format!("{}/v1/jobs/{}/upload", app.base_path(), job.id),
            offset: job.offset,
            chunk_bytes: push.bytes_max,
            expires_at: job.updated_at + Jobs::UPLOAD_WITHIN,
        });
    Shown {
        id: job.id,
        stream: job.stream.to_string(),
        state: job.state.as_str(),
        bytes: job.bytes,
        sha256: &job.sha256,
        content_encoding: job.packed.as_str(),
        received: job.offset,
        created_at: job.made_at,
        updated_at: job.updated_at,
        records: job.position.records,
        refused: job.position.refused,
        receipts: &job.receipts,
        receipts_omitted: job.receipts_omitted,
        upload,
        problem: job.problem.as_ref(),
    }
}

/// How much may be sent, as the draft has it.
fn limit(job: &Job, push: &Push) -> HeaderValue {
    let text = format!("max-size={}, max-append-size={}", job.bytes, push.bytes_max);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("max-size=0"))
}

fn is_sent(job: &Job) -> Result<(), Problem> {
    if job.is_fetched {
        let detail = "the file of this job is fetched: nothing is sent for it";
        return Err(Problem::new(Code::JobNotFound, detail));
    }
    Ok(())
}

fn not_taken(refused: &Appended, job: &Job, piece: &Piece) -> Problem {
    match refused {
        Appended::Elsewhere(expected) => Problem::new(
            Code::UploadOffsetMismatch,
            format!("the file goes on at {expected}"),
        )
        .known_as(MISMATCHING)
        .with_member("expected-offset", *expected)
        .with_member("provided-offset", piece.offset)
        .with_header(UPLOAD_OFFSET, HeaderValue::from(*expected)),
        Appended::OfAnotherLength => {
            let detail = format!("the file has {} bytes, as the job says", job.bytes);
            Problem::new(Code::UploadLengthInconsistent, detail).known_as(INCONSISTENT)
        }
        Appended::Expired => expired(),
        Appended::Complete | Appended::Kept(_) => {
            let detail = "nothing more is taken for this job";
            Problem::new(Code::UploadCompleted, detail).known_as(COMPLETED)
        }
    }
}

fn expired() -> Problem {
    Problem::new(Code::UploadExpired, "nothing of the file was sent for 24 hours")
}

fn not_found() -> Problem {
    Problem::new(
        Code::JobNotFound,
        "this producer made no such job, or it ended too long ago",
    )
}
