//! `--metrics FILE`: what a monitor wants to know, in a file that its agent collects.

use std::{io::Write as _, path::Path};

use crate::{
    config::StreamName,
    error::{Error, ErrorKind, Result},
    ops::{Workspace, extract::Channels, status},
    report::metrics,
};

/// Writes the metrics of `streams`, and of the circuits of `channels`, to `file` in one step: whoever reads it at the same
/// time finds the old text or the new one.
///
/// # Errors
/// Those of reading the load history, and [`ErrorKind::Config`] if the file cannot be written.
pub async fn write(
    workspace: &Workspace,
    channels: Option<&Channels>,
    streams: &[StreamName],
    file: &Path,
) -> Result<()> {
    let statuses = status::status(workspace, streams).await?;
    let circuits = channels.map(Channels::circuits).unwrap_or_default();
    let text = metrics::text(&statuses, &circuits, workspace.clock.now());
    let fail = |source: std::io::Error| {
        Error::new(ErrorKind::Config, "write metrics")
            .with("file", file.display())
            .with(
                "hint",
                "--metrics needs a file in a folder that can be written to",
            )
            .caused_by(source)
    };
    // In the same folder, so that the rename stays on one file system.
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = file.with_file_name(name);
    let mut out = std::fs::File::create(&new).map_err(fail)?;
    out.write_all(text.as_bytes()).map_err(fail)?;
    drop(out);
    std::fs::rename(&new, file).map_err(fail)
}
