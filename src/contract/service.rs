//! What a contract promises about time, said in the words of the standard.
//!
//! | ODCS `slaProperties` | means |
//! |---|---|
//! | `freshness` | what the table has is never older: the newest batch in it, or the last pass that found nothing newer |
//! | `latency` | what is landed is in the table so soon |
//!
//! `value` is a number and `unit` one of `s`, `min`, `h`, `d`, `y`, or the same as a word (`hours`). A year has 365 days.
//! `element` is not looked at: what is promised is measured for the whole stream, and the shortest time of several holds.
//! Promises are measured and told (`landfall status`, its metrics), and never stop a load.

use std::time::Duration;

use crate::yaml::edit::Spans;

const UNITS: [(&[&str], f64); 5] = [
    (&["s", "sec", "second", "seconds"], 1.0),
    (&["min", "minute", "minutes"], 60.0),
    (&["h", "hr", "hour", "hours"], 3_600.0),
    (&["d", "day", "days"], 86_400.0),
    (&["y", "yr", "year", "years"], 31_536_000.0),
];

/// The property of how old the table may be.
const FRESHNESS: &str = "freshness";

/// The property of how long a load may be waited for.
const LATENCY: &str = "latency";

/// How soon things are promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServiceLevels {
    /// Greatest age of what the table has.
    pub freshness: Option<Duration>,
    /// Longest wait of what is landed for the table.
    pub latency: Option<Duration>,
}

impl ServiceLevels {
    /// Reads them from the text of a contract. What cannot be read promises nothing.
    ///
    /// ```
    /// use std::time::Duration;
    /// use landfall::contract::service::ServiceLevels;
    /// let text = "slaProperties:\n- { property: freshness, value: 4, unit: h }\n- { property: retention, value: 3, unit: y }\n";
    /// let levels = ServiceLevels::read(text);
    /// assert_eq!((levels.freshness, levels.latency), (Some(Duration::from_secs(14_400)), None));
    /// ```
    pub fn read(text: &str) -> Self {
        let Some(root) = Spans::read(text) else {
            return Self::default();
        };
        let items = root.get("slaProperties").map_or(&[][..], Spans::items);
        let shortest = |name: &str| {
            let said = |item: &Spans, key: &str| item.get(key).and_then(Spans::text).map(str::to_owned);
            let named = items
                .iter()
                .filter(|item| said(item, "property").as_deref() == Some(name));
            let times = named.filter_map(|item| time(&said(item, "value")?, &said(item, "unit")?));
            times.min()
        };
        Self {
            freshness: shortest(FRESHNESS),
            latency: shortest(LATENCY),
        }
    }
}

/// Whether a property of this name promises what is measured here.
pub(super) fn is_measured(property: &str) -> bool {
    [FRESHNESS, LATENCY].contains(&property)
}

/// So many of a unit; none if that is no time.
pub(super) fn time(value: &str, unit: &str) -> Option<Duration> {
    let (_, seconds) = UNITS.iter().find(|(names, _)| names.contains(&unit))?;
    let number: f64 = value.parse().ok()?;
    Duration::try_from_secs_f64(number * seconds)
        .ok()
        .filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_time_has_a_number_and_a_unit() {
        for (value, unit, seconds) in [
            ("4", "d", Some(345_600.0)),
            ("0.5", "hours", Some(1_800.0)),
            ("1", "y", Some(31_536_000.0)),
            ("90", "min", Some(5_400.0)),
            ("30", "s", Some(30.0)),
            ("0", "s", None),
            ("-1", "s", None),
            ("NaN", "s", None),
            ("1e400", "s", None),
            ("soon", "s", None),
            // A month, or a minute?
            ("1", "m", None),
            ("1", "", None),
        ] {
            assert_eq!(
                time(value, unit).map(|time| time.as_secs_f64()),
                seconds,
                "{value} {unit}"
            );
        }
    }

    #[test]
    fn of_several_promises_the_shortest_holds() {
        let text = "slaProperties:
- { property: latency, value: 4, unit: d, element: orders.a }
- { property: latency, value: 2, unit: d, element: orders.b }
- { property: latency, value: 1 }
- { property: endOfLife, value: 2027-01-01 }
";
        let levels = ServiceLevels::read(text);
        assert_eq!(
            (levels.latency, levels.freshness),
            (Some(Duration::from_secs(172_800)), None)
        );
        for text in [
            "",
            "slaProperties: 1",
            "slaProperties: [1, [], {}]",
            "slaProperties: [",
        ] {
            assert_eq!(ServiceLevels::read(text), ServiceLevels::default(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_a_time_panic(value in ".{0,12}", unit in "s|min|h|d|y|.{0,3}") {
            let _ = time(&value, &unit);
        }
    }
}
