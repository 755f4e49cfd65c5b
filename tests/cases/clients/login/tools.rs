//! Tools that move artifacts: skopeo, crane, regctl, oras, Helm.

use std::{fs, path::Path, process::Command};

use super::{
    super::{image, write_dir},
    Door, Said, Visitor, visit,
};
use crate::harness::{
    clients::{Client, outcome, python_with, run},
    image::{archive, random_bytes},
};

/// A tool that keeps its logins in a folder of the test.
struct Tool<'a> {
    client: Client,
    door: &'a Door,
}

impl Tool<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let folder = self.door.folder();
        let mut command = self.client.command();
        command
            .args(arguments)
            .env("HOME", folder)
            .env("DOCKER_CONFIG", folder)
            .env("REGISTRY_AUTH_FILE", folder.join("auth.json"))
            .env("REGCTL_CONFIG", folder.join("regctl.json"))
            .envs(
                ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"]
                    .map(|name| (name, folder.join(name))),
            )
            .current_dir(folder);
        command
    }

    fn act(&self, arguments: &[&str]) -> Said {
        outcome(&mut self.command(arguments))
    }
}

struct Skopeo<'a>(Tool<'a>);

impl Skopeo<'_> {
    fn place(&self, repository: &str) -> String {
        format!("docker://{}", self.0.door.at(repository))
    }
}

impl Visitor for Skopeo<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        let login = ["login", "--tls-verify=false", "-u", user, "-p", password];
        self.0.act(&[&login[..], &[self.0.door.address()]].concat())
    }

    fn push(&self, repository: &str) -> Said {
        let copy = ["--insecure-policy", "copy", "--dest-tls-verify=false", "dir:in"];
        self.0.act(&[&copy[..], &[&self.place(repository)]].concat())
    }

    fn pull(&self, repository: &str) -> Said {
        let copy = ["--insecure-policy", "copy", "--src-tls-verify=false", &self.place(repository)];
        self.0.act(&[&copy[..], &["dir:out"]].concat())
    }
}

#[test]
fn skopeo_logs_in() {
    let Some(client) = Client::find("skopeo", &["--version"]) else { return };
    let door = Door::start(&[]);
    write_dir(&door.folder().join("in"), &image());
    visit(&Skopeo(Tool { client, door: &door }));
}

struct Crane<'a>(Tool<'a>);

impl Visitor for Crane<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        self.0.act(&["auth", "login", "-u", user, "-p", password, self.0.door.address()])
    }

    fn push(&self, repository: &str) -> Said {
        let name = self.0.door.at(repository);
        let layer = ["--new_layer", "layer.tar", "--new_tag", &name];
        self.0.act(&[&["append", "--insecure", "--oci-empty-base"][..], &layer].concat())
    }

    fn pull(&self, repository: &str) -> Said {
        self.0.act(&["pull", "--insecure", &self.0.door.at(repository), "image.tar"])
    }
}

#[test]
fn crane_logs_in() {
    let Some(client) = Client::find("crane", &["version"]) else { return };
    let door = Door::start(&[]);
    fs::write(door.folder().join("layer.tar"), archive(&[("etc/motd", b"welcome\n")], 0o644)).unwrap();
    let crane = Crane(Tool { client, door: &door });
    visit(&crane);
    // Mounting needs a token for both repositories.
    crane.login("ann", "apple-7").unwrap();
    crane.0.act(&["copy", "--insecure", &door.at("team/app"), &door.at("team/copied")]).unwrap();
    let listed = crane.0.act(&["catalog", "--insecure", door.address()]).unwrap();
    assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), ["team/app", "team/copied"]);
}

struct Regctl<'a>(Tool<'a>);

impl Visitor for Regctl<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        self.0.act(&["registry", "login", "-u", user, "-p", password, self.0.door.address()])
    }

    fn push(&self, repository: &str) -> Said {
        let name = self.0.door.at(repository);
        self.0.act(&["artifact", "put", "--artifact-type", "application/x", "--file", "data.bin", &name])
    }

    fn pull(&self, repository: &str) -> Said {
        self.0.act(&["image", "copy", &self.0.door.at(repository), "ocidir://layout:v1"])
    }
}

