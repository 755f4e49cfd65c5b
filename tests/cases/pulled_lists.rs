//! What was pulled through is listed where people look for it, lists come in full pages that tell nothing of what is
//! not shown, and referrers are found while the upstream is away.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::access::{as_user, write_users};
use crate::harness::{
    image::{Image, MANIFEST_TYPE, descriptor, digest, to_bytes},
    node::{Node, Options, temp_dir},
    registry::Upload,
    upstream::Upstream,
    wait::until_true,
};

const HUB: &str = "docker.io/library/app";

fn configured(text: &str) -> (Node, TempDir) {
    let folder = temp_dir("config");
    let file = folder.path().join("node.toml");
    fs::write(&file, text).unwrap();
    let extra = vec!["--config".to_owned(), file.display().to_string()];
    (Node::start(Options { extra, ..Options::site("a") }), folder)
}

/// A manifest about an image.
fn signature(image: &Image, of_type: &str) -> Vec<u8> {
    let empty = descriptor("application/vnd.oci.empty.v1+json", b"{}");
    to_bytes(&json!({
        "schemaVersion": 2, "mediaType": MANIFEST_TYPE, "artifactType": of_type, "config": empty,
        "layers": [empty], "subject": descriptor(MANIFEST_TYPE, &image.manifest),
    }))
}

fn listed(node: &Node) -> Vec<String> {
    let list = node.registry().http.get("/v2/_catalog").send().expect(200).json();
    list["repositories"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_was_pulled_through_is_listed_as_that() {
    let (upstream, image, own) = (Upstream::start(), Image::random(51, &[1000]), Image::random(52, &[1000]));
    upstream.add("library/app", "v1", &image);
    upstream.add("library/app", "v2", &image);
    upstream.add("library/other", "v1", &own);
    let (mut node, _config) = configured(&upstream.config("docker.io", ""));
    node.registry().push("team/app", "v1", &own);
    assert_eq!(listed(&node), ["team/app"]);
    // Of one only the tag was looked up.
    for tag in ["v1", "v2"] {
        node.registry().assert_has(HUB, tag, &image);
    }
    node.registry().http.get("/v2/docker.io/library/other/tags/list").send().expect(200);
    let complete = || {
        let found = node.cli_json(&["artifacts", HUB, "--json"]);
        found["artifacts"][0]["here"] == "complete"
    };
    until_true("all of it is here", complete);
    for restart in [false, true] {
        if restart {
            node.stop();
            node.start_again();
        }
        assert_eq!(listed(&node), [HUB, "team/app"]);
        let found = node.cli_json(&["artifacts", "--json"]);
        let found: Vec<&Value> = found["artifacts"].as_array().unwrap().iter().collect();
        assert_eq!(found.len(), 2, "{found:?}");
        let of = |name: &str| *found.iter().find(|artifact| artifact["repository"] == name).expect("listed");
        assert_eq!(of("team/app").get("upstream"), None);
        let pulled = of(HUB);
        assert_eq!(pulled["upstream"], "docker.io");
        assert_eq!((&pulled["digest"], &pulled["tags"]), (&json!(image.digest()), &json!(["v1", "v2"])));
        assert_eq!(pulled["media_type"], MANIFEST_TYPE);
        let table = node.cli(&["artifacts"]).expect(0).stdout;
        assert!(table.contains("FROM") && table.contains("docker.io"), "{table}");
    }
}

#[test]
fn pages_are_full_and_tell_nothing_of_what_is_not_shown() {
    let folder = temp_dir("users");
    let users = folder.path().join("users");
    write_users(&users, &[("ann", "apple-7")]);
    let rule =
        "[[auth.rule]]\nusers = [\"ann\"]\nrepositories = [\"open/**\", \"zoo/**\"]\nactions = [\"pull\"]\n";
    let rules = format!("[auth]\nhtpasswd = {users:?}\n{rule}");
    let (mut node, _config) = configured("");
    let image = Image::random(53, &[100]);
    for name in ["hidden/a", "open/a", "open/b", "other/a", "other/b", "zoo/a", "zoo/secret"] {
        node.registry().push(name, "v1", &image);
    }
    node.stop();
    let file = folder.path().join("node.toml");
    fs::write(&file, rules).unwrap();
    node.reconfigure(|options| options.extra = vec!["--config".to_owned(), file.display().to_string()]);
    node.start_again();
    let http = node.registry().http;
    let (mut target, mut pages) = ("/v2/_catalog?n=2".to_owned(), vec![]);
    loop {
        let answer = as_user(http.get(&target), "ann", "apple-7").send().expect(200);
        pages.push(answer.json()["repositories"].clone());
        let Some(link) = answer.header("link") else { break };
        assert!(!link.contains("hidden") && !link.contains("other"), "{link}");
        target = link[1..link.find('>').unwrap()].to_owned();
    }
    assert_eq!(pages, [json!(["open/a", "open/b"]), json!(["zoo/a", "zoo/secret"])]);
}

#[test]
fn referrers_are_found_while_the_upstream_is_away() {
    let (upstream, image) = (Upstream::start(), Image::random(54, &[1000]));
    upstream.add("library/app", "v1", &image);
    let (theirs, ours) = (signature(&image, "a/theirs"), signature(&image, "a/ours"));
    upstream.add_blob("library/app", &digest(b"{}"), b"{}");
    upstream.add_manifest("library/app", "theirs", MANIFEST_TYPE, &theirs);
    let (mut node, _config) = configured(&upstream.config("docker.io", ""));
    node.registry().assert_has(HUB, "v1", &image);
    node.registry().manifest(HUB, &digest(&theirs)).expect(200);
    // The mesh has something to say of it too.
    node.registry().push_blob(Upload::Post, HUB, b"{}").expect(201);
    node.registry().push_manifest(HUB, &digest(&ours), &ours).expect(201);
    let of_type = |node: &Node, query: &str| {
        let target = format!("/v2/{HUB}/referrers/{}{query}", image.digest());
        let answer = node.registry().http.get(&target).send().expect(200);
        let list = answer.json()["manifests"].as_array().unwrap().clone();
        let mut types: Vec<_> =
            list.iter().map(|one| one["artifactType"].as_str().unwrap().to_owned()).collect();
        types.sort();
        (types, answer.header("warning").is_some())
    };
    let both = || vec!["a/ours".to_owned(), "a/theirs".to_owned()];
    assert_eq!(of_type(&node, ""), (both(), false));
    upstream.set(|faults| faults.down = true);
    for restart in [false, true] {
        if restart {
            node.stop();
            node.start_again();
        }
        for _ in 0..2 {
            assert_eq!(of_type(&node, ""), (both(), true));
            assert_eq!(of_type(&node, "?artifactType=a/theirs"), (vec!["a/theirs".to_owned()], true));
        }
    }
}
