//! Bodies that clients send too slowly: a request holds a connection, a permit and an upload, so its bytes
//! must come.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::HttpBody;
use bytes::{Buf, Bytes};
use http_body::{Frame, SizeHint};
use tokio::time::Sleep;

/// A request's body that fails where fewer than [`LEAST`] bytes come within [`PATIENCE`] while they are
/// waited for.
pub struct Paced<B> {
    body: B,
    waiting: Option<Pin<Box<Sleep>>>,
    came: usize,
}

impl<B> Paced<B> {
    /// Watches over a body.
    pub fn new(body: B) -> Self {
        Paced { body, waiting: None, came: 0 }
    }
}

impl<B> HttpBody for Paced<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if let Poll::Ready(next) = Pin::new(&mut self.body).poll_frame(context) {
            if let Some(Ok(frame)) = &next {
                self.came += frame.data_ref().map_or(0, Buf::remaining);
            }
            if self.came >= LEAST {
                (self.came, self.waiting) = (0, None);
            }
            return Poll::Ready(next.map(|frame| frame.map_err(Into::into)));
        }
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(PATIENCE)));
        if waiting.as_mut().poll(context).is_pending() {
            return Poll::Pending;
        }
        let slow = io::Error::new(io::ErrorKind::TimedOut, "the client sends too slowly");
        Poll::Ready(Some(Err(slow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// How long [`LEAST`] bytes may take. A link of a few kilobits is slow; this is standing still.
const PATIENCE: Duration = Duration::from_secs(60);
/// In bytes.
const LEAST: usize = 4096;

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use futures_util::{StreamExt, stream};

    use super::*;

    fn drip(every: Duration, bytes: usize, times: usize) -> Body {
        let drops = stream::iter(0..times).then(move |_| async move {
            tokio::time::sleep(every).await;
            Ok::<_, io::Error>(Bytes::from(vec![0; bytes]))
        });
        Body::new(Paced::new(Body::from_stream(Box::pin(drops))))
    }

    #[tokio::test(start_paused = true)]
    async fn drips_are_given_up_and_slow_links_are_not() {
        assert!(to_bytes(drip(Duration::from_secs(5), 1, 1000), 1 << 20).await.is_err());
        let slow = to_bytes(drip(Duration::from_secs(5), 1024, 100), 1 << 20).await.expect("taken");
        assert_eq!(slow.len(), 102_400);
        // The rest of a body may be short.
        assert_eq!(to_bytes(drip(Duration::from_secs(5), 10, 3), 1 << 20).await.expect("taken").len(), 30);
    }
}
