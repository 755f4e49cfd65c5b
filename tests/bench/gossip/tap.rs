//! Between the encryption and gossipsub: reads along what a node receives.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use libp2p::{
    core::muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent, SubstreamBox},
    futures::{AsyncRead, AsyncWrite},
};

use crate::log::{Log, number};

/// A connection that is read along.
pub struct Tapped {
    pub inner: StreamMuxerBox,
    /// The other end.
    pub from: usize,
    /// This end.
    pub to: usize,
    pub log: Arc<Log>,
}

/// A stream of it.
pub struct Stream {
    inner: SubstreamBox,
    tap: Option<Tap>,
}

/// What is received over a stream that the other end opened: gossipsub sends over such only.
struct Tap {
    from: usize,
    to: usize,
    log: Arc<Log>,
    /// The beginning of a frame.
    part: Vec<u8>,
}

impl Tap {
    fn received(&mut self, bytes: &[u8]) {
        self.part.extend_from_slice(bytes);
        while let Some((length, rest)) = number(&self.part) {
            let (whole, length) = (self.part.len() - rest.len(), usize::try_from(length).unwrap());
            let Some(body) = rest.get(..length) else { return };
            self.log.frame(self.from, self.to, body, whole + length);
            self.part.drain(..whole + length);
        }
    }
}

impl StreamMuxer for Tapped {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let tap = Tap { from: self.from, to: self.to, log: self.log.clone(), part: Vec::new() };
        let stream = Pin::new(&mut self.inner).poll_inbound(cx);
        stream.map_ok(|inner| Stream { inner, tap: Some(tap) })
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        Pin::new(&mut self.inner).poll_outbound(cx).map_ok(|inner| Stream { inner, tap: None })
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<StreamMuxerEvent>> {
        Pin::new(&mut self.inner).poll(cx)
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if let (Poll::Ready(Ok(n)), Some(tap)) = (&read, &mut self.tap) {
            tap.received(&buffer[..*n]);
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
