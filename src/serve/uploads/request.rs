//! What announces a file: `{"sha256", "bytes", "content_type", "content_encoding", "url"}`.

use serde_json::{Map, Value};

use crate::{
    receive::uploads::job::Packed,
    serve::{
        check::Form,
        problem::{Fault, Problem, code::Code},
    },
};

/// A file as it is announced.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// SHA-256 of its bytes, lowercase hex.
    pub(super) sha256: String,
    /// How many there are.
    pub(super) bytes: u64,
    /// How it is packed.
    pub(super) packed: Packed,
    /// Where it is fetched from; none if it is sent.
    pub(super) url: Option<String>,
}

const KNOWN: [&str; 5] = ["sha256", "bytes", "content_type", "content_encoding", "url"];

/// Reads an announcement.
///
/// # Errors
/// `body_malformed`, `invalid_request`, `unsupported_media_type`, `unsupported_encoding`; each with its place.
pub(super) fn read(body: &[u8]) -> Result<Wanted, Problem> {
    let members: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|_| wrong(Code::BodyMalformed, "", "one JSON object announces a file"))?;
    if let Some(name) = members.keys().find(|name| !KNOWN.contains(&name.as_str())) {
        let place = name.replace('~', "~0").replace('/', "~1");
        return Err(wrong(
            Code::InvalidRequest,
            &place,
            "nothing is known of this member",
        ));
    }
    let text = |name: &str, is: &'static str| match members.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(wrong(Code::InvalidRequest, name, is)),
    };
    const CHECKSUM: &str = "the SHA-256 of the file as it is sent, in 64 hexadecimal digits";
    let sha256 = text("sha256", CHECKSUM)?
        .filter(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
        .ok_or_else(|| wrong(Code::InvalidRequest, "sha256", CHECKSUM))?;
    let bytes = members.get("bytes").and_then(integer).filter(|bytes| *bytes > 0);
    let bytes = bytes.ok_or_else(|| {
        wrong(
            Code::InvalidRequest,
            "bytes",
            "the size of the file as it is sent, in bytes",
        )
    })?;
    const LINES: &str = "a file has one JSON object a line: application/x-ndjson";
    let media = text("content_type", LINES)?;
    if media.is_some_and(|media| !matches!(Form::of(Some(media)), Ok(Form::Lines))) {
        return Err(wrong(Code::UnsupportedMediaType, "content_type", LINES));
    }
    const PACKED: &str = "a file is packed with gzip or zstd, or not at all";
    let packed = match text("content_encoding", PACKED)? {
        None => Packed::Not,
        Some("gzip") => Packed::Gzip,
        Some("zstd") => Packed::Zstd,
        Some(_) => return Err(wrong(Code::UnsupportedEncoding, "content_encoding", PACKED)),
    };
    Ok(Wanted {
        sha256: sha256.to_ascii_lowercase(),
        bytes,
        packed,
        url: text("url", "an address, in text")?.map(str::to_owned),
    })
}

/// A whole number that every reader of JSON has exactly (RFC 8259, section 6), also if it is written as `7.0`.
fn integer(value: &Value) -> Option<u64> {
    const EXACT_MAX: u64 = (1 << 53) - 1;
    let whole = value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        let is_whole = number.fract() == 0.0 && (0.0..=EXACT_MAX as f64).contains(&number);
        is_whole.then_some(number as u64)
    });
    whole.filter(|whole| *whole <= EXACT_MAX)
}

fn wrong(code: Code, member: &str, detail: &'static str) -> Problem {
    let pointer = if member.is_empty() {
        "#".to_owned()
    } else {
        format!("#/{member}")
    };
    Problem::new(code, detail).at(Fault {
        pointer,
        detail: detail.to_owned(),
        code: None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_announced_as_it_should_be_is_named() {
        let sum = "Ab".repeat(32);
        let whole = json!({"sha256": sum, "bytes": 7, "content_type": "application/jsonl", "content_encoding": "zstd"});
        let wanted = read(whole.to_string().as_bytes()).unwrap();
        assert_eq!((wanted.sha256, wanted.bytes), ("ab".repeat(32), 7));
        assert_eq!((wanted.packed, wanted.url), (Packed::Zstd, None));
        let mut same = whole.clone();
        same["bytes"] = json!(7.0);
        assert_eq!(read(same.to_string().as_bytes()).unwrap().bytes, 7);
        for (member, value, code) in [
            ("sha256", json!("ab"), Code::InvalidRequest),
            ("sha256", json!(null), Code::InvalidRequest),
            ("bytes", json!(0), Code::InvalidRequest),
            ("bytes", json!("7"), Code::InvalidRequest),
            ("bytes", json!(-1), Code::InvalidRequest),
            ("bytes", json!(7.5), Code::InvalidRequest),
            ("bytes", json!(1_u64 << 53), Code::InvalidRequest),
            ("bytes", json!(1e300), Code::InvalidRequest),
            (
                "content_type",
                json!("application/json"),
                Code::UnsupportedMediaType,
            ),
            ("content_type", json!(1), Code::InvalidRequest),
            ("content_encoding", json!("br"), Code::UnsupportedEncoding),
            ("content_encoding", json!(null), Code::InvalidRequest),
            ("url", json!(["s3://b/x"]), Code::InvalidRequest),
            ("size", json!(7), Code::InvalidRequest),
        ] {
            let mut body = whole.clone();
            body[member] = value;
            let problem = read(body.to_string().as_bytes()).unwrap_err();
            assert_eq!(problem.code(), code, "{body}");
        }
        assert_eq!(read(b"[]").unwrap_err().code(), Code::BodyMalformed);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert!(read(&body).is_err());
        }
    }
}
