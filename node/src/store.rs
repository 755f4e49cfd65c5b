//! What is on disk, in which order it is written, and what a crash can lose.
//!
//! ```text
//! <data dir>/VERSION     format of all below, and the path it was last opened under
//!            lock        held while a node runs
//!            blobs/      iroh-blobs' store: database (names, blobs up to 16 KiB), fetched data, outboards
//!            files/      larger blobs that came in here; the store refers to them and never removes them
//!            uploads/    upload sessions, bodies that are being received, downloads that were cut
//!            quarantine/ the last few files that were found damaged
//!            index/      the catalog as looked up (sled); can be deleted while no node runs
//!            used        when what is here was last used; can be deleted while no node runs
//! ```
//!
//! The store is the ground truth, by its named tags ([`ground`]); the index is derived from it. The order of
//! every write is: bytes synced, directory synced, blob known to the store, named, store synced, index,
//! and only then the answer. So a crash loses nothing that was answered, and what it leaves (files without
//! names, a stale index) the next start sweeps or builds again ([`recovery`]). What it can lose: uploads that
//! were not finished (after a power loss only; after a kill they go on), the last seconds of downloads from
//! upstreams (`partial.rs`), downloads that were not sealed, and what other nodes said to hold.
//!
//! [`ingest`] is the only way in for bytes from outside the mesh; bytes from members enter the store through
//! the data plane and count from [`Store::seal`] on. [`reading`] is the only way out to clients.

mod blobs;
mod block;
mod collector;
mod direct;
mod dirs;
mod draft;
mod entries;
mod ground;
mod incoming;
mod index;
mod ingest;
mod lane;
mod outboards;
mod partial;
mod reading;
mod recovery;
mod rehash;
mod room;
mod segments;
mod served;
mod sweep;
mod tree;
mod uploads;
mod uses;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use waystation_proto::{Digest, Hash, RepoName, Shared, ranges::Ranges};

pub use entries::{ArtifactEntry, LinkEntry, SightingEntry, TagEntry, WriteEntry};
pub use incoming::{Growth, Incoming};
pub use index::{Index, WRITES_MAX};
pub use partial::Origin;
pub use room::Space;
pub use served::{ServedFile, ServedPart, Serving};
pub use sweep::{Fetching, Inventory};
pub use uses::{Use, Uses};

/// The bytes of a request body or a file, as they come.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// A complete, durable blob and the digest that it was found to have here, or that an authority gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What clients name it by.
    pub digest: Digest,
    /// What peers name it by.
    pub hash: Hash,
    /// Its size in bytes.
    pub size: u64,
}

/// Everything that this node keeps: a cheap handle.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

/// What `open` found.
pub struct Opened {
    /// The store, ready for use.
    pub store: Store,
    /// The records that were persisted, the winner of each key.
    pub records: Vec<Shared>,
    /// All complete blobs that others may fetch from here.
    pub hashes: Vec<Hash>,
}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk, the rights or the content do not allow it.
    #[error("{path}: {why}")]
    Unusable {
        /// What cannot be used.
        path: PathBuf,
        /// Why, and what to do.
        why: String,
    },
    /// Another process has it.
    #[error("the data directory {0} is in use by another node; stop it or give another --data-dir")]
    InUse(PathBuf),
    /// Its format is not known to this version.
    #[error(
        "the data directory {path} was written by a newer version (format {found}, this one reads \
         {supported}); use that version"
    )]
    Newer {
        /// The data directory.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that this version reads.
        supported: u32,
    },
}

