//! What a node tells its operator, as stable JSON: the types, and how they are built from store and replica.
//! How they travel is [`crate::socket`]'s; how they look on a terminal is the command line's.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use waystation_proto::{
    Digest, Hash, MeshId, NodeId, RepoName, Tag,
    body::{HoldingState, State, Tier},
    glob::Glob,
    grant::Grant,
    index::{ArtifactIndex, EdgeKind},
};

use crate::{
    driver::handle::ReplicaHandle,
    store::{ArtifactEntry, Store},
};

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
    /// When the process started to serve.
    pub started: Instant,
    /// What the data plane counted since then.
    pub data_plane: Arc<dyn Fn() -> DataPlane + Send + Sync>,
    /// How many complete blobs are held.
    pub blobs: Arc<dyn Fn() -> u64 + Send + Sync>,
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

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The question itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// There is no such thing.
    #[error("{0}")]
    NotFound(String),
    /// It may not or cannot be done here.
    #[error("{0}")]
    Refused(String),
}

/// Answers questions about this node.
#[derive(Clone)]
pub struct Api {
    store: Store,
    replica: ReplicaHandle,
    facts: Arc<NodeFacts>,
}

impl Api {
    /// An API over these.
    pub fn new(store: Store, replica: ReplicaHandle, facts: NodeFacts) -> Self {
        Api { store, replica, facts: Arc::new(facts) }
    }

    /// What this node is and does.
    pub async fn status(&self) -> Status {
        let driver = self.replica.status().await;
        let facts = &self.facts;
        Status {
            node_id: facts.node.to_string(),
            site: facts.site.clone(),
            tier: facts.tier,
            mesh: facts.mesh.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            listen: facts.listen,
            mesh_listen: facts.mesh_listen,
            admin_listen: facts.admin_listen,
            addresses: facts.addresses.clone(),
            holds_root_key: facts.granter.is_some(),
            uptime_seconds: facts.started.elapsed().as_secs(),
            records: driver.records as u64,
            sessions: driver.sessions.iter().map(NodeId::to_string).collect(),
            wants: driver.wants as u64,
            fetches: driver.fetches as u64,
            blobs: (facts.blobs)(),
            data_plane: (facts.data_plane)(),
        }
    }

    /// The nodes known, this one first, then those with a session.
    pub async fn peers(&self) -> Vec<Peer> {
        let sessions: BTreeSet<NodeId> = self.replica.status().await.sessions.into_iter().collect();
        let mut nodes: BTreeMap<NodeId, _> =
            self.store.index().nodes().into_iter().map(|(node, body)| (node, Some(body))).collect();
        for node in sessions.iter().chain([&self.facts.node]) {
            nodes.entry(*node).or_insert(None);
        }
        let traffic: BTreeMap<String, PeerTraffic> =
            (self.facts.data_plane)().peers.into_iter().map(|peer| (peer.node.clone(), peer)).collect();
        let mut peers: Vec<Peer> = nodes
            .into_iter()
            .map(|(node, body)| {
                let moved = traffic.get(&node.to_string()).cloned().unwrap_or_default();
                Peer {
                    node: node.to_string(),
                    this: node == self.facts.node,
                    connected: sessions.contains(&node),
                    site: body.as_ref().map(|body| body.site.clone()),
                    tier: body.as_ref().map(|body| body.tier),
                    addresses: body.as_ref().map(|body| body.addresses.clone()).unwrap_or_default(),
                    software: body.map(|body| body.software),
                    bytes_received: moved.bytes_received,
                    bytes_sent: moved.bytes_sent,
                }
            })
            .collect();
        peers.sort_by_key(|peer| (!peer.this, !peer.connected));
        peers
    }

    /// The artifacts known, of one repository or of all.
    pub fn artifacts(&self, repository: Option<&RepoName>) -> Artifacts {
        let mut entries = self.store.index().artifacts(repository);
        let truncated = entries.len() > ANSWER_MAX;
        entries.truncate(ANSWER_MAX);
        let mut tags: BTreeMap<RepoName, BTreeMap<Digest, Vec<String>>> = BTreeMap::new();
        let artifacts = entries
            .into_iter()
            .map(|(repository, digest, entry)| {
                let by_digest = tags
                    .entry(repository.clone())
                    .or_insert_with(|| self.tags_by_digest(&repository));
                let tags = by_digest.get(&digest).cloned().unwrap_or_default();
                self.artifact(&repository, &digest, &entry, tags)
            })
            .collect();
        Artifacts { artifacts, truncated }
    }

