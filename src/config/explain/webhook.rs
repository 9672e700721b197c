//! Deliveries that an API sends by itself, without what proves them.

use crate::config::{
    Name,
    explain::lines::{Lines, show_place},
    request::Place,
    webhook::{Hmac, HmacAlgorithm, MomentFormat, Scheme, SignatureEncoding, SignedPart, Webhook},
};

/// Adds `webhook`: its scheme on one line, and what belongs to it on others below.
pub(super) fn explain_webhook(lines: &mut Lines, webhook: Option<&Webhook>) {
    let Some(webhook) = webhook else {
        return lines.choose("webhook", "none", true);
    };
    // A scheme `none` that is written is no default: it believes every request.
    lines.set("webhook.scheme", webhook.scheme.as_str());
    lines.within("webhook", |lines| {
        match &webhook.scheme {
            Scheme::Hmac(hmac) => explain_hmac(lines, hmac),
            Scheme::SharedSecret { header, prefix } => {
                lines.set("header", header);
                lines.choose("prefix", format!("{prefix:?}"), prefix.is_empty());
            }
            _ => {}
        }
        for secret in &webhook.secrets {
            let until = secret.until.map(|until| format!(" until {}", until.to_rfc3339()));
            let until = until.unwrap_or_default();
            lines.set(
                &format!("secrets.{}", secret.name),
                format!("{}{until}", secret.value),
            );
        }
        if webhook.scheme.is_dated() {
            lines.wait("tolerance", webhook.tolerance, Webhook::TOLERANCE_DEFAULT);
        }
        let id = (&webhook.event_id, webhook.scheme.event_id());
        let kind = (&webhook.event_type, webhook.scheme.event_type());
        for (name, (place, usual)) in [("event_id", id), ("event_type", kind)] {
            let (place, usual) = (show(place.as_ref()), show(usual.as_ref()));
            lines.value(name, place, usual);
        }
        if webhook.routes.is_empty() {
            lines.choose("routes", "none", true);
        }
        for route in &webhook.routes {
            let streams: Vec<String> = route.streams.iter().map(Name::to_string).collect();
            lines.set(&format!("routes.{}", route.types), streams.join(", "));
        }
    });
}

fn explain_hmac(lines: &mut Lines, hmac: &Hmac) {
    lines.set("header", &hmac.header);
    lines.value(
        "algorithm",
        hmac.algorithm.as_str(),
        HmacAlgorithm::Sha256.as_str(),
    );
    lines.value(
        "encoding",
        hmac.encoding.as_str(),
        SignatureEncoding::Hex.as_str(),
    );
    lines.choose("prefix", format!("{:?}", hmac.prefix), hmac.prefix.is_empty());
    lines.optional("timestamp", hmac.timestamp.as_ref().map(|moment| &moment.header));
    if let Some(moment) = &hmac.timestamp {
        let usual = MomentFormat::Seconds.as_str();
        lines.value("timestamp_format", moment.format.as_str(), usual);
    }
    let signed: String = hmac.signed.iter().map(show_part).collect();
    lines.choose("signed", format!("{signed:?}"), hmac.signed == [SignedPart::Body]);
}

fn show_part(part: &SignedPart) -> String {
    match part {
        SignedPart::Text(text) => text.clone(),
        SignedPart::Timestamp => "{timestamp}".to_owned(),
        SignedPart::Header(name) => format!("{{header:{name}}}"),
        SignedPart::Body => "{body}".to_owned(),
    }
}

fn show(place: Option<&Place>) -> String {
    place.map_or_else(|| "none".to_owned(), show_place)
}
