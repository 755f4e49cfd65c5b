//! Foreign registries that a node may pull through. Owns what can be asked of one and what its answers are worth:
//! manifests are checked against their digests here, blobs by whoever ingests them. When to ask, what to keep and
//! whom to give it to is the caller's.

mod body;
mod breaker;
mod challenge;
pub mod config;
mod credentials;
mod error;
mod exchange;
mod listing;
mod namespace;
mod ping;
mod proxies;
#[cfg(test)]
mod tests;
mod token;
mod transport;
mod via;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use reqwest::{
    Method, StatusCode,
    header::{self, HeaderMap, HeaderValue},
};
use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use waystation_proto::{Digest, NodeId, RepoName, Tag};

pub use self::{
    body::LEAST,
    config::{Access, StaleFor, UpstreamConfig},
    error::{UpstreamConfigError, UpstreamError},
    exchange::Quota,
    listing::{Referrers, TagPage},
    namespace::normalise as normalise_namespace,
    ping::{Answered, Pinged},
    via::Via,
};
use self::{
    credentials::{Credentials, Current, Login},
    error::Failed,
    exchange::{Answer, As, Ask, Endpoint},
    transport::{Transport, origin},
};
use crate::{secret::Secret, store::ByteStream};

/// All upstreams of a node.
#[derive(Clone, Default)]
pub struct Upstreams {
    all: Arc<[Arc<Inner>]>,
    via: Via,
}

/// One upstream. Cheap to clone.
#[derive(Clone)]
pub struct Upstream {
    inner: Arc<Inner>,
    via: HeaderValue,
}

/// What names a manifest at an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// By name.
    Tag(Tag),
    /// By content.
    Digest(Digest),
}

/// What a tag means at the upstream now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest.
    pub digest: Digest,
    /// Its type, where the upstream said one that is a manifest's.
    pub media_type: Option<String>,
    /// Its bytes, where the upstream said how many.
    pub size: Option<u64>,
}

/// A manifest whose bytes have the digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The bytes: a JSON object.
    pub bytes: Bytes,
    /// Its type; empty where neither upstream nor manifest say it.
    pub media_type: String,
    /// Computed here.
    pub digest: Digest,
}

/// A blob on its way. Its bytes are not verified.
pub struct BlobBody {
    /// Of the whole blob, where the upstream said it.
    pub size: Option<u64>,
    /// The first byte that comes; 0 where the upstream does not begin in the middle.
    pub from: u64,
    /// Its strong entity tag, where the upstream gave one.
    pub etag: Option<String>,
    /// The bytes. It ends with an error where they are not as many as announced; the rest can be asked for anew.
    pub body: ByteStream,
}

/// How an upstream does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamStatus {
    /// Its name.
    pub namespace: String,
    /// Where it is asked, in order.
    pub endpoints: Vec<EndpointStatus>,
}

/// How an endpoint does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// As configured.
    pub url: String,
    /// Whether it is left alone because it fails.
    pub away: bool,
    /// What went wrong last, while it goes wrong.
    pub trouble: Option<String>,
    /// For how many seconds it asked to be left alone.
    pub limited_for_s: Option<u64>,
    /// How often it may still be asked, as it said last.
    pub quota: Option<Quota>,
}

struct Inner {
    config: UpstreamConfig,
    endpoints: Vec<Endpoint>,
    transport: Transport,
}

impl Upstreams {
    /// All that are configured. Reads their credentials and certificates.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration or the files that it names.
    pub fn new(configs: &[UpstreamConfig]) -> Result<Self, UpstreamConfigError> {
        let mut wrong = config::check(configs);
        let mut all = Vec::new();
        if wrong.is_empty() {
            for config in configs {
                match Inner::new(config) {
                    Ok(inner) => all.push(Arc::new(inner)),
                    Err(why) => {
                        wrong.extend(why.iter().map(|why| format!("upstream {}: {why}", config.namespace)))
                    }
                }
            }
        }
        if wrong.is_empty() {
            Ok(Upstreams { all: all.into(), via: Via::default() })
        } else {
            Err(UpstreamConfigError::Invalid(wrong))
        }
    }

