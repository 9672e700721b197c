//! How requests prove who sends them.

mod jwt;
mod oauth2;
mod send;
mod session;
pub(super) mod tls;

use std::path::Path;

use crate::{
    config::{
        auth::Auth,
        read::{
            auth::send::field,
            values::{header_name, reference, secret, text, token_word, warn_literal},
        },
        secret::Secret,
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Section,
            Takes::{self, AnyText, Choice, List, Map, Matching, Tagged, Template, Text, Word},
            key,
        },
    },
};

/// The maps of `auth`, told apart by `type`.
pub(super) static AUTH: [&Section; 12] = [
    &NONE,
    &API_KEY,
    &BASIC,
    &BEARER,
    &oauth2::CLIENT_CREDENTIALS,
    &oauth2::REFRESH_TOKEN,
    &oauth2::PASSWORD,
    &oauth2::JWT_BEARER,
    &jwt::JWT,
    &session::SESSION,
    &SELECT,
    &POOL,
];

/// The maps of a credential that needs no token fetched.
static GIVEN: [&Section; 4] = [&NONE, &API_KEY, &BASIC, &BEARER];

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
    "A key in a header, in the query or in the body.",
    &[
        key("type", Word("api_key"))
            .required()
            .doc("A key in a header, in the query or in the body."),
        key(
            "in",
            Choice(&[
                ("header", "a header"),
                (
                    "query",
                    "a query parameter, masked wherever the URL is written down",
                ),
                ("body", "a field of the JSON or form body"),
            ]),
        )
        .required()
        .doc("Where the key goes.")
        .example("header"),
        key("name", Text)
            .required()
            .doc("The header, query parameter or field; a field within others has dots between the names.")
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

static SELECT: Section = Section::new(
    "auth_select",
    "auth",
    "One of several credentials, chosen by a value of `config`.",
    &[
        key("type", Word("select"))
            .required()
            .doc("One of several credentials."),
        key("by", Template)
            .required()
            .doc("A template over `config` that gives one of the names.")
            .example("'{{ config.auth }}'"),
        key("among", Map(&Tagged(&AUTH)))
            .required()
            .doc("The credentials, by name.")
            .example("{ token: { type: bearer, token: '${env:SHOP_TOKEN}' }, open: { type: none } }"),
    ],
)
.example("{ type: select, by: '{{ config.auth }}', among: { open: { type: none } } }");

static POOL: Section = Section::new(
    "auth_pool",
    "auth",
    "Several credentials used side by side, each within its own rate limit. Some providers forbid it.",
    &[
        key("type", Word("pool"))
            .required()
            .doc("Several credentials used side by side."),
        key("members", List(&Tagged(&AUTH)))
            .required()
            .doc("The credentials.")
            .example(
                "[{ type: bearer, token: '${env:TOKEN_1}' }, { type: bearer, token: '${env:TOKEN_2}' }]",
            ),
    ],
)
.example("{ type: pool, members: [{ type: bearer, token: '${env:TOKEN_1}' }] }");

const PLANNED: [&str; 2] = ["aws_sigv4", "digest"];

type Read = fn(&Fields<'_>, &Path) -> Option<Auth>;

/// Reads `auth`.
pub(super) fn auth(value: Value<'_>, dir: &Path) -> Option<Auth> {
    let choices: [(&str, (&'static Section, Read)); 12] = [
        ("none", (&NONE, |_, _| Some(Auth::None))),
        ("api_key", (&API_KEY, api_key)),
        ("basic", (&BASIC, basic)),
        ("bearer", (&BEARER, bearer)),
        (
            "oauth2_client_credentials",
            (&oauth2::CLIENT_CREDENTIALS, oauth2::client_credentials),
        ),
        (
            "oauth2_refresh_token",
            (&oauth2::REFRESH_TOKEN, oauth2::refresh_token),
        ),
        ("oauth2_password", (&oauth2::PASSWORD, oauth2::password)),
        ("oauth2_jwt_bearer", (&oauth2::JWT_BEARER, oauth2::jwt_bearer)),
        ("jwt", (&jwt::JWT, jwt::signed)),
        ("session", (&session::SESSION, session::session)),
        ("select", (&SELECT, select)),
        ("pool", (&POOL, pool)),
    ];
    let (section, read) = value.tag("type", &choices, &PLANNED)?;
    read(&value.fields(section)?, dir)
}

/// Reads a credential that needs no token fetched.
fn given(value: Value<'_>, dir: &Path) -> Option<Auth> {
    let choices: [(&str, (&'static Section, Read)); 4] = [
        ("none", (&NONE, |_, _| Some(Auth::None))),
        ("api_key", (&API_KEY, api_key)),
        ("basic", (&BASIC, basic)),
        ("bearer", (&BEARER, bearer)),
    ];
    let (section, read) = value.tag("type", &choices, &[])?;
    read(&value.fields(section)?, dir)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Header,
    Query,
    Body,
}

const IN: [(&str, In); 3] = [("header", In::Header), ("query", In::Query), ("body", In::Body)];

fn api_key(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let place = fields.required("in", |value| value.choice(&IN, &[]));
    let name = fields.required("name", |value| {
        let name = value.text()?;
        match place {
            Some(In::Header) => header_name(value, name),
            Some(In::Body) => field(value).map(|_| name.to_owned()),
            Some(In::Query) | None => Some(name.to_owned()),
        }
    });
    let key = fields.required("value", |value| secret(value, dir));
    let (name, value) = (name?, key?);
    Some(match place? {
        In::Header => Auth::ApiKeyHeader { name, value },
        In::Query => Auth::ApiKeyQuery { name, value },
        In::Body => Auth::ApiKeyBody {
            field: name.split('.').map(str::to_owned).collect(),
            value,
        },
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

fn select(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let by = fields.required("by", |value| text(value, dir, &["config"]));
    let among = fields.required("among", |value| {
        let entries = value.entries("the credentials, by name")?;
        if entries.is_empty() {
            return value.refuse("at least one credential is needed", None);
        }
        let among: Vec<(String, Auth)> = entries
            .iter()
            .filter_map(|entry| Some((entry.key.clone(), auth(value.child(entry), dir)?)))
            .collect();
        (among.len() == entries.len()).then_some(among)
    });
    Some(Auth::Select {
        by: by?,
        among: among?,
    })
}

fn pool(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let members = fields.required("members", |value| {
        let items: Vec<Value<'_>> = value.items()?.collect();
        if items.is_empty() {
            return value.refuse("at least one credential is needed", None);
        }
        let count = items.len();
        let members: Vec<Auth> = items.into_iter().filter_map(|item| auth(item, dir)).collect();
        (members.len() == count).then_some(members)
    });
    members.map(Auth::Pool)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::config::read::parse;

    /// What is made of `auth`, or what is wrong with it.
    fn read(auth: &str) -> String {
        let text = format!(
            "lake: ./lake
sources:
  shop:
    base_url: https://shop.example
    auth: {auth}
    streams: {{ orders: {{ request: {{ path: /o }}, table: {{ keys: [id] }} }} }}
"
        );
        match parse(&text, Path::new("/srv/shop")) {
            Ok(loaded) => {
                let mut said = format!("{:?}", loaded.project.sources[0].auth);
                for warning in loaded.warnings {
                    let _ = write!(said, "\nwarning {warning}");
                }
                said
            }
            Err(problems) => problems.iter().map(|problem| format!("{problem}\n")).collect(),
        }
    }

    #[test]
    fn r051_every_problem_of_a_credential_is_reported_at_once() {
        insta::assert_snapshot!(read("{ type: oauth2_client_credentials, token_url: 'ftp://x', client_auth: basic, names: { id: x }, send: { in: query } }"), @r#"
        landfall.yml:5:5: missing key "client_id" in "auth"
        landfall.yml:5:57: token_url: only http and https are spoken
        landfall.yml:5:81: client_auth: basic authentication needs client_id
        landfall.yml:5:101: id: "id" is not a field of a token request
          hint: known fields: grant_type, client_id, client_secret, refresh_token, username, password, assertion, scope
        landfall.yml:5:106: missing key "name" in "send"
        "#);
        insta::assert_snapshot!(read("{ type: oauth2_jwt_bearer, token_url: 'https://u:hunter2@x.example', assertion: { algorithm: RS1, claims: { iat: 1, sub: '{{ state.x }}' } } }"), @r#"
        landfall.yml:5:49: token_url: credentials do not belong in the URL
          hint: use client_id and client_secret, with client_auth: basic
        landfall.yml:5:80: missing key "key" in "assertion"
        landfall.yml:5:104: algorithm: "RS1" is not allowed
          hint: allowed: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA
        landfall.yml:5:124: iat: is set as the token is signed
        landfall.yml:5:132: sub: "state" is not a variable known here
          hint: known here: config, jwt
        "#);
        insta::assert_snapshot!(read("{ type: session, login: { path: /login }, login_auth: { type: jwt }, token: 'cookie:' }"), @r#"
        landfall.yml:5:73: type: "jwt" is not allowed
          hint: allowed: none, api_key, basic, bearer
        landfall.yml:5:87: token: not a place in an answer
          hint: write $.token, header:NAME or cookie:NAME
        "#);
        insta::assert_snapshot!(read("{ type: pool, members: [] }"), @"landfall.yml:5:34: members: at least one credential is needed");
        insta::assert_snapshot!(read("{ type: select, by: '{{ slice.x }}', among: { a: { type: none, b: 1 } } }"), @r#"
        landfall.yml:5:31: by: "slice" is not a variable known here
          hint: known here: config
        landfall.yml:5:74: unknown key "b"
          hint: known keys: type
        "#);
        insta::assert_snapshot!(read("{ type: api_key, in: body, name: auth..key, value: '${env:K}' }"), @"
        landfall.yml:5:44: name: a field has names with dots between them
          hint: write auth.key
        ");
    }

    #[test]
    fn r054_secrets_in_the_file_and_open_endpoints_are_warned_of_unseen() {
        let said = read(
            "{ type: oauth2_refresh_token, token_url: 'http://login.example/t', client_id: c, client_secret: hunter2, refresh_token: hunter3, params: { api_key: hunter4 } }",
        );
        assert!(!said.contains("hunter"), "{said}");
        let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("warning")).collect();
        insta::assert_snapshot!(warnings.join("\n"), @"
        warning landfall.yml:5:52: token_url: credentials are sent without encryption
        warning landfall.yml:5:107: client_secret: a secret is written in the file
        warning landfall.yml:5:131: refresh_token: a secret is written in the file
        warning landfall.yml:5:159: api_key: a secret is written in the file
        ");
        let said = read(
            "{ type: oauth2_refresh_token, token_url: 'http://localhost/t', refresh_token: '${exec:vault read t}' }",
        );
        assert!(
            !said.contains("warning") && said.contains("${exec:vault}"),
            "{said}"
        );
    }

    #[test]
    fn r051_a_token_goes_where_it_is_told() {
        let sent = |send: &str| {
            let auth = read(&format!(
                "{{ type: jwt, algorithm: HS256, key: '${{env:K}}', send: {send} }}"
            ));
            auth.split_once("send: ")
                .map(|(_, rest)| rest.to_owned())
                .unwrap_or(auth)
        };
        insta::assert_snapshot!(sent("{ scheme: Token }"), @r#"Credential { to: Header("authorization"), scheme: "Token" } }"#);
        insta::assert_snapshot!(sent("{ name: X-Key }"), @r#"Credential { to: Header("x-key"), scheme: "" } }"#);
        insta::assert_snapshot!(sent("{ in: body, name: auth.token }"), @r#"Credential { to: BodyField(["auth", "token"]), scheme: "" } }"#);
        let cookie = read("{ type: session, login: { path: /login }, token: 'cookie:sid' }");
        assert!(cookie.contains(r#"Header("cookie"), scheme: """#), "{cookie}");
    }
}
