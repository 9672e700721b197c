//! `GET /v1/receipts`: where deliveries are, and what became of them.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use axum::{http::StatusCode, response::Response};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::{
    clock::Timestamp,
    config::{StreamName, producers::Scope},
    ops::fate::{Fate, Transformed, fate, watermarks},
    raw::BatchNumber,
    receive::{
        ReceiptId,
        ledger::receipt::{Listing, Receipt, Stage},
        producer::{Caller, limit::Who},
    },
    serve::{
        answer::json,
        app::App,
        call::Call,
        paging::{Asked, Page},
        problem::{Problem, code::Code},
    },
};

/// Said if the lake cannot be asked: what the ledger knows stands, and may not be all.
const LATER_UNKNOWN: &str = "the lake does not answer now: what became of it since is not known";

/// The stage of what is in the table, or in its quarantine.
const TRANSFORMED: &str = "transformed";

/// Where a delivery is.
#[derive(Serialize)]
struct Shown {
    receipt: ReceiptId,
    stream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    producer: Option<String>,
    stage: &'static str,
    received_at: Timestamp,
    updated_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'static str>,
    #[serde(flatten)]
    fate: Option<ShownFate>,
}

/// What the lake says about it.
#[derive(Serialize)]
struct ShownFate {
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    id_reuse: bool,
    #[serde(flatten)]
    transformed: Option<ShownTransformed>,
}

/// What the transform made of it.
#[derive(Serialize)]
struct ShownTransformed {
    load: Load,
    records: Records,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    quarantined: Vec<Reason>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    results: Vec<SetAside>,
    #[serde(skip_serializing_if = "Option::is_none")]
    results_omitted: Option<u64>,
}

#[derive(Serialize)]
struct Load {
    load_id: Option<String>,
    contract_version: Option<String>,
    table_version: Option<u64>,
}

#[derive(Serialize)]
struct Records {
    read: Option<u64>,
    merged: Option<u64>,
    quarantined: u64,
}

#[derive(Serialize)]
struct Reason {
    code: String,
    path: String,
    records: u64,
}

#[derive(Serialize)]
struct SetAside {
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<u64>,
    code: String,
    path: String,
}

/// One receipt.
pub(crate) fn one<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let caller = reader(app, call).await?;
        let unknown = || Problem::new(Code::ReceiptNotFound, "no receipt of this id is known");
        let id: ReceiptId = call.param("id").parse().map_err(|_| unknown())?;
        let receipt = app.ledger.receipt(id).await?.ok_or_else(unknown)?;
        if !sees(caller.as_ref(), &receipt.stream) {
            return Err(unknown());
        }
        if let Some((stream, push)) = app.pushed(&receipt.stream) {
            // What a stream that has ended took is still told about.
            let _ = app.still_open(call, stream, push);
        }
        let fate = fate_of(app, &receipt).await?;
        let mut shown = show(receipt);
        match fate {
            Told::Known(fate) => {
                if fate.transformed.is_some() {
                    shown.stage = TRANSFORMED;
                }
                shown.fate = Some(show_fate(fate));
            }
            Told::NotYet => {}
            Told::NotNow => shown.note = Some(LATER_UNKNOWN),
        }
        json(StatusCode::OK, &shown)
    })
}

/// A page of receipts, those that changed last at the end.
pub(crate) fn list<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let caller = reader(app, call).await?;
        let stream = match call.query("stream")? {
            Some(text) => {
                let name = StreamName::parse(&text)
                    .map_err(|_| Problem::new(Code::InvalidRequest, "stream is `source.stream`"))?;
                app.may(call, caller.as_ref(), Scope::Read, Some(&name))?;
                Some(name)
            }
            None => None,
        };
        let asked = Asked::of(call)?;
        let listing = Listing {
            updated_at_gte: asked.updated_at_gte,
            after: asked.after,
            producer: None,
            stream,
            limit: asked.limit,
        };
        let listed = app.ledger.list(listing).await?;
        let receipts = listed.receipts.into_iter();
        let receipts: Vec<Receipt> = receipts
            .filter(|receipt| sees(caller.as_ref(), &receipt.stream))
            .collect();
        let watermarks = watermarks_of(app, &receipts).await;
        let page = Page {
            items: receipts
                .into_iter()
                .map(|receipt| show_standing(receipt, &watermarks))
                .collect(),
            next: listed.next.map(|cursor| cursor.to_string()),
        };
        json(StatusCode::OK, &page.document("receipts"))
    })
}

/// How far the tables are that landed receipts are about; a stream that is not there was not asked about, one without an
/// answer did not tell.
type Watermarks = HashMap<StreamName, Option<Watermark>>;

/// The newest raw batch in a table, if there is one.
type Watermark = Option<BatchNumber>;

