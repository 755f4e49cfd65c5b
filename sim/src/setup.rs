//! What a run is made of: a network, contents, and what happens when. Scenario files, the random runs of the
//! swarm and the planner's questions all become one of these; the world and the baselines carry it out. Owns no
//! time and no randomness of its own: whoever makes a setup has drawn everything from its seed already.

use waystation_topology::{Place, Topology};

/// Nanoseconds of the world's clock since the world began.
pub type Nanos = u64;

/// A second of the world's clock.
pub const SECOND: Nanos = 1_000_000_000;
/// A millisecond of the world's clock.
pub const MILLISECOND: Nanos = 1_000_000;

/// Everything that a run depends on, but for which system it is run with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// For people, and in every measurement.
    pub name: String,
    /// What nodes draw their keys and chances from.
    pub seed: u64,
    /// Sites, nodes, lines.
    pub topology: Topology,
    /// What the file of a topology does not say.
    pub network: Network,
    /// What is published or pulled, by number.
    pub artifacts: Vec<Artifact>,
    /// A site that is a registry outside the mesh: no node runs there, and it has what is seeded there.
    pub upstream: Option<usize>,
    /// What nodes know when its time begins.
    pub start: Start,
    /// What happens, in the order of time. Whatever is asked of a node that is down is not asked.
    pub actions: Vec<(Nanos, Action)>,
    /// When the run is over, finished or not.
    pub end: Nanos,
    /// How long a bucket is over which the bytes of a line are counted.
    pub bucket: Nanos,
}

/// What nodes know when a setup's time begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Everybody knows every node, and what [`Action::Seed`] says, and has had half a minute for its sessions.
    #[default]
    Warm,
    /// Nobody knows more than where to join. All start at the same moment.
    Cold,
}

/// What links do beside carrying. Chances are in millionths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// Added to the delay of a message, at most; evenly distributed.
    pub jitter: Nanos,
    /// That a message of the control plane is lost within a site. Between sites it is each line's own loss.
    pub lan_loss: u32,
    /// That a message arrives twice.
    pub duplication: u32,
    /// That a message is held up for up to a second.
    pub reordering: u32,
    /// Bytes that may wait for a line; what comes then is dropped and counted.
    pub queue: u64,
    /// How much of a link's raw rate is content, in millionths: headers take the rest.
    pub efficiency: u32,
    /// What a disk reads or writes in a second; none is no limit.
    pub disk_rate: Option<u64>,
}

impl Default for Network {
    fn default() -> Self {
        Network {
            jitter: 0,
            lan_loss: 0,
            duplication: 0,
            reordering: 0,
            queue: 1 << 20,
            efficiency: 940_000,
            disk_rate: None,
        }
    }
}

/// An artifact: a manifest and its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Artifact {
    /// Of its repository.
    pub repository: String,
    /// Tags that are to point at it.
    pub tags: Vec<String>,
    /// In order. A layer with the same content in two artifacts is one blob.
    pub layers: Vec<Layer>,
}

/// A layer: content is what its name says, so equal names are equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Layer {
    /// Names the content.
    pub content: String,
    /// In bytes.
    pub bytes: u64,
}

impl Artifact {
    /// Bytes of all its layers.
    pub fn bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.bytes).sum()
    }
}

/// Something that happens at a time.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// An artifact is pushed at a node, whose disk has its bytes from then on.
    Publish {
        /// Which artifact.
        artifact: usize,
        /// Where.
        at: Place,
    },
    /// Before the run began the node had it, and everybody knew.
    Seed {
        /// Which artifact.
        artifact: usize,
        /// Where.
        at: Place,
    },
    /// A client asks a node for an artifact, and waits until it has it all.
    Pull {
        /// Which artifact.
        artifact: usize,
        /// Where.
        at: Place,
    },
    /// A tag is deleted at a node.
    Untag {
        /// Of which artifact: its first tag.
        artifact: usize,
        /// Where.
        at: Place,
    },
    /// A process stops and starts again.
    Crash {
        /// Which.
        at: Place,
        /// After how long; never where none.
        down: Option<Nanos>,
        /// Whether its disk is new then.
        loses_disk: bool,
        /// Whether others find out by waiting only, as when power fails.
        silent: bool,
    },
    /// A node that was not there yet starts.
    Join {
        /// Which.
        at: Place,
    },
    /// All nodes of a site lose power.
    PowerCut {
        /// Which site.
        site: usize,
        /// For how long.
        down: Nanos,
    },
    /// Nothing gets out of these sites to the others, nor back if both ways.
    Partition {
        /// Which sites are on one side.
        sites: Vec<usize>,
        /// Whether nothing comes back either.
        both: bool,
        /// For how long.
        lasts: Nanos,
    },
    /// A site's line has other rates from now on, in bits per second; 0 carries nothing.
    Line {
        /// Which site.
        site: usize,
        /// Out of it.
        up: u64,
        /// Into it.
        down: u64,
    },
    /// A node sends wrong bytes from now on.
    Lies {
        /// Which.
        at: Place,
        /// Of so many requests one: 1 is each, from its first byte on; with more it is the end that is wrong.
        every: u32,
    },
    /// A node's disk is another from now on.
    Disk {
        /// Which.
        at: Place,
        /// What it does.
        state: DiskState,
    },
    /// One of the blobs that a node holds rots.
    Rot {
        /// Which node.
        at: Place,
        /// Of which artifact: its first layer.
        artifact: usize,
    },
    /// The calendar of a node is set, by so many seconds.
    Clock {
        /// Which.
        at: Place,
        /// Forward, or back where negative.
        seconds: i64,
    },
    /// A copy of a node's disk is put aside.
    Remember {
        /// Which node.
        at: Place,
    },
    /// A node stops, and comes back with what was put aside, or nothing: what it says then is old.
    Stale {
        /// Which.
        at: Place,
        /// After how long.
        down: Nanos,
    },
}

/// How a disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    /// As it should.
    Works,
    /// It takes no more.
    Full,
    /// To make something durable takes a hundred times as long.
    Slow,
}
