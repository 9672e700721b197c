//! Who may send.

use std::{collections::HashMap, path::Path, time::Duration};

use crate::{
    config::{
        Name, Source, Stream,
        producers::{
            Producer, ProducerToken, Rates, San, Scope, Scopes, StreamPattern, TokenHash, TokenProof,
        },
        read::{
            push::moment,
            serve::RATES,
            source::name,
            values::{duration, secret, size},
        },
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Rule, Section,
            Takes::{self, Choice, Either, List, Matching, Named},
            key,
        },
    },
};

/// Most of anything per window.
pub(super) const COUNT_MAX: u64 = 1_000_000_000;

/// Most bytes per window.
const BYTES_MAX: u64 = 1 << 50;

/// Most producers; each has counters of its own for every stream it sends to.
const PRODUCERS_MAX: usize = 10_000;

/// Most tokens of one producer: two are enough to replace one by the other.
const TOKENS_MAX: usize = 16;

const SCOPE: Takes = Choice(&[
    ("ingest", "send records"),
    (
        "read",
        "ask what became of records: catalog, receipts, quarantine, drift",
    ),
    (
        "admin",
        "metrics, samples of records that others sent, and what changes the server",
    ),
]);

const PATTERN: Takes = Matching(
    r"^(\*|[a-z0-9][a-z0-9_-]{0,62}\.(\*|[a-z0-9][a-z0-9_-]{0,62}))$",
    "`source.stream`, `source.*` or `*`",
);

const SAN: Takes = Matching(
    r"^(dns|uri|email|ip):[!-)+-~]+$",
    "`dns:NAME`, `uri:URI`, `email:ADDRESS` or `ip:ADDRESS`",
);

/// One entry of `producers`.
pub(super) static PRODUCER: Section = Section::new(
    "producer",
    "a producer",
    "One that sends to streams under `landfall serve`, reads them or administers. It proves who it is by a token, by the \
     certificate of its connection, or by an access token of one of `serve.issuers`.",
    &[
        key("scopes", Either(&[SCOPE, List(&SCOPE)]))
            .default("ingest")
            .doc("What it may do. No word includes another.")
            .example("[ingest, read]"),
        key("streams", List(&PATTERN))
            .required()
            .doc("The streams it may do that with. Every other one is refused as if it were not there.")
            .example("[shop.orders, 'shop.*']"),
        key("tier", Takes::Name)
            .default("standard")
            .doc("How fast it may send, as `serve.tiers` says.")
            .example("standard"),
        key("limits", Takes::Section(&RATES)).doc("How fast it may send; what is not set is as in its tier."),
        key("tokens", Named(&TOKEN))
            .doc(
                "Tokens it may show, by name, all of them valid at the same time: to replace one, add another, let the \
                 producer change over, and remove the first.",
            )
            .example("{ main: { token: '${file:/run/secrets/checkout}' } }"),
        key("certificates", List(&SAN))
            .default("[]")
            .doc("Names in the certificates of clients (`subjectAltName`) that stand for it. Compared whole, never by pattern.")
            .example("[dns:checkout.shop.example, 'uri:spiffe://shop/checkout']"),
    ],
)
.example("{ streams: ['shop.*'], tokens: { main: { token: '${env:CHECKOUT_TOKEN}' } } }");

/// One entry of `tokens`.
static TOKEN: Section = Section::new(
    "token",
    "a token",
    "A bearer token of a producer.",
    &[
        key("hash", Matching("^sha256:[A-Za-z0-9]{12}:[0-9a-f]{64}$", "`sha256:`, the id of the token and a hash"))
            .doc("The id of the token and the SHA-256 of the whole of it, as made with it. Neither is secret.")
            .example("sha256:k3V9x2M4q8R1:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"),
        key("token", Takes::Secret)
            .doc("The token itself, kept elsewhere. It is read again while the server runs, so that a replaced one counts.")
            .example("'${file:/run/secrets/checkout}'"),
        key("expires", Takes::Text)
            .doc("When it ends: a moment, or a date in UTC. Without it never.")
            .example("2027-06-30"),
    ],
)
.rules(&[Rule::One(&["hash", "token"])])
.example("{ token: '${env:CHECKOUT_TOKEN}' }");

