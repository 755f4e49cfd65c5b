//! libp2p's memory transport with a delay: what arrives is handed over that much later. Counts the bytes.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use libp2p::futures::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::log::Log;

/// One end of a connection.
pub struct Line<S> {
    socket: S,
    delay: Duration,
    /// When what may be read.
    waiting: VecDeque<(Instant, Vec<u8>)>,
    /// How much of the first has been read.
    read: usize,
    ended: bool,
    timer: Pin<Box<Sleep>>,
    log: Arc<Log>,
}

impl<S> Line<S> {
    pub fn new(socket: S, delay: Duration, log: Arc<Log>) -> Self {
        let timer = Box::pin(tokio::time::sleep(Duration::ZERO));
        Line { socket, delay, waiting: VecDeque::new(), read: 0, ended: false, timer, log }
    }
}

impl<S: AsyncRead + Unpin> Line<S> {
    /// Takes in all that is there, so that the other end never waits for this one to read.
    fn take_in(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let mut buffer = [0; 16 << 10];
        while !self.ended && self.waiting.len() < WAITING_MAX {
            match Pin::new(&mut self.socket).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(0)) => self.ended = true,
                Poll::Ready(Ok(n)) => {
                    self.waiting.push_back((Instant::now() + self.delay, buffer[..n].to_vec()));
                }
                Poll::Ready(Err(error)) => return Err(error),
                Poll::Pending => break,
            }
        }
        Ok(())
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Line<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        this.take_in(cx)?;
        let Some((due, bytes)) = this.waiting.front() else {
            return if this.ended { Poll::Ready(Ok(0)) } else { Poll::Pending };
        };
        if *due > Instant::now() {
            this.timer.as_mut().reset(*due);
            ready!(this.timer.as_mut().poll(cx));
        }
        let rest = &bytes[this.read..];
        let n = rest.len().min(buffer.len());
        buffer[..n].copy_from_slice(&rest[..n]);
        this.read += n;
        if this.read == bytes.len() {
            this.waiting.pop_front();
            this.read = 0;
        }
        this.log.wire(n);
        Poll::Ready(Ok(n))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Line<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_close(cx)
    }
}

/// Pieces under way in one direction.
const WAITING_MAX: usize = 4096;
