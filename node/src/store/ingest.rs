//! The one way in for bytes from clients and upstreams: hash while writing, compare, make durable, name.
//! A crash at any point leaves either the blob with its names, or files that the next start sweeps.

use std::{
    fs, io,
    sync::{Arc, atomic::AtomicUsize},
};

use bytes::{Bytes, BytesMut};
use uuid::Uuid;
use waystation_proto::{Digest, Hash, RepoName};

use super::{
    ByteStream, Held, IngestError, Inner,
    blobs::{INLINE, blocking, remove_file},
    dirs::sync_dir,
    draft::{Draft, Hasher, Names, Receiver, Step, storage},
    ground::Ground,
    outboards::{LATER, Making},
};

/// How many bodies are being received.
pub(super) type Active = Arc<AtomicUsize>;

impl Inner {
    /// See [`super::Store::ingest`].
    pub async fn ingest(
        self: &Arc<Self>,
        repository: Option<&RepoName>,
        expected: Digest,
        limit: u64,
        body: ByteStream,
    ) -> Result<Held, IngestError> {
        let mut body = Receiver::new(body, limit, limit, &self.active, &self.dirs);
        let first = body.first().await;
        match first.end {
            Some(Err(error)) => return Err(error),
            Some(Ok(())) if length(&first) <= INLINE => {
                let mut bytes = BytesMut::with_capacity(INLINE as usize);
                first.pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
                return self.ingest_bytes(repository, expected, bytes.freeze()).await;
            }
            _ => {}
        }
        let path = self.dirs.incoming().join(Uuid::new_v4().to_string());
        let draft = blocking(move || Draft::fleeting(path, &expected))
            .await
            .map_err(|error| storage("a file for the body could not be made", error))?;
        let (draft, result) = draft.receive(first, &mut body).await;
        result?;
        let draft = draft.ok_or_else(|| IngestError::Storage("the body's file was lost".to_owned()))?;
        self.adopt(repository, expected, draft).await.1
    }

    /// See [`super::Store::ingest_bytes`].
    pub async fn ingest_bytes(
        &self,
        repository: Option<&RepoName>,
        expected: Digest,
        bytes: Bytes,
    ) -> Result<Held, IngestError> {
        let names = if bytes.len() as u64 <= INLINE {
            names_of(&expected, &bytes)
        } else {
            let bytes = bytes.clone();
            blocking(move || Ok(names_of(&expected, &bytes)))
                .await
                .map_err(|error| storage("the bytes could not be hashed", error))?
        };
        if let Some(error) = mismatch(expected, names.digest) {
            return Err(error);
        }
        let size = bytes.len() as u64;
        let _pass = self.sweep.pass().await;
        self.keep_bytes(names.hash, bytes).await.map_err(|error| storage("the blob", error))?;
        self.admit(repository, Held { digest: expected, hash: names.hash, size }).await
    }

    /// See [`super::Store::ingest_manifest`].
    pub async fn ingest_manifest(
        &self,
        digest: Digest,
        bytes: Bytes,
        index: Bytes,
    ) -> Result<(Held, Hash), IngestError> {
        let names = names_of(&digest, &bytes);
        if let Some(error) = mismatch(digest, names.digest) {
            return Err(error);
        }
        let failed = |error| storage("the artifact index", error);
        let (size, hash) = (index.len() as u64, Hash::of(&index));
        let _pass = self.sweep.pass().await;
        let kept = tokio::join!(self.keep_bytes(hash, index), self.keep_bytes(names.hash, bytes.clone()));
        kept.0.map_err(failed)?;
        kept.1.map_err(|error| storage("the manifest", error))?;
        // Durable with the manifest's name.
        self.blobs.name(&Ground::Index { manifest: digest, size }, hash).await.map_err(failed)?;
        let held = Held { digest, hash: names.hash, size: bytes.len() as u64 };
        Ok((self.admit(None, held).await?, hash))
    }

    /// Names a blob that is in the store, in one sync, and puts it into the index.
    pub async fn admit(&self, repository: Option<&RepoName>, held: Held) -> Result<Held, IngestError> {
        let Held { digest, hash, size } = held;
        self.sweep.spare(&hash);
        let failed = |error| storage("the name of the blob", error);
        self.blobs.name(&Ground::Blob { digest, size }, hash).await.map_err(failed)?;
        if let Some(repository) = repository {
            let link = Ground::Link { repository: repository.clone(), digest, size };
            self.blobs.name(&link, hash).await.map_err(failed)?;
        }
        self.blobs.sync().await.map_err(failed)?;
        self.index.hold(&held);
        if let Some(repository) = repository {
            self.index.link_local(repository, &held);
        }
        Ok(held)
    }

