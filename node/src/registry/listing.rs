//! Lists: tags of a repository, repositories, manifests that refer to one. Long lists come in pages.

use axum::{http::header, response::Response};
use serde_json::{Value, json};
use waystation_oci::path;
use waystation_proto::{
    Digest, RepoName,
    index::ArtifactIndex,
    verdict::{Facts, Purpose, Verdict, verdict},
};

use super::{
    Asked, Registry,
    error::{ApiError, Code},
    reply,
};
use crate::store::ArtifactEntry;

impl Registry {
    /// GET of a repository's tags, without those whose artifact is hidden from this client.
    pub(super) fn tags(&self, asked: &Asked, repository: &RepoName) -> Result<Response, ApiError> {
        let page = Page::of(asked)?;
        let index = self.inner.store.index();
        let visible = |target: &Digest| {
            index.artifact(repository, target).is_some_and(|entry| !is_hidden(asked, &entry))
        };
        let (mut names, mut last) = (Vec::new(), page.last.clone());
        // One more than fits says whether there is a next page, which begins after the last that is shown: names
        // that are not shown are told in no link either.
        while names.len() <= page.limit {
            let tags = index.tags(repository, last.as_deref(), page.limit + 1);
            if tags.is_empty() {
                break;
            }
            last = tags.last().map(|(tag, _)| tag.to_string());
            let shown = tags.into_iter().filter(|(_, entry)| entry.target.as_ref().is_some_and(visible));
            names.extend(shown.map(|(tag, _)| tag.to_string()));
        }
        if last == page.last && index.artifacts(Some(repository)).is_empty() {
            return Err(ApiError::new(404, Code::NameUnknown, format!("no repository {repository} here")));
        }
        let next = page.cut(&mut names);
        let mut response =
            reply::json("application/json", &json!({"name": repository.as_str(), "tags": names}));
        page.link(&mut response, &format!("/v2/{repository}/tags/list"), next, "");
        Ok(response)
    }

    /// GET of the repositories: those of the mesh, and those of upstreams of which something is here. What is left
    /// to an upstream to judge is not listed: it would have to be asked about each.
    pub(super) async fn catalog(&self, asked: &Asked) -> Result<Response, ApiError> {
        let page = Page::of(asked)?;
        let upstreams = self.inner.mirror.upstreams();
        let is_pulled =
            |name: &RepoName| upstreams.of_repository(name).is_some() && !self.is_left(asked, name);
        let mut names = Vec::new();
        for (n, (name, is_published)) in self.inner.store.index().listed(page.last.as_deref()).enumerate() {
            if names.len() > page.limit {
                break;
            }
            if asked.sees(&name) && (is_published || is_pulled(&name)) {
                names.push(name.to_string());
            }
            // A client that sees little has much looked through for it.
            if n % LOOKED_THROUGH == LOOKED_THROUGH - 1 {
                tokio::task::yield_now().await;
            }
        }
        let next = page.cut(&mut names);
        let mut response = reply::json("application/json", &json!({"repositories": names}));
        page.link(&mut response, "/v2/_catalog", next, "");
        Ok(response)
    }

