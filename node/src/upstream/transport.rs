//! How a request reaches a host: connections, TLS, proxies, and which hosts may be talked to. Owns that an upstream
//! out in the world cannot send this node to its own loopback or to the addresses next to it, and that a host that
//! fails is left alone; what is asked and what answers mean is [`super::exchange`]'s.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use reqwest::{
    Certificate, Client, Request, Response, StatusCode, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};

use super::{
    breaker::{Breaker, Closed, Lane, Outcome},
    config::UpstreamConfig,
    error::{Failed, UpstreamError, words},
    proxies::{self, Proxies},
};

/// Connections to the hosts of one upstream.
pub struct Transport {
    /// To endpoints, as configured.
    own: Client,
    /// To hosts that an upstream names: names that mean this machine or its link are not followed.
    guarded: Client,
    /// To endpoints on this machine: no proxy is between.
    direct: Client,
    proxies: Proxies,
    /// Endpoints, by [`origin`].
    configured: Vec<String>,
    breakers: Mutex<HashMap<String, Arc<Breaker>>>,
    answer_within: Duration,
}

impl Transport {
    /// Makes the clients. The error is a sentence.
    pub fn new(config: &UpstreamConfig, endpoints: &[Url]) -> Result<Self, String> {
        // It stays if another part of the process was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let roots = match &config.ca_file {
            None => Vec::new(),
            Some(path) => {
                let wrong = |why: String| format!("ca-file {}: {why}", path.display());
                let pem = std::fs::read(path).map_err(|why| wrong(why.to_string()))?;
                let roots = Certificate::from_pem_bundle(&pem).map_err(|why| wrong(why.to_string()))?;
                if roots.is_empty() {
                    return Err(wrong("no certificate is in it; it must be PEM".into()));
                }
                roots
            }
        };
        let tls = endpoints.iter().any(|url| url.scheme() == "https");
        let build = |guarded: bool, proxied: bool| {
            let builder = Client::builder()
                .user_agent(concat!("waystation/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .retry(reqwest::retry::never())
                .connect_timeout(config.connect_timeout)
                .read_timeout(config.read_timeout)
                // A connection whose link was cut must not cost more than making a new one.
                .tcp_user_timeout(config.connect_timeout.saturating_mul(2))
                .tcp_keepalive(Duration::from_secs(20))
                .pool_idle_timeout(Duration::from_secs(60))
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                // Blobs that are read slowly must not hold up the others on the same connection.
                .http2_initial_stream_window_size(STREAM_WINDOW)
                .http2_initial_connection_window_size(CONNECTION_WINDOW)
                .http2_max_header_list_size(MAX_HEADERS);
            // Plain HTTP works on machines that have no certificates.
            let builder =
                if tls { builder.tls_certs_merge(roots.iter().cloned()) } else { builder.tls_certs_only([]) };
            let builder = if guarded {
                builder.dns_resolver(Arc::new(Guarded { proxies: proxies::hosts() }))
            } else {
                builder
            };
            let proxied = proxied && !proxies::is_nothing_proxied();
            let builder = if proxied { builder } else { builder.no_proxy() };
            builder.build().map_err(|why| {
                let mut cause: &dyn std::error::Error = &why;
                while let Some(deeper) = cause.source() {
                    cause = deeper;
                }
                format!("no HTTPS client can be made: {cause}; install the system's CA certificates or give ca-file")
            })
        };
        let own = build(false, true)?;
        let here = endpoints.iter().any(is_here);
        let direct = if here { build(false, false)? } else { own.clone() };
        let guarded = if endpoints.iter().all(is_here) { own.clone() } else { build(true, true)? };
        Ok(Transport {
            own,
            guarded,
            direct,
            proxies: Proxies::from_env(),
            configured: endpoints.iter().map(origin).collect(),
            breakers: Mutex::default(),
            answer_within: config.read_timeout.min(ANSWER_WITHIN),
        })
    }

    /// A request to `url`, to be completed and sent. `from`: the endpoint that this began at.
    ///
    /// # Errors
    /// Invalid for a host that `from` may not send this node to.
    pub fn request(
        &self,
        method: reqwest::Method,
        url: &Url,
        from: &Url,
    ) -> Result<reqwest::RequestBuilder, Failed> {
        // What somebody on this machine says of this machine is as good as what the operator says.
        let trusted = self.configured.contains(&origin(url)) || is_here(from);
        let client = match (trusted, is_here(url)) {
            (true, true) => &self.direct,
            (true, false) => &self.own,
            (false, false) => &self.guarded,
            (false, true) => {
                return Err(Failed::invalid(format!(
                    "it sends this node to {}, which is an address of this machine or its link; not followed",
                    origin(url)
                )));
            }
        };
        Ok(client.request(method, url.clone()))
    }

    /// Sends a request and waits for the head of its answer, minding the health of the host.
    ///
    /// # Errors
    /// What kept the answer away: no connection, time-outs, a host that is left alone, 5xx, 429.
    pub async fn send(&self, request: reqwest::RequestBuilder, lane: Lane) -> Result<Response, Failed> {
        let (client, request) = request.build_split();
        let request: Request = request.map_err(|why| Failed::invalid(words(why)))?;
        let (url, host) = (request.url().clone(), origin(request.url()));
        let breaker = self.breaker(&host);
        let permit = breaker.admit(lane).map_err(|closed| closed_to(&host, closed))?;
        let answer = match tokio::time::timeout(self.answer_within, client.execute(request)).await {
            Err(_) => {
                let why = format!("{host}: no answer in time");
                permit.tell(Outcome::TimedOut(why.clone()));
                return Err(Failed::new(UpstreamError::Unavailable(why)));
            }
            Ok(Err(error)) => {
                let slow = error.is_timeout();
                let why = self.blame(&url, error);
                permit.tell(if slow { Outcome::TimedOut(why.clone()) } else { Outcome::Failed(why.clone()) });
                let again = (!slow).then_some(Duration::ZERO);
                return Err(Failed { again, ..Failed::new(UpstreamError::Unavailable(why)) });
            }
            Ok(Ok(answer)) => answer,
        };
        let status = answer.status();
        if status == StatusCode::TOO_MANY_REQUESTS {
            permit.tell(Outcome::Answered);
            return Err(limited(&breaker, lane, &answer));
        }
        if status.is_server_error() {
            let why = format!("{host} answered {status}");
            // 500 is what registries answer where one thing is broken, 501 and 505 where they cannot do it.
            let healthy = !matches!(status.as_u16(), 502..=504);
            permit.tell(if healthy { Outcome::Answered } else { Outcome::Failed(why.clone()) });
            let again = matches!(status.as_u16(), 500 | 502 | 503 | 504).then_some(Duration::ZERO);
            let error = UpstreamError::Unavailable(why);
            return Err(Failed { error, status: Some(status), again, redirected: false });
        }
        permit.tell(Outcome::Answered);
        Ok(answer)
    }

    /// What failed, and at whom.
    fn blame(&self, url: &Url, error: reqwest::Error) -> String {
        let proxy = self.proxies.between(url).filter(|_| !is_here(url) && proxies::is_at_fault(&error));
        let (host, words) = (origin(url), words(error));
        match proxy {
            Some(proxy) => format!("the proxy {proxy}, through which {host} is asked, fails: {words}"),
            None => format!("{host}: {words}"),
        }
    }

    /// The health of a host.
    pub fn breaker(&self, host: &str) -> Arc<Breaker> {
        let mut breakers = self.breakers.lock().unwrap_or_else(PoisonError::into_inner);
        if breakers.len() >= MAX_HOSTS && !breakers.contains_key(host) {
            // Storage hosts come and go; what is healthy need not be remembered.
            breakers.retain(|name, breaker| {
                self.configured.contains(name) || breaker.is_open() || breaker.limited().is_some()
            });
            if breakers.len() >= MAX_HOSTS {
                breakers.retain(|name, _| self.configured.contains(name));
            }
        }
        Arc::clone(breakers.entry(host.to_owned()).or_default())
    }
}

/// Scheme, host and port of a URL, which is what credentials are bound to.
pub fn origin(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default().to_ascii_lowercase();
    match url.port() {
        Some(port) => format!("{}://{host}:{port}", url.scheme()),
        None => format!("{}://{host}", url.scheme()),
    }
}

/// Whether a URL names this machine or its link by address or by the name that always means it.
pub fn is_here(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    if host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    host.trim_start_matches('[').trim_end_matches(']').parse().is_ok_and(is_local)
}

/// Loopback, link-local and what else never is a host of another network.
fn is_local(ip: IpAddr) -> bool {
    let v4 = |ip: Ipv4Addr| {
        ip.is_loopback()
            || ip.is_link_local()
            || ip.is_broadcast()
            || ip.is_multicast()
            || ip.octets()[0] == 0
    };
    match ip {
        IpAddr::V4(ip) => v4(ip),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => v4(ip),
            None => {
                ip.is_loopback()
                    || ip.is_unspecified()
                    || ip.is_multicast()
                    || ip.is_unicast_link_local()
                    || ip == CLOUD_METADATA
            }
        },
    }
}

