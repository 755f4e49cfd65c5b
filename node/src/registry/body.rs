//! Bodies: of requests, as streams that end when a client stops sending, and of large blobs, read from disk
//! step by step. All readers share one budget of memory; the step shrinks with their number.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, Code};
use crate::store::{ByteStream, ServedFile, ServedPart};

/// The readers of large blobs. A slow client holds at most two steps of the budget and no thread: a step is
/// read when the one before it has been taken.
pub struct Readers {
    budget: Arc<Semaphore>,
    active: AtomicUsize,
}

impl Readers {
    /// No readers, the whole budget.
    pub fn new() -> Self {
        Readers { budget: Arc::new(Semaphore::new(BUDGET / UNIT)), active: AtomicUsize::new(0) }
    }

    /// The bytes of `file` from `start` on, `length` of them. Fails where the file is shorter or damaged.
    pub fn stream(
        self: &Arc<Self>,
        file: Arc<ServedFile>,
        start: u64,
        length: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<> {
        self.active.fetch_add(1, Ordering::Relaxed);
        let reader = Reader { readers: self.clone(), file, next: start, end: start + length, ahead: None };
        stream::unfold(reader, |mut reader| async move {
            let step = reader.step().await?;
            Some((step, reader))
        })
    }

    /// Waits until no reader holds anything of the budget.
    #[cfg(test)]
    pub async fn idle(&self) {
        drop(self.budget.acquire_many((BUDGET / UNIT) as u32).await);
    }

    /// Bytes of one step: as many as all readers can hold two of at a time, but never so much of what is left
    /// that a few slow clients keep the others waiting. In whole units.
    fn step(&self) -> usize {
        let readers = self.active.load(Ordering::Relaxed).max(1);
        let share = (BUDGET / 2 / readers).min(self.free() / 16);
        share.clamp(UNIT, STEP) / UNIT * UNIT
    }

    /// Bytes of the budget that nobody holds.
    fn free(&self) -> usize {
        self.budget.available_permits() * UNIT
    }
}

impl Default for Readers {
    fn default() -> Self {
        Readers::new()
    }
}

struct Reader {
    readers: Arc<Readers>,
    file: Arc<ServedFile>,
    next: u64,
    end: u64,
    ahead: Option<(ServedPart, OwnedSemaphorePermit)>,
}

impl Reader {
    /// The next step, and begins to read the one after it if the budget has room.
    async fn step(&mut self) -> Option<io::Result<Bytes>> {
        let (reading, permit) = match self.ahead.take() {
            Some(reading) => reading,
            None if self.next == self.end => return None,
            None => {
                let length = self.length();
                let permit = self.readers.budget.clone().acquire_many_owned(units(length)).await;
                self.read(length, permit.expect("the budget is never closed"))
            }
        };
        let step = reading.finish().await.map(|bytes| Bytes::from_owner(Step { bytes, _permit: permit }));
        if step.is_err() {
            self.next = self.end;
        } else if self.next < self.end && self.readers.free() > BUDGET / 2 {
            let length = self.length();
            if let Ok(permit) = self.readers.budget.clone().try_acquire_many_owned(units(length)) {
                self.ahead = Some(self.read(length, permit));
            }
        }
        Some(step)
    }

    fn length(&self) -> usize {
        // Steps end between units, which are what files are verified by.
        let step = self.readers.step() - (self.next % UNIT as u64) as usize;
        usize::try_from(self.end - self.next).map_or(step, |left| left.min(step))
    }

