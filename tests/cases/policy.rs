//! What is declared is held where it was declared, and nowhere else; a lost holder is replaced; a chart brings
//! its images; everything says why.

use std::{fs, io::Write as _};

use serde_json::{Value, json};

use crate::harness::{
    cluster::Cluster,
    image::{Image, archive, descriptor, digest, to_bytes},
    node::{Node, temp_dir},
    wait::{until, until_true},
};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

/// Declares the policies of this text at a node.
#[track_caller]
fn apply(node: &Node, text: &str) {
    let folder = temp_dir("policies");
    let file = folder.path().join("policies.toml");
    fs::write(&file, text).unwrap();
    node.cli(&["policy", "apply", "-f", file.to_str().unwrap()]).expect(0);
}

/// What a node says that each node holds wholly, by number.
#[track_caller]
fn holders(cluster: &Cluster, at: usize, reference: &str) -> Vec<usize> {
    let inspected = cluster[at].cli(&["inspect", reference, "--json"]);
    if inspected.code != 0 {
        return vec![];
    }
    let inspected: Value = serde_json::from_str(&inspected.stdout).unwrap();
    let whole = inspected["holders"].as_array().unwrap().iter().filter(|h| h["state"] == "complete");
    let ids: Vec<&str> = whole.map(|holder| holder["node"].as_str().unwrap()).collect();
    cluster.iter().enumerate().filter(|(_, node)| ids.contains(&node.id())).map(|(n, _)| n).collect()
}

/// An index with an image for each of these platforms.
fn index_of(images: &[(&str, &Image)]) -> Vec<u8> {
    let one = |(architecture, image): &(&str, &Image)| {
        let mut child = descriptor(MANIFEST_TYPE, &image.manifest);
        child["platform"] = json!({"os": "linux", "architecture": architecture});
        child
    };
    let manifests: Vec<Value> = images.iter().map(one).collect();
    to_bytes(&json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}))
}

#[track_caller]
fn push_index(node: &Node, repository: &str, tag: &str, images: &[(&str, &Image)]) -> String {
    let registry = node.registry();
    for (_, image) in images {
        registry.push(repository, &image.digest(), image);
    }
    let index = index_of(images);
    let target = format!("/v2/{repository}/manifests/{tag}");
    registry.http.request("PUT", &target).header("Content-Type", INDEX_TYPE).body(&index).send().expect(201);
    digest(&index)
}

