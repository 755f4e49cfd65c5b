//! One question to one upstream: over its endpoints in order, with retries, proof of identity and redirects. Owns
//! that `Authorization` stays with the host that it is for; what the questions are is [`super`]'s.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep, timeout};

use super::{
    body::{bounded, said},
    breaker::Lane,
    credentials::{Credentials, Current},
    error::{Failed, UpstreamError},
    namespace,
    token::{self, Asking, Authority, Shown, Wanted},
    transport::{Transport, origin},
};

/// Where an upstream is asked.
pub struct Endpoint {
    /// As configured.
    pub url: Url,
    /// What stands before the path of a repository, from `/v2` on, without a slash at its end.
    base: String,
    /// What an endpoint that mirrors several registries is told of whom it is asked (containerd's `ns`).
    ns: Option<String>,
    credentials: Credentials,
    authority: Authority,
    quota: Mutex<Option<Quota>>,
}

/// How often an upstream still lets itself be asked, as it said last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Requests in a window.
    pub limit: Option<u64>,
    /// How many of them are left.
    pub remaining: u64,
    /// The window in seconds.
    pub window_s: Option<u64>,
}

/// One question.
#[derive(Clone, Debug)]
pub struct Ask<'a> {
    /// GET or HEAD.
    pub method: Method,
    /// The repository at the upstream.
    pub path: &'a str,
    /// What of it, such as `manifests/latest`.
    pub what: String,
    /// Parameters.
    pub query: Vec<(&'static str, String)>,
    /// Types that are understood.
    pub accept: Option<&'static str>,
    /// The first byte that is wanted,
    pub from: u64,
    /// and only if this is still the entity tag; else everything is.
    pub if_range: Option<&'a str>,
    /// Whether the answer is checked against a digest, so that it may come over a connection without TLS.
    pub verified: bool,
}

/// An answer with content: 200, 203 or 206.
pub struct Answer {
    /// The answer.
    pub response: Response,
    /// The host that gave it.
    pub host: String,
}

/// As whom a question is asked.
#[derive(Clone, Copy)]
pub enum As<'a> {
    /// The node itself; tokens are kept.
    Node,
    /// Somebody else; nothing is kept.
    Guest(&'a Current),
}

impl Endpoint {
    /// An endpoint of the registry of this name. A path that has `v2` in it is the API's own, else it stands
    /// before the repositories there.
    pub fn new(url: Url, namespace: &str, credentials: Credentials) -> Self {
        let path = url.path().trim_matches('/');
        let base = match path.split('/').any(|part| part == "v2") {
            true => format!("/{path}"),
            false if path.is_empty() => "/v2".to_owned(),
            false => format!("/v2/{path}"),
        };
        let home = namespace::is_home(namespace, &namespace::host_of(&url));
        let ns = (!home && path.is_empty()).then(|| namespace::spoken(namespace));
        Endpoint { url, base, ns, credentials, authority: Authority::default(), quota: Mutex::default() }
    }

    /// Its API itself, which answers whether or not anything may be had.
    pub fn api(&self) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/", self.base));
        url
    }

    /// What was said last about how often it may be asked.
    pub fn quota(&self) -> Option<Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn ask_url(&self, ask: &Ask<'_>) -> Url {
        let mut url = self.url.clone();
        url.set_path(&format!("{}/{}/{}", self.base, ask.path, ask.what));
        if self.ns.is_some() || !ask.query.is_empty() {
            let mut pairs = url.query_pairs_mut();
            pairs.extend_pairs(ask.query.iter().map(|(name, value)| (*name, value.as_str())));
            pairs.extend_pairs(self.ns.as_deref().map(|ns| ("ns", ns)));
        }
        url
    }

    /// The repository as the endpoint calls it, which is what scopes of tokens speak of.
    fn repository(&self, path: &str) -> String {
        let prefix = self.base.rsplit_once("/v2").map_or("", |(_, prefix)| prefix.trim_matches('/'));
        if prefix.is_empty() { path.to_owned() } else { format!("{prefix}/{path}") }
    }

    fn note_quota(&self, headers: &HeaderMap) {
        if let Some(quota) = quota(headers) {
            *self.quota.lock().unwrap_or_else(PoisonError::into_inner) = Some(quota);
        }
    }
}

