//! Downloads that were not finished: `uploads/+partial/<name>` has what came, `<name>.json` says what that is and how
//! much of it the disk has for certain. Owns what is kept of them, for how long and in which bounds; where the bytes
//! come from and what they become is for [`super::incoming`].
//!
//! A file without a valid note counts as nothing. What a note vouches for is read and hashed again before it is gone
//! on with, and the whole is checked against its digest at the end, as any other download is.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use tokio::{
    sync::{oneshot, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use waystation_proto::{Digest, Hash, RepoName};

use super::{
    blobs::{blocking, remove_file},
    dirs::{Dirs, sync_dir},
};

/// All that is kept of unfinished downloads.
pub(super) struct Partials {
    dir: PathBuf,
    known: Mutex<BTreeMap<String, Rest>>,
    /// The tasks that note, and what has them do it for the last time.
    noters: TaskTracker,
    stop: CancellationToken,
}

/// One of them.
struct Rest {
    /// Whether somebody writes to it.
    busy: bool,
    bytes: u64,
    /// From when on it has rested.
    since: Instant,
}

/// What the upstream said of a blob that comes from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Its size in bytes.
    pub size: Option<u64>,
    /// Its strong entity tag.
    pub etag: Option<String>,
}

/// The note beside a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    format: u32,
    repository: String,
    digest: String,
    size: Option<u64>,
    etag: Option<String>,
    /// How many bytes the disk has,
    synced: u64,
    /// and their BLAKE3.
    hash: String,
}

/// The right to write to one of the files. What was noted stays when the last clone is dropped, for whoever asks for
/// the same next; without a note all of it goes.
pub(super) struct Claim {
    partials: Arc<Partials>,
    name: String,
    repository: RepoName,
    digest: Digest,
    noted: AtomicU64,
}

/// What a note vouches for.
pub(super) struct Found {
    /// How many bytes, from the first on.
    pub length: u64,
    /// Their BLAKE3.
    pub hash: Hash,
    /// Where it came from.
    pub origin: Origin,
}

/// Has the disk take what comes and notes that, every few seconds. One that is dropped does so once more.
pub(super) struct Noter {
    end: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

struct Noting {
    claim: Arc<Claim>,
    origin: Origin,
    file: File,
    hasher: blake3::Hasher,
    noted: u64,
}

impl Partials {
    /// Finds those of earlier runs; removes what cannot be gone on with, and the oldest where there is too much.
    pub fn recover(dirs: &Dirs) -> io::Result<Arc<Self>> {
        let dir = dirs.partial();
        let (mut found, mut files) = (Vec::new(), Vec::new());
        for entry in fs::read_dir(&dir)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            match name.strip_suffix(NOTE) {
                Some(name) => match read_note(&dir, name) {
                    Some((note, age)) if age < EXPIRY => found.push((age, name.to_owned(), note.synced)),
                    _ => remove_file(&path),
                },
                None => files.push((name, path)),
            }
        }
        for (name, path) in files {
            if !found.iter().any(|(_, noted, _)| *noted == name) {
                remove_file(&path);
            }
        }
        let now = Instant::now();
        let known = found.into_iter().map(|(age, name, bytes)| {
            (name, Rest { busy: false, bytes, since: now.checked_sub(age).unwrap_or(now) })
        });
        let known = Mutex::new(known.collect());
        let partials =
            Arc::new(Partials { dir, known, noters: TaskTracker::new(), stop: CancellationToken::new() });
        partials.sweep(now, BYTES_MAX);
        Ok(partials)
    }

    /// The right to a blob's file; none while somebody else writes to it.
    pub fn claim(self: &Arc<Self>, repository: &RepoName, digest: Digest) -> Option<Arc<Claim>> {
        let name = name_of(repository, &digest);
        let mut known = self.known();
        let rest = known.entry(name.clone()).or_insert(Rest { busy: false, bytes: 0, since: Instant::now() });
        if std::mem::replace(&mut rest.busy, true) {
            return None;
        }
        let noted = AtomicU64::new(rest.bytes);
        let partials = self.clone();
        Some(Arc::new(Claim { partials, name, repository: repository.clone(), digest, noted }))
    }

    /// Has what is coming noted for the last time, so that the next run goes on from there.
    pub async fn stop(&self) {
        self.stop.cancel();
        self.noters.close();
        if tokio::time::timeout(LAST, self.noters.wait()).await.is_err() {
            tracing::debug!("the disk is slow; the last seconds of some downloads will come again");
        }
    }

