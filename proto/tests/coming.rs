//! A client waits for a holder to which a session is being opened, and no longer than that has a prospect.

mod harness;

use harness::{
    Node, artifact_record, digest, holding_record, index, index_hash, node, node_record, repository,
};
use waystation_proto::{
    Digest, Event, Input, RequestId,
    body::HoldingState,
    event::{BlobRef, DialTarget, Source, WantFailure},
    index::ArtifactIndex,
    wire::{Answer, Message, Standing},
};

const APP: &str = "team/app";

/// A node that knows of one holder, at another site, and has no session with it.
fn apart(index: &ArtifactIndex) -> Node {
    let mut here = Node::new(1);
    here.learn([
        artifact_record(2, &repository(APP), index),
        holding_record(2, &index.manifest, HoldingState::Complete, 1),
        node_record(2, "there"),
    ]);
    here.indexes.insert(index_hash(index), index.clone());
    here
}

/// The dials to a node.
fn dials(here: &Node, to: u8) -> Vec<DialTarget> {
    let is_to = |target: &&DialTarget| matches!(target, DialTarget::Node(id, _) if *id == node(to));
    here.dialled.iter().filter(is_to).cloned().collect()
}

/// A dial to a node comes to nothing.
fn fail(here: &mut Node, to: u8) {
    let target = dials(here, to).pop().expect("it is dialled");
    here.tell(Input::DialFailed { target });
}

fn answer(here: &Node, id: u64) -> Option<Result<(), WantFailure>> {
    here.answers(id).into_iter().find_map(|event| match event {
        Event::WantDone { result, .. } => Some(result.clone()),
        _ => None,
    })
}

const NO_HOLDER: Option<Result<(), WantFailure>> = Some(Err(WantFailure::NoHolder));

#[test]
fn a_first_pull_waits_for_a_slow_dial() {
    let index = index(9, &[("a", 10)]);
    for head_is_held in [false, true] {
        let mut here = apart(&index);
        if head_is_held {
            [index.hash, index_hash(&index)].into_iter().for_each(|hash| here.tell(Input::Sealed { hash }));
        }
        here.want_artifact(1, &repository(APP), digest(9), false);
        assert_eq!(dials(&here, 2).len(), 1);
        here.pass(2_500);
        assert_eq!(answer(&here, 1), None, "head held: {head_is_held}");
        here.tell(Input::PeerUp { peer: node(2), dialled: None });
        here.pass(500);
        here.deliver_all();
        assert_eq!(answer(&here, 1), Some(Ok(())), "head held: {head_is_held}");
    }
}

#[test]
fn so_does_a_first_pull_of_a_blob() {
    let index = index(9, &[("a", 10)]);
    let mut here = apart(&index);
    let edge = &index.edges[0];
    let blob = BlobRef { digest: edge.digest, hash: edge.hash.expect("known"), size: edge.size };
    here.tell(Input::WantBlob { request: RequestId(1), blob, manifest: digest(9) });
    here.pass(2_500);
    assert_eq!(answer(&here, 1), None);
    here.tell(Input::PeerUp { peer: node(2), dialled: None });
    here.pass(500);
    here.deliver_all();
    assert_eq!(answer(&here, 1), Some(Ok(())));
}

#[test]
fn and_one_of_what_an_upstream_had_that_is_away() {
    let mut here = apart(&index(9, &[("a", 10)]));
    let source = Source { repository: repository(APP), digest: digest(9) };
    let pull = Input::Pull {
        request: RequestId(1),
        source,
        size: None,
        manifest: None,
        is_manifest: true,
        away: true,
    };
    here.tell(pull);
    here.pass(2_500);
    assert_eq!(answer(&here, 1), None);
    here.tell(Input::PeerUp { peer: node(2), dialled: None });
    let asked =
        here.sent.iter().any(|(to, message)| *to == node(2) && matches!(message, Message::Ask { .. }));
    assert!(asked);
    let absent = Answer { digest: digest(9), state: Standing::Absent };
    let message = Message::Tell { repository: repository(APP), answers: vec![absent] };
    here.tell(Input::Received { from: node(2), message });
    assert!(matches!(answer(&here, 1), Some(Err(WantFailure::Upstream(_)))));
}

