//! Bodies that producers push as records: they say themselves how the records stand in them.

use bytes::Bytes;

use crate::{
    config::{
        format::{Format, Syntax},
        records::RecordPaths,
    },
    format::{Defect, Found, Limits, Piece, records},
    json::JsonPath,
};

/// Whether `media` is one of the names of JSON Lines.
pub fn is_lines(media: &str) -> bool {
    let name = media.split(';').next().unwrap_or_default().trim();
    let Some((kind, subtype)) = name.split_once('/') else {
        return false;
    };
    if !kind.eq_ignore_ascii_case("application") {
        return false;
    }
    ["ndjson", "x-ndjson", "jsonl", "x-jsonl", "jsonlines"]
        .iter()
        .any(|known| subtype.eq_ignore_ascii_case(known))
}

/// Calls `visit` with every record of `body`, whose content type is `media`: the lines of JSON Lines, the elements of an
/// array, or one object.
///
/// # Errors
/// As [`records`].
///
/// ```
/// use landfall::format::{Limits, pushed};
/// let body = bytes::Bytes::from_static(b"[{\"id\":1},{\"id\":2}]");
/// let mut count = 0;
/// pushed::read(Some("application/json"), &body, &Limits::DEFAULT, &mut |_| count += 1).unwrap();
/// assert_eq!(count, 2);
/// ```
pub fn read(
    media: Option<&str>,
    body: &Bytes,
    limits: &Limits,
    visit: &mut dyn FnMut(Piece<'_>),
) -> Result<Found, Defect> {
    let lines = media.is_some_and(is_lines);
    let syntax = if lines { Syntax::JsonLines } else { Syntax::Json };
    let format = Format {
        syntax,
        ..Format::JSON
    };
    let is_array = body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    let paths: RecordPaths = match JsonPath::parse("$[*]") {
        Ok(elements) if is_array && !lines => elements.into(),
        _ => JsonPath::ROOT.into(),
    };
    records(&format, &paths, body, limits, visit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(media: &str, body: &'static str) -> Vec<String> {
        let body = Bytes::from_static(body.as_bytes());
        let mut found = Vec::new();
        let visit = &mut |piece: Piece<'_>| {
            found.push(String::from_utf8(piece.bytes(&body).to_vec()).unwrap());
        };
        read(Some(media), &body, &Limits::DEFAULT, visit).unwrap();
        found
    }

    #[test]
    fn r081_a_body_is_read_as_its_sender_says() {
        let json = "application/json; charset=utf-8";
        assert_eq!(found(json, " {\"id\": 1} "), ["{\"id\": 1}"]);
        assert_eq!(
            found(json, "\n[{\"id\":1}, {\"id\":2}]"),
            ["{\"id\":1}", "{\"id\":2}"]
        );
        assert_eq!(found(json, "[]"), [""; 0]);
        for media in ["application/x-ndjson", "Application/JSONL; charset=utf-8"] {
            assert_eq!(
                found(media, "{\"id\":1}\n[2]\nnot json\n"),
                ["{\"id\":1}", "[2]", "not json"]
            );
        }
    }
}
