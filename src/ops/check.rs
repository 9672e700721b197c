//! `landfall check`: what can be known before anything is loaded.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    config::{
        Project, Source, Stream,
        advice::{State, advice},
        auth::Auth,
        secret::Secret,
    },
    contract::{
        Column, Contract, columns,
        drift::{self, ChangeKind},
        infer,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        channel::Channel,
        window::{Extraction, Planned, Probe},
    },
    format::Recipe,
    ops::{Workspace, contract},
    raw::{Bookmark, store},
    transform::condition::Condition,
};

/// One thing found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What it is about: a stream, a source, the lake.
    pub about: String,
    /// What it is.
    pub text: String,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Nothing is wrong.
    Good,
    /// Something to look at.
    Note,
    /// A load would fail.
    Wrong,
}

impl Level {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Note => "note",
            Self::Wrong => "error",
        }
    }
}

/// Findings in the order they were made.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, level: Level, about: &impl ToString, text: impl Into<String>) {
        self.0.push(Finding {
            level,
            about: about.to_string(),
            text: text.into(),
        });
    }
}

/// Contracts, conditions and secrets of `project`. Nothing is sent and the lake is not opened.
pub fn offline(project: &Project) -> Vec<Finding> {
    let mut findings = Findings::default();
    check_secrets(
        &mut findings,
        &"lake",
        project
            .lake
            .storage
            .iter()
            .map(|(name, value)| (name.as_str(), value)),
    );
    for source in &project.sources {
        check_secrets(&mut findings, &source.name, secrets_of(source));
    }
    for (_, stream) in project.streams() {
        let request = &stream.request;
        let secrets = request
            .params
            .iter()
            .chain(&request.headers)
            .map(|(name, value)| (name.as_str(), value.secret()));
        check_secrets(&mut findings, &stream.name, secrets);
        match check_contract(stream) {
            Ok(Some(contract)) => {
                let text = format!(
                    "contract {} {} with {} columns",
                    contract.version,
                    contract.status,
                    contract.columns.len()
                );
                findings.add(Level::Good, &stream.name, text);
            }
            Ok(None) => {
                let text = format!(
                    "no contract yet: the first load drafts {}",
                    stream.contract.display()
                );
                findings.add(Level::Note, &stream.name, text);
            }
            Err(error) => findings.add(Level::Wrong, &stream.name, error.chain()),
        }
    }
    findings.0
}

/// The list to go through before a stream runs: what is there, and what is missing and what to write.
pub fn preflight(project: &Project) -> Vec<Finding> {
    let mut findings = Findings::default();
    for (source, stream) in project.streams() {
        for advice in advice(source, stream) {
            let level = match advice.state {
                State::Present => Level::Good,
                State::Missing => Level::Note,
            };
            findings.add(level, &stream.name, advice.to_string());
        }
    }
    findings.0
}

/// Tries the lake, fetches one page per stream and compares it with the contract. Nothing is landed.
pub async fn connect(workspace: &Workspace) -> Vec<Finding> {
    let mut findings = Findings::default();
    match store::probe(workspace.store.as_ref(), &workspace.clock).await {
        Ok(()) => findings.add(
            Level::Good,
            &"lake",
            format!("{} can be written", workspace.project.lake.url),
        ),
        Err(error) => findings.add(Level::Wrong, &"lake", error.chain()),
    }
    for source in &workspace.project.sources {
        let opened = Channel::open(
            source,
            &workspace.clock,
            &workspace.project.credentials_dir,
            &workspace.project.spool_dir(),
        );
        let channel = match opened {
            Ok(channel) => Arc::new(channel),
            Err(error) => {
                findings.add(Level::Wrong, &source.name, error.chain());
                continue;
            }
        };
        for stream in &source.streams {
            match Box::pin(probe(workspace, source, stream, &channel)).await {
                Ok(Looked::At(page)) => check_page(&mut findings, source, stream, &page),
                Ok(Looked::Spared(request)) => findings.add(
                    Level::Note,
                    &stream.name,
                    format!(
                        "not tried: {} {} would create a job; the request and its credential are ready",
                        request.method, request.url
                    ),
                ),
                Err(error) => findings.add(Level::Wrong, &stream.name, error.chain()),
            }
        }
    }
    findings.0
}

/// What came of looking at a stream.
enum Looked {
    /// Its first page.
    At(Box<Probe>),
    /// Nothing was sent: the request would do more than show a page.
    Spared(Planned),
}

async fn probe(
    workspace: &Workspace,
    source: &Source,
    stream: &Stream,
    channel: &Arc<Channel>,
) -> Result<Looked> {
    let mut extraction = Extraction::new(
        source,
        stream,
        Arc::clone(channel),
        workspace.clock.clone(),
        Bookmark::default(),
    )?;
    match extraction.rehearse().await? {
        Some(request) => Ok(Looked::Spared(request)),
        None => extraction.probe().await.map(|page| Looked::At(Box::new(page))),
    }
}

