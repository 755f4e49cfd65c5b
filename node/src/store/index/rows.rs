//! Values of the index's trees: a version byte and postcard. They live apart from the types that lookups
//! answer with, so that those can change without a rebuild. There is no migration: a row of another version
//! makes the index stale, and it is built again.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use waystation_proto::{
    Digest, Hash, NodeId,
    body::{ArtifactPlace, HoldingState, State},
    time::Wall,
};

/// Of a digest.
#[derive(Serialize, Deserialize)]
pub(super) struct HeldRow {
    pub hash: Hash,
    pub size: u64,
}

/// Of a tag. Deleted ones stay, since their version counts.
#[derive(Serialize, Deserialize)]
pub(super) struct TagRow {
    pub target: Option<Digest>,
    pub version: u64,
    pub author: NodeId,
}

/// Of an artifact in a repository. A status may come before the artifact and outlives it.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ArtifactRow {
    pub place: Option<ArtifactPlace>,
    pub status: Option<(State, String)>,
}

/// Of a link.
#[derive(Serialize, Deserialize)]
pub(super) struct LinkRow {
    pub hash: Hash,
    pub size: u64,
    pub media_type: String,
}

/// Of what a node says to hold of an artifact.
#[derive(Serialize, Deserialize)]
pub(super) struct HolderRow {
    pub state: HoldingState,
    /// The site that was told; nothing where the mesh was.
    pub site: Option<String>,
    /// How many nodes of its site have all of it, where the mesh was told.
    pub copies: u16,
}

/// Of a sighting.
#[derive(Serialize, Deserialize)]
pub(super) struct SightingRow {
    pub manifest: Digest,
    pub seen: Wall,
    pub granted: bool,
}

/// Of one write of a tag.
#[derive(Serialize, Deserialize)]
pub(super) struct WriteRow {
    pub target: Option<Digest>,
    pub authored: Wall,
}

/// A value's bytes.
pub(super) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    postcard::to_extend(row, vec![VERSION]).expect("plain data always encodes")
}

/// Reads a value; a damaged one, or one of another version, is none.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (&version, body) = bytes.split_first()?;
    if version != VERSION {
        return None;
    }
    postcard::from_bytes(body).ok()
}

const VERSION: u8 = 2;
