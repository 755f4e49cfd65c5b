//! What a node holds is told its site at once and exactly, and the mesh in summary; and whoever asks finds a holder.

mod harness;

use harness::{
    Node, artifact_record, digest, grant, grant_record, holding_record, index, index_hash, node, node_record,
    repository, site_record,
};
use waystation_proto::{
    Change, Hash, Input, NodeId, ReplicaConfig, RequestId, Shared,
    body::{HoldingState, SummaryBody},
    event::Told,
    reconcile::Within,
    record::{Key, Kind},
    wire::{Extent, Message, Progress},
};

const COMPLETE: HoldingState = HoldingState::Complete;

/// What the nodes of a site tell it, and the mesh, as far as this one knows.
fn told(here: &Node, n: u8) -> (Option<HoldingState>, Option<SummaryBody>) {
    let catalog = here.replica.catalog();
    let summary = catalog.get(&Key::summary(&digest(9), &node(n)));
    let holding = catalog.get(&Key::holding("here", &digest(9), &node(n)));
    let holding = holding.and_then(|record| record.read::<waystation_proto::body::HoldingBody>().ok());
    (holding.map(|body| body.state), summary.and_then(|record| record.read().ok()))
}

fn shared(records: Vec<waystation_proto::Record>) -> Vec<Shared> {
    records.into_iter().map(Shared::new).collect()
}

/// Node `n`, which has all of artifact 9, and whose site was told.
fn holder(n: u8, others: Vec<waystation_proto::Record>) -> Node {
    let artifact = index(9, &[]);
    let mut records =
        vec![artifact_record(1, &repository("team/app"), &artifact), site_record(n, &digest(9), COMPLETE, 1)];
    records.extend(others);
    Node::restored(n, shared(records), vec![artifact.hash, index_hash(&artifact)])
}

/// Records of a kind that were sent to a member.
fn sent(here: &Node, to: NodeId, kind: Kind) -> usize {
    let records = here.sent.iter().filter_map(|(peer, message)| match message {
        Message::Records(records) if *peer == to => Some(records),
        _ => None,
    });
    records.flatten().filter(|record| record.key.kind == kind).count()
}

#[test]
fn a_publication_is_told_the_site_directly_and_the_mesh_in_summary() {
    let mut here = Node::new(1);
    here.learn([grant_record(&grant(1, 1))]);
    here.meet(2, "here");
    here.meet(3, "there");
    let artifact = index(9, &[]);
    here.tell(Input::Sealed { hash: artifact.hash });
    here.tell(Input::Publish {
        request: RequestId(1),
        repository: repository("team/app"),
        tags: vec![],
        index_hash: index_hash(&artifact),
        index_size: artifact.encode().len() as u64,
        index: artifact,
    });
    assert_eq!(told(&here, 1), (Some(COMPLETE), Some(SummaryBody { state: COMPLETE, copies: 1 })));
    assert_eq!((sent(&here, node(2), Kind::HOLDING), sent(&here, node(3), Kind::HOLDING)), (1, 0));
    assert!(here.announced.iter().all(|record| record.key.kind != Kind::HOLDING), "gossip goes everywhere");
    assert!(here.announced.iter().any(|record| record.key.kind == Kind::SUMMARY));
}

