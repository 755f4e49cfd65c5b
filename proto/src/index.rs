//! The artifact index: what an artifact is made of, as every node encodes it to the same bytes. It is
//! itself a blob, named by the hash of those bytes. How a manifest becomes one is the node's business.

use alloc::{collections::BTreeMap, string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::id::{Digest, Hash};

/// One manifest and the typed edges that leave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactIndex {
    /// The manifest's digest.
    pub manifest: Digest,
    /// BLAKE3 of the manifest's bytes.
    pub hash: Hash,
    /// Their number.
    pub size: u64,
    /// As pushed.
    pub media_type: String,
    /// The manifest's own artifact type, or that of its config (image-spec, manifest.md, "artifactType").
    pub artifact_type: Option<String>,
    /// Annotations that help people choose; not all of them (see the node's manifest module).
    pub annotations: BTreeMap<String, String>,
    /// What it names, in the manifest's order.
    pub edges: Vec<Edge>,
}

/// One thing that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Edge {
    /// In which role.
    pub kind: EdgeKind,
    /// Its digest.
    pub digest: Digest,
    /// BLAKE3 of its bytes. Given for config and layers that must be present, absent for what may be
    /// absent (children, subject, dependencies, foreign layers): whether those are here is a local fact.
    pub hash: Option<Hash>,
    /// Its size in bytes, as the manifest says.
    pub size: u64,
    /// Its media type, as the manifest says.
    pub media_type: String,
    /// `os/architecture[/variant]` of a child, where the index says so.
    pub platform: Option<String>,
}

/// The role of what an edge leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EdgeKind {
    /// The config blob.
    Config,
    /// A layer that belongs to the closure.
    Layer,
    /// A layer to be had elsewhere, outside every closure (image-spec, "non-distributable").
    Foreign,
    /// A manifest that an index lists; judged on its own when asked for.
    Child,
    /// The manifest that this one is about; may be absent.
    Subject,
    /// Another artifact that this one needs.
    Depends {
        /// By what reference it was named.
        reference: String,
        /// Whether it is useless without.
        hard: bool,
    },
}

/// Bytes that are not an artifact index.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Another magic or version: not an index, or one from newer software.
    #[error("not an artifact index of version {VERSION}")]
    Version,
    /// Too long, cut, not canonical or over a limit.
    #[error("malformed artifact index: {0}")]
    Malformed(&'static str),
}

const MAGIC: &[u8; 4] = b"WSAI";
const VERSION: u8 = 1;

impl ArtifactIndex {
    /// Longest encoding in bytes. A 4 MiB manifest with the smallest possible descriptors stays below it.
    pub const MAX_BYTES: usize = 8 * 1024 * 1024;
    /// Most edges.
    pub const MAX_EDGES: usize = 65_536;

    /// The bytes that every node encodes it to.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.push(VERSION);
        bytes.extend(postcard::to_allocvec(self).expect("plain data always encodes"));
        bytes
    }

    /// Reads what [`Self::encode`] wrote; anything else is an error, also another encoding of the same.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(IndexError::Malformed("too long"));
        }
        let body = bytes.strip_prefix(MAGIC).and_then(|rest| rest.strip_prefix(&[VERSION]));
        let body = body.ok_or(IndexError::Version)?;
        let index: ArtifactIndex =
            postcard::from_bytes(body).map_err(|_| IndexError::Malformed("does not decode"))?;
        if index.edges.len() > Self::MAX_EDGES {
            return Err(IndexError::Malformed("too many edges"));
        }
        if index.encode() != bytes {
            return Err(IndexError::Malformed("not in canonical form"));
        }
        Ok(index)
    }

    /// The manifest that this one is about.
    pub fn subject(&self) -> Option<Digest> {
        self.edges.iter().find(|edge| edge.kind == EdgeKind::Subject).map(|edge| edge.digest)
    }

    /// The blobs that must be held, beside the manifest, before this artifact is complete.
    pub fn closure(&self) -> impl Iterator<Item = (&Edge, Hash)> {
        self.edges
            .iter()
            .filter(|edge| matches!(edge.kind, EdgeKind::Config | EdgeKind::Layer))
            .filter_map(|edge| Some((edge, edge.hash?)))
    }
}

#[cfg(test)]
mod tests {
    use alloc::{string::ToString, vec};

    use super::*;

    fn sample() -> ArtifactIndex {
        let edge = |kind, n: u8, hash| Edge {
            kind,
            digest: Digest::Sha256([n; 32]),
            hash,
            size: u64::from(n),
            media_type: "t".to_string(),
            platform: None,
        };
        ArtifactIndex {
            manifest: Digest::Sha256([9; 32]),
            hash: Hash([8; 32]),
            size: 7,
            media_type: "m".to_string(),
            artifact_type: None,
            annotations: BTreeMap::new(),
            edges: vec![
                edge(EdgeKind::Config, 1, Some(Hash([1; 32]))),
                edge(EdgeKind::Layer, 2, Some(Hash([2; 32]))),
                edge(EdgeKind::Subject, 3, None),
            ],
        }
    }

    #[test]
    fn bytes_are_fixed() {
        let bytes = sample().encode();
        assert_eq!(
            Hash::of(&bytes).to_string(),
            "43dfce81a835b326e469bb0fe5163e9ddd093096a79ad66963ede853c859e533",
            "the encoding of artifact indexes changed: that needs a new version"
        );
        assert_eq!(ArtifactIndex::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn closure_is_config_and_layers() {
        assert_eq!(sample().closure().count(), 2);
    }

    #[test]
    fn refuses_what_it_did_not_write() {
        let bytes = sample().encode();
        assert_eq!(ArtifactIndex::decode(&[]), Err(IndexError::Version));
        assert_eq!(
            ArtifactIndex::decode(&bytes[..bytes.len() - 1]),
            Err(IndexError::Malformed("does not decode"))
        );
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(ArtifactIndex::decode(&longer).is_err());
        let mut newer = bytes;
        newer[4] = 2;
        assert_eq!(ArtifactIndex::decode(&newer), Err(IndexError::Version));
    }
}
