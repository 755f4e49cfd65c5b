//! A blob that comes from an upstream, perhaps over several connections and in several runs of the node, and may be
//! read while it comes. What is kept of one that ends early is for `partial.rs`; what it becomes when it is whole is `ingest.rs`' business; whether it may be handed out before, the reader's.

use std::{fs::File, io, sync::Arc};

use tokio::sync::watch;
use uuid::Uuid;
use waystation_proto::{Digest, RepoName};

use super::{
    BlobReader, ByteStream, Held, IngestError, Inner,
    blobs::blocking,
    draft::{Draft, Hasher, Receiver, Step, storage},
    ground::Ground,
    partial::{Claim, Noter, Origin},
};

/// A blob of which only a part may be here. One that is dropped before [`Incoming::finish`] leaves what the disk has of
/// it to the next of the same repository and digest, where that is worth it.
pub struct Incoming {
    store: Arc<Inner>,
    expected: Digest,
    /// Absent after the disk failed.
    draft: Option<Draft>,
    growth: Growth,
    /// Absent while another download has the file that could be gone on with.
    claim: Option<Arc<Claim>>,
    /// What is here from earlier came so.
    origin: Option<Origin>,
    noter: Option<Noter>,
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
    pub(super) async fn new(
        store: Arc<Inner>,
        repository: &RepoName,
        expected: Digest,
    ) -> Result<Self, IngestError> {
        let claim = store.partials.claim(repository, expected);
        let (path, its) = (store.dirs.incoming().join(Uuid::new_v4().to_string()), claim.clone());
        let made = blocking(move || {
            let Some(claim) = its else { return Ok((readable(Draft::fleeting(path, &expected)?)?, None)) };
            let found = claim.find();
            let draft = readable(Draft::claimed(claim, found.as_ref(), &expected)?)?;
            let origin = found.map(|found| found.origin).filter(|_| draft.0.length() > 0);
            Ok((draft, origin))
        });
        let ((draft, growth), origin) = made.await.map_err(not_made)?;
        Ok(Incoming { store, expected, draft: Some(draft), growth, claim, origin, noter: None })
    }

    /// Where what is here from earlier came from: the next bytes must be of the same.
    pub fn origin(&self) -> Option<&Origin> {
        self.origin.as_ref()
    }

    /// Drops what is here: the blob comes anew from its first byte on.
    ///
    /// # Errors
    /// `Storage`.
    pub async fn begin_anew(&mut self) -> Result<(), IngestError> {
        self.origin = None;
        let (Some(claim), expected) = (self.claim.clone(), self.expected) else { return Ok(()) };
        self.draft = None;
        let made = blocking(move || readable(Draft::claimed(claim, None, &expected)?));
        let (draft, growth) = made.await.map_err(not_made)?;
        (self.draft, self.growth) = (Some(draft), growth);
        Ok(())
    }

    /// What comes is of this: noted from now on beside what the disk has, so that a download after a crash can go on.
    pub fn comes_from(&mut self, origin: Origin) {
        let (Some(claim), Some(draft)) = (&self.claim, &self.draft) else { return };
        let (have, hasher) = (draft.length(), draft.hasher());
        match Noter::start(claim.clone(), origin, have, hasher, self.growth.length.clone()) {
            Ok(noter) => self.noter = Some(noter),
            Err(error) => tracing::debug!(%error, "a download cannot be gone on with after a restart"),
        }
    }

    /// What is here stays for a later download, which may begin as soon as this is dropped.
    pub async fn leave(&mut self) {
        if let Some(noter) = self.noter.take() {
            noter.end().await;
        }
    }

    /// Nothing of it stays for a later download.
    pub async fn forget(&mut self) {
        if let Some(noter) = self.noter.take() {
            noter.stop().await;
        }
        if let Some(claim) = self.claim.clone() {
            let forgotten = blocking(move || {
                claim.forget();
                Ok(())
            });
            if let Err(error) = forgotten.await {
                tracing::debug!(%error, "the note of a download may have stayed");
            }
        }
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
        if found == expected {
            return Ok(());
        }
        self.forget().await;
        Err(IngestError::DigestMismatch { expected, found })
    }