#[test]
fn what_other_sites_tell_themselves_is_not_kept_and_what_a_node_tells_its_site_goes_first() {
    let mut here = Node::new(1);
    let elsewhere = |n: u8| {
        let key_of = Key::holding("there", &digest(9), &node(n));
        let body = waystation_proto::body::HoldingBody { state: COMPLETE };
        let mesh = harness::trust().mesh;
        waystation_proto::Record::author(&mesh, &harness::key(n), None, key_of, 1, harness::WALL, &body)
    };
    here.learn([node_record(2, "here"), node_record(3, "there"), elsewhere(3)]);
    assert_eq!(here.replica.catalog().holders(&digest(9)).count(), 0);
    here.learn([
        site_record(2, &digest(9), HoldingState::Partial, 1),
        holding_record(2, &digest(9), COMPLETE, 2),
    ]);
    let holders: Vec<_> = here.replica.catalog().holders(&digest(9)).collect();
    assert_eq!(holders, [(node(2), HoldingState::Partial)]);
    // It has moved: what it told this site does not count any more.
    here.learn([waystation_proto::Record { version: 2, ..node_record(2, "there") }]);
    let moved = {
        let body = node_record(2, "there").read::<waystation_proto::body::NodeBody>().expect("a node");
        let mesh = harness::trust().mesh;
        waystation_proto::Record::author(
            &mesh,
            &harness::key(2),
            None,
            Key::node(&node(2)),
            3,
            harness::WALL,
            &body,
        )
    };
    here.learn([moved]);
    let holders: Vec<_> = here.replica.catalog().holders(&digest(9)).collect();
    assert_eq!(holders, [(node(2), COMPLETE)]);
}

#[test]
fn comparisons_between_sites_leave_out_what_is_a_sites_own() {
    let here = holder(1, vec![]);
    let catalog = here.replica.catalog();
    let ids = |within| catalog.ids(within, 0..=u128::MAX).count();
    assert_eq!(ids(Within::Site), ids(Within::Mesh) + 1);
    assert_ne!(catalog.sum(Within::Site, 0..=u128::MAX), catalog.sum(Within::Mesh, 0..=u128::MAX));
    // Whoever takes this node for one of its site is answered as from another.
    let mut here = holder(1, vec![]);
    here.meet(3, "there");
    here.sent.clear();
    let theirs = Message::Reconcile { site: Some("there".into()), summaries: vec![] };
    here.tell(Input::Received { from: node(3), message: theirs });
    assert!(matches!(&here.sent[..], [(_, Message::Reconcile { site: None, .. })]), "{:?}", here.sent);
}

#[test]
fn two_of_a_site_tell_the_second_of_them_how_many_there_are() {
    // Five nodes have it; this one may come anywhere in the order of the site.
    let tells = |n: u8, already: &[u8]| {
        let mut others = Vec::new();
        for other in (1..=5).filter(|other| *other != n) {
            others.extend([node_record(other, "here"), site_record(other, &digest(9), COMPLETE, 1)]);
        }
        others.extend(already.iter().map(|other| holding_record(*other, &digest(9), COMPLETE, 2)));
        let mut here = holder(n, others);
        for other in (1..=5).filter(|other| *other != n) {
            here.meet(other, "here");
        }
        here.pass(60_000);
        told(&here, n).1
    };
    let first: Vec<u8> = (1..=5).filter(|n| tells(*n, &[]).is_some()).collect();
    assert_eq!(first.len(), 2, "all of them agree who: {first:?}");
    let second: Vec<u8> =
        (1..=5).filter(|n| *n != first[0]).filter(|n| tells(*n, &[first[0]]).is_some()).collect();
    assert_eq!(second, [first[1]]);
    assert_eq!(tells(second[0], &[first[0]]), Some(SummaryBody { state: COMPLETE, copies: 5 }));
    let third = (1..=5).filter(|n| !first.contains(n)).find(|n| tells(*n, &first).is_some());
    assert_eq!(third, None);
}

