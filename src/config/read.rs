//! Reads `landfall.yml`, reporting everything that is wrong with it at once.

mod auth;
mod complete;
mod cursor;
mod errors;
mod files;
mod format;
mod gaps;
mod hydrate;
mod incremental;
mod issuer;
mod job;
mod lake;
mod like;
mod maintain;
mod paginate;
mod producers;
mod push;
mod rate;
pub mod reference;
mod request;
pub mod samples;
pub mod schema;
pub mod sections;
mod serve;
mod slice;
mod slot;
mod source;
mod spool;
mod stream;
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hydrate;
#[cfg(test)]
mod tests_parts;
#[cfg(test)]
mod tests_push;
#[cfg(test)]
mod tests_schema;
mod until;
mod uploads;
pub mod values;
mod versions;
mod webhook;

use std::{
    fmt::Write as _,
    fs::File,
    io::{ErrorKind as IoErrorKind, Read as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::{
    config::{Maintain, Project, Source, read::values::absolute},
    yaml::{
        Place, Problem, Problems,
        fields::Value,
        parse::{FILE_BYTES_MAX, parse as parse_yaml, place_of},
    },
};

/// The file that makes a folder a project.
pub const FILE_NAME: &str = "landfall.yml";

/// Least memory a command can work with.
const MEMORY_BYTES_MIN: u64 = 64 * 1024 * 1024;

/// A project and what is worth saying about it.
#[derive(Debug)]
pub struct Loaded {
    /// The project.
    pub project: Project,
    /// Sorted by place. Nothing is wrong, but a secret stands in the file, or is sent without encryption.
    pub warnings: Vec<Problem>,
}

/// Reads the project in the folder `dir`.
///
/// # Errors
/// Everything that is wrong with [`FILE_NAME`], sorted by place; never empty.
pub fn load(dir: &Path) -> Result<Loaded, Vec<Problem>> {
    let text = read_file(&dir.join(FILE_NAME), FILE_NAME)?;
    parse(&text, dir)
}

/// Reads a project file known to the user as `shown`, at most [`FILE_BYTES_MAX`] bytes of it.
///
/// # Errors
/// One problem: there is no such file, it is too large or not UTF-8.
pub fn read_file(path: &Path, shown: &str) -> Result<String, Vec<Problem>> {
    let problem = |place: Place, message: String, hint: Option<&str>| {
        let hint = hint.map(str::to_owned);
        vec![Problem {
            file: shown.to_owned(),
            line: place.line,
            column: place.column,
            message,
            hint,
        }]
    };
    let mut bytes = Vec::new();
    // One byte more than allowed tells a file that is too large from one that just fits.
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let hint = match error.kind() {
            IoErrorKind::NotFound if shown == FILE_NAME => Some("`landfall init` writes one"),
            _ => None,
        };
        return Err(problem(Place::START, format!("cannot be read: {error}"), hint));
    }
    if bytes.len() > FILE_BYTES_MAX {
        let message = format!("the file has more than the {FILE_BYTES_MAX} bytes allowed");
        return Err(problem(Place::START, message, None));
    }
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        let before = String::from_utf8_lossy(&error.as_bytes()[..valid]).into_owned();
        problem(
            place_of(&before, valid),
            "not UTF-8".to_owned(),
            Some("save the file as UTF-8"),
        )
    })
}

/// Reads the text of a project file whose relative paths start at `dir`. Nothing on disk is looked at.
///
/// # Errors
/// Everything that is wrong with it, sorted by place; never empty.
pub fn parse(text: &str, dir: &Path) -> Result<Loaded, Vec<Problem>> {
    let problems = Problems::new(FILE_NAME);
    let node = parse_yaml(text, &problems);
    let project = node.and_then(|node| project(Value::root(&problems, &node), text, dir));
    let (project, warnings) = problems.finish(project)?;
    Ok(Loaded { project, warnings })
}

fn project(value: Value<'_>, text: &str, dir: &Path) -> Option<Project> {
    let fields = value.fields(&sections::PROJECT)?;
    let Some(dir) = absolute(dir, ".") else {
        return value.refuse("the project's folder has no absolute path", None);
    };
    let lake = lake::lake(&fields, &dir);
    let memory_bytes_max = fields
        .optional("memory", |value| values::size(value, MEMORY_BYTES_MIN..=u64::MAX))
        .unwrap_or(Project::MEMORY_BYTES_DEFAULT);
    let maintain = match fields.value("maintain") {
        Some(value) => maintain::maintain(value),
        None => Some(Maintain::DEFAULT),
    };
    let sources = fields.required("sources", |value| {
        let entries = value.entries("the APIs to load, by name")?;
        if entries.is_empty() {
            return value.refuse("at least one source is needed", None);
        }
        let sources: Vec<Source> = entries
            .iter()
            .filter_map(|entry| source::source(value.child(entry), &dir, memory_bytes_max))
            .collect();
        check_contracts(value, &sources);
        Some(sources)
    });
    let serve = match fields.value("serve") {
        Some(value) => serve::serve(value, &dir).map(Some),
        None => Some(None),
    };
    let producers = match fields.value("producers") {
        Some(value) => {
            let tiers = serve
                .as_ref()
                .map(|serve| serve.as_ref().map_or(&[][..], |serve| &serve.tiers));
            producers::producers(value, tiers, &dir)
        }
        None => Some(Vec::new()),
    };
    if let (Some(producers), Some(sources)) = (&producers, &sources) {
        if let Some(value) = fields.value("producers") {
            producers::check_streams(value, producers, sources);
        }
        if let (Some(value), Some(Some(serve))) = (fields.value("serve"), &serve) {
            serve::check(value, serve, producers, sources);
        }
    }
    let credentials_dir = match fields.value("credentials") {
        Some(value) => auth::tls::path(value, &dir),
        None => Some(dir.join(".landfall/credentials")),
    };
    Some(Project {
        lake: lake?,
        memory_bytes_max,
        credentials_dir: credentials_dir?,
        sources: sources?,
        maintain: maintain?,
        serve: serve?,
        producers: producers?,
        config_hash: sha256_hex(text),
        dir,
    })
}

/// A stream owns its contract: drafts of two streams would overwrite each other.
fn check_contracts(value: Value<'_>, sources: &[Source]) {
    let mut known: Vec<(&PathBuf, String)> = Vec::new();
    for stream in sources.iter().flat_map(|source| &source.streams) {
        match known.iter().find(|(path, _)| *path == &stream.contract) {
            Some((_, other)) => {
                let message = format!("{other} and {} share one contract file", stream.name);
                value
                    .problems
                    .add(value.key_place, message, Some("give each its own".to_owned()));
            }
            None => known.push((&stream.contract, stream.name.to_string())),
        }
    }
}

fn sha256_hex(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text.as_bytes()) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
