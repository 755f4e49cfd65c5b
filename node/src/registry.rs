//! The OCI endpoint: which requests are allowed and where each goes. What the endpoints do is in the files
//! beside; bytes and lookups are the store's, decisions about the mesh the replica's.

mod blobs;
mod body;
mod error;
mod late;
mod listen;
mod listing;
mod manifests;
mod mirrored;
mod observe;
mod parts;
mod reply;
mod uploads;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Instant};

use axum::{
    Router,
    body::Body,
    extract::{Query, Request},
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use tracing::Instrument;
use waystation_oci::path::Route;
use waystation_proto::{NodeId, verdict::Requester};

pub use self::listen::{serve, serve_local};
use self::{
    body::Readers,
    error::{ApiError, Code},
    mirrored::Scope,
    observe::{Observed, route_label},
};
use crate::{
    driver::handle::ReplicaHandle,
    metrics::{Metrics, RouteLabel},
    mirror::{GrowingReaders, Mirror},
    store::Store,
};

/// The endpoint. Clones are the same endpoint.
#[derive(Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    replica: ReplicaHandle,
    node: NodeId,
    config: RegistryConfig,
    metrics: Metrics,
    readers: Arc<Readers>,
    growing: GrowingReaders,
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
    /// An endpoint for this store. `node` is this node's own id, to know its own holdings by.
    pub fn new(
        store: Store,
        replica: ReplicaHandle,
        node: NodeId,
        mirror: Mirror,
        config: RegistryConfig,
        metrics: Metrics,
    ) -> Self {
        let (readers, growing) = (Arc::new(Readers::new()), GrowingReaders::new());
        let inner = Inner { store, replica, node, config, metrics, readers, growing, mirror };
        Registry { inner: Arc::new(inner) }
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
        let route = Route::parse(request.uri().path());
        let label = route.as_ref().map_or(RouteLabel::Unknown, route_label);
        let answered = async {
            let route = route?;
            self.allow(origin, &route, &method)?;
            let (asked, body) = Asked::from(origin, request)?;
            self.dispatch(route, &asked, body).await
        };
        let mut response = answered.instrument(span.clone()).await.unwrap_or_else(ApiError::into_response);
        response.headers_mut().insert(reply::API_VERSION, HeaderValue::from_static("registry/2.0"));
        let metrics = self.inner.metrics.clone();
        Observed { started, span, uri, route: label, method, metrics }.watch(response)
    }

    /// Whether a client from there may do that here.
    fn allow(&self, origin: Origin, route: &Route, method: &Method) -> Result<(), ApiError> {
        let read = matches!(*method, Method::GET | Method::HEAD);
        let (needed, word) = if read { (Anonymous::Pull, "pull") } else { (Anonymous::Push, "push") };
        let allowed =
            origin == Origin::Socket || *route == Route::Base || self.inner.config.anonymous >= needed;
        if allowed {
            return Ok(());
        }
        Err(ApiError::denied(format!(
            "anonymous {word} is off on this listener; start the node with --anonymous {word}, \
             or {word} at a listener of this mesh that allows it"
        )))
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
        let route = match read {
            true => match self.scope(asked, route)? {
                Scope::Upstream(place, wanted) => return self.mirrored(asked, &place, wanted).await,
                Scope::Mesh(route) => route,
            },
            false => route,
        };
        match (route, asked.method.clone()) {
            (Route::Base, _) if read => Ok(reply::json("application/json", &serde_json::json!({}))),
            (Route::Catalog, _) if read => self.catalog(asked),
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
        RegistryConfig { anonymous: Anonymous::Pull, manifest_limit: 4 << 20, blob_limit: 1 << 40 }
    }
}

/// A request without its body.
struct Asked {
    origin: Origin,
    method: Method,
    headers: HeaderMap,
    query: Vec<(String, String)>,
}

impl Asked {
    fn from(origin: Origin, request: Request) -> Result<(Self, Body), ApiError> {
        let query = parameters(request.uri())?;
        let (parts, body) = request.into_parts();
        Ok((Asked { origin, method: parts.method, headers: parts.headers, query }, body))
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
