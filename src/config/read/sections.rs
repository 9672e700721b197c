//! The maps of `landfall.yml` from the root down to the stream; every other one stands beside its reader.

use crate::{
    config::read::{
        auth, complete, errors, files, format, gaps, hydrate, incremental, job, maintain, paginate,
        producers, push, rate, request, serve, slice, source, stream, table, versions, webhook,
    },
    yaml::section::{
        Key, Rule, Section,
        Takes::{self, Either, File, List, Map, Named, Path, Reference, Size, Tagged, Url},
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
        key("storage", Map(&Reference))
            .doc(
                "Options for the store of an S3 lake, handed to object_store: endpoint, region, access_key_id, \
                 secret_access_key, allow_http and others.",
            )
            .example("{ region: eu-central-1, secret_access_key: '${env:AWS_SECRET_ACCESS_KEY}' }")
            .beside("{ lake: 's3://my-bucket/landfall' }"),
        key("memory", Size)
            .default("1GiB")
            .doc(
                "Most memory the work of one command may hold; at least 64MiB. A transform loads raw batches of an eighth \
                 of it at a time, and one batch at least: rows that are more than a quarter of it go to files without \
                 names in `.landfall/spool`, and are merged a range of keys at a time.",
            )
            .example("4GiB"),
        key("credentials", File)
            .default(".landfall/credentials")
            .doc(
                "The folder where refresh tokens that a server has replaced are kept, readable by the owner only. \
                 It belongs neither into version control nor onto a disk that is lost with the container.",
            )
            .example("/var/lib/landfall/credentials"),
        key("maintain", Takes::Section(&maintain::MAINTAIN)).doc("How `landfall maintain` keeps the lake small."),
        key("sources", Named(&SOURCE))
            .required()
            .doc("The APIs to load, by name.")
            .example(
                "{ shop: { base_url: 'https://api.shop.example/v1', streams: { orders: { request: { path: /orders }, \
                 table: { keys: [id] } } } } }",
            ),
        key("serve", Takes::Section(&serve::SERVE))
            .doc("Where and how `landfall serve` listens. Without it nothing does.")
            .beside(
                "{ producers: { checkout: { scopes: [ingest, admin], streams: ['*'], tokens: { main: { token: \
                 '${env:CHECKOUT_TOKEN}' } } } } }",
            ),
        key("producers", Named(&producers::PRODUCER))
            .doc("Who may send to streams, read them or administer, by name.")
            .example("{ checkout: { streams: ['shop.*'], tokens: { main: { token: '${env:CHECKOUT_TOKEN}' } } } }"),
    ],
);

/// One API.
pub static SOURCE: Section = Section::new(
    "source",
    "a source",
    "One API and what all its streams share.",
    &[
        key("base_url", Url)
            .doc(
                "Every request path is joined to this URL. Pages never leave its origin. Required if a stream has a \
                 request.",
            )
            .example("https://api.shop.example/v1"),
        key("auth", Tagged(&auth::AUTH))
            .default("{ type: none }")
            .doc("How requests prove who sends them.")
            .example("{ type: bearer, token: '${env:SHOP_TOKEN}' }"),
        key("tls", Takes::Section(&auth::tls::TLS)).doc("Certificates besides those the machine trusts, and a client's own."),
        key("headers", Map(&Reference))
            .doc("Sent with every request.")
            .example("{ Accept: application/json, X-Tenant: '${env:TENANT}' }"),
        key("config", Map(&Takes::Json))
            .doc(
                "Values of your own, `config.NAME` in templates. Not for secrets: those are references where they are \
                 used.",
            )
            .example("{ region: eu, limit: 500 }"),
        key("rate_limit", Takes::Section(&rate::RATE_LIMIT)).doc(
            "The budget of the credential, shared by all streams of the source. Without it requests are sent as \
             fast as answers come.",
        ),
        key("retry", Takes::Section(&errors::RETRY)).doc("When and how often a failed request is sent again."),
        key("errors", errors::ERRORS)
            .doc("What failed answers mean, for every stream; the rules of a stream come first.")
            .example("[{ status: 404, then: ignore }]"),
        key("replicas", List(&Url))
            .doc("Other addresses of the same API, asked while the base URL is left alone. Credentials go there too.")
            .example("[https://replica.shop.example/v1]"),
        key("breaker", Takes::Section(&rate::BREAKER))
            .doc("When a failing host is left alone, and how many requests it is sent again at all."),
        key("timeouts", Takes::Section(&source::TIMEOUTS)).doc("How long to wait for the server."),
        key("limits", Takes::Section(&source::LIMITS)).doc("Bounds on what the server may send."),
        key("streams", Named(&STREAM))
            .required()
            .doc("The endpoints of the source, by name.")
            .example("{ orders: { request: { path: /orders }, table: { keys: [id] } } }"),
    ],
)
.example(
    "{ base_url: 'https://api.shop.example/v1', streams: { orders: { request: { path: /orders }, table: { keys: [id] } } } }",
)
;