#[test]
fn another_tells_when_those_who_did_are_away_or_have_it_no_more() {
    let telling = |n: u8| {
        [
            node_record(n, "here"),
            site_record(n, &digest(9), COMPLETE, 1),
            holding_record(n, &digest(9), COMPLETE, 2),
        ]
    };
    let others: Vec<_> = [2, 3].into_iter().flat_map(telling).collect();
    let mut here = holder(1, others.clone());
    here.meet(2, "here");
    here.meet(3, "here");
    here.pass(400_000);
    assert_eq!(told(&here, 1).1, None);
    here.learn([
        site_record(2, &digest(9), HoldingState::Gone, 5),
        holding_record(2, &digest(9), HoldingState::Gone, 6),
    ]);
    here.pass(60_000);
    assert_eq!(told(&here, 1).1, Some(SummaryBody { state: COMPLETE, copies: 2 }));
    // Away: dialled in vain, for more than a minute.
    let mut here = holder(1, others);
    for _ in 0..120 {
        let targets = core::mem::take(&mut here.dialled);
        targets.into_iter().for_each(|target| here.tell(Input::DialFailed { target }));
        here.pass(1_000);
    }
    assert!(told(&here, 1).1.is_some_and(|body| body.state == COMPLETE));
}

#[test]
fn whoever_is_asked_tells_what_the_mesh_was_not_told() {
    let telling = [
        node_record(2, "here"),
        site_record(2, &digest(9), COMPLETE, 1),
        holding_record(2, &digest(9), COMPLETE, 2),
    ];
    let mut here = holder(1, telling.to_vec());
    here.meet(3, "there");
    here.sent.clear();
    let question = Message::WhoHas { manifest: digest(9), hops: 2 };
    here.tell(Input::Received { from: node(3), message: question.clone() });
    assert_eq!(told(&here, 1).1, Some(SummaryBody { state: COMPLETE, copies: 2 }));
    assert_eq!((sent(&here, node(3), Kind::SUMMARY), sent(&here, node(3), Kind::NODE)), (1, 1));
    // Another node of the site knows who has it, and has that one tell.
    let untold = [node_record(4, "here"), site_record(4, &digest(9), COMPLETE, 1)];
    let mut beside = Node::new(1);
    beside.learn(untold);
    beside.meet(4, "here");
    beside.meet(3, "there");
    beside.sent.clear();
    beside.tell(Input::Received { from: node(3), message: question });
    let passed = Message::WhoHas { manifest: digest(9), hops: 1 };
    assert!(beside.sent.contains(&(node(4), passed)), "{:?}", beside.sent);
    beside.learn([holding_record(4, &digest(9), COMPLETE, 2)]);
    assert_eq!(sent(&beside, node(3), Kind::SUMMARY), 1);
}

#[test]
fn who_cannot_reach_the_holders_that_it_knows_asks_too() {
    let artifact = index(9, &[]);
    let mut here = Node::new(1);
    here.learn([grant_record(&grant(5, 1)), artifact_record(5, &repository("team/app"), &artifact)]);
    here.learn([node_record(2, "there"), holding_record(2, &digest(9), COMPLETE, 1)]);
    here.meet(3, "yonder");
    here.want_artifact(1, &repository("team/app"), digest(9), true);
    let asked = |here: &Node| here.sent.iter().any(|(_, message)| matches!(message, Message::WhoHas { .. }));
    assert!(!asked(&here), "it may be reached");
    for _ in 0..8 {
        let targets = core::mem::take(&mut here.dialled);
        targets.into_iter().for_each(|target| here.tell(Input::DialFailed { target }));
        here.pass(500);
    }
    assert!(asked(&here));
}

#[test]
fn a_node_that_moves_to_another_site_says_there_what_it_holds() {
    let telling = [node_record(2, "here"), site_record(2, &digest(9), COMPLETE, 1)];
    let before = holder(1, telling.to_vec());
    let records: Vec<Shared> = before.disk.values().cloned().collect();
    let held: Vec<Hash> = before.held.iter().copied().collect();
    let config = ReplicaConfig { site: "there".into(), ..ReplicaConfig::default() };
    let mut after = Node::configured(1, config.clone(), records, held.clone());
    after.pass(1_000);
    let own = Key::holding("there", &digest(9), &node(1));
    assert!(after.disk.contains_key(&own), "{:?}", after.disk.keys());
    assert_eq!(after.replica.catalog().holding(&digest(9), &node(1)), Some(COMPLETE));
    assert!(
        !after.disk.contains_key(&Key::holding("here", &digest(9), &node(2))),
        "its site's words are not its own"
    );
    let gone = Change::Holding {
        manifest: digest(9),
        node: node(2),
        state: HoldingState::Gone,
        told: Told::Site("here".into()),
    };
    assert!(after.changes.contains(&gone));
    // At the next start its own old words go too.
    let records: Vec<Shared> = after.disk.values().cloned().collect();
    let again = Node::configured(1, config, records, held);
    assert!(
        again.disk.contains_key(&own)
            && !again.disk.contains_key(&Key::holding("here", &digest(9), &node(1)))
    );
}

