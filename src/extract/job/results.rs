//! The results of a job: what they are called, and where they are.

use std::{borrow::Cow, collections::HashSet};

use serde_json::Value;
use url::Url;

use crate::{
    extract::channel::moved,
    extract::mask::Masks,
    json::{self, JsonPath},
    raw::frame::{hex, sha256},
};

/// Most results of one job.
const RESULTS_MAX: usize = 100_000;

/// The results of a job.
pub(super) struct Results {
    names: Vec<String>,
    /// What relative URLs among them start from.
    at: Url,
    /// The host that told them: the source, or a replica.
    base: Url,
}

impl Results {
    pub(super) fn new(names: Vec<String>, at: Url, base: Url) -> Self {
        Self { names, at, base }
    }

    pub(super) fn count(&self) -> u64 {
        self.names.len() as u64
    }

    /// What result number `place` is called.
    pub(super) fn name(&self, place: u64) -> Option<&str> {
        let place = usize::try_from(place).ok()?;
        self.names.get(place).map(String::as_str)
    }

    /// SHA-256 of what they are called, lowercase hex. Of URLs the query, which is signed anew for everybody who asks,
    /// does not count, unless it alone tells them apart.
    pub(super) fn print(&self) -> String {
        let bare = |name: &String| name.split(['?', '#']).next().unwrap_or_default().to_owned();
        let bare: Vec<String> = self.names.iter().map(bare).collect();
        let distinct: HashSet<&String> = bare.iter().collect();
        let all = match distinct.len() == bare.len() {
            true => bare.join("\n"),
            false => self.names.join("\n"),
        };
        hex(&sha256(all.as_bytes()))
    }

    /// The URL that a result called `name` has at the source `home`. One of the source is told without our secrets; they
    /// are added as it is fetched.
    pub(super) fn url(&self, name: &str, home: &Url, masks: &Masks) -> Result<Url, url::ParseError> {
        let mut url = self.at.join(name)?;
        if url.origin() == self.base.origin() {
            masks.strip(&mut url);
            url = moved(&url, &self.base, home);
        }
        Ok(url)
    }
}

/// The texts at `path`, also those of a list that stands there. Nothing, null and empty texts are no results.
///
/// # Errors
/// What is wrong with the answer.
pub(super) fn names(path: &JsonPath, body: &[u8]) -> Result<Vec<String>, String> {
    let mut values = Vec::new();
    let found = path.select(body, &mut |range| values.push(&body[range]));
    found.map_err(|defect| defect.to_string())?;
    let mut names = Vec::new();
    for value in values {
        let parsed: Value = serde_json::from_slice(value).map_err(|_| "not JSON".to_owned())?;
        match parsed {
            Value::Null => {}
            Value::Array(items) => {
                for item in items {
                    names.push(item.as_str().ok_or("a result that is not text")?.to_owned());
                }
            }
            Value::Object(_) | Value::Bool(_) => return Err("a result that is not text".to_owned()),
            Value::String(text) => names.push(text),
            Value::Number(_) => names.push(number(value)),
        }
    }
    // Joined to the URL of the answer, one would be that answer.
    names.retain(|name| !name.trim().is_empty());
    if names.len() > RESULTS_MAX {
        return Err(format!("more than {RESULTS_MAX} results"));
    }
    Ok(names)
}

/// A number as it is written.
fn number(value: &[u8]) -> String {
    json::text(value).map_or_else(|| String::from_utf8_lossy(value).into_owned(), Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_from_any_shape_of_list() {
        let table = [
            ("$.urls[*]", r#"{"urls":["a","b"]}"#, Ok(vec!["a", "b"])),
            ("$.urls", r#"{"urls":["a","b"]}"#, Ok(vec!["a", "b"])),
            ("$.url", r#"{"url":"a\u002fb"}"#, Ok(vec!["a/b"])),
            ("$.url", r#"{"url":null}"#, Ok(vec![])),
            ("$.url", r#"{"url":" "}"#, Ok(vec![])),
            ("$.url", "{}", Ok(vec![])),
            (
                "$.parts[*].id",
                r#"{"parts":[{"id":1},{"id":18446744073709551617}]}"#,
                Ok(vec!["1", "18446744073709551617"]),
            ),
            ("$.url", r#"{"url":{"a":1}}"#, Err("a result that is not text")),
            ("$.url", "<html>", Err("")),
        ];
        for (path, body, expected) in table {
            let found = names(&JsonPath::parse(path).unwrap(), body.as_bytes());
            match expected {
                Ok(expected) => assert_eq!(found.unwrap(), expected, "{body}"),
                Err(expected) => assert!(found.unwrap_err().contains(expected), "{body}"),
            }
        }
    }

    #[test]
    fn results_are_told_apart_by_what_does_not_change() {
        let print = |names: &[&str]| {
            let at = Url::parse("https://a.example/jobs/1").unwrap();
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            Results::new(names, at.clone(), at).print()
        };
        assert_eq!(print(&["/1?sig=a", "/2?sig=a"]), print(&["/1?sig=b", "/2?sig=b"]));
        assert_ne!(print(&["/1", "/2"]), print(&["/2", "/1"]));
        assert_ne!(print(&["/1", "/2"]), print(&["/1", "/2", "/3"]));
        // Nothing but the query says which is which.
        assert_ne!(
            print(&["/get?file=1", "/get?file=2"]),
            print(&["/get?file=2", "/get?file=1"])
        );
    }
}