    /// The same, for requests that tell upstreams which node they come from, so that it knows its own when they
    /// come back to it.
    pub fn of_node(self, node: &NodeId) -> Self {
        Upstreams { via: Via::of(node), ..self }
    }

    /// How this node is called in `Via`.
    pub fn via(&self) -> &Via {
        &self.via
    }

    /// The upstream that clients call so: by any of its names, a port after `:` or `_`.
    pub fn for_namespace(&self, namespace: &str) -> Option<Upstream> {
        let name = namespace::normalise(namespace)?;
        self.all.iter().find(|inner| inner.config.namespace == name).map(|inner| self.upstream(inner))
    }

    /// The upstream whose content is in this repository here, and the repository's path there. `None` where there
    /// is none, or it may not be pulled through.
    pub fn of_repository(&self, repository: &RepoName) -> Option<(Upstream, String)> {
        let (namespace, path) = repository.as_str().split_once('/')?;
        let upstream = self.for_namespace(namespace)?;
        let path = namespace::path_at(&upstream.inner.config.namespace, path);
        upstream.inner.config.allows(&path).then_some((upstream, path))
    }

    /// The upstream that requests mean that do not say whose repository they are for.
    pub fn unqualified(&self) -> Option<Upstream> {
        self.all.iter().find(|inner| inner.config.mirror_for_unqualified).map(|inner| self.upstream(inner))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = Upstream> {
        self.all.iter().map(|inner| self.upstream(inner))
    }

    /// How they do.
    pub fn status(&self) -> Vec<UpstreamStatus> {
        self.all.iter().map(|inner| inner.status()).collect()
    }

    fn upstream(&self, inner: &Arc<Inner>) -> Upstream {
        Upstream { inner: Arc::clone(inner), via: self.via.header(None) }
    }
}

impl Upstream {
    /// Its configuration.
    pub fn config(&self) -> &UpstreamConfig {
        &self.inner.config
    }

    /// The same, for questions that are asked because of a request with these headers: they tell the upstream
    /// through which nodes that request has come.
    pub fn on_behalf(&self, via: &Via, headers: &HeaderMap) -> Self {
        Upstream { inner: Arc::clone(&self.inner), via: via.header(Some(headers)) }
    }

    /// The repository here that holds what is at this path there; `None` where it may not be pulled through or
    /// cannot be a name.
    pub fn repository(&self, path: &str) -> Option<RepoName> {
        let config = &self.inner.config;
        let path = namespace::path_at(&config.namespace, path);
        if !config.allows(&path) {
            return None;
        }
        format!("{}/{path}", config.namespace).parse().ok()
    }

    /// Whether every endpoint is left alone because it fails.
    pub fn is_away(&self) -> bool {
        self.inner
            .endpoints
            .iter()
            .all(|endpoint| self.inner.transport.breaker(&origin(&endpoint.url)).is_open())
    }

    /// Whether an endpoint of it has answered not longer ago than that.
    pub fn has_answered_within(&self, span: Duration) -> bool {
        let breaker = |endpoint: &Endpoint| self.inner.transport.breaker(&origin(&endpoint.url));
        self.inner.endpoints.iter().any(|endpoint| breaker(endpoint).has_answered_within(span))
    }

    /// What a tag means now. Asks with HEAD, which upstreams that count requests do not count; with GET only where
    /// that gives no digest.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn resolve(&self, path: &str, tag: &Tag) -> Result<Resolved, UpstreamError> {
        let what = format!("manifests/{tag}");
        let ask = Ask { method: Method::HEAD, accept: Some(MANIFEST_TYPES), ..ask(path, what) };
        match self.ask(&ask).await {
            Ok(Answer { response, host }) => {
                if let Some(digest) = digest_said(response.headers(), &host)? {
                    let media_type = content_type(response.headers()).filter(|found| is_manifest_type(found));
                    return Ok(Resolved { digest, media_type, size: length_said(response.headers()) });
                }
            }
            // Not for HEAD, or redirected to a URL that is signed for GET.
            Err(failed) if failed.status == Some(StatusCode::METHOD_NOT_ALLOWED) => {}
            Err(failed) if failed.redirected && failed.status.is_some_and(|s| s.is_client_error()) => {}
            Err(failed) => return Err(failed.error),
        }
        let found = self.manifest(path, &Target::Tag(tag.clone())).await?;
        let media_type = Some(found.media_type).filter(|media_type| !media_type.is_empty());
        Ok(Resolved { digest: found.digest, media_type, size: Some(found.bytes.len() as u64) })
    }

