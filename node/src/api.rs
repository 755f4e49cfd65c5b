//! What a node tells its operator, as stable JSON. This file owns the types; how answers are built is
//! [`answer`]'s, how they travel [`crate::socket`]'s, how they look on a terminal the command line's.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use waystation_proto::{
    MeshId, NodeId, Wall,
    body::Tier,
    glob::Glob,
    grant::{Action, Actions, Grant},
};

use crate::{
    budget::{Budget, BudgetStatus},
    explain::Insight,
    gc::report::SpaceReport,
    mesh::RootKey,
    upstream::{UpstreamStatus, Upstreams},
};

mod answer;
mod mark;
mod pulled;

pub use answer::{Api, ApiError};
pub use mark::{Mark, MarkRequest, Marked};

/// Facts about the process that neither store nor replica know. Filled once, when everything is bound.
#[derive(Clone)]
pub struct NodeFacts {
    /// This node.
    pub node: NodeId,
    /// The LAN that it is on.
    pub site: String,
    /// Its place in the continuum.
    pub tier: Tier,
    /// The mesh that it belongs to.
    pub mesh: MeshId,
    /// Where the OCI endpoint listens.
    pub listen: SocketAddr,
    /// Where other nodes connect.
    pub mesh_listen: SocketAddr,
    /// Where health checks and metrics are.
    pub admin_listen: SocketAddr,
    /// `host:port` that other nodes are told to use.
    pub addresses: Vec<String>,
    /// Whether the mesh listener is on loopback only because nobody asked for an address and the mesh was
    /// not shared when the node started.
    pub opens_when_shared: bool,
    /// When the process started to serve.
    pub started: Instant,
    /// What the data plane counted since then.
    pub data_plane: Arc<dyn Fn() -> DataPlane + Send + Sync>,
    /// How many complete blobs are held.
    pub blobs: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// How clients of the OCI endpoint are received.
    pub access: Arc<dyn Fn() -> AccessStatus + Send + Sync>,
    /// The registries that are pulled through.
    pub upstreams: Upstreams,
    /// What may go over links to other sites.
    pub budget: Budget,
    /// What is known of the node's own doing.
    pub insight: Insight,
    /// Signs grants; absent where the mesh's root key is not in the data directory.
    pub granter: Option<Granter>,
}

/// Signs a grant with the mesh's root key; the error is a sentence.
pub type Granter = Arc<dyn Fn(&GrantRequest) -> Result<Grant, String> + Send + Sync>;

/// Answer to `status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// This node, as 64 hexadecimal digits.
    pub node_id: String,
    /// The LAN that it is on.
    pub site: String,
    /// Its place in the continuum.
    pub tier: Tier,
    /// The mesh that it belongs to.
    pub mesh: String,
    /// Version of the software.
    pub version: String,
    /// Where the OCI endpoint listens.
    pub listen: SocketAddr,
    /// Where other nodes connect.
    pub mesh_listen: SocketAddr,
    /// Where health checks and metrics are.
    pub admin_listen: SocketAddr,
    /// `host:port` that other nodes are told to use.
    pub addresses: Vec<String>,
    /// Whether the mesh listener is on loopback only until the mesh is shared and the node restarted.
    pub opens_when_shared: bool,
    /// Whether this node holds the mesh's root key and so can grant.
    pub holds_root_key: bool,
    /// Since it serves.
    pub uptime_seconds: u64,
    /// Records known.
    pub records: u64,
    /// Nodes with a live control session.
    pub sessions: Vec<String>,
    /// Blobs that are being fetched or waited for.
    pub wants: u64,
    /// Transfers under way.
    pub fetches: u64,
    /// Complete blobs held.
    pub blobs: u64,
    /// Bytes moved between nodes.
    pub data_plane: DataPlane,
    /// How clients of the OCI endpoint are received.
    pub access: AccessStatus,
    /// How the registries do that are pulled through.
    #[serde(default)]
    pub upstreams: Vec<UpstreamStatus>,
    /// What may go over links to other sites, and what did.
    #[serde(default)]
    pub budget: BudgetStatus,
    /// How full disk and quota are.
    #[serde(default)]
    pub space: SpaceReport,
}

/// Body of `POST budget/reset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetReset {
    /// Whether to forget what was spent, too.
    pub spent: bool,
}

/// How clients of the OCI endpoint are received, since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessStatus {
    /// Whether it speaks TLS.
    pub tls: bool,
    /// Whole days until its certificate ends; below zero once it has; absent without TLS.
    pub certificate_days: Option<i64>,
    /// Logins that let nobody in.
    pub logins_failed: u64,
    /// Requests and connections refused because too much was under way.
    pub requests_limited: u64,
}

/// Blob bytes moved between nodes since the start, duplicates included.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPlane {
    /// From all nodes.
    pub bytes_received: u64,
    /// To all nodes.
    pub bytes_sent: u64,
    /// By node.
    pub peers: Vec<PeerTraffic>,
}

