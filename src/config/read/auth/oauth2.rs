//! Access tokens from a token endpoint.

use std::{path::Path, time::Duration};

use url::Url;

use crate::{
    config::{
        auth::{Auth, ClientAuth, Credential, Grant, OAuth2, TokenEncoding},
        read::{
            auth::{
                jwt::{ASSERTION, assertion},
                send::{SEND, send},
            },
            source::{is_in_the_open, web_url},
            values::{DURATION_MAX, duration, headers, json_path, params, reference, secret},
        },
        secret::Secret,
    },
    json::JsonPath,
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Key, Rule, Section,
            Takes::{self, Choice, List, Map, Reference, Text, Word},
            key,
        },
    },
};

/// Fields of token requests that may be renamed.
const FIELDS: [&str; 8] = [
    "grant_type",
    "client_id",
    "client_secret",
    "refresh_token",
    "username",
    "password",
    "assertion",
    "scope",
];

/// What every grant has.
static COMMON: [Key; 15] = [
    key("token_url", Takes::Url)
        .required()
        .doc("The token endpoint; may be of another origin than the API.")
        .example("https://login.shop.example/oauth/token"),
    key("client_id", Text)
        .doc("The client's id. References are read.")
        .example("'${env:SHOP_CLIENT_ID}'"),
    key("client_secret", Takes::Secret)
        .doc("The client's secret.")
        .example("'${env:SHOP_CLIENT_SECRET}'"),
    key(
        "client_auth",
        Choice(&[
            ("body", "fields of the token request"),
            ("basic", "HTTP Basic, as RFC 6749 section 2.3.1 has it"),
        ]),
    )
    .default("body")
    .doc("How the client's id and secret are sent.")
    .example("basic")
    .beside("{ client_id: landfall }"),
    key("scopes", List(&Text))
        .doc("What the token is asked to be good for.")
        .example("[orders.read, customers.read]"),
    key("params", Map(&Reference))
        .doc("Further fields of the token request. One with the name of a field of ours replaces it.")
        .example("{ audience: 'https://api.shop.example' }"),
    key("names", Map(&Text))
        .doc(
            "Other names for the fields grant_type, client_id, client_secret, refresh_token, username, password, \
             assertion and scope.",
        )
        .example("{ client_id: clientId }"),
    key("headers", Map(&Reference))
        .doc("Headers of the token request.")
        .example("{ X-Tenant: '${env:TENANT}' }"),
    key(
        "encoding",
        Choice(&[
            ("form", "a form, as RFC 6749 has it"),
            ("json", "a JSON object"),
            (
                "query",
                "parameters of the URL, without a body; only for a server that takes nothing else, for URLs are written down on their way",
            ),
        ]),
    )
    .default("form")
    .doc("How the token request is written.")
    .example("json"),
    key("access_token_path", Takes::Path)
        .default("$.access_token")
        .doc("Where the answer holds the access token.")
        .example("$.data.token"),
    key("expires_path", Takes::Path)
        .default("$.expires_in")
        .doc(
            "Where the answer holds the token's lifetime in seconds, or the moment it expires: RFC 3339, a date and \
             time in UTC, or seconds or milliseconds since 1970.",
        )
        .example("$.data.expires_at"),
    key("refresh_token_path", Takes::Path)
        .default("$.refresh_token")
        .doc("Where the answer holds a new refresh token.")
        .example("$.data.refresh_token"),
    key("lifetime_default", Takes::Duration)
        .default("5m")
        .doc("The lifetime of a token whose answer says nothing that can be one.")
        .example("1h"),
    key("refresh_early", Takes::Duration)
        .default("60s")
        .doc("A token is renewed this long before it expires, but never in the first half of its life.")
        .example("2m"),
    key("send", Takes::Section(&SEND))
        .doc("Where the access token is sent; by default `Authorization: Bearer TOKEN`."),
];

