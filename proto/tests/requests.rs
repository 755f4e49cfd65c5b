//! Requests to have something are answered once, in good time, and truly.

mod harness;

use harness::{Node, artifact_record, digest, holding_record, index, index_hash, node, repository};
use waystation_proto::{
    Change, Event, Input, RequestId,
    body::HoldingState,
    event::{DialTarget, WantFailure},
    index::ArtifactIndex,
};

const APP: &str = "team/app";

/// A node that knows of an artifact, and a member of its site that has it whole but is not connected.
fn knowing(index: &ArtifactIndex) -> Node {
    let mut here = Node::new(1);
    here.learn([
        artifact_record(2, &repository(APP), index),
        holding_record(2, &index.manifest, HoldingState::Complete, 1),
    ]);
    here.indexes.insert(index_hash(index), index.clone());
    here
}

fn no_holder(id: u64) -> Event {
    Event::WantDone { request: RequestId(id), result: Err(WantFailure::NoHolder) }
}

fn done(id: u64) -> Event {
    Event::WantDone { request: RequestId(id), result: Ok(()) }
}

#[test]
fn an_unknown_artifact_is_answered_at_once() {
    let mut here = Node::new(1);
    here.want_artifact(1, &repository(APP), digest(9), false);
    let unknown = Event::WantDone { request: RequestId(1), result: Err(WantFailure::Unknown) };
    assert_eq!(here.answers(1), [&unknown]);
}

#[test]
fn what_nobody_can_supply_is_answered_once_and_soon() {
    let index = index(9, &[("a", 10)]);
    for closure in [false, true] {
        let mut here = knowing(&index);
        here.want_artifact(1, &repository(APP), digest(9), closure);
        here.pass(400);
        assert!(here.answers(1).is_empty(), "a session may still come up");
        here.pass(400);
        assert_eq!(here.answers(1), [&no_holder(1)]);
        here.pass(10_000);
        assert_eq!(here.answers(1), [&no_holder(1)]);
    }
}

#[test]
fn a_manifest_whose_layers_nobody_can_supply_is_answered_too() {
    let index = index(9, &[("a", 10)]);
    let mut here = knowing(&index);
    for hash in [index.hash, index_hash(&index)] {
        here.tell(Input::Sealed { hash });
    }
    here.want_artifact(1, &repository(APP), digest(9), false);
    assert!(here.answers(1).is_empty());
    here.pass(1_000);
    assert_eq!(here.answers(1), [&no_holder(1)]);
}

#[test]
fn a_holder_that_comes_within_the_patience_counts() {
    let index = index(9, &[("a", 10)]);
    let mut here = knowing(&index);
    for hash in [index.hash, index_hash(&index)] {
        here.tell(Input::Sealed { hash });
    }
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.pass(300);
    here.meet(2, "here");
    here.pass(300);
    assert_eq!(here.answers(1), [&done(1)]);
}

#[test]
fn a_manifest_is_answered_when_it_is_here_and_the_closure_follows() {
    let index = index(9, &[("a", 10), ("b", 20)]);
    let mut here = knowing(&index);
    here.meet(2, "here");
    here.want_artifact(1, &repository(APP), digest(9), true);
    assert_eq!(here.fetches.len(), 2, "index and manifest");
    let head = here.fetches.clone();
    head.iter().for_each(|fetch| here.deliver(fetch));
    assert_eq!(here.answers(1), [&done(1)]);
    assert_eq!(here.fetches.len(), 2, "both layers");
    here.deliver_all();
    assert!(here.events.contains(&Event::ArtifactComplete { manifest: digest(9) }));
    let mine: Vec<_> =
        here.replica.catalog().holders(&digest(9)).filter(|(who, _)| *who == node(1)).collect();
    assert_eq!(mine, [(node(1), HoldingState::Complete)]);
}

#[test]
fn a_failure_of_one_part_is_the_only_answer() {
    let index = index(9, &[]);
    let mut here = knowing(&index);
    here.meet(2, "here");
    here.want_artifact(1, &repository(APP), digest(9), false);
    let fetches = here.fetches.clone();
    let (first, second) = (&fetches[0], &fetches[1]);
    let fault = waystation_proto::event::Fault::Local;
    here.tell(Input::FetchFailed { fetch: first.fetch, fault });
    assert_eq!(here.answers(1).len(), 1);
    assert!(here.cancelled.contains(&second.fetch), "the other part is not fetched for nobody");
    here.tell(Input::Sealed { hash: second.hash });
    here.tell(Input::Sealed { hash: first.hash });
    here.pass(5_000);
    assert_eq!(here.answers(1).len(), 1);
}

#[test]
fn an_index_that_cannot_be_read_is_the_only_answer() {
    let index = index(9, &[]);
    let mut here = knowing(&index);
    here.indexes.clear();
    here.meet(2, "here");
    here.want_artifact(1, &repository(APP), digest(9), false);
    let index_fetch = here.fetches.iter().find(|fetch| fetch.hash == index_hash(&index)).cloned();
    here.deliver(&index_fetch.expect("the index is fetched"));
    here.deliver_all();
    here.pass(5_000);
    assert_eq!(here.answers(1).len(), 1);
}

#[test]
fn an_abandoned_request_is_forgotten() {
    let index = index(9, &[("a", 10)]);
    let mut here = knowing(&index);
    here.meet(2, "here");
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.tell(Input::Abandon { request: RequestId(1) });
    assert!(here.fetches.is_empty(), "transfers for nobody are stopped");
    here.pass(5_000);
    assert!(here.answers(1).is_empty());
    assert_eq!(here.replica.counts().wants, 0);
}

#[test]
fn every_repository_that_an_artifact_is_wanted_through_learns_what_it_reaches() {
    let index = index(9, &[("a", 10)]);
    let mut here = knowing(&index);
    here.learn([artifact_record(2, &repository("team/other"), &index)]);
    here.meet(2, "here");
    here.want_artifact(1, &repository(APP), digest(9), true);
    here.want_artifact(2, &repository("team/other"), digest(9), true);
    let head = here.fetches.clone();
    head.iter().for_each(|fetch| here.deliver(fetch));
    // Also one that comes when the index was read already.
    here.learn([artifact_record(2, &repository("team/late"), &index)]);
    here.want_artifact(3, &repository("team/late"), digest(9), true);
    here.deliver_all();
    for name in [APP, "team/other", "team/late"] {
        let reachable = Change::Reachable { repository: repository(name), index: index.clone() };
        assert!(here.changes.contains(&reachable), "{name}");
    }
    assert_eq!(
        (here.answers(1), here.answers(2), here.answers(3)),
        (vec![&done(1)], vec![&done(2)], vec![&done(3)])
    );
}

#[test]
fn whole_holders_are_dialled_also_where_a_partial_one_is_connected() {
    let index = index(9, &[("a", 10)]);
    let mut here = knowing(&index);
    here.learn([harness::node_record(2, "here"), holding_record(3, &digest(9), HoldingState::Partial, 1)]);
    here.meet(3, "here");
    here.pass(30_000);
    here.dialled.clear();
    here.tell(Input::DialFailed { target: DialTarget::Node(node(2), vec![]) });
    here.now += 5_000;
    here.want_artifact(1, &repository(APP), digest(9), false);
    assert!(here.dialled.iter().any(|target| matches!(target, DialTarget::Node(who, _) if *who == node(2))));
}
