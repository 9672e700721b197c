//! Changes that no contract speaks of: a load against what loads before it were like, and what the server announces.

use std::collections::BTreeMap;

use super::{
    Change, ChangeKind, Effect,
    profile::{PathProfile, Profile},
};

/// Earlier loads that a load is compared with, the newest ones.
pub const LOADS_MAX: usize = 10;

/// Earlier loads needed before the number of records or the size of pages can be unusual.
const LOADS_MIN: usize = 3;

/// A rise of the part without a value that counts as a jump: from 2 % to 13 %, say.
const NULL_RATE_RISE_MIN: f64 = 0.1;

/// Values needed on either side to compare rates or formats: fewer say little.
const VALUES_MIN: u64 = 10;

/// A load with so many times more or fewer records than the median is unusual.
const VOLUME_FACTOR: u64 = 4;

/// Records that more or fewer must differ by.
const VOLUME_RECORDS_MIN: u64 = 100;

/// Part of the texts that must have one format for it to be the format.
const FORMAT_PART_MIN: f64 = 0.9;

/// Part by which the size of full pages must differ.
const PAGE_SIZE_PART_MIN: f64 = 0.1;

/// What is unusual about `now`, next to `before`: the profiles of earlier loads, the newest first.
///
/// Only the newest [`LOADS_MAX`] count. Of loads with nothing in them nothing is learned.
pub fn jumps(now: &Profile, before: &[Profile]) -> Vec<Change> {
    let mut changes = announced(now);
    if now.records == 0 {
        return changes;
    }
    let before: Vec<&Profile> = before
        .iter()
        .filter(|profile| profile.records > 0)
        .take(LOADS_MAX)
        .collect();
    changes.extend(statuses(now, &before));
    changes.extend(page_size(now, &before));
    changes.extend(volume(now, &before));
    let mut usual: BTreeMap<&str, Usual> = BTreeMap::new();
    for path in before.iter().rev().flat_map(|profile| &profile.paths) {
        usual.entry(&path.path).or_default().add(path);
    }
    for path in &now.paths {
        let Some(usual) = usual.get(path.path.as_str()) else {
            continue;
        };
        changes.extend(null_rate(path, usual));
        changes.extend(format(path, usual));
    }
    changes
}

/// What a path was like over all loads before.
#[derive(Default)]
struct Usual {
    around: u64,
    without: u64,
    /// Of the newest load that had enough texts.
    format: Option<&'static str>,
}

impl Usual {
    fn add(&mut self, path: &PathProfile) {
        self.around += path.around;
        self.without += path.without();
        self.format = format_of(path).or(self.format);
    }
}

/// A change of the load as a whole.
fn whole(
    kind: ChangeKind,
    expected: String,
    found: String,
    count: u64,
    records: u64,
    nature: String,
) -> Change {
    Change {
        kind,
        path: String::new(),
        expected,
        found,
        count,
        records,
        first_record: None,
        effect: Effect::Accepted,
        samples: Vec::new(),
        nature: vec![nature],
    }
}

fn announced(now: &Profile) -> Vec<Change> {
    let pages = now.responses.statuses.values().sum();
    let headers = [
        (ChangeKind::Deprecated, &now.responses.deprecation),
        (ChangeKind::Sunset, &now.responses.sunset),
    ];
    let said = headers
        .into_iter()
        .filter_map(|(kind, value)| value.as_ref().map(|value| (kind, value)));
    said.map(|(kind, value)| whole(kind, String::new(), value.clone(), pages, pages, value.clone()))
        .collect()
}

