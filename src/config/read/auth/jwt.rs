//! Tokens signed here.

use std::{path::Path, time::Duration};

use crate::{
    config::{
        auth::{Auth, Credential, Jwt},
        read::{
            auth::send::{SEND, send},
            values::{DURATION_MAX, duration, secret, text},
        },
        text::Text,
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Key, Section,
            Takes::{self, Boolean, Choice, Map, Template, Word},
            key,
        },
    },
};

/// Clocks differ: a token of a shorter life could be over before it arrives.
const LIFETIME_MIN: Duration = Duration::from_secs(30);

/// What the templates of claims and headers know.
const KNOWN: [&str; 2] = ["config", "jwt"];

/// Claims and headers that are set as the token is signed.
const OURS: [&str; 4] = ["iat", "nbf", "exp", "alg"];

const ALGORITHMS: [(&str, &str); 12] = [
    ("HS256", "HMAC with SHA-256"),
    ("HS384", "HMAC with SHA-384"),
    ("HS512", "HMAC with SHA-512"),
    ("RS256", "RSA PKCS #1 with SHA-256"),
    ("RS384", "RSA PKCS #1 with SHA-384"),
    ("RS512", "RSA PKCS #1 with SHA-512"),
    ("PS256", "RSA PSS with SHA-256"),
    ("PS384", "RSA PSS with SHA-384"),
    ("PS512", "RSA PSS with SHA-512"),
    ("ES256", "P-256 with SHA-256"),
    ("ES384", "P-384 with SHA-384"),
    ("EdDSA", "Ed25519"),
];

static SIGNED: [Key; 6] = [
    key("algorithm", Choice(&ALGORITHMS))
        .required()
        .doc("How the token is signed.")
        .example("RS256"),
    key("key", Takes::Secret)
        .required()
        .doc("The secret of an HS algorithm, else an unencrypted private key in PEM.")
        .example("'${file:app.pem}'"),
    key("key_base64", Boolean)
        .default("false")
        .doc("Whether the key is written in base64.")
        .example("true"),
    key("jwt_headers", Map(&Template))
        .doc("Headers of the token besides `alg` and `typ`. Templates know `config`.")
        .example("{ kid: '{{ config.key_id }}' }"),
    key("claims", Map(&Template))
        .doc(
            "Claims of the token; `iat`, `nbf` and `exp` are set as it is signed. Templates know `config`, and \
             `jwt.id`, which is new in each token.",
        )
        .example("{ iss: '{{ config.app_id }}', aud: 'https://auth.example', jti: '{{ jwt.id }}' }"),
    key("lifetime", Takes::Duration)
        .default("20m")
        .doc("From issue to expiry. Issue is set 10 s back, as clocks differ.")
        .example("9m"),
];

/// `type: jwt`
pub(super) static JWT: Section = Section::new(
    "auth_jwt",
    "auth",
    "A token signed here (RFC 7519), sent as it is and replaced before it expires.",
    &[
        key("type", Word("jwt")).required().doc("A token signed here."),
        key("send", Takes::Section(&SEND))
            .doc("Where the token is sent; by default `Authorization: Bearer TOKEN`."),
    ],
)
.shared(&[&SIGNED])
.example("{ type: jwt, algorithm: RS256, key: '${file:app.pem}' }");

/// `assertion`
pub(super) static ASSERTION: Section = Section::new(
    "auth_assertion",
    "an assertion",
    "A token signed here that asks for an access token.",
    &[],
)
.shared(&[&SIGNED])
.example("{ algorithm: RS256, key: '${file:app.pem}' }");

/// Reads `type: jwt`.
pub(super) fn signed(fields: &Fields<'_>, dir: &Path) -> Option<Auth> {
    let jwt = jwt(fields, dir);
    let send = send(fields, Credential::bearer());
    Some(Auth::Jwt {
        jwt: Box::new(jwt?),
        send: send?,
    })
}

/// Reads `assertion`.
pub(super) fn assertion(value: Value<'_>, dir: &Path) -> Option<Jwt> {
    jwt(&value.fields(&ASSERTION)?, dir)
}

fn jwt(fields: &Fields<'_>, dir: &Path) -> Option<Jwt> {
    let words = ALGORITHMS.map(|(word, _)| (word, word));
    let algorithm = fields.required("algorithm", |value| value.choice(&words, &[]));
    let key = fields.required("key", |value| secret(value, dir));
    let key_base64 = fields.optional("key_base64", Value::boolean).unwrap_or(false);
    let headers = fields.optional("jwt_headers", |value| texts(value, dir));
    let claims = fields.optional("claims", |value| texts(value, dir));
    let lifetime = fields.optional("lifetime", |value| duration(value, LIFETIME_MIN..=DURATION_MAX));
    Some(Jwt {
        algorithm: algorithm?.to_owned(),
        key: key?,
        key_base64,
        headers: headers.unwrap_or_default(),
        claims: claims.unwrap_or_default(),
        lifetime: lifetime.unwrap_or(Jwt::LIFETIME_DEFAULT),
    })
}

fn texts(value: Value<'_>, dir: &Path) -> Option<Vec<(String, Text)>> {
    let entries = value.entries("names with values")?;
    let mut texts = Vec::new();
    for entry in entries {
        let child = value.child(entry);
        if OURS.contains(&entry.key.as_str()) {
            child.refuse::<()>("is set as the token is signed", None);
            continue;
        }
        if let Some(text) = text(child, dir, &KNOWN) {
            texts.push((entry.key.clone(), text));
        }
    }
    (texts.len() == entries.len()).then_some(texts)
}
