//! What a request carries, rendered.

use serde_json::{Map, Value, json};

use crate::{
    config::{
        request::{Body, Tree},
        text::Vars,
    },
    error::Result,
    extract::request::{PageBody, anything},
};

/// The body for one request. A form field whose template gives nothing is left out; a JSON member keeps its null.
pub(super) fn render(body: &Body, vars: &Vars) -> Result<PageBody> {
    Ok(match body {
        Body::None => PageBody::None,
        Body::Json(tree) => PageBody::Json(value(tree, vars)?),
        Body::Form(fields) => {
            let mut pairs = Vec::new();
            for (name, text) in fields {
                let rendered = anything(text, vars)?;
                pairs.extend(rendered.into_iter().map(|text| (name.clone(), text)));
            }
            PageBody::Form(pairs)
        }
        Body::Text(text) => PageBody::Text(text.render(vars)?),
        Body::GraphQl {
            query,
            variables,
            operation,
        } => {
            let mut request = json!({"query": query.render(vars)?, "variables": members(variables, vars)?});
            if let Some(operation) = operation {
                request["operationName"] = Value::String(operation.clone());
            }
            PageBody::Json(request)
        }
    })
}

fn value(tree: &Tree, vars: &Vars) -> Result<Value> {
    Ok(match tree {
        Tree::Scalar(value) => value.clone(),
        Tree::Text(text) => text.render_json(vars)?,
        Tree::Array(items) => {
            let items = items.iter().map(|item| value(item, vars));
            Value::Array(items.collect::<Result<_>>()?)
        }
        Tree::Object(fields) => Value::Object(members(fields, vars)?),
    })
}

fn members(fields: &[(String, Tree)], vars: &Vars) -> Result<Map<String, Value>> {
    let fields = fields
        .iter()
        .map(|(name, tree)| Ok((name.clone(), value(tree, vars)?)));
    fields.collect()
}

/// Sets a field of JSON, outermost name first; what is in the way and has no fields is replaced.
pub(super) fn set_field(root: &mut Value, path: &[String], json: Value) {
    let mut place = root;
    for name in path {
        let length = place.as_array().map(Vec::len);
        let index: Option<usize> = name.parse().ok();
        let index = index.filter(|index| length.is_some_and(|length| *index <= length));
        if let (Some(index), Some(items)) = (index, place.as_array_mut()) {
            if index == items.len() {
                items.push(Value::Null);
            }
        } else if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = match index {
            Some(index) => &mut place[index],
            None => &mut place[name.as_str()],
        };
    }
    *place = json;
}
