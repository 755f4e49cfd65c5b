//! What is remembered of a member with a session: its connections, what it owes an answer to, and how much
//! nonsense it sent.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use libp2p::swarm::ConnectionId;
use waystation_proto::{NodeId, wire::Message};

use super::{behaviour::DIRECT_MAX, messages::MessageId};

/// A member with at least one connection.
pub(super) struct Peer {
    pub(super) node: NodeId,
    connections: Vec<Connection>,
    /// When the first of its connections came up, and from where.
    since: Instant,
    from: Option<IpAddr>,
    /// Bytes of direct messages that were not acknowledged.
    unanswered: BTreeMap<MessageId, usize>,
    timeouts: u32,
    garbage: u32,
    garbage_since: Instant,
}

/// One connection to a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    /// Whether this node dialled.
    pub(super) is_mine: bool,
    /// Whether it leads through a third node.
    pub(super) is_relayed: bool,
}

impl Peer {
    pub(super) fn new(node: NodeId, now: Instant) -> Self {
        Peer {
            node,
            connections: Vec::new(),
            since: now,
            from: None,
            unanswered: BTreeMap::new(),
            timeouts: 0,
            garbage: 0,
            garbage_since: now,
        }
    }

    pub(super) fn connected(&mut self, connection: Connection, from: Option<IpAddr>, now: Instant) {
        if self.connections.is_empty() {
            (self.since, self.from) = (now, from);
        }
        self.connections.push(connection);
    }

    /// Whether the member, of which a new connection has just come, does not know of the session that there
    /// is: it lost its power, or its link, and this node has yet to notice. One that knows does not dial
    /// again, but for two that dial one another at once, or one that dials two of the other's addresses. One
    /// that comes from elsewhere is believed sooner: a machine that moves connects anew within seconds.
    pub(super) fn has_started_anew(&self, from: Option<IpAddr>, now: Instant) -> bool {
        let moved = from.is_some() && self.from.is_some() && from != self.from;
        let simultaneous = if moved { SIMULTANEOUS_MOVED } else { SIMULTANEOUS };
        !self.connections.is_empty() && now.duration_since(self.since) >= simultaneous
    }

    /// Takes a connection off the list. True where it was the last.
    pub(super) fn disconnected(&mut self, connection: ConnectionId) -> bool {
        self.connections.retain(|known| known.id != connection);
        self.connections.is_empty()
    }

    /// Whether the session goes on without this connection of it.
    pub(super) fn can_spare(&self, connection: ConnectionId) -> bool {
        self.connections.len() > 1 && self.connections.iter().any(|known| known.id == connection)
    }

    /// Which of two connections is one too many: one over a relay; of two that were dialled from either end, the
    /// one that the node with the larger id dialled, on which both agree; of two dialled by this node, the newer.
    pub(super) fn spare_connection(&self, me: &NodeId) -> Option<ConnectionId> {
        let [old, new] = self.connections[..] else { return None };
        if old.is_relayed != new.is_relayed {
            return Some(if old.is_relayed { old.id } else { new.id });
        }
        if old.is_mine == new.is_mine {
            return new.is_mine.then_some(new.id);
        }
        let spare_is_mine = *me > self.node;
        self.connections.iter().find(|known| known.is_mine == spare_is_mine).map(|known| known.id)
    }

    /// Whether a message of so many bytes may be sent before others have been acknowledged.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let queued: usize = self.unanswered.values().sum();
        self.unanswered.len() < DIRECT_MAX && queued + bytes <= UNANSWERED_BYTES_MAX
    }

    pub(super) fn sent(&mut self, message: MessageId, bytes: usize) {
        self.unanswered.insert(message, bytes);
    }

    pub(super) fn answered(&mut self, message: MessageId) {
        self.unanswered.remove(&message);
        self.timeouts = 0;
    }

    /// A message came to nothing. True where so many in a row timed out that the peer counts as dead.
    pub(super) fn failed(&mut self, message: MessageId, timed_out: bool) -> bool {
        self.unanswered.remove(&message);
        self.timeouts += u32::from(timed_out);
        timed_out && self.timeouts >= TIMEOUTS_MAX
    }

    /// Counts a frame that was no message. True where it is now too much.
    pub(super) fn sent_garbage(&mut self, now: Instant) -> bool {
        if now.duration_since(self.garbage_since) > GARBAGE_WINDOW {
            (self.garbage, self.garbage_since) = (0, now);
        }
        self.garbage += 1;
        self.garbage == GARBAGE_MAX + 1
    }
}

