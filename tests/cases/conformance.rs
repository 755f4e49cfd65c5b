//! The endpoint does what the OCI distribution specification asks, at one node and across two sites.

use crate::{
    conformance::{Ends, run, run_sparse},
    harness::{
        cluster::Cluster,
        node::{Node, Options, temp_dir},
    },
};

/// So many checks there are at least: fewer means that some were not made.
const CHECKS: usize = 3600;

#[test]
fn one_node_conforms() {
    let cluster = Cluster::start(1);
    run(&Ends::one(cluster[0].registry().http)).expect(CHECKS);
}

#[test]
fn what_is_pushed_at_one_site_conforms_at_another() {
    let cluster = Cluster::start(2);
    run(&Ends::two(cluster[0].registry().http, cluster[1].registry().http)).expect(CHECKS);
}

#[test]
fn a_node_that_takes_sparse_images_conforms() {
    let folder = temp_dir("config");
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[registry]\nsparse = true\n").unwrap();
    let extra = vec!["--config".to_owned(), file.display().to_string()];
    let node = Node::start(Options { extra, ..Options::site("a") });
    run_sparse(&Ends::one(node.registry().http)).expect(300);
}
