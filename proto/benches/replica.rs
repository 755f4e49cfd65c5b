//! What a replica costs in a mesh of ten thousand nodes: memory for each record that it shares with others in the
//! process, and time for each input and for an hour in which nothing happens.
//!
//! `cargo bench -p waystation-proto --bench replica`. Memory is what the system counts for the process, so it
//! is told on Linux only.
#![allow(clippy::disallowed_methods, reason = "it measures time and memory, and decides nothing")]

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use waystation_proto::{
    Digest, Hash, Input, MeshId, NodeId, Output, Record, Replica, ReplicaConfig, RepoName, Shared, Timer,
    body::{ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, NodeBody, TagBody, Tier},
    catalog::{Catalog, Limits},
    glob::Glob,
    grant::{Actions, Grant},
    policy::{Places, Policy, PolicyBody, TagRule},
    quota::Quota,
    record::{Key, Trust},
    time::{Now, Time, Wall},
    wire::Message,
};

const NODES: u32 = 10_000;
const SITES: u32 = 1_000;
const ARTIFACTS: u32 = 5_000;
const REPLICAS: usize = 100;
const WALL: Wall = Wall(1_800_000_000);

fn main() {
    let mesh = Mesh::new();
    let nodes: Vec<Shared> = (0..NODES).map(|n| mesh.node(n, 1)).collect();
    let holdings: Vec<Shared> = (0..NODES).map(|n| mesh.holding(n, n % ARTIFACTS, 1)).collect();
    let tags: Vec<Shared> = (0..ARTIFACTS).map(|n| mesh.tag(n)).collect();
    let artifacts: Vec<Shared> = (0..ARTIFACTS).map(|n| mesh.artifact(n)).collect();
    println!("memory: bytes a record and replica, {REPLICAS} replicas");
    for (what, records) in
        [("node", &nodes), ("holding", &holdings), ("tag", &tags), ("artifact", &artifacts)]
    {
        println!("  {what:10} {:7}", catalogs(records));
    }
    let all: Vec<Shared> = [nodes, holdings, tags, artifacts].concat();
    println!("  {:10} {:7}", "all", catalogs(&all));
    println!("  {:10} {:7}", "whole node", replicas(&mesh, &all));
    for policies in [0, 1] {
        println!("time: {} records known, {policies} policies", all.len());
        times(&mesh, &all, policies);
    }
}

struct Mesh {
    root: SigningKey,
    trust: Trust,
    grant: Arc<Grant>,
    keys: Vec<SigningKey>,
}

impl Mesh {
    fn new() -> Self {
        let root = SigningKey::from_bytes(&[7; 32]);
        let trust = Trust {
            mesh: MeshId::of_root(&NodeId(root.verifying_key().to_bytes())),
            root: root.verifying_key(),
        };
        let secret = |n: u32| SigningKey::from_bytes(blake3::hash(&n.to_le_bytes()).as_bytes());
        let keys: Vec<SigningKey> = (0..NODES + 1000).map(secret).collect();
        let subject = NodeId(keys[0].verifying_key().to_bytes());
        let grant =
            Grant::issue(&trust.mesh, &root, subject, Glob::everything(), Actions::ALL, None, 1).into();
        Mesh { root, trust, grant, keys }
    }

    fn id(&self, n: u32) -> NodeId {
        NodeId(self.keys[n as usize].verifying_key().to_bytes())
    }

    fn node(&self, n: u32, version: u64) -> Shared {
        let body = NodeBody {
            site: format!("site-{}", n % SITES),
            tier: Tier::Edge,
            addresses: vec![format!("10.1.{}.{}:4717", n / 256, n % 256)],
            software: "waystation/0.1.0".into(),
            region: "north".into(),
            labels: BTreeMap::new(),
        };
        let key = Key::node(&self.id(n));
        Record::author(&self.trust.mesh, &self.keys[n as usize], None, key, version, WALL, &body).into()
    }

    fn holding(&self, n: u32, artifact: u32, version: u64) -> Shared {
        let body = HoldingBody { state: HoldingState::Complete };
        let key = Key::holding("here", &digest(artifact), &self.id(n));
        Record::author(&self.trust.mesh, &self.keys[n as usize], None, key, version, WALL, &body).into()
    }

    fn granted<B: serde::Serialize>(&self, key: Key, body: &B) -> Shared {
        Record::author(&self.trust.mesh, &self.keys[0], Some(self.grant.clone()), key, 1, WALL, body).into()
    }

    fn tag(&self, n: u32) -> Shared {
        let tag = format!("v1.{n}").parse().expect("a tag");
        self.granted(Key::tag(&repository(n), &tag), &TagBody { target: Some(digest(n)) })
    }

    fn artifact(&self, n: u32) -> Shared {
        let place = ArtifactPlace {
            manifest: Hash::of(&n.to_le_bytes()),
            manifest_size: 1_000,
            media_type: "application/vnd.oci.image.manifest.v1+json".into(),
            index: Hash::of(&n.to_be_bytes()),
            index_size: 1_000,
            subject: None,
        };
        self.granted(Key::artifact(&repository(n), &digest(n)), &ArtifactBody { place: Some(place) })
    }

    fn policy(&self) -> Shared {
        let policy = Policy {
            repositories: vec![Glob::everything()],
            tags: TagRule::default(),
            places: Places { sites: vec!["site-*".parse().expect("a pattern")], ..Places::default() },
            platforms: vec![],
            copies_per_site: Some(1),
            copies: None,
            priority: 0,
            windows: vec![],
            utc_offset: 0,
            metered: true,
            grace: Policy::GRACE,
            referrers: true,
            depends: true,
        };
        let name: RepoName = "all".parse().expect("a name");
        self.granted(Key::policy(&name), &PolicyBody { policy: Some(policy) })
    }
}

