//! Every route that producers see: one table, of which the router and its description are made.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, State},
    http::Request,
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, on},
};
use futures::future::BoxFuture;

use crate::{
    config::producers::Scope,
    serve::{
        app::App,
        asyncapi,
        call::Call,
        catalog, channel, docs, lists, openapi,
        problem::{self, Problem, code::Code},
        receipts, records, uploads, webhook,
    },
};

/// What answers a request; what it returns is sent with what the call tells.
pub(crate) type Work = for<'a> fn(&'a Arc<App>, &'a mut Call) -> BoxFuture<'a, Result<Response, Problem>>;

/// One way to ask for something.
pub(crate) struct Route {
    /// What it is called in metrics and in the description of the API.
    pub(crate) name: &'static str,
    /// The method.
    pub(crate) method: Method,
    /// The path, with what varies in braces.
    pub(crate) path: &'static str,
    /// What answers.
    pub(crate) work: Work,
    /// What it does, in a sentence.
    pub(crate) summary: &'static str,
    /// What the producer must be allowed; none where nobody is asked who it is.
    pub(crate) scope: Option<Scope>,
    /// Headers and parameters of the query.
    pub(crate) parameters: &'static [Parameter],
    /// The media types of its body; none if it has no body.
    pub(crate) takes: &'static [&'static str],
    /// What it answers when it can.
    pub(crate) gives: Gives,
    /// What it answers when it cannot.
    pub(crate) fails: &'static [Code],
}

/// The methods there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// Reads.
    Get,
    /// Adds.
    Post,
    /// Makes so.
    Put,
    /// Changes a part.
    Patch,
    /// Reads headers alone.
    Head,
}

/// A header or a parameter of the query.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parameter {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where it stands: `query` or `header`.
    pub(crate) place: &'static str,
    /// What it means.
    pub(crate) meaning: &'static str,
    /// Its JSON Schema.
    pub(crate) schema: &'static str,
}

/// An answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gives {
    /// The status.
    pub(crate) status: u16,
    /// The media type.
    pub(crate) media: &'static str,
    /// The name of its schema.
    pub(crate) schema: &'static str,
    /// What it says.
    pub(crate) meaning: &'static str,
}

const JSON: &str = "application/json";

const MODE: Parameter = Parameter {
    name: "mode",
    place: "query",
    meaning: "`partial` keeps what it can of a batch of which some records cannot be read or are rejected, and names those; `atomic` refuses it.",
    schema: r#"{"type":"string","enum":["partial","atomic"],"default":"partial"}"#,
};

const KEY: Parameter = Parameter {
    name: "Idempotency-Key",
    place: "header",
    meaning: "One key for one batch, on every attempt: it is kept once, and repeats get the same answer for 24 hours.",
    schema: r#"{"type":"string","pattern":"^([A-Za-z0-9!#$%&'*+.^_`|~:/=-]{1,255}|\"[!#-\\[\\]-~]{1,255}\")$"}"#,
};

const PREFER: Parameter = Parameter {
    name: "Prefer",
    place: "header",
    meaning: "`handling=strict` is `mode=atomic` (RFC 7240).",
    schema: r#"{"type":"string"}"#,
};

const CODING: Parameter = Parameter {
    name: "Content-Encoding",
    place: "header",
    meaning: "How the body is packed, once.",
    schema: r#"{"type":"string","pattern":"^(gzip|x-gzip|zstd|deflate|identity)?$"}"#,
};

const EPOCH: Parameter = Parameter {
    name: "epoch",
    place: "query",
    meaning: "The number that opening the channel gave.",
    schema: r#"{"type":"integer","minimum":1,"maximum":9007199254740991}"#,
};

const OFFSET: Parameter = Parameter {
    name: "offset",
    place: "query",
    meaning: "How far the producer is with this body, in its own words; no two bodies of a channel have the same.",
    schema: r#"{"type":"string","minLength":1,"maxLength":255,"pattern":"^[!-~]+$"}"#,
};

const AFTER: Parameter = Parameter {
    name: "after",
    place: "query",
    meaning: "The offset of the body before this one; left out for the first.",
    schema: r#"{"type":"string","minLength":1,"maxLength":255,"pattern":"^[!-~]+$"}"#,
};

/// The parameters that must stand. Every other may be left out.
pub(crate) const REQUIRED: [&str; 4] = [EPOCH.name, OFFSET.name, AT.name, IS_LAST.name];

