//! How far an extraction is: bars on a terminal, a line now and then elsewhere.

use std::{
    fmt,
    io::{self, IsTerminal as _},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use indicatif::{MultiProgress, ProgressBar, ProgressState, ProgressStyle};
use tokio::task::AbortHandle;

use crate::{
    cli::output::say,
    config::StreamName,
    report::{count, counted},
};

/// How often a bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(120);

/// How often a line is written where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// What a stream has fetched so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Fetched {
    pub(super) pages: u64,
    pub(super) records: u64,
    pub(super) retries: u64,
}

impl fmt::Display for Fetched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} records in {}",
            count(self.records),
            counted(self.pages, "page", "pages")
        )?;
        if self.retries > 0 {
            write!(f, ", {}", counted(self.retries, "retry", "retries"))?;
        }
        Ok(())
    }
}

type Read = Arc<dyn Fn() -> Fetched + Send + Sync>;

/// The streams under way.
pub(super) struct Board {
    bars: Option<MultiProgress>,
    lines: Arc<Mutex<Vec<(StreamName, Read)>>>,
    ticker: Option<AbortHandle>,
}

impl Board {
    /// A board on stderr. With `logging`, log lines are what moves there.
    pub(super) fn new(logging: bool) -> Self {
        let lines: Arc<Mutex<Vec<(StreamName, Read)>>> = Arc::default();
        if io::stderr().is_terminal() && !logging {
            return Self {
                bars: Some(MultiProgress::new()),
                lines,
                ticker: None,
            };
        }
        let shared = Arc::clone(&lines);
        let ticker = tokio::spawn(async move {
            let mut interval = tokio::time::interval(LINE_EVERY);
            interval.tick().await;
            // Ends with the board.
            loop {
                interval.tick().await;
                for (name, read) in shared.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                    say(&format!("{name}  fetched {} so far", read()));
                }
            }
        });
        Self {
            bars: None,
            lines,
            ticker: Some(ticker.abort_handle()),
        }
    }

    /// Shows `stream` with what `read` says.
    pub(super) fn add(&self, stream: &StreamName, read: impl Fn() -> Fetched + Send + Sync + 'static) {
        let read: Read = Arc::new(read);
        if let Some(bars) = &self.bars {
            let shown = Arc::clone(&read);
            let fetched = move |_: &ProgressState, text: &mut dyn fmt::Write| {
                // A bar that cannot be drawn is no failure.
                let _ = write!(text, "{}", shown());
            };
            let style = ProgressStyle::with_template("{spinner} {msg}  {fetched}  {elapsed}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = bars.add(ProgressBar::new_spinner());
            bar.set_style(style.with_key("fetched", fetched));
            bar.set_message(stream.to_string());
            bar.enable_steady_tick(DRAW_EVERY);
        }
        self.lines
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((stream.clone(), read));
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        if let Some(ticker) = &self.ticker {
            ticker.abort();
        }
        if let Some(bars) = &self.bars {
            // What stands there is said again, in full, by the summary.
            let _ = bars.clear();
        }
    }
}
