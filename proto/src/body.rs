//! What the known kinds of record say: plain data, one type a kind. Wire types; their bytes are fixed by
//! `tests/wire_golden.rs`.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    id::{Digest, Hash, first},
    time::Wall,
};

/// Kind 1, scope: repository, name: tag. Where a tag points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagBody {
    /// The manifest, or nothing where the tag was deleted.
    pub target: Option<Digest>,
}

/// Kind 2, scope: repository, name: manifest digest. What its publishers say of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusBody {
    /// The state.
    pub state: State,
    /// Why, for people. At most [`StatusBody::REASON_MAX`] bytes.
    pub reason: String,
}

impl StatusBody {
    /// Longest reason, in bytes.
    pub const REASON_MAX: usize = 512;
}

/// States an artifact can be in. None given means it may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Checks are running.
    Validating,
    /// Put aside: something looked wrong.
    Quarantined,
    /// Checked and good.
    Approved,
    /// Checked and not good.
    Rejected,
    /// Was good once, must not be used any more.
    Revoked,
}

/// Kind 3, scope: the author's site, name: `<manifest digest>/<node id>`. Whether the author has the artifact.
/// Kept, compared and sent within that site only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldingBody {
    /// How much of it.
    pub state: HoldingState,
}

/// Kind 11, scope: mesh, name: `<manifest digest>/<node id>`. What the rest of the mesh is to know of an artifact at
/// the author's site, told by a few of those who have it there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryBody {
    /// How much of it the author has.
    pub state: HoldingState,
    /// How many nodes of its site said to have all of it when it was written.
    pub copies: u16,
}

/// How much of an artifact a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum HoldingState {
    /// Nothing any more.
    Gone,
    /// Some blobs.
    Partial,
    /// The manifest and every blob that it names, durably.
    Complete,
}

/// Kind 4, scope: mesh, name: node id. How to reach the author and what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeBody {
    /// The LAN that it is on. At most [`NodeBody::SITE_MAX`] bytes.
    pub site: String,
    /// Its place in the continuum.
    pub tier: Tier,
    /// `host:port`, TCP for control and UDP for data. At most [`NodeBody::ADDRESSES_MAX`].
    pub addresses: Vec<String>,
    /// Name and version of what it runs. At most 64 bytes.
    pub software: String,
    /// Where in the world it is, as its operator calls that; may be empty. At most 63 bytes.
    pub region: String,
    /// What its operator says of it, for policies to choose by. At most [`NodeBody::LABELS_MAX`]; keys and
    /// values at most 63 bytes.
    pub labels: BTreeMap<String, String>,
}

/// A number that all nodes of a site share, and those of others hardly.
pub fn site_number(site: &str) -> u64 {
    first(blake3::hash(site.as_bytes()).as_bytes())
}

impl NodeBody {
    /// Longest name of a site, in bytes.
    pub const SITE_MAX: usize = 63;
    /// Most addresses of one node.
    pub const ADDRESSES_MAX: usize = 8;
    /// Most labels of one node.
    pub const LABELS_MAX: usize = 32;
}

/// A node's place in the continuum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// Data centre.
    Cloud,
    /// A site's server.
    #[default]
    Edge,
    /// A small device.
    Iot,
}

/// Kind 6, scope: repository, name: manifest digest. That an artifact is in a repository, and the hashes
/// that pair with its manifest and its artifact index. The author's grant is what makes the pairs count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactBody {
    /// Where to find it, or nothing where it was deleted.
    pub place: Option<ArtifactPlace>,
}

/// Kind 8, scope: repository, name: `<tag>/<node id>`. Where its author saw a tag of an upstream point: a
/// claim, unless the author's grant covers the repository. Decides nothing while the upstream answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SightingBody {
    /// The manifest.
    pub manifest: Digest,
    /// When that was last seen, by the author's clock. For display and for limits on staleness.
    pub seen: Wall,
}

/// Kind 7, scope: repository, name: blob digest. That a blob was taken out of a repository, so that nothing
/// links it there any more, or may be linked again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkBody {
    /// Whether it is out.
    pub removed: bool,
}

/// Kind 10, name: `lease/<slot>`. That this node keeps an artifact because another one relies on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseBody {
    /// The artifact.
    pub manifest: Digest,
    /// For how long, in milliseconds, from when it was written or the node was started again.
    pub millis: u64,
}

/// Kind 10, name: `pin/<manifest digest>`. Whether the operator wants an artifact kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinBody {
    /// Whether it is.
    pub pinned: bool,
}

/// Hashes and sizes of an artifact's manifest and index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactPlace {
    /// BLAKE3 of the manifest's bytes.
    pub manifest: Hash,
    /// Their number.
    pub manifest_size: u64,
    /// The manifest's media type, as pushed. At most 255 bytes.
    pub media_type: String,
    /// BLAKE3 of the encoded [`crate::index::ArtifactIndex`].
    pub index: Hash,
    /// The number of its bytes.
    pub index_size: u64,
    /// The manifest that this one is about, so that what refers to an artifact is known without its index.
    pub subject: Option<Digest>,
}

impl ArtifactPlace {
    /// Longest manifest in bytes that counts. Registries take 4 MiB.
    pub const MANIFEST_MAX: u64 = 16 * 1024 * 1024;
}
