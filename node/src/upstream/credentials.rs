//! Who the node is at an upstream. Owns where the credentials are read from, and that a changed file is read again;
//! they are never logged, and where they are sent is [`super::token`]'s.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use data_encoding::{BASE64, BASE64_NOPAD};
use reqwest::Url;
use serde::Deserialize;
use tokio::time::Instant;

use super::{config::UpstreamConfig, namespace};
use crate::secret::Secret;

/// How somebody shows who they are.
#[derive(Clone, Debug)]
pub enum Login {
    /// Name and password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A token that only buys other tokens (Docker: `identitytoken`; OAuth 2.0: refresh token).
    Identity(Secret),
}

/// The node's credentials at one endpoint of an upstream.
#[derive(Debug)]
pub struct Credentials {
    source: Source,
    state: Mutex<State>,
}

/// What was read, and which reading that was: tokens of an earlier one are not used any more.
#[derive(Clone, Debug)]
pub struct Current {
    /// Absent: nobody in particular.
    pub login: Option<Arc<Login>>,
    /// Counts up.
    pub generation: u64,
}

#[derive(Debug)]
enum Source {
    Nobody,
    Password { username: String, file: PathBuf },
    Docker { file: PathBuf, host: String },
}

#[derive(Debug)]
struct State {
    current: Current,
    looked: Instant,
    stamp: Option<Stamp>,
}

type Stamp = (Option<SystemTime>, u64);

impl Credentials {
    /// Reads those for an endpoint for the first time. A Docker configuration is asked for the endpoint's own host,
    /// so that a mirror is not told what is the registry's. The error is a sentence.
    pub fn new(config: &UpstreamConfig, endpoint: &Url) -> Result<Self, String> {
        let source = match (&config.username, &config.password_file, &config.docker_config) {
            (Some(username), Some(file), _) => {
                Source::Password { username: username.clone(), file: file.clone() }
            }
            (_, _, Some(file)) => Source::Docker { file: file.clone(), host: namespace::host_of(endpoint) },
            _ => Source::Nobody,
        };
        let stamp = source.stamp();
        let current = Current { login: source.read()?.map(Arc::new), generation: 1 };
        Ok(Credentials { source, state: Mutex::new(State { current, looked: Instant::now(), stamp }) })
    }

    /// None at all.
    #[cfg(test)]
    pub fn nobody() -> Self {
        let current = Current { login: None, generation: 1 };
        let state = State { current, looked: Instant::now(), stamp: None };
        Credentials { source: Source::Nobody, state: Mutex::new(state) }
    }

    /// What they are now. Looks for changes of the file now and then; one that cannot be used is reported and the
    /// last that could stays in use.
    pub fn current(&self) -> Current {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(self.source, Source::Nobody) || state.looked.elapsed() < LOOK_EVERY {
            return state.current.clone();
        }
        state.looked = Instant::now();
        let stamp = self.source.stamp();
        if stamp != state.stamp {
            match self.source.read() {
                Ok(login) => {
                    state.stamp = stamp;
                    let generation = state.current.generation + 1;
                    state.current = Current { login: login.map(Arc::new), generation };
                }
                Err(why) => {
                    tracing::warn!(why, "changed upstream credentials are not used; the last ones stay")
                }
            }
        }
        state.current.clone()
    }
}

impl Source {
    fn read(&self) -> Result<Option<Login>, String> {
        match self {
            Source::Nobody => Ok(None),
            Source::Password { username, file } => {
                let text = read(file, "password-file")?;
                let password = text.strip_suffix('\n').unwrap_or(&text);
                let password = Secret::new(password.strip_suffix('\r').unwrap_or(password));
                if password.is_empty() {
                    return Err(format!(
                        "password-file {} is empty; write the password into it",
                        file.display()
                    ));
                }
                Ok(Some(Login::Password { username: username.clone(), password }))
            }
            Source::Docker { file, host } => {
                let text = read(file, "docker-config")?;
                from_docker(&text, host).map_err(|why| format!("docker-config {}: {why}", file.display()))
            }
        }
    }

    fn stamp(&self) -> Option<Stamp> {
        let file = match self {
            Source::Nobody => return None,
            Source::Password { file, .. } | Source::Docker { file, .. } => file,
        };
        std::fs::metadata(file).ok().map(|found| (found.modified().ok(), found.len()))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, DockerAuth>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, serde::de::IgnoredAny>,
    #[serde(default)]
    creds_store: Option<String>,
}

#[derive(Deserialize)]
struct DockerAuth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
}

/// The login that a Docker `config.json` has for a host. Errors never quote the file.
fn from_docker(text: &str, host: &str) -> Result<Option<Login>, String> {
    let config: DockerConfig = serde_json::from_str(text).map_err(|why| {
        format!("not a Docker configuration (line {}, column {})", why.line(), why.column())
    })?;
    for (key, auth) in config.auths.iter().filter(|(key, _)| namespace::is_docker_key(key, host)) {
        if let Some(login) = auth.login().map_err(|why| format!("the entry {key:?}: {why}"))? {
            return Ok(Some(login));
        }
    }
    if config.creds_store.is_some()
        || config.cred_helpers.keys().any(|key| namespace::is_docker_key(key, host))
    {
        return Err(format!(
            "it leaves the credentials for {host} to a helper program, and Waystation runs none; give username and \
             password-file, or log in with a configuration that has no credsStore and no credHelpers"
        ));
    }
    Ok(None)
}

