//! A member that breaks the rules of the control plane is heard, counted and told of, and changes nothing.
//! Members are trusted with bytes, not with facts: only what is rightly signed counts.

use std::{sync::Arc, time::Duration};

use ed25519_dalek::SigningKey;
use tempfile::TempDir;
use waystation::mesh::RootKey;
use waystation_proto::{
    Digest, MeshId, NodeId, RecordId, Shared, Wall,
    body::{HoldingState, SummaryBody, TagBody},
    glob::Glob,
    grant::{Actions, Grant},
    reconcile::{Content, Summary},
    record::{Key, Kind, Record},
    wire::Message,
};

use crate::{
    harness::{
        cluster::{Cluster, export_mesh},
        image::{Image, random_bytes},
        node::{Node, Options, temp_dir},
        wait::{until_true, until_within},
    },
    member::Member,
    watch::{MIB, Watch, assert_no_panic, records, wait_for_log},
};

const GARBAGE: &str = "waystation_garbage_frames_total";
const REFUSED: &str = "waystation_records_refused_total";
const GROWTH: u64 = 64 * MIB;
/// What a member's clock says.
const NOW: Wall = Wall(1_700_000_000);

/// A node that made a mesh and holds `app:v1`, and a member with a session.
struct Scene {
    node: Node,
    member: Member,
    image: Image,
    _folder: TempDir,
}

impl Scene {
    #[track_caller]
    fn set(seed: u64) -> Self {
        let node = Node::start(Options::site("ours"));
        let image = Image::random(seed, &[300_000]);
        node.registry().push("app", "v1", &image);
        let folder = temp_dir("mesh");
        let mesh_file = folder.path().join("mesh.toml");
        export_mesh(&node, &mesh_file);
        let member = Member::new(&mesh_file);
        member.join(&node);
        Scene { node, member, image, _folder: folder }
    }

    fn owner(&self) -> NodeId {
        self.node.id().parse().unwrap()
    }

    fn root(&self) -> RootKey {
        RootKey::load(&self.node.data_dir().join("root.key")).unwrap()
    }
}

#[test]
fn messages_share_a_stream_and_one_that_ends_is_made_anew() {
    let scene = Scene::set(20);
    let is_of_node = |record: &Record| record.key == Key::node(&scene.owner());
    scene.member.read_record(is_of_node);
    scene.member.seen().records.clear();
    scene.member.read_record(is_of_node);
    assert_eq!(scene.member.seen().streams, 1, "small messages have one stream");
    scene.member.seen().closes_streams = true;
    for _ in 0..3 {
        scene.member.seen().records.clear();
        scene.member.read_record(is_of_node);
    }
    let streams = scene.member.seen().streams;
    assert!(streams >= 3, "{streams} streams: those that ended are not used any more");
}

#[test]
fn frames_that_are_no_messages_are_dropped_and_their_sender_in_the_end_too() {
    let scene = Scene::set(1);
    let watch = Watch::over(&scene.node, &scene.image);
    let good = Message::Records(vec![]).encode();
    let mut other_version = good.clone();
    other_version[0] = 2;
    let with_length = |length: u32, body: &[u8]| [&length.to_be_bytes()[..], body].concat();
    let whole = |body: &[u8]| with_length(body.len() as u32, body);
    let many_ids = Message::Request(vec![RecordId([7; 32]); Message::MAX_ITEMS + 1]).encode();
    let frames = [
        whole(&[]),
        whole(&random_bytes(1, 1_000)),
        whole(&[&[1, 0][..], &random_bytes(2, 1_000)].concat()),
        // A list that says to have as many items as there are numbers.
        whole(&[1, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1]),
        whole(&[good.clone(), vec![0]].concat()),
        whole(&other_version),
        whole(&many_ids),
        with_length(Message::MAX_BYTES as u32 + 1, &vec![0; Message::MAX_BYTES + 1]),
        with_length(u32::MAX, &[0; 1_000]),
        with_length(1_000, &[0; 10]),
    ];
    for (n, frame) in frames.iter().enumerate() {
        scene.member.frame(frame.clone());
        until_true(&format!("frame {n} is counted"), || scene.node.metric(GARBAGE) >= (n + 1) as f64);
    }
    assert_eq!(scene.member.seen().connections, 1, "a few are forgiven");
    let version = scene.node.log().contains("message of wire version 2, this node speaks version 1");
    assert!(version, "the log does not say what it met");
    watch.unchanged(GROWTH);

    for n in 0..40 {
        scene.member.say_bytes(&random_bytes(n, 100));
    }
    until_true("the session is closed", || scene.member.seen().connections == 0);
    wait_for_log(&scene.node, &["keeps sending nonsense, closing the session"]);
    until_true("the node knows", || scene.node.sessions().is_empty());
    watch.unchanged(GROWTH);
}

