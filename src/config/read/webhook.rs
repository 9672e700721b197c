//! `webhook`

pub(super) mod routes;
mod signed;

use std::{path::Path, time::Duration};

use crate::{
    config::{
        Name, parse_timestamp,
        read::{
            paginate::place,
            values::{duration, header_name, one_line, secret},
            webhook::{
                routes::{ROUTES, routes},
                signed::{HMAC, hmac},
            },
        },
        request::Place,
        webhook::{Scheme, Webhook, WebhookSecret},
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Key, Section,
            Takes::{self, AnyText, Either, Map, Matching, Text, Word},
            key,
        },
    },
};

/// A request is not believed for longer than this, whatever the clocks say.
const TOLERANCE_MAX: Duration = Duration::from_secs(24 * 3600);

/// The maps of `webhook`, told apart by `scheme`.
pub(super) static WEBHOOK: [&Section; 8] = [
    &STANDARD_WEBHOOKS,
    &GITHUB,
    &STRIPE,
    &SHOPIFY,
    &SLACK,
    &HMAC,
    &SHARED_SECRET,
    &NONE,
];

/// One secret, in short or at length.
static SECRET_FORM: Takes = Either(&[Takes::Secret, Takes::Section(&SECRET)]);

const SECRETS: Key = key("secrets", Map(&SECRET_FORM))
.required()
.doc(
    "What requests are proved with, by names of your own: logs say which one it was. At most 8. While a secret is \
         replaced there are two.",
)
.example("{ main: '${env:HOOK_SECRET}' }")
.more(&["{ '2026-11': '${env:HOOK_SECRET}', '2026-05': { value: '${env:HOOK_SECRET_OLD}', until: '2026-12-01T00:00:00Z' } }"]);

const TOLERANCE: Key = key("tolerance", Takes::Duration)
    .default("5m")
    .doc("How far the moment of signing may be from now, before or after; at most 1d. A request of another moment is refused.")
    .example("10m");

const EVENT_ID: Key = key("event_id", Takes::Place)
    .doc("Where a request holds the id of its event, by which a repeat is known.")
    .example("$.id")
    .more(&["header:X-Event-Id"]);

const EVENT_TYPE: Key = key("event_type", Takes::Place)
    .doc("Where it holds the type of its event.")
    .example("$.event")
    .more(&["header:X-Event-Type"]);

/// What every scheme without places of its own says of an event.
static EVENT: [Key; 2] = [EVENT_ID, EVENT_TYPE];

static STANDARD_WEBHOOKS: Section = Section::new(
    "webhook_standard",
    "a webhook",
    "Standard Webhooks 1.0, also with the header names of Svix: `webhook-id` or `svix-id`, and so on.",
    &[
        key("scheme", Word("standard_webhooks")).required().doc(
            "Signatures `v1` (HMAC-SHA256, a secret `whsec_…`) and `v1a` (Ed25519, a public key `whpk_…`).",
        ),
        SECRETS,
        TOLERANCE,
        EVENT_ID.default("header:webhook-id"),
        EVENT_TYPE.default("$.type"),
    ],
)
.shared(&[&ROUTES])
.example("{ scheme: standard_webhooks, secrets: { main: '${env:HOOK_SECRET}' } }");

static GITHUB: Section = Section::new(
    "webhook_github",
    "a webhook",
    "GitHub, with `application/json` as its content type. Its pings are answered and not landed. Neither the moment of \
     signing nor the id of a delivery is signed.",
    &[
        key("scheme", Word("github"))
            .required()
            .doc("The signature in `X-Hub-Signature-256`."),
        SECRETS,
        EVENT_ID.default("header:x-github-delivery"),
        EVENT_TYPE.default("header:x-github-event"),
    ],
)
.shared(&[&ROUTES])
.example("{ scheme: github, secrets: { main: '${env:HOOK_SECRET}' } }");

static STRIPE: Section = Section::new(
    "webhook_stripe",
    "a webhook",
    "Stripe.",
    &[
        key("scheme", Word("stripe"))
            .required()
            .doc("The signatures `v1` in `Stripe-Signature`."),
        SECRETS,
        TOLERANCE,
        EVENT_ID.default("$.id"),
        EVENT_TYPE.default("$.type"),
    ],
)
.shared(&[&ROUTES])
.example("{ scheme: stripe, secrets: { main: '${env:HOOK_SECRET}' } }");

