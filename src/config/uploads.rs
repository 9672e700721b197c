//! Upload jobs: files that are larger than a request may be, sent in pieces or fetched by reference.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use url::{Host, Url};

/// How upload jobs are kept, and what may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uploads {
    /// The folder their files are kept in until they are landed, absolute. One server uses it.
    pub dir: PathBuf,
    /// Most bytes of all files together, as they were announced.
    pub bytes_max: u64,
    /// Most bytes of one file, as it is sent.
    pub job_bytes_max: u64,
    /// Most jobs that have not ended.
    pub jobs_max: u32,
    /// What may be fetched; nothing else is.
    pub allow: Vec<Prefix>,
}

/// An address that ends with a slash; it stands for everything below it.
#[derive(Clone, PartialEq, Eq)]
pub struct Prefix(Url);

/// An address below a [`Prefix`]. Its query may hold a signature, so it is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference {
    url: Url,
}

impl Uploads {
    /// The folder, unless the file says otherwise, relative to the project.
    pub const DIR_DEFAULT: &str = ".landfall/uploads";
    /// What [`Uploads::bytes_max`] is unless the file says otherwise.
    pub const BYTES_MAX_DEFAULT: u64 = 64 << 30;
    /// What [`Uploads::job_bytes_max`] is unless the file says otherwise.
    pub const JOB_BYTES_MAX_DEFAULT: u64 = 16 << 30;
    /// What [`Uploads::jobs_max`] is unless the file says otherwise.
    pub const JOBS_MAX_DEFAULT: u32 = 100;

    /// What holds unless the file says otherwise, for the project in `dir`.
    pub fn usual(dir: &Path) -> Self {
        Self {
            dir: dir.join(Self::DIR_DEFAULT),
            bytes_max: Self::BYTES_MAX_DEFAULT,
            job_bytes_max: Self::JOB_BYTES_MAX_DEFAULT,
            jobs_max: Self::JOBS_MAX_DEFAULT,
            allow: Vec::new(),
        }
    }

    /// The address in `text`, if it may be fetched.
    ///
    /// # Errors
    /// Why not, in words without the address.
    pub fn reference(&self, text: &str) -> Result<Reference, &'static str> {
        if self.allow.is_empty() {
            return Err("nothing is fetched by this server: `serve.uploads.allow` names no address");
        }
        let url = plain(text)?;
        if url.scheme() == "s3" && url.query().is_some() {
            return Err("the key of an object has no query");
        }
        if self.allow.iter().any(|prefix| prefix.covers(&url)) {
            Ok(Reference { url })
        } else {
            Err("the address is below none of those in `serve.uploads.allow`")
        }
    }
}

impl Prefix {
    /// Reads an address.
    ///
    /// # Errors
    /// Why it is none that can be allowed, in words.
    ///
    /// ```
    /// use landfall::config::uploads::Prefix;
    /// assert!(Prefix::parse("s3://bucket/exports/").is_ok());
    /// assert!(Prefix::parse("https://files.example.com/exports").is_err());
    /// ```
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let url = plain(text)?;
        if url.query().is_some() || !url.path().ends_with('/') {
            return Err("what may be fetched ends with a slash, and everything below it may");
        }
        Ok(Self(url))
    }

    /// The address.
    pub fn url(&self) -> &Url {
        &self.0
    }

    fn covers(&self, url: &Url) -> bool {
        let path = self.0.path();
        self.0.scheme() == url.scheme()
            && self.0.host() == url.host()
            && self.0.port_or_known_default() == url.port_or_known_default()
            && url.path().len() > path.len()
            && url.path().starts_with(path)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({})", self.0)
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reference(****)")
    }
}

impl Reference {
    /// The address itself: for whoever fetches it alone.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Whether its host is an address and no name. It is that of the prefix then, so whoever allowed it meant that machine.
    pub fn is_literal(&self) -> bool {
        matches!(self.url.host(), Some(Host::Ipv4(_) | Host::Ipv6(_)))
    }
}

/// Longest address, in bytes. Signed ones have up to some 2,000.
const URL_BYTES_MAX: usize = 8192;

/// Signs that a path may not have in disguise: dots, slashes, and what some programs take for a slash or for the end.
const DISGUISED: [&str; 4] = ["%2e", "%2f", "%5c", "%00"];

