//! Why a pull goes as it goes: what would be fetched from where, why that one, and what stands in the way; of what
//! is here already, where each byte came from and where the time went. Looks only: nothing is fetched, and no
//! upstream is asked. Owns the answer's form; [`walk`] goes through an artifact, [`candidates`] says who could
//! send, [`journal`] remembers what happened.

mod candidates;
pub mod journal;
mod sum;
mod walk;

use std::{collections::BTreeSet, sync::Arc};

use serde::{Deserialize, Serialize};
use waystation_proto::NodeId;

pub use self::{
    journal::{Journal, Place, Source, Story, Trouble},
    walk::explain,
};
use crate::{doctor::Reached, events::Events, reach::Asking};

/// What a node knows about its own doing, for explanations and for those who watch.
#[derive(Clone)]
pub struct Insight {
    /// What happens.
    pub events: Events,
    /// Where blobs came from.
    pub journal: Journal,
    /// What clients call the mesh.
    pub names: Vec<String>,
    /// What may stand in the way of a fetch, beside what is known of holders.
    pub blockers: Vec<Arc<dyn Blocker>>,
    /// Who connected to the control plane.
    pub reached: Reached,
    /// Who connected to the data plane.
    pub came: Arc<dyn Fn() -> BTreeSet<NodeId> + Send + Sync>,
    /// Has members dial this node.
    pub asking: Asking,
}

impl Insight {
    /// Nothing has happened yet; `run` is not another run's.
    pub fn new(run: u64, names: Vec<String>, blockers: Vec<Arc<dyn Blocker>>) -> Self {
        let (events, journal, reached) = (Events::new(run), Journal::default(), Reached::default());
        Insight {
            events,
            journal,
            names,
            blockers,
            reached,
            came: Arc::new(BTreeSet::new),
            asking: Asking::nobody(),
        }
    }
}

/// A reason why bytes may not be fetched now: a full disk, a budget that is used up.
pub trait Blocker: Send + Sync {
    /// A sentence, where this stands in the way.
    fn blocks(&self, wanted: &Wanted<'_>) -> Option<String>;
}

/// What would be fetched.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Bytes.
    pub size: u64,
    /// From where; asked once without, for what does not depend on it.
    pub from: Option<&'a Place>,
}

/// Answer to `explain/pull`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked about.
    pub reference: String,
    /// The repository that it means here.
    pub repository: String,
    /// The manifest, where the name leads to one.
    pub digest: Option<String>,
    /// The platform that was looked at.
    pub platform: String,
    /// `held`, `available`, `blocked` or `unknown`.
    pub outcome: String,
    /// How the name was understood, a sentence each.
    pub resolved: Vec<String>,
    /// What stands in the way, a sentence each.
    pub blocks: Vec<String>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
    /// What the pull needs, in the order of need.
    pub blobs: Vec<BlobPlan>,
    /// Bytes of all of these.
    pub size: u64,
    /// Bytes of those that are here.
    pub held: u64,
    /// Where those came from.
    pub sources: Vec<Source>,
    /// Where the time went, if any of it was fetched in this run of the node.
    pub timing: Option<Timing>,
}

/// One blob of a pull.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobPlan {
    /// `artifact index`, `index`, `manifest`, `config`, `layer` or `foreign`.
    pub role: String,
    /// What clients name it by; absent for artifact indexes.
    pub digest: Option<String>,
    /// Its BLAKE3 hash, where it is known.
    pub hash: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// `held`, `coming` or `missing`.
    pub state: String,
    /// How it came, or is coming, in this run of the node.
    pub story: Option<Story>,
    /// Who could send it, best first; empty where it is held.
    pub candidates: Vec<Candidate>,
    /// What stands in the way, a sentence each.
    pub blocks: Vec<String>,
}

/// Somebody who could send a blob.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// Who.
    #[serde(flatten)]
    pub place: Place,
    /// Whether it would be asked now.
    pub asked: bool,
    /// Why, or why not.
    pub why: String,
    /// What went wrong with it last.
    pub trouble: Option<Trouble>,
}

/// Where the time of a pull went.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timing {
    /// From the first blob that was wanted to the last that was durable.
    pub took_ms: u64,
    /// The blob that was durable last.
    pub last: String,
    /// That blob, until somebody was asked for it.
    pub waited_ms: u64,
    /// That blob, from then until all of it had come.
    pub moved_ms: u64,
    /// That blob, from then until it was durable.
    pub settled_ms: u64,
}