const AT: Parameter = Parameter {
    name: "Upload-Offset",
    place: "header",
    meaning: "Where the piece begins: the offset that the job, the answer to the piece before, or `HEAD` told.",
    schema: r#"{"type":"integer","minimum":0,"maximum":999999999999999}"#,
};

const IS_LAST: Parameter = Parameter {
    name: "Upload-Complete",
    place: "header",
    meaning: "`?1` if the file ends with the piece.",
    schema: r#"{"type":"string","enum":["?0","?1"]}"#,
};

const LENGTH: Parameter = Parameter {
    name: "Upload-Length",
    place: "header",
    meaning: "`bytes` of the job.",
    schema: r#"{"type":"integer","minimum":0,"maximum":999999999999999}"#,
};

const ONE_JOB: Parameter = Parameter {
    name: "Idempotency-Key",
    place: "header",
    meaning: "One key for one file: the same request finds the same job. Without it the checksum and the size are that key.",
    schema: KEY.schema,
};

const CURSOR: Parameter = Parameter {
    name: "cursor",
    place: "query",
    meaning: "`next` of the page before. What is listed and does not change comes exactly once, whatever is added meanwhile; what changes comes again at its new place.",
    schema: r#"{"type":"string","pattern":"^[0-9a-f]{48}$"}"#,
};

const LIMIT: Parameter = Parameter {
    name: "limit",
    place: "query",
    meaning: "Most entries of a page.",
    schema: r#"{"type":"integer","minimum":1,"maximum":1000,"default":100}"#,
};

const SINCE: Parameter = Parameter {
    name: "updated_at_gte",
    place: "query",
    meaning: "Only what changed at this moment or later.",
    schema: r#"{"type":"string","format":"date-time"}"#,
};

const OF_STREAM: Parameter = Parameter {
    name: "stream",
    place: "query",
    meaning: "Only what concerns this stream, `source.stream`.",
    schema: r#"{"type":"string","pattern":"^[a-z0-9][a-z0-9_-]{0,62}\\.[a-z0-9][a-z0-9_-]{0,62}$"}"#,
};

const SAMPLES: Parameter = Parameter {
    name: "samples",
    place: "query",
    meaning: "`true` shows one record of each kind, without what its contract classifies. Needs the scope `admin` too.",
    schema: r#"{"type":"string","enum":["true","false"],"default":"false"}"#,
};

/// A route with this parameter may answer 304.
pub(crate) const KNOWN: Parameter = Parameter {
    name: "If-None-Match",
    place: "header",
    meaning: "The `ETag` of an earlier answer: if it is still that one, this is all that is said (304).",
    schema: r#"{"type":"string"}"#,
};

/// The codes of `groups`, which are `N`.
const fn joined<const N: usize>(groups: &[&[Code]]) -> [Code; N] {
    let mut all = [Code::Internal; N];
    let (mut found, mut group) = (0, 0);
    while group < groups.len() {
        let mut at = 0;
        while at < groups[group].len() {
            all[found] = groups[group][at];
            found += 1;
            at += 1;
        }
        group += 1;
    }
    assert!(found == N, "so many codes are in the groups");
    all
}

/// Of who asks.
const NAMED: &[Code] = &[Code::Unauthenticated, Code::CredentialsExpired];

/// Of what is asked for.
const MEANT: &[Code] = &[Code::Forbidden, Code::InvalidRequest, Code::StreamNotFound];

/// Of how much is asked for.
const LIMITED: &[Code] = &[
    Code::RateLimited,
    Code::ConcurrencyLimited,
    Code::Overloaded,
    Code::Unavailable,
];

/// Of a body.
const RECEIVED: &[Code] = &[
    Code::BodyTruncated,
    Code::BodyTooLarge,
    Code::BodyTooSlow,
    Code::UnsupportedEncoding,
    Code::StorageFull,
];

/// Of a body that is kept as a delivery.
const KEPT: &[Code] = &[
    Code::BodyUndecodable,
    Code::BodyExpandsTooMuch,
    Code::ContractViolation,
    Code::BacklogFull,
];

/// Of a body with records.
const READ: &[Code] = &[
    Code::BodyMalformed,
    Code::BodyTooDeep,
    Code::BatchRejected,
    Code::TooManyRecords,
    Code::RecordTooLarge,
    Code::UnsupportedMediaType,
];

/// What every route for producers may answer.
const ASKED: &[Code] = &joined::<10>(&[NAMED, MEANT, &[Code::ReceiptNotFound], LIMITED]);

/// What every page for anybody may answer to whoever says who it is.
const SHOWN: &[Code] = &joined::<6>(&[NAMED, LIMITED]);