    /// Takes a complete draft in, if it is what is expected. Gives the draft back where the disk failed, so
    /// that an upload can be finished again.
    pub async fn adopt(
        self: &Arc<Self>,
        repository: Option<&RepoName>,
        expected: Digest,
        mut draft: Draft,
    ) -> (Option<Draft>, Result<Held, IngestError>) {
        let size = draft.length();
        let read = blocking(move || {
            let names = draft.names(&expected);
            let bytes = match size <= INLINE {
                true => draft.bytes().map(Some),
                false => Ok(None),
            };
            Ok((draft, names, bytes))
        });
        let (draft, names, bytes) = match read.await {
            Ok((draft, Ok(names), Ok(bytes))) => (draft, names, bytes),
            Ok((draft, Err(error), _) | (draft, _, Err(error))) => {
                return (Some(draft), Err(storage("the upload could not be read", error)));
            }
            Err(error) => return (None, Err(storage("the upload could not be read", error))),
        };
        if let Some(error) = mismatch(expected, names.digest) {
            remove_file(draft.path());
            return (None, Err(error));
        }
        let _pass = self.sweep.pass().await;
        let (draft, kept) = match bytes {
            Some(bytes) => (Some(draft), self.keep_bytes(names.hash, bytes).await.map(|()| None)),
            None => self.keep_file(names, size, draft).await,
        };
        let admitted = match kept {
            Ok(making) => {
                let held = Held { digest: expected, hash: names.hash, size };
                let admitted = self.admit(repository, held).await;
                // From here on what fails is for the next start.
                if let (Ok(_), Some(making)) = (&admitted, making) {
                    self.make_outboard(making);
                }
                admitted
            }
            Err(error) => Err(storage("the blob", error)),
        };
        if let (Ok(_), Some(draft)) = (&admitted, &draft) {
            remove_file(draft.path());
        }
        (draft, admitted)
    }

    /// Puts bytes into the store and makes durable what is not in its database.
    pub(super) async fn keep_bytes(&self, hash: Hash, bytes: Bytes) -> io::Result<()> {
        let size = bytes.len() as u64;
        if !self.is_sound(hash, size).await {
            let added = self.blobs.add_bytes(bytes).await?;
            debug_assert_eq!(added, hash, "the store hashes as we do");
            self.mend(hash, size).await?;
        }
        self.blobs.settle(hash, size).await
    }

    /// Moves a draft's file to where it stays, durably, and has the store refer to it; where the file is large,
    /// only says that the store is to refer to it once the blob is admitted.
    async fn keep_file(
        &self,
        names: Names,
        size: u64,
        draft: Draft,
    ) -> (Option<Draft>, io::Result<Option<Making>>) {
        let hash = names.hash;
        if self.is_sound(hash, size).await {
            return (Some(draft), self.blobs.settle(hash, size).await.map(|()| None));
        }
        let turn = match size {
            0..LATER => None,
            _ => match self.outboards.turn().await {
                Ok(turn) => Some(turn),
                Err(error) => return (Some(draft), Err(error)),
            },
        };
        let dirs = self.dirs.clone();
        let placed = blocking(move || {
            draft.sync()?;
            let path = dirs.file(&hash);
            // A link, since a rename would replace a file that someone else has just put there.
            let result = match fs::hard_link(draft.path(), &path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => sync_dir(path.parent().unwrap_or(&path)),
            };
            Ok((draft, result))
        })
        .await;
        let draft = match placed {
            Ok((draft, Ok(()))) => draft,
            Ok((draft, Err(error))) => return (Some(draft), Err(error)),
            Err(error) => return (None, Err(error)),
        };
        let kept = match turn.and_then(|turn| self.outboards.begin(hash, size, turn)) {
            None => self.import(hash, size).await.map(|()| None),
            Some(making) => {
                self.reading.mark(hash, &self.dirs.file(&hash));
                self.blobs.name(&Ground::Outboard { hash, size }, hash).await.map(|()| Some(making))
            }
        };
        (Some(draft), kept)
    }

    pub(super) async fn import(&self, hash: Hash, size: u64) -> io::Result<()> {
        let added = self.blobs.add_file(self.dirs.file(&hash)).await?;
        if added != hash {
            self.quarantine(hash, "its file changed while it was taken in").await;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the disk gave back other bytes"));
        }
        self.mend(hash, size).await?;
        self.blobs.settle(hash, size).await?;
        self.reading.mark(hash, &self.dirs.file(&hash));
        Ok(())
    }
}

fn length(step: &Step) -> u64 {
    step.pieces.iter().map(|piece| piece.len() as u64).sum()
}

fn names_of(expected: &Digest, bytes: &[u8]) -> Names {
    let mut hasher = Hasher::like(expected);
    hasher.update(bytes);
    hasher.names()
}

fn mismatch(expected: Digest, found: Digest) -> Option<IngestError> {
    (expected != found).then_some(IngestError::DigestMismatch { expected, found })
}
