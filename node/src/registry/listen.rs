//! Serving HTTP on a listener: HTTP/1.1 and HTTP/2 with and without TLS, no delay of small packets, limits
//! on connections, headers and patience, and an end that lets requests under way finish.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Extension, Router,
    serve::{Listener, ListenerExt},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto::Builder,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
    time::Sleep,
};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::unread::Heard;
use crate::access::{Peer, limits::Limits, tls::Tls};

/// Serves `router` until `shutdown`, then lets requests under way finish for at most [`DRAIN`].
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    let stop = shutdown.clone();
    serve_any(undelayed(listener), CONNECTIONS_MAX, shutdown, move |io, _| {
        Some(connection(io, router.clone(), stop.clone()))
    })
    .await;
}

/// As [`serve`], for clients on the network: with limits on connections, with TLS where there is a
/// certificate, and with each request's [`Peer`] among its extensions.
pub async fn serve_clients(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    tls: Option<Tls>,
    shutdown: CancellationToken,
) {
    let stop = shutdown.clone();
    serve_any(undelayed(listener), limits.connections(), shutdown, move |io, from: SocketAddr| {
        // Dropped where the address has too many: an answer would cost more than what it refuses.
        let permit = limits.connection(from.ip())?;
        let (router, tls, stop) = (router.clone(), tls.clone(), stop.clone());
        Some(async move {
            let _permit = permit;
            client(io, Peer { address: from.ip(), secure: tls.is_some() }, router, tls, stop).await;
        })
    })
    .await;
}

/// As [`serve`], on a local socket.
pub async fn serve_local(listener: UnixListener, router: Router, shutdown: CancellationToken) {
    let stop = shutdown.clone();
    serve_any(listener, CONNECTIONS_MAX, shutdown, move |io, _| {
        Some(connection(io, router.clone(), stop.clone()))
    })
    .await;
}

/// Header and body go out in two writes; delayed, the second would wait 40 ms for an acknowledgement.
fn undelayed(listener: TcpListener) -> impl Listener<Io = TcpStream, Addr = SocketAddr> {
    listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "could not set TCP_NODELAY");
        }
    })
}

async fn serve_any<L, F, C>(mut listener: L, most: usize, shutdown: CancellationToken, greet: F)
where
    L: Listener,
    F: Fn(L::Io, L::Addr) -> Option<C>,
    C: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            (io, from) = listener.accept(), if connections.len() < most => {
                if let Some(connection) = greet(io, from) {
                    connections.spawn(connection);
                }
            }
        }
    }
    drop(listener);
    let drain = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, drain).await.is_err() {
        tracing::info!(connections = connections.len(), "closing connections with requests under way");
    }
}

/// A client's connection: TLS first, where it is spoken.
async fn client(io: TcpStream, peer: Peer, router: Router, tls: Option<Tls>, shutdown: CancellationToken) {
    let router = router.layer(Extension(peer));
    let Some(tls) = tls else { return connection(io, router, shutdown).await };
    let greeted = tokio::select! {
        greeted = tokio::time::timeout(HANDSHAKE_PATIENCE, handshake(io, &tls)) => greeted,
        () = shutdown.cancelled() => return,
    };
    match greeted {
        Ok(Ok(Some(io))) => connection(io, router, shutdown).await,
        Ok(Ok(None)) => {}
        Ok(Err(error)) => tracing::debug!(client = %peer.address, %error, "no TLS connection"),
        Err(_) => tracing::debug!(client = %peer.address, "the TLS handshake took too long"),
    }
}

/// Nothing for clients that speak HTTP without TLS; they are told.
async fn handshake(mut io: TcpStream, tls: &Tls) -> io::Result<Option<TlsStream<TcpStream>>> {
    let mut first = [0];
    // A handshake begins with 22, a method with a letter.
    if io.peek(&mut first).await? == 1 && first[0].is_ascii_uppercase() {
        io.write_all(WITHOUT_TLS.as_bytes()).await?;
        io.shutdown().await?;
        // Closing with unread bytes would reset the connection, and the answer with it.
        let _ = tokio::io::copy(&mut (&mut io).take(BUFFER as u64), &mut tokio::io::sink()).await;
        return Ok(None);
    }
    tls.acceptor().accept(io).await.map(Some)
}

async fn connection<I>(io: I, router: Router, shutdown: CancellationToken)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE).max_buf_size(BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PATIENCE)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_MAX as u32)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(4 * WINDOW);
    let served =
        builder.serve_connection(TokioIo::new(Patient::new(io)), TowerToHyperService::new(Heard(router)));
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        // Clients that go away are no news.
        tracing::trace!(%error, "connection ended");
    }
}

