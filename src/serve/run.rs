//! `landfall serve`: from an open spool to a closed one.
//!
//! ```text
//! admin listens ─ ledger, spool, repair ─ shipper ─ producers are let in ─ stop ─ drained ─ shipped ─ closed
//! ```

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt as _;
use object_store::ObjectStore;
use tokio::{net::TcpListener, runtime::Handle, task::JoinHandle};

use crate::{
    clock::Clock,
    config::{
        Project,
        serve::{ClientCert, Serve, ServeTls},
        spool::{self, Ack},
    },
    error::{Error, ErrorKind, Result},
    receive::{
        ledger::{Kept, Ledger, store::Opened},
        producer::{Producers, limit::Limiter},
        spool::{WAITING_BYTES_MAX, acknowledger::Acknowledger, direct::Direct, pace::Pace, part::Lake},
        uploads::Jobs,
    },
    serve::{
        app::{App, BUDGET_WAIT_MAX, Works, places},
        audit::Audit,
        body::budget::Budget,
        edge::EdgeLimits,
        health::Health,
        hooks::Hooks,
        inspectors::Inspectors,
        lake,
        landed::{LakeSeen, note_landed, open_spool},
        listen::{self, Drained, Limits},
        metrics::Metrics,
        routes::router,
        shutdown::Shutdown,
        tls::{Authorities, Clients, Tls, TlsOptions},
        unusual::Unusual,
        uploads::work,
    },
};

/// How often the certificate files are looked at.
const TLS_LOOK_EVERY: Duration = Duration::from_secs(10);

/// How much longer an answer may take to be sent than the request to be answered.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);

/// What part of the memory for bodies HTTP/2 connections may have on its way beside it.
const WINDOWS_PART: u64 = 4;

/// What is not in the project file, or may be put in the place of what is.
pub struct Options {
    /// Where producers are let in.
    pub listener: TcpListener,
    /// Where health and metrics are told.
    pub admin_listener: TcpListener,
    /// How deliveries are kept until they are in the lake.
    pub spool: spool::Spool,
    /// What is remembered of them, and for how long.
    pub kept: Kept,
    /// How long the shipper waits.
    pub pace: Pace,
}

impl Options {
    /// Listens where `serve` says, with what is usual for `project`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if an address cannot be used, or the project has no `serve`.
    pub fn of(project: &Project) -> Result<Self> {
        let serve = settings(project)?;
        Ok(Self {
            listener: listen::bind(serve.listen)?,
            admin_listener: listen::bind(serve.admin_listen)?,
            kept: Kept::in_folder(project.dir.join(LEDGER_DIR_DEFAULT)),
            spool: serve.spool.clone(),
            pace: Pace::USUAL,
        })
    }
}

/// Where the ledger is, relative to the project.
const LEDGER_DIR_DEFAULT: &str = ".landfall/ledger";

/// Serves `project` until the shutdown, and returns when everything that was acknowledged is safe and closed.
///
/// Must be called within a multi-threaded tokio runtime.
///
/// # Errors
/// [`ErrorKind::Config`] if the project has no `serve`, or names what cannot be used; [`ErrorKind::Conflict`] if another
/// server has the spool or the ledger; [`ErrorKind::Unavailable`] if they cannot be opened.
pub async fn run(
    project: Arc<Project>,
    store: Arc<dyn ObjectStore>,
    clock: Clock,
    options: Options,
    shutdown: Shutdown,
) -> Result<Drained> {
    let serve = settings(&project)?.clone();
    let seen = LakeSeen::new(clock.clone());
    let stream = project.streams().map(|(_, stream)| stream.name.clone()).next();
    let health = Health::new(Arc::clone(&seen), Arc::clone(&store), stream, shutdown.clone());
    let tls = match &serve.tls {
        Some(tls) => Some(open_tls(tls, tls.client_cert, &clock).await?),
        None => None,
    };
    let admin_tls = match serve.admin_tls() {
        // Probes show none; what is not for everybody asks who it is.
        Some(tls) => Some(open_tls(tls, ClientCert::Optional, &clock).await?),
        None => None,
    };
    for tls in tls.iter().chain(&admin_tls) {
        tokio::spawn(Arc::clone(tls).watch(TLS_LOOK_EVERY, shutdown.clone()));
    }
    // Up before everything else, and after it: whoever watches sees a long start and a long end.
    let admin_shutdown = Shutdown::new();
    let admin = tokio::spawn(listen::serve(
        options.admin_listener,
        listen::Options {
            router: health.routes(),
            tls: admin_tls,
            limits: Limits::DEFAULT,
            clock: clock.clone(),
            base: serve.base_url().to_owned(),
        },
        admin_shutdown.clone(),
    ));
    let served = serve_producers(
        Parts {
            project,
            serve,
            store,
            clock,
            health,
            seen,
        },
        options.listener,
        tls,
        (options.spool, options.kept, options.pace),
        shutdown,
    )
    .await;
    admin_shutdown.close();
    // It was told to end, and how it ended says nothing.
    let _ = admin.await;
    served
}

