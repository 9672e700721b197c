//! Places in records, as observations and violations name them.

use super::quality;

/// `lines[2].price` as `lines[].price`: the place of a value, whatever its position in a list.
///
/// ```
/// use landfall::contract::place::without_positions;
/// assert_eq!(without_positions("lines[2].price[10]"), "lines[].price[]");
/// assert_eq!(without_positions("a[b]"), "a[b]");
/// ```
pub fn without_positions(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(open) = rest.find('[') {
        let (before, after) = rest.split_at(open + 1);
        text.push_str(before);
        let digits = after.len() - after.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        rest = if after[digits..].starts_with(']') {
            &after[digits..]
        } else {
            after
        };
    }
    text.push_str(rest);
    text
}

/// One step down a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::contract) enum Step {
    /// A member of an object.
    Member(String),
    /// An element of an array: its position, or none for any.
    Element(Option<usize>),
}

/// Takes a path apart, such as `lines[]["unit price"]` or `lines[2]`; `None` if it is no such path.
pub(in crate::contract) fn steps(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path;
    while !rest.is_empty() {
        if let Some((position, behind)) = element(rest) {
            steps.push(Step::Element(position));
            rest = behind;
        } else if let Some(quoted) = rest.strip_prefix('[') {
            let mut names = serde_json::Deserializer::from_str(quoted).into_iter::<String>();
            steps.push(Step::Member(names.next()?.ok()?));
            rest = quoted.get(names.byte_offset()..)?.strip_prefix(']')?;
        } else {
            let name = rest
                .strip_prefix('.')
                .filter(|_| !steps.is_empty())
                .unwrap_or(rest);
            let end = name.find(['.', '[']).unwrap_or(name.len());
            if end == 0 {
                return None;
            }
            steps.push(Step::Member(name[..end].to_owned()));
            rest = &name[end..];
        }
    }
    Some(steps)
}

/// The position in `[]` or `[2]`, and what is behind.
fn element(path: &str) -> Option<(Option<usize>, &str)> {
    let number = path.strip_prefix('[')?;
    let behind = number.trim_start_matches(|digit: char| digit.is_ascii_digit());
    let digits = &number[..number.len() - behind.len()];
    Some((digits.parse().ok(), behind.strip_prefix(']')?))
}

/// A path as a JSON Pointer (RFC 6901) from the record down. One that leads to no single value, as `rule total` or
/// `lines[].sku` do, as far as it does.
///
/// ```
/// use landfall::contract::place::pointer;
/// assert_eq!(pointer(r#"lines[2]["unit/price"]"#), "/lines/2/unit~1price");
/// assert_eq!((pointer(""), pointer("rule total")), (String::new(), String::new()));
/// ```
pub fn pointer(path: &str) -> String {
    let mut pointer = String::new();
    // A name with a blank in it is quoted, so what begins like that is no path.
    let is_rule = quality::is_path(path);
    for step in steps(path).filter(|_| !is_rule).unwrap_or_default() {
        match step {
            Step::Member(name) => {
                pointer.push('/');
                pointer.push_str(&name.replace('~', "~0").replace('/', "~1"));
            }
            Step::Element(Some(position)) => pointer.push_str(&format!("/{position}")),
            Step::Element(None) => break,
        }
    }
    pointer
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::observed::write_name;

    proptest! {
        #[test]
        fn a_pointer_leads_to_the_value(names in prop::collection::vec((any::<String>(), 0..3_usize), 1..4)) {
            let (mut path, mut record) = (String::new(), serde_json::json!("here"));
            for (name, position) in &names {
                write_name(name, &mut path);
                path.push_str(&format!("[{position}]"));
            }
            for (name, position) in names.iter().rev() {
                let mut elements = vec![serde_json::Value::Null; *position];
                elements.push(record);
                record = serde_json::Value::Object([(name.clone(), elements.into())].into_iter().collect());
            }
            let found = record.pointer(&pointer(&path));
            prop_assert_eq!(found.and_then(|value| value.as_str()), Some("here"), "{}", path);
        }

        #[test]
        fn any_text_has_a_pointer(path in "\\PC{0,20}|[a-z.\\[\\]\"0-9]{0,12}") {
            let pointer = pointer(&path);
            prop_assert!(pointer.is_empty() || pointer.starts_with('/'));
        }
    }
}
