//! Manifests: answered where the verdict allows it and the closure can be supplied, published where all that
//! they need is in the repository.

use axum::{
    body::Body,
    http::{StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use futures_util::FutureExt;
use sha2::{Digest as _, Sha256, Sha512};
use waystation_oci::{
    manifest,
    path::{self, Reference},
};
use waystation_proto::{
    Digest, RepoName, Tag,
    body::HoldingState,
    grant::Action,
    verdict::{Facts, Purpose, Verdict, verdict},
};

use super::{
    Asked, Registry,
    blobs::slice,
    body::{too_large, whole},
    error::{ApiError, Code},
    parts::Content,
    reply,
};
use crate::store::ArtifactEntry;

impl Registry {
    /// HEAD and GET of a manifest.
    pub(super) async fn manifest(
        &self,
        asked: &Asked,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<Response, ApiError> {
        let (digest, entry) = self.artifact(repository, reference)?;
        let facts = Facts { status: entry.status.clone() };
        let warning = match verdict(&facts, asked.requester(), Purpose::Use) {
            Verdict::Serve => None,
            Verdict::Warn(warning) => Some(warning),
            Verdict::Hide => return Err(ApiError::manifest_unknown(reference, "not in this repository")),
            Verdict::Deny(reason) => return Err(ApiError::denied(format!("{reference}: {reason}"))),
        };
        self.supply(repository, &digest, !asked.is_head()).await?;
        self.inner.store.uses().touch(&digest);
        let held = self.inner.store.index().held(&digest);
        let (hash, size) =
            held.map_or((entry.place.manifest, entry.place.manifest_size), |h| (h.hash, h.size));
        let content = Content { digest: &digest, media_type: &entry.place.media_type, size };
        let mut response = match content.unchanged(asked) {
            Some(unchanged) => unchanged,
            None if asked.is_head() => content.head(),
            None => {
                let wanted = content.wanted(asked)?;
                let bytes = self.inner.store.read(hash, READ_LIMIT).await.map_err(ApiError::storage)?;
                content
                    .get(&wanted, move |part| Ok(Body::from(slice(&bytes, part)?)))
                    .map_err(ApiError::storage)?
            }
        };
        if let Some(warning) = warning {
            reply::set(response.headers_mut(), reply::WARNING, &reply::warning(&warning));
        }
        Ok(response)
    }

    /// The artifact that a tag or digest names in a repository.
    fn artifact(
        &self,
        repository: &RepoName,
        reference: &Reference,
    ) -> Result<(Digest, ArtifactEntry), ApiError> {
        let index = self.inner.store.index();
        let unknown = || ApiError::manifest_unknown(reference, format!("not in repository {repository}"));
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                index.tag(repository, tag).and_then(|entry| entry.target).ok_or_else(unknown)?
            }
        };
        let entry = index.artifact(repository, &digest).ok_or_else(unknown)?;
        Ok((digest, entry))
    }

    /// Makes sure that the manifest is here and that all it needs is here or can be had: an answer with 200
    /// that leads to blobs which nobody has would keep clients from asking elsewhere.
    async fn supply(&self, repository: &RepoName, digest: &Digest, closure: bool) -> Result<(), ApiError> {
        let index = self.inner.store.index();
        let holding = index.holding(digest, &self.inner.node);
        if holding == Some(HoldingState::Complete) && index.held(digest).is_some() {
            return Ok(());
        }
        self.inner
            .replica
            .want_artifact(repository.clone(), *digest, closure)
            .await
            .map_err(|failure| ApiError::from_want(failure, Code::ManifestUnknown, digest))
    }

    /// PUT of a manifest: by tag, or by digest with any number of `tag` parameters.
    pub(super) async fn push_manifest(
        &self,
        asked: &Asked,
        body: Body,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Response, ApiError> {
        self.inner.replica.may(Action::Publish, repository.clone()).await?;
        let limit = self.inner.config.manifest_limit;
        if asked.content_length().is_some_and(|length| length > limit) {
            return Err(too_large(limit));
        }
        let tags = tags(asked, &reference)?;
        let content_type = asked.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let bytes = whole(body, limit).await?;
        let digest = match reference {
            Reference::Tag(_) => Digest::Sha256(Sha256::digest(&bytes).into()),
            Reference::Digest(digest) => verified(digest, &bytes)?,
        };
        let parsed = manifest::parse(&bytes, content_type)?;
        let subject = parsed.subject();
        self.publish(&repository, digest, parsed, bytes, tags.clone()).await?;
        let mut response = reply::created(&format!("/v2/{repository}/manifests/{digest}"), &digest);
        if let Some(subject) = subject {
            reply::set(response.headers_mut(), reply::OCI_SUBJECT, &subject.to_string());
        }
        for tag in &tags {
            response.headers_mut().append(reply::OCI_TAG, reply::header_value(tag.as_str()));
        }
        Ok(response)
    }

    /// Stores a manifest and its index and has the replica publish them, in that order.
    async fn publish(
        &self,
        repository: &RepoName,
        digest: Digest,
        mut parsed: manifest::Parsed,
        bytes: Bytes,
        tags: Vec<Tag>,
    ) -> Result<(), ApiError> {
        let depends = self.dependencies(repository, &parsed).await;
        parsed.depend_on(depends);
        let (store, replica) = (&self.inner.store, &self.inner.replica);
        let hash = waystation_proto::Hash::of(&bytes);
        // From here on nothing that it needs is deleted; what is gone already is not found below.
        let needed: Vec<waystation_proto::Hash> = parsed
            .edges()
            .iter()
            .filter_map(|edge| store.index().held(&edge.digest).map(|held| held.hash))
            .collect();
        store.claim(&needed).await;
        // Only what is linked here; what this node computed itself goes before what the link says.
        let sparse = self.inner.config.sparse;
        let index = parsed.into_index(digest, hash, sparse, |blob| {
            let link = store.index().link(repository, blob)?;
            let held = store.index().held(blob);
            Some(held.map_or((link.hash, link.size), |held| (held.hash, held.size)))
        })?;
        let encoded = Bytes::from(index.encode());
        let size = encoded.len() as u64;
        let (held, index_hash) = store.ingest_manifest(digest, bytes, encoded).await?;
        self.ingested(held.size);
        replica.sealed(held.hash).await;
        replica.sealed(index_hash).await;
        // The artifact is announced with all that it needs, so others must be able to fetch that.
        for hash in index.edges.iter().filter_map(|edge| edge.hash) {
            if store.servable(hash).now_or_never().is_none() {
                self.sealed_later(hash).await;
            }
        }
        store.uses().touch(&digest);
        replica.publish(repository.clone(), tags, index, index_hash, size).await?;
        store.release(&needed);
        Ok(())
    }

    /// DELETE of a manifest: by tag takes the tag away, by digest the artifact with all its tags.
    pub(super) async fn delete_manifest(
        &self,
        repository: RepoName,
        reference: Reference,
    ) -> Result<Response, ApiError> {
        self.inner.replica.may(Action::Delete, repository.clone()).await?;
        self.artifact(&repository, &reference)?;
        match reference {
            Reference::Tag(tag) => self.inner.replica.untag(repository, tag).await?,
            Reference::Digest(digest) => self.inner.replica.unpublish(repository, digest).await?,
        }
        Ok(reply::empty(StatusCode::ACCEPTED))
    }

    /// Counts something that a client pushed.
    pub(super) fn ingested(&self, size: u64) {
        self.inner.metrics.blobs_ingested.inc();
        self.inner.metrics.bytes_ingested.inc_by(size);
    }
}

/// The tags that a pushed manifest is to get.
fn tags(asked: &Asked, reference: &Reference) -> Result<Vec<Tag>, ApiError> {
    let mut tags = Vec::new();
    if let Reference::Tag(tag) = reference {
        tags.push(tag.clone());
    }
    for text in asked.parameters("tag") {
        let tag = path::tag(text)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    if tags.len() > TAGS_MAX {
        return Err(ApiError::new(414, Code::Unsupported, format!("at most {TAGS_MAX} tags at a time")));
    }
    Ok(tags)
}

/// The digest, if it is that of the bytes.
fn verified(expected: Digest, bytes: &[u8]) -> Result<Digest, ApiError> {
    let found = match expected {
        Digest::Sha256(_) => Digest::Sha256(Sha256::digest(bytes).into()),
        Digest::Sha512(_) => Digest::Sha512(Sha512::digest(bytes).into()),
    };
    if found == expected {
        return Ok(found);
    }
    Err(ApiError::bad(
        Code::DigestInvalid,
        format!("the manifest's bytes have digest {found}, not {expected}"),
    ))
}

/// Longest manifest that is answered, in bytes: nodes may take longer ones than this node does.
const READ_LIMIT: u64 = 16 << 20;
/// Most tags that one push sets (the specification asks for ten).
const TAGS_MAX: usize = 50;