/// One endpoint.
pub static STREAM: Section = Section::new(
    "stream",
    "a stream",
    "One endpoint, its raw log, its contract and its main table.",
    &[
        key("like", Takes::Name)
            .doc(
                "Another stream of the source, whose keys hold for this one where it has none of its own; `contract` \
                 and `versions` are not taken over, and of `with` each value by itself.",
            )
            .example("orders"),
        key("with", Map(&Takes::Json))
            .doc("Values of this stream, `config.NAME` in its templates, before those of the source.")
            .example("{ board: invoices }"),
        key("request", Takes::Section(&request::REQUEST)).doc(
            "The first request of a window. A stream without one is never asked for: its records come by `push`, `webhook` or `hydrate` alone.",
        ),
        key("hydrate", Takes::Section(&hydrate::HYDRATE))
            .doc("Whole records for events of another stream that only name them, besides what is asked for or instead."),
        key("gaps", Takes::Section(&gaps::GAPS))
            .doc("What tells that something pushed never came, so that the stream is asked for it.")
            .beside("{ push: {} }"),
        key("push", Takes::Section(&push::PUSH))
            .doc("How the stream takes what producers send, besides what it is asked for or instead.")
            .beside("{ webhook: { scheme: github, secrets: { main: '${env:HOOK_SECRET}' } } }"),
        key("format", Either(&[format::KIND, Tagged(&format::FORMAT)]))
            .default("json")
            .doc("What bodies are written in: a kind alone, or a map of settings. They are landed as they come.")
            .example("csv")
            .more(&["jsonl", "lines", "xml", "{ type: csv, container: zip, delimiter: ';' }"]),
        key("records", Either(&[Path, Takes::Section(&format::RECORDS)]))
            .default("$[*]")
            .doc(
                "Where the records are in a response: `[*]` is every element of an array, `.*` every member of an \
                 object. The default is that of `format: json`; of a stream that is only sent webhooks it is the elements \
                 of an array, or the one object.",
            )
            .example("$.data[*]")
            .more(&["{ union: ['$.issues[*]', '$.pulls[*]'] }"]),
        key("paginate", Tagged(&paginate::PAGINATE))
            .default("{ type: none }")
            .doc("How the next page is found.")
            .example("{ type: cursor, from: $.next_cursor, param: cursor }"),
        key("job", Takes::Section(&job::JOB)).doc("For a stream whose pages come from an export job."),
        key("files", Takes::Section(&files::FILES)).doc("Files that records point to."),
        key("slices", Takes::Section(&slice::SLICES)).doc("How the stream is asked for in parts."),
        key("incremental", Takes::Section(&incremental::INCREMENTAL))
            .doc("How only changed records are asked for. Without it every run asks for everything."),
        key("complete", Takes::Section(&complete::COMPLETE))
            .doc("How everything is asked for, where changes come from another endpoint.")
            .beside("{ incremental: { cursor: $.updated_at, param: updated_since } }"),
        key("group", Takes::Name)
            .doc(
                "Streams of a source with the same word here are never extracted at the same time by one process: for an \
                 API that allows one reader of a session or of an endpoint.",
            )
            .example("session"),
        key("schedule", Takes::Text)
            .doc(
                "When it runs by itself under `landfall run --watch`, in UTC: a duration, a cron pattern of five \
                 fields, or one of @hourly, @daily, @weekly, @monthly. What producers send is loaded then.",
            )
            .example("'*/15 * * * *'")
            .more(&["15m", "'@daily'"]),
        key("fresh_within", Takes::Duration)
            .doc("How old the last success may be before `landfall gaps` calls the stream stale.")
            .example("24h"),
        key("reconcile", Takes::Section(&incremental::RECONCILE))
            .doc("Complete passes over an incremental stream.")
            .beside("{ incremental: { cursor: $.updated_at, param: updated_since } }"),
        key("errors", errors::ERRORS)
            .doc("What failed answers mean, before the rules of the source.")
            .example("[{ status: 404, then: ignore }]"),
        key("retry", Takes::Section(&errors::RETRY))
            .doc("When and how often a failed request is sent again; what is not set is as in the source."),
        key("table", Takes::Section(&table::TABLE)).doc("How accepted records become rows."),
        key("contract", File)
            .doc(
                "The contract file. Without it contracts/SOURCE.STREAM.odcs.yaml, written as a draft at the first \
                 load.",
            )
            .example("contracts/orders.odcs.yaml"),
        key("versions", Takes::Section(&versions::VERSIONS))
            .doc("Records of several versions in the stream, each judged by the contract of its version."),
        key("drift", Takes::Section(&stream::DRIFT)).doc("What to do with what the contract does not say."),
        key("commit", Takes::Section(&stream::COMMIT))
            .doc("When fetched pages are committed: whichever is reached first."),
        key("retention", Takes::Section(&maintain::RETENTION)).doc("How long raw of the stream is kept."),
        key("webhook", Tagged(&webhook::WEBHOOK))
            .doc("Which deliveries that the API sends by itself are believed. Without it none is taken.")
            .example("{ scheme: github, secrets: { main: '${env:HOOK_SECRET}' } }"),
    ],
)
.example("{ request: { path: /orders }, table: { keys: [id] } }")
.rules(&[Rule::AtLeastOne(&["request", "hydrate", "push", "webhook", "like"]), Rule::AtLeastOne(&["table", "like"])])
.planned(&["partition", "flatten"]);

