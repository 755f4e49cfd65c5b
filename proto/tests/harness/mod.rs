//! What the tests of the protocol share: a mesh, records by hand, and a node whose driver is this file.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use ed25519_dalek::SigningKey;
use waystation_proto::{
    Change, Digest, Event, FetchId, Hash, Input, MeshId, NodeId, Output, Record, Replica, ReplicaConfig,
    RepoName, RequestId, Shared, Tag, Timer,
    body::{ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, NodeBody, SummaryBody, TagBody, Tier},
    event::{DialTarget, Proof, Source, WriteId},
    grant::{Actions, Grant},
    index::{ArtifactIndex, Edge, EdgeKind},
    ranges::Ranges,
    record::{Key, Trust},
    time::{Now, Time, Wall},
    wire::{Answer, Message, Standing},
};

/// What the clocks of all test nodes show.
pub const WALL: Wall = Wall(1_800_000_000);

/// The secret key of a test node.
pub fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// The name of a test node.
pub fn node(n: u8) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

/// The root key of the tests' mesh.
pub fn root() -> SigningKey {
    SigningKey::from_bytes(&[77; 32])
}

/// Whom the nodes of the tests' mesh trust.
pub fn trust() -> Trust {
    let key = root().verifying_key();
    Trust { mesh: MeshId::of_root(&NodeId(key.to_bytes())), root: key }
}

pub fn repository(name: &str) -> RepoName {
    name.parse().expect("a repository's name")
}

pub fn tag(name: &str) -> Tag {
    name.parse().expect("a tag")
}

pub fn digest(n: u8) -> Digest {
    Digest::Sha256([n; 32])
}

/// A grant for everything, signed by the root.
pub fn grant(subject: u8, serial: u64) -> Arc<Grant> {
    grant_for(subject, "**", Actions::ALL, None, serial)
}

pub fn grant_for(
    subject: u8,
    glob: &str,
    actions: Actions,
    expires: Option<Wall>,
    serial: u64,
) -> Arc<Grant> {
    let glob = glob.parse().expect("a pattern");
    Arc::new(Grant::issue(&trust().mesh, &root(), node(subject), glob, actions, expires, serial))
}

/// A tag's record by a granted node.
pub fn tag_record(author: u8, name: &str, version: u64, target: Option<Digest>) -> Record {
    let body = TagBody { target };
    let key_of = Key::tag(&repository("team/app"), &tag(name));
    Record::author(&trust().mesh, &key(author), Some(grant(author, 1)), key_of, version, WALL, &body)
}

pub fn node_record(author: u8, site: &str) -> Record {
    let body = NodeBody {
        site: site.into(),
        tier: Tier::Edge,
        addresses: vec![format!("node-{author}:4717")],
        software: "test".into(),
        region: String::new(),
        labels: BTreeMap::new(),
    };
    Record::author(&trust().mesh, &key(author), None, Key::node(&node(author)), 1, WALL, &body)
}

/// What a node of any site tells the mesh.
pub fn holding_record(author: u8, manifest: &Digest, state: HoldingState, version: u64) -> Record {
    let body = SummaryBody { state, copies: 1 };
    let key_of = Key::summary(manifest, &node(author));
    Record::author(&trust().mesh, &key(author), None, key_of, version, WALL, &body)
}

/// What a node of site "here" tells that site.
pub fn site_record(author: u8, manifest: &Digest, state: HoldingState, version: u64) -> Record {
    let body = HoldingBody { state };
    let key_of = Key::holding("here", manifest, &node(author));
    Record::author(&trust().mesh, &key(author), None, key_of, version, WALL, &body)
}

pub fn grant_record(grant: &Grant) -> Record {
    Record::author(&trust().mesh, &root(), None, Key::grant(grant), grant.serial, WALL, grant)
}

/// An artifact with these layers, as (text, size).
pub fn index(n: u8, layers: &[(&str, u64)]) -> ArtifactIndex {
    let edge = |(text, size): &(&str, u64)| Edge {
        kind: EdgeKind::Layer,
        digest: Digest::Sha256(*blake3::hash(text.as_bytes()).as_bytes()),
        hash: Some(Hash::of(text.as_bytes())),
        size: *size,
        media_type: "layer".into(),
        platform: None,
    };
    ArtifactIndex {
        manifest: digest(n),
        hash: Hash::of(&[n]),
        size: 100,
        media_type: "manifest".into(),
        artifact_type: None,
        annotations: BTreeMap::new(),
        edges: layers.iter().map(edge).collect(),
    }
}

pub fn index_hash(index: &ArtifactIndex) -> Hash {
    Hash::of(&index.encode())
}

