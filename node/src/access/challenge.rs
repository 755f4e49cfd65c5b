//! What `WWW-Authenticate` says, and where clients are sent for tokens. The place comes from the request
//! unless the operator says it, so it is checked before it is repeated.

use std::net::SocketAddr;

use axum::http::{HeaderMap, Uri, header};

use super::{Action, Need};

/// How a client reached this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    scheme: &'static str,
    host: String,
}

/// What a client is to do about a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asking {
    /// Log in as the node prefers it.
    Login,
    /// Log in with name and password.
    Basic,
    /// Fetch a token anew.
    InvalidToken,
    /// Fetch one that is good for more.
    MoreScope,
}

impl Place {
    /// From a request: scheme of the listener, host as the client says it. `local` is what to name where
    /// the client says nothing that can be named.
    pub fn of(uri: &Uri, headers: &HeaderMap, secure: bool, local: Option<SocketAddr>) -> Self {
        let said = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        let host = uri.authority().map(axum::http::uri::Authority::as_str).or(said);
        let host = host.filter(|host| is_host(host)).map(str::to_owned);
        let host = host.or_else(|| local.map(|address| address.to_string()));
        Place {
            scheme: if secure { "https" } else { "http" },
            host: host.unwrap_or_else(|| "localhost".to_owned()),
        }
    }

    /// Of requests that are never asked to log in.
    pub fn nowhere() -> Self {
        Place { scheme: "http", host: String::new() }
    }

    /// The address of tokens: below the public one, where the operator gave it.
    pub fn realm(&self, public_url: &str) -> String {
        if public_url.is_empty() {
            format!("{}://{}{TOKEN_PATH}", self.scheme, self.host)
        } else {
            format!("{public_url}{TOKEN_PATH}")
        }
    }
}

/// The header's value. Names and hosts were checked, so nothing in it needs quoting.
pub fn text(asking: Asking, realm: &str, need: &Need) -> String {
    let error = match asking {
        Asking::Basic => return format!("Basic realm=\"{SERVICE}\", charset=\"UTF-8\""),
        Asking::Login => "",
        Asking::InvalidToken => ",error=\"invalid_token\"",
        Asking::MoreScope => ",error=\"insufficient_scope\"",
    };
    let scope = match need {
        Need::Ping => String::new(),
        Need::Meant(name, _) => format!(",scope=\"repository:{name}:pull\""),
        Need::Catalog => ",scope=\"registry:catalog:*\"".to_owned(),
        Need::Repository(action, repository, from) => {
            let words = match action {
                Action::Push => "pull,push",
                other => other.word(),
            };
            let from = from.as_ref().map(|from| format!(" repository:{from}:pull")).unwrap_or_default();
            format!(",scope=\"repository:{repository}:{words}{from}\"")
        }
    };
    format!("Bearer realm=\"{realm}\",service=\"{SERVICE}\"{scope}{error}")
}

/// A host name or address, perhaps with a port, and nothing else.
fn is_host(text: &str) -> bool {
    let sane = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    !text.is_empty() && text.len() <= 255 && text.bytes().all(sane)
}

/// Where tokens are fetched.
pub const TOKEN_PATH: &str = "/token";
/// What tokens are for; clients repeat it.
const SERVICE: &str = "waystation";

#[cfg(test)]
mod tests {
    use super::*;

    fn place(uri: &str, host: Option<&str>, secure: bool) -> String {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers
                .insert(header::HOST, axum::http::HeaderValue::from_bytes(host.as_bytes()).expect("a value"));
        }
        let local = Some(([127, 0, 0, 1], 5000).into());
        Place::of(&uri.parse().expect("a target"), &headers, secure, local).realm("")
    }

    #[test]
    fn tokens_are_where_the_client_is() {
        assert_eq!(place("/v2/", Some("node.example:5000"), true), "https://node.example:5000/token");
        assert_eq!(place("/v2/", Some("[::1]:5000"), false), "http://[::1]:5000/token");
        assert_eq!(place("https://h2.example/v2/", None, true), "https://h2.example/token");
        for bad in ["a\"b", "a b", "user@evil", "a/b", "a,b", "ü", ""] {
            assert_eq!(place("/v2/", Some(bad), false), "http://127.0.0.1:5000/token", "{bad}");
        }
        let place = Place::of(&Uri::from_static("/"), &HeaderMap::new(), false, None);
        assert_eq!(place.realm("https://proxy.example/x"), "https://proxy.example/x/token");
    }

    #[test]
    fn forms_of_challenges() {
        let name = |text: &str| text.parse().expect("valid");
        let realm = "https://a/token";
        let push = Need::Repository(Action::Push, name("a/b"), Some(name("c")));
        assert_eq!(
            text(Asking::Login, realm, &push),
            "Bearer realm=\"https://a/token\",service=\"waystation\",scope=\"repository:a/b:pull,push repository:c:pull\""
        );
        assert_eq!(
            text(Asking::Login, realm, &Need::Ping),
            "Bearer realm=\"https://a/token\",service=\"waystation\""
        );
        assert!(
            text(Asking::MoreScope, realm, &Need::Catalog)
                .ends_with(",scope=\"registry:catalog:*\",error=\"insufficient_scope\"")
        );
        assert!(text(Asking::Basic, realm, &push).starts_with("Basic realm="));
    }
}
