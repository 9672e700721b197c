//! The `Link` header field (RFC 8288), as far as relations go.

use crate::error::{Error, ErrorKind, Result};

/// One link of a field value: where it points and what it is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// The target as written, absolute or relative, possibly empty.
    pub target: String,
    /// The relation types, lowercase.
    pub relations: Vec<String>,
}

/// Most links read from one field value; what follows is not read.
pub const LINKS_MAX: usize = 100;

/// The links of one field value, and what of it could not be read.
///
/// Commas and semicolons inside `<>` and quotes belong to the target or the value. Of several `rel`
/// parameters of one link the first counts, as the RFC says. Reading stops at the first thing that is not a link.
///
/// ```
/// use landfall::extract::link::parse;
/// let (links, rest) = parse(r#"</orders?page=2>; rel="next", </orders?ids=1,2;3>; rel=LAST, what?"#);
/// assert_eq!(links[0].target, "/orders?page=2");
/// assert_eq!(links[1].relations, ["last"]);
/// assert_eq!(rest, "what?");
/// ```
pub fn parse(value: &str) -> (Vec<Link>, &str) {
    const BETWEEN: [char; 3] = [' ', '\t', ','];
    let mut links = Vec::new();
    let mut rest = value.trim_start_matches(BETWEEN);
    while links.len() < LINKS_MAX {
        let Some((target, after)) = rest.strip_prefix('<').and_then(|inner| inner.split_once('>')) else {
            break;
        };
        let (relations, after) = parameters(after);
        links.push(Link {
            target: target.trim().to_owned(),
            relations: relations.unwrap_or_default(),
        });
        rest = after.trim_start_matches(BETWEEN);
    }
    (links, rest)
}

/// The target of the first link with the relation `relation` (lowercase) among several values of `Link`.
///
/// # Errors
/// [`ErrorKind::Refused`] if there is none but part of a value cannot be read: it may stand there.
pub fn target<'a>(values: impl IntoIterator<Item = &'a [u8]>, relation: &str) -> Result<Option<String>> {
    let unreadable =
        |problem: &'static str| Error::new(ErrorKind::Refused, "read header Link").with("problem", problem);
    let mut unread = None;
    for value in values {
        let Ok(value) = std::str::from_utf8(value) else {
            unread = Some("not UTF-8");
            continue;
        };
        let (links, rest) = parse(value);
        let found = links
            .into_iter()
            .find(|link| link.relations.iter().any(|known| known == relation));
        if let Some(link) = found {
            return Ok(Some(link.target));
        }
        if !rest.is_empty() {
            unread = Some("not a list of links");
        }
    }
    unread.map_or(Ok(None), |problem| Err(unreadable(problem)))
}

/// Reads `; name=value` as long as they follow; returns the first `rel` and what is left.
fn parameters(text: &str) -> (Option<Vec<String>>, &str) {
    let mut relations = None;
    let mut rest = text.trim_start_matches([' ', '\t']);
    while let Some(after) = rest.strip_prefix(';') {
        let after = after.trim_start_matches([' ', '\t']);
        let name_end = after.find(['=', ';', ',', '<']).unwrap_or(after.len());
        let name = after[..name_end].trim();
        rest = &after[name_end..];
        let mut value = String::new();
        if let Some(after_equals) = rest.strip_prefix('=') {
            (value, rest) = parameter_value(after_equals.trim_start_matches([' ', '\t']));
        }
        if name.eq_ignore_ascii_case("rel") && relations.is_none() {
            relations = Some(
                value
                    .split_ascii_whitespace()
                    .map(str::to_ascii_lowercase)
                    .collect(),
            );
        }
        rest = rest.trim_start_matches([' ', '\t']);
    }
    (relations, rest)
}

/// A quoted string or a bare token, and what is left behind it.
fn parameter_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ',', '<']).unwrap_or(text.len());
        return (text[..end].trim().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(char),
        }
    }
    // No closing quote: the value is a guess, and nothing behind it was read.
    (value, text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn next(values: &[&str]) -> Option<String> {
        target(values.iter().map(|value| value.as_bytes()), "next").unwrap()
    }

    #[test]
    fn f058_odd_link_headers_are_read() {
        let table: &[(&[&str], Option<&str>)] = &[
            (
                &[r#"<https://a.example/o?page=2>; rel="next""#],
                Some("https://a.example/o?page=2"),
            ),
            (&["</o?page=2>; rel=next"], Some("/o?page=2")),
            (&["<?page=2>;rel=next"], Some("?page=2")),
            (&[r#"<>; rel="next""#], Some("")),
            (&[r#"</o?ids=1,2,3>; rel="next""#], Some("/o?ids=1,2,3")),
            (&[r#"</o;v=1?a=b;c=d>; rel="next""#], Some("/o;v=1?a=b;c=d")),
            (&[r#"</p>; rel="prev", </n>; rel="next""#], Some("/n")),
            (&[r#"</p>; rel="prev next""#], Some("/p")),
            (&[r#"</p>; rel="prevnext""#], None),
            (&[r#"</n>; REL="NEXT""#], Some("/n")),
            (
                &[r#"</n>; title="a, b; \"c\" <x>; rel=last"; rel=next"#],
                Some("/n"),
            ),
            (&["</l>; rel=last", "</n>; rel=next"], Some("/n")),
            (&[r#"</n>; rel="last"; rel="next""#], None),
            (&[r#"</n> ; rel = "next""#], Some("/n")),
            (&["</n>; crossorigin; rel=next"], Some("/n")),
            (&[" , </a>;rel=prev,, </n>;rel=next"], Some("/n")),
            (&["garbage", "</é>; rel=next"], Some("/é")),
            (&[r#"</n>; rel="next"#], Some("/n")),
            (&["</p>; rel=prev </n>; rel=next"], Some("/n")),
            (&["</p>; crossorigin </n>; rel=next"], Some("/n")),
            (&[""], None),
            (&[" , "], None),
            (&[], None),
        ];
        for (values, expected) in table {
            assert_eq!(next(values).as_deref(), *expected, "{values:?}");
        }
    }

    #[test]
    fn f058_a_link_header_that_cannot_be_read_is_not_the_end() {
        let many = "</p>; rel=prev, ".repeat(LINKS_MAX) + "</n>; rel=next";
        let table: [&[u8]; 6] = [
            b"</n; rel=next",
            b"garbage",
            b"</p>; rel=prev, /n; rel=next",
            br#"</p>; rel="prev, </n>; rel=next"#,
            b"</\xe9>; rel=next",
            many.as_bytes(),
        ];
        for value in table {
            let error = target([value], "next").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Refused);
            assert!(error.to_string().contains("header Link"), "{error}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn f058_parsing_never_panics(value in "[<>;,=\"\\\\ a-zé]{0,60}") {
            let _ = parse(&value);
        }

        #[test]
        fn f058_a_written_link_is_read_back(target in "[a-z/?&=,;:]{0,40}", title in "[a-z,;<> ]{0,20}") {
            let value = format!("</first>; rel=first, <{target}>; title=\"{title}\"; rel=\"x next\"");
            prop_assert_eq!(next(&[&value]), Some(target));
        }
    }
}
