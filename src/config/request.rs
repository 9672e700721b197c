//! What is asked of an API: the settings.

use crate::{config::text::Text, json::JsonPath};

/// The first request of a window. Texts may hold templates and references; see [`Text`].
#[derive(Clone, Debug)]
pub struct Request {
    /// The HTTP method.
    pub method: Method,
    /// Joined to the base URL.
    pub path: Text,
    /// Query parameters, in order; one with several values has several entries. One that renders to nothing is left out
    /// if it is a template.
    pub params: Vec<(String, Text)>,
    /// Sent besides those of the source. One that renders to nothing is left out if it is a template.
    pub headers: Vec<(String, Text)>,
    /// What a POST, PUT or PATCH carries.
    pub body: Body,
}

impl Request {
    /// That of a stream that nothing is asked for; never sent.
    pub fn none() -> Self {
        Self {
            method: Method::Get,
            path: Text::literal("/"),
            params: Vec::new(),
            headers: Vec::new(),
            body: Body::None,
        }
    }
}

/// HTTP methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET
    Get,
    /// POST
    Post,
    /// PUT, as some export jobs want it.
    Put,
    /// PATCH
    Patch,
    /// DELETE, to remove an export job.
    Delete,
}

/// The body of a request.
#[derive(Clone, Debug)]
pub enum Body {
    /// None.
    None,
    /// `application/json`.
    Json(Tree),
    /// `application/x-www-form-urlencoded`; a field with several values has several entries.
    Form(Vec<(String, Text)>),
    /// Any text; its type is a header.
    Text(Text),
    /// `{"query": …, "variables": …}` as `application/json`.
    GraphQl {
        /// The document.
        query: Text,
        /// Its variables.
        variables: Vec<(String, Tree)>,
        /// Which operation of the document.
        operation: Option<String>,
    },
}

/// JSON with templates in its texts. A text that is one expression, `"{{ slice.id }}"`, becomes the value of the
/// expression with its type; any other text stays a text.
#[derive(Clone, Debug)]
pub enum Tree {
    /// null, a boolean or a number.
    Scalar(serde_json::Value),
    /// A text.
    Text(Text),
    /// An array.
    Array(Vec<Tree>),
    /// An object, in the order of the file.
    Object(Vec<(String, Tree)>),
}

/// A place in a response.
#[derive(Clone, Debug)]
pub enum Place {
    /// The first value at a path in the JSON body.
    Body(JsonPath),
    /// A response header, by lowercase name.
    Header(String),
}

/// Where a value goes in the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TokenSlot {
    /// A query parameter.
    Query(String),
    /// A header.
    Header(String),
    /// A field of the JSON or form body, outermost name first.
    BodyField(Vec<String>),
    /// Nowhere by itself: a template of the request takes it from its variables, as in `/items/{{ page.token }}`.
    Template,
}

impl Body {
    /// Every text in it, in order.
    pub fn texts(&self) -> Vec<&Text> {
        match self {
            Self::None => Vec::new(),
            Self::Json(tree) => tree.texts(),
            Self::Form(fields) => fields.iter().map(|(_, text)| text).collect(),
            Self::Text(text) => vec![text],
            Self::GraphQl { query, variables, .. } => {
                let variables = variables.iter().flat_map(|(_, tree)| tree.texts());
                [query].into_iter().chain(variables).collect()
            }
        }
    }
}

impl Tree {
    /// Every text in it, in order.
    pub fn texts(&self) -> Vec<&Text> {
        match self {
            Self::Scalar(_) => Vec::new(),
            Self::Text(text) => vec![text],
            Self::Array(items) => items.iter().flat_map(Self::texts).collect(),
            Self::Object(members) => members.iter().flat_map(|(_, tree)| tree.texts()).collect(),
        }
    }
}

impl From<serde_json::Value> for Tree {
    /// The same JSON without templates.
    fn from(value: serde_json::Value) -> Self {
        match value {
            serde_json::Value::String(text) => Self::Text(Text::literal(text)),
            serde_json::Value::Array(items) => Self::Array(items.into_iter().map(Self::from).collect()),
            serde_json::Value::Object(members) => {
                let members = members.into_iter().map(|(name, value)| (name, Self::from(value)));
                Self::Object(members.collect())
            }
            scalar => Self::Scalar(scalar),
        }
    }
}

impl Method {
    /// The method's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }

    /// Whether a request of this method may have a body.
    pub fn has_body(self) -> bool {
        matches!(self, Self::Post | Self::Put | Self::Patch)
    }
}
