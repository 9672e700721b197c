use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;
use crate::config::{
    format::{Csv, Xml},
    records::Several,
};

const LIMITS: Limits = Limits::DEFAULT;

fn format(syntax: Syntax) -> Format {
    Format {
        syntax,
        ..Format::JSON
    }
}

fn csv() -> Format {
    format(Syntax::Csv(Csv::standard()))
}

fn xml() -> Format {
    format(Syntax::Xml(Xml::default()))
}

fn packed(container: Container, format: &Format) -> Format {
    Format {
        container,
        ..format.clone()
    }
}

fn read_bytes(format: &Format, path: &str, body: impl Into<Bytes>) -> Result<Vec<Vec<u8>>, Defect> {
    read_within(&LIMITS, format, path, body)
}

fn read_within(
    limits: &Limits,
    format: &Format,
    path: &str,
    body: impl Into<Bytes>,
) -> Result<Vec<Vec<u8>>, Defect> {
    let (path, body) = (RecordPaths::from(JsonPath::parse(path).unwrap()), body.into());
    let mut found = Vec::new();
    let count = records(format, &path, &body, limits, &mut |piece| {
        found.push(piece.bytes(&body).to_vec());
    })?;
    match count {
        Found::Values(count) => assert_eq!(count, found.len()),
        Found::Missing => assert!(found.is_empty()),
    }
    Ok(found)
}

/// The records, one a line; `missing`, or the defect in words.
fn read(format: &Format, path: &str, body: impl Into<Bytes>) -> String {
    let body = body.into();
    let parsed = RecordPaths::from(JsonPath::parse(path).unwrap());
    let found = records(format, &parsed, &body, &LIMITS, &mut |_| {});
    match (found, read_bytes(format, path, body)) {
        (Ok(Found::Missing), _) => "missing".to_owned(),
        (_, Ok(records)) => records
            .iter()
            .map(|record| String::from_utf8_lossy(record).into_owned())
            .collect::<Vec<_>>()
            .join("\n"),
        (_, Err(defect)) => defect.to_string(),
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, text) in files {
        if name.ends_with('/') {
            writer.add_directory(*name, SimpleFileOptions::default()).unwrap();
        } else {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(text).unwrap();
        }
    }
    writer.finish().unwrap().into_inner()
}

fn pack(container: Container, text: &[u8]) -> Vec<u8> {
    match container {
        Container::Plain => text.to_vec(),
        Container::Gzip => gzip(text),
        Container::Zstd => zstd::encode_all(text, 1).unwrap(),
        Container::Zip => zip(&[("data", text)]),
    }
}

const PACKED: [Container; 3] = [Container::Gzip, Container::Zstd, Container::Zip];