/// Node `n`, which knows of an artifact that node 90 of its site has, and has a session with that one and another.
fn puller(n: u8) -> (Node, waystation_proto::index::ArtifactIndex) {
    let artifact = index(9, &[("a", 2_000_000), ("b", 10)]);
    let mut here = Node::new(n);
    here.learn([
        artifact_record(90, &repository("team/app"), &artifact),
        node_record(90, "here"),
        site_record(90, &digest(9), COMPLETE, 1),
        holding_record(90, &digest(9), COMPLETE, 2),
    ]);
    here.indexes.insert(index_hash(&artifact), artifact.clone());
    here.meet(90, "here");
    here.meet(91, "here");
    here.sent.clear();
    (here, artifact)
}

/// What node `n` told its site of artifact 9, in order.
fn said_to_site(here: &Node, to: u8) -> Vec<HoldingState> {
    let records = here.sent.iter().filter_map(|(peer, message)| match message {
        Message::Records(records) if *peer == node(to) => Some(records),
        _ => None,
    });
    let of_kind = records.flatten().filter(|record| record.key.kind == Kind::HOLDING);
    let read = |record: &Shared| record.read::<waystation_proto::body::HoldingBody>();
    of_kind.filter_map(|record| read(record).ok()).map(|body| body.state).collect()
}

#[test]
fn a_burst_of_pulls_is_told_once_by_each_node_when_it_has_all() {
    for n in 1..=20 {
        let (mut here, _) = puller(n);
        here.want_artifact(1, &repository("team/app"), digest(9), true);
        here.pass(500);
        here.deliver_all();
        here.pass(1_500);
        here.deliver_all();
        here.pass(120_000);
        assert_eq!(said_to_site(&here, 91), [COMPLETE], "node {n}");
        let announced = here.announced.iter().filter(|record| record.key.kind == Kind::SUMMARY).count();
        assert!(announced <= 1, "node {n} told the mesh {announced} times");
    }
}

#[test]
fn also_where_the_disk_is_slow_or_it_is_all_here_at_once() {
    let (mut here, artifact) = puller(1);
    for hash in [artifact.hash, index_hash(&artifact)] {
        here.tell(Input::Sealed { hash });
    }
    artifact.edges.iter().filter_map(|edge| edge.hash).for_each(|hash| here.tell(Input::Sealed { hash }));
    here.writes_are_quick = false;
    here.want_artifact(1, &repository("team/app"), digest(9), true);
    while !here.writes.is_empty() {
        here.write_done();
    }
    here.pass(120_000);
    assert_eq!(said_to_site(&here, 91), [COMPLETE]);
    let own = Key::holding("here", &digest(9), &node(1));
    assert_eq!(here.disk.get(&own).map(|record| record.version), Some(2), "the last word is on disk");
}

