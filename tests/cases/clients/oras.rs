//! ORAS: any file as an artifact, by the command (the Go library, as Argo CD has it) and by Python.

use std::{fs, path::Path};

use super::{at, two_sites};
use crate::harness::{
    clients::{Client, digest_in, python_with, run},
    image::random_bytes,
    node::temp_dir,
    wait::until_true,
};

#[test]
fn oras_for_python_pushes_a_file_and_pulls_it_elsewhere() {
    let Some(python) = python_with("oras") else { return };
    let cluster = two_sites();
    let folder = temp_dir("oras");
    let content = random_bytes(9, 3 << 20);
    fs::write(folder.path().join("model.bin"), &content).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/clients/oras_client.py");
    let there = |node| at(&cluster, node, "models/net:v1");
    let act = |arguments: &[&str]| {
        run(python.command().arg(&script).args(arguments).current_dir(folder.path()));
    };
    act(&["push", &there(0), "model.bin"]);
    until_true("the file's artifact is at the second node", || {
        cluster[1].registry().manifest("models/net", "v1").status == 200
    });
    fs::create_dir(folder.path().join("out")).unwrap();
    act(&["pull", &there(1), "out"]);
    assert!(fs::read(folder.path().join("out/model.bin")).unwrap() == content, "other bytes came back");
}

#[test]
fn oras_pushes_files_with_their_names_and_types() {
    let Some(oras) = Client::find("oras", &["version"]) else { return };
    let cluster = two_sites();
    let folder = temp_dir("oras");
    let (model, notes) = (random_bytes(10, 2 << 20), b"what it is\n".to_vec());
    fs::write(folder.path().join("model.bin"), &model).unwrap();
    fs::write(folder.path().join("notes.txt"), &notes).unwrap();
    let act = |arguments: &[&str]| {
        let config = folder.path().join("config.json");
        fs::write(&config, "{}").unwrap();
        let docker = ("DOCKER_CONFIG", folder.path());
        run(oras.command().args(arguments).env(docker.0, docker.1).current_dir(folder.path()))
    };
    let there = |node| at(&cluster, node, "models/net:v2");
    let pushed = digest_in(&act(&[
        "push",
        "--plain-http",
        "--no-tty",
        "--artifact-type",
        "application/vnd.example.model",
        &there(0),
        "model.bin:application/octet-stream",
        "notes.txt:text/plain",
    ]));
    cluster[1].registry().wait_for_digest("models/net", "v2", &pushed);
    act(&["pull", "--plain-http", "--no-tty", "--output", "out", &there(1)]);
    assert!(fs::read(folder.path().join("out/model.bin")).unwrap() == model, "other bytes came back");
    assert_eq!(fs::read(folder.path().join("out/notes.txt")).unwrap(), notes);
    assert_eq!(act(&["resolve", "--plain-http", &there(1)]).trim(), pushed);
    // A bill of materials that says what it belongs to, found from there.
    fs::write(folder.path().join("bom.json"), "{}").unwrap();
    const BOM: &str = "application/vnd.example.bom";
    let attach = ["attach", "--plain-http", "--no-tty", "--artifact-type", BOM, &there(0)];
    let attached = act(&[&attach[..], &["bom.json:application/json"]].concat());
    let attached =
        attached.lines().find_map(|line| line.strip_prefix("Digest: ")).expect("a digest").to_owned();
    until_true("the other site knows what belongs to the model", || {
        act(&["discover", "--plain-http", "--format", "json", "--artifact-type", BOM, &there(1)])
            .contains(&attached)
    });
    assert_eq!(act(&["repo", "tags", "--plain-http", &at(&cluster, 1, "models/net")]).trim(), "v2");
}