/// Blob bytes moved between this node and another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerTraffic {
    /// The other node.
    pub node: String,
    /// From it.
    pub bytes_received: u64,
    /// To it.
    pub bytes_sent: u64,
}

/// One node of the mesh, in the answer to `peers`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The node.
    pub node: String,
    /// Whether it is the one that answers.
    pub this: bool,
    /// Whether a control session is up.
    pub connected: bool,
    /// The LAN that it says to be on; absent until its node record came.
    pub site: Option<String>,
    /// Its place in the continuum.
    pub tier: Option<Tier>,
    /// `host:port` that it says to be found at.
    pub addresses: Vec<String>,
    /// Name and version of what it runs.
    pub software: Option<String>,
    /// Blob bytes from it.
    pub bytes_received: u64,
    /// Blob bytes to it.
    pub bytes_sent: u64,
}

/// Answer to `artifacts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// In order of repository and digest.
    pub artifacts: Vec<Artifact>,
    /// Whether there are more than one answer carries; ask by repository.
    pub truncated: bool,
}

/// One artifact in a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// The repository.
    pub repository: String,
    /// The manifest's digest.
    pub digest: String,
    /// Tags that point to it.
    pub tags: Vec<String>,
    /// The manifest's media type.
    pub media_type: String,
    /// Bytes of the manifest.
    pub manifest_size: u64,
    /// What its publishers say of it; absent where they said nothing.
    pub status: Option<String>,
    /// What this node has of it: `complete`, `partial` or `none`.
    pub here: String,
    /// Nodes that say to have all of it.
    pub holders: u64,
    /// The upstream that it was pulled through from; absent for the mesh's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
}

/// Answer to `tags`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// The repository.
    pub repository: String,
    /// In lexical order.
    pub tags: Vec<TagTarget>,
    /// Whether there are more than one answer carries.
    pub truncated: bool,
}

/// Where a tag points.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagTarget {
    /// The tag.
    pub tag: String,
    /// The manifest that it points to.
    pub digest: String,
    /// How often it was written.
    pub version: u64,
    /// Who wrote it last.
    pub author: String,
}

/// Answer to `tag/history`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagHistory {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: String,
    /// What this node heard of, the write that counts first; at most `kept`.
    pub writes: Vec<TagWrite>,
    /// How many writes of a tag are kept.
    pub kept: u64,
}

/// One write of a tag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TagWrite {
    /// The manifest that it points at; absent where it deletes the tag.
    pub digest: Option<String>,
    /// The counter of the write.
    pub version: u64,
    /// Who wrote it.
    pub author: String,
    /// Where that node is, if its node record is known.
    pub site: Option<String>,
    /// When, by that node's clock, in seconds since 1970-01-01 UTC.
    pub authored: u64,
    /// `current`; `replaced` by a later write; `lost` to another of the same counter, which did not know of it.
    pub outcome: String,
}

/// Answer to `inspect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inspection {
    /// The artifact as listed.
    pub artifact: Artifact,
    /// Why it has the status that it has.
    pub reason: Option<String>,
    /// Its artifact type, where its index is here.
    pub artifact_type: Option<String>,
    /// Chosen annotations.
    pub annotations: BTreeMap<String, String>,
    /// What the manifest names; absent while the artifact's index is not here.
    pub blobs: Option<Vec<BlobInfo>>,
    /// Sum of config and layers in bytes, each counted once.
    pub total_size: Option<u64>,
    /// Who says to have what of it.
    pub holders: Vec<Holder>,
    /// The manifest, where it is held here.
    pub manifest: Option<serde_json::Value>,
}

/// One thing that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlobInfo {
    /// `config`, `layer`, `foreign`, `child`, `subject` or `depends`.
    pub kind: String,
    /// Its digest.
    pub digest: String,
    /// Its BLAKE3 hash, where the artifact index gives it.
    pub hash: Option<String>,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// `os/architecture[/variant]` of a child.
    pub platform: Option<String>,
    /// Whether this node holds it.
    pub held: bool,
}

/// What a node says to have of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The node.
    pub node: String,
    /// Its site, where its node record is known.
    pub site: Option<String>,
    /// `complete` or `partial`.
    pub state: String,
}

/// Body of `POST mesh/grant`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRequest {
    /// Who is to be allowed to publish.
    pub node: NodeText,
    /// In which repositories.
    pub repositories: Glob,
    /// For how long from now; without end where absent.
    pub seconds: Option<u64>,
}

/// A node id that travels as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeText(pub NodeId);

/// Answer to `POST mesh/grant`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Granted {
    /// Who may.
    pub node: String,
    /// In which repositories.
    pub repositories: String,
    /// What.
    pub actions: Vec<String>,
    /// Until when, in seconds since 1970-01-01 UTC; without end where absent.
    pub expires: Option<u64>,
}

