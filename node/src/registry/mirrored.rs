//! Contents of upstreams at the endpoint: which requests mean an upstream's, and their answers. What the mesh has
//! of its own under such a name goes first. How contents are got is the mirror's business.

use std::io;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, Method, header},
    response::Response,
};
use serde_json::json;
use waystation_oci::{
    path::{Reference, Route},
    range,
};
use waystation_proto::{Digest, RepoName};

use super::{
    Asked, Origin, Registry,
    blobs::{BLOB_TYPE, is_lost, slice},
    error::{ApiError, Code},
    listing::Page,
    parts::Content,
    reply,
};
use crate::{
    access::{Authority, Entitlement},
    mirror::{Blob, ContentError, Entitled, Place, Target, Wanted},
    upstream::UpstreamError,
};

/// Whose content a request means.
pub(super) enum Scope {
    /// The mesh's own.
    Mesh(Route),
    /// An upstream's.
    Upstream(Place, Wanted),
}

/// What a request means, before it is known who asks.
pub(super) struct Meant {
    pub scope: Scope,
    /// What the request calls the repository, where it means one of another name.
    pub alias: Option<RepoName>,
}

impl Registry {
    /// Whose content a request means.
    pub(super) async fn meant(
        &self,
        route: Route,
        method: &Method,
        query: &[(String, String)],
    ) -> Result<Meant, ApiError> {
        let Some(repository) = route.repository() else {
            return Ok(Meant { scope: Scope::Mesh(route), alias: None });
        };
        let namespace = query.iter().find(|(key, _)| key == "ns").map(|(_, value)| value.as_str());
        let read = matches!(*method, Method::GET | Method::HEAD);
        // Only who says so can mean an upstream by writing.
        if !read && namespace.is_none_or(str::is_empty) {
            return Ok(Meant { scope: Scope::Mesh(route), alias: None });
        }
        let asked = repository.clone();
        let target = self.inner.mirror.target(asked.clone(), namespace).await;
        let (name, scope) = match (target, Wanted::of(&route)) {
            (Target::Foreign(namespace), _) => {
                let why = format!(
                    "this node does not pull through from {namespace:.255?}; name it as an [[upstream]] in the \
                     configuration, or as one of the mesh's own names in registry.names"
                );
                return Err(ApiError::new(404, Code::NameUnknown, why));
            }
            (Target::Local(name), _) => (name.clone(), Scope::Mesh(route.renamed(name))),
            (Target::Upstream(place), Some(wanted)) if read => {
                let name = place.repository.clone();
                let scope = if self.inner.mirror.has_own(&name, &wanted) {
                    Scope::Mesh(route.renamed(name.clone()))
                } else {
                    Scope::Upstream(place, wanted)
                };
                (name, scope)
            }
            (Target::Upstream(_), _) => {
                let why = "what is an upstream's can be pulled here, not pushed; push it there";
                return Err(ApiError::new(405, Code::Unsupported, why));
            }
        };
        Ok(Meant { scope, alias: Some(asked).filter(|asked| *asked != name) })
    }

    /// Whether this client may have what is in a repository that is left to its upstream to judge. The rules of
    /// this node have been asked for all others.
    pub(super) async fn entitle(&self, asked: &Asked, scope: &Scope) -> Result<(), ApiError> {
        let repository = match scope {
            Scope::Mesh(route) => route.repository(),
            Scope::Upstream(place, _) => Some(&place.repository),
        };
        let Some(repository) = repository else { return Ok(()) };
        if !self.is_left(asked, repository) {
            return Ok(());
        }
        // Whoever could push there could put what only some may see into a manifest that all may.
        if !matches!(asked.method, Method::GET | Method::HEAD) {
            let why = format!("{repository} is left to its upstream to judge; push under another name");
            return Err(ApiError::denied(why));
        }
        let login = |why: &str| Err(asked.caller.login_needed(repository, why).into());
        // What the mesh itself has there, the upstream knows nothing of.
        let Scope::Upstream(place, _) = scope else {
            return if asked.sees(repository) { Ok(()) } else { login("log in to pull here") };
        };
        let namespace = &place.upstream.config().namespace;
        let Some((user, password)) = asked.caller.basic() else {
            return login(&format!("log in with what {namespace} gave you"));
        };
        match self.inner.mirror.entitled(place, user, password).await {
            Entitled::Yes => Ok(()),
            Entitled::No => login(&format!("{namespace} does not give {repository} to this user")),
            Entitled::Unknown(why) => {
                let why = format!("{namespace} cannot be asked whether you may have {repository}: {why}");
                Err(ApiError::new(404, Code::NameUnknown, why))
            }
        }
    }

    /// Whether only its upstream can tell whether this client may have what is in a repository.
    pub(super) fn is_left(&self, asked: &Asked, repository: &RepoName) -> bool {
        asked.origin == Origin::Network && self.inner.mirror.authority(repository) == Authority::Upstream
    }

