//! What was acknowledged survives kill -9; what can be derived is derived again; what was fetched and
//! verified is not fetched twice.

use std::fs;

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    node::{Node, Options},
    registry::Upload,
    wait::until_true,
};

#[test]
fn what_was_acknowledged_is_there_after_kill_9() {
    let mut node = Node::start(Options::default());
    let images: Vec<_> = (0..4).map(|n| Image::random(n, &[300_000, 5_000, 20])).collect();
    for (n, image) in images.iter().enumerate() {
        node.registry().push_by(Upload::ALL[n], "app", &format!("v{n}"), image);
    }
    let id = node.id().to_owned();
    node.kill();
    node.start_again();
    assert_eq!(node.id(), id, "another key after a restart");
    for (n, image) in images.iter().enumerate() {
        node.registry().assert_has("app", &format!("v{n}"), image);
    }
    assert_eq!(node.registry().tags("app"), ["v0", "v1", "v2", "v3"]);
}

#[test]
fn a_deletion_survives_kill_9() {
    let mut node = Node::start(Options::default());
    let image = Image::random(11, &[10_000]);
    node.registry().push("app", "v1", &image);
    node.registry().push("app", "v2", &image);
    node.registry().http.request("DELETE", "/v2/app/manifests/v1").send().expect(202);
    node.kill();
    node.start_again();
    assert_eq!(node.registry().manifest("app", "v1").status, 404);
    node.registry().assert_has("app", "v2", &image);
}

#[test]
fn the_index_is_derived_again_when_it_is_missing_or_broken() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(12, &[300_000, 5_000]);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);
    for damage in [remove, garble] {
        for n in [0, 1] {
            let node = &mut cluster[n];
            node.kill();
            damage(&node.data_dir().join("index"));
            node.start_again();
            node.registry().assert_has("app", "v1", &image);
            assert_eq!(node.registry().tags("app"), ["v1"]);
        }
    }
}

#[test]
fn a_replication_that_was_interrupted_goes_on_where_it_was() {
    const SIZE: usize = 192 << 20;
    let mut cluster = Cluster::start(2);
    let image = Image::random(13, &[SIZE]);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    let blob = format!("/v2/app/blobs/{}", digest(&image.layers[0]));
    let waiting = cluster[1].registry().http.get(&blob).open().unwrap();
    until_true("a quarter was fetched", || received(&cluster[1]) > SIZE as u64 / 4);
    let before = received(&cluster[1]);
    cluster[1].kill();
    drop(waiting);
    assert!(before < SIZE as u64 * 9 / 10, "all came before the kill; nothing was interrupted");

    cluster[1].start_again();
    until_true("the manifest is visible again", || cluster[1].registry().manifest("app", "v1").status == 200);
    cluster[1].registry().assert_has("app", "v1", &image);
    let after = received(&cluster[1]);
    // Pieces under way when it was killed come again; what was verified does not.
    let again = (before + after).saturating_sub(image.blob_bytes());
    assert!(again < SIZE as u64 / 8, "{again} bytes came twice (before {before}, after {after})");
}

/// Blob bytes received, by the metric: quicker to ask than the command line.
fn received(node: &Node) -> u64 {
    let text = String::from_utf8(node.admin().get("/metrics").send().expect(200).body).unwrap();
    let series = |line: &&str| {
        line.starts_with("waystation_plane_bytes") && line.contains("\"data\"") && line.contains("\"in\"")
    };
    let line = text.lines().find(series).map_or("0", |line| line.rsplit(' ').next().unwrap());
    line.parse::<f64>().unwrap() as u64
}

fn remove(index: &std::path::Path) {
    fs::remove_dir_all(index).unwrap();
}

fn garble(index: &std::path::Path) {
    for entry in fs::read_dir(index).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
        fs::write(entry.path(), b"not what was here").unwrap();
    }
}
