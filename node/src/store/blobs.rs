//! The iroh-blobs store with what it leaves to its user: fsync, one sync for many, limits on what it is
//! asked at once, and names. Verifying bytes before they are served is for `reading.rs`.
//!
//! What is to be deleted, and when, is said by `sweep.rs`; `collector.rs` has the store do it.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use iroh_blobs::{
    BlobFormat,
    api::blobs::{AddPathOptions, BlobStatus, ImportMode},
    store::fs::FsStore,
};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use waystation_proto::{Hash, ranges::Ranges};

use super::{
    collector::Collector,
    dirs::{Dirs, sync_dir},
    ground::Ground,
    room::Kind,
};

/// A handle on the opened store.
pub(super) struct Blobs {
    fs: FsStore,
    dirs: Arc<Dirs>,
    /// How many syncs were asked for.
    asked: AtomicU64,
    /// How many of those the finished syncs covered. Held while one runs, so that there is one at a time.
    covered: Mutex<u64>,
    /// How many syncs ran.
    ran: AtomicU64,
    /// Cancelled when the database has stopped: nothing can be stored or looked up until the next start.
    stopped: CancellationToken,
    pub(super) collector: Arc<Collector>,
    reads: Semaphore,
    imports: Semaphore,
}

/// A named tag as listed.
pub(super) struct Named {
    pub ground: Ground,
    pub hash: Hash,
}

impl Blobs {
    /// Opens the database, making it if there is none.
    pub async fn open(dirs: Arc<Dirs>) -> io::Result<Self> {
        let collector = Arc::new(Collector::default());
        let options = collector.options(&dirs.blobs());
        let database = dirs.blobs().join(DATABASE);
        let fs = FsStore::load_with_opts(database, options).await.map_err(io::Error::other)?;
        // The entries of the database and of the directories, where they have just been made.
        let made = dirs.blobs();
        blocking(move || sync_dir(&made)).await?;
        Ok(Blobs {
            fs,
            dirs,
            asked: AtomicU64::new(0),
            covered: Mutex::new(0),
            ran: AtomicU64::new(0),
            stopped: CancellationToken::new(),
            collector,
            reads: Semaphore::new(MAX_READS),
            imports: Semaphore::new(MAX_IMPORTS),
        })
    }

    /// The store itself.
    pub fn api(&self) -> iroh_blobs::api::Store {
        self.fs.clone().into()
    }

    /// Ends when the database has stopped, which it does when a commit fails.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    /// Says that it has stopped.
    pub fn stop(&self) {
        self.stopped.cancel();
    }

    /// Adds bytes that are in memory. They are durable after [`Self::settle`] and [`Self::sync`].
    pub async fn add_bytes(&self, bytes: Bytes) -> io::Result<Hash> {
        let kind = if bytes.len() as u64 <= INLINE { Kind::Rows } else { Kind::Bulk };
        self.dirs.room.take_small(kind, bytes.len() as u64)?;
        let _turn = self.imports.acquire().await.map_err(io::Error::other)?;
        let tag = self.fs.blobs().add_bytes(bytes).temp_tag().await.map_err(io::Error::other)?;
        Ok(ours(tag.hash()))
    }

    /// Adds a file of ours, which stays where it is and must not change from now on.
    pub async fn add_file(&self, path: PathBuf) -> io::Result<Hash> {
        let _turn = self.imports.acquire().await.map_err(io::Error::other)?;
        let options = AddPathOptions { path, format: BlobFormat::Raw, mode: ImportMode::TryReference };
        let tag = self.fs.blobs().add_path_with_opts(options).temp_tag().await.map_err(io::Error::other)?;
        Ok(ours(tag.hash()))
    }

    /// Makes durable what lies in files of a blob: its data, wherever it is, and its outboard. The store
    /// itself syncs neither.
    pub async fn settle(&self, hash: Hash, size: u64) -> io::Result<()> {
        if size <= INLINE {
            return Ok(());
        }
        let dirs = self.dirs.clone();
        blocking(move || {
            let (file, data, outboard) = (dirs.file(&hash), dirs.data(&hash), dirs.outboard(&hash));
            let in_files = sync_file(&file)?;
            let in_data = sync_file(&data)?;
            if !in_files && !in_data {
                return Err(io::Error::new(io::ErrorKind::NotFound, format!("{} is gone", data.display())));
            }
            if let Some(dir) = file.parent().filter(|_| in_files) {
                sync_dir(dir)?;
            }
            if sync_file(&outboard)? || in_data {
                sync_dir(dirs.blobs_data())?;
            }
            Ok(())
        })
        .await
    }

