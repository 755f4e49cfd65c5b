//! Every way in which a record must be refused, and that what is refused leaves no trace.

mod harness;

use std::{collections::BTreeMap, sync::Arc};

use harness::{Node, WALL, digest, grant, grant_for, key, node, repository, tag, trust};
use serde::Serialize;
use waystation_proto::{
    Event, MeshId, Record,
    body::{
        ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, NodeBody, State, StatusBody, SummaryBody,
        TagBody, Tier,
    },
    glob::Glob,
    grant::{Action, Actions, Grant},
    policy::{Places, Policy, PolicyBody, TagRule},
    record::{Key, Kind, RecordError},
    time::Wall,
};

const APP: &str = "team/app";

/// A record as node 1 authors it.
fn by_one<B: Serialize>(grant: Option<Arc<Grant>>, key_of: Key, version: u64, body: &B) -> Record {
    Record::author(&trust().mesh, &key(1), grant, key_of, version, WALL, body)
}

fn tag_key() -> Key {
    Key::tag(&repository(APP), &tag("v1"))
}

fn to_nine() -> TagBody {
    TagBody { target: Some(digest(9)) }
}

fn good_tag() -> Record {
    by_one(Some(grant(1, 1)), tag_key(), 1, &to_nine())
}

/// Signs again after a change, so that the change itself is what is found wrong.
fn signed_again(record: Record) -> Record {
    let Record { key: key_of, grant, version, authored, body, .. } = record;
    // A raw body: its bytes as they are, without the length that encoding a vector would add.
    let raw = Raw(body);
    Record::author(&trust().mesh, &key(1), grant, key_of, version, authored, &raw)
}

struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple;
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

/// Checks the record by itself, and that a replica that is sent it says so and knows nothing of it.
#[track_caller]
fn refused(what: &str, record: Record, expected: RecordError) {
    assert_eq!(record.check(&trust()), Err(expected.clone()), "{what}");
    let mut here = Node::new(4);
    let (known, durable) = (here.replica.catalog().len(), here.disk.len());
    here.learn([record]);
    let said = Event::RecordsRefused { from: node(200), count: 1, why: expected };
    assert!(here.events.contains(&said), "{what}: {:?}", here.events);
    assert_eq!((here.replica.catalog().len(), here.disk.len()), (known, durable), "{what}");
}

#[track_caller]
fn taken(what: &str, record: Record) {
    assert_eq!(record.check(&trust()), Ok(()), "{what}");
    assert_eq!(Record::decode(&record.encode()), Ok(record.clone()), "{what}");
    let mut here = Node::new(4);
    here.learn([record.clone()]);
    assert_eq!(here.replica.catalog().get(&record.key), Some(&record.into()), "{what}");
}

#[test]
fn good_records_of_every_kind_are_taken() {
    let write = Some(grant(1, 1));
    let place = ArtifactPlace {
        manifest: waystation_proto::Hash([1; 32]),
        manifest_size: 5,
        media_type: "m".into(),
        index: waystation_proto::Hash([2; 32]),
        index_size: 6,
        subject: None,
    };
    let status = StatusBody { state: State::Revoked, reason: "r".repeat(512) };
    let artifact = Key::artifact(&repository(APP), &digest(9));
    taken("tag", good_tag());
    taken("deleted tag", by_one(write.clone(), tag_key(), 2, &TagBody { target: None }));
    taken("status", by_one(write.clone(), Key::status(&repository(APP), &digest(9)), 1, &status));
    taken("artifact", by_one(write.clone(), artifact.clone(), 1, &ArtifactBody { place: Some(place) }));
    taken("deleted artifact", by_one(write, artifact, 2, &ArtifactBody { place: None }));
    taken("holding", harness::holding_record(1, &digest(9), HoldingState::Partial, 1));
    taken("node", harness::node_record(1, "here"));
    taken("grant", harness::grant_record(&grant(7, 3)));
    taken("grant by whoever passes it on", by_one(None, Key::grant(&grant(7, 3)), 3, &*grant(7, 3)));
    taken("unknown kind", by_one(None, Key { kind: Kind(4242), ..tag_key() }, 1, &"anything"));
    taken(
        "unknown kind with a grant",
        by_one(Some(grant(9, 1)), Key { kind: Kind(4242), ..tag_key() }, 1, &"x"),
    );
    taken("highest version", by_one(Some(grant(1, 1)), tag_key(), Record::MAX_VERSION - 1, &to_nine()));
}

