//! Files that records point to: fetched as their page is handed out, stored by their content, told in its facts.
//!
//! ```text
//! page ─ records ─► URL, checksum ─► download (hashed, never held) ─ checksum holds? ─► raw/…/files/<2>/<sha256>
//!                                                                                        └► fact of the page
//! ```
//!
//! A file that cannot be had does not lose its record: the fact says why.

mod checksum;
mod shelf;

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use object_store::ObjectStore;
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE};
use serde_json::{Map, Value, json};
use tracing::warn;
use url::Url;

use crate::{
    config::{files::Files, request::Request, text::Vars},
    error::{Error, ErrorKind, Result},
    extract::{
        client::{Framing, Head},
        download::{Download, Downloaded},
        fetch::{Answer, Fetcher, Verdict, off_thread},
        files::{checksum::Checksum, shelf::Shelf},
        job::errand::{self, Reads},
        request::{Ask, PageRequest},
    },
    format::{Piece, Recipe, part::Section},
    json::{self, JsonPath},
    raw::{FileFact, Page, PageFacts},
};

/// Longest reason kept of a file that cannot be had, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// What a record says of its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Wanted {
    url: String,
    checksum: Option<String>,
}

/// What the records of a page say of their files.
#[derive(Default)]
struct Listed {
    wanted: BTreeMap<Wanted, Vec<u64>>,
    /// Of records that cannot say it.
    refused: Vec<FileFact>,
}

/// Stores the files that the records of a stream point to.
pub(crate) struct Filing {
    settings: Files,
    fetcher: Fetcher,
    shelf: Shelf,
}

impl Filing {
    /// The filing of the stream of `fetcher` in `store`, if its records point to files.
    pub(crate) fn of(fetcher: &Fetcher, store: &Arc<dyn ObjectStore>) -> Option<Self> {
        Some(Self {
            settings: fetcher.stream.files.clone()?,
            fetcher: fetcher.clone(),
            shelf: Shelf::new(Arc::clone(store), fetcher.stream.name.clone()),
        })
    }

    /// Fetches the files of `page` and tells them in its facts, in the order of the records.
    ///
    /// # Errors
    /// Those of the store. What goes wrong with a file itself is in its fact.
    pub(crate) async fn file(&self, page: &mut Page) -> Result<()> {
        let Listed { wanted, refused } = self.listed(page).await?;
        let fetched = stream::iter(wanted)
            .map(|(wanted, records)| async move { (self.fetch(wanted).await, records) })
            .buffer_unordered(self.settings.at_once.max(1) as usize);
        let mut facts = refused;
        let mut fetched = Box::pin(fetched);
        // Ends with the records of the page.
        while let Some((fact, records)) = fetched.next().await {
            let fact = fact?;
            facts.extend(records.into_iter().map(|record| FileFact {
                record,
                ..fact.clone()
            }));
        }
        facts.sort_by_key(|fact| fact.record);
        let failed = facts.iter().filter(|fact| fact.error.is_some()).count();
        if failed > 0 {
            let column = &self.settings.column;
            let stream = &self.fetcher.stream.name;
            warn!(%stream, failed, of = facts.len(), "files that records point to cannot be had");
            let note =
                format!("files that records point to cannot be had; the error is in the column {column}");
            self.fetcher.progress.note(note);
        }
        page.facts.files = facts;
        Ok(())
    }

    /// Every file of the page, each once, with the numbers of the records that point to it.
    async fn listed(&self, page: &Page) -> Result<Listed> {
        let (source, stream) = (Arc::clone(&self.fetcher.source), Arc::clone(&self.fetcher.stream));
        let (settings, body, facts) = (self.settings.clone(), page.body.clone(), page.facts.clone());
        let config: Map<String, Value> = source.config.iter().cloned().collect();
        let vars = Vars::default().with("config", &config);
        off_thread(page.body.len(), move || {
            let recipe = Recipe::of(&source, &stream);
            let (mut listed, mut number) = (Listed::default(), 0);
            read(&recipe, &facts, &body, &mut |record| {
                match wanted_by(&settings, record, &vars) {
                    Ok(Some(file)) => listed.wanted.entry(file).or_default().push(number),
                    Ok(None) => {}
                    Err(error) => listed.refused.push(FileFact {
                        record: number,
                        ..without(&error)
                    }),
                }
                number += 1;
            });
            listed
        })
        .await
    }

    async fn fetch(&self, wanted: Wanted) -> Result<FileFact> {
        match self.have(&wanted).await {
            Ok(fact) => Ok(fact),
            Err(Lost::Ours(error)) => Err(error),
            Err(Lost::File(error)) => Ok(without(&error)),
        }
    }

