//! Which windows a slice is asked for in.

use crate::{
    clock::Timestamp,
    config::{Stream, incremental::Incremental},
    error::Result,
    extract::{
        bounds::{Bounds, Windows, backfill_windows, windows, windows_after},
        cursor,
        paginate::guard::Seen,
        pull::{Ahead, Mark},
        request::START,
        window::Scope,
    },
    raw::Window,
};

/// The windows a slice is asked for in; also the check that its watermark can be used at all.
pub(super) fn first_windows(stream: &Stream, scope: &Scope, mark: &Mark, now: Timestamp) -> Result<Ahead> {
    let Some(incremental) = &stream.incremental else {
        return Ok(Box::new(std::iter::once(Bounds::default())));
    };
    cursor::check(incremental, mark.cursor.as_deref())?;
    let windows: Windows = match scope {
        Scope::Changes => windows(incremental, mark.watermark.as_deref(), now)?,
        Scope::Complete => windows(incremental, None, now)?,
        Scope::Backfill { from, to } => backfill_windows(incremental, from, to)?,
    };
    Ok(Box::new(windows))
}

/// The windows after one that an earlier run began.
pub(super) fn later_windows(
    incremental: &Incremental,
    scope: &Scope,
    last: &Bounds,
    now: Timestamp,
) -> Result<Ahead> {
    Ok(match scope {
        Scope::Changes | Scope::Complete => Box::new(windows_after(incremental, last, now)?),
        Scope::Backfill { from, to } => {
            // A window that was halved ends before the one it was cut from: what is behind its end is still to come.
            let (reached, windows) = (last.to, backfill_windows(incremental, from, to)?);
            let format = incremental.format.clone();
            Box::new(windows.filter_map(move |mut window| {
                let reached = reached?;
                if window.to.is_some_and(|to| to <= reached) {
                    return None;
                }
                if window.from < Some(reached) {
                    window.from = Some(reached);
                    window.since = Some(cursor::canonical(&format, reached));
                }
                Some(window)
            }))
        }
    })
}

pub(super) fn opened(bounds: &Bounds, scope: &Scope, shape: &str, now: Timestamp) -> Window {
    Window {
        opened_at: Some(now),
        shape: Some(shape.to_owned()),
        since: bounds.since.clone(),
        until: bounds.until.clone(),
        complete: (*scope == Scope::Complete).then_some(true),
        next: START.to_owned(),
        ..Window::default()
    }
}

pub(super) fn seen(window: &Window) -> Seen {
    Seen {
        records: window.records,
        before: window.before,
        repeated: window.repeats,
        total: window.total,
        unstable: window.unstable,
    }
}
