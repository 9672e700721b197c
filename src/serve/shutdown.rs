//! How serving ends: first no new work, then no connections.

use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};

/// The two steps of an orderly end, shared by everything that serves. Clones are the same shutdown.
///
/// ```
/// use landfall::serve::shutdown::Shutdown;
/// let shutdown = Shutdown::new();
/// assert!(!shutdown.is_stopping());
/// shutdown.stop();
/// assert!(shutdown.is_stopping() && !shutdown.is_closing());
/// ```
#[derive(Clone, Debug)]
pub struct Shutdown {
    stop: CancellationToken,
    close: CancellationToken,
}

impl Shutdown {
    /// A shutdown nobody has asked for yet.
    #[expect(
        clippy::new_without_default,
        reason = "a shutdown is shared, a default one would end nothing"
    )]
    pub fn new() -> Self {
        Self {
            stop: CancellationToken::new(),
            close: CancellationToken::new(),
        }
    }

    /// First step: listeners accept no more, connections end after the requests they are in. Readiness turns off.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Second step: what is still open is closed now. Implies the first.
    pub fn close(&self) {
        self.stop.cancel();
        self.close.cancel();
    }

    /// Whether the first step has begun.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether the second step has begun.
    pub fn is_closing(&self) -> bool {
        self.close.is_cancelled()
    }

    /// Waits for the first step.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Waits for the second step.
    pub async fn closing(&self) {
        self.close.cancelled().await;
    }

    /// Turns signals into steps: the first SIGTERM or SIGINT stops, the second closes. They are listened for from this
    /// call on; what it returns is ready after the second.
    ///
    /// # Errors
    /// `Internal` if the signals cannot be listened for.
    #[cfg(unix)]
    pub fn follow_signals(&self) -> Result<impl Future<Output = ()> + Send + use<>> {
        use tokio::signal::unix::{SignalKind, signal};

        let failed = |source| Error::new(ErrorKind::Internal, "listen for signals").caused_by(source);
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        let shutdown = self.clone();
        Ok(async move {
            for step in [Self::stop, Self::close] {
                tokio::select! {
                    _ = terminate.recv() => {}
                    _ = interrupt.recv() => {}
                }
                step(&shutdown);
            }
        })
    }

    /// Turns Ctrl-C into steps: the first stops, the second closes. What it returns is ready after the second, or when
    /// it cannot be listened for.
    ///
    /// # Errors
    /// None.
    #[cfg(not(unix))]
    pub fn follow_signals(&self) -> Result<impl Future<Output = ()> + Send + use<>> {
        let shutdown = self.clone();
        Ok(async move {
            for step in [Self::stop, Self::close] {
                if tokio::signal::ctrl_c().await.is_err() {
                    return;
                }
                step(&shutdown);
            }
        })
    }
}
