//! `GET /v1/receipts`: where deliveries are.

use std::sync::Arc;

use axum::{http::StatusCode, response::Response};
use futures::future::BoxFuture;
use serde::Serialize;

use crate::{
    clock::Timestamp,
    config::{StreamName, parse_timestamp, producers::Scope},
    receive::{
        ReceiptId,
        ledger::receipt::{Listing, Receipt, Stage},
        producer::{Caller, limit::Who},
    },
    serve::{
        answer::json,
        app::App,
        call::Call,
        problem::{Problem, code::Code},
    },
};

/// Receipts of one page, unless `limit` says otherwise.
const LIMIT_DEFAULT: usize = 100;

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
}

#[derive(Serialize)]
struct List {
    receipts: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
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
        json(StatusCode::OK, &show(receipt))
    })
}

/// A page of receipts, those that changed last at the end.
pub(crate) fn list<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let caller = reader(app, call).await?;
        let wrong = |detail: &'static str| Problem::new(Code::InvalidRequest, detail);
        let stream = match call.query("stream")? {
            Some(text) => {
                let name = StreamName::parse(&text).map_err(|_| wrong("stream is `source.stream`"))?;
                app.may(call, caller.as_ref(), Scope::Read, Some(&name))?;
                Some(name)
            }
            None => None,
        };
        let updated_at_gte = call.query("updated_at_gte")?;
        let updated_at_gte = updated_at_gte.map(|text| parse_timestamp(&text)).transpose();
        let after = call.query("cursor")?.map(|text| text.parse()).transpose();
        let limit = match call.query("limit")? {
            None => LIMIT_DEFAULT,
            Some(text) => match text.parse() {
                Ok(limit) if (1..=Listing::LIMIT_MAX).contains(&limit) => limit,
                _ => return Err(wrong("limit is a number from 1 to 1000")),
            },
        };
        let listing = Listing {
            updated_at_gte: updated_at_gte.map_err(|_| wrong("updated_at_gte is a moment by RFC 3339"))?,
            after: after.map_err(|_| wrong("cursor is what `next` of the page before said"))?,
            producer: None,
            stream,
            limit,
        };
        let listed = app.ledger.list(listing).await?;
        let receipts = listed.receipts.into_iter();
        let receipts = receipts.filter(|receipt| sees(caller.as_ref(), &receipt.stream));
        let list = List {
            receipts: receipts.map(show).collect(),
            next: listed.next.map(|cursor| cursor.to_string()),
        };
        json(StatusCode::OK, &list)
    })
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
    }
}
