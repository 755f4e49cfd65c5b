//! Between the encryption and gossipsub: reads along what a node sends and receives.

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

use waystation_sim::setup::Nanos;

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
    received: Option<Tap>,
    sent: Option<Tap>,
}

/// One direction of a stream: gossipsub sends over those that it opened, and receives over the others.
struct Tap {
    from: usize,
    to: usize,
    log: Arc<Log>,
    is_sent: bool,
    /// The beginning of a frame, and when it came.
    part: Vec<u8>,
    began: Nanos,
}

impl Tap {
    fn take(&mut self, bytes: &[u8]) {
        if self.part.is_empty() {
            self.began = self.log.now();
        }
        self.part.extend_from_slice(bytes);
        while let Some((length, rest)) = number(&self.part) {
            let (whole, length) = (self.part.len() - rest.len(), usize::try_from(length).unwrap());
            let Some(body) = rest.get(..length) else { return };
            if self.is_sent {
                self.log.sent(self.from, self.to, body, self.began);
            } else {
                self.log.frame(self.from, self.to, body, whole + length);
            }
            self.part.drain(..whole + length);
        }
    }
}

impl Tapped {
    fn tap(&self, from: usize, to: usize, is_sent: bool) -> Tap {
        Tap { from, to, log: self.log.clone(), is_sent, part: Vec::new(), began: 0 }
    }
}

impl StreamMuxer for Tapped {
    type Substream = Stream;
    type Error = io::Error;

    fn poll_inbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let tap = self.tap(self.from, self.to, false);
        let stream = Pin::new(&mut self.inner).poll_inbound(cx);
        stream.map_ok(|inner| Stream { inner, received: Some(tap), sent: None })
    }

    fn poll_outbound(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let tap = self.tap(self.to, self.from, true);
        let stream = Pin::new(&mut self.inner).poll_outbound(cx);
        stream.map_ok(|inner| Stream { inner, received: None, sent: Some(tap) })
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
        if let (Poll::Ready(Ok(n)), Some(tap)) = (&read, &mut self.received) {
            tap.take(&buffer[..*n]);
        }
        read
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let (Poll::Ready(Ok(n)), Some(tap)) = (&written, &mut self.sent) {
            tap.take(&bytes[..*n]);
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_close(cx)
    }
}