/// The system's names, without those that mean this machine or its link. Proxies may be there.
struct Guarded {
    proxies: Vec<String>,
}

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let proxy = self.proxies.iter().any(|proxy| proxy.eq_ignore_ascii_case(name.as_str()));
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let outside: Vec<SocketAddr> =
                found.into_iter().filter(|address| proxy || !is_local(address.ip())).collect();
            if outside.is_empty() {
                return Err(format!("{} means this machine or its link; not followed", name.as_str()).into());
            }
            Ok(Box::new(outside.into_iter()) as Addrs)
        })
    }
}

fn closed_to(host: &str, closed: Closed) -> Failed {
    Failed::new(match closed {
        Closed::Away { why, wait } if wait.is_zero() => UpstreamError::Unavailable(why),
        Closed::Away { why, wait } => {
            UpstreamError::Unavailable(format!("{why}; {host} is tried again in {} s", wait.as_secs() + 1))
        }
        Closed::Limited(retry_after) => UpstreamError::RateLimited { retry_after },
    })
}

/// 429: short waits are waited for by the request itself, longer ones keep all requests away.
fn limited(breaker: &Breaker, lane: Lane, answer: &Response) -> Failed {
    let said = answer.headers().get(reqwest::header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after =
        said.and_then(|text| retry_after(text, std::time::SystemTime::now())).unwrap_or(LIMITED_FOR);
    let again = (retry_after <= SHORT_LIMIT).then_some(retry_after);
    if again.is_none() {
        breaker.limit(lane, retry_after);
    }
    let error = UpstreamError::RateLimited { retry_after };
    Failed { error, status: Some(StatusCode::TOO_MANY_REQUESTS), again, redirected: false }
}

/// `Retry-After` (RFC 9110, 10.2.3): seconds or a date.
fn retry_after(text: &str, now: std::time::SystemTime) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text.trim()).ok()?;
    // A date that has passed, or a clock that is wrong: soon, but not at once.
    Some(date.duration_since(now).unwrap_or(Duration::from_secs(1)))
}

