//! One text for each JSON value, however it was written.

use sha2::{Digest as _, Sha256};

use super::{
    Defect,
    scan::{Scanner, StringToken},
    unescape,
};

/// SHA-256 of the canonical text of `json`, in lowercase hex; of the bytes as they are if they are no JSON.
///
/// The canonical text is that of RFC 8785: no blanks, members in the order of their names in UTF-16, texts with the
/// fewest escapes, numbers as ECMAScript writes them. Only what RFC 8785 would round has a text of its own, its digits,
/// or two records that differ would be one: a whole number that no double holds, and a fraction that is not how a double
/// is written, shortest or in 17 digits.
///
/// ```
/// use landfall::json::canonical::sha256;
/// assert_eq!(sha256(br#"{"a": 1.0, "b": "\u0041"}"#), sha256(br#"{"b":"A","a":1e0}"#));
/// assert_ne!(sha256(b"9007199254740992"), sha256(b"9007199254740993"));
/// ```
pub fn sha256(json: &[u8]) -> String {
    let mut text = Vec::with_capacity(json.len());
    let digest = match canonical(json, &mut text) {
        Ok(()) => Sha256::digest(&text),
        Err(_) => Sha256::digest(json),
    };
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn canonical(json: &[u8], out: &mut Vec<u8>) -> Result<(), Defect> {
    let mut scanner = Scanner::new(json);
    scanner.blank();
    value(&mut scanner, out)?;
    scanner.end()
}

/// Writes the value that stands here. It calls itself at most [`DEPTH_MAX`](super::DEPTH_MAX) times: the scanner enters
/// nothing deeper.
fn value(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Result<(), Defect> {
    match scanner.peek() {
        b'{' => object(scanner, out),
        b'[' => {
            scanner.enter()?;
            out.push(b'[');
            let mut first = true;
            while scanner.next_element(first)? {
                if !first {
                    out.push(b',');
                }
                first = false;
                value(scanner, out)?;
            }
            out.push(b']');
            Ok(())
        }
        b'"' => {
            let token = scanner.string()?;
            let decoded = decoded(scanner, token)?;
            text(&decoded, out);
            Ok(())
        }
        b'-' | b'0'..=b'9' => {
            let token = scanner.number()?;
            let written = &scanner.bytes()[token.start..token.end];
            out.extend(number(&String::from_utf8_lossy(written)).bytes());
            Ok(())
        }
        _ => {
            let word = scanner.skip()?;
            out.extend(&scanner.bytes()[word]);
            Ok(())
        }
    }
}

fn object(scanner: &mut Scanner<'_>, out: &mut Vec<u8>) -> Result<(), Defect> {
    scanner.enter()?;
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    while let Some(token) = scanner.next_member(members.is_empty())? {
        let name = decoded(scanner, token)?;
        let mut written = Vec::new();
        value(scanner, &mut written)?;
        members.push((name, written));
    }
    members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
    out.push(b'{');
    for (at, (name, written)) in members.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        text(name, out);
        out.push(b':');
        out.extend(written);
    }
    out.push(b'}');
    Ok(())
}

fn decoded(scanner: &Scanner<'_>, token: StringToken) -> Result<String, Defect> {
    let defect = Defect::Syntax { offset: token.start };
    let inner = &scanner.bytes()[token.start..token.end];
    let inner = str::from_utf8(inner).map_err(|_| Defect::NotUtf8 { offset: token.start })?;
    let mut text = String::with_capacity(inner.len());
    unescape(inner, &mut text).then_some(text).ok_or(defect)
}

fn text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for byte in text.bytes() {
        match byte {
            b'"' => out.extend(br#"\""#),
            b'\\' => out.extend(br"\\"),
            0x08 => out.extend(br"\b"),
            0x09 => out.extend(br"\t"),
            0x0a => out.extend(br"\n"),
            0x0c => out.extend(br"\f"),
            0x0d => out.extend(br"\r"),
            0x00..0x20 => out.extend(format!("\\u{byte:04x}").bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A number as ECMAScript writes it, if that is the same number, or if both are fractions and this is how a double is written
/// in the 17 digits that tell all doubles apart; else its digits.
fn number(written: &str) -> String {
    let Some(exact) = Exact::read(written) else {
        // Its exponent is beyond counting: it is equal to what is written the same.
        return written.to_lowercase();
    };
    let double = written.parse::<f64>().ok().filter(|double| double.is_finite());
    let text = double.map(ecmascript);
    let same = text.filter(|text| {
        Exact::read(text).is_some_and(|read| {
            let fractions = exact.exponent < 0 && read.exponent < 0;
            let in_17_digits = || double.and_then(|double| Exact::read(&format!("{double:.16e}")));
            read == exact || (fractions && in_17_digits().as_ref() == Some(&exact))
        })
    });
    same.unwrap_or_else(|| exact.to_text())
}

/// A number as its digits without zeros at either end, times a power of ten. Zero has no digits.
#[derive(Debug, PartialEq, Eq)]
struct Exact {
    negative: bool,
    digits: String,
    exponent: i64,
}

impl Exact {
    fn read(number: &str) -> Option<Self> {
        let unsigned = number.strip_prefix('-');
        let (mantissa, power) = match unsigned.unwrap_or(number).split_once(['e', 'E']) {
            Some((mantissa, power)) => (mantissa, power.parse::<i64>().ok()?),
            None => (unsigned.unwrap_or(number), 0),
        };
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0').trim_end_matches('0');
        let zeros = all.len() - all.trim_end_matches('0').len();
        if digits.is_empty() {
            return Some(Self {
                negative: false,
                digits: String::new(),
                exponent: 0,
            });
        }
        let shift = i64::try_from(zeros).ok()? - i64::try_from(fraction.len()).ok()?;
        Some(Self {
            negative: unsigned.is_some(),
            digits: digits.to_owned(),
            exponent: power.checked_add(shift)?,
        })
    }

    fn to_text(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        match self.exponent {
            0 => format!("{sign}{}", self.digits),
            exponent => format!("{sign}{}e{exponent}", self.digits),
        }
    }
}

/// The text of `Number.prototype.toString`.
fn ecmascript(double: f64) -> String {
    if double == 0.0 {
        return "0".to_owned();
    }
    let scientific = format!("{:e}", double.abs());
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let digits = mantissa.replace('.', "");
    // The point stands behind so many of the digits.
    let point = power.parse::<i32>().unwrap_or_default() + 1;
    let count = i32::try_from(digits.len()).unwrap_or(i32::MAX);
    let zeros = |count: i32| "0".repeat(usize::try_from(count).unwrap_or_default());
    let sign = if double < 0.0 { "-" } else { "" };
    let text = if (1..=21).contains(&point) {
        match digits.split_at_checked(usize::try_from(point).unwrap_or_default()) {
            Some((whole, fraction)) if !fraction.is_empty() => format!("{whole}.{fraction}"),
            _ => format!("{digits}{}", zeros(point - count)),
        }
    } else if (-5..=0).contains(&point) {
        format!("0.{}{digits}", zeros(-point))
    } else {
        let (first, rest) = digits.split_at(1);
        let point_and_rest = if rest.is_empty() {
            String::new()
        } else {
            format!(".{rest}")
        };
        format!(
            "{first}{point_and_rest}e{}{}",
            if point > 0 { "+" } else { "-" },
            (point - 1).abs()
        )
    };
    format!("{sign}{text}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn written(json: &str) -> String {
        let mut out = Vec::new();
        canonical(json.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    /// From the RFC, but for the first number, which it rounds; and what it leaves out.
    #[test]
    fn f144_a_value_has_one_text() {
        let cases = [
            (r#"{ "b" : [ ] , "a" : { } }"#, r#"{"a":{},"b":[]}"#),
            (
                "[56, {\"d\": true, \"10\": null, \"1\": [ ]}]",
                r#"[56,{"1":[],"10":null,"d":true}]"#,
            ),
            (
                "[333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001]",
                "[33333333333333329e-8,1e+30,4.5,0.002,1e-27]",
            ),
            (
                r#""\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/""#,
                "\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"",
            ),
            // UTF-16: the surrogates of the face stand before the ligature.
            (
                r#"{"\ufb33": 1, "\ud83d\ude00": 2, "\u20ac": 3}"#,
                "{\"€\":3,\"😀\":2,\"\u{fb33}\":1}",
            ),
            (
                "[-0, 0.0, -0e5, 1e21, 1e20, 123456789012345680000, 1e-6, 1e-7]",
                "[0,0,0,1e+21,100000000000000000000,123456789012345680000,0.000001,1e-7]",
            ),
            (
                "[9007199254740993, 90071992547409930e-1, 1.7976931348623159e308]",
                "[9007199254740993,9007199254740993,17976931348623159e292]",
            ),
            (
                "[0.1, 0.10000000000000001, 0.10000000000000000001, 1e400, 10E399, 9007199254740992.5, 1e-400]",
                "[0.1,0.1,10000000000000000001e-20,1e400,1e400,90071992547409925e-1,1e-400]",
            ),
        ];
        for (json, expected) in cases {
            assert_eq!(written(json), expected, "{json}");
        }
        // Golden: the same in every process and in every version.
        assert_eq!(
            sha256(br#"{"id": 1.0, "name": "caf\u00e9", "tags": []}"#),
            sha256("{\"id\":1,\"name\":\"café\",\"tags\":[]}".as_bytes())
        );
        assert_eq!(
            sha256(b"{}"),
            "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
        assert_ne!(sha256(b"{\"a\":"), sha256(b"{\"b\":"));
        // One double, and two records all the same.
        assert_ne!(written("1714564800.1234567"), written("1714564800.1234568"));
        assert_ne!(written("1234567890123456.7"), written("1234567890123456.8"));
    }

    fn json() -> impl Strategy<Value = Value> {
        let number = prop_oneof![
            any::<i64>().prop_map(Value::from),
            any::<f64>()
                .prop_filter("no number", |double| double.is_finite())
                .prop_map(Value::from),
            (-1000_i32..1000, 0_u32..4)
                .prop_map(|(whole, shift)| Value::from(f64::from(whole) / f64::from(10_i32.pow(shift)))),
        ];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            number,
            any::<String>().prop_map(Value::from)
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec(("[a-c]?\\PC{0,2}", inner), 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    /// The same value in another spelling: other order, blanks, escapes and numbers.
    fn respelled(value: &Value, seed: u64) -> String {
        let turn = seed % 3;
        match value {
            Value::Number(number) => {
                let exact = Exact::read(&number.to_string()).unwrap();
                let sign = if exact.negative { "-" } else { "" };
                match turn {
                    0 => number.to_string(),
                    _ if exact.digits.is_empty() => "-0.000e7".to_owned(),
                    1 => format!("{sign}{}00E{}", exact.digits, exact.exponent - 2),
                    _ => format!(
                        "{sign}0.0{}e+{}",
                        exact.digits,
                        exact.exponent + 1 + exact.digits.len() as i64
                    )
                    .replace("e+-", "e-"),
                }
            }
            Value::String(text) if turn > 0 => {
                let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04X}")).collect();
                format!("\"{units}\"")
            }
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(|item| respelled(item, seed / 3 + 1)).collect();
                format!("[ {} ]", items.join(" ,\n"))
            }
            Value::Object(members) => {
                let mut members: Vec<String> = members
                    .iter()
                    .map(|(name, value)| {
                        format!(
                            "{}: {}",
                            Value::from(name.as_str()),
                            respelled(value, seed / 3 + 2)
                        )
                    })
                    .collect();
                members.reverse();
                format!("{{\t{}}}", members.join(","))
            }
            other => other.to_string(),
        }
    }

    proptest! {
        #[test]
        fn f144_whatever_the_spelling_the_text_is_the_same(value in json(), seed in any::<u64>()) {
            let usual = written(&value.to_string());
            prop_assert_eq!(&written(&respelled(&value, seed)), &usual);
            prop_assert_eq!(&written(&usual), &usual);
        }

        #[test]
        fn f144_other_numbers_have_other_texts(a in any::<i64>(), b in any::<i64>(), x in -1e300..1e300_f64, y in -1e9..1e9_f64) {
            prop_assert_eq!(number(&a.to_string()) == number(&b.to_string()), a == b);
            prop_assert_ne!(number(&a.to_string()), number(&a.wrapping_add(1).to_string()));
            prop_assert_eq!(ecmascript(x) == ecmascript(y), x == y);
        }

        #[test]
        fn no_bytes_make_the_hash_panic(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            prop_assert_eq!(sha256(&bytes).len(), 64);
        }
    }
}
