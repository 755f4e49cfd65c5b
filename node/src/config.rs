//! What an operator can set: one typed [`Config`], read from a file and overlaid by flags and environment.
//! Owns names, defaults, the texts of every complaint, and which address is meant where none was asked for.
//! What the values do is the business of the parts that they are handed to.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use waystation_proto::{
    body::{NodeBody, Tier},
    config::Sharing,
};

use crate::{
    access::config::{AuthConfig, LimitsConfig, TlsConfig},
    budget::BudgetConfig,
    control::Reachable,
    gc::config::StorageConfig,
    registry::Anonymous,
    upstream::config::{self as upstream, UpstreamConfig},
};

/// Everything that can be configured. `configs/node.toml` lists each key with its default and reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What this node is and where it keeps its things.
    pub node: NodeConfig,
    /// The OCI endpoint.
    pub registry: RegistryConfig,
    /// TLS of the OCI endpoint.
    pub tls: TlsConfig,
    /// Who clients of the OCI endpoint are and what they may do.
    pub auth: AuthConfig,
    /// What they may use at a time.
    pub limits: LimitsConfig,
    /// The endpoint for health checks and metrics.
    pub admin: AdminConfig,
    /// The other nodes.
    pub mesh: MeshConfig,
    /// How content comes here from them.
    pub replication: ReplicationConfig,
    /// What is logged.
    pub log: LogConfig,
    /// What may go over links to other sites.
    pub budget: BudgetConfig,
    /// How much of the disk may be taken.
    pub storage: StorageConfig,
    /// Foreign registries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub upstream: Vec<UpstreamConfig>,
}

/// `[node]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Where blobs, records and keys are kept.
    #[serde(with = "data_dir")]
    pub data_dir: PathBuf,
    /// The LAN that the node is on: nodes with one site name share what crosses the WAN.
    pub site: String,
    /// Its place in the continuum.
    pub tier: Tier,
    /// Written once the node serves, removed when it stops.
    #[serde(with = "maybe_path")]
    pub ready_file: Option<PathBuf>,
    /// Where in the world the node is, for policies to choose by; may be empty.
    pub region: String,
    /// What policies may choose the node by, beside its site, region and tier.
    pub labels: BTreeMap<String, String>,
    /// Whether the link to other sites is paid for by what it carries.
    pub metered: bool,
}

/// `[registry]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Where clients find the OCI endpoint (TCP).
    #[serde(with = "address")]
    pub listen: SocketAddr,
    /// What clients may do that do not say who they are; absent where not asked for.
    #[serde(with = "maybe_anonymous")]
    pub anonymous: Option<Anonymous>,
    /// Whether manifests are taken whose configs or layers were not pushed.
    pub sparse: bool,
    /// Names under which clients know what the mesh publishes: containerd says them in `?ns=`.
    pub names: Vec<String>,
}

/// `[admin]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where health checks and metrics are found (TCP); absent where not asked for.
    #[serde(with = "maybe_address")]
    pub listen: Option<SocketAddr>,
}

/// `[mesh]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeshConfig {
    /// Where other nodes find this one (TCP for control, UDP for data); absent where not asked for.
    #[serde(with = "maybe_address")]
    pub listen: Option<SocketAddr>,
    /// `host:port` that other nodes are told to use; empty: the addresses of this machine.
    #[serde(deserialize_with = "endpoints")]
    pub advertise: Vec<String>,
    /// `host:port` of nodes to find the mesh at, beside those in the mesh file.
    #[serde(deserialize_with = "endpoints")]
    pub join: Vec<String>,
    /// The mesh file; absent: the mesh that the data directory belongs to, or a new one.
    #[serde(with = "maybe_path")]
    pub file: Option<PathBuf>,
    /// Whether members that nobody can dial may be reached through this node.
    pub relay: bool,
    /// Whether members of other sites can dial this node.
    pub reachable: Reachable,
}

/// `[replication]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicationConfig {
    /// How nodes that want the same share it.
    pub sharing: SharingConfig,
}

/// How nodes that want the same share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum SharingConfig {
    /// They trade pieces while they fetch, so that each byte enters a site once.
    #[default]
    Swarm,
    /// One node of each site fetches; the others wait until it has all of a blob. For comparison.
    SiteCache,
    /// Each node fetches from another site for itself. For comparison.
    Origin,
}

/// `[log]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// For people or for machines.
    pub format: LogFormat,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

