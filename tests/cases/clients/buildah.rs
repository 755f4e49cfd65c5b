//! buildah: builds an image from nothing, and zstd:chunked layers, of which podman fetches the parts that
//! it lacks.

use std::{fs, path::Path};

use super::{at, two_sites};
use crate::harness::{
    clients::{busybox, podman::Podman},
    node::temp_dir,
    sealed::sealed,
};

#[test]
fn buildah_publishes_what_it_built_and_gets_it_at_the_other_site() {
    sealed(|| {
        let (Some(buildah), Some(other)) = (Podman::new("buildah", "vfs"), Podman::new("buildah", "vfs"))
        else {
            return;
        };
        let Some(busybox) = busybox() else { return };
        let cluster = two_sites();
        let folder = temp_dir("build");
        let program = folder.path().join("busybox");
        fs::write(&program, &busybox).unwrap();
        let container = buildah.run(&["from", "scratch"]);
        let container = container.trim();
        let copy = ["copy", "--quiet", "--chmod", "755", container];
        buildah.run(&[&copy[..], &[program.to_str().unwrap(), "/bin/busybox"]].concat());
        buildah.run(&["config", "--entrypoint", r#"["/bin/busybox", "true"]"#, container]);
        buildah.run(&["commit", "--quiet", "--rm", "--format", "oci", container, "localhost/built:v1"]);
        let name = |node| at(&cluster, node, "team/built:v1");
        let pushed = push(&buildah, "localhost/built:v1", &name(0), &[]);
        cluster[1].registry().wait_for_digest("team/built", "v1", &pushed);

        other.run(&["pull", "--quiet", "--tls-verify=false", &format!("docker://{}", name(1))]);
        let pulled = other.run(&["images", "--no-trunc", "--format", "{{.Digest}}", &name(1)]);
        assert_eq!(pulled.trim(), pushed);
    });
}

#[test]
fn podman_fetches_only_what_is_new_of_a_chunked_layer() {
    sealed(|| {
        // Partial pulls are the overlay driver's.
        let (Some(buildah), Some(podman)) = (Podman::new("buildah", "vfs"), Podman::new("podman", "overlay"))
        else {
            return;
        };
        let cluster = two_sites();
        let folder = temp_dir("files");
        let sent = || cluster[1].metric("waystation_http_sent_bytes_total");
        let mut costs = vec![];
        for version in 0..2 {
            // Of these files one differs between the versions.
            for n in 0..FILES {
                let seed = if n == 0 { version } else { 100 + n };
                let bytes = crate::harness::image::random_bytes(seed, FILE);
                fs::write(folder.path().join(format!("file-{n}")), bytes).unwrap();
            }
            let tag = format!("v{version}");
            let digest = push_chunked(&buildah, folder.path(), &at(&cluster, 0, &format!("team/data:{tag}")));
            cluster[1].registry().wait_for_digest("team/data", &tag, &digest);
            let before = sent();
            podman.run(&["pull", "--tls-verify=false", &at(&cluster, 1, &format!("team/data:{tag}"))]);
            costs.push(sent() - before);
        }
        let whole = (FILES as usize * FILE) as f64;
        assert!(costs[0] > whole, "the first pull took {} bytes", costs[0]);
        assert!(costs[1] < whole / 2.0, "the second pull took {} of {whole} bytes", costs[1]);
    });
}

/// Publishes an image with this folder as its only layer; its digest.
fn push_chunked(buildah: &Podman, folder: &Path, name: &str) -> String {
    let container = buildah.run(&["from", "scratch"]);
    buildah.run(&["copy", "--quiet", container.trim(), folder.to_str().unwrap(), "/data"]);
    buildah.run(&["commit", "--quiet", "--rm", "--format", "oci", container.trim(), "localhost/data"]);
    push(buildah, "localhost/data", name, &["--compression-format=zstd:chunked"])
}

/// Pushes an image; the digest that it got.
fn push(buildah: &Podman, image: &str, name: &str, more: &[&str]) -> String {
    let folder = temp_dir("digest");
    let file = folder.path().join("digest");
    let target = format!("docker://{name}");
    let mut arguments = vec!["push", "--tls-verify=false", "--digestfile", file.to_str().unwrap()];
    arguments.extend(more);
    arguments.extend([image, &target]);
    buildah.run(&arguments);
    fs::read_to_string(file).unwrap().trim().to_owned()
}

const FILES: u64 = 8;
const FILE: usize = 1_000_000;
