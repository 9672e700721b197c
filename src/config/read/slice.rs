//! How a stream is asked for in parts.

use std::path::Path as FilePath;

use crate::{
    config::{
        Name, Stream,
        read::values::{expr, json_path, text},
        slice::{Combine, Parent, ParentRecords, SliceBy, SliceState, Slicing},
        text::Text,
    },
    json::JsonPath,
    yaml::{
        Kind, Place,
        fields::Value,
        quoted,
        section::{
            Section,
            Takes::{self, Choice, Either, Expression, Integer, List, Map, Path, Template, Text as Word},
            key,
        },
    },
};

/// Most slices at once. Each holds a page or two.
pub(super) const AT_ONCE_MAX: u32 = 1000;

/// Most values in one slice.
const GROUP_MAX: u32 = 10_000;

static BY: Takes = Either(&[Takes::Section(&SLICE_LIST), Takes::Section(&SLICE_PARENT)]);

/// `slices`
pub(super) static SLICES: Section = Section::new(
    "slices",
    "slices",
    "A stream asked for in parts by some values, each part with a bookmark of its own. In templates the values are \
     `slice.NAME`.",
    &[
        key("by", Either(&[List(&BY), BY]))
            .required()
            .doc("Where the values come from; `combine` says what several give.")
            .example("[{ list: region, values: [eu, us] }]")
            .more(&[
                "{ parent: orders, values: { order_id: $.id } }",
                "[{ list: region, values: [eu, us] }, { parent: orders, values: { order_id: $.id } }]",
            ]),
        key(
            "combine",
            Choice(&[
                ("product", "every combination"),
                (
                    "union",
                    "one after the other, each with the same names; what two of them have is asked for once",
                ),
            ]),
        )
        .default("product")
        .doc("What several sources of values give.")
        .example("union"),
        key("at_once", Integer(1, AT_ONCE_MAX as u64))
            .default("4")
            .doc("Slices extracted at the same time, within the budget of the credential.")
            .example("16"),
        key("slices_max", Integer(1, 1_000_000_000))
            .default("1000000")
            .doc("Most slices of one pass.")
            .example("50000"),
        key("kept_max", Integer(1, 1_000_000))
            .default("10000")
            .doc("Most slices whose own bookmark is kept. Beyond it the least recently changed begin at `start` again.")
            .example("100000"),
        key(
            "state",
            Choice(&[
                ("per_slice", "each slice has its own"),
                (
                    "shared",
                    "all have one: what a new slice has from before it is not asked for",
                ),
            ]),
        )
        .default("per_slice")
        .doc("What the watermark belongs to.")
        .example("shared"),
        key("include", List(&Word))
            .default("[]")
            .doc("Slice values put into every record as members of that name.")
            .example("[region]"),
    ],
)
.example("{ by: [{ list: region, values: [eu, us] }] }");

/// A list of values.
static SLICE_LIST: Section = Section::new(
    "slice_list",
    "a list of values",
    "Slices by values that stand in the file.",
    &[
        key("list", Word)
            .required()
            .doc("What a value is called.")
            .example("region"),
        key("values", List(&Template))
            .required()
            .doc("The values; a template over `config` may give a whole list.")
            .example("[eu, us]"),
    ],
)
.example("{ list: region, values: [eu, us] }");