    /// Removes what has rested too long, and the oldest of what rests until there are at most so many bytes.
    pub fn sweep(&self, now: Instant, bytes_max: u64) {
        let mut known = self.known();
        let expired = |rest: &Rest| now.saturating_duration_since(rest.since) > EXPIRY;
        let old: Vec<String> = known
            .iter()
            .filter(|(_, rest)| !rest.busy && expired(rest))
            .map(|(name, _)| name.clone())
            .collect();
        old.iter().for_each(|name| self.remove(&mut known, name));
        let bytes_max = bytes_max.min(BYTES_MAX);
        while let resting = known.values().filter(|rest| !rest.busy)
            && (resting.clone().count() > COUNT_MAX
                || resting.map(|rest| rest.bytes).sum::<u64>() > bytes_max)
        {
            if self.remove_oldest(&mut known).is_none() {
                return;
            }
        }
    }

    /// Removes the oldest of what rests until so many bytes are free of it. Returns how many.
    pub fn yield_bytes(&self, wanted: u64) -> u64 {
        let (mut known, mut freed) = (self.known(), 0);
        while freed < wanted
            && let Some(bytes) = self.remove_oldest(&mut known)
        {
            freed += bytes;
        }
        freed
    }

    fn remove_oldest(&self, known: &mut BTreeMap<String, Rest>) -> Option<u64> {
        let resting = known.iter().filter(|(_, rest)| !rest.busy);
        let (name, bytes) =
            resting.min_by_key(|(_, rest)| rest.since).map(|(name, rest)| (name.clone(), rest.bytes))?;
        self.remove(known, &name);
        Some(bytes)
    }

    fn remove(&self, known: &mut BTreeMap<String, Rest>, name: &str) {
        known.remove(name);
        // In this order: a file without a note is nothing.
        remove_file(&note_path(&self.dir, name));
        remove_file(&self.dir.join(name));
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Rest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// The file.
    pub fn path(&self) -> PathBuf {
        self.partials.dir.join(&self.name)
    }

    /// What is there to go on with, as its note says. The file must not be another blob's as well. Blocks.
    pub fn find(&self) -> Option<Found> {
        let (note, _) = read_note(&self.partials.dir, &self.name)?;
        let its = note.repository == self.repository.as_str() && note.digest == self.digest.to_string();
        let metadata = fs::symlink_metadata(self.path()).ok()?;
        if !its || !metadata.is_file() || metadata.nlink() != 1 || metadata.len() < note.synced {
            return None;
        }
        let hash = note.hash.parse().ok()?;
        Some(Found { length: note.synced, hash, origin: Origin { size: note.size, etag: note.etag } })
    }

    /// What is there counts as nothing from now on. Blocks.
    pub fn forget(&self) {
        self.noted.store(0, SeqCst);
        remove_file(&note_path(&self.partials.dir, &self.name));
    }

    /// Vouches for the first bytes of the file, which the disk must have. Blocks.
    fn note(&self, origin: &Origin, synced: u64, hash: &blake3::Hash) -> io::Result<()> {
        let note = Note {
            format: FORMAT,
            repository: self.repository.as_str().to_owned(),
            digest: self.digest.to_string(),
            size: origin.size,
            etag: origin.etag.clone(),
            synced,
            hash: Hash(*hash.as_bytes()).to_string(),
        };
        let dir = &self.partials.dir;
        let new = dir.join(format!("{}.new", self.name));
        let mut file = File::create(&new)?;
        file.write_all(&serde_json::to_vec(&note)?)?;
        file.sync_all()?;
        fs::rename(&new, note_path(dir, &self.name))?;
        sync_dir(dir)?;
        self.noted.store(synced, SeqCst);
        Ok(())
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut known = self.partials.known();
        let noted = self.noted.load(SeqCst);
        match known.get_mut(&self.name) {
            Some(rest) if noted > 0 => *rest = Rest { busy: false, bytes: noted, since: Instant::now() },
            _ => self.partials.remove(&mut known, &self.name),
        }
    }
}

impl Noter {
    /// Notes from now on what comes into the file of this claim; `hasher` has had the first `have` bytes of it.
    pub fn start(
        claim: Arc<Claim>,
        origin: Origin,
        have: u64,
        hasher: blake3::Hasher,
        mut length: watch::Receiver<u64>,
    ) -> io::Result<Self> {
        // Opened anew, so that an error of the disk is told here and to whoever writes.
        let file = OpenOptions::new().read(true).open(claim.path())?;
        let (noters, stop) = (claim.partials.noters.clone(), claim.partials.stop.clone());
        let mut noting = Noting { claim, origin, file, hasher, noted: have };
        let (end, mut ended) = oneshot::channel();
        let task = noters.spawn(async move {
            loop {
                let forgotten = tokio::select! {
                    forgotten = &mut ended => Some(forgotten.is_ok()),
                    () = stop.cancelled() => Some(false),
                    () = tokio::time::sleep(EVERY) => None,
                };
                if forgotten == Some(true) {
                    return;
                }
                let here = *length.borrow_and_update();
                let job = blocking(move || noting.note(here).map(|()| noting));
                noting = match job.await {
                    Ok(noting) => noting,
                    Err(error) => {
                        tracing::debug!(%error, "a download cannot be gone on with after a restart");
                        return;
                    }
                };
                if forgotten.is_some() {
                    return;
                }
            }
        });
        Ok(Noter { end, task })
    }

