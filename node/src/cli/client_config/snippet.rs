//! What each container engine wants to be told, and in which file. The forms are those of the engines' own
//! manuals: containerd `docs/hosts.md`, Docker `daemon.json`, `containers-registries.conf(5)`, k3s
//! `registries.yaml`.

use std::path::Path;

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::{
    Failure,
    endpoint::{Endpoint, Upstream},
};

/// A container engine, or what configures one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Engine {
    /// containerd 1.5 and newer, also below Kubernetes.
    Containerd,
    /// The Docker daemon.
    Docker,
    /// podman, buildah, skopeo and CRI-O.
    Podman,
    /// k3s.
    K3s,
}

/// What is asked for, and can be had.
#[derive(Debug)]
pub struct Wish {
    engine: Engine,
    endpoint: Endpoint,
    upstreams: Vec<Upstream>,
    ca: Option<Vec<u8>>,
}

/// A file to be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// From the root of the file system.
    pub path: String,
    /// What is to be in it.
    pub content: Content,
}

/// What is to be in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This and nothing else.
    Whole(String),
    /// This certificate and nothing else.
    Certificate(Vec<u8>),
    /// Docker's `daemon.json` with these entries, and what else it has.
    DaemonJson {
        /// First of `registry-mirrors`.
        mirror: String,
        /// In `insecure-registries`.
        insecure: Option<String>,
    },
}

impl Engine {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Containerd => "containerd",
            Engine::Docker => "docker",
            Engine::Podman => "podman",
            Engine::K3s => "k3s",
        }
    }

    /// What makes it read its files again, as a sentence.
    pub fn restart(self) -> &'static str {
        match self {
            Engine::Containerd => {
                "containerd reads these files at each pull: restart nothing, unless config_path is new to it \
                 (then: systemctl restart containerd)"
            }
            Engine::Docker => "now let Docker read it: systemctl reload docker (or restart docker)",
            Engine::Podman => {
                "podman, buildah and skopeo read it when they start: restart nothing; CRI-O: systemctl reload crio"
            }
            Engine::K3s => "now let k3s read it: systemctl restart k3s (on agents: k3s-agent)",
        }
    }
}

impl Wish {
    /// Refuses what the engine cannot do.
    pub fn new(
        engine: Engine,
        endpoint: Endpoint,
        mut upstreams: Vec<Upstream>,
        ca: Option<Vec<u8>>,
    ) -> Result<Self, Failure> {
        upstreams.sort();
        upstreams.dedup();
        if ca.is_some() && !endpoint.secure {
            return Err(Failure::Usage(format!("--ca is for https endpoints, and this is {endpoint}")));
        }
        let foreign = upstreams.iter().find(|upstream| !upstream.is_docker_hub());
        if let (Engine::Docker, Some(foreign)) = (engine, foreign) {
            return Err(Failure::Usage(format!(
                "Docker has mirrors for docker.io only; pull images of {0} through the node by naming it: \
                 docker pull {1}/{2}/…",
                foreign.name(),
                endpoint.authority,
                foreign.path()
            )));
        }
        Ok(Wish { engine, endpoint, upstreams, ca })
    }

    /// The files that the engine wants.
    pub fn files(&self) -> Vec<File> {
        match self.engine {
            Engine::Containerd => self.containerd(),
            Engine::Docker => self.docker(),
            Engine::Podman => self.podman(),
            Engine::K3s => self.k3s(),
        }
    }

    /// Where the snippet belongs, and what to restart: a line each.
    pub fn advice(&self, root: &Path) -> String {
        let engine = self.engine;
        let mut lines = match engine {
            Engine::Containerd => containerd_advice(root),
            Engine::Docker => {
                "Docker does not say whose image it asks a mirror for: the node fetches what it lacks \
                               only with mirror-for-unqualified = true in its [[upstream]] docker.io\n"
                    .into()
            }
            Engine::Podman | Engine::K3s => String::new(),
        };
        if self.endpoint.secure && self.ca.is_none() {
            lines += &format!(
                "{} has to be vouched for by an authority that this machine trusts; for a certificate of the \
                 node's own making: waystation tls ca > ca.pem, and --ca ca.pem here\n",
                self.endpoint
            );
        }
        lines += engine.restart();
        lines.push('\n');
        lines
    }

