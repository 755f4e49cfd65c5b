//! Streams that go no faster than the node's budget allows. Wraps whatever carries the blob protocol: each step
//! waits until what was moved before is paid for, and the transport's flow control holds the other side back.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use iroh::endpoint::VarInt;
use iroh_blobs::util::{RecvStream, SendStream};

use crate::budget::{Blocked, Meter};

/// A stream with a meter on it.
#[derive(Debug)]
pub(super) struct Paced<S> {
    inner: S,
    meter: Meter,
    /// Whether the other side sends so slowly that it is to be seen in small parts that it lives.
    slow: bool,
}

impl<S> Paced<S> {
    pub(super) fn new(inner: S, meter: Meter) -> Self {
        Paced { inner, meter, slow: true }
    }

    fn step(&self, len: usize) -> usize {
        if self.slow { PART } else { len.max(1) }
    }
}

impl<R: RecvStream> RecvStream for Paced<R> {
    async fn recv_bytes(&mut self, len: usize) -> io::Result<Bytes> {
        self.meter.pay().await.map_err(stopped)?;
        let begun = Instant::now();
        let step = self.step(len);
        let mut all = BytesMut::new();
        loop {
            let wanted = (len - all.len()).min(step);
            let come = self.inner.recv_bytes(wanted).await?;
            self.meter.moved(come.len() as u64);
            self.slow = begun.elapsed() > SLOW;
            if wanted == len {
                return Ok(come);
            }
            all.extend_from_slice(&come);
            if come.len() < wanted || all.len() == len {
                return Ok(all.freeze());
            }
        }
    }

    async fn recv_bytes_exact(&mut self, len: usize) -> io::Result<Bytes> {
        let mut buffer = vec![0; len];
        self.recv_exact(&mut buffer).await?;
        Ok(buffer.into())
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        self.meter.pay().await.map_err(stopped)?;
        let begun = Instant::now();
        let step = self.step(target.len());
        for part in target.chunks_mut(step) {
            self.inner.recv_exact(part).await?;
            self.meter.moved(part.len() as u64);
        }
        self.slow = begun.elapsed() > SLOW;
        Ok(())
    }

    fn stop(&mut self, code: VarInt) -> io::Result<()> {
        self.inner.stop(code)
    }

    fn id(&self) -> u64 {
        self.inner.id()
    }
}

impl<W: SendStream> SendStream for Paced<W> {
    async fn send_bytes(&mut self, mut bytes: Bytes) -> io::Result<()> {
        // Whole groups where nothing is paced: cutting them costs, and gains nothing.
        while self.meter.is_paced() && bytes.len() > PART {
            self.meter.pay().await.map_err(stopped)?;
            self.inner.send_bytes(bytes.split_to(PART)).await?;
            self.meter.moved(PART as u64);
        }
        self.meter.pay().await.map_err(stopped)?;
        let length = bytes.len() as u64;
        self.inner.send_bytes(bytes).await?;
        self.meter.moved(length);
        Ok(())
    }

    async fn send(&mut self, buffer: &[u8]) -> io::Result<()> {
        self.meter.pay().await.map_err(stopped)?;
        self.inner.send(buffer).await?;
        self.meter.moved(buffer.len() as u64);
        Ok(())
    }

    async fn sync(&mut self) -> io::Result<()> {
        self.inner.sync().await
    }

    fn reset(&mut self, code: VarInt) -> io::Result<()> {
        self.inner.reset(code)
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        self.inner.stopped().await
    }

    fn id(&self) -> u64 {
        self.inner.id()
    }
}

fn stopped(blocked: Blocked) -> io::Error {
    io::Error::other(blocked.to_string())
}

/// A quarter of a verified group: with a hundred streams at 64 kbit/s each still moves a part within the time
/// after which the other side takes a transfer for dead.
const PART: usize = 4 * 1024;
/// A step of the other side's that took longer is slow.
const SLOW: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use waystation_proto::{NodeId, event::Class};

    use super::*;
    use crate::budget::{Budget, Way};

    fn paced<S>(inner: S, way: Way) -> (Paced<S>, Budget) {
        let budget = Budget::unlimited();
        let meter = budget.meter(&NodeId([1; 32]), way, Class::Client);
        (Paced::new(inner, meter), budget)
    }

    #[tokio::test]
    async fn bytes_come_as_they_are_and_are_counted() {
        let bytes: Bytes = (0..100_000_u32).map(|n| n as u8).collect::<Vec<_>>().into();
        let (mut stream, budget) = paced(bytes.clone(), Way::Down);
        assert_eq!(stream.recv_bytes(10).await.expect("read"), bytes.slice(..10));
        assert_eq!(stream.recv_bytes(PART).await.expect("read"), bytes.slice(10..10 + PART));
        assert_eq!(stream.recv_bytes_exact(3 * PART + 1).await.expect("read").len(), 3 * PART + 1);
        let rest = stream.recv_bytes(1 << 20).await.expect("read");
        assert_eq!(rest, bytes.slice(10 + 4 * PART + 1..));
        assert!(stream.recv_bytes(1).await.expect("the end").is_empty());
        assert!(stream.recv_bytes_exact(1).await.is_err());
        assert_eq!(budget.status().spent_down, 100_000);
    }

    #[tokio::test]
    async fn a_limit_set_under_way_holds_the_next_step() {
        let (mut stream, budget) = paced(Bytes::from(vec![7; 1 << 20]), Way::Down);
        stream.recv_bytes_exact(512 * 1024).await.expect("read");
        let limit = |text: &str| budget.change(serde_json::from_str(text).expect("reads")).expect("valid");
        limit(r#"{"down":"8 kbit/s"}"#);
        let mut next = Box::pin(stream.recv_bytes_exact(512 * 1024));
        // The first step is free; the second waits for the first, which cost nine minutes.
        let first = futures_util::poll!(&mut next);
        drop(next);
        let mut next = Box::pin(stream.recv_bytes_exact(1));
        assert!(first.is_pending() || futures_util::poll!(&mut next).is_pending());
        limit(r#"{"down":""}"#);
        let end = tokio::time::timeout(Duration::from_secs(30), next).await;
        assert!(end.is_ok(), "it goes on when the limit is lifted");
    }
}