/// The record that puts an artifact into a repository.
pub fn artifact_record(author: u8, repository: &RepoName, index: &ArtifactIndex) -> Record {
    let place = ArtifactPlace {
        manifest: index.hash,
        manifest_size: index.size,
        media_type: index.media_type.clone(),
        index: index_hash(index),
        index_size: index.encode().len() as u64,
        subject: index.subject(),
    };
    let body = ArtifactBody { place: Some(place) };
    let key_of = Key::artifact(repository, &index.manifest);
    Record::author(&trust().mesh, &key(author), Some(grant(author, 1)), key_of, 1, WALL, &body)
}

/// A replica with a driver that does at once whatever can be done on this node alone.
pub struct Node {
    pub replica: Replica,
    pub now: u64,
    /// What its clock shows.
    pub wall: Wall,
    /// Whether writes of records are answered at once; if not, they wait in `writes`.
    pub writes_are_quick: bool,
    pub writes: Vec<(WriteId, Vec<Shared>)>,
    /// What is durable, as a driver keeps it: the last write of each key.
    pub disk: BTreeMap<Key, Shared>,
    pub held: BTreeSet<Hash>,
    pub partial: BTreeMap<Hash, Ranges>,
    pub indexes: BTreeMap<Hash, ArtifactIndex>,
    pub fetches: Vec<Fetch>,
    /// Downloads from upstreams that were asked for.
    pub pulls: Vec<Source>,
    /// What is linked, and held under which hash.
    pub linked: BTreeMap<Source, (Hash, u64)>,
    /// What the bytes of a hash have for a digest, where that is not what was said.
    pub lies: BTreeSet<Hash>,
    pub cancelled: Vec<FetchId>,
    pub events: Vec<Event>,
    pub changes: Vec<Change>,
    pub sent: Vec<(NodeId, Message)>,
    pub announced: Vec<Shared>,
    pub dialled: Vec<DialTarget>,
    /// Members whose sessions were ended.
    pub hung_up: Vec<NodeId>,
    pub timers: Vec<(Time, Timer)>,
    /// Members behind a link that broke without a word.
    pub mute: BTreeSet<NodeId>,
    /// Probes that were answered.
    pub probed: usize,
}

/// A transfer that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    pub fetch: FetchId,
    pub from: NodeId,
    pub hash: Hash,
    pub range: Range<u64>,
}

impl Node {
    /// A node that starts for the first time, on the site "here".
    pub fn new(n: u8) -> Self {
        Self::restored(n, Vec::new(), Vec::new())
    }

    /// A node that starts again over these records and blobs.
    pub fn restored(n: u8, records: Vec<Shared>, held: Vec<Hash>) -> Self {
        let config = ReplicaConfig { site: "here".into(), ..ReplicaConfig::default() };
        Self::configured(n, config, records, held)
    }

    /// A node that behaves as this says.
    pub fn configured(n: u8, config: ReplicaConfig, records: Vec<Shared>, held: Vec<Hash>) -> Self {
        let mut node = Node {
            replica: Replica::new(config, key(n), trust()),
            now: 0,
            wall: WALL,
            writes_are_quick: true,
            writes: Vec::new(),
            disk: records.iter().map(|record| (record.key.clone(), record.clone())).collect(),
            held: held.iter().copied().collect(),
            partial: BTreeMap::new(),
            indexes: BTreeMap::new(),
            fetches: Vec::new(),
            pulls: Vec::new(),
            linked: BTreeMap::new(),
            lies: BTreeSet::new(),
            cancelled: Vec::new(),
            events: Vec::new(),
            changes: Vec::new(),
            sent: Vec::new(),
            announced: Vec::new(),
            dialled: Vec::new(),
            hung_up: Vec::new(),
            timers: Vec::new(),
            mute: BTreeSet::new(),
            probed: 0,
        };
        node.tell(Input::Restore { records, held });
        node.tell(Input::Reachable { addresses: vec![format!("node-{n}:4717")] });
        node
    }

    /// A node that may publish everywhere.
    pub fn granted(n: u8) -> Self {
        let mut node = Node::new(n);
        node.learn([grant_record(&grant(n, 1))]);
        node
    }

    /// Gives an input, and whatever follows from it on this node.
    pub fn tell(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        let mut rounds = 0;
        while let Some(input) = inputs.pop_front() {
            rounds += 1;
            assert!(rounds < 100_000, "does not come to rest");
            let now = Now { time: Time(self.now), wall: self.wall };
            for output in self.replica.handle(now, input) {
                inputs.extend(self.perform(output));
            }
        }
    }

    /// Records arrive from a member.
    pub fn learn(&mut self, records: impl IntoIterator<Item: Into<Shared>>) {
        let message = Message::Records(records.into_iter().map(Into::into).collect());
        self.tell(Input::Received { from: node(200), message });
    }

    /// A member of this site comes up, of which a record tells.
    pub fn meet(&mut self, n: u8, site: &str) {
        self.learn([node_record(n, site)]);
        self.tell(Input::PeerUp { peer: node(n), dialled: None });
    }