fn digest(n: u32) -> Digest {
    Digest::Sha256(*blake3::hash(&n.to_be_bytes()).as_bytes())
}

fn repository(n: u32) -> RepoName {
    format!("team-{}/app", n % 100).parse().expect("a name")
}

/// Bytes that the system counts for this process.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

fn catalogs(records: &[Shared]) -> usize {
    let limits = Limits { records: usize::MAX, unknown: usize::MAX, by_author: Quota::MESH };
    let before = resident();
    let all: Vec<Catalog> = (0..REPLICAS)
        .map(|_| {
            let mut catalog = Catalog::default();
            records.iter().for_each(|record| {
                catalog.apply(record.clone(), limits);
            });
            catalog
        })
        .collect();
    let bytes = (resident() - before) / records.len() / all.len();
    // What is given back would be taken first by the next, and not be seen.
    std::mem::forget(all);
    bytes
}

fn replicas(mesh: &Mesh, records: &[Shared]) -> usize {
    let before = resident();
    let all: Vec<Node> = (0..REPLICAS).map(|_| Node::started(mesh, records)).collect();
    let bytes = (resident() - before) / records.len() / all.len();
    std::mem::forget(all);
    bytes
}

/// A replica and its timers.
struct Node {
    replica: Replica,
    now: u64,
    timers: BTreeSet<(Time, Timer)>,
    handled: u64,
}

impl Node {
    fn started(mesh: &Mesh, records: &[Shared]) -> Self {
        let config = ReplicaConfig { site: "site-0".into(), ..ReplicaConfig::default() };
        let replica = Replica::new(config, mesh.keys[0].clone(), mesh.trust.clone());
        let mut node = Node { replica, now: 0, timers: BTreeSet::new(), handled: 0 };
        node.tell(Input::Restore { records: records.to_vec(), held: vec![] });
        node.tell(Input::Reachable { addresses: vec!["10.1.0.0:4717".into()] });
        node
    }

    fn tell(&mut self, input: Input) {
        let mut inputs = vec![input];
        while let Some(input) = inputs.pop() {
            self.handled += 1;
            for output in self.replica.handle(Now { time: Time(self.now), wall: WALL }, input) {
                match output {
                    Output::SetTimer { at, timer } => drop(self.timers.insert((at, timer))),
                    Output::Persist { write, .. } => inputs.push(Input::Persisted { write }),
                    Output::Dial { target } => inputs.push(Input::DialFailed { target }),
                    Output::Hangup { peer } => inputs.push(Input::PeerDown { peer }),
                    _ => {}
                }
            }
        }
    }

    fn run_until(&mut self, end: u64) {
        while let Some(due) = self.timers.pop_first() {
            if due.0.0 > end {
                self.timers.insert(due);
                break;
            }
            self.now = self.now.max(due.0.0);
            self.tell(Input::TimerFired(due.1));
        }
        self.now = end;
    }
}

fn times(mesh: &Mesh, records: &[Shared], policies: usize) {
    let began = Instant::now();
    let mut node = Node::started(mesh, records);
    told("start over all records", began.elapsed(), 1);
    if policies > 0 {
        node.tell(Input::Received { from: mesh.id(1), message: Message::Records(vec![mesh.policy()]) });
        assert_eq!(node.replica.policies().count(), 1);
    }
    // All of the site, and others as far as this node keeps sessions with them.
    let near = (1..10).map(|n| n * SITES);
    for peer in near.chain(1..=4) {
        node.tell(Input::PeerUp { peer: mesh.id(peer), dialled: None });
    }
    node.run_until(10_000);
    for timer in [Timer::Dial, Timer::Reconcile, Timer::Wants, Timer::Policies] {
        let mut clones = (0..20).map(|_| Input::TimerFired(timer)).collect::<Vec<_>>();
        let began = Instant::now();
        clones.drain(..).for_each(|input| {
            node.now += 1;
            drop(node.replica.handle(Now { time: Time(node.now), wall: WALL }, input));
        });
        told(&format!("{timer:?}"), began.elapsed(), 20);
    }
    let news: Vec<Shared> = (0..200).map(|n| mesh.node(NODES + n, 1)).collect();
    received(mesh, &mut node, "new nodes", &news);
    received(mesh, &mut node, "the same again", &news);
    let news: Vec<Shared> = (0..200).map(|n| mesh.node(NODES + 200 + n, 1)).collect();
    news.iter().for_each(|record| record.check(&mesh.trust).expect("sound"));
    received(mesh, &mut node, "new nodes that were checked", &news);
    let news: Vec<Shared> = (0..200).map(|n| mesh.holding(n + 1, n + 3, 2)).collect();
    news.iter().for_each(|record| record.check(&mesh.trust).expect("sound"));
    received(mesh, &mut node, "new holdings that were checked", &news);
    let (began, handled) = (Instant::now(), node.handled);
    let from = node.now;
    node.run_until(from + 600_000);
    told("ten idle minutes", began.elapsed(), 1);
    println!("  {:32} {:9}", "inputs in them", node.handled - handled);
    assert_eq!(mesh.root.verifying_key(), mesh.trust.root);
}

/// Records one by one, from a member of another site.
fn received(mesh: &Mesh, node: &mut Node, what: &str, records: &[Shared]) {
    let began = Instant::now();
    for record in records {
        node.now += 1;
        let message = Message::Records(vec![record.clone()]);
        node.tell(Input::Received { from: mesh.id(1), message });
    }
    told(&format!("received, {what}"), began.elapsed(), records.len() as u32);
}

fn told(what: &str, took: Duration, times: u32) {
    println!("  {what:32} {:9} us", (took / times).as_nanos() as f64 / 1000.0);
}
