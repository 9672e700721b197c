//! Whether the server lives, has started and should be sent requests; on the admin listener alone.

use std::{
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    extract::{RawPathParams, State},
    http::{HeaderValue, Request, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt as _};
use serde::Serialize;
use tokio::{sync::Mutex, time::timeout};

use crate::{
    config::{StreamName, producers::Scope},
    raw::layout,
    receive::spool::level::Pressure,
    serve::{
        app::App,
        call::Call,
        landed::LakeSeen,
        metrics,
        problem::{Problem, code::Code},
        shutdown::Shutdown,
    },
};

/// The lake is asked no more often than this.
const ASK_EVERY: Duration = Duration::from_secs(5);

/// Longest wait for the lake.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);

/// A lake that did not answer for so long counts as away. What is acknowledged meanwhile is safe in the spool.
const LAKE_AWAY_AFTER: Duration = Duration::from_secs(60);

/// How the server stands, from before it has started.
pub(crate) struct Health {
    /// When the lake answered.
    pub(crate) lake: Arc<LakeSeen>,
    shutdown: Shutdown,
    store: Arc<dyn ObjectStore>,
    /// Any stream; its hint is looked for, and need not be there.
    stream: Option<StreamName>,
    asking: Mutex<()>,
    /// Not held: whoever watches keeps nothing open.
    app: OnceLock<Weak<App>>,
}

/// One thing that must hold.
#[derive(Serialize)]
struct Check {
    name: &'static str,
    ok: bool,
    detail: String,
}

#[derive(Serialize)]
struct Report {
    ok: bool,
    checks: Vec<Check>,
}

impl Health {
    /// Nothing has started.
    pub(crate) fn new(
        lake: Arc<LakeSeen>,
        store: Arc<dyn ObjectStore>,
        stream: Option<StreamName>,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        Arc::new(Self {
            lake,
            shutdown,
            store,
            stream,
            asking: Mutex::new(()),
            app: OnceLock::new(),
        })
    }

    /// The server has started.
    pub(crate) fn started(&self, app: &Arc<App>) {
        // There is one start.
        let _ = self.app.set(Arc::downgrade(app));
    }

    /// What answers on the admin listener.
    pub(crate) fn routes(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/startupz", get(startup))
            .route("/readyz", get(ready))
            .route("/metrics", get(tell_metrics))
            .with_state(Arc::clone(self))
    }

    fn app(&self) -> Option<Arc<App>> {
        self.app.get()?.upgrade()
    }

    async fn ask_lake(&self) {
        let _turn = self.asking.lock().await;
        if self.lake.age().is_some_and(|age| age < ASK_EVERY) {
            return;
        }
        let Some(stream) = &self.stream else {
            return;
        };
        let key = layout::hint(stream);
        let answered = timeout(ASK_TIMEOUT, self.store.head(&key)).await;
        match answered {
            Ok(Ok(_) | Err(StoreError::NotFound { .. })) => self.lake.now(),
            Ok(Err(error)) => tracing::warn!(%error, "lake does not answer"),
            Err(_) => tracing::warn!("lake does not answer in time"),
        }
    }

    async fn report(&self) -> Report {
        let mut checks = vec![Check {
            name: "stopping",
            ok: !self.shutdown.is_stopping(),
            detail: if self.shutdown.is_stopping() { "yes" } else { "no" }.to_owned(),
        }];
        let check = |name, ok, detail: String| Check { name, ok, detail };
        match self.app() {
            None => checks.push(check("started", false, "the spool is being read".to_owned())),
            Some(app) => {
                let level = app.acknowledger.level();
                let takes = level.pressure() < Pressure::Refuse;
                checks.push(check("spool", takes, format!("{} % full", level.percent())));
                let full = app.ledger.gauges().full;
                let detail = if full { "full" } else { "takes keys" };
                checks.push(check("ledger", !full, detail.to_owned()));
            }
        }
        self.ask_lake().await;
        let (seen, detail) = match self.lake.age() {
            Some(age) => (age < LAKE_AWAY_AFTER, format!("answered {} s ago", age.as_secs())),
            None => (false, "has not answered yet".to_owned()),
        };
        checks.push(check("lake", seen, detail));
        Report {
            ok: checks.iter().all(|check| check.ok),
            checks,
        }
    }
}

async fn startup(State(health): State<Arc<Health>>) -> Response {
    match health.app() {
        Some(_) => "ok\n".into_response(),
        None => Problem::new(Code::Unavailable, "the spool is being read").into_response(),
    }
}

async fn ready(State(health): State<Arc<Health>>) -> Response {
    let report = health.report().await;
    let status = if report.ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let answered = crate::serve::answer::json(status, &report);
    let mut response = answered.unwrap_or_else(Problem::into_response);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn tell_metrics(
    State(health): State<Arc<Health>>,
    params: RawPathParams,
    request: Request<Body>,
) -> Response {
    let Some(app) = health.app() else {
        return Problem::new(Code::Unavailable, "the spool is being read").into_response();
    };
    match may_see(&app, &Call::new(&app, &params, request)).await {
        Ok(()) => {
            let text = app.metrics.text(&app);
            ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}

/// From this machine anybody may see the metrics, from elsewhere who has the scope `admin`.
async fn may_see(app: &App, call: &Call) -> Result<(), Problem> {
    if app.serve.admin_listen.ip().is_loopback() {
        return Ok(());
    }
    let caller = app.authenticate(call).await?;
    app.may(call, caller.as_ref(), Scope::Admin, None)
}
