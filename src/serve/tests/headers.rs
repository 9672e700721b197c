//! Every parser of a request's header: what it takes is what the RFC says, whatever comes, and in one pass.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use proptest::prelude::*;
use regex::bytes::Regex;

use crate::{
    clock::{Clock, Timestamp},
    fields::near::{each_long, near},
    format::pushed::is_lines,
    serve::{
        answer::names,
        body::coding::Coding,
        check::Form,
        deliver::{attempts, first_seen_at},
        records::is_strict,
        request_id::{self, RequestId},
        trace::Trace,
    },
};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// An entity tag of ours.
const TAG: &str = "\"0123456789abcdef0123456789abcdef\"";

fn headers(name: HeaderName, value: &[u8]) -> Option<HeaderMap> {
    Some(HeaderMap::from_iter([(
        name,
        HeaderValue::from_bytes(value).ok()?,
    )]))
}

fn matches(pattern: &str, value: &[u8]) -> bool {
    Regex::new(pattern).unwrap().is_match(value)
}

fn strict(values: &[&str]) -> bool {
    is_strict(values.iter().copied())
}

fn first_seen(text: &str) -> Timestamp {
    first_seen_at(Some(text), now())
}

fn now() -> Timestamp {
    Timestamp::from_timestamp(1_795_309_506, 0).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn f158_a_traceparent_is_kept_as_it_was_written_or_not_at_all(
        value in near(&[TRACEPARENT, "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00-more"]),
    ) {
        let Some(map) = headers(HeaderName::from_static("traceparent"), &value) else { return Ok(()) };
        let trace = Trace::of(&map);
        let is_id = matches("^[0-9a-f]{32}$", trace.id().as_bytes()) && trace.id() != "0".repeat(32);
        prop_assert!(is_id);
        let grammar = "^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?s-u:-.*)?)$";
        let is_one = matches(grammar, &value)
            && !value.starts_with(b"ff")
            && !(value.starts_with(b"00") && value.len() != TRACEPARENT.len())
            && value[3..35] != [b'0'; 32]
            && value[36..52] != [b'0'; 16];
        prop_assert_eq!(trace.parent().is_some(), is_one, "{:?}", value);
        if let Some(parent) = trace.parent() {
            let again = format!("{}-{}-{}", &String::from_utf8_lossy(&value[..2]), trace.id(), parent);
            prop_assert_eq!(again.as_bytes(), &value[..52]);
        }
    }

    #[test]
    fn a_request_id_is_the_senders_or_one_of_ours(value in near(&["order-42/a", "7f3c0a9e-1111-7222-8333-444455556666"])) {
        let Some(map) = headers(request_id::HEADER, &value) else { return Ok(()) };
        let id = RequestId::of(&map, &Clock::system());
        let is_harmless = matches("^[!-~]{1,128}$", &value);
        prop_assert_eq!(id.as_str().as_bytes() == value, is_harmless);
        let is_one = matches("^[!-~]{1,128}$", id.as_str().as_bytes());
        prop_assert!(is_one);
    }

    #[test]
    fn a_content_coding_is_one_that_is_known_or_none(value in near(&["gzip", "x-gzip", "zstd", "deflate", "identity", "gzip, identity"])) {
        let Some(map) = headers(header::CONTENT_ENCODING, &value) else { return Ok(()) };
        if let Ok(coding) = Coding::of(&map) {
            let text = str::from_utf8(&value).unwrap().to_ascii_lowercase();
            let named: Vec<&str> = text.split(',').map(str::trim).filter(|name| !["", "identity"].contains(name)).collect();
            let expected = match named.as_slice() {
                [] => Some(Coding::Identity),
                ["gzip" | "x-gzip"] => Some(Coding::Gzip),
                ["deflate"] => Some(Coding::Deflate),
                ["zstd"] => Some(Coding::Zstd),
                _ => None,
            };
            prop_assert_eq!(Some(coding), expected, "{}", text);
        }
    }

    #[test]
    fn a_content_type_is_a_media_type_that_is_read_later_as_it_is_now(
        value in near(&[
            "application/json",
            "application/json; charset=utf-8",
            "Application/X-NDJSON;charset=\"UTF-8\"; x=\"a;charset=utf-16\"",
        ]),
    ) {
        let Ok(text) = str::from_utf8(&value) else { return Ok(()) };
        if let Ok(form) = Form::of(Some(text)) {
            let media = text.split(';').next().unwrap();
            prop_assert!(matches("(?i)^(application/(json|(x-)?ndjson|(x-)?jsonl|jsonlines))$", media.trim().as_bytes()), "{}", text);
            prop_assert_eq!(form == Form::Lines, is_lines(text));
        }
    }

    #[test]
    fn a_media_type_with_any_sound_parameters_is_taken(
        names in prop::collection::vec("[a-z]{1,6}", 0..4),
        values in prop::collection::vec("[ -~]{0,10}", 4),
        charset in prop::sample::select(vec!["utf-8", "UTF8", "us-ascii", "utf-16", "latin1", ""]),
    ) {
        let quoted = |value: &String| format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""));
        let others: Vec<String> = names
            .iter()
            .zip(&values)
            .filter(|(name, _)| *name != "charset")
            .map(|(name, value)| format!("; {name}={}", quoted(value)))
            .collect();
        let text = format!("application/json{};charset=\"{charset}\"", others.concat());
        prop_assert_eq!(Form::of(Some(&text)).is_ok(), ["utf-8", "UTF8", "us-ascii"].contains(&charset), "{}", text);
    }

    #[test]
    fn handling_is_strict_if_the_first_word_about_it_says_so(
        before in prop::collection::vec("[a-z]{1,5}(=([a-z]{1,4}|\"[a-z,;= ]{0,14}\"))?(; ?[a-z]{1,3}=[a-z]{1,3})?", 0..4),
        said in prop::collection::vec(prop::sample::select(vec!["handling=strict", "Handling=\"STRICT\"", "handling=lenient", "handling = lenient;x=y"]), 0..3),
        lines in any::<bool>(),
    ) {
        let all: Vec<&str> = before.iter().map(String::as_str).chain(said.iter().copied()).collect();
        let joined = all.join(", ");
        let values = if lines { all.clone() } else { vec![joined.as_str()] };
        let expected = said.first().is_some_and(|first| first.to_ascii_lowercase().contains("strict"));
        prop_assert_eq!(strict(&values), expected, "{:?}", values);
    }

    #[test]
    fn no_preference_is_strict_that_does_not_say_so(
        value in near(&["handling=strict", "respond-async, handling=\"strict\";x", "a=\"b, handling=strict, c\""]),
    ) {
        let Ok(text) = str::from_utf8(&value) else { return Ok(()) };
        if strict(&[text]) {
            let pattern = r#"(?i)(^|,)[ \t]*handling[ \t]*=[ \t]*("(s|\\s)(t|\\t)(r|\\r)(i|\\i)(c|\\c)(t|\\t)"|strict)[ \t]*($|[,;])"#;
            prop_assert!(matches(pattern, text.as_bytes()), "{}", text);
        }
    }

    #[test]
    fn an_entity_tag_is_found_in_any_list_and_in_nothing_else(
        others in prop::collection::vec("(W/)?\"[!#-~]{0,8}\"", 0..5),
        at in any::<prop::sample::Index>(),
        weak in any::<bool>(),
        there in any::<bool>(),
    ) {
        let mut list = others;
        if there {
            let ours = format!("{}{TAG}", if weak { "W/" } else { "" });
            list.insert(at.index(list.len() + 1), ours);
        }
        prop_assert_eq!(names([list.join(", ").as_str()].into_iter(), TAG), there);
    }

    #[test]
    fn no_field_names_a_tag_that_is_not_in_it(value in near(&[TAG, "*", "W/\"a,*,b\", \"c\"", &format!("\"x\", W/{TAG}")])) {
        let Ok(text) = str::from_utf8(&value) else { return Ok(()) };
        if names([text].into_iter(), TAG) {
            prop_assert!(text.trim_matches([' ', '\t']) == "*" || text.contains(TAG), "{}", text);
        }
    }

    #[test]
    fn an_attempt_is_a_number_from_one_and_its_first_moment_is_not_to_come(
        value in near(&["3", "4294967296", "2026-11-22T01:05:06.25Z", "2027-01-01T00:00:00+01:00"]),
    ) {
        let Ok(text) = str::from_utf8(&value) else { return Ok(()) };
        let own = attempts(|name| (name == "landfall-attempt").then_some(text));
        let slack = attempts(|name| (name == "x-slack-retry-num").then_some(text));
        let number = matches("^[0-9]+$", text.as_bytes()).then(|| text.parse::<u64>().unwrap_or(u64::MAX));
        let most = attempts(|_| Some("4294967295"));
        let expected = |number: u64| u32::try_from(number).unwrap_or(u32::MAX).clamp(1, most);
        prop_assert_eq!(own, number.map_or(1, expected));
        prop_assert_eq!(slack, number.map_or(1, |number| expected(number.saturating_add(1))));
        prop_assert!(first_seen(text) <= now());
    }
}

