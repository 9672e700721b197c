//! Every way a request can fail: one table.

use axum::http::StatusCode;

/// What a producer has to look at: whom to ask, what to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Who is asking, and whether they may.
    Auth,
    /// The form of the request itself: method, parameters, headers.
    Request,
    /// The bytes of the body: coding, media type, syntax.
    Serialization,
    /// The records against the contract of the stream.
    Contract,
    /// A named limit of size, rate or time.
    Limit,
    /// The `Idempotency-Key` header and what it stands for.
    Idempotency,
    /// Nothing is there.
    NotFound,
    /// Something was there and is withdrawn.
    Gone,
    /// Somebody else moved first.
    Conflict,
    /// This side is at fault, or what it depends on.
    Backend,
}

impl Class {
    /// The name used in problem documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Request => "request",
            Self::Serialization => "serialization",
            Self::Contract => "contract",
            Self::Limit => "limit",
            Self::Idempotency => "idempotency",
            Self::NotFound => "not_found",
            Self::Gone => "gone",
            Self::Conflict => "conflict",
            Self::Backend => "backend",
        }
    }
}

/// Whether sending the same request again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not unless something changes.
    Never,
    /// At once, with the usual backoff.
    Soon,
    /// Not before this many seconds, unless the problem names its own time; sent as `Retry-After`.
    After(u32),
}

/// One line of the table.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// The stable name of the code, lowercase with underscores; the fragment of the problem type.
    pub name: &'static str,
    /// What to look at.
    pub class: Class,
    /// The status of the answer.
    pub status: StatusCode,
    /// A sentence that is the same for every occurrence.
    pub title: &'static str,
    /// Whether the same request can help later.
    pub retry: Retry,
    /// What it means and what to do, for the documentation page.
    pub documentation: &'static str,
}

macro_rules! codes {
    ($($code:ident $name:literal $class:ident $status:ident $retry:expr, $title:literal, $documentation:literal;)+) => {
        /// Why a request failed. Codes are only ever added: producers decide by them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $title] $code,)+
        }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$code),+];

            /// The line of the table for this code.
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$code => Row {
                        name: $name,
                        class: Class::$class,
                        status: StatusCode::$status,
                        title: $title,
                        retry: $retry,
                        documentation: $documentation,
                    },)+
                }
            }
        }
    };
}

use Retry::{After, Never, Soon};