#[test]
fn who_cannot_be_reached_costs_one_client_a_few_seconds_and_the_next_none() {
    let index = index(9, &[("a", 10)]);
    let mut here = apart(&index);
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.pass(3_300);
    assert_eq!(answer(&here, 1), NO_HOLDER);
    here.want_artifact(2, &repository(APP), digest(9), false);
    here.pass(800);
    assert_eq!(answer(&here, 2), NO_HOLDER, "the dial is as good as failed");
    fail(&mut here, 2);
    here.pass(60_000);
    assert!(dials(&here, 2).len() > 1, "it is tried all the same");
    here.want_artifact(3, &repository(APP), digest(9), false);
    here.pass(800);
    assert_eq!(answer(&here, 3), NO_HOLDER, "it could not be reached the last time");
    // Once it has been there, it is waited for again.
    here.tell(Input::PeerUp { peer: node(2), dialled: None });
    here.pass(70_000);
    here.tell(Input::PeerDown { peer: node(2) });
    here.want_artifact(4, &repository(APP), digest(9), false);
    here.pass(2_500);
    assert_eq!(answer(&here, 4), None);
}

#[test]
fn a_dial_that_fails_ends_the_wait_and_the_next_holder_is_tried() {
    let index = index(9, &[("a", 10)]);
    let mut here = apart(&index);
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.pass(300);
    fail(&mut here, 2);
    here.pass(500);
    assert_eq!(answer(&here, 1), NO_HOLDER);

    let mut here = apart(&index);
    for n in 3..8 {
        here.learn([holding_record(n, &index.manifest, HoldingState::Complete, 1)]);
        here.learn([node_record(n, "here")]);
    }
    here.dialled.clear();
    here.now += 25_000;
    here.want_artifact(1, &repository(APP), digest(9), false);
    let first = here.dialled.clone();
    assert_eq!(first.len(), 3);
    for target in first {
        here.tell(Input::DialFailed { target });
    }
    let nodes: std::collections::BTreeSet<_> = here
        .dialled
        .iter()
        .filter_map(|target| if let DialTarget::Node(node, _) = target { Some(*node) } else { None })
        .collect();
    assert_eq!(nodes.len(), 6, "one more for each that failed");
    here.pass(1_500);
    assert_eq!(answer(&here, 1), None, "some are still being dialled");
}

/// Sessions stand long after a line was cut.
#[test]
fn a_site_that_is_cut_off_answers_quickly() {
    let index = index(9, &[("a", 10)]);
    let mut here = apart(&index);
    here.meet(3, "elsewhere");
    here.now += 3_600_000;
    here.timers.retain(|_| false);
    here.mute.insert(node(3));
    here.want_artifact(1, &repository(APP), digest(9), false);
    assert!(!dials(&here, 2).is_empty());
    here.pass(1_000);
    assert_eq!(answer(&here, 1), NO_HOLDER, "nobody of another site shows life");
    // Where one does, the dial is given its time.
    let mut here = apart(&index);
    here.meet(3, "elsewhere");
    here.now += 3_600_000;
    here.timers.retain(|_| false);
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.pass(2_500);
    assert_eq!(answer(&here, 1), None);
    // And where no session is left, one dial that came to nothing is enough to know.
    let mut here = apart(&index);
    fail(&mut here, 2);
    here.learn([holding_record(3, &digest(9), HoldingState::Complete, 1), node_record(3, "elsewhere")]);
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.pass(800);
    assert_eq!(answer(&here, 1), NO_HOLDER);
}

#[test]
fn what_nobody_is_known_to_hold_is_a_fast_no() {
    let index = index(9, &[("a", 10)]);
    let mut here = Node::new(1);
    here.learn([artifact_record(2, &repository(APP), &index)]);
    here.learn([node_record(2, "there")]);
    here.want_artifact(1, &repository(APP), digest(9), false);
    here.pass(800);
    assert_eq!(answer(&here, 1), NO_HOLDER);
    let unknown: Digest = digest(44);
    here.want_artifact(2, &repository(APP), unknown, false);
    assert_eq!(answer(&here, 2), Some(Err(WantFailure::Unknown)));
}
