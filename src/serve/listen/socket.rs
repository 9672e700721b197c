//! A TCP stream that tells when bytes come and is closed so that the last answer arrives.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf},
    net::TcpStream,
    runtime::Handle,
    time::timeout,
};

use super::activity::Activity;

/// How a connection is closed from this side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    /// Longest wait for the peer to close too.
    pub(super) timeout: Duration,
    /// Most bytes thrown away meanwhile.
    pub(super) bytes_max: usize,
}

/// One accepted connection.
///
/// Closing a TCP socket with unread bytes resets the connection, and a reset can destroy an answer the peer has not read
/// yet: a sender refused in the middle of its body would see a broken pipe instead of the 413. So, if the peer has not
/// closed, its bytes are thrown away for a moment first (RFC 9112 section 9.6).
pub(super) struct Socket<K: Send + 'static> {
    /// None only while it is dropped.
    stream: Option<TcpStream>,
    activity: Arc<Activity>,
    linger: Linger,
    peer_closed: bool,
    /// Held until the socket is closed: the places this connection takes.
    keeps: Option<K>,
}

impl<K: Send + 'static> Socket<K> {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>, linger: Linger, keeps: K) -> Self {
        Self {
            stream: Some(stream),
            activity,
            linger,
            peer_closed: false,
            keeps: Some(keeps),
        }
    }

    fn stream(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.stream
            .as_mut()
            .map(Pin::new)
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<K: Send + 'static> Unpin for Socket<K> {}

impl<K: Send + 'static> AsyncRead for Socket<K> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let room = buf.remaining() > 0;
        let read = std::task::ready!(self.stream()?.poll_read(cx, buf));
        if buf.filled().len() > before {
            self.activity.received();
        } else if room {
            // End of stream, or an error after which nothing comes.
            self.peer_closed = true;
        }
        Poll::Ready(read)
    }
}

impl<K: Send + 'static> AsyncWrite for Socket<K> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(self.stream()?.poll_write(cx, bytes));
        self.activity.sent();
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(self.stream()?.poll_write_vectored(cx, bytes));
        self.activity.sent();
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(TcpStream::is_write_vectored)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}

impl<K: Send + 'static> Drop for Socket<K> {
    fn drop(&mut self) {
        let (Some(stream), Ok(runtime)) = (self.stream.take(), Handle::try_current()) else {
            return;
        };
        if !self.peer_closed {
            let (linger, keeps) = (self.linger, self.keeps.take());
            runtime.spawn(async move {
                // Past the time the socket is closed as it is; there is nobody left to tell.
                let _ = timeout(linger.timeout, see_off(stream, linger.bytes_max)).await;
                drop(keeps);
            });
        }
    }
}

async fn see_off(mut stream: TcpStream, bytes_max: usize) -> io::Result<()> {
    stream.shutdown().await?;
    let mut thrown = 0;
    let mut scratch = [0; 4096];
    while thrown < bytes_max {
        match stream.read(&mut scratch).await? {
            0 => break,
            read => thrown += read,
        }
    }
    Ok(())
}
