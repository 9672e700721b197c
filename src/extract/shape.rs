//! What the requests of a window are made from, as one short text.

use serde_json::{Value, json};

use crate::{
    config::{Source, Stream},
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
    let headers: Vec<String> = source
        .headers
        .iter()
        .chain(&request.headers)
        .map(|(name, _)| name.to_ascii_lowercase())
        .collect();
    let shape = json!([
        base.as_str(),
        format!("{:?}", request.method),
        request.path,
        params,
        headers,
        request.body,
        format!("{:?}", stream.paginate),
        format!("{:?}", stream.incremental),
    ]);
    hex(&sha256(shape.to_string().as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use url::Url;

    use super::*;
    use crate::{
        config::{Auth, Paginate, secret::Secret},
        extract::tests::server::{cursor, incremental, source},
    };

    /// The shape of a source after `change`.
    fn after(change: impl Fn(&mut Source)) -> String {
        let mut source = source(&Url::parse("https://a.example/v1").unwrap(), cursor());
        source.streams[0].request.params = vec![("limit".to_owned(), Secret::literal("5"))];
        source.streams[0].incremental = Some(incremental(Duration::ZERO));
        change(&mut source);
        of(&source, &source.streams[0])
    }

    #[test]
    fn r065_every_part_of_the_request_is_part_of_its_shape() {
        let changes: [fn(&mut Source); 9] = [
            |_| {},
            |source| source.base_url = Url::parse("https://a.example/v2").unwrap(),
            |source| source.streams[0].request.path = "/other".to_owned(),
            |source| source.streams[0].request.params[0].1 = Secret::literal("6"),
            |source| source.streams[0].request.params[0].1 = Secret::parse("${env:LIMIT}").unwrap(),
            |source| source.streams[0].request.body = Some(json!({"a": 1})),
            |source| source.streams[0].paginate = Paginate::LinkHeader,
            |source| source.streams[0].incremental = None,
            |source| {
                source
                    .headers
                    .push(("X-Version".to_owned(), Secret::literal("2")))
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
