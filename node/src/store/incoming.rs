//! A blob that comes from an upstream, perhaps over several connections, and may be read while it comes. What it
//! becomes when it is whole is `ingest.rs`' business; whether it may be handed out before, the reader's.

use std::{fs::File, io, sync::Arc};

use tokio::sync::watch;
use uuid::Uuid;
use waystation_proto::{Digest, RepoName};

use super::{
    BlobReader, ByteStream, Held, IngestError, Inner,
    blobs::blocking,
    draft::{Draft, Hasher, Receiver, Step, storage},
    ground::Ground,
};

/// A blob of which only a part may be here. Goes away when it is dropped before [`Incoming::finish`].
pub struct Incoming {
    store: Arc<Inner>,
    expected: Digest,
    /// Absent after the disk failed.
    draft: Option<Draft>,
    growth: Growth,
}

/// What there is to read of an incoming blob. Not checked against its digest.
#[derive(Clone)]
pub struct Growth {
    /// Where it is written to.
    pub file: Arc<File>,
    /// How many bytes have been written. Ends with the incoming blob.
    pub length: watch::Receiver<u64>,
}

impl Incoming {
    pub(super) async fn new(store: Arc<Inner>, expected: Digest) -> Result<Self, IngestError> {
        let path = store.dirs.incoming().join(Uuid::new_v4().to_string());
        let made = blocking(move || {
            let mut draft = Draft::fleeting(path, &expected)?;
            let growth = Growth { file: Arc::new(File::open(draft.path())?), length: draft.watch() };
            Ok((draft, growth))
        });
        let (draft, growth) =
            made.await.map_err(|error| storage("a file for a download could not be made", error))?;
        Ok(Incoming { store, expected, draft: Some(draft), growth })
    }

    /// Bytes that are here.
    pub fn length(&self) -> u64 {
        *self.growth.length.borrow()
    }

    /// For reading what is here.
    pub fn growth(&self) -> Growth {
        self.growth.clone()
    }

    /// Appends a body as it comes; there may be `limit` bytes in all. What came before it failed stays.
    ///
    /// # Errors
    /// `TooLarge`, `Interrupted` where the body fails, `Storage`; after that one nothing more can be appended.
    pub async fn append(&mut self, body: ByteStream, limit: u64) -> Result<(), IngestError> {
        let Some(draft) = self.draft.take() else { return Err(gone()) };
        let room = limit.saturating_sub(draft.length());
        let mut body = Receiver::new(body, limit, room, &self.store.active, &self.store.dirs);
        let (draft, result) = draft.receive(Step::nothing(), &mut body).await;
        self.draft = draft;
        result
    }

    /// Whether what is here has the digest that was expected.
    ///
    /// # Errors
    /// `DigestMismatch`, `Storage`.
    pub async fn check(&mut self) -> Result<(), IngestError> {
        let Some(mut draft) = self.draft.take() else { return Err(gone()) };
        let expected = self.expected;
        let read = blocking(move || {
            let names = draft.names(&expected);
            Ok((draft, names))
        });
        let failed = |error| storage("the download could not be read", error);
        let (draft, names) = read.await.map_err(failed)?;
        self.draft = Some(draft);
        let found = names.map_err(failed)?.digest;
        let fits = found == expected;
        if fits { Ok(()) } else { Err(IngestError::DigestMismatch { expected, found }) }
    }

    /// Takes it in as a blob of that repository.
    ///
    /// # Errors
    /// `DigestMismatch`, `Storage`.
    pub async fn finish(mut self, repository: &RepoName) -> Result<Held, IngestError> {
        let Some(draft) = self.draft.take() else { return Err(gone()) };
        self.store.adopt(Some(repository), self.expected, draft).await.1
    }
}

impl Inner {
    /// See [`super::Store::prove`].
    pub async fn prove(
        self: &Arc<Self>,
        repository: &RepoName,
        held: Held,
    ) -> Result<Result<(), Digest>, IngestError> {
        let Held { digest, hash, size } = held;
        let _pass = self.sweep.pass().await;
        if self.index.held(&digest) == Some(held) {
            return self.link_within(repository, &held).await.map(Ok);
        }
        let failed = |error| storage("a fetched blob could not be read", error);
        let gone = || failed(io::ErrorKind::NotFound.into());
        let here = self.blobs.complete(hash).await.map_err(failed)?.ok_or_else(gone)?;
        let reader = self.open_blob(hash, here).await.map_err(failed)?;
        let found = blocking(move || digest_of(reader, &digest)).await.map_err(failed)?;
        if found != digest || here != size {
            return Ok(Err(found));
        }
        self.admit(Some(repository), held).await?;
        // It has a name now.
        let nameless = Ground::Nameless { hash, size };
        if let Err(error) = self.blobs.unname(&nameless).await {
            tracing::debug!(%hash, %error, "a name that is not needed any more stays");
        }
        Ok(Ok(()))
    }
}

