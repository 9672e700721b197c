//! Pages that come from an export job.

use std::{path::Path as FilePath, time::Duration};

use crate::{
    config::{
        job::Job,
        paginate::Paginate,
        read::{
            paginate::place,
            request::{JOB_REQUEST, job_request},
            values::{DURATION_MAX, duration, json_path},
        },
        request::Method,
    },
    yaml::{
        fields::{Fields, Value},
        quoted,
        section::{
            Section,
            Takes::{self, Integer, List, Matching, Path, Place, Scalar},
            key,
        },
    },
};

/// A host beside the source.
pub(super) const HOST: Takes = Matching(
    r"^(\*\.)?[A-Za-z0-9._-]+(:[0-9]{1,5})?$",
    "a host, a host with a port, or *. and a domain",
);

/// `job`
pub(super) static JOB: Section = Section::new(
    "job",
    "a job",
    "A stream whose pages are the results of an export: its request creates a job, which is polled until it is done, \
     downloaded and removed. The job is kept in the bookmark: a later run goes on with it behind the last result that \
     is landed. In the templates of the stream's request `job.key` is a key of our own: give it to an API that knows a \
     repeated request by one (as a header Idempotency-Key, say), and a process that dies before it has noted the answer \
     leaves no second job at the server. In the templates of the requests here, besides `job.key`, `job.response` is the answer that created it, `job.id` what `id` \
     finds there, `job.poll` the last answer of `poll`, and `job.target` the result that is downloaded. Bounds go into \
     the request that creates the job, page tokens into `download`.",
    &[
        key("id", Place)
            .doc("Where the answer that creates the job holds its id.")
            .example("$.id")
            .more(&["header:x-job-id"]),
        key("poll", Takes::Section(&JOB_REQUEST))
            .required()
            .doc("Asks how the job stands; 404 and 410 say that the server has forgotten it.")
            .example("{ path: '/exports/{{ job.id }}' }"),
        key("status", Path)
            .doc("Where that answer holds the status. Without it the HTTP status is meant; without a value there the job is running.")
            .example("$.status"),
        key("done", List(&Scalar))
            .required()
            .doc("Statuses of a job whose results are there.")
            .example("[completed]"),
        key("failed", List(&Scalar))
            .default("[]")
            .doc("Statuses of a job that will never have any. Without `retries` the stream fails, and the next run creates another job.")
            .example("[failed, cancelled]"),
        key("empty", List(&Scalar))
            .default("[]")
            .doc("Statuses of a job that ended well and has no results.")
            .example("[no_data]"),
        key("expired", List(&Scalar))
            .default("[]")
            .doc("Statuses of a job that the server has given up: it is created again, once in a run.")
            .example("[expired]"),
        key("running", List(&Scalar))
            .default("[]")
            .doc("Statuses of a job under way. Without them all others are; with them one that is nowhere is an error.")
            .example("[queued, running]"),
        key("every", Takes::Duration)
            .default("5s")
            .doc("Between two polls at first; grows to a minute.")
            .example("30s"),
        key("timeout", Takes::Duration)
            .default("1h")
            .doc("A job that takes longer is given up, and the stream fails.")
            .example("6h"),
        key("retries", Integer(0, 100))
            .default("0")
            .doc("How often in one run of the stream, or of a slice, another job is created in the place of one that has failed.")
            .example("2"),
        key("retry_wait", Takes::Duration)
            .default("0s")
            .doc("How long to wait before that.")
            .example("10m"),
        key("list", Takes::Section(&JOB_REQUEST))
            .doc("Asks for the list of results, if the last poll does not have it.")
            .example("{ path: '/exports/{{ job.id }}/files' }"),
        key("urls", Path)
            .doc("Where that answer holds the results: URLs, or what `download` makes of them.")
            .example("$.files[*].url"),
        key("download", Takes::Section(&JOB_REQUEST))
            .doc("Fetches a result, or without `urls` the only one; its answers are paged as the stream says. Without it every result is a URL and one page.")
            .example("{ path: '/exports/{{ job.id }}/result' }"),
        key("abort", Takes::Section(&JOB_REQUEST))
            .doc("Stops a job that took too long. Without it such a job is removed, as `delete` says.")
            .example("{ method: POST, path: '/exports/{{ job.id }}/cancel' }"),
        key("delete", Takes::Section(&JOB_REQUEST))
            .doc("Removes the job once everything is committed. Its method is DELETE without being said.")
            .example("{ path: '/exports/{{ job.id }}' }"),
        key("hosts", List(&HOST))
            .default("[]")
            .doc("Hosts that results may be downloaded from besides the source's own, without credentials, as URLs that are signed for one request want it.")
            .example("[files.shop.example, '*.s3.amazonaws.com']"),
    ],
)
.example("{ id: $.id, poll: { path: '/exports/{{ job.id }}' }, status: $.status, done: [completed], urls: '$.urls[*]' }");