    fn containerd(&self) -> Vec<File> {
        let mut files = vec![];
        for upstream in &self.upstreams {
            let folder = format!("{CONTAINERD_CERTS}/{}", upstream.name());
            let mut text = format!(
                "{HEAD}containerd\n\
                 # Its own configuration has to name this folder: config_path = \"{CONTAINERD_CERTS}\".\n\
                 server = \"{}\"\n\n[host.\"{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n  \
                 dial_timeout = \"{DIAL_TIMEOUT}\"\n",
                upstream.server(),
                self.endpoint
            );
            if let Some(ca) = &self.ca {
                text += &format!("  ca = \"{CA_FILE}\"\n");
                files.push(File {
                    path: format!("{folder}/{CA_FILE}"),
                    content: Content::Certificate(ca.clone()),
                });
            }
            files.push(File { path: format!("{folder}/hosts.toml"), content: Content::Whole(text) });
        }
        files
    }

    fn docker(&self) -> Vec<File> {
        // Loopback is that to Docker anyway.
        let insecure =
            (!self.endpoint.secure && !self.endpoint.is_loopback()).then(|| self.endpoint.authority.clone());
        let content = Content::DaemonJson { mirror: self.endpoint.to_string(), insecure };
        let mut files = vec![File { path: "/etc/docker/daemon.json".into(), content }];
        files.extend(self.certificate_in("/etc/docker/certs.d"));
        files
    }

    fn podman(&self) -> Vec<File> {
        let mut text = format!("{HEAD}podman\n");
        for upstream in &self.upstreams {
            let (name, path, node) = (upstream.name(), upstream.path(), &self.endpoint.authority);
            text += &format!(
                "\n[[registry]]\nprefix = \"{name}\"\nlocation = \"{name}\"\n\n\
                 [[registry.mirror]]\nlocation = \"{node}/{path}\"\n"
            );
            if !self.endpoint.secure {
                text += "insecure = true\n";
            }
        }
        let path = "/etc/containers/registries.conf.d/50-waystation.conf".into();
        let mut files = vec![File { path, content: Content::Whole(text) }];
        files.extend(self.certificate_in("/etc/containers/certs.d"));
        files
    }

    fn k3s(&self) -> Vec<File> {
        let mut text = format!("{HEAD}k3s\nmirrors:\n");
        for upstream in &self.upstreams {
            text += &format!("  \"{}\":\n    endpoint:\n      - \"{}\"\n", upstream.name(), self.endpoint);
        }
        let mut files = vec![];
        if let Some(ca) = &self.ca {
            let path = format!("{K3S}/{CA_FILE}");
            let node = &self.endpoint.authority;
            text += &format!("configs:\n  \"{node}\":\n    tls:\n      ca_file: \"{path}\"\n");
            files.push(File { path, content: Content::Certificate(ca.clone()) });
        }
        files.push(File { path: format!("{K3S}/registries.yaml"), content: Content::Whole(text) });
        files
    }

    /// The form in which Docker and podman look for a registry's authority.
    fn certificate_in(&self, folder: &str) -> Option<File> {
        let content = Content::Certificate(self.ca.clone()?);
        Some(File { path: format!("{folder}/{}/ca.crt", self.endpoint.authority), content })
    }
}

impl Content {
    /// As where nothing is there yet.
    pub fn alone(&self) -> Vec<u8> {
        match self {
            Content::Whole(text) => text.clone().into_bytes(),
            Content::Certificate(bytes) => bytes.clone(),
            Content::DaemonJson { mirror, insecure } => {
                to_json(&merged(&Map::new(), mirror, insecure.as_deref()))
            }
        }
    }

    /// Together with what is there; `None` where that is not understood and so may not be touched.
    pub fn over(&self, before: &[u8]) -> Option<Vec<u8>> {
        let Content::DaemonJson { mirror, insecure } = self else {
            let alone = self.alone();
            let ours =
                alone == before || (matches!(self, Content::Whole(_)) && before.starts_with(HEAD.as_bytes()));
            return ours.then_some(alone);
        };
        // Docker takes an empty file for one without entries.
        let text = std::str::from_utf8(before).ok()?.trim();
        let there: Map<String, Value> =
            if text.is_empty() { Map::new() } else { serde_json::from_str(text).ok()? };
        let lists = ["registry-mirrors", "insecure-registries"];
        if lists.iter().any(|name| there.get(*name).is_some_and(|list| !list.is_array())) {
            return None;
        }
        let wanted = merged(&there, mirror, insecure.as_deref());
        // Not even its blanks are changed for nothing.
        Some(if wanted == there { before.to_vec() } else { to_json(&wanted) })
    }
}

