//! Records, artifact indexes and the lookups derived from them.

use std::{collections::BTreeMap, sync::Arc};

use ed25519_dalek::SigningKey;
use waystation_proto::{
    MeshId, NodeId, Tag,
    body::{
        ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, LinkBody, NodeBody, State, StatusBody,
        TagBody, Tier,
    },
    event::{Change, Told},
    glob::Glob,
    grant::{Actions, Grant},
    index::{ArtifactIndex, Edge, EdgeKind},
    record::{Key, Kind, Record},
    time::Wall,
};

use super::*;

fn key() -> SigningKey {
    SigningKey::from_bytes(&[1; 32])
}

fn record<B: serde::Serialize>(key_of: Key, version: u64, body: &B) -> Shared {
    Record::author(&MeshId([0; 32]), &key(), None, key_of, version, Wall(0), body).into()
}

fn tag(name: &str) -> Tag {
    name.parse().expect("valid")
}

fn tag_record(name: &str, version: u64, target: Option<Digest>) -> Shared {
    record(Key::tag(&repo("a"), &tag(name)), version, &TagBody { target })
}

fn index_of(manifest: &[u8], layers: &[&[u8]]) -> ArtifactIndex {
    let edge = |layer: &&[u8]| Edge {
        kind: EdgeKind::Layer,
        digest: sha256(layer),
        hash: Some(Hash::of(layer)),
        size: layer.len() as u64,
        media_type: "layer".to_owned(),
        platform: None,
    };
    ArtifactIndex {
        manifest: sha256(manifest),
        hash: Hash::of(manifest),
        size: manifest.len() as u64,
        media_type: "manifest".to_owned(),
        artifact_type: None,
        annotations: BTreeMap::new(),
        edges: layers.iter().map(edge).collect(),
    }
}

#[tokio::test]
async fn what_the_catalog_has_no_room_for_leaves_the_disk() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let large = |n: u32| Key { kind: Kind(77), scope: String::new(), name: n.to_string() };
    let named = |n: u32| record(large(n), 1, &vec![7u8; 15_000]);
    store.persist((0..100).map(named).collect()).await.expect("persisted");
    store.forget(&(10..100).map(large).collect::<Vec<_>>());
    // One that comes again counts again.
    store.persist(vec![named(17)]).await.expect("persisted");
    while store.0.segments.is_due() {
        drop(store.0.segments.stop().await);
        tokio::task::yield_now().await;
    }
    let opened = reopen(store, &dir).await;
    let mut kept: Vec<u32> = opened.records.iter().flat_map(|record| record.key.name.parse()).collect();
    kept.sort_unstable();
    assert_eq!(kept, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 17]);
}

fn place_of(index: &ArtifactIndex) -> ArtifactPlace {
    let encoded = index.encode();
    ArtifactPlace {
        manifest: index.hash,
        manifest_size: index.size,
        media_type: index.media_type.clone(),
        index: Hash::of(&encoded),
        index_size: encoded.len() as u64,
        subject: index.subject(),
    }
}

fn apply(store: &Store, records: &[Shared]) {
    for record in records {
        let change = record.change().expect("sound");
        change.iter().for_each(|change| store.index().apply(change));
    }
}

/// Everything that can be looked up, to compare.
fn everything(store: &Store) -> String {
    let index = store.index();
    let (a, b) = (repo("a"), repo("b"));
    format!(
        "{:#?}",
        (
            index.tags(&a, None, 100),
            index.tag(&a, &tag("gone")),
            index.artifacts(None),
            index.repositories(None, 100),
            [&a, &b].map(|name| [&b"base"[..], b"top", b"m1", b"m2"].map(|c| index.link(name, &sha256(c)))),
            index.holders(&sha256(b"m1")),
            index.nodes(),
            index.grants(),
            index.held(&sha256(b"base")),
            index.referrers(&a, &sha256(b"m1"), None),
        )
    )
}