    fn read(&mut self, length: usize, permit: OwnedSemaphorePermit) -> (ServedPart, OwnedSemaphorePermit) {
        let reading = self.file.begin(self.next, length, self.end);
        self.next += length as u64;
        (reading, permit)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that count against the budget until the last of them has been sent.
struct Step {
    bytes: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Step {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A request's body as the store takes it. A client that sends nothing for [`PATIENCE`] is given up.
pub fn incoming(body: Body) -> ByteStream {
    let data = body.into_data_stream();
    stream::unfold(Some(data), |data| async move {
        let mut data = data?;
        match tokio::time::timeout(PATIENCE, data.next()).await {
            Ok(Some(Ok(bytes))) => Some((Ok(bytes), Some(data))),
            Ok(Some(Err(error))) => Some((Err(io::Error::other(error)), None)),
            Ok(None) => None,
            Err(_) => {
                let why = "the client sent nothing for a minute";
                Some((Err(io::Error::new(io::ErrorKind::TimedOut, why)), None))
            }
        }
    })
    .boxed()
}

/// A whole body of at most `limit` bytes.
///
/// # Errors
/// 413 for a longer one, 400 for one that ends early.
pub async fn whole(body: Body, limit: u64) -> Result<Bytes, ApiError> {
    let mut all = BytesMut::new();
    let mut parts = incoming(body);
    while let Some(part) = parts.next().await {
        let part = part.map_err(|error| {
            ApiError::bad(Code::ManifestInvalid, format!("the body ended early: {error}"))
        })?;
        if (all.len() + part.len()) as u64 > limit {
            return Err(too_large(limit));
        }
        all.extend_from_slice(&part);
    }
    Ok(all.freeze())
}

/// 413: the limit and what sets it.
pub fn too_large(limit: u64) -> ApiError {
    ApiError::new(413, Code::SizeInvalid, format!("larger than this node's limit of {limit} bytes"))
}

fn units(length: usize) -> u32 {
    // At most STEP / UNIT, so it fits.
    length.div_ceil(UNIT) as u32
}

/// Memory that all readers share.
const BUDGET: usize = 24 * 1024 * 1024;
/// The longest step: longer ones were measured not to be faster.
const STEP: usize = 1024 * 1024;
/// The shortest step, in which the budget is counted: all connections of a listener have room for one.
const UNIT: usize = 16 * 1024;
/// How long a client may send nothing in the middle of a body.
const PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write};

    use super::*;

    fn served(file: File) -> Arc<ServedFile> {
        Arc::new(ServedFile::sound(file))
    }

    fn file(size: usize) -> (File, Vec<u8>) {
        let mut file = tempfile::tempfile().expect("a temporary file");
        let bytes: Vec<u8> = (0..size).map(|i| (i / 7) as u8).collect();
        file.write_all(&bytes).expect("written");
        (file, bytes)
    }

    async fn collect(mut stream: impl Stream<Item = io::Result<Bytes>> + Unpin) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        while let Some(step) = stream.next().await {
            all.extend_from_slice(&step?);
        }
        Ok(all)
    }

    #[tokio::test]
    async fn slow_clients_do_not_keep_others_waiting() {
        let readers = Arc::new(Readers::new());
        let mut slow = Vec::new();
        for n in 0..80 {
            let (file, _) = file(3 * STEP);
            let mut stream = Box::pin(readers.stream(served(file), 0, 3 * STEP as u64));
            let first = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
            let first = first.unwrap_or_else(|_| panic!("client {n} waits")).expect("not empty");
            // Taken, and not sent any further.
            slow.push((first.expect("readable"), stream));
        }
        drop(slow);
        readers.idle().await;
    }

    #[tokio::test]
    async fn parts_and_ends() {
        let readers = Arc::new(Readers::new());
        let size = 2 * STEP + 100;
        for (start, length) in [(0, size), (0, 0), (STEP - 1, 2), (size - 1, 1), (5, STEP), (size, 0)] {
            let (file, bytes) = file(size);
            let stream = readers.stream(served(file), start as u64, length as u64);
            let got = collect(Box::pin(stream)).await.expect("readable");
            assert!(got == bytes[start..start + length], "{start} {length}");
        }
        let (short, _) = file(10);
        assert!(collect(Box::pin(readers.stream(served(short), 5, 6))).await.is_err());
        assert_eq!(readers.active.load(Ordering::Relaxed), 0);
        assert_eq!(readers.budget.available_permits(), BUDGET / UNIT);
    }

    #[tokio::test]
    async fn many_readers_share_the_budget_and_all_finish() {
        let readers = Arc::new(Readers::new());
        let (one, bytes) = file(3 * UNIT);
        let one = served(one);
        let mut streams: Vec<_> = (0..600).map(|_| Box::pin(readers.stream(one.clone(), 0, 10))).collect();
        assert_eq!(readers.step(), UNIT);
        // Those that nobody reads hold nothing, so the last gets its bytes.
        let last = streams.pop().expect("600 streams");
        assert_eq!(collect(last).await.expect("readable"), bytes[..10]);
        drop(streams);
        assert_eq!(readers.step(), STEP);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_that_stop_sending_are_given_up() {
        let body = Body::from_stream(
            stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"a"))]).chain(stream::pending()),
        );
        let error = collect(incoming(body)).await.expect_err("must time out");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn whole_bodies_are_bounded() {
        assert_eq!(whole(Body::from("abc"), 3).await.map_err(|e| e.status()), Ok(Bytes::from("abc")));
        assert_eq!(whole(Body::from("abc"), 2).await.map_err(|e| e.status()), Err(413));
    }
}