#[test]
fn what_near_misses_found_stays_found() {
    assert!(strict(&["handling=strict"]) && strict(&["a=\"x,\", handling=strict"]));
    for lenient in [
        "a=\"b, handling=strict, c\"",
        "handling=lenient, handling=strict",
        "handling=\"strict",
        "handlings=strict",
    ] {
        assert!(!strict(&[lenient]), "{lenient}");
    }
    let known = |text: &str| names([text].into_iter(), TAG);
    assert!(known("*") && known(TAG) && known(&format!("\"a,b\" , W/{TAG}")));
    for other in [
        "\"a,*,b\"",
        "\"a\", *",
        &format!("W/W/{TAG}"),
        &TAG[1..],
        &format!("\"a\" {TAG}"),
    ] {
        assert!(!known(other), "{other}");
    }
    let form = |text: &str| Form::of(Some(text)).ok();
    assert_eq!(
        form("application/json; x=\"a; charset=utf-16\""),
        Some(Form::Json)
    );
    for other in [
        "application/json; charset=\"utf-8",
        "application/json; charset",
        "; application/json",
        "application/json; charset=utf-8; charset=utf-16",
    ] {
        assert_eq!(form(other), None, "{other}");
    }
}

#[test]
fn requests_with_64_kib_of_a_header_are_read_in_one_pass() {
    let pieces = [
        "\"",
        ",",
        ";",
        "=",
        "\\\"",
        "gzip,",
        "W/\"a\",",
        "handling=x,",
        "a=\"b\";",
        "0",
        "-",
        "charset=",
    ];
    each_long(&pieces, |value| {
        let text = str::from_utf8(&value).unwrap();
        assert!(Form::of(Some(text)).is_err());
        assert!(!strict(&[text]) && !names([text].into_iter(), TAG));
        let map = headers(header::CONTENT_ENCODING, &value).unwrap();
        assert!(Coding::of(&map).is_err() || text.trim_matches(',').is_empty());
        let map = headers(HeaderName::from_static("traceparent"), &value).unwrap();
        assert!(Trace::of(&map).parent().is_none());
        let map = headers(request_id::HEADER, &value).unwrap();
        assert!(RequestId::of(&map, &Clock::system()).as_str().len() < 129);
        attempts(|_| Some(text));
        assert_eq!(first_seen(text), now());
    });
}
