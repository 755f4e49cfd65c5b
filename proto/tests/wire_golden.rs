//! The bytes of everything that leaves a node, as committed in `golden.txt`: records and messages written by
//! any released version must decode to the same values for ever, and encode to the same bytes. A change here
//! is a new version of the format beside the old one, never an edit of that file.

mod harness;

use std::collections::BTreeMap;

use harness::{
    WALL, artifact_record, digest, grant, grant_for, grant_record, holding_record, index, key, node_record,
    repository, tag_record, trust,
};
use waystation_proto::{
    Digest, Hash, NodeId, Record, RecordId,
    body::{HoldingState, LeaseBody, LinkBody, PinBody, SightingBody, State, StatusBody, TagBody, Tier},
    grant::{Action, Actions},
    index::ArtifactIndex,
    policy::{Places, Policy, PolicyBody, TagRule, Window},
    reconcile::{Content, Summary},
    record::{Key, Kind},
    time::Wall,
    wire::{Answer, Elsewhere, Extent, Message, Progress, Standing},
};

const GOLDEN: &str = include_str!("golden.txt");

fn records() -> Vec<(&'static str, Record)> {
    let (mesh, author, app) = (trust().mesh, key(1), repository("team/app"));
    let limited = grant_for(1, "team/*", Actions::of(&[Action::Status]), Some(Wall(1_900_000_000)), 300);
    let status = StatusBody { state: State::Quarantined, reason: "looked wrong".into() };
    let status =
        Record::author(&mesh, &author, Some(limited), Key::status(&app, &digest(9)), 70_000, WALL, &status);
    let long = TagBody { target: Some(Digest::Sha512([7; 64])) };
    let tag_key = Key::tag(&app, &harness::tag("v1"));
    let long = Record::author(&mesh, &author, Some(grant(1, 1)), tag_key, 3, WALL, &long);
    let unknown = Key { kind: Kind(4242), scope: "from the future".into(), name: "x".into() };
    let unknown = Record::author(&mesh, &author, None, unknown, 1, Wall(0), &(1u8, "something new"));
    vec![
        ("record tag", tag_record(1, "v1", 1, Some(digest(9)))),
        ("record tag sha512", long),
        ("record tag deleted", tag_record(1, "v1", 2, None)),
        ("record status", status),
        ("record holding", harness::site_record(1, &digest(9), HoldingState::Complete, 1)),
        ("record node", node_record(1, "here")),
        ("record grant", grant_record(&grant(1, 1))),
        ("record artifact", artifact_record(1, &app, &index(9, &[("a", 10)]))),
        ("record unknown", unknown),
    ]
}

/// Of kinds that came after the first release: not part of the fingerprint that was committed with it.
fn later_records() -> Vec<(&'static str, Record)> {
    let (mesh, author, app) = (trust().mesh, key(1), repository("team/app"));
    let link = |version, removed| {
        let (key, body) = (Key::link(&app, &digest(9)), LinkBody { removed });
        Record::author(&mesh, &author, Some(grant(1, 1)), key, version, WALL, &body)
    };
    let name = repository("team/base");
    let policy = |version, policy| {
        let body = PolicyBody { policy };
        Record::author(&mesh, &author, Some(grant(1, 1)), Key::policy(&name), version, WALL, &body)
    };
    vec![
        ("record link removed", link(1, true)),
        ("record link again", link(2, false)),
        ("record policy", policy(1, Some(full_policy()))),
        ("record policy deleted", policy(2, None)),
        ("record summary", holding_record(1, &digest(9), HoldingState::Complete, 1)),
    ]
}

