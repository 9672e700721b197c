//! `landfall quarantine`

use crate::{
    cli::{
        DONE, Ended, Global,
        output::{FormatArg, print, query},
        streams::{self, Streams},
        workspace,
    },
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops,
    report::{
        Format,
        evidence::Position,
        quarantine::{frame, text},
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
        #[command(flatten)]
        format: FormatArg,
    },
    /// Show one record: every reason, its bytes, and the request it came with
    Show {
        /// The stream
        #[arg(value_name = "STREAM", value_parser = streams::name)]
        stream: StreamName,
        /// Its place in raw, as `list` prints it: batch/page/record
        #[arg(value_name = "POSITION", value_parser = position)]
        position: Position,
        #[command(flatten)]
        format: FormatArg,
    },
}

pub(super) async fn run(args: &Args, global: &Global) -> Ended {
    let workspace = workspace(global)?;
    match &args.action {
        Action::List {
            streams,
            limit,
            format,
        } => {
            let streams = streams.of(&workspace.project)?;
            let session = workspace.session()?;
            match format.format {
                Format::Table => print(&text(&session, &streams, *limit).await?)?,
                format => query(frame(&session, &streams, *limit).await?, format).await?,
            }
        }
        Action::Show {
            stream,
            position,
            format,
        } => {
            let Some(found) = ops::explain::set_aside(&workspace, stream, *position).await? else {
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
