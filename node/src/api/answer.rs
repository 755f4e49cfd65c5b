//! Builds the answers of the local API from store, replica and facts. Looks only, except for grants.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use waystation_proto::{
    Digest, Hash, NodeId, RepoName, Tag,
    body::{HoldingState, State},
    index::{ArtifactIndex, EdgeKind},
};

use super::{
    Artifact, Artifacts, BlobInfo, GrantRequest, Granted, Holder, Inspection, NodeFacts, Peer, PeerTraffic,
    Status, TagHistory, TagTarget, TagWrite, Tags,
};
use crate::{
    budget::{BudgetChange, BudgetStatus},
    doctor::{self, Finding},
    driver::handle::ReplicaHandle,
    events::Events,
    explain::{self, Explanation},
    gc::{
        Gc,
        report::{GcReport, GcRequest, PinRequest, Pinned, Usage},
    },
    reference::Reference,
    store::{ArtifactEntry, Store, WRITES_MAX},
};

/// Answers questions about this node.
#[derive(Clone)]
pub struct Api {
    pub(super) store: Store,
    replica: ReplicaHandle,
    pub(super) facts: Arc<NodeFacts>,
    gc: Gc,
}

impl Api {
    /// An API over these.
    pub fn new(store: Store, replica: ReplicaHandle, facts: NodeFacts, gc: Gc) -> Self {
        Api { store, replica, facts: Arc::new(facts), gc }
    }

    /// Deletes what need not stay, or says what that would be.
    pub async fn collect(&self, request: &GcRequest) -> Result<GcReport, ApiError> {
        self.gc.run(request).await.map_err(|why| ApiError::Refused(why.to_string()))
    }

    /// What takes the room.
    pub async fn usage(&self) -> Result<Usage, ApiError> {
        self.gc.usage().await.map_err(|why| ApiError::Refused(why.to_string()))
    }

    /// Keeps an artifact here whatever happens, or not any more.
    pub async fn pin(&self, request: &PinRequest) -> Result<Pinned, ApiError> {
        let reference: Reference =
            request.reference.parse().map_err(|e| ApiError::Invalid(format!("{e}")))?;
        let digest = self.digest_of(&reference)?;
        self.replica
            .pin(digest, request.pinned)
            .await
            .map_err(|refusal| ApiError::Refused(refusal.to_string()))?;
        Ok(Pinned { digest: digest.to_string(), pinned: request.pinned })
    }

    /// What is on disk.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Whoever decides.
    pub(crate) fn replica(&self) -> &ReplicaHandle {
        &self.replica
    }

