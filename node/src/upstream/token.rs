//! Showing an upstream who the node is: Basic, and Bearer tokens from a token server (distribution's token
//! authentication specification). Owns which token is used for what, that each is asked for once, and who is told
//! credentials; how challenges are written is [`super::challenge`]'s.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use data_encoding::BASE64;
use reqwest::{
    Method, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderValue},
};
use serde::Deserialize;
use tokio::time::Instant;

use super::{
    body::{bounded, said},
    breaker::Lane,
    challenge::{self, Challenge},
    credentials::{Current, Login},
    error::{Failed, UpstreamError, tame},
    transport::{Transport, origin},
};
use crate::secret::Secret;

/// What one endpoint wants to see, and the tokens for it.
#[derive(Default)]
pub struct Authority {
    /// As of the last challenge; spares the question for the next repository.
    wanted: Mutex<Option<Wanted>>,
    /// By repository.
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    used: AtomicU64,
}

/// How an endpoint wants to be shown who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Name and password with each request.
    Basic,
    /// A token of this server.
    Bearer {
        /// Where tokens are had.
        realm: Url,
        /// For which service.
        service: Option<String>,
        /// For which rights, sorted; empty where the challenge did not say.
        scopes: Vec<String>,
    },
}

/// What a request shows.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The value of `Authorization`.
    pub header: HeaderValue,
    /// Which token it is; 0 for none.
    token: u64,
}

/// The token for one repository. Whoever holds the lock may ask for it.
#[derive(Default)]
struct Slot {
    token: tokio::sync::Mutex<Option<Token>>,
    last_used: AtomicU64,
}

struct Token {
    shown: Shown,
    scopes: Vec<String>,
    generation: u64,
    good_until: Instant,
}

#[derive(Deserialize)]
struct Grant {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<f64>,
}

/// To whom and as whom a token is asked for.
pub struct Asking<'a> {
    /// How the token server is reached.
    pub transport: &'a Transport,
    /// The endpoint that wants it.
    pub endpoint: &'a Url,
    /// The repository there.
    pub repository: &'a str,
    /// As whom.
    pub who: &'a Current,
}

