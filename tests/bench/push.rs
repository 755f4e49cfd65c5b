//! A large blob pushed and acknowledged as durable, beside what one core can hash and what the disk takes.

use std::{fs::File, io::Write, time::Instant};

use crate::{
    Sizes,
    harness::{
        image::{digest, random_bytes},
        node::{Node, Options, temp_dir},
        registry::with_query,
    },
    table::{Row, rate},
};

pub fn measure(sizes: Sizes) -> Vec<Row> {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let (mut pushed, mut hashed, mut written) = (0.0_f64, 0.0_f64, 0.0_f64);
    for run in 0..sizes.runs {
        let blob = random_bytes(run as u64, sizes.blob);
        let start = Instant::now();
        let name = digest(&blob);
        hashed = hashed.max(rate(blob.len(), start.elapsed()));
        written = written.max(disk_rate(&blob));
        let session = registry.http.request("POST", "/v2/bench/blobs/uploads/").send().expect(202).location();
        let put = with_query(&session, &format!("digest={name}"));
        let start = Instant::now();
        registry.http.request("PUT", &put).body(&blob).send().expect(201);
        pushed = pushed.max(rate(blob.len(), start.elapsed()));
    }
    let goal = "≥ 2 × registries";
    let what = "push, acknowledged durable";
    vec![
        Row::ratio(what, pushed, "sha256 on one core", hashed, goal),
        Row::ratio(what, pushed, "plain file + fsync", written, ""),
    ]
}

/// Writing the same bytes to a file and syncing it, with nothing else.
fn disk_rate(bytes: &[u8]) -> f64 {
    let folder = temp_dir("disk");
    let mut file = File::create(folder.path().join("plain")).unwrap();
    let start = Instant::now();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    rate(bytes.len(), start.elapsed())
}