    /// The tags of a repository.
    pub fn tags(&self, repository: &RepoName) -> Result<Tags, ApiError> {
        let mut found = self.store.index().tags(repository, None, ANSWER_MAX + 1);
        if found.is_empty() && self.store.index().artifacts(Some(repository)).is_empty() {
            return Err(ApiError::NotFound(format!("no repository {repository} is known here")));
        }
        let truncated = found.len() > ANSWER_MAX;
        found.truncate(ANSWER_MAX);
        let tags = found
            .into_iter()
            .filter_map(|(tag, entry)| {
                Some(TagTarget {
                    tag: tag.to_string(),
                    digest: entry.target?.to_string(),
                    version: entry.version,
                    author: entry.author.to_string(),
                })
            })
            .collect();
        Ok(Tags { repository: repository.to_string(), tags, truncated })
    }

    /// Everything known about one artifact.
    pub async fn inspect(
        &self,
        repository: &RepoName,
        tag: Option<&Tag>,
        digest: Option<Digest>,
    ) -> Result<Inspection, ApiError> {
        let index = self.store.index();
        let digest = match (digest, tag) {
            (Some(digest), _) => digest,
            (None, Some(tag)) => index.tag(repository, tag).and_then(|entry| entry.target).ok_or_else(|| {
                ApiError::NotFound(format!("{repository} has no tag {tag}; see: waystation tags {repository}"))
            })?,
            (None, None) => return Err(ApiError::Invalid("a tag or a digest is needed".into())),
        };
        let entry = index
            .artifact(repository, &digest)
            .ok_or_else(|| ApiError::NotFound(format!("{repository}@{digest} is not known here")))?;
        let edges = self.read_index(&entry).await;
        let blobs: Option<Vec<BlobInfo>> = edges.as_ref().map(|edges| self.blob_infos(edges));
        let total_size = edges.as_ref().map(|edges| {
            let sizes: BTreeMap<Hash, u64> = edges.closure().map(|(edge, hash)| (hash, edge.size)).collect();
            sizes.values().sum()
        });
        let sites: BTreeMap<NodeId, String> =
            index.nodes().into_iter().map(|(node, body)| (node, body.site)).collect();
        let holders = index
            .holders(&digest)
            .into_iter()
            .filter(|(_, state)| *state != HoldingState::Gone)
            .map(|(node, state)| Holder {
                node: node.to_string(),
                site: sites.get(&node).cloned(),
                state: holding_name(state).to_owned(),
            })
            .collect();
        let tags = self.tags_by_digest(repository).remove(&digest).unwrap_or_default();
        Ok(Inspection {
            artifact: self.artifact(repository, &digest, &entry, tags),
            reason: entry.status.as_ref().map(|(_, reason)| reason.clone()).filter(|r| !r.is_empty()),
            artifact_type: edges.as_ref().and_then(|edges| edges.artifact_type.clone()),
            annotations: edges.map(|edges| edges.annotations).unwrap_or_default(),
            blobs,
            total_size,
            holders,
            manifest: self.read_manifest(&digest).await,
        })
    }

    /// Signs a grant with the root key and tells the mesh.
    pub async fn grant(&self, request: &GrantRequest) -> Result<Granted, ApiError> {
        let granter = self.facts.granter.as_ref().ok_or_else(|| {
            ApiError::Refused(
                "the root key of this mesh is not in this node's data directory; run this where the mesh was made"
                    .into(),
            )
        })?;
        let grant = granter(request).map_err(ApiError::Refused)?;
        let granted = Granted {
            node: grant.subject.to_string(),
            repositories: grant.repositories.to_string(),
            actions: grant.actions.names().into_iter().map(str::to_owned).collect(),
            expires: grant.expires.map(|wall| wall.0),
        };
        self.replica.add_grant(grant).await.map_err(|refusal| ApiError::Refused(refusal.to_string()))?;
        Ok(granted)
    }

