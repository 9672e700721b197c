//! What the requests of a window are made from, as one short text.

use serde_json::{Value, json};

use crate::{
    config::{
        Source, Stream,
        request::{Body, Tree},
    },
    raw::frame::{hex, sha256},
};

/// SHA-256 of what the pages of `stream` depend on, lowercase hex: URL, method, parameters, names of headers, body,
/// paginator, cursor.
///
/// A changed shape means that a page token of the window under way belongs to another question. References count by
/// their names and credentials not at all, so a rotated secret changes nothing.
pub fn of(source: &Source, stream: &Stream) -> String {
    let mut base = source.base_url.clone();
    // Both setters can only fail for URLs without a host, which have no user either.
    let _ = base.set_username("");
    let _ = base.set_password(None);
    let request = &stream.request;
    let params: Vec<Value> = request
        .params
        .iter()
        .map(|(name, value)| json!([name, value.as_written()]))
        .collect();
    let ours = source.headers.iter().map(|(name, _)| name);
    let theirs = request.headers.iter().map(|(name, _)| name);
    let headers: Vec<String> = ours.chain(theirs).map(|name| name.to_ascii_lowercase()).collect();
    let shape = json!([
        base.as_str(),
        format!("{:?}", request.method),
        request.path.as_written(),
        params,
        headers,
        shape_of_body(&request.body),
        format!("{:?}", stream.paginate),
        format!("{:?}", stream.incremental),
    ]);
    hex(&sha256(shape.to_string().as_bytes()))
}

/// A body as it stands in the project file.
fn shape_of_body(body: &Body) -> Value {
    match body {
        Body::None => Value::Null,
        Body::Json(tree) => shape_of_tree(tree),
        Body::Form(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| json!([name, value.as_written()]));
            fields.collect()
        }
        Body::Text(text) => json!({"text": text.as_written()}),
        Body::GraphQl {
            query,
            variables,
            operation,
        } => {
            let variables = variables
                .iter()
                .map(|(name, tree)| json!([name, shape_of_tree(tree)]));
            json!({"query": query.as_written(), "variables": variables.collect::<Vec<_>>(), "operation": operation})
        }
    }
}

fn shape_of_tree(tree: &Tree) -> Value {
    match tree {
        Tree::Scalar(value) => value.clone(),
        Tree::Text(text) => Value::String(text.as_written()),
        Tree::Array(items) => items.iter().map(shape_of_tree).collect(),
        Tree::Object(members) => {
            let members = members
                .iter()
                .map(|(name, tree)| (name.clone(), shape_of_tree(tree)));
            Value::Object(members.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use url::Url;

    use super::*;
    use crate::config::paginate::Paging;
    use crate::config::text::Text;
    use crate::{
        config::{auth::Auth, paginate::Paginate, secret::Secret},
        extract::tests::server::{cursor, incremental, source},
    };

    /// The shape of a source after `change`.
    fn after(change: impl Fn(&mut Source)) -> String {
        let mut source = source(&Url::parse("https://a.example/v1").unwrap(), cursor());
        source.streams[0].request.params = vec![("limit".to_owned(), Text::literal("5"))];
        source.streams[0].incremental = Some(incremental(Duration::ZERO));
        change(&mut source);
        of(&source, &source.streams[0])
    }

    #[test]
    fn r065_every_part_of_the_request_is_part_of_its_shape() {
        let changes: [fn(&mut Source); 9] = [
            |_| {},
            |source| source.base_url = Url::parse("https://a.example/v2").unwrap(),
            |source| source.streams[0].request.path = Text::literal("/other"),
            |source| source.streams[0].request.params[0].1 = Text::literal("6"),
            |source| source.streams[0].request.params[0].1 = Text::parse("${env:LIMIT}").unwrap(),
            |source| source.streams[0].request.body = Body::Json(json!({"a": 1}).into()),
            |source| source.streams[0].paginate = Paging::plain(Paginate::LinkHeader),
            |source| source.streams[0].incremental = None,
            |source| {
                source.headers.push((
                    "X-Version".to_owned(),
                    crate::config::secret::Secret::literal("2"),
                ))
            },
        ];
        let mut shapes: Vec<String> = changes.iter().map(after).collect();
        assert!(shapes.iter().all(|shape| shape.len() == 64));
        shapes.sort();
        shapes.dedup();
        assert_eq!(shapes.len(), changes.len());
    }

    #[test]
    fn r065_a_rotated_credential_keeps_the_shape() {
        let rotated = |source: &mut Source| {
            source.base_url.set_password(Some("new")).unwrap();
            source.auth = Auth::Bearer {
                scheme: "Bearer".to_owned(),
                token: Secret::literal("new"),
            };
        };
        assert_eq!(after(rotated), after(|_| {}));
    }
}
