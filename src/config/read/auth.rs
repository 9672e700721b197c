//! How requests prove who sends them.

use std::path::Path;

use crate::{
    config::{
        auth::Auth,
        read::values::{header_name, reference, secret, token_word, warn_literal},
        secret::Secret,
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Section,
            Takes::{self, AnyText, Choice, Matching, Text, Word},
            key,
        },
    },
};

/// The maps of `auth`, told apart by `type`.
pub(super) static AUTH: [&Section; 4] = [&NONE, &API_KEY, &BASIC, &BEARER];

static NONE: Section = Section::new(
    "auth_none",
    "auth",
    "No authentication.",
    &[key("type", Word("none")).required().doc("No authentication.")],
)
.example("{ type: none }");

static API_KEY: Section = Section::new(
    "auth_api_key",
    "auth",
    "A key in a header or in the query.",
    &[
        key("type", Word("api_key"))
            .required()
            .doc("A key in a header or in the query."),
        key(
            "in",
            Choice(&[
                ("header", "a header"),
                (
                    "query",
                    "a query parameter, masked wherever the URL is written down",
                ),
            ]),
        )
        .required()
        .doc("Where the key goes.")
        .example("header"),
        key("name", Text)
            .required()
            .doc("The header or query parameter.")
            .example("X-Api-Key"),
        key("value", Takes::Secret)
            .required()
            .doc("The key.")
            .example("'${env:SHOP_KEY}'"),
    ],
)
.example("{ type: api_key, in: header, name: X-Api-Key, value: '${env:SHOP_KEY}' }");

static BASIC: Section = Section::new(
    "auth_basic",
    "auth",
    "User and password (RFC 7617).",
    &[
        key("type", Word("basic")).required().doc("User and password."),
        key("username", Text)
            .required()
            .doc("The user; for APIs that leave the password empty, the key. References are read.")
            .example("'${env:CRM_USER}'"),
        key("password", AnyText)
            .required()
            .doc("The password by reference; may be empty.")
            .example("'${env:CRM_PASSWORD}'"),
    ],
)
.example("{ type: basic, username: '${env:CRM_USER}', password: '${env:CRM_PASSWORD}' }");

static BEARER: Section = Section::new(
    "auth_bearer",
    "auth",
    "A token in the Authorization header (RFC 6750).",
    &[
        key("type", Word("bearer"))
            .required()
            .doc("A token in the Authorization header."),
        key("token", Takes::Secret)
            .required()
            .doc("The token.")
            .example("'${env:SHOP_TOKEN}'"),
        key("scheme", Matching("^[A-Za-z0-9._~+-]+$", "one word"))
            .default("Bearer")
            .doc("The word before the token.")
            .example("Token"),
    ],
)
.example("{ type: bearer, token: '${env:SHOP_TOKEN}' }");

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
        ("none", (&NONE, |_, _| Some(Auth::None))),
        ("api_key", (&API_KEY, api_key)),
        ("basic", (&BASIC, basic)),
        ("bearer", (&BEARER, bearer)),
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
