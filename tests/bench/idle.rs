//! What a node that does nothing needs.

use std::{fs, thread, time::Duration};

use crate::{
    Sizes,
    harness::node::{Node, Options},
    table::Row,
};

pub fn measure(_: Sizes) -> Vec<Row> {
    let node = Node::start(Options::default());
    // Idle is a matter of time: caches of the start are given back, timers have fired.
    thread::sleep(Duration::from_secs(5));
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap()
    };
    let value = format!("{:.1} MiB, {} threads", field("VmRSS:") / 1024.0, field("Threads:"));
    vec![Row::new("idle memory (RSS)", value, "≤ 48 MiB")]
}