/// Asks the endpoints in order until one answers with 2xx. The last one has the last word: mirrors stand before
/// the registry itself.
///
/// # Errors
/// That of the last endpoint.
pub async fn ask(
    transport: &Transport,
    endpoints: &[Endpoint],
    via: &HeaderValue,
    who: As<'_>,
    ask: &Ask<'_>,
) -> Result<Answer, Failed> {
    let deadline = Instant::now() + RETRY_WITHIN;
    let mut last = Failed::new(UpstreamError::Unavailable("it has no endpoint".into()));
    for endpoint in endpoints {
        for attempt in 1..=ATTEMPTS {
            let line = Line { transport, endpoint, via, who };
            last = match line.exchange(ask).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let backoff = BACKOFF.saturating_mul(1 << attempt).mul_f64(0.5 + fastrand::f64());
            let Some(wait) = last.again.map(|least| least.max(backoff)) else { break };
            if attempt == ATTEMPTS || Instant::now() + wait > deadline {
                break;
            }
            sleep(wait).await;
        }
        tracing::debug!(endpoint = %endpoint.url, path = ask.path, what = ask.what, why = %last.error, "not answered");
    }
    Err(last)
}

struct Line<'a> {
    transport: &'a Transport,
    endpoint: &'a Endpoint,
    via: &'a HeaderValue,
    who: As<'a>,
}

impl Line<'_> {
    async fn exchange(&self, ask: &Ask<'_>) -> Result<Answer, Failed> {
        let repository = self.endpoint.repository(ask.path);
        let own = self.endpoint.credentials.current();
        let who = match self.who {
            As::Node => &own,
            As::Guest(guest) => guest,
        };
        let asking =
            Asking { transport: self.transport, endpoint: &self.endpoint.url, repository: &repository, who };
        let mut shown = match self.who {
            As::Node => self.endpoint.authority.ready(&asking).await?,
            As::Guest(_) => None,
        };
        let (mut answered, mut answered_twice): (Option<Wanted>, bool) = (None, false);
        loop {
            let (answer, hops) = self.follow(ask, shown.as_ref()).await?;
            let headers = answer.response.headers();
            let challenged = hops == 0
                && matches!(answer.response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
                && headers.contains_key(header::WWW_AUTHENTICATE);
            if !challenged {
                return judge(answer, hops, &ask.method).await;
            }
            let wanted = token::wanted(headers, &self.endpoint.url)?;
            // A proof made for this very challenge was not enough; or it wants yet another one, as nobody does.
            if answered.as_ref() == Some(&wanted) || answered.is_some() && answered_twice {
                return judge(answer, hops, &ask.method).await;
            }
            let Some(better) = self.show(&asking, wanted.clone(), shown.as_ref()).await? else {
                return judge(answer, hops, &ask.method).await;
            };
            answered_twice = answered.replace(wanted).is_some();
            // Read to its end, so that the connection can be used again.
            let _ = said(answer.response).await;
            shown = Some(better);
        }
    }

    async fn show(
        &self,
        asking: &Asking<'_>,
        wanted: Wanted,
        refused: Option<&Shown>,
    ) -> Result<Option<Shown>, Failed> {
        match self.who {
            As::Node => self.endpoint.authority.answer(asking, wanted, refused).await,
            As::Guest(_) if refused.is_some() => Ok(None),
            As::Guest(who) => match wanted {
                Wanted::Basic => Ok(token::basic(who)),
                Wanted::Bearer { realm, service, mut scopes } => {
                    if scopes.is_empty() {
                        scopes.push(format!("repository:{}:pull", asking.repository));
                    }
                    let (token, _) = token::fetch(asking, &realm, service.as_deref(), &scopes).await?;
                    token::bearer(&token).map(Some)
                }
            },
        }
    }

    /// Sends the question, and again to wherever the answer points. How often it did is told, too.
    async fn follow(&self, ask: &Ask<'_>, shown: Option<&Shown>) -> Result<(Answer, usize), Failed> {
        let mut url = self.endpoint.ask_url(ask);
        let home = origin(&url);
        let lane = if ask.what.starts_with("manifests/") { Lane::Manifests } else { Lane::Rest };
        let mut seen = vec![url.clone()];
        loop {
            let hops = seen.len() - 1;
            let here = origin(&url);
            let mut request = self.transport.request(ask.method.clone(), &url, &self.endpoint.url)?;
            request = request.header(header::ACCEPT_ENCODING, "identity").header(header::VIA, self.via);
            if let Some(accept) = ask.accept {
                request = request.header(header::ACCEPT, accept);
            }
            if ask.from > 0 {
                request = request.header(header::RANGE, format!("bytes={}-", ask.from));
                if let Some(etag) = ask.if_range {
                    request = request.header(header::IF_RANGE, etag);
                }
            }
            if let Some(shown) = shown.filter(|_| here == home) {
                request = request.header(header::AUTHORIZATION, shown.header.clone());
            }
            let response = self
                .transport
                .send(request, lane)
                .await
                .map_err(|failed| Failed { redirected: hops > 0, ..failed })?;
            if here == home {
                self.endpoint.note_quota(response.headers());
            }
            if !is_redirect(response.status()) {
                return Ok((Answer { response, host: here }, hops));
            }
            let next = target(&url, &response, ask.verified)?;
            if hops == MAX_REDIRECTS || seen.contains(&next) {
                return Err(Failed::invalid(format!("{home} sends in circles ({} redirects)", hops + 1)));
            }
            // Read to its end, so that the connection can be used again.
            let _ = timeout(REDIRECT_BODY_WITHIN, bounded(response, MAX_REDIRECT_BODY)).await;
            seen.push(next.clone());
            url = next;
        }
    }
}

