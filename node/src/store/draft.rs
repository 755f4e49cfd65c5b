//! A draft: a file of ours that bytes are being written to while they are hashed. How bodies are received
//! into drafts is here too; what a finished draft becomes is for `ingest.rs`.

use std::{
    collections::VecDeque,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    mem,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use sha2::Digest as _;
use tokio::{sync::watch, task::JoinHandle};
use waystation_proto::{Digest, Hash};

use super::{
    ByteStream, IngestError,
    blobs::{INLINE, remove_file},
    block::{ALIGN, Blocks},
    direct::DirectWriter,
    dirs::Dirs,
    lane::Lane,
    partial::{Claim, Found},
};
use crate::sparse::SparseWriter;

/// An open file and the hashes of what is in it. Writing blocks.
pub(super) struct Draft {
    file: Arc<File>,
    path: PathBuf,
    hasher: Hasher,
    length: Arc<AtomicU64>,
    /// Whether the file is removed when the draft is dropped.
    fleeting: bool,
    /// Bytes that were written since the disk was last told to start with them.
    unsynced: u64,
    /// Told of every write, where somebody reads along.
    grown: Option<watch::Sender<u64>>,
    /// The right to write to a file that others may want to write to; kept for as long as anything is written.
    claim: Option<Arc<Claim>>,
}

/// The end of the file, where the next bytes go.
struct Tail {
    file: Arc<File>,
    path: PathBuf,
    length: Arc<AtomicU64>,
    /// There once the file is large, unless somebody reads along.
    direct: Option<DirectWriter>,
    grown: Option<watch::Sender<u64>>,
    _claim: Option<Arc<Claim>>,
}

/// Both of a blob's names, while its bytes come in.
pub(super) struct Hasher {
    digest: DigestHasher,
    hash: blake3::Hasher,
}

enum DigestHasher {
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

/// Both names of bytes that have been hashed.
#[derive(Clone, Copy)]
pub(super) struct Names {
    pub digest: Digest,
    pub hash: Hash,
}

/// What came of a body in one go.
pub(super) struct Step {
    pub pieces: Vec<Bytes>,
    /// Set with the last step: the body's end, or what was wrong with it.
    pub end: Option<Result<(), IngestError>>,
}

/// A body that is being received, in steps that shrink with the number of such bodies.
pub(super) struct Receiver {
    body: ByteStream,
    /// How many more bytes there may be.
    room: u64,
    limit: u64,
    active: Arc<AtomicUsize>,
    dirs: Arc<Dirs>,
}

impl Draft {
    /// A new file that goes away with the draft.
    pub fn fleeting(path: PathBuf, expected: &Digest) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let length = Arc::default();
        let (file, hasher) = (Arc::new(file), Hasher::like(expected));
        Ok(Draft { file, path, hasher, length, fleeting: true, unsynced: 0, grown: None, claim: None })
    }

    /// The file of this claim with the first bytes that it had, where they are what was found before; else an empty
    /// one. The claim says what becomes of the file.
    pub fn claimed(claim: Arc<Claim>, found: Option<&Found>, expected: &Digest) -> io::Result<Self> {
        let (path, mut hasher) = (claim.path(), Hasher::like(expected));
        if let Some(found) = found {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            let read = hasher.read(&mut (&file).take(found.length))?;
            if read == found.length && hasher.names().hash == found.hash {
                file.set_len(read)?;
                let (file, length) = (Arc::new(file), Arc::new(AtomicU64::new(read)));
                let claim = Some(claim);
                return Ok(Draft {
                    file,
                    path,
                    hasher,
                    length,
                    fleeting: false,
                    unsynced: 0,
                    grown: None,
                    claim,
                });
            }
            hasher = Hasher::like(expected);
        }
        claim.forget();
        // Whatever else has this file's bytes keeps them.
        remove_file(&path);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let (file, length, claim) = (Arc::new(file), Arc::default(), Some(claim));
        Ok(Draft { file, path, hasher, length, fleeting: false, unsynced: 0, grown: None, claim })
    }

    /// The state of the hash of what is written.
    pub fn hasher(&self) -> blake3::Hasher {
        self.hasher.hash.clone()
    }

    /// A file that stays, hashed (SHA-256) as far as it is written.
    pub fn reopen(path: PathBuf, length: Arc<AtomicU64>) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut hasher = Hasher::sha256();
        let read = hasher.read(&mut file)?;
        length.store(read, Ordering::SeqCst);
        let file = Arc::new(file);
        Ok(Draft { file, path, hasher, length, fleeting: false, unsynced: 0, grown: None, claim: None })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written.
    pub fn length(&self) -> u64 {
        self.length.load(Ordering::SeqCst)
    }

    /// How much is written, from now on; it is told soon after it came.
    pub fn watch(&mut self) -> watch::Receiver<u64> {
        self.grown.get_or_insert_with(|| watch::Sender::new(self.length.load(Ordering::SeqCst))).subscribe()
    }

    /// Appends a body up to its end. Its bytes are collected in blocks and, while they are at hand, hashed; the digest
    /// and writing are two lanes, and the next bytes come in while they work. Also gives the draft back if the body was
    /// cut, holding what came; not if the disk is full or failed: then the hashes may be of more than the file has.
    pub async fn receive(
        mut self,
        first: Step,
        body: &mut Receiver,
    ) -> (Option<Self>, Result<(), IngestError>) {
        let mut flushing = None;
        match self.run(first, body, &mut flushing).await {
            Ok(end) => match flushed(&mut flushing).await {
                Ok(()) => (Some(self), end),
                Err(error) => (None, Err(self.spoilt(error))),
            },
            Err(failure) => (None, Err(failure)),
        }
    }

    /// The lanes of [`Self::receive`]. Says how the body ended. When this returns nobody writes any more, also where it
    /// fails: the file may be gone on with at once.
    async fn run(
        &mut self,
        first: Step,
        body: &mut Receiver,
        flushing: &mut Option<JoinHandle<io::Result<()>>>,
    ) -> Result<Result<(), IngestError>, IngestError> {
        let mut digest = Lane::new(self.hasher.digest.take(), DigestHasher::work);
        let (file, path, length) = (self.file.clone(), self.path.clone(), self.length.clone());
        let (grown, claim) = (self.grown.clone(), self.claim.clone());
        let mut tail =
            Lane::new(Tail { file, path, length, direct: None, grown, _claim: claim }, Tail::append);
        let ended = self.feed(&mut digest, &mut tail, first, body, flushing).await;
        if ended.is_err() {
            digest.halt().await;
            tail.halt().await;
        }
        let end = ended?;
        let failed = |error| storage(&self.unwritten(), error);
        tail.end().map_err(failed)?;
        self.hasher.digest = digest.end().map_err(failed)?;
        Ok(end)
    }

    /// Collects the body in blocks and hands them to both lanes, until it has ended and they rest.
    async fn feed(
        &mut self,
        digest: &mut Lane<DigestHasher>,
        tail: &mut Lane<Tail>,
        first: Step,
        body: &mut Receiver,
        flushing: &mut Option<JoinHandle<io::Result<()>>>,
    ) -> Result<Result<(), IngestError>, IngestError> {
        let what = self.unwritten();
        let failed = |error| storage(&what, error);
        let mut blocks = Blocks::new(self.length());
        let Step { pieces, mut end } = first;
        let mut pieces = VecDeque::from(pieces);
        loop {
            let (size, most) = body.share();
            if let Some(piece) = pieces.front_mut() {
                piece.advance(blocks.fill(piece, size, most));
                if piece.is_empty() {
                    pieces.pop_front();
                }
            }
            let rests = digest.rests() && tail.rests();
            let waited_for = end.is_some() || (self.grown.is_some() && rests);
            let over = blocks.is_full() || (waited_for && pieces.is_empty() && blocks.has_some());
            self.hasher.hash.update(blocks.unhashed(over));
            if over && let Some(block) = blocks.hand_out() {
                let length = block.bytes().len() as u64;
                self.start_flush(flushing).await.map_err(|error| self.spoilt(error))?;
                body.dirs.room.wait(length).await.map_err(failed)?;
                self.unsynced += length;
                digest.push(block.clone());
                tail.push(block);
            } else if rests
                && pieces.is_empty()
                && let Some(end) = end
            {
                return Ok(end);
            }
            let room = blocks.has_room(most);
            if room && !pieces.is_empty() {
                continue;
            }
            tokio::select! {
                named = digest.turn() => named.map_err(failed)?,
                written = tail.turn() => written.map_err(failed)?,
                step = body.piece(), if room && end.is_none() => {
                    pieces.extend(step.pieces);
                    end = step.end;
                }
            }
        }
    }

    /// Both names of the whole file, in the algorithm of `expected`. Reads the file again where it was
    /// hashed in another one. Blocks.
    pub fn names(&mut self, expected: &Digest) -> io::Result<Names> {
        if self.hasher.is_like(expected) {
            return Ok(self.hasher.names());
        }
        let (mut hasher, mut file) = (Hasher::like(expected), &*self.file);
        file.seek(SeekFrom::Start(0))?;
        hasher.read(&mut file)?;
        Ok(hasher.names())
    }

    /// The whole file's bytes. Blocks.
    pub fn bytes(&mut self) -> io::Result<Bytes> {
        let (mut bytes, mut file) = (Vec::new(), &*self.file);
        file.seek(SeekFrom::Start(0))?;
        file.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Makes the file's bytes durable; where that fails the draft is of no more use. Blocks.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all().inspect_err(|_| remove_file(&self.path))
    }

    /// Has the disk begin with what is written, so that little is left to wait for at the end. Says how the
    /// last time went.
    async fn start_flush(&mut self, flushing: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
        if self.unsynced < FLUSH_BYTES || flushing.as_ref().is_some_and(|task| !task.is_finished()) {
            return Ok(());
        }
        flushed(flushing).await?;
        self.unsynced = 0;
        let file = self.file.clone();
        *flushing = Some(tokio::task::spawn_blocking(move || file.sync_data()));
        Ok(())
    }

    /// What is said where the file takes no bytes.
    fn unwritten(&self) -> String {
        format!("{} could not be written", self.path.display())
    }

    /// The end of a draft that the disk could not take: the system forgets what it failed to write and says
    /// so once, so that another sync of the same file would succeed and mean nothing.
    fn spoilt(&self, error: io::Error) -> IngestError {
        remove_file(&self.path);
        storage("a body could not be made durable; send it again from the start", error)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if self.fleeting {
            remove_file(&self.path);
        }
    }
}

impl Hasher {
    /// For a SHA-256 digest.
    pub fn sha256() -> Self {
        Hasher { digest: DigestHasher::Sha256(sha2::Sha256::new()), hash: blake3::Hasher::new() }
    }

    /// For a digest in the algorithm of this one.
    pub fn like(digest: &Digest) -> Self {
        match digest {
            Digest::Sha256(_) => Hasher::sha256(),
            Digest::Sha512(_) => {
                Hasher { digest: DigestHasher::Sha512(sha2::Sha512::new()), hash: blake3::Hasher::new() }
            }
        }
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.hash.update(bytes);
    }

    /// The names of all bytes so far.
    pub fn names(&self) -> Names {
        let digest = match &self.digest {
            DigestHasher::Sha256(hasher) => Digest::Sha256(hasher.clone().finalize().into()),
            DigestHasher::Sha512(hasher) => Digest::Sha512(hasher.clone().finalize().into()),
        };
        Names { digest, hash: Hash(*self.hash.finalize().as_bytes()) }
    }

    fn is_like(&self, digest: &Digest) -> bool {
        matches!(
            (&self.digest, digest),
            (DigestHasher::Sha256(_), Digest::Sha256(_)) | (DigestHasher::Sha512(_), Digest::Sha512(_))
        )
    }

    /// Takes the rest of a file and says how much that was.
    pub fn read(&mut self, file: &mut impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; READ_BYTES];
        let mut read = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(read),
                n => {
                    self.update(&buffer[..n]);
                    read += n as u64;
                }
            }
        }
    }
}

