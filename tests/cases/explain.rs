//! A node says what a pull would do, what stands in its way, and where the bytes of one that happened came from.

use serde_json::{Value, json};

use crate::harness::{
    cluster::Cluster,
    image::{Image, MANIFEST_TYPE, descriptor, digest, to_bytes},
    node::{Node, Options},
    upstream::Upstream,
    wait::{until, until_true},
};

/// The answer, and the code that the command ended with.
fn explain(node: &Node, reference: &str, more: &[&str]) -> (Value, i32) {
    let arguments = [&["explain", "pull", reference, "--json"][..], more].concat();
    let ended = node.cli(&arguments);
    (serde_json::from_str(&ended.stdout).unwrap_or_else(|e| panic!("{e}: {ended:?}")), ended.code)
}

fn blob<'a>(found: &'a Value, role: &str) -> &'a Value {
    let blobs = found["blobs"].as_array().unwrap();
    blobs.iter().find(|blob| blob["role"] == role).unwrap_or_else(|| panic!("no {role}: {found}"))
}

#[test]
fn before_a_pull_it_says_from_where_and_after_it_where_each_byte_came_from() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(1, &[3_000_000]);
    cluster[0].registry().push("team/app", "v1", &image);
    let (at, holder) = (&cluster[1], cluster[0].id());
    let found = until("the node knows who has it", || {
        let (found, code) = explain(at, "team/app:v1", &[]);
        (code == 0).then_some(found)
    });
    assert_eq!((&found["outcome"], &found["digest"]), (&"available".into(), &image.digest().into()));
    let manifest = blob(&found, "manifest");
    assert_eq!(manifest["state"], "missing");
    let candidate = &manifest["candidates"][0];
    assert_eq!((&candidate["name"], &candidate["asked"]), (&holder.into(), &true.into()));
    assert_eq!((&candidate["site"], &candidate["far"]), (&"site-0".into(), &true.into()));

    at.registry().assert_has("team/app", "v1", &image);
    until_true("all of it is here", || explain(at, "team/app:v1", &[]).0["outcome"] == "held");
    let (found, code) = explain(at, "team/app:v1", &[]);
    assert_eq!(code, 0);
    let layer = blob(&found, "layer");
    assert_eq!((&layer["state"], &layer["size"]), (&"held".into(), &3_000_000.into()));
    let story = &layer["story"];
    assert_eq!(
        (&story["sources"][0]["name"], &story["sources"][0]["bytes"]),
        (&holder.into(), &3_000_000.into())
    );
    assert_eq!(story["parts"][0]["result"], "done", "{story}");
    assert_eq!(found["held"], found["size"]);
    let from: u64 = found["sources"].as_array().unwrap().iter().map(|s| s["bytes"].as_u64().unwrap()).sum();
    assert_eq!(found["size"], from, "each byte came from somewhere: {found}");
    assert_eq!(found["sources"][0]["kind"], "member");
    assert!(found["timing"]["took_ms"].is_u64(), "{found}");
    let pushed = explain(&cluster[0], "team/app:v1", &[]).0;
    assert_eq!(pushed["sources"][0]["kind"], "client", "{pushed}");

    for node in cluster.iter() {
        let text = node.cli(&["explain", "pull", "team/app:v1"]).expect(0).stdout;
        assert!(text.contains("all of it is here") && text.contains("layer"), "{text}");
    }
    // After a restart the journal is gone, and it says so.
    cluster[1].stop();
    cluster[1].start_again();
    let (found, _) = explain(&cluster[1], "team/app:v1", &[]);
    assert_eq!((&found["outcome"], &found["sources"][0]["kind"]), (&"held".into(), &"earlier".into()));
}

