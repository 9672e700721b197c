//! `webhook` with `scheme: hmac`: a signature whose form is described.

use crate::{
    config::{
        read::{
            values::header_name,
            webhook::{EVENT, SECRETS, TOLERANCE, header, prefix, routes::ROUTES},
        },
        webhook::{Hmac, HmacAlgorithm, MomentFormat, Scheme, SignatureEncoding, SignedMoment, SignedPart},
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Section,
            Takes::{AnyText, Choice, Text, Word},
            key,
        },
    },
};

/// Most parts of what is signed.
const PARTS_MAX: usize = 16;

/// `webhook` with `scheme: hmac`.
pub(super) static HMAC: Section = Section::new(
    "webhook_hmac",
    "a webhook",
    "Any other sender that signs with a shared secret (HMAC, RFC 2104).",
    &[
        key("scheme", Word("hmac"))
            .required()
            .doc("A signature whose form is described by the keys below."),
        key("header", Text)
            .required()
            .doc("The header with the signature.")
            .example("X-Signature"),
        key(
            "algorithm",
            Choice(&[("sha1", "HMAC-SHA1"), ("sha256", "HMAC-SHA256"), ("sha512", "HMAC-SHA512")]),
        )
        .default("sha256")
        .doc("How it is made.")
        .example("sha512"),
        key(
            "encoding",
            Choice(&[("hex", "hexadecimal digits"), ("base64", "Base64 with padding")]),
        )
        .default("hex")
        .doc("How it is written.")
        .example("base64"),
        key("prefix", AnyText)
            .default("''")
            .doc("What stands before it.")
            .example("sha256="),
        key("timestamp", Text)
            .doc("The header with the moment of signing; it has to be part of what is signed.")
            .example("X-Timestamp")
            .beside("{ signed: '{timestamp}.{body}' }"),
        key(
            "timestamp_format",
            Choice(&[
                ("seconds", "seconds since 1970"),
                ("milliseconds", "milliseconds since 1970"),
                ("rfc3339", "a date and time"),
            ]),
        )
        .default("seconds")
        .doc("How that moment is written.")
        .example("milliseconds")
        .beside("{ timestamp: X-Timestamp, signed: '{timestamp}.{body}' }"),
        key("signed", Text)
            .default("'{body}'")
            .doc(
                "What is signed: text with `{body}`, and perhaps `{timestamp}` and `{header:NAME}`, in place of which \
                 stands what was sent, byte by byte.",
            )
            .example("'{header:X-Request-Id}.{body}'"),
        TOLERANCE.beside("{ timestamp: X-Timestamp, signed: '{timestamp}.{body}' }"),
        SECRETS,
    ],
)
.shared(&[&EVENT, &ROUTES])
.example("{ scheme: hmac, header: X-Signature, secrets: { main: '${env:HOOK_SECRET}' } }");

const ALGORITHMS: [(&str, HmacAlgorithm); 3] = [
    ("sha1", HmacAlgorithm::Sha1),
    ("sha256", HmacAlgorithm::Sha256),
    ("sha512", HmacAlgorithm::Sha512),
];

const ENCODINGS: [(&str, SignatureEncoding); 2] = [
    ("hex", SignatureEncoding::Hex),
    ("base64", SignatureEncoding::Base64),
];

const FORMATS: [(&str, MomentFormat); 3] = [
    ("seconds", MomentFormat::Seconds),
    ("milliseconds", MomentFormat::Milliseconds),
    ("rfc3339", MomentFormat::Rfc3339),
];

/// Reads what only `scheme: hmac` has.
pub(super) fn hmac(fields: &Fields<'_>) -> Option<Scheme> {
    let named = fields.required("header", header);
    let algorithm = fields.optional("algorithm", |value| value.choice(&ALGORITHMS, &[]));
    let encoding = fields.optional("encoding", |value| value.choice(&ENCODINGS, &[]));
    let before = match fields.value("prefix") {
        Some(value) => prefix(value),
        None => Some(String::new()),
    };
    let moment = fields.value("timestamp").map(header);
    let format = fields.optional("timestamp_format", |value| value.choice(&FORMATS, &[]));
    let signed = match fields.value("signed") {
        Some(value) => signed(value),
        None => Some(vec![SignedPart::Body]),
    };
    let dated = moment.is_some();
    for key in ["timestamp_format", "tolerance"] {
        if let (false, Some(value)) = (dated, fields.value(key)) {
            let hint = "add timestamp, or remove this".to_owned();
            value.refuse::<()>("no moment of signing is known", Some(hint));
        }
    }
    let signed = signed?;
    match (dated, signed.contains(&SignedPart::Timestamp)) {
        (true, false) => {
            let hint = "write {timestamp} in signed, as the sender does: '{timestamp}.{body}'".to_owned();
            return fields
                .value("timestamp")?
                .refuse("is not part of what is signed", Some(hint));
        }
        (false, true) => {
            let hint = "add timestamp: NAME OF THE HEADER".to_owned();
            return fields
                .value("signed")?
                .refuse("no header holds the timestamp", Some(hint));
        }
        (true, true) | (false, false) => {}
    }
    let timestamp = match moment {
        Some(header) => Some(SignedMoment {
            header: header?,
            format: format.unwrap_or(MomentFormat::Seconds),
        }),
        None => None,
    };
    Some(Scheme::Hmac(Hmac {
        header: named?,
        algorithm: algorithm.unwrap_or(HmacAlgorithm::Sha256),
        encoding: encoding.unwrap_or(SignatureEncoding::Hex),
        prefix: before?,
        timestamp,
        signed,
    }))
}

fn signed(value: Value<'_>) -> Option<Vec<SignedPart>> {
    const HINT: &str = "write {body}, {timestamp} and {header:NAME} with text between them";
    let hint = || Some(HINT.to_owned());
    let mut parts = Vec::new();
    let mut rest = value.text()?;
    while !rest.is_empty() {
        if parts.len() == PARTS_MAX {
            return value.refuse(format!("has more than {PARTS_MAX} parts"), None);
        }
        let text = rest.split(['{', '}']).next().unwrap_or(rest);
        if !text.is_empty() {
            parts.push(SignedPart::Text(text.to_owned()));
            rest = &rest[text.len()..];
            continue;
        }
        let Some((name, after)) = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')) else {
            return value.refuse("holds a brace without the other", hint());
        };
        parts.push(match (name, name.strip_prefix("header:")) {
            ("body", _) => SignedPart::Body,
            ("timestamp", _) => SignedPart::Timestamp,
            (_, Some(header)) => SignedPart::Header(header_name(value, header)?),
            _ => return value.refuse(format!("{} is not known here", quoted(name)), hint()),
        });
        rest = after;
    }
    let times = |wanted: &SignedPart| parts.iter().filter(|part| *part == wanted).count();
    match (times(&SignedPart::Body), times(&SignedPart::Timestamp)) {
        (1, 0 | 1) => Some(parts),
        (0, _) => value.refuse("the body is not signed", hint()),
        _ => value.refuse("says the same twice", hint()),
    }
}