    /// Lets time pass; timers fire when they are due.
    pub fn pass(&mut self, ms: u64) {
        let end = self.now + ms;
        loop {
            let due = self.timers.iter().enumerate().min_by_key(|(n, (at, _))| (*at, *n));
            let Some((n, (at, timer))) = due.map(|(n, timer)| (n, *timer)) else { break };
            if at.0 > end {
                break;
            }
            self.timers.remove(n);
            self.now = self.now.max(at.0);
            self.tell(Input::TimerFired(timer));
        }
        self.now = end;
    }

    /// The oldest write of records becomes durable.
    pub fn write_done(&mut self) {
        let (write, records) = self.writes.remove(0);
        self.disk.extend(records.into_iter().map(|record| (record.key.clone(), record)));
        self.tell(Input::Persisted { write });
    }

    /// A transfer that is under way ends well.
    pub fn deliver(&mut self, fetch: &Fetch) {
        self.fetches.retain(|other| other != fetch);
        self.partial.entry(fetch.hash).or_default().insert(fetch.range.clone());
        self.tell(Input::Fetched { fetch: fetch.fetch });
    }

    /// Every transfer ends well, also those that follow.
    pub fn deliver_all(&mut self) {
        while let Some(fetch) = self.fetches.first().cloned() {
            self.deliver(&fetch);
        }
    }

    /// The answers that a request got.
    pub fn answers(&self, id: u64) -> Vec<&Event> {
        let is_answer = |event: &&Event| match event {
            Event::Written { request } | Event::Refused { request, .. } | Event::WantDone { request, .. } => {
                *request == RequestId(id)
            }
            _ => false,
        };
        self.events.iter().filter(is_answer).collect()
    }

    pub fn want_artifact(&mut self, id: u64, repository: &RepoName, manifest: Digest, closure: bool) {
        let (request, repository) = (RequestId(id), repository.clone());
        self.tell(Input::WantArtifact { request, repository, manifest, closure });
    }

    fn perform(&mut self, output: Output) -> Option<Input> {
        match output {
            Output::Send { to, message: Message::Probe { nonce } } if !self.mute.contains(&to) => {
                let message = Message::ProbeAnswer { nonce, outside: 0 };
                self.probed += 1;
                return Some(Input::Received { from: to, message });
            }
            Output::Send { to, message } => self.sent.push((to, message)),
            Output::Announce { records } => self.announced.extend(records),
            Output::Dial { target } => self.dialled.push(target),
            Output::SetTimer { at, timer } => self.timers.push((at, timer)),
            Output::Persist { write, records, .. } if self.writes_are_quick => {
                self.disk.extend(records.into_iter().map(|record| (record.key.clone(), record)));
                return Some(Input::Persisted { write });
            }
            Output::Persist { write, records, .. } => self.writes.push((write, records)),
            Output::Probe { hash, .. } => {
                let have = self.partial.get(&hash).cloned().unwrap_or_default();
                return Some(Input::Probed { hash, have });
            }
            Output::Fetch { fetch, from, hash, range, .. } => {
                self.fetches.push(Fetch { fetch, from, hash, range });
            }
            Output::Hasten { .. } => {}
            Output::CancelFetch { fetch } => {
                self.fetches.retain(|other| other.fetch != fetch);
                self.cancelled.push(fetch);
            }
            Output::Seal { hash, .. } => {
                self.held.insert(hash);
                return Some(Input::Sealed { hash });
            }
            Output::Pull { source, .. } => self.pulls.push(source),
            Output::Prove { source, hash, size } => {
                let proof = if self.lies.contains(&hash) { Proof::Fails } else { Proof::Holds };
                if proof == Proof::Holds {
                    self.linked.insert(source.clone(), (hash, size));
                }
                return Some(Input::Proved { source, hash, proof });
            }
            Output::LookUp { to, repository, digests } => {
                let answer = |digest| {
                    let source = Source { repository: repository.clone(), digest };
                    let held = self.linked.get(&source).map(|(hash, size)| (*hash, *size));
                    let held = held.map(|(hash, size)| Standing::Held { hash, size });
                    Answer { digest, state: held.unwrap_or(Standing::Absent) }
                };
                let answers = digests.into_iter().map(answer).collect();
                return Some(Input::LookedUp { to, repository, answers });
            }
            Output::ReadIndex { hash } => {
                return Some(Input::IndexRead { hash, index: self.indexes.get(&hash).cloned() });
            }
            Output::Catalog(change) => self.changes.push(change),
            Output::Notify(event) => self.events.push(event),
            Output::Hangup { peer } => {
                self.hung_up.push(peer);
                return Some(Input::PeerDown { peer });
            }
            Output::Forget { keys } => keys.iter().for_each(|key| drop(self.disk.remove(key))),
        }
        None
    }
}
