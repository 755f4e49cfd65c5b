//! This node's own writes: durable before they are told, never lost, never such that others refuse them.

mod harness;

use std::sync::Arc;

use harness::{
    Node, WALL, digest, grant, grant_for, grant_record, index, index_hash, key, node, repository, root, tag,
    tag_record, trust,
};
use waystation_proto::{
    Change, Event, Hash, Input, Record, Refusal, RequestId, Timer,
    body::{State, TagBody},
    grant::{Action, Actions, Grant},
    index::ArtifactIndex,
    record::{Key, Kind},
    time::Wall,
};

const APP: &str = "team/app";

fn publish(node: &mut Node, id: u64, index: &ArtifactIndex, tags: &[&str]) {
    node.tell(Input::Publish {
        request: RequestId(id),
        repository: repository(APP),
        tags: tags.iter().map(|name| tag(name)).collect(),
        index: index.clone(),
        index_hash: index_hash(index),
        index_size: index.encode().len() as u64,
    });
}

fn written(id: u64) -> Event {
    Event::Written { request: RequestId(id) }
}

#[test]
fn nothing_is_told_before_it_is_durable() {
    let mut here = Node::granted(1);
    here.writes_are_quick = false;
    here.announced.clear();
    publish(&mut here, 1, &index(9, &[]), &["v1"]);
    assert!(here.announced.is_empty() && here.answers(1).is_empty());
    assert_eq!(here.replica.catalog().tag(&repository(APP), &tag("v1")), None);
    here.write_done();
    assert_eq!(here.answers(1), [&written(1)]);
    assert_eq!(here.replica.catalog().tag(&repository(APP), &tag("v1")), Some(digest(9)));
    let kinds: Vec<Kind> = here.announced.iter().map(|record| record.key.kind).collect();
    assert_eq!(kinds, [Kind::ARTIFACT, Kind::TAG, Kind::SUMMARY]);
}

#[test]
fn a_write_that_the_disk_refuses_is_refused() {
    let mut here = Node::granted(1);
    here.writes_are_quick = false;
    here.announced.clear();
    publish(&mut here, 1, &index(9, &[]), &["v1"]);
    let (write, _) = here.writes.remove(0);
    here.tell(Input::PersistFailed { write, why: "full".into() });
    let refused = Event::Refused { request: RequestId(1), refusal: Refusal::Storage("full".into()) };
    assert_eq!(here.answers(1), [&refused]);
    assert!(here.announced.is_empty());
    assert_eq!(here.replica.catalog().tag(&repository(APP), &tag("v1")), None);
}

#[test]
fn two_writes_of_one_tag_under_way_have_different_versions() {
    let mut here = Node::granted(1);
    here.writes_are_quick = false;
    publish(&mut here, 1, &index(8, &[]), &["v1"]);
    publish(&mut here, 2, &index(9, &[]), &["v1"]);
    here.write_done();
    here.write_done();
    assert_eq!(here.replica.catalog().tag(&repository(APP), &tag("v1")), Some(digest(9)));
    let record = here.replica.catalog().get(&Key::tag(&repository(APP), &tag("v1")));
    assert_eq!(record.map(|record| record.version), Some(2));
}

/// A tie between a write under way here and one that arrives meanwhile: the disk must end with the winner,
/// else an acknowledged write is gone after a crash.
#[test]
fn a_write_under_way_is_not_overwritten_by_one_that_loses_to_it() {
    // Either may have the higher key.
    let (low, high) = if node(1) < node(2) { (1, 2) } else { (2, 1) };
    for (mine, theirs) in [(high, low), (low, high)] {
        let mut here = Node::granted(mine);
        here.writes_are_quick = false;
        publish(&mut here, 1, &index(9, &[]), &["v1"]);
        here.learn([tag_record(theirs, "v1", 1, Some(digest(7)))]);
        while !here.writes.is_empty() {
            here.write_done();
        }
        assert_eq!(here.answers(1), [&written(1)]);
        let key = Key::tag(&repository(APP), &tag("v1"));
        let known = here.replica.catalog().get(&key).cloned();
        assert_eq!(known.as_ref().map(|record| record.author), Some(node(high)));
        assert_eq!(here.disk.get(&key), known.as_ref(), "after a restart the node knows what it knew before");
    }
}