impl Tail {
    /// Writes; after an error the file is as before.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let before = self.length.load(Ordering::SeqCst);
        if before >= DIRECT_FROM && self.direct.is_none() && self.grown.is_none() {
            self.direct = Some(DirectWriter::new(self.file.clone(), &self.path));
        }
        let written = match &mut self.direct {
            Some(direct) => write_sparse(direct, &self.file, before, bytes),
            None => write_sparse(&*self.file, &self.file, before, bytes),
        };
        if let Err(error) = written {
            self.file.set_len(before)?;
            return Err(error);
        }
        let length = before + bytes.len() as u64;
        self.length.store(length, Ordering::SeqCst);
        if let Some(grown) = &self.grown {
            grown.send_replace(length);
        }
        Ok(())
    }
}

impl DigestHasher {
    /// The work of a lane.
    fn work(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.update(bytes);
        Ok(())
    }

    /// Takes the hasher out; what it leaves is of no use.
    fn take(&mut self) -> Self {
        mem::replace(self, DigestHasher::Sha256(sha2::Sha256::new()))
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            DigestHasher::Sha256(hasher) => hasher.update(bytes),
            DigestHasher::Sha512(hasher) => hasher.update(bytes),
        }
    }
}

impl Step {
    /// Before anything came.
    pub fn nothing() -> Self {
        Step { pieces: Vec::new(), end: None }
    }
}