fn check_page(findings: &mut Findings, source: &Source, stream: &Stream, page: &Probe) {
    let next = page
        .next
        .as_ref()
        .map_or_else(|| "no next page".to_owned(), |next| format!("next page {next}"));
    let text = format!(
        "{} answered {}: {} records in {} bytes, {next}",
        page.url, page.status, page.records, page.bytes
    );
    findings.add(Level::Good, &stream.name, text);
    if page.records == 0 {
        findings.add(
            Level::Note,
            &stream.name,
            format!("no record at {}: nothing to compare", stream.records),
        );
        return;
    }
    if let Some(missing) = page.cursors_missing.filter(|&missing| missing > 0) {
        findings.add(
            Level::Note,
            &stream.name,
            format!("{missing} records have no readable cursor"),
        );
    }
    let mut records = Vec::new();
    // The page was read to count its records, so it can be read.
    let _ =
        Recipe::of(source, stream).read(&page.body, &mut |piece| records.push(piece.to_bytes(&page.body)));
    match check_contract(stream) {
        Ok(Some(contract)) => compare(findings, stream, &contract, &records),
        Ok(None) => show_inferred(findings, stream, &records),
        // Said by the offline part already.
        Err(_) => {}
    }
}

/// Judges the records of one page.
fn compare(findings: &mut Findings, stream: &Stream, contract: &Contract, records: &[Bytes]) {
    let judged = contract::judge(stream, contract).and_then(|judge| {
        let mut judging = judge.start();
        for record in records {
            judging.push(record);
        }
        judging.finish()
    });
    let judged = match judged {
        Ok(judged) => judged,
        Err(error) => return findings.add(Level::Wrong, &stream.name, error.chain()),
    };
    let mut rows: Vec<usize> = judged.violations.iter().map(|violation| violation.row).collect();
    rows.dedup();
    let total = records.len();
    match rows.len() {
        0 => findings.add(
            Level::Good,
            &stream.name,
            format!("all {total} records fit contract {}", contract.version),
        ),
        wrong => findings.add(
            Level::Note,
            &stream.name,
            format!(
                "{wrong} of {total} records do not fit contract {}",
                contract.version
            ),
        ),
    }
    let policy = stream.drift;
    for change in drift::changes(contract, &judged.observed, policy.on_unknown, policy.on_mismatch) {
        let said = match change.kind {
            ChangeKind::Unknown => "not in the contract".to_owned(),
            _ => format!("expected {}", change.expected),
        };
        let text = format!(
            "{} {}: {said}, found {} ({} of {}, {})",
            change.path, change.kind, change.found, change.count, change.records, change.effect
        );
        findings.add(Level::Note, &stream.name, text);
    }
}

/// What a contract drafted from one page would say.
fn show_inferred(findings: &mut Findings, stream: &Stream, records: &[Bytes]) {
    let drafted = infer::infer(
        &stream.name.to_string(),
        &stream.table.keys,
        records.iter().map(Bytes::as_ref),
    );
    let Some(contract) = drafted else {
        return findings.add(
            Level::Note,
            &stream.name,
            "no record is a JSON object: no contract can be drafted",
        );
    };
    let column = |column: &Column| format!("{} {}", column.name, columns::data_type(&column.kind));
    let list: Vec<String> = contract.columns.iter().map(column).collect();
    findings.add(
        Level::Note,
        &stream.name,
        format!("columns a draft would have: {}", list.join(", ")),
    );
}

/// Reads the contract and compiles everything that a load compiles.
fn check_contract(stream: &Stream) -> Result<Option<Contract>> {
    let Some(contract) = contract::read(&stream.contract)? else {
        return Ok(None);
    };
    let schema = contract::judge(stream, &contract)?.schema();
    if let Some(sql) = &stream.table.apply_as_deletes {
        Condition::new(sql, &schema)?;
    }
    for column in &stream.table.partition_by {
        if schema.field_with_name(column).is_err() {
            return Err(Error::new(ErrorKind::Config, "find partition column")
                .with("column", column)
                .with("contract", stream.contract.display()));
        }
    }
    Ok(Some(contract))
}

/// Whether every reference leads to a value. Names are told, values never.
fn check_secrets<'a>(
    findings: &mut Findings,
    about: &impl ToString,
    secrets: impl Iterator<Item = (&'a str, &'a Secret)>,
) {
    for (name, secret) in secrets.filter(|(_, secret)| secret.is_reference()) {
        match secret.reveal() {
            Ok(value) if value.is_empty() => {
                findings.add(Level::Wrong, about, format!("{name}: {secret} is empty"))
            }
            Ok(_) => findings.add(Level::Good, about, format!("{name}: {secret} is there")),
            Err(error) => findings.add(Level::Wrong, about, format!("{name}: {}", error.chain())),
        }
    }
}

fn secrets_of(source: &Source) -> impl Iterator<Item = (&str, &Secret)> {
    let auth: Vec<(&str, &Secret)> = match &source.auth {
        Auth::None => Vec::new(),
        Auth::ApiKeyHeader { value, .. } | Auth::ApiKeyQuery { value, .. } => vec![("auth.value", value)],
        Auth::Basic { username, password } => vec![("auth.username", username), ("auth.password", password)],
        Auth::Bearer { token, .. } => vec![("auth.token", token)],
        Auth::ApiKeyBody { value, .. } => vec![("auth.value", value)],
        Auth::OAuth2(_) | Auth::Jwt { .. } | Auth::Session(_) | Auth::Select { .. } | Auth::Pool(_) => {
            Vec::new()
        }
    };
    auth.into_iter()
        .chain(source.headers.iter().map(|(name, value)| (name.as_str(), value)))
}
