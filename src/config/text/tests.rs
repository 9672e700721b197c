use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::config::parse_timestamp;

fn vars() -> Vars {
    let response = r#"{"z": 1, "a": [1, 2, {"id": "x"}], "price": 1.10, "big": 18446744073709551617, "exp": 1e5,
        "u": 18446744073709551615, "f": 1.5, "code": "007", "off": false, "none": null, "text": "a\u00e9\n", "z": 2}"#;
    Vars::default()
        .with(
            "slice",
            &json!({"order": 7, "name": "a b/c", "empty": "", "ids": ["x", "y"], "none": null}),
        )
        .with_now(parse_timestamp("2024-03-01T12:00:00.250Z").unwrap())
        .with_json("response", Bytes::from_static(response.as_bytes()))
        .unwrap()
}

fn render(template: &str) -> String {
    match Text::parse(template).and_then(|text| text.render(&vars())) {
        Ok(text) => text,
        Err(error) => format!("! {}", error.chain()),
    }
}

fn value(expression: &str) -> Value {
    Text::parse(&format!("{{{{ {expression} }}}}"))
        .and_then(|text| text.render_json(&vars()))
        .unwrap_or_else(|error| Value::String(format!("! {}", error.chain())))
}

#[test]
fn f154_hostile_templates_are_refused_fast_and_typed() {
    let doubling = (0..40).map(|_| "{% set a = a ~ a %}").collect::<String>();
    let lists = (0..40).map(|_| "{% set a = [a, a] %}").collect::<String>();
    let table = [
        "{% for i in range(1000000000) %}x{% endfor %}".to_owned(),
        "{% for i in range(9999) %}{% for j in range(9999) %}{{ i }}{% endfor %}{% endfor %}".to_owned(),
        "{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}".to_owned(),
        r#"{{ "a" * 1000000000 }}"#.to_owned(),
        r#"{{ 99999999 * "a" }}"#.to_owned(),
        "{{ [1] * 99999999 }}".to_owned(),
        format!("{{% set a = 'aaaaaaaaaaaaaaaa' %}}{doubling}{{{{ a }}}}"),
        format!("{{% set a = 1 %}}{lists}{{% if a == a %}}{{% endif %}}"),
        "{% set a = range(9999) %}{% for i in a %}{{ a | sort | join | sha256 }}{% endfor %}".to_owned(),
        "{% set a = range(9999) | join %}{% for i in range(9999) %}{{ a | replace('1', a) }}{% endfor %}"
            .to_owned(),
        "{{ range(9999) | join(range(9999) | join) }}".to_owned(),
        "{{ '%1000000000d' | format(1) }}".to_owned(),
        "{{ '{:>1000000000}'.format(1) }}".to_owned(),
        "{{ slice.__class__.__mro__ }}".to_owned(),
        "{{ slice | attr('x') }}".to_owned(),
        "{{ __cat('a') }}".to_owned(),
        "{{ debug() }}".to_owned(),
        "{{ namespace(a=1) }}".to_owned(),
        "{% include '/etc/passwd' %}".to_owned(),
        "{% extends 'a' %}".to_owned(),
        "{% import 'a' as b %}".to_owned(),
        "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}".to_owned(),
        "{% for a in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        "{% set a %}{% for i in range(9999) %}aaaaaaaa{% endfor %}{% endset %}".to_owned(),
        "{% raw %}x{% endraw %}".to_owned(),
        "{% filter upper %}x{% endfilter %}".to_owned(),
        format!("{{{{ {}1{} }}}}", "(".repeat(10_000), ")".repeat(10_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(10_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(5000)),
        format!("{{{{ slice{} }}}}", ".a".repeat(10_000)),
        format!("{{{{ 1{} }}}}", " | abs".repeat(5000)),
        format!("{{{{ 1{} }}}}", " - 1".repeat(5000)),
        format!("{{{{ 1{} }}}}", " if 1 else 1".repeat(3000)),
        format!("{{% if 1 %}}{}{{% endif %}}", "{% elif 1 %}".repeat(3000)),
        format!("{}{}", "{% if 1 %}".repeat(400), "{% endif %}".repeat(400)),
        "{{ 2 ** 100000 ** 100000 }}".to_owned(),
        "{{ 1.5 | round(999999999) }}{{ 99 | round(-999999999) }}x{{ missing }}".to_owned(),
        "{{ now | strftime('%') }}".to_owned(),
        format!("{{{{ now | strftime('{}') }}}}", "%c".repeat(10_000)),
        "{{ now | add('P4000000000Y') }}".to_owned(),
        "{{ 'a' | regex_find('(a{1000}){1000}') }}".to_owned(),
        "{{ 'a' | regex_replace('', response | tojson) | tojson | tojson }}{{ missing }}".to_owned(),
        "x".repeat(lower::SOURCE_BYTES_MAX) + "{{ 1 }}",
    ];
    for template in table {
        let began = Instant::now();
        let rendered = render(&template);
        let name: String = template.chars().take(60).collect();
        assert!(rendered.starts_with("! "), "{name} gave {} bytes", rendered.len());
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{name} took {:?}",
            began.elapsed()
        );
    }
    assert_eq!(
        Text::parse("{% include 'a' %}").unwrap_err().kind(),
        ErrorKind::Config
    );
}

#[test]
fn f154_an_expression_has_the_same_bounds() {
    for expression in [
        "range(1000000000)",
        "'a' * 1000000000",
        "'a'.format(1)",
        "[[1] * 10000] * 10000",
        "${env:X}",
    ] {
        let began = Instant::now();
        let done = Expr::parse(expression).and_then(|expr| expr.value(&vars()));
        assert_eq!(done.unwrap_err().kind(), ErrorKind::Config, "{expression}");
        assert!(began.elapsed() < Duration::from_secs(1), "{expression}");
    }
}

#[test]
fn f154_an_error_shows_expressions_and_no_value() {
    let vars = Vars::default().with("slice", &json!({"name": "hunter2", "n": 1}));
    let table = [
        "hunter2 {{ slice.name + slice.n }}",
        "{{ slice.name - 1 }}",
        "{{ slice.name | int + 'hunter2' }}",
        "{{ 'hunter2' ~ slice.nme }}",
        "{{ slice.name.foo('hunter2') }}",
        "{{ slice.name | strftime('hunter2 %') }}",
        "{{ slice.name | epoch }}",
        "{{ 5 // slice.name }}",
        "{{ slice.name['x'] }}",
        "{{ slice.n // 0 }}",
        "{{ slice.name | base64_decode }}",
        "{{ slice.name | min('hunter2') }}",
    ];
    for template in table {
        let error = Text::parse(template).unwrap().render(&vars).unwrap_err();
        let all = format!("{} {error:?}", error.chain());
        assert!(!all.contains("hunter2"), "{all}");
        assert!(all.contains("template"), "{all}");
    }
    let error = Text::parse("/o/{{ 'id' ~ slice.nme }}")
        .unwrap()
        .render(&vars)
        .unwrap_err();
    insta::assert_snapshot!(error.chain(), @"render template (problem: a value is not defined, hint: give it one with | default(…), or ask for it with is defined, template: ****{{ '****' ~ slice.nme }}, undefined: slice.nme)");
    let long = "{% for i in range(9999) %}".to_owned() + &"x".repeat(1000) + "{% endfor %}";
    let error = Text::parse(&long).unwrap().render(&vars).unwrap_err();
    assert!(
        error.chain().contains("it gives more than 1048576 bytes"),
        "{}",
        error.chain()
    );
    for template in [
        "hunter2 {{ 'hunter2' }",
        "{{ hunter2 'hunter2' }}",
        "{{ 'hunter2",
        "{% if 'hunter2' %}",
    ] {
        let error = Text::parse(template).unwrap_err();
        assert!(!error.chain().contains("'hunter2"), "{}", error.chain());
    }
}

#[test]
fn arithmetic_groups_as_in_jinja() {
    let table = [
        ("1 + 2 * 3 - 4", json!(3)),
        ("10 - 2 - 3", json!(5)),
        ("2 * 3 // 4 * 5", json!(5)),
        ("-2 ** 2", json!(4)),
        ("2 ** 3 ** 2", json!(64)),
        ("'a' ~ 1 + 2", json!("! ")),
        ("1 + 2 ~ 'a'", json!("! ")),
        ("(1 + 2) ~ 'a' ~ none ~ true", json!("3atrue")),
        ("'a' + 'b' + 'c'", json!("abc")),
        ("[1] + [2, 3]", json!([1, 2, 3])),
        ("1.5 * 2", json!(3.0)),
        ("7 % 4 + 1", json!(4)),
        ("1 + 1 == 2 and not 1 - 1", json!(true)),
        ("'x' if slice.order - 7 else 'y' ~ 'z'", json!("yz")),
        ("slice.order is odd and (2 * 2) is even", json!(true)),
        ("1 in [1 + 0, 2] and 'a' not in 'b' ~ 'c'", json!(true)),
        ("{'a': 1 + 1}['a'] * 2", json!(4)),
        ("[1, 2, 3][1:][0] + [1, 2, 3][-1]", json!(5)),
        ("range(1, 10, 3) | list", json!([1, 4, 7])),
        ("range(10, 1, -3) | list", json!([10, 7, 4])),
        ("[3, 1 + 1] | sort | join('-')", json!("2-3")),
        ("max(1, 5, 3) + min([4, 2])", json!(7)),
        ("slice.order is not none", json!(true)),
        ("- slice.order | abs", json!(7)),
        ("1 - -1", json!(2)),
        ("18446744073709551615 + 1", json!("18446744073709551616")),
        ("1e+2 + 1", json!(101.0)),
    ];
    for (expression, expected) in table {
        let found = value(expression);
        if expected == json!("! ") {
            assert!(
                found.as_str().is_some_and(|text| text.starts_with("! ")),
                "{expression}: {found}"
            );
        } else {
            assert_eq!(found, expected, "{expression}");
        }
    }
    let chain = format!("{{{{ 0{} }}}}", " + 1".repeat(90));
    assert_eq!(render(&chain), "90");
}

#[test]
fn values_keep_their_spelling_and_their_type() {
    let table = [
        ("response.price", json!("1.10")),
        ("response.big", json!("18446744073709551617")),
        ("response.exp", json!("1e5")),
        ("response.u", json!(18446744073709551615_u64)),
        ("response.f", json!(1.5)),
        ("response.code", json!("007")),
        ("response.off", json!(false)),
        ("response.none", json!(null)),
        ("response.text", json!("aé\n")),
        ("response.z", json!(1)),
        ("response.a[2].id", json!("x")),
        ("response.a[-1]['id']", json!("x")),
        ("response.a | length", json!(3)),
        ("response.a", json!([1, 2, {"id": "x"}])),
        (
            "response | list | join(',')",
            json!("z,a,price,big,exp,u,f,code,off,none,text"),
        ),
        ("response.a | tojson", json!(r#"[1, 2, {"id": "x"}]"#)),
        ("slice.ids", json!(["x", "y"])),
        ("response.get('nope', 5)", json!(5)),
        ("response.nope | default('d')", json!("d")),
        ("slice.empty | default('d')", json!("")),
        ("slice.empty | default('d', true)", json!("d")),
        ("response.nope is defined", json!(false)),
        ("response.price | float * 2", json!(2.2)),
    ];
    for (expression, expected) in table {
        assert_eq!(value(expression), expected, "{expression}");
    }
    assert_eq!(
        render("{{ slice.none }}|{{ response.price }}|{{ slice.ids }}|{{ true }}"),
        r#"|1.10|["x","y"]|true"#
    );
    assert_eq!(
        render("{% if slice.order == 7 %}a{% else %}b{% endif %}\n"),
        "a\n"
    );
    assert_eq!(
        render("{% for id in slice.ids %}{{ loop.index }}{{ id }};{% endfor %}"),
        "1x;2y;"
    );
    assert_eq!(
        render("{% set n = slice.order * 2 -%}  {{ n }} {# note #}"),
        "14 "
    );
    assert_eq!(
        Text::parse("007").unwrap().render_json(&vars()).unwrap(),
        json!("007")
    );
    assert_eq!(
        Text::parse("n {{ slice.order }}")
            .unwrap()
            .render_json(&vars())
            .unwrap(),
        json!("n 7")
    );
}

#[test]
fn time_is_read_moved_and_written() {
    let table = [
        ("now", json!("2024-03-01T12:00:00.250Z")),
        ("now | add('-1d') | date", json!("2024-02-29")),
        ("now_utc() - duration('P1M')", json!("2024-02-01T12:00:00.250Z")),
        ("now | epoch", json!(1709294400)),
        ("now | epoch_ms", json!(1709294400250_i64)),
        ("today_utc()", json!("2024-03-01")),
        ("day_delta(-1, '%Y%m%d')", json!("20240229")),
        ("'2024-01-31' | add('P1M')", json!("2024-02-29")),
        ("'2024-01-31' | add('90m')", json!("2024-01-31T01:30:00Z")),
        (
            "'2024-01-31T23:00:00+02:00' | add('1d')",
            json!("2024-02-01T23:00:00+02:00"),
        ),
        ("1709294400 | add('1h')", json!(1709298000)),
        ("1709294400250 | add('1h')", json!(1709298000250_i64)),
        (
            "1709294400 | strftime('%Y-%m-%dT%H:%M:%SZ')",
            json!("2024-03-01T12:00:00Z"),
        ),
        ("now.strftime('%Y')", json!("2024")),
        (
            "format_datetime('03/01/2024', '%Y-%m-%d', '%d/%m/%Y')",
            json!("2024-01-03"),
        ),
        ("timestamp('2024-03-01 12:00:00')", json!(1709294400)),
        ("str_to_datetime('2024-03-01')", json!("2024-03-01T00:00:00Z")),
        ("'2024-03-01' | add('-PT36H')", json!("2024-02-28T12:00:00Z")),
    ];
    for (expression, expected) in table {
        assert_eq!(value(expression), expected, "{expression}");
    }
}

#[test]
fn texts_are_encoded_and_signed() {
    let table = [
        ("'a b/é' | urlencode", "a%20b%2F%C3%A9"),
        ("'user:pass' | base64", "dXNlcjpwYXNz"),
        ("'dXNlcjpwYXNz' | base64_decode", "user:pass"),
        (
            "'abc' | sha256",
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
        ),
        // RFC 4231, test case 2; and test case 6, whose key is longer than a block.
        (
            "'what do ya want for nothing?' | hmac_sha256('Jefe')",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        ),
        (
            "'what do ya want for nothing?' | hmac_sha256('Jefe', 'base64')",
            "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=",
        ),
        ("'order 17 of 20' | regex_find('order (\\\\d+)')", "17"),
        ("'a1b2' | regex_replace('([a-z])(\\\\d)', '$2$1')", "1a2b"),
        ("'a.b'.split('.') | last | upper", "B"),
        ("slice.ids | map('upper') | join", "XY"),
        (
            "response.a | selectattr('id', 'defined') | map(attribute='id') | first",
            "x",
        ),
    ];
    for (expression, expected) in table {
        assert_eq!(value(expression), json!(expected), "{expression}");
    }
}

#[test]
fn r012_a_path_keeps_its_segments() {
    let path = |template: &str| {
        let text = Text::parse(template).unwrap();
        text.render_path(&vars()).unwrap_or_else(|error| error.chain())
    };
    assert_eq!(path("/o/{{ slice.name }}/l"), "/o/a%20b%2Fc/l");
    assert_eq!(path("/o/{{ response.text }}"), "/o/a%C3%A9%0A");
    assert_eq!(path("/plain/../x"), "/plain/../x");
    assert!(path("/o/{{ slice.empty }}").contains("gives nothing"));
    assert!(path("/o/{{ slice.none }}").contains("gives nothing"));
    assert!(path("/o/.{{ '.' }}/x").contains("segment"));
    assert!(path("/o/{{ '.' }}").contains("segment"));
    assert!(path("/o/{{ '%2e' }}").starts_with("/o/%252e"));
}

#[test]
fn r054_references_work_within_tags_and_stay_unseen() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "Jefe\n").unwrap();
    let text = |text: &str| Text::parse(text).unwrap().relative_to(dir.path());
    let signed =
        text("k=${file:key} {{ 'what do ya want for nothing?' | hmac_sha256(${file:key}, 'base64') }}");
    assert!(signed.is_reference() && signed.is_template());
    assert_eq!(
        signed.render(&vars()).unwrap(),
        "k=Jefe W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM="
    );
    assert_eq!(
        text("{{ ${file:key} }}").render_json(&vars()).unwrap(),
        json!("Jefe")
    );
    assert_eq!(text("/${file:key}/x").render_path(&vars()).unwrap(), "/Jefe/x");
    std::fs::write(dir.path().join("key"), "a/b").unwrap();
    assert_eq!(text("/${file:key}/x").render_path(&vars()).unwrap(), "/a%2Fb/x");
    assert_eq!(
        text("/${file:key}/{{ 1 }}").render_path(&vars()).unwrap(),
        "/a%2Fb/1"
    );
    let error = text("{{ ${file:key} - 1 }}").render(&vars()).unwrap_err().chain();
    assert!(!error.contains("a/b"), "{error}");
    for wrong in ["{{ 'x ${file:key}' }}", "{# ${file:key} #}{{ 1 }}"] {
        let error = Text::parse(wrong).unwrap_err().chain();
        assert!(error.contains("reference stands"), "{error}");
    }
    assert!(signed.variables().is_empty());
}

#[test]
fn unknown_variables_can_be_told_before_anything_is_rendered() {
    let names = |text: &str| {
        Text::parse(text)
            .unwrap()
            .variables()
            .into_iter()
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        names("{{ slice.a ~ page.token }}{% set x = 1 %}{{ x + range(3)[0] }}"),
        "page slice"
    );
    assert_eq!(
        names("{% for x in slice.ids %}{{ x }}{{ y }}{% endfor %}"),
        "slice y"
    );
    assert_eq!(names("plain"), "");
    let used = Expr::parse("response.a and now_utc()").unwrap().variables();
    assert_eq!(used.into_iter().collect::<Vec<_>>(), ["response"]);
}

#[test]
fn what_is_no_json_is_no_variable() {
    for json in ["", "{", "{}x", "nul", "[1,]", "\u{feff}{}"] {
        let refused = Vars::default().with_json("response", Bytes::copy_from_slice(json.as_bytes()));
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::Corrupt, "{json}");
    }
    let deep = "[".repeat(200) + &"]".repeat(200);
    assert!(Vars::default().with_json("response", deep.into()).is_err());
    assert!(
        Vars::default()
            .with_json("response", Bytes::from_static(b"\"\xff\""))
            .is_err()
    );
    let half = Vars::default()
        .with_json("response", r#""\ud800""#.into())
        .unwrap();
    assert_eq!(
        Text::parse("{{ response }}").unwrap().render(&half).unwrap(),
        r"\ud800"
    );
}

/// Texts that are mostly made of what templates are made of.
fn template() -> impl Strategy<Value = String> {
    let words = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        " ",
        "-",
        "+",
        "*",
        "~",
        "**",
        "//",
        "%",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        ".",
        "|",
        "=",
        "==",
        "'",
        "\"",
        "\\",
        "if",
        "else",
        "endif",
        "for",
        "x",
        "in",
        "not",
        "is",
        "set",
        "endfor",
        "slice",
        "response",
        "a",
        "ids",
        "range",
        "1",
        "9999999999",
        "1.5",
        "e",
        "\0",
        "é",
        "\n",
        "sort",
        "join",
        "tojson",
        "default",
        "now",
        "strftime",
        "add",
        "'1d'",
        "loop",
        "none",
        "and",
        "raw",
        "{{ slice.ids }}",
    ];
    let word = prop_oneof![
        8 => proptest::sample::select(words.to_vec()).prop_map(str::to_owned),
        1 => ".{0,3}",
    ];
    proptest::collection::vec(word, 0..40).prop_map(|words| words.join(""))
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            proptest::collection::btree_map("[a-z]{0,3}", inner, 0..5)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn rendering_never_panics(template in template(), slice in any_json(), response in any_json()) {
        let vars = Vars::default()
            .with("slice", &slice)
            .with_json("response", response.to_string().into())
            .unwrap();
        if let Ok(text) = Text::parse(&template) {
            let _ = (text.render(&vars), text.render_path(&vars), text.render_json(&vars), text.variables());
        }
        if let Ok(expr) = Expr::parse(&template) {
            let _ = (expr.value(&vars), expr.is_true(&vars));
        }
        let inside = format!("{{{{ {template} }}}}");
        if let Ok(text) = Text::parse(&inside) {
            let _ = text.render(&vars);
        }
    }

    #[test]
    fn numbers_and_texts_keep_their_spelling(
        number in "-?(0|[1-9][0-9]{0,25})(\\.[0-9]{1,12})?([eE][+-]?[0-9]{1,3})?",
        text in ".{0,20}",
    ) {
        let json = format!(r#"{{"n": {number}, "t": {}}}"#, Value::from(text.as_str()));
        let vars = Vars::default().with_json("response", json.into()).unwrap();
        let rendered = |template: &str| Text::parse(template).unwrap().render(&vars).unwrap();
        prop_assert_eq!(rendered("{{ response.n }}"), number.clone());
        prop_assert_eq!(rendered("{{ response.t }}"), text.clone());
        let body = |template: &str| Text::parse(template).unwrap().render_json(&vars).unwrap();
        let sent = body("{{ response.n }}").to_string();
        prop_assert_eq!(sent.trim_matches('"'), number);
        prop_assert_eq!(body("{{ response.t }}"), Value::from(text));
    }

    #[test]
    fn json_comes_out_as_it_went_in(json in any_json()) {
        let vars = Vars::default().with_json("response", json!([json]).to_string().into()).unwrap();
        let text = Text::parse("{{ response | tojson }}").unwrap().render(&vars).unwrap();
        prop_assert_eq!(text, json!([json]).to_string());
        let slice = Vars::default().with("response", &json);
        let same = Text::parse("{{ response }}").unwrap().render_json(&slice).unwrap();
        prop_assert_eq!(same, json);
    }
}