#[test]
fn signature() {
    let wrong = RecordError::Signature;
    let good = good_tag();
    let mut signature = good.signature;
    signature[0] ^= 1;
    refused("one bit of the signature", Record { signature, ..good.clone() }, wrong.clone());
    refused("no signature", Record { signature: [0; 64], ..good.clone() }, wrong.clone());
    refused("another version", Record { version: 2, ..good.clone() }, wrong.clone());
    refused("another time", Record { authored: Wall(WALL.0 + 1), ..good.clone() }, wrong.clone());
    refused("another body", Record { body: vec![0], ..good.clone() }, wrong.clone());
    let key_of = Key { name: "v2".into(), ..tag_key() };
    refused("another name", Record { key: key_of, ..good.clone() }, wrong.clone());
    refused("another grant", Record { grant: Some(grant(1, 2)), ..good.clone() }, wrong.clone());
    let unknown = by_one(None, Key { kind: Kind(4242), ..tag_key() }, 1, &"x");
    refused("another author", Record { author: node(2), ..unknown.clone() }, wrong.clone());
    refused(
        "an author that is no key",
        Record { author: waystation_proto::NodeId([2; 32]), ..unknown },
        wrong.clone(),
    );
    let elsewhere =
        Record::author(&MeshId([5; 32]), &key(1), Some(grant(1, 1)), tag_key(), 1, WALL, &to_nine());
    refused("for another mesh", elsewhere, wrong);
}

#[test]
fn grants() {
    let wrong = RecordError::Grant;
    let with = |grant| by_one(grant, tag_key(), 1, &to_nine());
    let limited = |glob, actions, expires| Some(grant_for(1, glob, actions, expires, 1));
    refused("none", with(None), wrong.clone());
    refused("somebody else's", with(Some(grant(2, 1))), wrong.clone());
    refused("expired", with(limited("**", Actions::ALL, Some(Wall(WALL.0 - 1)))), wrong.clone());
    refused("other repositories", with(limited("base/**", Actions::ALL, None)), wrong.clone());
    refused("too few components", with(limited("*", Actions::ALL, None)), wrong.clone());
    let publish_only = || limited("**", Actions::of(&[Action::Publish]), None);
    let others = limited("**", Actions::of(&[Action::Delete, Action::Status]), None);
    refused("other actions", with(others), wrong.clone());
    let delete = by_one(publish_only(), tag_key(), 1, &TagBody { target: None });
    refused("to publish, but deletes a tag", delete, wrong.clone());
    let artifact = Key::artifact(&repository(APP), &digest(9));
    let delete = by_one(publish_only(), artifact, 1, &ArtifactBody { place: None });
    refused("to publish, but deletes an artifact", delete, wrong.clone());
    let status = StatusBody { state: State::Approved, reason: String::new() };
    let status = by_one(publish_only(), Key::status(&repository(APP), &digest(9)), 1, &status);
    refused("to publish, but sets a status", status, wrong.clone());
    let widened = Grant {
        repositories: Glob::everything(),
        ..(*grant_for(1, "base/**", Actions::ALL, None, 1)).clone()
    };
    refused("changed after it was signed", with(Some(Arc::new(widened))), wrong.clone());
    let foreign = Grant::issue(&trust().mesh, &key(50), node(1), Glob::everything(), Actions::ALL, None, 1);
    refused("by another root", with(Some(Arc::new(foreign.clone()))), wrong.clone());
    let elsewhere =
        Grant::issue(&MeshId([5; 32]), &harness::root(), node(1), Glob::everything(), Actions::ALL, None, 1);
    refused("for another mesh", with(Some(Arc::new(elsewhere))), wrong.clone());
    let forged = Some(Arc::new(foreign.clone()));
    refused(
        "forged, where none is needed",
        by_one(forged.clone(), Key { kind: Kind(4242), ..tag_key() }, 1, &1u8),
        wrong.clone(),
    );
    let holding = Key::holding("here", &digest(9), &node(1));
    let complete = HoldingBody { state: HoldingState::Complete };
    refused("forged, on a holding", by_one(forged, holding, 1, &complete), wrong.clone());
    refused("a record of a forged grant", by_one(None, Key::grant(&foreign), 1, &foreign), wrong);
}

