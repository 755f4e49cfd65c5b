//! The doctor finds what is wrong, says what to do, and ends with a code that scripts can use; also where no node runs.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _};

use serde_json::Value;

use crate::harness::{
    cluster::Cluster,
    image::Image,
    node::{Node, Options, temp_dir, waystation},
    upstream::Upstream,
    wait::until_true,
};

/// The findings, and the code that the command ended with.
fn doctor(node: &Node, more: &[&str]) -> (Vec<Value>, i32) {
    let root = temp_dir("root");
    let arguments = [&["doctor", "--json", "--root", root.path().to_str().unwrap()][..], more].concat();
    let ended = node.cli(&arguments);
    (serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}")), ended.code)
}

fn level(found: &[Value], check: &str) -> String {
    let of = found.iter().filter(|finding| finding["check"] == check);
    let levels = of.map(|finding| finding["level"].as_str().unwrap().to_owned());
    // By name they sort from fail over ok to warn; the worst is wanted.
    let rank = |level: &String| ["ok", "warn", "fail"].iter().position(|known| known == level);
    levels.max_by_key(rank).unwrap_or_else(|| panic!("no {check} in {found:#?}"))
}

#[test]
fn a_node_that_works_is_found_to_and_others_are_seen_to_reach_it() {
    let cluster = Cluster::start(2);
    let image = Image::random(1, &[200_000]);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);
    // The second dialled the first, for the session and for the bytes.
    let (found, code) = doctor(&cluster[0], &[]);
    for check in
        ["node", "clock", "data-dir", "ports", "mesh", "key", "sessions", "reach-control", "reach-data"]
    {
        assert_eq!(level(&found, check), "ok", "{check}: {found:#?}");
    }
    assert!(found.iter().all(|finding| finding["level"] != "fail"), "{found:#?}");
    // How fast the disk of this machine is, is not for this test to say.
    assert_ne!(level(&found, "disk-write"), "fail", "{found:#?}");
    assert!(code <= 1, "{found:#?}");
    let reach = found.iter().find(|finding| finding["check"] == "reach-data").unwrap();
    assert!(reach["why"].as_str().unwrap().contains("site-1"), "says from where: {reach}");
    assert!(reach["why"].as_str().unwrap().contains("just now"), "it was tried: {reach}");
    // Nobody has come to the second by itself, and it is reached all the same: nothing is left to be done there.
    let (found, _) = doctor(&cluster[1], &[]);
    for check in ["reach-control", "reach-data", "grants"] {
        assert_eq!(level(&found, check), "ok", "{check}: {found:#?}");
    }
    for finding in found.iter().filter(|finding| finding["level"] != "ok") {
        assert!(finding["todo"].is_string(), "says what to do: {finding}");
    }
    // Whoever asks again at once is not dialled again.
    let (found, _) = doctor(&cluster[1], &[]);
    let reach = found.iter().find(|finding| finding["check"] == "reach-data").unwrap();
    assert_eq!(reach["level"], "warn", "{reach}");
    assert!(reach["why"].as_str().unwrap().contains("once in 10 seconds"), "{reach}");
    let ended = cluster[1].cli(&["doctor"]).expect(1);
    assert!(ended.stdout.contains("WARN  reach-data") && ended.stdout.contains("to do:"), "{}", ended.stdout);
}

#[test]
fn a_node_that_is_cut_off_is_told_so() {
    let mut cluster = Cluster::start(2);
    cluster[0].kill();
    until_true("the crash is noticed", || cluster[1].sessions().is_empty());
    let (found, code) = doctor(&cluster[1], &[]);
    assert_eq!((level(&found, "sessions").as_str(), code), ("fail", 2), "{found:#?}");
}

#[test]
fn upstreams_are_asked_once_and_their_clock_is_compared() {
    let upstream = Upstream::start();
    let folder = temp_dir("config");
    let file = folder.path().join("node.toml");
    fs::write(&file, upstream.config("docker.io", "")).unwrap();
    let extra = vec!["--config".to_owned(), file.to_str().unwrap().to_owned()];
    let node = Node::start(Options { extra, ..Options::default() });
    let (found, _) = doctor(&node, &[]);
    assert_eq!(level(&found, "upstream"), "ok", "{found:#?}");
    upstream.set(|faults| faults.down = true);
    let (found, code) = doctor(&node, &[]);
    assert_eq!((level(&found, "upstream").as_str(), code), ("warn", 1), "{found:#?}");
}

#[test]
fn without_a_node_it_says_what_a_start_would_meet() {
    let mut node = Node::start(Options::default());
    node.stop();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let folder = temp_dir("config");
    let file = folder.path().join("node.toml");
    let text = format!(
        "[registry]\nlisten = \"{}\"\n[mesh]\nlisten = \"127.0.0.1:0\"\n",
        taken.local_addr().unwrap()
    );
    fs::write(&file, text).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let (found, code) = doctor(&node, &config);
    assert_eq!(code, 2);
    for (check, expected) in [
        ("node", "fail"),
        ("config", "ok"),
        ("ports", "fail"),
        ("mesh", "ok"),
        ("key", "ok"),
        ("clock", "ok"),
    ] {
        assert_eq!(level(&found, check), expected, "{check}: {found:#?}");
    }
    let port =
        found.iter().find(|finding| finding["level"] == "fail" && finding["check"] == "ports").unwrap();
    assert!(port["what"].as_str().unwrap().contains(&format!("process {}", std::process::id())), "{port}");

    fs::write(&file, "[node]\nsight = 1\n").unwrap();
    fs::write(node.data_dir().join("mesh.toml"), "version = 9\n").unwrap();
    fs::set_permissions(node.data_dir(), fs::Permissions::from_mode(0o777)).unwrap();
    let (found, _) = doctor(&node, &config);
    for (check, expected) in [("config", "fail"), ("mesh", "fail"), ("data-dir", "warn")] {
        assert_eq!(level(&found, check), expected, "{check}: {found:#?}");
    }

    let empty = temp_dir("empty");
    let ended = waystation(&["doctor"], Some(&empty.path().join("none"))).expect(2);
    assert!(ended.stdout.contains("waystation serve"), "{}", ended.stdout);
}