#[test]
fn it_says_what_stands_in_the_way() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(2, &[100_000]);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    let (found, code) = explain(&cluster[1], "app:none", &[]);
    assert_eq!((&found["outcome"], code), (&"unknown".into(), 4));
    assert!(found["blocks"][0].as_str().unwrap().contains("no tag none"), "{found}");

    cluster[0].kill();
    until_true("the crash is noticed", || cluster[1].sessions().is_empty());
    let other = Image::random(3, &[100_000]);
    let reference = format!("app@{}", image.digest());
    let (found, code) = explain(&cluster[1], &reference, &[]);
    assert_eq!((&found["outcome"], code), (&"blocked".into(), 1), "{found}");
    let layer = blob(&found, "layer");
    let why = layer["blocks"][0].as_str().unwrap();
    assert!(why.contains("no session with a node that has it"), "{why}");
    let text = cluster[1].cli(&["explain", "pull", &reference]).expect(1).stdout;
    assert!(text.contains("IN THE WAY"), "{text}");
    let (found, _) = explain(&cluster[1], &format!("app@{}", other.digest()), &[]);
    assert_eq!(found["outcome"], "unknown");
}

#[test]
fn an_index_is_followed_to_the_platform_that_is_asked_for() {
    let node = Node::start(Options::default());
    let image = Image::random(4, &[10_000]);
    node.registry().push("app", "child", &image);
    let mut child = descriptor(MANIFEST_TYPE, &image.manifest);
    child["platform"] = json!({"os": "linux", "architecture": "riscv64"});
    let media_type = "application/vnd.oci.image.index.v1+json";
    let index = to_bytes(&json!({"schemaVersion": 2, "mediaType": media_type, "manifests": [child]}));
    let registry = node.registry();
    let put = registry.http.request("PUT", "/v2/app/manifests/v1").header("Content-Type", media_type);
    put.body(&index).send().expect(201);
    let (found, code) = explain(&node, "app:v1", &["--platform", "linux/riscv64"]);
    assert_eq!((&found["outcome"], code), (&"held".into(), 0), "{found}");
    assert_eq!(blob(&found, "index")["digest"], digest(&index).as_str());
    assert_eq!(blob(&found, "manifest")["digest"], image.digest().as_str());
    blob(&found, "layer");
    let (found, code) = explain(&node, "app:v1", &["--platform", "plan9/mips"]);
    assert_eq!(code, 1);
    assert!(found["blocks"][0].as_str().unwrap().contains("linux/riscv64"), "says what there is: {found}");
}

#[test]
fn what_is_pulled_through_is_explained_too() {
    let upstream = Upstream::start();
    let image = Image::random(5, &[200_000]);
    upstream.add("library/x", "v1", &image);
    let folder = crate::harness::node::temp_dir("config");
    let file = folder.path().join("node.toml");
    std::fs::write(&file, upstream.config("docker.io", "")).unwrap();
    let extra = vec!["--config".to_owned(), file.to_str().unwrap().to_owned()];
    let node = Node::start(Options { extra, ..Options::default() });
    let reference = "docker.io/library/x:v1";
    let (found, code) = explain(&node, reference, &[]);
    assert_eq!((&found["outcome"], code), (&"unknown".into(), 4));
    assert_eq!(upstream.count("GET", "") + upstream.count("HEAD", ""), 0, "asking costs nothing");
    node.registry().assert_has("docker.io/library/x", "v1", &image);
    let found = until("all of it is here", || {
        let (found, _) = explain(&node, reference, &[]);
        (found["outcome"] == "held").then_some(found)
    });
    let source = &found["sources"][0];
    assert_eq!((&source["kind"], &source["name"]), (&"upstream".into(), &"docker.io".into()), "{found}");

    upstream.set(|faults| faults.down = true);
    let other = format!("docker.io/library/x@{}", digest(b"no such manifest"));
    node.registry().manifest("docker.io/library/x", &digest(b"no such manifest"));
    let (found, _) = explain(&node, &other, &[]);
    let candidates = blob(&found, "manifest")["candidates"].as_array().unwrap().clone();
    assert!(candidates.iter().any(|c| c["kind"] == "upstream" && c["trouble"].is_object()), "{found}");
}