#[test]
fn words_about_others() {
    let complete = HoldingBody { state: HoldingState::Complete };
    let holding = RecordError::Malformed("holding of another node");
    refused(
        "holding",
        by_one(None, Key::holding("here", &digest(9), &node(2)), 1, &complete),
        holding.clone(),
    );
    let summary = SummaryBody { state: HoldingState::Complete, copies: 2 };
    refused("summary", by_one(None, Key::summary(&digest(9), &node(2)), 1, &summary), holding.clone());
    let scoped = Key { scope: APP.into(), ..Key::summary(&digest(9), &node(1)) };
    let why = RecordError::Malformed("summary with a scope");
    refused("summary in a repository", by_one(None, scoped, 1, &summary), why);
    let long = Key::holding(&"s".repeat(64), &digest(9), &node(1));
    assert_eq!(by_one(None, long, 1, &complete).check(&trust()), Err(RecordError::TooLarge));
    for name in ["", "/", "sha256:00", &format!("{}", digest(9)), &format!("{}/{}/", digest(9), node(1))] {
        let key_of = Key { name: name.into(), ..Key::holding("here", &digest(9), &node(1)) };
        refused("holding's name", by_one(None, key_of, 1, &complete), holding.clone());
    }
    let body = NodeBody {
        site: "s".into(),
        tier: Tier::Iot,
        addresses: vec!["a:1".into()],
        software: String::new(),
        region: String::new(),
        labels: BTreeMap::new(),
    };
    let other = RecordError::Malformed("node record of another node");
    refused("node", by_one(None, Key::node(&node(2)), 1, &body), other.clone());
    let scoped = Key { scope: "x".into(), ..Key::node(&node(1)) };
    refused("node in a scope", by_one(None, scoped, 1, &body), other.clone());
    let many = NodeBody { addresses: vec!["a:1".into(); 9], ..body.clone() };
    refused("nine addresses", by_one(None, Key::node(&node(1)), 1, &many), other.clone());
    let labels = (0..=NodeBody::LABELS_MAX).map(|n| (n.to_string(), String::new())).collect();
    let labelled = NodeBody { labels, ..body };
    refused("33 labels", by_one(None, Key::node(&node(1)), 1, &labelled), other);
    let misplaced = Key { name: grant(7, 1).name(), ..Key::grant(&grant(8, 1)) };
    let another = RecordError::Malformed("grant under another name");
    refused("grant", by_one(None, misplaced, 1, &*grant(8, 1)), another);
}

/// Anybody may pass a grant on: if they chose the counter too, one member could put an old grant above every
/// later one of that name.
#[test]
fn the_version_of_a_grant_is_what_the_root_signed() {
    let wrong = RecordError::Malformed("grant under another version than its serial");
    let key_of = || Key::grant(&grant(7, 3));
    for version in [1, 2, 4, Record::MAX_VERSION - 1] {
        refused("version", by_one(None, key_of(), version, &*grant(7, 3)), wrong.clone());
    }
}

