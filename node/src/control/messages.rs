//! Direct messages to members with a session. Small ones share one stream of each connection and each direction,
//! which stays open; a large one has its own, so that it holds up no other. Both are [`frames`]; one connection's
//! part is [`handler`]. What a message means, and what a peer that leaves them unanswered is worth, is the
//! swarm's loop's business.

mod frames;
mod handler;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    task::{Context, Poll},
};

use libp2p::{
    Multiaddr, PeerId,
    core::{Endpoint, transport::PortUse},
    swarm::{ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, ToSwarm},
};

pub(crate) use self::frames::Frame;
use self::handler::{Handler, Letter, Told};
use super::connections::Connections;

/// Names a message that was sent, for as long as the node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MessageId(u64);

/// What became of messages.
#[derive(Debug)]
pub(crate) enum Event {
    /// A peer sent one.
    Received { from: PeerId, frame: Frame },
    /// One has arrived.
    Arrived { peer: PeerId, message: MessageId },
    /// One may not have.
    Failed { peer: PeerId, message: MessageId, failure: Failure },
}

/// Why a message may not have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// There was no answer in time.
    #[error("it was not answered in time")]
    TimedOut,
    /// The peer does not take messages like this.
    #[error("its version takes no such messages; upgrade it")]
    Unsupported,
    /// The stream or the connection ended before.
    #[error("the connection broke")]
    Lost,
}

/// The swarm's part.
#[derive(Default)]
pub(crate) struct Behaviour {
    connections: Connections,
    /// Those that are neither answered nor given up.
    sent: BTreeMap<ConnectionId, BTreeSet<MessageId>>,
    last: u64,
    events: VecDeque<ToSwarm<Event, Letter>>,
}

impl Behaviour {
    /// Sends a message to a peer; an event tells what became of it.
    pub(crate) fn send(&mut self, peer: &PeerId, message: Vec<u8>) -> MessageId {
        self.last += 1;
        let id = MessageId(self.last);
        match self.connections.best(peer) {
            Some(connection) => {
                self.sent.entry(connection).or_default().insert(id);
                let handler = NotifyHandler::One(connection);
                let event = Letter::new(id, message);
                self.events.push_back(ToSwarm::NotifyHandler { peer_id: *peer, handler, event });
            }
            None => self.failed(*peer, id, Failure::Lost),
        }
        id
    }

    fn failed(&mut self, peer: PeerId, message: MessageId, failure: Failure) {
        self.events.push_back(ToSwarm::GenerateEvent(Event::Failed { peer, message, failure }));
    }

    fn is_over(&mut self, connection: ConnectionId, message: MessageId) {
        if let Some(sent) = self.sent.get_mut(&connection) {
            sent.remove(&message);
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Handler, ConnectionDenied> {
        Ok(Handler::default())
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        if let Some((peer, closed)) = self.connections.note(&event) {
            for message in self.sent.remove(&closed).unwrap_or_default() {
                self.failed(peer, message, Failure::Lost);
            }
        }
    }

    fn on_connection_handler_event(&mut self, peer: PeerId, connection: ConnectionId, told: Told) {
        let event = match told {
            Told::Received(frame) => Event::Received { from: peer, frame },
            Told::Arrived(message) => {
                self.is_over(connection, message);
                Event::Arrived { peer, message }
            }
            Told::Failed(message, failure) => {
                self.is_over(connection, message);
                Event::Failed { peer, message, failure }
            }
        };
        self.events.push_back(ToSwarm::GenerateEvent(event));
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Event, Letter>> {
        self.events.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}
