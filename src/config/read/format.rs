//! What bodies are written in, and where their records are.

use crate::{
    config::{
        format::{Container, Csv, Encoding, Format, Syntax, Xml},
        read::values::json_path,
        records::{RecordPaths, Several},
    },
    json::{JsonPath, Segment},
    yaml::{
        Kind,
        fields::{Fields, Value},
        section::{
            Key, Rule, Section,
            Takes::{self, AnyText, Choice, Integer, List, Matching, Path, Text, Word},
            key,
        },
    },
};

/// More lines than this before the first that counts are a mistake.
const SKIP_LINES_MAX: u32 = 1_000_000;

/// The short form: the kind alone.
pub(super) const KIND: Takes = Choice(&[
    ("json", "one JSON text"),
    ("jsonl", "one JSON text a line"),
    ("lines", "one text a line, in the member `record` of a record"),
    ("csv", "comma-separated values with a header line"),
    ("xml", "XML, its elements as objects"),
]);

/// The maps of `format`, told apart by `type`.
pub(super) static FORMAT: [&Section; 5] = [&JSON, &JSONL, &LINES, &CSV, &XML];

/// What stands around every text.
static AROUND: [Key; 2] = [
    key(
        "container",
        Choice(&[
            ("none", "the body is the text"),
            ("gzip", "RFC 1952, one member or several"),
            ("zstd", "RFC 8878, one frame or several"),
            ("zip", "an archive; the records of its files in their order, of those that are gzip too"),
        ]),
    )
    .default("none")
    .doc("A file format around the body, besides the content coding of HTTP, which is undone anyway.")
    .example("gzip"),
    key(
        "encoding",
        Choice(&[
            ("utf-8", "with or without a byte order mark"),
            ("latin1", "ISO 8859-1"),
            ("windows-1252", "ISO 8859-1 with letters in the place of control characters"),
            ("utf-16", "with a byte order mark, else little endian"),
        ]),
    )
    .default("utf-8")
    .doc("How text is written in bytes. A byte order mark wins over it, and so does an XML declaration over the default.")
    .example("latin1"),
];

/// For records that are members.
static NAMED: [Key; 1] = [key("key_as", Text)
    .doc(
        "The member that each record gets with its own name, where records are the members of an object: where \
         `records` has a `.*`, as it has without being given.",
    )
    .example("sku")];

static JSON: Section = Section::new(
    "format_json",
    "format",
    "One JSON text. Records are at `records`: `$[*]`, or `$.*` with `key_as`, if that is not given.",
    &[key("type", Word("json")).required().doc("JSON.")],
)
.shared(&[&AROUND, &NAMED])
.example("{ type: json, container: gzip }");

static JSONL: Section = Section::new(
    "format_jsonl",
    "format",
    "One JSON text a line, each a record; blank lines are passed over. There is no `records`.",
    &[key("type", Word("jsonl")).required().doc("JSON Lines.")],
)
.shared(&[&AROUND])
.example("{ type: jsonl, container: gzip }");

static LINES: Section = Section::new(
    "format_lines",
    "format",
    "Lines of text, each a record with the one member `record`; blank lines are passed over. There is no `records`.",
    &[key("type", Word("lines")).required().doc("Lines of text.")],
)
.shared(&[&AROUND])
.example("{ type: lines }");

static CSV: Section = Section::new(
    "format_csv",
    "format",
    "Rows of fields (RFC 4180), each a record of texts. A row with more or fewer fields than there are columns is \
     quarantined with all of them; a second column of one name is `name_2`, one without a name `column_3`. There is no \
     `records`.",
    &[
        key("type", Word("csv")).required().doc("Rows of fields."),
        key("delimiter", Matching("^[\\t -~]$", "one ASCII character"))
            .default("','")
            .doc("Between fields.")
            .example("';'")
            .more(&["\"\\t\""]),
        key("quote", Matching("^([!-~]|none)$", "one ASCII character, or none"))
            .default("'\"'")
            .doc("Around fields that hold delimiters, quotes or line ends; doubled within them.")
            .example("\"'\"")
            .more(&["none"]),
        key("columns", List(&Text))
            .doc("The names of the columns. Without it they stand in the first line that counts.")
            .example("[id, name, price]"),
        key("skip_lines", Integer(0, SKIP_LINES_MAX as u64))
            .default("0")
            .doc("Lines before the first that counts, in each file of an archive.")
            .example("2"),
        key("nulls", List(&AnyText))
            .default("['']")
            .doc("Fields that are null, in quotes or not.")
            .example("['', 'NULL']"),
    ],
)
.shared(&[&AROUND])
.example("{ type: csv, delimiter: ';' }");

