//! containerd, by `ctr` and by CRI, with a `hosts.toml` for each registry.

use std::{fs, path::Path};

use super::{at, client_config, two_sites};
use crate::harness::{
    clients::{Client, busybox, containerd::Containerd, digest_in},
    image::Image,
    node::temp_dir,
    sealed::sealed,
};

#[test]
fn containerd_pulls_through_the_mirror_runs_and_pushes() {
    sealed(|| {
        let (Some(containerd), Some(busybox)) = (Containerd::start(None), busybox()) else { return };
        let cluster = two_sites();
        cluster.grant(1);
        let image = Image::saying("hello from containerd", &busybox);
        cluster[0].registry().push("team/hello", "v1", &image);
        cluster[1].registry().wait_for_tag("team/hello", "v1", &image);

        // Named by a registry that is out of reach.
        let certs = temp_dir("certs");
        mirror(certs.path(), "registry.example.test", cluster[1].ready("listen"));
        let name = "registry.example.test/team/hello:v1";
        assert_eq!(containerd.pull("first", certs.path(), name), image.digest());
        assert_eq!(containerd.run_image("first", name).trim(), "hello from containerd");

        let again = at(&cluster, 1, "team/hello:again");
        containerd.ctr("first", &["images", "push", "--plain-http", &again, name]);
        cluster[0].registry().wait_for_tag("team/hello", "again", &image);
        let there = at(&cluster, 0, "team/hello:again");
        containerd.ctr("second", &["images", "pull", "--plain-http", "--snapshotter", "native", &there]);
        let listed = containerd.ctr("second", &["images", "list"]);
        assert_eq!(digest_in(&listed), image.digest());
        // Every byte was checked, and is there.
        assert!(containerd.ctr("second", &["images", "check"]).contains("complete"));
    });
}

#[test]
fn containerd_takes_the_configuration_that_the_node_writes() {
    sealed(|| {
        let root = temp_dir("root");
        let certs = root.path().join("etc/containerd/certs.d");
        let (Some(cri), Some(containerd)) =
            (Client::find("cri", &["--version"]), Containerd::start(Some(&certs)))
        else {
            return;
        };
        let cluster = two_sites();
        let image = super::image();
        super::publish_as_hub(&cluster, "library/app", &image);
        let told = client_config(&cluster[1], "containerd", root.path(), &["--for", "docker.io"]);
        assert!(told.contains("config_path = \"/etc/containerd/certs.d\""), "{told}");
        let name = "docker.io/library/app:v1";
        assert_eq!(containerd.pull("test", &certs, name), image.digest());
        let pulled = cri.run(&[containerd.socket().to_str().unwrap(), "pull", name]);
        assert_eq!(digest_in(&pulled), image.digest());
        super::undo(&cluster[1], "containerd", root.path());
    });
}

#[test]
fn a_kubelet_pulls_by_cri() {
    sealed(|| {
        let certs = temp_dir("certs");
        let (Some(cri), Some(containerd)) =
            (Client::find("cri", &["--version"]), Containerd::start(Some(certs.path())))
        else {
            return;
        };
        let cluster = two_sites();
        let image = super::image();
        cluster[0].registry().push("team/app", "v1", &image);
        cluster[1].registry().wait_for_tag("team/app", "v1", &image);
        mirror(certs.path(), "registry.example.test", cluster[1].ready("listen"));
        let socket = containerd.socket();
        let socket = socket.to_str().unwrap();
        assert!(cri.run(&[socket, "version"]).starts_with("containerd "));
        let pulled = cri.run(&[socket, "pull", "registry.example.test/team/app:v1"]);
        assert_eq!(digest_in(&pulled), image.digest());
    });
}

fn mirror(certs: &Path, registry: &str, node: &str) {
    let folder = certs.join(registry);
    fs::create_dir_all(&folder).unwrap();
    let hosts = format!(
        "server = \"https://{registry}\"\n\n[host.\"http://{node}\"]\n  capabilities = [\"pull\", \"resolve\"]\n"
    );
    fs::write(folder.join("hosts.toml"), hosts).unwrap();
}
