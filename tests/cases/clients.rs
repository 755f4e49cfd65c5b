//! Clients that people use, each set up as its users do it: what one pushes at one site is pulled at the
//! other, and is the same to the last byte. A missing client is a failure where CI runs, and said loudly
//! elsewhere.

use std::{fs, path::Path};

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    node::Node,
};

mod buildah;
mod config;
mod containerd;
mod crane;
mod docker;
mod helm;
mod login;
mod mirror;
mod oras;
mod podman;
mod regctl;
mod skopeo;

/// One node in the centre, one at the edge.
fn two_sites() -> Cluster {
    Cluster::at_sites(&["centre", "edge"])
}

/// An image that engines can unpack.
pub fn image() -> Image {
    Image::with_files(&[("hello", b"#!/bin/true\n"), ("etc/conf", &[b'x'; 200_000])])
}

/// `host:port/repository:tag` at a node.
fn at(cluster: &Cluster, node: usize, reference: &str) -> String {
    format!("{}/{reference}", cluster[node].ready("listen"))
}

/// Publishes `v1` in the centre under the names by which engines ask a mirror of docker.io for it, and waits
/// for it at the edge: podman puts the registry into the path, the others do not.
fn publish_as_hub(cluster: &Cluster, repository: &str, image: &Image) {
    for repository in [repository, &format!("docker.io/{repository}")] {
        cluster[0].registry().push(repository, "v1", image);
        cluster[1].registry().wait_for_tag(repository, "v1", image);
    }
}

/// Lets a node write an engine's configuration below a root; what it says.
fn client_config(node: &Node, engine: &str, root: &Path, more: &[&str]) -> String {
    let root = root.to_str().unwrap();
    let mut arguments = vec!["client-config", engine, "--write", "--root", root];
    arguments.extend(more);
    node.cli(&arguments).expect(0).stdout
}

/// Takes it back; nothing that was written is left.
fn undo(node: &Node, engine: &str, root: &Path) {
    let root_text = root.to_str().unwrap();
    let told = node.cli(&["client-config", engine, "--undo", "--root", root_text]).expect(0).stdout;
    assert!(told.contains("put back"), "{told}");
    assert!(!root.join("etc/waystation").exists(), "the journal is left");
}

/// As skopeo's `dir:` transport lays an image out.
pub fn write_dir(folder: &Path, image: &Image) {
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    fs::write(folder.join("manifest.json"), &image.manifest).unwrap();
    for blob in image.blobs() {
        fs::write(folder.join(digest(blob).trim_start_matches("sha256:")), blob).unwrap();
    }
}