    /// The answer to a request to read an upstream's content.
    pub(super) async fn mirrored(
        &self,
        asked: &Asked,
        mut place: Place,
        wanted: Wanted,
    ) -> Result<Response, ApiError> {
        let via = self.inner.mirror.upstreams().via();
        if via.is_circle(&asked.headers) {
            let why = "this request has come through this node before: an upstream leads back here";
            return Err(ApiError::new(508, Code::Unsupported, why));
        }
        place.upstream = place.upstream.on_behalf(via, &asked.headers);
        let place = &place;
        let mut response = match wanted {
            Wanted::Manifest(reference) => self.mirrored_manifest(asked, place, &reference).await,
            Wanted::Blob(digest) => self.mirrored_blob(asked, place, digest).await,
            Wanted::Tags => self.mirrored_tags(asked, place).await,
            Wanted::Referrers(subject) => self.mirrored_referrers(asked, place, subject).await,
        }?;
        if let Some(namespace) = asked.parameter("ns") {
            reply::set(response.headers_mut(), OCI_NAMESPACE, namespace);
        }
        Ok(response)
    }

    async fn mirrored_manifest(
        &self,
        asked: &Asked,
        place: &Place,
        reference: &Reference,
    ) -> Result<Response, ApiError> {
        let (digest, warning) = match reference {
            Reference::Digest(digest) => (*digest, None),
            Reference::Tag(tag) => {
                let resolved = self.inner.mirror.resolve(place, tag).await;
                let resolved = resolved.map_err(|error| refused(&error, Code::ManifestUnknown, reference))?;
                (resolved.digest, resolved.warning)
            }
        };
        let manifest = self.inner.mirror.manifest(place, digest, !asked.is_head()).await;
        let manifest = manifest.map_err(|error| not_given(error, Code::ManifestUnknown, &digest))?;
        self.inner.store.uses().touch(&digest);
        let (media_type, size) = (manifest.parsed.media_type(), manifest.bytes.len() as u64);
        let content = Content { digest: &digest, media_type, size };
        let mut response = if let Some(unchanged) = content.unchanged(asked) {
            unchanged
        } else if asked.is_head() {
            content.head()
        } else {
            let (wanted, bytes) = (content.wanted(asked)?, manifest.bytes.clone());
            let read = move |part| Ok(Body::from(slice(&bytes, part)?));
            content.get(&wanted, read).map_err(ApiError::storage)?
        };
        warn(response.headers_mut(), warning.as_deref());
        Ok(response)
    }

    async fn mirrored_blob(
        &self,
        asked: &Asked,
        place: &Place,
        digest: Digest,
    ) -> Result<Response, ApiError> {
        let unknown = |error| not_given(error, Code::BlobUnknown, &digest);
        let content = |size| Content { digest: &digest, media_type: BLOB_TYPE, size };
        if asked.is_head() {
            let size = self.inner.mirror.blob_size(place, digest).await.map_err(unknown)?;
            return Ok(content(size).head());
        }
        let blob = self.inner.mirror.blob(place, digest).await.map_err(unknown)?;
        self.inner.store.uses().touch(&digest);
        let size = match &blob {
            Blob::Held(held) => held.size,
            Blob::Coming(_, size) => *size,
        };
        let content = content(size);
        if let Some(unchanged) = content.unchanged(asked) {
            return Ok(unchanged);
        }
        let wanted = content.wanted(asked)?;
        let held = if let Blob::Held(held) = &blob { Some(held.hash) } else { None };
        match (self.give(blob, &content, &wanted).await, held) {
            (Err(lost), Some(hash)) if is_lost(&lost) => {
                // It was damaged, or deleted just now; it comes again.
                self.inner.replica.lost(hash, Vec::new()).await;
                let again = self.inner.mirror.blob(place, digest).await.map_err(unknown)?;
                self.give(again, &content, &wanted).await
            }
            (answered, _) => answered,
        }
        .map_err(ApiError::storage)
    }

    /// A blob that is here, or as it comes.
    async fn give(&self, blob: Blob, content: &Content<'_>, wanted: &range::Wanted) -> io::Result<Response> {
        match blob {
            Blob::Held(held) => self.answer_blob(&held, content, wanted).await,
            Blob::Coming(download, size) => {
                let reader = self.inner.growing.reader();
                content.get(wanted, move |part| {
                    let stream = reader.stream(download.clone(), size, part.start, part.end);
                    Ok(Body::from_stream(stream))
                })
            }
        }
    }