/// `type: oauth2_client_credentials`
pub(super) static CLIENT_CREDENTIALS: Section = Section::new(
    "auth_oauth2_client_credentials",
    "auth",
    "OAuth 2.0 client credentials (RFC 6749 section 4.4): an access token for the client itself.",
    &[key("type", Word("oauth2_client_credentials"))
        .required()
        .doc("OAuth 2.0 client credentials.")],
)
.shared(&[&COMMON])
.rules(&[Rule::AtLeastOne(&["client_id", "params"])])
.example(
    "{ type: oauth2_client_credentials, token_url: https://login.shop.example/oauth/token, client_id: landfall, \
     client_secret: '${env:SHOP_CLIENT_SECRET}' }",
);

/// `type: oauth2_refresh_token`
pub(super) static REFRESH_TOKEN: Section = Section::new(
    "auth_oauth2_refresh_token",
    "auth",
    "OAuth 2.0 refresh token (RFC 6749 section 6). A new refresh token in an answer is kept in the folder \
     `credentials` of the project before it is used.",
    &[
        key("type", Word("oauth2_refresh_token"))
            .required()
            .doc("OAuth 2.0 refresh token."),
        key("refresh_token", Takes::Secret)
            .required()
            .doc("The refresh token the user once granted. Another one written here wins over one that was kept.")
            .example("'${env:SHOP_REFRESH_TOKEN}'"),
    ],
)
.shared(&[&COMMON])
.example(
    "{ type: oauth2_refresh_token, token_url: https://login.shop.example/oauth/token, client_id: landfall, \
     refresh_token: '${env:SHOP_REFRESH_TOKEN}' }",
);

/// `type: oauth2_password`
pub(super) static PASSWORD: Section = Section::new(
    "auth_oauth2_password",
    "auth",
    "OAuth 2.0 with a user's password (RFC 6749 section 4.3), for APIs that know nothing better.",
    &[
        key("type", Word("oauth2_password"))
            .required()
            .doc("OAuth 2.0 with a user's password."),
        key("username", Text)
            .required()
            .doc("The user. References are read.")
            .example("'${env:CRM_USER}'"),
        key("password", Takes::Secret)
            .required()
            .doc("The password.")
            .example("'${env:CRM_PASSWORD}'"),
    ],
)
.shared(&[&COMMON])
.example(
    "{ type: oauth2_password, token_url: https://login.crm.example/token, username: loader, password: \
     '${env:CRM_PASSWORD}' }",
);

/// `type: oauth2_jwt_bearer`
pub(super) static JWT_BEARER: Section = Section::new(
    "auth_oauth2_jwt_bearer",
    "auth",
    "OAuth 2.0 JWT bearer grant (RFC 7523): a signed assertion asks for the access token.",
    &[
        key("type", Word("oauth2_jwt_bearer"))
            .required()
            .doc("OAuth 2.0 JWT bearer grant."),
        key("assertion", Takes::Section(&ASSERTION))
            .required()
            .doc("What is signed, and how."),
    ],
)
.shared(&[&COMMON])
.example(
    "{ type: oauth2_jwt_bearer, token_url: https://login.shop.example/token, assertion: { algorithm: RS256, key: \
     '${file:app.pem}' } }",
);

/// Reads `type: oauth2_client_credentials`.
pub(super) fn client_credentials(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let known = ["client_id", "params"]
        .iter()
        .any(|key| fields.value(key).is_some());
    if !known {
        fields.missing("\"client_id\"");
    }
    oauth2(fields, dir, known.then_some(Grant::ClientCredentials))
}

/// Reads `type: oauth2_refresh_token`.
pub(super) fn refresh_token(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let token = fields.required("refresh_token", |value| secret(value, dir));
    oauth2(fields, dir, token.map(Grant::RefreshToken))
}

/// Reads `type: oauth2_password`.
pub(super) fn password(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let username = fields.required("username", |value| text_reference(value, dir));
    let password = fields.required("password", |value| secret(value, dir));
    let grant = username
        .zip(password)
        .map(|(username, password)| Grant::Password { username, password });
    oauth2(fields, dir, grant)
}

