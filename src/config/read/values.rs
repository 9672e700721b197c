//! Durations, sizes, paths, header names and secrets.

use std::{
    ops::RangeInclusive,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use crate::{
    config::{
        secret::Secret,
        text::{Expr, Text},
    },
    json::JsonPath,
    yaml::{fields::Value, quoted},
};

/// The longest duration any setting takes: ten years. Keeps every sum of durations in range.
pub const DURATION_MAX: Duration = Duration::from_secs(3653 * 24 * 3600);

/// Headers that belong to the transport; setting one would break decoding or framing.
const HEADERS_OURS: [&str; 6] = [
    "accept-encoding",
    "connection",
    "content-length",
    "te",
    "trailer",
    "transfer-encoding",
];

/// Longer JSON paths are not repeated in messages, in bytes.
const PATH_SHOWN_MAX: usize = 200;

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads `500ms`, `30s`, `5m`, `1h`, `7d`.
///
/// ```
/// use std::time::Duration;
/// use landfall::config::read::values::parse_duration;
/// assert_eq!(parse_duration("5m"), Some(Duration::from_secs(300)));
/// assert_eq!(parse_duration("5"), None);
/// ```
pub fn parse_duration(text: &str) -> Option<Duration> {
    let millis = with_unit(text, &DURATION_UNITS)?;
    Some(Duration::from_millis(millis)).filter(|duration| *duration <= DURATION_MAX)
}

/// Reads `16MiB`, `1GB`, and plain digits as bytes.
///
/// ```
/// use landfall::config::read::values::parse_size;
/// assert_eq!(parse_size("16MiB"), Some(16 * 1024 * 1024));
/// assert_eq!(parse_size("1.5GB"), None);
/// ```
pub fn parse_size(text: &str) -> Option<u64> {
    with_unit(text, &SIZE_UNITS).or_else(|| with_unit(text, &[("", 1)]))
}

/// A duration as the file would write it: a whole number of the largest unit that is exact.
pub fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let fits = |unit: u64| millis.is_multiple_of(u128::from(unit));
    match DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, unit)| millis > 0 && fits(*unit))
    {
        Some((name, unit)) => format!("{}{name}", millis / u128::from(*unit)),
        None => "0s".to_owned(),
    }
}

