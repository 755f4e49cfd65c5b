//! Bodies: of requests, as streams that end when a client stops sending, and of large blobs, read from disk
//! step by step, into memory that all readers share.

use std::{io, sync::Arc, time::Duration};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, stream};

use super::error::{ApiError, Code};
use crate::{
    memory::{Bounds, Memory, Room, Share},
    store::{ByteStream, ServedFile, ServedPart},
};

/// The readers of large blobs. A slow client holds at most two steps of their memory and no thread: a step is
/// read when the one before it has been taken.
pub struct Readers {
    memory: Memory,
}

impl Readers {
    /// No readers, all of the memory.
    pub fn new() -> Self {
        Readers { memory: Memory::new(Bounds { all: BUDGET, longest: STEP, unit: UNIT, kept: KEPT }) }
    }

    /// The reader for one more answer.
    pub fn reader(&self) -> Reader {
        Reader { share: Arc::new(self.memory.share()) }
    }

    /// Waits until no reader holds anything of the memory.
    #[cfg(test)]
    pub async fn idle(&self) {
        self.memory.idle().await;
    }
}

impl Default for Readers {
    fn default() -> Self {
        Readers::new()
    }
}

/// What is read for one answer, one part after the other. Clones are the same.
#[derive(Clone)]
pub struct Reader {
    share: Arc<Share>,
}

impl Reader {
    /// The bytes of `file` from `start` on, `length` of them. Fails where the file is shorter or damaged.
    pub fn stream(
        &self,
        file: Arc<ServedFile>,
        start: u64,
        length: u64,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static + use<> {
        let part = Reading { share: self.share.clone(), file, next: start, end: start + length, ahead: None };
        stream::unfold(part, |mut part| async move {
            let step = part.step().await?;
            Some((step, part))
        })
    }
}

struct Reading {
    share: Arc<Share>,
    file: Arc<ServedFile>,
    next: u64,
    end: u64,
    ahead: Option<(ServedPart, Room)>,
}

impl Reading {
    /// The next step, and begins to read the one after it if there is room.
    async fn step(&mut self) -> Option<io::Result<Bytes>> {
        let (reading, room) = match self.ahead.take() {
            Some(reading) => reading,
            None if self.next == self.end => return None,
            None => {
                let room = self.share.room(self.wanted()).await;
                self.read(room)
            }
        };
        let step = reading.finish().await.map(|bytes| Bytes::from_owner(Step { bytes, _room: room }));
        if step.is_err() {
            self.next = self.end;
        } else if self.next < self.end
            && let Some(room) = self.share.more(self.wanted())
        {
            self.ahead = Some(self.read(room));
        }
        Some(step)
    }

    /// Bytes between the start of the next one's unit and the end: files are verified by units, so those before it are
    /// read too.
    fn wanted(&self) -> usize {
        usize::try_from(self.end - self.next).unwrap_or(usize::MAX).saturating_add(self.within())
    }

    /// How far into its unit the next byte is.
    fn within(&self) -> usize {
        (self.next % UNIT as u64) as usize
    }

    fn read(&mut self, room: Room) -> (ServedPart, Room) {
        // Steps end between units.
        let step = room.bytes - self.within();
        let length = usize::try_from(self.end - self.next).map_or(step, |left| left.min(step));
        let reading = self.file.begin(self.next, length, self.end);
        self.next += length as u64;
        (reading, room)
    }
}

/// Bytes that take their room until the last of them has been sent.
struct Step {
    bytes: Vec<u8>,
    _room: Room,
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

/// Memory that all readers share,
const BUDGET: usize = KEPT + 8 * 1024 * 1024;
/// and how much of it is for the shortest steps alone, of as many requests as a node answers at a time unless it is
/// configured otherwise.
const KEPT: usize = 1024 * UNIT;
/// The longest step: longer ones were measured not to be faster.
const STEP: usize = 1024 * 1024;
/// The shortest step: what blobs are verified by.
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
        let readers = Readers::new();
        let (file, _) = file(3 * STEP);
        let file = served(file);
        let mut slow = Vec::new();
        for n in 0..crate::access::config::LimitsConfig::default().requests {
            let mut stream = Box::pin(readers.reader().stream(file.clone(), 0, 3 * STEP as u64));
            let first = tokio::time::timeout(Duration::from_secs(5), stream.next()).await;
            let first = first.unwrap_or_else(|_| panic!("client {n} waits")).expect("not empty");
            // Taken, as is all that comes at once, and not sent any further.
            let mut taken = vec![first.expect("readable")];
            while taken.len() < 2
                && let Ok(Some(more)) = tokio::time::timeout(Duration::ZERO, stream.next()).await
            {
                taken.push(more.expect("readable"));
            }
            slow.push((taken, stream));
        }
        drop(slow);
        readers.idle().await;
    }

    #[tokio::test]
    async fn parts_and_ends() {
        let readers = Readers::new();
        let size = 2 * STEP + 100;
        for (start, length) in [(0, size), (0, 0), (STEP - 1, 2), (size - 1, 1), (5, STEP), (size, 0)] {
            let (file, bytes) = file(size);
            let stream = readers.reader().stream(served(file), start as u64, length as u64);
            let got = collect(Box::pin(stream)).await.expect("readable");
            assert!(got == bytes[start..start + length], "{start} {length}");
        }
        let (short, _) = file(10);
        assert!(collect(Box::pin(readers.reader().stream(served(short), 5, 6))).await.is_err());
        readers.idle().await;
    }

    #[tokio::test]
    async fn many_readers_share_the_budget_and_all_finish() {
        let readers = Readers::new();
        let (one, bytes) = file(3 * UNIT);
        let one = served(one);
        let mut streams: Vec<_> =
            (0..600).map(|_| Box::pin(readers.reader().stream(one.clone(), 0, 10))).collect();
        // Those that nobody reads hold nothing, so the last gets its bytes.
        let last = streams.pop().expect("600 streams");
        assert_eq!(collect(last).await.expect("readable"), bytes[..10]);
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