/// Reads `producers`, with the tiers that `serve` names; none if they could not be read.
pub(super) fn producers(
    value: Value<'_>,
    tiers: Option<&[(Name, Rates)]>,
    dir: &Path,
) -> Option<Vec<Producer>> {
    let entries = value.entries("those who may send, by name")?;
    if entries.is_empty() {
        return value.refuse("at least one producer is needed", None);
    }
    if entries.len() > PRODUCERS_MAX {
        return value.refuse(format!("more than {PRODUCERS_MAX} producers"), None);
    }
    let read: Vec<Producer> = entries
        .iter()
        .filter_map(|entry| producer(value.child(entry), tiers, dir))
        .collect();
    check_names(value, &read);
    (read.len() == entries.len()).then_some(read)
}

fn producer(value: Value<'_>, tiers: Option<&[(Name, Rates)]>, dir: &Path) -> Option<Producer> {
    let name = name(value);
    let fields = value.fields(&PRODUCER)?;
    let scopes = match fields.value("scopes") {
        Some(value) => scopes(value),
        None => Some(Scopes::of([Scope::Ingest])),
    };
    let streams = fields.required("streams", patterns);
    let tier = tier(&fields, tiers);
    let rates = tier.as_ref().map_or(Rates::DEFAULT, |(_, rates)| rates.clone());
    let rates = match fields.value("limits") {
        Some(value) => self::rates(value, &rates),
        None => Some(rates),
    };
    let tokens = match fields.value("tokens") {
        Some(value) => tokens(value, dir),
        None => Some(Vec::new()),
    };
    let certificates = match fields.value("certificates") {
        Some(value) => sans(value),
        None => Some(Vec::new()),
    };
    Some(Producer {
        name: name?,
        scopes: scopes?,
        streams: streams?,
        tier: tier?.0,
        rates: rates?,
        tokens: tokens?,
        certificates: certificates?,
    })
}

fn scopes(value: Value<'_>) -> Option<Scopes> {
    let words = Scope::ALL.map(|scope| (scope.as_str(), scope));
    if value.node.scalar_text().is_some() {
        return value.choice(&words, &[]).map(|scope| Scopes::of([scope]));
    }
    let items: Vec<Option<Scope>> = value.items()?.map(|item| item.choice(&words, &[])).collect();
    let items: Option<Vec<Scope>> = items.into_iter().collect();
    match items.map(Scopes::of) {
        Some(scopes) if scopes.is_empty() => value.refuse("a producer with no scope may do nothing", None),
        scopes => scopes,
    }
}

fn patterns(value: Value<'_>) -> Option<Vec<StreamPattern>> {
    let texts = value.text_list()?;
    if texts.is_empty() {
        return value.refuse("a producer without streams may do nothing", None);
    }
    let read = texts.iter().map(|text| match StreamPattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(_) => {
            let hint = "write shop.orders, 'shop.*' or '*'".to_owned();
            value.refuse(
                format!("{} is not the name of a stream", quoted(text)),
                Some(hint),
            )
        }
    });
    let read: Vec<Option<StreamPattern>> = read.collect();
    read.into_iter().collect()
}

fn sans(value: Value<'_>) -> Option<Vec<San>> {
    let texts = value.text_list()?;
    let read = texts.iter().map(|text| match San::parse(text) {
        Ok(name) => Some(name),
        Err(_) => {
            let hint = "write dns:NAME, uri:URI, email:ADDRESS or ip:ADDRESS, without *".to_owned();
            value.refuse(
                format!("{} is not the name of a certificate", quoted(text)),
                Some(hint),
            )
        }
    });
    let read: Vec<Option<San>> = read.collect();
    read.into_iter().collect()
}

fn tier(fields: &Fields<'_>, tiers: Option<&[(Name, Rates)]>) -> Option<(Name, Rates)> {
    let value = fields.value("tier");
    let wanted = match value {
        Some(value) => value.text()?,
        None => Producer::TIER_DEFAULT,
    };
    let usual = || Some((Name::new(wanted).ok()?, Rates::DEFAULT));
    let Some(tiers) = tiers else {
        return usual();
    };
    match tiers.iter().find(|(name, _)| name.as_str() == wanted) {
        Some(tier) => Some(tier.clone()),
        None if wanted == Producer::TIER_DEFAULT => usual(),
        None => {
            let hint = "add it to serve.tiers".to_owned();
            value?.refuse(format!("there is no tier {}", quoted(wanted)), Some(hint))
        }
    }
}

