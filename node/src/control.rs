//! The control plane: sessions with members over libp2p, direct messages and gossip. Knows peers, messages
//! and bytes, and decides nothing: whom to dial, what to send and what a message means is the protocol's.
//! A node of another mesh fails the handshake. Messages may be lost; that a session came up or ended is
//! always told.

mod address;
mod behaviour;
mod connections;
mod counters;
mod dial;
mod dial_back;
mod failure;
mod messages;
mod origins;
mod peer;
mod refusals;
mod relaying;
mod streams;
mod swarm;

use std::{
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::{CancellationToken, DropGuard};
use waystation_proto::{DialTarget, NodeId, Shared, wire::Message};

pub(crate) use self::{
    address::{is_relayed, resolve},
    dial_back::answers_as,
    refusals::{CAME_UNPROVEN, DIALLED_UNPROVEN, Refusals},
};
pub use self::{
    behaviour::{gossip, gossip_config, topic},
    counters::{ControlCounters, Tally, Traffic},
    dial_back::{DialBacks, Dialler},
    streams::{Incoming, NoStream, Streams},
};
use self::{counters::Counting, swarm::Session};
use crate::{identity::Identity, mesh::MeshFile};

/// Where and how to be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlConfig {
    /// TCP address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Whether to find, and be found by, nodes of the local network.
    pub mdns: bool,
    /// Whether other members may be reached through this node.
    pub relay: bool,
    /// Whether this node can be dialled.
    pub reachable: Reachable,
    /// `host:port` that leads here, where it is not where this node listens.
    pub advertise: Vec<String>,
}

/// Whether members of other sites can dial a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Reachable {
    /// No, where a relay sees it at an address that is not its own.
    #[default]
    Auto,
    /// Yes: relays are not used.
    Yes,
    /// No: relays are used wherever members relay.
    No,
}

impl ControlConfig {
    /// A node that is no relay and finds out whether it needs one.
    pub fn new(listen: SocketAddr, mdns: bool) -> Self {
        ControlConfig { listen, mdns, relay: false, reachable: Reachable::Auto, advertise: Vec::new() }
    }
}

/// What happened between this node and others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// The first session with a member came up, or this node dialled one that has a session already.
    Up {
        /// Who.
        peer: NodeId,
        /// The address this node dialled, as the target called it, if it was the one to dial.
        dialled: Option<String>,
    },
    /// The last session with a member ended.
    Down {
        /// Who.
        peer: NodeId,
    },
    /// A member said something, to this node or by gossip.
    Message {
        /// Who handed it over: authenticated. Of gossip, not necessarily who wrote it.
        from: NodeId,
        /// What.
        message: Message,
    },
    /// A member sent what is no message.
    Garbage {
        /// Who.
        from: NodeId,
        /// What is wrong with it.
        why: String,
    },
    /// The local network told of a node.
    Discovered {
        /// `host:port`.
        address: String,
    },
    /// A dial came to nothing.
    DialFailed {
        /// What was dialled.
        target: DialTarget,
        /// Why.
        why: String,
    },
    /// A connection ended in the handshake: one side did not prove the admission secret, the one that came
    /// did not finish it, or this node has as many as it takes.
    Refused {
        /// Of the other side, `host:port`.
        address: String,
        /// Why.
        why: String,
    },
    /// Where this node can be found now. Loopback is left out where there is anything else.
    Listening {
        /// All that it listens on, `host:port`.
        addresses: Vec<String>,
        /// All that lead to it through relays, as multiaddrs.
        relayed: Vec<String>,
    },
    /// A member does not take or answer messages in time; some were dropped.
    PeerSlow {
        /// Who.
        peer: NodeId,
    },
}

/// Why the control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The address could not be listened on.
    #[error("cannot listen on {address} (TCP): {why}; stop what uses it, or choose another address")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// libp2p could not be set up.
    #[error("cannot set up the control plane: {0}")]
    Setup(String),
}

/// The running control plane. Dropping it ends all sessions.
#[derive(Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    local_addr: SocketAddr,
    dial_backs: DialBacks,
    counting: Counting,
    /// Until the data plane has taken them.
    streams: Option<(Streams, Incoming)>,
    task: JoinHandle<()>,
    stop: DropGuard,
}

/// What the task is asked to do.
#[derive(Debug)]
enum Command {
    Send(NodeId, Message),
    Announce(Vec<Shared>),
    Dial(DialTarget),
    HangUp(NodeId),
    AskDialBack(dial_back::Question),
}

impl Control {
    /// Listens and starts to work. Events must be taken out: while their queue is full, nothing is read
    /// from peers.
    pub async fn start(
        config: ControlConfig,
        identity: &Identity,
        mesh: &MeshFile,
        events: mpsc::Sender<ControlEvent>,
    ) -> Result<Control, ControlError> {
        let (commands, queue) = mpsc::channel(COMMANDS_MAX);
        let counting = Counting::default();
        let stop = CancellationToken::new();
        let (behaviour, streams, incoming) = streams::streams();
        let swarm = behaviour::swarm(identity, mesh.admission(), &config, behaviour)?;
        let dialler = Arc::new(OnceLock::new());
        let dial_backs = DialBacks::new(commands.clone(), dialler.clone());
        let mut session = Session::new(
            swarm,
            identity.node_id(),
            (mesh.trust(), &config),
            events,
            counting.clone(),
            dial_back::Pending::new(dialler),
        );
        let local_addr = session.listen(config.listen).await?;
        let task = tokio::spawn(session.run(queue, stop.clone()));
        let stop = stop.drop_guard();
        let streams = Some((streams, incoming));
        Ok(Control { commands, local_addr, dial_backs, counting, streams, task, stop })
    }

    /// Byte streams to and from members with a session, for whoever asks first.
    pub fn take_streams(&mut self) -> Option<(Streams, Incoming)> {
        self.streams.take()
    }

    /// Asks members to dial this node, and answers those that ask.
    pub fn dial_backs(&self) -> DialBacks {
        self.dial_backs.clone()
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Sends to a member with a session. False: dropped, the queue is full. True does not mean that it
    /// arrives.
    pub fn send(&self, to: NodeId, message: Message) -> bool {
        self.command(Command::Send(to, message))
    }

    /// Gossips records, at most [`Message::MAX_ANNOUNCE_BYTES`] of them encoded. False: dropped.
    pub fn announce(&self, records: Vec<Shared>) -> bool {
        self.command(Command::Announce(records))
    }

    /// Opens a session. Answered by one [`ControlEvent::Up`] or [`ControlEvent::DialFailed`]. False: dropped,
    /// no answer comes.
    pub fn dial(&self, target: DialTarget) -> bool {
        self.command(Command::Dial(target))
    }

    /// Ends all sessions with a member. Answered by [`ControlEvent::Down`] if there is one. False: dropped.
    pub fn hang_up(&self, peer: NodeId) -> bool {
        self.command(Command::HangUp(peer))
    }

    /// What was counted since the start.
    pub fn counters(&self) -> ControlCounters {
        self.counting.now()
    }

    /// Ends all sessions and the task.
    pub async fn shutdown(self) {
        drop(self.stop);
        let mut task = self.task;
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, &mut task).await.is_err() {
            task.abort();
        }
    }

    fn command(&self, command: Command) -> bool {
        let taken = self.commands.try_send(command).is_ok();
        if !taken {
            self.counting.dropped();
        }
        taken
    }
}

/// Commands that wait for the task. A message is at most 1 MiB, most are a few hundred bytes.
const COMMANDS_MAX: usize = 1024;

/// The task only has to notice.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