#[test]
fn a_publication_after_a_deletion_that_is_under_way_counts() {
    let mut here = Node::granted(1);
    let index = index(9, &[]);
    publish(&mut here, 1, &index, &["v1"]);
    here.writes_are_quick = false;
    let (request, repository) = (RequestId(2), repository(APP));
    here.tell(Input::Unpublish { request, repository: repository.clone(), manifest: digest(9) });
    publish(&mut here, 3, &index, &["v1"]);
    while !here.writes.is_empty() {
        here.write_done();
    }
    assert_eq!((here.answers(2), here.answers(3)), (vec![&written(2)], vec![&written(3)]));
    assert!(here.replica.catalog().artifact(&repository, &digest(9)).is_some());
    assert_eq!(here.replica.catalog().tag(&repository, &tag("v1")), Some(digest(9)));
}

#[test]
fn a_node_never_writes_what_others_would_refuse() {
    let mut here = Node::granted(1);
    here.learn([tag_record(2, "v1", Record::MAX_VERSION - 1, Some(digest(7)))]);
    publish(&mut here, 1, &index(9, &[]), &["v1"]);
    assert!(matches!(here.answers(1)[..], [Event::Refused { refusal: Refusal::Invalid(_), .. }]));
    assert_eq!(here.replica.catalog().tag(&repository(APP), &tag("v1")), Some(digest(7)));
    assert!(here.replica.catalog().iter().all(|record| record.check(&trust()).is_ok()));
}

#[test]
fn what_a_grant_does_not_cover_is_refused_with_what_to_do() {
    let mut here = Node::new(1);
    publish(&mut here, 1, &index(9, &[]), &[]);
    assert!(matches!(here.answers(1)[..], [Event::Refused { refusal: Refusal::NoGrant { .. }, .. }]));
    let ended = grant_for(1, "team/*", Actions::of(&[Action::Publish]), Some(Wall(WALL.0 - 1)), 1);
    here.learn([grant_record(&ended)]);
    publish(&mut here, 2, &index(9, &[]), &[]);
    assert!(matches!(here.answers(2)[..], [Event::Refused { refusal: Refusal::Expired { .. }, .. }]));
    here.learn([grant_record(&grant_for(1, "team/**", Actions::of(&[Action::Publish]), None, 2))]);
    publish(&mut here, 3, &index(9, &[]), &["v1"]);
    assert_eq!(here.answers(3), [&written(3)]);
    let (request, repository, tag) = (RequestId(4), repository(APP), tag("v1"));
    here.tell(Input::Untag { request, repository: repository.clone(), tag });
    assert!(matches!(here.answers(4)[..], [Event::Refused { refusal: Refusal::NoGrant { .. }, .. }]));
    let (request, manifest, reason) = (RequestId(5), digest(9), String::new());
    here.tell(Input::SetStatus { request, repository, manifest, state: State::Revoked, reason });
    assert!(matches!(here.answers(5)[..], [Event::Refused { refusal: Refusal::NoGrant { .. }, .. }]));
}

#[test]
fn two_grants_of_one_serial_both_count() {
    let mut here = Node::new(1);
    let other = grant_for(1, "other/**", Actions::ALL, None, 1);
    here.learn([grant_record(&other), grant_record(&grant_for(1, "team/**", Actions::ALL, None, 1))]);
    publish(&mut here, 1, &index(9, &[]), &[]);
    assert_eq!(here.answers(1), [&written(1)]);
}

/// The operator, or a script of theirs, grants the same twice; and the root's machine has lost its clock.
#[test]
fn a_grant_is_written_once_and_never_over_a_newer_one() {
    let mut here = Node::granted(2);
    let mut add = |request: u64, serial: u64, quick: bool| {
        here.writes_are_quick = quick;
        let grant = (*grant_for(1, "team/**", Actions::ALL, None, serial)).clone();
        here.tell(Input::AddGrant { request: RequestId(request), grant });
    };
    add(1, 7, false);
    add(2, 7, false);
    here.write_done();
    here.write_done();
    let key_of = Key::grant(&grant_for(1, "team/**", Actions::ALL, None, 7));
    let first = here.replica.catalog().get(&key_of).cloned().expect("known");
    assert_eq!((here.answers(1), here.answers(2)), (vec![&written(1)], vec![&written(2)]));
    here.writes_are_quick = true;
    let announced = here.announced.len();
    for (request, serial) in [(3, 7), (4, 6)] {
        let grant = (*grant_for(1, "team/**", Actions::ALL, None, serial)).clone();
        here.tell(Input::AddGrant { request: RequestId(request), grant });
    }
    assert_eq!(here.answers(3), [&written(3)]);
    assert!(matches!(here.answers(4)[..], [Event::Refused { refusal: Refusal::Invalid(_), .. }]));
    assert_eq!(here.announced.len(), announced, "nothing new to tell");
    assert_eq!(here.replica.catalog().get(&key_of), Some(&first));
    let next = grant_for(1, "team/**", Actions::ALL, None, 8);
    here.tell(Input::AddGrant { request: RequestId(5), grant: (*next).clone() });
    assert_eq!(here.replica.catalog().get(&key_of).map(|record| record.version), Some(8));
}