static SHOPIFY: Section = Section::new(
    "webhook_shopify",
    "a webhook",
    "Shopify. Neither the moment of signing nor the id of a delivery is signed.",
    &[
        key("scheme", Word("shopify"))
            .required()
            .doc("The signature in `X-Shopify-Hmac-Sha256`."),
        SECRETS,
        EVENT_ID.default("header:x-shopify-webhook-id"),
        EVENT_TYPE.default("header:x-shopify-topic"),
    ],
)
.shared(&[&ROUTES])
.example("{ scheme: shopify, secrets: { main: '${env:HOOK_SECRET}' } }");

static SLACK: Section = Section::new(
    "webhook_slack",
    "a webhook",
    "Slack. Its `url_verification` is answered and not landed, once its signature holds.",
    &[
        key("scheme", Word("slack"))
            .required()
            .doc("The signature `v0` in `X-Slack-Signature`."),
        SECRETS,
        TOLERANCE,
        EVENT_ID.default("$.event_id"),
        EVENT_TYPE.default("$.event.type"),
    ],
)
.shared(&[&ROUTES])
.example("{ scheme: slack, secrets: { main: '${env:HOOK_SECRET}' } }");

static SHARED_SECRET: Section = Section::new(
    "webhook_shared_secret",
    "a webhook",
    "The secret itself in a header. Weaker than a signature: whoever reads one request can send others, and a body that \
     was changed on its way is not noticed. For senders that cannot sign.",
    &[
        key("scheme", Word("shared_secret"))
            .required()
            .doc("The secret itself in a header."),
        key("header", Text)
            .required()
            .doc("The header.")
            .example("X-Gitlab-Token"),
        key("prefix", AnyText)
            .default("''")
            .doc("What stands there before the secret.")
            .example("'Bearer '"),
        SECRETS,
    ],
)
.shared(&[&EVENT, &ROUTES])
.example("{ scheme: shared_secret, header: X-Gitlab-Token, secrets: { main: '${env:HOOK_SECRET}' } }");

static NONE: Section = Section::new(
    "webhook_none",
    "a webhook",
    "Every request is believed, whoever sent it.",
    &[key("scheme", Word("none"))
        .required()
        .doc("Every request is believed, whoever sent it.")],
)
.shared(&[&EVENT, &ROUTES])
.example("{ scheme: none }");

/// One entry of `secrets`.
static SECRET: Section = Section::new(
    "webhook_secret",
    "a secret",
    "A secret that is to be refused one day.",
    &[
        key("value", Takes::Secret)
            .required()
            .doc("The secret as the sender gives it, `whsec_` included.")
            .example("'${env:HOOK_SECRET}'"),
        key(
            "until",
            Matching(
                "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].+",
                "a date and time with an offset",
            ),
        )
        .doc("The moment from which on it is refused; without one it holds for ever.")
        .example("'2026-12-01T00:00:00Z'"),
    ],
)
.example("{ value: '${env:HOOK_SECRET}' }");

