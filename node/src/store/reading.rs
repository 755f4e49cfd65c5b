//! Reading held blobs, and never serving a file that rotted: before a file's bytes are first served after a
//! start, and when its length or time of change are others than before, they are hashed again: all of them, or those
//! that are asked for (`served.rs`). A file that fails goes to `quarantine/` and its digests are forgotten, so that it
//! is fetched or pushed again.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{self, File},
    io::{self, Read},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use bytes::Bytes;
use waystation_proto::{Hash, ranges::Ranges};

use super::{
    BlobReader, Inner,
    blobs::{INLINE, blocking, remove_file},
    ground::Ground,
    rehash::hash_file,
};

/// What is known of the files that are served.
#[derive(Default)]
pub(super) struct Reading(Mutex<State>);

#[derive(Default)]
struct State {
    /// Files that had the right bytes when they were as marked.
    checked: BTreeMap<Hash, Mark>,
    /// Files of which parts were found right, and which.
    parts: BTreeMap<Hash, (Mark, Ranges)>,
    /// One check at a time for each blob; who comes meanwhile waits for its outcome.
    turns: BTreeMap<Hash, Arc<tokio::sync::Mutex<()>>>,
    /// Blobs in files that were complete when the node started and have not been hashed since. True where
    /// nothing named them: a crash may have come before their bytes were durable.
    old: BTreeMap<Hash, bool>,
    small: BTreeMap<Hash, Bytes>,
    /// The small blobs, oldest first.
    order: VecDeque<Hash>,
    small_bytes: usize,
}

/// By what it is told whether a file has been changed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    length: u64,
    modified: SystemTime,
}

impl Reading {
    /// Says which blobs are from earlier runs, and which of them have to be checked before they count as held.
    pub fn recover(&self, old: BTreeMap<Hash, bool>) {
        self.state().old = old;
    }

    /// A blob's file has been written by this run, every group verified.
    pub fn mark_fetched(&self, hash: Hash, path: &Path) {
        if !self.state().old.contains_key(&hash) {
            self.mark(hash, path);
        }
    }

    /// A file's bytes have just been found right.
    pub fn mark(&self, hash: Hash, path: &Path) {
        if let Ok(mark) = fs::metadata(path).and_then(|metadata| Mark::of(&metadata)) {
            self.state().check(hash, mark);
        }
    }

    fn is_checked(&self, hash: &Hash, mark: Mark) -> bool {
        self.state().checked.get(hash) == Some(&mark)
    }

    /// Whether these bytes of a file have been found right, or all of it.
    pub fn is_right(&self, hash: &Hash, mark: Mark, range: &Range<u64>) -> bool {
        let state = self.state();
        let parts = state.parts.get(hash).filter(|(of, _)| *of == mark);
        state.checked.get(hash) == Some(&mark) || parts.is_some_and(|(_, parts)| parts.contains(range))
    }

    /// These bytes of a blob's file have been found right. What there is no room to remember is looked at again.
    pub fn note(&self, hash: Hash, mark: Mark, size: u64, range: Range<u64>) {
        let mut state = self.state();
        if state.parts.len() >= MAX_PARTS && !state.parts.contains_key(&hash) {
            state.parts.pop_first();
        }
        let (of, parts) = state.parts.entry(hash).or_insert_with(|| (mark, Ranges::new()));
        if *of != mark || parts.iter().count() >= MAX_PIECES {
            (*of, *parts) = (mark, Ranges::new());
        }
        parts.insert(range);
        if parts.contains(&(0..size)) {
            state.check(hash, mark);
        }
    }

    fn turn(&self, hash: Hash) -> Arc<tokio::sync::Mutex<()>> {
        let mut state = self.state();
        state.turns.retain(|_, turn| Arc::strong_count(turn) > 1);
        state.turns.entry(hash).or_default().clone()
    }

    /// A blob is not here any more.
    pub fn forget(&self, hash: &Hash) {
        self.state().forget(hash);
    }

    fn small(&self, hash: &Hash) -> Option<Bytes> {
        self.state().small.get(hash).cloned()
    }