impl Authority {
    /// What to show before being asked; `None` where that is not known.
    ///
    /// # Errors
    /// Where the token server is away.
    pub async fn ready(&self, asking: &Asking<'_>) -> Result<Option<Shown>, Failed> {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let shown = match wanted {
            None => return Ok(None),
            Some(Wanted::Basic) => return Ok(basic(asking.who)),
            // The challenge named another repository.
            Some(Wanted::Bearer { realm, service, .. }) => {
                self.token(asking, &Wanted::Bearer { realm, service, scopes: Vec::new() }, None).await
            }
        };
        match shown {
            Ok(shown) => Ok(Some(shown)),
            // What the endpoint wants may have changed: ask it.
            Err(Failed {
                error: UpstreamError::Unavailable(_) | UpstreamError::RateLimited { .. }, ..
            }) => shown.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// What to show after a challenge, where `refused` was not enough. `None`: nothing that could help.
    ///
    /// # Errors
    /// What kept the token away.
    pub async fn answer(
        &self,
        asking: &Asking<'_>,
        wanted: Wanted,
        refused: Option<&Shown>,
    ) -> Result<Option<Shown>, Failed> {
        *self.wanted.lock().unwrap_or_else(PoisonError::into_inner) = Some(wanted.clone());
        match wanted {
            // The same again would be refused again.
            Wanted::Basic => {
                Ok(basic(asking.who).filter(|new| refused.is_none_or(|old| old.header != new.header)))
            }
            Wanted::Bearer { .. } => self.token(asking, &wanted, refused).await.map(Some),
        }
    }

    async fn token(
        &self,
        asking: &Asking<'_>,
        wanted: &Wanted,
        refused: Option<&Shown>,
    ) -> Result<Shown, Failed> {
        let Wanted::Bearer { realm, service, scopes } = wanted else {
            return Err(Failed::invalid("a token is not what it wants"));
        };
        let slot = self.slot(asking.repository);
        let mut held = slot.token.lock().await;
        if let Some(token) = held.as_ref() {
            let usable = token.good_until > Instant::now()
                && token.generation == asking.who.generation
                && refused.is_none_or(|refused| refused.token != token.shown.token)
                && scopes.iter().all(|scope| token.scopes.contains(scope));
            if usable {
                return Ok(token.shown.clone());
            }
        }
        let scopes = match (scopes.is_empty(), held.take()) {
            (false, _) => scopes.clone(),
            // What it wanted last time for this repository.
            (true, Some(token)) => token.scopes,
            (true, None) => vec![format!("repository:{}:pull", asking.repository)],
        };
        let (secret, lasts) = fetch(asking, realm, service.as_deref(), &scopes).await?;
        let mut header = HeaderValue::from_str(&format!("Bearer {}", secret.expose()))
            .map_err(|_| Failed::invalid("a token that cannot be sent"))?;
        header.set_sensitive(true);
        let shown = Shown { header, token: self.used.fetch_add(1, Ordering::Relaxed) + 1 };
        let good_until = Instant::now() + lasts.mul_f64(TOKEN_SHARE);
        *held = Some(Token { shown: shown.clone(), scopes, generation: asking.who.generation, good_until });
        Ok(shown)
    }

    fn slot(&self, repository: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if slots.len() >= MAX_SLOTS && !slots.contains_key(repository) {
            // Those not used for longest; whoever is using one keeps it.
            let mut ages: Vec<u64> =
                slots.values().map(|slot| slot.last_used.load(Ordering::Relaxed)).collect();
            ages.sort_unstable();
            let median = ages[ages.len() / 2];
            slots.retain(|_, slot| slot.last_used.load(Ordering::Relaxed) > median);
        }
        let slot = Arc::clone(slots.entry(repository.to_owned()).or_default());
        slot.last_used.store(self.used.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        slot
    }
}

/// What the challenges of an answer want, the better kind first.
///
/// # Errors
/// Invalid where there is none that is understood, or where it names a place that credentials may not go.
pub fn wanted(headers: &HeaderMap, endpoint: &Url) -> Result<Wanted, Failed> {
    let challenges: Vec<Challenge> = headers
        .get_all(header::WWW_AUTHENTICATE)
        .iter()
        .take(MAX_CHALLENGE_HEADERS)
        .filter_map(|value| std::str::from_utf8(value.as_bytes()).ok())
        .filter(|value| value.len() <= MAX_CHALLENGE)
        .flat_map(challenge::parse)
        .collect();
    let bearer = challenges.iter().find(|c| c.scheme == "bearer" && c.parameter("realm").is_some());
    if let Some(bearer) = bearer {
        let realm = realm(bearer.parameter("realm").unwrap_or_default(), endpoint)?;
        let mut scopes: Vec<String> = bearer
            .parameters
            .iter()
            .filter(|(name, _)| name == "scope")
            .flat_map(|(_, value)| value.split(' '))
            .filter(|scope| !scope.is_empty())
            .take(MAX_SCOPES)
            .map(str::to_owned)
            .collect();
        scopes.sort();
        scopes.dedup();
        return Ok(Wanted::Bearer { realm, service: bearer.parameter("service").map(str::to_owned), scopes });
    }
    if challenges.iter().any(|c| c.scheme == "basic") {
        return Ok(Wanted::Basic);
    }
    Err(Failed::invalid("it wants to know who asks in no way that is known here (Bearer, Basic)"))
}

/// Asks a token server. The token and how long it lasts.
///
/// # Errors
/// What kept it away; Denied where the credentials are wrong.
pub async fn fetch(
    asking: &Asking<'_>,
    realm: &Url,
    service: Option<&str>,
    scopes: &[String],
) -> Result<(Secret, Duration), Failed> {
    let mut pairs: Vec<(&str, &str)> = service.map(|service| ("service", service)).into_iter().collect();
    let joined = scopes.join(" ");
    let transport = asking.transport;
    let request = match asking.who.login.as_deref() {
        Some(Login::Identity(identity)) => {
            pairs.extend([
                ("scope", joined.as_str()),
                ("client_id", CLIENT),
                ("grant_type", "refresh_token"),
            ]);
            pairs.push(("refresh_token", identity.expose()));
            transport
                .request(Method::POST, realm, asking.endpoint)?
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .body(form(&pairs))
        }
        login => {
            pairs.extend(scopes.iter().map(|scope| ("scope", scope.as_str())));
            let mut url = realm.clone();
            url.query_pairs_mut().extend_pairs(&pairs);
            if url.query() == Some("") {
                url.set_query(None);
            }
            let request = transport.request(Method::GET, &url, asking.endpoint)?;
            match login.and_then(basic_of) {
                Some(value) => request.header(header::AUTHORIZATION, value),
                None => request,
            }
        }
    };
    let answer = transport.send(request.header(header::ACCEPT, "application/json"), Lane::Rest).await?;
    granted(answer, realm, asking.who.login.is_some()).await
}

/// What to show for Basic.
pub fn basic(who: &Current) -> Option<Shown> {
    let header = who.login.as_deref().and_then(basic_of)?;
    Some(Shown { header, token: 0 })
}

/// What to show for a token that is used once.
pub fn bearer(token: &Secret) -> Result<Shown, Failed> {
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose()))
        .map_err(|_| Failed::invalid("a token that cannot be sent"))?;
    header.set_sensitive(true);
    Ok(Shown { header, token: 0 })
}

