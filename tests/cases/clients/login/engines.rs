//! Engines: Docker, by plain HTTP and by TLS, containerd, podman and buildah.

use std::{fs, path::Path};

use serde_json::json;

use super::{Door, Known, Said, Visitor, visit};
use crate::harness::{
    clients::{containerd::Containerd, docker::Docker, outcome, podman::Podman, run},
    image::{Image, MANIFEST_TYPE, archive, descriptor, digest, to_bytes},
    node::temp_dir,
    sealed::{add_address, sealed},
};

struct DockerVisitor<'a> {
    docker: &'a Docker,
    door: &'a Door,
}

impl Visitor for DockerVisitor<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        let login = ["login", "--username", user, "--password", password, self.door.address()];
        outcome(self.docker.command().args(login))
    }

    fn push(&self, repository: &str) -> Said {
        let name = self.door.at(repository);
        self.docker.run(&["tag", "local:v1", &name]);
        outcome(self.docker.command().args(["push", &name]))
    }

    fn pull(&self, repository: &str) -> Said {
        let name = self.door.at(repository);
        let _ = outcome(self.docker.command().args(["rmi", "--force", &name]));
        outcome(self.docker.command().args(["pull", &name]))
    }
}

/// Goes through it with a daemon that finds its certificates there instead of in `/etc/docker`.
fn visit_by_docker(door: &Door, etc: Option<&Path>) {
    let folder = temp_dir("daemon");
    let daemon_json = folder.path().join("daemon.json");
    fs::write(&daemon_json, "{}").unwrap();
    let Some(docker) = Docker::start_with(&daemon_json, etc) else { return };
    let layer = folder.path().join("layer.tar");
    fs::write(&layer, archive(&[("etc/motd", b"welcome\n")], 0o644)).unwrap();
    docker.run(&["import", layer.to_str().unwrap(), "local:v1"]);
    visit(&DockerVisitor { docker: &docker, door });
    docker.run(&["logout", door.address()]);
    outcome(docker.command().args(["pull", &door.at("team/app")])).expect_err("a pull after the logout");
}

#[test]
fn docker_logs_in() {
    sealed(|| visit_by_docker(&Door::start(&[]), None));
}

#[test]
fn docker_logs_in_by_tls() {
    sealed(|| {
        // Docker trusts nobody's certificate more than on loopback, where it takes any.
        add_address("10.77.1.1");
        let door = Door::start(&["--tls-self-made", "--listen", "10.77.1.1:5000"]);
        let etc = temp_dir("etc");
        visit_untrusting(&door, etc.path());
        let trusted = etc.path().join("docker/certs.d").join(door.address());
        fs::create_dir_all(&trusted).unwrap();
        fs::write(trusted.join("ca.crt"), door.node.cli(&["tls", "ca"]).expect(0).stdout).unwrap();
        visit_by_docker(&door, Some(etc.path()));
    });
}

/// Without the node's CA nothing is sent to it.
fn visit_untrusting(door: &Door, etc: &Path) {
    let daemon_json = etc.join("daemon.json");
    fs::write(&daemon_json, "{}").unwrap();
    let Some(docker) = Docker::start_with(&daemon_json, None) else { return };
    let refused = DockerVisitor { docker: &docker, door }.login("ann", "apple-7").expect_err("a login");
    assert!(refused.contains("certificate"), "{refused}");
}

struct Ctr<'a> {
    containerd: &'a Containerd,
    door: &'a Door,
    known: Known,
}

impl Ctr<'_> {
    fn images(&self, verb: &str, rest: &[&str]) -> Said {
        let mut command = self.containerd.command();
        command.args(["--namespace", "login", "images", verb, "--plain-http"]).args(self.known.arguments());
        outcome(command.args(rest))
    }
}

impl Visitor for Ctr<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        self.known.set(user, password)
    }

    fn push(&self, repository: &str) -> Said {
        self.images("push", &[&self.door.at(repository), LOCAL])
    }

    fn pull(&self, repository: &str) -> Said {
        self.images("pull", &["--snapshotter", "native", &self.door.at(repository)])
    }
}

