//! Our own accept loop: HTTP/1.1 and HTTP/2, with and without TLS, with a limit on everything a peer can hold.
//!
//! ```text
//! accept ─ places (all, peer) ─ TLS ─ HTTP ─ edge ─ router
//!            │ none left: not accepted, waits in the backlog
//! ```
//!
//! | a peer that | meets |
//! |---|---|
//! | opens many connections | `connections_each_max`, `connections_max` |
//! | sends no request, or half a head | `head_timeout`, `idle_timeout` |
//! | drips a body | the limits of `serve::body` |
//! | does not read its answer | `exchange_timeout`, `idle_timeout` |
//! | sends into many HTTP/2 streams what nobody reads yet | `window_bytes`, `windows_bytes` |
//! | opens and resets HTTP/2 streams | `streams_max`, `resets_max` |
//! | sends large heads | 431 or 414 by `head_bytes_max`, `headers_max` |

mod activity;
mod connection;
mod peers;
mod socket;
mod window;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use axum::Router;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use self::{
    activity::Activity,
    connection::Shared,
    peers::Peers,
    socket::{Linger, Socket},
    window::Windows,
};
use crate::{
    clock::Clock,
    error::{Error, ErrorKind, Result},
    serve::{
        edge::{Edge, EdgeLimits},
        shutdown::Shutdown,
        tls::{Tls, identity::Identity},
    },
};

/// Connections the kernel holds for us until they are accepted.
const BACKLOG: u32 = 1024;

/// Wait after an accept that failed for want of something: files, memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);

/// Everything a peer can use up, with its limit.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at a time. Past it none is accepted until one ends; more wait in the kernel's backlog.
    pub connections_max: u32,
    /// Most connections at a time from one IPv4 address or one IPv6 /64; more are closed at once.
    /// Behind a proxy all connections have one address: set it to `connections_max` there.
    pub connections_each_max: usize,
    /// From the first byte of a request to the end of its head, and for the TLS handshake.
    pub head_timeout: Duration,
    /// How long a connection may stay open without a request, or without taking any byte of an answer. Longer than the
    /// 60 s after which load balancers close theirs, so that they never send into a connection that is being closed.
    pub idle_timeout: Duration,
    /// From the head of a request to the last byte of its answer. Past it the connection is dropped.
    pub exchange_timeout: Duration,
    /// Longest life of a connection; then it ends after the requests it is in. Spreads clients over new instances,
    /// and ends what a revoked certificate opened.
    pub age_max: Duration,
    /// How long a connection that was told to end may take when nothing is running.
    pub farewell_timeout: Duration,
    /// Longest wait for the peer to close too, so that it can read its last answer; for an HTTP/2 stream as well.
    pub linger_timeout: Duration,
    /// Most bytes read and thrown away during that wait.
    pub linger_bytes_max: usize,
    /// Largest request head, in bytes; HTTP/1 reads at least 8 KiB.
    pub head_bytes_max: usize,
    /// Most header lines (HTTP/1).
    pub headers_max: usize,
    /// Most streams at a time on one HTTP/2 connection.
    pub streams_max: u32,
    /// Most streams reset on one HTTP/2 connection before they were seen, or for errors; past it the connection is
    /// closed (CVE-2023-44487).
    pub resets_max: usize,
    /// Bytes a peer may send into one HTTP/2 stream before they are read; twice that into one connection.
    pub window_bytes: u32,
    /// Bytes that all HTTP/2 connections together may so have the HTTP library hold, beside the 64 KiB of each that
    /// HTTP/2 begins with. A connection that comes when they are given away has to do with those.
    pub windows_bytes: usize,
    /// How often an HTTP/2 peer is asked whether it is there.
    pub ping_interval: Duration,
    /// How long it may take to say so.
    pub ping_timeout: Duration,
    /// How long requests in flight may take when the server stops.
    pub drain_timeout: Duration,
    /// What every request is held to.
    pub edge: EdgeLimits,
}

impl Limits {
    /// For a server that anybody can reach.
    pub const DEFAULT: Self = Self {
        connections_max: 1000,
        connections_each_max: 250,
        head_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(75),
        exchange_timeout: Duration::from_secs(120),
        age_max: Duration::from_secs(3600),
        farewell_timeout: Duration::from_secs(1),
        linger_timeout: Duration::from_secs(1),
        linger_bytes_max: 1 << 20,
        head_bytes_max: 32 << 10,
        headers_max: 100,
        streams_max: 100,
        resets_max: 20,
        window_bytes: 256 << 10,
        windows_bytes: 64 << 20,
        ping_interval: Duration::from_secs(20),
        ping_timeout: Duration::from_secs(10),
        drain_timeout: Duration::from_secs(20),
        edge: EdgeLimits {
            uri_bytes_max: 8 << 10,
            request_timeout: Duration::from_secs(90),
        },
    };

