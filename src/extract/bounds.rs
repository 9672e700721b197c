//! Where the windows of an incremental stream begin and end.
//!
//! ```text
//! watermark − lookback          from + step                                        end or now
//!        ├──────────── window 1 ─────┼──────────── window 2 ─────┼───── window 3 ─────┤
//!      from                        to = from                                          to
//! ```
//!
//! A window holds what lies from its `from` up to, and without, its `to`. An API that includes its upper bound is sent
//! one that is lower by the granularity, so that nothing is asked for twice and nothing is left out.

use std::time::Duration;

use chrono::{Datelike as _, Days, Months, NaiveTime};

use crate::{
    clock::Timestamp,
    config::{
        cursor::{moment, nanos},
        incremental::{Calendar, CursorFormat, Incremental, Step},
    },
    error::{Error, ErrorKind, Result},
    extract::cursor::{self, Rank},
};

/// Most windows of one range. A longer range needs a longer step.
pub const WINDOWS_MAX: i128 = 100_000;

/// One window: what is sent, and what it means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// The lower bound as sent; none asks for everything.
    pub since: Option<String>,
    /// The upper bound as sent.
    pub until: Option<String>,
    /// Records before it belong to an earlier window.
    pub from: Option<Rank>,
    /// Records at or after it belong to a later window; none for a window without an end.
    pub to: Option<Rank>,
}

/// The windows of a range, in order. Nothing is held but the place.
#[derive(Clone, Debug)]
pub struct Windows {
    format: CursorFormat,
    granularity: Rank,
    cuts: Cuts,
    /// The next window; windows after it follow the cuts.
    next: Option<Bounds>,
    /// The end of the range: rank, and the bound sent for it.
    end: Option<(Rank, String)>,
}

/// Where a range is cut.
#[derive(Clone, Copy, Debug)]
struct Cuts {
    base: Rank,
    step: Option<Step>,
    align: Option<Calendar>,
    /// Steps taken from `base`.
    taken: i128,
}

/// The windows that follow `watermark`, as seen at `now`.
///
/// Without `until` it is one, open to the present. None if all that was to be asked for has been.
///
/// # Errors
/// [`ErrorKind::Config`] if the watermark is not written in the stream's format, or a range without a beginning is to
/// be cut; [`ErrorKind::Limit`] if there are more than [`WINDOWS_MAX`].
pub fn windows(incremental: &Incremental, watermark: Option<&str>, now: Timestamp) -> Result<Windows> {
    let since = cursor::bound(incremental, watermark, now)?;
    Windows::new(incremental, since, range_end(incremental, now))
}

/// The windows after `last`, which an earlier run began, up to where [`windows`] would end; none after one without an
/// end.
///
/// # Errors
/// [`ErrorKind::Limit`] if there are more than [`WINDOWS_MAX`].
pub fn windows_after(incremental: &Incremental, last: &Bounds, now: Timestamp) -> Result<Windows> {
    let Some(to) = last.to else {
        return Ok(Windows::none(incremental));
    };
    let since = incremental.format.canonical(to);
    Windows::new(incremental, Some(since), range_end(incremental, now))
}

/// The windows of the closed range from `from` to `to`, both asked for, whatever the watermark is.
///
/// They move no watermark. If the API takes no upper bound it is one window that begins at `from`.
///
/// # Errors
/// [`ErrorKind::Config`] if the bounds are not values of the stream's formats or not in order, or the stream is a feed;
/// [`ErrorKind::Limit`] if there are more than [`WINDOWS_MAX`].
pub fn backfill_windows(incremental: &Incremental, from: &str, to: &str) -> Result<Windows> {
    let read = |name: &'static str, text: &str| -> Result<(Rank, String)> {
        let format = &incremental.format;
        // What people write by hand, besides what the API does.
        let plain = [CursorFormat::Rfc3339, CursorFormat::Date];
        let plain = plain.iter().filter(|_| format.is_time());
        let formats = std::iter::once(format).chain(&incremental.also).chain(plain);
        match formats.map(|format| format.rank(text)).find_map(|rank| rank) {
            Some(rank) => Ok((format.floor(rank), format.canonical(rank))),
            None => Err(Error::new(ErrorKind::Config, "read range of a backfill")
                .with(name, format!("{text:?}"))
                .with("format", format.as_str())),
        }
    };
    let ((first, since), last) = (read("from", from)?, read("to", to)?);
    if first > last.0 {
        return Err(Error::new(ErrorKind::Config, "read range of a backfill")
            .with("from", since)
            .with("to", last.1)
            .with("problem", "it ends before it begins"));
    }
    let (end, text) = behind(incremental, last);
    let end = match incremental.until.as_ref().and_then(|until| until.align) {
        // The period that the end lies in is asked for as a whole.
        Some(align) => ending_at(incremental, align_up(align, end)),
        None => (end, text),
    };
    Windows::new(incremental, Some(since), Some(end))
}