impl Receiver {
    /// Begins with a body of at most `limit` bytes, of which `room` may still come.
    pub fn new(body: ByteStream, limit: u64, room: u64, active: &Arc<AtomicUsize>, dirs: &Arc<Dirs>) -> Self {
        active.fetch_add(1, Ordering::Relaxed);
        Receiver { body, room, limit, active: active.clone(), dirs: dirs.clone() }
    }

    /// Waits for more bytes than are kept in the store's database, or the body's end.
    pub async fn first(&mut self) -> Step {
        let mut step = self.piece().await;
        let mut received = length(&step.pieces);
        while received <= INLINE && step.end.is_none() {
            let piece = self.piece().await;
            received += length(&piece.pieces);
            step.pieces.extend(piece.pieces);
            step.end = piece.end;
        }
        step
    }

    /// Waits for the next bytes, or the body's end. Nothing is lost if it is dropped.
    async fn piece(&mut self) -> Step {
        match self.body.next().await {
            Some(Ok(piece)) if piece.len() as u64 > self.room => {
                Step { pieces: Vec::new(), end: Some(Err(IngestError::TooLarge { limit: self.limit })) }
            }
            Some(Ok(piece)) => {
                self.room -= piece.len() as u64;
                Step { pieces: vec![piece], end: None }
            }
            Some(Err(error)) => {
                Step { pieces: Vec::new(), end: Some(Err(IngestError::Interrupted(error.to_string()))) }
            }
            None => Step { pieces: Vec::new(), end: Some(Ok(())) },
        }
    }