    /// Sets a named tag. It is durable after [`Self::sync`].
    pub async fn name(&self, ground: &Ground, hash: Hash) -> io::Result<()> {
        if !matches!(ground, Ground::Run(_)) {
            self.dirs.room.check(Kind::Rows, 0)?;
        }
        self.fs.tags().set(ground.to_string(), theirs(hash)).await.map_err(io::Error::other)
    }

    /// Takes a named tag away.
    pub async fn unname(&self, ground: &Ground) -> io::Result<()> {
        self.fs.tags().delete(ground.to_string()).await.map(|_| ()).map_err(io::Error::other)
    }

    /// All named tags that are ours.
    pub async fn names(&self) -> io::Result<Vec<Named>> {
        let mut tags = self.fs.tags().list().await.map_err(io::Error::other)?;
        let mut names = Vec::new();
        while let Some(tag) = tags.next().await {
            let tag = tag.map_err(io::Error::other)?;
            let name = std::str::from_utf8(tag.name.0.as_ref()).ok();
            match name.and_then(|name| name.parse().ok()) {
                Some(ground) => names.push(Named { ground, hash: ours(tag.hash) }),
                None => tracing::debug!(tag = %tag.name, "a tag in the store that is not the node's"),
            }
        }
        Ok(names)
    }

    /// Replaces the name of the run that may write the index.
    pub async fn name_run(&self, nonce: u64) -> io::Result<()> {
        self.fs.tags().delete_prefix(Ground::RUNS).await.map_err(io::Error::other)?;
        self.name(&Ground::Run(nonce), ours(iroh_blobs::Hash::EMPTY)).await?;
        self.sync().await
    }

    /// Returns when everything that was written before the call is durable. Callers that come while a sync
    /// runs share the next one.
    pub async fn sync(&self) -> io::Result<()> {
        let mine = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut covered = self.covered.lock().await;
        if *covered >= mine {
            return Ok(());
        }
        let covers = self.asked.load(Ordering::SeqCst);
        self.fs.sync_db().await.map_err(|error| {
            self.stopped.cancel();
            io::Error::other(error)
        })?;
        *covered = covers;
        self.ran.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// As if a sync ran, until it is dropped.
    #[cfg(test)]
    pub async fn hold_syncs(&self) -> impl Drop + '_ {
        self.covered.lock().await
    }

    /// Lets every import fail from now on.
    #[cfg(test)]
    pub fn refuse_imports(&self) {
        self.imports.close();
    }

    /// How many syncs were asked for, and how many ran.
    #[cfg(test)]
    pub fn sync_counts(&self) -> (u64, u64) {
        (self.asked.load(Ordering::Relaxed), self.ran.load(Ordering::Relaxed))
    }

    /// All hashes that the store knows.
    pub async fn hashes(&self) -> io::Result<Vec<Hash>> {
        let hashes = self.fs.blobs().list().hashes().await.map_err(io::Error::other)?;
        Ok(hashes.into_iter().map(ours).collect())
    }

    /// All hashes that the store knows, and the sizes of those that are complete.
    pub async fn list(&self) -> io::Result<Vec<(Hash, Option<u64>)>> {
        stream::iter(self.hashes().await?)
            .map(|hash| async move { Ok((hash, self.complete(hash).await?)) })
            .buffer_unordered(LIST_AT_ONCE)
            .collect::<Vec<_>>()
            .await
            .into_iter()
            .collect()
    }

    /// The size of a blob that the store calls complete.
    pub async fn complete(&self, hash: Hash) -> io::Result<Option<u64>> {
        match self.fs.blobs().status(theirs(hash)).await.map_err(io::Error::other)? {
            BlobStatus::Complete { size } => Ok(Some(size)),
            BlobStatus::Partial { .. } | BlobStatus::NotFound => Ok(None),
        }
    }

    /// Whether the store has nothing of a blob.
    pub async fn is_unknown(&self, hash: Hash) -> io::Result<bool> {
        let status = self.fs.blobs().status(theirs(hash)).await.map_err(io::Error::other)?;
        Ok(matches!(status, BlobStatus::NotFound))
    }