impl Bounds {
    /// The bounds of a window kept in a bookmark as it was sent.
    pub fn stored(incremental: &Incremental, since: Option<&str>, until: Option<&str>) -> Self {
        let rank = |text: Option<&str>| text.and_then(|text| incremental.format.rank(text));
        Self {
            since: since.map(str::to_owned),
            until: until.map(str::to_owned),
            from: rank(since),
            // Not beyond the end the window had: it was lowered by the granularity or more.
            to: rank(until).map(|until| until.saturating_add(granularity(incremental))),
        }
    }

    /// The watermark after this window is complete: never less than `known`, never beyond what was asked for.
    ///
    /// `found` is the greatest cursor seen and `opened_at` when the window opened, by the earlier of our clock and the
    /// server's. A window that ended longer ago than the skew is settled: even without a record the watermark moves to
    /// its end. Else it moves to what was found, but not past the moment the window opened.
    pub fn watermark(
        &self,
        incremental: &Incremental,
        known: Option<&str>,
        found: Option<Rank>,
        opened_at: Timestamp,
    ) -> Option<String> {
        let format = &incremental.format;
        let known = known.and_then(|text| format.rank(text));
        let skew = incremental.skew.as_nanos().cast_signed();
        let settled = self
            .to
            .filter(|to| format.is_time() && *to <= nanos(opened_at).saturating_sub(skew));
        let limits = [cursor::cap(format, opened_at), self.to];
        let seen = found.map(|found| limits.into_iter().flatten().fold(found, Rank::min));
        let moved = known.max(settled).max(seen)?;
        Some(format.canonical(moved))
    }
}

impl Bounds {
    /// The window in two, cut at a moment the format can say; `None` if it has no beginning or is too short, by
    /// [`split_min`](crate::config::incremental::Until::split_min) or for the format.
    pub fn halves(&self, incremental: &Incremental, now: Timestamp) -> Option<(Self, Self)> {
        let format = &incremental.format;
        let least = incremental.until.as_ref()?.split_min.as_nanos().cast_signed();
        let from = self.from?;
        let present = cursor::cap(format, now);
        let to = self.to.or(present)?;
        if format.is_time() && to - from <= least {
            return None;
        }
        let middle = format.floor(from + (to - from) / 2);
        if middle <= from || middle >= to {
            return None;
        }
        let last = middle.saturating_sub(granularity(incremental)).max(from);
        let first = Self {
            until: Some(format.canonical(last)),
            to: Some(middle),
            ..self.clone()
        };
        let second = Self {
            since: Some(format.canonical(middle)),
            from: Some(middle),
            ..self.clone()
        };
        Some((first, second))
    }
}

impl Windows {
    fn none(incremental: &Incremental) -> Self {
        Self {
            format: incremental.format.clone(),
            granularity: 0,
            cuts: Cuts {
                base: 0,
                step: None,
                align: None,
                taken: 0,
            },
            next: None,
            end: None,
        }
    }

    fn new(incremental: &Incremental, since: Option<String>, end: Option<(Rank, String)>) -> Result<Self> {
        let format = incremental.format.clone();
        let until = incremental.until.as_ref();
        let granularity = granularity(incremental);
        let (step, align) = until.map_or((None, None), |until| (until.step, until.align));
        let mut from = since.as_ref().and_then(|since| format.rank(since));
        let mut since = since;
        if let Some(align) = align {
            from = from.map(|from| align_down(align, from));
            since = from.map(|from| format.canonical(from)).or(since);
        }
        let cuts = Cuts {
            base: from.unwrap_or(0),
            step: step.or_else(|| align.map(period)),
            align,
            taken: 0,
        };
        if let (Some(step), Some((end, _))) = (cuts.step, &end) {
            check(step, from, *end)?;
        }
        let empty = matches!((from, &end), (Some(from), Some((end, _))) if from >= *end);
        let mut windows = Self {
            format,
            granularity,
            cuts,
            next: None,
            end,
        };
        if !empty {
            windows.next = Some(windows.window(from, since, until.is_some()));
        }
        Ok(windows)
    }

    /// The window that begins at `from`; its upper bound is sent if `send`.
    fn window(&mut self, from: Option<Rank>, since: Option<String>, send: bool) -> Bounds {
        let cut = from.and_then(|from| self.cuts.after(from, &self.format));
        let (to, until) = match (cut, &self.end) {
            (Some(cut), Some((end, _))) if cut < *end => {
                let until = self.format.canonical(cut.saturating_sub(self.granularity));
                (Some(cut), Some(until))
            }
            (_, Some((end, until))) => (Some(*end), Some(until.clone())),
            (_, None) => (None, None),
        };
        // A bound lowered below the other one would ask for nothing.
        let until = match (from, until.as_ref().and_then(|until| self.format.rank(until))) {
            (Some(from), Some(rank)) if rank < from => since.clone(),
            _ => until,
        };
        Bounds {
            since,
            until: until.filter(|_| send),
            from,
            to,
        }
    }
}

