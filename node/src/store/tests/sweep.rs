//! Deleting: what was marked leaves wholly, what is in use stays, and what left can come again.

use std::collections::BTreeSet;

use super::*;

async fn ingest(store: &Store, repository: &str, content: &Bytes) -> Held {
    let (name, digest) = (repo(repository), sha256(content));
    store.ingest(Some(&name), digest, NO_LIMIT, body(content)).await.expect("taken in")
}

/// As a transfer from another node leaves it.
async fn fetched(store: &Store, content: &Bytes) -> Held {
    let held = Held { digest: sha256(content), hash: Hash::of(content), size: content.len() as u64 };
    // Kept by its name from here on.
    let tag = store.blobs().blobs().add_bytes(content.clone()).temp_tag().await.expect("added");
    store.seal(held.hash, held.size, Some(held.digest)).await.expect("sealed");
    drop(tag);
    held
}

fn hashes(held: &[Held]) -> BTreeSet<Hash> {
    held.iter().map(|held| held.hash).collect()
}

async fn remove(store: &Store, held: &[Held], keep_links: bool) -> BTreeSet<Hash> {
    store.doom(&hashes(held));
    store.remove(&hashes(held), keep_links).await.expect("removed")
}

#[tokio::test]
async fn what_leaves_leaves_nothing_and_can_come_again() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let contents = [bytes(1, 100), bytes(2, 50_000), bytes(3, 9 << 20), bytes(4, 60_000)];
    let mut all = Vec::new();
    for content in &contents[..3] {
        all.push(ingest(&store, "a/b", content).await);
    }
    all.push(fetched(&store, &contents[3]).await);
    let other = ingest(&store, "a/b", &bytes(9, 70_000)).await;
    store.servable(all[2].hash).await;
    let reader = store.open_blob(all[2].hash, all[2].size).await.expect("opened");
    assert!(remove(&store, &all, false).await.is_empty());
    for held in &all {
        assert_eq!(store.index().held(&held.digest), None);
        assert!(store.index().link(&repo("a/b"), &held.digest).is_none());
        assert!(store.0.blobs.is_unknown(held.hash).await.expect("asked"));
        assert!(store.open_blob(held.hash, held.size).await.is_err());
    }
    let BlobReader::File(mut file, _) = reader else { panic!("in a file") };
    let mut read = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut read).expect("what is being read goes on");
    assert!(read == contents[2]);
    assert_eq!(files_below(&dir.path().join("files")).len(), 1, "the other one's");
    assert_eq!(serve(&store, &other).await.expect("served"), bytes(9, 70_000));
    // All of it again, by the other way in.
    for (n, content) in contents.iter().enumerate() {
        let held = if n == 3 { ingest(&store, "c", content).await } else { fetched(&store, content).await };
        assert_eq!(held, all[n]);
    }
    let opened = reopen(store, &dir).await;
    for (held, content) in all.iter().zip(&contents) {
        assert!(opened.hashes.contains(&held.hash));
        assert_eq!(&serve(&opened.store, held).await.expect("served"), content);
    }
}

#[tokio::test]
async fn links_stay_where_they_are_to() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let held = ingest(&store, "a/b", &bytes(1, 50_000)).await;
    assert!(remove(&store, &[held], true).await.is_empty());
    assert_eq!(store.index().held(&held.digest), None);
    assert!(store.index().link(&repo("a/b"), &held.digest).is_some());
    let opened = reopen(store, &dir).await;
    assert!(opened.store.index().link(&repo("a/b"), &held.digest).is_some());
    assert!(!opened.hashes.contains(&held.hash));
}

