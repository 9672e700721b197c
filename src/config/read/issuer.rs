//! Whose access tokens are taken.

use std::time::Duration;

use url::Url;

use crate::{
    config::{
        Name,
        producers::Scope,
        read::{
            source::{is_in_the_open, name, web_url},
            values::{DURATION_MAX, duration, json_path},
        },
        serve::{Issuer, SigningAlgorithm},
    },
    json::JsonPath,
    yaml::{
        fields::Value,
        section::{
            Section,
            Takes::{self, Choice, List, Map, Path, Text},
            key,
        },
    },
};

/// Longest life of a token that may be allowed.
const LIFETIME_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// With less, every short outage of an issuer would be one of ours.
const KEYS_TTL_MIN: Duration = Duration::from_secs(10 * 60);

/// One entry of `issuers`.
pub(super) static ISSUER: Section = Section::new(
    "issuer",
    "an issuer",
    "One whose access tokens (JWT, RFC 9068) are taken. Its keys are found by OpenID Connect Discovery, kept, and fetched \
     again when they change; while it cannot be reached, those that are kept count until `keys_ttl` ends.",
    &[
        key("issuer", Takes::Url)
            .required()
            .doc("What `iss` must be, to the letter. Over https, or on this machine.")
            .example("https://login.shop.example/realms/shop"),
        key("audience", List(&Text))
            .required()
            .doc("What `aud` must hold one of: a token for somebody else proves nothing here.")
            .example("[landfall]"),
        key("keys_url", Takes::Url)
            .doc("Where its keys are (JWK Set), if it has no discovery.")
            .example("https://login.shop.example/keys"),
        key("algorithms", List(&ALGORITHM))
            .default("[RS256, PS256, ES256, EdDSA]")
            .doc("How tokens may be signed.")
            .example("[ES256]"),
        key("producer", Path)
            .default("$.sub")
            .doc("The claim that says which producer it is.")
            .example("$.azp"),
        key("producers", Map(&Takes::Name))
            .doc("Producers by what that claim holds. Without it the claim holds the name of the producer.")
            .example("{ 0oa1b2c3: checkout }"),
        key("scopes", Path)
            .doc(
                "The claim that holds scopes, as words in a text or as a list. The producer gets those that are in it and \
                 among its own; without this all of its own.",
            )
            .example("$.scope"),
        key("scope_words", Map(&SCOPE_WORD))
            .doc("What scopes are called in that claim, if not `ingest`, `read` and `admin`.")
            .example("{ 'landfall:write': ingest }")
            .beside("{ scopes: $.scope }"),
        key("lifetime_max", Takes::Duration)
            .default("1h")
            .doc("Longest time from issue to expiry; 1m to 1d. Tokens that live longer are refused.")
            .example("15m"),
        key("skew", Takes::Duration)
            .default("60s")
            .doc("How far its clock may differ from ours; at most 60s.")
            .example("10s"),
        key("keys_ttl", Takes::Duration)
            .default("24h")
            .doc("How long keys are good that cannot be fetched again; at least 10m.")
            .example("6h"),
    ],
)
.example("{ issuer: 'https://login.shop.example', audience: [landfall] }");

const ALGORITHM: Takes = Choice(&[
    ("RS256", "RSA PKCS #1 with SHA-256"),
    ("RS384", "RSA PKCS #1 with SHA-384"),
    ("RS512", "RSA PKCS #1 with SHA-512"),
    ("PS256", "RSA PSS with SHA-256"),
    ("PS384", "RSA PSS with SHA-384"),
    ("PS512", "RSA PSS with SHA-512"),
    ("ES256", "P-256 with SHA-256"),
    ("ES384", "P-384 with SHA-384"),
    ("EdDSA", "Ed25519"),
]);

const SCOPE_WORD: Takes = Choice(&[("ingest", ""), ("read", ""), ("admin", "")]);

