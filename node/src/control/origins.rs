//! Which of this machine's addresses each connection uses. A connection whose address the machine has lost is
//! dead, and neither end would notice for a long time.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use libp2p::{core::ConnectedPoint, swarm::ConnectionId};

use super::address;

/// Own addresses of connections, and those that were lost.
#[derive(Debug, Default)]
pub(super) struct Origins {
    used: BTreeMap<ConnectionId, IpAddr>,
    lost: BTreeSet<IpAddr>,
}

impl Origins {
    pub(super) fn connected(&mut self, connection: ConnectionId, endpoint: &ConnectedPoint) {
        let ip_of = |address| address::to_socket(address).map(|socket| socket.ip());
        // What is relayed ends with the connection to the relay.
        let own = match endpoint {
            _ if endpoint.is_relayed() => None,
            ConnectedPoint::Dialer { address, .. } => ip_of(address).and_then(address::own_towards),
            ConnectedPoint::Listener { local_addr, .. } => ip_of(local_addr),
        };
        self.used.extend(own.map(|own| (connection, own)));
    }

    pub(super) fn disconnected(&mut self, connection: ConnectionId) {
        self.used.remove(&connection);
    }

    /// The machine has lost an address. It may come back at once.
    pub(super) fn lose(&mut self, address: IpAddr) {
        self.lost.insert(address);
    }

    /// The machine has an address.
    pub(super) fn gain(&mut self, address: IpAddr) {
        self.lost.remove(&address);
    }

    /// Connections that are dead, now that nothing has changed for a while.
    pub(super) fn dead(&mut self) -> Vec<ConnectionId> {
        let lost = std::mem::take(&mut self.lost);
        let dead = self.used.iter().filter(|(_, own)| lost.contains(own));
        dead.map(|(connection, _)| *connection).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_of_a_lost_address_are_dead_unless_it_came_back() {
        let accepted = |local: &str| ConnectedPoint::Listener {
            local_addr: local.parse().expect("valid"),
            send_back_addr: "/ip4/192.0.2.9/tcp/9".parse().expect("valid"),
        };
        let [first, second, relayed] = [1, 2, 3].map(ConnectionId::new_unchecked);
        let mut origins = Origins::default();
        origins.connected(first, &accepted("/ip4/192.0.2.1/tcp/4717"));
        origins.connected(second, &accepted("/ip4/192.0.2.2/tcp/4717"));
        origins.connected(relayed, &accepted("/ip4/192.0.2.1/tcp/1/p2p-circuit"));
        let address = |n| IpAddr::from([192, 0, 2, n]);
        origins.lose(address(1));
        origins.lose(address(2));
        origins.gain(address(2));
        assert_eq!(origins.dead(), [first]);
        assert!(origins.dead().is_empty(), "it is said once");
        origins.disconnected(second);
        origins.lose(address(2));
        assert!(origins.dead().is_empty());
    }
}
