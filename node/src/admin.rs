//! The admin endpoint: metrics, whether the process lives and is ready, and the stream of events. Read only,
//! without secrets.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::{
    events::{Events, stream},
    metrics::Metrics,
    registry,
};

/// Whether the node is ready for clients, and if not, why. Clones share the answer.
#[derive(Clone)]
pub struct Readiness {
    /// Nothing where it is ready.
    obstacle: watch::Sender<Option<String>>,
}

impl Readiness {
    /// Not ready yet.
    pub fn starting() -> Self {
        Readiness { obstacle: watch::Sender::new(Some("starting".to_owned())) }
    }

    /// From now on it is ready.
    pub fn ready(&self) {
        self.obstacle.send_replace(None);
    }

    /// From now on it is not: `why` is for people.
    pub fn not_ready(&self, why: impl Into<String>) {
        self.obstacle.send_replace(Some(why.into()));
    }

    /// Why it is not ready, or nothing where it is.
    pub fn obstacle(&self) -> Option<String> {
        self.obstacle.borrow().clone()
    }

    /// Waits until it is ready.
    pub async fn wait(&self) {
        // This handle keeps the channel open, so the wait ends only with what it waits for.
        let _ = self.obstacle.subscribe().wait_for(Option::is_none).await;
    }
}

/// `/metrics`, `/healthz` and `/readyz`.
pub fn router(metrics: Metrics, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(show_readiness))
        .with_state((metrics, readiness))
}

/// Serves the admin endpoint, and the stream of events, until `shutdown`. To show that the node is draining, give a token that is
/// cancelled after the registry has ended.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    events: Events,
    shutdown: CancellationToken,
) {
    let router = router(metrics, readiness).merge(stream::routes("/events", events, shutdown.clone()));
    registry::serve(listener, router, shutdown).await;
}

async fn show_metrics(State((metrics, _)): State<(Metrics, Readiness)>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], metrics.encode())
}

async fn show_readiness(State((_, readiness)): State<(Metrics, Readiness)>) -> (StatusCode, String) {
    match readiness.obstacle() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}

const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use tower::ServiceExt;

    use super::*;

    async fn get(router: &Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn says_whether_it_is_ready() {
        let readiness = Readiness::starting();
        let router = router(Metrics::new(), readiness.clone());
        assert_eq!(get(&router, "/readyz").await, (503, "not ready: starting\n".to_owned()));
        assert_eq!(get(&router, "/healthz").await.0, 200);
        readiness.ready();
        readiness.wait().await;
        assert_eq!(get(&router, "/readyz").await.0, 200);
        readiness.not_ready("draining");
        assert_eq!(get(&router, "/readyz").await, (503, "not ready: draining\n".to_owned()));
        let (status, page) = get(&router, "/metrics").await;
        assert!(status == 200 && page.ends_with("# EOF\n"), "{page}");
    }
}