impl DockerAuth {
    /// `None` for an entry without contents, as those of helpers are.
    fn login(&self) -> Result<Option<Login>, String> {
        if !self.identitytoken.is_empty() {
            return Ok(Some(Login::Identity(Secret::new(&self.identitytoken))));
        }
        let (username, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let wrong = || "auth is not the base64 of name:password".to_owned();
            let bytes = BASE64_NOPAD
                .decode(self.auth.trim_end_matches('=').as_bytes())
                .or_else(|_| BASE64.decode(self.auth.as_bytes()))
                .map_err(|_| wrong())?;
            let text = String::from_utf8(bytes).map_err(|_| wrong())?;
            let (username, password) = text.split_once(':').ok_or_else(wrong)?;
            (username.to_owned(), password.trim_matches('\0').to_owned())
        };
        if username.is_empty() && password.is_empty() {
            return Ok(None);
        }
        Ok(Some(Login::Password { username, password: Secret::new(password) }))
    }
}

fn read(path: &Path, key: &str) -> Result<String, String> {
    use std::io::Read;
    let wrong = |why: String| format!("{key} {} cannot be read: {why}", path.display());
    let file = std::fs::File::open(path).map_err(|why| wrong(why.to_string()))?;
    let mut text = String::new();
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|why| wrong(why.to_string()))?;
    if text.len() as u64 > MAX_FILE {
        return Err(wrong(format!("it is larger than {MAX_FILE} bytes")));
    }
    Ok(text)
}

/// How often a file is looked at for changes.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Cluster-wide Docker configurations have hundreds of entries, but no more.
const MAX_FILE: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, host: &str) -> String {
        match from_docker(text, host) {
            Ok(None) => "nobody".into(),
            Ok(Some(Login::Password { username, password })) => format!("{username}:{}", password.expose()),
            Ok(Some(Login::Identity(token))) => format!("identity {}", token.expose()),
            Err(why) => format!("error: {why}"),
        }
    }

    #[test]
    fn docker_configurations() {
        let hub = "registry-1.docker.io";
        // "me:pa:ss" and "me:pw\0".
        let table: &[(&str, &str, &str)] = &[
            (r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6cGE6c3M="}}}"#, hub, "me:pa:ss"),
            (r#"{"auths":{"docker.io":{"auth":"bWU6cGE6c3M="}}}"#, hub, "me:pa:ss"),
            (r#"{"auths":{"reg.example:5000":{"auth":"bWU6cHcA"}}}"#, "reg.example:5000", "me:pw"),
            (r#"{"auths":{"reg.example":{"auth":"bWU6cGE6c3M"}}}"#, "reg.example", "me:pa:ss"),
            (r#"{"auths":{"http://reg.example/v2/":{"username":"a","password":"b"}}}"#, "reg.example", "a:b"),
            (
                r#"{"auths":{"az.example":{"auth":"MDo=","identitytoken":"tok"}}}"#,
                "az.example",
                "identity tok",
            ),
            (r#"{"auths":{"mirror.example":{"auth":"bWU6cGE6c3M="}}}"#, "mirror.example", "me:pa:ss"),
            (r#"{"auths":{"other.example":{"auth":"bWU6cGE6c3M="}}}"#, "reg.example", "nobody"),
            (r#"{"auths":{"quay.io/team":{"auth":"bWU6cGE6c3M="}}}"#, "quay.io", "nobody"),
            (r#"{"auths":{"quay.io":{}},"credsStore":"desktop"}"#, "quay.io", "error: it leaves"),
            (r#"{"credHelpers":{"quay.io":"gcloud"}}"#, "quay.io", "error: it leaves"),
            (r#"{"credHelpers":{"gcr.io":"gcloud"}}"#, "quay.io", "nobody"),
            (
                r#"{"auths":{"quay.io":{"auth":"%%%"}}}"#,
                "quay.io",
                "error: the entry \"quay.io\": auth is not",
            ),
            (r#"{"auths":{"quay.io":{"auth":"bm9jb2xvbg=="}}}"#, "quay.io", "error: the entry"),
            ("{}", "quay.io", "nobody"),
            ("password", "quay.io", "error: not a Docker configuration"),
        ];
        for (text, host, expected) in table {
            let found = found(text, host);
            assert!(found.starts_with(expected), "{text}: {found}");
            assert!(!found.starts_with("error") || !found.contains("bWU6"), "quotes the file: {found}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_read_again_and_a_broken_one_is_not_used() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("password");
        let mut config = UpstreamConfig::named("reg.example");
        config.username = Some("me".into());
        config.password_file = Some(file.clone());
        let endpoint = config.endpoints().remove(0);
        let why = Credentials::new(&config, &endpoint).expect_err("no file");
        assert!(why.contains("password-file") && why.contains("cannot be read"), "{why}");
        std::fs::write(&file, "one\n").expect("written");
        let credentials = Credentials::new(&config, &endpoint).expect("read");
        let show = |current: Current| match current.login.as_deref() {
            Some(Login::Password { username, password }) => {
                (format!("{username}:{}", password.expose()), current.generation)
            }
            _ => panic!("a password"),
        };
        assert_eq!(show(credentials.current()), ("me:one".into(), 1));
        std::fs::write(&file, "second").expect("written");
        assert_eq!(show(credentials.current()).1, 1, "not looked at yet");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(show(credentials.current()), ("me:second".into(), 2));
        std::fs::write(&file, "").expect("written");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(show(credentials.current()), ("me:second".into(), 2));
        assert!(!format!("{credentials:?}").contains("second"));
    }
}