    /// Notes what is here, and then nothing more.
    pub async fn end(self) {
        drop(self.end);
        let _ = self.task.await;
    }

    /// Notes nothing more. When this returns nobody does.
    pub async fn stop(self) {
        let _ = self.end.send(());
        let _ = self.task.await;
    }
}

impl Noting {
    /// Notes what is new, where that is worth it. After an error there is no note.
    fn note(&mut self, here: u64) -> io::Result<()> {
        // The last byte is asked for again, so that the upstream is asked at all.
        let until = self.origin.size.map_or(here, |size| here.min(size.saturating_sub(1)));
        if until < self.noted + LEAST {
            return Ok(());
        }
        let noted = self.sync(until);
        if noted.is_err() {
            self.claim.forget();
        }
        noted
    }

    fn sync(&mut self, until: u64) -> io::Result<()> {
        self.file.sync_data()?;
        let mut buffer = vec![0; READ_BYTES];
        while self.noted < until {
            let some = usize::try_from(until - self.noted).map_or(READ_BYTES, |left| left.min(READ_BYTES));
            self.file.read_exact_at(&mut buffer[..some], self.noted)?;
            self.hasher.update(&buffer[..some]);
            self.noted += some as u64;
        }
        self.claim.note(&self.origin, until, &self.hasher.finalize())
    }
}

/// What blobs' files are called: a repository's path may be long, and have slashes.
fn name_of(repository: &RepoName, digest: &Digest) -> String {
    blake3::hash(format!("{repository}@{digest}").as_bytes()).to_string()
}

fn note_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{NOTE}"))
}

/// A note that is one, of a file that is there, and for how long it has not been written.
fn read_note(dir: &Path, name: &str) -> Option<(Note, Duration)> {
    let mut bytes = Vec::new();
    let file = File::open(note_path(dir, name)).ok()?;
    let age = file.metadata().ok()?.modified().ok()?.elapsed().unwrap_or_default();
    file.take(NOTE_MAX + 1).read_to_end(&mut bytes).ok()?;
    if bytes.len() as u64 > NOTE_MAX {
        return None;
    }
    let note: Note = serde_json::from_slice(&bytes).ok()?;
    let (repository, digest) = (note.repository.parse().ok()?, note.digest.parse().ok()?);
    let fits = note.format == FORMAT
        && name == name_of(&repository, &digest)
        && note.synced > 0
        && note.size.is_none_or(|size| note.synced < size)
        && fs::symlink_metadata(dir.join(name)).is_ok_and(|file| file.is_file() && file.len() >= note.synced);
    fits.then_some((note, age))
}

/// The format of notes; others count as none.
const FORMAT: u32 = 1;
const NOTE: &str = ".json";
/// The longest note, in bytes.
const NOTE_MAX: u64 = 4096;
/// How often a note is written: what came after the last one is lost in a crash.
const EVERY: Duration = Duration::from_secs(5);
/// How long the node's end waits for the last notes.
const LAST: Duration = Duration::from_secs(3);
/// New bytes that make it worth a note.
const LEAST: u64 = 256 * 1024;
/// For how long one is kept that nobody asks for.
const EXPIRY: Duration = Duration::from_secs(24 * 60 * 60);
/// Most that rest.
const COUNT_MAX: usize = 64;
/// Most bytes of what rests; less with a small quota.
const BYTES_MAX: u64 = 16 << 30;
/// What rests may take this part of the quota.
pub(super) const SHARE_OF_QUOTA: u64 = 8;
const READ_BYTES: usize = 256 * 1024;
