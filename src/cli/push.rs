//! `landfall push`

use std::{
    io::{self, IsTerminal as _},
    path::PathBuf,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use tokio::task::AbortHandle;

use crate::{
    cli::{
        DONE, Ended, OVER_QUARANTINE,
        output::{parse_format, rows, say},
    },
    config::{
        read::values::{parse_duration, parse_size},
        secret::Secret,
    },
    error::{Error, ErrorKind, Result},
    push::{
        client::{self, Client, Credential},
        coding::Coding,
        refused::RefusedFile,
        source::Source,
        target::Target,
        upload::{Options, Progress, Summary, refused_path, upload},
    },
    report::{Format, count, counted, grid::Grid},
};

/// Where a server is that listens where `serve: {}` has it listen.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

/// Where the token comes from unless something else is said.
const TOKEN_DEFAULT: &str = "${env:LANDFALL_TOKEN}";

/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(120);

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// Send files of records to a server
///
/// JSON Lines or one JSON array, plain, gzip or Zstandard; `-` is standard input. Batches are sent one behind the other
/// through a channel of the server, which knows how far each file is: after any interruption, the same command goes on
/// where it was, and every record is landed once. What was appended to a file since is sent; a file whose beginning is
/// another by now is sent from its first record, and a last line that is not whole yet is left for the next time. Records
/// that are refused stand in a file, with the reasons, once. What comes slowly, as from `tail -f`, is sent when it has
/// waited for --batch-age.
///
/// Exit code 4 if any record was refused or is not whole.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The stream, such as shop.orders
    #[arg(value_name = "STREAM")]
    target: Target,
    /// The files; - for standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Where the server is: its public_url
    #[arg(long, value_name = "URL", default_value = URL_DEFAULT)]
    url: String,
    /// Where the token is: ${env:NAME}, ${file:PATH} or ${exec:COMMAND} [default: ${env:LANDFALL_TOKEN}, if set]
    #[arg(long, value_name = "REFERENCE")]
    token: Option<String>,
    /// partial keeps the good records of a batch with bad ones; atomic stops there and keeps none of it
    #[arg(long, value_name = "MODE", value_enum, default_value = "partial")]
    mode: Mode,
    /// The channel, in place of the one of the file, which is named by its path: name one where several machines send files
    /// of one path with one token. Standard input has none of its own and cannot be resumed without
    #[arg(long, value_name = "NAME")]
    channel: Option<String>,
    /// Send all of each file, whatever of it was sent before; after an interruption, go on without this
    #[arg(long)]
    again: bool,
    /// Most records of a batch
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    batch_records: Option<u64>,
    /// Most bytes of a batch before it is packed, as in 4MiB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    batch_bytes: Option<usize>,
    /// Longest time that a record waits for its batch to be full, as in 200ms
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "1s")]
    batch_age: Duration,
    /// How batches are packed
    #[arg(long, value_name = "CODING", value_enum, default_value = "zstd")]
    pack: Pack,
    /// Longest time for one batch with all its repeats, as in 10m
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "10m")]
    deadline: Duration,
    /// Where refused records are kept [default: STREAM.refused.jsonl]
    #[arg(long, value_name = "FILE")]
    refused: Option<PathBuf>,
    /// Read the files and say what would be sent, and send nothing
    #[arg(long)]
    dry_run: bool,
    /// How the summary is printed: table, json (one object a line) or csv
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = parse_format)]
    format: Format,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Mode {
    Partial,
    Atomic,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Pack {
    Zstd,
    Gzip,
    None,
}

pub(super) async fn run(args: &Args) -> Ended {
    let client = Client::new(client::Options {
        coding: match args.pack {
            Pack::Zstd => Coding::Zstd,
            Pack::Gzip => Coding::Gzip,
            Pack::None => Coding::Identity,
        },
        deadline: args.deadline,
        ..client::Options::usual(&args.url, credential(args.token.as_deref())?)
    })?;
    if args.channel.is_some() && args.files.len() > 1 {
        return Err(Error::new(ErrorKind::Config, "send files")
            .with("problem", "several files cannot go through one channel")
            .with("hint", "leave --channel out: each file has its own")
            .into());
    }
    let options = Options {
        target: args.target.clone(),
        mode: match args.mode {
            Mode::Partial => client::Mode::Partial,
            Mode::Atomic => client::Mode::Atomic,
        },
        records_max: args.batch_records,
        bytes_max: args.batch_bytes,
        age_max: args.batch_age,
        channel: args.channel.clone(),
        again: args.again,
        dry_run: args.dry_run,
    };
    let path = args.refused.clone().unwrap_or_else(|| refused_path(&args.target));
    let mut refused = RefusedFile::at(&path);
    let mut grid = Grid::new(&COLUMNS);
    let (mut failed, mut unfinished) = (None, false);
    for file in &args.files {
        let source = Source::of(file);
        let progress = Progress::default();
        let shown = Shown::new(&source, &progress);
        let sent = upload(&client, &source, &options, &mut refused, &progress).await;
        drop(shown);
        match sent {
            Ok(summary) => {
                say(&line(&source, &summary, args.dry_run));
                if let Some(at) = summary.unfinished_at {
                    unfinished = true;
                    say(&format!(
                        "{}  the last line, from byte {} on, is not whole: it is sent when it is",
                        source.name(),
                        count(at)
                    ));
                }
                grid.rows.push(row(&source, &summary));
            }
            Err(error) => {
                say(&format!("{}  error: {}", source.name(), error.chain()));
                let is_resumed = args.channel.is_some() || source != Source::Stdin;
                if is_resumed && error.kind() == ErrorKind::Unavailable {
                    say(match (args.again, progress.records.load(Ordering::Relaxed)) {
                        // Until something is kept, the channel stands behind all that was sent before.
                        (true, 0) => "nothing was sent again: the same command begins anew",
                        (true, _) => {
                            "what was acknowledged is safe: the same command without --again goes on from there"
                        }
                        (false, _) => "what was acknowledged is safe: the same command goes on from there",
                    });
                }
                failed = failed.or(Some(error.kind().exit_code()));
            }
        }
    }
    if !grid.rows.is_empty() {
        rows(&grid, args.format)?;
    }
    if refused.count() > 0 {
        say(&format!(
            "{} with the reasons: {}",
            counted(refused.count(), "refused record", "refused records"),
            refused.path().display()
        ));
    }
    let any_refused =
        refused.count() > 0 || unfinished || grid.rows.iter().any(|row| row[REFUSED].as_u64() > Some(0));
    Ok(failed.unwrap_or(if any_refused { OVER_QUARANTINE } else { DONE }))
}

/// Who sends. What was not asked for may be missing: then nobody is named.
fn credential(reference: Option<&str>) -> Result<Credential> {
    let secret = Secret::parse(reference.unwrap_or(TOKEN_DEFAULT))?;
    if !secret.is_reference() {
        return Err(Error::new(ErrorKind::Config, "read --token")
            .with(
                "problem",
                "a token on the command line can be seen by everybody on the machine",
            )
            .with("hint", "give ${env:NAME} or ${file:PATH}, in single quotes"));
    }
    if let Err(error) = secret.reveal() {
        return match reference {
            Some(_) => Err(error),
            None => Ok(Credential::None),
        };
    }
    Ok(Credential::Token(Arc::new(move || secret.reveal())))
}

fn size(text: &str) -> Result<usize> {
    let bytes = parse_size(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.filter(|bytes| *bytes > 0).ok_or_else(|| {
        Error::new(ErrorKind::Config, "read size").with("expected", "a size such as 512KiB or 4MiB")
    })
}

fn duration(text: &str) -> Result<Duration> {
    parse_duration(text).ok_or_else(|| {
        Error::new(ErrorKind::Config, "read duration").with("expected", "a duration such as 30s, 10m or 2h")
    })
}

const COLUMNS: [&str; 10] = [
    "file",
    "records",
    "refused",
    "batches",
    "replayed",
    "retries",
    "resumed_at",
    "channel",
    "first_receipt",
    "last_receipt",
];

/// Where the number of refused records stands in a row.
const REFUSED: usize = 2;

fn row(source: &Source, summary: &Summary) -> Vec<serde_json::Value> {
    vec![
        source.name().into(),
        summary.records.into(),
        summary.refused.into(),
        summary.batches.into(),
        summary.replayed.into(),
        summary.retries.into(),
        summary.resumed_at.into(),
        summary.channel.clone().into(),
        summary.first_receipt.clone().into(),
        summary.last_receipt.clone().into(),
    ]
}

fn line(source: &Source, summary: &Summary, dry_run: bool) -> String {
    let name = source.name();
    let records = counted(summary.records, "record", "records");
    let batches = counted(summary.batches, "batch", "batches");
    if dry_run {
        let refused = count(summary.refused);
        return format!("{name}  would send {records} in {batches}; {refused} cannot be sent");
    }
    if summary.batches == 0 && summary.refused == 0 && summary.resumed_at > 0 {
        return format!("{name}  nothing to send: all of it was sent before (--again sends it once more)");
    }
    let mut line = format!("{name}  sent {records} in {batches}");
    if summary.begun_anew {
        line.push_str(", all of it: its beginning is not what was sent through this channel before");
    }
    if summary.resumed_at > 0 {
        line.push_str(&format!(", from byte {} on", count(summary.resumed_at)));
    }
    if summary.refused > 0 {
        line.push_str(&format!(", {} refused", count(summary.refused)));
    }
    if summary.misfits > 0 {
        let misfits = count(summary.misfits);
        line.push_str(&format!(", {misfits} sent that do not fit the contract"));
    }
    if summary.retries > 0 {
        line.push_str(&format!(", {}", counted(summary.retries, "retry", "retries")));
    }
    line
}

/// How far one file is: a bar on a terminal, a line now and then elsewhere.
struct Shown {
    bar: Option<ProgressBar>,
    ticker: Option<AbortHandle>,
}

impl Shown {
    fn new(source: &Source, progress: &Progress) -> Self {
        let (name, whole, progress) = (source.name(), source.bytes(), progress.clone());
        let told = move || {
            let read = progress.read.load(Ordering::Relaxed);
            let part = whole
                .filter(|whole| *whole > 0)
                .map(|whole| read.min(whole) * 100 / whole);
            let records = count(progress.records.load(Ordering::Relaxed));
            match part {
                Some(part) => format!("{records} records sent, {part}% read"),
                None => format!("{records} records sent"),
            }
        };
        if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{spinner} {msg}  {told}  {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner())
                .with_key(
                    "told",
                    move |_: &ProgressState, text: &mut dyn std::fmt::Write| {
                        // A bar that cannot be drawn is no failure.
                        let _ = text.write_str(&told());
                    },
                );
            let bar = ProgressBar::new_spinner().with_style(style).with_message(name);
            bar.enable_steady_tick(DRAW_EVERY);
            return Self {
                bar: Some(bar),
                ticker: None,
            };
        }
        let ticker = tokio::spawn(async move {
            let mut interval = tokio::time::interval(LINE_EVERY);
            interval.tick().await;
            // Ends with what is shown.
            loop {
                interval.tick().await;
                say(&format!("{name}  {} so far", told()));
            }
        });
        Self {
            bar: None,
            ticker: Some(ticker.abort_handle()),
        }
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(ticker) = &self.ticker {
            ticker.abort();
        }
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