/// Why bytes were not taken in.
#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    /// They are not what they were said to be.
    #[error("the bytes have digest {found}, not {expected}")]
    DigestMismatch {
        /// What they were said to be.
        expected: Digest,
        /// What they are.
        found: Digest,
    },
    /// There are too many of them.
    #[error("larger than the limit of {limit} bytes")]
    TooLarge {
        /// How many there may be.
        limit: u64,
    },
    /// The sender stopped, or the connection broke.
    #[error("the body ended early: {0}")]
    Interrupted(String),
    /// There is no such session in the repository: never was, finished, cancelled or expired.
    #[error("no such upload")]
    UnknownUpload,
    /// A chunk does not continue what is there.
    #[error("the upload has {have} bytes, so the next chunk must start there")]
    OutOfOrder {
        /// Where the next chunk must start.
        have: u64,
    },
    /// Somebody else is in the way; it may work later.
    #[error("{0}")]
    Busy(String),
    /// The disk is full. What was being stored is not kept; of an upload, what it had before is.
    #[error("could not be stored: {0}")]
    Full(String),
    /// The disk failed.
    #[error("could not be stored: {0}")]
    Storage(String),
}

/// How bytes of a held blob are read.
pub enum BlobReader {
    /// All of them.
    Memory(Bytes),
    /// An open file at its start, and its size in bytes.
    File(std::fs::File, u64),
}

impl Store {
    /// Locks, checks the format version, recovers, opens; rebuilds the index where it is missing or stale.
    ///
    /// # Errors
    /// Where the directory cannot be used, is in use, or was written by a newer version.
    pub async fn open(dir: &Path) -> Result<Opened, OpenError> {
        recovery::open(dir).await
    }

    /// The catalog's index.
    pub fn index(&self) -> &Index {
        &self.0.index
    }

    /// The iroh-blobs store, for the data plane.
    pub fn blobs(&self) -> iroh_blobs::api::Store {
        self.0.blobs.api()
    }

    /// One blob in one go: hashes while writing, compares, makes durable, maps digest → hash and links
    /// it into `repository` in the same sync. Nothing is kept unless all of it holds.
    ///
    /// # Errors
    /// `DigestMismatch`, `TooLarge` over `limit` bytes, `Interrupted` where the body fails, `Storage`.
    pub async fn ingest(
        &self,
        repository: Option<&RepoName>,
        expected: Digest,
        limit: u64,
        body: ByteStream,
    ) -> Result<Held, IngestError> {
        self.0.ingest(repository, expected, limit, body).await
    }

    /// Bytes that this node holds in memory (manifests), otherwise as [`Self::ingest`].
    ///
    /// # Errors
    /// `DigestMismatch`, `Storage`.
    pub async fn ingest_bytes(
        &self,
        repository: Option<&RepoName>,
        expected: Digest,
        bytes: Bytes,
    ) -> Result<Held, IngestError> {
        self.0.ingest_bytes(repository, expected, bytes).await
    }

    /// Stores a manifest and its encoded artifact index (which has a hash, but no digest) durably, in one
    /// sync, and returns the manifest and the index's hash. What is published of it makes the links.
    ///
    /// # Errors
    /// `DigestMismatch`, `Storage`.
    pub async fn ingest_manifest(
        &self,
        digest: Digest,
        bytes: Bytes,
        index: Bytes,
    ) -> Result<(Held, Hash), IngestError> {
        self.0.ingest_manifest(digest, bytes, index).await
    }

    /// Begins a download: a blob that comes over one or more connections and may be read meanwhile. What came of it
    /// before a crash, or before it was given up, is there already; see [`Incoming::origin`].
    ///
    /// # Errors
    /// `Storage`.
    pub async fn incoming(&self, repository: &RepoName, expected: Digest) -> Result<Incoming, IngestError> {
        Incoming::new(self.0.clone(), repository, expected).await
    }

    /// Removes what is too old or too much of downloads that were not finished, and, of the oldest that rest, so
    /// many bytes more. Returns how many of those were freed.
    pub async fn sweep_partials(&self, wanted: u64) -> u64 {
        let (partials, quota) = (self.0.partials.clone(), self.0.dirs.room.quota());
        let swept = blobs::blocking(move || {
            partials.sweep(std::time::Instant::now(), quota / partial::SHARE_OF_QUOTA);
            Ok(partials.yield_bytes(wanted))
        });
        swept.await.unwrap_or(0)
    }

