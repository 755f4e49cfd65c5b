//! A second version moves only what the first did not have.

use crate::harness::{
    cluster::Cluster,
    image::{Image, random_bytes},
};

#[test]
fn a_second_version_moves_only_its_new_layer() {
    let cluster = Cluster::start(2);
    let shared = random_bytes(1, 8 << 20);
    let first = Image::of(vec![shared.clone(), random_bytes(2, 500_000)]);
    let new_layer = random_bytes(3, 1 << 20);
    let second = Image::of(vec![shared, new_layer.clone()]);
    let here = cluster[1].registry();

    cluster[0].registry().push("app", "v1", &first);
    here.wait_for_tag("app", "v1", &first);
    here.assert_has("app", "v1", &first);
    let before = cluster[1].bytes_received();
    assert!(before >= first.blob_bytes(), "the counter missed bytes: {before}");

    cluster[0].registry().push("app", "v2", &second);
    here.wait_for_tag("app", "v2", &second);
    here.assert_has("app", "v2", &second);
    let moved = cluster[1].bytes_received() - before;
    let new = new_layer.len() as u64;
    assert!(moved >= new, "the counter missed bytes: {moved}");
    assert!(moved <= new + new / 10 + SMALL_BLOBS, "{moved} bytes were moved for a layer of {new}");
    assert!(cluster[0].bytes_sent() >= before + moved - SMALL_BLOBS);
}

#[test]
fn a_layer_of_another_repository_is_not_moved_again() {
    let cluster = Cluster::start(2);
    let image = Image::random(5, &[4 << 20]);
    let here = cluster[1].registry();
    cluster[0].registry().push("one", "v1", &image);
    here.wait_for_tag("one", "v1", &image);
    here.assert_has("one", "v1", &image);
    let before = cluster[1].bytes_received();

    cluster[0].registry().push("two", "v1", &image);
    here.wait_for_tag("two", "v1", &image);
    here.assert_has("two", "v1", &image);
    let moved = cluster[1].bytes_received() - before;
    assert!(moved <= SMALL_BLOBS, "{moved} bytes were moved for content that was there");
}

/// Manifest, config, artifact index and what verifies them.
const SMALL_BLOBS: u64 = 128 * 1024;