/// Two artifacts that share a layer, and a record of each known kind.
async fn publish(store: &Store) -> Vec<Shared> {
    let a = repo("a");
    let me = NodeId(key().verifying_key().to_bytes());
    let mut records = Vec::new();
    let top = index_of(b"m1", &[b"base", b"top"]);
    for (index, manifest) in [(top, "m1"), (index_of(b"m2", &[b"base"]), "m2")] {
        let encoded = index.encode();
        store.ingest_manifest(index.manifest, manifest.into(), encoded.into()).await.expect("stored");
        let place = Some(place_of(&index));
        records.push(record(Key::artifact(&a, &index.manifest), 1, &ArtifactBody { place }));
    }
    store.ingest_bytes(Some(&a), sha256(b"base"), Bytes::from_static(b"base")).await.expect("stored");
    let (m1, m2) = (sha256(b"m1"), sha256(b"m2"));
    let grant = Grant::issue(&MeshId([0; 32]), &key(), me, Glob::everything(), Actions::ALL, None, 1);
    let node = NodeBody {
        site: "s".into(),
        tier: Tier::Edge,
        addresses: vec![],
        software: "w".into(),
        region: String::new(),
        labels: BTreeMap::new(),
    };
    let revoked = StatusBody { state: State::Revoked, reason: "old".into() };
    records.extend([
        tag_record("v1", 1, Some(m1)),
        tag_record("gone", 2, None),
        record(Key::status(&a, &m2), 1, &revoked),
        record(Key::holding("s", &m1, &me), 1, &HoldingBody { state: HoldingState::Complete }),
        record(Key::node(&me), 1, &node),
        record(Key::grant(&grant), 1, &grant),
        record(Key { kind: Kind(99), scope: String::new(), name: "new".into() }, 1, &1u8),
    ]);
    store.persist(records.clone()).await.expect("persisted");
    apply(store, &records);
    for index in [index_of(b"m1", &[b"base", b"top"]), index_of(b"m2", &[b"base"])] {
        store.index().apply(&Change::Reachable { repository: a.clone(), index });
    }
    records
}

#[tokio::test]
async fn lookups_are_the_same_after_the_index_is_lost() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let mut records = publish(&store).await;
    let before = everything(&store);
    let index_dir = store.0.dirs.index();

    let opened = reopen(store, &dir).await;
    assert_eq!(everything(&opened.store), before);
    let mut found = opened.records;
    found.sort_by_key(Shared::id);
    records.sort_by_key(Shared::id);
    assert_eq!(found, records);

    opened.store.shutdown().await;
    drop(opened.store);
    fs::remove_dir_all(&index_dir).expect("removed");
    let store = open(&dir).await;
    assert_eq!(everything(&store), before, "after the index was deleted");

    // Killed: the store closes, the index is not left complete.
    store.0.blobs.shutdown().await;
    drop(store);
    let store = open(&dir).await;
    assert_eq!(everything(&store), before, "after a kill");

    store.shutdown().await;
    drop(store);
    for file in files_below(&index_dir) {
        fs::write(file, "no database").expect("written");
    }
    assert_eq!(everything(&open(&dir).await), before, "after the index was overwritten");
}

#[tokio::test]
async fn referrers_are_known_by_their_subject() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    publish(&store).await;
    let (a, subject) = (repo("a"), sha256(b"m1"));
    let mut about = Vec::new();
    for n in 0..3_u8 {
        let mut index = index_of(&[n], &[]);
        let edge = index_of(b"", &[b"m1"]).edges.remove(0);
        index.edges.push(Edge { kind: EdgeKind::Subject, hash: None, ..edge });
        let place = Some(place_of(&index));
        let artifact = Change::Artifact { repository: a.clone(), manifest: index.manifest, place };
        store.index().apply(&artifact);
        assert!(!store.index().is_reached(&a, &index.manifest));
        about.push(index.manifest);
        store.index().apply(&Change::Reachable { repository: a.clone(), index });
        assert!(store.index().is_reached(&a, &about[usize::from(n)]));
    }
    about.sort();
    let found = |last: Option<&Digest>| store.index().referrers(&a, &subject, last);
    assert_eq!(found(None), about);
    assert_eq!(found(Some(&about[0])), about[1..]);
    assert_eq!(found(Some(&about[2])), []);
    assert_eq!(store.index().referrers(&repo("b"), &subject, None), []);
    // What is about a manifest does not link it.
    assert_eq!(store.index().link(&a, &subject).and_then(|link| link.manifest), Some(subject));
    store.index().apply(&Change::Artifact { repository: a.clone(), manifest: about[1], place: None });
    assert_eq!(found(None), [about[0], about[2]]);
}