type Read = fn(&Fields<'_>) -> Option<Scheme>;

/// Reads `webhook`.
pub(super) fn webhook(value: Value<'_>, dir: &Path) -> Option<Webhook> {
    let choices: [(&str, (&'static Section, Read)); 8] = [
        (
            "standard_webhooks",
            (&STANDARD_WEBHOOKS, |_| Some(Scheme::StandardWebhooks)),
        ),
        ("github", (&GITHUB, |_| Some(Scheme::Github))),
        ("stripe", (&STRIPE, |_| Some(Scheme::Stripe))),
        ("shopify", (&SHOPIFY, |_| Some(Scheme::Shopify))),
        ("slack", (&SLACK, |_| Some(Scheme::Slack))),
        ("hmac", (&HMAC, hmac)),
        ("shared_secret", (&SHARED_SECRET, shared_secret)),
        ("none", (&NONE, |_| Some(Scheme::None))),
    ];
    let (section, read) = value.tag("scheme", &choices, &[])?;
    let fields = value.fields(section)?;
    let has = |name: &str| section.known().any(|known| known == name);
    let scheme = read(&fields);
    let secrets = match has("secrets") {
        true => fields.required("secrets", |value| secrets(value, dir)),
        false => Some(Vec::new()),
    };
    let tolerance = match has("tolerance") {
        true => fields.optional("tolerance", |value| {
            duration(value, Duration::from_secs(1)..=TOLERANCE_MAX)
        }),
        false => None,
    };
    let event_id = fields.optional("event_id", event_place);
    let event_type = fields.optional("event_type", event_place);
    let routes = match fields.value("routes") {
        Some(value) => routes(value)?,
        None => Vec::new(),
    };
    let scheme = scheme?;
    Some(Webhook {
        routes,
        secrets: secrets?,
        tolerance: tolerance.unwrap_or(Webhook::TOLERANCE_DEFAULT),
        event_id: event_id.or_else(|| scheme.event_id()),
        event_type: event_type.or_else(|| scheme.event_type()),
        scheme,
    })
}

fn shared_secret(fields: &Fields<'_>) -> Option<Scheme> {
    let header = fields.required("header", header);
    let prefix = match fields.value("prefix") {
        Some(value) => prefix(value),
        None => Some(String::new()),
    };
    Some(Scheme::SharedSecret {
        header: header?,
        prefix: prefix?,
    })
}

fn secrets(value: Value<'_>, dir: &Path) -> Option<Vec<WebhookSecret>> {
    let entries = value.entries("secrets by name")?;
    if entries.is_empty() {
        let hint = "write NAME: '${env:HOOK_SECRET}'".to_owned();
        return value.refuse("at least one secret is needed", Some(hint));
    }
    if entries.len() > Webhook::SECRETS_MAX {
        return value.refuse(
            format!("more than {} secrets", Webhook::SECRETS_MAX),
            Some("remove those that are no longer used".to_owned()),
        );
    }
    let secrets: Vec<WebhookSecret> = entries
        .iter()
        .filter_map(|entry| one_secret(value.child(entry), dir))
        .collect();
    (secrets.len() == entries.len()).then_some(secrets)
}

fn one_secret(value: Value<'_>, dir: &Path) -> Option<WebhookSecret> {
    let name = match Name::new(value.key) {
        Ok(name) => Some(name),
        Err(_) => {
            let message = format!("{} is not a name", quoted(value.key));
            let hint = "a name has 1 to 63 of a-z, 0-9, _ and -, and begins with a letter or digit";
            value
                .problems
                .add(value.key_place, message, Some(hint.to_owned()));
            None
        }
    };
    if value.node.scalar_text().is_some() {
        let value = secret(value, dir);
        return Some(WebhookSecret {
            name: name?,
            value: value?,
            until: None,
        });
    }
    let fields = value.fields(&SECRET)?;
    let secret = fields.required("value", |value| secret(value, dir));
    let until = match fields.value("until") {
        Some(value) => Some(moment(value)?),
        None => None,
    };
    Some(WebhookSecret {
        name: name?,
        value: secret?,
        until,
    })
}

fn moment(value: Value<'_>) -> Option<crate::clock::Timestamp> {
    match parse_timestamp(value.text()?) {
        Ok(moment) => Some(moment),
        Err(_) => value.refuse(
            "not a date and time with an offset",
            Some("write '2026-12-01T00:00:00Z'".to_owned()),
        ),
    }
}

/// A place of a request that holds one value.
fn event_place(value: Value<'_>) -> Option<Place> {
    match place(value)? {
        Place::Body(path) if !path.is_member() => {
            let hint = "write names only, such as $.event.id".to_owned();
            value.refuse(format!("{path} is not one member of a body"), Some(hint))
        }
        place => Some(place),
    }
}

/// The name of a header of the request.
fn header(value: Value<'_>) -> Option<String> {
    header_name(value, value.text()?)
}

/// Text that stands before a secret or a signature; perhaps empty.
fn prefix(value: Value<'_>) -> Option<String> {
    let text = value.any_text()?;
    one_line(value, text)?;
    if !text.is_ascii() {
        return value.refuse("is not ASCII", None);
    }
    Some(text.to_owned())
}

#[cfg(test)]
mod tests;