#[test]
fn gossip_that_is_no_announcement_is_dropped_and_not_passed_on() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(2, &[100_000]);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    let member = Member::new(cluster.options("x").mesh_file.as_deref().unwrap());
    member.join(&cluster[0]);
    let watch = Watch::over(&cluster[0], &image);
    let request = Message::Request(vec![RecordId([7; 32])]).encode();
    let garbage = [random_bytes(5, 500), vec![], request, vec![9; 60_000]];
    for (n, bytes) in garbage.iter().enumerate() {
        member.gossip(bytes);
        until_true(&format!("gossip {n} is counted"), || cluster[0].metric(GARBAGE) >= (n + 1) as f64);
    }
    watch.unchanged(GROWTH);
    assert_eq!(cluster[1].metric(GARBAGE), 0.0, "garbage was passed on");
    // Gossip still works between the others.
    let later = Image::random(3, &[100_000]);
    cluster[0].registry().push("app", "later", &later);
    cluster[1].registry().wait_for_tag("app", "later", &later);
    cluster.iter().for_each(assert_no_panic);
    cluster[0].stop();
}

#[test]
fn records_that_do_not_count_change_nothing() {
    let scene = Scene::set(4);
    let watch = Watch::over(&scene.node, &scene.image);
    let forged = forgeries(&scene);
    let mut refused = 0;
    for (what, records) in forged {
        let count = records.len();
        scene.member.say(&Message::Records(records.into_iter().map(Shared::new).collect()));
        refused += count;
        until_true(&format!("{what}: counted"), || scene.node.metric(REFUSED) >= refused as f64);
        assert_eq!(scene.node.metric(REFUSED), refused as f64, "{what}");
        watch.unchanged(GROWTH);
    }
    wait_for_log(&scene.node, &["dropped records that do not count", "author has no valid grant for it"]);
    wait_for_log(&scene.node, &["dropped records that do not count", "signature does not fit"]);
    assert_eq!(scene.node.registry().tags("app"), ["v1"]);
    assert_eq!(scene.node.sessions(), [scene.member.id().to_string()]);
}

/// Records that no node may believe, by what is wrong with them.
fn forgeries(scene: &Scene) -> Vec<(&'static str, Vec<Record>)> {
    let mut all = forged_tags(scene);
    all.extend(forged_facts(scene));
    all.extend(malformed(scene));
    all
}

/// Where a tag points, by what right.
fn forged_tags(scene: &Scene) -> Vec<(&'static str, Vec<Record>)> {
    let member = &scene.member;
    let me = member.id();
    let repository = "app".parse().unwrap();
    let target = Some(format!("sha256:{}", "0".repeat(64)).parse().unwrap());
    let publish = |grant: Option<Grant>| {
        let (key, body) = (Key::tag(&repository, &"v1".parse().unwrap()), TagBody { target });
        let author = member.identity.signing_key();
        Record::author(&member.mesh, &author, grant.map(Arc::new), key, 9, NOW, &body)
    };
    let grant = |subject: NodeId, repositories: &str, expires| {
        let glob: Glob = repositories.parse().unwrap();
        scene.root().issue_grant(subject, glob, Actions::ALL, expires, 1)
    };
    let other_root = SigningKey::from_bytes(&[5; 32]);
    let forged = Grant::issue(&member.mesh, &other_root, me, Glob::everything(), Actions::ALL, None, 9);
    let widened = Grant { repositories: Glob::everything(), ..grant(me, "other", None) };
    let changed = Record { authored: Wall(NOW.0 + 1), ..publish(Some(grant(me, "**", None))) };
    vec![
        ("no grant", vec![publish(None)]),
        ("a grant of another node", vec![publish(Some(grant(scene.owner(), "**", None)))]),
        ("a grant that has expired", vec![publish(Some(grant(me, "**", Some(Wall(NOW.0 - 1)))))]),
        ("a grant for another repository", vec![publish(Some(grant(me, "other", None)))]),
        ("a grant that was widened", vec![publish(Some(widened))]),
        ("a grant of another root", vec![publish(Some(forged.clone()))]),
        ("that grant as a record", vec![member.record(Key::grant(&forged), 1, &forged)]),
        ("changed after it was signed", vec![changed]),
        ("in the name of the owner", vec![Record { author: scene.owner(), ..publish(None) }]),
    ]
}