    /// How long this body's blocks are, and how many it may have.
    fn share(&self) -> (usize, usize) {
        let share = BUDGET / self.active.load(Ordering::Relaxed).max(1);
        let size = (share / MOST_BLOCKS).clamp(MIN_BLOCK, MAX_BLOCK) / ALIGN * ALIGN;
        (size, (share / size).clamp(2, MOST_BLOCKS))
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }
}

fn length(pieces: &[Bytes]) -> u64 {
    pieces.iter().map(|piece| piece.len() as u64).sum()
}

/// Waits for the disk to have taken what it was told to begin with.
async fn flushed(flushing: &mut Option<JoinHandle<io::Result<()>>>) -> io::Result<()> {
    match flushing.take() {
        Some(task) => task.await.map_err(io::Error::other)?,
        None => Ok(()),
    }
}

/// The error of a disk that failed or is full.
pub(super) fn storage(what: &str, error: io::Error) -> IngestError {
    match error.kind() {
        io::ErrorKind::StorageFull => {
            IngestError::Full(format!("{what}: {error}; free space on the disk of the data directory"))
        }
        io::ErrorKind::QuotaExceeded => IngestError::Full(format!(
            "{what}: {error}; raise the quota, or free space by deleting or unpinning artifacts (waystation du)"
        )),
        _ => IngestError::Storage(format!("{what}: {error}")),
    }
}

/// Writes from `at` on, with holes for runs of zeros: images of disks are mostly that.
fn write_sparse(out: impl Write + Seek, file: &File, at: u64, bytes: &[u8]) -> io::Result<()> {
    let mut writer = SparseWriter::new(out, at)?;
    writer.write(bytes)?;
    if writer.ends_in_hole() {
        file.set_len(writer.position())?;
    }
    Ok(())
}

/// The longest block: longer ones were measured not to be faster.
const MAX_BLOCK: usize = 1024 * 1024;
/// The shortest, however many bodies are being received.
const MIN_BLOCK: usize = 64 * 1024;
/// Most blocks of one body: sixteen were measured to be somewhat faster than eight.
const MOST_BLOCKS: usize = 16;
/// What all bodies hold in memory together.
const BUDGET: usize = 16 * 1024 * 1024;
/// From which length on a file is written past the system's cache.
const DIRECT_FROM: u64 = 8 * 1024 * 1024;
/// How much is written before the disk is told to begin.
const FLUSH_BYTES: u64 = 32 * 1024 * 1024;
const READ_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::stream;
    use tokio::runtime;

    use super::*;

    #[test]
    fn nobody_writes_any_more_once_it_is_told_that_the_disk_is_full() {
        let dir = tempfile::tempdir().expect("a directory");
        let (dirs, _) = Dirs::open(dir.path()).expect("opened");
        let draft = Draft::fleeting(dir.path().join("draft"), &Digest::Sha256([0; 32])).expect("made");
        let (dirs, file) = (Arc::new(dirs), draft.file.clone());
        // The only thread that may block does, so that writing has to wait for it.
        let runtime = runtime::Builder::new_current_thread().max_blocking_threads(1).build().expect("built");
        let (release, held) = mpsc::sync_channel::<()>(1);
        runtime.spawn_blocking(move || held.recv());
        let full = dirs.clone();
        let pieces = stream::iter(0..2).map(move |n| {
            if n == 1 {
                *full.room.pretended.lock().expect("no panic") = Some(0);
            }
            Ok(Bytes::from(vec![n; MAX_BLOCK]))
        });
        let mut body = Receiver::new(pieces.boxed(), u64::MAX, u64::MAX, &Arc::default(), &dirs);
        let received = runtime.spawn(async move {
            let (_, result) = draft.receive(Step::nothing(), &mut body).await;
            (result, Arc::strong_count(&file))
        });
        let (result, users) = runtime.block_on(async {
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            drop(release);
            received.await.expect("no panic")
        });
        assert!(matches!(result, Err(IngestError::Full(_))), "{result:?}");
        assert_eq!(users, 1, "somebody still has the file");
    }
}