/// What an answer means that needs no look at its body.
async fn judge(answer: Answer, hops: usize, method: &Method) -> Result<Answer, Failed> {
    let status = answer.response.status();
    // 203: as it came through a proxy. Others of 2xx, such as 204, hold nothing that could be asked for.
    if matches!(status.as_u16(), 200 | 203 | 206) {
        return Ok(answer);
    }
    let host = answer.host;
    let words = format!("{host}: {}", said(answer.response).await);
    let error = match status {
        // A signed URL that is too old or for another method: from the start it may work.
        s if hops > 0 && matches!(s.as_u16(), 400..=403) => UpstreamError::Unavailable(words),
        StatusCode::NOT_FOUND | StatusCode::GONE => UpstreamError::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => UpstreamError::Denied(words),
        _ => UpstreamError::Invalid(words),
    };
    let again =
        (matches!(error, UpstreamError::Unavailable(_)) && method == Method::GET).then_some(Duration::ZERO);
    Err(Failed { error, status: Some(status), again, redirected: hops > 0 })
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Where a redirect points.
fn target(from: &Url, answer: &Response, verified: bool) -> Result<Url, Failed> {
    let host = origin(from);
    let wrong = |why: &str| Failed::invalid(format!("{host} redirects {why}"));
    let location = answer.headers().get(header::LOCATION).ok_or_else(|| wrong("to nowhere"))?;
    let text = std::str::from_utf8(location.as_bytes()).map_err(|_| wrong("to what is no URL"))?;
    if text.len() > MAX_LOCATION {
        return Err(wrong("to a URL that is too long"));
    }
    let mut url = from.join(text).map_err(|_| wrong("to what is no URL"))?;
    match url.scheme() {
        "https" => {}
        "http" if from.scheme() == "http" || verified => {}
        "http" => {
            return Err(wrong("to a place without TLS, and nothing would show whether the answer is true"));
        }
        _ => return Err(wrong("to neither https nor http")),
    }
    // They would be sent as Authorization.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("with credentials"));
    }
    url.set_fragment(None);
    Ok(url)
}