    fn keep_small(&self, hash: Hash, bytes: &Bytes) {
        let mut state = self.state();
        // A slice would keep alive what it was cut from.
        if state.small.insert(hash, Bytes::copy_from_slice(bytes)).is_none() {
            state.order.push_back(hash);
            state.small_bytes += bytes.len();
        }
        while state.small_bytes > MAX_SMALL_BYTES || state.order.len() > MAX_SMALL {
            let Some(oldest) = state.order.pop_front() else { break };
            state.small_bytes -= state.small.remove(&oldest).map_or(0, |bytes| bytes.len());
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn check(&mut self, hash: Hash, mark: Mark) {
        if self.checked.len() >= MAX_CHECKED && !self.checked.contains_key(&hash) {
            self.checked.pop_first();
        }
        self.checked.insert(hash, mark);
        self.parts.remove(&hash);
        self.old.remove(&hash);
    }

    fn forget(&mut self, hash: &Hash) {
        self.checked.remove(hash);
        self.parts.remove(hash);
        self.old.remove(hash);
        if let Some(bytes) = self.small.remove(hash) {
            self.small_bytes -= bytes.len();
            self.order.retain(|other| other != hash);
        }
    }
}

impl Mark {
    fn of(metadata: &fs::Metadata) -> io::Result<Self> {
        Ok(Mark { length: metadata.len(), modified: metadata.modified()? })
    }

    /// Whether the file has this length.
    pub fn is_of(&self, size: u64) -> bool {
        self.length == size
    }
}

impl Inner {
    /// See [`super::Store::open_blob`].
    pub async fn open_blob(&self, hash: Hash, size: u64) -> io::Result<BlobReader> {
        self.sweep.spare(&hash);
        if size <= INLINE {
            return self.small(hash, size).await.map(BlobReader::Memory);
        }
        if let Some((file, mark)) = self.open_file(hash).await?
            && mark.length == size
            && self.reading.is_checked(&hash, mark)
        {
            return Ok(BlobReader::File(file, size));
        }
        self.check(hash, size).await.map(|file| BlobReader::File(file, size))
    }

    /// The size of a blob of which all is here.
    pub(super) async fn complete(&self, hash: Hash) -> io::Result<Option<u64>> {
        match self.outboards.size(&hash) {
            Some(size) => Ok(Some(size)),
            None => self.blobs.complete(hash).await,
        }
    }

    /// See [`super::Store::read`].
    pub async fn read(&self, hash: Hash, max: u64) -> io::Result<Bytes> {
        self.sweep.spare(&hash);
        if let Some(bytes) = self.reading.small(&hash).filter(|bytes| bytes.len() as u64 <= max) {
            return Ok(bytes);
        }
        let size = self.complete(hash).await?.ok_or_else(|| not_here(&hash))?;
        if size > max {
            let text = format!("blob {hash} has {size} bytes, more than the {max} that are read at once");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        match self.open_blob(hash, size).await? {
            BlobReader::Memory(bytes) => Ok(bytes),
            BlobReader::File(mut file, size) => {
                let read = blocking(move || {
                    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
                    file.read_to_end(&mut bytes)?;
                    let found = (size <= MAX_KEPT).then(|| Hash::of(&bytes));
                    Ok((Bytes::from(bytes), found))
                });
                let (bytes, found) = read.await?;
                if found == Some(hash) {
                    self.reading.keep_small(hash, &bytes);
                }
                Ok(bytes)
            }
        }
    }

    /// See [`super::Store::probe`].
    pub async fn probe(&self, hash: Hash, size: u64) -> Ranges {
        self.healed(&hash).await;
        let _pass = self.sweep.pass().await;
        self.sweep.spare(&hash);
        if self.is_whole(hash, size).await {
            return Ranges::all(size);
        }
        match self.complete(hash).await {
            Ok(None) => self.blobs.partial(hash, size).await,
            // Complete to the store, but its file failed the check.
            Ok(Some(_)) | Err(_) => Ranges::new(),
        }
    }

    /// See [`super::Store::open_growing`].
    pub async fn open_growing(&self, hash: Hash) -> io::Result<File> {
        let data = self.dirs.data(&hash);
        blocking(move || File::open(data)).await
    }

    /// Whether all of a blob is here, and, where there is doubt, has the right bytes.
    pub async fn is_whole(&self, hash: Hash, size: u64) -> bool {
        if !matches!(self.complete(hash).await, Ok(Some(found)) if found == size) {
            return false;
        }
        if size <= INLINE {
            return true;
        }
        let doubtful = self.reading.state().old.get(&hash) == Some(&true);
        if doubtful {
            return self.check(hash, size).await.is_ok();
        }
        matches!(self.open_file(hash).await, Ok(Some((_, mark))) if mark.length == size)
    }

    /// Whether all of a blob is here and would be served: what is put in again must not be dropped for a file
    /// that rotted.
    pub async fn is_sound(&self, hash: Hash, size: u64) -> bool {
        self.is_whole(hash, size).await && (size <= INLINE || self.check(hash, size).await.is_ok())
    }

    /// After a blob was put in again whose file had been quarantined: where the store still expects a file
    /// of its own, it finds ours.
    pub async fn mend(&self, hash: Hash, size: u64) -> io::Result<()> {
        if size <= INLINE {
            return Ok(());
        }
        let (file, data) = (self.dirs.file(&hash), self.dirs.data(&hash));
        let dirs = self.dirs.clone();
        blocking(move || {
            if dirs.quarantine().join(hash.to_string()).exists() && file.exists() && !data.exists() {
                fs::hard_link(&file, &data)?;
            }
            Ok(())
        })
        .await
    }

    /// Takes a blob that is not what it should be out of service.
    pub async fn quarantine(&self, hash: Hash, why: &str) {
        tracing::error!(%hash, why, "a stored blob is damaged; it is put aside and will be fetched or pushed again");
        self.reading.state().forget(&hash);
        let dirs = self.dirs.clone();
        let moved = blocking(move || {
            let aside = dirs.quarantine().join(hash.to_string());
            for path in [dirs.file(&hash), dirs.data(&hash)] {
                match fs::rename(&path, &aside) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            drop_oldest(&dirs.quarantine())
        });
        if let Err(error) = moved.await {
            tracing::error!(%hash, %error, "a damaged blob could not be put aside");
        }
        if let Err(error) = self.forget(hash).await {
            tracing::error!(%hash, %error, "a damaged blob's digests could not be forgotten");
        }
        self.damaged(hash);
    }

    async fn small(&self, hash: Hash, size: u64) -> io::Result<Bytes> {
        if let Some(bytes) = self.reading.small(&hash) {
            return Ok(bytes);
        }
        match self.complete(hash).await? {
            None => return Err(not_here(&hash)),
            Some(found) if found != size => {
                let text = format!("blob {hash} has {found} bytes, not {size}");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
            Some(_) => {}
        }
        let bytes = self.blobs.bytes(hash).await?;
        if Hash::of(&bytes) != hash {
            self.quarantine(hash, "its bytes have another hash").await;
            return Err(damaged(&hash));
        }
        self.reading.keep_small(hash, &bytes);
        Ok(bytes)
    }

    /// Opens a complete blob's file after hashing it.
    pub(super) async fn check(&self, hash: Hash, size: u64) -> io::Result<File> {
        let turn = self.reading.turn(hash);
        let _turn = turn.lock().await;
        if self.complete(hash).await? != Some(size) {
            return Err(not_here(&hash));
        }
        let (file, mark) = self.open_file(hash).await?.ok_or_else(|| not_here(&hash))?;
        if mark.length == size && self.reading.is_checked(&hash, mark) {
            return Ok(file);
        }
        if mark.length != size {
            self.quarantine(hash, "its file has another length").await;
            return Err(damaged(&hash));
        }
        let (file, found) = blocking(move || {
            let found = hash_file(&file, size)?;
            Ok((file, found))
        })
        .await?;
        if found != hash {
            self.quarantine(hash, "its bytes have another hash").await;
            return Err(damaged(&hash));
        }
        self.reading.state().check(hash, mark);
        Ok(file)
    }

    /// The file of a blob, ours or the store's. Ours first: what the store has may be a download that a
    /// push overtook.
    pub(super) async fn open_file(&self, hash: Hash) -> io::Result<Option<(File, Mark)>> {
        let paths: [PathBuf; 2] = [self.dirs.file(&hash), self.dirs.data(&hash)];
        blocking(move || {
            for path in paths {
                match File::open(path) {
                    Ok(file) => {
                        let mark = Mark::of(&file.metadata()?)?;
                        return Ok(Some((file, mark)));
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(None)
        })
        .await
    }

    async fn forget(&self, hash: Hash) -> io::Result<()> {
        for named in self.blobs.names().await?.into_iter().filter(|named| named.hash == hash) {
            if let Ground::Blob { digest, .. } = named.ground {
                self.index.forget(&digest);
            }
            if !matches!(named.ground, Ground::Link { .. } | Ground::Segment(_)) {
                self.blobs.unname(&named.ground).await?;
            }
        }
        self.blobs.sync().await
    }
}

/// Keeps the newest few of the quarantined files, for whoever wants to know what happened to the disk.
fn drop_oldest(dir: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        files.push((entry.metadata()?.modified()?, entry.path()));
    }
    files.sort();
    let surplus = files.len().saturating_sub(MAX_QUARANTINED);
    files[..surplus].iter().for_each(|(_, path)| remove_file(path));
    Ok(())
}

fn not_here(hash: &Hash) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("blob {hash} is not here"))
}

fn damaged(hash: &Hash) -> io::Error {
    let text =
        format!("blob {hash} is damaged on disk; it was put aside and has to be fetched or pushed again");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Most files whose marks are remembered; a forgotten one is hashed again.
const MAX_CHECKED: usize = 65_536;
/// Most files of which it is remembered which parts were found right,
const MAX_PARTS: usize = 256;
/// and in how many pieces that may lie apart.
const MAX_PIECES: usize = 1024;
/// Most bytes of small blobs kept in memory. Manifests are asked for far more often than layers.
const MAX_SMALL_BYTES: usize = 4 * 1024 * 1024;
/// Largest blob kept in memory of those in files: manifests with many layers.
const MAX_KEPT: u64 = 128 * 1024;
/// Most small blobs kept in memory.
const MAX_SMALL: usize = 4096;
/// Most files in `quarantine/`.
const MAX_QUARANTINED: usize = 8;
