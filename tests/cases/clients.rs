//! Clients that people use, each set up as its users do it: what one pushes at one site is pulled at the
//! other, and is the same to the last byte. A missing client is a failure where CI runs, and said loudly
//! elsewhere.

use std::{fs, path::Path};

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
};

mod buildah;
mod containerd;
mod crane;
mod docker;
mod helm;
mod oras;
mod podman;
mod regctl;
mod skopeo;

/// One node in the centre, one at the edge.
fn two_sites() -> Cluster {
    Cluster::at_sites(&["centre", "edge"])
}

/// An image that engines can unpack.
fn image() -> Image {
    Image::with_files(&[("hello", b"#!/bin/true\n"), ("etc/conf", &[b'x'; 200_000])])
}

/// `host:port/repository:tag` at a node.
fn at(cluster: &Cluster, node: usize, reference: &str) -> String {
    format!("{}/{reference}", cluster[node].ready("listen"))
}

/// As skopeo's `dir:` transport lays an image out.
fn write_dir(folder: &Path, image: &Image) {
    fs::create_dir(folder).unwrap();
    fs::write(folder.join("version"), "Directory Transport Version: 1.1\n").unwrap();
    fs::write(folder.join("manifest.json"), &image.manifest).unwrap();
    for blob in image.blobs() {
        fs::write(folder.join(digest(blob).trim_start_matches("sha256:")), blob).unwrap();
    }
}
