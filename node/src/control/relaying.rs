//! Being reached through another member: slots at members that relay, for a node that cannot be dialled itself.
//! A relay passes on what two nodes encrypt end to end and prove to one another as on any connection, so it
//! sees that they talk and how much.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::{Duration, Instant},
};

use libp2p::{
    Multiaddr, PeerId, Swarm,
    core::{ConnectedPoint, transport::ListenerId},
    dcutr, identify,
    multiaddr::Protocol,
    relay,
    swarm::ConnectionId,
};

use super::{Reachable, address, behaviour::Behaviour};

/// Members that relay, and this node's slots there.
#[derive(Debug)]
pub(super) struct Slots {
    reachable: Reachable,
    /// Where connections lead that this node dialled: a relay can be found there again.
    dialled: BTreeMap<ConnectionId, Multiaddr>,
    relays: BTreeMap<PeerId, Relay>,
    taken: Vec<Slot>,
}

#[derive(Debug)]
struct Relay {
    at: Multiaddr,
    not_before: Instant,
}

#[derive(Debug)]
struct Slot {
    listener: ListenerId,
    relay: PeerId,
    addresses: BTreeSet<Multiaddr>,
}

impl Slots {
    pub(super) fn new(reachable: Reachable) -> Self {
        Slots { reachable, dialled: BTreeMap::new(), relays: BTreeMap::new(), taken: Vec::new() }
    }

    pub(super) fn connected(&mut self, connection: ConnectionId, endpoint: &ConnectedPoint) {
        if let ConnectedPoint::Dialer { address, .. } = endpoint
            && !endpoint.is_relayed()
        {
            self.dialled.insert(connection, address.clone());
        }
    }

    pub(super) fn disconnected(&mut self, peer: &PeerId, connection: ConnectionId) {
        if self.dialled.remove(&connection).is_some() {
            // Found again, if it is still there, when the next connection to it comes up.
            self.relays.remove(peer);
        }
    }

    /// A member said what it can do and where it sees this node; `own` is where this node listens.
    pub(super) fn identified(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        info: &identify::Info,
        own: &BTreeSet<SocketAddr>,
    ) {
        let relays = info.protocols.contains(&relay::HOP_PROTOCOL_NAME);
        let is_needed = match self.reachable {
            Reachable::Yes => false,
            Reachable::No => true,
            Reachable::Auto => is_translated(&info.observed_addr, own),
        };
        if let Some(at) = self.dialled.get(&connection).filter(|_| relays && is_needed) {
            let relay = Relay { at: at.clone(), not_before: Instant::now() };
            self.relays.insert(peer, relay);
        }
    }

    /// Asks for slots where there are too few.
    pub(super) fn fill(&mut self, swarm: &mut Swarm<Behaviour>, now: Instant) {
        for (peer, relay) in &mut self.relays {
            let is_full = self.taken.len() >= SLOTS;
            if is_full || relay.not_before > now || self.taken.iter().any(|slot| slot.relay == *peer) {
                continue;
            }
            relay.not_before = now + RETRY;
            // The address may name the peer already.
            let socket = relay.at.iter().take_while(|part| !matches!(part, Protocol::P2p(_)));
            let address = socket.collect::<Multiaddr>().with(Protocol::P2p(*peer)).with(Protocol::P2pCircuit);
            match swarm.listen_on(address) {
                Ok(listener) => {
                    self.taken.push(Slot { listener, relay: *peer, addresses: BTreeSet::new() });
                }
                Err(error) => tracing::debug!(%peer, %error, "a relay cannot be asked for a slot"),
            }
        }
    }

    /// An address that leads here through a relay. False: it is none of a slot.
    pub(super) fn gain(&mut self, listener: ListenerId, address: &Multiaddr) -> bool {
        let Some(slot) = self.taken.iter_mut().find(|slot| slot.listener == listener) else { return false };
        if slot.addresses.is_empty() {
            tracing::info!(relay = %slot.relay, "this node can be reached through a relay");
        }
        if slot.addresses.len() < ADDRESSES_MAX {
            slot.addresses.insert(address.clone());
        }
        true
    }

    /// A slot is lost. False: it was none.
    pub(super) fn closed(&mut self, listener: ListenerId) -> bool {
        let before = self.taken.len();
        self.taken.retain(|slot| slot.listener != listener);
        self.taken.len() < before
    }

    /// Addresses to tell others, as long as the slots are there; one that leads outside first.
    pub(super) fn addresses(&self) -> Vec<String> {
        let mut told = Vec::new();
        for slot in &self.taken {
            let is_inside = |address: &&Multiaddr| {
                address::to_socket_before_circuit(address).is_some_and(|socket| socket.ip().is_loopback())
            };
            let best = slot.addresses.iter().min_by_key(is_inside);
            // Whoever dials knows whom.
            told.extend(best.map(|address| {
                let parts: Vec<_> = address.iter().collect();
                let end = parts.iter().position(|part| *part == Protocol::P2pCircuit);
                parts
                    .into_iter()
                    .take(end.map_or(usize::MAX, |end| end + 1))
                    .collect::<Multiaddr>()
                    .to_string()
            }));
        }
        told
    }
}

/// Two nodes that met over a relay tried to reach one another without it. The straight connection is preferred from
/// now on, and the one over the relay ends as one too many.
pub(super) fn punched(event: &dcutr::Event) {
    let peer = event.remote_peer_id;
    match &event.result {
        Ok(_) => tracing::info!(%peer, "a member met over a relay is reached without it"),
        Err(error) => tracing::debug!(%peer, %error, "a member met over a relay is reached over it only"),
    }
}

/// Whether something between here and the other side translates addresses. A node that listens on loopback alone
/// is meant to be alone.
fn is_translated(seen: &Multiaddr, own: &BTreeSet<SocketAddr>) -> bool {
    let seen = address::to_socket(seen).map(|socket| socket.ip());
    let is_open = own.iter().any(|socket| !socket.ip().is_loopback());
    is_open && seen.is_some_and(|seen| own.iter().all(|socket| socket.ip() != seen))
}

/// Slots that a node has: one more than needed, so that a relay may go.
const SLOTS: usize = 2;

/// Addresses of one slot that are looked at.
const ADDRESSES_MAX: usize = 8;

/// How long a relay is left alone that gave no slot, or took it back.
const RETRY: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_ours_is_a_translated_one() {
        let own = |sockets: &[&str]| -> BTreeSet<SocketAddr> {
            sockets.iter().map(|socket| socket.parse().expect("valid")).collect()
        };
        let seen = |text: &str| -> Multiaddr { text.parse().expect("valid") };
        let home = own(&["127.0.0.1:4717", "10.0.0.2:4717"]);
        assert!(is_translated(&seen("/ip4/192.0.2.1/tcp/55555"), &home));
        assert!(!is_translated(&seen("/ip4/10.0.0.2/tcp/55555"), &home));
        assert!(!is_translated(&seen("/ip4/192.0.2.1/tcp/55555"), &own(&["127.0.0.1:4717"])));
    }
}
