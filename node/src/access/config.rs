//! The sections `[tls]`, `[auth]` and `[limits]` of the configuration: names, defaults and what cannot be.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use waystation_proto::glob::Glob;

use super::{
    Action,
    rules::{ANONYMOUS, ANY_USER},
};
use crate::config::maybe_path;

/// `[tls]`: whether and how the registry's listener speaks TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the certificate and those that lead to its CA.
    #[serde(with = "maybe_path")]
    pub certificate: Option<PathBuf>,
    /// PEM file with its private key.
    #[serde(with = "maybe_path")]
    pub key: Option<PathBuf>,
    /// Whether the node makes a CA and a certificate of its own.
    pub self_made: bool,
    /// More names and addresses for that certificate.
    pub names: Vec<String>,
}

/// `[auth]`: who clients are and what they may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AuthConfig {
    /// File of users and bcrypt hashes; absent: nobody can log in.
    #[serde(with = "maybe_path")]
    pub htpasswd: Option<PathBuf>,
    /// How clients are asked to log in.
    pub challenge: Challenge,
    /// How clients reach the node, such as `https://registry.example`; empty: as their requests say.
    pub public_url: String,
    /// How long a token of this node is good for.
    pub token_seconds: u64,
    /// Names for several users.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub groups: BTreeMap<String, Vec<String>>,
    /// Who may do what where. Without any, users who log in may do everything.
    #[serde(rename = "rule", skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<RuleConfig>,
}

/// `[[auth.rule]]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// Users; `*` is everyone who has logged in, `anonymous` is everyone.
    #[serde(default)]
    pub users: Vec<String>,
    /// Groups of users.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Where.
    pub repositories: Vec<Glob>,
    /// What.
    pub actions: Vec<Action>,
}

/// How clients are asked to log in. Whichever is asked for, both are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Challenge {
    /// They fetch a token from this node and send that.
    #[default]
    Bearer,
    /// They send name and password with each request.
    Basic,
}

/// `[limits]`: what clients may use of the registry's listener at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Connections of all clients.
    pub connections: u32,
    /// Connections of one address (IPv6: of one /64). Loopback is exempt.
    pub connections_per_address: u32,
    /// Requests of all clients.
    pub requests: u32,
    /// Requests of one address (IPv6: of one /64). Loopback is exempt.
    pub requests_per_address: u32,
}

impl TlsConfig {
    /// Whether the listener speaks TLS.
    pub fn is_on(&self) -> bool {
        self.self_made || self.certificate.is_some()
    }

    /// Adds a sentence for each thing that cannot be.
    pub fn complain(&self, wrong: &mut Vec<String>) {
        if self.certificate.is_some() != self.key.is_some() {
            wrong.push("tls.certificate and tls.key belong together; give both or neither".to_owned());
        }
        if self.self_made && self.certificate.is_some() {
            wrong.push(
                "tls.self_made and tls.certificate exclude each other; decide for one of them".to_owned(),
            );
        }
        if self.names.len() > NAMES_MAX {
            wrong.push(format!(
                "tls.names: {} names are too many; give at most {NAMES_MAX}",
                self.names.len()
            ));
        }
        for name in &self.names {
            let sane = |b: u8| b.is_ascii_alphanumeric() || b"-.:*".contains(&b);
            if name.is_empty() || name.len() > 253 || !name.bytes().all(sane) {
                wrong.push(format!(
                    "tls.names: {name:?} is neither a host name nor an address; write it without port"
                ));
            }
        }
    }
}