fn statuses(now: &Profile, before: &[&Profile]) -> Option<Change> {
    let known: Vec<u16> = before
        .iter()
        .flat_map(|profile| profile.responses.statuses.keys().copied())
        .collect();
    if known.is_empty() {
        return None;
    }
    let statuses = &now.responses.statuses;
    let fresh: Vec<(u16, u64)> = statuses
        .iter()
        .filter(|(status, _)| !known.contains(status))
        .map(|(&status, &pages)| (status, pages))
        .collect();
    if fresh.is_empty() {
        return None;
    }
    let found: Vec<String> = fresh
        .iter()
        .map(|(status, pages)| format!("{status} ×{pages}"))
        .collect();
    let mut usual: Vec<String> = known.iter().map(u16::to_string).collect();
    usual.sort();
    usual.dedup();
    let pages = fresh.iter().map(|(_, pages)| pages).sum();
    let mut change = whole(
        ChangeKind::StatusChanged,
        usual.join(", "),
        found.join(", "),
        pages,
        statuses.values().sum(),
        String::new(),
    );
    change.nature = fresh.iter().map(|(status, _)| status.to_string()).collect();
    Some(change)
}

fn page_size(now: &Profile, before: &[&Profile]) -> Option<Change> {
    let size = now.responses.page_records_max?;
    let sizes = before
        .iter()
        .filter_map(|profile| profile.responses.page_records_max);
    let usual = median(sizes.collect())?;
    let part = size.abs_diff(usual) as f64 / usual.max(1) as f64;
    (part >= PAGE_SIZE_PART_MIN).then(|| {
        let pages = now.responses.statuses.values().sum();
        whole(
            ChangeKind::PageSizeChanged,
            format!("{usual} records a page"),
            format!("{size} records a page"),
            pages,
            pages,
            size.to_string(),
        )
    })
}

fn volume(now: &Profile, before: &[&Profile]) -> Option<Change> {
    let usual = median(before.iter().map(|profile| profile.records).collect())?;
    let differs = now.records.abs_diff(usual) >= VOLUME_RECORDS_MIN;
    let more = now.records >= usual.saturating_mul(VOLUME_FACTOR);
    let fewer = now.records.saturating_mul(VOLUME_FACTOR) <= usual;
    (differs && (more || fewer)).then(|| {
        whole(
            ChangeKind::VolumeChanged,
            format!("about {usual} records"),
            format!("{} records", now.records),
            now.records,
            now.records,
            if more { "more" } else { "fewer" }.to_owned(),
        )
    })
}

/// The middle of at least [`LOADS_MIN`] numbers.
fn median(mut numbers: Vec<u64>) -> Option<u64> {
    if numbers.len() < LOADS_MIN {
        return None;
    }
    numbers.sort_unstable();
    Some(numbers[numbers.len() / 2])
}

fn null_rate(path: &PathProfile, usual: &Usual) -> Option<Change> {
    let too_few = path.around < VALUES_MIN || usual.around < VALUES_MIN;
    // A required column and one that is gone have changes of their own.
    if too_few || path.required || path.seen == 0 {
        return None;
    }
    let rate = path.without() as f64 / path.around as f64;
    let rate_before = usual.without as f64 / usual.around as f64;
    (rate - rate_before >= NULL_RATE_RISE_MIN).then(|| Change {
        kind: ChangeKind::NullRateJumped,
        path: path.path.clone(),
        expected: format!("{} without a value", percent(rate_before)),
        found: format!("{} without a value", percent(rate)),
        count: path.without(),
        records: path.around,
        first_record: None,
        effect: Effect::Accepted,
        samples: Vec::new(),
        // The same again in the next load is no news; far more of it is.
        nature: vec![format!("about {:.0} in 10", rate * 10.0)],
    })
}

fn percent(rate: f64) -> String {
    match rate * 100.0 {
        percent if percent > 0.0 && percent < 1.0 => format!("{percent:.1} %"),
        percent => format!("{percent:.0} %"),
    }
}

fn format(path: &PathProfile, usual: &Usual) -> Option<Change> {
    let (now, before) = (format_of(path)?, usual.format?);
    (now != before).then(|| Change {
        kind: ChangeKind::FormatChanged,
        path: path.path.clone(),
        expected: before.to_owned(),
        found: format!("{now} ×{}", path.texts),
        count: path.texts,
        records: path.around,
        first_record: None,
        effect: Effect::Accepted,
        samples: Vec::new(),
        nature: vec![now.to_owned()],
    })
}

