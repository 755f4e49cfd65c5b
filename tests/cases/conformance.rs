//! The endpoint does what the OCI distribution specification asks, at one node and across two sites.

use crate::{
    conformance::{Ends, run},
    harness::cluster::Cluster,
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