    async fn have(&self, wanted: &Wanted) -> Result<FileFact, Lost> {
        let checksum = wanted.checksum.as_deref().map(Checksum::parse).transpose()?;
        if let Some(Checksum::Sha256(sha256)) = &checksum
            && let Some((path, bytes)) = self.shelf.find(sha256).await.map_err(Lost::Ours)?
        {
            return Ok(FileFact {
                path: Some(path),
                bytes: Some(bytes),
                sha256: Some(sha256.clone()),
                ..FileFact::default()
            });
        }
        let (head, mut download) = self.download(&wanted.url, checksum.is_some()).await?;
        let Downloaded { bytes, sha256, md5 } = download.downloaded();
        if let Some(checksum) = &checksum
            && !checksum.holds(&sha256, &md5)
        {
            let error = Error::new(ErrorKind::Corrupt, "verify file").with("bytes", bytes);
            return Err(error.with("sha256", sha256).with("declared", checksum).into());
        }
        let stored = self.shelf.put(&mut download).await;
        let path = stored.map_err(Lost::Ours)?;
        Ok(FileFact {
            record: 0,
            path: Some(path),
            bytes: Some(bytes),
            sha256: Some(sha256),
            content_type: header(&head, CONTENT_TYPE.as_str()),
            content_encoding: header(&head, CONTENT_ENCODING.as_str()).filter(|coding| coding != "identity"),
            error: None,
        })
    }

    /// What fetches a file, and as what kind of request.
    async fn asked(&self, url: &str) -> Result<(PageRequest, Request), Lost> {
        let source = &self.fetcher.source;
        let vars = Ask::default().vars(source);
        let url = match (&self.settings.request, &self.settings.target) {
            (None, _) => url_of(&source.base_url, url)?,
            (Some(settings), target) => {
                let request =
                    PageRequest::of(source, settings, vars.clone().with("file", &json!({"url": url})))?;
                match target {
                    None => return Ok((request, settings.clone())),
                    Some(target) => self.target(settings, &request, target).await?,
                }
            }
        };
        let settings = errand::plain_get();
        let mut request = PageRequest::of(source, &settings, vars)?;
        request.hosts = self.settings.hosts.clone();
        Ok((request.at(&source.base_url, url)?, settings))
    }

    /// The URL that the answer to `request` holds.
    async fn target(
        &self,
        settings: &Request,
        request: &PageRequest,
        target: &JsonPath,
    ) -> Result<Url, Lost> {
        let fetcher = errand::about(&self.fetcher, settings, Reads::Json);
        let answer = fetcher
            .fetch(request, 0, None, None)
            .await
            .map_err(|lost| lost_by(lost.error))?;
        let value = target.first(&answer.response.body).ok().flatten();
        let found = value.and_then(json::text);
        let found = found.filter(|text| !text.trim().is_empty());
        let Some(text) = found.filter(|_| answer.verdict == Verdict::Page) else {
            let error = Error::new(ErrorKind::Refused, "find URL of a file")
                .with("url", answer.masks.url(answer.response.head.url.as_str()))
                .with("status", answer.response.head.status)
                .with("target", target);
            return Err(error.into());
        };
        Ok(url_of(&answer.response.head.url, text.trim())?)
    }

    async fn download(&self, url: &str, declared: bool) -> Result<(Head, Download), Lost> {
        let (request, settings) = self.asked(url).await?;
        let fetcher = errand::about(&self.fetcher, &settings, Reads::Anything);
        let dir = fetcher.channel.client().spool_dir();
        let opened = Download::open(dir, self.settings.bytes_max).await;
        let mut download = opened.map_err(|cause| {
            let error = Error::new(ErrorKind::Unavailable, "write file to disk");
            Lost::Ours(error.with("dir", dir.display()).caused_by(cause))
        })?;
        let answer = fetcher.fetch_file(&request, &mut download).await;
        let answer = answer.map_err(|lost| match lost.error.kind() {
            _ if download.is_broken() => Lost::Ours(lost.error),
            _ => lost_by(lost.error),
        })?;
        check(&answer, declared)?;
        Ok((answer.response.head, download))
    }
}

/// The fact of a file that cannot be had.
fn without(error: &Error) -> FileFact {
    let mut reason = error.chain();
    reason.truncate(reason.floor_char_boundary(REASON_BYTES_MAX));
    FileFact {
        error: Some(reason),
        ..FileFact::default()
    }
}

/// Why there is no file.
enum Lost {
    /// Because of the file.
    File(Error),
    /// Because of us: there is no place for it, or no way to ask. Other files would fare no better.
    Ours(Error),
}

/// Whose fault it is that something was not answered.
fn lost_by(error: Error) -> Lost {
    match error.kind() {
        ErrorKind::Config | ErrorKind::Internal => Lost::Ours(error),
        _ => Lost::File(error),
    }
}

impl From<Error> for Lost {
    fn from(error: Error) -> Self {
        Self::File(error)
    }
}

