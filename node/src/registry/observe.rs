//! What is counted and logged of every request: once, when the answer's last byte has been handed over or
//! the client has gone.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};

use axum::{
    body::{Body, BodyDataStream, HttpBody},
    http::{Method, StatusCode, Uri},
    response::Response,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tracing::Span;
use waystation_oci::path::Route;

use crate::metrics::{MethodLabel, Metrics, RequestLabels, RouteLabel};

/// A request whose answer is about to be sent.
pub struct Observed {
    /// When it came.
    pub started: Instant,
    /// Its span.
    pub span: Span,
    /// Its target: the span is not there where debug logs are off.
    pub uri: Uri,
    /// What it was about.
    pub route: RouteLabel,
    /// Its method.
    pub method: Method,
    /// Where it is counted.
    pub metrics: Metrics,
}

impl Observed {
    /// Counts the answer now and logs it when its body ends.
    pub fn watch(self, response: Response) -> Response {
        let status = response.status();
        let labels =
            RequestLabels { route: self.route, method: label(&self.method), status: status.as_u16() };
        self.metrics.requests.get_or_create(&labels).inc();
        self.metrics.request_seconds.observe(self.started.elapsed().as_secs_f64());
        let known = response.body().size_hint().exact();
        let mut ending = Ending { observed: self, status, bytes: 0 };
        let Some(length) = known else {
            return response.map(|body| Body::from_stream(Watched { body: body.into_data_stream(), ending }));
        };
        if ending.observed.method != Method::HEAD {
            ending.bytes = length;
        }
        response
    }
}

/// How requests to an endpoint are counted.
pub fn route_label(route: &Route) -> RouteLabel {
    match route {
        Route::Base => RouteLabel::Base,
        Route::Catalog => RouteLabel::Catalog,
        Route::Tags(_) => RouteLabel::Tags,
        Route::Manifest(..) => RouteLabel::Manifest,
        Route::Blob(..) => RouteLabel::Blob,
        Route::Uploads(_) | Route::Upload(..) => RouteLabel::Upload,
        Route::Referrers(..) => RouteLabel::Referrers,
    }
}

/// Logs on drop.
struct Ending {
    observed: Observed,
    status: StatusCode,
    bytes: u64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        let Observed { started, span, uri, method, metrics, .. } = &self.observed;
        metrics.bytes_served.inc_by(self.bytes);
        let (status, bytes, ms) = (self.status.as_u16(), self.bytes, started.elapsed().as_millis() as u64);
        let _entered = span.enter();
        if self.status.is_server_error() {
            tracing::warn!(%method, path = uri.path(), status, bytes, ms, "request failed");
        } else {
            tracing::debug!(status, bytes, ms, "request answered");
        }
    }
}

/// A body of unknown length on its way out.
struct Watched {
    body: BodyDataStream,
    ending: Ending,
}

impl Stream for Watched {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = self.body.poll_next_unpin(context);
        match &next {
            Poll::Ready(Some(Ok(bytes))) => self.ending.bytes += bytes.len() as u64,
            Poll::Ready(Some(Err(error))) => {
                let _entered = self.ending.observed.span.enter();
                tracing::warn!(path = self.ending.observed.uri.path(), %error, "cut an answer short");
            }
            _ => {}
        }
        next.map(|item| item.map(|bytes| bytes.map_err(io::Error::other)))
    }
}

fn label(method: &Method) -> MethodLabel {
    match *method {
        Method::GET => MethodLabel::Get,
        Method::HEAD => MethodLabel::Head,
        Method::POST => MethodLabel::Post,
        Method::PUT => MethodLabel::Put,
        Method::PATCH => MethodLabel::Patch,
        Method::DELETE => MethodLabel::Delete,
        _ => MethodLabel::Other,
    }
}
