//! A large blob pushed and acknowledged as durable, beside what one core can hash.

use std::time::Instant;

use crate::{
    Sizes,
    harness::{
        image::{digest, random_bytes},
        node::{Node, Options},
        registry::with_query,
    },
    table::{Row, rate},
};

pub fn measure(sizes: Sizes) -> Vec<Row> {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let (mut pushed, mut hashed) = (0.0_f64, 0.0_f64);
    for run in 0..sizes.runs {
        let blob = random_bytes(run as u64, sizes.blob);
        let start = Instant::now();
        let name = digest(&blob);
        hashed = hashed.max(rate(blob.len(), start.elapsed()));
        let session = registry.http.request("POST", "/v2/bench/blobs/uploads/").send().expect(202).location();
        let put = with_query(&session, &format!("digest={name}"));
        let start = Instant::now();
        registry.http.request("PUT", &put).body(&blob).send().expect(201);
        pushed = pushed.max(rate(blob.len(), start.elapsed()));
    }
    let goal = "≥ 2 × registries";
    vec![Row::ratio("push, acknowledged durable", pushed, "sha256 on one core", hashed, goal)]
}
