//! What a node under attack must still do, and what must not happen to it: it serves, its memory stays
//! bounded, its catalog stays as it was, nothing in it panics, and its log says why it refused.

use std::fs;

use crate::harness::{image::Image, node::Node, wait::until_true};

/// A node before the attack, and what it must serve throughout.
pub struct Watch<'a> {
    node: &'a Node,
    image: &'a Image,
    records: u64,
    rss: u64,
}

impl<'a> Watch<'a> {
    /// `image` must be in the node's repository `app` under `v1`, and be held by it.
    #[track_caller]
    pub fn over(node: &'a Node, image: &'a Image) -> Self {
        node.registry().assert_has("app", "v1", image);
        Watch { node, image, records: records(node), rss: rss(node) }
    }

    /// It serves its clients now.
    #[track_caller]
    pub fn serves(&self) {
        self.node.registry().assert_has("app", "v1", self.image);
    }

    /// It serves, grew by at most `growth` bytes, and nothing panicked.
    #[track_caller]
    pub fn unharmed(&self, growth: u64) {
        self.serves();
        let rss = rss(self.node);
        assert!(rss <= self.rss + growth, "memory grew from {} to {rss} bytes", self.rss);
        assert_no_panic(self.node);
    }

    /// As [`Watch::unharmed`], and its catalog has as many records as before.
    #[track_caller]
    pub fn unchanged(&self, growth: u64) {
        self.unharmed(growth);
        assert_eq!(records(self.node), self.records, "the catalog changed");
    }
}

/// Records in the node's catalog.
#[track_caller]
pub fn records(node: &Node) -> u64 {
    node.status()["records"].as_u64().expect("a number")
}

/// Bytes of memory that the process has in use.
#[track_caller]
pub fn rss(node: &Node) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a process has memory");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[track_caller]
pub fn assert_no_panic(node: &Node) {
    let log = node.log();
    let panic = log.lines().find(|line| line.contains("panicked"));
    assert!(panic.is_none(), "something panicked: {panic:?}");
}

/// Waits for a line of the log that has all of these.
#[track_caller]
pub fn wait_for_log(node: &Node, parts: &[&str]) {
    until_true(&format!("the log has a line with {parts:?}"), || {
        node.log().lines().any(|line| parts.iter().all(|part| line.contains(part)))
    });
}

/// For debug builds, whose allocator keeps what it was given for a while.
pub const MIB: u64 = 1 << 20;
