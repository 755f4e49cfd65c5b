//! Downloads of blobs. A blob is visible only through a link in the repository; what is linked but not held
//! is fetched from the mesh first.

use std::{io, time::Duration};

use axum::{body::Body, http::StatusCode, response::Response};
use bytes::Bytes;
use futures_util::StreamExt;
use waystation_oci::range::{Part, Wanted};
use waystation_proto::{
    Digest, Hash, RepoName,
    event::{BlobRef, WantFailure},
    grant::Action,
    verdict::{Facts, Purpose, Requester, Verdict, verdict},
};

use super::{
    Asked, Registry,
    coming::Growing,
    error::{ApiError, Code},
    parts::Content,
    reply,
};
use crate::access;
use crate::store::{Held, LinkEntry, Serving};

impl Registry {
    /// HEAD and GET of a blob. HEAD of a linked blob is answered from the link, unless nobody has the blob:
    /// clients that push send only what they are told is not there.
    pub(super) async fn blob(
        &self,
        asked: &Asked,
        repository: &RepoName,
        digest: Digest,
    ) -> Result<Response, ApiError> {
        let patience = if asked.is_head() { HEAD_PATIENCE } else { GET_PATIENCE };
        let link = self.visible(repository, &digest, patience).await;
        // Under a registry's name it was rather pulled through, when that was an upstream of this node, than pushed.
        let known = |link: &LinkEntry| {
            let pushes = || asked.may(access::Action::Push, repository);
            link.manifest.is_some() || !is_of_a_registry(repository) || pushes()
        };
        let link = link.filter(known).ok_or_else(|| unlinked(repository, &digest))?;
        // Whoever pushes an artifact that shares it must hear that it is here.
        let pushes = asked.is_head() && asked.may(access::Action::Push, repository);
        match self.judge_blob(asked.requester(), repository, &digest) {
            Verdict::Deny(reason) if !pushes => {
                let why =
                    format!("{digest}: all artifacts of {repository} that it is part of were taken back");
                return Err(ApiError::denied(format!("{why}; {reason}")));
            }
            Verdict::Hide if !pushes => return Err(unlinked(repository, &digest)),
            _ => {}
        }
        let held = self.inner.store.index().held(&digest);
        let size = held.map_or(link.size, |held| held.size);
        let content = Content { digest: &digest, media_type: BLOB_TYPE, size };
        if let Some(unchanged) = content.unchanged(asked) {
            return Ok(unchanged);
        }
        let used = link.manifest.unwrap_or(digest);
        self.inner.store.uses().touch(&used);
        if asked.is_head() {
            if let Some(held) = &held {
                self.inner.store.claim(&[held.hash]).await;
            }
            if held.is_none() && !self.is_elsewhere(&link) {
                return Err(ApiError::blob_unknown(&digest, "not held here, and no node says to hold it"));
            }
            return Ok(content.head());
        }
        let wanted = content.wanted(asked)?;
        let answered = match held {
            Some(held) => match self.answer_blob(&held, &content, &wanted).await {
                Err(lost) if is_lost(&lost) => {
                    let manifests = self.inner.store.index().artifacts_with(&digest, LOST_MAX);
                    self.inner.replica.lost(held.hash, manifests).await;
                    tracing::warn!(%digest, why = %lost, "a held blob could not be read; fetching it again");
                    let again = self.fetch(&digest, &link).await?;
                    self.answer_blob(&again, &content, &wanted).await
                }
                answered => answered,
            },
            None => self.answer_coming(&link, &content, &wanted).await?,
        };
        answered.map_err(ApiError::storage)
    }

    /// Whether a blob may be handed out in a repository: as any of the artifacts there that it is part of may be. One
    /// that was only uploaded is part of none yet.
    pub(super) fn judge_blob(&self, requester: Requester, repository: &RepoName, digest: &Digest) -> Verdict {
        let index = self.inner.store.index();
        let mut refused = Verdict::Serve;
        for manifest in index.makers(repository, digest).take(MAKERS_MAX) {
            let status = index.artifact(repository, &manifest).and_then(|entry| entry.status);
            match verdict(&Facts { status }, requester, Purpose::Use) {
                Verdict::Serve | Verdict::Warn(_) => return Verdict::Serve,
                // A reason tells more than nothing.
                Verdict::Hide if matches!(refused, Verdict::Deny(_)) => {}
                verdict => refused = verdict,
            }
        }
        refused
    }

    /// DELETE: takes the blob out of the repository, on every node of the mesh. Manifests that name it stay,
    /// and so do its bytes where something else needs them.
    pub(super) async fn delete_blob(
        &self,
        repository: RepoName,
        digest: Digest,
    ) -> Result<Response, ApiError> {
        self.inner.replica.may(Action::Delete, repository.clone()).await?;
        if self.visible(&repository, &digest, HEAD_PATIENCE).await.is_none() {
            return Err(unlinked(&repository, &digest));
        }
        self.inner.replica.unlink(repository, digest).await?;
        Ok(reply::empty(StatusCode::ACCEPTED))
    }

    /// The link through which a blob is visible in a repository.
    async fn visible(&self, repository: &RepoName, digest: &Digest, patience: Duration) -> Option<LinkEntry> {
        let index = self.inner.store.index();
        match index.link(repository, digest) {
            Some(link) => Some(link),
            None if index.is_removed(repository, digest) => None,
            None => self.late_link(repository, digest, patience).await,
        }
    }