/// Records of another stream.
static SLICE_PARENT: Section = Section::new(
    "slice_parent",
    "a parent stream",
    "Slices by the records of another stream of the source, read from its raw log.",
    &[
        key("parent", Takes::Name)
            .required()
            .doc("The other stream.")
            .example("orders"),
        key("values", Map(&Path))
            .required()
            .doc("Values taken out of each of its records, by name. A record that lacks one is passed over and counted.")
            .example("{ order_id: $.id }"),
        key("optional", Map(&Path))
            .default("{}")
            .doc("Further values by name, null where a record lacks them.")
            .example("{ region: $.address.region }"),
        key("only", Expression)
            .doc("Only records for which this holds, over `parent` and `config`.")
            .example("parent.status != 'draft'"),
        key(
            "records",
            Choice(&[
                (
                    "all",
                    "every one there ever was, or those of the last pass if the parent is always read whole",
                ),
                ("new", "those landed since the last complete pass of this stream"),
            ]),
        )
        .default("all")
        .doc("Which of its records.")
        .example("new"),
        key("group", Integer(1, GROUP_MAX as u64))
            .default("1")
            .doc("That many values of the first name in one slice, as an array; 1 for no array.")
            .example("50"),
    ],
)
.example("{ parent: orders, values: { order_id: $.id } }");

/// Reads `slices`.
pub(super) fn slices(value: Value<'_>, dir: &FilePath) -> Option<Slicing> {
    let fields = value.fields(&SLICES)?;
    let combine = fields.optional("combine", |value| {
        value.choice(&[("product", Combine::Product), ("union", Combine::Union)], &[])
    });
    let combine = combine.unwrap_or(Combine::Product);
    let by = fields.required("by", |value| by(value, dir, combine));
    let at_once = fields.optional("at_once", |value| value.integer_u32(1..=AT_ONCE_MAX));
    let slices_max = fields.optional("slices_max", |value| value.integer(1..=1_000_000_000));
    let kept_max = fields.optional("kept_max", |value| value.integer(1..=1_000_000));
    let state = fields.optional("state", |value| {
        let states = [
            ("per_slice", SliceState::PerSlice),
            ("shared", SliceState::Shared),
        ];
        value.choice(&states, &[])
    });
    let by = by?;
    let include = fields.optional("include", |value| include(value, &by));
    Some(Slicing {
        at_once: at_once.unwrap_or(Slicing::AT_ONCE_DEFAULT),
        slices_max: slices_max.unwrap_or(Slicing::SLICES_MAX_DEFAULT),
        kept_max: kept_max.unwrap_or(Slicing::KEPT_MAX_DEFAULT),
        state: state.unwrap_or(SliceState::PerSlice),
        include: include.unwrap_or_default(),
        patience: None,
        combine,
        by,
    })
}

/// One source of values, or a list of them.
fn by(value: Value<'_>, dir: &FilePath, combine: Combine) -> Option<Vec<SliceBy>> {
    let items: Vec<Value<'_>> = match &value.node.kind {
        Kind::Map(_) => vec![value],
        _ => value.items()?.collect(),
    };
    if items.is_empty() {
        return value.refuse("at least one list or parent is needed", None);
    }
    let mut all: Vec<SliceBy> = Vec::new();
    let mut good = true;
    for item in items {
        let Some(by) = one(item, dir) else {
            good = false;
            continue;
        };
        good &= match combine {
            Combine::Product => has_own_names(item, &by, &all),
            Combine::Union => all.first().is_none_or(|first| has_names_of(item, &by, first)),
        };
        all.push(by);
    }
    good &= reads_alike(value, &all, combine);
    good.then_some(all)
}

fn has_own_names(item: Value<'_>, by: &SliceBy, others: &[SliceBy]) -> bool {
    let known: Vec<&str> = others.iter().flat_map(names).collect();
    match names(by).find(|name| known.contains(name)) {
        Some(name) => {
            item.refuse::<()>(format!("{} is the name of another value too", quoted(name)), None);
            false
        }
        None => true,
    }
}

fn has_names_of(item: Value<'_>, by: &SliceBy, first: &SliceBy) -> bool {
    let sorted = |by| {
        let mut names: Vec<&str> = names(by).collect();
        names.sort_unstable();
        names
    };
    if sorted(by) == sorted(first) {
        return true;
    }
    let hint = format!("name them as the first does: {}", sorted(first).join(", "));
    item.refuse::<()>("a union needs the same names everywhere", Some(hint));
    false
}