/// The format that nearly all texts of a path have.
fn format_of(path: &PathProfile) -> Option<&'static str> {
    if path.texts < VALUES_MIN {
        return None;
    }
    let formats = [
        ("date", path.dates),
        ("date-time", path.moments),
        ("uuid", path.uuids),
        ("number", path.numbers),
    ];
    let most = formats.into_iter().max_by_key(|(_, count)| *count)?;
    match most.1 as f64 / path.texts as f64 {
        part if part >= FORMAT_PART_MIN => Some(most.0),
        part if part <= 1.0 - FORMAT_PART_MIN => Some("other text"),
        _ => Some("mixed text"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(records: u64, without: u64, dates: u64) -> Profile {
        let path = PathProfile {
            path: "note".to_owned(),
            around: records,
            seen: records,
            nulls: without,
            texts: records - without,
            dates,
            moments: records - without - dates,
            ..PathProfile::default()
        };
        let mut profile = Profile {
            records,
            paths: vec![path],
            ..Profile::default()
        };
        profile.responses.count(200, []);
        profile.responses.full_page(100);
        profile
    }

    fn told(now: &Profile, before: &[Profile]) -> Vec<String> {
        jumps(now, before)
            .iter()
            .map(|change| {
                format!(
                    "{} {}: {} -> {}",
                    change.kind, change.path, change.expected, change.found
                )
            })
            .collect()
    }

    #[test]
    fn r009_a_null_rate_jump_is_told_and_noise_is_not() {
        let before = vec![profile(100, 2, 98); 4];
        assert_eq!(
            told(&profile(100, 30, 70), &before),
            ["null_rate_jumped note: 2 % without a value -> 30 % without a value"]
        );
        assert_eq!(told(&profile(100, 9, 91), &before), [""; 0]);
        assert_eq!(told(&profile(9, 9, 0), &before), [""; 0], "too few to say");
        assert_eq!(
            told(&profile(100, 90, 10), &[]),
            [""; 0],
            "nothing to compare with"
        );
    }

    #[test]
    fn f131_dates_that_become_moments_are_told() {
        let before = [profile(50, 0, 50)];
        assert_eq!(
            told(&profile(50, 0, 0), &before),
            ["format_changed note: date -> date-time ×50"]
        );
        assert_eq!(told(&profile(50, 0, 49), &before), [""; 0]);
    }

    #[test]
    fn r114_volume_is_compared_with_the_median_of_loads_before() {
        let before: Vec<Profile> = [1_000, 90_000, 1_100, 900, 0]
            .map(|records| profile(records, 0, records))
            .into();
        assert_eq!(
            told(&profile(200, 0, 200), &before),
            ["volume_changed : about 1100 records -> 200 records"]
        );
        assert_eq!(told(&profile(400, 0, 400), &before), [""; 0]);
        assert_eq!(
            told(&profile(200, 0, 200), &before[..2]),
            [""; 0],
            "two loads are no habit"
        );
    }

    #[test]
    fn what_the_server_says_is_told() {
        let before = vec![profile(100, 0, 100); 3];
        let mut now = profile(100, 0, 100);
        now.responses.count(
            206,
            [
                ("deprecation", "true"),
                ("sunset", "Sat, 31 Jan 2026 23:59:59 GMT"),
            ],
        );
        now.responses.page_records_max = Some(50);
        assert_eq!(
            told(&now, &before),
            [
                "deprecated :  -> true",
                "sunset :  -> Sat, 31 Jan 2026 23:59:59 GMT",
                "status_changed : 200 -> 206 ×1",
                "page_size_changed : 100 records a page -> 50 records a page"
            ]
        );
    }
}