/// The address in `text`, if it reads the same for everybody: whoever compares it and whoever fetches it.
fn plain(text: &str) -> Result<Url, &'static str> {
    if text.len() > URL_BYTES_MAX {
        return Err("the address is too long");
    }
    if text
        .bytes()
        .any(|byte| !byte.is_ascii_graphic() || byte == b'\\' || byte == b'#')
    {
        return Err(
            "an address has neither spaces, backslashes and fragments, nor anything that is not ASCII",
        );
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err("not an absolute address");
    };
    if !matches!(scheme, "s3" | "https" | "http") {
        return Err("only s3, https and http are spoken");
    }
    let rest = rest.split('?').next().unwrap_or_default();
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    // Readers of the web find a host behind any number of slashes.
    if authority.is_empty() {
        return Err("the address names no host");
    }
    if authority.contains('@') {
        return Err("credentials do not belong in the address");
    }
    let lower = path.to_ascii_lowercase();
    // Some servers cut parameters off a part of a path before they look at its dots.
    let is_dotted = lower.split('/').any(|part| {
        let name = part.split(';').next().unwrap_or_default();
        matches!(name.split("%3b").next(), Some("." | ".."))
    });
    if is_dotted || DISGUISED.iter().any(|sign| lower.contains(sign)) {
        return Err(
            "the path is to be plain: without dots for folders, and without encoded dots and slashes",
        );
    }
    let url = Url::parse(text).map_err(|_| "not an address")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong in the address");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err("the address names no host");
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn uploads(allow: &[&str]) -> Uploads {
        Uploads {
            allow: allow.iter().map(|text| Prefix::parse(text).unwrap()).collect(),
            ..Uploads::usual(Path::new("/srv/shop"))
        }
    }

    #[test]
    fn only_what_stands_below_an_allowed_address_may_be_fetched() {
        let allowed = uploads(&[
            "s3://bucket/exports/",
            "https://files.example.com/exports/",
            "http://127.0.0.1:8000/",
        ]);
        for (text, is_allowed) in [
            ("s3://bucket/exports/a.jsonl", true),
            ("s3://bucket/exports/deep/a%20b.jsonl", true),
            ("https://files.example.com/exports/a.jsonl?signature=x%2F", true),
            ("https://FILES.example.com:443/exports/a.jsonl", true),
            ("http://127.0.0.1:8000/a", true),
            ("http://127.0.0.1:8001/a", false),
            ("http://127.0.0.1/a", false),
            ("http://localhost:8000/a", false),
            ("s3://bucket/exports/", false),
            ("s3://bucket/exports", false),
            ("s3://bucket2/exports/a", false),
            ("s3://bucket/exports/a?x", false),
            ("s3://bucket/exports/../secret", false),
            ("https://files.example.com/exports/../secret", false),
            ("https://files.example.com/exports/%2e%2E/secret", false),
            ("https://files.example.com/exports/..%2fsecret", false),
            ("https://files.example.com/exports/./a", false),
            ("https://files.example.com/exports\\..\\secret", false),
            ("https://files.example.com/exports/\t../secret", false),
            ("https://files.example.com@10.0.0.1/exports/a", false),
            ("https://u:p@files.example.com/exports/a", false),
            ("https:///u:p@files.example.com/exports/a", false),
            ("https:///files.example.com/exports/a", false),
            ("https:////files.example.com/exports/a", false),
            ("https://files.example.com/exports/..;/secret", false),
            ("https://files.example.com/exports/..;a=b/secret", false),
            ("https://files.example.com/exports/.;/a", false),
            ("https://files.example.com/exports/..%3B/secret", false),
            ("https://files.example.com/exports/a;b=..", true),
            ("https://files.example.com.evil.example/exports/a", false),
            ("https://files.example.com/exports/a#b", false),
            ("http://files.example.com/exports/a", false),
            ("file:///etc/passwd", false),
            ("HTTPS://files.example.com/exports/a", false),
            ("https:/files.example.com/exports/a", false),
            ("exports/a", false),
            ("", false),
        ] {
            assert_eq!(allowed.reference(text).is_ok(), is_allowed, "{text}");
        }
        let none = uploads(&[]).reference("s3://bucket/exports/a").unwrap_err();
        assert!(none.contains("serve.uploads.allow"), "{none}");
        let literal = allowed.reference("http://127.0.0.1:8000/a").unwrap();
        assert!(literal.is_literal());
        assert_eq!(format!("{literal:?}"), "Reference(****)");
        assert!(
            !allowed
                .reference("https://files.example.com/exports/a")
                .unwrap()
                .is_literal()
        );
    }

    proptest! {
        #[test]
        fn whatever_is_allowed_stays_below_what_was_allowed(rest in "\\PC{0,12}(/[.%2eEfF]{0,6}){0,4}") {
            let allowed = uploads(&["https://files.example.com/exports/"]);
            if let Ok(found) = allowed.reference(&format!("https://files.example.com/exports/{rest}")) {
                prop_assert!(found.url().path().starts_with("/exports/"));
                prop_assert_eq!(found.url().host_str(), Some("files.example.com"));
                prop_assert!(!found.url().path().split('/').any(|part| part == ".."));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,40}") {
            let _ = (Prefix::parse(&text), uploads(&["s3://b/"]).reference(&text));
        }
    }
}
