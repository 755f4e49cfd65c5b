//! crane: go-containerregistry, which many tools are built with (Flux, ko, syft).

use std::fs;

use super::{at, two_sites};
use crate::harness::{
    clients::{Client, digest_in},
    image::archive,
    node::temp_dir,
};

#[test]
fn crane_makes_copies_and_checks_images() {
    let Some(crane) = Client::find("crane", &["version"]) else { return };
    let cluster = two_sites();
    let folder = temp_dir("crane");
    let layer = folder.path().join("layer.tar");
    fs::write(&layer, archive(&[("etc/motd", b"welcome\n")], 0o644)).unwrap();
    let there = |node, reference: &str| at(&cluster, node, reference);
    let name = there(0, "team/made:v1");
    let made = crane.run(&[
        "append",
        "--insecure",
        "--oci-empty-base",
        "--new_layer",
        layer.to_str().unwrap(),
        "--new_tag",
        &name,
    ]);
    let pushed = digest_in(&made);
    // In another repository of the same node: mounted, not sent.
    crane.run(&["copy", "--insecure", &name, &there(0, "team/copied:v1")]);
    for repository in ["team/made", "team/copied"] {
        cluster[1].registry().wait_for_digest(repository, "v1", &pushed);
        let here = there(1, &format!("{repository}:v1"));
        assert_eq!(crane.run(&["digest", "--insecure", &here]).trim(), pushed);
        crane.run(&["validate", "--insecure", "--remote", &here]);
        assert_eq!(crane.run(&["ls", "--insecure", &there(1, repository)]).trim(), "v1");
    }
    let files = crane.run(&["export", "--insecure", &there(1, "team/made:v1"), "-"]);
    assert!(files.contains("etc/motd") && files.contains("welcome"));
    let catalog = crane.run(&["catalog", "--insecure", cluster[1].ready("listen")]);
    assert!(catalog.contains("team/copied"), "{catalog}");
}
