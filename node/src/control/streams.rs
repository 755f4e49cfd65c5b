//! Byte streams between members with a session, beside its messages: the second way that blobs can take, where
//! UDP does not pass. Either end of a session opens them. They share the session's connection, whose handshake
//! has proved the admission secret and who the other side is; what is said on them is the data plane's.

use std::{
    collections::VecDeque,
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol,
    core::{Endpoint, transport::PortUse, upgrade::ReadyUpgrade},
    swarm::{
        CloseConnection, ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId,
        FromSwarm, NetworkBehaviour, NotifyHandler, Stream, StreamUpgradeError, SubstreamProtocol, ToSwarm,
        handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound},
    },
};
use tokio::sync::{mpsc, oneshot};
use waystation_proto::NodeId;

use super::connections::Connections;
use crate::identity;

/// Opens streams to members; clones open at the same swarm.
#[derive(Clone, Debug)]
pub struct Streams {
    asks: mpsc::Sender<Ask>,
}

/// Streams that members have opened, and who did. Where too many wait here, more are refused.
pub type Incoming = mpsc::Receiver<(NodeId, Stream)>;

/// Why there is no stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoStream {
    /// There is no session with the node.
    #[error("there is no session with it")]
    NoSession,
    /// It is of a version that does not take streams.
    #[error("its version does not send blobs over TCP; upgrade it")]
    Unsupported,
    /// The session's connection ended, or does not answer.
    #[error("the connection of its session broke")]
    Lost,
}

type Answer = oneshot::Sender<Result<Stream, NoStream>>;

#[derive(Debug)]
struct Ask {
    peer: PeerId,
    answer: Answer,
}

impl Streams {
    /// A stream to a member, which has agreed to take it.
    pub async fn open(&self, node: &NodeId) -> Result<Stream, NoStream> {
        let peer = identity::peer_id(node).ok_or(NoStream::NoSession)?;
        let (answer, opened) = oneshot::channel();
        self.asks.send(Ask { peer, answer }).await.map_err(|_| NoStream::NoSession)?;
        // Dropped with the connection.
        opened.await.unwrap_or(Err(NoStream::Lost))
    }
}

/// The swarm's part.
pub(crate) struct Behaviour {
    asks: mpsc::Receiver<Ask>,
    incoming: mpsc::Sender<(NodeId, Stream)>,
    connections: Connections,
    events: VecDeque<ToSwarm<std::convert::Infallible, Answer>>,
}

/// The swarm's part, and the two ends of it that others use.
pub(super) fn streams() -> (Behaviour, Streams, Incoming) {
    let (to_behaviour, asks) = mpsc::channel(ASKS_MAX);
    let (incoming, taken) = mpsc::channel(INCOMING_MAX);
    let behaviour =
        Behaviour { asks, incoming, connections: Connections::default(), events: VecDeque::new() };
    (behaviour, Streams { asks: to_behaviour }, taken)
}

impl Behaviour {
    fn handler(&self, peer: PeerId) -> Handler {
        Handler {
            node: identity::node_of_peer(&peer),
            incoming: self.incoming.clone(),
            asked: VecDeque::new(),
            dead: false,
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = std::convert::Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(self.handler(peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        self.connections.note(&event);
    }

    fn on_connection_handler_event(&mut self, peer_id: PeerId, connection: ConnectionId, Dead: Dead) {
        tracing::info!(peer = %peer_id, "peer takes no stream in time, closing the connection");
        let connection = CloseConnection::One(connection);
        self.events.push_back(ToSwarm::CloseConnection { peer_id, connection });
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, Answer>> {
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(event);
        }
        while let Poll::Ready(Some(Ask { peer, answer })) = self.asks.poll_recv(cx) {
            match self.connections.best(&peer) {
                Some(connection) => {
                    let handler = NotifyHandler::One(connection);
                    return Poll::Ready(ToSwarm::NotifyHandler { peer_id: peer, handler, event: answer });
                }
                // Who asked may be gone.
                None => drop(answer.send(Err(NoStream::NoSession))),
            }
        }
        Poll::Pending
    }
}

/// One connection's part.
pub(crate) struct Handler {
    node: Option<NodeId>,
    incoming: mpsc::Sender<(NodeId, Stream)>,
    asked: VecDeque<Answer>,
    /// Whether the other side left a new stream unanswered.
    dead: bool,
}

/// The connection is of no use any more, whatever TCP thinks of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dead;

impl ConnectionHandler for Handler {
    type FromBehaviour = Answer;
    type ToBehaviour = Dead;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Answer;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Answer, Dead>> {
        if std::mem::take(&mut self.dead) {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(Dead));
        }
        match self.asked.pop_front() {
            Some(answer) => {
                let protocol =
                    SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), answer).with_timeout(OPEN_TIMEOUT);
                Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol })
            }
            None => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, answer: Answer) {
        self.asked.push_back(answer);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Answer>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                // A stream that nobody takes is dropped, and the other side sees it end.
                if let Some(node) = self.node
                    && self.incoming.try_send((node, stream)).is_err()
                {
                    tracing::debug!(peer = %node.short(), "too many streams wait; one was refused");
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: answer,
            }) => drop(answer.send(Ok(stream))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, info: answer }) => {
                let why = match error {
                    StreamUpgradeError::NegotiationFailed => NoStream::Unsupported,
                    StreamUpgradeError::Timeout => {
                        self.dead = true;
                        NoStream::Lost
                    }
                    _ => NoStream::Lost,
                };
                drop(answer.send(Err(why)));
            }
            _ => {}
        }
    }
}

/// The protocol's name; its number changes when requests do, as that of the data plane's own connections.
const PROTOCOL: StreamProtocol = StreamProtocol::new("/waystation/blobs/1");

/// Streams that wait to be asked for. Whoever wants another waits.
const ASKS_MAX: usize = 64;

/// Streams that others opened and nobody has taken yet.
const INCOMING_MAX: usize = 256;

/// A thin link's queue is emptied within this; what takes longer is dead, and is made anew.
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