impl AuthConfig {
    /// Adds a sentence for each thing that cannot be.
    pub fn complain(&self, wrong: &mut Vec<String>) {
        if !(TOKEN_SECONDS_MIN..=TOKEN_SECONDS_MAX).contains(&self.token_seconds) {
            wrong.push(format!(
                "auth.token_seconds: {} is outside {TOKEN_SECONDS_MIN} to {TOKEN_SECONDS_MAX}",
                self.token_seconds
            ));
        }
        if !self.public_url.is_empty() && !is_base_url(&self.public_url) {
            wrong.push(format!(
                "auth.public_url: {:?} is not how clients reach a node; write it as https://registry.example, \
                 without a slash at its end",
                self.public_url
            ));
        }
        for (name, users) in &self.groups {
            if let Some(user) = users.iter().find(|user| matches!(user.as_str(), ANY_USER | ANONYMOUS)) {
                wrong.push(format!(
                    "auth.groups.{name}: {user:?} is nobody's name; put it into a rule's users"
                ));
            }
        }
        for (n, rule) in self.rules.iter().enumerate() {
            let place = format!("auth.rule number {}", n + 1);
            for group in rule.groups.iter().filter(|group| !self.groups.contains_key(*group)) {
                wrong.push(format!("{place}: there is no group {group:?}; add it to [auth.groups]"));
            }
            if rule.users.is_empty() && rule.groups.is_empty() {
                wrong.push(format!("{place} is about nobody; name users or groups"));
            }
            let named = !rule.groups.is_empty() || rule.users.iter().any(|user| user != ANONYMOUS);
            if named && self.htpasswd.is_none() {
                wrong.push(format!("{place} names users, but nobody can log in; give auth.htpasswd"));
            }
        }
    }
}

impl LimitsConfig {
    /// Adds a sentence for each thing that cannot be.
    pub fn complain(&self, wrong: &mut Vec<String>) {
        for (name, value) in [
            ("connections", self.connections),
            ("connections_per_address", self.connections_per_address),
            ("requests", self.requests),
            ("requests_per_address", self.requests_per_address),
        ] {
            if value == 0 {
                wrong.push(format!("limits.{name}: with 0 nobody could use the node; give a larger number"));
            }
        }
    }
}

impl Default for AuthConfig {
    fn default() -> Self {
        AuthConfig {
            htpasswd: None,
            challenge: Challenge::default(),
            public_url: String::new(),
            token_seconds: 300,
            groups: BTreeMap::new(),
            rules: Vec::new(),
        }
    }
}

impl Default for LimitsConfig {
    fn default() -> Self {
        LimitsConfig {
            connections: 4096,
            connections_per_address: 512,
            requests: 1024,
            requests_per_address: 256,
        }
    }
}

/// Whether it is scheme and host, perhaps with a path, that can stand in a challenge.
fn is_base_url(text: &str) -> bool {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let sane = |b: u8| b.is_ascii_alphanumeric() || b"-._~:[]/%".contains(&b);
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && rest.len() <= 255
            && !rest.starts_with('/')
            && !rest.ends_with('/')
            && rest.bytes().all(sane)
    })
}

/// Below a minute clients do nothing but fetch tokens.
const TOKEN_SECONDS_MIN: u64 = 60;
/// Above an hour it would take too long until a change of the rules counts everywhere.
const TOKEN_SECONDS_MAX: u64 = 3600;
/// Most names of a certificate that the operator adds.
const NAMES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_name_what_is_wrong() {
        let auth: AuthConfig = toml::from_str(
            "token_seconds = 5\npublic_url = \"registry.example\"\ngroups = { ops = [\"*\"] }\n\
             [[rule]]\nusers = [\"ann\"]\ngroups = [\"dev\"]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n\
             [[rule]]\nrepositories = [\"**\"]\nactions = [\"pull\"]\n",
        )
        .expect("well formed");
        let mut wrong = Vec::new();
        auth.complain(&mut wrong);
        assert_eq!(wrong.len(), 6, "{wrong:#?}");
        let tls = TlsConfig {
            certificate: Some("c".into()),
            self_made: true,
            names: vec!["https://a".into()],
            ..TlsConfig::default()
        };
        wrong.clear();
        tls.complain(&mut wrong);
        assert_eq!(wrong.len(), 3, "{wrong:#?}");
        wrong.clear();
        LimitsConfig { requests: 0, ..LimitsConfig::default() }.complain(&mut wrong);
        assert_eq!(wrong.len(), 1, "{wrong:#?}");
        assert!(toml::from_str::<RuleConfig>("repositories = [\"A b\"]\nactions = []").is_err());
        assert!(toml::from_str::<RuleConfig>("repositories = []\nactions = [\"fly\"]").is_err());
    }

    #[test]
    fn urls_of_nodes() {
        for good in ["https://a", "http://127.0.0.1:5000", "https://[::1]:5000", "https://a.b/c"] {
            assert!(is_base_url(good), "{good}");
        }
        for bad in ["", "a", "ftp://a", "https://", "https://a/", "https://a\"b", "https://a b", "https:///x"]
        {
            assert!(!is_base_url(bad), "{bad}");
        }
    }
}