struct Parts {
    project: Arc<Project>,
    serve: Serve,
    store: Arc<dyn ObjectStore>,
    clock: Clock,
    health: Arc<Health>,
    seen: Arc<LakeSeen>,
}

async fn serve_producers(
    parts: Parts,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    (spool, kept, pace): (spool::Spool, Kept, Pace),
    shutdown: Shutdown,
) -> Result<Drained> {
    let local = listener.local_addr();
    let is_loopback = local.is_ok_and(|address| address.ip().is_loopback());
    let limits = limits(&parts.serve);
    let clock = parts.clock.clone();
    let (app, lake) = open(parts, spool, kept, is_loopback).await?;
    let shipping_stop = Shutdown::new();
    let shipper = lake.map(|lake| {
        ship(
            Arc::clone(&app),
            lake,
            pace,
            shipping_stop.clone(),
            shutdown.clone(),
        )
    });
    let uploads = work::begin(&app, &shutdown);
    let sweeper = tokio::spawn(sweep(app.ledger.clone(), shipping_stop.clone()));
    app.health.started(&app);
    tracing::info!(streams = app.all_pushed().count(), "deliveries are taken");
    let drained = listen::serve(
        listener,
        listen::Options {
            router: router(&app),
            tls,
            limits,
            clock,
            base: app.base_url().to_owned(),
        },
        shutdown,
    )
    .await;
    // What a sender hung up on may still be on its way to the disk.
    if tokio::time::timeout(limits.drain_timeout, app.works.all())
        .await
        .is_err()
    {
        tracing::error!("deliveries whose senders are gone were not kept in time");
    }
    // They end behind the batch they are at, which is shipped yet.
    uploads.await;
    shipping_stop.stop();
    if let Some(shipper) = shipper {
        // It logs what it leaves; if it panicked, what is left is in the spool.
        let _ = shipper.await;
    }
    let _ = sweeper.await;
    close(app).await?;
    Ok(drained)
}

/// What was acknowledged from a spool is not to be left in it.
fn refuse_left(spool: &spool::Spool) -> Result<()> {
    let Ok(files) = std::fs::read_dir(&spool.dir) else {
        return Ok(());
    };
    let mut files = files.flatten();
    if files.any(|file| file.path().extension().is_some_and(|kind| kind == "segment")) {
        return Err(Error::new(ErrorKind::Conflict, "acknowledge from the lake")
            .with("spool", spool.dir.display())
            .with("problem", "it holds deliveries that are not in the lake yet")
            .with("hint", "serve once more with `ack: spool` until it is empty"));
    }
    Ok(())
}

/// Opens everything that remembers. With a spool also what takes it into the lake.
async fn open(
    parts: Parts,
    spool: spool::Spool,
    kept: Kept,
    is_loopback: bool,
) -> Result<(Arc<App>, Option<Lake>)> {
    let Parts {
        project,
        serve,
        store,
        clock,
        health,
        seen,
    } = parts;
    let ledger = Ledger::open(kept, clock.clone()).await?;
    if let Opened::MovedAside(path) = ledger.opened() {
        tracing::error!(kept = %path.display(), "ledger could not be read and was begun anew");
    }
    let runtime = Handle::current();
    let asked = lake::Lake::new(&project, Arc::clone(&store), clock.clone())?;
    let pushed = project
        .streams()
        .filter(|(_, stream)| stream.feed.push().is_some());
    let metrics = Arc::new(Metrics::new(pushed.map(|(_, stream)| stream.name.clone())));
    let lake = Lake {
        store,
        clock: clock.clone(),
        config_hash: project.config_hash.clone(),
        landed: note_landed(
            ledger.clone(),
            runtime.clone(),
            seen,
            Arc::clone(&metrics),
            clock.clone(),
        ),
    };
    let (acknowledger, lake) = match spool.ack {
        Ack::Lake => {
            refuse_left(&spool)?;
            (Acknowledger::Lake(Direct::new(lake, WAITING_BYTES_MAX)), None)
        }
        Ack::Spool => {
            let (opening, known) = (Arc::clone(&project), ledger.clone());
            let now = clock.clone();
            let opened =
                tokio::task::spawn_blocking(move || open_spool(&spool, &opening, &known, &now, &runtime));
            let opened = opened
                .await
                .map_err(|source| Error::new(ErrorKind::Internal, "open spool").caused_by(source))?;
            let (spool, recovered, repaired) = opened?;
            tracing::info!(?recovered, ?repaired, "spool opened");
            (Acknowledger::Spool(spool), Some(lake))
        }
    };
    let (uploads, now) = (serve.uploads.clone(), clock.clone());
    let jobs = tokio::task::spawn_blocking(move || Jobs::open(&uploads, now)).await;
    let jobs = jobs.map_err(|source| Error::new(ErrorKind::Internal, "open uploads").caused_by(source))??;
    let bytes = usize::try_from(serve.limits.bytes_at_once).unwrap_or(usize::MAX);
    let app = App {
        producers: Producers::new(&project, &clock)?,
        limiter: Limiter::new(&project, clock.steady()),
        budget: Budget::new(bytes, BUDGET_WAIT_MAX),
        acknowledger,
        ledger,
        jobs,
        lake: asked,
        hooks: Hooks::new(&project, clock.clone()),
        inspectors: Inspectors::new(&project, clock.clone()),
        metrics,
        audit: Audit::open(serve.audit_log.as_deref())?,
        unusual: Unusual::new(&project, clock.steady()),
        health,
        is_open: is_loopback && project.producers.is_empty(),
        works: Works::new(),
        places: places(&project),
        project,
        serve,
        clock,
    };
    Ok((Arc::new(app), lake))
}