#[tokio::test]
async fn links_stay_hidden_while_their_blob_is_out() {
    let (a, top, base) = (repo("a"), sha256(b"top"), sha256(b"base"));
    let out = [top, base].map(|blob| record(Key::link(&a, &blob), 1, &LinkBody { removed: true }));
    for removal_first in [true, false] {
        let dir = TempDir::new().expect("a directory");
        let store = open(&dir).await;
        if removal_first {
            apply(&store, &out);
        }
        publish(&store).await;
        store.persist(out.to_vec()).await.expect("persisted");
        apply(&store, &out);
        let hidden = |store: &Store| [top, base].map(|blob| store.index().link(&a, &blob)) == [None, None];
        assert!(hidden(&store));
        assert!(store.index().link(&a, &sha256(b"m1")).is_some());
        let index_dir = store.0.dirs.index();
        store.shutdown().await;
        drop(store);
        fs::remove_dir_all(&index_dir).expect("removed");
        let store = open(&dir).await;
        assert!(hidden(&store), "after the index was built again");
        // Linked again: by whatever links it.
        apply(&store, &[record(Key::link(&a, &top), 2, &LinkBody { removed: false })]);
        assert_eq!(store.index().link(&a, &top).and_then(|link| link.manifest), Some(sha256(b"m1")));
        assert_eq!(store.index().link(&a, &base), None);
    }
}

#[tokio::test]
async fn an_artifact_takes_only_its_own_links_with_it() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    publish(&store).await;
    let a = repo("a");
    let link = |content: &[u8]| store.index().link(&a, &sha256(content));
    let (m1, m2) = (sha256(b"m1"), sha256(b"m2"));
    assert!(link(b"base").is_some_and(|link| link.manifest.is_some() && link.media_type == "layer"));
    assert_eq!(link(b"top").and_then(|link| link.manifest), Some(m1));
    assert!(store.index().artifact(&a, &m2).is_some_and(|artifact| artifact.status.is_some()));

    let delete = |manifest| Change::Artifact { repository: a.clone(), manifest, place: None };
    store.index().apply(&delete(m1));
    assert_eq!(store.index().artifact(&a, &m1), None);
    assert_eq!((link(b"top"), link(b"m1")), (None, None));
    assert_eq!(link(b"base").and_then(|link| link.manifest), Some(m2));
    store.index().apply(&delete(m2));
    assert_eq!(link(b"base").map(|link| link.manifest), Some(None), "pushed here");
    assert!(store.index().repositories(None, 10).is_empty());

    let place = Some(place_of(&index_of(b"m2", &[b"base"])));
    store.index().apply(&Change::Artifact { repository: a.clone(), manifest: m2, place });
    let artifact = store.index().artifact(&a, &m2).expect("there again");
    assert!(artifact.status.is_some(), "what was revoked stays revoked");
}

#[tokio::test]
async fn tags_and_repositories_are_listed_in_pages() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let names = ["1.0", "Z", "a", "a.b", "a0", "latest"];
    for name in ["latest", "a0", "1.0", "a", "dead", "Z", "a.b"] {
        let target = (name != "dead").then(|| sha256(b"m"));
        apply(&store, &[tag_record(name, 1, target)]);
    }
    let other = record(Key::tag(&repo("a0"), &tag("x")), 1, &TagBody { target: Some(sha256(b"m")) });
    apply(&store, &[other]);
    let page = |last: Option<&str>, limit| -> Vec<String> {
        store.index().tags(&repo("a"), last, limit).into_iter().map(|(tag, _)| tag.to_string()).collect()
    };
    assert_eq!(page(None, 100), names);
    assert_eq!(page(None, 2), names[..2]);
    assert_eq!(page(Some("Z"), 2), names[2..4]);
    assert_eq!(page(Some("b"), 9), names[5..]);
    assert_eq!(store.index().tag(&repo("a"), &tag("dead")).map(|entry| entry.target), Some(None));

    for (name, seed) in [("b", 1u8), ("a/c", 2), ("a", 3), ("a-b", 4), ("a", 5)] {
        let index = index_of(&[seed], &[]);
        let place = Some(place_of(&index));
        store.index().apply(&Change::Artifact { repository: repo(name), manifest: index.manifest, place });
    }
    let page = |last: Option<&str>, limit| -> Vec<String> {
        store.index().repositories(last, limit).iter().map(ToString::to_string).collect()
    };
    assert_eq!(page(None, 10), ["a", "a-b", "a/c", "b"]);
    assert_eq!(page(Some("a"), 2), ["a-b", "a/c"]);
    assert_eq!(store.index().artifacts(Some(&repo("a"))).len(), 2);
}