    /// A manifest.
    ///
    /// # Errors
    /// See [`UpstreamError`]; Invalid where the bytes are too many, are not JSON, or do not have the digest that was
    /// asked for or announced.
    pub async fn manifest(&self, path: &str, target: &Target) -> Result<Manifest, UpstreamError> {
        let (what, verified) = match target {
            Target::Tag(tag) => (format!("manifests/{tag}"), false),
            Target::Digest(digest) => (format!("manifests/{digest}"), true),
        };
        let Answer { response, host } =
            self.ask(&Ask { accept: Some(MANIFEST_TYPES), verified, ..ask(path, what) }).await?;
        let announced = digest_said(response.headers(), &host)?;
        let said_type = content_type(response.headers());
        let bytes = body::bounded(response, MAX_MANIFEST).await?;
        let digest = match (target, announced) {
            (Target::Digest(wanted), _) => check(wanted, &bytes, &host)?,
            (Target::Tag(_), Some(announced)) => check(&announced, &bytes, &host)?,
            (Target::Tag(_), None) => Digest::Sha256(sha2::Sha256::digest(&bytes).into()),
        };
        let media_type = manifest_type(&bytes, said_type, &host)?;
        Ok(Manifest { bytes, media_type, digest })
    }

    /// A blob, from this byte on. The caller verifies it, and asks again for the rest where it breaks off.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn blob(&self, path: &str, digest: &Digest, from: u64) -> Result<BlobBody, UpstreamError> {
        self.blob_if(path, digest, from, None).await
    }

    /// As [`Self::blob`]; from its first byte on where its entity tag is not this one any more.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn blob_if(
        &self,
        path: &str,
        digest: &Digest,
        from: u64,
        etag: Option<&str>,
    ) -> Result<BlobBody, UpstreamError> {
        let what = format!("blobs/{digest}");
        let question = Ask { from, if_range: etag, verified: true, ..ask(path, what) };
        let Answer { response, host } = self.ask(&question).await?;
        let headers = response.headers();
        if digest_said(headers, &host)?
            .is_some_and(|said| said != *digest && said.algorithm() == digest.algorithm())
        {
            return Err(UpstreamError::Invalid(format!(
                "{host} was asked for {digest} and answers another blob"
            )));
        }
        let (length, etag) = (length_said(headers), etag_said(headers));
        let breaker = self.inner.transport.breaker(&host);
        if response.status() != StatusCode::PARTIAL_CONTENT {
            let body = body::stream(response, length, breaker);
            return Ok(BlobBody { size: length, from: 0, etag, body });
        }
        let range =
            headers.get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok()).and_then(content_range);
        let Some((first, last, size)) = range.filter(|(first, ..)| *first == from) else {
            return Err(UpstreamError::Invalid(format!(
                "{host} was asked for bytes from {from} on and sends others"
            )));
        };
        let part = last - first + 1;
        if length.is_some_and(|length| length != part) || size.is_some_and(|size| last + 1 != size) {
            return Err(UpstreamError::Invalid(format!(
                "{host} contradicts itself about the length of {digest}"
            )));
        }
        Ok(BlobBody { size, from, etag, body: body::stream(response, Some(part), breaker) })
    }

    /// How many bytes a blob has; `None` where the upstream does not say (some refuse every HEAD of a blob).
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn blob_size(&self, path: &str, digest: &Digest) -> Result<Option<u64>, UpstreamError> {
        let ask = Ask { method: Method::HEAD, verified: true, ..ask(path, format!("blobs/{digest}")) };
        match self.ask(&ask).await {
            Ok(answer) => Ok(length_said(answer.response.headers())),
            Err(failed) => match failed.status.map(|status| status.as_u16()) {
                Some(401 | 403 | 405) => Ok(None),
                Some(400..=499) if failed.redirected => Ok(None),
                _ => Err(failed.error),
            },
        }
    }

    /// Whether these credentials may pull this repository there. Asked each time: the caller bounds how often, and
    /// keeps the answer. Only the last endpoint, the registry itself, is asked. A repository that anybody may pull
    /// is open to any credentials that are not refused.
    ///
    /// # Errors
    /// Where it cannot be found out.
    pub async fn entitles(&self, path: &str, user: &str, password: &Secret) -> Result<bool, UpstreamError> {
        if user.contains(':') || user.chars().chain(password.expose().chars()).any(char::is_control) {
            return Ok(false);
        }
        let login = Login::Password { username: user.to_owned(), password: password.clone() };
        let guest = Current { login: Some(Arc::new(login)), generation: 0 };
        // Not counted as a pull. No such tag is no answer: some hide what is forbidden so.
        let head = Ask {
            method: Method::HEAD,
            accept: Some(MANIFEST_TYPES),
            ..ask(path, "manifests/latest".into())
        };
        let tags = Ask { query: vec![("n", "1".into())], ..ask(path, "tags/list".into()) };
        // Only the registry itself: a mirror must neither see them nor decide.
        let itself = self.inner.endpoints.last().map_or(&[][..], std::slice::from_ref);
        for ask in [head, tags] {
            match self.ask_as(As::Guest(&guest), itself, &ask).await {
                Ok(_) => return Ok(true),
                Err(Failed { error: UpstreamError::Denied(_), .. }) => return Ok(false),
                Err(Failed { error: UpstreamError::NotFound | UpstreamError::Invalid(_), .. }) => {}
                Err(failed) => return Err(failed.error),
            }
        }
        Ok(false)
    }

    async fn ask(&self, ask: &Ask<'_>) -> Result<Answer, Failed> {
        self.ask_as(As::Node, &self.inner.endpoints, ask).await
    }

    async fn ask_as(&self, who: As<'_>, endpoints: &[Endpoint], ask: &Ask<'_>) -> Result<Answer, Failed> {
        // What is no name cannot be there, and must not become another path.
        if ask.path.parse::<RepoName>().is_err() {
            return Err(Failed::new(UpstreamError::NotFound));
        }
        exchange::ask(&self.inner.transport, endpoints, &self.via, who, ask).await
    }
}