static XML: Section = Section::new(
    "format_xml",
    "format",
    "XML as JSON: attributes are `@name`, text beside them `#text`, elements of one name side by side an array, an \
     element without anything null. In `records` every step stands for all elements of its name; without it every \
     child of the root is a record (`$.*.*`). Entities other than XML's own are refused.",
    &[
        key("type", Word("xml")).required().doc("XML."),
        key("lists", List(&Text))
            .doc("Names of elements that become an array even when there is only one.")
            .example("[tag, line]"),
    ],
)
.shared(&[&AROUND, &NAMED])
.example("{ type: xml, container: zip }");

type Read = fn(&Fields<'_>) -> Option<Syntax>;

/// `records`, of several paths
pub(super) static RECORDS: Section = Section::new(
    "records",
    "records",
    "Records that stand at several places of a response. Such a response is held in memory as a whole.",
    &[
        key("union", List(&Path))
            .doc("The records of every path: those of the first, then those of the second.")
            .example("['$.data.issues.nodes[*]', '$.data.pulls.nodes[*]']"),
        key("first_match", List(&Path))
            .doc("The records of the first path that has any.")
            .example("['$.data.boards[*].items_page.items[*]', '$.data.next_items_page.items[*]']"),
    ],
)
.rules(&[Rule::One(&["union", "first_match"])])
.example("{ union: ['$.issues[*]', '$.pulls[*]'] }");

/// Reads `format`: a kind alone, or a map of settings.
pub(super) fn format(value: Value<'_>) -> Option<Format> {
    if !matches!(value.node.kind, Kind::Map(_)) {
        let kinds = [("json", 0), ("jsonl", 1), ("lines", 2), ("csv", 3), ("xml", 4)];
        let syntax = match value.choice(&kinds, &[])? {
            0 => Syntax::Json,
            1 => Syntax::JsonLines,
            2 => Syntax::Lines,
            3 => Syntax::Csv(Csv::standard()),
            _ => Syntax::Xml(Xml::default()),
        };
        return Some(Format {
            syntax,
            ..Format::JSON
        });
    }
    let choices: [(&str, (&'static Section, Read)); 5] = [
        ("json", (&JSON, |_| Some(Syntax::Json))),
        ("jsonl", (&JSONL, |_| Some(Syntax::JsonLines))),
        ("lines", (&LINES, |_| Some(Syntax::Lines))),
        ("csv", (&CSV, |fields| csv(fields).map(Syntax::Csv))),
        ("xml", (&XML, |fields| xml(fields).map(Syntax::Xml))),
    ];
    let (section, read) = value.tag("type", &choices, &[])?;
    let fields = value.fields(section)?;
    let containers = [Container::Plain, Container::Gzip, Container::Zstd, Container::Zip];
    let containers = containers.map(|container| (container.as_str(), container));
    let encodings = [
        Encoding::Utf8,
        Encoding::Latin1,
        Encoding::Windows1252,
        Encoding::Utf16,
    ];
    let encodings = encodings.map(|encoding| (encoding.as_str(), encoding));
    let container = fields.optional("container", |value| value.choice(&containers, &[]));
    let encoding = fields.optional("encoding", |value| value.choice(&encodings, &[]));
    let named = section.known().any(|known| known == "key_as");
    let key_as = if named { fields.value("key_as") } else { None };
    Some(Format {
        container: container.unwrap_or(Container::Plain),
        encoding: encoding.unwrap_or(Encoding::Utf8),
        key_as: key_as.and_then(Value::text).map(str::to_owned),
        syntax: read(&fields)?,
    })
}

/// Reads `records` of a stream whose bodies are `format`.
pub(super) fn records(value: Option<Value<'_>>, format: &Format) -> Option<RecordPaths> {
    let Some(value) = value else {
        let path = JsonPath::parse(format.records_default()).ok()?;
        return Some(path.into());
    };
    if let Syntax::JsonLines | Syntax::Lines | Syntax::Csv(_) = format.syntax {
        let hint = "remove it: every line or row is a record";
        let what = format!("{} has no path to records", format.syntax.as_str());
        return value.refuse(what, Some(hint.to_owned()));
    }
    if !matches!(value.node.kind, Kind::Map(_)) {
        return record_path(value, format).map(RecordPaths::from);
    }
    let fields = value.fields(&RECORDS)?;
    let (several, value) = match (fields.value("union"), fields.value("first_match")) {
        (Some(value), None) => (Several::Union, value),
        (None, Some(value)) => (Several::FirstMatch, value),
        _ => return value.refuse("needs either union or first_match", None),
    };
    let paths: Vec<Option<JsonPath>> = value.items()?.map(|path| record_path(path, format)).collect();
    match RecordPaths::several(several, paths.into_iter().collect::<Option<Vec<JsonPath>>>()?) {
        Some(paths) => Some(paths),
        None => value.refuse("at least one path is needed", None),
    }
}

fn record_path(value: Value<'_>, format: &Format) -> Option<JsonPath> {
    let path = json_path(value)?;
    if format.key_as.is_some() && !path.segments().contains(&Segment::Members) {
        let hint = "write `.*` where the names are: $.data.*";
        return value.refuse("no member's name is known for key_as", Some(hint.to_owned()));
    }
    Some(path)
}

fn csv(fields: &Fields<'_>) -> Option<Csv> {
    let usual = Csv::standard();
    let delimiter = match fields.value("delimiter") {
        Some(value) => letter(value, |letter| matches!(letter, b'\t' | b' '..=b'~')),
        None => Some(usual.delimiter),
    };
    let quote = match fields.value("quote") {
        Some(value) if value.any_text()? == "none" => Some(None),
        Some(value) => letter(value, |letter| letter.is_ascii_graphic()).map(Some),
        None => Some(usual.quote),
    };
    let columns = fields.value("columns").map(columns);
    let skip_lines = fields.optional("skip_lines", |value| value.integer_u32(0..=SKIP_LINES_MAX));
    let nulls = match fields.value("nulls") {
        Some(value) => texts(value),
        None => Some(usual.nulls),
    };
    let (delimiter, quote) = (delimiter?, quote?);
    if quote == Some(delimiter) {
        return fields
            .owner()
            .refuse("delimiter and quote are the same character", None);
    }
    Some(Csv {
        delimiter,
        quote,
        columns: match columns {
            Some(columns) => Some(columns?),
            None => None,
        },
        skip_lines: skip_lines.unwrap_or(0),
        nulls: nulls?,
    })
}

fn columns(value: Value<'_>) -> Option<Vec<String>> {
    match value.text_list()? {
        columns if columns.is_empty() => value.refuse("at least one column is needed", None),
        columns => Some(columns),
    }
}

fn xml(fields: &Fields<'_>) -> Option<Xml> {
    let lists = match fields.value("lists") {
        Some(value) => value.text_list()?,
        None => Vec::new(),
    };
    Some(Xml { lists })
}

fn letter(value: Value<'_>, allowed: fn(&u8) -> bool) -> Option<u8> {
    match value.any_text()?.as_bytes() {
        [letter] if allowed(letter) => Some(*letter),
        _ => value.refuse("must be one ASCII character", None),
    }
}

/// A list of texts, which may be empty.
fn texts(value: Value<'_>) -> Option<Vec<String>> {
    let texts: Vec<Option<String>> = value
        .items()?
        .map(|item| item.any_text().map(str::to_owned))
        .collect();
    texts.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Stream, read::parse};

    fn read(lines: &str) -> Result<Stream, String> {
        let lines: String = lines.lines().map(|line| format!("        {line}\n")).collect();
        let text = format!(
            "lake: ./lake\nsources:\n  a:\n    base_url: http://localhost\n    streams:\n      b:\n\
             \x20       request: {{ path: /x }}\n        table: {{ keys: [id] }}\n{lines}"
        );
        match parse(&text, std::path::Path::new("/p")) {
            Ok(read) => Ok(read.project.sources[0].streams[0].clone()),
            Err(problems) => Err(problems.iter().map(|problem| format!("{problem}\n")).collect()),
        }
    }

    #[test]
    fn a_kind_alone_has_the_usual_settings() {
        let table = [
            ("", Syntax::Json, "$[*]"),
            ("format: json", Syntax::Json, "$[*]"),
            ("format: jsonl", Syntax::JsonLines, "$"),
            ("format: lines", Syntax::Lines, "$"),
            ("format: csv", Syntax::Csv(Csv::standard()), "$"),
            ("format: { type: csv }", Syntax::Csv(Csv::standard()), "$"),
            ("format: xml", Syntax::Xml(Xml::default()), "$.*.*"),
            (
                "format: xml\nrecords: $.r.i[*]",
                Syntax::Xml(Xml::default()),
                "$.r.i[*]",
            ),
        ];
        for (lines, syntax, records) in table {
            let stream = read(lines).unwrap();
            let expected = Format {
                syntax,
                ..Format::JSON
            };
            assert_eq!(stream.format, expected, "{lines}");
            assert_eq!(stream.records.to_string(), records, "{lines}");
        }
    }

    #[test]
    fn every_setting_is_read() {
        let csv = read(
            "format: { type: csv, container: zip, encoding: windows-1252, delimiter: \"\\t\", quote: none, columns: [a, b], \
             skip_lines: 3, nulls: ['NULL'] }",
        );
        let expected = Format {
            container: Container::Zip,
            encoding: Encoding::Windows1252,
            key_as: None,
            syntax: Syntax::Csv(Csv {
                delimiter: b'\t',
                quote: None,
                columns: Some(vec!["a".to_owned(), "b".to_owned()]),
                skip_lines: 3,
                nulls: vec!["NULL".to_owned()],
            }),
        };
        assert_eq!(csv.unwrap().format, expected);
        let keyed = read("format: { type: json, key_as: sku }").unwrap();
        assert_eq!(
            (keyed.format.key_as.as_deref(), keyed.records.to_string().as_str()),
            (Some("sku"), "$.*")
        );
        let xml = read("format: { type: xml, lists: [tag] }\nrecords: $.r.i").unwrap();
        assert_eq!(
            xml.format.syntax,
            Syntax::Xml(Xml {
                lists: vec!["tag".to_owned()]
            })
        );
    }

    #[test]
    fn what_cannot_be_is_refused() {
        insta::assert_snapshot!(read("format: csv\nrecords: $.data[*]").unwrap_err(), @"
        landfall.yml:10:18: records: csv has no path to records
          hint: remove it: every line or row is a record
        ");
        insta::assert_snapshot!(read("format: { type: json, key_as: sku }\nrecords: $.data[*]").unwrap_err(), @"
        landfall.yml:10:18: records: no member's name is known for key_as
          hint: write `.*` where the names are: $.data.*
        ");
        let wrong = "format: { type: csv, delimiter: ab, quote: '', columns: [], nulls: [1], skip_lines: -1, key_as: x }";
        insta::assert_snapshot!(read(wrong).unwrap_err(), @r#"
        landfall.yml:9:41: delimiter: must be one ASCII character
        landfall.yml:9:52: quote: must be one ASCII character
        landfall.yml:9:65: columns: at least one column is needed
        landfall.yml:9:77: nulls: expected text, found a whole number
          hint: put it in quotes
        landfall.yml:9:93: skip_lines: -1 is not between 0 and 1000000
        landfall.yml:9:97: unknown key "key_as"
          hint: known keys: type, delimiter, quote, columns, skip_lines, nulls, container, encoding
        "#);
        insta::assert_snapshot!(read("format: { type: csv, delimiter: \"'\", quote: \"'\" }").unwrap_err(), @"landfall.yml:9:17: format: delimiter and quote are the same character");
        insta::assert_snapshot!(read("format: { type: jsonl, lists: [a] }").unwrap_err(), @r#"
        landfall.yml:9:32: unknown key "lists"
          hint: known keys: type, container, encoding
        "#);
        insta::assert_snapshot!(read("records: { union: [], first_match: ['$[*]'] }").unwrap_err(), @"landfall.yml:9:18: records: needs either union or first_match");
        insta::assert_snapshot!(read("records: { union: [] }").unwrap_err(), @"landfall.yml:9:27: union: at least one path is needed");
        insta::assert_snapshot!(read("records: { union: [a, 7] }").unwrap_err(), @r#"
        landfall.yml:9:28: union: "a" is not a JSONPath: it must start with `$`
          hint: write a JSONPath such as $.data[*]
        landfall.yml:9:31: union: expected text, found a whole number
          hint: put it in quotes
        "#);
        insta::assert_snapshot!(read("records: { union: ['$.a[*]', '$.b[*]'] }\npaginate: { type: offset, param: at }").unwrap_err(), @"
        landfall.yml:10:19: paginate: the records of several lists are no position in one
          hint: make each list a stream of its own
        ");
        insta::assert_snapshot!(read("format: yaml").unwrap_err(), @r#"
        landfall.yml:9:17: format: "yaml" is not allowed
          hint: allowed: json, jsonl, lines, csv, xml
        "#);
    }
}