    fn linger(&self) -> Linger {
        Linger {
            timeout: self.linger_timeout,
            bytes_max: self.linger_bytes_max,
        }
    }
}

/// What is served, and how.
pub struct Options {
    /// What answers.
    pub router: Router,
    /// TLS, or none for plain TCP.
    pub tls: Option<Arc<Tls>>,
    /// What peers are held to.
    pub limits: Limits,
    /// For request ids.
    pub clock: Clock,
    /// What stands before the path of the page that explains problems: nothing, or a URL without a slash behind.
    pub base: String,
}

/// Who is at the other end of a connection; every request has it among its extensions.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The address the connection comes from, which may be a proxy's.
    pub address: SocketAddr,
    /// Who the client certificate speaks for, if one was shown.
    pub identity: Option<Arc<Identity>>,
}

/// How serving ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Every request in flight was answered.
    Finished,
    /// Some connections were closed in the middle, because the time was up or somebody asked for it.
    Cut {
        /// How many.
        connections: u32,
    },
}

/// Listens on `address`. Port 0 takes any free port.
///
/// # Errors
/// `Config` if the address cannot be used.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let listen = || -> io::Result<TcpListener> {
        let socket = match address.ip() {
            IpAddr::V4(_) => TcpSocket::new_v4()?,
            IpAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restart must not wait for the connections of the last run to be forgotten.
        #[cfg(unix)]
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| {
        Error::new(ErrorKind::Config, "listen for connections")
            .with("address", address)
            .caused_by(source)
    })
}

/// Serves `listener` until the shutdown, and returns when its last connection is closed.
///
/// On the first step of the shutdown the listener closes, requests in flight are finished within
/// [`Limits::drain_timeout`], and idle connections end. What is left then, or at the second step, is dropped.
pub async fn serve(listener: TcpListener, options: Options, shutdown: Shutdown) -> Drained {
    let limits = options.limits;
    let shared = Arc::new(Shared {
        edge: Edge::new(options.router, limits.edge, options.clock, &options.base),
        tls: options.tls,
        limits,
        windows: Windows::new(&limits),
        shutdown: shutdown.clone(),
    });
    let places = Arc::new(Semaphore::new(limits.connections_max as usize));
    let peers = Peers::new(limits.connections_each_max);
    loop {
        // The place is taken before the connection, so that one too many stays in the backlog.
        let place = tokio::select! {
            () = shutdown.stopping() => break,
            place = places.clone().acquire_owned() => place,
        };
        let Ok(place) = place else { break };
        let accepted = tokio::select! {
            () = shutdown.stopping() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => welcome(&shared, &peers, place, stream, address),
            Err(error) => {
                let Some(pause) = pause_after(&error) else {
                    continue;
                };
                tracing::error!(%error, "connections not accepted for a moment");
                tokio::select! {
                    () = shutdown.stopping() => break,
                    () = sleep(pause) => {}
                }
            }
        }
    }
    drop(listener);
    drain(&places, &limits, &shutdown).await
}

fn welcome(
    shared: &Arc<Shared>,
    peers: &Arc<Peers>,
    place: OwnedSemaphorePermit,
    stream: TcpStream,
    address: SocketAddr,
) {
    let Some(share) = peers.enter(address.ip()) else {
        tracing::debug!(peer = %address, "connection closed: too many from there");
        return;
    };
    // Answers are written whole; waiting to fill a packet only delays them. Failure costs only that.
    let _ = stream.set_nodelay(true);
    let activity = Activity::new();
    let socket = Socket::new(stream, activity.clone(), shared.limits.linger(), (place, share));
    let peer = Peer {
        address,
        identity: None,
    };
    tokio::spawn(connection::run(shared.clone(), socket, activity, peer));
}

/// How long to wait after an accept that failed; not at all if only that one connection is lost.
fn pause_after(error: &io::Error) -> Option<Duration> {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};

    match error.kind() {
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted => None,
        // Too many open files, no buffers: it will fail again at once, and the loop would spin.
        _ => Some(ACCEPT_PAUSE),
    }
}

async fn drain(places: &Arc<Semaphore>, limits: &Limits, shutdown: &Shutdown) -> Drained {
    // Every place back means every connection closed.
    let all = || places.clone().acquire_many_owned(limits.connections_max);
    let finished = tokio::select! {
        // Asked first: a drained server was not cut.
        biased;
        _ = all() => true,
        () = shutdown.closing() => false,
        () = sleep(limits.drain_timeout) => false,
    };
    if finished {
        return Drained::Finished;
    }
    let open = places.available_permits();
    let connections = limits
        .connections_max
        .saturating_sub(u32::try_from(open).unwrap_or(u32::MAX));
    shutdown.close();
    // Dropped connections only see off their peers now.
    let _ = timeout(limits.linger_timeout * 2, all()).await;
    Drained::Cut { connections }
}

#[cfg(test)]
mod tests;
