//! What is known about a stream: the versions of its contract, what was set aside of it, how it drifted.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::Response,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    clock::Timestamp,
    config::{StreamName, producers::Scope},
    ops::{
        contract::registry::{self, Version},
        drift::drift,
        quarantine,
    },
    receive::{ledger::receipt::Cursor, producer::Caller},
    report::{drift::Finding, quarantine::kinds::Kind},
    serve::{
        answer::tagged,
        app::App,
        call::Call,
        catalog::asked_about,
        paging::Asked,
        problem::{Problem, code::Code},
    },
};

/// Entries of a page with samples: a sample may have 64 KiB.
const SAMPLES_MAX: usize = 50;

/// The versions of the contracts of a stream.
pub(crate) fn contracts<'a>(
    app: &'a Arc<App>,
    call: &'a mut Call,
) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let (_, name) = about(app, call).await?;
        let asked = Asked::of(call)?;
        let versions = app.lake.ask(&name, async |workspace, name| {
            registry::list(&workspace, &name).await
        });
        let base = format!("{}/v1/streams/{}/{}", app.base_path(), name.source, name.stream);
        let entries = versions.await?.into_iter().map(|version| {
            let place = place(version.registered_at, [&version.sha256]);
            (place, show_version(&version, &base))
        });
        tagged(call, &asked.page(entries).document("contracts"))
    })
}

/// One version of a contract, as the file that it is.
pub(crate) fn contract<'a>(
    app: &'a Arc<App>,
    call: &'a mut Call,
) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let (_, name) = about(app, call).await?;
        let version = call.param("version").to_owned();
        let text = app.lake.ask(&name, async move |workspace, name| {
            registry::text_kept(&workspace, &name, &version).await
        });
        let Some(text) = text.await? else {
            let detail = "the contract of the stream has no such version";
            return Err(Problem::new(Code::NotFound, detail));
        };
        let mut response = Response::new(Body::from(text));
        let kind = HeaderValue::from_static("application/yaml");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        Ok(response)
    })
}

/// The kinds of trouble in the quarantine of a stream.
pub(crate) fn troubles<'a>(
    app: &'a Arc<App>,
    call: &'a mut Call,
) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let (caller, name) = about(app, call).await?;
        let mut asked = Asked::of(call)?;
        // Others sent them too: it takes more than to read what became of one's own.
        let sees_records = match call.query("samples")?.as_deref() {
            None | Some("false") => false,
            Some("true") => {
                app.may(call, caller.as_ref(), Scope::Admin, Some(&name))?;
                asked.limit = asked.limit.min(SAMPLES_MAX);
                true
            }
            Some(_) => {
                let detail = "samples is `true` or `false`";
                return Err(Problem::new(Code::InvalidRequest, detail));
            }
        };
        let page = app.lake.ask(&name, async move |workspace, name| {
            let kinds = quarantine::kinds(&workspace, &name, asked.since()).await?;
            let mut page = asked.page(kinds.into_iter().map(|kind| {
                let place = place(kind.last_seen, [&kind.class, &kind.place]);
                (place, kind)
            }));
            if sees_records {
                quarantine::read_samples(&workspace, &name, &mut page.items).await?;
            }
            Ok(page.map(|kind| show_kind(&kind)))
        });
        tagged(call, &page.await?.document("quarantine"))
    })
}

/// What the records of a stream did that its contract does not say.
pub(crate) fn changes<'a>(app: &'a Arc<App>, call: &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>> {
    Box::pin(async move {
        let (_, name) = about(app, call).await?;
        let asked = Asked::of(call)?;
        let found = app.lake.ask(&name, async |workspace, name| {
            drift(&workspace, std::slice::from_ref(&name)).await
        });
        let findings = found.await?.into_iter().flat_map(|drift| drift.findings);
        let entries = findings.map(|finding| {
            let updated_at = finding
                .acknowledged_at
                .map_or(finding.last_seen, |at| at.max(finding.last_seen));
            let effect = if finding.is_coerced() { "coerced" } else { "" };
            let place = place(updated_at, [&finding.path, &finding.kind, effect]);
            (place, show_finding(&finding, updated_at))
        });
        tagged(call, &asked.page(entries).document("drift"))
    })
}

/// Who asks, and which stream is meant: one that has ended, too.
async fn about(app: &Arc<App>, call: &mut Call) -> Result<(Option<Caller>, StreamName), Problem> {
    let (caller, stream, _) = asked_about(app, call).await?;
    Ok((caller, stream.name.clone()))
}

/// The place in a list of an entry that changed last at `updated_at`; `parts` tell it from all others.
fn place<const N: usize>(updated_at: Timestamp, parts: [&str; N]) -> Cursor {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&digest.finalize()[..16]);
    Cursor::new(updated_at, id)
}

fn show_version(version: &Version, base: &str) -> Value {
    json!({
        "version": version.version,
        "status": version.phase,
        "odcs_status": version.status,
        "ends": version.ends,
        "updated_at": version.registered_at,
        "compatibility": version.compatibility,
        "changes": version.changes,
        "sha256": version.sha256,
        "record_versions": version.record_versions,
        "href": format!("{base}/contracts/{}", version.version),
    })
}

fn show_kind(kind: &Kind) -> Value {
    let mut shown = json!({
        "code": kind.class,
        "path": kind.place,
        "records": kind.records,
        "bytes": kind.bytes,
        "expected": kind.expected,
        "found": kind.found,
        "first_seen_at": kind.first_seen,
        "updated_at": kind.last_seen,
        "batch_first": kind.batch_first,
        "batch_last": kind.batch_last,
        "sample": { "at": kind.sample },
    });
    if let Some(record) = &kind.record {
        shown["sample"]["record"] = record.as_str().into();
    }
    shown
}

fn show_finding(finding: &Finding, updated_at: Timestamp) -> Value {
    json!({
        "kind": finding.kind,
        "path": finding.path,
        "severity": finding.severity.as_str(),
        "state": finding.state.as_str(),
        "effect": finding.effect,
        "expected": finding.expected,
        "found": finding.found,
        "seen": finding.seen,
        "records": finding.records,
        "loads": finding.loads,
        "first_seen_at": finding.first_seen,
        "last_seen_at": finding.last_seen,
        "updated_at": updated_at,
        "contract_first": finding.contract_first,
        "contract_last": finding.contract_last,
        "acknowledged_at": finding.acknowledged_at,
        "note": finding.note,
        "renamed_to": finding.renamed_to,
    })
}