/// Every map there is, each once, those nearest to the root first.
pub fn all() -> Vec<&'static Section> {
    levels().concat()
}

/// The key that `section` is shown under: of those nearest to the root the last. None for the whole file.
pub fn home(section: &Section) -> Option<(&'static Section, &'static Key)> {
    let in_parent = |parent: &'static Section| {
        let mut keys = parent.keys();
        keys.find(|key| takes(key.takes, section))
            .map(|key| (parent, key))
    };
    let mut levels = levels().into_iter();
    levels.find_map(|level| level.into_iter().rev().find_map(in_parent))
}

/// Whether `section` may stand in what `form` describes, itself or in a list or map.
pub fn takes(form: Takes, section: &Section) -> bool {
    let mut found = false;
    each(form, &mut |inner| found |= inner.id == section.id);
    found
}

/// The maps by the number of steps they are away from the root.
fn levels() -> Vec<Vec<&'static Section>> {
    let mut levels = vec![vec![&PROJECT]];
    let mut known = vec![PROJECT.id];
    // Each map is in one level, and there are as many as the program has.
    while let Some(level) = levels.last().filter(|level| !level.is_empty()) {
        let mut next = Vec::new();
        for key in level.iter().flat_map(|section| section.keys()) {
            each(key.takes, &mut |section| {
                if !known.contains(&section.id) {
                    known.push(section.id);
                    next.push(section);
                }
            });
        }
        levels.push(next);
    }
    levels
}

/// Calls `visit` with every map that `form` names.
fn each(form: Takes, visit: &mut dyn FnMut(&'static Section)) {
    match form {
        Takes::Section(section) | Named(section) => visit(section),
        Tagged(sections) => sections.iter().for_each(|section| visit(section)),
        Either(forms) => forms.iter().for_each(|form| each(*form, visit)),
        List(item) | Map(item) => each(*item, visit),
        _ => {}
    }
}
