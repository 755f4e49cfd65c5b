//! The OCI endpoint: which requests are allowed and where each goes. What the endpoints do is in the files
//! beside; bytes and lookups are the store's, decisions about the mesh the replica's.

mod blobs;
mod body;
mod coming;
mod depends;
mod error;
mod framing;
mod late;
mod listen;
mod listing;
mod manifests;
mod mirrored;
mod observe;
mod pace;
mod parts;
mod reply;
mod token;
mod unread;
mod uploads;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::{Body, HttpBody},
    extract::{Query, Request},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tracing::Instrument;
use waystation_oci::path::Route;
use waystation_proto::{NodeId, RepoName, verdict::Requester};

pub use self::listen::{serve, serve_clients, serve_local};
use self::{
    body::Readers,
    coming::Looks,
    error::{ApiError, Code},
    mirrored::{Meant, Scope},
    observe::{Observed, route_label},
    pace::Paced,
};
use crate::{
    access::{
        self, Access, Caller, Need, Peer,
        challenge::{Place, TOKEN_PATH},
    },
    driver::handle::ReplicaHandle,
    metrics::{Metrics, RouteLabel},
    mirror::{GrowingReaders, Mirror},
    store::Store,
};

/// The endpoint. Clones are the same endpoint.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
    access: Access,
}

struct Inner {
    store: Store,
    replica: ReplicaHandle,
    node: NodeId,
    config: RegistryConfig,
    metrics: Metrics,
    readers: Readers,
    growing: GrowingReaders,
    looks: Looks,
    mirror: Mirror,
}

/// How the endpoint behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryConfig {
    /// What clients on the network may do without logging in.
    pub anonymous: Anonymous,
    /// Largest manifest that can be pushed, in bytes.
    pub manifest_limit: u64,
    /// Largest blob that can be pushed, in bytes.
    pub blob_limit: u64,
    /// Whether manifests are taken whose configs or layers are not in the repository.
    pub sparse: bool,
}

/// What a client may do without logging in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Anonymous {
    /// Nothing.
    None,
    /// Read.
    Pull,
    /// Read, push and delete.
    Push,
}

/// Where requests come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Clients on the network: what [`Anonymous`] allows.
    Network,
    /// The operator, at this node's local socket: everything.
    Socket,
}

impl Registry {
    /// An endpoint for this store, where nobody can log in. `node` is this node's own id, to know its own
    /// holdings by.
    pub fn new(
        store: Store,
        replica: ReplicaHandle,
        node: NodeId,
        mirror: Mirror,
        config: RegistryConfig,
        metrics: Metrics,
    ) -> Self {
        let (readers, growing) = (Readers::new(), GrowingReaders::new());
        let looks = Looks::default();
        let access = Access::anonymous(config.anonymous, &metrics);
        let inner = Inner { store, replica, node, config, metrics, readers, growing, looks, mirror };
        Registry { inner: Arc::new(inner), access }
    }

    /// The same endpoint under these access rules.
    #[must_use]
    pub fn with_access(self, access: Access) -> Self {
        Registry { access, ..self }
    }

    /// The endpoint for requests that come from there.
    pub fn router(&self, origin: Origin) -> Router {
        let registry = self.clone();
        Router::new().fallback(move |request: Request| {
            let registry = registry.clone();
            async move { registry.answer(origin, request).await }
        })
    }