#[test]
fn regctl_logs_in() {
    let Some(client) = Client::find("regctl", &["version", "--format", "{{.VCSTag}}"]) else { return };
    let door = Door::start(&[]);
    fs::write(door.folder().join("data.bin"), random_bytes(1, 100_000)).unwrap();
    let tool = Tool { client, door: &door };
    run(&mut tool.command(&["registry", "set", "--tls", "disabled", "--skip-check", door.address()]));
    visit(&Regctl(tool));
}

struct Oras<'a>(Tool<'a>);

impl Visitor for Oras<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        self.0.act(&["login", "--plain-http", "-u", user, "-p", password, self.0.door.address()])
    }

    fn push(&self, repository: &str) -> Said {
        self.0.act(&["push", "--plain-http", "--no-tty", &self.0.door.at(repository), "data.bin"])
    }

    fn pull(&self, repository: &str) -> Said {
        self.0.act(&["pull", "--plain-http", "--no-tty", "--output", "out", &self.0.door.at(repository)])
    }
}

#[test]
fn oras_logs_in() {
    let Some(client) = Client::find("oras", &["version"]) else { return };
    let door = Door::start(&[]);
    fs::write(door.folder().join("data.bin"), random_bytes(2, 100_000)).unwrap();
    fs::write(door.folder().join("config.json"), "{}").unwrap();
    visit(&Oras(Tool { client, door: &door }));
}

struct Helm<'a>(Tool<'a>);

impl Helm<'_> {
    /// Charts are named by their own name below what is said.
    fn package(&self, name: &str) {
        let chart = self.0.door.folder().join(name);
        fs::create_dir(&chart).unwrap();
        let text = format!("apiVersion: v2\nname: {name}\nversion: 1.0.0\n");
        fs::write(chart.join("Chart.yaml"), text).unwrap();
        self.0.act(&["package", name]).unwrap();
    }
}

impl Visitor for Helm<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        self.0.act(&["registry", "login", "--plain-http", "-u", user, "-p", password, self.0.door.address()])
    }

    fn push(&self, repository: &str) -> Said {
        let (folder, chart) = repository.split_once('/').expect("two parts");
        let folder = format!("oci://{}/{folder}", self.0.door.address());
        self.0.act(&["push", "--plain-http", &format!("{chart}-1.0.0.tgz"), &folder])
    }

    fn pull(&self, repository: &str) -> Said {
        let chart = format!("oci://{}/{repository}", self.0.door.address());
        // By the list of tags, and by name.
        self.0.act(&["pull", "--plain-http", &chart])?;
        self.0.act(&["pull", "--plain-http", "--version", "1.0.0", &chart])
    }
}

#[test]
fn helm_logs_in() {
    let Some(client) = Client::find("helm", &["version", "--short"]) else { return };
    let door = Door::start(&[]);
    let helm = Helm(Tool { client, door: &door });
    ["app", "other"].iter().for_each(|name| helm.package(name));
    visit(&helm);
}

struct OrasPython<'a>(Tool<'a>);

impl OrasPython<'_> {
    fn script(&self, arguments: &[&str]) -> Said {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients/oras_client.py");
        self.0.act(&[&[script.to_str().expect("UTF-8")][..], arguments].concat())
    }
}

impl Visitor for OrasPython<'_> {
    fn login(&self, user: &str, password: &str) -> Said {
        self.script(&["login", self.0.door.address(), &format!("{user}:{password}")])
    }

    fn push(&self, repository: &str) -> Said {
        self.script(&["push", &self.0.door.at(repository), "data.bin"])
    }

    fn pull(&self, repository: &str) -> Said {
        self.script(&["pull", &self.0.door.at(repository), "out"])
    }
}

#[test]
fn oras_for_python_logs_in() {
    let Some(client) = python_with("oras") else { return };
    let door = Door::start(&[]);
    fs::write(door.folder().join("data.bin"), random_bytes(3, 100_000)).unwrap();
    fs::create_dir(door.folder().join("out")).unwrap();
    visit(&OrasPython(Tool { client, door: &door }));
}