/// The head of an answer comes within this, or a hung upstream would hold up every pull.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Kept open towards each host.
const IDLE_CONNECTIONS: usize = 8;
/// Bytes of headers in an HTTP/2 answer; HTTP/1 has hyper's limit of 100 lines.
const MAX_HEADERS: u32 = 64 * 1024;
/// Bytes of one answer on their way over HTTP/2: 20 MB/s at 200 ms.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// Hosts whose health is remembered for one upstream.
const MAX_HOSTS: usize = 64;
/// How long a host that says 429 and not for how long is left alone.
const LIMITED_FOR: Duration = Duration::from_secs(60);
/// A request waits this long by itself.
const SHORT_LIMIT: Duration = Duration::from_secs(2);
/// Where a cloud tells a machine its secrets over IPv6; over IPv4 it is link-local.
const CLOUD_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine() {
        let here = [
            "http://127.0.0.1/",
            "http://127.9.9.9:80/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://169.254.169.254/",
            "http://[fe80::1]/",
            "http://0.0.0.0/",
            "http://[::]/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://[fd00:ec2::254]/",
        ];
        for url in here {
            assert!(is_here(&url.parse().expect("a URL")), "{url}");
        }
        for url in
            ["http://10.0.0.1/", "http://192.168.1.1/", "https://reg.example/", "http://[2001:db8::1]/"]
        {
            assert!(!is_here(&url.parse().expect("a URL")), "{url}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let table = [
            ("30", Some(30)),
            (" 30 ", Some(30)),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sun, 06 Nov 1994 08:40:37 GMT", Some(1)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ];
        for (text, expected) in table {
            assert_eq!(retry_after(text, now), expected.map(Duration::from_secs), "{text:?}");
        }
    }

    #[tokio::test]
    async fn names_that_mean_this_machine_are_not_resolved_for_strangers() {
        let guarded =
            |proxies: &[&str]| Guarded { proxies: proxies.iter().map(|name| (*name).into()).collect() };
        let name = || "localhost".parse().expect("a name");
        let error = guarded(&[]).resolve(name()).await.err().expect("refused");
        assert!(error.to_string().contains("not followed"), "{error}");
        assert!(guarded(&["LocalHost"]).resolve(name()).await.is_ok());
    }
}