/// What every route that asks the lake may answer.
const TOLD: &[Code] = &joined::<14>(&[
    ASKED,
    &[Code::NotFound, Code::LimitReached, Code::LakeBusy, Code::Corrupt],
]);

const PUSHED: &[Code] = &joined::<29>(&[
    NAMED,
    MEANT,
    &[
        Code::StreamGone,
        Code::IdempotencyKeyMissing,
        Code::IdempotencyKeyInvalid,
        Code::IdempotencyKeyInUse,
        Code::IdempotencyKeyReused,
    ],
    RECEIVED,
    KEPT,
    READ,
    LIMITED,
]);

/// What is answered to who asks for a channel.
const CHANNELED: &[Code] = &joined::<12>(&[
    NAMED,
    MEANT,
    &[Code::ChannelNotFound, Code::StreamGone, Code::Conflict],
    LIMITED,
]);

/// What is answered to who appends to a channel.
const APPENDED: &[Code] = &joined::<31>(&[
    CHANNELED,
    &[
        Code::ChannelFenced,
        Code::OffsetConflict,
        Code::IdempotencyKeyInUse,
        Code::IdempotencyKeyReused,
    ],
    RECEIVED,
    KEPT,
    READ,
]);

/// What is answered to who announces a file.
const ANNOUNCED: &[Code] = &joined::<24>(&[
    NAMED,
    MEANT,
    &[
        Code::StreamGone,
        Code::IdempotencyKeyInvalid,
        Code::IdempotencyKeyReused,
        Code::UrlNotAllowed,
        Code::UploadsNotTaken,
        Code::BodyMalformed,
        Code::BodyUndecodable,
        Code::BodyExpandsTooMuch,
        Code::UnsupportedMediaType,
        Code::LimitReached,
    ],
    RECEIVED,
    LIMITED,
]);

/// What is answered to who asks for a job.
const WATCHED: &[Code] = &joined::<11>(&[NAMED, MEANT, &[Code::JobNotFound, Code::UploadExpired], LIMITED]);

/// What is answered to who sends a piece.
const SENT: &[Code] = &joined::<20>(&[
    WATCHED,
    &[
        Code::UploadOffsetMismatch,
        Code::UploadLengthInconsistent,
        Code::UploadCompleted,
        Code::UnsupportedMediaType,
    ],
    RECEIVED,
]);

const HOOKED: &[Code] = &joined::<19>(&[
    &[
        Code::SignatureInvalid,
        Code::Unauthenticated,
        Code::Forbidden,
        Code::Conflict,
        Code::StreamNotFound,
        Code::StreamGone,
    ],
    RECEIVED,
    KEPT,
    LIMITED,
]);