async fn granted(answer: Response, realm: &Url, known: bool) -> Result<(Secret, Duration), Failed> {
    let status = answer.status();
    let place = origin(realm);
    let failed = |error| Failed { status: Some(status), ..Failed::new(error) };
    if !status.is_success() {
        let words = said(answer).await;
        return Err(failed(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if known => {
                UpstreamError::Denied(format!("{place} does not accept the credentials: {words}"))
            }
            s if s.is_client_error() => UpstreamError::Denied(format!("{place} gives no token: {words}")),
            _ => UpstreamError::Invalid(format!("{place} was asked for a token and answered {status}")),
        }));
    }
    let body = bounded(answer, MAX_GRANT).await?;
    // The text of the error could quote the token.
    let grant: Grant = serde_json::from_slice(&body)
        .map_err(|_| Failed::invalid(format!("{place} was asked for a token and answered something else")))?;
    let token = grant
        .token
        .filter(|token| !token.is_empty())
        .or(grant.access_token.filter(|token| !token.is_empty()))
        .ok_or_else(|| Failed::invalid(format!("{place} was asked for a token and answered without one")))?;
    let lasts = grant
        .expires_in
        .filter(|seconds| *seconds > 0.0)
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or(TOKEN_LASTS);
    Ok((Secret::new(token), lasts.min(TOKEN_LASTS_MAX)))
}

/// The token server, if credentials may be sent there: over TLS, unless the endpoint itself is without.
fn realm(text: &str, endpoint: &Url) -> Result<Url, Failed> {
    let wrong = |why: &str| Failed::invalid(format!("tokens are to be had at {}: {why}", tame(text)));
    let mut url: Url = endpoint.join(text).map_err(|_| wrong("not a URL"))?;
    match url.scheme() {
        "https" => {}
        "http" if endpoint.scheme() == "http" => {}
        _ => return Err(wrong("credentials are not sent there without TLS")),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("it holds credentials"));
    }
    url.set_fragment(None);
    Ok(url)
}

fn basic_of(login: &Login) -> Option<HeaderValue> {
    let Login::Password { username, password } = login else { return None };
    let text = BASE64.encode(format!("{username}:{}", password.expose()).as_bytes());
    let mut value = HeaderValue::from_str(&format!("Basic {text}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn form(pairs: &[(&str, &str)]) -> String {
    let mut url = Url::parse("http://form").expect("a constant URL");
    url.query_pairs_mut().extend_pairs(pairs);
    url.query().unwrap_or_default().to_owned()
}

/// What this program calls itself to token servers.
const CLIENT: &str = "waystation";
/// How long tokens last that do not say so (token specification).
const TOKEN_LASTS: Duration = Duration::from_secs(60);
/// Asked for anew at least so often.
const TOKEN_LASTS_MAX: Duration = Duration::from_secs(24 * 3600);
/// The part of its time that a token is used for; the rest is for requests under way and clocks that differ.
const TOKEN_SHARE: f64 = 0.8;
/// A token and its companions; those of clouds have some KiB.
const MAX_GRANT: usize = 256 * 1024;
/// Repositories whose tokens are kept.
const MAX_SLOTS: usize = 512;
const MAX_CHALLENGE_HEADERS: usize = 8;
const MAX_CHALLENGE: usize = 16 * 1024;
const MAX_SCOPES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn want(endpoint: &str, challenge: &str) -> Result<Wanted, UpstreamError> {
        let mut headers = HeaderMap::new();
        headers.insert(header::WWW_AUTHENTICATE, challenge.parse().expect("a header"));
        wanted(&headers, &endpoint.parse().expect("a URL")).map_err(|failed| failed.error)
    }

    #[test]
    fn credentials_go_to_token_servers_over_tls_only() {
        let ok = |endpoint: &str, realm: &str| want(endpoint, &format!("Bearer realm=\"{realm}\"")).is_ok();
        assert!(ok("https://reg.example", "https://auth.example/token"));
        assert!(ok("https://reg.example", "https://reg.example/token"));
        assert!(ok("https://reg.example", "/token"));
        assert!(ok("http://reg.example", "http://auth.example/token"));
        assert!(ok("http://reg.example", "https://auth.example/token"));
        assert!(!ok("https://reg.example", "http://reg.example/token"));
        assert!(!ok("https://reg.example", "http://auth.example/token"));
        assert!(!ok("https://reg.example", "https://me:pw@auth.example/token"));
        assert!(!ok("http://reg.example", "file:///etc/passwd"));
        assert!(matches!(want("https://r.example", "Negotiate"), Err(UpstreamError::Invalid(_))));
        assert_eq!(want("https://r.example", "Basic realm=\"x\", Digest a=b"), Ok(Wanted::Basic));
    }

    #[test]
    fn several_scopes_are_told_apart() {
        let challenge = "Basic, Bearer realm=\"https://a.example/t\",service=\"s\",scope=\"repository:b:pull \
                         repository:a:pull repository:b:pull\"";
        let Ok(Wanted::Bearer { service, scopes, .. }) = want("https://r.example", challenge) else {
            panic!("bearer is the better one")
        };
        assert_eq!(service.as_deref(), Some("s"));
        assert_eq!(scopes, ["repository:a:pull", "repository:b:pull"]);
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_what_is_used() {
        let authority = Authority::default();
        let first = authority.slot("first");
        for n in 0..10 * MAX_SLOTS {
            authority.slot(&format!("r{n}"));
            authority.slot("first");
        }
        assert!(authority.slots.lock().expect("not poisoned").len() <= MAX_SLOTS);
        assert!(Arc::ptr_eq(&first, &authority.slot("first")));
    }
}
