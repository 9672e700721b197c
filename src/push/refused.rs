//! Records that were not taken, kept with the reasons.

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::error::{Error, ErrorKind, Result};

/// One record that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where it begins in its file, in bytes, unpacked.
    pub at: u64,
    /// Why, for programs.
    pub code: String,
    /// Why, in words.
    pub detail: String,
    /// Its bytes.
    pub record: Vec<u8>,
}

/// A file of JSON Lines: one record with its reason each. Made when there is the first; appended to if it is there.
#[derive(Debug)]
pub struct RefusedFile {
    path: PathBuf,
    file: Option<File>,
    count: u64,
}

#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    at: u64,
    code: &'a str,
    detail: &'a str,
    record: Shown<'a>,
}

/// A record as it is, or as text where it is no JSON.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Json(&'a RawValue),
    Text(String),
}

impl RefusedFile {
    /// The file at `path`, which need not be there.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            file: None,
            count: 0,
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds `refusals` of the file called `name`.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] if it cannot be written.
    pub fn add(&mut self, name: &str, refusals: &[Refusal]) -> Result<()> {
        if refusals.is_empty() {
            return Ok(());
        }
        let mut text = Vec::new();
        for refusal in refusals {
            let record = match serde_json::from_slice::<&RawValue>(&refusal.record) {
                // One record a line: an array may have been printed over many.
                Ok(raw) if !refusal.record.contains(&b'\n') => Shown::Json(raw),
                _ => Shown::Text(String::from_utf8_lossy(&refusal.record).into_owned()),
            };
            let line = Line {
                file: name,
                at: refusal.at,
                code: &refusal.code,
                detail: &refusal.detail,
                record,
            };
            serde_json::to_writer(&mut text, &line).map_err(|source| {
                Error::new(ErrorKind::Internal, "write refused record").caused_by(source)
            })?;
            text.push(b'\n');
        }
        let unwritten = |source| {
            Error::new(ErrorKind::Unavailable, "write refused records")
                .with("file", self.path.display())
                .caused_by(source)
        };
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let mut options = OpenOptions::new();
                options.create(true).append(true);
                // Whoever may read the records need not be everybody.
                #[cfg(unix)]
                std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
                self.file.insert(options.open(&self.path).map_err(unwritten)?)
            }
        };
        file.write_all(&text).map_err(unwritten)?;
        self.count += refusals.len() as u64;
        Ok(())
    }
}
