//! `landfall contract`

mod test;

use std::path::{Path, PathBuf};

use crate::{
    cli::{
        DONE, Ended, Failure, Global,
        output::{FormatArg, parse_format, print, query, rows, say},
        streams, workspace,
    },
    config::StreamName,
    error::{Error, ErrorKind},
    ops::contract::{
        propose::{Draft, Export, Reach, compare, draft_of_lines, draft_text, export, propose},
        registry::{text_kept, versions},
    },
    report::{Format, counted},
};

/// Draft, compare, export and patch contracts
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Draft a contract from what is in raw, with the counts behind each guess
    ///
    /// Prints the file. Formats, lists of values, required columns and keys are only suggested, in the custom property
    /// `inferred` of each column; --strict makes rules of all but the keys. Looks at the first 10,000 records, and at most
    /// 64 MiB of them.
    #[command(verbatim_doc_comment)]
    Infer {
        /// A stream, or a file with one JSON object a line
        #[arg(value_name = "STREAM|FILE")]
        from: String,
        /// Make rules of guesses
        #[arg(long)]
        strict: bool,
    },
    /// Compare two contracts, and say who can live with each difference
    ///
    /// Exit code 3 if --mode is given and a difference is not compatible in that way.
    #[command(verbatim_doc_comment)]
    Diff {
        /// The version before: a stream or a contract file
        #[arg(value_name = "STREAM|FILE")]
        old: String,
        /// The version after: a stream or a contract file
        #[arg(value_name = "STREAM|FILE")]
        new: String,
        /// What the new version must be: none, backward, forward or full
        #[arg(long, value_name = "MODE", default_value = "none")]
        mode: String,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Print a contract as JSON Schema for producers, or as the Arrow or Delta schema of its columns
    Export {
        /// A stream or a contract file
        #[arg(value_name = "STREAM|FILE")]
        contract: String,
        /// json-schema, arrow or delta
        #[arg(long, value_name = "FORMAT", value_enum, default_value = "json-schema")]
        format: Schema,
    },
    /// Propose a new version of a contract that takes the drift that it does not speak of
    ///
    /// Prints the difference to the file, for review; the file is changed only by --write. Drift for which nothing is
    /// proposed is told with the reason.
    #[command(verbatim_doc_comment)]
    Patch {
        /// The stream
        #[arg(value_name = "STREAM", value_parser = streams::name)]
        stream: StreamName,
        /// Also give up types and rules that values do not fit
        #[arg(long)]
        everything: bool,
        /// Print the whole new file
        #[arg(long, conflicts_with = "write")]
        text: bool,
        /// Write the new file
        #[arg(long)]
        write: bool,
    },
    /// Run a proposed contract over stored history, and see what would break
    ///
    /// Every record that raw holds is judged by the stream's contract of today and by the proposed one. Prints one row for
    /// each reason: what `breaks` (accepted today), what `heals` (set aside today), what `stays` aside, and what the proposed
    /// one only `warns` of. No table is touched. Exit code 3 if anything breaks.
    #[command(verbatim_doc_comment)]
    Test(test::Args),
    /// List the versions of a contract that the lake has seen, or print one of them
    Versions {
        /// The stream
        #[arg(value_name = "STREAM", value_parser = streams::name)]
        stream: StreamName,
        /// Print the file as it was in this version: the way back, with `landfall rebuild --promote` behind it
        #[arg(long, value_name = "VERSION")]
        text: Option<String>,
        /// How rows are printed: table, json (one object a line) or csv
        #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = parse_format)]
        format: Format,
    },
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Schema {
    #[value(name = "json-schema")]
    Json,
    Arrow,
    Delta,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    match &args.action {
        Action::Infer { from, strict } => {
            let draft = if *strict { Draft::Strict } else { Draft::Suggesting };
            let drafted = match place(from) {
                Place::File(path) => {
                    let drafted = draft_of_lines(&path, draft)?;
                    if !drafted.is_whole {
                        let records = counted(drafted.records as u64, "record", "records");
                        say(&format!("only the first {records} of {from} were looked at"));
                    }
                    drafted.text
                }
                Place::Stream(name) => draft_text(&workspace(global)?, &name?, draft).await?,
            };
            let text = drafted.ok_or_else(|| {
                Error::new(ErrorKind::Refused, "infer contract")
                    .with("from", from)
                    .with("problem", "there are no records yet")
            })?;
            print(&text)?;
        }
        Action::Diff {
            old,
            new,
            mode,
            format,
        } => {
            let comparison = compare(&contract(old, global)?, &contract(new, global)?, mode)?;
            rows(&comparison.differences, format.format)?;
            say(&format!("the version after: {}", comparison.version));
            if !comparison.incompatible.is_empty() {
                let words = comparison.incompatible.join("; ");
                return Err(Error::new(ErrorKind::Contract, "compare contracts")
                    .with("mode", mode)
                    .with("incompatible", words)
                    .into());
            }
        }
        Action::Export { contract: of, format } => {
            let format = match format {
                Schema::Json => Export::JsonSchema,
                Schema::Arrow => Export::Arrow,
                Schema::Delta => Export::Delta,
            };
            let text = match place(of) {
                Place::File(path) => export(&path, None, format)?,
                Place::Stream(name) => {
                    let project = super::project(global)?;
                    let (_, stream) = project.stream(&name?)?;
                    export(&stream.contract, Some(stream), format)?
                }
            };
            print(&text)?;
        }
        Action::Patch {
            stream,
            everything,
            text,
            write,
        } => {
            let reach = if *everything {
                Reach::Everything
            } else {
                Reach::Lossless
            };
            let workspace = workspace(global)?;
            let proposal = propose(&workspace, stream, reach).await?;
            print(if *text { &proposal.text } else { &proposal.unified })?;
            for left in &proposal.left {
                say(&format!("left as it is: {left}"));
            }
            if proposal.unified.is_empty() {
                say("nothing to change");
            } else if *write {
                proposal.write(&workspace, stream)?;
                say(&format!("written as version {}", proposal.version));
            }
        }
        Action::Test(args) => return test::run(args, global).await,
        Action::Versions { stream, text, format } => {
            let workspace = workspace(global)?;
            workspace.project.stream(stream)?;
            if let Some(version) = text {
                let text = text_kept(&workspace, stream, version).await?.ok_or_else(|| {
                    Error::new(ErrorKind::Refused, "find version of contract")
                        .with("stream", stream)
                        .with("version", version)
                        .with(
                            "hint",
                            format!("`landfall contract versions {stream}` lists them"),
                        )
                })?;
                print(&text)?;
                return Ok(DONE);
            }
            query(versions(&workspace, stream).await?, *format).await?;
        }
    }
    Ok(DONE)
}

enum Place {
    File(PathBuf),
    Stream(Result<StreamName, Error>),
}

/// A file if it looks like one, else a stream.
fn place(text: &str) -> Place {
    let is_file = text.contains(['/', '\\']) || Path::new(text).is_file();
    if is_file {
        Place::File(PathBuf::from(text))
    } else {
        Place::Stream(StreamName::parse(text))
    }
}

/// The contract file meant.
fn contract(text: &str, global: &Global) -> Result<PathBuf, Failure> {
    match place(text) {
        Place::File(path) => Ok(path),
        Place::Stream(name) => {
            let project = super::project(global)?;
            let (_, stream) = project.stream(&name?)?;
            Ok(stream.contract.clone())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_from_a_stream() {
        assert!(matches!(place("contracts/a.odcs.yaml"), Place::File(_)));
        assert!(matches!(place("shop.orders"), Place::Stream(Ok(_))));
        assert!(matches!(place("Shop"), Place::Stream(Err(_))));
    }
}
