//! Uploads of blobs: in one request, in chunks, as a stream, or by mounting what another repository has.
//! Every byte enters through the store's ingest.

use axum::{
    body::{Body, HttpBody},
    http::{StatusCode, header},
    response::Response,
};
use futures_util::FutureExt;
use waystation_oci::{path, upload::Chunk};
use waystation_proto::{Digest, Hash, RepoName, grant::Action, verdict::Verdict};

use super::{
    Asked, Registry,
    body::{incoming, too_large},
    error::{ApiError, Code},
    reply,
};
use crate::{
    access,
    store::{Held, IngestError},
};

impl Registry {
    /// POST: mounts, takes a whole blob, or opens a session. A node that could not publish here refuses
    /// before the client sends its bytes.
    pub(super) async fn start_upload(
        &self,
        asked: &Asked,
        body: Body,
        repository: &RepoName,
    ) -> Result<Response, ApiError> {
        self.inner.replica.may(Action::Publish, repository.clone()).await?;
        if let Some(mount) = asked.parameter("mount") {
            let digest = path::digest(mount)?;
            if let Some(held) = self.mountable(asked, repository, asked.parameter("from"), digest) {
                self.inner.store.claim(&[held.hash]).await;
                self.inner.store.link(repository, &held).await?;
                self.relinked(repository, digest).await?;
                return Ok(stored(repository, &digest));
            }
        } else if let Some(digest) = asked.parameter("digest") {
            let digest = path::digest(digest)?;
            let limit = self.blob_limit(asked)?;
            let held = self.inner.store.ingest(Some(repository), digest, limit, incoming(body)).await?;
            self.inner.store.claim(&[held.hash]).await;
            self.sealed(&held).await;
            self.relinked(repository, digest).await?;
            return Ok(stored(repository, &digest));
        }
        if let Some(algorithm) = asked.parameter("digest-algorithm")
            && !matches!(algorithm, "sha256" | "sha512")
        {
            return Err(ApiError::bad(Code::DigestInvalid, "digests are sha256 or sha512 here"));
        }
        let id = self.inner.store.upload_start(repository).await?;
        Ok(session(StatusCode::ACCEPTED, repository, &id, 0))
    }

    /// A held blob that a client may take over: from the repository that it names, else from any that it may
    /// read from.
    fn mountable(
        &self,
        asked: &Asked,
        repository: &RepoName,
        from: Option<&str>,
        digest: Digest,
    ) -> Option<Held> {
        let index = self.inner.store.index();
        let held = index.held(&digest)?;
        // What is left to an upstream to judge is not taken over from.
        let may_read = |name: &RepoName| {
            let may = asked.may(access::Action::Pull, name) && asked.sees(name) && !self.is_left(asked, name);
            may && self.judge_blob(asked.requester(), name, &digest) == Verdict::Serve
        };
        let found = match from {
            Some(from) => {
                let from = from.parse().ok()?;
                index.link(&from, &digest).is_some() && may_read(&from)
            }
            None => {
                index.link(repository, &digest).is_some()
                    || index.repositories_with(&digest, MOUNT_PROBES).iter().any(may_read)
            }
        };
        found.then_some(held)
    }

    /// PATCH: appends a chunk, or a stream of unknown length.
    pub(super) async fn upload_chunk(
        &self,
        asked: &Asked,
        body: Body,
        repository: &RepoName,
        id: &str,
    ) -> Result<Response, ApiError> {
        let length = self.append(asked, body, repository, id).await?;
        Ok(session(StatusCode::ACCEPTED, repository, id, length))
    }

    /// PUT: appends what is left, if anything, and ends the session.
    pub(super) async fn finish_upload(
        &self,
        asked: &Asked,
        body: Body,
        repository: &RepoName,
        id: &str,
    ) -> Result<Response, ApiError> {
        let digest = asked
            .parameter("digest")
            .ok_or_else(|| ApiError::bad(Code::DigestInvalid, "the parameter digest is missing"))?;
        let digest = path::digest(digest)?;
        if !body.is_end_stream() || asked.headers.contains_key(header::CONTENT_RANGE) {
            self.append(asked, body, repository, id).await?;
        }
        let held = self.inner.store.upload_finish(repository, id, digest).await?;
        self.inner.store.claim(&[held.hash]).await;
        self.sealed(&held).await;
        self.relinked(repository, digest).await?;
        Ok(stored(repository, &digest))
    }

