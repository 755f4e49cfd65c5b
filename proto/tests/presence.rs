//! A client never waits for a holder behind a link that broke without a word, and is never promised what
//! only such a one has.

mod harness;

use harness::{Node, artifact_record, digest, holding_record, index, index_hash, node, repository};
use waystation_proto::{
    Event, Input, RequestId,
    body::HoldingState,
    event::DialTarget,
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

#[test]
fn a_link_that_broke_in_the_night_is_noticed_though_nothing_was_to_be_said() {
    let mut here = Node::new(1);
    here.meet(2, "there");
    here.pass(20_000);
    here.mute.insert(node(2));
    here.pass(44 * 60_000);
    assert_eq!(here.hung_up, [node(2)]);
}

#[test]
fn one_end_asks_whether_a_quiet_session_is_still_there() {
    let (first, second) = if node(1) < node(2) { (1, 2) } else { (2, 1) };
    for (me, other, asked) in [(first, second, 1), (second, first, 0)] {
        let mut here = Node::new(me);
        here.meet(other, "there");
        here.pass(41 * 60_000);
        assert_eq!((probes(&here), here.probed), (0, asked), "as seen by {me}");
        assert_eq!(here.hung_up, []);
    }
}

/// The records that came with a message to a member.
fn told(here: &Node, to: u8) -> Vec<waystation_proto::Shared> {
    let of = |(peer, message): &(waystation_proto::NodeId, Message)| match message {
        Message::Records(records) if *peer == node(to) => records.clone(),
        _ => Vec::new(),
    };
    here.sent.iter().flat_map(of).collect()
}

#[test]
fn a_holder_that_was_never_heard_of_is_found_by_asking() {
    let index = index(9, &[("a", 10)]);
    let mut here = Node::new(1);
    here.learn([artifact_record(5, &repository(APP), &index)]);
    here.meet(2, "here");
    here.sent.clear();
    here.want_artifact(1, &repository(APP), digest(9), false);
    let question = Message::WhoHas { manifest: digest(9), hops: 2 };
    assert_eq!(here.sent.iter().filter(|sent| **sent == (node(2), question.clone())).count(), 1);
    // The one that is asked does not know either, and asks on; the third does.
    let mut between = Node::new(2);
    for n in [1, 3] {
        between.meet(n, "here");
    }
    between.sent.clear();
    between.tell(Input::Received { from: node(1), message: question });
    let onward = Message::WhoHas { manifest: digest(9), hops: 1 };
    assert_eq!(between.sent, [(node(3), onward.clone())]);
    let mut third = Node::new(3);
    third.learn([holding_record(4, &digest(9), HoldingState::Complete, 1), harness::node_record(4, "there")]);
    third.meet(2, "here");
    third.sent.clear();
    third.tell(Input::Received { from: node(2), message: onward });
    let answer = told(&third, 2);
    assert_eq!(answer.len(), 2, "who has it, and where that is");
    between.sent.clear();
    between.tell(Input::Received { from: node(3), message: Message::Records(answer.clone()) });
    assert_eq!(told(&between, 1), answer);
    here.dialled.clear();
    here.tell(Input::Received { from: node(2), message: Message::Records(answer) });
    let dials_four = |target: &DialTarget| matches!(target, DialTarget::Node(to, _) if *to == node(4));
    assert!(here.dialled.iter().any(dials_four), "{:?}", here.dialled);
}

#[test]
fn questions_are_bounded_in_rate_and_reach() {
    let mut here = Node::new(1);
    (2..12).for_each(|n| here.meet(n, "here"));
    here.sent.clear();
    let ask = |here: &mut Node, n: u16, hops: u8| {
        let manifest = waystation_proto::Digest::Sha256(*blake3::hash(&n.to_be_bytes()).as_bytes());
        here.tell(Input::Received { from: node(2), message: Message::WhoHas { manifest, hops } });
    };
    ask(&mut here, 0, 1);
    assert_eq!(here.sent, [], "the last one asks nobody");
    ask(&mut here, 1, 255);
    ask(&mut here, 1, 255);
    assert_eq!(here.sent.len(), 4, "not all, and once");
    assert!(here.sent.iter().all(|(_, message)| matches!(message, Message::WhoHas { hops: 1, .. })));
    (2..1_000).for_each(|n| ask(&mut here, n, 2));
    assert!(here.sent.len() <= 4 * 32, "{}", here.sent.len());
}