/// Reads `job`.
pub(super) fn job(value: Value<'_>, dir: &FilePath) -> Option<Job> {
    let fields = value.fields(&JOB)?;
    let request = |key, method| {
        let read = |value| job_request(value, dir, method);
        fields.optional(key, read)
    };
    let id = fields.optional("id", place);
    let poll = fields.required("poll", |value| job_request(value, dir, Method::Get));
    let status = fields.optional("status", json_path);
    let done = fields.required("done", statuses);
    let listed = |key| fields.optional(key, statuses).unwrap_or_default();
    let long = Duration::from_millis(1)..=DURATION_MAX;
    let job = Job {
        id,
        status,
        failed: listed("failed"),
        empty: listed("empty"),
        expired: listed("expired"),
        running: listed("running"),
        every: fields
            .optional("every", |value| duration(value, long.clone()))
            .unwrap_or(Job::EVERY_DEFAULT),
        timeout: fields
            .optional("timeout", |value| duration(value, long.clone()))
            .unwrap_or(Job::TIMEOUT_DEFAULT),
        retries: fields
            .optional("retries", |value| value.integer_u32(0..=100))
            .unwrap_or(0),
        retry_wait: fields
            .optional("retry_wait", |value| {
                duration(value, Duration::ZERO..=DURATION_MAX)
            })
            .unwrap_or(Duration::ZERO),
        list: request("list", Method::Get),
        urls: fields.optional("urls", json_path),
        download: request("download", Method::Get),
        abort: request("abort", Method::Post),
        delete: request("delete", Method::Delete),
        hosts: fields.optional("hosts", hosts).unwrap_or_default(),
        poll: poll?,
        done: done?,
    };
    check(&fields, &job);
    Some(job)
}

/// Says what fits the keys one by one and not together.
fn check(fields: &Fields<'_>, job: &Job) {
    if fields.value("urls").is_none() && fields.value("download").is_none() {
        fields.missing("urls or download");
    }
    if let (Some(list), None) = (fields.value("list"), fields.value("urls")) {
        let hint = "add urls: it says where the list is in that answer".to_owned();
        list.problems
            .add(list.key_place, "list: nothing is read from it", Some(hint));
    }
    let lists = [
        ("done", &job.done),
        ("failed", &job.failed),
        ("empty", &job.empty),
        ("expired", &job.expired),
        ("running", &job.running),
    ];
    for (place, (key, statuses)) in lists.iter().enumerate() {
        let before = lists[..place].iter().flat_map(|(_, known)| known.iter());
        let twice = statuses
            .iter()
            .find(|status| before.clone().any(|known| known == *status));
        if let (Some(status), Some(value)) = (twice, fields.value(key)) {
            let message = format!("{key}: {} stands in another list too", quoted(status));
            value.problems.add(value.key_place, message, None);
        }
    }
}

/// Without a request of its own to put a token into, a result has one page.
pub(super) fn check_paging(fields: &Fields<'_>, job: Option<&Job>, paginate: &Paginate) {
    let plain = job.is_some_and(|job| job.download.is_none()) && !matches!(paginate, Paginate::Single);
    if let (true, Some(value)) = (plain, fields.value("paginate")) {
        let hint = "remove it, or add job.download".to_owned();
        let message = "paginate: the results of the job are whole files";
        value.problems.add(value.key_place, message, Some(hint));
    }
}

fn statuses(value: Value<'_>) -> Option<Vec<String>> {
    let items: Vec<Option<String>> = value
        .items()?
        .map(|item| item.scalar().map(str::to_owned))
        .collect();
    items.into_iter().collect()
}

/// Reads a list of hosts beside the source.
pub(super) fn hosts(value: Value<'_>) -> Option<Vec<String>> {
    let items: Vec<Option<String>> = value.items()?.map(host).collect();
    items.into_iter().collect()
}

fn host(value: Value<'_>) -> Option<String> {
    let text = value.text()?;
    let (name, port) = text.rsplit_once(':').unwrap_or((text, "443"));
    let domain = name.strip_prefix("*.").unwrap_or(name);
    let letter = |letter: char| letter.is_ascii_alphanumeric() || "._-".contains(letter);
    let known = !domain.is_empty() && domain.chars().all(letter);
    if known && port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Some(text.to_ascii_lowercase());
    }
    let hint = "write files.example, files.example:8443 or *.files.example".to_owned();
    value.refuse(format!("{} is not a host", quoted(text)), Some(hint))
}
