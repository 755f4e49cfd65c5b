//! Lists: tags of a repository, repositories, manifests that refer to one. Long lists come in pages.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use axum::{http::header, response::Response};
use serde_json::{Value, json};
use waystation_proto::{
    Digest, Hash, RepoName,
    index::{ArtifactIndex, EdgeKind},
    verdict::{Facts, Purpose, Verdict, verdict},
};

use super::{
    Asked, Registry,
    error::{ApiError, Code},
    reply,
};
use crate::store::ArtifactEntry;

/// What artifact indexes are about, by their hash: they never change, and reading them costs a disk access.
#[derive(Default)]
pub struct Subjects {
    known: Mutex<HashMap<Hash, Option<Digest>>>,
}

impl Subjects {
    fn known(&self, index: &Hash) -> Option<Option<Digest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(index).copied()
    }

    fn learn(&self, index: Hash, subject: Option<Digest>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= SUBJECTS_MAX {
            known.clear();
        }
        known.insert(index, subject);
    }
}

impl Registry {
    /// GET of a repository's tags, without those whose artifact is hidden from this client.
    pub(super) fn tags(&self, asked: &Asked, repository: &RepoName) -> Result<Response, ApiError> {
        let page = Page::of(asked)?;
        let index = self.inner.store.index();
        let mut tags = index.tags(repository, page.last.as_deref(), page.limit + 1);
        if tags.is_empty() && index.artifacts(Some(repository)).is_empty() {
            return Err(ApiError::new(404, Code::NameUnknown, format!("no repository {repository} here")));
        }
        let more = tags.len() > page.limit;
        tags.truncate(page.limit);
        let last = tags.last().map(|(tag, _)| tag.to_string()).filter(|_| more);
        let visible = |target: &Digest| {
            index.artifact(repository, target).is_some_and(|entry| !is_hidden(asked, &entry))
        };
        let names: Vec<&str> = tags
            .iter()
            .filter(|(_, entry)| entry.target.as_ref().is_some_and(visible))
            .map(|(tag, _)| tag.as_str())
            .collect();
        let mut response =
            reply::json("application/json", &json!({"name": repository.as_str(), "tags": names}));
        page.link(&mut response, &format!("/v2/{repository}/tags/list"), last);
        Ok(response)
    }

    /// GET of the repositories.
    pub(super) fn catalog(&self, asked: &Asked) -> Result<Response, ApiError> {
        let page = Page::of(asked)?;
        let mut repositories = self.inner.store.index().repositories(page.last.as_deref(), page.limit + 1);
        let more = repositories.len() > page.limit;
        repositories.truncate(page.limit);
        let last = repositories.last().map(RepoName::to_string).filter(|_| more);
        let names: Vec<&str> =
            repositories.iter().filter(|name| asked.sees(name)).map(RepoName::as_str).collect();
        let mut response = reply::json("application/json", &json!({"repositories": names}));
        page.link(&mut response, "/v2/_catalog", last);
        Ok(response)
    }

