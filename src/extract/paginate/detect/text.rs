//! A paginator found out, as text for the bookmark.

use serde::{Deserialize, Serialize};

use crate::{
    config::{
        paginate::{OffsetStep, OnFirst, Paginate},
        request::{Place, TokenSlot},
    },
    error::{Error, ErrorKind, Result},
    extract::paginate::detect::{Certainty, Detected},
    json::JsonPath,
};

/// What starts the text of a place in a header.
const HEADER: &str = "header:";

/// The keys are those of the project file.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    r#type: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body_field: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    more: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    total: Option<String>,
    found: String,
}

impl Detected {
    /// The paginator as text, or `None` if it is not [settled](Certainty::Settled) and must not be kept.
    pub fn to_text(&self) -> Option<String> {
        if self.certainty != Certainty::Settled {
            return None;
        }
        let mut written = Written {
            more: self.more.as_ref().map(place_text),
            pages: self.pages.as_ref().map(place_text),
            total: self.total.as_ref().map(place_text),
            found: self.found.clone(),
            ..Written::default()
        };
        written.r#type = match &self.paginate {
            Paginate::Cursor { from, to } => {
                written.from = Some(place_text(from));
                written.put(to);
                "cursor"
            }
            Paginate::NextUrl { from } => {
                written.from = Some(place_text(from));
                "next_url"
            }
            Paginate::LinkHeader => "link_header",
            Paginate::PageNumber { to, first, .. } => {
                written.first = Some(*first);
                written.put(to);
                "page_number"
            }
            Paginate::Offset { to, first, .. } => {
                written.first = Some(*first);
                written.put(to);
                "offset"
            }
            Paginate::Keyset { key, to } => {
                written.key = Some(key.to_string());
                written.put(to);
                "keyset"
            }
            Paginate::Relay { connection, to } => {
                written.connection = Some(connection.to_string());
                written.put(to);
                "relay"
            }
            // None of these is ever found.
            Paginate::Single | Paginate::Template { .. } | Paginate::MadeUrl { .. } | Paginate::Auto => {
                return None;
            }
        }
        .to_owned();
        serde_json::to_string(&written).ok()
    }

    /// Reads what [`to_text`](Self::to_text) wrote.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] for any other text.
    pub fn from_text(text: &str) -> Result<Self> {
        let corrupt = || Error::new(ErrorKind::Corrupt, "read paginator of bookmark");
        let written: Written = serde_json::from_str(text).map_err(|source| corrupt().caused_by(source))?;
        let place = |text: &Option<String>| text.as_deref().map(place).transpose();
        let path = |text: &Option<String>| JsonPath::parse(text.as_deref().unwrap_or_default());
        let read = || -> Result<Self, String> {
            let from = || place(&written.from)?.ok_or("from is missing".to_owned());
            let first = || written.first.ok_or("first is missing".to_owned());
            let paginate = match written.r#type.as_str() {
                "cursor" => Paginate::Cursor {
                    from: from()?,
                    to: written.slot()?,
                },
                "next_url" => Paginate::NextUrl { from: from()? },
                "link_header" => Paginate::LinkHeader,
                "page_number" => Paginate::PageNumber {
                    to: written.slot()?,
                    first: first()?,
                    on_first: OnFirst::Sent,
                },
                "offset" => Paginate::Offset {
                    to: written.slot()?,
                    first: first()?,
                    on_first: OnFirst::Sent,
                    step: OffsetStep::Records,
                },
                "keyset" => Paginate::Keyset {
                    key: path(&written.key)?,
                    to: written.slot()?,
                },
                "relay" => Paginate::Relay {
                    connection: path(&written.connection)?,
                    to: written.slot()?,
                },
                _ => return Err("an unknown type".to_owned()),
            };
            Ok(Self {
                paginate,
                more: place(&written.more)?,
                pages: place(&written.pages)?,
                total: place(&written.total)?,
                found: written.found.clone(),
                certainty: Certainty::Settled,
            })
        };
        read().map_err(|problem| corrupt().with("problem", problem))
    }
}

impl Written {
    fn put(&mut self, slot: &TokenSlot) {
        match slot {
            TokenSlot::Query(name) => self.param = Some(name.clone()),
            TokenSlot::Header(name) => self.header = Some(name.clone()),
            TokenSlot::BodyField(path) => self.body_field = Some(path.clone()),
            TokenSlot::Template => {}
        }
    }

    fn slot(&self) -> Result<TokenSlot, String> {
        match (&self.param, &self.header, &self.body_field) {
            (Some(name), None, None) => Ok(TokenSlot::Query(name.clone())),
            (None, Some(name), None) => Ok(TokenSlot::Header(name.clone())),
            (None, None, Some(path)) => Ok(TokenSlot::BodyField(path.clone())),
            _ => Err("there is not one place for the token".to_owned()),
        }
    }
}

fn place_text(place: &Place) -> String {
    match place {
        Place::Body(path) => path.to_string(),
        Place::Header(name) => format!("{HEADER}{name}"),
    }
}

fn place(text: &str) -> Result<Place, String> {
    match text.strip_prefix(HEADER) {
        Some(name) => Ok(Place::Header(name.to_owned())),
        None => JsonPath::parse(text).map(Place::Body),
    }
}
