//! How requests prove who sends them.

use std::path::Path;

use crate::{
    config::{
        auth::Auth,
        read::{
            sections,
            values::{header_name, reference, secret, token_word, warn_literal},
        },
        secret::Secret,
    },
    yaml::fields::{Fields, Section, Value},
};

const PLANNED: [&str; 7] = [
    "oauth2_client_credentials",
    "oauth2_refresh_token",
    "oauth2",
    "jwt",
    "session",
    "aws_sigv4",
    "digest",
];

/// Reads `auth`.
pub(super) fn auth(value: Value<'_>, dir: &Path) -> Option<Auth> {
    type Read = fn(&Fields<'_>, &Path) -> Option<Auth>;
    let choices: [(&str, (&'static Section, Read)); 4] = [
        ("none", (&sections::AUTH_NONE, |_, _| Some(Auth::None))),
        ("api_key", (&sections::AUTH_API_KEY, api_key)),
        ("basic", (&sections::AUTH_BASIC, basic)),
        ("bearer", (&sections::AUTH_BEARER, bearer)),
    ];
    let (section, read) = value.tag("type", &choices, &PLANNED)?;
    read(&value.fields(section)?, dir)
}

fn api_key(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let in_header = fields.required("in", |value| {
        value.choice(&[("header", true), ("query", false)], &[])
    });
    let name = fields.required("name", |value| {
        let name = value.text()?;
        if in_header == Some(true) {
            header_name(value, name)
        } else {
            Some(name.to_owned())
        }
    });
    let key = fields.required("value", |value| secret(value, dir));
    let (name, value) = (name?, key?);
    Some(if in_header? {
        Auth::ApiKeyHeader { name, value }
    } else {
        Auth::ApiKeyQuery { name, value }
    })
}

fn basic(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let username = fields.required("username", |value| {
        value.text()?;
        reference(value, dir)
    });
    let password = fields.required("password", |value| match value.any_text()? {
        "" => Some(Secret::literal("")),
        _ => secret(value, dir),
    });
    let (username, password) = (username?, password?);
    // With an empty password the user name is the key.
    if let (false, true, Some(value)) = (
        username.is_reference(),
        password == Secret::literal(""),
        fields.value("username"),
    ) {
        warn_literal(value);
    }
    Some(Auth::Basic { username, password })
}

fn bearer(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let token = fields.required("token", |value| secret(value, dir));
    let scheme = match fields.value("scheme") {
        Some(value) => token_word(value),
        None => Some("Bearer".to_owned()),
    };
    Some(Auth::Bearer {
        scheme: scheme?,
        token: token?,
    })
}