/// A size as the file would write it.
pub fn show_size(bytes: u64) -> String {
    let exact = SIZE_UNITS[5..]
        .iter()
        .rev()
        .find(|(_, unit)| bytes > 0 && bytes.is_multiple_of(*unit));
    match exact {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// A duration within `bounds`.
pub(super) fn duration(value: Value<'_>, bounds: RangeInclusive<Duration>) -> Option<Duration> {
    const HINT: &str = "write a whole number and one of ms, s, m, h, d: 30s";
    let Some(text) = value.node.scalar_text() else {
        return value.expected("a duration", Some(HINT));
    };
    let Some(duration) = parse_duration(text) else {
        return value.refuse(
            format!("{} is not a duration", quoted(text)),
            Some(HINT.to_owned()),
        );
    };
    if bounds.contains(&duration) {
        return Some(duration);
    }
    let (least, most) = (show_duration(*bounds.start()), show_duration(*bounds.end()));
    value.refuse(format!("{text} is not between {least} and {most}"), None)
}

/// A number of bytes within `bounds`.
pub(super) fn size(value: Value<'_>, bounds: RangeInclusive<u64>) -> Option<u64> {
    const HINT: &str = "write a whole number and one of KiB, MiB, GiB, KB, MB, GB: 16MiB";
    let Some(text) = value.node.scalar_text() else {
        return value.expected("a size", Some(HINT));
    };
    let Some(bytes) = parse_size(text) else {
        return value.refuse(format!("{} is not a size", quoted(text)), Some(HINT.to_owned()));
    };
    if bounds.contains(&bytes) {
        return Some(bytes);
    }
    let (least, most) = (show_size(*bounds.start()), show_size(*bounds.end()));
    value.refuse(format!("{text} is not between {least} and {most}"), None)
}

/// A path into JSON.
pub(super) fn json_path(value: Value<'_>) -> Option<JsonPath> {
    let text = value.text()?;
    match JsonPath::parse(text) {
        Ok(path) => Some(path),
        Err(reason) => {
            // The reason repeats the path; one that fills the screen helps nobody.
            let message = if text.len() <= PATH_SHOWN_MAX {
                reason
            } else {
                "not a path".to_owned()
            };
            value.refuse(message, Some("write a JSONPath such as $.data[*]".to_owned()))
        }
    }
}

/// Text that may hold references.
pub(super) fn reference(value: Value<'_>, dir: &Path) -> Option<Secret> {
    let text = value.scalar()?;
    // The text is not repeated in the message: it may be a secret with a stray `${` in it.
    match Secret::parse(text) {
        Ok(secret) => Some(secret.relative_to(dir)),
        Err(_) => value.refuse(
            "holds a reference that cannot be read",
            Some("write ${env:NAME} or ${file:PATH}, and $${ where ${ itself is meant".to_owned()),
        ),
    }
}

/// Text that may hold references and templates over the variables `known`.
pub(super) fn text(value: Value<'_>, dir: &Path, known: &[&str]) -> Option<Text> {
    match Text::read(reference(value, dir)?) {
        Ok(text) => {
            know(value, text.variables(), known)?;
            Some(text)
        }
        Err((what, hint)) => value.refuse(format!("a template: {what}"), hint.map(str::to_owned)),
    }
}

/// An expression over the variables `known`, with or without braces around it.
pub(super) fn expr(value: Value<'_>, known: &[&str]) -> Option<Expr> {
    match Expr::read(value.text()?) {
        Ok(expr) => {
            know(value, expr.variables(), known)?;
            Some(expr)
        }
        Err((what, hint)) => value.refuse(format!("an expression: {what}"), hint.map(str::to_owned)),
    }
}

/// Refuses variables that are never given a value here.
fn know(value: Value<'_>, used: impl IntoIterator<Item = String>, known: &[&str]) -> Option<()> {
    let Some(unknown) = used.into_iter().find(|name| !known.contains(&name.as_str())) else {
        return Some(());
    };
    let hint = match known {
        [] => "nothing can be rendered here".to_owned(),
        _ => format!("known here: {}", known.join(", ")),
    };
    value.refuse(
        format!("{} is not a variable known here", quoted(&unknown)),
        Some(hint),
    )
}

/// A credential. One that stands in the file as it is gets a warning.
pub(super) fn secret(value: Value<'_>, dir: &Path) -> Option<Secret> {
    let text = value.text()?;
    let secret = reference(value, dir)?;
    one_line(value, text)?;
    if !secret.is_reference() {
        warn_literal(value);
    }
    Some(secret)
}

/// Says that a secret stands in the file.
pub(super) fn warn_literal(value: Value<'_>) {
    value.problems.warn(
        value.node.place,
        format!("{}: a secret is written in the file", value.key),
        Some("write ${env:NAME} or ${file:PATH} and keep it out of version control".to_owned()),
    );
}

/// Whether a value under this name is as a rule a secret.
pub(super) fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace('-', "_");
    const WHOLE: [&str; 5] = ["authorization", "proxy_authorization", "cookie", "token", "auth"];
    const PARTS: [&str; 9] = [
        "secret",
        "password",
        "passwd",
        "api_key",
        "apikey",
        "access_token",
        "auth_token",
        "session_token",
        "encryption_key",
    ];
    WHOLE.contains(&name.as_str()) || PARTS.iter().any(|part| name.contains(part))
}

/// Query parameters: any names, any scalars.
pub(super) fn params(value: Value<'_>, dir: &Path) -> Option<Vec<(String, Secret)>> {
    pairs(value, dir, |entry| {
        if entry.key.is_empty() {
            return entry.refuse("a parameter needs a name", None);
        }
        Some(entry.key.to_owned())
    })
}

/// Headers, names in lowercase.
pub(super) fn headers(value: Value<'_>, dir: &Path) -> Option<Vec<(String, Secret)>> {
    pairs(value, dir, header_names())
}

/// Reads the names of headers, each allowed once, with a value of one line.
pub(super) fn header_names() -> impl FnMut(Value<'_>) -> Option<String> {
    let mut known = Vec::new();
    move |entry| {
        let name = header_name(entry, entry.key)?;
        if known.contains(&name) {
            return entry.refuse("the same header is already set above", None);
        }
        known.push(name.clone());
        one_line(entry, entry.scalar()?)?;
        Some(name)
    }
}

/// The name of a header in lowercase, if it is one that may be set.
pub(super) fn header_name(value: Value<'_>, name: &str) -> Option<String> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return value.refuse(format!("{} is not the name of a header", quoted(name)), None);
    }
    let name = name.to_ascii_lowercase();
    if HEADERS_OURS.contains(&name.as_str()) {
        return value.refuse(format!("the header {name} is set by the program itself"), None);
    }
    Some(name)
}

