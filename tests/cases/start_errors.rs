//! A node that cannot start says in a sentence what is wrong and what to do, ends with code 2, and damages
//! nothing.

use std::{fs, net::TcpListener, path::Path};

use crate::harness::{
    image::Image,
    node::{Ended, Node, Options, temp_dir, waystation},
};

#[test]
fn the_data_directory_cannot_be_made() {
    let folder = temp_dir("start");
    // A file in its place stops root, too, where missing rights would not.
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    for dir in [file.clone(), file.join("below")] {
        let ended = serve(&dir, &[]);
        assert_explains(&ended, &[file.to_str().unwrap()]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
}

#[test]
fn the_data_directory_is_in_use() {
    let node = Node::start(Options::default());
    let image = Image::random(1, &[10_000]);
    node.registry().push("app", "v1", &image);
    let ended = serve(&node.data_dir(), &[]);
    assert_explains(&ended, &[node.data_dir().to_str().unwrap(), "in use"]);
    node.registry().assert_has("app", "v1", &image);
    node.status();
}

#[test]
fn the_data_directory_was_written_by_a_newer_version() {
    let mut node = Node::start(Options::default());
    let image = Image::random(2, &[10_000]);
    node.registry().push("app", "v1", &image);
    node.stop();
    let path = node.data_dir().join("VERSION");
    let version = fs::read_to_string(&path).unwrap();
    let (number, rest) = version.split_once('\n').unwrap_or((&version, ""));
    let newer = format!("{}\n{rest}", number.trim().parse::<u32>().unwrap() + 1);
    fs::write(&path, &newer).unwrap();
    assert_explains(&serve(&node.data_dir(), &[]), &["newer"]);
    assert_eq!(fs::read_to_string(&path).unwrap(), newer);
    fs::write(&path, version).unwrap();
    node.start_again();
    node.registry().assert_has("app", "v1", &image);
}

#[test]
fn a_port_is_taken() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = address.rsplit(':').next().unwrap();
    for flag in ["--listen", "--mesh-listen", "--admin-listen"] {
        let folder = temp_dir("start");
        let ended = serve(&folder.path().join("data"), &[flag, &address]);
        assert_explains(&ended, &[port]);
    }
}

#[test]
fn the_configuration_has_an_unknown_key() {
    let folder = temp_dir("start");
    let config = folder.path().join("node.toml");
    fs::write(&config, "[node]\nsite = \"berlin\"\nsiet = \"x\"\n[registry]\nlisten = \"nowhere\"\n")
        .unwrap();
    let ended = serve(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    // All that is wrong, at once.
    assert_explains(&ended, &["siet", "nowhere"]);
    assert!(!folder.path().join("data").exists(), "a bad configuration made a data directory");
}

#[test]
fn the_configuration_is_missing() {
    let folder = temp_dir("start");
    let config = folder.path().join("absent.toml");
    let ended = serve(&folder.path().join("data"), &["--config", config.to_str().unwrap()]);
    assert_explains(&ended, &["absent.toml"]);
}

#[test]
fn the_mesh_file_is_none() {
    let folder = temp_dir("start");
    let mesh = folder.path().join("mesh.toml");
    for text in ["", "this is no TOML", "version = 1\n", "version = 99\n"] {
        fs::write(&mesh, text).unwrap();
        let ended = serve(&folder.path().join("data"), &["--mesh", mesh.to_str().unwrap()]);
        assert_explains(&ended, &["mesh"]);
    }
    let ended = serve(&folder.path().join("data"), &["--mesh", "/nonexistent/mesh.toml"]);
    assert_explains(&ended, &["/nonexistent/mesh.toml"]);
}

#[test]
fn the_mesh_file_is_of_another_mesh_than_the_data() {
    let mut node = Node::start(Options::default());
    let image = Image::random(3, &[10_000]);
    node.registry().push("app", "v1", &image);
    let other = Node::start(Options::default());
    let folder = temp_dir("start");
    let mesh = folder.path().join("mesh.toml");
    crate::harness::cluster::export_mesh(&other, &mesh);
    node.stop();
    assert_explains(&serve(&node.data_dir(), &["--mesh", mesh.to_str().unwrap()]), &["mesh"]);
    node.start_again();
    node.registry().assert_has("app", "v1", &image);
}

#[test]
fn wrong_usage_ends_with_two() {
    for arguments in
        [&["serve", "--no-such-flag"][..], &["no-such-command"], &["serve", "--listen", "x"], &["tags"]]
    {
        let ended = waystation(arguments, None).expect(2);
        assert!(!ended.stderr.is_empty());
    }
}

/// Tries to serve on free ports; a flag given twice would be an error, so those in `extra` win.
fn serve(data_dir: &Path, extra: &[&str]) -> Ended {
    let mut arguments = vec!["serve"];
    for flag in ["--listen", "--mesh-listen", "--admin-listen"] {
        if !extra.contains(&flag) {
            arguments.extend([flag, "127.0.0.1:0"]);
        }
    }
    arguments.extend(extra);
    waystation(&arguments, Some(data_dir))
}

/// Code 2, and on stderr a sentence with these words; no panic, no backtrace.
#[track_caller]
fn assert_explains(ended: &Ended, words: &[&str]) {
    assert_eq!(ended.code, 2, "stderr: {}", ended.stderr);
    for word in words {
        assert!(ended.stderr.contains(word), "no {word:?} in: {}", ended.stderr);
    }
    let complaint: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("waystation: ")).collect();
    assert!((1..=4).contains(&complaint.len()), "a sentence, not: {}", ended.stderr);
    for noise in ["panicked", "backtrace", "Os {", "Error {"] {
        assert!(!ended.stderr.contains(noise), "{}", ended.stderr);
    }
}
