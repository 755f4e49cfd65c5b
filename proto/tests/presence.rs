//! A client never waits for a holder behind a link that broke without a word, and is never promised what
//! only such a one has.

mod harness;

use harness::{Node, artifact_record, digest, holding_record, index, index_hash, node, repository};
use waystation_proto::{
    Event, Input, RequestId,
    body::HoldingState,
    event::{BlobRef, Fault, WantFailure},
    index::ArtifactIndex,
    wire::Message,
};

const APP: &str = "team/app";

/// A node whose session with the only holder has been quiet for an hour.
fn quiet(index: &ArtifactIndex) -> Node {
    let mut here = Node::new(1);
    here.learn([
        artifact_record(2, &repository(APP), index),
        holding_record(2, &index.manifest, HoldingState::Complete, 1),
    ]);
    here.indexes.insert(index_hash(index), index.clone());
    here.meet(2, "there");
    here.now += 3_600_000;
    here.timers.retain(|_| false);
    here
}

fn held_head(here: &mut Node, index: &ArtifactIndex) {
    for hash in [index.hash, index_hash(index)] {
        here.tell(Input::Sealed { hash });
    }
}

fn no_holder(id: u64) -> Event {
    Event::WantDone { request: RequestId(id), result: Err(WantFailure::NoHolder) }
}

fn done(id: u64) -> Event {
    Event::WantDone { request: RequestId(id), result: Ok(()) }
}

fn probes(here: &Node) -> usize {
    here.sent.iter().filter(|(_, message)| matches!(message, Message::Probe { .. })).count()
}

#[test]
fn what_is_behind_a_dead_link_is_a_fast_no() {
    let index = index(9, &[("a", 10)]);
    for held in [false, true] {
        let mut here = quiet(&index);
        if held {
            held_head(&mut here, &index);
        }
        here.mute.insert(node(2));
        here.want_artifact(1, &repository(APP), digest(9), false);
        assert!(here.answers(1).is_empty(), "not promised before somebody answers");
        here.pass(800);
        assert_eq!(here.answers(1), [&no_holder(1)], "head held: {held}");
        // The next client does not wait for a second probe to be lost, nor longer than the first.
        here.want_artifact(2, &repository(APP), digest(9), false);
        here.pass(800);
        assert_eq!(here.answers(2), [&no_holder(2)]);
        assert!(here.fetches.is_empty() && probes(&here) < 4);
    }
}

#[test]
fn a_blob_behind_a_dead_link_is_a_fast_no_too() {
    let index = index(9, &[("a", 10)]);
    let mut here = quiet(&index);
    here.mute.insert(node(2));
    let edge = &index.edges[0];
    let blob = BlobRef { digest: edge.digest, hash: edge.hash.expect("known"), size: edge.size };
    here.tell(Input::WantBlob { request: RequestId(1), blob, manifest: digest(9) });
    here.pass(800);
    assert_eq!(here.answers(1), [&no_holder(1)]);
}

#[test]
fn a_holder_that_answers_costs_one_question() {
    let index = index(9, &[("a", 10)]);
    let mut here = quiet(&index);
    held_head(&mut here, &index);
    here.want_artifact(1, &repository(APP), digest(9), false);
    assert_eq!(here.answers(1), [&done(1)]);
    let mut here = quiet(&index);
    here.want_artifact(1, &repository(APP), digest(9), true);
    here.deliver_all();
    assert_eq!(here.answers(1), [&done(1)]);
    assert!(here.events.contains(&Event::ArtifactComplete { manifest: digest(9) }));
}

#[test]
fn one_that_is_heard_again_counts_again() {
    let index = index(9, &[("a", 10)]);
    let mut here = quiet(&index);
    held_head(&mut here, &index);
    here.mute.insert(node(2));
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.pass(800);
    assert_eq!(here.answers(1), [&no_holder(1)]);
    here.tell(Input::Received { from: node(2), message: Message::Records(vec![]) });
    here.want_artifact(2, &repository(APP), digest(9), false);
    assert_eq!(here.answers(2), [&done(2)]);
}

/// The answer to a probe stands behind the bytes that a thin link is full of.
#[test]
fn a_transfer_under_way_is_not_given_up_for_a_late_answer() {
    let index = index(9, &[("a", 10)]);
    let mut here = quiet(&index);
    here.want_artifact(1, &repository(APP), digest(9), false);
    assert_eq!(here.fetches.len(), 2);
    here.mute.insert(node(2));
    here.pass(30_000);
    assert!(here.answers(1).is_empty() && here.hung_up.is_empty(), "{:?}", here.answers(1));
    for fetch in here.fetches.clone() {
        here.tell(Input::FetchFailed { fetch: fetch.fetch, fault: Fault::Peer });
        here.fetches.retain(|other| *other != fetch);
    }
    here.pass(1_000);
    assert_eq!(here.answers(1), [&no_holder(1)]);
}

#[test]
fn a_session_in_name_only_is_ended() {
    let index = index(9, &[("a", 10)]);
    let mut here = Node::new(1);
    here.learn([
        artifact_record(2, &repository(APP), &index),
        holding_record(2, &index.manifest, HoldingState::Complete, 1),
    ]);
    here.meet(2, "there");
    here.pass(20_000);
    here.mute.insert(node(2));
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.pass(59_000);
    assert_eq!(here.hung_up, []);
    here.pass(5_000);
    assert_eq!(here.hung_up, [node(2)]);
}
