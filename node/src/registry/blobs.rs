//! Downloads of blobs. A blob is visible only through a link in the repository; what is linked but not held
//! is fetched from the mesh first.

use std::{io, time::Duration};

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use waystation_proto::{Digest, RepoName, event::BlobRef};

use super::{
    Asked, Registry,
    error::{ApiError, Code},
    range::Part,
    reply,
};
use crate::store::{BlobReader, Held, LinkEntry};

impl Registry {
    /// HEAD and GET of a blob. HEAD of a linked blob is answered from the link, unless nobody has the blob:
    /// clients that push send only what they are told is not there.
    pub(super) async fn blob(
        &self,
        asked: &Asked,
        repository: &RepoName,
        digest: Digest,
    ) -> Result<Response, ApiError> {
        let link = match self.inner.store.index().link(repository, &digest) {
            Some(link) => link,
            None => {
                let patience = if asked.is_head() { HEAD_PATIENCE } else { GET_PATIENCE };
                self.late_link(repository, &digest, patience).await.ok_or_else(|| {
                    ApiError::blob_unknown(&digest, format!("not in repository {repository}"))
                })?
            }
        };
        let etag = format!("\"{digest}\"");
        if let Some(unchanged) = asked.unchanged(&etag) {
            return Ok(unchanged);
        }
        let held = self.inner.store.index().held(&digest);
        if asked.is_head() {
            if held.is_none() && !self.is_elsewhere(&link) {
                return Err(ApiError::blob_unknown(&digest, "not held here, and no node says to hold it"));
            }
            let size = held.map_or(link.size, |held| held.size);
            return Ok(content(Part::Whole, size, BLOB_TYPE, &digest, Body::empty()));
        }
        let size = held.map_or(link.size, |held| held.size);
        let part = Part::of(&asked.headers, size, &etag)?;
        let body = match held {
            Some(held) => match self.blob_body(&held, part).await {
                Err(lost) if is_lost(&lost) => {
                    self.inner.replica.lost(held.hash).await;
                    tracing::warn!(%digest, why = %lost, "a held blob could not be read; fetching it again");
                    let again = self.fetch(&digest, &link).await?;
                    self.blob_body(&again, part).await
                }
                body => body,
            },
            None => self.blob_body(&self.fetch(&digest, &link).await?, part).await,
        };
        Ok(content(part, size, BLOB_TYPE, &digest, body.map_err(ApiError::storage)?))
    }

    /// Whether another node says to hold something of the artifact that links a blob.
    fn is_elsewhere(&self, link: &LinkEntry) -> bool {
        let holders = link.manifest.map(|manifest| self.inner.store.index().holders(&manifest));
        holders.is_some_and(|holders| holders.iter().any(|(node, _)| *node != self.inner.node))
    }

    /// Gets a linked blob here.
    async fn fetch(&self, digest: &Digest, link: &LinkEntry) -> Result<Held, ApiError> {
        let gone = || ApiError::blob_unknown(digest, "not held here, and no artifact says who holds it");
        let manifest = link.manifest.ok_or_else(gone)?;
        let blob = BlobRef { digest: *digest, hash: link.hash, size: link.size };
        self.inner
            .replica
            .want_blob(blob, manifest)
            .await
            .map_err(|failure| ApiError::from_want(failure, Code::BlobUnknown, digest))?;
        // The index is told of a sealed blob before the want is answered, or hears of it from the same loop.
        Ok(self.inner.store.index().held(digest).unwrap_or(Held {
            digest: *digest,
            hash: link.hash,
            size: link.size,
        }))
    }

    async fn blob_body(&self, held: &Held, part: Part) -> io::Result<Body> {
        let (start, length) = part.span(held.size);
        match self.inner.store.open_blob(held.hash, held.size).await? {
            BlobReader::Memory(bytes) => Ok(Body::from(slice(&bytes, start, length)?)),
            BlobReader::File(file, size) if start + length <= size => {
                Ok(Body::from_stream(self.inner.readers.stream(file, start, length)))
            }
            BlobReader::File(..) => Err(too_short()),
        }
    }

    /// The link of a blob that belongs to an artifact whose index is not here yet: gets the missing indexes
    /// of the repository, a bounded number in a bounded time, until one of them links it.
    async fn late_link(
        &self,
        repository: &RepoName,
        digest: &Digest,
        patience: Duration,
    ) -> Option<LinkEntry> {
        let index = self.inner.store.index();
        let mut lacking = Vec::new();
        for (_, manifest, entry) in index.artifacts(Some(repository)).into_iter().take(LATE_PROBES) {
            let (hash, size) = (entry.place.index, entry.place.index_size);
            if lacking.len() < LATE_WANTS && self.inner.store.probe(hash, size).await.len() < size {
                lacking.push(manifest);
            }
        }
        let wants = lacking.into_iter().map(|manifest| {
            let replica = &self.inner.replica;
            async move { replica.want_artifact(repository.clone(), manifest, false).await }
        });
        let mut wants = stream::iter(wants).buffer_unordered(LATE_AT_ONCE);
        let search = async {
            while let Some(result) = wants.next().await {
                let link = result.ok().and_then(|()| index.link(repository, digest));
                if link.is_some() {
                    return link;
                }
            }
            None
        };
        tokio::time::timeout(patience, search).await.unwrap_or(None)
    }
}

/// An answer with content: its headers are the same for HEAD, whose body is empty.
pub(super) fn content(part: Part, size: u64, content_type: &str, digest: &Digest, body: Body) -> Response {
    let mut response = Response::new(body);
    let (start, length) = part.span(size);
    let headers = response.headers_mut();
    reply::set(headers, header::CONTENT_TYPE, content_type);
    reply::set(headers, header::CONTENT_LENGTH, &length.to_string());
    reply::set(headers, header::ACCEPT_RANGES, "bytes");
    reply::set(headers, header::ETAG, &format!("\"{digest}\""));
    reply::set(headers, reply::CONTENT_DIGEST, &digest.to_string());
    if let Part::Bytes { start: _, end } = part {
        reply::set(headers, header::CONTENT_RANGE, &format!("bytes {start}-{}/{size}", end - 1));
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    response
}

/// A part of bytes in memory.
pub(super) fn slice(bytes: &Bytes, start: u64, length: u64) -> io::Result<Bytes> {
    let bounds = usize::try_from(start).ok().zip(usize::try_from(start + length).ok());
    let (start, end) = bounds.filter(|(_, end)| *end <= bytes.len()).ok_or_else(too_short)?;
    Ok(bytes.slice(start..end))
}

/// Whether the error says that the blob is not here, or not any more.
fn is_lost(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidData)
}

fn too_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the blob is shorter than it should be")
}

const BLOB_TYPE: &str = "application/octet-stream";
/// How many artifacts of a repository are looked at for one unlinked blob.
const LATE_PROBES: usize = 256;
/// How many missing indexes are fetched for one unlinked blob.
const LATE_WANTS: usize = 32;
/// How many of them at a time.
const LATE_AT_ONCE: usize = 8;
/// How long a GET waits for them in all.
const GET_PATIENCE: Duration = Duration::from_secs(5);
/// How long a HEAD waits: clients that push ask before every blob.
const HEAD_PATIENCE: Duration = Duration::from_secs(1);