/// Whether an answer is a whole file.
fn check(answer: &Answer, declared: bool) -> Result<()> {
    let head = &answer.response.head;
    let refused = || {
        Error::new(ErrorKind::Refused, "fetch file")
            .with("url", answer.masks.url(head.url.as_str()))
            .with("status", head.status)
    };
    // Others of 2xx have a part of it, none of it, or something about it: RFC 9110, section 15.3.
    if answer.verdict != Verdict::Page || !matches!(head.status, 200 | 203) {
        return Err(refused());
    }
    if answer.response.framing == Framing::Close && !declared {
        let problem =
            "the server tells no length, and without files.checksum nobody knows whether it is whole";
        return Err(refused().with("problem", problem));
    }
    Ok(())
}

/// Calls `visit` with every record of a page, which may be a part of a body. A page that cannot be read has none; the
/// transform says why.
fn read(recipe: &Recipe, facts: &PageFacts, body: &Bytes, visit: &mut dyn FnMut(&[u8])) {
    let mut each = |piece: Piece<'_>| visit(piece.bytes(body));
    let _ = match &facts.part {
        None => recipe.read(body, &mut each),
        Some(part) => {
            let section = Section {
                path: part.path.as_deref(),
                records: part.records.map(|(start, end)| start..end),
                first: part.index == 0,
            };
            recipe.read_section(body, &section, &mut each)
        }
    };
}

/// The file that `record` points to, if it does.
///
/// # Errors
/// `files.only` cannot be evaluated for this record.
fn wanted_by(settings: &Files, record: &[u8], vars: &Vars) -> Result<Option<Wanted>> {
    let text = |path: &json::JsonPath| {
        let value = path.first(record).ok().flatten()?;
        json::text(value).filter(|text| !text.trim().is_empty())
    };
    // What a request is made of may be a number.
    let number = || {
        let value = settings.url.first(record).ok().flatten()?;
        let number = settings.request.is_some() && matches!(value.first(), Some(b'-' | b'0'..=b'9'));
        number.then(|| String::from_utf8_lossy(value))
    };
    let Some(url) = text(&settings.url).or_else(number) else {
        return Ok(None);
    };
    if let Some(only) = &settings.only {
        let known = vars.clone().with_json("record", Bytes::copy_from_slice(record));
        // A record that is no JSON has no file; the judge sets it aside.
        let Ok(known) = known else { return Ok(None) };
        if !only.holds(&known)? {
            return Ok(None);
        }
    }
    let checksum = settings.checksum.as_ref().and_then(text);
    Ok(Some(Wanted {
        url: url.trim().to_owned(),
        checksum: checksum.map(|checksum| checksum.trim().to_owned()),
    }))
}

fn url_of(base: &Url, text: &str) -> Result<Url> {
    base.join(text)
        .map_err(|cause| Error::new(ErrorKind::Refused, "read URL of a file").caused_by(cause))
}

fn header(head: &Head, name: &str) -> Option<String> {
    let value = head.headers.get(name)?.to_str().ok()?;
    Some(value.to_owned()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{paginate::Paginate, text::Expr},
        extract::tests::server::{path, source},
    };

    #[test]
    fn a_record_without_a_url_has_no_file() {
        let settings = Files {
            url: path("$.file.url"),
            request: None,
            target: None,
            checksum: Some(path("$.file.sha")),
            only: Some(Expr::parse("record.kind == 'image' and config.wanted").unwrap()),
            bytes_max: 1,
            column: "_file".to_owned(),
            hosts: Vec::new(),
            at_once: 1,
        };
        let mut source = source(&Url::parse("http://a.example").unwrap(), Paginate::Single);
        source.config = vec![("wanted".to_owned(), Value::Bool(true))];
        let config: Map<String, Value> = source.config.iter().cloned().collect();
        let vars = Vars::default().with("config", &config);
        let table = [
            (
                r#"{"kind":"image","file":{"url":" /a\u002fb ","sha":"x"}}"#,
                Some(("/a/b", Some("x"))),
            ),
            (
                r#"{"kind":"image","file":{"url":"/a","sha":null}}"#,
                Some(("/a", None)),
            ),
            (r#"{"kind":"other","file":{"url":"/a"}}"#, None),
            (r#"{"file":{"url":"/a"}}"#, None),
            (r#"{"kind":"image","file":{"url":7}}"#, None),
            (r#"{"kind":"image","file":{"url":""}}"#, None),
            (r#"{"kind":"image"}"#, None),
            ("7", None),
            ("{", None),
        ];
        for (record, expected) in table {
            let found = wanted_by(&settings, record.as_bytes(), &vars).unwrap();
            let found = found
                .as_ref()
                .map(|file| (file.url.as_str(), file.checksum.as_deref()));
            assert_eq!(found, expected, "{record}");
        }
    }
}