    async fn answer(&self, origin: Origin, request: Request) -> Response {
        let started = Instant::now();
        let span = tracing::debug_span!("request", method = %request.method(), path = request.uri().path());
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let route = if uri.path() == TOKEN_PATH && origin == Origin::Network {
            Ok(None)
        } else {
            Route::parse(uri.path()).map(Some)
        };
        let label = match &route {
            Ok(Some(route)) => route_label(route),
            Ok(None) => RouteLabel::Token,
            Err(_) => RouteLabel::Unknown,
        };
        let framing = framing::is_last(&request);
        let last = *framing.as_ref().unwrap_or(&true);
        let peer = request.extensions().get::<Peer>().copied().unwrap_or_default();
        let permit = match origin {
            Origin::Network => self.access.limits().request(peer.address).map(Some).ok_or_else(crowded),
            Origin::Socket => Ok(None),
        };
        let (permit, refused) = match permit {
            Ok(permit) => (permit, None),
            Err(error) => (None, Some(error)),
        };
        let answered = async {
            if let Some(error) = refused {
                return Err(error);
            }
            framing?;
            match route? {
                None => self.token(request, peer).await,
                Some(route) => {
                    let query = parameters(request.uri())?;
                    let meant = self.meant(route, request.method(), &query).await?;
                    let need = need(&meant, request.method(), &query);
                    let (asked, body) = self.admit(origin, &need, request, query, peer).await?;
                    self.entitle(&asked, &meant.scope).await?;
                    match meant.scope {
                        Scope::Mesh(route) => self.dispatch(route, &asked, body).await,
                        Scope::Upstream(place, wanted) => self.mirrored(&asked, place, wanted).await,
                    }
                }
            }
        };
        let mut response = answered.instrument(span.clone()).await.unwrap_or_else(ApiError::into_response);
        response.headers_mut().insert(reply::API_VERSION, HeaderValue::from_static("registry/2.0"));
        if last {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let metrics = self.inner.metrics.clone();
        let response = Observed { started, span, uri, route: label, method, metrics }.watch(response);
        match permit {
            Some(permit) => response.map(|body| permit.hold(body)),
            None => response,
        }
    }

    /// Finds out who asks, and whether they may do that here.
    async fn admit(
        &self,
        origin: Origin,
        need: &Need,
        request: Request,
        query: Vec<(String, String)>,
        peer: Peer,
    ) -> Result<(Asked, Body), ApiError> {
        let (mut parts, body) = request.into_parts();
        let body = if body.is_end_stream() { body } else { Body::new(Paced::new(body)) };
        let caller = match origin {
            Origin::Socket => self.access.operator(),
            Origin::Network => {
                let place = Place::of(&parts.uri, &parts.headers, peer.secure, None);
                self.access.admit(&mut parts.headers, place, peer, need).await?
            }
        };
        Ok((Asked { origin, method: parts.method, headers: parts.headers, query, caller }, body))
    }

    async fn dispatch(&self, route: Route, asked: &Asked, body: Body) -> Result<Response, ApiError> {
        let allowed = match &route {
            Route::Base | Route::Catalog | Route::Tags(_) | Route::Referrers(..) => "GET, HEAD",
            Route::Blob(..) => "GET, HEAD, DELETE",
            Route::Manifest(..) => "GET, HEAD, PUT, DELETE",
            Route::Uploads(_) => "POST",
            Route::Upload(..) => "GET, PATCH, PUT, DELETE",
        };
        let read = matches!(asked.method, Method::GET | Method::HEAD);
        match (route, asked.method.clone()) {
            (Route::Base, _) if read => Ok(reply::json("application/json", &serde_json::json!({}))),
            (Route::Catalog, _) if read => self.catalog(asked).await,
            (Route::Tags(repository), _) if read => self.tags(asked, &repository),
            (Route::Referrers(repository, subject), _) if read => {
                self.referrers(asked, &repository, subject).await
            }
            (Route::Manifest(repository, reference), _) if read => {
                self.manifest(asked, &repository, &reference).await
            }
            (Route::Manifest(repository, reference), Method::PUT) => {
                self.push_manifest(asked, body, repository, reference).await
            }
            (Route::Manifest(repository, reference), Method::DELETE) => {
                self.delete_manifest(repository, reference).await
            }
            (Route::Blob(repository, digest), _) if read => self.blob(asked, &repository, digest).await,
            (Route::Blob(repository, digest), Method::DELETE) => self.delete_blob(repository, digest).await,
            (Route::Uploads(repository), Method::POST) => self.start_upload(asked, body, &repository).await,
            (Route::Upload(repository, id), Method::GET) => self.upload_status(&repository, &id).await,
            (Route::Upload(repository, id), Method::PATCH) => {
                self.upload_chunk(asked, body, &repository, &id).await
            }
            (Route::Upload(repository, id), Method::PUT) => {
                self.finish_upload(asked, body, &repository, &id).await
            }
            (Route::Upload(repository, id), Method::DELETE) => self.cancel_upload(&repository, &id).await,
            _ => Err(ApiError::new(405, Code::Unsupported, format!("only {allowed} can be done here"))
                .with_header(header::ALLOW, allowed)),
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig {
            anonymous: Anonymous::Pull,
            manifest_limit: 4 << 20,
            blob_limit: 1 << 40,
            sparse: false,
        }
    }
}

/// A request without its body.
struct Asked {
    origin: Origin,
    method: Method,
    /// Without the client's credentials.
    headers: HeaderMap,
    query: Vec<(String, String)>,
    caller: Caller,
}

impl Asked {
    /// Whether this client may do that there: beyond what the request itself needs, which was checked.
    fn may(&self, action: access::Action, repository: &RepoName) -> bool {
        self.caller.may(action, repository)
    }

    /// Whether the repository is in the list that this client sees.
    fn sees(&self, repository: &RepoName) -> bool {
        self.caller.sees(repository)
    }

    fn requester(&self) -> Requester {
        match self.origin {
            Origin::Network => Requester::Client,
            Origin::Socket => Requester::Operator,
        }
    }

    fn is_head(&self) -> bool {
        self.method == Method::HEAD
    }

    /// The first parameter of that name.
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters(name).next()
    }

    fn parameters(&self, name: &str) -> impl Iterator<Item = &str> {
        self.query.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// How many bytes the client says to send.
    fn content_length(&self) -> Option<u64> {
        self.headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
    }

    /// Where the client says that its bytes belong.
    fn content_range(&self) -> Option<&str> {
        // What is no text is read as what has the wrong form.
        self.headers.get(header::CONTENT_RANGE).map(|value| value.to_str().unwrap_or_default())
    }
}

/// What a request needs of its client.
fn need(meant: &Meant, method: &Method, query: &[(String, String)]) -> Need {
    let route = match (&meant.scope, &meant.alias) {
        (Scope::Upstream(place, _), alias) => {
            let name = place.repository.clone();
            return Need::Meant(alias.clone().unwrap_or_else(|| name.clone()), name);
        }
        (Scope::Mesh(route), _) => route,
    };
    if let (Some(alias), Some(name), &Method::GET | &Method::HEAD) =
        (&meant.alias, route.repository(), method)
    {
        return Need::Meant(alias.clone(), name.clone());
    }
    let read = matches!(*method, Method::GET | Method::HEAD);
    let (pull, push) = (access::Action::Pull, access::Action::Push);
    let by_method = match *method {
        Method::DELETE => access::Action::Delete,
        _ if read => pull,
        _ => push,
    };
    let of = |action, repository: &RepoName| Need::Repository(action, repository.clone(), None);
    match route {
        Route::Base => Need::Ping,
        Route::Catalog => Need::Catalog,
        Route::Tags(name) | Route::Referrers(name, _) | Route::Manifest(name, _) | Route::Blob(name, _) => {
            of(by_method, name)
        }
        Route::Upload(name, _) => of(push, name),
        Route::Uploads(name) => {
            let from = query.iter().find(|(key, _)| key == "from").and_then(|(_, from)| from.parse().ok());
            Need::Repository(push, name.clone(), from)
        }
    }
}

fn crowded() -> ApiError {
    let message = "too many requests at a time; wait a moment, or raise [limits] of this node";
    ApiError::new(429, Code::TooManyRequests, message).with_header(header::RETRY_AFTER, "1")
}

fn parameters(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    if uri.query().is_some_and(|query| query.len() > MAX_QUERY) {
        return Err(ApiError::new(
            414,
            Code::Unsupported,
            format!("the query is longer than {MAX_QUERY} bytes"),
        ));
    }
    Query::try_from_uri(uri)
        .map(|Query(parameters)| parameters)
        .map_err(|error| ApiError::bad(Code::Unsupported, format!("the query cannot be read: {error}")))
}

/// Longest query in bytes: fifty of the longest tags fit.
const MAX_QUERY: usize = 8 * 1024;