/// Kinds that need no grant may not smuggle one in either: this node would rest its own records on it.
#[test]
fn a_forged_grant_is_not_learned_from_any_kind_of_record() {
    let forged = Grant { serial: u64::MAX, signature: [9; 64], ..(*grant(1, 1)).clone() };
    let forged = Some(Arc::new(forged));
    let record = |kind: u16, name: String| {
        let key_of = Key { kind: Kind(kind), scope: String::new(), name };
        Record::author(&trust().mesh, &key(3), forged.clone(), key_of, 1, WALL, &())
    };
    let body = waystation_proto::body::NodeBody {
        site: "here".into(),
        tier: Default::default(),
        addresses: vec![],
        software: String::new(),
        region: String::new(),
        labels: Default::default(),
    };
    let about_itself =
        Record::author(&trust().mesh, &key(3), forged.clone(), Key::node(&node(3)), 1, WALL, &body);
    let mut here = Node::granted(1);
    here.learn([about_itself, record(4242, "x".into())]);
    assert!(here.events.iter().any(|event| matches!(event, Event::RecordsRefused { count: 2, .. })));
    publish(&mut here, 1, &index(9, &[]), &["v1"]);
    assert_eq!(here.answers(1), [&written(1)]);
    let mine = here.replica.catalog().iter().filter(|record| record.author == node(1));
    assert!(mine.into_iter().all(|record| record.check(&trust()).is_ok()));
}

#[test]
fn a_grant_by_another_root_is_refused() {
    let mut here = Node::new(1);
    let glob = "**".parse().expect("a pattern");
    let foreign = Grant::issue(&trust().mesh, &key(50), node(1), glob, Actions::ALL, None, 1);
    here.tell(Input::AddGrant { request: RequestId(1), grant: foreign });
    assert!(matches!(here.answers(1)[..], [Event::Refused { refusal: Refusal::Invalid(_), .. }]));
    let glob = "**".parse().expect("a pattern");
    let genuine = Grant::issue(&trust().mesh, &root(), node(1), glob, Actions::ALL, None, 1);
    here.tell(Input::AddGrant { request: RequestId(2), grant: genuine });
    assert_eq!(here.answers(2), [&written(2)]);
}

#[test]
fn what_does_not_exist_cannot_be_taken_away() {
    let mut here = Node::granted(1);
    let repository = repository(APP);
    here.tell(Input::Untag { request: RequestId(1), repository: repository.clone(), tag: tag("v1") });
    here.tell(Input::Unpublish { request: RequestId(2), repository, manifest: digest(9) });
    for id in [1, 2] {
        assert!(matches!(here.answers(id)[..], [Event::Refused { refusal: Refusal::Unknown(_), .. }]));
    }
}

#[test]
fn taking_an_artifact_back_takes_its_tags_too() {
    let mut here = Node::granted(1);
    publish(&mut here, 1, &index(9, &[]), &["v1", "v2"]);
    publish(&mut here, 2, &index(8, &[]), &["v3"]);
    let repository = repository(APP);
    here.tell(Input::Unpublish {
        request: RequestId(3),
        repository: repository.clone(),
        manifest: digest(9),
    });
    assert_eq!(here.answers(3), [&written(3)]);
    let target = |name| here.replica.catalog().tag(&repository, &tag(name));
    assert_eq!((target("v1"), target("v2"), target("v3")), (None, None, Some(digest(8))));
    assert!(here.replica.catalog().artifact(&repository, &digest(9)).is_none());
    let record = here.replica.catalog().get(&Key::tag(&repository, &tag("v1")));
    assert_eq!(record.map(|record| record.read::<TagBody>()), Some(Ok(TagBody { target: None })));
}

#[test]
fn what_is_held_decides_what_a_publication_says_to_hold() {
    let layers = [("a", 10)];
    let mut here = Node::granted(1);
    publish(&mut here, 1, &index(9, &layers), &[]);
    here.tell(Input::Sealed { hash: Hash::of(b"a") });
    publish(&mut here, 2, &index(8, &layers), &[]);
    let mine = |n| here.replica.catalog().holders(&digest(n)).map(|(_, state)| state).collect::<Vec<_>>();
    use waystation_proto::body::HoldingState::{Complete, Partial};
    assert_eq!((mine(9), mine(8)), (vec![Partial], vec![Complete]));
}

