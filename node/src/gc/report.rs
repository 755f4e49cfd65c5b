//! What the operator is told of deletions and of what takes the room, as stable JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use waystation_proto::retention::{Name, Origin, Stay};

/// Body of `POST gc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcRequest {
    /// Whether to say only what would be done.
    pub dry_run: bool,
    /// How many bytes to free, beyond what the quota needs.
    pub free: u64,
}

/// Answer to `POST gc`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// How full disk and quota are now.
    pub space: SpaceReport,
    /// What was deleted, or would be, in that order.
    pub deleted: Vec<Deleted>,
    /// Bytes that became free, or would.
    pub freed: u64,
    /// Bytes that were needed beyond that.
    pub short: u64,
    /// Bytes that stay, by the reason why.
    pub stays: BTreeMap<String, u64>,
}

/// Something that was deleted here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deleted {
    /// A manifest's or blob's digest, or the hash of bytes without a name.
    pub name: String,
    /// Where clients see it.
    pub repositories: Vec<String>,
    /// `loose`, `pulled` (from an upstream) or `referenced`.
    pub kind: String,
    /// Bytes that become free with it.
    pub bytes: u64,
    /// Whether another node must promise first to keep its copy.
    pub needs_promise: bool,
}

/// How full disk and quota are, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpaceReport {
    /// What this node takes.
    pub used: u64,
    /// What it may take.
    pub quota: u64,
    /// What is free on the disk.
    pub free: u64,
    /// What of that is kept free.
    pub reserve: u64,
}

/// Answer to `du`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// How full disk and quota are.
    pub space: SpaceReport,
    /// What is here, the largest first.
    pub artifacts: Vec<ArtifactUsage>,
    /// Bytes that nothing refers to, or nothing yet.
    pub loose: u64,
    /// Bytes of blobs that more than one artifact needs, each counted once.
    pub shared: u64,
}

/// What one artifact takes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactUsage {
    /// The manifest's digest; that of a blob, where it was pulled through and no manifest here names it.
    pub digest: String,
    /// Where clients see it.
    pub repositories: Vec<String>,
    /// `pulled` (from an upstream) or `referenced`.
    pub kind: String,
    /// Bytes of it that are here.
    pub bytes: u64,
    /// Those of blobs that nothing else needs.
    pub unshared: u64,
    /// When it was last used, in seconds since 1970; absent where that is not known.
    pub last_used: Option<u64>,
    /// Whether the operator pinned it.
    pub pinned: bool,
    /// Whether another node relies on this copy.
    pub leased: bool,
    /// Other nodes that can be reached and say to have all of it.
    pub holders: u64,
}

/// Body of `POST pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinRequest {
    /// `repository[:tag][@digest]`.
    pub reference: String,
    /// Whether it is to be kept whatever happens, or not any more.
    pub pinned: bool,
}

/// Answer to `POST pin`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// What the reference meant.
    pub digest: String,
    /// Whether it is kept now.
    pub pinned: bool,
}

impl From<crate::store::Space> for SpaceReport {
    fn from(space: crate::store::Space) -> Self {
        SpaceReport { used: space.used, quota: space.quota, free: space.free, reserve: space.reserve }
    }
}

/// What people call it.
pub(super) fn name(name: &Name) -> String {
    match name {
        Name::Content(digest) => digest.to_string(),
        Name::Loose(hash) => hash.to_string(),
    }
}

pub(super) fn kind(origin: Origin) -> &'static str {
    match origin {
        Origin::Loose => "loose",
        Origin::Pulled => "pulled",
        Origin::Referenced => "referenced",
    }
}

pub(super) fn reason(stay: Stay) -> &'static str {
    match stay {
        Stay::Pinned => "pinned",
        Stay::Leased => "another node relies on it",
        Stay::Policy => "policy wants it here",
        Stay::Busy => "on its way",
        Stay::LastCopy => "no other node promises to keep it",
        Stay::Room => "its room is not needed",
        Stay::Shared => "others that stay need all of it",
    }
}