impl Inner {
    fn new(config: &UpstreamConfig) -> Result<Self, Vec<String>> {
        let urls = config.endpoints();
        let mut wrong = Vec::new();
        let transport = Transport::new(config, &urls).map_err(|why| wrong.push(why)).ok();
        let mut endpoints = Vec::new();
        let mut known = false;
        for url in urls {
            match Credentials::new(config, &url) {
                Ok(credentials) => {
                    known |= credentials.current().login.is_some();
                    endpoints.push(Endpoint::new(url, &config.namespace, credentials));
                }
                Err(why) => wrong.push(why),
            }
        }
        if let Some(file) = config.docker_config.as_ref().filter(|_| !known && wrong.is_empty()) {
            let name = namespace::spoken(&config.namespace);
            wrong.push(format!(
                "docker-config {} has no login for its endpoints; run docker login {name} with it, or leave it out",
                file.display()
            ));
        }
        wrong.sort();
        wrong.dedup();
        match transport {
            Some(transport) if wrong.is_empty() => Ok(Inner { config: config.clone(), endpoints, transport }),
            _ => Err(wrong),
        }
    }

    fn status(&self) -> UpstreamStatus {
        let endpoint = |endpoint: &Endpoint| {
            let breaker = self.transport.breaker(&origin(&endpoint.url));
            EndpointStatus {
                url: endpoint.url.to_string(),
                away: breaker.is_open(),
                trouble: breaker.trouble(),
                limited_for_s: breaker.limited().as_ref().map(Duration::as_secs),
                quota: endpoint.quota(),
            }
        };
        UpstreamStatus {
            namespace: self.config.namespace.clone(),
            endpoints: self.endpoints.iter().map(endpoint).collect(),
        }
    }
}