/// Whether the records of several parents can be read together.
fn reads_alike(value: Value<'_>, all: &[SliceBy], combine: Combine) -> bool {
    let parents = all.iter().filter_map(|by| match by {
        SliceBy::Parent(parent) => Some(parent),
        SliceBy::List { .. } => None,
    });
    let parents: Vec<&Parent> = parents.collect();
    let problem = match combine {
        Combine::Product => {
            let new = parents.iter().any(|parent| parent.records == ParentRecords::New);
            (new && parents.len() > 1).then_some((
                "new records of one parent would not meet the old ones of another",
                "write records: all for each of them",
            ))
        }
        Combine::Union => {
            let differ = |one: &&Parent| {
                let same = parents.iter().filter(|other| other.stream == one.stream);
                same.clone().any(|other| other.records != one.records)
            };
            parents.iter().any(differ).then_some((
                "one parent cannot be read both as a whole and for what is new",
                "write the same records for each of its entries",
            ))
        }
    };
    if let Some((problem, hint)) = problem {
        value.refuse::<()>(problem, Some(hint.to_owned()));
    }
    problem.is_none()
}

fn one(value: Value<'_>, dir: &FilePath) -> Option<SliceBy> {
    let entries = value.entries("with the key list or parent")?;
    let has = |key: &str| entries.iter().any(|entry| entry.key == key);
    match (has("list"), has("parent")) {
        (true, false) => list(value, dir),
        (false, true) => parent(value),
        (true, true) => value.refuse("either list or parent is given, not both", None),
        (false, false) => {
            let hint =
                "write { list: region, values: [eu, us] } or { parent: orders, values: { order_id: $.id } }";
            value.refuse("needs the key list or parent", Some(hint.to_owned()))
        }
    }
}

fn list(value: Value<'_>, dir: &FilePath) -> Option<SliceBy> {
    let fields = value.fields(&SLICE_LIST)?;
    let name = fields.required("list", |value| variable(value, value.text()?));
    let values = fields.required("values", |value| {
        let values: Vec<Option<Text>> = value.items()?.map(|item| text(item, dir, &["config"])).collect();
        if values.is_empty() {
            return value.refuse("at least one value is needed", None);
        }
        values.into_iter().collect::<Option<Vec<Text>>>()
    });
    Some(SliceBy::List {
        name: name?,
        values: values?,
    })
}

fn parent(value: Value<'_>) -> Option<SliceBy> {
    let fields = value.fields(&SLICE_PARENT)?;
    let stream = fields.required("parent", |value| match Name::new(value.text()?) {
        Ok(name) => Some(name),
        Err(_) => value.refuse(
            "not the name of a stream",
            Some("write its name without that of the source".to_owned()),
        ),
    });
    let values = fields.required("values", |value| match paths(value)? {
        values if values.is_empty() => value.refuse("at least one value is needed", None),
        values => Some(values),
    });
    let optional = fields.optional("optional", paths);
    let only = fields
        .value("only")
        .map(|value| expr(value, &["parent", "config"]));
    let records = fields.optional("records", |value| {
        value.choice(&[("all", ParentRecords::All), ("new", ParentRecords::New)], &[])
    });
    let group = fields.optional("group", |value| value.integer_u32(1..=GROUP_MAX));
    let (values, optional) = (values?, optional.unwrap_or_default());
    let both = optional
        .iter()
        .find(|(name, _)| values.iter().any(|(known, _)| known == name));
    if let (Some((name, _)), Some(value)) = (both, fields.value("optional")) {
        return value.refuse(format!("{} stands in values too", quoted(name)), None);
    }
    Some(SliceBy::Parent(Parent {
        stream: stream?,
        values,
        optional,
        only: only.map_or(Some(None), |only| only.map(Some))?,
        records: records.unwrap_or(ParentRecords::All),
        group: group.unwrap_or(1),
    }))
}

