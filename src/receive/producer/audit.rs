//! What is written down about who came, who was let in and who was not.

use std::net::IpAddr;

use serde::Serialize;

use crate::{
    clock::Timestamp,
    config::{Name, StreamName, producers::Scope},
    receive::producer::{
        Caller,
        denial::{Denied, Told, Via},
    },
};

/// What is written where there is no name, or none that may be a label.
const NONE: &str = "none";

/// One line of the audit log, which is only ever appended to. Holds nothing that proves who somebody is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AuditEvent {
    /// When.
    pub at: Timestamp,
    /// The request.
    pub request_id: String,
    /// `granted`, `unauthenticated`, `forbidden`, `unavailable` or `unusual`.
    pub outcome: &'static str,
    /// `ok`, or why not: [`Denial::as_str`](crate::receive::producer::denial::Denial::as_str); or what is unusual.
    pub class: &'static str,
    /// How it was proved who it is: [`Via::as_str`].
    pub via: &'static str,
    /// Who it was, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub producer: Option<String>,
    /// Which of its credentials, without what proves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
    /// What it wanted to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<&'static str>,
    /// The stream, if the project has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Where the request came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote: Option<IpAddr>,
    /// SHA-256 of the certificate of the connection, if it showed one that is good.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// What is unusual, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What an event says of its request.
#[derive(Clone, Copy, Debug)]
pub struct Occasion<'a> {
    /// When.
    pub at: Timestamp,
    /// The id of the request.
    pub request_id: &'a str,
    /// What it wanted to do.
    pub scope: Option<Scope>,
    /// The stream, if the project has it: never what a client calls one.
    pub stream: Option<&'a StreamName>,
    /// Where the request came from.
    pub remote: Option<IpAddr>,
    /// SHA-256 of the certificate of the connection, if it showed one that is good.
    pub certificate: Option<&'a str>,
}

impl AuditEvent {
    /// Somebody was let in.
    pub fn granted(occasion: &Occasion<'_>, caller: &Caller) -> Self {
        Self {
            outcome: "granted",
            class: "ok",
            via: caller.via.as_str(),
            producer: Some(caller.producer.name.to_string()),
            credential: Some(caller.credential.clone()),
            ..Self::of(occasion)
        }
    }

    /// Somebody was turned away.
    pub fn denied(occasion: &Occasion<'_>, denied: &Denied) -> Self {
        Self {
            outcome: match denied.denial.told() {
                Told::Unauthenticated | Told::Expired => "unauthenticated",
                Told::Forbidden => "forbidden",
                Told::Unavailable => "unavailable",
            },
            class: denied.denial.as_str(),
            via: denied.via.as_str(),
            producer: denied.producer.as_ref().map(ToString::to_string),
            credential: denied.credential.clone(),
            scope: denied.scope.or(occasion.scope).map(Scope::as_str),
            ..Self::of(occasion)
        }
    }

    /// Something is not as it was before.
    pub fn unusual(
        occasion: &Occasion<'_>,
        producer: Option<&Name>,
        class: &'static str,
        detail: String,
    ) -> Self {
        Self {
            outcome: "unusual",
            class,
            producer: producer.map(ToString::to_string),
            detail: Some(detail),
            ..Self::of(occasion)
        }
    }

    /// Whether nobody need look at it now.
    pub fn is_granted(&self) -> bool {
        self.outcome == "granted"
    }

    /// Labels for a metric, each from a closed list or from the names of the project, so that no client makes series.
    pub fn labels(&self) -> [(&'static str, &str); 4] {
        [
            ("outcome", self.outcome),
            ("class", self.class),
            ("via", self.via),
            ("producer", self.producer.as_deref().unwrap_or(NONE)),
        ]
    }

    fn of(occasion: &Occasion<'_>) -> Self {
        Self {
            at: occasion.at,
            request_id: occasion.request_id.to_owned(),
            outcome: NONE,
            class: NONE,
            via: Via::Nothing.as_str(),
            producer: None,
            credential: None,
            scope: occasion.scope.map(Scope::as_str),
            stream: occasion.stream.map(ToString::to_string),
            remote: occasion.remote,
            certificate: occasion.certificate.map(str::to_owned),
            detail: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::producer::denial::Denial;

    #[test]
    fn f157_what_a_client_calls_things_is_no_label() {
        let occasion = Occasion {
            at: Timestamp::UNIX_EPOCH,
            request_id: "r-1",
            scope: Some(Scope::Ingest),
            stream: None,
            remote: Some(IpAddr::from([127, 0, 0, 1])),
            certificate: None,
        };
        let mut series = std::collections::BTreeSet::new();
        for (number, denial) in Denial::ALL.into_iter().cycle().take(10_000).enumerate() {
            let denied = Denied {
                credential: Some(format!("id{number}")),
                ..Denied::new(denial, Via::Token)
            };
            let event = AuditEvent::denied(&occasion, &denied);
            series.insert(
                event
                    .labels()
                    .map(|(name, value)| format!("{name}={value}"))
                    .join(","),
            );
        }
        assert_eq!(series.len(), Denial::ALL.len());
    }

    #[test]
    fn an_event_is_one_line_without_what_proves_anything() {
        let occasion = Occasion {
            at: Timestamp::UNIX_EPOCH,
            request_id: "r-1",
            scope: Some(Scope::Ingest),
            stream: None,
            remote: None,
            certificate: Some("00ff"),
        };
        let denied = Denied {
            credential: Some("k3V9x2M4q8R1".to_owned()),
            ..Denied::new(Denial::TokenWrong, Via::Token)
        };
        let line = serde_json::to_string(&AuditEvent::denied(&occasion, &denied)).unwrap();
        insta::assert_snapshot!(line, @r#"{"at":"1970-01-01T00:00:00Z","request_id":"r-1","outcome":"unauthenticated","class":"token_wrong","via":"token","credential":"k3V9x2M4q8R1","scope":"ingest","certificate":"00ff"}"#);
    }
}
