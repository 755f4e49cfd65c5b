//! What the command line answers, and the code it ends with.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::Path,
};

use sha2::{Digest as _, Sha256};

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    node::{Node, Options, temp_dir, waystation},
    wait::until_true,
};

#[test]
fn a_running_node_answers_questions() {
    let cluster = Cluster::start(2);
    let image = Image::random(1, &[100_000]);
    let (first, second) = (&cluster[0], &cluster[1]);
    first.registry().push("team/app", "v1", &image);
    first.registry().push("team/app", "v2", &image);
    second.registry().wait_for_tag("team/app", "v2", &image);

    let status = second.status();
    assert_eq!(status["node_id"], second.id());
    assert_eq!(status["site"], "site-1");
    assert!(status["records"].as_u64().unwrap() >= 4, "{status}");
    assert_eq!(second.sessions(), [first.id()]);
    assert!(status["data_plane"]["bytes_sent"].is_u64(), "{status}");

    let peers = second.cli(&["peers", "--json"]).expect(0).stdout;
    assert!(peers.contains(first.id()) && peers.contains("site-0"), "{peers}");
    let artifacts = second.cli(&["artifacts", "--json"]).expect(0).stdout;
    assert!(artifacts.contains("team/app") && artifacts.contains(&image.digest()), "{artifacts}");
    let tags = second.cli_json(&["tags", "team/app", "--json"]);
    let names: Vec<_> = tags["tags"].as_array().unwrap().iter().map(|t| t["tag"].clone()).collect();
    assert_eq!(names, ["v1", "v2"]);
    for reference in ["team/app:v1".to_owned(), format!("team/app@{}", image.digest())] {
        let inspection = second.cli_json(&["inspect", &reference, "--json"]);
        assert_eq!(inspection["artifact"]["digest"], image.digest().as_str());
        assert!(inspection.to_string().contains(first.id()), "names the holder: {inspection}");
    }
    // For people: something, without JSON.
    for command in
        [&["status"][..], &["peers"], &["artifacts"], &["tags", "team/app"], &["inspect", "team/app:v1"]]
    {
        let ended = first.cli(command).expect(0);
        assert!(!ended.stdout.is_empty() && !ended.stdout.starts_with('{'), "{command:?}: {}", ended.stdout);
    }
}

#[test]
fn exit_codes_say_what_went_wrong() {
    let mut node = Node::start(Options::default());
    node.registry().push("app", "v1", &Image::random(2, &[1000]));
    for absent in [&["inspect", "app:absent"][..], &["inspect", "absent:v1"], &["tags", "absent"]] {
        let ended = node.cli(absent).expect(4);
        assert!(ended.stderr.contains("absent"), "{absent:?}: {}", ended.stderr);
    }
    let folder = temp_dir("pull");
    let out = folder.path().join("out");
    node.cli(&["pull", "app:absent", out.to_str().unwrap()]).expect(4);
    assert!(!out.exists(), "a pull of nothing made something");
    node.cli(&["push", "app:v2", "/nonexistent"]);
    for wrong in [&["inspect", "Not A Reference"][..], &["inspect"], &["status", "--no-such-flag"]] {
        node.cli(wrong).expect(2);
    }
    node.stop();
    for question in [&["status"][..], &["peers"], &["artifacts"], &["tags", "app"], &["inspect", "app:v1"]] {
        let ended = node.cli(question).expect(3);
        assert!(ended.stderr.contains("waystation serve"), "says what to do: {}", ended.stderr);
    }
    let out = waystation(&["--version"], None).expect(0).stdout;
    assert!(out.starts_with("waystation "), "{out}");
}

#[test]
fn a_sparse_file_goes_in_at_one_node_and_comes_out_at_another() {
    let cluster = Cluster::start(2);
    let folder = temp_dir("file");
    let source = folder.path().join("disk.raw");
    let mut file = File::create(&source).unwrap();
    file.set_len(96 << 20).unwrap();
    for (at, bytes) in [(0, &b"boot sector"[..]), (40 << 20, &[7; 300_000]), ((96 << 20) - 4, b"tail")] {
        file.seek(SeekFrom::Start(at)).unwrap();
        file.write_all(bytes).unwrap();
    }
    drop(file);
    let described =
        ["--artifact-type", "application/vnd.example.disk", "--annotation", "org.example.os=none"];
    let push = ["push", "images/disk:v1", source.to_str().unwrap()];
    cluster[0].cli(&[&push[..], &described].concat()).expect(0);
    until_true("the file's artifact is at the second node", || {
        cluster[1].cli(&["inspect", "images/disk:v1"]).code == 0
    });
    let manifest = cluster[1].registry().manifest("images/disk", "v1").expect(200).json();
    assert_eq!(manifest["artifactType"], "application/vnd.example.disk");
    assert_eq!(manifest["annotations"]["org.example.os"], "none");
    let out = folder.path().join("out");
    cluster[1].cli(&["pull", "images/disk:v1", out.to_str().unwrap()]).expect(0);
    let out = if out.is_dir() { out.join("disk.raw") } else { out };
    assert_eq!(fs::metadata(&out).unwrap().len(), 96 << 20);
    assert_eq!(digest_of(&out), digest_of(&source));
}

#[test]
fn an_image_layout_goes_in_and_comes_out() {
    let cluster = Cluster::start(2);
    let folder = temp_dir("layout");
    let image = Image::with_files(&[("hello", b"hello")]);
    let source = folder.path().join("in");
    write_layout(&source, &image);
    cluster[0].cli(&["push", "library/hello:v1", source.to_str().unwrap()]).expect(0);
    let there = cluster[1].registry();
    there.wait_for_tag("library/hello", "v1", &image);
    there.assert_has("library/hello", "v1", &image);
    let out = folder.path().join("out");
    cluster[1].cli(&["pull", "library/hello:v1", out.to_str().unwrap()]).expect(0);
    for blob in image.blobs().chain([&image.manifest]) {
        let path = out.join("blobs/sha256").join(digest(blob).trim_start_matches("sha256:"));
        assert_eq!(fs::read(&path).unwrap(), *blob);
    }
}

fn write_layout(folder: &Path, image: &Image) {
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for blob in image.blobs().chain([&image.manifest]) {
        fs::write(blobs.join(digest(blob).trim_start_matches("sha256:")), blob).unwrap();
    }
    fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    let manifest = crate::harness::image::descriptor(crate::harness::image::MANIFEST_TYPE, &image.manifest);
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [manifest]});
    fs::write(folder.join("index.json"), index.to_string()).unwrap();
}

fn digest_of(path: &Path) -> String {
    let (mut file, mut sha256, mut buffer) = (File::open(path).unwrap(), Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return data_encoding::HEXLOWER.encode(&sha256.finalize()),
            n => sha256.update(&buffer[..n]),
        }
    }
}