/// Every route.
pub(crate) static ROUTES: &[Route] = &[
    Route {
        name: "push_records",
        method: Method::Post,
        path: "/v1/streams/{source}/{stream}/records",
        work: records::push,
        summary: "Sends records to a stream. They are durable when this is answered.",
        scope: Some(Scope::Ingest),
        parameters: &[MODE, KEY, PREFER, CODING],
        takes: &[JSON, "application/x-ndjson"],
        gives: Gives {
            status: 202,
            media: JSON,
            schema: "Accepted",
            meaning: "The body is durable and will be in the lake.",
        },
        fails: PUSHED,
    },
    Route {
        name: "open_channel",
        method: Method::Put,
        path: "/v1/streams/{source}/{stream}/channels/{channel}",
        work: channel::open,
        summary: "Opens a channel, shuts out who had it before, and says how far it is.",
        scope: Some(Scope::Ingest),
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Channel",
            meaning: "The channel is open for who asked.",
        },
        fails: CHANNELED,
    },
    Route {
        name: "get_channel",
        method: Method::Get,
        path: "/v1/streams/{source}/{stream}/channels/{channel}",
        work: channel::tell,
        summary: "Says how far a channel is.",
        scope: Some(Scope::Ingest),
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Channel",
            meaning: "The channel.",
        },
        fails: CHANNELED,
    },
    Route {
        name: "append_to_channel",
        method: Method::Post,
        path: "/v1/streams/{source}/{stream}/channels/{channel}/records",
        work: records::push,
        summary: "Sends records behind those of the channel, once however often it is sent.",
        scope: Some(Scope::Ingest),
        parameters: &[EPOCH, OFFSET, AFTER, MODE, PREFER, CODING],
        takes: &[JSON, "application/x-ndjson"],
        gives: Gives {
            status: 202,
            media: JSON,
            schema: "Accepted",
            meaning: "The body is durable at its offset and will be in the lake.",
        },
        fails: APPENDED,
    },
    Route {
        name: "create_job",
        method: Method::Post,
        path: "/v1/streams/{source}/{stream}/jobs",
        work: uploads::create,
        summary: "Announces a file of records that is larger than a request may be: to be sent in pieces, or fetched.",
        scope: Some(Scope::Ingest),
        parameters: &[ONE_JOB, CODING],
        takes: &[JSON],
        gives: Gives {
            status: 201,
            media: JSON,
            schema: "Job",
            meaning: "The job. `upload` says where the file is sent, if it is.",
        },
        fails: ANNOUNCED,
    },
    Route {
        name: "get_job",
        method: Method::Get,
        path: "/v1/jobs/{id}",
        work: uploads::tell,
        summary: "Says what became of a file.",
        scope: Some(Scope::Ingest),
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Job",
            meaning: "The job.",
        },
        fails: WATCHED,
    },
    Route {
        name: "append_to_upload",
        method: Method::Patch,
        path: "/v1/jobs/{id}/upload",
        work: uploads::append,
        summary: "Sends a piece of a file (draft-ietf-httpbis-resumable-upload). It is durable when this is answered.",
        scope: Some(Scope::Ingest),
        parameters: &[AT, IS_LAST, LENGTH],
        takes: &[uploads::PARTIAL_UPLOAD],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Job",
            meaning: "The file is complete; its records are landed soon.",
        },
        fails: SENT,
    },
    Route {
        name: "get_upload_offset",
        method: Method::Head,
        path: "/v1/jobs/{id}/upload",
        work: uploads::offset,
        summary: "Says how much of a file is here.",
        scope: Some(Scope::Ingest),
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 204,
            media: "",
            schema: "",
            meaning: "`Upload-Offset` is where the next piece begins, and `Upload-Complete` says whether there is one.",
        },
        fails: WATCHED,
    },
    Route {
        name: "push_webhook",
        method: Method::Post,
        path: "/v1/webhooks/{source}/{stream}",
        work: webhook::push,
        summary: "Takes an event that an API signs and sends by itself.",
        scope: None,
        parameters: &[CODING],
        takes: &["*/*"],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Event",
            meaning: "The event is durable, or was before.",
        },
        fails: HOOKED,
    },
    Route {
        name: "get_receipt",
        method: Method::Get,
        path: "/v1/receipts/{id}",
        work: receipts::one,
        summary: "Says where a delivery is, and what became of it.",
        scope: Some(Scope::Read),
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Receipt",
            meaning: "Where it is, and what became of its records.",
        },
        fails: TOLD,
    },
    Route {
        name: "list_receipts",
        method: Method::Get,
        path: "/v1/receipts",
        work: receipts::list,
        summary: "Lists receipts by the moment of their last change.",
        scope: Some(Scope::Read),
        parameters: &[SINCE, OF_STREAM, CURSOR, LIMIT],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Receipts",
            meaning: "A page. It may be short, or empty, although more follow.",
        },
        fails: ASKED,
    },
    Route {
        name: "list_streams",
        method: Method::Get,
        path: "/v1/streams",
        work: catalog::streams,
        summary: "Lists the streams that may be seen.",
        scope: Some(Scope::Read),
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Streams",
            meaning: "All of them.",
        },
        fails: ASKED,
    },
    Route {
        name: "get_stream",
        method: Method::Get,
        path: "/v1/streams/{source}/{stream}",
        work: catalog::stream,
        summary: "Says how a stream takes records: limits, formats, promises.",
        scope: Some(Scope::Read),
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Stream",
            meaning: "The stream.",
        },
        fails: ASKED,
    },
    Route {
        name: "list_contracts",
        method: Method::Get,
        path: "/v1/streams/{source}/{stream}/contracts",
        work: lists::contracts,
        summary: "Lists the versions of the contract of a stream, and where each is in its life.",
        scope: Some(Scope::Read),
        parameters: &[SINCE, CURSOR, LIMIT, KNOWN],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Contracts",
            meaning: "A page.",
        },
        fails: TOLD,
    },
    Route {
        name: "get_contract",
        method: Method::Get,
        path: "/v1/streams/{source}/{stream}/contracts/{version}",
        work: lists::contract,
        summary: "Gives a version of the contract of a stream as the file that it is (Open Data Contract Standard).",
        scope: Some(Scope::Read),
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: "application/yaml",
            schema: "Contract",
            meaning: "The file.",
        },
        fails: TOLD,
    },
    Route {
        name: "list_quarantine",
        method: Method::Get,
        path: "/v1/streams/{source}/{stream}/quarantine",
        work: lists::troubles,
        summary: "Lists the kinds of trouble for which records of a stream are set aside.",
        scope: Some(Scope::Read),
        parameters: &[SINCE, CURSOR, LIMIT, SAMPLES, KNOWN],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Quarantine",
            meaning: "A page.",
        },
        fails: TOLD,
    },
    Route {
        name: "list_drift",
        method: Method::Get,
        path: "/v1/streams/{source}/{stream}/drift",
        work: lists::changes,
        summary: "Lists what the records of a stream did that its contract does not say.",
        scope: Some(Scope::Read),
        parameters: &[SINCE, CURSOR, LIMIT, KNOWN],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "Drift",
            meaning: "A page.",
        },
        fails: TOLD,
    },
    Route {
        name: "get_catalog",
        method: Method::Get,
        path: "/.well-known/api-catalog",
        work: catalog::linkset,
        summary: "The way to everything else (RFC 9727).",
        scope: None,
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: "application/linkset+json",
            schema: "Linkset",
            meaning: "Links.",
        },
        fails: SHOWN,
    },
    Route {
        name: "get_openapi",
        method: Method::Get,
        path: "/openapi.json",
        work: openapi::tell,
        summary: "This description; with what their contracts ask for of streams that the caller may see.",
        scope: None,
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "OpenApi",
            meaning: "OpenAPI 3.1.",
        },
        fails: &[
            Code::Unauthenticated,
            Code::CredentialsExpired,
            Code::RateLimited,
            Code::ConcurrencyLimited,
            Code::Overloaded,
            Code::Unavailable,
        ],
    },
    Route {
        name: "get_asyncapi",
        method: Method::Get,
        path: "/asyncapi.json",
        work: asyncapi::tell,
        summary: "What can be sent, as channels and messages, of each stream that whoever asks may see.",
        scope: None,
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: JSON,
            schema: "AsyncApi",
            meaning: "AsyncAPI 3.0.",
        },
        fails: SHOWN,
    },
    Route {
        name: "get_documentation",
        method: Method::Get,
        path: problem::PAGE,
        work: docs::page,
        summary: "All of this for people, with every problem explained.",
        scope: None,
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 200,
            media: "text/html",
            schema: "Text",
            meaning: "A page.",
        },
        fails: SHOWN,
    },
    Route {
        name: "get_home",
        method: Method::Get,
        path: "/",
        work: docs::home,
        summary: "Leads to the documentation.",
        scope: None,
        parameters: &[],
        takes: &[],
        gives: Gives {
            status: 307,
            media: "text/plain",
            schema: "Text",
            meaning: "`Location` is the documentation; `Link` leads to the descriptions.",
        },
        fails: &[],
    },
];

