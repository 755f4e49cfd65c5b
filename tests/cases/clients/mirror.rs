//! Engines in front of a node that pulls through a registry: what came once is there for all of them while the
//! registry is away. The node has a certificate of its own making, so that they need its authority, too.

use std::fs;

use super::{client_config, image};
use crate::harness::{
    clients::{containerd::Containerd, digest_in, docker::Docker, podman::Podman},
    image::digest,
    node::{Node, Options, temp_dir},
    sealed::sealed,
    upstream::Upstream,
};

#[test]
fn engines_pull_through_the_node_by_tls_also_while_the_registry_is_away() {
    sealed(|| {
        let (upstream, image, root) = (Upstream::start(), image(), temp_dir("root"));
        upstream.add("library/app", "v1", &image);
        let config = root.path().join("node.toml");
        fs::write(&config, upstream.config("docker.io", "mirror-for-unqualified = true")).unwrap();
        let extra = ["--tls-self-made", "--config", config.to_str().unwrap()].map(str::to_owned).to_vec();
        let node = Node::start(Options { extra, ..Options::site("edge") });
        let ca = root.path().join("ca.pem");
        fs::write(&ca, node.cli(&["tls", "ca"]).expect(0).stdout).unwrap();
        for engine in ["containerd", "docker", "podman"] {
            client_config(&node, engine, root.path(), &["--ca", ca.to_str().unwrap()]);
        }

        let Some(containerd) = Containerd::start(None) else { return };
        let certs = root.path().join("etc/containerd/certs.d");
        assert_eq!(containerd.pull("first", &certs, "docker.io/library/app:v1"), image.digest());
        upstream.set(|faults| faults.down = true);
        assert_eq!(containerd.pull("second", &certs, "docker.io/library/app:v1"), image.digest());

        let Some(podman) = Podman::new("podman", "vfs") else { return };
        let drop_in = root.path().join("etc/containers/registries.conf.d/50-waystation.conf");
        let trusted = root.path().join("etc/containers/certs.d").join(node.ready("listen"));
        let podman = podman.with_registries(&drop_in);
        podman.run(&["pull", "--cert-dir", trusted.to_str().unwrap(), "docker.io/library/app:v1"]);
        let id = podman.run(&["images", "--quiet", "--no-trunc"]);
        assert!(id.contains(&digest(&image.config)), "another image came: {id}");

        let Some(docker) = Docker::start(&root.path().join("etc/docker/daemon.json")) else { return };
        assert_eq!(digest_in(&docker.run(&["pull", "app:v1"])), image.digest());
        let layer = digest(&image.layers[0]);
        assert_eq!(upstream.count("GET", &layer), 1, "a layer is downloaded once");
    });
}
