//! How long a version of a contract is good for, said in the words of the standard.
//!
//! | ODCS | means |
//! |---|---|
//! | `status: deprecated` | there is something better; it still judges |
//! | `status: retired` | its time is over |
//! | `slaProperties`: `endOfLife` | the day from which its time is over |
//! | `authoritativeDefinitions`: `type: migrationGuide` | where it says how to move on |
//!
//! A contract whose time is over still judges, because raw never stops and a table that silently stands still is worse
//! than one that is made by an old rule. It is told at every load.

use chrono::{DateTime, NaiveDate};

use crate::yaml::edit::Spans;

/// The property of `slaProperties` with the last day.
pub(super) const END: &str = "endOfLife";

/// What a contract says about its own end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lifecycle {
    status: String,
    ends: Option<NaiveDate>,
    guide: Option<String>,
}

impl Lifecycle {
    /// Reads it from the text of a contract. What cannot be read says nothing.
    pub fn read(text: &str) -> Self {
        let Some(root) = Spans::read(text) else {
            return Self::default();
        };
        let named = |list: &str, key: &str, name: &str, value: &str| {
            let items = root.get(list)?.items().iter();
            let mut found = items.filter(|item| item.get(key).and_then(Spans::text) == Some(name));
            found.find_map(|item| item.get(value)?.text().map(str::to_owned))
        };
        Self {
            status: root
                .get("status")
                .and_then(Spans::text)
                .unwrap_or_default()
                .to_owned(),
            ends: named("slaProperties", "property", END, "value").and_then(|value| day(&value)),
            guide: named("authoritativeDefinitions", "type", "migrationGuide", "url"),
        }
    }

    /// Where in its life the contract is on the day `today`: `active`, `deprecated` or `sunset`. One that is only drafted or
    /// proposed is active as soon as it judges.
    ///
    /// ```
    /// use landfall::contract::lifecycle::Lifecycle;
    /// let phase = |status: &str| Lifecycle::read(&format!("status: {status}\n")).phase("2026-12-01".parse().unwrap());
    /// assert_eq!(["draft", "active", "deprecated", "retired"].map(phase), ["active", "active", "deprecated", "sunset"]);
    /// ```
    pub fn phase(&self, today: NaiveDate) -> &'static str {
        match (self.status.as_str(), self.ends) {
            ("retired", _) => "sunset",
            (_, Some(end)) if end <= today => "sunset",
            ("deprecated", _) => "deprecated",
            _ => "active",
        }
    }

    /// The day from which its time is over, if it says one.
    pub fn ends(&self) -> Option<NaiveDate> {
        self.ends
    }

    /// What whoever uses the contract should hear on the day `today`, if anything.
    ///
    /// ```
    /// use chrono::NaiveDate;
    /// use landfall::contract::lifecycle::Lifecycle;
    /// let text = "status: deprecated\nslaProperties:\n- { property: endOfLife, value: 2026-12-31 }\n";
    /// let on = |day: &str| Lifecycle::read(text).notice(day.parse::<NaiveDate>().unwrap()).unwrap();
    /// assert_eq!(on("2026-12-01"), "is deprecated and ends on 2026-12-31, in 30 days");
    /// assert_eq!(on("2027-01-01"), "ended on 2026-12-31 and still judges");
    /// ```
    pub fn notice(&self, today: NaiveDate) -> Option<String> {
        let mut notice = match (self.status.as_str(), self.ends) {
            ("retired", None) => "is retired and still judges".to_owned(),
            ("retired", Some(end)) => format!("is retired since {end} and still judges"),
            (_, Some(end)) if end <= today => format!("ended on {end} and still judges"),
            ("deprecated", None) => "is deprecated".to_owned(),
            ("deprecated", Some(end)) => match (end - today).num_days() {
                1 => format!("is deprecated and ends on {end}, tomorrow"),
                days => format!("is deprecated and ends on {end}, in {days} days"),
            },
            _ => return None,
        };
        if let Some(guide) = &self.guide {
            notice.push_str(&format!("; what to do: {guide}"));
        }
        Some(notice)
    }
}

/// The day of a date or of a moment, as it is written there.
pub(super) fn day(value: &str) -> Option<NaiveDate> {
    let date = value.parse().ok();
    date.or_else(|| {
        DateTime::parse_from_rfc3339(value)
            .ok()
            .map(|moment| moment.date_naive())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(text: &str) -> Option<String> {
        Lifecycle::read(text).notice("2026-11-22".parse().unwrap())
    }

    #[test]
    fn r131_each_stage_of_a_contract_has_its_words() {
        let ends = |day: &str| {
            format!(
                "slaProperties:\n- {{property: latency, value: 4}}\n- {{property: endOfLife, value: \"{day}\"}}\n"
            )
        };
        let guide = "authoritativeDefinitions:\n- {type: migrationGuide, url: https://shop.example/v2}\n";
        let cases = [
            ("status: active".to_owned(), None),
            (format!("status: active\n{}", ends("2027-01-01")), None),
            (
                format!("status: active\n{}", ends("2026-11-22")),
                Some("ended on 2026-11-22 and still judges"),
            ),
            (
                format!("status: deprecated\n{}", ends("2026-11-23T23:00:00-08:00")),
                Some("is deprecated and ends on 2026-11-23, tomorrow"),
            ),
            (
                format!("status: deprecated\n{guide}"),
                Some("is deprecated; what to do: https://shop.example/v2"),
            ),
            (
                format!("status: retired\n{}{guide}", ends("2026-01-31")),
                Some("is retired since 2026-01-31 and still judges; what to do: https://shop.example/v2"),
            ),
            ("status: retired".to_owned(), Some("is retired and still judges")),
            ("status: [".to_owned(), None),
        ];
        for (text, expected) in cases {
            assert_eq!(notice(&text).as_deref(), expected, "{text}");
        }
    }
}