    /// Whether another node says to hold something of the artifact that links a blob.
    fn is_elsewhere(&self, link: &LinkEntry) -> bool {
        let holders = link.manifest.map(|manifest| self.inner.store.index().holders(&manifest));
        holders.is_some_and(|holders| holders.iter().any(|(node, _)| *node != self.inner.node))
    }

    /// Answers with a linked blob that is not here: while it comes where it is large, else when it is here.
    async fn answer_coming(
        &self,
        link: &LinkEntry,
        content: &Content<'_>,
        wanted: &Wanted,
    ) -> Result<io::Result<Response>, ApiError> {
        if link.size > IN_FILES {
            let (blob, manifest) = missing(content.digest, link)?;
            let (store, replica) = (self.inner.store.clone(), self.inner.replica.clone());
            let coming = Growing::begin(&self.inner.looks, store, replica, blob, manifest).await;
            let answered = coming.answer(self.inner.readers.reader(), content, wanted).await;
            if let Some(response) = answered.map_err(|failure| not_come(failure, content.digest))? {
                return Ok(response);
            }
        }
        let held = self.fetch(content.digest, link).await?;
        Ok(self.answer_blob(&held, content, wanted).await)
    }

    /// Gets a linked blob here.
    async fn fetch(&self, digest: &Digest, link: &LinkEntry) -> Result<Held, ApiError> {
        let (blob, manifest) = missing(digest, link)?;
        let wanted = self.inner.replica.want_blob(blob, manifest).await;
        wanted.map_err(|failure| not_come(failure, digest))?;
        // The index is told of a sealed blob before the want is answered, or hears of it from the same loop.
        Ok(self.inner.store.index().held(digest).unwrap_or(Held {
            digest: *digest,
            hash: link.hash,
            size: link.size,
        }))
    }

    pub(super) async fn answer_blob(
        &self,
        held: &Held,
        content: &Content<'_>,
        wanted: &Wanted,
    ) -> io::Result<Response> {
        if held.size < content.size {
            return Err(too_short());
        }
        match self.inner.store.serve_blob(held.hash, held.size, wanted.first()).await? {
            Serving::Memory(bytes) => content.get(wanted, move |part| Ok(Body::from(slice(&bytes, part)?))),
            Serving::File(file) => {
                let reader = self.inner.readers.reader();
                let (registry, hash, digest) = (self.clone(), held.hash, held.digest);
                content.get(wanted, move |part| {
                    let stream = reader.stream(file.clone(), part.start, part.length());
                    let registry = registry.clone();
                    Ok(Body::from_stream(stream.inspect(move |step| {
                        if step.as_ref().is_err_and(is_lost) {
                            registry.lost_meanwhile(hash, digest);
                        }
                    })))
                })
            }
        }
    }

    /// A blob turned out damaged when some of it had been sent: the client is cut short, and whoever asks next has it
    /// come again.
    fn lost_meanwhile(&self, hash: Hash, digest: Digest) {
        let registry = self.clone();
        tokio::spawn(async move {
            let manifests = registry.inner.store.index().artifacts_with(&digest, LOST_MAX);
            registry.inner.replica.lost(hash, manifests).await;
        });
    }
}

/// What is to be wanted of a linked blob, and of which artifact's holders. The index of that artifact is the
/// authority for blob and hash being one.
fn missing(digest: &Digest, link: &LinkEntry) -> Result<(BlobRef, Digest), ApiError> {
    let gone = || ApiError::blob_unknown(digest, "not held here, and no artifact says who holds it");
    let manifest = link.manifest.ok_or_else(gone)?;
    Ok((BlobRef { digest: *digest, hash: link.hash, size: link.size }, manifest))
}

fn not_come(failure: WantFailure, digest: &Digest) -> ApiError {
    ApiError::from_want(failure, Code::BlobUnknown, digest)
}

/// Whether the first part of a name is a registry's.
fn is_of_a_registry(repository: &RepoName) -> bool {
    let first = repository.as_str().split_once('/').map_or("", |(first, _)| first);
    first.contains('.') || first.split('_').next() == Some("localhost")
}

fn unlinked(repository: &RepoName, digest: &Digest) -> ApiError {
    ApiError::blob_unknown(digest, format!("not in repository {repository}"))
}

/// A part of bytes in memory.
pub(super) fn slice(bytes: &Bytes, part: Part) -> io::Result<Bytes> {
    let bounds = usize::try_from(part.start).ok().zip(usize::try_from(part.end).ok());
    let (start, end) = bounds.filter(|(_, end)| *end <= bytes.len()).ok_or_else(too_short)?;
    Ok(bytes.slice(start..end))
}

/// Whether the error says that the blob is not here, or not any more.
pub(super) fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the blob is shorter than it should be")
}

/// Artifacts of a repository that a blob is looked for in; where all of those were taken back, it counts as such.
const MAKERS_MAX: usize = 1000;

/// Blobs of more bytes lie in files, which can be read while they grow.
const IN_FILES: u64 = 16 * 1024;
/// Artifacts of a damaged blob that are said not to be whole any more.
const LOST_MAX: usize = 1000;
pub(super) const BLOB_TYPE: &str = "application/octet-stream";
/// How long a GET waits for indexes that may link the blob.
const GET_PATIENCE: Duration = Duration::from_secs(5);
/// How long a HEAD waits: clients that push ask before every blob.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);