impl Method {
    fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Put => MethodFilter::PUT,
            Self::Patch => MethodFilter::PATCH,
            Self::Head => MethodFilter::HEAD,
        }
    }
}

/// What answers producers.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let base = app.base_path();
    let mut routes = Router::new();
    for route in ROUTES {
        let work = async |State(app): State<Arc<App>>, params: RawPathParams, request: Request<Body>| {
            answer(&app, route, &params, request).await
        };
        let path = format!("{base}{}", route.path);
        routes = routes.route(&path, on(route.method.filter(), work));
        if route.path == "/" && !base.is_empty() {
            routes = routes.route(base, on(route.method.filter(), work));
        }
    }
    routes.fallback(nothing).with_state(Arc::clone(app))
}

async fn nothing(State(app): State<Arc<App>>, params: RawPathParams, request: Request<Body>) -> Response {
    let mut call = Call::new(&app, &params, request);
    app.tell_catalog(&mut call);
    call.finish().await;
    let problem = Problem::new(Code::NotFound, "no endpoint has this path");
    tell(call, problem.into_response())
}

async fn answer(
    app: &Arc<App>,
    route: &'static Route,
    params: &RawPathParams,
    request: Request<Body>,
) -> Response {
    let began = app.clock.steady();
    let mut call = Call::new(app, params, request);
    let answered = (route.work)(app, &mut call).await;
    call.finish().await;
    let response = tell(call, answered.unwrap_or_else(Problem::into_response));
    let elapsed = (app.clock.steady() - began).to_std().unwrap_or_default();
    app.metrics.answered(route.name, response.status(), elapsed);
    response
}

/// Adds what `call` tells.
fn tell(call: Call, mut response: Response) -> Response {
    for (name, value) in &call.told {
        response.headers_mut().append(name, value.clone());
    }
    response
}