    fn artifact(
        &self,
        repository: &RepoName,
        digest: &Digest,
        entry: &ArtifactEntry,
        tags: Vec<String>,
    ) -> Artifact {
        let holders = self.store.index().holders(digest);
        let own = holders.iter().find(|(node, _)| *node == self.facts.node).map(|(_, state)| *state);
        Artifact {
            repository: repository.to_string(),
            digest: digest.to_string(),
            tags,
            media_type: entry.place.media_type.clone(),
            manifest_size: entry.place.manifest_size,
            status: entry.status.as_ref().map(|(state, _)| state_name(*state).to_owned()),
            here: holding_name(own.unwrap_or(HoldingState::Gone)).to_owned(),
            holders: holders.iter().filter(|(_, state)| *state == HoldingState::Complete).count() as u64,
        }
    }

    fn tags_by_digest(&self, repository: &RepoName) -> BTreeMap<Digest, Vec<String>> {
        let mut found: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
        for (tag, entry) in self.store.index().tags(repository, None, ANSWER_MAX) {
            if let Some(target) = entry.target {
                found.entry(target).or_default().push(tag.to_string());
            }
        }
        found
    }

    fn blob_infos(&self, index: &ArtifactIndex) -> Vec<BlobInfo> {
        let info = |edge: &waystation_proto::index::Edge| BlobInfo {
            kind: edge_name(&edge.kind).to_owned(),
            digest: edge.digest.to_string(),
            hash: edge.hash.map(|hash| hash.to_string()),
            size: edge.size,
            media_type: edge.media_type.clone(),
            platform: edge.platform.clone(),
            held: self.store.index().held(&edge.digest).is_some(),
        };
        index.edges.iter().map(info).collect()
    }

    /// The artifact's index, if it is here; an index that cannot be read is as good as none for showing.
    async fn read_index(&self, entry: &ArtifactEntry) -> Option<ArtifactIndex> {
        let bytes = self.store.read(entry.place.index, ArtifactIndex::MAX_BYTES as u64).await.ok()?;
        ArtifactIndex::decode(&bytes).ok()
    }

    async fn read_manifest(&self, digest: &Digest) -> Option<serde_json::Value> {
        let held = self.store.index().held(digest)?;
        let bytes = self.store.read(held.hash, MANIFEST_MAX).await.ok()?;
        serde_json::from_slice(&bytes).ok()
    }
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

fn state_name(state: State) -> &'static str {
    match state {
        State::Validating => "validating",
        State::Quarantined => "quarantined",
        State::Approved => "approved",
        State::Rejected => "rejected",
        State::Revoked => "revoked",
    }
}

fn holding_name(state: HoldingState) -> &'static str {
    match state {
        HoldingState::Gone => "none",
        HoldingState::Partial => "partial",
        HoldingState::Complete => "complete",
    }
}

fn edge_name(kind: &EdgeKind) -> &'static str {
    match kind {
        EdgeKind::Config => "config",
        EdgeKind::Layer => "layer",
        EdgeKind::Foreign => "foreign",
        EdgeKind::Child => "child",
        EdgeKind::Subject => "subject",
        EdgeKind::Depends { .. } => "depends",
    }
}

/// Entries that one answer carries: some megabytes of JSON.
const ANSWER_MAX: usize = 10_000;
/// Largest manifest that is shown.
const MANIFEST_MAX: u64 = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

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
            holds_root_key: true,
            uptime_seconds: 4,
            records: 5,
            sessions: vec![],
            wants: 6,
            fetches: 7,
            blobs: 8,
            data_plane: DataPlane { bytes_received: 9, bytes_sent: 10, peers: vec![PeerTraffic::default()] },
        };
        assert_eq!(
            serde_json::to_string(&status).expect("encodes"),
            concat!(
                r#"{"node_id":"n","site":"s","tier":"iot","mesh":"m","version":"v","listen":"127.0.0.1:1","#,
                r#""mesh_listen":"127.0.0.1:2","admin_listen":"127.0.0.1:3","addresses":[],"#,
                r#""holds_root_key":true,"uptime_seconds":4,"records":5,"sessions":[],"wants":6,"fetches":7,"#,
                r#""blobs":8,"data_plane":{"bytes_received":9,"bytes_sent":10,"#,
                r#""peers":[{"node":"","bytes_received":0,"bytes_sent":0}]}}"#
            )
        );
    }
}
