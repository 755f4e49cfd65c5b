//! What a replica does about this node's own words, sessions and dials, seen from inside.

use alloc::{format, string::ToString, vec};

use super::*;
use crate::{
    body::{HoldingBody, Tier},
    event::DialTarget,
    id::MeshId,
    record::{Key, Record},
    time::{Time, Wall},
    wire::Message,
};

const WALL: Wall = Wall(1_800_000_000);

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn node(n: u8) -> NodeId {
    NodeId(key(n).verifying_key().to_bytes())
}

fn trust() -> Trust {
    let root = key(77).verifying_key();
    Trust { mesh: MeshId::of_root(&NodeId(root.to_bytes())), root }
}

fn digest(n: u8) -> Digest {
    Digest::Sha256([n; 32])
}

/// Node 1, whose disk is slow: writes wait until they are let through.
struct Node {
    replica: Replica,
    now: u64,
    out: Vec<Output>,
}

impl Node {
    fn start() -> Self {
        Self::restart(ReplicaConfig::default(), vec![])
    }

    fn restart(config: ReplicaConfig, records: Vec<Shared>) -> Self {
        let replica = Replica::new(config, key(1), trust());
        let mut node = Node { replica, now: 0, out: Vec::new() };
        node.give(Input::Restore { records, held: vec![] });
        node
    }

    /// Whom it dialled since this was last asked.
    fn dials(&mut self) -> Vec<DialTarget> {
        let out = core::mem::take(&mut self.out);
        let target = |output| if let Output::Dial { target } = output { Some(target) } else { None };
        out.into_iter().filter_map(target).collect()
    }

    fn give(&mut self, input: Input) {
        let now = Now { time: Time(self.now), wall: WALL };
        self.out.extend(self.replica.handle(now, input));
    }

    fn reachable(&mut self, addresses: &[&str]) {
        self.give(Input::Reachable { addresses: addresses.iter().map(ToString::to_string).collect() });
    }

    /// Lets all writes through, in order.
    fn write(&mut self) {
        let out = core::mem::take(&mut self.out);
        for output in out {
            if let Output::Persist { write, .. } = output {
                self.give(Input::Persisted { write });
            }
        }
    }

    /// What another copy of this node's key says, from a member.
    fn hear(&mut self, records: Vec<Shared>) {
        self.give(Input::Received { from: node(2), message: Message::Records(records) });
    }

    /// What was put off is said at the next tick.
    fn tick(&mut self) {
        self.now += 1_000;
        self.give(Input::TimerFired(Timer::Reconcile));
    }

    fn holding(&self, manifest: &Digest) -> Option<HoldingState> {
        self.replica.catalog.holders(manifest).find(|(who, _)| *who == node(1)).map(|(_, state)| state)
    }

    fn addresses(&self) -> Vec<String> {
        self.replica.catalog.node(&node(1)).map(|body| body.addresses.clone()).unwrap_or_default()
    }
}

#[test]
fn the_last_addresses_told_win_however_slow_the_disk_is() {
    let mut here = Node::start();
    here.reachable(&["a:1", "b:1"]);
    here.write();
    // As at a restart: interfaces come up one after the other.
    here.reachable(&["a:1"]);
    here.reachable(&["a:1", "b:1"]);
    here.write();
    assert_eq!(here.addresses(), ["a:1", "b:1"]);
}

#[test]
fn a_machine_with_many_networks_tells_of_some() {
    let mut here = Node::start();
    let many: Vec<String> = (0..20).map(|n| format!("10.0.0.{n}:4717")).collect();
    here.give(Input::Reachable { addresses: many.clone() });
    here.write();
    assert_eq!(here.addresses(), many[..NodeBody::ADDRESSES_MAX]);
}

fn node_record(n: u8, version: u64, address: &str) -> Shared {
    let body = NodeBody {
        site: "default".into(),
        tier: Tier::Edge,
        addresses: vec![address.into()],
        software: "old".into(),
        region: String::new(),
        labels: alloc::collections::BTreeMap::new(),
    };
    Record::author(&trust().mesh, &key(n), None, Key::node(&node(n)), version, WALL, &body).into()
}

fn own_node(version: u64, address: &str) -> Shared {
    node_record(1, version, address)
}

fn holding(n: u8, version: u64, state: HoldingState) -> Shared {
    let key_of = Key::holding("default", &digest(9), &node(n));
    Record::author(&trust().mesh, &key(n), None, key_of, version, WALL, &HoldingBody { state }).into()
}

fn own_holding(version: u64, state: HoldingState) -> Shared {
    holding(1, version, state)
}

/// Artifact 9, in a repository, by the root itself.
fn artifact() -> Shared {
    artifact_of(1, 1)
}

fn artifact_of(manifest_size: u64, index_size: u64) -> Shared {
    let author = key(77);
    let subject = NodeId(author.verifying_key().to_bytes());
    let anything = crate::grant::Actions::ALL;
    let everywhere = crate::glob::Glob::everything();
    let grant = crate::grant::Grant::issue(&trust().mesh, &author, subject, everywhere, anything, None, 1);
    let place = ArtifactPlace {
        manifest: Hash([1; 32]),
        manifest_size,
        media_type: "m".into(),
        index: Hash([2; 32]),
        index_size,
        subject: None,
    };
    let key_of = Key::artifact(&"app".parse().expect("a name"), &digest(9));
    let body = crate::body::ArtifactBody { place: Some(place) };
    Record::author(&trust().mesh, &author, Some(grant.into()), key_of, 1, WALL, &body).into()
}