#[test]
fn whoever_passes_grants_on_does_not_decide_between_them() {
    let narrow = grant_for(7, "**", Actions::of(&[Action::Publish]), None, 3);
    let (wide, passed) = (grant(7, 3), |by: u8, grant: &Grant| {
        Record::author(&trust().mesh, &key(by), None, Key::grant(grant), grant.serial, WALL, grant)
    });
    let won = |by: u8, other: u8| passed(by, &wide).beats(&passed(other, &narrow));
    assert!((1..6).all(|by| (1..6).all(|other| won(by, other) == won(1, 1))));
    let newer = passed(1, &grant(7, 4));
    assert!((1..6).all(|by| newer.beats(&passed(by, &wide)) && newer.beats(&passed(by, &narrow))));
}

#[test]
fn names() {
    let write = || Some(grant(1, 1));
    let tag_named = |name: &str| by_one(write(), Key { name: name.into(), ..tag_key() }, 1, &to_nine());
    for name in ["", ".v1", "-v1", "a/b", "ü", &"a".repeat(129)] {
        refused(name, tag_named(name), RecordError::Malformed("name is not a tag"));
    }
    for scope in ["", "Team/app", "../app", "a//b", "team/"] {
        let record = by_one(write(), Key { scope: scope.into(), ..tag_key() }, 1, &to_nine());
        refused(scope, record, RecordError::Malformed("scope is not a repository"));
    }
    for name in
        ["", "v1", "sha256:00", &format!("sha256:{}", "A".repeat(64)), &format!("md5:{}", "a".repeat(32))]
    {
        let no_digest = RecordError::Malformed("name is not a digest");
        let artifact = Key { name: name.into(), ..Key::artifact(&repository(APP), &digest(9)) };
        refused(name, by_one(write(), artifact, 1, &ArtifactBody { place: None }), no_digest.clone());
        let status = Key { name: name.into(), ..Key::status(&repository(APP), &digest(9)) };
        let body = StatusBody { state: State::Approved, reason: String::new() };
        refused(name, by_one(write(), status, 1, &body), no_digest);
    }
}

#[test]
fn bodies() {
    let with_body = |body: Vec<u8>| signed_again(Record { body, ..good_tag() });
    let good = good_tag();
    assert_eq!(signed_again(good.clone()), good, "the helper changes nothing by itself");
    let malformed = RecordError::Malformed("body");
    refused("empty", with_body(vec![]), malformed.clone());
    refused("cut", with_body(good.body[..10].to_vec()), malformed.clone());
    refused("of a digest of unknown algorithm", with_body(vec![1, 9, 0]), malformed.clone());
    let longer: Vec<u8> = good.body.iter().copied().chain([0]).collect();
    refused("longer", with_body(longer), RecordError::Malformed("body is not in canonical form"));
    // The length 32 in two bytes instead of one.
    let mut loose = good.body.clone();
    loose.splice(2..3, [0xa0, 0x00]);
    refused("with a loose length", with_body(loose), RecordError::Malformed("body is not in canonical form"));
    let node_key = Key::node(&node(1));
    refused("of another kind", by_one(None, node_key, 1, &99u8), malformed);
}

#[test]
fn versions() {
    for version in [0, Record::MAX_VERSION, u64::MAX] {
        let record = by_one(Some(grant(1, 1)), tag_key(), version, &to_nine());
        refused("version", record, RecordError::Version(version));
    }
}

