//! Where data and words go.

use std::io::{self, BufWriter, StdoutLock, Write as _};

use datafusion::dataframe::DataFrame;

use crate::{
    error::Result,
    report::{Format, grid::Grid, rows, write_error},
    yaml::Problem,
};

/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 64 * 1024;

/// Stdout, for data.
pub(super) fn data() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(BUFFER_BYTES, io::stdout().lock())
}

/// Writes out what is still in the buffer.
pub(super) fn finish(mut out: BufWriter<StdoutLock<'static>>) -> Result<()> {
    out.flush().map_err(write_error)
}

/// Prints `text` as data.
pub(super) fn print(text: &str) -> Result<()> {
    let mut out = data();
    out.write_all(text.as_bytes()).map_err(write_error)?;
    finish(out)
}

/// Prints `grid` as data.
pub(super) fn rows(grid: &Grid, format: Format) -> Result<()> {
    let mut out = data();
    grid.write(format, &mut out)?;
    finish(out)
}

/// Runs a planned query and prints its rows as data.
pub(super) async fn query(frame: DataFrame, format: Format) -> Result<()> {
    let mut out = data();
    rows::write_frame(frame, format, &mut out).await?;
    finish(out)
}

/// Says one line on stderr. Nobody listening is no failure.
pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Says `problems` one by one, each as `word`.
pub(super) fn say_problems(word: &str, problems: &[Problem]) {
    for problem in problems {
        say(&format!("{word}: {problem}"));
    }
}

/// `--format`, where rows are printed.
#[derive(Debug, clap::Args)]
pub(super) struct FormatArg {
    /// How rows are printed: table, json (one object a line) or csv
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = parse_format)]
    pub(super) format: Format,
}

pub(super) fn parse_format(text: &str) -> Result<Format> {
    text.parse()
}