/// What needs no grant, but may only be said by the node itself, in this mesh.
fn forged_facts(scene: &Scene) -> Vec<(&'static str, Vec<Record>)> {
    let member = &scene.member;
    let manifest: Digest = scene.image.digest().parse().unwrap();
    let held = SummaryBody { state: HoldingState::Complete, copies: 1 };
    let own = Key::summary(&manifest, &member.id());
    let others = Key::summary(&manifest, &scene.owner());
    // Later than what the node says itself, however often its addresses have changed.
    let node = Record {
        key: Key::node(&scene.owner()),
        version: 1 << 20,
        ..member.node_record("ours", "127.0.0.1:1")
    };
    let author = member.identity.signing_key();
    let elsewhere = Record::author(&MeshId([9; 32]), &author, None, own.clone(), 9, NOW, &held);
    vec![
        ("what another node holds", vec![member.record(others, 9, &held)]),
        ("what another node is", vec![node]),
        ("another mesh's", vec![elsewhere]),
        ("a body that is none", vec![member.record(own, 9, &"nonsense")]),
    ]
}

/// Of a kind that needs no grant and has no meaning here.
fn malformed(scene: &Scene) -> Vec<(&'static str, Vec<Record>)> {
    let member = &scene.member;
    let absurd = [0, Record::MAX_VERSION, u64::MAX].map(|version| member.record(unknown(0), version, &1));
    let long = member.record(unknown(0), 1, &vec![1u8; Record::MAX_BODY + 1]);
    // Not so many that it would be hung up on.
    let unsigned = (0..150).map(|n| Record { signature: [n as u8; 64], ..member.record(unknown(n), 1, &n) });
    vec![
        ("an absurd version", absurd.to_vec()),
        ("a body that is too long", vec![long]),
        ("many with bad signatures", unsigned.collect()),
    ]
}

fn unknown(n: usize) -> Key {
    Key { kind: Kind(77), scope: String::new(), name: n.to_string() }
}

#[test]
fn a_flood_of_bad_records_does_not_keep_clients_waiting() {
    let scene = Scene::set(5);
    let watch = Watch::over(&scene.node, &scene.image);
    let bad: Vec<_> = (0..3_000)
        .map(|n| {
            let mut record = scene.member.record(unknown(n), 1, &n);
            record.signature[0] ^= 1;
            record
        })
        .collect();
    let message = Message::Records(bad.into_iter().map(Shared::new).collect()).encode();
    assert!(message.len() < Message::MAX_BYTES);
    let before = scene.member.seen().acknowledged;
    for _ in 0..20 {
        scene.member.say_bytes(&message);
    }
    let mut slowest = Duration::ZERO;
    let image = Image::random(6, &[50_000]);
    for n in 0..5 {
        let start = std::time::Instant::now();
        scene.node.registry().push("app", &format!("during-{n}"), &image);
        scene.node.registry().assert_has("app", "v1", &scene.image);
        slowest = slowest.max(start.elapsed());
    }
    println!("slowest push and pull during a flood of 60,000 bad records: {slowest:?}");
    assert!(slowest < Duration::from_secs(30), "a push and a pull took {slowest:?}");
    scene.member.wait_until_said(before + 20);
    // It is not heard for long.
    wait_for_log(&scene.node, &["sending records that nobody could have sent honestly"]);
    until_true("the session is ended", || scene.node.sessions().is_empty());
    watch.unharmed(GROWTH);
}

