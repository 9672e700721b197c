//! Log lines on stderr.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{EnvFilter, fmt};

use crate::{
    cli::lines::{Colours, Lines},
    config::secret::Secret,
    error::{Error, ErrorKind, Result},
};

/// The variable that says what is logged, in the words of `tracing`: `landfall=debug,deltalake=info`.
const VARIABLE: &str = "LANDFALL_LOG";

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging; `quiet` leaves warnings out, `verbose` says more, and the variable has the last word.
///
/// # Errors
/// [`ErrorKind::Config`] if the variable is not understood.
pub(super) fn start(verbose: u8, quiet: bool, format: LogFormat) -> Result<()> {
    let variable = Secret::parse(&format!("${{env:{VARIABLE}}}"))?;
    let directives = variable
        .reveal()
        .unwrap_or_else(|_| usual(verbose, quiet).to_owned());
    let filter = EnvFilter::try_new(&directives).map_err(|source| {
        Error::new(ErrorKind::Config, "read log filter")
            .with("variable", VARIABLE)
            .caused_by(source)
    })?;
    let colours = match io::stderr().is_terminal() {
        true => Colours::Yes,
        false => Colours::No,
    };
    let lines = fmt()
        .with_env_filter(filter)
        .with_writer(Lines::new(io::stderr, format, colours))
        .with_ansi(colours == Colours::Yes);
    let started = match format {
        LogFormat::Text => lines.with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    // A process that logs already, as a test does, keeps its own way.
    let _ = started;
    Ok(())
}

/// What the libraries below call an error is often an answer to us, such as a table that does not exist yet;
/// what really fails is in our own errors.
fn usual(verbose: u8, quiet: bool) -> &'static str {
    match verbose {
        0 if quiet => "error,buoyant_kernel=off",
        0 => "off,landfall=warn,audit=warn",
        1 => "off,landfall=info,audit=info",
        2 => "off,landfall=debug,audit=info",
        _ => "info,landfall=trace",
    }
}
