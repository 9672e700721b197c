//! Words of commands that are printed to be copied.

/// `text` as one word of a command line that a POSIX shell reads as it is, whatever is in it; `None` if it has control
/// characters, on which a terminal would act.
///
/// ```
/// use landfall::report::shell::word;
/// assert_eq!(word("lines[].price").unwrap(), "'lines[].price'");
/// assert_eq!(word("$(date) it's").unwrap(), r"'$(date) it'\''s'");
/// assert_eq!(word("price").unwrap(), "price");
/// assert_eq!(word("\u{1b}[2J"), None);
/// ```
pub fn word(text: &str) -> Option<String> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_.-".contains(letter);
    if text.chars().any(char::is_control) {
        None
    } else if !text.is_empty() && text.chars().all(is_plain) {
        Some(text.to_owned())
    } else {
        Some(format!("'{}'", text.replace('\'', r"'\''")))
    }
}