impl From<&Tag> for Target {
    fn from(tag: &Tag) -> Self {
        Target::Tag(tag.clone())
    }
}

impl From<&Digest> for Target {
    fn from(digest: &Digest) -> Self {
        Target::Digest(*digest)
    }
}

fn ask(path: &str, what: String) -> Ask<'_> {
    let (method, query) = (Method::GET, Vec::new());
    Ask { method, path, what, query, accept: None, from: 0, if_range: None, verified: false }
}

/// The digest that a registry announces. Of an algorithm that is not known here: none.
fn digest_said(headers: &HeaderMap, host: &str) -> Result<Option<Digest>, UpstreamError> {
    let Some(value) = headers.get("docker-content-digest") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    match text.parse() {
        Ok(digest) => Ok(Some(digest)),
        Err(_) if text.split_once(':').is_some_and(|(name, _)| !matches!(name, "sha256" | "sha512")) => {
            Ok(None)
        }
        Err(_) => Err(UpstreamError::Invalid(format!("{host} announces a digest that is none"))),
    }
}

fn length_said(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// The entity tag, where it is a strong one (RFC 9110, 8.8.3): only such may say that bytes are the same.
fn etag_said(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::ETAG)?.to_str().ok()?;
    let inside = text.strip_prefix('"')?.strip_suffix('"')?;
    let fits = text.len() <= MAX_ETAG && inside.bytes().all(|byte| byte != b'"' && byte.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

/// The media type, in lowercase and without parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    let bare = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    (!bare.is_empty() && bare.len() <= MAX_MEDIA_TYPE).then_some(bare)
}

fn is_manifest_type(media_type: &str) -> bool {
    MANIFEST_TYPES.split(", ").any(|known| known == media_type)
}

fn check(wanted: &Digest, bytes: &[u8], host: &str) -> Result<Digest, UpstreamError> {
    let found = match wanted {
        Digest::Sha256(_) => Digest::Sha256(sha2::Sha256::digest(bytes).into()),
        Digest::Sha512(_) => Digest::Sha512(sha2::Sha512::digest(bytes).into()),
    };
    if found != *wanted {
        return Err(UpstreamError::Invalid(format!("{host} was asked for {wanted} and sent {found}")));
    }
    Ok(found)
}

/// What the bytes are. A page for people, as captive portals answer to everything, is not a manifest.
fn manifest_type(bytes: &[u8], said: Option<String>, host: &str) -> Result<String, UpstreamError> {
    #[derive(serde::Deserialize)]
    struct Typed {
        #[serde(rename = "mediaType")]
        media_type: Option<String>,
    }
    let document: Typed = serde_json::from_slice(bytes)
        .map_err(|_| UpstreamError::Invalid(format!("{host} sent something else than a manifest")))?;
    let said = said.filter(|said| is_manifest_type(said));
    match (document.media_type, said) {
        (Some(inside), Some(said)) if inside != said => Err(UpstreamError::Invalid(format!(
            "{host} calls a manifest {said} that calls itself {inside:.100}"
        ))),
        (Some(inside), _) => Ok(inside),
        (None, said) => Ok(said.unwrap_or_default()),
    }
}

/// `bytes first-last/size`, with `*` for a size that is not known.
fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let size = match size.trim() {
        "*" => None,
        text => Some(text.parse().ok()?),
    };
    (first <= last && last < u64::MAX).then_some((first, last, size))
}

/// Every type of manifest that is understood here.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
                              application/vnd.oci.image.index.v1+json, \
                              application/vnd.docker.distribution.manifest.v2+json, \
                              application/vnd.docker.distribution.manifest.list.v2+json";
/// Registries must take 4 MiB; some take more.
const MAX_MANIFEST: usize = 16 * 1024 * 1024;
/// Longest entity tag that is remembered.
const MAX_ETAG: usize = 256;
/// Longest media type (RFC 6838: twice 127 and a slash).
const MAX_MEDIA_TYPE: usize = 255;
