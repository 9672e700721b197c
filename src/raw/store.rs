//! From the project's `lake:` to a store, and from a store's errors to ours.

use std::{error::Error as StdError, io, str::FromStr as _, sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientConfigKey, Error as StoreError, ObjectStore, ObjectStoreExt as _, PutMode,
    RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey, S3ConditionalPut},
    path::Path,
    prefix::PrefixStore,
};

use crate::{
    clock::Clock,
    config::Lake,
    error::{Error, ErrorKind, Result},
    raw::{BatchId, durable::DurableLocal, layout, throttle::PoliteConnector},
};

/// Times a request to a remote store is sent again after the first; the waits add up to about half a minute.
const RETRIES_MAX: usize = 8;

/// The cap of the first wait between two of them; doubles each time.
const BACKOFF_START: Duration = Duration::from_millis(200);

/// No wait is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// No request is begun again later than this after its first attempt.
const RETRY_TIMEOUT: Duration = Duration::from_secs(90);

/// For a whole answer that has any size: whoever reads it looks at how it comes.
const FILE_TIMEOUT: &str = "30 days";

/// How long nothing must have been written to a staged file before [`sweep`] takes it for left behind.
pub const STAGED_AGE_MIN: Duration = Duration::from_secs(24 * 60 * 60);

/// Opens the lake. All keys of the store are relative to it. A local folder is created if it does not exist.
///
/// An `s3://` lake takes its settings from `AWS_…` variables and, above them, from the `storage:` options.
///
/// # Errors
/// [`ErrorKind::Config`] for a URL or an option that is not understood; else whatever the store says.
pub fn open(lake: &Lake) -> Result<Arc<dyn ObjectStore>> {
    match lake.url.scheme() {
        "file" => Ok(Arc::new(open_local(lake)?)),
        "s3" => open_s3(lake, None),
        scheme => Err(Error::new(ErrorKind::Config, "open lake")
            .with("scheme", scheme)
            .with("expected", "file or s3")),
    }
}

/// Opens the bucket in `bucket`, with the settings of a lake, to read objects of any size from it: an answer may take as long as it
/// does, and whoever reads it has to end one that does not come.
///
/// # Errors
/// As [`open`].
pub fn open_files(bucket: &Lake) -> Result<Arc<dyn ObjectStore>> {
    open_s3(bucket, Some(FILE_TIMEOUT))
}

/// Removes files that dead writers left staged in a local lake, and returns how many. A remote lake has none.
///
/// # Errors
/// Whatever the file system says.
pub async fn sweep(lake: &Lake, clock: &Clock, age_min: Duration) -> Result<u64> {
    if lake.url.scheme() != "file" {
        return Ok(0);
    }
    let swept = open_local(lake)?.sweep(clock.now(), age_min).await;
    swept.map_err(|error| lower(error, "sweep lake", &Path::default()))
}

/// Proves that the store refuses to create what exists; everything else rests on that.
///
/// Creates one small key, tries to create it again, and deletes it.
///
/// # Errors
/// [`ErrorKind::Config`] if the second attempt succeeds or the store has no such mode; else whatever the store says.
pub async fn probe(store: &dyn ObjectStore, clock: &Clock) -> Result<()> {
    let key = layout::probe(BatchId::new(clock.now()));
    let create = || store.put_opts(&key, "probe\n".into(), PutMode::Create.into());
    create()
        .await
        .map_err(|error| lower(error, "try the lake", &key))?;
    let again = create().await;
    let deleted = store.delete(&key).await;
    match again {
        Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
            deleted.map_err(|error| lower(error, "try the lake", &key))
        }
        Err(error) => Err(lower(error, "try the lake", &key)),
        Ok(_) => Err(Error::new(ErrorKind::Config, "try the lake")
            .with("key", &key)
            .with(
                "problem",
                "the store created a key that existed, so two writers could lose data",
            )
            .with("hint", "use a store with conditional writes (If-None-Match)")),
    }
}

/// What a store's error means to us: `attempt` at `key` failed because of `error`.
pub fn lower(error: StoreError, attempt: &'static str, key: &Path) -> Error {
    let (kind, hint) = judge(&error);
    let lowered = Error::new(kind, attempt).with("key", key);
    let lowered = match hint {
        Some(hint) => lowered.with("hint", hint),
        None => lowered,
    };
    lowered.caused_by(error)
}

