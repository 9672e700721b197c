//! An S3 endpoint inside the test process whose put-if-absent really is atomic.

use std::{
    fs,
    future::pending,
    ops::Range,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::Mutex, task::JoinHandle, time::timeout};

/// A running endpoint with one empty bucket. It ends, and its files go, when this is dropped.
pub struct S3Server {
    /// `http://127.0.0.1:PORT`, for path-style requests.
    pub endpoint: String,
    /// The bucket that exists.
    pub bucket: String,
    /// The only access key accepted.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// The bucket's objects as files; what a test may damage or delete behind the endpoint's back.
    pub dir: PathBuf,
    busy: Arc<Busy>,
    _root: TempDir,
    task: JoinHandle<()>,
}

/// Any region works; clients insist on one.
pub const REGION: &str = "us-east-1";

/// The headers that ask for objects to be encrypted where they are kept.
pub const SEALS: [&str; 2] = [
    "x-amz-server-side-encryption",
    "x-amz-server-side-encryption-aws-kms-key-id",
];

/// What S3 says when there are too many requests.
const SLOW_DOWN: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";

#[derive(Clone)]
struct Endpoint {
    service: S3Service,
    /// s3s-fs looks whether an object exists, then writes it. Two writers can both look first and both win;
    /// with one request at a time they cannot.
    one_at_a_time: Arc<Mutex<()>>,
    busy: Arc<Busy>,
}

/// Stretches of requests that are answered with 503 SlowDown, counted from the first request of all.
#[derive(Default)]
struct Busy {
    sealed: std::sync::Mutex<Vec<Vec<Option<String>>>>,
    stretches: std::sync::Mutex<Vec<Range<u64>>>,
    requests: AtomicU64,
    refused: AtomicU64,
    /// How long each request takes, one after the other.
    takes: std::sync::Mutex<Option<Duration>>,
}

impl Busy {
    fn refuses(&self) -> bool {
        let number = self.requests.fetch_add(1, SeqCst);
        let refuses = self
            .stretches
            .lock()
            .unwrap()
            .iter()
            .any(|stretch| stretch.contains(&number));
        self.refused.fetch_add(u64::from(refuses), SeqCst);
        refuses
    }
}

/// Starts an endpoint on a free loopback port.
pub async fn start() -> S3Server {
    let root = TempDir::new().unwrap();
    let bucket = "lake".to_owned();
    let dir = root.path().join(&bucket);
    fs::create_dir(&dir).unwrap();
    let (access_key, secret_key) = ("landfall-test".to_owned(), "landfall-test-secret".to_owned());

    let mut builder = S3ServiceBuilder::new(FileSystem::new(root.path()).unwrap());
    builder.set_auth(SimpleAuth::from_single(access_key.clone(), secret_key.clone()));
    let busy = Arc::<Busy>::default();
    let endpoint = Endpoint {
        service: builder.build(),
        one_at_a_time: Arc::default(),
        busy: Arc::clone(&busy),
    };

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(answer).with_state(endpoint);
    let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    S3Server {
        endpoint: format!("http://{address}"),
        bucket,
        access_key,
        secret_key,
        dir,
        busy,
        _root: root,
        task,
    }
}

async fn answer(State(endpoint): State<Endpoint>, request: Request) -> Response {
    // The parts of an upload are sealed as it was begun.
    if request.method() == Method::PUT && request.uri().query().is_none() {
        let value = |name: &str| Some(request.headers().get(name)?.to_str().unwrap().to_owned());
        let sealed = SEALS.map(value).to_vec();
        endpoint.busy.sealed.lock().unwrap().push(sealed);
    }
    if endpoint.busy.refuses() {
        return (StatusCode::SERVICE_UNAVAILABLE, SLOW_DOWN).into_response();
    }
    let request = request.map(s3s::Body::http_body_unsync);
    let _turn = endpoint.one_at_a_time.lock().await;
    let takes = *endpoint.busy.takes.lock().unwrap();
    if let Some(takes) = takes {
        // Nothing happens until then.
        let _ = timeout(takes, pending::<()>()).await;
    }
    match endpoint.service.call(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")).into_response(),
    }
}

