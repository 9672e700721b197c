//! `landfall explain`

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, print},
        streams, workspace,
    },
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::{self, quarantine::Mask},
    report::{Format, evidence::Explained},
};

/// Show where a row came from: the request, the stored object and the exact bytes
///
/// Records with the same key that were set aside are shown too. The bytes are checked against what was landed. Values of
/// classified columns are masked.
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct Args {
    /// The stream
    #[arg(value_name = "STREAM", value_parser = streams::name)]
    stream: StreamName,
    /// The row's key: one value per key column in their order, or column=value
    #[arg(value_name = "KEY", required = true)]
    key: Vec<String>,
    /// Show values of classified columns, too
    #[arg(long)]
    reveal: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    let mask = if args.reveal { Mask::No } else { Mask::Yes };
    let explained = ops::explain::explain(&workspace, &args.stream, &args.key, mask).await?;
    if explained.is_empty() {
        return Err(Error::new(ErrorKind::Refused, "find row")
            .with("stream", &args.stream)
            .with("key", args.key.join(" "))
            .with("found", "neither in the table nor in the quarantine")
            .into());
    }
    show(&explained, args.format.format)?;
    Ok(DONE)
}

/// Prints what was found; csv has no way to say it.
pub(super) fn show(explained: &[Explained], format: Format) -> Result<()> {
    let texts: Vec<String> = match format {
        Format::Table => explained.iter().map(Explained::text).collect(),
        Format::Json => explained
            .iter()
            .map(|explained| format!("{}\n", explained.json()))
            .collect(),
        Format::Csv => {
            return Err(Error::new(ErrorKind::Config, "print evidence")
                .with("format", "csv")
                .with("expected", "table or json"));
        }
    };
    let between = if format == Format::Table { "\n" } else { "" };
    print(&texts.join(between))
}
