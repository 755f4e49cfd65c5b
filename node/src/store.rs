//! What is on disk, in which order it is written, and what a crash can lose.
//! (CONTRACT SKELETON: signatures that others compile against; bodies to be written.)

use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use waystation_proto::{
    Digest, Hash, NodeId, RepoName, Tag,
    body::{ArtifactPlace, HoldingState, NodeBody, State},
    event::Change,
    grant::Grant,
    ranges::Ranges,
    record::Record,
};

/// The bytes of a request body or a file, as they come.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A complete, durable blob and the digest that it was found to have here, or that an authority gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    pub digest: Digest,
    pub hash: Hash,
    pub size: u64,
}

#[derive(Clone)]
pub struct Store {}

/// What `open` found.
pub struct Opened {
    pub store: Store,
    pub records: Vec<Record>,
    pub hashes: Vec<Hash>,
}

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("{path}: {why}")]
    Unusable { path: PathBuf, why: String },
    #[error("the data directory {0} is in use by another node; stop it or give another --data-dir")]
    InUse(PathBuf),
    #[error(
        "the data directory {path} was written by a newer version (format {found}, this one reads {supported}); use that version"
    )]
    Newer { path: PathBuf, found: u32, supported: u32 },
}

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error("the bytes have digest {found}, not {expected}")]
    DigestMismatch { expected: Digest, found: Digest },
    #[error("larger than the limit of {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the body ended early: {0}")]
    Interrupted(String),
    #[error("no such upload")]
    UnknownUpload,
    #[error("the upload has {have} bytes, so the next chunk must start there")]
    OutOfOrder { have: u64 },
    #[error("could not be stored: {0}")]
    Storage(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagEntry {
    pub target: Option<Digest>,
    pub version: u64,
    pub author: NodeId,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArtifactEntry {
    pub place: ArtifactPlace,
    pub status: Option<(State, String)>,
}
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEntry {
    pub hash: Hash,
    pub size: u64,
    /// An artifact of the repository whose closure it is in; absent for blobs that were only uploaded.
    pub manifest: Option<Digest>,
    pub media_type: String,
}

/// How bytes of a held blob are read.
pub enum BlobReader {
    Memory(Bytes),
    File(std::fs::File, u64),
}

impl Store {
    /// Locks, checks the format version, recovers, opens; rebuilds the index where it is missing or stale.
    pub async fn open(_dir: &Path) -> Result<Opened, OpenError> {
        todo!()
    }
    pub fn index(&self) -> &Index {
        todo!()
    }
    /// The iroh-blobs store, for the data plane.
    pub fn blobs(&self) -> iroh_blobs::api::Store {
        todo!()
    }

    /// One blob in one go: hashes while writing, compares, makes durable, maps digest → hash and links
    /// it into `repository` in the same sync. Nothing is kept unless all of it holds.
    pub async fn ingest(
        &self,
        _repository: Option<&RepoName>,
        _expected: Digest,
        _limit: u64,
        _body: ByteStream,
    ) -> Result<Held, IngestError> {
        todo!()
    }
    /// Bytes that this node made itself (artifact indexes) or holds in memory (manifests).
    pub async fn ingest_bytes(
        &self,
        _repository: Option<&RepoName>,
        _expected: Digest,
        _bytes: Bytes,
    ) -> Result<Held, IngestError> {
        todo!()
    }
    /// Manifest and its index in one sync.
    /// Stores the encoded index (no digest tag: `a/<manifest digest>` → hash) and returns its hash.
    pub async fn ingest_index(&self, _manifest: Digest, _encoded: Bytes) -> Result<Hash, IngestError> {
        todo!()
    }
    /// Durably links a held blob into a repository (mount).
    pub async fn link(&self, _repository: &RepoName, _held: &Held) -> Result<(), IngestError> {
        todo!()
    }

    /// Upload sessions (distribution-spec end-4, 5, 6, 13, 14). Ids are UUIDs; bytes are on disk.
    pub async fn upload_start(&self, _repository: &RepoName) -> Result<String, IngestError> {
        todo!()
    }
    /// Appends; `offset`, where given, must equal what is there. Returns the new length.
    pub async fn upload_append(
        &self,
        _repository: &RepoName,
        _id: &str,
        _offset: Option<u64>,
        _limit: u64,
        _body: ByteStream,
    ) -> Result<u64, IngestError> {
        todo!()
    }
    pub async fn upload_length(&self, _repository: &RepoName, _id: &str) -> Result<u64, IngestError> {
        todo!()
    }
    /// Ends the session: as `ingest` on what was appended.
    pub async fn upload_finish(
        &self,
        _repository: &RepoName,
        _id: &str,
        _expected: Digest,
    ) -> Result<Held, IngestError> {
        todo!()
    }
    pub async fn upload_cancel(&self, _repository: &RepoName, _id: &str) -> Result<(), IngestError> {
        todo!()
    }

    /// What of a blob is here and verified.
    pub async fn probe(&self, _hash: Hash, _size: u64) -> Ranges {
        todo!()
    }
    /// A fetched blob that is complete in the store: fsync data, outboard and directory, map the digest, sync.
    pub async fn seal(&self, _hash: Hash, _size: u64, _digest: Option<Digest>) -> Result<(), IngestError> {
        todo!()
    }

    /// Whole small blob (manifest, index, config), at most `max` bytes.
    pub async fn read(&self, _hash: Hash, _max: u64) -> std::io::Result<Bytes> {
        todo!()
    }
    /// Opens a held blob for serving; small ones come from memory. Verifies as DESIGN decision 15 says.
    pub async fn open_blob(&self, _hash: Hash, _size: u64) -> std::io::Result<BlobReader> {
        todo!()
    }

    /// Makes records durable (a segment blob and its named tag, synced), replacing older ones by key.
    pub async fn persist(&self, _records: Vec<Record>) -> Result<(), IngestError> {
        todo!()
    }

    pub async fn shutdown(&self) {}
}

/// The catalog as looked up: derived from records and artifact indexes, in sled.
pub struct Index {}

impl Index {
    pub fn apply(&self, _change: &Change) {
        todo!()
    }
    /// A held blob by digest.
    pub fn held(&self, _digest: &Digest) -> Option<Held> {
        todo!()
    }
    pub fn tag(&self, _repository: &RepoName, _tag: &Tag) -> Option<TagEntry> {
        todo!()
    }
    /// Living tags in lexical order after `last`, at most `limit`.
    pub fn tags(&self, _repository: &RepoName, _last: Option<&str>, _limit: usize) -> Vec<(Tag, TagEntry)> {
        todo!()
    }
    pub fn artifact(&self, _repository: &RepoName, _manifest: &Digest) -> Option<ArtifactEntry> {
        todo!()
    }
    /// Artifacts of one repository, or of all.
    pub fn artifacts(&self, _repository: Option<&RepoName>) -> Vec<(RepoName, Digest, ArtifactEntry)> {
        todo!()
    }
    pub fn repositories(&self, _last: Option<&str>, _limit: usize) -> Vec<RepoName> {
        todo!()
    }
    pub fn link(&self, _repository: &RepoName, _digest: &Digest) -> Option<LinkEntry> {
        todo!()
    }
    /// All who say to hold something of it, this node included.
    pub fn holders(&self, _manifest: &Digest) -> Vec<(NodeId, HoldingState)> {
        todo!()
    }
    pub fn nodes(&self) -> Vec<(NodeId, NodeBody)> {
        todo!()
    }
    pub fn grants(&self) -> Vec<Grant> {
        todo!()
    }
}
