//! How libp2p is set up: transport, the protocols spoken, and every limit, each with its reason.

use std::{num::NonZeroU8, time::Duration};

use libp2p::{
    Swarm, SwarmBuilder,
    connection_limits::{self, ConnectionLimits},
    dcutr, gossipsub, identify, mdns, noise, ping, relay,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};
use waystation_proto::wire::Message;

use super::{ControlConfig, ControlError, dial_back, messages, streams};
use crate::{identity::Identity, mesh::AdmissionSecret};

/// The protocols that a node speaks on the control plane.
#[derive(NetworkBehaviour)]
pub(crate) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(crate) gossip: gossipsub::Behaviour,
    pub(crate) direct: messages::Behaviour,
    pub(crate) identify: identify::Behaviour,
    mdns: Toggle<mdns::tokio::Behaviour>,
    ping: ping::Behaviour,
    streams: streams::Behaviour,
    relay: Toggle<relay::Behaviour>,
    relayed: relay::client::Behaviour,
    punch: dcutr::Behaviour,
    pub(crate) dial_back: dial_back::Exchange,
}

/// Builds the swarm. The admission secret goes into the noise prologue: a peer without it fails the
/// handshake, before it learns or costs anything.
pub(crate) fn swarm(
    identity: &Identity,
    admission: &AdmissionSecret,
    config: &ControlConfig,
    streams: streams::Behaviour,
) -> Result<Swarm<Behaviour>, ControlError> {
    let prologue = admission.derive("control plane").to_vec();
    // Also between the two ends of what a third member relays.
    let secure = |keys: &libp2p::identity::Keypair| {
        noise::Config::new(keys).map(|noise| noise.with_prologue(prologue.clone()))
    };
    let swarm = SwarmBuilder::with_existing_identity(identity.keypair())
        .with_tokio()
        .with_tcp(tcp::Config::new().nodelay(true), secure, yamux::Config::default)
        .map_err(setup)?
        .with_relay_client(secure, yamux::Config::default)
        .map_err(setup)?
        .with_behaviour(|keys, relayed| behaviour(keys, config, streams, relayed))
        .map_err(setup)?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(NEVER)
                .with_dial_concurrency_factor(NonZeroU8::new(4).expect("is not 0"))
                .with_max_negotiating_inbound_streams(128)
        })
        .with_connection_timeout(HANDSHAKE_TIMEOUT)
        .build();
    Ok(swarm)
}

/// Gossip as each node has it, subscribed to its one topic. Public so that how it spreads can be measured.
///
/// # Errors
/// If libp2p does not take the configuration.
pub fn gossip(
    keys: &libp2p::identity::Keypair,
) -> Result<gossipsub::Behaviour, Box<dyn std::error::Error + Send + Sync>> {
    let author = gossipsub::MessageAuthenticity::Signed(keys.clone());
    let mut gossip = gossipsub::Behaviour::new(author, gossip_config()?)?;
    gossip.subscribe(&topic())?;
    Ok(gossip)
}

/// The one topic: signed records.
pub fn topic() -> gossipsub::IdentTopic {
    gossipsub::IdentTopic::new("waystation/records/1")
}

/// Connections to one peer: each side may have dialled.
pub(crate) const PER_PEER_MAX: u32 = 2;

/// Unanswered direct messages to one peer at a time.
pub(crate) const DIRECT_MAX: usize = 48;

fn behaviour(
    keys: &libp2p::identity::Keypair,
    config: &ControlConfig,
    streams: streams::Behaviour,
    relayed: relay::client::Behaviour,
) -> Result<Behaviour, Box<dyn std::error::Error + Send + Sync>> {
    let identify = identify::Config::new("waystation/1".into(), keys.public())
        .with_agent_version(concat!("waystation/", env!("CARGO_PKG_VERSION")).into())
        .with_interval(NEVER)
        .with_cache_size(0);
    let mdns = if config.mdns {
        Some(mdns::tokio::Behaviour::new(mdns::Config::default(), keys.public().to_peer_id())?)
    } else {
        None
    };
    let limits = ConnectionLimits::default()
        .with_max_established_per_peer(Some(PER_PEER_MAX))
        .with_max_established_incoming(Some(256))
        .with_max_pending_incoming(Some(64))
        .with_max_pending_outgoing(Some(64));
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(limits),
        gossip: gossip(keys)?,
        direct: messages::Behaviour::default(),
        identify: identify::Behaviour::new(identify),
        mdns: mdns.into(),
        ping: ping::Behaviour::new(
            ping::Config::new().with_interval(PING_INTERVAL).with_timeout(PING_TIMEOUT),
        ),
        streams,
        relay: config.relay.then(|| relay::Behaviour::new(keys.public().to_peer_id(), relay_config())).into(),
        relayed,
        punch: dcutr::Behaviour::new(keys.public().to_peer_id()),
        dial_back: dial_back::exchange(),
    })
}

