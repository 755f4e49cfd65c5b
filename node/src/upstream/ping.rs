//! Whether an upstream answers at all: one request to each endpoint's API, without credentials, for diagnoses.

use std::time::{Duration, Instant, UNIX_EPOCH};

use reqwest::{Method, header};

use super::{Upstream, breaker::Lane};

/// What came of asking an endpoint.
#[derive(Clone, Debug)]
pub struct Pinged {
    /// The upstream.
    pub namespace: String,
    /// The endpoint, as configured.
    pub url: String,
    /// Its answer, or why there is none, for people.
    pub result: Result<Answered, String>,
}

/// An answer, whatever it says.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// How long it took.
    pub took: Duration,
    /// Its status; 401 is what registries say to those who have not logged in.
    pub status: u16,
    /// What its clock says, in seconds since 1970-01-01 UTC.
    pub date: Option<u64>,
}

impl Upstream {
    /// Asks each endpoint once. One that is left alone because it fails is not asked, and that is its answer.
    pub async fn ping(&self) -> Vec<Pinged> {
        let mut found = Vec::new();
        for endpoint in &self.inner.endpoints {
            let begun = Instant::now();
            let transport = &self.inner.transport;
            let answer = match transport.request(Method::GET, &endpoint.api(), &endpoint.url) {
                Ok(request) => transport.send(request.header(header::VIA, &self.via), Lane::Rest).await,
                Err(failed) => Err(failed),
            };
            let took = begun.elapsed();
            let result = answer.map_err(|failed| failed.error.to_string()).map(|answer| {
                let date = answer.headers().get(header::DATE).and_then(|value| value.to_str().ok());
                let date = date.and_then(|text| httpdate::parse_http_date(text).ok());
                let date = date.and_then(|date| date.duration_since(UNIX_EPOCH).ok());
                Answered { took, status: answer.status().as_u16(), date: date.map(|since| since.as_secs()) }
            });
            let (namespace, url) = (self.inner.config.namespace.clone(), endpoint.url.to_string());
            found.push(Pinged { namespace, url, result });
        }
        found
    }
}
