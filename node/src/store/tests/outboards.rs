//! Large blobs are acknowledged before other nodes can fetch them.

use super::*;

const LARGE: usize = 9_000_000;

async fn outboard_names(store: &Store) -> usize {
    let names = store.0.blobs.names().await.expect("listed");
    names.iter().filter(|named| matches!(named.ground, ground::Ground::Outboard { .. })).count()
}

#[tokio::test]
async fn a_large_blob_is_served_at_once_and_to_others_soon() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let content = bytes(1, LARGE);
    let held =
        store.ingest(Some(&repo("a")), sha256(&content), NO_LIMIT, body(&content)).await.expect("taken in");
    assert_eq!(serve(&store, &held).await.expect("served"), content);
    assert_eq!(store.probe(held.hash, held.size).await, Ranges::all(held.size));
    store.servable(held.hash).await;
    assert_eq!(store.0.blobs.complete(held.hash).await.expect("known"), Some(held.size));
    assert_eq!(outboard_names(&store).await, 0);
    // Again, by a session.
    let id = store.upload_start(&repo("b")).await.expect("started");
    store.upload_append(&repo("b"), &id, None, NO_LIMIT, body(&content)).await.expect("appended");
    assert_eq!(store.upload_finish(&repo("b"), &id, held.digest).await.expect("taken in"), held);
}

#[tokio::test]
async fn what_was_acknowledged_before_a_crash_is_whole_after_it() {
    let dir = TempDir::new().expect("a directory");
    let store = open(&dir).await;
    let (content, short) = (bytes(2, LARGE), bytes(3, LARGE));
    // As if the crash came before the store came to it.
    store.0.blobs.refuse_imports();
    let mut taken = Vec::new();
    for content in [&content, &short] {
        taken.push(store.ingest(None, sha256(content), NO_LIMIT, body(content)).await.expect("taken in"));
    }
    for held in &taken {
        store.servable(held.hash).await;
        assert_eq!(store.0.blobs.complete(held.hash).await.expect("known"), None);
    }
    let file = fs::File::options().write(true).open(store.0.dirs.file(&taken[1].hash)).expect("there");
    file.set_len(LARGE as u64 - 1).expect("cut");
    let opened = reopen(store, &dir).await;
    assert_eq!(opened.hashes, [taken[0].hash]);
    let store = opened.store;
    assert_eq!(store.index().held(&taken[0].digest), Some(taken[0]));
    assert_eq!(store.index().held(&taken[1].digest), None);
    assert_eq!(serve(&store, &taken[0]).await.expect("served"), content);
    assert_eq!(store.0.blobs.complete(taken[0].hash).await.expect("known"), Some(LARGE as u64));
    assert!(store.0.dirs.outboard(&taken[0].hash).exists());
    assert_eq!(outboard_names(&store).await, 0);
}