/// Only members get as far as to ask, and what they relay is what this mesh is for: neither bytes nor time are
/// limited, numbers are. A slot is given back with its connection; there is nothing to renew, and clocks that
/// are wrong do not matter.
fn relay_config() -> relay::Config {
    relay::Config {
        max_reservations: 1024,
        max_reservations_per_peer: 2,
        reservation_duration: A_CENTURY,
        reservation_rate_limiters: Vec::new(),
        max_circuits: 1024,
        max_circuits_per_peer: 64,
        max_circuit_duration: A_CENTURY,
        // Unlimited.
        max_circuit_bytes: 0,
        circuit_src_rate_limiters: Vec::new(),
    }
}

/// What differs from libp2p's defaults.
///
/// # Errors
/// If libp2p does not take it.
pub fn gossip_config() -> Result<gossipsub::Config, gossipsub::ConfigBuilderError> {
    gossipsub::ConfigBuilder::default()
        .validation_mode(gossipsub::ValidationMode::Strict)
        // Nothing is forwarded that does not decode.
        .validate_messages()
        // One announcement that comes from two nodes is one.
        .message_id_fn(|message| blake3::hash(&message.data).as_bytes()[..20].to_vec().into())
        .max_transmit_size(Message::MAX_ANNOUNCE_BYTES + SIGNED_FRAME_EXTRA)
        .flood_publish(true)
        .mesh_n_low(MESH_LOW)
        .mesh_n(MESH)
        .mesh_n_high(MESH_HIGH)
        .heartbeat_initial_delay(Duration::from_secs(1))
        .build()
}

fn setup(error: impl std::fmt::Display) -> ControlError {
    ControlError::Setup(error.to_string())
}

/// Sessions end when a side ends them or nothing is answered, never for being quiet. (A finite number, because
/// it is added to a clock.)
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The longest that a relay may be told to keep something (32 bits of seconds), about.
const A_CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// TCP, noise and yamux to a peer must be up within this.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(8);

/// That a member is there is seen by what it says, and it is asked where it says nothing for long (`proto`'s presence);
/// messages that nobody answers end a session too. Pings are for second connections of a session, which carry nothing.
/// One costs 580 bytes with all that is around it, and both ends send them: see the test of what an idle site costs.
const PING_INTERVAL: Duration = Duration::from_secs(6 * 3600);

/// For the answer to a ping, which may stand behind a queue on a thin link.
const PING_TIMEOUT: Duration = Duration::from_secs(60);

/// Members to which an announcement is passed on at once: about all with a session. Of libp2p's six most would be of the
/// same site, which is told by one of them anyway, and what the few sessions with other sites do not pass on is asked for
/// a second later. With 10,000 nodes on 1,000 sites 99 % have heard of something after 0.24 s instead of 1.4 s, for up
/// to twice the bytes between sites.
const MESH: usize = 16;
const MESH_LOW: usize = 12;
const MESH_HIGH: usize = 24;

/// Author, sequence number, key and signature around a gossiped message.
const SIGNED_FRAME_EXTRA: usize = 1024;

#[cfg(test)]
mod tests {
    use waystation_proto::ReplicaConfig;

    use super::*;

    /// Frames on the line of the testbed, Ethernet headers included, in both directions.
    const PING_BYTES: u64 = 580;
    const PROBE_BYTES: u64 = 700;
    const ROUND_BYTES: u64 = 1056;
    /// The most that the testbed found at a site that is meant to have eight: one end may need what the other has too
    /// many of.
    const SESSIONS: u64 = 11;

    #[test]
    fn an_idle_site_costs_less_than_20_mb_a_month() {
        let config = ReplicaConfig::default();
        assert!(config.far_sessions as u64 <= SESSIONS);
        let month = 30 * 24 * 3600;
        let pings = 2 * month / PING_INTERVAL.as_secs() * PING_BYTES;
        let (interval, quiet) = (config.far_reconcile_interval.0, waystation_proto::presence::QUIET.0);
        // Rounds are from half to one and a half of their interval apart: for so much of the time none comes first.
        let probes = month * 1000 / interval * (interval * 3 / 2 - quiet) / interval * PROBE_BYTES;
        // One end starts rounds; the other does so four times as seldom.
        let rounds = month * 1000 / interval * ROUND_BYTES * 5 / 4;
        let site = SESSIONS * (pings + probes + rounds);
        assert!(site < 20_000_000, "{site} bytes a month");
    }
}
