//! Places in records that are alike.

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