    /// Reads all of a sealed blob that somebody without authority said to have a digest. If it has, it is held
    /// under that digest and linked into the repository, durably; if not, the digest that it has is returned.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn prove(&self, repository: &RepoName, held: Held) -> Result<Result<(), Digest>, IngestError> {
        self.0.prove(repository, held).await
    }

    /// Durably links a held blob into a repository (mount).
    ///
    /// # Errors
    /// `Storage`.
    pub async fn link(&self, repository: &RepoName, held: &Held) -> Result<(), IngestError> {
        self.0.link(repository, held).await
    }

    /// Starts an upload session (distribution-spec end-4, 5, 6, 13, 14) and returns its id, a UUID. Its bytes
    /// are on disk, and it goes on after a restart. A session that rests for 24 hours expires.
    ///
    /// # Errors
    /// `Busy` where too many sessions are open, `Full`, `Storage`.
    pub async fn upload_start(&self, repository: &RepoName) -> Result<String, IngestError> {
        self.0.upload_start(repository).await
    }

    /// Appends; `offset`, where given, must equal what is there. Returns the new length. What came before a
    /// body failed stays.
    ///
    /// # Errors
    /// `UnknownUpload`, `OutOfOrder`, `TooLarge` where the whole would exceed `limit` bytes, `Interrupted`,
    /// `Storage`.
    pub async fn upload_append(
        &self,
        repository: &RepoName,
        id: &str,
        offset: Option<u64>,
        limit: u64,
        body: ByteStream,
    ) -> Result<u64, IngestError> {
        self.0.upload_append(repository, id, offset, limit, body).await
    }

    /// How many bytes a session has.
    ///
    /// # Errors
    /// `UnknownUpload`.
    pub async fn upload_length(&self, repository: &RepoName, id: &str) -> Result<u64, IngestError> {
        self.0.upload_length(repository, id).await
    }

    /// Ends the session: as [`Self::ingest`] on what was appended. Another digest ends it as well; after a
    /// failing disk it can be finished again.
    ///
    /// # Errors
    /// `UnknownUpload`, `DigestMismatch`, `Storage`.
    pub async fn upload_finish(
        &self,
        repository: &RepoName,
        id: &str,
        expected: Digest,
    ) -> Result<Held, IngestError> {
        self.0.upload_finish(repository, id, expected).await
    }

    /// Ends the session and drops its bytes.
    ///
    /// # Errors
    /// `UnknownUpload`.
    pub async fn upload_cancel(&self, repository: &RepoName, id: &str) -> Result<(), IngestError> {
        self.0.upload_cancel(repository, id).await
    }

    /// Waits until other nodes can fetch a blob that was taken in from here: a large one is acknowledged before.
    pub async fn servable(&self, hash: Hash) {
        self.0.outboards.done(&hash).await;
    }

    /// What of a blob is here and verified, in whole groups of 16 KiB.
    pub async fn probe(&self, hash: Hash, size: u64) -> Ranges {
        self.0.probe(hash, size).await
    }

    /// A fetched blob that is complete in the store: fsync data, outboard and directory, name it by its
    /// digest or, without one, by its hash, and sync. The digest must come from an authority.
    ///
    /// # Errors
    /// `Busy` where the blob is not complete; `Storage`.
    pub async fn seal(&self, hash: Hash, size: u64, digest: Option<Digest>) -> Result<(), IngestError> {
        self.0.seal(hash, size, digest).await
    }

    /// Whole small blob (manifest, index, config), at most `max` bytes.
    ///
    /// # Errors
    /// `NotFound`; `InvalidInput` over `max`; `InvalidData` where it is damaged; what the disk says.
    pub async fn read(&self, hash: Hash, max: u64) -> std::io::Result<Bytes> {
        self.0.read(hash, max).await
    }

    /// Opens a held blob for serving; small ones come from memory. A file is hashed before it is first
    /// opened after a start, and when its length or time of change are others than before.
    ///
    /// # Errors
    /// `NotFound`; `InvalidData` where it is damaged (it is then put aside); what the disk says.
    pub async fn open_blob(&self, hash: Hash, size: u64) -> std::io::Result<BlobReader> {
        self.0.open_blob(hash, size).await
    }

    /// Opens a held blob for clients, who want its bytes from `first` on first. Of a large one those are looked at here,
    /// all others when they are read.
    ///
    /// # Errors
    /// As [`Self::open_blob`].
    pub async fn serve_blob(&self, hash: Hash, size: u64, first: u64) -> std::io::Result<Serving> {
        self.0.serve_blob(hash, size, first).await
    }

    /// Opens the file of a large blob of which only a part has been fetched. What [`Self::probe`] counts of it has
    /// been written where it belongs; the rest of the file is undefined.
    ///
    /// # Errors
    /// `NotFound` where it has no file, or one that did not come from other nodes; what the disk says.
    pub async fn open_growing(&self, hash: Hash) -> std::io::Result<std::fs::File> {
        self.0.open_growing(hash).await
    }

    /// Records under these keys need not be kept any longer: they go when their segments are next written
    /// together.
    pub fn forget(&self, keys: &[waystation_proto::record::Key]) {
        self.0.forget_records(keys);
    }

    /// Makes records durable (a segment blob and its named tag, synced), replacing older ones by key.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn persist(&self, records: Vec<Shared>) -> Result<(), IngestError> {
        self.0.persist(records).await
    }

    /// Whether so many more bytes may be fetched: there is a quota, and some of the disk is kept free.
    pub fn has_room(&self, bytes: u64) -> bool {
        self.0.dirs.room.check(room::Kind::Bulk, bytes).is_ok()
    }

    /// Waits until so many more bytes may be fetched, for as long as somebody makes room.
    ///
    /// # Errors
    /// `StorageFull`, `QuotaExceeded`.
    pub async fn wait_for_room(&self, bytes: u64) -> std::io::Result<()> {
        self.0.dirs.room.wait_for(bytes).await
    }

    /// A part of a blob is about to be fetched: until what is returned is dropped.
    pub fn fetching(&self, hash: Hash, bytes: u64) -> Fetching {
        self.0.fetching(hash, bytes)
    }

    /// Sets how many bytes this node may take and how many of the disk it keeps free; the caller makes room from
    /// now on when [`Self::pressed`] returns, and says so with [`Self::round_done`].
    pub fn limit(&self, quota: u64, reserve: u64) {
        self.0.dirs.room.limit(quota, reserve);
    }

    /// How full disk and quota are. Asks the system.
    ///
    /// # Errors
    /// What the system says.
    pub fn space(&self) -> std::io::Result<Space> {
        self.0.dirs.room.space()
    }

    /// Measures anew what the data directory takes, and says how full disk and quota are.
    ///
    /// # Errors
    /// What the system says.
    pub async fn measure(&self) -> std::io::Result<Space> {
        let dirs = self.0.dirs.clone();
        blobs::blocking(move || {
            dirs.room.measure();
            dirs.room.space()
        })
        .await
    }

    /// Returns when somebody waits for room.
    pub async fn pressed(&self) {
        self.0.dirs.room.pressed().await;
    }

    /// Room was made, or could not be: whoever waits looks again.
    pub fn round_done(&self) {
        self.0.dirs.room.round_done();
    }

    /// Everything that is here.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn inventory(&self) -> std::io::Result<Inventory> {
        self.0.inventory().await
    }

    /// Marks blobs for [`Self::remove`]. One that is opened or asked for from now on stays.
    pub fn doom(&self, hashes: &BTreeSet<Hash>) {
        self.0.doom(hashes);
    }

    /// A client was told that these are here, and may publish something that needs them: they stay for ten minutes,
    /// unless they were leaving already, which is known in the index when this returns.
    pub async fn claim(&self, hashes: &[Hash]) {
        self.0.claim(hashes).await;
    }

    /// What was claimed has been published: whether these stay is for the usual reasons now.
    pub fn release(&self, hashes: &[Hash]) {
        self.0.release(hashes);
    }

    /// These are not to be deleted after all.
    pub fn spare(&self, hashes: &BTreeSet<Hash>) {
        hashes.iter().for_each(|hash| self.0.sweep.spare(hash));
    }

    /// Deletes those of these blobs that are still marked: names first, then bytes. What reads them goes on. With
    /// `keep_links`, where they belong stays known. Returns the ones that were not marked any more.
    ///
    /// # Errors
    /// What the disk says. Some may be gone then.
    pub async fn remove(&self, hashes: &BTreeSet<Hash>, keep_links: bool) -> std::io::Result<BTreeSet<Hash>> {
        self.0.remove(hashes, keep_links).await
    }

    /// When what is here was last used.
    pub fn uses(&self) -> &Uses {
        &self.0.uses
    }

    /// Ends when the store has stopped because its disk failed: only another start can help then.
    pub async fn stopped(&self) {
        self.0.blobs.stopped().await;
    }

    /// Closes everything and leaves the index complete, so that the next start need not build it again.
    /// Whatever is asked of the store afterwards fails.
    pub async fn shutdown(&self) {
        self.0.shutdown().await;
    }
}

