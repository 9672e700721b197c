use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn problems(text: &str) -> String {
    let problems = Problems::new("f.yml");
    let node = parse(text, &problems);
    match problems.finish(node) {
        Ok((node, _)) => format!("{node:?}"),
        Err(found) => found.iter().map(|one| format!("{one}\n")).collect(),
    }
}

#[test]
fn every_node_and_key_knows_its_place() {
    let problems = Problems::new("f.yml");
    let node = parse(
        "# comment\na: 1\nbéé:   { c: [x, 'y'] }\nd:\n  - e: |\n      text\n",
        &problems,
    )
    .unwrap();
    let mut text = String::new();
    places(&node, &mut text);
    insta::assert_snapshot!(text, @"
    2:1 a map
    2:1 key a
    2:4 a whole number
    3:1 key béé
    3:8 a map
    3:10 key c
    3:13 a list
    3:14 text
    3:17 text
    4:1 key d
    5:3 a list
    5:5 a map
    5:5 key e
    6:7 text
    ");
}

fn places(node: &Node, text: &mut String) {
    let Place { line, column } = node.place;
    writeln!(text, "{line}:{column} {}", node.kind_name()).unwrap();
    match &node.kind {
        Kind::Seq(items) => items.iter().for_each(|item| places(item, text)),
        Kind::Map(entries) => {
            for entry in entries {
                writeln!(
                    text,
                    "{}:{} key {}",
                    entry.place.line, entry.place.column, entry.key
                )
                .unwrap();
                places(&entry.value, text);
            }
        }
        _ => {}
    }
}

#[test]
fn scalars_follow_the_core_schema() {
    for (text, kind) in [
        ("~", "nothing"),
        ("", "nothing"),
        ("TRUE", "true or false"),
        ("yes", "text"),
        ("off", "text"),
        ("12", "a whole number"),
        ("-0x1", "text"),
        ("0xfF", "a whole number"),
        ("1e3", "a number"),
        ("-.5", "a number"),
        ("1.", "a number"),
        ("inf", "text"),
        ("nan", "text"),
        (".inf", "a number"),
        ("1_000", "text"),
        ("12:30", "text"),
        ("2024-01-01", "text"),
        ("'12'", "text"),
        ("\"null\"", "text"),
    ] {
        let problems = Problems::new("f.yml");
        let node = parse(&format!("a: {text}"), &problems).unwrap();
        let Kind::Map(entries) = &node.kind else {
            panic!("{node:?}")
        };
        assert_eq!(entries[0].value.kind_name(), kind, "{text}");
    }
}

#[test]
fn f155_what_could_surprise_is_refused_where_it_stands() {
    let text = "a: &x [1]\nb: *x\nc: !!str 1\nd: 1\nd: 2\n3: 3\n? [k]\n: 4\ntrue: 5\ne: !own {}\n";
    insta::assert_snapshot!(problems(text), @r#"
    f.yml:1:7: anchors (&name) are not allowed
      hint: write the value out
    f.yml:2:4: aliases (*name) are not allowed
      hint: write the value out
    f.yml:3:10: tags are not allowed, here "!!str"
      hint: to make a value text, put it in quotes
    f.yml:5:1: duplicate key "d"
      hint: it is already on line 4
    f.yml:6:1: keys are text, this is a whole number
      hint: put it in quotes
    f.yml:7:3: keys are text, this is a list
      hint: put it in quotes
    f.yml:9:1: keys are text, this is true or false
      hint: put it in quotes
    f.yml:10:9: tags are not allowed, here "!own"
      hint: to make a value text, put it in quotes
    "#);
}

#[test]
fn f155_text_that_is_not_one_document_is_refused() {
    insta::assert_snapshot!(problems("a: 1\n---\nb: 2\n"), @"f.yml:2:1: a second document is not allowed");
    insta::assert_snapshot!(problems("a: 1\nb: [1, 2\n"), @"f.yml:3:1: not YAML: while parsing a flow sequence, expected ',' or ']'");
    insta::assert_snapshot!(problems("a:\n\tb: 1\n"), @"
    f.yml:2:2: not YAML: tabs disallowed within this context (block indentation)
      hint: indent with spaces, not with tabs
    ");
    insta::assert_snapshot!(problems("a: 1\nb: x\0y\nc: 1\n"), @"
    f.yml:2:5: control character U+0000 is not allowed
      hint: write it as an escape in a double-quoted string
    ");
    insta::assert_snapshot!(problems("# nothing\n"), @"f.yml:1:1: the file is empty");
    insta::assert_snapshot!(problems("a: *unknown\n"), @"f.yml:1:4: not YAML: while parsing node, found unknown anchor");
}

#[test]
fn f155_a_billion_laughs_stay_a_few_lines() {
    let mut text = "a0: &a0 [lol]\n".to_owned();
    for level in 1..30 {
        let before = format!("*a{}, ", level - 1).repeat(9);
        writeln!(text, "a{level}: &a{level} [{before}]").unwrap();
    }
    let found = problems(&text);
    assert!(
        found.starts_with("f.yml:1:9: anchors (&name) are not allowed"),
        "{found}"
    );
    assert!(found.contains("more problems"), "{found}");
    assert!(found.len() < 20_000);
}

#[test]
fn f155_size_depth_and_number_of_values_are_bounded() {
    let large = "a".repeat(FILE_BYTES_MAX + 1);
    assert_eq!(
        problems(&large),
        "f.yml:1:1: the file has 1048577 bytes, more than the 1048576 allowed\n"
    );
    // Beyond some 250 levels the parser itself gives up first; below that the limit is ours.
    let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(problems(&deep(101)), "f.yml:1:101: nested deeper than 100\n");
    assert!(problems(&deep(100)).starts_with("Node"));
    assert_eq!(
        problems(&deep(5000)),
        "f.yml:1:256: not YAML: recursion limit exceeded\n"
    );
    let block: String = (0..101)
        .map(|level| format!("{}a:\n", " ".repeat(level)))
        .collect();
    assert_eq!(problems(&block), "f.yml:101:101: nested deeper than 100\n");
    let wide = format!("[{}]", "1,".repeat(NODES_MAX + 1));
    assert!(problems(&wide).ends_with("more than 100000 values\n"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn f155_no_text_makes_the_reader_panic(text in "[-?:,\\[\\]{}#&*!|>'\"%@` \\n\\t~a0.\\\\é\r]{0,60}") {
        problems(&text);
    }

    #[test]
    fn places_of_keys_point_at_the_keys(keys in prop::collection::btree_set("[a-z]{1,6}x", 1..6), gap in 0usize..4) {
        let text: String = keys.iter().map(|key| format!("{}{key}: 1\n", "\n".repeat(gap))).collect();
        let problems = Problems::new("f.yml");
        let Some(Node { kind: Kind::Map(entries), .. }) = parse(&text, &problems) else { panic!("{text}") };
        for entry in entries {
            let line = text.lines().nth(entry.place.line - 1).unwrap();
            prop_assert!(line[entry.place.column - 1..].starts_with(&entry.key));
        }
    }
}