/// Each name with its value; `check` turns the key into the name.
pub(super) fn pairs(
    value: Value<'_>,
    dir: &Path,
    mut check: impl FnMut(Value<'_>) -> Option<String>,
) -> Option<Vec<(String, Secret)>> {
    let entries = value.entries("names with values")?;
    let mut pairs = Vec::new();
    for entry in entries {
        let child = value.child(entry);
        let (Some(name), Some(text)) = (check(child), reference(child, dir)) else {
            continue;
        };
        if looks_secret(&name) && !text.is_reference() {
            warn_literal(child);
        }
        pairs.push((name, text));
    }
    (pairs.len() == entries.len()).then_some(pairs)
}

/// Header values and credentials must not smuggle in another line.
pub(super) fn one_line(value: Value<'_>, text: &str) -> Option<()> {
    if text.chars().any(char::is_control) {
        return value.refuse("must be one line without control characters", None);
    }
    Some(())
}

/// A word that may stand in a header before a token.
pub(super) fn token_word(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_.~+".contains(&byte))
    {
        return Some(text.to_owned());
    }
    value.refuse(format!("{} is not one word", quoted(text)), None)
}

/// `path` from `dir`, absolute, without `.` and `..`. Nothing on disk is looked at.
pub(super) fn absolute(dir: &Path, path: &str) -> Option<PathBuf> {
    let start = if dir.as_os_str().is_empty() {
        Path::new(".")
    } else {
        dir
    };
    let whole = std::path::absolute(start.join(path)).ok()?;
    let mut clean = PathBuf::new();
    for component in whole.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                clean.pop();
            }
            other => clean.push(other),
        }
    }
    Some(clean)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_and_sizes_are_whole_numbers_with_a_unit() {
        for (text, millis) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("0s", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "s",
            "5",
            "1.5s",
            "-1s",
            "5 s",
            "5S",
            "5min",
            "9999999999999999999d",
            "20000d",
        ] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        for (text, bytes) in [
            ("0", 0),
            ("12", 12),
            ("1KB", 1000),
            ("1KiB", 1024),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "1.5MiB", "1mib", "1 MiB", "99999999TiB", "+1"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn paths_lose_their_dots() {
        let path = |text: &str| absolute(Path::new("/srv/shop"), text).unwrap();
        assert_eq!(path("./lake"), Path::new("/srv/shop/lake"));
        assert_eq!(path("../a/./b/../c"), Path::new("/srv/a/c"));
        assert_eq!(path("/lake"), Path::new("/lake"));
        assert_eq!(path("../../../.."), Path::new("/"));
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(millis in 0u64..1 << 38, bytes: u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
            prop_assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
    }
}
