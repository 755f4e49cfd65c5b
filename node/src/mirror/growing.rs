//! Reading a blob, or a part of one, while it is downloaded. The last bytes are held back until all of them were found to have the
//! digest asked for: whoever reads along gets the whole of what it asked for, or is cut short and knows.

use std::{io, os::unix::fs::FileExt, sync::Arc};

use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio::sync::Semaphore;

use super::downloads::Download;

/// The readers of downloads: they share a budget of memory.
#[derive(Clone)]
pub struct GrowingReaders {
    budget: Arc<Semaphore>,
}

impl GrowingReaders {
    /// No readers, the whole budget.
    pub fn new() -> Self {
        GrowingReaders { budget: Arc::new(Semaphore::new(UNITS)) }
    }

    /// Bytes of one read: never so much of what is left that a few slow clients keep the others waiting.
    fn step(&self) -> u64 {
        (self.budget.available_permits() as u64 * UNIT / 64).clamp(UNIT, STEP)
    }

    /// Bytes `start..end` of a download of `size` bytes, as they come.
    pub fn stream(
        &self,
        download: Arc<Download>,
        size: u64,
        start: u64,
        end: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<> {
        let reader = Reader { readers: self.clone(), download, size, next: start, end };
        stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.step().await {
                Some(Ok(bytes)) => Some((Ok(bytes), Some(reader))),
                Some(Err(error)) => Some((Err(error), None)),
                None => None,
            }
        })
    }
}

impl Default for GrowingReaders {
    fn default() -> Self {
        GrowingReaders::new()
    }
}

struct Reader {
    readers: GrowingReaders,
    download: Arc<Download>,
    size: u64,
    next: u64,
    end: u64,
}

impl Reader {
    /// The next bytes, or nothing at the end.
    async fn step(&mut self) -> Option<io::Result<Bytes>> {
        if self.next >= self.end {
            return None;
        }
        let available = match self.available().await {
            Ok(available) => available,
            Err(error) => return Some(Err(error)),
        };
        let length = (available.min(self.end) - self.next).min(self.readers.step());
        // At most STEP / UNIT, so it fits.
        let units = length.div_ceil(UNIT) as u32;
        // Never closed, so it is always given.
        let permit = self.readers.budget.clone().acquire_many_owned(units).await.ok();
        let (file, from) = (self.download.growth.file.clone(), self.next);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
            file.read_exact_at(&mut bytes, from)?;
            Ok(Bytes::from_owner(Piece { bytes, _permit: permit }))
        });
        let read = read.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
        self.next += length;
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

/// Bytes that count against the budget until they have been sent.
struct Piece {
    bytes: Vec<u8>,
    _permit: Option<tokio::sync::OwnedSemaphorePermit>,
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
/// Bytes of one read at most.
const STEP: u64 = 256 * 1024;
/// What the budget is counted in, in bytes,
const UNIT: u64 = 16 * 1024;
/// and how many there are of bytes that have not been sent: 16 MiB.
const UNITS: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_that_stop_reading_leave_room_for_others() {
        let readers = GrowingReaders::new();
        let mut held = 0;
        // Each has two reads on its way at most.
        while readers.budget.available_permits() > 0 {
            let units = readers.step().div_ceil(UNIT) as u32;
            readers.budget.try_acquire_many(units).expect("there is room").forget();
            held += 1;
        }
        assert!(held / 2 >= 100, "{held}");
    }
}
