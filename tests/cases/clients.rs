//! Clients that people use push to one node and pull from others. A missing client is a failure where CI
//! runs, and said loudly elsewhere.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    node::temp_dir,
};

#[test]
fn skopeo_copies_in_at_one_node_and_out_at_another() {
    let Some(skopeo) = client("skopeo") else { return };
    let cluster = Cluster::start(3);
    let folder = temp_dir("skopeo");
    let image = image();
    write_dir(&folder.path().join("in"), &image);
    let (from, to) = (format!("dir:{}/in", folder.path().display()), |n: usize| reference(&cluster, n));
    run(Command::new(&skopeo)
        .args(["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false"])
        .arg(&from)
        .arg(to(0)));
    for node in 1..3 {
        cluster[node].registry().wait_for_tag("library/app", "v1", &image);
        let out = folder.path().join(format!("out-{node}"));
        let copy = ["--insecure-policy", "copy", "--src-tls-verify=false"];
        run(Command::new(&skopeo).args(copy).arg(to(node)).arg(format!("dir:{}", out.display())));
        assert_eq!(fs::read(out.join("manifest.json")).unwrap(), image.manifest);
        for blob in image.blobs() {
            let name = digest(blob);
            assert_eq!(fs::read(out.join(name.trim_start_matches("sha256:"))).unwrap(), *blob);
        }
        let list = Command::new(&skopeo)
            .args(["list-tags", "--tls-verify=false"])
            .arg(repository(&cluster, node))
            .output();
        assert!(String::from_utf8_lossy(&list.unwrap().stdout).contains("v1"));
    }
}

#[test]
fn podman_pulls_and_pushes() {
    let Some(podman) = client("podman") else { return };
    let mut cluster = Cluster::start(2);
    cluster.grant(1);
    let image = image();
    cluster[0].registry().push("library/app", "v1", &image);
    let folder = temp_dir("podman");
    let podman = |arguments: &[&str]| {
        let storage = [("--root", "root"), ("--runroot", "run")];
        let mut command = Command::new(&podman);
        for (flag, name) in storage {
            command.arg(flag).arg(folder.path().join(name));
        }
        run(command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]).args(arguments))
    };
    cluster[1].registry().wait_for_tag("library/app", "v1", &image);
    let there = |n: usize, tag: &str| format!("{}/library/app:{tag}", cluster[n].ready("listen"));
    podman(&["pull", "--tls-verify=false", &there(1, "v1")]);
    let id = podman(&["images", "--quiet", "--no-trunc"]);
    assert!(id.contains(&digest(&image.config)), "another image came: {id}");

    // Pushed at the second node, pulled at the first.
    podman(&["push", "--tls-verify=false", &there(1, "v1"), &there(1, "again")]);
    crate::harness::wait::until_true("the pushed tag is at the first node", || {
        cluster[0].registry().tags("library/app").contains(&"again".to_owned())
    });
    podman(&["rmi", "--all", "--force"]);
    podman(&["pull", "--tls-verify=false", &there(0, "again")]);
    assert!(podman(&["images", "--quiet", "--no-trunc"]).contains(&digest(&image.config)));
    cluster[1].stop();
}

#[test]
fn oras_pushes_a_file_and_pulls_it_elsewhere() {
    let venv = std::env::var("WAYSTATION_TEST_VENV").map_or_else(|_| target().join("venv"), PathBuf::from);
    let python = venv.join("bin/python");
    let has_oras =
        Command::new(&python).args(["-c", "import oras"]).output().is_ok_and(|o| o.status.success());
    if !has_oras {
        missing("oras (Python)");
        return;
    }
    let cluster = Cluster::start(2);
    let folder = temp_dir("oras");
    let file = folder.path().join("model.bin");
    let content = crate::harness::image::random_bytes(9, 3 << 20);
    fs::write(&file, &content).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients/oras_client.py");
    let there = |n: usize| format!("{}/models/net:v1", cluster[n].ready("listen"));
    run(Command::new(&python).arg(&script).args(["push", &there(0), "model.bin"]).current_dir(folder.path()));
    crate::harness::wait::until_true("the file's artifact is at the second node", || {
        cluster[1].registry().manifest("models/net", "v1").status == 200
    });
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    run(Command::new(&python).arg(&script).args(["pull", &there(1)]).arg(&out));
    assert!(fs::read(out.join("model.bin")).unwrap() == content, "other bytes came back");
}

/// An image that engines can unpack.
pub fn image() -> Image {
    Image::with_files(&[("hello", b"#!/bin/true\n"), ("etc/conf", &[b'x'; 200_000])])
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

fn repository(cluster: &Cluster, node: usize) -> String {
    format!("docker://{}/library/app", cluster[node].ready("listen"))
}

fn reference(cluster: &Cluster, node: usize) -> String {
    format!("{}:v1", repository(cluster, node))
}

/// Runs a client to its end; panics with all it said where it fails.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    stdout
}

/// The client's path, where it is installed.
pub fn client(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        missing(name);
    }
    found
}

fn missing(name: &str) {
    assert!(std::env::var_os("CI").is_none(), "{name} is missing: `tests/run tools` installs it");
    eprintln!("NOT TESTED: {name} is missing; `tests/run tools` installs it");
}

fn target() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap().to_owned()
}