    /// Takes it in as a blob of that repository.
    ///
    /// # Errors
    /// `DigestMismatch`, `Storage`.
    pub async fn finish(mut self, repository: &RepoName) -> Result<Held, IngestError> {
        let Some(draft) = self.draft.take() else { return Err(gone()) };
        // Before the file is the blob's: nothing may ever be written to that.
        self.forget().await;
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

/// A draft and what readers have of it.
fn readable(mut draft: Draft) -> io::Result<(Draft, Growth)> {
    let growth = Growth { file: Arc::new(File::open(draft.path())?), length: draft.watch() };
    Ok((draft, growth))
}

fn not_made(error: io::Error) -> IngestError {
    storage("a file for a download could not be made", error)
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

    fn repository() -> RepoName {
        "docker.io/library/x".parse().expect("valid")
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
        let mut incoming = store.incoming(&repository(), sha256(&all)).await.expect("begun");
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

    /// A download of `all` that ended after `have` bytes, as a crash leaves it; what the next one finds.
    async fn cut(store: &Store, all: &[u8], have: usize) -> Incoming {
        let mut incoming = store.incoming(&repository(), sha256(all)).await.expect("begun");
        incoming.begin_anew().await.expect("begun");
        let size = Some(all.len() as u64);
        incoming.comes_from(Origin { size, etag: Some("\"x\"".to_owned()) });
        let cut = incoming.append(body(&[&all[..have]], false), 1 << 30).await;
        assert!(matches!(cut, Err(IngestError::Interrupted(_))), "{cut:?}");
        incoming.leave().await;
        drop(incoming);
        store.incoming(&repository(), sha256(all)).await.expect("begun")
    }

    fn large() -> Vec<u8> {
        (0..1_000_000_u32).map(|n| (n / 7) as u8).collect()
    }

    #[tokio::test]
    async fn what_was_left_is_gone_on_with() {
        let dir = tempfile::tempdir().expect("a directory");
        let all = large();
        let store = Store::open(dir.path()).await.expect("opened").store;
        drop(cut(&store, &all, 600_000).await);
        store.shutdown().await;
        drop(store);
        let store = Store::open(dir.path()).await.expect("opened").store;
        let mut incoming = store.incoming(&repository(), sha256(&all)).await.expect("begun");
        let origin = Origin { size: Some(1_000_000), etag: Some("\"x\"".to_owned()) };
        assert_eq!((incoming.length(), incoming.origin()), (600_000, Some(&origin)));
        // The one file is taken; a second download has one of its own.
        let second = store.incoming(&repository(), sha256(&all)).await.expect("begun");
        assert_eq!((second.length(), second.origin()), (0, None));
        incoming.comes_from(origin);
        incoming.append(body(&[&all[600_000..]], true), 1 << 30).await.expect("appended");
        incoming.check().await.expect("whole");
        let held = incoming.finish(&repository()).await.expect("taken in");
        assert_eq!(held.hash, Hash::of(&all));
        assert_eq!(std::fs::read_dir(store.0.dirs.partial()).expect("a directory").count(), 0);
        let BlobReader::File(mut file, _) = store.open_blob(held.hash, held.size).await.expect("opened")
        else {
            panic!("a large blob has a file");
        };
        let mut read = Vec::new();
        file.read_to_end(&mut read).expect("readable");
        assert!(read == all);
    }

    #[tokio::test]
    async fn what_is_coming_when_the_node_stops_is_gone_on_with() {
        let dir = tempfile::tempdir().expect("a directory");
        let all = large();
        let store = Store::open(dir.path()).await.expect("opened").store;
        let mut incoming = store.incoming(&repository(), sha256(&all)).await.expect("begun");
        incoming.comes_from(Origin { size: Some(1_000_000), etag: None });
        let cut = incoming.append(body(&[&all[..600_000]], false), 1 << 30).await;
        assert!(matches!(cut, Err(IngestError::Interrupted(_))), "{cut:?}");
        store.shutdown().await;
        let kept = std::fs::read_dir(store.0.dirs.partial()).expect("a directory").count();
        assert_eq!(kept, 2, "the file and its note, before anything is dropped");
        drop((incoming, store));
        let store = Store::open(dir.path()).await.expect("opened").store;
        let incoming = store.incoming(&repository(), sha256(&all)).await.expect("begun");
        assert_eq!(incoming.length(), 600_000);
    }

    #[tokio::test]
    async fn only_what_is_as_noted_is_gone_on_with() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let all = large();
        let partial = store.0.dirs.partial();
        let found = |ends: &str| {
            let entries =
                std::fs::read_dir(&partial).expect("a directory").map(|entry| entry.expect("one").path());
            entries
                .filter(|path| path.to_string_lossy().ends_with(".json") == (ends == ".json"))
                .collect::<Vec<_>>()
        };
        let spoil: [&dyn Fn(); 5] = [
            // A byte that is another, a file that is too short, or also another blob's.
            &|| {
                let path = &found("")[0];
                let mut bytes = std::fs::read(path).expect("readable");
                bytes[5] ^= 1;
                std::fs::write(path, bytes).expect("written");
            },
            &|| {
                File::options().write(true).open(&found("")[0]).and_then(|file| file.set_len(9)).expect("cut")
            },
            &|| std::fs::hard_link(&found("")[0], dir.path().join("other")).expect("linked"),
            // A note that is none, or says what it may not.
            &|| std::fs::write(&found(".json")[0], "{}").expect("written"),
            &|| {
                let path = &found(".json")[0];
                let text = std::fs::read_to_string(path).expect("readable");
                std::fs::write(path, text.replacen('{', "{\"more\":1,", 1)).expect("written");
            },
        ];
        for (n, spoil) in spoil.iter().enumerate() {
            drop(cut(&store, &all, 600_000).await);
            spoil();
            let incoming = store.incoming(&repository(), sha256(&all)).await.expect("begun");
            assert_eq!((incoming.length(), incoming.origin()), (0, None), "{n}");
        }
        let other = std::fs::metadata(dir.path().join("other")).expect("there").len();
        assert_eq!(other, 600_000, "another blob's file was written to");
        assert!(found("").is_empty(), "what has no note goes");
        // Another repository's is not shown.
        drop(cut(&store, &all, 600_000).await);
        let name: RepoName = "docker.io/library/y".parse().expect("valid");
        let incoming = store.incoming(&name, sha256(&all)).await.expect("begun");
        assert_eq!(incoming.length(), 0);
    }

    #[tokio::test]
    async fn what_is_wrong_when_it_is_whole_leaves_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let all = large();
        let mut incoming = cut(&store, &all, 600_000).await;
        incoming.comes_from(incoming.origin().cloned().expect("known"));
        incoming.append(body(&[&all[..400_000]], true), 1 << 30).await.expect("appended");
        assert!(matches!(incoming.check().await, Err(IngestError::DigestMismatch { .. })));
        drop(incoming);
        assert_eq!(std::fs::read_dir(store.0.dirs.partial()).expect("a directory").count(), 0);
    }

    #[tokio::test]
    async fn what_rests_is_bounded_and_gives_way() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let all: Vec<Vec<u8>> = (0..3).map(|n| [vec![n], large()].concat()).collect();
        for one in &all {
            drop(cut(&store, one, 600_000).await);
        }
        let have =
            async |n: usize| store.incoming(&repository(), sha256(&all[n])).await.expect("begun").length();
        store.0.partials.sweep(std::time::Instant::now(), 1_500_000);
        // Asking makes one the newest of those that rest.
        assert_eq!((have(0).await, have(2).await, have(1).await), (0, 600_000, 600_000));
        assert_eq!(store.sweep_partials(1).await, 600_000);
        assert_eq!((have(2).await, have(1).await), (0, 600_000));
        let tomorrow = std::time::Instant::now() + Duration::from_secs(24 * 60 * 60 + 1);
        store.0.partials.sweep(tomorrow, u64::MAX);
        assert_eq!(have(1).await, 0);
        assert_eq!(std::fs::read_dir(store.0.dirs.partial()).expect("a directory").count(), 0);
    }

    #[tokio::test]
    async fn a_slow_body_is_seen_as_it_comes() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let mut incoming = store.incoming(&repository(), sha256(b"abc")).await.expect("begun");
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
        let mut incoming = store.incoming(&repository(), sha256(b"abc")).await.expect("begun");
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
