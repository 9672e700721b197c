//! Passes over everything: when one is needed, and what asks for it.

use std::sync::Arc;

use tracing::warn;

use crate::{
    config::{incremental::OnExpired, read::values::show_duration},
    error::{Error, ErrorKind},
    extract::{cursor, fetch::Fetcher, pull::Mark, window::Scope},
    raw::Window,
};

/// What to do where the API no longer has the changes since a watermark.
pub(super) const EXPIRED_HINT: &str = "changes since then are lost at the source; set incremental.on_expired: resync, or run \
     with --complete, to ask for everything again";

/// What is asked for, and what to stop with: changes are not, if the API keeps them no longer than since after the
/// watermark.
pub(super) fn scope(fetcher: &Fetcher, asked: Scope, mark: &Mark) -> (Scope, Option<Error>) {
    let (Scope::Changes, Some(incremental)) = (&asked, &fetcher.stream.incremental) else {
        return (asked, None);
    };
    let watermark = mark.watermark.as_deref();
    let Some(oldest) = cursor::forgotten(incremental, watermark, fetcher.clock.now()) else {
        return (asked, None);
    };
    let stream = &fetcher.stream.name;
    match incremental.on_expired {
        OnExpired::Resync => {
            warn!(%stream, watermark, oldest, "the API no longer keeps what changed, everything is asked for again");
            (Scope::Complete, None)
        }
        OnExpired::Stop => {
            let error = Error::new(ErrorKind::Refused, "ask for changes since the watermark")
                .with("stream", stream)
                .with("problem", "cursor_expired")
                .with("watermark", watermark.unwrap_or_default())
                .with(
                    "retained",
                    incremental.retained.map(show_duration).unwrap_or_default(),
                )
                .with("hint", EXPIRED_HINT);
            (asked, Some(error))
        }
    }
}

/// The fetcher with what asks for everything, if that is what a pass from `mark` asks for.
pub(super) fn fetcher(fetcher: Fetcher, scope: &Scope, mark: &Mark) -> Fetcher {
    let under_way = |window: &Window| window.complete == Some(true);
    let whole = match scope {
        Scope::Complete => true,
        Scope::Changes => mark.watermark.is_none() || mark.window.as_ref().is_some_and(under_way),
        Scope::Backfill { .. } => false,
    };
    match &fetcher.stream.complete {
        Some(complete) if whole => Fetcher {
            stream: Arc::new(complete.of(&fetcher.stream)),
            ..fetcher
        },
        _ => fetcher,
    }
}