impl Iterator for Windows {
    type Item = Bounds;

    fn next(&mut self) -> Option<Bounds> {
        let window = self.next.take()?;
        let send = window.until.is_some();
        if let (Some(to), Some((end, _))) = (window.to, &self.end)
            && to < *end
        {
            let since = self.format.canonical(to);
            self.next = Some(self.window(Some(to), Some(since), send));
        }
        Some(window)
    }
}

impl Cuts {
    /// The first cut after `from`, at a moment the format can say; none if the range is not cut.
    fn after(&mut self, from: Rank, format: &CursorFormat) -> Option<Rank> {
        let step = self.step?;
        // A step that the format or the calendar swallows is passed over.
        while self.taken < WINDOWS_MAX {
            self.taken += 1;
            let cut = add(self.base, step, self.taken)?;
            let cut = self.align.map_or(cut, |align| align_down(align, cut));
            let cut = format.floor(cut);
            if cut > from {
                return Some(cut);
            }
        }
        None
    }
}

/// Where the windows end at `now`, and the bound sent for it; nowhere without `until`.
fn range_end(incremental: &Incremental, now: Timestamp) -> Option<(Rank, String)> {
    let format = &incremental.format;
    let until = incremental.until.as_ref()?;
    let present = cursor::cap(format, now).map(|now| (format.floor(now), format.canonical(now)));
    let ends = until.end.iter();
    let last = ends
        .filter_map(|end| cursor::moment(format, end, now))
        .chain(present)
        .min_by_key(|(rank, _)| *rank)?;
    let (end, text) = behind(incremental, last);
    Some(match until.align {
        Some(align) => ending_at(incremental, align_down(align, end.min(nanos(now)))),
        None => (end, text),
    })
}

/// The end of a range whose last moment is `last`, and the bound sent for it.
fn behind(incremental: &Incremental, last: (Rank, String)) -> (Rank, String) {
    (last.0.saturating_add(granularity(incremental)), last.1)
}

fn ending_at(incremental: &Incremental, end: Rank) -> (Rank, String) {
    let last = end.saturating_sub(granularity(incremental));
    (end, incremental.format.canonical(last))
}

fn granularity(incremental: &Incremental) -> Rank {
    let until = incremental.until.as_ref();
    let granularity = until.map_or(Duration::ZERO, |until| until.granularity);
    if incremental.format.is_time() {
        granularity.as_nanos().cast_signed()
    } else {
        0
    }
}

fn check(step: Step, from: Option<Rank>, end: Rank) -> Result<()> {
    let Some(from) = from else {
        return Err(Error::new(ErrorKind::Config, "cut a range into windows")
            .with("problem", "it has no beginning")
            .with("hint", "give incremental a start"));
    };
    let step_nanos = match step {
        Step::Fixed(step) => step.as_nanos().cast_signed(),
        Step::Months(months) => Rank::from(months) * 28 * 86_400_000_000_000,
    };
    let windows = end.saturating_sub(from).div_euclid(step_nanos.max(1)) + 1;
    if windows <= WINDOWS_MAX {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Limit, "cut a range into windows")
        .with("windows", windows)
        .with("windows_max", WINDOWS_MAX)
        .with("hint", "enlarge until.step, or begin later"))
}

/// `steps` steps from `base`; none beyond the years there are.
fn add(base: Rank, step: Step, steps: i128) -> Option<Rank> {
    match step {
        Step::Fixed(step) => base.checked_add(step.as_nanos().cast_signed().checked_mul(steps)?),
        Step::Months(months) => {
            let months = u32::try_from(i128::from(months).checked_mul(steps)?).ok()?;
            moment(base).checked_add_months(Months::new(months)).map(nanos)
        }
    }
}

fn period(calendar: Calendar) -> Step {
    const DAY: Duration = Duration::from_secs(86_400);
    match calendar {
        Calendar::Day => Step::Fixed(DAY),
        Calendar::Week(_) => Step::Fixed(7 * DAY),
        Calendar::Month => Step::Months(1),
        Calendar::Year => Step::Months(12),
    }
}

/// The beginning of the period after the one that `rank` lies in; `rank` itself if a period begins there.
fn align_up(calendar: Calendar, rank: Rank) -> Rank {
    let down = align_down(calendar, rank);
    if down == rank {
        return rank;
    }
    add(down, period(calendar), 1).unwrap_or(rank)
}

/// The beginning of the period that `rank` lies in.
fn align_down(calendar: Calendar, rank: Rank) -> Rank {
    let date = moment(rank).date_naive();
    let first = match calendar {
        Calendar::Day => Some(date),
        Calendar::Week(day) => date.checked_sub_days(Days::new(u64::from(date.weekday().days_since(day)))),
        Calendar::Month => date.with_day(1),
        Calendar::Year => date.with_ordinal(1),
    };
    let first = first.unwrap_or(date).and_time(NaiveTime::MIN).and_utc();
    nanos(first)
}