/// Body of every answer that is not 2xx.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiProblem {
    /// A sentence for people.
    pub error: String,
}

impl Status {
    /// How long the node has served.
    pub fn uptime(&self) -> Duration {
        Duration::from_secs(self.uptime_seconds)
    }
}

impl TryFrom<String> for NodeText {
    type Error = waystation_proto::id::InvalidName;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse().map(NodeText)
    }
}

impl From<NodeText> for String {
    fn from(node: NodeText) -> String {
        node.0.to_string()
    }
}

/// The [`Granter`] of a node that holds the root key: everything a publisher may do, the newest grant first.
pub fn granter(root: RootKey) -> Granter {
    Arc::new(move |request| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let wall = Wall(now.as_secs());
        if request.seconds.is_some() && !wall.is_plausible() {
            return Err(
                "this machine's clock was never set, so a grant cannot end; set it, or leave out --for"
                    .to_owned(),
            );
        }
        let expires = request.seconds.map(|seconds| Wall(wall.0.saturating_add(seconds)));
        let serial = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        // Not what later versions may add: whoever grants now cannot know what that will be.
        let actions = Actions::of(&[Action::Publish, Action::Delete, Action::Status, Action::Policy]);
        Ok(root.issue_grant(request.node.0, request.repositories.clone(), actions, expires, serial))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_grant_is_newer_within_the_same_second() {
        let granter = granter(crate::mesh::MeshFile::create().1);
        let request = GrantRequest {
            node: NodeText(NodeId([1; 32])),
            repositories: "team/**".parse().expect("a glob"),
            seconds: None,
        };
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let later = granter(&request).expect("granted");
        // Counted in milliseconds: two in one second are told apart.
        assert!(later.serial >= seconds * 1000);
        assert_eq!(later.actions.names(), ["publish", "delete", "status", "policy"]);
    }

    #[test]
    fn names_that_scripts_rely_on() {
        let request = r#"{"node":"0101010101010101010101010101010101010101010101010101010101010101","repositories":"team/**","seconds":null}"#;
        let parsed: GrantRequest = serde_json::from_str(request).expect("parses");
        assert_eq!(parsed.node.0, NodeId([1; 32]));
        assert_eq!(serde_json::to_string(&parsed).expect("encodes"), request);
        let status = Status {
            node_id: "n".into(),
            site: "s".into(),
            tier: Tier::Iot,
            mesh: "m".into(),
            version: "v".into(),
            listen: ([127, 0, 0, 1], 1).into(),
            mesh_listen: ([127, 0, 0, 1], 2).into(),
            admin_listen: ([127, 0, 0, 1], 3).into(),
            addresses: vec![],
            opens_when_shared: false,
            holds_root_key: true,
            uptime_seconds: 4,
            records: 5,
            sessions: vec![],
            wants: 6,
            fetches: 7,
            blobs: 8,
            data_plane: DataPlane { bytes_received: 9, bytes_sent: 10, peers: vec![PeerTraffic::default()] },
            access: AccessStatus {
                tls: true,
                certificate_days: Some(11),
                logins_failed: 12,
                requests_limited: 13,
            },
            upstreams: vec![],
            budget: BudgetStatus { spent_down: 14, spent_up: 15, ..BudgetStatus::default() },
            space: SpaceReport { used: 14, quota: 15, free: 16, reserve: 17 },
        };
        assert_eq!(
            serde_json::to_string(&status).expect("encodes"),
            concat!(
                r#"{"node_id":"n","site":"s","tier":"iot","mesh":"m","version":"v","listen":"127.0.0.1:1","#,
                r#""mesh_listen":"127.0.0.1:2","admin_listen":"127.0.0.1:3","addresses":[],"opens_when_shared":false,"#,
                r#""holds_root_key":true,"uptime_seconds":4,"records":5,"sessions":[],"wants":6,"fetches":7,"#,
                r#""blobs":8,"data_plane":{"bytes_received":9,"bytes_sent":10,"#,
                r#""peers":[{"node":"","bytes_received":0,"bytes_sent":0}]},"#,
                r#""access":{"tls":true,"certificate_days":11,"logins_failed":12,"requests_limited":13},"upstreams":[],"#,
                r#""budget":{"limits":{"down":"","up":"","client_down":"","background_down":"","lan_down":"","lan_up":"","#,
                r#""client_share":50,"windows":[],"monthly":"","monthly_reserve":"0 B","month_day":1,"hard":true,"#,
                r#""scope":"node"},"changed":false,"site_nodes":0,"monthly_bytes":null,"since":null,"#,
                r#""spent_down":14,"spent_up":15,"blocked":[]},"#,
                r#""space":{"used":14,"quota":15,"free":16,"reserve":17}}"#
            )
        );
    }
}