#[test]
fn telling_addresses_again_starts_no_second_set_of_timers() {
    let mut here = Node::new(1);
    for n in 0..5 {
        here.tell(Input::Reachable { addresses: vec![format!("other-{n}:4717")] });
    }
    here.pass(10_000);
    let count = |here: &Node, timer| here.timers.iter().filter(|(_, other)| *other == timer).count();
    assert_eq!((count(&here, Timer::Dial), count(&here, Timer::Reconcile)), (1, 0), "nobody to compare with");
    here.meet(2, "there");
    here.pass(10_000);
    assert_eq!((count(&here, Timer::Dial), count(&here, Timer::Reconcile)), (1, 1));
    let body = here.replica.catalog().node(&node(1));
    assert_eq!(
        body.map(|body| body.addresses.clone()),
        Some(vec!["other-4:4717".into()]),
        "the last ones are told"
    );
}

/// Else nobody would ever learn that this node is there, or has what it has.
#[test]
fn what_the_disk_refused_about_this_node_is_said_later() {
    let mut here = Node::granted(1);
    here.writes_are_quick = false;
    here.tell(Input::Reachable { addresses: vec!["new:4717".into()] });
    let (write, _) = here.writes.remove(0);
    here.tell(Input::PersistFailed { write, why: "full".into() });
    here.pass(2_000);
    let (write, _) = here.writes.remove(0);
    here.tell(Input::PersistFailed { write, why: "full".into() });
    // Something newer is said first: the older is not said after it.
    here.tell(Input::Reachable { addresses: vec!["newest:4717".into()] });
    here.pass(2_000);
    assert_eq!(here.writes.len(), 1);
    here.write_done();
    here.pass(5_000);
    assert!(here.writes.is_empty());
    let body = here.replica.catalog().node(&node(1));
    assert_eq!(body.map(|body| body.addresses.clone()), Some(vec!["newest:4717".into()]));
}

#[test]
fn a_restart_brings_on_what_was_on_its_way() {
    let index = index(9, &[("a", 10)]);
    let mut here = Node::new(1);
    here.learn([
        harness::artifact_record(2, &repository(APP), &index),
        harness::holding_record(2, &digest(9), waystation_proto::body::HoldingState::Complete, 1),
    ]);
    here.meet(2, "here");
    here.want_artifact(1, &repository(APP), digest(9), true);
    let records = here.disk.values().cloned().collect();
    let mut again = Node::restored(1, records, Vec::new());
    again.indexes.insert(index_hash(&index), index);
    again.meet(2, "here");
    again.deliver_all();
    assert!(again.events.contains(&Event::ArtifactComplete { manifest: digest(9) }));
}

#[test]
fn a_blob_is_taken_out_and_linked_again() {
    let mut here = Node::granted(1);
    let (repository, blob) = (repository(APP), digest(5));
    let changed = |here: &Node, removed| {
        let change = Change::Link { repository: self::repository(APP), blob, removed };
        here.changes.iter().filter(|found| **found == change).count()
    };
    // Nothing to write where nothing was taken out.
    here.tell(Input::Relink { request: RequestId(1), repository: repository.clone(), blob });
    assert_eq!((here.answers(1), changed(&here, false)), (vec![&written(1)], 0));
    here.tell(Input::Unlink { request: RequestId(2), repository: repository.clone(), blob });
    assert_eq!((here.answers(2), changed(&here, true)), (vec![&written(2)], 1));
    assert!(here.replica.catalog().is_unlinked(&repository, &blob));
    here.tell(Input::Relink { request: RequestId(3), repository: repository.clone(), blob });
    assert_eq!((here.answers(3), changed(&here, false)), (vec![&written(3)], 1));
    assert!(!here.replica.catalog().is_unlinked(&repository, &blob));
    assert!(here.replica.catalog().iter().all(|record| record.check(&trust()).is_ok()));
}

#[test]
fn links_need_the_grant_for_what_they_do() {
    let (app, blob) = (repository(APP), digest(5));
    let link = |actions: &[Action], removed| {
        let grant = grant_for(1, "team/*", Actions::of(actions), None, 1);
        let body = waystation_proto::body::LinkBody { removed };
        Record::author(&trust().mesh, &key(1), Some(grant), Key::link(&app, &blob), 1, WALL, &body)
    };
    for (action, removed, counts) in [
        (Action::Delete, true, true),
        (Action::Delete, false, false),
        (Action::Publish, true, false),
        (Action::Publish, false, true),
        (Action::Status, true, false),
    ] {
        assert_eq!(link(&[action], removed).check(&trust()).is_ok(), counts, "{action:?} {removed}");
    }
}
