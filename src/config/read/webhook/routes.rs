//! Where the events of a webhook go.

use crate::{
    config::{
        Name, Stream,
        route::{Route, TypePattern},
    },
    yaml::{
        Kind, Place,
        fields::Value,
        quoted,
        section::{
            Key,
            Takes::{self, Either, List, Map},
            key,
        },
    },
};

/// Most routes of one webhook: each is compared with each event.
const ROUTES_MAX: usize = 256;

/// One stream, or several.
static STREAMS: Takes = Either(&[Takes::Name, List(&Takes::Name)]);

/// What every webhook says of where its events go.
pub(super) static ROUTES: [Key; 1] = [key("routes", Map(&STREAMS))
    .default("{}")
    .doc(
        "Streams of the source that events go to by their type, each of which has `push` or `webhook`: a type as it is \
         written, or with `*` for any characters. An event goes to the streams of every route that fits its type, each with \
         a raw log of its own and `records` that say where the records are in an event (`$` for the whole); one that fits none stays in this stream. One that a stream refuses, because it is withdrawn, by its \
         contract or for its size, is kept in this one instead. The sender is told 2xx once the event is durable everywhere it belongs, \
         else 5xx: its repeat, known by the event's id, adds what is missing and nothing else.",
    )
    .example("{ 'order.*': orders }")
    .beside("{ event_type: $.type }")
    .more(&["{ 'order.*': [orders, shop], '*': shop }"])];

/// Reads `routes`.
pub(super) fn routes(value: Value<'_>) -> Option<Vec<Route>> {
    let entries = value.entries("streams by type of event")?;
    if entries.len() > ROUTES_MAX {
        return value.refuse(format!("more than {ROUTES_MAX} routes"), None);
    }
    let routes: Vec<Option<Route>> = entries.iter().map(|entry| route(value.child(entry))).collect();
    routes.into_iter().collect()
}

fn route(value: Value<'_>) -> Option<Route> {
    let names = match &value.node.kind {
        Kind::Seq(_) => value.text_list()?,
        _ => vec![value.text()?.to_owned()],
    };
    if names.is_empty() {
        return value.refuse("at least one stream is needed", None);
    }
    let streams: Vec<Option<Name>> = names
        .iter()
        .map(|name| match Name::new(name) {
            Ok(name) => Some(name),
            Err(_) => value.refuse(
                format!("{} is not the name of a stream", quoted(name)),
                Some("write its name without that of the source".to_owned()),
            ),
        })
        .collect();
    Some(Route {
        types: TypePattern::new(value.key),
        streams: streams.into_iter().collect::<Option<Vec<Name>>>()?,
    })
}

/// Checks that routes lead to streams of the source that take what is pushed. `value` is the map of the streams.
pub(in crate::config::read) fn check_routes(value: Value<'_>, streams: &[Stream]) {
    for stream in streams {
        let Some(webhook) = &stream.webhook else { continue };
        let name = stream.name.stream.as_str();
        let problem = |message: String, hint: &str| {
            value
                .problems
                .add(place_of(value, name), message, Some(hint.to_owned()));
        };
        if !webhook.routes.is_empty() && webhook.event_type.is_none() {
            let message = format!("{name}: routes go by the type of an event");
            problem(message, "say in event_type where a request holds it");
        }
        for target in webhook.routes.iter().flat_map(|route| &route.streams) {
            match streams.iter().find(|stream| stream.name.stream == *target) {
                Some(found) if found.feed.push().is_some() => {}
                Some(_) => {
                    let message = format!("{name}: nothing can be pushed to {target}");
                    problem(message, "add push: {} to it");
                }
                None => {
                    let message = format!("{name}: {target} is no stream of the source");
                    problem(message, "routes lead to streams of the same source");
                }
            }
        }
    }
}

/// Where the stream called `name` stands.
fn place_of(streams: Value<'_>, name: &str) -> Place {
    match &streams.node.kind {
        Kind::Map(entries) => entries
            .iter()
            .find(|entry| entry.key == name)
            .map_or(streams.key_place, |entry| entry.place),
        _ => streams.key_place,
    }
}
