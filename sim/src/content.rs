//! Every blob and artifact that there is in a world. Hashes are real; sizes are as large as a test wants,
//! since nobody stores the bytes.

use std::collections::BTreeMap;

use waystation_proto::{
    Digest, Hash, RepoName,
    event::BlobRef,
    index::{ArtifactIndex, Edge, EdgeKind},
};

/// What exists.
#[derive(Default)]
pub struct Content {
    blobs: BTreeMap<Hash, Blob>,
    indexes: BTreeMap<Hash, ArtifactIndex>,
    artifacts: Vec<Artifact>,
    named: BTreeMap<Digest, Hash>,
}

/// A blob, as whoever made it knows it.
#[derive(Clone, Copy, Debug)]
pub struct Blob {
    /// The true size in bytes.
    pub size: u64,
    /// The true digest, where clients name it.
    pub digest: Option<Digest>,
}

/// An artifact that somebody pushed.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Into which repository.
    pub repository: RepoName,
    /// Its index.
    pub index: ArtifactIndex,
    /// Hash of the encoded index.
    pub index_hash: Hash,
    /// Size of the encoded index.
    pub index_size: u64,
}

impl Content {
    /// A blob made of this text and thought of as `size` bytes long.
    pub fn blob(&mut self, text: &str, size: u64) -> BlobRef {
        let hash = Hash::of(text.as_bytes());
        let digest = Digest::Sha256(blake3::derive_key("waystation-sim digest v1", text.as_bytes()));
        self.named.insert(digest, hash);
        let known = *self.blobs.entry(hash).or_insert(Blob { size, digest: Some(digest) });
        BlobRef { digest, hash, size: known.size }
    }

    /// An artifact with a manifest of its own over these layers; its number.
    pub fn artifact(&mut self, repository: &RepoName, layers: &[BlobRef]) -> usize {
        let name = format!("manifest {}", self.artifacts.len());
        self.named(&name, repository, layers)
    }

    /// The same, with a manifest that is made of this text.
    pub fn named(&mut self, name: &str, repository: &RepoName, layers: &[BlobRef]) -> usize {
        let manifest = self.blob(name, 1_500);
        let edge = |blob: &BlobRef| Edge {
            kind: EdgeKind::Layer,
            digest: blob.digest,
            hash: Some(blob.hash),
            size: blob.size,
            media_type: "application/octet-stream".into(),
            platform: None,
        };
        let index = ArtifactIndex {
            manifest: manifest.digest,
            hash: manifest.hash,
            size: manifest.size,
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            artifact_type: None,
            annotations: BTreeMap::new(),
            edges: layers.iter().map(edge).collect(),
        };
        let bytes = index.encode();
        let (index_hash, index_size) = (Hash::of(&bytes), bytes.len() as u64);
        self.blobs.insert(index_hash, Blob { size: index_size, digest: None });
        self.indexes.insert(index_hash, index.clone());
        self.artifacts.push(Artifact { repository: repository.clone(), index, index_hash, index_size });
        self.artifacts.len() - 1
    }

    /// Every artifact, in the order in which they were made.
    pub fn artifacts(&self) -> &[Artifact] {
        &self.artifacts
    }

    /// What a blob truly is, if it exists.
    pub fn truth(&self, hash: &Hash) -> Option<Blob> {
        self.blobs.get(hash).copied()
    }

    /// Hash and size of the blob that clients name by this digest.
    pub fn named_by(&self, digest: &Digest) -> Option<(Hash, u64)> {
        let hash = *self.named.get(digest)?;
        Some((hash, self.truth(&hash)?.size))
    }

    /// The artifact index with this hash.
    pub fn index(&self, hash: &Hash) -> Option<&ArtifactIndex> {
        self.indexes.get(hash)
    }
}

impl Artifact {
    /// Every blob that whoever has the whole artifact has, with its size.
    pub fn blobs(&self) -> Vec<(Hash, u64)> {
        let head = [(self.index_hash, self.index_size), (self.index.hash, self.index.size)];
        head.into_iter().chain(self.index.closure().map(|(edge, hash)| (hash, edge.size))).collect()
    }
}