/// Bytes sent to one peer and not acknowledged.
const UNANSWERED_BYTES_MAX: usize = 8 * Message::MAX_BYTES;

/// Connections that come up within this were dialled at once.
const SIMULTANEOUS: Duration = Duration::from_secs(15);
const SIMULTANEOUS_MOVED: Duration = Duration::from_secs(2);

/// Messages in a row that a peer may leave unanswered.
const TIMEOUTS_MAX: u32 = 2;

/// Frames that are no messages, from one peer within [`GARBAGE_WINDOW`].
const GARBAGE_MAX: u32 = 20;
const GARBAGE_WINDOW: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn direct(id: ConnectionId, is_mine: bool) -> Connection {
        Connection { id, is_mine, is_relayed: false }
    }

    #[test]
    fn both_ends_give_up_the_same_connection() {
        let (small, large) = (NodeId([1; 32]), NodeId([2; 32]));
        let (first, second) = (ConnectionId::new_unchecked(1), ConnectionId::new_unchecked(2));
        let now = Instant::now();
        // `first` was dialled by the smaller id, `second` by the larger; they are seen in either order.
        for order in [[first, second], [second, first]] {
            let (mut at_small, mut at_large) = (Peer::new(large, now), Peer::new(small, now));
            for connection in order {
                at_small.connected(direct(connection, connection == first), None, now);
                at_large.connected(direct(connection, connection == second), None, now);
            }
            assert_eq!(at_small.spare_connection(&small), Some(second));
            assert_eq!(at_large.spare_connection(&large), Some(second));
            assert!(at_small.can_spare(second) && !at_small.disconnected(second));
            assert!(!at_small.can_spare(first) && at_small.disconnected(first));
        }
        let mut twice = Peer::new(large, now);
        twice.connected(direct(first, true), None, now);
        assert_eq!(twice.spare_connection(&small), None);
        twice.connected(direct(second, true), None, now);
        assert_eq!(twice.spare_connection(&small), Some(second));
        let mut relayed = Peer::new(large, now);
        relayed.connected(Connection { is_relayed: true, ..direct(first, true) }, None, now);
        relayed.connected(direct(second, true), None, now);
        assert_eq!(relayed.spare_connection(&small), Some(first));
    }

    #[test]
    fn a_connection_beside_an_old_session_is_of_a_node_that_started_anew() {
        let now = Instant::now();
        let mut peer = Peer::new(NodeId([1; 32]), now);
        assert!(!peer.has_started_anew(None, now + 2 * SIMULTANEOUS), "its first connection");
        peer.connected(direct(ConnectionId::new_unchecked(1), false), None, now + 2 * SIMULTANEOUS);
        assert!(!peer.has_started_anew(None, now + 2 * SIMULTANEOUS));
        assert!(peer.has_started_anew(None, now + 3 * SIMULTANEOUS));
        let [here, there] = [1, 2].map(|n| Some(IpAddr::from([192, 0, 2, n])));
        let mut moving = Peer::new(NodeId([1; 32]), now);
        moving.connected(direct(ConnectionId::new_unchecked(1), false), here, now);
        let later = now + SIMULTANEOUS_MOVED;
        assert!(!moving.has_started_anew(there, now) && !moving.has_started_anew(here, later));
        assert!(moving.has_started_anew(there, later));
    }

    #[test]
    fn some_garbage_is_forgiven() {
        let now = Instant::now();
        let mut peer = Peer::new(NodeId([1; 32]), now);
        let mut send = |at| (0..GARBAGE_MAX).any(|_| peer.sent_garbage(at));
        assert!(!send(now));
        assert!(!send(now + 2 * GARBAGE_WINDOW));
        assert!(send(now + 2 * GARBAGE_WINDOW));
    }
}