fn digest_of(reader: BlobReader, like: &Digest) -> io::Result<Digest> {
    let mut hasher = Hasher::like(like);
    match reader {
        BlobReader::Memory(bytes) => hasher.update(&bytes),
        BlobReader::File(mut file, _) => {
            hasher.read(&mut file)?;
        }
    }
    Ok(hasher.names().digest)
}

fn gone() -> IngestError {
    IngestError::Storage("the download's file was lost".to_owned())
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("expected", &self.expected).field("length", &self.length()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::{io::Read, time::Duration};

    use bytes::Bytes;
    use futures_util::{StreamExt, stream};
    use sha2::Digest as _;
    use waystation_proto::Hash;

    use super::*;
    use crate::store::Store;

    fn sha256(bytes: &[u8]) -> Digest {
        Digest::Sha256(sha2::Sha256::digest(bytes).into())
    }

    fn body(pieces: &[&[u8]], ends: bool) -> ByteStream {
        let mut pieces: Vec<io::Result<Bytes>> =
            pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        if !ends {
            pieces.push(Err(io::ErrorKind::ConnectionReset.into()));
        }
        stream::iter(pieces).boxed()
    }

    #[tokio::test]
    async fn grows_over_connections_and_is_read_meanwhile() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let all: Vec<u8> = (0..100_000_u32).map(|n| (n / 7) as u8).collect();
        let mut incoming = store.incoming(sha256(&all)).await.expect("begun");
        let cut = incoming.append(body(&[&all[..30_000]], false), 1 << 20).await;
        assert!(matches!(cut, Err(IngestError::Interrupted(_))), "{cut:?}");
        let growth = incoming.growth();
        assert_eq!((incoming.length(), *growth.length.borrow()), (30_000, 30_000));
        let mut read = vec![0; 30_000];
        (&*growth.file).read_exact(&mut read).expect("readable");
        assert!(read == all[..30_000]);
        assert!(matches!(incoming.check().await, Err(IngestError::DigestMismatch { .. })));
        incoming.append(body(&[&all[30_000..]], true), 1 << 20).await.expect("appended");
        incoming.check().await.expect("whole");
        let repository: RepoName = "a/b".parse().expect("valid");
        let held = incoming.finish(&repository).await.expect("taken in");
        assert_eq!(held.hash, Hash::of(&all));
        assert!(store.index().link(&repository, &held.digest).is_some());
        // The file that it grew in is gone, the handle still reads.
        let mut rest = Vec::new();
        (&*growth.file).read_to_end(&mut rest).expect("readable");
        assert!(rest == all[30_000..]);
    }

    #[tokio::test]
    async fn a_slow_body_is_seen_as_it_comes() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let mut incoming = store.incoming(sha256(b"abc")).await.expect("begun");
        let mut length = incoming.growth().length;
        let slow = stream::iter([Ok(Bytes::from_static(b"a"))]).chain(stream::pending()).boxed();
        let appending = tokio::spawn(async move { incoming.append(slow, 10).await });
        let seen = tokio::time::timeout(Duration::from_secs(20), length.wait_for(|length| *length == 1));
        seen.await.expect("in time").expect("goes on");
        appending.abort();
    }

    #[tokio::test]
    async fn too_much_is_refused_and_a_dropped_one_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let mut incoming = store.incoming(sha256(b"abc")).await.expect("begun");
        let refused = incoming.append(body(&[b"abcd"], true), 3).await;
        assert!(matches!(refused, Err(IngestError::TooLarge { limit: 3 })), "{refused:?}");
        drop(incoming);
        let left = std::fs::read_dir(store.0.dirs.incoming()).expect("a directory").count();
        assert_eq!(left, 0);
    }

    #[tokio::test]
    async fn a_claim_counts_when_the_bytes_have_the_digest() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let repository: RepoName = "a/b".parse().expect("valid");
        let bytes = Bytes::from(vec![5; 40_000]);
        let (hash, size) = (Hash::of(&bytes), bytes.len() as u64);
        store.blobs().blobs().add_bytes(bytes.clone()).await.expect("added");
        store.seal(hash, size, None).await.expect("sealed");
        let lie = Held { digest: sha256(b"other"), hash, size };
        assert_eq!(store.prove(&repository, lie).await.expect("read"), Err(sha256(&bytes)));
        assert_eq!(store.index().held(&lie.digest), None);
        let short = Held { digest: sha256(&bytes), hash, size: size - 1 };
        store.read(hash, size).await.expect("read, and kept in memory");
        assert_eq!(store.prove(&repository, short).await.expect("read"), Err(sha256(&bytes)));
        assert_eq!(store.index().held(&short.digest), None);
        let truth = Held { digest: sha256(&bytes), hash, size };
        assert_eq!(store.prove(&repository, truth).await.expect("read"), Ok(()));
        assert_eq!(store.index().held(&truth.digest), Some(truth));
        assert!(store.index().link(&repository, &truth.digest).is_some());
    }
}
