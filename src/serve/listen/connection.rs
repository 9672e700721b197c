//! One connection, from the handshake to its end.

use std::{
    convert::Infallible,
    io,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::Body,
    http::{Request, Version},
};
use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body as HttpBody, Frame, Incoming, SizeHint},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
    time::{Instant, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Limits, Peer,
    activity::{Activity, Due, Exchange},
    socket::Linger,
    window::{Window, Windows},
};
use crate::serve::{edge::Edge, shutdown::Shutdown, tls::Tls};

/// What all connections of a listener share.
pub(super) struct Shared {
    pub(super) edge: Edge,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) limits: Limits,
    pub(super) windows: Windows,
    pub(super) shutdown: Shutdown,
}

/// Serves one connection until either side ends it or a limit is met.
pub(super) async fn run<S>(shared: Arc<Shared>, socket: S, activity: Arc<Activity>, mut peer: Peer)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let Some(tls) = &shared.tls else {
        return drive(&shared, socket, activity, peer).await;
    };
    let handshake = TlsAcceptor::from(tls.config()).accept(socket);
    let shaken = tokio::select! {
        shaken = timeout(shared.limits.head_timeout, handshake) => shaken,
        () = shared.shutdown.closing() => return,
    };
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refused(&peer, &error),
        Err(_elapsed) => return refused(&peer, &io::ErrorKind::TimedOut.into()),
    };
    peer.identity = Tls::identity(stream.get_ref().1).map(Arc::new);
    activity.settle();
    drive(&shared, stream, activity, peer).await;
}

fn refused(peer: &Peer, error: &io::Error) {
    tracing::info!(peer = %peer.address, %error, "TLS handshake failed");
}

async fn drive<I>(shared: &Shared, io: I, activity: Arc<Activity>, peer: Peer)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (limits, shutdown) = (&shared.limits, &shared.shutdown);
    let linger = limits.linger();
    let window = shared.windows.lend();
    let service = service_fn(|request: Request<Incoming>| {
        let version = request.version();
        if version < Version::HTTP_2 {
            window.give_back();
        }
        let exchange = activity.begin(version);
        let (edge, peer) = (shared.edge.clone(), peer.clone());
        async move {
            let mut request = request.map(|body| match version {
                Version::HTTP_2 => Body::new(Unread::new(body, linger)),
                _ => Body::new(body),
            });
            request.extensions_mut().insert(peer);
            let response = edge.answer(request).await;
            Ok::<_, Infallible>(response.map(|body| Answer {
                body,
                _exchange: exchange,
            }))
        }
    });
    let builder = builder(limits, &window);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(io), service));
    let old = Instant::now() + limits.age_max;
    let mut parted = None;
    loop {
        let (due, why) = activity.due(limits, parted);
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(peer = %peer.address, error = %error, "connection ended");
                }
                return;
            }
            () = shutdown.closing() => return,
            () = shutdown.stopping(), if parted.is_none() => {}
            () = sleep_until(old), if parted.is_none() => {}
            () = activity.changed() => continue,
            () = sleep_until(due) => {
                if parted.is_some() || why != Due::Idle {
                    tracing::debug!(peer = %peer.address, ?why, "connection closed");
                    return;
                }
            }
        }
        // Nothing new is taken: HTTP/1 closes after the answer, HTTP/2 says GOAWAY and finishes its streams.
        connection.as_mut().graceful_shutdown();
        parted = Some(Instant::now());
    }
}

fn builder(limits: &Limits, window: &Window) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        // It would also run between requests; the activity of the connection tells the two apart.
        .header_read_timeout(None)
        .max_headers(limits.headers_max)
        .max_buf_size(limits.head_bytes_max.max(8 << 10));
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams_max)
        .max_pending_accept_reset_streams(limits.resets_max)
        .max_local_error_reset_streams(limits.resets_max)
        .max_header_list_size(u32::try_from(limits.head_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(window.stream_bytes)
        .initial_connection_window_size(window.connection_bytes)
        .keep_alive_interval(limits.ping_interval)
        .keep_alive_timeout(limits.ping_timeout);
    builder
}

/// The body of an answer; the exchange lasts until it is sent or given up.
struct Answer {
    body: Body,
    _exchange: Exchange,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an HTTP/2 request.
///
/// A stream whose body is dropped unread is reset right behind its answer. That is allowed (RFC 9113 section 8.1), but
/// some clients that are still sending then never look at the answer (curl 7.88). So what a handler leaves is read and
/// thrown away for a moment first, as [`Socket`](super::socket::Socket) does for HTTP/1.
struct Unread {
    /// None only while it is dropped.
    body: Option<Incoming>,
    linger: Linger,
}

impl Unread {
    fn new(body: Incoming, linger: Linger) -> Self {
        Self {
            body: Some(body),
            linger,
        }
    }
}

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Incoming::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(SizeHint::default, Incoming::size_hint)
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        let linger = self.linger;
        let left = self.body.take().filter(|body| !body.is_end_stream());
        if let (Some(body), Ok(runtime)) = (left, Handle::try_current()) {
            runtime.spawn(timeout(linger.timeout, throw_away(body, linger.bytes_max)));
        }
    }
}

async fn throw_away(mut body: Incoming, bytes_max: usize) {
    let mut thrown = 0;
    while let Some(Ok(frame)) = body.frame().await {
        thrown += frame.data_ref().map_or(0, Bytes::len);
        if thrown > bytes_max {
            // The sender has to stop for want of room, and finds the answer.
            std::future::pending::<()>().await;
        }
    }
}
