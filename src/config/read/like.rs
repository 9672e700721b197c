//! Streams that are like another.

use crate::yaml::{Entry, Kind, Node, fields::Value, quoted};

/// What a stream does not take over: whose name it bears, and the contracts, of which each stream has its own.
const NOT_TAKEN: [&str; 3] = ["like", "contract", "versions"];

/// The streams of `entries` with what each takes over from the one it is like: every key that it does not have itself,
/// and every value of `with`.
pub(super) fn complete(value: Value<'_>, entries: &[Entry]) -> Vec<Entry> {
    let complete = |entry: &Entry| {
        let mut whole = entry.clone();
        for other in others(value, entry, entries) {
            take_over(&mut whole.value, &other.value);
        }
        whole
    };
    entries.iter().map(complete).collect()
}

/// The streams that `entry` is like, the nearest first.
fn others<'a>(value: Value<'_>, entry: &'a Entry, entries: &'a [Entry]) -> Vec<&'a Entry> {
    let mut chain = vec![entry];
    // Each turn adds another of the entries, or ends.
    while let Some(like) = chain.last().and_then(|last| member(&last.value, "like")) {
        let Some(name) = like.value.scalar_text() else {
            // Whoever reads the stream says what is wrong.
            break;
        };
        let refuse = |message: String| {
            let hint = "write the name of another stream of this source".to_owned();
            value.problems.add(like.value.place, message, Some(hint));
        };
        match entries.iter().find(|other| other.key == name) {
            None => {
                refuse(format!("like: there is no stream {}", quoted(name)));
                break;
            }
            Some(other) if chain.iter().any(|known| known.key == other.key) => {
                refuse(format!("like: {} leads back to itself", quoted(name)));
                break;
            }
            Some(other) => chain.push(other),
        }
    }
    chain.split_off(1)
}

fn take_over(whole: &mut Node, other: &Node) {
    let (Kind::Map(whole), Kind::Map(other)) = (&mut whole.kind, &other.kind) else {
        return;
    };
    for entry in other
        .iter()
        .filter(|entry| !NOT_TAKEN.contains(&entry.key.as_str()))
    {
        match whole.iter_mut().find(|known| known.key == entry.key) {
            None => whole.push(entry.clone()),
            Some(known) if known.key == "with" => take_over(&mut known.value, &entry.value),
            Some(_) => {}
        }
    }
}

fn member<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    match &node.kind {
        Kind::Map(entries) => entries.iter().find(|entry| entry.key == key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use crate::config::{Project, read::parse};

    fn read(streams: &str) -> Result<Project, String> {
        let lines: String = streams.lines().map(|line| format!("      {line}\n")).collect();
        let text = format!(
            "lake: ./lake\nsources:\n  a:\n    base_url: http://localhost\n    config: {{ size: 10 }}\n    \
             streams:\n{lines}"
        );
        match parse(&text, Path::new("/p")) {
            Ok(read) => Ok(read.project),
            Err(problems) => Err(problems.iter().map(|problem| format!("{problem}\n")).collect()),
        }
    }

    #[test]
    fn a_stream_takes_over_what_it_does_not_say_itself() {
        let project = read(
            "one:\n  request: { path: '/{{ config.board }}' }\n  table: { keys: [id] }\n  records: $.data[*]\n  \
             schedule: 15m\n  contract: one.yaml\n  with: { board: a, color: red }\n\
             two:\n  like: one\n  records: $.rows[*]\n  with: { board: b }\n\
             three:\n  like: two\n  schedule: '@daily'",
        )
        .unwrap();
        let streams = &project.sources[0].streams;
        let records: Vec<String> = streams.iter().map(|stream| stream.records.to_string()).collect();
        assert_eq!(records, ["$.data[*]", "$.rows[*]", "$.rows[*]"]);
        let schedules: Vec<String> = streams
            .iter()
            .map(|stream| stream.schedule.as_ref().unwrap().to_string())
            .collect();
        assert_eq!(schedules, ["15m", "15m", "@daily"]);
        let values = |stream| project.sources[0].seen_by(stream).config;
        assert_eq!(values(&streams[0])[1], ("board".to_owned(), json!("a")));
        let mut last = values(&streams[2]);
        last.sort_by(|one, other| one.0.cmp(&other.0));
        let named = |(name, value): (&str, _)| (name.to_owned(), value);
        let expected = [
            ("board", json!("b")),
            ("color", json!("red")),
            ("size", json!(10)),
        ];
        assert_eq!(last, expected.map(named));
        assert!(streams[0].contract.ends_with("one.yaml"));
        assert!(streams[2].contract.ends_with("contracts/a.three.odcs.yaml"));
    }

    #[test]
    fn what_no_stream_can_be_like_is_refused() {
        let problems = read(
            "one: { like: two }\ntwo: { like: one, table: { keys: [id] } }\nthree: { like: four, request: { path: /x }, \
             table: { keys: [id] } }\nfive: { like: [three] }",
        );
        insta::assert_snapshot!(problems.unwrap_err(), @r#"
        landfall.yml:7:7: missing key "request" in "one"
        landfall.yml:7:20: like: "two" leads back to itself
          hint: write the name of another stream of this source
        landfall.yml:8:7: missing key "request" in "two"
        landfall.yml:8:20: like: "one" leads back to itself
          hint: write the name of another stream of this source
        landfall.yml:9:22: like: there is no stream "four"
          hint: write the name of another stream of this source
        landfall.yml:10:7: missing key "request" in "five"
        landfall.yml:10:7: missing key "table" in "five"
        landfall.yml:10:21: like: expected text, found a list
        "#);
    }

    #[test]
    fn what_is_wrong_with_a_stream_is_said_once() {
        let problems = read("one: { request: { path: /x }, table: { keys: 7 } }\ntwo: { like: one }");
        insta::assert_snapshot!(problems.unwrap_err(), @"
        landfall.yml:7:52: keys: expected a list, found a whole number
          hint: write [one, two]
        ");
    }
}
