//! Where a fetched or signed token is sent.

use crate::{
    config::{
        auth::Credential,
        read::{
            auth::{IN, In},
            values::header_name,
        },
        request::TokenSlot,
    },
    yaml::{
        fields::{Fields, Value},
        section::{
            Section,
            Takes::{Choice, Matching, Text},
            key,
        },
    },
};

/// `send`
pub(super) static SEND: Section = Section::new(
    "auth_send",
    "send",
    "Where the token is sent.",
    &[
        key(
            "in",
            Choice(&[
                ("header", "a header"),
                ("query", "a query parameter"),
                ("body", "a field of the JSON or form body"),
            ]),
        )
        .default("header")
        .doc("Where the token goes.")
        .example("query")
        .beside("{ name: access_token }"),
        key("name", Text)
            .doc(
                "The header, by default Authorization; else the query parameter or field, which must be named. A \
                 field within others has dots between the names.",
            )
            .example("X-Access-Token"),
        key("scheme", Matching("^[A-Za-z0-9._~+-]*$", "one word, or nothing"))
            .doc("The word before the token; by default Bearer in the Authorization header, and none elsewhere.")
            .example("Token"),
    ],
)
.example("{ in: header, name: X-Access-Token }");

/// Reads `send`, which is `default` if it is absent.
pub(super) fn send(fields: &Fields<'_>, default: Credential) -> Option<Credential> {
    let Some(value) = fields.value("send") else {
        return Some(default);
    };
    let fields = value.fields(&SEND)?;
    let place = match fields.value("in") {
        Some(value) => value.choice(&IN, &[]),
        None => Some(In::Header),
    };
    let scheme = match fields.value("scheme") {
        Some(value) => Some(scheme(value)?),
        None => None,
    };
    let to = match (place?, fields.value("name")) {
        (In::Header, None) => TokenSlot::Header("authorization".to_owned()),
        (In::Header, Some(value)) => TokenSlot::Header(header_name(value, value.text()?)?),
        (In::Query, Some(value)) => TokenSlot::Query(value.text()?.to_owned()),
        (In::Body, Some(value)) => TokenSlot::BodyField(field(value)?),
        (In::Query | In::Body, None) => {
            fields.missing("\"name\"");
            return None;
        }
    };
    let word = if to == Credential::bearer().to {
        "Bearer"
    } else {
        ""
    };
    Some(Credential {
        scheme: scheme.unwrap_or_else(|| word.to_owned()),
        to,
    })
}

/// The names of a field, outermost first.
pub(super) fn field(value: Value<'_>) -> Option<Vec<String>> {
    let names: Vec<String> = value.text()?.split('.').map(str::to_owned).collect();
    if names.iter().any(String::is_empty) {
        return value.refuse(
            "a field has names with dots between them",
            Some("write auth.key".to_owned()),
        );
    }
    Some(names)
}

fn scheme(value: Value<'_>) -> Option<String> {
    let text = value.any_text()?;
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~+".contains(&byte);
    if text.bytes().all(word) {
        return Some(text.to_owned());
    }
    value.refuse("not one word", None)
}
