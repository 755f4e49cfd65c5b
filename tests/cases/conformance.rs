//! The endpoint does what the OCI distribution specification asks, at one node and across two sites: by our own checks,
//! and by the specification's suite at a node of a mesh.

use std::{fs, path::Path};

use crate::{
    conformance::{Ends, run, run_sparse},
    harness::{
        clients::Client,
        cluster::{Cluster, export_mesh},
        node::{Node, Options, temp_dir},
        wait::until_true,
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
    let node = node_that_takes_sparse_images(folder.path());
    run_sparse(&Ends::one(node.registry().http)).expect(300);
}

/// Whatever the main branch asks, images of which not all is there among it; and no less of what was released.
#[test]
fn a_node_of_a_mesh_passes_the_specifications_suite() {
    let Some(suite) = Client::silent("conformance") else { return };
    let folder = temp_dir("suite");
    let node = node_that_takes_sparse_images(folder.path());
    let mesh_file = folder.path().join("mesh.toml");
    export_mesh(&node, &mesh_file);
    let join = vec![node.ready("join").to_owned()];
    let other = Node::start(Options { join, ..Options::site("b").mesh(&mesh_file) });
    until_true("both nodes are connected", || node.sessions().contains(&other.id().to_owned()));
    let newest = passed(&suite, node.ready("listen"), "dev", folder.path());
    assert!(newest >= 1_000, "{newest} checks");
    let released = passed(&suite, node.ready("listen"), "1.1", folder.path());
    assert!(released >= 850, "{released} checks");
}

fn node_that_takes_sparse_images(folder: &Path) -> Node {
    let file = folder.join("node.toml");
    fs::write(&file, "[registry]\nsparse = true\n").unwrap();
    let extra = vec!["--config".to_owned(), file.display().to_string()];
    Node::start(Options { extra, ..Options::site("a") })
}

/// How many checks of this version of the specification are passed, where none fails or is left out but those that the
/// version does not have.
#[track_caller]
fn passed(suite: &Client, registry: &str, version: &str, folder: &Path) -> usize {
    let mut command = suite.command();
    command.envs([
        ("OCI_REGISTRY", registry),
        ("OCI_TLS", "disabled"),
        ("OCI_VERSION", version),
        ("OCI_DATA_SPARSE", "true"),
        ("OCI_REPO1", &format!("suite-{version}/one")),
        ("OCI_REPO2", &format!("suite-{version}/two")),
    ]);
    let output = command.current_dir(folder).env("OCI_RESULTS_DIR", "results").output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    // It ends well also where it could not begin.
    let count = |what: &str| -> usize {
        let line = report.lines().find_map(|line| line.trim().strip_prefix(what)?.strip_prefix('.'));
        let number =
            line.and_then(|line| line.trim_start_matches('.').trim().strip_prefix(':')?.trim().parse().ok());
        number.unwrap_or_else(|| panic!("the suite does not say {what}:\n{report}"))
    };
    let disabled = if version == "1.1" { 2 } else { 0 };
    let found = ["FAIL", "Error", "Skip", "Disabled"].map(count);
    assert!(output.status.success() && found == [0, 0, 0, disabled], "{found:?}\n{report}");
    count("Pass")
}