    /// GET of the manifests whose subject is this one, in the order of their digests. Never 404: that would
    /// mean that the endpoint does not know referrers, and clients would keep them under tags. A manifest that
    /// such a client lists under a tag names its subject itself, so it is found like all others.
    pub(super) async fn referrers(
        &self,
        asked: &Asked,
        repository: &RepoName,
        subject: Digest,
    ) -> Result<Response, ApiError> {
        // No media type has a blank: it was a plus that the client did not escape.
        let types = asked.parameters("artifactType").map(|text| text.replace(' ', "+"));
        let types: Vec<String> = types.filter(|text| !text.is_empty()).collect();
        let page = Page::of(asked)?;
        let last = page.last.as_deref().map(path::digest).transpose()?;
        let unseen = self.bring_unseen(repository).await;
        let (mut manifests, mut bytes, mut next) = (Vec::new(), 0, None);
        let store = self.inner.store.index();
        for manifest in store.referrers(repository, &subject, last.as_ref()) {
            let entry = store.artifact(repository, &manifest).filter(|entry| !is_hidden(asked, entry));
            let Some(entry) = entry else { continue };
            let descriptor = self.descriptor(&manifest, &entry).await;
            let own_type = descriptor.get("artifactType").and_then(Value::as_str);
            if !types.is_empty() && !own_type.is_some_and(|own| types.iter().any(|asked| asked == own)) {
                continue;
            }
            let (text, limit) = (descriptor.to_string(), page.limit.min(REFERRERS_MAX));
            // The first is always listed, however long: otherwise there would be no next page.
            if manifests.len() == limit || (bytes + text.len() > REFERRERS_BYTES && bytes > 0) {
                next = manifests.last().map(|(manifest, _): &(Digest, Value)| manifest.to_string());
                break;
            }
            bytes += text.len();
            manifests.push((manifest, descriptor));
        }
        let manifests: Vec<Value> = manifests.into_iter().map(|(_, descriptor)| descriptor).collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests});
        let mut response = reply::json(INDEX_TYPE, &index);
        if !types.is_empty() {
            reply::set(response.headers_mut(), reply::OCI_FILTERS, "artifactType");
        }
        if unseen > 0 {
            let text = format!("{unseen} manifests of {repository} could not be looked at; more may refer");
            reply::set(response.headers_mut(), reply::WARNING, &reply::warning(&text));
        }
        let filters: String =
            types.iter().map(|text| format!("&artifactType={}", reply::escape(text))).collect();
        page.link(&mut response, &format!("/v2/{repository}/referrers/{subject}"), next, &filters);
        Ok(response)
    }

    /// Descriptors of what the mesh itself has in a repository that is about this manifest, of what is here.
    pub(super) async fn own_referrers(
        &self,
        asked: &Asked,
        repository: &RepoName,
        subject: &Digest,
    ) -> Vec<Value> {
        let (store, mut found) = (self.inner.store.index(), Vec::new());
        for manifest in store.referrers(repository, subject, None).into_iter().take(REFERRERS_MAX) {
            let entry = store.artifact(repository, &manifest).filter(|entry| !is_hidden(asked, entry));
            if let Some(entry) = entry {
                found.push(self.descriptor(&manifest, &entry).await);
            }
        }
        found
    }

    /// Gets the indexes of a repository that are not here, so that what they are about is known. Returns how
    /// many are still not.
    async fn bring_unseen(&self, repository: &RepoName) -> usize {
        let index = self.inner.store.index();
        let artifacts = index.artifacts(Some(repository)).into_iter();
        let unseen = artifacts.filter(|(_, manifest, _)| !index.is_reached(repository, manifest));
        let mut lacking: Vec<Digest> = unseen.map(|(_, manifest, _)| manifest).collect();
        let beyond = lacking.len().saturating_sub(LATE_MAX);
        lacking.truncate(LATE_MAX);
        if lacking.is_empty() { 0 } else { beyond + self.bring_late(repository, lacking).await }
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
            // Another node may have published anything.
            annotations = document.get_mut("annotations").map(Value::take).unwrap_or_default();
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
pub(super) struct Page {
    pub limit: usize,
    pub last: Option<String>,
}

impl Page {
    pub fn of(asked: &Asked) -> Result<Self, ApiError> {
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

    /// Cuts a list that may go on down to this page. Returns its last entry where there is more.
    fn cut(&self, names: &mut Vec<String>) -> Option<String> {
        let more = names.len() > self.limit;
        names.truncate(self.limit);
        names.last().cloned().filter(|_| more)
    }

    /// Points to the page after `last`, if there is one. A page of no entries has no next.
    pub fn link(&self, response: &mut Response, path: &str, last: Option<String>, filters: &str) {
        if let Some(last) = last.filter(|_| self.limit > 0) {
            reply::set(
                response.headers_mut(),
                header::LINK,
                &format!("<{path}?n={}&last={last}{filters}>; rel=\"next\"", self.limit),
            );
        }
    }
}

/// Whether this client must not learn that the artifact exists.
fn is_hidden(asked: &Asked, entry: &ArtifactEntry) -> bool {
    let facts = Facts { status: entry.status.clone() };
    verdict(&facts, asked.requester(), Purpose::Use) == Verdict::Hide
}

pub(super) const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// Longest page; clients that want more follow the link.
const PAGE_MAX: usize = 10_000;
/// Most referrers on a page.
const REFERRERS_MAX: usize = 1000;
/// Longest page of referrers in bytes: clients take at most 4 MiB.
const REFERRERS_BYTES: usize = 2 << 20;
/// Most artifact indexes that are fetched for one list of referrers.
const LATE_MAX: usize = 1000;
/// Repositories that are looked at before others have their turn.
const LOOKED_THROUGH: usize = 256;
