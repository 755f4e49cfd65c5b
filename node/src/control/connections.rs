//! The connections to each peer as a protocol's behaviour hears of them, and which of them it takes.

use std::collections::BTreeMap;

use libp2p::{
    PeerId,
    swarm::{
        ConnectionId, FromSwarm,
        behaviour::{ConnectionClosed, ConnectionEstablished},
    },
};

/// By peer; whether over a relay; oldest first.
#[derive(Debug, Default)]
pub(super) struct Connections(BTreeMap<PeerId, Vec<(ConnectionId, bool)>>);

impl Connections {
    /// To be told everything that the swarm says. Returns the connection that is closed, if one is.
    pub(super) fn note(&mut self, event: &FromSwarm<'_>) -> Option<(PeerId, ConnectionId)> {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                endpoint,
                ..
            }) => {
                self.0.entry(*peer_id).or_default().push((*connection_id, endpoint.is_relayed()));
                None
            }
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                if let Some(connections) = self.0.get_mut(peer_id) {
                    connections.retain(|(connection, _)| connection != connection_id);
                    if connections.is_empty() {
                        self.0.remove(peer_id);
                    }
                }
                Some((*peer_id, *connection_id))
            }
            _ => None,
        }
    }

    /// Straight ones before those over a relay.
    pub(super) fn best(&self, peer: &PeerId) -> Option<ConnectionId> {
        let connections = self.0.get(peer)?;
        connections.iter().min_by_key(|(_, relayed)| *relayed).map(|(connection, _)| *connection)
    }
}
