//! One node to one node: how fast a large blob becomes durable at a second node, beside bare iroh-blobs.

use std::{fs, time::Instant};

use crate::{
    Sizes,
    bare::{self, Took},
    harness::{cluster::Cluster, image::Image, node::temp_dir, wait::until_true},
    table::{Row, rate},
};

pub fn measure(sizes: Sizes) -> Vec<Row> {
    let (mut ours, mut durable, mut hashed) = (0.0_f64, 0.0_f64, 0.0_f64);
    for run in 0..sizes.runs {
        // In turns, so that both see the same machine.
        let image = Image::random(run as u64, &[sizes.blob]);
        let layer = &image.layers[0];
        let bare = bare_times(layer);
        durable = durable.max(rate(layer.len(), bare.durable));
        hashed = hashed.max(rate(layer.len(), bare.hashed));
        ours = ours.max(node_rate(&image));
    }
    let what = "one node to one node, durable";
    vec![
        Row::ratio(what, ours, "iroh-blobs + fsync", durable, "≥ 0.9 ×"),
        Row::ratio(what, ours, "iroh-blobs + fsync + sha256", hashed, "≥ 0.9 ×"),
    ]
}

fn node_rate(image: &Image) -> f64 {
    let cluster = Cluster::start(2);
    cluster[0].registry().push("bench", "v1", image);
    cluster[1].registry().wait_for_tag("bench", "v1", image);
    let start = Instant::now();
    // Whoever gets the manifest is about to want the rest: the node fetches it without being asked again.
    // Nothing is pulled over HTTP meanwhile; that would measure HTTP.
    cluster[1].registry().manifest("bench", "v1").expect(200);
    // Counted when the last blob is durable. Asked over HTTP: a process for each look would take the cores.
    until_true("the artifact is complete", || {
        cluster[1].metric("waystation_artifacts_completed_total") >= 1.0
    });
    rate(image.layers[0].len(), start.elapsed())
}

fn bare_times(bytes: &[u8]) -> Took {
    let folder = temp_dir("bare");
    let file = folder.path().join("blob");
    fs::write(&file, bytes).unwrap();
    bare::fetch(folder.path(), &file)
}