/// Reads rates; what is not set is as in `usual`.
pub(super) fn rates(value: Value<'_>, usual: &Rates) -> Option<Rates> {
    let fields = value.fields(&RATES)?;
    let window = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);
    Some(Rates {
        requests: fields
            .optional("requests", |value| value.integer(1..=COUNT_MAX))
            .unwrap_or(usual.requests),
        bytes: fields
            .optional("bytes", |value| size(value, 1..=BYTES_MAX))
            .unwrap_or(usual.bytes),
        per: fields
            .optional("per", |value| duration(value, window))
            .unwrap_or(usual.per),
        at_once: fields
            .optional("at_once", |value| value.integer_u32(1..=100_000))
            .unwrap_or(usual.at_once),
        stream_share: fields
            .optional("stream_share", |value| value.number(0.01..=1.0))
            .unwrap_or(usual.stream_share),
        weight: fields
            .optional("weight", |value| value.integer_u32(1..=100))
            .unwrap_or(usual.weight),
    })
}

fn tokens(value: Value<'_>, dir: &Path) -> Option<Vec<ProducerToken>> {
    let entries = value.entries("tokens by name")?;
    if entries.len() > TOKENS_MAX {
        return value.refuse(format!("more than {TOKENS_MAX} tokens of one producer"), None);
    }
    let read: Vec<Option<ProducerToken>> = entries
        .iter()
        .map(|entry| token(value.child(entry), dir))
        .collect();
    read.into_iter().collect()
}

fn token(value: Value<'_>, dir: &Path) -> Option<ProducerToken> {
    let name = name(value);
    let fields = value.fields(&TOKEN)?;
    let proof = match (fields.value("hash"), fields.value("token")) {
        (Some(value), None) => hash(value).map(TokenProof::Hash),
        (None, Some(value)) => secret(value, dir).map(TokenProof::Reference),
        (Some(_), Some(value)) => value.refuse("only one of hash and token may be given", None),
        (None, None) => {
            fields.missing("\"hash\" or \"token\"");
            None
        }
    };
    let expires = fields.value("expires").map(moment);
    Some(ProducerToken {
        name: name?,
        proof: proof?,
        expires: match expires {
            Some(expires) => Some(expires?),
            None => None,
        },
    })
}

fn hash(value: Value<'_>) -> Option<TokenHash> {
    // The text is not repeated: it may be the token.
    match TokenHash::parse(value.text()?) {
        Ok(hash) => Some(hash),
        Err(_) => {
            let hint = "write sha256:ID:HEX, as it was made with the token".to_owned();
            value.refuse("not the hash of a token", Some(hint))
        }
    }
}

/// What proves who somebody is stands for one producer only.
fn check_names(value: Value<'_>, producers: &[Producer]) {
    let mut known: HashMap<String, &Name> = HashMap::new();
    for producer in producers {
        let hashes = producer.tokens.iter().filter_map(|token| match &token.proof {
            TokenProof::Hash(hash) => Some(format!("token id {}", hash.id)),
            TokenProof::Reference(_) => None,
        });
        let sans = producer
            .certificates
            .iter()
            .map(|san| format!("certificate name {san}"));
        for proof in hashes.chain(sans) {
            let message = format!("{}: {proof} is also that of", producer.name);
            if let Some(other) = known.insert(proof, &producer.name) {
                let hint = "give each its own".to_owned();
                value
                    .problems
                    .add(value.key_place, format!("{message} {other}"), Some(hint));
            }
        }
    }
}

/// The streams that are named are there, the largest body fits into a window, and senders have something to send to.
pub(super) fn check_streams(value: Value<'_>, producers: &[Producer], sources: &[Source]) {
    let streams: Vec<&Stream> = sources.iter().flat_map(|source| &source.streams).collect();
    for producer in producers {
        for pattern in &producer.streams {
            let mut meant = streams.iter().filter(|stream| pattern.matches(&stream.name));
            if *pattern != StreamPattern::All && meant.next().is_none() {
                let message = format!("{}: there is no stream {pattern}", producer.name);
                value.problems.add(value.key_place, message, None);
            }
        }
        let mut pushed = streams
            .iter()
            .filter(|stream| {
                producer
                    .streams
                    .iter()
                    .any(|pattern| pattern.matches(&stream.name))
            })
            .filter_map(|stream| Some((*stream, stream.feed.push()?)))
            .peekable();
        if producer.scopes.has(Scope::Ingest) && pushed.peek().is_none() {
            let message = format!("{}: none of its streams takes what is sent", producer.name);
            let hint = "add push: {} to them".to_owned();
            value.problems.warn(value.key_place, message, Some(hint));
        }
        let most = producer.rates.stream_bytes();
        if let Some((stream, _)) = pushed.find(|(_, push)| push.bytes_max > most) {
            let message = format!(
                "{}: a body of {} may be larger than all it may send per window",
                producer.name, stream.name
            );
            let hint = "raise bytes of its rates, or lower push.bytes_max".to_owned();
            value.problems.add(value.key_place, message, Some(hint));
        }
    }
}