#[test]
fn containerd_logs_in() {
    sealed(|| {
        let Some(containerd) = Containerd::start(None) else { return };
        let door = Door::start(&[]);
        let file = door.folder().join("image.tar");
        fs::write(&file, layout(&super::super::image())).unwrap();
        containerd.ctr("login", &["images", "import", "--no-unpack", file.to_str().unwrap()]);
        visit(&Ctr { containerd: &containerd, door: &door, known: Known::default() });

        // A mirror that asks for a login which containerd has not got is passed over.
        let certs = door.folder().join("certs/registry.example.test");
        fs::create_dir_all(&certs).unwrap();
        let hosts = format!(
            "server = \"http://127.0.0.1:9\"\n\n[host.\"http://{}\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
            door.address()
        );
        fs::write(certs.join("hosts.toml"), hosts).unwrap();
        let certs = door.folder().join("certs");
        let pull = ["images", "pull", "--snapshotter", "native", "--hosts-dir", certs.to_str().unwrap()];
        let name = "registry.example.test/team/app:v1";
        let pull = |user: &[&str]| {
            let mut command = containerd.command();
            outcome(command.args(["--namespace", "mirror"]).args(pull).args(user).arg(name))
        };
        pull(&[]).expect_err("a pull without a login");
        pull(&["--user", "ann:apple-8"]).expect_err("a pull with a wrong password");
        pull(&["--user", "ann:apple-7"]).unwrap();
    });
}

/// podman or buildah.
struct Builder<'a> {
    client: &'a Podman,
    door: &'a Door,
}

impl Builder<'_> {
    fn act(&self, arguments: &[&str]) -> Said {
        let logins = self.door.folder().join("auth.json");
        outcome(self.client.command().args(arguments).env("REGISTRY_AUTH_FILE", logins))
    }
}

impl Visitor for Builder<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        self.act(&["login", "--tls-verify=false", "-u", user, "-p", password, self.door.address()])
    }

    fn push(&self, repository: &str) -> Said {
        let name = format!("docker://{}", self.door.at(repository));
        self.act(&["push", "--tls-verify=false", "localhost/made", &name])
    }

    fn pull(&self, repository: &str) -> Said {
        let name = format!("docker://{}", self.door.at(repository));
        let _ = self.act(&["rmi", "--force", &self.door.at(repository)]);
        self.act(&["pull", "--tls-verify=false", &name])
    }
}

#[test]
fn buildah_logs_in() {
    sealed(|| {
        let Some(buildah) = Podman::new("buildah", "vfs") else { return };
        let door = Door::start(&[]);
        let container = buildah.run(&["from", "scratch"]);
        let container = container.trim();
        let motd = door.folder().join("motd");
        fs::write(&motd, "welcome\n").unwrap();
        buildah.run(&["copy", "--quiet", container, motd.to_str().unwrap(), "/etc/motd"]);
        run(buildah.command().args(["commit", "--quiet", "--rm", container, "localhost/made"]));
        visit(&Builder { client: &buildah, door: &door });
    });
}

#[test]
fn podman_logs_in() {
    sealed(|| {
        let Some(podman) = Podman::new("podman", "vfs") else { return };
        let door = Door::start(&[]);
        let layer = door.folder().join("layer.tar");
        fs::write(&layer, archive(&[("etc/motd", b"welcome\n")], 0o644)).unwrap();
        podman.run(&["import", "--quiet", layer.to_str().unwrap(), "localhost/made"]);
        visit(&Builder { client: &podman, door: &door });
    });
}

/// An image as an OCI layout in an archive, named as [`LOCAL`].
fn layout(image: &Image) -> Vec<u8> {
    let mut entry = descriptor(MANIFEST_TYPE, &image.manifest);
    entry["annotations"] = json!({"io.containerd.image.name": LOCAL});
    let index = to_bytes(&json!({"schemaVersion": 2, "manifests": [entry]}));
    let place = |bytes: &[u8]| digest(bytes).replace("sha256:", "blobs/sha256/");
    let blobs: Vec<_> = image.blobs().chain([&image.manifest]).map(|bytes| (place(bytes), bytes)).collect();
    let mut files: Vec<(&str, &[u8])> =
        vec![("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#), ("index.json", &index)];
    files.extend(blobs.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())));
    archive(&files, 0o644)
}

const LOCAL: &str = "localhost/made:v1";
