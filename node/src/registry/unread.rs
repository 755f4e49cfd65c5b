//! Bodies of requests that were answered before all of them was read, as one without a login is. Closing an HTTP/1.1
//! connection with unread bytes resets it, and the answer is lost with it; so they are taken and thrown away for a
//! while (RFC 9112, section 9.6), and where there may be many the client is told that the connection ends. A stream of
//! HTTP/2 may be reset once the answer is on its way (RFC 9113, section 8.1), but there are clients, such as curl 7.88,
//! that then forget the answer.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderValue, Request, Version, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture};
use http_body::{Body as HttpBody, Frame, SizeHint};
use tokio::runtime::Handle;
use tower::{BoxError, Service, ServiceExt};

/// A router whose clients get its answers whatever it leaves unread.
#[derive(Clone)]
pub(super) struct Heard(pub Router);

/// A request's body. What is left of it when it is dropped is read on.
struct Kept {
    body: Option<Body>,
    /// Nothing of it is unread. Shared with whoever sends the answer.
    ended: Arc<AtomicBool>,
    /// False where the client waits to be told to send it.
    is_coming: bool,
}

impl<B> Service<Request<B>> for Heard
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let router = self.0.clone();
        if request.body().is_end_stream() {
            return router.oneshot(request).boxed();
        }
        let is_stream = request.version() >= Version::HTTP_2;
        let is_coming = is_stream || !request.headers().contains_key(header::EXPECT);
        let is_short = request.body().size_hint().upper().is_some_and(|length| length <= SHORT);
        let ended = Arc::new(AtomicBool::new(false));
        let its = ended.clone();
        let request =
            request.map(|body| Body::new(Kept { body: Some(Body::new(body)), ended: its, is_coming }));
        let answer = async move {
            let mut answer = router.oneshot(request).await?;
            let stays = is_stream || ended.load(Ordering::Relaxed) || (is_coming && is_short);
            if !stays {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        };
        answer.boxed()
    }
}

impl HttpBody for Kept {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) || body.is_end_stream() {
            self.body = None;
            self.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or(SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(body) = self.body.take().filter(|_| self.is_coming)
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(tokio::time::timeout(LINGER, discard(body)));
        }
    }
}

async fn discard(body: Body) {
    let (mut data, mut left) = (body.into_data_stream(), UNREAD_MAX);
    while let Ok(Some(Ok(bytes))) = tokio::time::timeout(QUIET, data.next()).await {
        match left.checked_sub(bytes.len() as u64) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}

/// Up to which length, in bytes, the connection stays for further requests.
const SHORT: u64 = 1024 * 1024;
/// Most bytes that are thrown away,
const UNREAD_MAX: u64 = 256 * 1024 * 1024;
/// for how long,
const LINGER: Duration = Duration::from_secs(30);
/// and how long the client may send nothing meanwhile.
const QUIET: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use axum::{
        http::StatusCode,
        routing::{post, put},
    };
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        task::JoinHandle,
    };
    use tokio_util::sync::CancellationToken;

    use crate::registry::serve;

    async fn started() -> (TcpStream, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let client = TcpStream::connect(listener.local_addr().expect("bound")).await.expect("connected");
        let router = super::Router::new()
            .route("/", put(async || (StatusCode::UNAUTHORIZED, "who is it?")))
            .route("/read", post(async |body: super::Bytes| body.len().to_string()));
        let shutdown = CancellationToken::new();
        (client, shutdown.clone(), tokio::spawn(serve(listener, router, shutdown)))
    }

    /// One answer, whose body is what the test's router says.
    async fn answer(client: &mut TcpStream, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            text.push(client.read_u8().await.unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&text));
            }));
        }
        String::from_utf8(text).expect("text")
    }

    #[tokio::test]
    async fn a_connection_stays_where_a_short_body_was_not_read() {
        let (mut client, shutdown, server) = started().await;
        for _ in 0..3 {
            let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
            client.write_all(head).await.expect("sent");
            // The body comes after the answer to it, as it may on any slow link.
            let text = answer(&mut client, "who is it?").await;
            assert!(text.starts_with("HTTP/1.1 401") && !text.contains("connection: close"), "{text}");
            client.write_all(&[b'x'; 100_000]).await.expect("taken");
        }
        let whole = b"POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello";
        client.write_all(whole).await.expect("sent");
        assert!(!answer(&mut client, "\r\n\r\n5").await.contains("connection: close"));
        shutdown.cancel();
        server.await.expect("no panic");
    }

    #[tokio::test]
    async fn who_sends_all_before_it_reads_gets_the_answer_too() {
        let (mut client, shutdown, server) = started().await;
        let length = 64 << 20;
        let head = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n");
        client.write_all(head.as_bytes()).await.expect("sent");
        for _ in 0..length >> 20 {
            client.write_all(&[b'x'; 1 << 20]).await.expect("taken");
        }
        let text = answer(&mut client, "who is it?").await;
        assert!(text.starts_with("HTTP/1.1 401") && text.contains("connection: close"), "{text}");
        assert_eq!(client.read(&mut [0]).await.expect("an end, no break"), 0);
        shutdown.cancel();
        server.await.expect("no panic");
    }

    #[tokio::test]
    async fn who_waits_to_be_told_to_send_is_not_told_and_the_connection_ends() {
        let (mut client, shutdown, server) = started().await;
        let head = b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n";
        client.write_all(head).await.expect("sent");
        let text = answer(&mut client, "who is it?").await;
        assert!(text.starts_with("HTTP/1.1 401") && text.contains("connection: close"), "{text}");
        assert_eq!(client.read(&mut [0]).await.expect("an end"), 0);
        shutdown.cancel();
        server.await.expect("no panic");
    }

    /// A frame of HTTP/2, on the connection's only stream or none.
    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
        [&length[1..], &[kind, flags, 0, 0, 0, stream], payload].concat()
    }

    /// Kind and flags of frames, up to the first of this kind and these flags.
    async fn frames_until(client: &mut TcpStream, last: (u8, u8)) -> Vec<(u8, u8)> {
        let mut seen = Vec::new();
        while seen.last() != Some(&last) {
            let mut head = [0; 9];
            client.read_exact(&mut head).await.expect("a frame");
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            client.read_exact(&mut vec![0; length]).await.expect("its payload");
            seen.push((head[3], head[4]));
        }
        seen
    }

    #[tokio::test]
    async fn a_stream_of_http_2_ends_when_its_client_has_sent_all() {
        let (mut client, shutdown, server) = started().await;
        let (data, headers, reset, settings, ping) = (0, 1, 3, 4, 6);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
        // PUT http://a/, by the static table.
        let put = frame(headers, 4, 1, b"\x02\x03PUT\x84\x86\x01\x01a");
        client.write_all(&[preface, &frame(settings, 0, 0, &[]), &put].concat()).await.expect("sent");
        frames_until(&mut client, (data, 1)).await;
        // The answer is here; now comes the body that it left unread.
        for n in 0..3 {
            client.write_all(&frame(data, u8::from(n == 2), 1, &[0; 16_000])).await.expect("taken");
        }
        client.write_all(&frame(ping, 0, 0, &[0; 8])).await.expect("sent");
        let seen = frames_until(&mut client, (ping, 1)).await;
        assert!(seen.iter().all(|(kind, _)| *kind != reset), "some clients lose the answer: {seen:?}");
        shutdown.cancel();
        server.await.expect("no panic");
    }
}
