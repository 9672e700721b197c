//! Hosts that results and files may be fetched from although they are not the source's own.

use url::Url;

/// Whether `url` is of one of `hosts`, so that a request without credentials may go there.
///
/// A host is listed as `files.example`, for the usual port of the scheme, as `files.example:8443`, or as
/// `*.files.example` for every host below it. A source that speaks HTTPS (`base`) is never left for plain HTTP.
///
/// ```
/// use landfall::extract::hosts::is_listed;
/// use url::Url;
/// let url = |text| Url::parse(text).unwrap();
/// let hosts = ["files.example".to_owned(), "*.store.example".to_owned()];
/// let base = url("https://api.example");
/// assert!(is_listed(&hosts, &base, &url("https://files.example/a.csv?sig=1")));
/// assert!(is_listed(&hosts, &base, &url("https://eu.store.example/a.csv")));
/// assert!(!is_listed(&hosts, &base, &url("http://files.example/a.csv")));
/// assert!(!is_listed(&hosts, &base, &url("https://files.example:8443/a.csv")));
/// ```
pub fn is_listed(hosts: &[String], base: &Url, url: &Url) -> bool {
    let secure = url.scheme() == "https" || (url.scheme() == "http" && base.scheme() == "http");
    let Some(host) = url.host_str().filter(|_| secure) else {
        return false;
    };
    hosts.iter().any(|listed| {
        let (name, port) = split(listed);
        // The port of a URL is none where it is the usual one.
        let same_port = match port {
            None => url.port().is_none(),
            port => url.port_or_known_default() == port,
        };
        let same_name = match name.strip_prefix('*') {
            Some(domain) => host.len() > domain.len() && ends_with(host, domain),
            None => host.eq_ignore_ascii_case(name),
        };
        same_port && same_name
    })
}

/// The name and the port of a listed host, if it names one. An IPv6 address stands in brackets.
fn split(listed: &str) -> (&str, Option<u16>) {
    match listed.rsplit_once(':') {
        Some((name, port)) if !name.is_empty() && !port.ends_with(']') => (name, port.parse().ok()),
        _ => (listed, None),
    }
}

fn ends_with(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.as_bytes(), domain.as_bytes());
    host[host.len() - domain.len()..].eq_ignore_ascii_case(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_hosts_are_gone_to() {
        let hosts = [
            "a.example",
            "B.example:81",
            "*.c.example",
            "[::1]:82",
            "d.example:443",
        ];
        let hosts = hosts.map(str::to_owned);
        let table = [
            ("https://a.example/x", true),
            ("https://A.EXAMPLE./x", false),
            ("https://a.example:444/x", false),
            ("https://aa.example/x", false),
            ("https://b.example:81/x", true),
            ("https://b.example/x", false),
            ("https://x.c.example/", true),
            ("https://x.y.c.example/", true),
            ("https://c.example/", false),
            ("https://xc.example/", false),
            ("https://[::1]:82/x", true),
            ("https://[::1]/x", false),
            ("https://d.example/x", true),
            ("http://a.example/x", false),
            ("ftp://a.example/x", false),
            ("https://user@a.example/x", true),
        ];
        let base = Url::parse("https://api.example/v1").unwrap();
        for (url, expected) in table {
            let url = Url::parse(url).unwrap();
            assert_eq!(is_listed(&hosts, &base, &url), expected, "{url}");
        }
        let plain = Url::parse("http://api.example/v1").unwrap();
        assert!(is_listed(
            &hosts,
            &plain,
            &Url::parse("http://a.example/x").unwrap()
        ));
        assert!(!is_listed(&[], &plain, &plain));
    }
}