/// Pushes a chart that names an image in its annotations and another in its values.
#[track_caller]
fn push_chart(node: &Node, repository: &str, version: &str, annotated: &str, valued: &str) {
    let config = to_bytes(&json!({
        "name": "app", "version": version, "apiVersion": "v2", "appVersion": "v1",
        "annotations": {"artifacthub.io/images": format!("- name: a\n  image: {annotated}\n")},
    }));
    let chart = format!("name: app\nversion: {version}\nappVersion: v1\n");
    let values = format!("image:\n  repository: {valued}\n  tag: \"\"\nother: 1\n");
    let files =
        archive(&[("app/Chart.yaml", chart.as_bytes()), ("app/values.yaml", values.as_bytes())], 0o644);
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(&files).unwrap();
    let content = packed.finish().unwrap();
    let manifest = to_bytes(&json!({
        "schemaVersion": 2,
        "config": descriptor("application/vnd.cncf.helm.config.v1+json", &config),
        "layers": [descriptor("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &content)],
    }));
    let registry = node.registry();
    for blob in [&config, &content] {
        registry.push_blob(crate::harness::registry::Upload::Put, repository, blob).expect(201);
    }
    registry.push_manifest(repository, version, &manifest).expect(201);
}

#[test]
fn copies_appear_where_they_are_wanted_and_a_lost_one_is_replaced() {
    let mut cluster = Cluster::at_sites(&["hub", "hub", "shop", "shop"]);
    let image = Image::random(1, &[600_000]);
    cluster[0].registry().push("shops/app", "v1", &image);
    cluster[0].registry().push("other/app", "v1", &Image::random(2, &[10_000]));
    apply(
        &cluster[0],
        "[[policy]]\nname = \"shops/base\"\nrepositories = [\"shops/**\"]\nsites = [\"shop\"]\ngrace = \"2s\"\n",
    );
    until_true("one node of the shop has it", || holders(&cluster, 0, "shops/app:v1").len() == 2);
    let held = holders(&cluster, 0, "shops/app:v1");
    assert!(held[0] == 0 && held[1] >= 2, "{held:?}");
    // Known everywhere, in the form that apply reads.
    let printed = cluster[1].cli(&["policy", "get"]).expect(0).stdout;
    assert!(printed.contains("name = \"shops/base\"") && printed.contains("grace = \"2s\""), "{printed}");
    let covered = |node: &Node| node.cli_json(&["artifacts", "--coverage", "--json"])["rows"].clone();
    until_true("the coverage is known to be whole", || {
        let rows = covered(&cluster[1]);
        rows[0]["held"] == 1 && rows[0]["wanted"] == 1 && rows[0]["missing"] == 0 && rows[1].is_null()
    });
    let table = cluster[1].cli(&["artifacts", "--coverage"]).expect(0).stdout;
    assert!(table.contains("ON ITS WAY") && table.contains("shop"), "{table}");
    let (holder, other) = (held[1], 5 - held[1]);
    let explain =
        |at: usize, whom: &str| cluster[at].cli_json(&["policy", "explain", whom, "shops/app:v1", "--json"]);
    assert_eq!(explain(holder, &cluster[holder].id()[..12])["wanted"], true);
    assert_eq!(explain(holder, cluster[other].id())["wanted"], false);
    assert_eq!(explain(0, "shop")["wanted"], true);
    assert_eq!(explain(0, "hub")["wanted"], false);
    let said = cluster[0].cli(&["policy", "explain", "hub", "shops/app:v1"]).expect(0).stdout;
    assert!(said.contains("means no node of site hub"), "{said}");

    let before = cluster[other].bytes_received();
    assert!(before < 300_000, "nothing of it went where it was not wanted: {before} bytes");
    cluster[holder].kill();
    until_true("the other node of the shop has it", || {
        let inspected = cluster[other].cli_json(&["inspect", "shops/app:v1", "--json"]);
        inspected["artifact"]["here"] == "complete"
    });
    assert!(holders(&cluster, 0, "other/app:v1") == [0]);

    cluster[0].cli(&["policy", "delete", "shops/base"]).expect(0);
    cluster[0].registry().push("shops/app", "v2", &Image::random(3, &[10_000]));
    until_true("the deletion is known at the shop", || {
        cluster[other].cli(&["policy", "get"]).expect(0).stdout.is_empty()
    });
    cluster[0].cli(&["policy", "delete", "shops/base"]).expect(4);
    assert_eq!(holders(&cluster, 0, "shops/app:v2"), [0]);
}

#[test]
fn a_chart_brings_its_images_and_of_an_index_the_platforms_meant() {
    let cluster = Cluster::at_sites(&["hub", "shop"]);
    let (arm, amd) = (Image::random(11, &[50_000]), Image::random(12, &[50_000]));
    let (plain, unrelated) = (Image::random(13, &[50_000]), Image::random(14, &[50_000]));
    push_index(&cluster[0], "team/web", "v1", &[("arm64", &arm), ("amd64", &amd)]);
    cluster[0].registry().push("team/worker", "v1", &plain);
    cluster[0].registry().push("team/unrelated", "v1", &unrelated);
    push_chart(&cluster[0], "charts/app", "1.0.0", "registry.example/team/web:v1", "team/worker");
    apply(
        &cluster[0],
        "[[policy]]\nname = \"charts\"\nrepositories = [\"charts/*\"]\nsites = [\"shop\"]\nplatforms = [\"linux/arm64\"]\n",
    );
    let has = |reference: &str| holders(&cluster, 1, reference).contains(&1);
    for reference in ["charts/app:1.0.0", "team/web:v1", "team/worker:v1"] {
        until_true(&format!("{reference} is at the shop"), || has(reference));
    }
    let child = format!("team/web@{}", arm.digest());
    until_true("the platform that is meant is at the shop", || has(&child));
    let inspected = cluster[0].cli_json(&["inspect", "charts/app:1.0.0", "--json"]);
    let kinds: Vec<&str> =
        inspected["blobs"].as_array().unwrap().iter().map(|blob| blob["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["config", "layer", "depends", "depends"]);
    // The parts are in the coverage of the node that is to hold them.
    let rows = cluster[1].cli_json(&["artifacts", "--coverage", "--json"])["rows"].clone();
    let parts = rows.as_array().unwrap().iter().filter(|row| !row["part_of"].is_null()).count();
    assert_eq!(parts, 3, "{rows}");
    assert!(!has(&format!("team/web@{}", amd.digest())));
    assert!(!has("team/unrelated:v1"));
}

#[test]
fn nodes_are_meant_by_region_and_label() {
    let mut cluster = Cluster::at_sites(&["hub", "shop-a", "shop-b"]);
    for (node, labels) in [(1, "role=cache,line=1"), (2, "role=till")] {
        assert!(cluster[node].stop().success());
        cluster[node].reconfigure(|options| {
            options.extra = ["--region", "eu-west", "--labels", labels].map(str::to_owned).to_vec();
        });
        cluster[node].start_again();
    }
    cluster.wait_until_connected();
    cluster[0].registry().push("app", "v1", &Image::random(21, &[10_000]));
    apply(
        &cluster[0],
        "[[policy]]\nname = \"caches\"\nrepositories = [\"app\"]\nregions = [\"eu-*\"]\nlabels = { role = \"cache\" }\n",
    );
    until_true("the cache has it", || holders(&cluster, 0, "app:v1") == [0, 1]);
    // Each node looks at its policies for itself, a second after something changed: this one may be the last.
    let rows = until("it is said who is to have it", || {
        let rows = cluster[0].cli_json(&["artifacts", "--coverage", "--json"])["rows"].clone();
        rows.as_array().filter(|rows| !rows.is_empty()).cloned()
    });
    assert_eq!(rows.len(), 1, "{rows:?}");
}

#[test]
fn what_is_wrong_is_said_and_nothing_is_written() {
    let cluster = Cluster::start(2);
    let folder = temp_dir("policies");
    let file = folder.path().join("my.toml");
    let name = file.to_str().unwrap();
    fs::write(
        &file,
        "[[policy]]\nname = \"a\"\nrepositories = [\"**\"]\nwindow = [\"nine\"]\ncopies = \"two\"\n",
    )
    .unwrap();
    let said = cluster[0].cli(&["policy", "apply", "-f", name]).expect(2).stderr;
    assert!(said.contains("policy 1 (a): window: unknown field") && said.contains("copies:"), "{said}");
    fs::write(&file, "[[policy]]\nname = \"a\"\nrepositories = [\"**\"]\n").unwrap();
    let said = cluster[1].cli(&["policy", "apply", "-f", name]).expect(1).stderr;
    assert!(said.contains("no grant that covers policy a"), "{said}");
    assert_eq!(cluster[0].cli(&["policy", "get"]).expect(0).stdout, "");
    let said = cluster[0].cli(&["policy", "explain", "nowhere", "app:v1"]).expect(4).stderr;
    assert!(said.contains("no tag"), "{said}");
}