async fn segment_names(store: &Store) -> usize {
    let names = store.0.blobs.names().await.expect("listed");
    names.iter().filter(|named| matches!(named.ground, ground::Ground::Segment(_))).count()
}

#[tokio::test]
async fn many_small_segments_become_few_and_the_best_of_each_key_stays() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    for version in 1..=150 {
        let target = Some(Digest::Sha256([version as u8; 32]));
        let own = tag_record(&format!("t{version}"), 1, target);
        store.persist(vec![tag_record("moving", version, target), own]).await.expect("persisted");
    }
    // Comes late, counts nothing.
    store.persist(vec![tag_record("moving", 1, None)]).await.expect("persisted");
    drop(store.0.segments.stop().await);
    assert!(segment_names(&store).await < 100);
    let opened = reopen(store, &dir).await;
    assert_eq!(opened.records.len(), 151);
    let moving = opened.records.iter().find(|record| record.key.name == "moving").expect("there");
    assert_eq!(moving.version, 150);
}

#[tokio::test]
async fn segments_that_are_mostly_superseded_are_rewritten() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let batch = |version| -> Vec<Shared> {
        let large = |n: u32| Key { kind: Kind(77), scope: String::new(), name: n.to_string() };
        (0..100).map(|n| record(large(n), version, &vec![7u8; 15_000])).collect()
    };
    for version in 1..=4 {
        store.persist(batch(version)).await.expect("persisted");
        // The rewrite runs beside; wait for it, so that the count below is certain.
        while store.0.segments.is_due() {
            drop(store.0.segments.stop().await);
            tokio::task::yield_now().await;
        }
    }
    assert!(segment_names(&store).await <= 4, "1.5 MB of living records");
    let opened = reopen(store, &dir).await;
    assert_eq!(opened.records.len(), 100);
    assert!(opened.records.iter().all(|record| record.version == 4));
}

#[tokio::test]
async fn a_damaged_segment_is_kept_and_the_others_are_read() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    store.persist(vec![tag_record("v1", 1, None)]).await.expect("persisted");
    let inner = Arc::clone(&store.0);
    let hash = inner.blobs.add_bytes(Bytes::from_static(b"not a segment")).await.expect("added");
    inner.blobs.name(&ground::Ground::Segment(7), hash).await.expect("named");
    drop(inner);
    let opened = reopen(store, &dir).await;
    assert_eq!(opened.records.len(), 1);
    opened.store.persist(vec![tag_record("v2", 1, None)]).await.expect("persisted");
    let opened = reopen(opened.store, &dir).await;
    assert_eq!(opened.records.len(), 2);
    assert_eq!(segment_names(&opened.store).await, 3);
}

#[tokio::test]
async fn an_index_that_missed_something_is_not_left_as_complete() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let (early, late) = (bytes(1, 100), bytes(2, 100));
    store.ingest(Some(&repo("a")), sha256(&early), NO_LIMIT, body(&early)).await.expect("taken in");
    // A client's push that is durable in the store just before the index is left, and told to it just after.
    let inner = &store.0;
    inner.keep_bytes(Hash::of(&late), late.clone()).await.expect("kept");
    let held = Held { digest: sha256(&late), hash: Hash::of(&late), size: 100 };
    inner
        .blobs
        .name(&ground::Ground::Blob { digest: held.digest, size: 100 }, held.hash)
        .await
        .expect("named");
    inner.blobs.sync().await.expect("synced");
    inner.index.leave(inner.run).expect("left");
    assert!(inner.index.is_left_by(inner.run));
    inner.index.hold(&held);
    assert!(!inner.index.is_left_by(inner.run));
    inner.blobs.shutdown().await;
    drop(store);

    let store = open(&dir).await;
    assert_eq!(store.index().held(&held.digest), Some(held));
    // A row that cannot be read.
    let inner = &store.0;
    inner.index.damage(&held.digest);
    assert_eq!(store.index().held(&held.digest), None);
    assert_eq!(reopen(store, &dir).await.store.index().held(&held.digest), Some(held));
}