#[test]
fn what_is_here_in_part_for_longer_is_told_once() {
    let (mut here, _) = puller(1);
    here.want_artifact(1, &repository("team/app"), digest(9), true);
    let head = here.fetches.clone();
    head.iter().for_each(|fetch| here.deliver(fetch));
    here.pass(28_000);
    assert_eq!((said_to_site(&here, 91), told(&here, 1)), (vec![], (None, None)));
    here.pass(4_000);
    assert_eq!(said_to_site(&here, 91), [HoldingState::Partial]);
    assert_eq!(told(&here, 1).0, Some(HoldingState::Partial));
    let change = Change::Holding {
        manifest: digest(9),
        node: node(1),
        state: HoldingState::Partial,
        told: Told::Site("here".into()),
    };
    assert!(here.changes.contains(&change));
    here.pass(600_000);
    assert_eq!(said_to_site(&here, 91), [HoldingState::Partial]);
    here.tell(Input::PeerUp { peer: node(90), dialled: None });
    here.deliver_all();
    here.pass(2_000);
    here.deliver_all();
    assert_eq!(said_to_site(&here, 91), [HoldingState::Partial, COMPLETE]);
}

#[test]
fn what_had_only_begun_goes_on_after_a_restart_and_is_told_then() {
    let (mut here, _) = puller(1);
    here.want_artifact(1, &repository("team/app"), digest(9), true);
    here.pass(1_000);
    assert_eq!(said_to_site(&here, 91), []);
    let records: Vec<Shared> = here.disk.values().cloned().collect();
    let mut again = Node::restored(1, records, vec![]);
    assert_eq!(told(&again, 1).0, Some(HoldingState::Partial), "whoever compares with it learns so");
    again.meet(90, "here");
    again.pass(2_000);
    assert!(!again.fetches.is_empty());
}

#[test]
fn a_copy_that_the_first_of_the_site_does_not_get_is_told_soon_by_another() {
    // Two of site "here", which both may be the first of the two; and nobody of it tells.
    let mut tell_at_once = 0;
    for (n, other) in [(1, 2), (2, 1)] {
        let artifact = index(9, &[]);
        let mut here = Node::new(n);
        here.learn([
            artifact_record(90, &repository("team/app"), &artifact),
            node_record(90, "there"),
            holding_record(90, &digest(9), COMPLETE, 2),
        ]);
        here.indexes.insert(index_hash(&artifact), artifact);
        here.meet(90, "there");
        here.meet(other, "here");
        here.want_artifact(1, &repository("team/app"), digest(9), true);
        here.deliver_all();
        assert_eq!(said_to_site(&here, other), [COMPLETE]);
        tell_at_once += usize::from(told(&here, n).1.is_some());
        here.pass(3_500);
        assert!(told(&here, n).1.is_some_and(|body| body.state == COMPLETE));
    }
    assert_eq!(tell_at_once, 1, "whoever comes first need not wait");
}

#[test]
fn a_part_is_found_by_whoever_wants_the_same_whether_it_was_told_or_not() {
    for after in [1_000, 300_000] {
        let (mut here, artifact) = puller(1);
        here.want_artifact(1, &repository("team/app"), digest(9), true);
        let head = here.fetches.clone();
        head.iter().for_each(|fetch| here.deliver(fetch));
        here.pass(1_000);
        let layer = artifact.edges[0].hash.expect("known");
        let first = here.fetches.iter().find(|fetch| fetch.hash == layer && fetch.range.start == 0).cloned();
        here.deliver(&first.expect("it is asked for"));
        // Its only holder is gone for good.
        here.mute.insert(node(90));
        here.tell(Input::PeerDown { peer: node(90) });
        here.pass(after);
        here.meet(50, "there");
        here.sent.clear();
        let nothing = Extent::Partial { have: vec![], coming: vec![] };
        let progress = vec![Progress { hash: layer, extent: nothing }];
        here.tell(Input::Received { from: node(50), message: Message::Progress(progress) });
        here.pass(1_000);
        let gives = |(to, message): &(NodeId, Message)| match message {
            Message::Progress(progress) if *to == node(50) => progress.iter().any(|one| {
                let has =
                    matches!(&one.extent, Extent::Partial { have, .. } if have.iter().any(|byte| *byte != 0));
                one.hash == layer && has
            }),
            _ => false,
        };
        assert!(here.sent.iter().any(gives), "after {after} ms: {:?}", here.sent);
    }
}
