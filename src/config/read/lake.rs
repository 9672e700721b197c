//! Where everything is stored.

use std::path::Path;

use url::Url;

use crate::{
    config::{
        Lake,
        read::values::{absolute, pairs},
    },
    yaml::fields::{Fields, Value},
};

/// Reads `lake` and `storage`.
pub(super) fn lake(fields: &Fields<'_>, dir: &Path) -> Option<Lake> {
    let url = fields.required("lake", |value| lake_url(value, dir));
    let storage = match fields.value("storage") {
        Some(value) => pairs(value, dir, option_name),
        None => Some(Vec::new()),
    };
    let (url, storage) = (url?, storage?);
    if let (true, Some(value)) = (
        url.scheme() == "file" && !storage.is_empty(),
        fields.value("storage"),
    ) {
        value.problems.warn(
            value.key_place,
            "storage: a lake on local disk uses no storage options",
            None,
        );
    }
    Some(Lake { url, storage })
}

fn option_name(entry: Value<'_>) -> Option<String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if entry.key.is_empty() || !entry.key.bytes().all(good) {
        return entry.refuse("an option's name is made of letters, digits and _", None);
    }
    Some(entry.key.to_owned())
}

fn lake_url(value: Value<'_>, dir: &Path) -> Option<Url> {
    let text = value.text()?;
    if text.contains("${") {
        return value.refuse(
            "references are not read here",
            Some("write the place out".to_owned()),
        );
    }
    match text.split_once("://") {
        Some(("s3", _)) => s3_url(value, text),
        Some(("file", _)) => file_url(value, text),
        Some(_) => value.refuse(
            "a lake is a local path, file:// or s3://",
            Some("other stores are not available yet".to_owned()),
        ),
        None if text.starts_with('~') => {
            value.refuse("~ is not expanded", Some("write an absolute path".to_owned()))
        }
        None => path_url(value, dir, text),
    }
}

fn path_url(value: Value<'_>, dir: &Path, text: &str) -> Option<Url> {
    match absolute(dir, text).and_then(|path| Url::from_file_path(path).ok()) {
        Some(url) => Some(url),
        None => value.refuse("not a path that can be made absolute", None),
    }
}

fn file_url(value: Value<'_>, text: &str) -> Option<Url> {
    let path = Url::parse(text)
        .ok()
        .filter(|url| url.query().is_none() && url.fragment().is_none())
        .and_then(|url| url.to_file_path().ok());
    match path.as_deref().and_then(Path::to_str) {
        Some(path) => path_url(value, Path::new("/"), path),
        None => value.refuse(
            "not the URL of a local folder",
            Some("write file:///absolute/path, or a path alone".to_owned()),
        ),
    }
}

fn s3_url(value: Value<'_>, text: &str) -> Option<Url> {
    const HINT: &str = "write s3://bucket or s3://bucket/prefix";
    let refuse = |message: &str| value.refuse(message, Some(HINT.to_owned()));
    let Ok(url) = Url::parse(text.trim_end_matches('/')) else {
        return refuse("not an S3 URL");
    };
    if !url.username().is_empty() || url.password().is_some() || url.port().is_some() {
        return refuse("credentials and ports do not belong in the URL; use storage:");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("an S3 URL has no ? and no #");
    }
    let bucket = url.host_str().unwrap_or_default();
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte);
    if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(good) {
        return refuse("not the name of a bucket");
    }
    Some(url)
}