/// Reads one entry of `issuers`.
pub(super) fn issuer(value: Value<'_>) -> Option<Issuer> {
    let fields = value.fields(&ISSUER)?;
    let issuer = fields.required("issuer", trusted_url);
    let issuer_text = fields.optional("issuer", Value::text);
    let audience = fields.required("audience", |value| match value.text_list()? {
        none if none.is_empty() => value.refuse("at least one is needed", None),
        audience => Some(audience),
    });
    let lifetime = Duration::from_secs(60)..=LIFETIME_LIMIT;
    let keys_ttl = KEYS_TTL_MIN..=DURATION_MAX;
    let scopes = fields.optional("scopes", claim);
    if let (Some(value), None) = (fields.value("scope_words"), fields.value("scopes")) {
        return value.refuse("no claim holds scopes", Some("add scopes".to_owned()));
    }
    Some(Issuer {
        name: name(value)?,
        keys_url: fields.optional("keys_url", trusted_url),
        algorithms: fields
            .optional("algorithms", algorithms)
            .unwrap_or_else(|| Issuer::ALGORITHMS_DEFAULT.to_vec()),
        producer: match fields.value("producer") {
            Some(value) => claim(value)?,
            None => JsonPath::parse("$.sub").ok()?,
        },
        producers: fields.optional("producers", claimed).unwrap_or_default(),
        scopes,
        scope_words: fields.optional("scope_words", scope_words).unwrap_or_default(),
        lifetime_max: fields
            .optional("lifetime_max", |value| duration(value, lifetime))
            .unwrap_or(Issuer::LIFETIME_MAX_DEFAULT),
        skew: fields
            .optional("skew", |value| duration(value, Duration::ZERO..=Issuer::SKEW_MAX))
            .unwrap_or(Issuer::SKEW_MAX),
        keys_ttl: fields
            .optional("keys_ttl", |value| duration(value, keys_ttl))
            .unwrap_or(Issuer::KEYS_TTL_DEFAULT),
        issuer: issuer?,
        issuer_text: issuer_text?.to_owned(),
        audience: audience?,
    })
}

/// Keys that somebody on the way could replace prove nothing.
fn trusted_url(value: Value<'_>) -> Option<Url> {
    let url = web_url(value, "none are needed")?;
    if is_in_the_open(&url) {
        return value.refuse(
            "keys from there could be replaced on their way",
            Some("use https".to_owned()),
        );
    }
    if url.query().is_some() && value.key == "issuer" || url.fragment().is_some() {
        return value.refuse("has no ? and no #", None);
    }
    Some(url)
}

fn algorithms(value: Value<'_>) -> Option<Vec<SigningAlgorithm>> {
    let items: Vec<Option<SigningAlgorithm>> = value
        .items()?
        .map(|item| item.choice(&SigningAlgorithm::ALL, &[]))
        .collect();
    match items.into_iter().collect::<Option<Vec<_>>>()? {
        none if none.is_empty() => value.refuse("at least one is needed", None),
        algorithms => Some(algorithms),
    }
}

/// Where in a token a claim is: member by member.
fn claim(value: Value<'_>) -> Option<JsonPath> {
    let path = json_path(value)?;
    if path.is_member() {
        return Some(path);
    }
    value.refuse("is not one claim", Some("write names only: $.azp".to_owned()))
}

fn claimed(value: Value<'_>) -> Option<Vec<(String, Name)>> {
    let entries = value.entries("producers by what the claim holds")?;
    let found = entries.iter().map(|entry| {
        let child = value.child(entry);
        match Name::new(child.text()?) {
            Ok(name) => Some((entry.key.clone(), name)),
            Err(error) => child.refuse(error.to_string(), None),
        }
    });
    let found: Vec<Option<(String, Name)>> = found.collect();
    found.into_iter().collect()
}

fn scope_words(value: Value<'_>) -> Option<Vec<(String, Scope)>> {
    let words = Scope::ALL.map(|scope| (scope.as_str(), scope));
    let entries = value.entries("scopes by what they are called")?;
    let found = entries.iter().map(|entry| {
        let child = value.child(entry);
        child.choice(&words, &[]).map(|scope| (entry.key.clone(), scope))
    });
    let found: Vec<Option<(String, Scope)>> = found.collect();
    found.into_iter().collect()
}

/// A token says who issued it, and that says how it is judged.
pub(super) fn check_issuers(value: Value<'_>, issuers: &[(Name, Issuer)]) {
    for (place, (name, issuer)) in issuers.iter().enumerate() {
        let mut before = issuers[..place].iter();
        if let Some((other, _)) = before.find(|(_, other)| other.issuer_text == issuer.issuer_text) {
            let message = format!("{other} and {name} are the same issuer");
            value
                .problems
                .add(value.key_place, message, Some("make them one".to_owned()));
        }
    }
}
