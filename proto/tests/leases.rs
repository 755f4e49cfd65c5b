//! Leases between two nodes: a promise is durable before it is given, outlives a restart, and no two nodes delete
//! their copies because each relies on the other's.

mod harness;

use harness::{Node, artifact_record, digest, holding_record, index, index_hash, node, repository};
use waystation_proto::{
    Event, Hash, Input, NodeId, RequestId,
    body::HoldingState,
    event::LeaseRefusal,
    index::ArtifactIndex,
    leases::Leases,
    record::{Key, Kind},
    time::{Now, Time},
    wire::Message,
};

fn artifact() -> ArtifactIndex {
    index(9, &[("a", 10), ("b", 20)])
}

fn blobs() -> Vec<Hash> {
    [artifact().hash].into_iter().chain(artifact().closure().map(|(_, hash)| hash)).collect()
}

/// A node that holds the artifact and knows that another one does.
fn holder(n: u8, other: u8) -> Node {
    let mut held = blobs();
    held.push(index_hash(&artifact()));
    let own = holding_record(n, &digest(9), HoldingState::Complete, 1);
    let mut node = Node::restored(n, vec![own.into()], held);
    let theirs = holding_record(other, &digest(9), HoldingState::Complete, 1);
    node.learn([artifact_record(1, &repository("team/app"), &artifact()), theirs]);
    node.meet(other, "here");
    node.sent.clear();
    node
}

fn ask(node: &mut Node) {
    node.tell(Input::AskLease { request: RequestId(7), manifest: digest(9), blobs: blobs() });
}

/// Gives what one has for the other, and back, until nothing is left.
fn exchange(left: (&mut Node, u8), right: (&mut Node, u8)) {
    for _ in 0..10 {
        for message in leases(left.0) {
            right.0.tell(Input::Received { from: node(left.1), message });
        }
        for message in leases(right.0) {
            left.0.tell(Input::Received { from: node(right.1), message });
        }
    }
}

fn leases(node: &mut Node) -> Vec<Message> {
    let sent = std::mem::take(&mut node.sent).into_iter().map(|(_, message)| message);
    sent.filter(|message| matches!(message, Message::LeaseAsk { .. } | Message::LeaseAnswer { .. })).collect()
}

fn outcome(node: &Node) -> Option<Result<NodeId, LeaseRefusal>> {
    node.events.iter().rev().find_map(|event| match event {
        Event::LeaseDone { result, .. } => Some(*result),
        _ => None,
    })
}

fn leased(node: &Node) -> bool {
    let now = Now { time: Time(node.now), wall: harness::WALL };
    node.replica.kept(now, &[]).leased.contains(&digest(9))
}

fn let_go(node: &mut Node) -> bool {
    let (manifests, leased) = (vec![digest(9)], vec![digest(9)]);
    node.tell(Input::LetGo { request: RequestId(8), manifests, leased, blobs: blobs() });
    matches!(node.answers(8).last(), Some(Event::Written { .. }))
}

#[test]
fn a_promise_is_durable_before_it_is_given() {
    let (mut left, mut right) = (holder(1, 2), holder(2, 1));
    right.writes_are_quick = false;
    ask(&mut left);
    exchange((&mut left, 1), (&mut right, 2));
    assert_eq!(outcome(&left), None, "not on the other's disk yet");
    assert!(leased(&right), "kept from the moment on that it may be promised");
    right.write_done();
    exchange((&mut left, 1), (&mut right, 2));
    assert_eq!(outcome(&left), Some(Ok(node(2))));
    assert!(let_go(&mut left));
    let gone = left.announced.iter().rfind(|record| record.key == Key::summary(&digest(9), &node(1)));
    assert!(gone.is_some(), "everybody hears that it is not held any more");
    assert!(!left.replica.holds(&blobs()[0]));
    assert!(right.announced.iter().all(|record| record.key.kind != Kind::LOCAL), "notes are for oneself");
}

#[test]
fn a_promise_outlives_restarts_and_ends() {
    let (mut left, mut right) = (holder(1, 2), holder(2, 1));
    ask(&mut left);
    exchange((&mut left, 1), (&mut right, 2));
    let records: Vec<_> = right.disk.values().cloned().collect();
    right.pass(Leases::SPAN.0 - 1);
    assert!(leased(&right));
    right.pass(2);
    assert!(!leased(&right));
    let mut again = Node::restored(2, records, blobs());
    assert!(leased(&again), "whatever the clock shows, it counts anew");
    again.pass(Leases::SPAN.0 + 1);
    assert!(!leased(&again));
}