/// What all handles share.
struct Inner {
    dirs: Arc<dirs::Dirs>,
    blobs: blobs::Blobs,
    index: Index,
    /// The name of this run, which the index is marked with when it is left complete.
    run: u64,
    uploads: uploads::Uploads,
    partials: Arc<partial::Partials>,
    segments: segments::Segments,
    reading: reading::Reading,
    active: ingest::Active,
    outboards: Arc<outboards::Outboards>,
    sweep: Arc<sweep::Sweep>,
    uses: Uses,
}

impl Inner {
    async fn link(&self, repository: &RepoName, held: &Held) -> Result<(), IngestError> {
        let _pass = self.sweep.pass().await;
        self.link_within(repository, held).await
    }

    /// As `link`, for who has passed the gate.
    async fn link_within(&self, repository: &RepoName, held: &Held) -> Result<(), IngestError> {
        let Held { digest, hash, size } = *held;
        self.sweep.spare(&hash);
        let failed = |error| draft::storage("the link", error);
        let link = ground::Ground::Link { repository: repository.clone(), digest, size };
        self.blobs.name(&link, hash).await.map_err(failed)?;
        self.blobs.sync().await.map_err(failed)?;
        self.index.link_local(repository, held);
        Ok(())
    }

    async fn seal(&self, hash: Hash, size: u64, digest: Option<Digest>) -> Result<(), IngestError> {
        let _pass = self.sweep.pass().await;
        self.sweep.spare(&hash);
        if !self.is_whole(hash, size).await {
            if matches!(self.blobs.complete(hash).await, Ok(Some(_))) {
                // The store believes to have it, and would take nothing more of it.
                self.damaged(hash);
            }
            return Err(IngestError::Busy(format!("blob {hash} is not complete; fetch what is missing")));
        }
        let failed = |error| draft::storage("the fetched blob", error);
        self.blobs.settle(hash, size).await.map_err(failed)?;
        if size > blobs::INLINE && !self.dirs.file(&hash).exists() {
            self.reading.mark_fetched(hash, &self.dirs.data(&hash));
        }
        match digest {
            Some(digest) => self.admit(None, Held { digest, hash, size }).await.map(|_| ()),
            None => {
                self.blobs.name(&ground::Ground::Nameless { hash, size }, hash).await.map_err(failed)?;
                self.blobs.sync().await.map_err(failed)
            }
        }
    }

    async fn shutdown(&self) {
        let _stopped = self.segments.stop().await;
        self.sweep.close().await;
        if let Err(error) = self.uses.save() {
            tracing::debug!(%error, "when what is here was last used is not known to the next start");
        }
        match self.index.leave(self.run) {
            Ok(()) => {}
            Err(error) => {
                tracing::warn!(%error, "the index could not be completed; the next start builds it")
            }
        }
        self.blobs.shutdown().await;
        // The least of it, so last.
        self.partials.stop().await;
    }
}

#[cfg(test)]
mod tests;