impl From<SharingConfig> for Sharing {
    fn from(sharing: SharingConfig) -> Self {
        match sharing {
            SharingConfig::Swarm => Sharing::Swarm,
            SharingConfig::SiteCache => Sharing::SiteCache,
            SharingConfig::Origin => Sharing::Origin,
        }
    }
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there or may not be read.
    #[error("the configuration file {path} cannot be read: {why}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// Everything that is wrong, a sentence each.
    #[error("{}", .0.join("\n"))]
    Invalid(Vec<String>),
}

impl MeshConfig {
    /// What was asked for; an operator who says where this node is found says that it is.
    pub fn reachable(&self) -> Reachable {
        match self.reachable {
            Reachable::Auto if !self.advertise.is_empty() => Reachable::Yes,
            asked => asked,
        }
    }
}

impl Config {
    /// Reads a file. Reports all that is wrong with it at once.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|why| ConfigError::Unreadable { path: path.to_owned(), why })?;
        Self::parse(&text, &path.display().to_string()).map_err(ConfigError::Invalid)
    }

    /// Reads the text of a file; `name` is how complaints call it.
    pub fn parse(text: &str, name: &str) -> Result<Self, Vec<String>> {
        let document: toml::Table = toml::from_str(text)
            .map_err(|e| vec![format!("{name} is not TOML: {}", e.to_string().trim_end())])?;
        let complaints = complaints(&document, name);
        if complaints.is_empty() {
            document.try_into().map_err(|e: toml::de::Error| vec![format!("{name}: {}", one_line(&e))])
        } else {
            Err(complaints)
        }
    }

    /// Checks what only the whole can show, after flags were laid over the file. All complaints at once.
    pub fn check(&self) -> Result<(), ConfigError> {
        let mut wrong = Vec::new();
        let site = &self.node.site;
        if site.is_empty() || site.len() > 63 || !site.bytes().all(|b| b.is_ascii_graphic()) {
            wrong.push(format!(
                "node.site: {site:?} cannot be a site's name; use 1 to 63 letters, digits and signs"
            ));
        }
        self.node.complain(&mut wrong);
        if self.mesh.advertise.len() > MAX_ADVERTISED {
            wrong.push(format!(
                "mesh.advertise: {} addresses are too many; give at most {MAX_ADVERTISED}",
                self.mesh.advertise.len()
            ));
        }
        if self.mesh.join.len() > MAX_JOINED {
            wrong.push(format!(
                "mesh.join: {} addresses are too many; give at most {MAX_JOINED}",
                self.mesh.join.len()
            ));
        }
        self.tls.complain(&mut wrong);
        self.auth.complain(&mut wrong);
        self.limits.complain(&mut wrong);
        self.budget.complain(&mut wrong);
        self.storage.complain(&mut wrong);
        let fixed = [
            ("registry.listen", Some(self.registry.listen)),
            ("admin.listen", self.admin.listen),
            ("mesh.listen", self.mesh.listen),
        ];
        for (n, (name, address)) in fixed.iter().enumerate() {
            for (other, earlier) in &fixed[..n] {
                if address.is_some_and(|a| a.port() != 0) && address == earlier {
                    wrong.push(format!("{name} and {other} cannot be the same address; change one of them"));
                }
            }
        }
        wrong.extend(upstream::check(&self.upstream));
        if wrong.is_empty() { Ok(()) } else { Err(ConfigError::Invalid(wrong)) }
    }

    /// What clients may do that do not say who they are: what was asked for, else push where only this
    /// machine can connect and it was not said who may what, and nothing elsewhere.
    pub fn anonymous(&self) -> Anonymous {
        let ruled = self.auth.htpasswd.is_some() || !self.auth.rules.is_empty();
        let open = self.registry.listen.ip().is_loopback() && !ruled;
        let default = if open { Anonymous::Push } else { Anonymous::None };
        self.registry.anonymous.unwrap_or(default)
    }

    /// What clients may call this node, for a self-made certificate, beside what the machine knows itself.
    pub fn names(&self) -> Vec<String> {
        let host = |endpoint: &str| {
            let (host, _) = endpoint.rsplit_once(':').unwrap_or((endpoint, ""));
            host.trim_matches(['[', ']']).to_owned()
        };
        let mut names = self.tls.names.clone();
        names.extend(self.mesh.advertise.iter().map(|endpoint| host(endpoint)));
        if !self.registry.listen.ip().is_unspecified() {
            names.push(self.registry.listen.ip().to_string());
        }
        if let Some((_, rest)) = self.auth.public_url.split_once("://") {
            let authority = rest.split('/').next().unwrap_or_default();
            let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            names.push(if has_port {
                host(authority)
            } else {
                authority.trim_matches(['[', ']']).to_owned()
            });
        }
        names
    }

    /// Where to listen for health checks and metrics, and whether another port will do if it is taken.
    pub fn admin_listen(&self) -> (SocketAddr, bool) {
        (self.admin.listen.unwrap_or(ADMIN_LISTEN), self.admin.listen.is_none())
    }

    /// Where to listen for other nodes. `shared`: a mesh file was given, or made for others, so that
    /// somebody else has reason to connect.
    pub fn mesh_listen(&self, shared: bool) -> SocketAddr {
        let ip = if shared { Ipv4Addr::UNSPECIFIED } else { Ipv4Addr::LOCALHOST };
        self.mesh.listen.unwrap_or(SocketAddr::new(IpAddr::V4(ip), MESH_PORT))
    }
}