#[test]
fn of_two_that_rely_on_each_other_one_stays() {
    let (mut left, mut right) = (holder(1, 2), holder(2, 1));
    ask(&mut left);
    ask(&mut right);
    exchange((&mut left, 1), (&mut right, 2));
    let granted = [outcome(&left), outcome(&right)].map(|outcome| matches!(outcome, Some(Ok(_))));
    assert_eq!(granted.iter().filter(|granted| **granted).count(), 1, "{granted:?}");
    let went = [let_go(&mut left), let_go(&mut right)];
    assert_eq!(went, granted);
}

#[test]
fn whoever_has_let_go_promises_nothing() {
    let (mut left, mut right) = (holder(1, 2), holder(2, 1));
    ask(&mut left);
    exchange((&mut left, 1), (&mut right, 2));
    assert!(let_go(&mut left));
    // The other one asks in its turn, before it heard of it and long after it had promised.
    right.pass(Leases::SPAN.0 + 1);
    ask(&mut right);
    exchange((&mut right, 2), (&mut left, 1));
    assert_eq!(outcome(&right), Some(Err(LeaseRefusal::Nobody)), "it is the last copy");
    assert!(!let_go(&mut right));
}

#[test]
fn what_was_promised_is_not_let_go() {
    let (mut left, mut right) = (holder(1, 2), holder(2, 1));
    ask(&mut left);
    exchange((&mut left, 1), (&mut right, 2));
    right.tell(Input::LetGo {
        request: RequestId(8),
        manifests: vec![digest(9)],
        leased: vec![],
        blobs: blobs(),
    });
    assert!(matches!(right.answers(8)[..], [Event::Refused { .. }]));
    assert!(right.replica.holds(&blobs()[0]));
}

#[test]
fn an_old_promise_is_not_used() {
    let (mut left, mut right) = (holder(1, 2), holder(2, 1));
    ask(&mut left);
    exchange((&mut left, 1), (&mut right, 2));
    left.pass(Leases::SPAN.0 / 2 + 1);
    assert!(!let_go(&mut left));
}

#[test]
fn nobody_promises_what_it_does_not_hold() {
    let (mut left, mut right) = (holder(1, 2), holder(2, 1));
    let (hash, manifests) = (blobs()[1], vec![digest(9)]);
    right.tell(Input::Lost { hash, manifests });
    ask(&mut left);
    exchange((&mut left, 1), (&mut right, 2));
    assert_eq!(outcome(&left), Some(Err(LeaseRefusal::Nobody)));
}

#[test]
fn one_that_does_not_answer_is_given_up() {
    let mut left = holder(1, 2);
    ask(&mut left);
    left.pass(10_000);
    assert_eq!(outcome(&left), Some(Err(LeaseRefusal::Nobody)));
}

#[test]
fn a_rotten_blob_is_said_to_be_missing_and_fetched_again() {
    let mut left = holder(1, 2);
    left.indexes.insert(index_hash(&artifact()), artifact());
    let (hash, manifests) = (blobs()[1], vec![digest(9)]);
    left.tell(Input::Lost { hash, manifests });
    let said = left.replica.catalog().holders(&digest(9)).find(|(holder, _)| *holder == node(1));
    assert_eq!(said, Some((node(1), HoldingState::Partial)));
    assert!(left.fetches.iter().any(|fetch| fetch.hash == hash && fetch.from == node(2)));
    left.deliver_all();
    let said = left.replica.catalog().holders(&digest(9)).find(|(holder, _)| *holder == node(1));
    assert_eq!(said, Some((node(1), HoldingState::Complete)));
}

#[test]
fn pins_outlive_restarts() {
    let mut left = holder(1, 2);
    left.tell(Input::Pin { request: RequestId(5), manifest: digest(9), pinned: true });
    assert!(matches!(left.answers(5)[..], [Event::Written { .. }]));
    let again = Node::restored(1, left.disk.values().cloned().collect(), blobs());
    let now = Now { time: Time(0), wall: harness::WALL };
    assert!(again.replica.kept(now, &[]).pinned.contains(&digest(9)));
    let mut again = again;
    again.tell(Input::Pin { request: RequestId(6), manifest: digest(9), pinned: false });
    assert!(again.replica.kept(now, &[]).pinned.is_empty());
}