    /// Where others are told to find this node. Where it listens everywhere, its own node record knows.
    fn addresses(&self) -> Vec<String> {
        if !self.facts.addresses.is_empty() {
            return self.facts.addresses.clone();
        }
        let own = self.store.index().nodes().into_iter().find(|(node, _)| *node == self.facts.node);
        own.map(|(_, body)| body.addresses).unwrap_or_default()
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
            addresses: self.addresses(),
            opens_when_shared: facts.opens_when_shared,
            holds_root_key: facts.granter.is_some(),
            uptime_seconds: facts.started.elapsed().as_secs(),
            records: driver.records as u64,
            sessions: driver.sessions.iter().map(NodeId::to_string).collect(),
            wants: driver.wants as u64,
            fetches: driver.fetches as u64,
            blobs: (facts.blobs)(),
            data_plane: (facts.data_plane)(),
            access: (facts.access)(),
            upstreams: facts.upstreams.status(),
            budget: facts.budget.status(),
            space: self.gc.space(),
        }
    }

    /// What may go over links to other sites, and what did.
    pub fn budget(&self) -> BudgetStatus {
        self.facts.budget.status()
    }

    /// Changes that until the node is restarted.
    pub fn change_budget(&self, change: BudgetChange) -> Result<BudgetStatus, ApiError> {
        self.facts.budget.change(change).map_err(|wrong| ApiError::Invalid(wrong.join("\n")))?;
        Ok(self.budget())
    }

    /// Takes the changes back; with `spent`, forgets what was spent.
    pub fn reset_budget(&self, spent: bool) -> BudgetStatus {
        self.facts.budget.reset(spent);
        self.budget()
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

    /// The artifacts known, of one repository or of all: the mesh's own, then what of upstreams is here.
    pub async fn artifacts(&self, repository: Option<&RepoName>) -> Artifacts {
        let mut entries = self.store.index().artifacts(repository);
        let own = entries.len();
        entries.truncate(ANSWER_MAX);
        let mut tags: BTreeMap<RepoName, BTreeMap<Digest, Vec<String>>> = BTreeMap::new();
        let mut artifacts: Vec<Artifact> = entries
            .into_iter()
            .map(|(repository, digest, entry)| {
                let by_digest =
                    tags.entry(repository.clone()).or_insert_with(|| self.tags_by_digest(&repository));
                let tags = by_digest.get(&digest).cloned().unwrap_or_default();
                self.artifact(&repository, &digest, &entry, tags)
            })
            .collect();
        let room = ANSWER_MAX - artifacts.len();
        artifacts.extend(self.pulled(repository, room + 1).await);
        let truncated = own.max(artifacts.len()) > ANSWER_MAX;
        artifacts.truncate(ANSWER_MAX);
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

    /// What became of a tag.
    pub fn tag_history(&self, repository: &RepoName, tag: &Tag) -> Result<TagHistory, ApiError> {
        let index = self.store.index();
        let found = index.history(repository, tag);
        let sites: BTreeMap<NodeId, String> =
            index.nodes().into_iter().map(|(node, body)| (node, body.site)).collect();
        let mut above = None;
        let writes: Vec<TagWrite> = found
            .into_iter()
            .map(|write| {
                let outcome = match above.replace(write.version) {
                    None => "current",
                    Some(version) if version == write.version => "lost",
                    Some(_) => "replaced",
                };
                TagWrite {
                    digest: write.target.map(|digest| digest.to_string()),
                    version: write.version,
                    author: write.author.to_string(),
                    site: sites.get(&write.author).cloned(),
                    authored: write.authored.0,
                    outcome: outcome.to_owned(),
                }
            })
            .collect();
        if writes.is_empty() {
            let text =
                format!("no write of {repository}:{tag} is known here; see: waystation tags {repository}");
            return Err(ApiError::NotFound(text));
        }
        let (repository, tag) = (repository.to_string(), tag.to_string());
        Ok(TagHistory { repository, tag, writes, kept: WRITES_MAX as u64 })
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
            (None, Some(tag)) => {
                index.tag(repository, tag).and_then(|entry| entry.target).ok_or_else(|| {
                    ApiError::NotFound(format!(
                        "{repository} has no tag {tag}; see: waystation tags {repository}"
                    ))
                })?
            }
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

    /// Why a pull goes as it goes; of this machine's platform unless one is given.
    pub async fn explain(&self, reference: &Reference, platform: Option<String>) -> Explanation {
        let driver = self.replica.status().await;
        explain::explain(&self.store, &self.facts, driver, reference, platform).await
    }

    /// Whether this node can do its work, as far as it knows itself.
    pub async fn doctor(&self) -> Vec<Finding> {
        let driver = self.replica.status().await;
        doctor::node::examine(&self.store, &self.facts, &driver).await
    }

    /// What happens, as a stream.
    pub fn events(&self) -> Events {
        self.facts.insight.events.clone()
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
            holders: self.store.index().copies(digest),
            upstream: None,
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

pub(super) fn state_name(state: State) -> &'static str {
    match state {
        State::Validating => "validating",
        State::Quarantined => "quarantined",
        State::Approved => "approved",
        State::Rejected => "rejected",
        State::Revoked => "revoked",
    }
}

pub(super) fn holding_name(state: HoldingState) -> &'static str {
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