impl NodeConfig {
    /// What others could not take in a node record.
    fn complain(&self, wrong: &mut Vec<String>) {
        let is_word = |text: &str| text.len() <= 63 && text.bytes().all(|b| b.is_ascii_graphic());
        if !is_word(&self.region) {
            wrong.push(format!(
                "node.region: {:?} cannot be a region's name; use at most 63 letters, digits and signs",
                self.region
            ));
        }
        let sound = |(key, value): (&String, &String)| !key.is_empty() && is_word(key) && is_word(value);
        if self.labels.len() > NodeBody::LABELS_MAX || !self.labels.iter().all(sound) {
            wrong.push(format!(
                "node.labels: give at most {} labels with names and values of at most 63 letters, digits and signs",
                NodeBody::LABELS_MAX
            ));
        }
    }

    /// The mesh that the data directory belongs to. Holds the admission secret.
    pub fn mesh_path(&self) -> PathBuf {
        self.data_dir.join("mesh.toml")
    }

    /// The root key of the mesh, on the node that made it.
    pub fn root_key_path(&self) -> PathBuf {
        self.data_dir.join("root.key")
    }

    /// Is there once the mesh file was given to others, so that this node must be reachable.
    pub fn shared_marker(&self) -> PathBuf {
        self.data_dir.join("mesh.shared")
    }
}

impl Default for NodeConfig {
    fn default() -> Self {
        NodeConfig {
            data_dir: default_data_dir(),
            site: "default".to_owned(),
            tier: Tier::default(),
            ready_file: None,
            region: String::new(),
            labels: BTreeMap::new(),
            metered: false,
        }
    }
}

impl Default for RegistryConfig {
    fn default() -> Self {
        RegistryConfig { listen: REGISTRY_LISTEN, anonymous: None, sparse: false, names: Vec::new() }
    }
}

/// Where a node keeps its things unless told otherwise: `/var/lib/waystation` for root, else the user's
/// data directory.
pub fn default_data_dir() -> PathBuf {
    let system = || PathBuf::from("/var/lib/waystation");
    if rustix::process::geteuid().is_root() {
        return system();
    }
    directories::ProjectDirs::from("", "", "waystation")
        .map_or_else(system, |dirs| dirs.data_dir().to_owned())
}

/// An address to listen on, from text; the error is a sentence.
pub fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is not an address to listen on; write IP and port, such as 127.0.0.1:5000")
    })
}

/// What clients may do, from text; the error is a sentence.
pub fn parse_anonymous(text: &str) -> Result<Anonymous, String> {
    match text {
        "none" => Ok(Anonymous::None),
        "pull" => Ok(Anonymous::Pull),
        "push" => Ok(Anonymous::Push),
        _ => Err(format!("{text:?} is none of: none, pull, push")),
    }
}

/// `host:port` of a node, from text; the error is a sentence.
pub fn parse_endpoint(text: &str) -> Result<String, String> {
    let wrong =
        || format!("{text:?} is not a node's address; write host and port, such as cloud.example:4717");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let bracketed = host.starts_with('[') && host.ends_with(']');
    let sane = !host.is_empty()
        && text.len() <= MAX_ENDPOINT
        && (bracketed || !host.contains(':'))
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b));
    match port.parse::<u16>() {
        Ok(port) if port != 0 && sane => Ok(text.to_owned()),
        _ => Err(wrong()),
    }
}

