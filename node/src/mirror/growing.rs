//! Reading a blob, or a part of one, while it is downloaded. The last bytes are held back until all of them were found to have the
//! digest asked for: whoever reads along gets the whole of what it asked for, or is cut short and knows.

use std::{io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::Semaphore;

use super::downloads::Download;
use crate::memory::{Bounds, Memory, Room, Share};

/// The readers of downloads.
#[derive(Clone)]
pub struct GrowingReaders {
    memory: Memory,
    /// Reads at a time: threads that others need too.
    reads: Arc<Semaphore>,
}

impl GrowingReaders {
    /// No readers, all of the memory.
    pub fn new() -> Self {
        let memory = Memory::new(Bounds { all: BUDGET, longest: STEP, unit: UNIT, kept: BUDGET / 2 });
        GrowingReaders { memory, reads: Arc::new(Semaphore::new(READS_MAX)) }
    }

    /// The reader for one more answer.
    pub fn reader(&self) -> GrowingReader {
        GrowingReader { reads: self.reads.clone(), share: Arc::new(self.memory.share()) }
    }
}

impl Default for GrowingReaders {
    fn default() -> Self {
        GrowingReaders::new()
    }
}

/// What is read for one answer, one part after the other. Clones are the same.
#[derive(Clone)]
pub struct GrowingReader {
    reads: Arc<Semaphore>,
    share: Arc<Share>,
}

impl GrowingReader {
    /// Bytes `start..end` of a download of `size` bytes, as they come.
    pub fn stream(
        &self,
        download: Arc<Download>,
        size: u64,
        start: u64,
        end: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<> {
        let part = Reading { reader: self.clone(), download, size, next: start, end };
        stream::unfold(Some(part), |part| async move {
            let mut part = part?;
            match part.step().await {
                Some(Ok(bytes)) => Some((Ok(bytes), Some(part))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        })
    }
}

struct Reading {
    reader: GrowingReader,
    download: Arc<Download>,
    size: u64,
    next: u64,
    end: u64,
}

impl Reading {
    /// The next bytes, or nothing at the end.
    async fn step(&mut self) -> Option<io::Result<Bytes>> {
        if self.next >= self.end {
            return None;
        }
        let available = match self.available().await {
            Ok(available) => available,
            Err(error) => return Some(Err(error)),
        };
        let here = usize::try_from(available.min(self.end) - self.next).unwrap_or(usize::MAX);
        let room = self.reader.share.room(here).await;
        let _turn = self.reader.reads.acquire().await;
        let (file, from, length) = (self.download.growth.file.clone(), self.next, room.bytes.min(here));
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; length];
            file.read_exact_at(&mut bytes, from)?;
            Ok(Bytes::from_owner(Piece { bytes, _room: room }))
        });
        let read = read.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        self.next += length as u64;
        Some(read)
    }

    /// Waits until more than what has been read may be read, and says up to where.
    async fn available(&self) -> io::Result<u64> {
        let (mut length, mut end) = (self.download.growth.length.clone(), self.download.end.clone());
        loop {
            match end.borrow_and_update().clone() {
                Some(Ok(())) => return Ok(self.size),
                Some(Err(why)) => return Err(io::Error::other(why)),
                None => {}
            }
            let written = *length.borrow_and_update();
            // Of a part, its own end is held back: a part that is whole is believed like the whole blob.
            let may = written.min(self.end.saturating_sub(HELD_BACK));
            if may > self.next {
                return Ok(may);
            }
            tokio::select! {
                changed = end.changed() => changed.map_err(|_| ended())?,
                changed = length.changed() => match changed {
                    Ok(()) => {}
                    // No more is written; how it ended is about to be told.
                    Err(_) => end.changed().await.map_err(|_| ended())?,
                },
            }
        }
    }
}

/// Bytes that take their room until they have been sent.
struct Piece {
    bytes: Vec<u8>,
    _room: Room,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the download ended before all of it was here")
}

/// How many bytes at the end of what is asked for are not handed out before the digest is known to fit.
pub const HELD_BACK: u64 = 64 * 1024;
/// Memory for bytes that have not been sent.
const BUDGET: usize = 16 * 1024 * 1024;
/// Bytes of one read at most,
const STEP: usize = 256 * 1024;
/// and what that is counted in. As many as a node answers requests at a time are half of the memory.
const UNIT: usize = 8 * 1024;
/// Threads that read at a time.
const READS_MAX: usize = 16;
