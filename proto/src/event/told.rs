//! What a driver is told: changes of the catalog, answers to requests, and facts for logs and metrics.

use alloc::{string::String, sync::Arc};

use super::RequestId;
use crate::{
    body::{ArtifactPlace, HoldingState, NodeBody, SightingBody, State, TagBody},
    grant::Grant,
    id::{Digest, Hash, NodeId, RepoName, Tag},
    index::ArtifactIndex,
    policy::Policy,
    ranges::Ranges,
    time::Wall,
};

/// What changed in the catalog: everything the driver's index has to know, and all of it from records
/// and artifact indexes, so that it can be built anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A tag now points there; nowhere where it was deleted.
    Tag {
        /// Of which repository.
        repository: RepoName,
        /// Which.
        tag: Tag,
        /// Where to.
        body: TagBody,
        /// The write's counter.
        version: u64,
        /// Who wrote it.
        author: NodeId,
        /// When, by that node's clock.
        authored: Wall,
    },
    /// An artifact is in a repository now, or is not any more.
    Artifact {
        /// Which repository.
        repository: RepoName,
        /// Its manifest.
        manifest: Digest,
        /// Hashes and sizes, or nothing where it was deleted.
        place: Option<ArtifactPlace>,
    },
    /// The artifact's index is here: what it names is reachable in the repository.
    Reachable {
        /// Which repository.
        repository: RepoName,
        /// Its content.
        index: ArtifactIndex,
    },
    /// A blob was taken out of a repository, or is not out any more. Links to it are hidden while it is,
    /// whichever came first.
    Link {
        /// Which repository.
        repository: RepoName,
        /// Which blob.
        blob: Digest,
        /// Whether it is out.
        removed: bool,
    },
    /// An artifact's state.
    Status {
        /// In which repository.
        repository: RepoName,
        /// Its manifest.
        manifest: Digest,
        /// The state.
        state: State,
        /// Why.
        reason: String,
    },
    /// What a node, perhaps this one, says to hold of an artifact. What it tells its own site goes before what it
    /// tells the mesh.
    Holding {
        /// The artifact.
        manifest: Digest,
        /// Who.
        node: NodeId,
        /// How much.
        state: HoldingState,
        /// To whom it says so.
        told: Told,
    },
    /// Where a node, perhaps this one, saw an upstream's tag point.
    Sighting {
        /// In which repository.
        repository: RepoName,
        /// Which tag.
        tag: Tag,
        /// Who.
        node: NodeId,
        /// What.
        body: SightingBody,
        /// Whether the node has a grant to publish there, so that it is more than a claim.
        granted: bool,
    },
    /// What a node, perhaps this one, says about itself.
    Node {
        /// Who.
        node: NodeId,
        /// What.
        body: Arc<NodeBody>,
    },
    /// A grant.
    Grant(Grant),
    /// Somebody wrote a tag, and another write counts instead: for the tag's history only.
    TagLost {
        /// Of which repository.
        repository: RepoName,
        /// Which.
        tag: Tag,
        /// Where it would point.
        body: TagBody,
        /// The write's counter.
        version: u64,
        /// Who wrote it.
        author: NodeId,
        /// When, by that node's clock.
        authored: Wall,
    },
    /// What a policy says now. A driver's index has no use for it: [`crate::Replica::policies`] knows.
    Policy {
        /// Its name.
        name: RepoName,
        /// What it says, or nothing where it was deleted.
        policy: Option<Policy>,
    },
}

/// To whom a node tells what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// To the nodes of this site, which it says to be on.
    Site(String),
    /// To all, with how many nodes of its site have all of it.
    Mesh(u16),
}

impl Change {
    /// A write of a tag as one that does not count; other changes as they are.
    #[must_use]
    pub fn lost(self) -> Self {
        match self {
            Change::Tag { repository, tag, body, version, author, authored } => {
                Change::TagLost { repository, tag, body, version, author, authored }
            }
            other => other,
        }
    }
}

/// Things worth telling: answers to requests, and facts for logs and metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What was asked is durable and has been announced.
    Written {
        /// By whom it was asked.
        request: RequestId,
    },
    /// What was asked cannot be done.
    Refused {
        /// By whom it was asked.
        request: RequestId,
        /// Why.
        refusal: Refusal,
    },
    /// A want ended.
    WantDone {
        /// By whom it was asked.
        request: RequestId,
        /// Whether it is here now.
        result: Result<(), WantFailure>,
    },
    /// More of a blob that a client waits for is verified and in the store, though not yet durable.
    Arrived {
        /// Which blob.
        hash: Hash,
        /// All of it that is here.
        have: Ranges,
    },
    /// Answer to [`super::Input::AskLease`].
    LeaseDone {
        /// By whom it was asked.
        request: RequestId,
        /// Who promised it.
        result: Result<NodeId, LeaseRefusal>,
    },
    /// A member sent records that do not count; they were dropped.
    RecordsRefused {
        /// Who.
        from: NodeId,
        /// How many.
        count: usize,
        /// What is wrong with the first.
        why: crate::record::RecordError,
    },
    /// Something else signs with this node's key, again and again: two nodes have one key.
    KeyShared {
        /// From whom that was heard.
        from: NodeId,
    },
    /// A holder's bytes did not match; it is not asked for a while.
    HolderLied {
        /// Who.
        node: NodeId,
        /// About which blob.
        hash: Hash,
    },
    /// Every blob of an artifact is here.
    ArtifactComplete {
        /// Its manifest.
        manifest: Digest,
    },
    /// The catalog equals a member's, as far as both know.
    Reconciled {
        /// Whose.
        peer: NodeId,
    },
    /// A member sent so many records that no honest member sends that it is kept away from for a while.
    Shunned {
        /// Who.
        peer: NodeId,
    },
}

/// Why a request to write was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No grant, or none for this repository and action.
    #[error(
        "this node has no grant to {action} in {repository}; where the root key is, run: waystation mesh grant {node} --repositories '{repository}'"
    )]
    NoGrant {
        /// What was to be done.
        action: &'static str,
        /// Where.
        repository: RepoName,
        /// By whom.
        node: NodeId,
    },
    /// The grant has run out.
    #[error(
        "this node's grant for {repository} has expired; where the root key is, run: waystation mesh grant {node} --repositories '{repository}'"
    )]
    Expired {
        /// Where.
        repository: RepoName,
        /// Whose.
        node: NodeId,
    },
    /// There is no such thing.
    #[error("{0} is not known here")]
    Unknown(String),
    /// Not a form that can be written.
    #[error("{0}")]
    Invalid(String),
    /// The disk did not take it.
    #[error("could not be written to disk: {0}")]
    Storage(String),
}

/// Why a want came to nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WantFailure {
    /// The catalog has no such artifact in that repository.
    #[error("the mesh does not know it")]
    Unknown,
    /// It is known, but nobody who has it can be reached.
    #[error("no node that has it can be reached now")]
    NoHolder,
    /// The upstream could not give it.
    #[error("{0}")]
    Upstream(String),
    /// Holders were reached, but nothing came for too long.
    #[error("nodes that have it stopped sending")]
    Stalled,
    /// It could not be stored.
    #[error("could not be stored: {0}")]
    Storage(String),
}

/// Why nobody promised to keep an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LeaseRefusal {
    /// No node that has all of it can be reached and promises.
    #[error("no other node that can be reached has all of it and promises to keep it")]
    Nobody,
    /// It is being asked for already, or too much is; or the artifact has too many blobs.
    #[error("too many such promises are being asked for")]
    Busy,
    /// Another node wants to delete its copy too, and goes first.
    #[error("another node deletes its copy")]
    Yielded,
}
