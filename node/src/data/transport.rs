//! The ways that blobs take between two nodes, as one type: iroh's QUIC, and streams of the control plane's TCP
//! connection where UDP does not pass or a node cannot be dialled. Owns the choice. QUIC is tried first; a node
//! that it does not reach is asked over TCP for a while, without waiting for QUIC again.

use std::{
    io,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use iroh::endpoint::{RecvStream as QuicReceiver, SendStream as QuicSender, VarInt};
use iroh_blobs::util::{RecvStream, SendStream};
use libp2p::{
    Stream,
    futures::{
        AsyncReadExt, AsyncWriteExt,
        io::{ReadHalf, WriteHalf},
    },
};
use waystation_proto::NodeId;

use super::links::{Active, Link, Links, Outlook};
use crate::control::Streams;

/// All ways to all nodes.
pub(super) struct Transports {
    links: Arc<Links>,
    /// Absent until the control plane is up.
    streams: OnceLock<Streams>,
}

/// One request's bytes to a node and back.
pub(super) struct Exchange {
    pub(super) send: Sender,
    pub(super) receive: Receiver,
    pub(super) line: Line,
}

/// What carries an exchange.
pub(super) enum Line {
    /// A connection that is kept, and marked as in use by this.
    Quic(Arc<Link>, #[allow(dead_code, reason = "held")] Active),
    /// A stream that is there for this alone.
    Tcp,
}

impl Transports {
    pub(super) fn new(links: Arc<Links>) -> Self {
        Transports { links, streams: OnceLock::new() }
    }

    /// From now on also over TCP. Only the first call counts.
    pub(super) fn add(&self, streams: Streams) {
        let _ = self.streams.set(streams);
    }

    /// Opens an exchange with a node. `why` not is for people.
    pub(super) async fn open(&self, node: NodeId, addresses: &[String]) -> Result<Exchange, String> {
        let Some(streams) = self.streams.get() else {
            return quic(self.links.to(node, addresses).await?).await;
        };
        match self.links.outlook(&node, addresses) {
            Outlook::Open(link) => quic(link).await,
            Outlook::Unreachable => tcp(streams, &node).await,
            Outlook::Due => {
                // Goes on by itself; what is asked for later profits.
                drop(self.links.dialling(node, addresses));
                tcp(streams, &node).await
            }
            Outlook::Unknown => {
                let dialling = self.links.dialling(node, addresses);
                if let Ok(Ok(link)) = tokio::time::timeout(HEAD_START, dialling.clone()).await {
                    return quic(link).await;
                }
                match tcp(streams, &node).await {
                    Ok(exchange) => Ok(exchange),
                    Err(why) => match dialling.await {
                        Ok(link) => quic(link).await,
                        Err(over_udp) => Err(format!("over UDP: {over_udp}; over TCP: {why}")),
                    },
                }
            }
        }
    }
}

impl Line {
    /// The connection, where it is one that is kept.
    pub(super) fn link(&self) -> Option<&Arc<Link>> {
        match self {
            Line::Quic(link, _) => Some(link),
            Line::Tcp => None,
        }
    }

    /// Tells exchanges apart in the library's logs.
    pub(super) fn connection_id(&self) -> u64 {
        self.link().map_or(ONLY, |link| link.connection().stable_id() as u64)
    }

    /// Says that something came over it.
    pub(super) fn touch(&self) {
        if let Some(link) = self.link() {
            link.touch();
        }
    }
}

async fn quic(link: Arc<Link>) -> Result<Exchange, String> {
    let active = link.active();
    let (send, receive) = tokio::time::timeout(OPEN_TIMEOUT, link.connection().open_bi())
        .await
        .map_err(|_| format!("took no request within {OPEN_TIMEOUT:?}"))?
        .map_err(|error| format!("connection lost: {error}"))?;
    let line = Line::Quic(link, active);
    Ok(Exchange { send: Sender::Quic(send), receive: Receiver::Quic(receive), line })
}

async fn tcp(streams: &Streams, node: &NodeId) -> Result<Exchange, String> {
    let stream = tokio::time::timeout(OPEN_TIMEOUT, streams.open(node))
        .await
        .map_err(|_| format!("took no stream within {OPEN_TIMEOUT:?}"))?
        .map_err(|error| error.to_string())?;
    let (send, receive) = halves(stream);
    Ok(Exchange { send, receive, line: Line::Tcp })
}

/// A stream of the control plane as what carries requests.
pub(super) fn halves(stream: Stream) -> (Sender, Receiver) {
    let (receive, send) = stream.split();
    (Sender::Tcp(send), Receiver::Tcp(receive))
}

/// What is said to the other side.
pub(super) enum Sender {
    Quic(QuicSender),
    Tcp(WriteHalf<Stream>),
}

/// What the other side says.
pub(super) enum Receiver {
    Quic(QuicReceiver),
    Tcp(ReadHalf<Stream>),
}

impl SendStream for Sender {
    async fn send_bytes(&mut self, bytes: Bytes) -> io::Result<()> {
        match self {
            Sender::Quic(quic) => quic.send_bytes(bytes).await,
            Sender::Tcp(tcp) => tcp.write_all(&bytes).await,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Sender::Quic(quic) => quic.send(bytes).await,
            Sender::Tcp(tcp) => tcp.write_all(bytes).await,
        }
    }

    async fn sync(&mut self) -> io::Result<()> {
        match self {
            Sender::Quic(quic) => quic.sync().await,
            // Both ends call this once, when they have said everything. QUIC ends a stream that is dropped; here
            // it must be said. (Closing flushes.)
            Sender::Tcp(tcp) => tcp.close().await,
        }
    }

    fn reset(&mut self, code: VarInt) -> io::Result<()> {
        match self {
            Sender::Quic(quic) => SendStream::reset(quic, code),
            // A stream that is dropped before it was closed is reset.
            Sender::Tcp(_) => Ok(()),
        }
    }

    async fn stopped(&mut self) -> io::Result<Option<VarInt>> {
        match self {
            Sender::Quic(quic) => SendStream::stopped(quic).await,
            // Asked for observers only, which are refused.
            Sender::Tcp(_) => Ok(None),
        }
    }

    fn id(&self) -> u64 {
        match self {
            Sender::Quic(quic) => SendStream::id(quic),
            Sender::Tcp(_) => ONLY,
        }
    }
}

impl RecvStream for Receiver {
    async fn recv_bytes(&mut self, length: usize) -> io::Result<Bytes> {
        match self {
            Receiver::Quic(quic) => quic.recv_bytes(length).await,
            Receiver::Tcp(tcp) => {
                let mut bytes = Vec::with_capacity(length);
                tcp.take(length as u64).read_to_end(&mut bytes).await?;
                Ok(bytes.into())
            }
        }
    }

    async fn recv_bytes_exact(&mut self, length: usize) -> io::Result<Bytes> {
        match self {
            Receiver::Quic(quic) => quic.recv_bytes_exact(length).await,
            Receiver::Tcp(tcp) => {
                let mut bytes = vec![0; length];
                tcp.read_exact(&mut bytes).await?;
                Ok(bytes.into())
            }
        }
    }

    async fn recv_exact(&mut self, target: &mut [u8]) -> io::Result<()> {
        match self {
            Receiver::Quic(quic) => quic.recv_exact(target).await,
            Receiver::Tcp(tcp) => tcp.read_exact(target).await,
        }
    }

    fn stop(&mut self, code: VarInt) -> io::Result<()> {
        match self {
            Receiver::Quic(quic) => RecvStream::stop(quic, code),
            Receiver::Tcp(_) => Ok(()),
        }
    }

    fn id(&self) -> u64 {
        match self {
            Receiver::Quic(quic) => RecvStream::id(quic),
            Receiver::Tcp(_) => ONLY,
        }
    }
}

/// Each TCP stream is told of as a connection of its own.
const ONLY: u64 = 0;

/// How long QUIC alone is waited for, where a node has not been tried: a handshake over a satellite.
const HEAD_START: Duration = Duration::from_millis(1500);

/// A node that takes no request within this is not waited for.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
