//! Who clients of the registry are and what they may do: logins, tokens, rules, limits, TLS. Decides and
//! never answers: the registry turns a [`Refusal`] into an answer.

pub mod challenge;
pub mod config;
pub mod credentials;
mod htpasswd;
pub mod limits;
mod logins;
pub mod rules;
mod stamp;
mod throttle;
pub mod tls;
pub mod token;

use std::{
    net::{IpAddr, Ipv4Addr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use axum::http::{HeaderMap, HeaderValue, header};
pub use waystation_oci::scope::Action;
use waystation_oci::scope::Scopes;
use waystation_proto::RepoName;

use self::{
    challenge::{Asking, Place},
    config::{AuthConfig, Challenge, LimitsConfig},
    credentials::Credentials,
    limits::Limits,
    logins::{Login, Logins},
    rules::Rules,
    token::{Bearer, Kind, Tokens},
};
pub use self::{htpasswd::HtpasswdError, rules::Identity};
use crate::{identity::IdentityError, metrics::Metrics, registry::Anonymous, secret::Secret};

/// The access rules of a node. Clones are the same.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
    entitlement: Arc<dyn Entitlement>,
}

struct Inner {
    rules: Rules,
    logins: Option<Logins>,
    tokens: Tokens,
    limits: Limits,
    challenge: Challenge,
    public_url: String,
}

/// Says for which repositories access is left to an upstream: clients may then read there with credentials
/// that this node does not know, and whoever serves the repository must ask the upstream with
/// [`Caller::basic`] before a byte is served.
pub trait Entitlement: Send + Sync + 'static {
    /// Who decides who may pull from a repository.
    fn authority(&self, repository: &RepoName) -> Authority;

    /// Whether any repository at all is left to an upstream: clients are then always asked who they are.
    fn leaves_any(&self) -> bool;

    /// The repositories that clients may mean by this name, beside the one that is called so.
    fn meanings(&self, name: &RepoName) -> Vec<RepoName>;
}

/// Who decides who may pull from a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority {
    /// The rules of this node.
    Local,
    /// The upstream that it is pulled through from, asked with the client's own credentials.
    Upstream,
}

/// Where a request came from. The listener puts it into the request's extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The client, or the proxy before it.
    pub address: IpAddr,
    /// Whether it came through TLS.
    pub secure: bool,
}

/// A client whose request has been looked at.
#[derive(Clone)]
pub struct Caller {
    access: Access,
    identity: Identity,
    /// What the request's token is good for; nothing where there was none.
    scopes: Option<Scopes>,
    /// What only an upstream can judge.
    foreign: Option<Credentials>,
    place: Place,
}

/// What a request is about, for its rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Whether there is a registry, and whether the client is welcome.
    Ping,
    /// The list of repositories.
    Catalog,
    /// An action in a repository, and perhaps reading in another.
    Repository(Action, RepoName, Option<RepoName>),
    /// Reading in a repository by another name, which comes first: tokens are for that, rules for the other.
    Meant(RepoName, RepoName),
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Somebody has to log in first, or anew.
    Login {
        /// What happened and what to do.
        message: String,
        /// The challenge, for `WWW-Authenticate`.
        challenge: String,
    },
    /// Whoever it is may not.
    Denied(String),
    /// Too much at a time; try again then.
    Busy(String, Duration),
}

/// What a client wants a token for.
pub struct TokenRequest {
    /// Who it is; nothing where it does not say.
    pub proof: Option<Proof>,
    /// What it is to be good for.
    pub scopes: Scopes,
    /// Whether it wants a token to fetch others with.
    pub offline: bool,
}

/// What is to prove who a client is.
pub enum Proof {
    /// Name and password.
    Password(Credentials),
    /// A token from an earlier login.
    Refresh(Secret),
}

/// A token that was made.
pub struct Issued {
    /// For requests.
    pub token: String,
    /// For fetching others, where asked for.
    pub refresh: Option<String>,
    /// What it is good for.
    pub scopes: Scopes,
    /// How long.
    pub life: Duration,
    /// Since when, in seconds since 1970.
    pub issued: u64,
}

