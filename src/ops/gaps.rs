//! `landfall gaps`: what is missing, repeated or short in what was landed, as far as extraction can tell.

use std::sync::Arc;

use crate::{
    clock::Timestamp,
    config::{Source, Stream, StreamName, read::values::show_duration, slice::SliceBy},
    error::Result,
    ops::{
        Workspace,
        extract::hydrate::{behind, newest},
        heard::Ear,
        status::age,
    },
    raw::{BatchNumber, Bookmark, log::RawLog},
    report::moment,
};

/// Slices listed one by one for a stream; the others are counted.
const SLICES_LISTED_MAX: usize = 20;

/// Something that is not as whole as it could be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: StreamName,
    /// What kind of gap, in one word.
    pub kind: &'static str,
    /// What it is, in a sentence.
    pub text: String,
    /// Since when, if that is known.
    pub since: Option<Timestamp>,
}

/// The gaps of `streams`, in their order.
///
/// | kind | means |
/// |---|---|
/// | `never` | nothing was ever extracted |
/// | `stale` | the last success is longer ago than `fresh_within` |
/// | `window_open` | a window was begun and not finished: the next run goes on with it |
/// | `pass_open` | some slices of a pass are still to be asked for |
/// | `slice_failed` | a slice failed; the next run asks for it again |
/// | `slice_open` | a slice's window was begun and not finished |
/// | `parents_new` | a parent stream has records that have not been slices yet |
/// | `backfill_open` | a backfill was begun and not finished |
/// | `pushed_missing` | something was pushed and never came; the next run asks for it |
/// | `events_new` | events of another stream name records that were not asked for yet |
/// | `events_waiting` | events whose record could not be fetched; they are tried again |
/// | `dead_letter` | an event that was given up; `--retry-dead-letters` tries it again, `--discard-dead-letters` forgets it |
/// | `ignored` | error rules ignored answers of the last pass: what is behind them is not known, and absent rows stay |
/// | `unstable` | pages shifted while they were read; a complete pass will tell what is missing |
/// | `short`, `unstable_pagination`, `filter_ignored`, `zero_records`, … | what the last windows reported |
///
/// # Errors
/// Whatever the store says about a raw log.
pub async fn gaps(workspace: &Workspace, streams: &[StreamName]) -> Result<Vec<Gap>> {
    let now = workspace.clock.now();
    let mut gaps = Vec::new();
    for name in streams {
        let (source, stream) = workspace.project.stream(name)?;
        let head = head(workspace, name).await?;
        let Some((_, bookmark)) = head else {
            gaps.push(Gap {
                stream: name.clone(),
                kind: "never",
                text: "nothing was extracted yet".to_owned(),
                since: None,
            });
            continue;
        };
        let mut found = Found {
            stream,
            gaps: Vec::new(),
        };
        found.look(&bookmark, now);
        found.parents(workspace, source, &bookmark).await?;
        found.events(workspace, source, &bookmark).await?;
        found.pushed(workspace, source, &bookmark).await?;
        gaps.extend(found.gaps);
    }
    Ok(gaps)
}

async fn head(workspace: &Workspace, name: &StreamName) -> Result<Option<(BatchNumber, Bookmark)>> {
    let log = RawLog {
        store: Arc::clone(&workspace.store),
        stream: name.clone(),
    };
    let head = log.head().await?;
    Ok(head.map(|head| (head.number, head.bookmark.unwrap_or_default())))
}

struct Found<'a> {
    stream: &'a Stream,
    gaps: Vec<Gap>,
}

