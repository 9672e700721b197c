//! Events of one webhook that go to several streams: the setting.

use std::fmt;

use crate::config::Name;

/// Events of some types and the streams they go to, all of the source of the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which events.
    pub types: TypePattern,
    /// Where each of them goes. At least one.
    pub streams: Vec<Name>,
}

/// Types of events: one as it is written, or with `*` for any characters, none included.
///
/// ```
/// use landfall::config::route::TypePattern;
/// let pattern = TypePattern::new("order.*");
/// assert!(pattern.matches("order.item.changed") && !pattern.matches("orders"));
/// assert!(TypePattern::new("*").matches(""));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypePattern(String);

impl TypePattern {
    /// The pattern `text`.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// Whether `kind` is one of these types.
    pub fn matches(&self, kind: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| kind.strip_prefix(first)) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        // Each part where it is met first: that leaves the most to those behind it.
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

impl fmt::Display for TypePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where an event of type `kind` goes by `routes`: to the streams of every route that fits it, each once, in the order of
/// the file. One that fits none, or says no type, stays in `own`, the stream of the webhook.
pub fn targets<'a>(routes: &'a [Route], own: &'a Name, kind: Option<&str>) -> Vec<&'a Name> {
    let mut targets: Vec<&Name> = Vec::new();
    let fitting = routes
        .iter()
        .filter(|route| kind.is_some_and(|kind| route.types.matches(kind)));
    for stream in fitting.flat_map(|route| &route.streams) {
        if !targets.contains(&stream) {
            targets.push(stream);
        }
    }
    if targets.is_empty() {
        targets.push(own);
    }
    targets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use regex::Regex;

    use super::*;

    #[test]
    fn an_event_goes_to_each_stream_of_its_routes_once() {
        let name = |text: &str| Name::new(text).unwrap();
        let route = |types: &str, streams: &[&str]| Route {
            types: TypePattern::new(types),
            streams: streams.iter().map(|stream| name(stream)).collect(),
        };
        let routes = [
            route("order.created", &["orders", "created"]),
            route("order.*", &["orders", "audit"]),
            route("customer.*", &["customers"]),
        ];
        let own = name("hooks");
        let to = |kind: Option<&str>| {
            let streams = targets(&routes, &own, kind);
            streams
                .iter()
                .map(|name| name.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(to(Some("order.created")), "orders created audit");
        assert_eq!(to(Some("order.paid")), "orders audit");
        assert_eq!(to(Some("customer.")), "customers");
        assert_eq!(to(Some("invoice.paid")), "hooks");
        assert_eq!(to(None), "hooks");
    }

    proptest! {
        #[test]
        fn r107_every_event_lands_in_one_stream_or_more_and_in_none_twice(
            routes in prop::collection::vec(("[ab.*]{0,5}", prop::collection::vec("[a-d]", 1..4)), 0..5),
            kind in prop::option::of("[ab.]{0,6}"),
        ) {
            let routes: Vec<Route> = routes.iter().map(|(types, streams)| Route {
                types: TypePattern::new(types),
                streams: streams.iter().map(|stream| Name::new(stream).unwrap()).collect(),
            }).collect();
            let own = Name::new("own").unwrap();
            let mut found = targets(&routes, &own, kind.as_deref());
            prop_assert!(!found.is_empty());
            let count = found.len();
            found.sort();
            found.dedup();
            prop_assert_eq!(found.len(), count);
        }

        #[test]
        fn a_pattern_means_what_a_regular_expression_says(pattern in "[ab*]{0,6}", kind in "[ab]{0,8}") {
            let expression = format!("^{}$", pattern.replace('*', ".*"));
            let expected = Regex::new(&expression).unwrap().is_match(&kind);
            prop_assert_eq!(TypePattern::new(&pattern).matches(&kind), expected);
        }
    }
}