#[tokio::test]
async fn a_tag_remembers_its_last_writes_and_which_lost() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let (a, v1) = (repo("a"), tag("v1"));
    for version in 1..=20u8 {
        let target = Some(sha256(&[version]));
        let written = record(Key::tag(&a, &v1), version.into(), &TagBody { target });
        store.persist(vec![written.clone()]).await.expect("persisted");
        apply(&store, &[written]);
    }
    let lost = Change::TagLost {
        repository: a.clone(),
        tag: v1.clone(),
        body: TagBody { target: None },
        version: 20,
        author: NodeId([0; 32]),
        authored: Wall(5),
    };
    store.index().apply(&lost);
    let history = store.index().history(&a, &v1);
    let writes: Vec<u64> = history.iter().map(|write| write.version).collect();
    assert_eq!(writes, [&[20, 20][..], &(6..20).rev().collect::<Vec<_>>()].concat());
    assert_eq!(history[0].target, Some(sha256(&[20])));
    assert_eq!((history[1].author, history[1].authored), (NodeId([0; 32]), Wall(5)));
    assert!(store.index().history(&a, &tag("v")).is_empty(), "of another tag");

    // Killed: what was on disk comes back, and a write that never counted was not.
    store.0.blobs.shutdown().await;
    drop(store);
    let store = open(&dir).await;
    let writes: Vec<u64> = store.index().history(&a, &v1).iter().map(|write| write.version).collect();
    assert_eq!(writes, (5..=20).rev().collect::<Vec<u64>>());
}

#[tokio::test]
async fn holders_are_known_by_what_they_tell_their_site_or_the_mesh() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let (index, manifest) = (store.index(), sha256(b"m1"));
    let node = |n: u8, site: &str| {
        let body = NodeBody {
            site: site.into(),
            tier: Tier::Edge,
            addresses: vec![],
            software: String::new(),
            region: String::new(),
            labels: BTreeMap::new(),
        };
        index.apply(&Change::Node { node: NodeId([n; 32]), body: Arc::new(body) });
    };
    let tell = |n: u8, state, told| {
        index.apply(&Change::Holding { manifest, node: NodeId([n; 32]), state, told });
    };
    let here = || Told::Site("here".into());
    (1..=2).for_each(|n| node(n, "here"));
    (3..=4).for_each(|n| node(n, "there"));
    let (whole, partial) = (HoldingState::Complete, HoldingState::Partial);
    tell(1, whole, here());
    tell(1, whole, Told::Mesh(7));
    tell(2, partial, here());
    tell(2, whole, Told::Mesh(2));
    tell(3, whole, Told::Mesh(2));
    tell(4, whole, Told::Mesh(3));
    let holders = [1, 2, 3, 4].map(|n| (NodeId([n; 32]), if n == 2 { partial } else { whole }));
    assert_eq!(index.holders(&manifest), holders);
    assert_eq!(
        index.copies(&manifest),
        1 + 3,
        "of this site by its own words, of others as many as they told"
    );
    assert_eq!(index.holding(&manifest, &NodeId([2; 32])), Some(partial));
    assert_eq!(index.held_by(&NodeId([1; 32])), [(manifest, whole)]);
    // One that moved is known by what it tells the mesh.
    node(2, "there");
    assert_eq!(index.holding(&manifest, &NodeId([2; 32])), Some(whole));
    tell(2, HoldingState::Gone, Told::Mesh(0));
    assert_eq!(index.holders(&manifest).len(), 3);
}