impl Found<'_> {
    fn add(&mut self, kind: &'static str, text: String, since: Option<Timestamp>) {
        self.gaps.push(Gap {
            stream: self.stream.name.clone(),
            kind,
            text,
            since,
        });
    }

    fn look(&mut self, bookmark: &Bookmark, now: Timestamp) {
        self.freshness(bookmark, now);
        if let Some(window) = &bookmark.window {
            let asked = asked(window.since.as_deref(), window.until.as_deref());
            let text = format!("{} pages of a window {asked}are landed", window.pages);
            self.add("window_open", text, window.opened_at);
        }
        if let Some(pass) = &bookmark.pass {
            let text = format!("{} slices of a pass are done, others are not", pass.done.count());
            self.add("pass_open", text, Some(pass.opened_at));
            self.ignored(pass.tally.ignored, "this pass", Some(pass.opened_at));
        }
        let ignored = bookmark.last_pass.map_or(0, |tally| tally.ignored);
        self.ignored(ignored, "the last pass", bookmark.last_success_at);
        let troubled = || {
            let slices = bookmark.slices.iter();
            slices.filter(|(_, mark)| mark.failed.is_some() || mark.window.is_some())
        };
        for (key, mark) in troubled().take(SLICES_LISTED_MAX) {
            let pages = mark.window.as_ref().map_or(0, |window| window.pages);
            let (kind, text) = match &mark.failed {
                Some(_) => (
                    "slice_failed",
                    format!("{key} failed after {pages} pages of its window"),
                ),
                None => (
                    "slice_open",
                    format!("{pages} pages of a window of {key} are landed"),
                ),
            };
            self.add(kind, text, Some(mark.changed_at));
        }
        let more = troubled().count().saturating_sub(SLICES_LISTED_MAX);
        if more > 0 {
            self.add(
                "slice_failed",
                format!("{more} more slices failed or are open"),
                None,
            );
        }
        if let Some(backfill) = &bookmark.backfill {
            let text = format!(
                "the backfill from {} to {} is not finished: run it again",
                backfill.from, backfill.to
            );
            self.add("backfill_open", text, None);
        }
        if bookmark.unstable {
            let text = "pages shifted while they were read: run with --complete, or set reconcile".to_owned();
            self.add("unstable", text, bookmark.last_success_at);
        }
        for alarm in &bookmark.alarms {
            self.gaps.push(Gap {
                stream: self.stream.name.clone(),
                kind: "alarm",
                text: alarm.text.clone(),
                since: Some(alarm.at),
            });
        }
    }

    fn ignored(&mut self, answers: u64, of: &str, since: Option<Timestamp>) {
        if answers > 0 {
            let text = format!(
                "error rules ignored {answers} answers of {of}: what is behind them is not known, and absent rows stay"
            );
            self.add("ignored", text, since);
        }
    }

    fn freshness(&mut self, bookmark: &Bookmark, now: Timestamp) {
        let Some(within) = self.stream.fresh_within else {
            return;
        };
        let within_text = show_duration(within);
        match bookmark.last_success_at {
            None => self.add(
                "stale",
                format!("never whole, and fresh_within is {within_text}"),
                None,
            ),
            Some(at) => {
                let age = age(at, now);
                if age > within {
                    let text = format!(
                        "the last success is {} s ago, and fresh_within is {within_text}",
                        age.as_secs()
                    );
                    self.add("stale", text, Some(at));
                }
            }
        }
    }

    async fn pushed(&mut self, workspace: &Workspace, source: &Source, bookmark: &Bookmark) -> Result<()> {
        let mut ear = Ear::default();
        if let Some(missing) = ear.listen(workspace, source, self.stream, bookmark).await? {
            let text = format!("{missing}: the next run asks for it");
            self.add("pushed_missing", text, Some(missing.since()));
        }
        Ok(())
    }

    async fn events(&mut self, workspace: &Workspace, source: &Source, bookmark: &Bookmark) -> Result<()> {
        let Some(hydrate) = &self.stream.hydrate else {
            return Ok(());
        };
        let hydration = bookmark.hydration.as_deref().cloned().unwrap_or_default();
        let newest = newest(workspace, source, hydrate).await?;
        let behind = newest.map_or(0, |last| behind(&hydration, hydrate.from().as_str(), last));
        if behind > 0 {
            let text = format!(
                "{behind} raw batches of events of {} are not read yet",
                hydrate.from()
            );
            self.add("events_new", text, None);
        }
        self.given_up(&hydration);
        Ok(())
    }

    /// Events that wait, and those that wait no more.
    fn given_up(&mut self, hydration: &Bookmark) {
        for (key, mark) in hydration.waiting().take(SLICES_LISTED_MAX) {
            let reason = mark.reason.as_deref().unwrap_or("tried again by hand");
            let again = mark
                .retry_at
                .map_or(String::new(), |at| format!(", again after {}", moment(at)));
            let text = format!("{key} failed {} times{again}: {reason}", mark.attempts);
            self.add("events_waiting", text, Some(mark.changed_at));
        }
        let more = hydration.waiting().count().saturating_sub(SLICES_LISTED_MAX);
        if more > 0 {
            self.add("events_waiting", format!("{more} more events wait"), None);
        }
        for (key, letter) in hydration.dead.iter().take(SLICES_LISTED_MAX) {
            let text = format!(
                "{key} given up after {} attempts: {}",
                letter.attempts, letter.reason
            );
            self.add("dead_letter", text, Some(letter.at));
        }
        let more = hydration.dead.len().saturating_sub(SLICES_LISTED_MAX);
        if more > 0 {
            self.add("dead_letter", format!("{more} more events were given up"), None);
        }
    }

    async fn parents(&mut self, workspace: &Workspace, source: &Source, bookmark: &Bookmark) -> Result<()> {
        let by = self.stream.slices.as_ref().map_or(&[][..], |slices| &slices.by);
        for by in by {
            let SliceBy::Parent(parent) = by else { continue };
            let name = StreamName {
                source: source.name.clone(),
                stream: parent.stream.clone(),
            };
            let Some((last, _)) = head(workspace, &name).await? else {
                continue;
            };
            let known = bookmark.parents.get(parent.stream.as_str());
            let behind = known.map_or(last.get() + 1, |known| last.get() - known.get());
            if behind > 0 {
                let text = format!("{behind} raw batches of {name} have not been slices yet");
                self.add("parents_new", text, None);
            }
        }
        Ok(())
    }
}

