//! Values shown beside a change: short, few, and without what is nobody's business.

/// Most values kept of one path for each way in which they differ.
pub const SAMPLES_MAX: usize = 3;

/// Longest value shown, in characters.
pub const SAMPLE_CHARS_MAX: usize = 60;

/// Stands for a value that is not shown.
pub const MASK: &str = "****";

/// Shortest text without spaces that may be a secret by its letters alone, in bytes.
const TOKEN_BYTES_MIN: usize = 24;

/// Digits of the numbers of payment cards.
const CARD_DIGITS: std::ops::RangeInclusive<usize> = 13..=19;

/// What secrets of well-known services begin with.
const SECRET_BEGINNINGS: [&str; 22] = [
    "sk_",
    "pk_",
    "rk_",
    "sk-",
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xox",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
    "SG.",
    "npm_",
    "shpat_",
    "whsec_",
    "-----BEGIN",
    "Bearer ",
    "Basic ",
];

/// What the name of a member has in it that holds a secret, lowercase and without separators.
const SECRET_NAMES: [&str; 13] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "authorization",
    "credential",
    "cookie",
    "signature",
    "ssn",
];

/// Where a record is in raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of the raw batch.
    pub batch: i64,
    /// Page within the batch.
    pub page: i32,
    /// Record within the page.
    pub record: i32,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.batch, self.page, self.record)
    }
}

/// A value that a change was seen with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its record, if that is known.
    pub at: Option<Place>,
    /// The value as JSON text, or of a rule the values that it looked at; cut or masked, and empty if it is about absence.
    pub value: String,
}

/// In which way a sampled value differs from what the contract says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aspect {
    Unknown,
    Coerced,
    Mismatched,
    OutOfRange,
    RuleBroken,
    NotAllowed,
    /// A required member that is not there.
    Absent,
    /// Null where a value is required.
    Null,
}

/// A sampled value as it was written, with its record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    pub(crate) aspect: Aspect,
    /// Number of the record among those observed, from 0.
    pub(crate) row: u64,
    pub(crate) at: Option<Place>,
    pub(crate) value: String,
}

/// A well-formed JSON value, cut. What is in objects and arrays has samples of its own.
pub(crate) fn cut(value: &str) -> String {
    match value.as_bytes().first() {
        Some(b'{') => "{…}".to_owned(),
        Some(b'[') => "[…]".to_owned(),
        _ => match value.char_indices().nth(SAMPLE_CHARS_MAX) {
            None => value.to_owned(),
            Some((end, _)) => format!("{}…", &value[..end]),
        },
    }
}

/// `value` as it may be shown, at a path whose last member is `name`.
pub(crate) fn shown(name: &str, value: &str) -> String {
    if is_secret_name(name) || is_private(value.trim_matches('"')) {
        return MASK.to_owned();
    }
    match value.split_once("://") {
        // What follows a question mark may open a door.
        Some((_, rest)) if rest.contains('?') => {
            let end = value.find('?').unwrap_or(value.len());
            format!("{}?…", &value[..end])
        }
        _ => value.to_owned(),
    }
}

fn is_secret_name(name: &str) -> bool {
    let name: String = name
        .chars()
        .filter(|letter| letter.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    SECRET_NAMES.iter().any(|secret| name.contains(secret))
}

fn is_private(text: &str) -> bool {
    SECRET_BEGINNINGS.iter().any(|begin| text.starts_with(begin))
        || has_address(text)
        || is_token(text)
        || is_card(text)
}

/// Whether text has an e-mail address in it, or a user name before a host.
fn has_address(text: &str) -> bool {
    text.match_indices('@').any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + 1..]
            .split([' ', ',', ';', '>', '"'])
            .next()
            .unwrap_or("");
        before.is_some_and(|letter| letter.is_alphanumeric() || "._-+".contains(letter))
            && after.len() > 2
            && (after.contains('.') || after.ends_with('…'))
    })
}

/// Long, without spaces, and of letters of every sort as only chance writes them; or long and hexadecimal.
fn is_token(text: &str) -> bool {
    let text = text.trim_end_matches('…');
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"+/_=-.".contains(&byte);
    if text.len() < TOKEN_BYTES_MIN || !text.bytes().all(is_word) || is_uuid(text) {
        return false;
    }
    let some = |of: fn(&u8) -> bool| text.as_bytes().iter().any(of);
    let mixed = some(u8::is_ascii_uppercase) && some(u8::is_ascii_lowercase) && some(u8::is_ascii_digit);
    let is_hex = text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    // A moment with an offset has capitals and digits, and no small letters.
    mixed || is_hex
}

/// Whether text is a UUID in its usual form.
pub(crate) fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// Whether text is the number of a payment card, by its check digit.
fn is_card(text: &str) -> bool {
    if !text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b' ' || byte == b'-')
    {
        return false;
    }
    let digits: Vec<u8> = text
        .bytes()
        .filter(u8::is_ascii_digit)
        .map(|byte| byte - b'0')
        .collect();
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, &digit)| match (at % 2, u32::from(digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    CARD_DIGITS.contains(&digits.len()) && sum.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r165_f153_what_looks_private_is_not_shown() {
        for (name, value) in [
            ("email", r#""jane.doe@example.com""#),
            ("note", r#""write to jane@example.com today""#),
            ("x", r#""sk_live_4eC39HqLyjWDarjtT1zdp7dc""#),
            ("x", r#""eyJhbGciOiJIUzI1NiJ9.e30.abc""#),
            ("x", r#""Zm9vYmFyMTIzNDU2Nzg5MGFiY0RFRg==""#),
            ("x", r#""5f4dcc3b5aa765d61d8327deb882cf99""#),
            ("card", r#""4111 1111 1111 1111""#),
            ("user_password", r#""hunter2""#),
            ("API-Key", "17"),
            ("link", r#""https://user:pass@example.com/""#),
        ] {
            assert_eq!(shown(name, value), MASK, "{name} {value}");
        }
        assert_eq!(
            shown("link", r#""https://a.example/b?sig=1""#),
            r#""https://a.example/b?…"#
        );
    }

    #[test]
    fn what_is_harmless_is_shown() {
        for (name, value) in [
            ("id", "42"),
            ("at", r#""2026-01-01T00:00:00.000000+00:00""#),
            ("status", r#""partially_refunded_by_customer_service""#),
            ("id", r#""6b1c6f1e-8f8e-7a0c-9c6e-0123456789ab""#),
            ("link", r#""https://example.com/a""#),
            ("handle", r#""@octocat""#),
        ] {
            assert_eq!(shown(name, value), value, "{name} {value}");
        }
    }

    #[test]
    fn a_value_is_cut_to_its_length() {
        assert_eq!(cut(r#"{"a":1}"#), "{…}");
        assert_eq!(
            cut(&format!("\"{}\"", "ä".repeat(100))).chars().count(),
            SAMPLE_CHARS_MAX + 1
        );
    }
}