/// A connection that fails when the other side takes nothing for [`PATIENCE`], or says nothing at all
/// within [`HEADER_PATIENCE`] of connecting.
struct Patient<I> {
    io: I,
    /// Bytes of the greeting that have not come yet, and until when they must have.
    greeting: Option<(usize, Pin<Box<Sleep>>)>,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<I: AsyncRead + AsyncWrite + Unpin> Patient<I> {
    fn new(io: I) -> Self {
        Patient {
            io,
            greeting: Some((PREFACE, Box::pin(tokio::time::sleep(HEADER_PATIENCE)))),
            stalled: None,
        }
    }

    /// What became of a write: waits for it no longer than [`PATIENCE`].
    fn bounded<T>(&mut self, context: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for Patient<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        let Some((missing, end)) = &mut self.greeting else { return read };
        if read.is_ready() {
            *missing = missing.saturating_sub(buffer.filled().len() - before);
            if *missing == 0 {
                self.greeting = None;
            }
            read
        } else {
            ready!(end.as_mut().poll(context));
            Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client says nothing")))
        }
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.bounded(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.bounded(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(context);
        self.bounded(context, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

/// Connections at a time on one listener; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 2048;
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 64;
/// What an HTTP/2 client may send ahead in one request, in bytes.
const WINDOW: u32 = 1024 * 1024;
/// Longest HTTP/2 header in bytes: some clients ask for a thousand ranges in one.
const HEADER_MAX: usize = 64 * 1024;
/// Longest HTTP/1.1 header, and how much of a body is read at a time, in bytes.
const BUFFER: usize = 256 * 1024;
/// How long a client may take to send a request's header, and stay silent between requests.
const HEADER_PATIENCE: Duration = Duration::from_secs(30);
/// How long a client may take nothing of an answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long requests under way may go on once the node is told to stop.
const DRAIN: Duration = Duration::from_secs(4);
/// How long a client may take for the TLS handshake.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// For clients that speak plain HTTP where TLS is spoken.
const WITHOUT_TLS: &str = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 41\r\n\
    Connection: close\r\n\r\nTLS is spoken on this port; use https://\n";
/// Bytes that tell HTTP/1.1 from HTTP/2.
const PREFACE: usize = 24;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::{body::Body, extract::Request, routing::get};
    use futures_util::{StreamExt, stream};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
        sync::mpsc,
        task::JoinHandle,
    };

    use super::*;

    async fn started(router: Router) -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, router, shutdown.clone()));
        (address, shutdown, server)
    }

    async fn talk(stream: &mut TcpStream, request: &[u8]) -> Vec<u8> {
        let mut answer = Vec::new();
        stream.write_all(request).await.expect("sent");
        stream.read_to_end(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn requests_under_way_finish_and_idle_connections_close() {
        let (begun, mut began) = mpsc::channel(1);
        let go_on = CancellationToken::new();
        let until = go_on.clone();
        let router = Router::new().route(
            "/",
            get(move |_: Request| async move {
                begun.send(()).await.expect("the test waits");
                until.cancelled().await;
                "done"
            }),
        );
        let (address, shutdown, server) = started(router).await;
        let mut idle = TcpStream::connect(address).await.expect("connected");
        let mut busy = TcpStream::connect(address).await.expect("connected");
        let busy = tokio::spawn(async move { talk(&mut busy, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await });
        began.recv().await.expect("the request arrived");
        shutdown.cancel();
        assert_eq!(talk(&mut idle, b"").await, b"");
        go_on.cancel();
        let answer = busy.await.expect("no panic");
        assert!(answer.ends_with(b"done"), "{}", String::from_utf8_lossy(&answer));
        server.await.expect("no panic");
    }

    #[tokio::test]
    async fn speaks_http2_without_tls() {
        let (address, shutdown, server) = started(Router::new()).await;
        let mut client = TcpStream::connect(address).await.expect("connected");
        // The preface and an empty SETTINGS frame; the server answers with SETTINGS of its own.
        let mut head = [0; 9];
        client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
        client.read_exact(&mut head).await.expect("answered");
        assert_eq!((head[3], &head[5..]), (4, &[0; 4][..]));
        shutdown.cancel();
        server.await.expect("no panic");
    }

    #[tokio::test(start_paused = true)]
    async fn silent_and_stalled_clients_are_given_up() {
        let (client, server) = tokio::io::duplex(1024);
        let silent = connection(server, Router::new(), CancellationToken::new());
        silent.await;
        drop(client);

        let (mut client, server) = tokio::io::duplex(1024);
        client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("sent");
        let router = Router::new().route(
            "/",
            get(async || {
                Body::from_stream(stream::repeat("x".repeat(4096)).map(Ok::<_, std::convert::Infallible>))
            }),
        );
        // The client reads nothing: without a limit this would wait for ever.
        connection(server, router, CancellationToken::new()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn heads_that_drip_are_given_up() {
        let (mut client, server) = tokio::io::duplex(1024);
        let begun = tokio::time::Instant::now();
        let drip = async move {
            client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: ").await.expect("sent");
            // A byte now and then, for as long as the server takes them.
            while client.write_all(b"a").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(5)).await;
            }
        };
        tokio::join!(connection(server, Router::new(), CancellationToken::new()), drip);
        assert!(begun.elapsed() <= 2 * HEADER_PATIENCE, "after {:?}", begun.elapsed());
    }
}