#[tokio::test]
async fn what_is_used_after_it_was_marked_stays() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let mut all = Vec::new();
    for n in 0..6 {
        all.push(ingest(&store, "a", &bytes(n, 50_000)).await);
    }
    store.claim(&[all[5].hash]).await;
    store.doom(&hashes(&all));
    store.open_blob(all[0].hash, all[0].size).await.expect("opened");
    store.probe(all[1].hash, all[1].size).await;
    store.link(&repo("b"), &all[2]).await.expect("linked");
    let fetching = store.fetching(all[3].hash, 1);
    let stayed = store.remove(&hashes(&all), false).await.expect("removed");
    assert_eq!(stayed, hashes(&[all[0], all[1], all[2], all[3], all[5]]));
    drop(fetching);
    let gone = remove(&store, &all[..5], false).await;
    assert!(gone.is_empty());
    assert!(store.index().held(&all[5].digest).is_some(), "somebody was told that it is here");
}

#[tokio::test]
async fn records_never_leave() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let held = ingest(&store, "a", &bytes(1, 50_000)).await;
    let segment = bytes(7, 100);
    store.0.keep_bytes(Hash::of(&segment), segment.clone()).await.expect("kept");
    store.0.blobs.name(&ground::Ground::Segment(77), Hash::of(&segment)).await.expect("named");
    let all = BTreeSet::from([held.hash, Hash::of(&segment)]);
    store.doom(&all);
    assert_eq!(store.remove(&all, false).await.expect("removed"), BTreeSet::from([Hash::of(&segment)]));
    assert!(store.inventory().await.expect("listed").segments.contains(&Hash::of(&segment)));
}

#[tokio::test]
async fn a_crash_in_the_middle_leaves_what_the_next_run_deletes() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let held = ingest(&store, "a", &bytes(1, 50_000)).await;
    let names = store.0.blobs.names().await.expect("listed");
    for named in names.iter().filter(|named| named.hash == held.hash) {
        store.0.blobs.unname(&named.ground).await.expect("unnamed");
    }
    store.0.blobs.sync().await.expect("synced");
    // The index was not told: it is not left as complete.
    store.0.blobs.shutdown().await;
    drop(store);
    let opened = Store::open(dir.path()).await.expect("opens");
    assert!(!opened.hashes.contains(&held.hash), "what has no name is not announced");
    assert_eq!(opened.store.index().held(&held.digest), None);
    assert!(opened.store.inventory().await.expect("listed").complete.contains_key(&held.hash));
    assert!(remove(&opened.store, &[held], false).await.is_empty());
    assert!(files_below(&dir.path().join("files")).is_empty());
}

#[tokio::test]
async fn a_damaged_fetched_blob_can_be_fetched_again() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let content = bytes(1, 50_000);
    let held = fetched(&store, &content).await;
    let mut rotten = content.to_vec();
    rotten[30_000] ^= 1;
    fs::write(store.0.dirs.data(&held.hash), rotten).expect("written");
    assert!(store.open_blob(held.hash, held.size).await.is_err());
    assert!(store.probe(held.hash, held.size).await.is_empty(), "and the store takes it again");
    assert!(store.0.blobs.is_unknown(held.hash).await.expect("asked"));
    assert_eq!(fetched(&store, &content).await, held);
    assert_eq!(serve(&store, &held).await.expect("served"), content);
}

#[tokio::test]
async fn a_quota_is_an_answer_and_room_is_waited_for() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let first = ingest(&store, "a", &bytes(1, 5 << 20)).await;
    let used = store.measure().await.expect("measured").used;
    assert!(used >= 5 << 20, "{used}");
    store.limit(used + (1 << 20), 0);
    assert!(!store.has_room(2 << 20) && store.has_room(1));
    let large = bytes(2, 3 << 20);
    let nobody = async {
        loop {
            store.pressed().await;
            store.round_done();
        }
    };
    tokio::select! {
        refused = store.ingest(None, sha256(&large), NO_LIMIT, body(&large)) => {
            assert!(matches!(&refused, Err(IngestError::Full(why)) if why.contains("quota")), "{refused:?}");
        }
        () = nobody => {}
    }
    let makes_room = async {
        store.pressed().await;
        remove(&store, &[first], false).await;
        store.measure().await.expect("measured");
        store.round_done();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        taken = store.ingest(None, sha256(&large), NO_LIMIT, body(&large)) => {
            taken.expect("taken in");
        }
        () = makes_room => {}
    }
}