    /// GET of the manifests whose subject is this one. Never 404: that would mean that the endpoint does
    /// not know referrers, and clients would keep them under tags.
    pub(super) async fn referrers(
        &self,
        asked: &Asked,
        repository: &RepoName,
        subject: Digest,
    ) -> Result<Response, ApiError> {
        let types: Vec<&str> = asked.parameters("artifactType").filter(|text| !text.is_empty()).collect();
        let mut manifests = Vec::new();
        for (_, manifest, entry) in self.inner.store.index().artifacts(Some(repository)) {
            if is_hidden(asked, &entry) || self.subject(&entry).await != Some(subject) {
                continue;
            }
            let descriptor = self.descriptor(&manifest, &entry).await;
            let own_type = descriptor.get("artifactType").and_then(Value::as_str);
            if types.is_empty() || own_type.is_some_and(|own| types.contains(&own)) {
                manifests.push(descriptor);
            }
            if manifests.len() == REFERRERS_MAX {
                tracing::warn!(%repository, %subject, "more referrers than are listed");
                break;
            }
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
        let mut response = reply::json(INDEX_TYPE, &index);
        if !types.is_empty() {
            reply::set(response.headers_mut(), reply::OCI_FILTERS, "artifactType");
        }
        Ok(response)
    }

    /// What an artifact is about, if its index is here.
    async fn subject(&self, entry: &ArtifactEntry) -> Option<Digest> {
        let hash = entry.place.index;
        if let Some(known) = self.inner.subjects.known(&hash) {
            return known;
        }
        let index = self.read_index(entry).await?;
        let subject = index.edges.iter().find(|edge| edge.kind == EdgeKind::Subject).map(|edge| edge.digest);
        self.inner.subjects.learn(hash, subject);
        subject
    }

    async fn read_index(&self, entry: &ArtifactEntry) -> Option<ArtifactIndex> {
        let limit = ArtifactIndex::MAX_BYTES as u64;
        let bytes = self.inner.store.read(entry.place.index, limit).await.ok()?;
        ArtifactIndex::decode(&bytes).ok()
    }

    /// A referrer's descriptor (distribution-spec, "Listing Referrers"). All annotations where the manifest
    /// is here, else those that its index keeps.
    async fn descriptor(&self, manifest: &Digest, entry: &ArtifactEntry) -> Value {
        let mut descriptor = json!({
            "mediaType": entry.place.media_type, "digest": manifest.to_string(), "size": entry.place.manifest_size,
        });
        let Some(index) = self.read_index(entry).await else { return descriptor };
        let mut annotations = json!(index.annotations);
        if let Ok(bytes) = self.inner.store.read(entry.place.manifest, entry.place.manifest_size).await
            && let Ok(mut document) = serde_json::from_slice::<Value>(&bytes)
        {
            annotations = document["annotations"].take();
        }
        if annotations.as_object().is_some_and(|all| !all.is_empty()) {
            descriptor["annotations"] = annotations;
        }
        if let Some(artifact_type) = index.artifact_type {
            descriptor["artifactType"] = artifact_type.into();
        }
        descriptor
    }
}

/// Which part of a list is asked for.
struct Page {
    limit: usize,
    last: Option<String>,
}

impl Page {
    fn of(asked: &Asked) -> Result<Self, ApiError> {
        let wrong = || ApiError::bad(Code::Unsupported, "the parameter n must be a number of entries");
        let limit = match asked.parameter("n") {
            Some(n) if n.bytes().all(|b| b.is_ascii_digit()) && !n.is_empty() => {
                n.parse().unwrap_or(PAGE_MAX).min(PAGE_MAX)
            }
            Some(_) => return Err(wrong()),
            None => PAGE_MAX,
        };
        Ok(Page { limit, last: asked.parameter("last").filter(|last| !last.is_empty()).map(str::to_owned) })
    }

    /// Points to the page after `last`, if there is one. A page of no entries has no next.
    fn link(&self, response: &mut Response, path: &str, last: Option<String>) {
        if let Some(last) = last.filter(|_| self.limit > 0) {
            reply::set(
                response.headers_mut(),
                header::LINK,
                &format!("<{path}?n={}&last={last}>; rel=\"next\"", self.limit),
            );
        }
    }
}

/// Whether this client must not learn that the artifact exists.
fn is_hidden(asked: &Asked, entry: &ArtifactEntry) -> bool {
    let facts = Facts { status: entry.status.clone() };
    verdict(&facts, asked.requester(), Purpose::Use) == Verdict::Hide
}

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Longest page; clients that want more follow the link.
const PAGE_MAX: usize = 10_000;
/// Most referrers listed.
const REFERRERS_MAX: usize = 1000;
/// Most artifact indexes whose subject is remembered, about 130 bytes each.
const SUBJECTS_MAX: usize = 16_384;
