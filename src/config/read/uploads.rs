//! `uploads`: files that are larger than a request may be.

use std::{ops::RangeInclusive, path::Path};

use crate::{
    config::{
        read::{
            auth,
            source::is_in_the_open,
            values::{absolute, size},
        },
        uploads::{Prefix, Uploads},
    },
    yaml::{
        fields::Value,
        section::{
            Section,
            Takes::{self, File, Integer, List, Matching, Size},
            key,
        },
    },
};

/// More than any disk.
const SIZE: RangeInclusive<u64> = (1 << 10)..=(1 << 50);

/// Each has a small file of its own.
const JOBS_MAX: u32 = 10_000;

const PREFIX: Takes = Matching(
    r"^(s3|https?)://[^/?#@\\]+/([^?#\\]*/)?$",
    "an s3, https or http address that ends with a slash",
);

/// `uploads`
pub(super) static UPLOADS: Section = Section::new(
    "uploads",
    "uploads",
    "Files that are larger than a request may be: producers send them in pieces (resumable uploads), or have them fetched \
     from where they are. They are checked whole before a record of them is landed. A server with \
     `spool: { ack: lake }` takes none.",
    &[
        key("dir", File)
            .default(".landfall/uploads")
            .doc(
                "The folder they are kept in until they are landed, for one server alone, on a disk like that of `spool`: what \
                 is sent is lost with it.",
            )
            .example("/var/lib/landfall/uploads"),
        key("size", Size)
            .default("64GiB")
            .doc(
                "Most bytes of all files together; one producer has three quarters of them at most. What does not fit is \
                 refused before it is sent.",
            )
            .example("500GiB"),
        key("job_size", Size)
            .default("16GiB")
            .doc("Most bytes of one file, as it is sent; it may be ten times that when it is unpacked. At most `size`.")
            .example("100GiB")
            .beside("{ size: 500GiB }"),
        key("jobs", Integer(1, JOBS_MAX as u64))
            .default("100")
            .doc("Files at the same time that are not landed yet; three quarters of them for one producer at most.")
            .example("20"),
        key("allow", List(&PREFIX))
            .default("[]")
            .doc(
                "Where files may be fetched from: everything below these addresses. Objects on S3 are fetched with the \
                 `storage` options of the lake. Redirects are not followed, and a name that leads to a private address is \
                 refused; an address that is a number is fetched from whatever it is.",
            )
            .example("['s3://bucket/exports/', 'https://files.example.com/exports/']"),
    ],
)
.example("{ allow: ['s3://bucket/exports/'] }");

/// Reads `uploads`; `dir` is the project's folder.
pub(super) fn uploads(value: Value<'_>, dir: &Path) -> Option<Uploads> {
    let fields = value.fields(&UPLOADS)?;
    let usual = Uploads::usual(dir);
    let folder = match fields.value("dir") {
        Some(value) => auth::tls::path(value, dir),
        None => absolute(dir, Uploads::DIR_DEFAULT),
    };
    let bytes_max = fields.optional("size", |value| size(value, SIZE));
    let bytes_max = bytes_max.unwrap_or(usual.bytes_max);
    let job_bytes_max = fields.optional("job_size", |value| size(value, SIZE));
    if let (Some(value), Some(_)) = (
        fields.value("job_size"),
        job_bytes_max.filter(|job| *job > bytes_max),
    ) {
        return value.refuse("one file would not fit into size", Some("raise size".to_owned()));
    }
    Some(Uploads {
        dir: folder?,
        bytes_max,
        // What is not set gives way to what is.
        job_bytes_max: job_bytes_max.unwrap_or(usual.job_bytes_max.min(bytes_max)),
        jobs_max: fields
            .optional("jobs", |value: Value<'_>| value.integer_u32(1..=JOBS_MAX))
            .unwrap_or(usual.jobs_max),
        allow: fields.optional("allow", prefixes).unwrap_or_default(),
    })
}

fn prefixes(value: Value<'_>) -> Option<Vec<Prefix>> {
    let texts = value.text_list()?;
    let read = texts.iter().map(|text| match Prefix::parse(text) {
        Ok(prefix) => {
            if is_in_the_open(prefix.url()) {
                let message = "files are fetched without encryption";
                value
                    .problems
                    .warn(value.key_place, message, Some("use https".to_owned()));
            }
            Some(prefix)
        }
        Err(why) => value.refuse(why, Some("write s3://bucket/exports/".to_owned())),
    });
    let read: Vec<Option<Prefix>> = read.collect();
    read.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Problems, parse::parse};

    fn read(text: &str) -> Result<Uploads, String> {
        let problems = Problems::new("f.yml");
        let dir = Path::new("/srv/shop");
        let uploads = parse(text, &problems).and_then(|node| uploads(Value::root(&problems, &node), dir));
        match problems.finish(uploads) {
            Ok((uploads, _)) => Ok(uploads),
            Err(found) => Err(found.iter().map(|one| format!("{one}\n")).collect()),
        }
    }

    #[test]
    fn every_key_is_read_and_nothing_is_fetched_unless_it_is_allowed() {
        let usual = read("{}").unwrap();
        assert_eq!(usual, Uploads::usual(Path::new("/srv/shop")));
        assert_eq!(usual.allow, []);
        let text =
            "{ dir: /data/u, size: 2GiB, job_size: 1GiB, jobs: 7, allow: ['s3://b/x/', 'https://h/'] }";
        let uploads = Uploads {
            dir: "/data/u".into(),
            bytes_max: 2 << 30,
            job_bytes_max: 1 << 30,
            jobs_max: 7,
            allow: ["s3://b/x/", "https://h/"]
                .map(|text| Prefix::parse(text).unwrap())
                .into(),
        };
        assert_eq!(read(text).unwrap(), uploads);
        assert_eq!(read("{ size: 1MiB }").unwrap().job_bytes_max, 1 << 20);
    }

    #[test]
    fn what_cannot_hold_is_refused() {
        for (text, word) in [
            ("{ size: 1MiB, job_size: 2MiB }", "one file would not fit"),
            ("{ allow: ['s3://b/x'] }", "slash"),
            ("{ allow: ['s3://b/../'] }", "plain"),
            ("{ allow: ['file:///etc/'] }", "spoken"),
            ("{ jobs: 0 }", "jobs"),
        ] {
            let problems = read(text).unwrap_err();
            assert!(problems.contains(word), "{problems}");
        }
    }
}