fn asked(since: Option<&str>, until: Option<&str>) -> String {
    match (since, until) {
        (Some(since), Some(until)) => format!("from {since} to {until} "),
        (Some(since), None) => format!("from {since} "),
        (None, Some(until)) => format!("to {until} "),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        config::{parse_timestamp, read::parse},
        raw::pass::Tally,
    };

    #[test]
    fn answers_that_rules_ignored_are_said() {
        let text = "
lake: ./lake
sources:
  shop:
    base_url: https://a.example
    streams:
      items: { request: { path: /i }, table: { keys: [id] } }
";
        let project = parse(text, Path::new("/srv/shop")).unwrap().project;
        let mut found = Found {
            stream: &project.sources[0].streams[0],
            gaps: Vec::new(),
        };
        let tally = |ignored| Tally {
            ignored,
            ..Tally::default()
        };
        for (ignored, expected) in [(0, 0), (3, 1)] {
            let bookmark = Bookmark {
                last_pass: Some(tally(ignored)),
                ..Bookmark::default()
            };
            found.look(&bookmark, Timestamp::UNIX_EPOCH);
            assert_eq!(found.gaps.len(), expected);
        }
        assert_eq!(found.gaps[0].kind, "ignored");
        assert!(
            found.gaps[0].text.contains("3 answers of the last pass"),
            "{}",
            found.gaps[0].text
        );
    }

    #[test]
    fn r022_a_stream_whose_last_success_is_too_old_is_stale() {
        let text = "
lake: ./lake
sources:
  shop:
    base_url: https://a.example
    streams:
      items: { request: { path: /i }, table: { keys: [id] }, fresh_within: 1h }
";
        let project = parse(text, Path::new("/srv/shop")).unwrap().project;
        let kinds = |last_success_at: Option<&str>| -> Vec<&'static str> {
            let bookmark = Bookmark {
                last_success_at: last_success_at.map(|text| parse_timestamp(text).unwrap()),
                ..Bookmark::default()
            };
            let mut found = Found {
                stream: &project.sources[0].streams[0],
                gaps: Vec::new(),
            };
            found.look(&bookmark, parse_timestamp("2026-11-22T12:00:00Z").unwrap());
            found.gaps.iter().map(|gap| gap.kind).collect()
        };
        assert_eq!(kinds(None), ["stale"]);
        assert_eq!(kinds(Some("2026-11-22T10:59:59Z")), ["stale"]);
        assert_eq!(kinds(Some("2026-11-22T11:00:00Z")), Vec::<&str>::new());
    }
}
