//! Reading a blob, or parts of it, while other nodes send it. What is read was verified by the blob's hash before
//! it was written, so this is only for blobs whose hash an artifact index of the catalog pairs with the digest.
//! What is of the blob here is the store's to say: the protocol only says when to look.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, PoisonError, Weak},
    time::{Duration, Instant},
};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures_util::{FutureExt, Stream, StreamExt, stream, stream::BoxStream};
use tokio::sync::Mutex;
use waystation_oci::range::{Part, Wanted};
use waystation_proto::{
    Digest, Hash,
    event::{BlobRef, WantFailure},
    ranges::Ranges,
};

use super::{body::Reader, parts::Content};
use crate::{
    driver::handle::{Coming, ReplicaHandle},
    store::{ServedFile, Serving, Store},
};

/// What is known to be here of blobs that are on their way: however many clients read one along, the store is asked
/// about it by one at a time and not too often.
#[derive(Default)]
pub struct Looks(std::sync::Mutex<BTreeMap<Hash, Weak<Look>>>);

/// The last look at a blob.
type Look = Mutex<Option<(Instant, Ranges)>>;

impl Looks {
    fn at(&self, hash: Hash) -> Arc<Look> {
        let mut looks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        looks.retain(|_, look| look.strong_count() > 0);
        let known = looks.get(&hash).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let look = Arc::default();
            looks.insert(hash, Arc::downgrade(&look));
            look
        })
    }
}

/// A blob on its way here, and what of it can be read.
pub struct Growing {
    store: Store,
    replica: ReplicaHandle,
    blob: BlobRef,
    manifest: Digest,
    coming: Coming,
    file: Option<Arc<ServedFile>>,
    last: Arc<Look>,
    here: Ranges,
    /// Bytes that were here when the want began.
    before: u64,
}

/// What can be read from some position on.
enum Readable {
    /// All of the blob: it is whole and durable.
    All,
    /// Up to there.
    Until(u64),
}

impl Growing {
    /// Wants a blob, from the holders of an artifact that it is part of.
    pub async fn begin(
        looks: &Looks,
        store: Store,
        replica: ReplicaHandle,
        blob: BlobRef,
        manifest: Digest,
    ) -> Self {
        let last = looks.at(blob.hash);
        let here = look(&store, &blob, &last, LOOK_EVERY).await;
        let before = here.len();
        let coming = replica.follow_blob(blob, manifest).await;
        Growing { store, replica, blob, manifest, coming, file: None, last, here, before }
    }

    /// The answer to a GET once its first byte is here. Nothing: all of the blob is, and is to be served as ever.
    ///
    /// # Errors
    /// Why the blob does not come.
    pub async fn answer(
        mut self,
        reader: Reader,
        content: &Content<'_>,
        wanted: &Wanted,
    ) -> Result<Option<io::Result<Response>>, WantFailure> {
        if matches!(self.readable(wanted.first()).await?, Readable::All) {
            return Ok(None);
        }
        let growing = Arc::new(Mutex::new(self));
        Ok(Some(
            content.get(wanted, move |part| {
                Ok(Body::from_stream(stream(growing.clone(), reader.clone(), part)))
            }),
        ))
    }

    /// Waits until the byte at this position can be read.
    async fn readable(&mut self, at: u64) -> Result<Readable, WantFailure> {
        let mut told = true;
        loop {
            let here = self.here.iter().find(|range| range.contains(&at));
            if let Some(here) = here
                && self.open().await
            {
                return Ok(Readable::Until(here.end));
            }
            let mut end = self.coming.end.clone();
            tokio::select! {
                ended = &mut end => match ended {
                    Ok(()) => return Ok(Readable::All),
                    // The protocol counts whole pieces, which over a thin link take longer than it waits.
                    Err(WantFailure::Stalled) if self.has_grown().await => {
                        self.coming = self.replica.follow_blob(self.blob, self.manifest).await;
                        told = true;
                    }
                    Err(failure) => return Err(failure),
                },
                arrived = self.coming.arrived.changed(), if told => {
                    told = arrived.is_ok();
                    self.look(LOOK_EVERY).await;
                }
                () = tokio::time::sleep(LOOK_AGAIN) => self.look(LOOK_EVERY).await,
            }
        }
    }

    async fn look(&mut self, every: Duration) {
        self.here = look(&self.store, &self.blob, &self.last, every).await;
    }

    /// Whether more is here than when the want began.
    async fn has_grown(&mut self) -> bool {
        self.look(Duration::ZERO).await;
        let before = std::mem::replace(&mut self.before, self.here.len());
        self.here.len() > before
    }

    /// Whether the blob has a file to read from. Small ones have none, nor those that a push overtook: they are
    /// read when all is here.
    async fn open(&mut self) -> bool {
        if self.file.is_none() {
            let file = self.store.open_growing(self.blob.hash).await.ok();
            self.file = file.map(|file| Arc::new(ServedFile::sound(file)));
        }
        self.file.is_some()
    }

    /// Bytes from `next` on, not beyond `end`.
    async fn bytes(
        &mut self,
        reader: &Reader,
        next: u64,
        end: u64,
    ) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
        let (file, end) = match self.readable(next).await.map_err(io::Error::other)? {
            Readable::Until(here) => (self.file.clone(), end.min(here)),
            Readable::All => match self.store.serve_blob(self.blob.hash, self.blob.size, next).await? {
                Serving::File(file) => (Some(file), end),
                Serving::Memory(_) => (None, end),
            },
        };
        let file = file.ok_or_else(|| io::Error::other("the blob is not in a file"))?;
        Ok(reader.stream(file, next, end - next).boxed())
    }
}

/// What of a blob is here, looked at anew unless that was done so short a time ago.
async fn look(store: &Store, blob: &BlobRef, last: &Look, every: Duration) -> Ranges {
    let mut last = last.lock().await;
    if let Some((at, here)) = &*last
        && at.elapsed() < every
    {
        return here.clone();
    }
    let here = store.probe(blob.hash, blob.size).await;
    *last = Some((Instant::now(), here.clone()));
    here
}

/// The bytes of a part, as they come. Fails where they do not: the client is cut short then and knows.
fn stream(
    growing: Arc<Mutex<Growing>>,
    reader: Reader,
    part: Part,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let begin = (part.start, None::<BoxStream<'static, io::Result<Bytes>>>);
    stream::try_unfold(begin, move |(next, mut here)| {
        let (growing, reader) = (growing.clone(), reader.clone());
        async move {
            let mut bytes = read(&mut here).await?;
            if bytes.is_none() && next < part.end {
                // Parts are read one after another, so nobody else waits for the lock.
                here = Some(growing.lock().await.bytes(&reader, next, part.end).await?);
                bytes = read(&mut here).await?;
            }
            Ok(bytes.map(|bytes| {
                let after = next + bytes.len() as u64;
                (bytes, (after, here))
            }))
        }
        .boxed()
    })
}

async fn read(here: &mut Option<BoxStream<'static, io::Result<Bytes>>>) -> io::Result<Option<Bytes>> {
    match here {
        Some(here) => here.next().await.transpose(),
        None => Ok(None),
    }
}

/// How often is looked for parts of a piece that the protocol has not been told of yet.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// How long what one client saw is good for the others.
const LOOK_EVERY: Duration = Duration::from_millis(50);
