//! What the requests of a window are made from, as one short text.

use serde_json::{Value, json};

use crate::{
    config::{
        Source, Stream,
        job::Job,
        paginate::{Paginate, Paging},
        request::{Body, Request, Tree},
        text::{Expr, Text},
    },
    raw::frame::{hex, sha256},
};

/// SHA-256 of what the pages of `stream` depend on, lowercase hex: URL, method, parameters, names and templates of
/// headers, body, paginator, cursor, the requests of an export job, and the values of `config` that templates use.
///
/// A changed shape means that a page token of the window under way belongs to another question. References count by
/// their names and credentials not at all, so a rotated secret changes nothing; nor do the values of slices, each of
/// which has a window of its own.
pub fn of(source: &Source, stream: &Stream) -> String {
    let mut base = source.base_url.clone();
    // Both setters can only fail for URLs without a host, which have no user either.
    let _ = base.set_username("");
    let _ = base.set_password(None);
    let ours = source.headers.iter().map(|(name, _)| name.to_ascii_lowercase());
    let jobs: Vec<&Request> = stream.job.iter().flat_map(Job::requests).collect();
    let requests = [&stream.request].into_iter().chain(jobs.iter().copied());
    let config = requests.clone().any(uses_config).then_some(&source.config);
    let requests: Vec<Value> = requests.map(shape_of_request).collect();
    let shape = json!([
        base.as_str(),
        ours.collect::<Vec<String>>(),
        requests,
        shape_of_paging(&stream.paginate),
        format!("{:?}", stream.incremental),
        config,
    ]);
    hex(&sha256(shape.to_string().as_bytes()))
}

fn shape_of_request(request: &Request) -> Value {
    let params = request
        .params
        .iter()
        .map(|(name, value)| json!([name, value.as_written()]));
    let headers = request.headers.iter().map(|(name, value)| {
        // A value that stands in the file may be a credential.
        let template = value.is_template().then(|| value.as_written());
        json!([name.to_ascii_lowercase(), template])
    });
    json!([
        request.method.as_str(),
        request.path.as_written(),
        params.collect::<Vec<_>>(),
        headers.collect::<Vec<_>>(),
        shape_of_body(&request.body),
    ])
}

/// With the templates in it, which their `Debug` does not show.
fn shape_of_paging(paging: &Paging) -> Value {
    let template = match &paging.next {
        Paginate::MadeUrl { url } => Some(url.as_written()),
        Paginate::Template { token, .. } => Some(token.as_written()),
        _ => None,
    };
    let when = paging.stop.when.as_ref().map(Expr::as_str);
    json!([format!("{paging:?}"), template, when])
}

fn uses_config(request: &Request) -> bool {
    let uses = |text: &Text| text.variables().contains("config");
    let pairs = request.params.iter().chain(&request.headers);
    uses(&request.path)
        || pairs.into_iter().any(|(_, text)| uses(text))
        || request.body.texts().into_iter().any(uses)
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
    use crate::{
        config::{auth::Auth, secret::Secret},
        extract::tests::server::{cursor, incremental, source},
    };

    fn made(url: &str) -> Paginate {
        Paginate::MadeUrl {
            url: Text::parse(url).unwrap(),
        }
    }

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
        let changes: [fn(&mut Source); 15] = [
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
            |source| source.streams[0].paginate = Paging::plain(made("{{ response.a }}")),
            |source| source.streams[0].paginate = Paging::plain(made("{{ response.b }}")),
            |source| source.streams[0].paginate.stop.when = Some(Expr::parse("response.a").unwrap()),
            |source| source.streams[0].paginate.stop.when = Some(Expr::parse("response.b").unwrap()),
            |source| {
                source.streams[0].request.headers =
                    vec![("X-A".to_owned(), Text::parse("{{ now }}").unwrap())]
            },
            |source| {
                source.config = vec![("region".to_owned(), json!("eu"))];
                source.streams[0].request.path = Text::parse("/{{ config.region }}").unwrap();
            },
        ];
        let mut shapes: Vec<String> = changes.iter().map(after).collect();
        assert!(shapes.iter().all(|shape| shape.len() == 64));
        shapes.sort();
        shapes.dedup();
        assert_eq!(shapes.len(), changes.len());
    }

    #[test]
    fn r065_values_of_config_count_if_they_are_used() {
        let region = |path: &'static str, region: &'static str| {
            after(move |source| {
                source.config = vec![("region".to_owned(), json!(region))];
                source.streams[0].request.path = Text::parse(path).unwrap();
            })
        };
        assert_eq!(region("/o", "eu"), region("/o", "us"));
        assert_ne!(
            region("/{{ config.region }}", "eu"),
            region("/{{ config.region }}", "us")
        );
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
