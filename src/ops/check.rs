//! `landfall check`: what can be known before anything is loaded.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;

use crate::{
    clock::Timestamp,
    config::{
        Project, Source, Stream,
        advice::{State, advice},
        auth::Auth,
        rate::RateLimit,
        request::Request,
        secret::Secret,
    },
    contract::{
        Column, Contract, columns,
        contracts::{Contracts, Older},
        drift::{self, Change, ChangeKind},
        flatten::{flatten, nested},
        infer,
        judge::Judged,
    },
    error::{Error, ErrorKind, Result},
    extract::{
        channel::Channel,
        quota::Quota,
        window::{Extraction, Planned, Probe},
    },
    format::Recipe,
    ops::{Workspace, contract},
    raw::{Bookmark, store},
    table::explode::Explosion,
    transform::{
        judges::{Bench, Judges},
        quality::Breaks,
        split::row_schema,
    },
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

/// Contracts, conditions and secrets of `project`, at the moment `now`. Nothing is sent and the lake is not opened.
pub fn offline(project: &Project, now: Timestamp) -> Vec<Finding> {
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
        let status = source.rate_limit.as_ref().and_then(|limit| limit.status.as_ref());
        if let Some(status) = status {
            check_secrets(&mut findings, &source.name, secrets_in(&status.request));
        }
    }
    for (_, stream) in project.streams() {
        check_secrets(&mut findings, &stream.name, secrets_in(&stream.request));
        match check_contract(stream) {
            Ok(Some((contracts, _))) => {
                show_contracts(&mut findings, stream, &contracts);
                for (version, notice) in contract::notices(&contracts, now).unwrap_or_default() {
                    let text = format!("contract {version} {notice}");
                    findings.add(Level::Note, &stream.name, text);
                }
                note_nested(&mut findings, stream, &contracts.main);
                let older = contracts.older.iter().map(|older| &older.file);
                for file in std::iter::once(&contracts.file).chain(older) {
                    for warning in contract::warnings(file) {
                        findings.add(Level::Note, &stream.name, warning.to_string());
                    }
                }
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

/// The contracts, and which records they judge.
fn show_contracts(findings: &mut Findings, stream: &Stream, contracts: &Contracts) {
    let words = |contract: &Contract| {
        let Contract { version, status, .. } = contract;
        format!(
            "contract {version} {status} with {} columns",
            contract.columns.len()
        )
    };
    findings.add(Level::Good, &stream.name, words(&contracts.main));
    for Older { values, contract, .. } in &contracts.older {
        let field = stream.versions.as_ref().map(|versions| &versions.field);
        let field = field.map_or_else(String::new, ToString::to_string);
        let text = format!(
            "{}, of records with {field} {}",
            words(contract),
            values.join(", ")
        );
        findings.add(Level::Good, &stream.name, text);
    }
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
    for source in workspace
        .project
        .sources
        .iter()
        .filter(|source| source.is_pulled())
    {
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
        for stream in source.streams.iter().filter(|stream| stream.is_polled()) {
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
        let asks = |limit: &RateLimit| limit.status.is_some();
        if source.rate_limit.as_ref().is_some_and(asks) {
            for quota in channel.quotas() {
                show_quota(&mut findings, source, quota);
            }
        }
    }
    findings.0
}

/// What was told of the quota of one credential.
fn show_quota(findings: &mut Findings, source: &Source, quota: Option<Quota>) {
    let Some(Quota {
        limit,
        remaining: Some(remaining),
        reset: Some(reset),
    }) = quota
    else {
        let text = "quota: rate_limit.status brought no answer that could be read; requests go as without it";
        return findings.add(Level::Note, &source.name, text);
    };
    let of = limit.map_or(String::new(), |limit| format!(" of {limit}"));
    let text = format!("quota: {remaining}{of} requests left for {}s", reset.as_secs());
    let low = quota.is_some_and(|quota| quota.is_low());
    findings.add(if low { Level::Note } else { Level::Good }, &source.name, text);
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
        Ok(Some((contracts, judges))) => compare(findings, stream, &contracts, &judges, &records),
        Ok(None) => show_inferred(findings, stream, &records),
        // Said by the offline part already.
        Err(_) => {}
    }
}

/// Judges the records of one page, each by its contract.
fn compare(
    findings: &mut Findings,
    stream: &Stream,
    contracts: &Contracts,
    judges: &Judges,
    records: &[Bytes],
) {
    let mut groups: Vec<Vec<&Bytes>> = judges.all().map(|_| Vec::new()).collect();
    for record in records {
        let file = stream
            .versions
            .as_ref()
            .and_then(|versions| versions.file_of(record));
        let older = contracts
            .older
            .iter()
            .position(|older| Some(older.file.as_path()) == file);
        groups[older.map_or(0, |older| older + 1)].push(record);
    }
    for ((contract, bench), records) in contracts.all().zip(judges.all()).zip(groups) {
        if !records.is_empty() {
            compare_with(findings, stream, contract, (bench, judges), &records);
        }
    }
}

/// Judges records of one contract.
fn compare_with(
    findings: &mut Findings,
    stream: &Stream,
    contract: &Contract,
    judges: (&Bench, &Judges),
    records: &[&Bytes],
) {
    let (judged, broken) = match judged(judges, records) {
        Ok(judged) => judged,
        Err(error) => return findings.add(Level::Wrong, &stream.name, error.chain()),
    };
    let rows: BTreeSet<usize> = judged.violations.iter().map(|violation| violation.row).collect();
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
    let changes = drift::changes(contract, &judged.observed, policy.on_unknown, policy.on_mismatch);
    for change in changes.into_iter().chain(broken) {
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

/// Records of one contract with all reasons to set them aside, and the rules that were broken.
fn judged((bench, judges): (&Bench, &Judges), records: &[&Bytes]) -> Result<(Judged, Vec<Change>)> {
    let mut judging = bench.judge.start();
    for record in records {
        judging.push(record);
    }
    let mut judged = judging.finish()?;
    let aligned = bench.aligned(&judged.batch)?;
    let mut asked = match &judges.deletes {
        Some(condition) => condition
            .of(&aligned.rows)
            .0
            .values()
            .iter()
            .map(|gone| !gone)
            .collect(),
        None => vec![true; records.len()],
    };
    judged.violations.extend(aligned.unheld);
    for found in &judged.violations {
        asked[found.row] = false;
    }
    let mut breaks = Breaks::default();
    let broken = bench.quality.ask(&judged.batch, &asked, |_| None, &mut breaks)?;
    judged.violations.extend(broken);
    Ok((judged, bench.quality.changes(&breaks)))
}

/// What a contract drafted from one page would say.
fn show_inferred(findings: &mut Findings, stream: &Stream, records: &[Bytes]) {
    let table = &stream.table;
    let drafted = infer::infer(
        &stream.name.to_string(),
        table.declared_keys(),
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
    let columns = flatten(contract.columns, &table.flatten);
    let list: Vec<String> = columns.iter().map(column).collect();
    findings.add(
        Level::Note,
        &stream.name,
        format!("columns a draft would have: {}", list.join(", ")),
    );
}

/// Reads the contracts and compiles everything that a load compiles.
fn check_contract(stream: &Stream) -> Result<Option<(Contracts, Judges)>> {
    let Some(contracts) = contract::read_all(stream)? else {
        return Ok(None);
    };
    let judges = contract::judges(stream, &contracts)?;
    let schema = judges.schema();
    for column in &stream.table.partition_by {
        if schema.field_with_name(column).is_err() {
            return Err(Error::new(ErrorKind::Config, "find partition column")
                .with("column", column)
                .with("contract", stream.contract.display()));
        }
    }
    for list in &stream.table.explode {
        Explosion::new(
            &list.path,
            &stream.table.keys,
            &row_schema(&schema, true, stream.table.is_by_content()),
        )?;
    }
    Ok(Some((contracts, judges)))
}

/// What `flatten` would make of the contract if it were drafted today.
fn note_nested(findings: &mut Findings, stream: &Stream, contract: &Contract) {
    let columns = nested(&contract.columns, &stream.table.flatten);
    if !columns.is_empty() {
        let text = format!(
            "flatten changes no contract that stands, and this one has objects there: {}; draft it anew with \
             `landfall contract infer`, then `landfall rebuild --promote`",
            columns.join(", ")
        );
        findings.add(Level::Note, &stream.name, text);
    }
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

fn secrets_in(request: &Request) -> impl Iterator<Item = (&str, &Secret)> {
    let pairs = request.params.iter().chain(&request.headers);
    pairs.map(|(name, value)| (name.as_str(), value.secret()))
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
