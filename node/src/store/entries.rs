//! What is looked up in the index, as whoever asks gets it. How it is kept there is `index`'s business.

use waystation_proto::{
    Digest, Hash, NodeId, Wall,
    body::{ArtifactPlace, State},
};

/// Where a tag points.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagEntry {
    /// The manifest, or nothing where the tag was deleted.
    pub target: Option<Digest>,
    /// The counter of the write.
    pub version: u64,
    /// Who wrote it.
    pub author: NodeId,
}

/// One write of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteEntry {
    /// The manifest that it points at, or nothing where it deletes the tag.
    pub target: Option<Digest>,
    /// The counter of the write.
    pub version: u64,
    /// Who wrote it.
    pub author: NodeId,
    /// When, by that node's clock.
    pub authored: Wall,
}

/// An artifact in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactEntry {
    /// Hashes and sizes.
    pub place: ArtifactPlace,
    /// What its publishers say of it, and why.
    pub status: Option<(State, String)>,
}

/// A blob that is visible in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEntry {
    /// What peers name it by.
    pub hash: Hash,
    /// Its size in bytes.
    pub size: u64,
    /// An artifact of the repository whose closure it is in; absent for blobs that were only uploaded.
    pub manifest: Option<Digest>,
    /// As the manifest says; `application/octet-stream` for blobs that were only uploaded.
    pub media_type: String,
}

/// Where a node saw a tag of an upstream point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SightingEntry {
    /// Who.
    pub node: NodeId,
    /// The manifest.
    pub manifest: Digest,
    /// When, by that node's clock.
    pub seen: Wall,
    /// Whether the node may publish there.
    pub granted: bool,
}
