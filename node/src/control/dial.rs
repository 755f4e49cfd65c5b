//! Dials under way: a target's names are resolved, its sockets tried, and exactly one answer comes of it.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Duration,
};

use libp2p::{
    Multiaddr,
    swarm::{
        ConnectionId,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use tokio::task::JoinSet;
use waystation_proto::DialTarget;

use super::address;
use crate::identity;

/// All dials that have not been answered.
#[derive(Default)]
pub(crate) struct Dials {
    resolving: JoinSet<Result<Dial, Failed>>,
    connecting: BTreeMap<ConnectionId, Dial>,
    waiting: JoinSet<ConnectionId>,
}

/// One target, as far as it has been tried.
pub(crate) struct Dial {
    target: DialTarget,
    /// What each socket was called in the target.
    names: Vec<(SocketAddr, String)>,
    /// Sockets not tried yet. All are tried at once where the node is known.
    rest: VecDeque<SocketAddr>,
    /// Ways through relays, for when no socket answers soon.
    relayed: Vec<Multiaddr>,
}

/// A dial that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) target: DialTarget,
    pub(crate) why: String,
}

impl Dials {
    /// Starts on a target.
    pub(crate) fn start(&mut self, target: DialTarget) -> Result<(), Failed> {
        if self.resolving.len() + self.connecting.len() >= DIALS_MAX {
            return Err(Failed { target, why: format!("{DIALS_MAX} dials are under way already") });
        }
        self.resolving.spawn(resolve(target));
        Ok(())
    }

    /// The next dial to go on with: its names are resolved, or its sockets did not answer soon and there are
    /// relays to try. Pending for ever where there is none.
    pub(crate) async fn next(&mut self) -> Result<Dial, Failed> {
        loop {
            tokio::select! {
                Some(resolved) = self.resolving.join_next() => match resolved {
                    Ok(dial) => return dial,
                    Err(error) => tracing::error!(%error, "resolving an address failed"),
                },
                // What was begun may still succeed, as a second connection.
                Some(waited) = self.waiting.join_next() => match waited {
                    Ok(connection) => {
                        if let Some(dial) = self.connecting.remove(&connection) {
                            return Ok(dial);
                        }
                    }
                    Err(error) => tracing::error!(%error, "waiting for a dial failed"),
                },
                else => std::future::pending().await,
            }
        }
    }

    /// Remembers what was asked of libp2p.
    pub(crate) fn connecting(&mut self, connection: ConnectionId, dial: Dial) {
        if !dial.relayed.is_empty() {
            self.waiting.spawn(async move {
                tokio::time::sleep(DIRECT_ALONE).await;
                connection
            });
        }
        self.connecting.insert(connection, dial);
    }

    /// The dial that this connection came of, or failed to come of.
    pub(crate) fn take(&mut self, connection: ConnectionId) -> Option<Dial> {
        self.connecting.remove(&connection)
    }
}

impl Dial {
    /// What to ask of libp2p next; nothing once every socket was tried.
    pub(crate) fn next(&mut self) -> Option<DialOpts> {
        match &self.target {
            DialTarget::Address(_) => {
                let socket = self.rest.pop_front()?;
                let address = address::to_multiaddr(socket);
                // A reused port can meet the peer's own dial in the middle, and both would be dialler.
                Some(DialOpts::unknown_peer_id().address(address).allocate_new_port().build())
            }
            DialTarget::Node(node, _) => {
                let peer = identity::peer_id(node)?;
                let dial = DialOpts::peer_id(peer);
                if !self.rest.is_empty() {
                    let addresses = self.rest.drain(..).map(address::to_multiaddr).collect();
                    return Some(dial.addresses(addresses).allocate_new_port().build());
                }
                let relayed = std::mem::take(&mut self.relayed);
                // Sockets may still be tried at the same time.
                let dial = dial.condition(PeerCondition::Disconnected).addresses(relayed.clone());
                (!relayed.is_empty()).then(|| dial.build())
            }
        }
    }

    /// What the target called the address that answered.
    pub(crate) fn name_of(&self, address: &Multiaddr) -> String {
        let socket = address::to_socket(address);
        let named = self.names.iter().find(|(known, _)| Some(*known) == socket);
        named.map_or_else(|| address::text(address), |(_, name)| name.clone())
    }

    /// The answer.
    pub(crate) fn failed(self, why: String) -> Failed {
        Failed { target: self.target, why }
    }
}

async fn resolve(target: DialTarget) -> Result<Dial, Failed> {
    let addresses = match &target {
        DialTarget::Address(address) => std::slice::from_ref(address),
        DialTarget::Node(_, addresses) => addresses,
    };
    let (mut names, mut relayed) = (Vec::new(), Vec::new());
    let mut why = "it has no address".to_owned();
    for name in addresses.iter().take(ADDRESSES_MAX) {
        if address::is_relayed(name) {
            match address::resolve_relayed(name).await {
                Ok(found) => relayed.extend(found),
                Err(error) => why = format!("{name}: {error}"),
            }
            continue;
        }
        match address::resolve(name).await {
            Ok(sockets) => names.extend(sockets.into_iter().map(|socket| (socket, name.clone()))),
            Err(error) => why = format!("{name}: {error}"),
        }
    }
    relayed.truncate(ADDRESSES_MAX);
    if names.is_empty() && relayed.is_empty() {
        return Err(Failed { target, why });
    }
    let rest = names.iter().map(|(socket, _)| *socket).collect();
    Ok(Dial { target, names, rest, relayed })
}

/// How long sockets alone are tried before relays are, too.
const DIRECT_ALONE: Duration = Duration::from_secs(2);

/// Dials at a time.
const DIALS_MAX: usize = 64;

/// Addresses of one target that are tried.
const ADDRESSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use waystation_proto::NodeId;

    use super::*;

    #[tokio::test]
    async fn a_name_is_tried_socket_by_socket_and_a_node_at_once() {
        let mut dials = Dials::default();
        dials.start(DialTarget::Address("127.0.0.1:1".into())).expect("started");
        let mut dial = dials.next().await.unwrap_or_else(|failed| panic!("{failed:?}"));
        assert!(dial.next().is_some());
        assert!(dial.next().is_none());
        assert_eq!(dial.name_of(&"/ip4/127.0.0.1/tcp/1".parse().expect("valid")), "127.0.0.1:1");

        let node = NodeId(ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes());
        let addresses = vec!["127.0.0.1:1".into(), "nonsense".into(), "127.0.0.1:2".into()];
        dials.start(DialTarget::Node(node, addresses)).expect("started");
        let mut dial = dials.next().await.unwrap_or_else(|failed| panic!("{failed:?}"));
        assert!(dial.next().is_some());
        assert!(dial.next().is_none());
    }

    #[tokio::test]
    async fn what_cannot_be_dialled_fails_and_dials_are_bounded() {
        let mut dials = Dials::default();
        let target = DialTarget::Address("nonsense".into());
        dials.start(target.clone()).expect("started");
        assert_eq!(dials.next().await.err().map(|failed| failed.target), Some(target.clone()));
        for _ in 0..DIALS_MAX {
            dials.start(target.clone()).expect("started");
        }
        assert!(dials.start(target).is_err());
    }
}