fn merged(there: &Map<String, Value>, mirror: &str, insecure: Option<&str>) -> Map<String, Value> {
    let mut all = there.clone();
    let mut first = |list: &str, entry: &str| {
        let entries = all.entry(list).or_insert_with(|| Value::Array(vec![]));
        let entries = entries.as_array_mut().expect("lists were checked");
        let same = |other: &Value| other.as_str().is_some_and(|other| other.trim_end_matches('/') == entry);
        if !entries.first().is_some_and(same) {
            entries.retain(|other| !same(other));
            entries.insert(0, entry.into());
        }
    };
    first("registry-mirrors", mirror);
    if let Some(insecure) = insecure {
        first("insecure-registries", insecure);
    }
    all
}

fn to_json(map: &Map<String, Value>) -> Vec<u8> {
    let mut bytes = serde_json::to_vec_pretty(map).expect("JSON of JSON");
    bytes.push(b'\n');
    bytes
}

/// hosts.toml is read only where containerd's own configuration says so.
fn containerd_advice(root: &Path) -> String {
    let file = root.join(CONTAINERD_CONFIG.trim_start_matches('/'));
    let config = std::fs::read_to_string(&file).unwrap_or_default();
    if config.lines().any(|line| line.trim_start().starts_with("config_path") && line.contains("certs.d")) {
        return String::new();
    }
    format!(
        "{CONTAINERD_CONFIG} does not say config_path = \"{CONTAINERD_CERTS}\" yet; Kubernetes needs it, in\n  \
         containerd 1: [plugins.\"io.containerd.grpc.v1.cri\".registry]\n  \
         containerd 2: [plugins.\"io.containerd.cri.v1.images\".registry]\n\
         by hand: ctr images pull --hosts-dir {CONTAINERD_CERTS} …; nerdctl looks there by itself\n"
    )
}

/// How the files that are all ours begin.
const HEAD: &str = "# Written by: waystation client-config ";

const CONTAINERD_CERTS: &str = "/etc/containerd/certs.d";
const CONTAINERD_CONFIG: &str = "/etc/containerd/config.toml";
const K3S: &str = "/etc/rancher/k3s";
const CA_FILE: &str = "waystation-ca.crt";