#[test]
fn a_node_restored_from_a_backup_sets_right_what_it_said_after() {
    let mut here = Node::start();
    here.reachable(&["now:1"]);
    here.write();
    here.hear(vec![own_node(7, "before:1"), own_holding(5, HoldingState::Complete)]);
    assert_eq!(here.addresses(), ["before:1"]);
    here.tick();
    here.write();
    assert_eq!(here.addresses(), ["now:1"]);
    assert_eq!(here.holding(&digest(9)), None, "it has nothing of it");
    let version = here.replica.catalog.get(&Key::node(&node(1))).map(|record| record.version);
    assert_eq!(version, Some(8));
}

#[test]
fn what_was_on_its_way_to_disk_is_set_right_too() {
    let mut here = Node::start();
    here.reachable(&["now:1"]);
    here.hear(vec![own_node(7, "before:1")]);
    here.write();
    here.tick();
    here.write();
    assert_eq!(here.addresses(), ["now:1"]);
}

#[test]
fn two_nodes_with_one_key_do_not_argue_for_ever() {
    let mut here = Node::start();
    here.reachable(&["now:1"]);
    here.write();
    let mut told = 0;
    for round in 1..20 {
        here.hear(vec![own_node(100 * round, "twin:1")]);
        let shared = |output: &&Output| matches!(output, Output::Notify(Event::KeyShared { .. }));
        told += here.out.iter().filter(shared).count();
        here.tick();
        here.write();
    }
    assert_eq!(here.addresses(), ["twin:1"]);
    assert_eq!(told, 1);
}

#[test]
fn a_closure_goes_on_after_a_restart_although_no_holder_is_connected() {
    let mut records = vec![artifact(), own_holding(1, HoldingState::Partial)];
    for n in 2..12 {
        records.extend([node_record(n, 1, &format!("{n}:1")), holding(n, 1, HoldingState::Complete)]);
    }
    // No room for sessions that nobody needs.
    let config = ReplicaConfig { site_sessions: 0, far_sessions: 0, ..ReplicaConfig::default() };
    let mut here = Node::restart(config, records);
    here.reachable(&["here:1"]);
    let mut tried = BTreeSet::new();
    for _ in 0..30 {
        for target in here.dials() {
            tried.insert(target.clone());
            here.give(Input::DialFailed { target });
        }
        here.now += 2_000;
        here.give(Input::TimerFired(Timer::Dial));
    }
    assert_eq!(tried.len(), 10, "all of them, not some again and again");
}

#[test]
fn one_answer_is_bounded_in_bytes_and_the_rest_comes_soon() {
    let large = |n: u32| {
        let key_of = Key { kind: Kind(999), scope: String::new(), name: n.to_string() };
        Record::author(&trust().mesh, &key(2), None, key_of, 1, WALL, &vec![7u8; 16_000]).into()
    };
    let records: Vec<Shared> = (0..200).map(large).collect();
    let ids = records.iter().map(Shared::id).collect();
    let mut here = Node::restart(ReplicaConfig::default(), records);
    here.reachable(&["here:1"]);
    here.give(Input::PeerUp { peer: node(2), dialled: None });
    here.tick();
    here.out.clear();
    here.give(Input::Received { from: node(2), message: Message::Request(ids) });
    let sent = |output: &Output| match output {
        Output::Send { message: message @ Message::Records(_), .. } => message.encode().len(),
        _ => 0,
    };
    let sent: usize = here.out.iter().map(sent).sum();
    assert!((500_000..1_100_000).contains(&sent), "{sent}");
    here.out.clear();
    here.tick();
    let opens = |output: &Output| matches!(output, Output::Send { message: Message::Reconcile { .. }, .. });
    assert!(here.out.iter().any(opens));
}

#[test]
fn a_full_catalog_is_told_of() {
    let config = ReplicaConfig { records_max: 1, ..ReplicaConfig::default() };
    let mut here = Node::restart(config, vec![node_record(2, 1, "2:1")]);
    here.hear(vec![node_record(3, 1, "3:1"), node_record(2, 2, "2:2")]);
    let told = Event::RecordsRefused { from: node(2), count: 1, why: crate::record::RecordError::Full };
    assert!(here.out.iter().any(|output| matches!(output, Output::Notify(event) if *event == told)));
    let moved = here.replica.catalog.node(&node(2)).map(|body| body.addresses.clone());
    assert_eq!(moved, Some(vec!["2:2".to_string()]), "what replaces something has room");
}

#[test]
fn an_artifact_that_nobody_could_have_pushed_does_not_count() {
    assert_eq!(artifact().check(&trust()), Ok(()));
    for absurd in [artifact_of(u64::MAX, 1), artifact_of(1, u64::MAX)] {
        assert_eq!(absurd.check(&trust()), Err(crate::record::RecordError::TooLarge));
    }
}