/// Every key on its own, so that one mistake does not hide the next.
fn complaints(document: &toml::Table, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut test = |section: &str, value: toml::Value, place: String| {
        let alone = toml::Table::from_iter([(section.to_owned(), value)]);
        if let Err(e) = alone.try_into::<Config>() {
            found.push(format!("{name}: {place}: {}", one_line(&e)));
        }
    };
    for (section, value) in document {
        match value {
            toml::Value::Table(keys) if SECTIONS.contains(&section.as_str()) => {
                for (key, value) in keys {
                    let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
                    test(section, toml::Value::Table(alone), format!("{section}.{key}"));
                }
            }
            toml::Value::Array(all) if section == "upstream" => {
                for (n, keys) in all.iter().filter_map(toml::Value::as_table).enumerate() {
                    for (key, value) in keys {
                        let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
                        test(
                            section,
                            toml::Value::Array(vec![alone.into()]),
                            format!("upstream {}: {key}", n + 1),
                        );
                    }
                }
            }
            other => test(section, other.clone(), section.clone()),
        }
    }
    found
}

fn one_line(error: &toml::de::Error) -> String {
    error.message().trim().replace('\n', " ")
}

fn endpoints<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let listed = Vec::<String>::deserialize(d)?;
    listed.iter().map(|text| parse_endpoint(text)).collect::<Result<_, _>>().map_err(serde::de::Error::custom)
}

/// A listen address as text.
mod address {
    use super::{Deserialize, SocketAddr, parse_listen};

    pub fn serialize<S: serde::Serializer>(value: &SocketAddr, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<SocketAddr, D::Error> {
        parse_listen(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// A listen address, or `"auto"` for none asked for.
mod maybe_address {
    use super::{AUTO, Deserialize, SocketAddr, parse_listen};

    pub fn serialize<S: serde::Serializer>(value: &Option<SocketAddr>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            None => s.serialize_str(AUTO),
            Some(address) => s.collect_str(address),
        }
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(d)?;
        if text == AUTO {
            return Ok(None);
        }
        parse_listen(&text).map(Some).map_err(serde::de::Error::custom)
    }
}

/// [`Anonymous`], or `"auto"` for none asked for.
mod maybe_anonymous {
    use super::{AUTO, Anonymous, Deserialize, parse_anonymous};

    pub fn serialize<S: serde::Serializer>(value: &Option<Anonymous>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            None => s.serialize_str(AUTO),
            Some(anonymous) => serde::Serialize::serialize(anonymous, s),
        }
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Anonymous>, D::Error> {
        match String::deserialize(d)?.as_str() {
            AUTO => Ok(None),
            text => parse_anonymous(text).map(Some).map_err(serde::de::Error::custom),
        }
    }
}

/// A path, or `""` for none.
pub(crate) mod maybe_path {
    use super::{Deserialize, PathBuf};

    pub fn serialize<S: serde::Serializer>(value: &Option<PathBuf>, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&value.as_deref().unwrap_or("".as_ref()).display())
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<PathBuf>, D::Error> {
        Ok(Some(PathBuf::deserialize(d)?).filter(|path| !path.as_os_str().is_empty()))
    }
}

/// The data directory, or `"auto"` for the default one.
mod data_dir {
    use super::{AUTO, Deserialize, Path, PathBuf, default_data_dir};

    pub fn serialize<S: serde::Serializer>(value: &Path, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&value.display())
    }

    pub fn deserialize<'de, D: serde::Deserializer<'de>>(d: D) -> Result<PathBuf, D::Error> {
        let path = PathBuf::deserialize(d)?;
        match path.as_os_str().to_str() {
            Some(AUTO) => Ok(default_data_dir()),
            Some("") => Err(serde::de::Error::custom("a path is needed, or \"auto\"")),
            _ => Ok(path),
        }
    }
}

/// Port for other nodes, TCP and UDP.
pub const MESH_PORT: u16 = 4717;
const REGISTRY_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5000);
const ADMIN_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5001);
/// A node record carries no more.
const MAX_ADVERTISED: usize = 8;
/// Join addresses are tried in turn; more than this only delays finding one that lives.
const MAX_JOINED: usize = 64;
/// The longest address that a node record may carry.
const MAX_ENDPOINT: usize = 255;
/// "Not asked for", in the file.
const AUTO: &str = "auto";
const SECTIONS: [&str; 11] =
    ["node", "registry", "tls", "auth", "limits", "admin", "mesh", "replication", "log", "budget", "storage"];

#[cfg(test)]
mod tests {
    use super::*;

    const SHIPPED: &str = include_str!("../../configs/node.toml");

    #[test]
    fn shipped_file_is_the_default() {
        assert_eq!(Config::parse(SHIPPED, "node.toml"), Ok(Config::default()));
        assert_eq!(Config::parse("", "empty"), Ok(Config::default()));
    }

