//! The Docker daemon.

use std::fs;

use super::{at, client_config, two_sites};
use crate::harness::{
    clients::{busybox, digest_in, docker::Docker},
    image::Image,
    node::temp_dir,
    sealed::sealed,
};

#[test]
fn docker_pulls_runs_and_pushes() {
    sealed(|| {
        let Some(busybox) = busybox() else { return };
        let cluster = two_sites();
        let folder = temp_dir("daemon");
        let daemon_json = folder.path().join("daemon.json");
        fs::write(&daemon_json, "{}").unwrap();
        let Some(docker) = Docker::start(&daemon_json) else { return };
        cluster.grant(1);
        let image = Image::saying("hello from docker", &busybox);
        cluster[0].registry().push("team/hello", "v1", &image);
        cluster[1].registry().wait_for_tag("team/hello", "v1", &image);

        let name = at(&cluster, 1, "team/hello:v1");
        assert_eq!(digest_in(&docker.run(&["pull", &name])), image.digest());
        assert_eq!(docker.run(&["run", "--rm", "--network=none", &name]).trim(), "hello from docker");

        // Docker writes a manifest of its own.
        let again = at(&cluster, 1, "team/hello:again");
        docker.run(&["tag", &name, &again]);
        let pushed = digest_in(&docker.run(&["push", &again]));
        cluster[0].registry().wait_for_digest("team/hello", "again", &pushed);
        docker.run(&["rmi", "--force", &name, &again]);
        let there = at(&cluster, 0, "team/hello:again");
        assert_eq!(digest_in(&docker.run(&["pull", &there])), pushed);
        assert_eq!(docker.run(&["run", "--rm", "--network=none", &there]).trim(), "hello from docker");
    });
}

#[test]
fn docker_takes_the_configuration_that_the_node_writes() {
    sealed(|| {
        let root = temp_dir("root");
        let daemon_json = root.path().join("etc/docker/daemon.json");
        fs::create_dir_all(daemon_json.parent().unwrap()).unwrap();
        fs::write(&daemon_json, r#"{"labels": ["room=7"]}"#).unwrap();
        let cluster = two_sites();
        let image = super::image();
        super::publish_as_hub(&cluster, "library/app", &image);
        let told = client_config(&cluster[1], "docker", root.path(), &[]);
        assert!(told.contains("systemctl reload docker"), "{told}");
        let Some(docker) = Docker::start(&daemon_json) else { return };
        assert_eq!(docker.run(&["info", "--format", "{{.Labels}}"]).trim(), "[room=7]");
        assert_eq!(digest_in(&docker.run(&["pull", "app:v1"])), image.digest());
        drop(docker);
        super::undo(&cluster[1], "docker", root.path());
        assert_eq!(fs::read_to_string(&daemon_json).unwrap(), r#"{"labels": ["room=7"]}"#);
    });
}