/// Reads `type: oauth2_jwt_bearer`.
pub(super) fn jwt_bearer(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let jwt = fields.required("assertion", |value| assertion(value, dir));
    oauth2(fields, dir, jwt.map(|jwt| Grant::JwtBearer(Box::new(jwt))))
}

fn oauth2(fields: &Fields<'_>, dir: &Path, grant: Option<Grant>) -> Option<Auth> {
    let path = |key, default| match fields.value(key) {
        Some(value) => json_path(value),
        None => JsonPath::parse(default).ok(),
    };
    let wait = |key, default| match fields.value(key) {
        Some(value) => duration(value, Duration::from_secs(1)..=DURATION_MAX),
        None => Some(default),
    };
    let token_url = fields.required("token_url", token_url);
    let client_id = fields.optional("client_id", |value| text_reference(value, dir));
    let client_secret = fields.optional("client_secret", |value| secret(value, dir));
    let client_auth = fields.optional("client_auth", |value| {
        let auth = value.choice(&[("body", ClientAuth::Body), ("basic", ClientAuth::Basic)], &[])?;
        if auth == ClientAuth::Basic && fields.value("client_id").is_none() {
            return value.refuse("basic authentication needs client_id", None);
        }
        Some(auth)
    });
    let encoding = fields.optional("encoding", |value| {
        let encodings = [
            ("form", TokenEncoding::Form),
            ("json", TokenEncoding::Json),
            ("query", TokenEncoding::Query),
        ];
        value.choice(&encodings, &[])
    });
    let scopes = fields.optional("scopes", Value::text_list);
    let params = fields.optional("params", |value| params(value, dir));
    let names = fields.optional("names", names);
    let headers = fields.optional("headers", |value| headers(value, dir));
    let access_token = path("access_token_path", "$.access_token");
    let expires = path("expires_path", "$.expires_in");
    let refresh_token = path("refresh_token_path", "$.refresh_token");
    let lifetime_default = wait("lifetime_default", OAuth2::LIFETIME_DEFAULT);
    let refresh_early = wait("refresh_early", OAuth2::REFRESH_EARLY_DEFAULT);
    let send = send(fields, Credential::bearer());
    Some(Auth::OAuth2(Box::new(OAuth2 {
        grant: grant?,
        token_url: token_url?,
        client_id,
        client_secret,
        client_auth: client_auth.unwrap_or(ClientAuth::Body),
        scopes: scopes.unwrap_or_default(),
        params: params.unwrap_or_default(),
        names: names.unwrap_or_default(),
        headers: headers.unwrap_or_default(),
        encoding: encoding.unwrap_or(TokenEncoding::Form),
        access_token: access_token?,
        expires: expires?,
        refresh_token: refresh_token?,
        lifetime_default: lifetime_default?,
        refresh_early: refresh_early?,
        send: send?,
    })))
}

/// What is no secret, but may come from outside the file.
fn text_reference(value: Value<'_>, dir: &Path) -> Option<Secret> {
    value.text()?;
    reference(value, dir)
}

fn token_url(value: Value<'_>) -> Option<Url> {
    let url = web_url(value, "use client_id and client_secret, with client_auth: basic")?;
    if is_in_the_open(&url) {
        value.problems.warn(
            value.node.place,
            "token_url: credentials are sent without encryption",
            Some("use https".to_owned()),
        );
    }
    Some(url)
}

fn names(value: Value<'_>) -> Option<Vec<(String, String)>> {
    let entries = value.entries("other names for fields")?;
    let mut names = Vec::new();
    for entry in entries {
        let child = value.child(entry);
        if !FIELDS.contains(&entry.key.as_str()) {
            let hint = format!("known fields: {}", FIELDS.join(", "));
            child.refuse::<()>(
                format!("{} is not a field of a token request", quoted(&entry.key)),
                Some(hint),
            );
            continue;
        }
        if let Some(name) = child.text() {
            names.push((entry.key.clone(), name.to_owned()));
        }
    }
    (names.len() == entries.len()).then_some(names)
}
