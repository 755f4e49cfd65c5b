//! Large blobs are verified by parts while clients read them.

use std::os::unix::fs::FileExt;

use super::*;

const LARGE: usize = 9_000_000;
const ROTTEN: u64 = 5_000_000;

/// A store with a blob, as it is after a restart; `change` is done to its files while it is away.
async fn restarted(dir: &TempDir, change: impl FnOnce(&dirs::Dirs, &Held)) -> (Store, Held, Bytes) {
    let store = open(dir).await;
    let content = bytes(1, LARGE);
    let held = store.ingest(None, sha256(&content), NO_LIMIT, body(&content)).await.expect("taken in");
    store.servable(held.hash).await;
    change(&store.0.dirs, &held);
    (reopen(store, dir).await.store, held, content)
}

async fn file(store: &Store, held: &Held, first: u64) -> std::io::Result<Arc<ServedFile>> {
    match store.serve_blob(held.hash, held.size, first).await? {
        Serving::File(file) => Ok(file),
        Serving::Memory(_) => panic!("it is large"),
    }
}

/// Whether all of it counts as found right.
async fn is_checked(store: &Store, held: &Held) -> bool {
    let (_, mark) = store.0.open_file(held.hash).await.expect("readable").expect("there");
    store.0.reading.is_right(&held.hash, mark, &(0..held.size))
}

fn flip(path: &Path, at: u64) {
    let file = fs::File::options().read(true).write(true).open(path).expect("there");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 1], at).expect("written");
}

#[tokio::test]
async fn a_part_costs_itself_and_all_parts_are_the_whole() {
    let dir = TempDir::new().expect("a directory");
    let (store, held, content) = restarted(&dir, |_, _| {}).await;
    let size = held.size;
    for (from, end) in [(7, 100), (3_000_000, 3_500_001), (16_384, 32_768), (size - 1, size), (5, 5)] {
        let served = file(&store, &held, from).await.expect("opened");
        let read = served.begin(from, (end - from) as usize, end).finish().await.expect("right");
        assert!(read == content[from as usize..end as usize], "{from}..{end}");
    }
    assert!(!is_checked(&store, &held).await);
    let served = file(&store, &held, 0).await.expect("opened");
    assert!(served.begin(size - 1, 2, size).finish().await.is_err(), "there is no such byte");
    let mut all = Vec::new();
    while (all.len() as u64) < size {
        let length = (size as usize - all.len()).min(1_000_000);
        all.extend(served.begin(all.len() as u64, length, size).finish().await.expect("right"));
    }
    assert!(all == content);
    assert!(is_checked(&store, &held).await);
}

#[tokio::test]
async fn what_rotted_is_given_to_nobody_and_what_is_right_before_it_is() {
    let dir = TempDir::new().expect("a directory");
    let rot = |dirs: &dirs::Dirs, held: &Held| flip(&dirs.file(&held.hash), ROTTEN);
    let (store, held, content) = restarted(&dir, rot).await;
    let served = file(&store, &held, 0).await.expect("its beginning is right");
    let read = served.begin(0, 4_000_000, held.size).finish().await.expect("right");
    assert!(read == content[..4_000_000]);
    let after = served.begin(6_000_000, 10, held.size).finish().await.expect("right");
    assert_eq!(after, content[6_000_000..6_000_010]);
    assert!(store.index().held(&held.digest).is_some());
    let error = served.begin(4_900_000, 200_000, held.size).finish().await.expect_err("not given");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(store.index().held(&held.digest), None);
    assert!(!store.0.dirs.file(&held.hash).exists(), "it was put aside");
    let again = served.begin(ROTTEN, 1, held.size).finish().await;
    assert!(again.is_err(), "nor to who has it open");

    store.ingest(None, held.digest, NO_LIMIT, body(&content)).await.expect("taken in again");
    assert_eq!(serve(&store, &held).await.expect("served"), content);
}

#[tokio::test]
async fn where_the_first_bytes_asked_for_rotted_none_is_promised() {
    let dir = TempDir::new().expect("a directory");
    let rot = |dirs: &dirs::Dirs, held: &Held| flip(&dirs.file(&held.hash), ROTTEN);
    let (store, held, _) = restarted(&dir, rot).await;
    let error = file(&store, &held, ROTTEN).await.err().expect("refused");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(store.index().held(&held.digest), None);
}

#[tokio::test]
async fn a_tree_that_rotted_costs_time_only() {
    let dir = TempDir::new().expect("a directory");
    let rot = |dirs: &dirs::Dirs, held: &Held| flip(&dirs.outboard(&held.hash), 0);
    let (store, held, content) = restarted(&dir, rot).await;
    let served = file(&store, &held, 0).await.expect("opened");
    let read = served.begin(1_000_000, 1_000_000, held.size).finish().await.expect("right");
    assert!(read == content[1_000_000..2_000_000]);
    assert!(is_checked(&store, &held).await, "all of it was hashed");
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_read_is_put_aside() {
    let dir = TempDir::new().expect("a directory");
    let (store, held, _) = restarted(&dir, |_, _| {}).await;
    let served = file(&store, &held, 0).await.expect("opened");
    let path = store.0.dirs.file(&held.hash);
    fs::File::options().write(true).open(&path).expect("there").set_len(ROTTEN).expect("cut");
    let error = served.begin(6_000_000, 10, held.size).finish().await.expect_err("not given");
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(store.index().held(&held.digest), None);
}
