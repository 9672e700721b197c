//! Tokens from a login request.

use std::{path::Path, time::Duration};

use crate::{
    config::{
        auth::{Auth, Credential, Session, SessionToken},
        read::{
            auth::{
                GIVEN, given,
                send::{SEND, send},
            },
            request,
            values::{DURATION_MAX, duration, header_name, json_path},
        },
        request::TokenSlot,
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Section,
            Takes::{self, Matching, Tagged, Word},
            key,
        },
    },
};

/// `type: session`
pub(super) static SESSION: Section = Section::new(
    "auth_session",
    "auth",
    "A token from a login request, fetched again when its lifetime is over or the server refuses it.",
    &[
        key("type", Word("session"))
            .required()
            .doc("A token from a login request."),
        key("login", Takes::Section(&request::REQUEST))
            .required()
            .doc("The login request; its templates know `config`."),
        key("login_auth", Tagged(&GIVEN))
            .default("{ type: none }")
            .doc("How the login request proves who sends it.")
            .example("{ type: basic, username: '${env:CRM_USER}', password: '${env:CRM_PASSWORD}' }"),
        key(
            "token",
            Matching("^(\\$|header:.|cookie:.)", "a JSONPath, header:NAME or cookie:NAME"),
        )
        .required()
        .doc("Where the answer holds the token: a JSONPath into the body, `header:NAME` or `cookie:NAME`.")
        .example("$.token")
        .more(&["header:X-Session", "cookie:sid"]),
        key("lifetime", Takes::Duration)
            .doc("How long a token is used. Without it until the server refuses it.")
            .example("30m"),
        key("send", Takes::Section(&SEND)).doc(
            "Where the token is sent; by default `Authorization: Bearer TOKEN`, and a cookie as the cookie it came in.",
        ),
    ],
)
.example(
    "{ type: session, login: { method: POST, path: /login }, login_auth: { type: basic, username: loader, password: \
     '${env:CRM_PASSWORD}' }, token: $.token }",
);

/// Reads `type: session`.
pub(super) fn session(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let login = fields.required("login", |value| request::request(value, dir, &["config"]));
    let login_auth = match fields.value("login_auth") {
        Some(value) => given(value, dir),
        None => Some(Auth::None),
    };
    let token = fields.required("token", token);
    let lifetime = fields.optional("lifetime", |value| {
        duration(value, Duration::from_secs(1)..=DURATION_MAX)
    });
    let default = match token {
        Some(SessionToken::Cookie(_)) => Credential {
            to: TokenSlot::Header("cookie".to_owned()),
            scheme: String::new(),
        },
        _ => Credential::bearer(),
    };
    let send = send(fields, default);
    Some(Auth::Session(Box::new(Session {
        login: login?,
        login_auth: login_auth?,
        token: token?,
        lifetime,
        send: send?,
    })))
}

fn token(value: Value<'_>) -> Option<SessionToken> {
    let text = value.text()?;
    match text.split_once(':') {
        Some(("header", name)) => header_name(value, name).map(SessionToken::Header),
        Some(("cookie", name)) if !name.is_empty() => Some(SessionToken::Cookie(name.to_owned())),
        _ if text.starts_with('$') => json_path(value).map(SessionToken::Body),
        _ => {
            let hint = "write $.token, header:NAME or cookie:NAME".to_owned();
            value.refuse("not a place in an answer", Some(hint))
        }
    }
}