fn judge(error: &StoreError) -> (ErrorKind, Option<&'static str>) {
    const ACCESS: &str = "check who may write there and with which credentials";
    match error {
        StoreError::NotFound { .. } => (
            ErrorKind::Unavailable,
            Some("check that the lake is still there and its disk or bucket reachable"),
        ),
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => {
            (ErrorKind::Refused, Some(ACCESS))
        }
        StoreError::AlreadyExists { .. } | StoreError::Precondition { .. } => (ErrorKind::Conflict, None),
        StoreError::NotImplemented { .. } | StoreError::NotSupported { .. } => (
            ErrorKind::Config,
            Some("use a store with conditional writes (If-None-Match)"),
        ),
        StoreError::UnknownConfigurationKey { .. } => (ErrorKind::Config, None),
        StoreError::InvalidPath { .. } | StoreError::JoinError { .. } => (ErrorKind::Internal, None),
        _ => match io_kind(error) {
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => (
                ErrorKind::Unavailable,
                Some("free space on the disk of the lake, then run again"),
            ),
            Some(io::ErrorKind::PermissionDenied) => (ErrorKind::Refused, Some(ACCESS)),
            Some(io::ErrorKind::ReadOnlyFilesystem) => (
                ErrorKind::Refused,
                Some("the disk of the lake is mounted read-only"),
            ),
            _ => (ErrorKind::Unavailable, None),
        },
    }
}

/// The kind of the first [`io::Error`] in the chain.
fn io_kind(error: &StoreError) -> Option<io::ErrorKind> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return Some(error.kind());
        }
        next = error.source();
    }
    None
}

fn open_local(lake: &Lake) -> Result<DurableLocal> {
    let root = lake
        .url
        .to_file_path()
        .map_err(|()| Error::new(ErrorKind::Config, "open lake").with("url", &lake.url))?;
    DurableLocal::new(&root)
        .map_err(|error| lower(error, "open lake", &Path::default()).with("url", &lake.url))
}

fn open_s3(lake: &Lake, timeout: Option<&str>) -> Result<Arc<dyn ObjectStore>> {
    let failed = |error| lower(error, "open lake", &Path::default()).with("url", &lake.url);
    let bucket = lake.url.host_str().unwrap_or_default();
    if bucket.is_empty() {
        return Err(Error::new(ErrorKind::Config, "open lake")
            .with("url", &lake.url)
            .with("expected", "s3://bucket/prefix"));
    }
    let prefix = Path::from_url_path(lake.url.path()).map_err(|error| {
        Error::new(ErrorKind::Config, "open lake")
            .with("url", &lake.url)
            .caused_by(error)
    })?;
    let mut builder = AmazonS3Builder::from_env();
    let mut http_decided = false;
    for (name, value) in &lake.storage {
        let key = AmazonS3ConfigKey::from_str(name).map_err(|error| failed(error).with("option", name))?;
        http_decided |= name.ends_with("allow_http");
        builder = builder.with_config(key, value.reveal()?);
    }
    // A plain-text endpoint was named by the user: that it is plain text needs no second consent.
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    if !http_decided && endpoint.is_some_and(|url| url.starts_with("http://")) {
        builder = builder.with_allow_http(true);
    }
    if let Some(timeout) = timeout {
        builder = builder.with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), timeout);
    }
    let store = builder
        .with_bucket_name(bucket)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_http_connector(PoliteConnector::default())
        .with_retry(RetryConfig {
            backoff: BackoffConfig {
                init_backoff: BACKOFF_START,
                max_backoff: BACKOFF_MAX,
                base: 2.0,
            },
            max_retries: RETRIES_MAX,
            retry_timeout: RETRY_TIMEOUT,
        })
        .build()
        .map_err(failed)?;
    if prefix.as_ref().is_empty() {
        Ok(Arc::new(store))
    } else {
        Ok(Arc::new(PrefixStore::new(store, prefix)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lowered(kind: io::ErrorKind) -> (ErrorKind, String) {
        let source = Box::new(io::Error::from(kind));
        let error = lower(
            StoreError::Generic {
                store: "local",
                source,
            },
            "write raw object",
            &Path::from("raw/x"),
        );
        (error.kind(), error.to_string())
    }

    #[test]
    fn f010_a_full_disk_is_unavailable_and_says_what_to_do() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let text =
                "write raw object (key: raw/x, hint: free space on the disk of the lake, then run again)";
            assert_eq!(lowered(kind), (ErrorKind::Unavailable, text.to_owned()));
        }
    }

    #[test]
    fn f013_a_disk_that_may_not_be_written_is_refused_and_says_why() {
        let text = "write raw object (key: raw/x, hint: the disk of the lake is mounted read-only)";
        assert_eq!(
            lowered(io::ErrorKind::ReadOnlyFilesystem),
            (ErrorKind::Refused, text.to_owned())
        );
        assert_eq!(lowered(io::ErrorKind::PermissionDenied).0, ErrorKind::Refused);
        assert_eq!(lowered(io::ErrorKind::TimedOut).0, ErrorKind::Unavailable);
    }

    #[test]
    fn a_lake_that_cannot_be_understood_is_a_config_error() {
        let option = |name: &str| vec![(name.to_owned(), crate::config::secret::Secret::literal("x"))];
        for (url, storage) in [
            ("gs://bucket/x", vec![]),
            ("s3:///prefix", vec![]),
            ("s3://bucket", option("regoin")),
        ] {
            let error = open(&Lake {
                url: url.parse().unwrap(),
                storage,
            })
            .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        }
    }
}