/// A node that is away must not hold up pulls; containerd would wait 30 s.
const DIAL_TIMEOUT: &str = "2s";

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(engine: Engine, endpoint: &str, upstreams: &[&str], ca: bool) -> Result<Wish, Failure> {
        let upstreams = upstreams.iter().map(|name| name.parse().unwrap()).collect();
        Wish::new(engine, endpoint.parse().unwrap(), upstreams, ca.then(|| b"PEM".to_vec()))
    }

    fn texts(engine: Engine, endpoint: &str, upstreams: &[&str], ca: bool) -> Vec<(String, String)> {
        let files = wish(engine, endpoint, upstreams, ca).unwrap().files();
        files.into_iter().map(|file| (file.path, String::from_utf8(file.content.alone()).unwrap())).collect()
    }

    fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
        all.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn containerd_has_a_folder_for_each_registry() {
        let hub = "# Written by: waystation client-config containerd
# Its own configuration has to name this folder: config_path = \"/etc/containerd/certs.d\".
server = \"https://registry-1.docker.io\"

[host.\"http://127.0.0.1:5000\"]
  capabilities = [\"pull\", \"resolve\"]
  dial_timeout = \"2s\"
";
        let plain =
            texts(Engine::Containerd, "127.0.0.1:5000", &["quay.io", "docker.io", "docker.io"], false);
        let quay = hub.replace("registry-1.docker.io", "quay.io");
        let (hub_file, quay_file) =
            ("/etc/containerd/certs.d/docker.io/hosts.toml", "/etc/containerd/certs.d/quay.io/hosts.toml");
        assert_eq!(plain, pairs(&[(hub_file, hub), (quay_file, &quay)]));

        let secure = texts(Engine::Containerd, "https://cache.lan:5000", &["docker.io"], true);
        let with_ca =
            hub.replace("http://127.0.0.1:5000", "https://cache.lan:5000") + "  ca = \"waystation-ca.crt\"\n";
        let ca_file = "/etc/containerd/certs.d/docker.io/waystation-ca.crt";
        assert_eq!(secure, pairs(&[(ca_file, "PEM"), (hub_file, &with_ca)]));
    }

    #[test]
    fn docker_has_mirrors() {
        let file = "/etc/docker/daemon.json";
        let plain = "{\n  \"registry-mirrors\": [\n    \"http://127.0.0.1:5000\"\n  ]\n}\n";
        assert_eq!(texts(Engine::Docker, "127.0.0.1:5000", &["docker.io"], false), pairs(&[(file, plain)]));
        let lan = &texts(Engine::Docker, "10.1.2.3:5000", &["docker.io"], false)[0].1;
        assert!(lan.contains("\"insecure-registries\": [\n    \"10.1.2.3:5000\"\n  ]"), "{lan}");
        let secure = texts(Engine::Docker, "https://cache.lan", &["docker.io"], true);
        assert!(secure[0].1.contains("https://cache.lan") && !secure[0].1.contains("insecure"));
        assert_eq!(secure[1], ("/etc/docker/certs.d/cache.lan/ca.crt".into(), "PEM".into()));
        let refused = wish(Engine::Docker, "127.0.0.1:5000", &["quay.io"], false).unwrap_err().to_string();
        assert!(refused.contains("docker pull 127.0.0.1:5000/quay.io/"), "{refused}");
    }

    #[test]
    fn podman_has_a_prefix_for_each_registry() {
        let file = "/etc/containers/registries.conf.d/50-waystation.conf";
        let plain = "# Written by: waystation client-config podman

[[registry]]
prefix = \"docker.io\"
location = \"docker.io\"

[[registry.mirror]]
location = \"127.0.0.1:5000/docker.io\"
insecure = true

[[registry]]
prefix = \"quay.io\"
location = \"quay.io\"

[[registry.mirror]]
location = \"127.0.0.1:5000/quay.io\"
insecure = true
";
        assert_eq!(
            texts(Engine::Podman, "127.0.0.1:5000", &["docker.io", "quay.io"], false),
            pairs(&[(file, plain)])
        );
        let secure = texts(Engine::Podman, "https://cache.lan", &["docker.io"], true);
        assert!(!secure[0].1.contains("insecure"), "{}", secure[0].1);
        assert_eq!(secure[1].0, "/etc/containers/certs.d/cache.lan/ca.crt");
    }

    #[test]
    fn k3s_has_mirrors_in_one_file() {
        let file = "/etc/rancher/k3s/registries.yaml";
        let plain = "# Written by: waystation client-config k3s
mirrors:
  \"docker.io\":
    endpoint:
      - \"http://127.0.0.1:5000\"
";
        assert_eq!(texts(Engine::K3s, "127.0.0.1:5000", &["docker.io"], false), pairs(&[(file, plain)]));
        let secure = texts(Engine::K3s, "https://cache.lan:5000", &["docker.io"], true);
        let configs = "configs:
  \"cache.lan:5000\":
    tls:
      ca_file: \"/etc/rancher/k3s/waystation-ca.crt\"
";
        assert!(secure[1].1.ends_with(configs), "{}", secure[1].1);
        assert_eq!(secure[0], ("/etc/rancher/k3s/waystation-ca.crt".into(), "PEM".into()));
    }

    #[test]
    fn a_certificate_is_for_https() {
        assert!(wish(Engine::Podman, "http://127.0.0.1:5000", &["docker.io"], true).is_err());
    }

    #[test]
    fn daemon_json_keeps_what_it_has() {
        let content = Content::DaemonJson { mirror: "http://n:1".into(), insecure: Some("n:1".into()) };
        let over = |before: &str| -> Option<Value> {
            content.over(before.as_bytes()).map(|after| serde_json::from_slice(&after).unwrap())
        };
        let before =
            r#"{"registry-mirrors": ["http://old", "http://n:1/"], "debug": true, "log-opts": {"a": "1"}}"#;
        let after = serde_json::json!({
            "registry-mirrors": ["http://n:1", "http://old"], "debug": true, "log-opts": {"a": "1"},
            "insecure-registries": ["n:1"],
        });
        assert_eq!(over(before).unwrap(), after);
        assert_eq!(over("").unwrap()["registry-mirrors"][0], "http://n:1");
        for not_understood in ["[]", "{", "{\"registry-mirrors\": \"http://x\"}", "nonsense"] {
            assert_eq!(over(not_understood), None, "{not_understood}");
        }
        let there = "{ \"insecure-registries\": [\"n:1\"],\t\"registry-mirrors\": [\"http://n:1\"] }";
        assert_eq!(content.over(there.as_bytes()).unwrap(), there.as_bytes());
    }

    #[test]
    fn whole_files_replace_only_their_own_kind() {
        let content = Content::Whole(format!("{HEAD}podman\nnew\n"));
        assert_eq!(content.over(b"[[registry]]"), None);
        assert_eq!(content.over(format!("{HEAD}podman\nold\n").as_bytes()).unwrap(), content.alone());
        assert_eq!(Content::Certificate(b"a".to_vec()).over(b"b"), None);
    }
}