/// A policy that says something in every field.
fn full_policy() -> Policy {
    let pattern = |text: &str| text.parse().expect("a pattern");
    Policy {
        repositories: vec!["team/**".parse().expect("a glob")],
        tags: TagRule { patterns: vec![pattern("v*")], versions: Some(">=1, <2".into()), newest: Some(3) },
        places: Places {
            sites: vec![pattern("shop-*")],
            regions: vec![pattern("eu")],
            nodes: vec!["01234567".into()],
            tiers: vec![Tier::Edge, Tier::Iot],
            labels: [("role".to_owned(), pattern("cache"))].into(),
        },
        platforms: vec!["linux/arm64".into()],
        copies_per_site: Some(2),
        copies: Some(300),
        priority: 10,
        windows: vec![Window { days: 0x7f, from: 1320, to: 360 }],
        utc_offset: -90,
        metered: false,
        grace: 600,
        referrers: true,
        depends: false,
    }
}

fn messages() -> Vec<(&'static str, Message)> {
    let held = Standing::Held { hash: Hash([3; 32]), size: 70_000 };
    let answers = [Standing::Absent, Standing::Pulling, held];
    let answers = answers.map(|state| Answer { digest: digest(9), state }).to_vec();
    let id = |n: u8| RecordId([n; 32]);
    let fingerprint = Summary { from: 0, to: u128::MAX, content: Content::Fingerprint([5; 16], 300) };
    let ids = Summary { from: 1 << 100, to: 1 << 101, content: Content::Ids(vec![id(1), id(2)]) };
    let partial = Extent::Partial { have: vec![255, 1], coming: vec![0, 6] };
    let crowd = Extent::InCrowd { have: vec![3], coming: vec![], beyond: vec![0, 9], farther: vec![5] };
    let crowd = vec![Progress { hash: Hash([4; 32]), extent: crowd }];
    let elsewhere = Progress { hash: Hash([5; 32]), extent: partial.clone() };
    let elsewhere = Elsewhere { node: NodeId([6; 32]), progress: elsewhere };
    let progress = [partial, Extent::Whole, Extent::Dropped];
    let progress = progress.map(|extent| Progress { hash: Hash([3; 32]), extent });
    vec![
        (
            "message records",
            Message::Records(vec![
                tag_record(1, "v1", 1, Some(digest(9))).into(),
                node_record(2, "there").into(),
            ]),
        ),
        ("message records none", Message::Records(vec![])),
        ("message reconcile", Message::Reconcile { site: None, summaries: vec![fingerprint.clone(), ids] }),
        (
            "message reconcile within a site",
            Message::Reconcile { site: Some("shop-7".into()), summaries: vec![fingerprint] },
        ),
        ("message request", Message::Request(vec![id(3)])),
        (
            "message ask",
            Message::Ask { repository: repository("docker.io/library/x"), digests: vec![digest(9)] },
        ),
        ("message tell", Message::Tell { repository: repository("docker.io/library/x"), answers }),
        ("message probe", Message::Probe { nonce: 300 }),
        ("message probe answer", Message::ProbeAnswer { nonce: 300, outside: 7 }),
        ("message progress in a crowd", Message::Progress(crowd)),
        ("message let go", Message::LetGo),
        ("message who has", Message::WhoHas { manifest: digest(9), hops: 2 }),
        ("message progress", Message::Progress(progress.to_vec())),
        ("message elsewhere", Message::Elsewhere(vec![elsewhere])),
        ("message lease ask", Message::LeaseAsk { manifest: digest(9), blobs: vec![Hash([3; 32])] }),
        ("message lease answer", Message::LeaseAnswer { manifest: digest(9), granted: true }),
    ]
}

/// The committed bytes under each name.
fn golden() -> BTreeMap<&'static str, Vec<u8>> {
    let hex = data_encoding::HEXLOWER;
    let lines = GOLDEN.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let parsed = lines.map(|line| {
        let (name, bytes) = line.split_once(" = ").expect("name = bytes");
        (name, hex.decode(bytes.as_bytes()).expect("hexadecimal"))
    });
    parsed.collect()
}

#[track_caller]
fn same(name: &str, bytes: &[u8]) {
    let hex = data_encoding::HEXLOWER.encode(bytes);
    let committed = golden().remove(name).unwrap_or_default();
    assert!(
        committed == bytes,
        "the bytes changed, which needs a new version of the format:\n{name} = {hex}"
    );
}

