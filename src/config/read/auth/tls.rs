//! Certificates of our own.

use std::path::{Path, PathBuf};

use crate::{
    config::{auth::Tls, read::values::absolute},
    yaml::{
        fields::Value,
        section::{Section, Takes::File, key},
    },
};

/// `tls`
pub(in crate::config::read) static TLS: Section = Section::new(
    "tls",
    "tls settings",
    "Certificates besides those the machine trusts.",
    &[
        key("client_cert", File)
            .doc(
                "A PEM file with the client's certificate chain, and its private key unless client_key names it \
                 (mTLS).",
            )
            .example("certs/client.pem"),
        key("client_key", File)
            .doc("A PEM file with the client's unencrypted private key.")
            .example("certs/client.key")
            .beside("{ client_cert: certs/client.pem }"),
        key("ca", File)
            .doc("A PEM file of certificates that are trusted besides those of the machine.")
            .example("certs/ca.pem"),
    ],
)
.example("{ ca: certs/ca.pem }");

/// Reads `tls`. The files are looked at when the first request is sent.
pub(in crate::config::read) fn tls(value: Value<'_>, dir: &Path) -> Option<Tls> {
    let fields = value.fields(&TLS)?;
    let file = |key| fields.optional(key, |value| path(value, dir));
    let tls = Tls {
        client_cert: file("client_cert"),
        client_key: file("client_key"),
        ca: file("ca"),
    };
    if let (None, Some(key)) = (fields.value("client_cert"), fields.value("client_key")) {
        return key.refuse("a key alone proves nothing", Some("add client_cert".to_owned()));
    }
    Some(tls)
}

/// A path in the project, absolute.
pub(in crate::config::read) fn path(value: Value<'_>, dir: &Path) -> Option<PathBuf> {
    let text = value.text()?;
    match absolute(dir, text) {
        Some(path) => Some(path),
        None => value.refuse("not a path", None),
    }
}