codes! {
    Unauthenticated "unauthenticated" Auth UNAUTHORIZED Never, "Credentials are missing or unknown",
        "Send a token as `Authorization: Bearer …`, or use the client certificate the producer is registered with. Nothing of the request was read.";
    CredentialsExpired "credentials_expired" Auth UNAUTHORIZED Never, "The credentials are no longer valid",
        "The token or certificate was valid once. Rotate it: a producer may have several active credentials at a time.";
    SignatureInvalid "signature_invalid" Auth UNAUTHORIZED Never, "The signature does not fit the body",
        "The signature is computed over the bytes of the body exactly as sent: if a Content-Encoding is used, over the encoded bytes. Check that the secret is one of the active ones and that nothing on the way rewrites the body.";
    SignatureExpired "signature_expired" Auth UNAUTHORIZED Never, "The signature is too old or from the future",
        "Signed times may differ from ours only by the tolerance of the stream. Check the sender's clock and sign each attempt anew.";
    Forbidden "forbidden" Auth FORBIDDEN Never, "The producer may not do this",
        "The credentials are good, but their scope does not cover this stream or this action. Ask the owner of the stream for the scope.";

    InvalidRequest "invalid_request" Request BAD_REQUEST Never, "The request is malformed",
        "A parameter, header or path is not what this endpoint understands; `detail` and `errors` say which.";
    MethodNotAllowed "method_not_allowed" Request METHOD_NOT_ALLOWED Never, "The method is not supported here",
        "The `Allow` header lists what is.";
    NotAcceptable "not_acceptable" Request NOT_ACCEPTABLE Never, "No representation fits the Accept header",
        "Leave the `Accept` header out or accept `application/json`.";
    UriTooLong "uri_too_long" Request URI_TOO_LONG Never, "The path and query are too long",
        "Data belongs into the body.";
    HeadersTooLarge "headers_too_large" Request REQUEST_HEADER_FIELDS_TOO_LARGE Never, "The headers are too large",
        "Send fewer or shorter headers.";
    PreconditionFailed "precondition_failed" Request PRECONDITION_FAILED Never, "A precondition does not hold",
        "What `If-Match` or `If-None-Match` names is not what is stored. Read again, then decide.";
    UrlNotAllowed "url_not_allowed" Request UNPROCESSABLE_ENTITY Never, "The address may not be fetched",
        "Files are fetched from addresses below those in `serve.uploads.allow`, without redirects, and not from private addresses that a name leads to. Ask the owner of the server, or send the file instead: leave `url` out.";
    UploadsNotTaken "uploads_not_taken" Request UNPROCESSABLE_ENTITY Never, "The server takes no upload jobs",
        "It acknowledges from the lake (`spool.ack: lake`), where a batch whose answer was lost could stand twice. Send batches, or through a channel as `landfall push` does; or have the owner of the server set `ack: spool`.";

    UnsupportedMediaType "unsupported_media_type" Serialization UNSUPPORTED_MEDIA_TYPE Never, "The Content-Type is not supported",
        "Use `application/json` for one object or an array of objects, `application/x-ndjson` for JSON Lines.";
    UnsupportedEncoding "unsupported_encoding" Serialization UNSUPPORTED_MEDIA_TYPE Never, "The Content-Encoding is not supported",
        "Use one of `gzip`, `zstd`, `deflate` or none; one coding only. The `Accept-Encoding` header of the answer lists them.";
    BodyTruncated "body_truncated" Serialization BAD_REQUEST Soon, "The body ends too early",
        "The connection or the compressed data ended before the body was complete. Nothing was kept; send it again.";
    BodyUndecodable "body_undecodable" Serialization BAD_REQUEST Never, "The body is not what its Content-Encoding says",
        "Check that the body is compressed exactly once, in the named coding, without bytes behind it. `deflate` means the zlib format (RFC 9110 section 8.4.1.2).";
    BodyMalformed "body_malformed" Serialization BAD_REQUEST Never, "The body cannot be parsed",
        "`errors` points at the first place that is not valid in the format named by Content-Type. Nothing of an unparsable body is kept.";
    BodyTooDeep "body_too_deep" Serialization BAD_REQUEST Never, "The body is nested too deeply",
        "Objects and arrays may be nested 128 deep.";
    ChecksumMismatch "checksum_mismatch" Serialization BAD_REQUEST Soon, "The bytes do not fit their checksum",
        "The body changed on the way, or the checksum is of something else. Nothing was kept.";
    SizeMismatch "size_mismatch" Serialization BAD_REQUEST Soon, "The file has another size than was said",
        "`bytes` is the size of the file as it is sent, packed if it is. Nothing was kept.";

    ContractViolation "contract_violation" Contract UNPROCESSABLE_ENTITY Never, "Records break the contract of the stream",
        "The stream rejects what does not fit its contract, and nothing of the body does. `errors` points at what is wrong in the first records, with the code by which the quarantine knows it, too:\n\n\
         required_missing      a member that has to be there is not\n\
         null_in_required      a member that has to have a value is null\n\
         key_missing           a key is not there, null or empty text\n\
         type_mismatch         a value of another type\n\
         out_of_range          a value that its type cannot hold exactly, or beyond its bounds\n\
         enum                  none of the values that are allowed\n\
         pattern               text that does not match\n\
         length                text or an array that is too short or too long\n\
         rule_failed           a rule of the contract in SQL says no\n\
         unknown_field         a member that the contract does not name, where none may be\n\
         duplicate_key         an object that names a member twice\n\
         not_an_object         JSON that is no object\n\
         not_json              not JSON (RFC 8259), or not UTF-8\n\
         too_deep              nested too deeply\n\
         too_large             larger than a record may be\n\
         records_path_missing  a webhook without records where the stream expects them\n\n\
         /openapi.json describes what fits, to those who may see the stream.";
    BatchRejected "batch_rejected" Contract UNPROCESSABLE_ENTITY Never, "The batch was refused as a whole",
        "In mode `atomic` one record that cannot be read, or that the contract rejects, refuses the batch. Nothing was kept. Mend the records `errors` points at, or use mode `partial`. The codes are those of `contract_violation`.";

    BodyTooLarge "body_too_large" Limit PAYLOAD_TOO_LARGE Never, "The body is too large",
        "Split the batch. The limits of a stream are in the catalog. What has any size is sent as an upload job, to which the `Link` header and the member `upload` of a refused batch lead, or in pieces through a channel, where each is kept once: `landfall push` does that.";
    BodyExpandsTooMuch "body_expands_too_much" Limit PAYLOAD_TOO_LARGE Never, "The body expands too much",
        "The decoded body is larger than allowed, absolutely or in proportion to what was sent. Split the batch.";
    TooManyRecords "too_many_records" Limit PAYLOAD_TOO_LARGE Never, "The batch has too many records",
        "Split the batch; nothing was kept. The limit is in the catalog.";
    RecordTooLarge "record_too_large" Limit PAYLOAD_TOO_LARGE Never, "A record is too large",
        "One record or line is larger than the stream allows.";
    LimitReached "limit_reached" Limit PAYLOAD_TOO_LARGE Never, "A limit was reached",
        "`detail` names the limit. The same request meets it again.";
    BodyTooSlow "body_too_slow" Limit REQUEST_TIMEOUT Soon, "The body arrives too slowly",
        "A body must keep up a least rate after the first seconds and be complete within its time. Send smaller bodies from slow places.";
    RateLimited "rate_limited" Limit TOO_MANY_REQUESTS After(1), "Too many requests",
        "Wait as long as `Retry-After` says. The `RateLimit` headers of every answer show what is left before it comes to this.";
    ConcurrencyLimited "concurrency_limited" Limit TOO_MANY_REQUESTS After(1), "Too many requests at once",
        "Finish requests before beginning more; batches carry more than connections do.";

    IdempotencyKeyMissing "idempotency_key_missing" Idempotency BAD_REQUEST Never, "The Idempotency-Key header is required here",
        "Send `Idempotency-Key` with a value that is unique per batch, and the same value on every retry of it.";
    IdempotencyKeyInvalid "idempotency_key_invalid" Idempotency BAD_REQUEST Never, "The Idempotency-Key header is malformed",
        "The value is a quoted string (RFC 9651 section 3.3.3), for example a quoted UUID.";
    IdempotencyKeyInUse "idempotency_key_in_use" Idempotency CONFLICT After(1), "A request with this key is still being answered",
        "Wait and repeat: the answer of the first request will be replayed.";
    IdempotencyKeyReused "idempotency_key_reused" Idempotency UNPROCESSABLE_ENTITY Never, "The key was used with another body",
        "A key stands for one body. Use a new key for a new body.";

    NotFound "not_found" NotFound NOT_FOUND Never, "Nothing is here",
        "The catalog lists the endpoints and streams.";
    StreamNotFound "stream_not_found" NotFound NOT_FOUND Never, "The stream does not exist",
        "The catalog lists the streams this producer can see.";
    ReceiptNotFound "receipt_not_found" NotFound NOT_FOUND Never, "The receipt is unknown",
        "It was never given, or is older than receipts are kept.";
    ChannelNotFound "channel_not_found" NotFound NOT_FOUND Never, "The channel is not open",
        "Open it with PUT: that says how far it is, if it was open before. A channel that rests for 30 days is forgotten.";
    JobNotFound "job_not_found" NotFound NOT_FOUND Never, "The job is unknown",
        "It was made by another producer, was never made, or ended more than 7 days ago.";
    UploadExpired "upload_expired" Gone GONE Soon, "The upload came too late",
        "Nothing of the file was sent for 24 hours. Make the job again, with the same request: it begins anew.";
    StreamGone "stream_gone" Gone GONE Never, "The stream was withdrawn",
        "It was announced by `Deprecation` and `Sunset` headers. The `Link` headers lead to what is to be used instead.";
    Conflict "conflict" Conflict CONFLICT Soon, "Somebody else moved first",
        "Read the present state, then decide whether the request still makes sense.";
    ChannelFenced "channel_fenced" Conflict CONFLICT Never, "The channel was opened by another",
        "Only who opened a channel last may append. If that should be you, open it again and go on behind the offset it tells; then the other one is shut out.";
    OffsetConflict "offset_conflict" Conflict CONFLICT Never, "The offset does not follow the last one",
        "The header `Landfall-Offset` has the last durable offset token, if there is one: go on behind it. An append whose token it is has been kept.";
    UploadOffsetMismatch "mismatching_upload_offset" Conflict CONFLICT Never, "The piece does not begin where the file ends",
        "`Upload-Offset` of the answer, and the member `expected-offset`, say where to go on. The type of this problem is that of the draft for resumable uploads.";
    UploadLengthInconsistent "inconsistent_upload_length" Conflict BAD_REQUEST Never, "The pieces are more or fewer bytes than was said",
        "The file ends where `bytes` of the job says, with the piece that has `Upload-Complete: ?1`. Nothing of this piece was kept.";
    UploadCompleted "completed_upload" Conflict BAD_REQUEST Never, "The upload is complete",
        "Nothing more belongs to the file. Ask the job what became of it.";
    FileChanged "file_changed" Conflict CONFLICT Soon, "The file changed while it was fetched",
        "Its `ETag` is another than at the first attempt. Nothing was kept. Make the job again, with the checksum of the file as it is now.";

    Internal "internal" Backend INTERNAL_SERVER_ERROR Soon, "Something is wrong on this side",
        "This is a defect. The log has the cause under the request id. Whether anything was kept is not known: repeat with the same Idempotency-Key.";
    Corrupt "corrupt" Backend INTERNAL_SERVER_ERROR Never, "Stored bytes are damaged",
        "What was asked for cannot be read as it was written. The log names the object under the request id.";
    UpstreamRefused "upstream_refused" Backend BAD_GATEWAY Never, "Another system said no",
        "A system this answer depends on refused. The log has its answer under the request id.";
    FileUnavailable "file_unavailable" Backend BAD_GATEWAY Soon, "The file cannot be fetched",
        "The server that has it says no, or does not answer after several attempts. Nothing was kept. The same request begins the job anew.";
    Unavailable "unavailable" Backend SERVICE_UNAVAILABLE After(5), "Temporarily unavailable",
        "The storage behind this endpoint does not answer. Nothing was acknowledged; repeat with the same Idempotency-Key.";
    Overloaded "overloaded" Backend SERVICE_UNAVAILABLE After(2), "Too much is being received at once",
        "The memory for bodies in flight is in use. Nothing was kept.";
    LakeBusy "lake_busy" Backend SERVICE_UNAVAILABLE After(5), "The lake does not answer in time",
        "What became of records is asked of the lake, by a few at a time and not for long. Deliveries are taken all the same.";
    BacklogFull "backlog_full" Backend SERVICE_UNAVAILABLE After(30), "Too much waits for the lake",
        "What was acknowledged is safe; no more is taken until it drains.";
    DeadlineExceeded "deadline_exceeded" Backend SERVICE_UNAVAILABLE After(5), "The request took too long",
        "Whether it was kept is not known: repeat with the same Idempotency-Key.";
    ShuttingDown "shutting_down" Backend SERVICE_UNAVAILABLE After(2), "The server is stopping",
        "Another instance, or this one restarted, will answer.";
    StorageFull "storage_full" Backend INSUFFICIENT_STORAGE After(60), "The disk is full",
        "What was acknowledged is safe. Somebody has to make room.";
}