#[test]
fn records_keep_their_bytes() {
    for (name, record) in records().into_iter().chain(later_records()) {
        same(name, &record.encode());
        assert_eq!(record.check(&trust()), Ok(()), "{name}");
        assert_eq!(Record::decode(&golden()[name]), Ok(record), "{name}");
    }
}

#[test]
fn messages_keep_their_bytes() {
    for (name, message) in messages() {
        same(name, &message.encode());
        assert_eq!(Message::decode(&golden()[name]), Ok(message), "{name}");
    }
}

/// Notes of a node's for itself: on its own disk only.
#[test]
fn notes_keep_their_bytes() {
    let (mesh, author) = (trust().mesh, key(1));
    let note = |name: &str| Key { kind: Kind::LOCAL, scope: String::new(), name: name.into() };
    let lease = LeaseBody { manifest: digest(9), millis: 600_000 };
    let lease = Record::author(&mesh, &author, None, note("lease/3"), 2, WALL, &lease);
    let pin = note(&format!("pin/{}", digest(9)));
    let pin = Record::author(&mesh, &author, None, pin, 1, WALL, &PinBody { pinned: true });
    for (name, record) in [("note lease", lease), ("note pin", pin)] {
        same(name, &record.encode());
        assert!(record.check(&trust()).is_err(), "nobody takes another node's notes");
        assert_eq!(Record::decode(&golden()[name]), Ok(record));
    }
}

#[test]
fn sightings_keep_their_bytes() {
    let key_of = Key::sighting(&repository("docker.io/library/x"), &harness::tag("v1"), &harness::node(1));
    let body = SightingBody { manifest: digest(9), seen: WALL };
    let sighting = Record::author(&trust().mesh, &key(1), Some(grant(1, 1)), key_of, 2, WALL, &body);
    same("sighting", &sighting.encode());
    assert_eq!(sighting.check(&trust()), Ok(()));
    assert_eq!(Record::decode(&golden()["sighting"]), Ok(sighting));
}

#[test]
fn artifact_indexes_keep_their_bytes() {
    let index = index(9, &[("a", 10), ("b", 70_000)]);
    same("index", &index.encode());
    assert_eq!(ArtifactIndex::decode(&golden()["index"]), Ok(index));
}

/// What is derived by hashing is as fixed as what is sent: catalogs are compared by it.
#[test]
fn names_and_fingerprints_keep_their_bytes() {
    let record = tag_record(1, "v1", 1, Some(digest(9)));
    same("id", &record.id().0);
    same("prefix", &record.key.prefix());
    same("mesh", &trust().mesh.0);
    let mut catalog = waystation_proto::catalog::Catalog::default();
    let by_author = waystation_proto::quota::Quota::MESH;
    let limits = waystation_proto::catalog::Limits { records: 100, unknown: 100, by_author };
    records().into_iter().for_each(|(_, record)| {
        catalog.apply(record, limits);
    });
    same("opening", &waystation_proto::reconcile::opening(&catalog, None).encode());
    same("hash", &Hash::of(b"waystation").0);
}

#[test]
fn nothing_in_the_file_is_left_over() {
    let others = ["sighting", "note lease", "note pin", "index", "id", "prefix", "mesh", "opening", "hash"];
    let records: Vec<_> = records().into_iter().chain(later_records()).collect();
    let messages = messages();
    let known: Vec<&str> = records
        .iter()
        .map(|(name, _)| *name)
        .chain(messages.iter().map(|(name, _)| *name))
        .chain(others)
        .collect();
    for name in golden().into_keys() {
        assert!(known.contains(&name), "{name} is not tested");
    }
}

/// One flipped bit anywhere is noticed: by decoding, or by the check.
#[test]
fn no_bit_of_a_record_can_be_changed() {
    let bytes = tag_record(1, "v1", 1, Some(digest(9))).encode();
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        let accepted = Record::decode(&changed).is_ok_and(|record| record.check(&trust()).is_ok());
        assert!(!accepted, "bit {bit}");
    }
}