    #[test]
    fn shipped_file_lists_every_key() {
        let shipped: toml::Table = toml::from_str(SHIPPED).expect("TOML");
        let all = toml::Table::try_from(Config::default()).expect("a table");
        let keys = |table: &toml::Table| -> Vec<String> {
            let mut keys: Vec<String> = table
                .iter()
                .flat_map(|(section, value)| {
                    let keys = value.as_table().expect("a section").keys();
                    keys.map(move |key| format!("{section}.{key}"))
                })
                .collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&shipped), keys(&all));
        assert_eq!(all.keys().map(String::as_str).collect::<Vec<_>>().len(), SECTIONS.len());
    }

    #[test]
    fn reports_every_mistake_at_once_with_file_and_key() {
        let text = "
            surprise = 1
            [node]
            tier = \"fog\"
            sight = \"a\"
            [registry]
            listen = \"localhost\"
            anonymous = \"yes\"
            [mesh]
            join = [\"cloud\"]
            [extra]
            key = 1
        ";
        let complaints = Config::parse(text, "my.toml").expect_err("wrong");
        let all = complaints.join("\n");
        assert_eq!(complaints.len(), 7, "{all}");
        for part in [
            "my.toml: surprise: unknown field",
            "my.toml: node.tier: unknown variant `fog`",
            "my.toml: node.sight: unknown field `sight`",
            "my.toml: registry.listen: \"localhost\" is not an address",
            "my.toml: registry.anonymous: \"yes\" is none of",
            "my.toml: mesh.join: \"cloud\" is not a node's address",
            "my.toml: extra: unknown field",
        ] {
            assert!(all.contains(part), "{part} in:\n{all}");
        }
        let syntax = Config::parse("[node", "my.toml").expect_err("not TOML");
        assert!(syntax[0].starts_with("my.toml is not TOML"), "{syntax:?}");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let error = Config::read(Path::new("/nowhere/node.toml")).expect_err("not there");
        assert!(error.to_string().contains("/nowhere/node.toml"));
    }

    #[test]
    fn defaults_follow_who_can_connect() {
        let mut config = Config::default();
        assert_eq!(config.anonymous(), Anonymous::Push);
        assert_eq!(config.mesh_listen(false).to_string(), "127.0.0.1:4717");
        assert_eq!(config.mesh_listen(true).to_string(), "0.0.0.0:4717");
        assert_eq!(config.admin_listen(), (ADMIN_LISTEN, true));
        config.registry.listen = "0.0.0.0:5000".parse().expect("an address");
        assert_eq!(config.anonymous(), Anonymous::None);
        config.registry.anonymous = Some(Anonymous::Pull);
        assert_eq!(config.anonymous(), Anonymous::Pull);
        let mut ruled = Config::default();
        ruled.auth.htpasswd = Some("users".into());
        assert_eq!(ruled.anonymous(), Anonymous::None);
        let asked = "127.0.0.1:9".parse().expect("an address");
        config.mesh.listen = Some(asked);
        config.admin.listen = Some(asked);
        assert_eq!(config.mesh_listen(true), asked);
        assert_eq!(config.admin_listen(), (asked, false));
    }

    #[test]
    fn names_of_a_node() {
        let mut config = Config::default();
        config.tls.names = vec!["a.example".into()];
        config.mesh.advertise = vec!["b.example:4717".into(), "[2001:db8::1]:4717".into()];
        config.auth.public_url = "https://c.example:5000/x".into();
        assert_eq!(config.names(), ["a.example", "b.example", "2001:db8::1", "127.0.0.1", "c.example"]);
        config.registry.listen = "0.0.0.0:5000".parse().expect("an address");
        config.auth.public_url = "https://[2001:db8::2]".into();
        assert_eq!(config.names()[3..], ["2001:db8::2"]);
    }

    #[test]
    fn check_sees_the_whole() {
        let mut config = Config::default();
        assert!(config.check().is_ok());
        config.node.site = String::new();
        config.mesh.advertise = vec!["a:1".to_owned(); 9];
        config.admin.listen = Some(config.registry.listen);
        let ConfigError::Invalid(wrong) = config.check().expect_err("three mistakes") else { panic!() };
        assert_eq!(wrong.len(), 3, "{wrong:?}");
    }

    #[test]
    fn addresses_of_nodes() {
        for good in ["cloud.example:4717", "10.0.0.1:1", "[::1]:4717"] {
            assert_eq!(parse_endpoint(good), Ok(good.to_owned()));
        }
        for bad in ["cloud", ":1", "a:0", "a:99999", "a b:1", "::1:4717", "http://a:1"] {
            assert!(parse_endpoint(bad).is_err(), "{bad}");
        }
    }
}