    async fn mirrored_tags(&self, asked: &Asked, place: &Place) -> Result<Response, ApiError> {
        let page = Page::of(asked)?;
        let listed = place.upstream.tags(&place.path, page.last.as_deref(), page.limit).await;
        let (tags, next, warning) = match listed {
            Ok(page) => (page.tags, page.next, None),
            Err(error @ (UpstreamError::Unavailable(_) | UpstreamError::RateLimited { .. })) => {
                let known = self.inner.mirror.known_tags(place, page.last.as_deref(), page.limit + 1);
                if known.is_empty() && page.last.is_none() {
                    return Err(refused(&error, Code::NameUnknown, &place.repository));
                }
                let more = known.len() > page.limit;
                let warning = format!("these are the tags that the mesh has seen; {error}");
                let known: Vec<_> = known.into_iter().take(page.limit).collect();
                let next = known.last().map(ToString::to_string).filter(|_| more);
                (known, next, Some(warning))
            }
            Err(error) => return Err(refused(&error, Code::NameUnknown, &place.repository)),
        };
        let names: Vec<&str> = tags.iter().map(|tag| tag.as_str()).collect();
        let name = asked_name(place);
        let mut response = reply::json("application/json", &json!({"name": name, "tags": names}));
        page.link(&mut response, &format!("/v2/{name}/tags/list"), next, "");
        warn(response.headers_mut(), warning.as_deref());
        Ok(response)
    }

    async fn mirrored_referrers(
        &self,
        asked: &Asked,
        place: &Place,
        subject: Digest,
    ) -> Result<Response, ApiError> {
        let types: Vec<&str> = asked.parameters("artifactType").filter(|text| !text.is_empty()).collect();
        let (mut manifests, warning) = match place.upstream.referrers(&place.path, &subject, None).await {
            Ok(found) if found.complete => (found.manifests, None),
            Ok(found) => (found.manifests, Some("there are more than are listed".to_owned())),
            Err(UpstreamError::NotFound) => (Vec::new(), None),
            Err(error) => {
                let (known, all) = self.inner.mirror.known_referrers(place, &subject).await;
                let which = if all { "the" } else { "some of the" };
                (known, Some(format!("these are {which} referrers that are here; {error}")))
            }
        };
        if !self.is_left(asked, &place.repository) || asked.sees(&place.repository) {
            let own = self.own_referrers(asked, &place.repository, &subject).await;
            let new = own
                .into_iter()
                .filter(|one| manifests.iter().all(|listed| listed["digest"] != one["digest"]));
            let new: Vec<serde_json::Value> = new.collect();
            manifests.extend(new);
        }
        let fits = |descriptor: &&serde_json::Value| {
            let own = descriptor.get("artifactType").and_then(serde_json::Value::as_str);
            types.is_empty() || own.is_some_and(|own| types.contains(&own))
        };
        let manifests: Vec<&serde_json::Value> = manifests.iter().filter(fits).collect();
        let index =
            json!({"schemaVersion": 2, "mediaType": super::listing::INDEX_TYPE, "manifests": manifests});
        let mut response = reply::json(super::listing::INDEX_TYPE, &index);
        if !types.is_empty() {
            reply::set(response.headers_mut(), reply::OCI_FILTERS, "artifactType");
        }
        warn(response.headers_mut(), warning.as_deref());
        Ok(response)
    }
}

/// What clients call the repository.
fn asked_name(place: &Place) -> &str {
    if place.unqualified { &place.path } else { place.repository.as_str() }
}

/// What a client is told that an upstream refused. One that is away is answered with 404, which has clients ask
/// whomever they are to ask next.
fn refused(error: &UpstreamError, unknown: Code, name: impl std::fmt::Display) -> ApiError {
    let text = format!("{name}: {error}");
    match error {
        UpstreamError::NotFound | UpstreamError::Unavailable(_) | UpstreamError::Invalid(_) => {
            ApiError::new(404, unknown, text)
        }
        UpstreamError::Denied(_) => ApiError::denied(text),
        UpstreamError::RateLimited { retry_after } => {
            let seconds = retry_after.as_secs().max(1).to_string();
            ApiError::new(429, Code::TooManyRequests, text).with_header(header::RETRY_AFTER, &seconds)
        }
    }
}

fn not_given(error: ContentError, unknown: Code, digest: &Digest) -> ApiError {
    match error {
        ContentError::Want(failure) => ApiError::from_want(failure, unknown, digest),
        ContentError::NotManifest(_) | ContentError::Incomplete { .. } => {
            ApiError::new(404, unknown, format!("{digest}: {error}"))
        }
        ContentError::Storage(why) => ApiError::storage(why),
    }
}

fn warn(headers: &mut HeaderMap, warning: Option<&str>) {
    if let Some(warning) = warning {
        reply::set(headers, header::WARNING, &reply::warning(warning));
    }
}

/// The namespace that a request was answered for (distribution-spec, "Registry Proxying").
const OCI_NAMESPACE: HeaderName = HeaderName::from_static("oci-namespace");
