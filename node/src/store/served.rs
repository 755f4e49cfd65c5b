//! A large blob as it is given to clients. What of its file has not been found right since the start is verified while
//! it is read, so that a client waits for what it asked for only, and a part costs no more than itself. Bytes that are
//! wrong go to nobody, and put the whole blob aside. What such bytes mean, and for how long right ones count, is for
//! `reading.rs`; how the tree is looked at, for `tree.rs`.

use std::{
    fs::File,
    io,
    num::NonZero,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use rustix::fs::{Advice, fadvise};
use tokio::task::JoinHandle;
use waystation_proto::Hash;

use super::{
    BlobReader, Inner,
    blobs::{GROUP, blocking},
    reading::Mark,
    tree::Tree,
};

/// How a held blob is given out.
pub enum Serving {
    /// All of it.
    Memory(Bytes),
    /// From its file.
    File(Arc<ServedFile>),
}

/// An open file with a blob's bytes.
pub struct ServedFile {
    file: Mutex<Arc<File>>,
    doubt: Option<Doubt>,
}

/// What has to be looked at before bytes are given out.
struct Doubt {
    inner: Arc<Inner>,
    hash: Hash,
    size: u64,
    /// How the file was when it was opened.
    mark: Mark,
    tree: Tree,
}

impl ServedFile {
    /// A file whose bytes are known to be right.
    pub fn sound(file: File) -> Self {
        ServedFile { file: Mutex::new(Arc::new(file)), doubt: None }
    }

    /// Begins to read `length` bytes from `from` on. It is read on until `until` after that, as far as known.
    pub fn begin(self: &Arc<Self>, from: u64, length: usize, until: u64) -> ServedPart {
        let this = self.clone();
        let bytes = tokio::task::spawn_blocking(move || this.verified(from, length, until));
        ServedPart { file: self.clone(), from, length, bytes }
    }

    /// Reads and verifies. Nothing: the bytes are not what the tree says. Blocks.
    fn verified(&self, from: u64, length: usize, until: u64) -> io::Result<Option<Vec<u8>>> {
        let file = self.file();
        let end = from.saturating_add(length as u64);
        let Some(doubt) = self.doubt.as_ref().filter(|doubt| !doubt.is_settled(from, end)) else {
            return exact(&file, from, length).map(Some);
        };
        read_ahead(&file, from, end, until);
        let first = from / GROUP * GROUP;
        let last = end.div_ceil(GROUP).saturating_mul(GROUP).min(doubt.size);
        if end > last {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        // At most two groups more than asked for.
        let head = (from - first) as usize;
        let mut bytes = match exact(&file, first, head + length + (last - end) as usize) {
            Ok(bytes) => bytes,
            // It has become shorter since it was opened.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        };
        match doubt.tree.fits(&bytes, first) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                tracing::warn!(hash = %doubt.hash, %error, "a blob's tree cannot be read; all of it is hashed");
                return Ok(None);
            }
        }
        doubt.inner.reading.note(doubt.hash, doubt.mark, doubt.size, first..last);
        bytes.truncate(head + length);
        bytes.drain(..head);
        Ok(Some(bytes))
    }

    /// Either the file is damaged or its tree. All of the file is hashed to tell: a file that is right is good for
    /// clients as it is.
    async fn settle(&self, from: u64, length: usize) -> io::Result<Vec<u8>> {
        let Some(doubt) = &self.doubt else { return Err(io::ErrorKind::InvalidData.into()) };
        let file = Arc::new(doubt.inner.check(doubt.hash, doubt.size).await?);
        tracing::debug!(hash = %doubt.hash, "a blob is right, but not the tree that is kept of it");
        // Another file may be in the place of the one that was opened.
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = file.clone();
        blocking(move || exact(&file, from, length)).await
    }

    fn file(&self) -> Arc<File> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Bytes of a blob on their way from its file.
pub struct ServedPart {
    file: Arc<ServedFile>,
    from: u64,
    length: usize,
    bytes: JoinHandle<io::Result<Option<Vec<u8>>>>,
}

impl ServedPart {
    /// The bytes, when they are there: right ones.
    ///
    /// # Errors
    /// `UnexpectedEof` where the file is shorter; `InvalidData` where the blob is damaged, which is then put aside;
    /// what the disk says.
    pub async fn finish(self) -> io::Result<Vec<u8>> {
        match self.bytes.await.map_err(io::Error::other)?? {
            Some(bytes) => Ok(bytes),
            None => self.file.settle(self.from, self.length).await,
        }
    }
}

impl Doubt {
    fn is_settled(&self, from: u64, end: u64) -> bool {
        self.inner.reading.is_right(&self.hash, self.mark, &(from..end))
    }
}

impl Inner {
    /// See [`super::Store::serve_blob`].
    pub async fn serve_blob(self: &Arc<Self>, hash: Hash, size: u64, first: u64) -> io::Result<Serving> {
        let Some((file, mark, tree)) = self.doubted(hash, size).await? else {
            return Ok(match self.open_blob(hash, size).await? {
                BlobReader::Memory(bytes) => Serving::Memory(bytes),
                BlobReader::File(file, _) => Serving::File(Arc::new(ServedFile::sound(file))),
            });
        };
        let doubt = Doubt { inner: self.clone(), hash, size, mark, tree };
        let served = Arc::new(ServedFile { file: Mutex::new(Arc::new(file)), doubt: Some(doubt) });
        // Where that is wrong, the blob can still come from elsewhere.
        let length = size.saturating_sub(first).min(GROUP) as usize;
        served.begin(first, length, size).finish().await?;
        Ok(Serving::File(served))
    }

    /// A blob's file and its tree, where it has both and is not known to be right yet.
    async fn doubted(&self, hash: Hash, size: u64) -> io::Result<Option<(File, Mark, Tree)>> {
        self.sweep.spare(&hash);
        if size <= AT_ONCE || self.complete(hash).await? != Some(size) {
            return Ok(None);
        }
        let Some((file, mark)) = self.open_file(hash).await? else { return Ok(None) };
        if !mark.is_of(size) || self.reading.is_right(&hash, mark, &(0..size)) {
            return Ok(None);
        }
        let path = self.dirs.outboard(&hash);
        let tree = blocking(move || match File::open(path) {
            Ok(outboard) => Tree::new(outboard, hash, size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        Ok(tree.await?.map(|tree| (file, mark, tree)))
    }
}

/// Into memory that nothing was written to before, which the readers of `std` cannot do at a place of their own.
fn exact(file: &File, from: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(length);
    while bytes.len() < length {
        let at = from.saturating_add(bytes.len() as u64);
        // More may be reserved, and read, than was asked for.
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), at) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob's file is too short"));
            }
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Has the system bring from the disk what is about to be asked for. Where it will not, reading is slower.
fn read_ahead(file: &File, from: u64, end: u64, until: u64) {
    let window = |at: u64| at / AHEAD;
    if from == 0 || window(from) != window(end) {
        let next = (window(end) + 2).saturating_mul(AHEAD).min(until);
        if let Some(length) = next.checked_sub(from).and_then(NonZero::new) {
            let _ = fadvise(file, from, Some(length), Advice::WillNeed);
        }
    }
}

/// Up to which size, in bytes, a blob is hashed as a whole: that takes about a millisecond, and the store keeps no tree
/// in a file for it.
const AT_ONCE: u64 = 4 * 1024 * 1024;
/// Bytes that are read ahead at a time.
const AHEAD: u64 = 8 * 1024 * 1024;