/// One question to the lake, whatever number of receipts there are.
async fn watermarks_of(app: &App, receipts: &[Receipt]) -> Watermarks {
    let landed = receipts.iter().filter(|receipt| is_in_lake(app, receipt));
    let streams: BTreeSet<StreamName> = landed.map(|receipt| receipt.stream.clone()).collect();
    let Some(first) = streams.first() else {
        return Watermarks::new();
    };
    let asked = streams.iter().cloned().collect();
    let told = app.lake.ask(first, async move |workspace, _| {
        Ok(watermarks(&workspace, asked).await)
    });
    match told.await {
        Ok(told) => {
            let told = told.into_iter().map(|(stream, watermark)| {
                let watermark = watermark.inspect_err(|error| {
                    tracing::warn!(%stream, error = error.chain(), "watermark not read");
                });
                (stream, watermark.ok())
            });
            told.collect()
        }
        Err(_) => streams.into_iter().map(|stream| (stream, None)).collect(),
    }
}

/// Whether the lake can be asked what became of it: it has landed, and its stream is still one of the project.
fn is_in_lake(app: &App, receipt: &Receipt) -> bool {
    matches!(receipt.stage, Stage::Landed { .. }) && app.places.contains_key(&receipt.stream)
}

fn show_standing(receipt: Receipt, watermarks: &Watermarks) -> Shown {
    let batch = match receipt.stage {
        Stage::Landed { batch, .. } => Some(batch),
        Stage::Spooled | Stage::Refused { .. } => None,
    };
    let told = watermarks
        .get(&receipt.stream)
        .filter(|_| batch.is_some())
        .copied();
    let mut shown = show(receipt);
    match told {
        Some(Some(watermark)) if watermark >= batch => shown.stage = TRANSFORMED,
        Some(None) => shown.note = Some(LATER_UNKNOWN),
        Some(Some(_)) | None => {}
    }
    shown
}

/// Who asks, if it may read anything.
pub(crate) async fn reader(app: &Arc<App>, call: &mut Call) -> Result<Option<Caller>, Problem> {
    let caller = app.authenticate(call).await?;
    app.may(call, caller.as_ref(), Scope::Read, None)?;
    if let Some(caller) = &caller {
        app.admit(call, Who::Producer(&caller.producer.name), None, 0)?;
    }
    Ok(caller)
}

/// Whether `caller` may see what concerns `stream`.
pub(crate) fn sees(caller: Option<&Caller>, stream: &StreamName) -> bool {
    caller.is_none_or(|caller| {
        let mut streams = caller.producer.streams.iter();
        streams.any(|pattern| pattern.matches(stream))
    })
}

fn show(receipt: Receipt) -> Shown {
    let (stage, batch, page, reason) = match receipt.stage {
        Stage::Spooled => ("spooled", None, None, None),
        Stage::Landed { batch, page } => ("landed", Some(batch.get()), Some(page), None),
        Stage::Refused { reason } => ("refused", None, None, Some(reason)),
    };
    Shown {
        receipt: receipt.id,
        stream: receipt.stream.to_string(),
        producer: receipt.producer.map(|name| name.to_string()),
        stage,
        received_at: receipt.received_at,
        updated_at: receipt.updated_at,
        batch,
        page,
        reason,
        note: None,
        fate: None,
    }
}

/// What the lake says about a delivery.
enum Told {
    Known(Fate),
    /// It is not there yet, or never will be.
    NotYet,
    /// It does not answer.
    NotNow,
}

async fn fate_of(app: &App, receipt: &Receipt) -> Result<Told, Problem> {
    let Stage::Landed { batch, page } = receipt.stage else {
        return Ok(Told::NotYet);
    };
    let (true, Ok(page)) = (is_in_lake(app, receipt), u32::try_from(page)) else {
        return Ok(Told::NotYet);
    };
    let asked = app.lake.ask(&receipt.stream, async move |workspace, name| {
        fate(&workspace, &name, batch, page).await
    });
    match asked.await {
        Ok(fate) => Ok(Told::Known(fate)),
        Err(problem) if problem.status() == StatusCode::SERVICE_UNAVAILABLE => Ok(Told::NotNow),
        Err(problem) => Err(problem),
    }
}

fn show_fate(fate: Fate) -> ShownFate {
    ShownFate {
        trace_id: fate.trace_id,
        id_reuse: fate.id_reuse,
        transformed: fate.transformed.map(show_transformed),
    }
}

fn show_transformed(transformed: Transformed) -> ShownTransformed {
    let records = Records {
        read: transformed.read,
        merged: transformed.merged(),
        quarantined: transformed.aside.records,
    };
    let aside = transformed.aside;
    let omitted = aside.records - aside.first.len() as u64;
    let reasons = aside.reasons.into_iter();
    let results = aside.first.into_iter();
    ShownTransformed {
        load: Load {
            load_id: transformed.load_id,
            contract_version: transformed.contract_version,
            table_version: transformed.table_version,
        },
        records,
        quarantined: reasons
            .map(|((code, path), records)| Reason { code, path, records })
            .collect(),
        results: results
            .map(|one| SetAside {
                index: one.record,
                code: one.class,
                path: one.path,
            })
            .collect(),
        results_omitted: (omitted > 0).then_some(omitted),
    }
}