#[test]
fn sizes() {
    let write = || Some(grant(1, 1));
    let unknown = || Key { kind: Kind(4242), scope: String::new(), name: String::new() };
    let large = RecordError::TooLarge;
    let raw = |len: usize| Raw(vec![7; len]);
    taken("largest body", by_one(None, unknown(), 1, &raw(Record::MAX_BODY)));
    refused("body", by_one(None, unknown(), 1, &raw(Record::MAX_BODY + 1)), large.clone());
    let named =
        |name: usize, scope: usize| Key { name: "n".repeat(name), scope: "s".repeat(scope), ..unknown() };
    taken("longest names", by_one(None, named(320, 240), 1, &1u8));
    refused("name", by_one(None, named(321, 0), 1, &1u8), large.clone());
    refused("scope", by_one(None, named(0, 241), 1, &1u8), large.clone());
    let status = StatusBody { state: State::Approved, reason: "r".repeat(513) };
    refused("reason", by_one(write(), Key::status(&repository(APP), &digest(9)), 1, &status), large.clone());
    let place = ArtifactPlace {
        manifest: waystation_proto::Hash([1; 32]),
        manifest_size: 1,
        media_type: "m".repeat(256),
        index: waystation_proto::Hash([1; 32]),
        index_size: 1,
        subject: None,
    };
    let artifact =
        by_one(write(), Key::artifact(&repository(APP), &digest(9)), 1, &ArtifactBody { place: Some(place) });
    refused("media type", artifact, large.clone());
    let body = NodeBody {
        site: String::new(),
        tier: Tier::Edge,
        addresses: vec![],
        software: String::new(),
        region: String::new(),
        labels: BTreeMap::new(),
    };
    let about = |body: NodeBody| by_one(None, Key::node(&node(1)), 1, &body);
    refused("site", about(NodeBody { site: "s".repeat(64), ..body.clone() }), large.clone());
    refused("software", about(NodeBody { software: "s".repeat(65), ..body.clone() }), large.clone());
    refused("region", about(NodeBody { region: "r".repeat(64), ..body.clone() }), large.clone());
    let labels = [("k".to_owned(), "v".repeat(64))].into();
    refused("label", about(NodeBody { labels, ..body.clone() }), large.clone());
    refused("address", about(NodeBody { addresses: vec!["a".repeat(256)], ..body }), large);
}

#[test]
fn one_bad_record_does_not_spoil_the_others() {
    let mut here = Node::new(4);
    let bad = Record { version: 2, ..good_tag() };
    here.learn([bad.clone(), good_tag(), bad]);
    assert_eq!(here.replica.catalog().get(&tag_key()), Some(&good_tag().into()));
    let said = Event::RecordsRefused { from: node(200), count: 2, why: RecordError::Signature };
    assert!(here.events.contains(&said));
}

fn policy_of(repositories: &[&str]) -> Policy {
    Policy {
        repositories: repositories.iter().map(|glob| glob.parse().expect("a glob")).collect(),
        tags: TagRule::default(),
        places: Places::default(),
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
    }
}

/// A policy's name is covered like a repository, so that nobody replaces or deletes the policies of others.
#[test]
fn a_policy_needs_a_grant_for_its_name_and_all_its_repositories() {
    let by = |glob: &str, actions, name: &str, policy: Option<Policy>| {
        let write = grant_for(1, glob, actions, None, 1);
        by_one(Some(write), Key::policy(&repository(name)), 1, &PolicyBody { policy })
    };
    let team = || Some(policy_of(&["team/**", "team/app"]));
    taken("policy", by("team/**", Actions::of(&[Action::Policy]), "team/base", team()));
    taken("deleted policy", by("team/**", Actions::of(&[Action::Policy]), "team/base", None));
    let wrong = RecordError::Grant;
    refused("name", by("team/**", Actions::ALL, "base", team()), wrong.clone());
    refused("deleted by others", by("team/**", Actions::ALL, "base", None), wrong.clone());
    let more = Some(policy_of(&["team/**", "other/app"]));
    refused("repositories", by("team/**", Actions::ALL, "team/base", more), wrong.clone());
    let publish = Actions::of(&[Action::Publish, Action::Delete, Action::Status]);
    refused("action", by("team/**", publish, "team/base", team()), wrong.clone());
    let key_of = Key::policy(&repository("team/base"));
    refused("no grant", by_one(None, key_of.clone(), 1, &PolicyBody { policy: team() }), wrong);
    let scoped = Key { scope: "team".into(), ..key_of };
    let record = by_one(Some(grant(1, 1)), scoped, 1, &PolicyBody { policy: team() });
    refused("scope", record, RecordError::Malformed("policy's name"));
    let none = by("**", Actions::ALL, "team/base", Some(policy_of(&[])));
    refused("no repositories", none, RecordError::Malformed("a policy names no repositories"));
}
