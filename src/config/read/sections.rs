//! The maps of `landfall.yml` from the root down to the stream; every other one stands beside its reader.

use crate::{
    config::read::{auth, incremental, paginate, source, stream, table},
    yaml::section::{
        Key, Section,
        Takes::{self, Either, File, List, Map, Named, Path, Size, Tagged, Template, Url},
        key,
    },
};

/// The whole file.
pub static PROJECT: Section = Section::new(
    "project",
    "a project",
    "A Landfall project: a lake and the APIs that are loaded into it.",
    &[
        key("lake", Takes::Text)
            .required()
            .doc("Where everything is stored: a path relative to the project, `file:///path` or `s3://bucket/prefix`.")
            .example("./lake")
            .more(&["s3://my-bucket/landfall"]),
        key("storage", Map(&Template))
            .doc(
                "Options for the store of an S3 lake, handed to object_store: endpoint, region, access_key_id, \
                 secret_access_key, allow_http and others.",
            )
            .example("{ region: eu-central-1, secret_access_key: '${env:AWS_SECRET_ACCESS_KEY}' }")
            .beside("{ lake: 's3://my-bucket/landfall' }"),
        key("memory", Size)
            .default("1GiB")
            .doc("Most memory the work of one command may hold; at least 64MiB.")
            .example("4GiB"),
        key("sources", Named(&SOURCE))
            .required()
            .doc("The APIs to load, by name."),
    ],
)
.planned(&["serve"]);

/// One API.
pub static SOURCE: Section = Section::new(
    "source",
    "a source",
    "One API and what all its streams share.",
    &[
        key("base_url", Url)
            .required()
            .doc("Every request path is joined to this URL. Pages never leave its origin.")
            .example("https://api.shop.example/v1"),
        key("auth", Tagged(&auth::AUTH))
            .default("{ type: none }")
            .doc("How requests prove who sends them.")
            .example("{ type: bearer, token: '${env:SHOP_TOKEN}' }"),
        key("headers", Map(&Template))
            .doc("Sent with every request.")
            .example("{ Accept: application/json, X-Tenant: '${env:TENANT}' }"),
        key("rate_limit", Takes::Section(&source::RATE_LIMIT)).doc(
            "The budget of the credential, shared by all streams of the source. Without it requests are sent as \
             fast as answers come.",
        ),
        key("retry", Takes::Section(&source::RETRY)).doc("When and how often a failed request is sent again."),
        key("timeouts", Takes::Section(&source::TIMEOUTS)).doc("How long to wait for the server."),
        key("limits", Takes::Section(&source::LIMITS)).doc("Bounds on what the server may send."),
        key("streams", Named(&STREAM))
            .required()
            .doc("The endpoints of the source, by name."),
    ],
)
.planned(&["push", "webhook"]);

/// One endpoint.
pub static STREAM: Section = Section::new(
    "stream",
    "a stream",
    "One endpoint, its raw log, its contract and its main table.",
    &[
        key("request", Takes::Section(&stream::REQUEST))
            .required()
            .doc("The first request of a window."),
        key("records", Path)
            .default("$[*]")
            .doc("Where the records are in a response.")
            .example("$.data[*]"),
        key("paginate", Tagged(&paginate::PAGINATE))
            .default("{ type: none }")
            .doc("How the next page is found.")
            .example("{ type: cursor, from: $.next_cursor, param: cursor }"),
        key("incremental", Takes::Section(&incremental::INCREMENTAL))
            .doc("How only changed records are asked for. Without it every run asks for everything."),
        key("table", Takes::Section(&table::TABLE))
            .required()
            .doc("How accepted records become rows."),
        key("contract", File)
            .doc(
                "The contract file. Without it contracts/SOURCE.STREAM.odcs.yaml, written as a draft at the first \
                 load.",
            )
            .example("contracts/orders.odcs.yaml"),
        key("drift", Takes::Section(&stream::DRIFT)).doc("What to do with what the contract does not say."),
        key("commit", Takes::Section(&stream::COMMIT))
            .doc("When fetched pages are committed: whichever is reached first."),
    ],
)
.planned(&["reconcile", "partition", "explode", "flatten"]);

/// Every map there is, each once: the whole file first, then what its keys take, in their order.
pub fn all() -> Vec<&'static Section> {
    let mut found: Vec<&'static Section> = vec![&PROJECT];
    let mut next = 0;
    // Each map is looked at once, and there are as many as the program has.
    while let Some(section) = found.get(next) {
        for Key { takes, .. } in section.keys() {
            sections_of(*takes, &mut |section| {
                if !found.iter().any(|known| known.id == section.id) {
                    found.push(section);
                }
            });
        }
        next += 1;
    }
    found
}

/// Calls `each` with every map that `takes` names.
pub fn sections_of(takes: Takes, each: &mut dyn FnMut(&'static Section)) {
    match takes {
        Takes::Section(section) | Named(section) => each(section),
        Tagged(sections) => sections.iter().for_each(|section| each(section)),
        Either(forms) => forms.iter().for_each(|form| sections_of(*form, each)),
        List(item) | Map(item) => sections_of(*item, each),
        _ => {}
    }
}