    /// Which whole groups of a partial blob are here and verified.
    pub async fn partial(&self, hash: Hash, size: u64) -> Ranges {
        let Ok(_turn) = self.reads.acquire().await else { return Ranges::new() };
        match self.fs.blobs().observe(theirs(hash)).await {
            Ok(field) => whole_groups(field.ranges.boundaries().iter().map(|chunk| chunk.0), size),
            Err(error) => {
                tracing::debug!(%hash, %error, "what is here of a blob cannot be told, so it counts as absent");
                Ranges::new()
            }
        }
    }

    /// The bytes of a complete blob, verified. Meant for blobs of at most [`INLINE`] bytes.
    pub async fn bytes(&self, hash: Hash) -> io::Result<Bytes> {
        if hash == ours(iroh_blobs::Hash::EMPTY) {
            return Ok(Bytes::new());
        }
        let _turn = self.reads.acquire().await.map_err(io::Error::other)?;
        self.fs.blobs().get_bytes(theirs(hash)).await.map_err(|error| {
            io::Error::new(io::ErrorKind::InvalidData, format!("blob {hash} cannot be read: {error}"))
        })
    }

    /// Closes the database. Dropping alone would leave its lock behind for a while.
    pub async fn shutdown(&self) {
        if let Err(error) = self.fs.shutdown().await {
            tracing::error!(%error, "the blob store did not close cleanly; what was acknowledged is safe");
        }
    }
}

/// Runs work that blocks on a thread for it.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Syncs a file, if it is there.
fn sync_file(path: &Path) -> io::Result<bool> {
    match File::open(path) {
        Ok(file) => file.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a file that may be gone already.
pub(super) fn remove_file(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "a file that is of no use any more stays on disk");
        }
        _ => {}
    }
}

/// Byte ranges from the boundaries of chunk ranges, cut down to whole groups of what is below `size`.
fn whole_groups(mut chunks: impl Iterator<Item = u64>, size: u64) -> Ranges {
    let mut ranges = Ranges::new();
    while let Some(first) = chunks.next() {
        let start = first.saturating_mul(CHUNK).div_ceil(GROUP).saturating_mul(GROUP);
        let end = chunks.next().map_or(u64::MAX, |end| end.saturating_mul(CHUNK));
        let end = if end >= size { size } else { end / GROUP * GROUP };
        if start < end {
            ranges.insert(start..end);
        }
    }
    ranges
}

fn ours(hash: iroh_blobs::Hash) -> Hash {
    Hash(*hash.as_bytes())
}

pub(super) fn theirs(hash: Hash) -> iroh_blobs::Hash {
    iroh_blobs::Hash::from_bytes(hash.0)
}

/// The store's database.
pub(super) const DATABASE: &str = "blobs.db";
/// Blobs up to this many bytes lie in the store's database, larger ones in files. iroh-blobs' default.
pub(super) const INLINE: u64 = 16 * 1024;
/// BLAKE3's unit.
const CHUNK: u64 = 1024;
/// What the store verifies and fetches by.
pub(super) const GROUP: u64 = 16 * CHUNK;
/// Reads that the store is asked at once. It refuses more than about 32 on one blob, and other parts of
/// the node ask it too.
const MAX_READS: usize = 8;
/// Imports at once, for the same reason.
const MAX_IMPORTS: usize = 4;
/// Questions at once while the store is being listed.
const LIST_AT_ONCE: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_groups_count() {
        let of = |chunks: &[u64], size| {
            whole_groups(chunks.iter().copied(), size).iter().map(|r| (r.start, r.end)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[], 100), []);
        assert_eq!(of(&[0], 100), [(0, 100)]);
        assert_eq!(of(&[0, 16], 40_000), [(0, 16_384)]);
        assert_eq!(of(&[1, 33], 40_000), [(16_384, 32_768)]);
        assert_eq!(of(&[0, 15], 40_000), []);
        assert_eq!(of(&[32, 40], 40_000), [(32_768, 40_000)]);
        assert_eq!(of(&[32, 39], 40_000), []);
        assert_eq!(of(&[0, 16, 32], 40_000), [(0, 16_384), (32_768, 40_000)]);
    }
}
