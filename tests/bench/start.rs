//! From the start of the process to serving, with many blobs held.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    Sizes,
    harness::{
        image::random_bytes,
        node::{Node, Options},
        registry::Upload,
    },
    table::{Row, milliseconds},
};

pub fn measure(sizes: Sizes) -> Vec<Row> {
    let mut node = Node::start(Options::default());
    fill(&node, sizes.held);
    node.stop();
    let after_stop = start(&mut node);
    node.kill();
    let after_crash = start(&mut node);
    let row = |how: &str, took: Duration| {
        let what = format!("start to ready, {} blobs, {how}", sizes.held);
        Row::new(&what, milliseconds(took), "≤ 1 s")
    };
    vec![row("after a stop", after_stop), row("after kill -9", after_crash)]
}

fn fill(node: &Node, blobs: usize) {
    const CLIENTS: usize = 16;
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let registry = node.registry();
            scope.spawn(move || {
                for n in (client..blobs).step_by(CLIENTS) {
                    registry.push_blob(Upload::Post, "bench", &random_bytes(n as u64, 4096)).expect(201);
                }
            });
        }
    });
}

fn start(node: &mut Node) -> Duration {
    let start = Instant::now();
    node.start_again();
    start.elapsed()
}
