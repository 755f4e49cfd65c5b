//! podman.

use super::{at, client_config, image, two_sites};
use crate::harness::{
    clients::{busybox, podman::Podman},
    image::{Image, digest},
    node::temp_dir,
    sealed::sealed,
    wait::until_true,
};

#[test]
fn podman_pulls_and_pushes() {
    let Some(podman) = Podman::new("podman", "vfs") else { return };
    let cluster = two_sites();
    cluster.grant(1);
    let image = image();
    cluster[0].registry().push("library/app", "v1", &image);
    cluster[1].registry().wait_for_tag("library/app", "v1", &image);
    let there = |node, tag: &str| at(&cluster, node, &format!("library/app:{tag}"));
    podman.run(&["pull", "--tls-verify=false", &there(1, "v1")]);
    let id = podman.run(&["images", "--quiet", "--no-trunc"]);
    assert!(id.contains(&digest(&image.config)), "another image came: {id}");

    // Pushed at the second node, pulled at the first.
    podman.run(&["push", "--tls-verify=false", &there(1, "v1"), &there(1, "again")]);
    until_true("the pushed tag is at the first node", || {
        cluster[0].registry().tags("library/app").contains(&"again".to_owned())
    });
    podman.run(&["rmi", "--all", "--force"]);
    podman.run(&["pull", "--tls-verify=false", &there(0, "again")]);
    assert!(podman.run(&["images", "--quiet", "--no-trunc"]).contains(&digest(&image.config)));
}

#[test]
fn podman_runs_what_the_other_site_published() {
    sealed(|| {
        let (Some(podman), Some(busybox)) = (Podman::new("podman", "vfs"), busybox()) else { return };
        let cluster = two_sites();
        let image = Image::saying("hello from podman", &busybox);
        cluster[0].registry().push("library/hello", "v1", &image);
        cluster[1].registry().wait_for_tag("library/hello", "v1", &image);
        let name = at(&cluster, 1, "library/hello:v1");
        podman.run(&["pull", "--tls-verify=false", &name]);
        assert_eq!(podman.run_image(&name).trim(), "hello from podman");
    });
}

#[test]
fn podman_takes_the_configuration_that_the_node_writes() {
    sealed(|| {
        let root = temp_dir("root");
        let drop_in = root.path().join("etc/containers/registries.conf.d/50-waystation.conf");
        let Some(podman) = Podman::new("podman", "vfs") else { return };
        let podman = podman.with_registries(&drop_in);
        let cluster = two_sites();
        let image = image();
        super::publish_as_hub(&cluster, "library/app", &image);
        let told =
            client_config(&cluster[1], "podman", root.path(), &["--for", "docker.io", "--for", "quay.io"]);
        assert!(told.contains("crio"), "{told}");
        podman.run(&["pull", "docker.io/library/app:v1"]);
        let pulled = podman.run(&["images", "--quiet", "--no-trunc", "docker.io/library/app:v1"]);
        assert!(pulled.contains(&digest(&image.config)), "another image came: {pulled}");
        super::undo(&cluster[1], "podman", root.path());
    });
}
