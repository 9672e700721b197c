//! What is kept about a page beside its body.

use crate::{
    clock::Timestamp,
    config::request::Method,
    extract::{
        client::Head,
        mask::Masks,
        request::{PageRequest, START},
    },
    raw::PageFacts,
};

/// Headers worth keeping, lowercase; those that begin with one of [`HEADER_PREFIXES`] are kept too.
const HEADERS: [&str; 19] = [
    "age",
    "content-type",
    "date",
    "deprecation",
    "etag",
    "last-modified",
    "link",
    "next-page",
    "request-id",
    "retry-after",
    "sunset",
    "total-count",
    "total-objects",
    "total-records",
    "traceparent",
    "x-amzn-requestid",
    "x-next-page",
    "x-request-id",
    "x-total-count",
];

const HEADER_PREFIXES: [&str; 3] = ["ratelimit", "x-ratelimit-", "x-rate-limit-"];

/// Longest header value kept, in bytes; a longer one is left out.
const HEADER_BYTES_MAX: usize = 4 * 1024;

/// The facts of a page, with every secret masked.
pub fn of(
    request: &PageRequest,
    head: &Head,
    masks: &Masks,
    attempts: u32,
    fetched_at: Timestamp,
    returned: Option<&str>,
) -> PageFacts {
    PageFacts {
        headers: headers(head, masks),
        attempts,
        token_used: Some(&request.token)
            .filter(|token| *token != START)
            .map(|token| masks.token(token)),
        token_returned: returned.map(|token| masks.token(token)),
        ..PageFacts::new(
            fetched_at,
            method(request.method),
            masks.url(head.url.as_str()),
            head.status,
        )
    }
}

/// The method's name on the wire.
pub fn method(method: Method) -> &'static str {
    method.as_str()
}

/// The server's own name for a request, for the log.
pub fn request_id(head: &Head) -> Option<&str> {
    ["x-request-id", "request-id", "x-amzn-requestid"]
        .iter()
        .find_map(|name| head.headers.get(*name))
        .and_then(|value| value.to_str().ok())
}

fn headers(head: &Head, masks: &Masks) -> Vec<(String, String)> {
    let kept =
        |name: &str| HEADERS.contains(&name) || HEADER_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    head.headers
        .iter()
        .filter(|(name, value)| kept(name.as_str()) && value.len() <= HEADER_BYTES_MAX)
        .map(|(name, value)| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let masked = match name.as_str() {
                "link" => links(&text, masks),
                "next-page" | "x-next-page" => masks.token(&text),
                _ => masks.text(&text),
            };
            (name.as_str().to_owned(), masked)
        })
        .collect()
}

/// A `Link` value with each URL in it masked.
fn links(value: &str, masks: &Masks) -> String {
    let mut masked = String::new();
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('<') {
        let Some((target, behind)) = after.split_once('>') else {
            break;
        };
        masked.push_str(&masks.text(before));
        masked.push('<');
        masked.push_str(&masks.url(target));
        masked.push('>');
        rest = behind;
    }
    masked.push_str(&masks.url(rest));
    masked
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use reqwest::header::HeaderMap;
    use url::Url;

    use super::*;
    use crate::config::text::Vars;
    use crate::extract::request::PageBody;

    #[test]
    fn r050_chosen_headers_are_kept_and_masked() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("Set-Cookie", "session=1"),
            ("ETag", "\"17\""),
            (
                "Link",
                "</o?page=2&api_key=zzz>; rel=\"next\", <https://u:p@a.example/?sig=1>; rel=last",
            ),
            ("X-RateLimit-Remaining", "7"),
            ("Next-Page", "https://a.example/o?token=zzz"),
        ] {
            headers.append(
                name.parse::<reqwest::header::HeaderName>().unwrap(),
                value.parse().unwrap(),
            );
        }
        let head = Head {
            status: 200,
            headers,
            url: Url::parse("https://a.example/o?api_key=zzz&page=1").unwrap(),
        };
        let request = PageRequest {
            method: Method::Get,
            url: head.url.clone(),
            headers: Vec::new(),
            body: PageBody::None,
            token: START.to_owned(),
            placed: Vec::new(),
            vars: Vars::default(),
            hosts: Vec::new(),
        };
        let facts = of(
            &request,
            &head,
            &Masks::default(),
            2,
            Timestamp::UNIX_EPOCH,
            Some("/o?page=2&key=zzz"),
        );
        let json = serde_json::to_string(&facts).unwrap();
        assert!(!json.contains("zzz"));
        let kept: Vec<String> = facts
            .headers
            .iter()
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        assert_snapshot!(kept.join("\n"), @r#"
        etag: "17"
        link: </o?page=2&api_key=****>; rel="next", <https://****@a.example/?sig=****>; rel=last
        x-ratelimit-remaining: 7
        next-page: https://a.example/o?token=****
        "#);
        assert_eq!(facts.url, "https://a.example/o?api_key=****&page=1");
        assert_eq!(facts.token_returned.as_deref(), Some("/o?page=2&key=****"));
    }
}