/// Docker Hub's headers: `ratelimit-limit: 100;w=21600`, `ratelimit-remaining: 76;w=21600`.
fn quota(headers: &HeaderMap) -> Option<Quota> {
    let read = |name: &str| -> Option<(u64, Option<u64>)> {
        let text = headers.get(name)?.to_str().ok()?;
        let mut parts = text.split(';').map(str::trim);
        let number = parts.next()?.split(',').next()?.trim().parse().ok()?;
        Some((number, parts.find_map(|part| part.strip_prefix("w=")).and_then(|w| w.parse().ok())))
    };
    let (remaining, window) = read("ratelimit-remaining")?;
    let limit = read("ratelimit-limit");
    Some(Quota {
        limit: limit.map(|(number, _)| number),
        remaining,
        window_s: window.or(limit.and_then(|(_, window)| window)),
    })
}

/// Tries at one endpoint.
const ATTEMPTS: u32 = 3;
/// Half of the shortest wait between them; doubled each time.
const BACKOFF: Duration = Duration::from_millis(50);
/// After this, nothing is tried again.
const RETRY_WITHIN: Duration = Duration::from_secs(10);
const MAX_REDIRECTS: usize = 5;
/// Signed URLs are long.
const MAX_LOCATION: usize = 16 * 1024;
const MAX_REDIRECT_BODY: usize = 64 * 1024;
const REDIRECT_BODY_WITHIN: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_endpoints() {
        let table = [
            ("https://ghcr.io", "ghcr.io", "https://ghcr.io/v2/a/b/tags/list", "a/b"),
            ("https://ghcr.io/", "ghcr.io", "https://ghcr.io/v2/a/b/tags/list", "a/b"),
            ("https://m.example", "ghcr.io", "https://m.example/v2/a/b/tags/list?ns=ghcr.io", "a/b"),
            (
                "https://m.example",
                "r.example_5000",
                "https://m.example/v2/a/b/tags/list?ns=r.example%3A5000",
                "a/b",
            ),
            (
                "https://registry-1.docker.io",
                "docker.io",
                "https://registry-1.docker.io/v2/a/b/tags/list",
                "a/b",
            ),
            (
                "https://harbor.example/hub",
                "docker.io",
                "https://harbor.example/v2/hub/a/b/tags/list",
                "hub/a/b",
            ),
            (
                "https://harbor.example/v2/hub/",
                "docker.io",
                "https://harbor.example/v2/hub/a/b/tags/list",
                "hub/a/b",
            ),
            (
                "https://a.example/api/docker/v2",
                "docker.io",
                "https://a.example/api/docker/v2/a/b/tags/list",
                "a/b",
            ),
        ];
        for (url, namespace, expected, repository) in table {
            let endpoint = Endpoint::new(url.parse().expect("a URL"), namespace, Credentials::nobody());
            let ask = Ask {
                method: Method::GET,
                path: "a/b",
                what: "tags/list".into(),
                query: Vec::new(),
                accept: None,
                from: 0,
                if_range: None,
                verified: false,
            };
            assert_eq!(endpoint.ask_url(&ask).as_str(), expected, "{url}");
            assert_eq!(endpoint.repository("a/b"), repository, "{url}");
        }
    }

    #[test]
    fn quotas_as_docker_hub_writes_them() {
        let mut headers = HeaderMap::new();
        assert_eq!(quota(&headers), None);
        headers.insert("ratelimit-limit", HeaderValue::from_static("100;w=21600"));
        headers.insert("ratelimit-remaining", HeaderValue::from_static("76;w=21600"));
        assert_eq!(quota(&headers), Some(Quota { limit: Some(100), remaining: 76, window_s: Some(21600) }));
        headers.insert("ratelimit-remaining", HeaderValue::from_static("none"));
        assert_eq!(quota(&headers), None);
    }
}