    /// GET: how far the session is.
    pub(super) async fn upload_status(&self, repository: &RepoName, id: &str) -> Result<Response, ApiError> {
        let length = self.inner.store.upload_length(repository, id).await?;
        Ok(session(StatusCode::NO_CONTENT, repository, id, length))
    }

    /// DELETE: drops the session and its bytes.
    pub(super) async fn cancel_upload(&self, repository: &RepoName, id: &str) -> Result<Response, ApiError> {
        self.inner.store.upload_cancel(repository, id).await?;
        Ok(reply::empty(StatusCode::NO_CONTENT))
    }

    async fn append(
        &self,
        asked: &Asked,
        body: Body,
        repository: &RepoName,
        id: &str,
    ) -> Result<u64, ApiError> {
        let limit = self.blob_limit(asked)?;
        let chunk =
            asked.content_range().map(|text| Chunk::parse(text, asked.content_length())).transpose()?;
        let offset = chunk.map(Chunk::first);
        let appended = self.inner.store.upload_append(repository, id, offset, limit, incoming(body)).await;
        let end = match appended {
            Ok(end) => end,
            Err(error) => return Err(out_of_order(error, repository, id)),
        };
        if chunk.is_some_and(|chunk| end != chunk.end()) {
            let why =
                "the chunk is not as long as its Content-Range; ask how far the upload is and go on there";
            return Err(ApiError::bad(Code::SizeInvalid, why));
        }
        Ok(end)
    }

    /// The largest blob, unless the client says already that it will send more.
    fn blob_limit(&self, asked: &Asked) -> Result<u64, ApiError> {
        let limit = self.inner.config.blob_limit;
        if asked.content_length().is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        Ok(limit)
    }

    /// A blob that was deleted from the repository, here or elsewhere, is in it again.
    async fn relinked(&self, repository: &RepoName, digest: Digest) -> Result<(), ApiError> {
        if self.inner.store.index().is_removed(repository, &digest) {
            self.inner.replica.relink(repository.clone(), digest).await?;
        }
        Ok(())
    }

    /// Tells the replica of a blob that a client pushed, as soon as others can fetch it.
    async fn sealed(&self, held: &Held) {
        self.ingested(held.size);
        let (registry, hash) = (self.clone(), held.hash);
        if self.inner.store.servable(hash).now_or_never().is_some() {
            self.inner.replica.sealed(hash).await;
        } else {
            tokio::spawn(async move { registry.sealed_later(hash).await });
        }
    }

    /// Waits until others can fetch a blob and tells the replica.
    pub(super) async fn sealed_later(&self, hash: Hash) {
        self.inner.store.servable(hash).await;
        self.inner.replica.sealed(hash).await;
    }
}

/// How many repositories are looked at for a blob that a client wants to mount without saying from where.
const MOUNT_PROBES: usize = 1000;

/// 201 for a blob.
fn stored(repository: &RepoName, digest: &Digest) -> Response {
    reply::created(&format!("/v2/{repository}/blobs/{digest}"), digest)
}

/// An answer about an open session that has `length` bytes.
fn session(status: StatusCode, repository: &RepoName, id: &str, length: u64) -> Response {
    let mut response = reply::empty(status);
    let headers = response.headers_mut();
    reply::set(headers, header::LOCATION, &location(repository, id));
    reply::set(headers, header::RANGE, &received(length));
    reply::set(headers, reply::UPLOAD_UUID, id);
    response
}

/// Where to go on with a session.
fn location(repository: &RepoName, id: &str) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// What a session has, in the specification's form; that has no way to say "nothing", clients expect `0-0`.
fn received(length: u64) -> String {
    format!("0-{}", length.saturating_sub(1))
}

/// A refused chunk: says where the client is to go on, if that is what was wrong.
fn out_of_order(error: IngestError, repository: &RepoName, id: &str) -> ApiError {
    let have = match &error {
        IngestError::OutOfOrder { have } => Some(*have),
        _ => None,
    };
    let error = ApiError::from(error);
    match have {
        Some(have) => error
            .with_header(header::LOCATION, &location(repository, id))
            .with_header(header::RANGE, &received(have)),
        None => error,
    }
}
