//! Files that records point to.

use std::path::Path as FilePath;

use crate::{
    config::{
        files::Files,
        read::{
            job::{HOST, hosts},
            request::{FILE_REQUEST, file_request},
            values::{expr, json_path, size},
        },
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Section,
            Takes::{self, Expression, Integer, List, Matching, Path, Size},
            key,
        },
    },
};

/// Most bytes of one file.
const BYTES_MAX: u64 = 5 << 40;

/// Most files at once.
const AT_ONCE_MAX: u32 = 64;

/// Longest name of a column.
const COLUMN_BYTES_MAX: usize = 63;

/// `files`
pub(super) static FILES: Section = Section::new(
    "files",
    "files",
    "Files that records point to: streamed into the lake beside the pages, each content once, and told in the row as \
     `path`, `bytes`, `sha256`, `content_type` and `content_encoding`, or as `error` if there is none. A file that cannot \
     be had does not keep its record back.",
    &[
        key("url", Path)
            .required()
            .doc("The URL within a record; a record without one has no file.")
            .example("$.file_url"),
        key("request", Takes::Section(&FILE_REQUEST)).doc(
            "Asks the source for the file, where a plain GET of the URL does not: `file.url` is what `url` finds in the \
             record, which may be an id or a number then.",
        ),
        key("target", Path)
            .doc("Where the answer to `request` holds the URL of the file; without it that answer is the file.")
            .example("$.download_url")
            .beside("{ request: { path: '/files/{{ file.url }}' } }"),
        key("checksum", Path)
            .doc("The SHA-256 or MD5 of the file within a record, in hex or base64. A file that does not have it is not kept.")
            .example("$.sha256"),
        key("only", Expression)
            .doc("Only for records for which this holds, over `record` and `config`.")
            .example("record.kind == 'invoice'"),
        key("bytes_max", Size)
            .default("1GiB")
            .doc("A larger file is not kept.")
            .example("50MiB"),
        key("column", Matching("^[A-Za-z_][A-Za-z0-9_]{0,62}$", "a name of letters, digits and _"))
            .default("_file")
            .doc("The member that each record with a file gets.")
            .example("attachment"),
        key("hosts", List(&HOST))
            .default("[]")
            .doc("Hosts that files may be fetched from besides the source's own, without credentials.")
            .example("[files.shop.example, '*.s3.amazonaws.com']"),
        key("at_once", Integer(1, AT_ONCE_MAX as u64))
            .default("4")
            .doc("Files of one page that are fetched at the same time.")
            .example("8"),
    ],
)
.example("{ url: $.file_url }");

/// Reads `files`.
pub(super) fn files(value: Value<'_>, dir: &FilePath) -> Option<Files> {
    let fields = value.fields(&FILES)?;
    check_target(&fields);
    let url = fields.required("url", json_path);
    Some(Files {
        request: fields.optional("request", |value| file_request(value, dir)),
        target: fields.optional("target", json_path),
        checksum: fields.optional("checksum", json_path),
        only: fields.optional("only", |value| expr(value, &["record", "config"])),
        bytes_max: fields
            .optional("bytes_max", |value| size(value, 1..=BYTES_MAX))
            .unwrap_or(Files::BYTES_MAX_DEFAULT),
        column: fields
            .optional("column", column)
            .unwrap_or_else(|| Files::COLUMN_DEFAULT.to_owned()),
        hosts: fields.optional("hosts", hosts).unwrap_or_default(),
        at_once: fields
            .optional("at_once", |value| value.integer_u32(1..=AT_ONCE_MAX))
            .unwrap_or(Files::AT_ONCE_DEFAULT),
        url: url?,
    })
}

fn check_target(fields: &Fields<'_>) {
    if let (Some(target), None) = (fields.value("target"), fields.value("request")) {
        let hint = "add request: it says whose answer is meant".to_owned();
        target
            .problems
            .add(target.key_place, "target: nothing is asked", Some(hint));
    }
}

fn column(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let begins = text.bytes().next().is_some_and(|byte| !byte.is_ascii_digit());
    if begins && text.len() <= COLUMN_BYTES_MAX && text.bytes().all(letter) {
        return Some(text.to_owned());
    }
    value.refuse(format!("{} is not the name of a column", quoted(text)), None)
}