#[test]
fn ranges_that_make_no_sense_are_answered_in_bounds() {
    let scene = Scene::set(7);
    let watch = Watch::over(&scene.node, &scene.image);
    let summary = |from, to, content| Summary { from, to, content };
    let wrong = |count| Content::Fingerprint([3; 16], count);
    let everything = |content| summary(0, u128::MAX, content);
    let half = u128::MAX / 2;
    let messages = [
        vec![summary(u128::MAX, 0, wrong(3)), summary(7, 6, Content::Ids(vec![]))],
        vec![everything(wrong(u64::MAX)); 4_000],
        vec![everything(wrong(0)); 4_000],
        vec![everything(Content::Ids(vec![])); 4_000],
        (0..4_000).map(|n| summary(n, u128::MAX - n, wrong(1_000_000))).collect(),
        vec![summary(0, half, wrong(0)), summary(half - 5, u128::MAX, wrong(0))],
        vec![everything(Content::Ids((0..4_000u32).map(id).collect()))],
        vec![summary(u128::MAX, u128::MAX, wrong(5))],
        vec![],
    ];
    let bytes_before = scene.member.seen().bytes;
    let said_before = scene.member.seen().acknowledged;
    for summaries in &messages {
        scene.member.say(&Message::Reconcile { site: None, summaries: summaries.clone() });
    }
    scene.member.say(&Message::Request((0..4_096).map(id).collect()));
    scene.member.wait_until_said(said_before + messages.len() + 1);
    // An honest question still gets the whole catalog.
    scene.member.seen().records.clear();
    scene.member.read_record(|record| record.key == Key::node(&scene.owner()));
    let answered = scene.member.seen().bytes - bytes_before;
    println!("{answered} bytes in answer to {} bad messages", messages.len() + 1);
    assert!(answered < 2_000_000, "{answered} bytes were sent in answer");
    assert_eq!(scene.node.metric(GARBAGE), 0.0);
    watch.unchanged(GROWTH);
}

fn id(n: u32) -> RecordId {
    let mut id = [0; 32];
    id[..32].copy_from_slice(blake3::hash(&n.to_be_bytes()).as_bytes());
    RecordId(id)
}

#[test]
fn a_kind_of_record_from_the_future_is_kept_and_passed_on() {
    let mut cluster = Cluster::start(2);
    let mesh_file = cluster.options("x").mesh_file.unwrap();
    let member = Member::new(&mesh_file);
    member.join(&cluster[0]);
    let before = [records(&cluster[0]), records(&cluster[1])];
    let key = Key { kind: Kind(4_711), scope: "any/scope at all".into(), name: "from the future".into() };
    let record = member.record(key.clone(), 3, &("a body", 1u8, vec![7u32; 100]));
    member.gossip(&Message::Records(vec![record.clone().into()]).encode());
    for (node, before) in before.iter().enumerate() {
        until_true(&format!("node {node} keeps it"), || records(&cluster[node]) == before + 1);
    }
    drop(member);
    // What came from others is written a moment later: stopped, not killed.
    for node in [0, 1] {
        assert!(cluster[node].stop().success());
    }
    for node in [0, 1] {
        cluster[node].start_again();
        assert_eq!(records(&cluster[node]), before[node] + 1, "node {node} forgot it");
    }
    // The second node never spoke to the author: it hands on the very bytes.
    let late = Member::new(&mesh_file);
    late.join(&cluster[1]);
    assert_eq!(late.read_record(|record| record.key == key), record);
    // And a node that joins now gets it by comparing catalogs.
    let third = Node::start(cluster.options("late"));
    until_within(Duration::from_secs(60), "a late node has it", || {
        let has = records(&third) > before[0];
        has.then_some(())
    });
    cluster.iter().for_each(assert_no_panic);
}
