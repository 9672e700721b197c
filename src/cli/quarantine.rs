//! `landfall quarantine`

mod release;

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, print, rows},
        streams::{self, Streams},
        workspace,
    },
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::quarantine::{Mask, list, show},
    report::{
        Format,
        evidence::Position,
        quarantine::{grid, text},
    },
};

/// Look at the records that were set aside
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the reasons, with how many records and one sample each
    List {
        #[command(flatten)]
        streams: Streams,
        /// Most reasons listed
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// Show values of classified columns, too
        #[arg(long)]
        reveal: bool,
        #[command(flatten)]
        format: FormatArg,
    },
    /// Judge records again by today's contract, and load those that fit now
    ///
    /// They are read again from raw and keep their place there and their sequence, so a newer row is never overwritten.
    /// What still does not fit stays. Safe to repeat, and to run while others transform.
    #[command(verbatim_doc_comment)]
    Release(release::Args),
    /// Show one record: every reason, its bytes, and the request it came with
    Show {
        /// The stream
        #[arg(value_name = "STREAM", value_parser = streams::name)]
        stream: StreamName,
        /// Its place in raw, as `list` prints it: batch/page/record
        #[arg(value_name = "POSITION", value_parser = position)]
        position: Position,
        /// Show values of classified columns, too
        #[arg(long)]
        reveal: bool,
        #[command(flatten)]
        format: FormatArg,
    },
}

fn mask(reveal: bool) -> Mask {
    if reveal { Mask::No } else { Mask::Yes }
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    match &args.action {
        Action::List {
            streams,
            limit,
            reveal,
            format,
        } => {
            let streams = streams.of(&workspace.project)?;
            let reasons = list(&workspace, &streams, *limit, mask(*reveal)).await?;
            match format.format {
                Format::Table => print(&text(&reasons, *limit))?,
                format => rows(&grid(&reasons), format)?,
            }
        }
        Action::Release(args) => return release::run(args, &workspace).await,
        Action::Show {
            stream,
            position,
            reveal,
            format,
        } => {
            let Some(found) = show(&workspace, stream, *position, mask(*reveal)).await? else {
                return Err(Error::new(ErrorKind::Config, "find quarantined record")
                    .with("stream", stream)
                    .with("position", position)
                    .with(
                        "hint",
                        format!("`landfall quarantine list {stream}` shows positions"),
                    )
                    .into());
            };
            super::explain::show(&[found], format.format)?;
        }
    }
    Ok(DONE)
}

/// Reads `batch/page/record`, where -1 is a page without readable records.
fn position(text: &str) -> Result<Position> {
    let wrong = || {
        Error::new(ErrorKind::Config, "read position")
            .with("found", text)
            .with("expected", "batch/page/record")
    };
    let parts: Vec<i64> = text
        .split('/')
        .map(str::parse)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong())?;
    match parts.as_slice() {
        &[batch, page, record] if batch >= 0 && record >= -1 => Ok(Position {
            batch,
            page: u32::try_from(page).map_err(|_| wrong())?,
            record: u32::try_from(record).ok(),
        }),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_is_written() {
        for text in ["3/0/17", "0/2/-1"] {
            assert_eq!(position(text).unwrap().to_string(), text);
        }
        for text in ["", "3/0", "3/0/-2", "-1/0/0", "a/0/0", "3/0/0/0"] {
            assert!(position(text).is_err(), "{text}");
        }
    }
}
