//! The numbers of the gossip model. The rules are the node's own configuration, the rest was measured on real
//! nodes; `sim/fit/gossip.toml` has both and says how to measure again. How they are used is the router's.

use serde::{Deserialize, Serialize};

use crate::setup::{MILLISECOND, Nanos};

/// All that the model depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Params {
    /// What gossipsub is told, and what it does by itself.
    pub rules: Rules,
    /// What its frames cost.
    pub wire: Wire,
    /// How long a node takes.
    pub work: Work,
}

/// The configuration of gossipsub, by its own names where it has one. Read from what the node builds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Rules {
    /// Neighbours in the mesh that a node aims at (D).
    pub mesh: usize,
    /// With fewer it asks for more (D low).
    pub mesh_low: usize,
    /// With so many it lets go of all beyond D (D high).
    pub mesh_high: usize,
    /// Of them, those that it dialled itself (D out).
    pub mesh_outbound: usize,
    /// Sessions outside the mesh that are told each heartbeat what there is, at least (D lazy).
    pub lazy: usize,
    /// The same as a share of those sessions, in thousandths; the larger counts.
    pub lazy_permille: usize,
    /// Between two heartbeats.
    pub heartbeat_ms: u64,
    /// Before the first.
    pub first_heartbeat_ms: u64,
    /// Heartbeats for which a message can be asked for.
    pub history: usize,
    /// Heartbeats for which it is told of.
    pub history_gossip: usize,
    /// How long a message is known for one that was seen.
    pub seen_ms: u64,
    /// How long the two ends of a session do not ask one another again after one let go.
    pub backoff_ms: u64,
    /// Heartbeats that are added to that by whoever asks.
    pub backoff_slack: u64,
    /// Whether an author sends to all its sessions, or to its mesh only.
    pub flood_publish: bool,
    /// Whoever receives a message with a payload of more bytes tells its mesh not to send it.
    pub unwanted_above: u64,
    /// How often one peer is sent a message that it asks for.
    pub retransmissions: u32,
}

/// Sizes in bytes, of frames with their length and without what is below: yamux, noise, TCP.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Wire {
    /// A message, beside its payload: author, number, topic, key, signature.
    pub publish: u64,
    /// That there is something: without the names.
    pub have: u64,
    /// A request: without the names.
    pub want: u64,
    /// That something is there already: without the names.
    pub unwanted: u64,
    /// The name of a message, in any of these.
    pub name: u64,
    /// Into the mesh.
    pub graft: u64,
    /// Out of the mesh.
    pub prune: u64,
    /// What each end says first over a session.
    pub hello: u64,
    /// Of yamux and noise, around each frame.
    pub below: u64,
    /// Of them for long frames, in millionths of their bytes.
    pub below_ppm: u64,
}

/// How long things take beside the delay of a link: of all that were measured, the fastest tenth, because the
/// others waited for a machine that all nodes shared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Work {
    /// From the last byte of a message at a node until it begins to send copies, in microseconds.
    pub pass_us: u64,
    /// From then until the last byte is there, in microseconds. It and the next are what the process that was
    /// measured took to encrypt, carry and check: a network with rates of its own leaves them out.
    pub carry_us: u64,
    /// In addition for each 1,000 bytes, in nanoseconds.
    pub carry_kilobyte_ns: u64,
}

impl Rules {
    /// Between two heartbeats.
    pub fn heartbeat(&self) -> Nanos {
        self.heartbeat_ms * MILLISECOND
    }
}

impl Wire {
    /// Bytes of a frame with all that is below it but TCP.
    pub fn on_the_wire(&self, frame: u64) -> u64 {
        frame + self.below + frame * self.below_ppm / 1_000_000
    }
}

impl Work {
    /// From a message until its copies.
    pub fn pass(&self) -> Nanos {
        self.pass_us * 1000
    }

    /// What it takes to carry a payload of so many bytes, beside the delay of the link.
    pub fn carry(&self, bytes: u64) -> Nanos {
        self.carry_us * 1000 + bytes * self.carry_kilobyte_ns / 1000
    }
}