#[test]
fn r003_json_is_read_where_it_stands() {
    let body = Bytes::from_static(br#"{"data": [{"id":1}, 7, {"id" : 2.50}]}"#);
    let path = RecordPaths::from(JsonPath::parse("$.data[*]").unwrap());
    let mut pieces = Vec::new();
    let found = records(&Format::JSON, &path, &body, &LIMITS, &mut |piece| match piece {
        Piece::Range(range) => pieces.push(range),
        Piece::Written(_) => panic!("copied"),
    });
    assert_eq!(found, Ok(Found::Values(3)));
    assert_eq!(&body[pieces[2].clone()], br#"{"id" : 2.50}"#);
    assert_eq!(read(&Format::JSON, "$.none[*]", body), "missing");
    assert_eq!(read(&Format::JSON, "$[*]", "[1,"), "not JSON at byte 3");
}

#[test]
fn records_at_several_paths_are_all_of_them_or_the_first_that_has_any() {
    let read = |several: Several, format: &Format, paths: &[&str], body: &str| {
        let paths = paths.iter().map(|path| JsonPath::parse(path).unwrap());
        let paths = RecordPaths::several(several, paths.collect()).unwrap();
        let (body, mut texts) = (Bytes::copy_from_slice(body.as_bytes()), Vec::new());
        let found = records(format, &paths, &body, &LIMITS, &mut |piece| {
            texts.push(String::from_utf8_lossy(piece.bytes(&body)).into_owned());
        });
        match found {
            Ok(Found::Values(count)) => assert_eq!(count, texts.len()),
            Ok(Found::Missing) => texts.push("missing".to_owned()),
            Err(defect) => texts = vec![defect.to_string()],
        }
        texts.join(" ")
    };
    let table = [
        (r#"{"a":[1],"b":[2,3]}"#, "2 3 1", "2 3"),
        (r#"{"a":[1],"b":[]}"#, "1", "1"),
        (r#"{"a":[1]}"#, "1", "1"),
        (r#"{"a":[],"c":[9]}"#, "", ""),
        (r#"{"c":[9]}"#, "missing", "missing"),
        (r#"{"a":[1],"#, "not JSON at byte 9", "not JSON at byte 9"),
    ];
    let paths = ["$.b[*]", "$.a[*]"];
    for (body, union, first) in table {
        assert_eq!(read(Several::Union, &Format::JSON, &paths, body), union, "{body}");
        assert_eq!(
            read(Several::FirstMatch, &Format::JSON, &paths, body),
            first,
            "{body}"
        );
    }
    let elements = "<r><a><i>1</i></a><b><i>2</i></b></r>";
    let paths = ["$.r.b", "$.r.a"];
    assert_eq!(
        read(Several::Union, &xml(), &paths, elements),
        r#"{"i":"2"} {"i":"1"}"#
    );
}

#[test]
fn f098_a_byte_order_mark_does_not_make_json_something_else() {
    let text = "[{\"a\":\"é😀\"}]";
    let utf16 = |order: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}"
            .encode_utf16()
            .chain(text.encode_utf16())
            .flat_map(order)
            .collect()
    };
    let marked = format!("\u{feff}{text}").into_bytes();
    for body in [marked.clone(), utf16(u16::to_le_bytes), utf16(u16::to_be_bytes)] {
        assert_eq!(read(&Format::JSON, "$[*]", body.clone()), r#"{"a":"é😀"}"#);
        let document = document(&Format::JSON, &Bytes::from(body), &LIMITS)
            .unwrap()
            .unwrap();
        assert_eq!(document, text);
    }
    let path = RecordPaths::from(JsonPath::parse("$[*]").unwrap());
    let mut ranges = Vec::new();
    records(
        &Format::JSON,
        &path,
        &Bytes::from(marked),
        &LIMITS,
        &mut |piece| ranges.push(format!("{piece:?}")),
    )
    .unwrap();
    assert_eq!(ranges, ["Range(4..18)"]);
}

#[test]
fn maps_of_records_get_their_names() {
    let named = Format {
        key_as: Some("sku".to_owned()),
        ..Format::JSON
    };
    let body = r#"{"data": {"a\"1": {"n": 1}, "b": {}, "c": {"sku": "own"}, "d": 7}}"#;
    let expected = "{\"sku\":\"a\\\"1\",\"n\": 1}\n{\"sku\":\"b\"}\n{\"sku\": \"own\"}\n7";
    assert_eq!(read(&named, "$.data.*", body), expected);
    assert_eq!(
        read(
            &packed(Container::Gzip, &named),
            "$.data.*",
            gzip(body.as_bytes())
        ),
        expected
    );
    assert_eq!(
        read(&Format::JSON, "$.data.*", r#"{"data":{"a":1,"a":2}}"#),
        "1\n2"
    );
    assert_eq!(read(&Format::JSON, "$.data.*", r#"{"data":{}}"#), "");
    assert_eq!(read(&Format::JSON, "$.data.*", r#"{"data":[1]}"#), "missing");
    assert_eq!(read(&Format::JSON, "$.data[*]", r#"{"data":{"a":1}}"#), "missing");
    // The name is that of the last `.*` on the way.
    assert_eq!(
        read(
            &named,
            "$.*.rows[*]",
            r#"{"x":{"rows":[{"i":1}]},"y":{"rows":[{}]}}"#
        ),
        "{\"sku\":\"x\",\"i\":1}\n{\"sku\":\"y\"}"
    );
}

#[test]
fn r003_a_bad_line_does_not_take_the_others_with_it() {
    let lines = format(Syntax::JsonLines);
    let body = "\u{feff}{\"a\":1}\r\n\n  \t\r\n{\"a\":\nnull\n{\"a\":2}";
    let expected = "{\"a\":1}\n{\"a\":\nnull\n{\"a\":2}";
    assert_eq!(read(&lines, "$", body), expected);
    for container in PACKED {
        let body = pack(container, body.as_bytes());
        assert_eq!(read(&packed(container, &lines), "$", body), expected);
    }
    assert_eq!(read(&lines, "$", ""), "");
    assert_eq!(
        read(&format(Syntax::Lines), "$", "a \"b\"\r\n\n\u{1}"),
        "{\"record\":\"a \\\"b\\\"\"}\n{\"record\":\"\\u0001\"}"
    );
}

#[test]
fn csv_rows_are_records_of_texts() {
    let table = [
        (
            "id,name\n1,Ann\n2,\"B \"\"b\"\",\nb\"\n",
            "{\"id\":\"1\",\"name\":\"Ann\"}\n{\"id\":\"2\",\"name\":\"B \\\"b\\\",\\nb\"}",
        ),
        (
            "id,name\r\n1,\r\n\r\n\"\",x",
            "{\"id\":\"1\",\"name\":null}\n{\"id\":null,\"name\":\"x\"}",
        ),
        // Too few and too many fields: nothing is shifted, nothing lost.
        (
            "a,b\n1\n1,2,3\n1,2\n",
            "[\"1\"]\n[\"1\",\"2\",\"3\"]\n{\"a\":\"1\",\"b\":\"2\"}",
        ),
        (
            "name, name ,,name_2,name\n1,2,3,4,5\n",
            "{\"name\":\"1\",\"name_3\":\"2\",\"column_3\":\"3\",\"name_2\":\"4\",\"name_4\":\"5\"}",
        ),
        ("a,a\n1,2", "{\"a\":\"1\",\"a_2\":\"2\"}"),
        ("a,b\n", ""),
        ("", "missing"),
        ("a,b\n1,\"open\n2,3\n", "{\"a\":\"1\",\"b\":\"open\\n2,3\\n\"}"),
    ];
    for (body, expected) in table {
        assert_eq!(read(&csv(), "$", body), expected, "{body:?}");
    }
}

#[test]
fn csv_is_read_as_its_settings_say() {
    let settings = Csv {
        delimiter: b'\t',
        quote: None,
        columns: Some(vec!["a".to_owned(), "b".to_owned()]),
        skip_lines: 2,
        nulls: vec!["NULL".to_owned(), "\\N".to_owned()],
    };
    let body = "# made by \"us\nA\tB\n\t\"x\nNULL\t\\N\n";
    assert_eq!(
        read(&format(Syntax::Csv(settings)), "$", body),
        "{\"a\":\"\",\"b\":\"\\\"x\"}\n{\"a\":null,\"b\":null}"
    );
    let encoded = |encoding| Format { encoding, ..csv() };
    assert_eq!(
        read(&encoded(Encoding::Latin1), "$", b"n\nM\xfcller\x80\n".to_vec()),
        "{\"n\":\"Müller\u{80}\"}"
    );
    assert_eq!(
        read(
            &encoded(Encoding::Windows1252),
            "$",
            b"n\nM\xfcller\x80\n".to_vec()
        ),
        "{\"n\":\"Müller€\"}"
    );
    let utf16: Vec<u8> = "n\nŸ😀\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert_eq!(read(&encoded(Encoding::Utf16), "$", utf16), "{\"n\":\"Ÿ😀\"}");
    // What is no text in its encoding is no JSON: the judge sets the row aside, and no other.
    let rows = read_bytes(&csv(), "$", b"n\na\xff\nb\n".to_vec()).unwrap();
    assert_eq!(rows, [b"{\"n\":\"a\xff\"}".to_vec(), b"{\"n\":\"b\"}".to_vec()]);
    let mut half: Vec<u8> = "n\nx".encode_utf16().flat_map(u16::to_le_bytes).collect();
    half.extend([0x00, 0xD8, b'\n', 0, b'y', 0]);
    let rows = read_bytes(&encoded(Encoding::Utf16), "$", half).unwrap();
    assert_eq!(rows, [b"{\"n\":\"x\xff\"}".to_vec(), b"{\"n\":\"y\"}".to_vec()]);
}

#[test]
fn xml_elements_are_records() {
    let body = r#"<?xml version="1.0"?><!-- a --><rss version="2"><channel><title>T</title>
        <item id="1"><n>7</n><tag>a</tag><tag>b</tag></item>
        <x:item>no</x:item>
        <item id="2"> a &lt;b&gt; &amp;&#33;<b>c</b> d </item><item/>
    </channel></rss>"#;
    let expected = "{\"@id\":\"1\",\"n\":\"7\",\"tag\":[\"a\",\"b\"]}\n{\"@id\":\"2\",\"b\":\"c\",\"#text\":\"a <b> &! d\"}\n{}";
    for path in ["$.rss.channel.item[*]", "$.rss.channel.item"] {
        assert_eq!(read(&xml(), path, body), expected);
        for container in PACKED {
            assert_eq!(
                read(&packed(container, &xml()), path, pack(container, body.as_bytes())),
                expected
            );
        }
    }
    assert_eq!(read(&xml(), "$.rss.channel.item[1].b", body), "{\"#text\":\"c\"}");
    assert_eq!(
        read(&xml(), "$.rss.channel['x:item'][*]", body),
        "{\"#text\":\"no\"}"
    );
    let one = "<r><l><i>1</i></l><l/><l><i>2</i></l></r>";
    assert_eq!(
        read(&xml(), "$.r.l[*].i[*]", one),
        "{\"#text\":\"1\"}\n{\"#text\":\"2\"}"
    );
    assert_eq!(read(&xml(), "$.r.l[2].i[*]", one), "{\"#text\":\"2\"}");
    assert_eq!(read(&xml(), "$.r.l[1].i[*]", one), "");
    assert_eq!(read(&xml(), "$.r.none.i[*]", one), "missing");
    assert_eq!(read(&xml(), "$.s", one), "missing");
    assert_eq!(read(&xml(), "$[*]", one), "missing");
    assert_eq!(
        read(&xml(), "$", one),
        r#"{"r":{"l":[{"i":"1"},null,{"i":"2"}]}}"#
    );
    let keyed = Format {
        key_as: Some("kind".to_owned()),
        ..xml()
    };
    assert_eq!(
        read(&keyed, "$.r.*", "<r><a x='1'/><b><kind>own</kind></b></r>"),
        "{\"kind\":\"a\",\"@x\":\"1\"}\n{\"kind\":\"own\"}"
    );
    let lists = format(Syntax::Xml(Xml {
        lists: vec!["tag".to_owned()],
    }));
    assert_eq!(
        read(&lists, "$.r.i", "<r><i><tag>a</tag></i></r>"),
        r#"{"tag":["a"]}"#
    );
}

#[test]
fn values_of_xml_are_texts_and_nothing_is_trimmed_that_was_meant() {
    let table = [
        ("<a>\n  12\t</a>", r#""12""#),
        ("<a> <![CDATA[ <x> ]]> </a>", r#"" <x> ""#),
        ("<a>&#32;b&#x20;</a>", r#"" b ""#),
        ("<a/>", "null"),
        ("<a>\n</a>", "null"),
        ("<a xsi:nil='true'/>", "null"),
        ("<a xsi:nil='false'/>", r#"{"@xsi:nil":"false"}"#),
        ("<a k='&quot;\\'>x</a>", r##"{"@k":"\"\\","#text":"x"}"##),
        ("<a>\u{a0}</a>", "\"\u{a0}\""),
        ("<a>x\r\ny</a>", r#""x\ny""#),
    ];
    for (element, expected) in table {
        let body = format!("<r><i>{element}</i></r>");
        assert_eq!(
            read(&xml(), "$.r.i", body),
            format!("{{\"a\":{expected}}}"),
            "{element}"
        );
    }
}

#[test]
fn f098_xml_says_its_encoding() {
    let declared = b"<?xml version='1.0' encoding='ISO-8859-1'?><r><i>\xfc</i></r>".to_vec();
    assert_eq!(read(&xml(), "$.r", declared), "{\"i\":\"ü\"}");
    let utf16: Vec<u8> = "<?xml version='1.0' encoding='UTF-16'?><r><i>ü</i></r>"
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    assert_eq!(read(&xml(), "$.r", utf16), "{\"i\":\"ü\"}");
    let unknown = "<?xml version='1.0' encoding='EBCDIC'?><r/>";
    assert_eq!(
        read(&xml(), "$.r", unknown),
        "not XML at byte 0: its encoding is not known here"
    );
}

#[test]
fn xml_that_is_not_well_formed_has_no_records() {
    let deep = format!("{}{}", "<a>".repeat(200), "</a>".repeat(200));
    let bodies = [
        "",
        "{}",
        "<a>",
        "<a></b>",
        "<a/><b/>",
        "<a/>x",
        "<a b='1' b='2'/>",
        "<a b=1/>",
        "<a>&nbsp;</a>",
        "<a>&#0;</a>",
        "<a b='&x;'/>",
        "<a",
        "<a><![CDATA[x</a>",
        &deep,
    ];
    for body in bodies {
        // Attributes are looked at in records only.
        let outside = !body.contains("='") && !body.contains("=1");
        for path in ["$", "$.a", "$.x.y"]
            .into_iter()
            .take(if outside { 3 } else { 2 })
        {
            let found = read_bytes(&xml(), path, body.to_owned());
            assert!(
                matches!(found, Err(Defect::Xml { .. } | Defect::TooDeep { .. })),
                "{body:.40} {path}: {found:?}"
            );
        }
    }
}

#[test]
fn f097_entities_are_never_expanded() {
    let laughs = r#"<?xml version="1.0"?><!DOCTYPE lolz [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;&lol;">]><r><i>&lol2;</i></r>"#;
    assert!(read(&xml(), "$.r.i", laughs).contains("others are never expanded"));
    let harmless = r#"<!DOCTYPE r [<!ENTITY e SYSTEM "file:///etc/passwd">]><r><i>a</i></r>"#;
    assert_eq!(read(&xml(), "$.r", harmless), r#"{"i":"a"}"#);
}

#[test]
fn every_file_of_an_archive_is_read_in_its_order() {
    let body = zip(&[
        ("b/", b""),
        ("b/2.csv", b"id\n1\n"),
        ("__MACOSX/b/._2.csv", b"\0\0"),
        ("a.csv", b"id,x\n2,\n"),
    ]);
    assert_eq!(
        read(&packed(Container::Zip, &csv()), "$", body),
        "{\"id\":\"1\"}\n{\"id\":\"2\",\"x\":null}"
    );
    let json = zip(&[("1", b"{\"d\":[1]}"), ("2", b"{}"), ("3", b"{\"d\":[2]}")]);
    assert_eq!(
        read(&packed(Container::Zip, &Format::JSON), "$.d[*]", json),
        "1\n2"
    );
    assert_eq!(read(&packed(Container::Zip, &csv()), "$", zip(&[])), "missing");
}

#[test]
fn gzip_files_of_an_archive_are_opened() {
    let format = packed(Container::Zip, &csv());
    let whole = gzip(b"id\n2\n");
    let body = zip(&[
        ("1.csv", b"id\n1\n"),
        ("2.csv.gz", &whole),
        ("3", &gzip(b"id\n3\n")),
    ]);
    assert_eq!(
        read(&format, "$", body),
        "{\"id\":\"1\"}\n{\"id\":\"2\"}\n{\"id\":\"3\"}"
    );
    let cut = zip(&[("2.csv.gz", &whole[..whole.len() - 9])]);
    assert!(read(&format, "$", cut).contains("not zip: cut"));
    // What is within a gzip file is not looked into.
    let twice = zip(&[("2.csv.gz.gz", &gzip(&whole))]);
    assert!(!read(&format, "$", twice).contains("\"2\""));
    // A bomb is one in two layers too.
    let bomb = zip(&[("b.gz", &gzip(&vec![b'1'; 64 << 20]))]);
    assert!(read(&format, "$", bomb).contains("decode"));
}

#[test]
fn an_archive_that_was_written_as_a_stream_is_read_and_one_with_two_truths_is_not() {
    let format = packed(Container::Zip, &csv());
    let mut streamed = ZipWriter::new_stream(Vec::new());
    for name in ["a", "b"] {
        streamed.start_file(name, SimpleFileOptions::default()).unwrap();
        streamed.write_all(b"id\n1\n").unwrap();
    }
    let body = streamed.finish().unwrap().into_inner();
    assert_eq!(read(&format, "$", body), "{\"id\":\"1\"}\n{\"id\":\"1\"}");
    // Two entries of one name: which of them counts would depend on who reads it.
    let mut twice = zip(&[("x1", b"id\n1\n"), ("x2", b"id\n2\n")]);
    while let Some(at) = twice.windows(2).position(|name| name == b"x2") {
        twice[at + 1] = b'1';
    }
    let expected = "not zip: an entry cannot be read, or is encrypted";
    assert_eq!(read(&format, "$", twice), expected);
    assert_eq!(read(&format, "$", "id\n1\n"), "not zip: no archive");
}

#[test]
fn f038_members_and_frames_follow_each_other() {
    let lines = format(Syntax::JsonLines);
    let zstd = |text: &[u8]| zstd::encode_all(text, 1).unwrap();
    for (container, body) in [
        (Container::Gzip, [gzip(b"{\"a\""), gzip(b":1}\n2")].concat()),
        (Container::Zstd, [zstd(b"{\"a\""), zstd(b":1}\n2")].concat()),
    ] {
        assert_eq!(read(&packed(container, &lines), "$", body), "{\"a\":1}\n2");
    }
}

#[test]
fn f035_a_container_that_is_cut_has_no_records() {
    let text = b"{\"a\":1}\n{\"a\":2}\n".repeat(50);
    for container in PACKED {
        let whole = pack(container, &text);
        let format = packed(container, &format(Syntax::JsonLines));
        for end in 0..whole.len() {
            let found = read_bytes(&format, "$", whole[..end].to_vec());
            assert!(
                matches!(found, Err(Defect::Container { .. })),
                "{container:?} cut at {end}: {found:?}"
            );
        }
        let mut damaged = whole.clone();
        damaged.extend_from_slice(b"<html>");
        if container != Container::Zip {
            assert!(read_bytes(&format, "$", damaged).is_err(), "{container:?}");
        }
    }
}

#[test]
fn f039_a_bomb_is_not_unpacked() {
    let spaces = vec![b'\n'; 3 << 20];
    let tight = Limits {
        decoded_bytes_max: 2 << 20,
        decode_ratio_max: u64::MAX,
        ..LIMITS
    };
    for container in PACKED {
        let body = pack(container, &spaces);
        let format = packed(container, &format(Syntax::JsonLines));
        assert_eq!(
            read_bytes(&format, "$", body.clone()),
            Err(Defect::Excess(Excess::Ratio(200))),
            "{container:?}"
        );
        assert_eq!(
            read_within(&tight, &format, "$", body),
            Err(Defect::Excess(Excess::Bytes(2 << 20))),
            "{container:?}"
        );
    }
    // Many small files are as bad as a large one.
    let part = vec![b'\n'; 1 << 20];
    let names: Vec<String> = (0..3).map(|index| index.to_string()).collect();
    let files: Vec<(&str, &[u8])> = names
        .iter()
        .map(|name| (name.as_str(), part.as_slice()))
        .collect();
    let found = read_within(
        &tight,
        &packed(Container::Zip, &format(Syntax::JsonLines)),
        "$",
        zip(&files),
    );
    assert_eq!(found, Err(Defect::Excess(Excess::Bytes(2 << 20))));
}

#[test]
fn memory_is_that_of_one_record() {
    let small = Limits {
        record_bytes_max: 160 << 10,
        held_bytes_max: 384 << 10,
        decode_ratio_max: u64::MAX,
        ..LIMITS
    };
    let too_large = Err(Defect::RecordTooLarge {
        record_bytes_max: 160 << 10,
    });
    let many = |line: &str, end: &str| format!("{}{end}", line.repeat((1 << 20) / line.len()));
    let rows = many("1234567,abcdefgh\n", "");
    let elements = format!("<r>{}</r>", many("<i>abcdefgh</i> <!-- x -->", ""));
    for container in PACKED {
        // The whole is several times what may be held, a record is not.
        let lines = packed(container, &format(Syntax::JsonLines));
        assert_eq!(
            read_within(&small, &lines, "$", pack(container, rows.as_bytes()))
                .unwrap()
                .len(),
            rows.len() / 17
        );
        let csv = packed(container, &csv());
        assert_eq!(
            read_within(&small, &csv, "$", pack(container, rows.as_bytes()))
                .unwrap()
                .len(),
            rows.len() / 17 - 1
        );
        let xml = packed(container, &xml());
        assert!(
            read_within(&small, &xml, "$.r.i", pack(container, elements.as_bytes()))
                .unwrap()
                .len()
                > 30_000
        );
        // A record that never ends is stopped.
        let quote = many("x", "").replacen('x', "a\n\"", 1);
        assert_eq!(
            read_within(&small, &csv, "$", pack(container, quote.as_bytes())),
            too_large
        );
        let tag = many("<i>x</i>", "");
        assert_eq!(
            read_within(
                &small,
                &xml,
                "$.r",
                pack(container, format!("<r>{tag}</r>").as_bytes())
            ),
            too_large
        );
        let json = packed(container, &Format::JSON);
        assert_eq!(
            read_within(&small, &json, "$[*]", pack(container, many(" ", "").as_bytes())),
            Err(Defect::RecordTooLarge {
                record_bytes_max: 384 << 10
            })
        );
        // A long line is cut, and the next one is whole.
        let long = many("x", "\n{}\n");
        let lines = read_within(&small, &lines, "$", pack(container, long.as_bytes())).unwrap();
        assert_eq!(lines.iter().map(Vec::len).collect::<Vec<_>>(), [160 << 10, 2]);
    }
}

#[test]
fn the_whole_is_json_where_there_is_one() {
    let whole = |format: &Format, body: &[u8]| document(format, &Bytes::copy_from_slice(body), &LIMITS);
    let as_json = Bytes::from_static(br#"{"a":{"next":"x"}}"#);
    assert_eq!(whole(&xml(), b"<a><next>x</next></a>"), Ok(Some(as_json.clone())));
    let zipped = pack(Container::Zip, b"<a><next>x</next></a>");
    assert_eq!(
        whole(&packed(Container::Zip, &xml()), &zipped),
        Ok(Some(as_json.clone()))
    );
    assert_eq!(
        whole(&packed(Container::Gzip, &Format::JSON), &gzip(&as_json)),
        Ok(Some(as_json))
    );
    assert_eq!(whole(&csv(), b"a\n1\n"), Ok(None));
    let body = Bytes::from_static(b"{}");
    assert_eq!(
        document(&Format::JSON, &body, &LIMITS).unwrap().unwrap().as_ptr(),
        body.as_ptr()
    );
}

fn names() -> impl Strategy<Value = Vec<String>> {
    proptest::collection::btree_set("[a-z][a-z ,\"]{0,4}[a-z]", 1..5)
        .prop_map(|names| names.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn csv_that_was_written_reads_back(
        names in names(),
        rows in proptest::collection::vec(proptest::collection::vec(any::<String>(), 5), 0..20),
        container in 0usize..4,
    ) {
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        writer.write_record(&names).unwrap();
        let rows: Vec<Vec<String>> = rows.into_iter().map(|row| row[..names.len()].to_vec()).collect();
        for row in &rows {
            writer.write_record(row).unwrap();
        }
        let body = writer.into_inner().unwrap();
        let container = [Container::Plain, Container::Gzip, Container::Zstd, Container::Zip][container];
        let records = read_bytes(&packed(container, &csv()), "$", pack(container, &body)).unwrap();
        let expected: Vec<serde_json::Value> = rows.iter().map(|row| {
            let value = |field: &String| if field.is_empty() { serde_json::Value::Null } else { field.clone().into() };
            names.iter().cloned().zip(row.iter().map(value)).collect::<serde_json::Map<_, _>>().into()
        }).collect();
        let found: Vec<serde_json::Value> = records.iter().map(|record| serde_json::from_slice(record).unwrap()).collect();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn lines_cut_anywhere_lose_only_the_one_that_is_cut(
        values in proptest::collection::vec("[a-z\"\\\\é\u{1}]{0,12}", 0..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let lines: Vec<String> = values.iter().map(|value| serde_json::json!({ "v": value }).to_string()).collect();
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let cut = cut.index(body.len() + 1);
        let whole = body.as_bytes()[..cut].iter().filter(|&&byte| byte == b'\n').count();
        let found = read_bytes(&format(Syntax::JsonLines), "$", body.as_bytes()[..cut].to_vec()).unwrap();
        prop_assert!(found.len() == whole || found.len() == whole + 1);
        for (found, line) in found.iter().zip(&lines).take(whole) {
            prop_assert_eq!(found, line.as_bytes());
        }
    }

    #[test]
    fn a_container_changes_nothing(text in "[a-z{}\\[\\]\",:0-9\n<>/ é]{0,300}", syntax in 0usize..5) {
        let format = format([Syntax::Json, Syntax::JsonLines, Syntax::Lines, Syntax::Csv(Csv::standard()), Syntax::Xml(Xml::default())][syntax].clone());
        let plain = read_bytes(&format, "$", text.clone().into_bytes());
        for container in PACKED {
            let found = read_bytes(&packed(container, &format), "$", pack(container, text.as_bytes()));
            prop_assert_eq!(&found, &plain, "{:?}", container);
        }
    }

    #[test]
    fn xml_that_was_written_reads_back(texts in proptest::collection::vec("[ -~é\n]{1,20}", 0..10)) {
        let body: String = texts.iter().map(|text| {
            format!("<i a=\"{}\"><![CDATA[{}]]></i>", quick_xml::escape::escape(text.replace('\n', " ").as_str()), text.replace("]]>", ""))
        }).collect();
        let found = read_bytes(&xml(), "$.r.i", format!("<r>{body}</r>").into_bytes()).unwrap();
        prop_assert_eq!(found.len(), texts.len());
        for (found, text) in found.iter().zip(&texts) {
            let record: serde_json::Value = serde_json::from_slice(found).unwrap();
            prop_assert_eq!(record["@a"].as_str().unwrap(), text.replace('\n', " "));
            prop_assert_eq!(record["#text"].as_str().unwrap_or_default(), text.replace("]]>", ""));
        }
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200), container in 0usize..4, syntax in 0usize..5) {
        let container = [Container::Plain, Container::Gzip, Container::Zstd, Container::Zip][container];
        let format = format([Syntax::Json, Syntax::JsonLines, Syntax::Lines, Syntax::Csv(Csv::standard()), Syntax::Xml(Xml::default())][syntax].clone());
        let _ = read_bytes(&packed(container, &format), "$.a[*]", bytes.clone());
        let _ = document(&packed(container, &format), &Bytes::from(bytes), &LIMITS);
    }
}