/// Why access could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The users.
    #[error(transparent)]
    Htpasswd(#[from] HtpasswdError),
    /// The key of tokens.
    #[error(transparent)]
    Key(#[from] IdentityError),
}

impl Access {
    /// What the configuration says.
    pub fn open(
        auth: &AuthConfig,
        limits: LimitsConfig,
        anonymous: Anonymous,
        data_dir: &Path,
        metrics: &Metrics,
    ) -> Result<Self, AccessError> {
        let logins = auth.htpasswd.clone().map(|path| Logins::open(path, metrics.clone())).transpose()?;
        let inner = Inner {
            rules: Rules::new(auth, anonymous),
            logins,
            tokens: Tokens::open(data_dir, Duration::from_secs(auth.token_seconds))?,
            limits: Limits::new(limits, metrics.clone()),
            challenge: auth.challenge,
            public_url: auth.public_url.clone(),
        };
        Ok(Access { inner: Arc::new(inner), entitlement: Arc::new(AllLocal) })
    }

    /// Nobody can log in, and everybody may do this.
    pub fn anonymous(anonymous: Anonymous, metrics: &Metrics) -> Self {
        let inner = Inner {
            rules: Rules::new(&AuthConfig::default(), anonymous),
            logins: None,
            tokens: Tokens::with(crate::identity::random_bytes(), Duration::from_secs(300)),
            limits: Limits::new(LimitsConfig::default(), metrics.clone()),
            challenge: Challenge::default(),
            public_url: String::new(),
        };
        Access { inner: Arc::new(inner), entitlement: Arc::new(AllLocal) }
    }

    /// The same, with repositories that are left to upstreams.
    #[must_use]
    pub fn with_entitlement(self, entitlement: Arc<dyn Entitlement>) -> Self {
        Access { entitlement, ..self }
    }

    /// How much clients may use at a time.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Whether saying who one is can gain anything here.
    pub fn offers_logins(&self) -> bool {
        self.inner.logins.is_some() || self.entitlement.leaves_any()
    }

    /// Reads the users again if they changed.
    pub fn refresh(&self) {
        if let Some(logins) = &self.inner.logins {
            logins.refresh();
        }
    }

    /// The operator at the local socket.
    pub fn operator(&self) -> Caller {
        self.caller(Identity::Operator, Place::nowhere())
    }

    /// Who sends this request, taking the credentials out of its headers, and whether they may do what it
    /// is about.
    pub async fn admit(
        &self,
        headers: &mut HeaderMap,
        place: Place,
        peer: Peer,
        need: &Need,
    ) -> Result<Caller, Refusal> {
        let given = headers.remove(header::AUTHORIZATION);
        let caller = match given.filter(|_| self.offers_logins()) {
            None => self.caller(Identity::Anonymous, place),
            Some(given) => self.identify(&given, place, peer, need).await?,
        };
        self.check(&caller, need)?;
        Ok(caller)
    }

    /// A token for whoever proves to be somebody, or for nobody in particular.
    pub async fn token(&self, request: TokenRequest, place: Place, peer: Peer) -> Result<Issued, Refusal> {
        let now = token::now();
        let left = |access: &Access| {
            let mut names = request.scopes.repositories().peekable();
            let none = names.peek().is_none();
            (none && access.entitlement.leaves_any()) || names.any(|name| access.is_left(name))
        };
        let (identity, bearer) = match request.proof {
            None => (Identity::Anonymous, Bearer::Anonymous),
            Some(Proof::Refresh(refresh)) => self.refreshed(&refresh, now).ok_or_else(|| {
                self.login(
                    &place,
                    &Need::Ping,
                    Asking::Basic,
                    "this login has ended or was ended; log in again",
                )
            })?,
            Some(Proof::Password(given)) => {
                match self.log_in(&given, peer, &place, left(self), &Need::Ping).await? {
                    Some(user) => {
                        let bearer = self.bearer(&user);
                        (Identity::User(user), bearer)
                    }
                    None => (Identity::Anonymous, self.inner.tokens.keep(given, now)),
                }
            }
        };
        // What a name means is known when it is used, and the rules are asked again then.
        let scopes = request.scopes.filter(|action, name| {
            let meant =
                || self.entitlement.meanings(name).iter().any(|name| self.may(&identity, action, name));
            self.may(&identity, action, name) || (action == Action::Pull && meant())
        });
        let issue = |kind, bearer, scopes| self.inner.tokens.issue(kind, bearer, scopes, now);
        let refresh = matches!(bearer, Bearer::User(..)).then(|| bearer.clone()).filter(|_| request.offline);
        Ok(Issued {
            token: issue(Kind::Access, bearer, scopes.clone()),
            refresh: refresh.map(|bearer| issue(Kind::Refresh, bearer, Scopes::default())),
            scopes,
            life: self.inner.tokens.life(),
            issued: now,
        })
    }

    fn caller(&self, identity: Identity, place: Place) -> Caller {
        Caller { access: self.clone(), identity, scopes: None, foreign: None, place }
    }

    async fn identify(
        &self,
        given: &HeaderValue,
        place: Place,
        peer: Peer,
        need: &Need,
    ) -> Result<Caller, Refusal> {
        let (scheme, rest) = given.to_str().ok().and_then(|text| text.split_once(' ')).unwrap_or(("", ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            return self.bearing(rest, place.clone()).ok_or_else(|| {
                self.login(
                    &place,
                    need,
                    Asking::InvalidToken,
                    "the token is not good any more; fetch another",
                )
            });
        }
        let given =
            Some(rest).filter(|_| scheme.eq_ignore_ascii_case("basic")).and_then(Credentials::from_basic);
        let Some(given) = given else {
            return Err(self.login(
                &place,
                need,
                Asking::Login,
                "the Authorization header cannot be understood",
            ));
        };
        if given.is_empty() {
            return Ok(self.caller(Identity::Anonymous, place));
        }
        let left = match need {
            Need::Ping => self.entitlement.leaves_any(),
            Need::Catalog => false,
            Need::Repository(_, repository, _) | Need::Meant(_, repository) => self.is_left(repository),
        };
        match self.log_in(&given, peer, &place, left, need).await? {
            Some(user) => Ok(self.caller(Identity::User(user), place)),
            None => Ok(Caller { foreign: Some(given), ..self.caller(Identity::Anonymous, place) }),
        }
    }

    /// The user, or nothing for someone whom only an upstream can know. `left`: whether that will do.
    async fn log_in(
        &self,
        given: &Credentials,
        peer: Peer,
        place: &Place,
        left: bool,
        need: &Need,
    ) -> Result<Option<Arc<str>>, Refusal> {
        let Some(logins) = &self.inner.logins else { return Ok(None) };
        match logins.check(given, peer.address).await {
            Login::Known(user) => Ok(Some(user)),
            Login::Unknown if left => Ok(None),
            Login::Unknown | Login::Wrong => {
                logins.refused(given, peer.address);
                Err(self.login(place, need, Asking::Login, "wrong user or password; log in again"))
            }
            Login::Busy(wait) => {
                let message = "too many logins that failed; wait and try again".to_owned();
                Err(Refusal::Busy(message, wait))
            }
        }
    }

    fn bearer(&self, user: &str) -> Bearer {
        let logins = self.inner.logins.as_ref();
        let mark = logins.and_then(|logins| logins.mark(user, &self.inner.tokens.mark_key()));
        // Removed since: a mark that never matches.
        Bearer::User(user.to_owned(), mark.unwrap_or_default())
    }

    /// The user whose token this is, if the password is still that for which it was given.
    fn holder(&self, name: &str, mark: &[u8; 16]) -> Option<Identity> {
        let logins = self.inner.logins.as_ref()?;
        let present = logins.mark(name, &self.inner.tokens.mark_key())?;
        if present != *mark {
            return None;
        }
        logins.name(name).map(Identity::User)
    }

    fn refreshed(&self, refresh: &Secret, now: u64) -> Option<(Identity, Bearer)> {
        let claims = self.inner.tokens.open_token(refresh.expose(), Kind::Refresh, now)?;
        let Bearer::User(name, mark) = &claims.bearer else { return None };
        Some((self.holder(name, mark)?, claims.bearer))
    }

    fn bearing(&self, text: &str, place: Place) -> Option<Caller> {
        let claims = self.inner.tokens.open_token(text, Kind::Access, token::now())?;
        let (identity, foreign) = match &claims.bearer {
            Bearer::Anonymous => (Identity::Anonymous, None),
            Bearer::User(name, mark) => (self.holder(name, mark)?, None),
            Bearer::Foreign(id) => (Identity::Anonymous, Some(self.inner.tokens.kept(*id)?)),
        };
        Some(Caller { scopes: Some(claims.scopes), foreign, ..self.caller(identity, place) })
    }

    fn is_left(&self, repository: &RepoName) -> bool {
        self.entitlement.authority(repository) == Authority::Upstream
    }

    /// Whether the rules let them, or leave it to an upstream.
    fn may(&self, who: &Identity, action: Action, repository: &RepoName) -> bool {
        (action == Action::Pull && self.is_left(repository))
            || self.inner.rules.allow(who, action, repository)
    }

    fn check(&self, caller: &Caller, need: &Need) -> Result<(), Refusal> {
        if caller.identity == Identity::Operator {
            return Ok(());
        }
        match need {
            // Clients that ask here first would never say who they are if they were let in without.
            Need::Ping => {
                let said = caller.identity != Identity::Anonymous
                    || caller.scopes.is_some()
                    || caller.foreign.is_some();
                if said || !self.offers_logins() {
                    return Ok(());
                }
                Err(self.login(&caller.place, need, Asking::Login, "log in, or ask for a token without"))
            }
            Need::Catalog => match &caller.scopes {
                Some(scopes) if !scopes.cover_catalog() => {
                    let message = "the token is not for the list of repositories; fetch another";
                    Err(self.login(&caller.place, need, Asking::MoreScope, message))
                }
                _ => Ok(()),
            },
            Need::Repository(action, repository, _) => {
                self.check_repository(caller, *action, repository, repository, need)
            }
            Need::Meant(name, repository) => {
                self.check_repository(caller, Action::Pull, name, repository, need)
            }
        }
    }

    fn check_repository(
        &self,
        caller: &Caller,
        action: Action,
        name: &RepoName,
        repository: &RepoName,
        need: &Need,
    ) -> Result<(), Refusal> {
        let word = action.word();
        if !self.may(&caller.identity, action, repository) {
            return Err(self.lacking(caller, word, repository, need));
        }
        match &caller.scopes {
            Some(scopes) if !scopes.cover(action, name) && !scopes.cover(action, repository) => {
                let message = format!("the token is not for {word} in {name}; fetch another");
                Err(self.login(&caller.place, need, Asking::MoreScope, &message))
            }
            _ => Ok(()),
        }
    }

    fn lacking(&self, caller: &Caller, word: &str, repository: &RepoName, need: &Need) -> Refusal {
        match &caller.identity {
            Identity::Anonymous if self.inner.logins.is_none() => Refusal::Denied(format!(
                "anonymous {word} is off on this listener; start the node with --anonymous {}, \
                 or {word} at a listener of this mesh that allows it",
                if word == "pull" { word } else { "push" }
            )),
            Identity::Anonymous => {
                self.login(&caller.place, need, Asking::Login, &format!("log in to {word} in {repository}"))
            }
            who => Refusal::Denied(format!(
                "{who} may not {word} in {repository}; an [[auth.rule]] of this node would have to allow it"
            )),
        }
    }

    /// A refusal that asks for a login.
    fn login(&self, place: &Place, need: &Need, asking: Asking, message: &str) -> Refusal {
        let asking = match (asking, self.inner.challenge) {
            (Asking::Login | Asking::InvalidToken, Challenge::Basic) => Asking::Basic,
            (asking, _) => asking,
        };
        let challenge = challenge::text(asking, &place.realm(&self.inner.public_url), need);
        Refusal::Login { message: message.to_owned(), challenge }
    }
}

impl Caller {
    /// Who it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether this request may do that there. True also for pulling from a repository that is left to an
    /// upstream: then the upstream must be asked.
    pub fn may(&self, action: Action, repository: &RepoName) -> bool {
        let covered = self.scopes.as_ref().is_none_or(|scopes| scopes.cover(action, repository));
        self.identity == Identity::Operator
            || (covered && self.access.may(&self.identity, action, repository))
    }

    /// Whether the repository is in the list that this client sees: it may pull there by the node's rules.
    pub fn sees(&self, repository: &RepoName) -> bool {
        self.access.inner.rules.allow(&self.identity, Action::Pull, repository)
    }

    /// Credentials that this node does not know, for the upstream that a repository is left to. Those of
    /// this node's own users are never handed out.
    pub fn basic(&self) -> Option<(&str, &Secret)> {
        self.foreign.as_ref().map(|given| (given.user.as_str(), &given.password))
    }

    /// What to answer where an upstream wants to know who the client is, or does not take what it said.
    pub fn login_needed(&self, repository: &RepoName, message: &str) -> Refusal {
        let need = Need::Repository(Action::Pull, repository.clone(), None);
        self.access.login(&self.place, &need, Asking::Login, message)
    }
}

impl Default for Peer {
    /// A program on this machine.
    fn default() -> Self {
        Peer { address: Ipv4Addr::LOCALHOST.into(), secure: false }
    }
}

/// Nothing is left to upstreams.
struct AllLocal;

impl Entitlement for AllLocal {
    fn authority(&self, _: &RepoName) -> Authority {
        Authority::Local
    }

    fn leaves_any(&self) -> bool {
        false
    }

    fn meanings(&self, _: &RepoName) -> Vec<RepoName> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