impl S3Server {
    /// A client of the bucket with put-if-absent, as the program would build one.
    pub fn client(&self) -> AmazonS3 {
        AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region(REGION)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .build()
            .unwrap()
    }

    /// Answers 503 SlowDown to the requests with these numbers, counted from the next one as 0.
    pub fn slow_down(&self, stretches: &[Range<u64>]) {
        let from = self.busy.requests.load(SeqCst);
        let moved = stretches
            .iter()
            .map(|stretch| from + stretch.start..from + stretch.end);
        *self.busy.stretches.lock().unwrap() = moved.collect();
    }

    /// Has each request take so long, one after the other.
    pub fn take(&self, takes: Option<Duration>) {
        *self.busy.takes.lock().unwrap() = takes;
    }

    /// Requests so far, and how many of them were answered 503.
    pub fn requests(&self) -> (u64, u64) {
        (self.busy.requests.load(SeqCst), self.busy.refused.load(SeqCst))
    }

    /// The [`SEALS`] of every object that was written so far.
    pub fn take_sealed(&self) -> Vec<Vec<Option<String>>> {
        std::mem::take(&mut *self.busy.sealed.lock().unwrap())
    }

    /// The `lake:` URL of a prefix in the bucket.
    pub fn url(&self, prefix: &str) -> String {
        format!("s3://{}/{prefix}", self.bucket)
    }

    /// The `storage:` options that let object_store reach this endpoint.
    pub fn storage_options(&self) -> Vec<(&'static str, String)> {
        vec![
            ("endpoint", self.endpoint.clone()),
            ("allow_http", "true".to_owned()),
            ("region", REGION.to_owned()),
            ("access_key_id", self.access_key.clone()),
            ("secret_access_key", self.secret_key.clone()),
        ]
    }
}

impl S3Server {
    /// The lines of `landfall.yml` that put the lake under `prefix` of the bucket.
    pub fn lake(&self, prefix: &str) -> String {
        let options = self.storage_options();
        let options: Vec<String> = options
            .iter()
            .map(|(name, value)| format!("{name}: \"{value}\""))
            .collect();
        format!(
            "lake: {}\nstorage: {{ {} }}",
            self.url(prefix),
            options.join(", ")
        )
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;
    use object_store::{ObjectStore as _, ObjectStoreExt as _, PutMode, path::Path};

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn f017_put_if_absent_over_s3_has_exactly_one_winner() {
        const ROUNDS: usize = 200;
        const WRITERS: usize = 8;
        let server = start().await;
        let store = Arc::new(server.client());
        for round in 0..ROUNDS {
            let key = Path::from(format!("_log/{round:020}.json"));
            let writers = (0..WRITERS).map(|writer| {
                let (store, key) = (Arc::clone(&store), key.clone());
                tokio::spawn(async move {
                    let body = format!("round {round} writer {writer}");
                    match store
                        .put_opts(&key, body.clone().into(), PutMode::Create.into())
                        .await
                    {
                        Ok(_) => Some(body),
                        Err(object_store::Error::AlreadyExists { .. }) => None,
                        Err(error) => panic!("put-if-absent: {error}"),
                    }
                })
            });
            let outcomes = join_all(writers).await;
            let winners: Vec<String> = outcomes.into_iter().filter_map(Result::unwrap).collect();
            assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
            let stored = store.get(&key).await.unwrap().bytes().await.unwrap();
            assert_eq!(stored, winners[0].as_bytes(), "round {round}");
        }
    }

    #[tokio::test]
    async fn a_wrong_secret_is_refused() {
        let mut server = start().await;
        server.secret_key = "wrong".to_owned();
        let answer = server.client().put(&Path::from("a"), "x".into()).await;
        assert!(
            matches!(answer, Err(object_store::Error::PermissionDenied { .. })),
            "{answer:?}"
        );
        assert_eq!(fs::read_dir(&server.dir).unwrap().count(), 0);
    }
}