fn ship(app: Arc<App>, lake: Lake, pace: Pace, stop: Shutdown, server: Shutdown) -> JoinHandle<()> {
    tokio::spawn(async move {
        let Acknowledger::Spool(spool) = &app.acknowledger else {
            return;
        };
        let shipping = AssertUnwindSafe(spool.ship(lake, stop.stopping(), pace));
        match shipping.catch_unwind().await {
            Ok(left) if left.segments == 0 => {}
            Ok(left) => tracing::warn!(
                segments = left.segments,
                bytes = left.bytes,
                "deliveries wait in the spool for the next start"
            ),
            Err(_panic) => {
                // What is kept is safe, and nothing more is to be taken that does not go on from here.
                tracing::error!("the shipper panicked: the server stops");
                server.stop();
            }
        }
    })
}

/// Has the ledger forget what ended, until the end.
async fn sweep(ledger: Ledger, stop: Shutdown) {
    loop {
        let more = match ledger.sweep().await {
            Ok(swept) => swept.more,
            Err(error) => {
                tracing::warn!(error = error.chain(), "ledger not swept");
                false
            }
        };
        if more && !stop.is_stopping() {
            continue;
        }
        tokio::select! {
            () = stop.stopping() => return,
            () = tokio::time::sleep(Ledger::SWEEP_EVERY) => {}
        }
    }
}

async fn close(app: Arc<App>) -> Result<()> {
    app.ledger.flush().await?;
    app.ledger.clone().close().await?;
    // The last one to let go of the spool waits for its writer.
    let closed = tokio::task::spawn_blocking(move || drop(app)).await;
    closed.map_err(|source| Error::new(ErrorKind::Internal, "close spool").caused_by(source))
}

fn settings(project: &Project) -> Result<&Serve> {
    project.serve.as_ref().ok_or_else(|| {
        Error::new(ErrorKind::Config, "serve")
            .with("problem", "the project says not where to listen")
            .with("hint", "add `serve: {}` to landfall.yml")
    })
}

fn limits(serve: &Serve) -> Limits {
    let connections = serve.limits.connections;
    Limits {
        connections_max: connections,
        connections_each_max: match serve.public_url {
            // Behind a proxy all connections have one address.
            Some(_) => connections as usize,
            None => Limits::DEFAULT.connections_each_max,
        },
        head_timeout: serve.timeouts.header,
        idle_timeout: serve.timeouts.idle,
        exchange_timeout: serve.timeouts.request + SEND_TIMEOUT,
        head_bytes_max: usize::try_from(serve.limits.header_bytes_max).unwrap_or(usize::MAX),
        drain_timeout: serve.shutdown_grace,
        windows_bytes: usize::try_from(serve.limits.bytes_at_once / WINDOWS_PART).unwrap_or(usize::MAX),
        edge: EdgeLimits {
            request_timeout: serve.timeouts.request,
            ..Limits::DEFAULT.edge
        },
        ..Limits::DEFAULT
    }
}

async fn open_tls(tls: &ServeTls, client_cert: ClientCert, clock: &Clock) -> Result<Arc<Tls>> {
    let authorities = tls.client_ca.clone().map(|roots| Authorities {
        roots,
        revoked: tls.client_crl.clone(),
    });
    let options = TlsOptions {
        certificates: tls.cert.clone(),
        key: tls.key.clone(),
        clients: match (authorities, client_cert) {
            (None, _) => Clients::Anonymous,
            (Some(authorities), ClientCert::Optional) => Clients::Optional(authorities),
            (Some(authorities), ClientCert::Required) => Clients::Required(authorities),
        },
    };
    let clock = clock.clone();
    let opened = tokio::task::spawn_blocking(move || Tls::open(options, clock)).await;
    let opened = opened.map_err(|source| Error::new(ErrorKind::Internal, "open TLS").caused_by(source))?;
    opened.map(Arc::new)
}