/// Names with the paths of their values.
pub(super) fn paths(value: Value<'_>) -> Option<Vec<(String, JsonPath)>> {
    let read = |entry| {
        let child = value.child(entry);
        Some((variable(child, child.key)?, json_path(child)?))
    };
    let paths: Vec<Option<_>> = value.entries("names with paths")?.iter().map(read).collect();
    paths.into_iter().collect()
}

/// A name that templates can say: `slice.NAME`.
fn variable(value: Value<'_>, name: &str) -> Option<String> {
    let letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let first = name.bytes().next().is_some_and(letter);
    if first && name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit()) {
        return Some(name.to_owned());
    }
    value.refuse(
        format!("{} cannot be the name of a value", quoted(name)),
        Some("a name has letters, digits and _, and begins with no digit".to_owned()),
    )
}

fn names(by: &SliceBy) -> Box<dyn Iterator<Item = &str> + '_> {
    match by {
        SliceBy::List { name, .. } => Box::new(std::iter::once(name.as_str())),
        SliceBy::Parent(parent) => Box::new(parent.names()),
    }
}

fn include(value: Value<'_>, by: &[SliceBy]) -> Option<Vec<String>> {
    let include = value.text_list()?;
    let known: Vec<&str> = by.iter().flat_map(names).collect();
    match include.iter().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => value.refuse(
            format!("{} is no value of the slices", quoted(unknown)),
            Some(format!("known: {}", known.join(", "))),
        ),
        None => Some(include),
    }
}

/// Checks that the parents of all streams of a source are streams of it, and none its own ancestor. `value` is the map
/// of the streams.
pub(super) fn check_parents(value: Value<'_>, streams: &[Stream]) {
    let Kind::Map(entries) = &value.node.kind else {
        return;
    };
    let known: Vec<&str> = entries.iter().map(|entry| entry.key.as_str()).collect();
    for stream in streams {
        let name = stream.name.stream.as_str();
        let place = place_of(value, name);
        for parent in parents(stream) {
            if !known.contains(&parent) {
                let message = format!("{name}: the parent {} is no stream of the source", quoted(parent));
                let hint = format!("known: {}", known.join(", "));
                value.problems.add(place, message, Some(hint));
            }
        }
        if is_own_ancestor(name, streams) {
            let message = format!("{name}: the stream waits for itself through its parents");
            value.problems.add(place, message, None);
        }
    }
}

fn parents(stream: &Stream) -> impl Iterator<Item = &str> {
    let by = stream.slices.as_ref().map_or(&[][..], |slices| &slices.by);
    let parents = by.iter().filter_map(|by| match by {
        SliceBy::Parent(parent) => Some(parent.stream.as_str()),
        SliceBy::List { .. } => None,
    });
    let events = stream.hydrate.iter().map(|hydrate| hydrate.from().as_str());
    parents.chain(events)
}

fn is_own_ancestor(name: &str, streams: &[Stream]) -> bool {
    let mut found: Vec<&str> = vec![name];
    let mut next = 0;
    // Every stream is looked at once.
    while let Some(child) = found.get(next).copied() {
        let of_child = streams
            .iter()
            .filter(|stream| stream.name.stream.as_str() == child);
        for parent in of_child.flat_map(parents) {
            if parent == name {
                return true;
            }
            if !found.contains(&parent) {
                found.push(parent);
            }
        }
        next += 1;
    }
    false
}

/// Where the slices of a stream are described.
fn place_of(streams: Value<'_>, name: &str) -> Place {
    let member = |value: Value<'_>, key: &str| match &value.node.kind {
        Kind::Map(entries) => entries
            .iter()
            .find(|entry| entry.key == key)
            .map(|entry| (entry.place, entry.value.clone())),
        _ => None,
    };
    let Some((place, node)) = member(streams, name) else {
        return streams.key_place;
    };
    let stream = Value {
        node: &node,
        ..streams
    };
    member(stream, "slices").map_or(place, |(place, _)| place)
}
