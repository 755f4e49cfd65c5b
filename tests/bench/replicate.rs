//! One node to one node: how fast a large blob becomes durable at a second node, beside bare iroh-blobs.

use std::{fs, time::Instant};

use crate::{
    Sizes, bare,
    harness::{cluster::Cluster, image::Image, node::temp_dir, wait::until_true},
    table::{Row, rate},
};

pub fn measure(sizes: Sizes) -> Vec<Row> {
    let (mut ours, mut theirs) = (0.0_f64, 0.0_f64);
    for run in 0..sizes.runs {
        // In turns, so that both see the same machine.
        let image = Image::random(run as u64, &[sizes.blob]);
        theirs = theirs.max(bare_rate(&image.layers[0]));
        ours = ours.max(node_rate(&image));
    }
    let name = "iroh-blobs + sha256 + fsync";
    vec![Row::ratio("one node to one node, durable", ours, name, theirs, "≥ 0.9 ×")]
}

fn node_rate(image: &Image) -> f64 {
    let cluster = Cluster::start(2);
    cluster[0].registry().push("bench", "v1", image);
    cluster[1].registry().wait_for_tag("bench", "v1", image);
    let start = Instant::now();
    // Whoever gets the manifest is about to want the rest: the node fetches it without being asked again.
    // Nothing is pulled over HTTP meanwhile; that would measure HTTP.
    cluster[1].registry().manifest("bench", "v1").expect(200);
    until_true("the artifact is complete", || {
        let inspection = cluster[1].cli_json(&["inspect", "bench:v1", "--json"]);
        inspection["artifact"]["here"] == "complete"
    });
    rate(image.layers[0].len(), start.elapsed())
}

fn bare_rate(bytes: &[u8]) -> f64 {
    let folder = temp_dir("bare");
    let file = folder.path().join("blob");
    fs::write(&file, bytes).unwrap();
    rate(bytes.len(), bare::fetch(folder.path(), &file))
}
