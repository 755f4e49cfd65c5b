//! What upstreams have is pulled through a node: once for the mesh, streamed while it comes, resumed where it is
//! cut, kept for when the upstream is away, and never served wrong.

use std::{
    io::{BufRead, BufReader, Read},
    path::Path,
    thread,
};

use serde_json::json;
use tempfile::TempDir;

use crate::harness::{
    cluster::Cluster,
    http::Http,
    image::{Image, MANIFEST_TYPE, digest},
    node::{Node, Options, temp_dir},
    upstream::Upstream,
    wait::until_true,
};

const HUB: &str = "docker.io/library/app";

/// A node that pulls through from this upstream as `docker.io`, and where its configuration is.
fn node(upstream: &Upstream, more: &str) -> (Node, TempDir) {
    let folder = temp_dir("config");
    let options = with_config(Options::site("a"), folder.path(), &upstream.config("docker.io", more));
    (Node::start(options), folder)
}

fn with_config(mut options: Options, folder: &Path, text: &str) -> Options {
    let file = folder.join("node.toml");
    std::fs::write(&file, text).unwrap();
    options.extra.extend(["--config".to_owned(), file.to_str().unwrap().to_owned()]);
    options
}

fn blob(image: &Image, n: usize) -> String {
    format!("/v2/{HUB}/blobs/{}", digest(&image.layers[n]))
}

#[test]
fn an_image_is_asked_for_in_three_ways_and_downloaded_once() {
    let (upstream, image) = (Upstream::start(), Image::random(1, &[3 << 20, 100_000, 1]));
    upstream.add("library/app", "v1", &image);
    let more = "mirror-for-unqualified = true\n[registry]\nnames = [\"mesh.example\"]";
    let (node, _config) = node(&upstream, more);
    let registry = node.registry();
    registry.assert_has(HUB, "v1", &image);
    registry.assert_has("docker.io/app", "v1", &image);
    registry.assert_has("library/app", "v1", &image);
    let named = |path: &str| registry.http.get(&format!("{path}?ns=docker.io")).send().expect(200);
    let answer = named("/v2/library/app/manifests/v1");
    assert_eq!(
        (answer.body, answer.headers.iter().any(|h| h.0 == "oci-namespace")),
        (image.manifest.clone(), true)
    );
    assert_eq!(named(&format!("/v2/library/app/blobs/{}", digest(&image.layers[0]))).body, image.layers[0]);
    for one in image.blobs() {
        assert_eq!(upstream.count("GET", &digest(one)), 1, "a blob is downloaded once");
    }
    let got = upstream.asked("GET", "/manifests/");
    assert_eq!(got.len(), 1, "upstreams count manifests that are got: {got:?}");
    assert_eq!(upstream.count("HEAD", "/manifests/v1"), 1, "a tag is believed for a minute");
    let foreign = registry.http.get("/v2/library/app/manifests/v1?ns=quay.io").send();
    assert!(foreign.expect_error(404, "NAME_UNKNOWN").contains("quay.io"));
    let missing = registry.http.get(&format!("/v2/{HUB}/manifests/v2")).send();
    missing.expect_error(404, "MANIFEST_UNKNOWN");
    assert_eq!(registry.tags(HUB), ["v1"]);
}

#[test]
fn many_clients_at_many_nodes_are_one_download() {
    let (upstream, image) = (Upstream::start(), Image::random(2, &[4 << 20]));
    upstream.add("library/app", "v1", &image);
    let config = upstream.config("docker.io", "");
    let folders: Vec<TempDir> = (0..3).map(|_| temp_dir("config")).collect();
    let (cluster, mut others) = (Cluster::start(1), vec![]);
    for folder in &folders {
        others.push(Node::start(with_config(cluster.options("b"), folder.path(), &config)));
    }
    until_true("the nodes are connected", || others.iter().all(|node| node.sessions().len() == 3));
    // So slow that all ask while it comes.
    upstream.set(|faults| faults.hold_at = Some(1 << 20));
    let layer = blob(&image, 0);
    let manifest = format!("/v2/{HUB}/manifests/{}", image.digest());
    let clients: Vec<_> = (0..12)
        .map(|n| {
            let http = others[n % 3].registry().http;
            let (layer, manifest) = (layer.clone(), manifest.clone());
            thread::spawn(move || {
                http.get(&manifest).send().expect(200);
                http.get(&layer).send().expect(200).body
            })
        })
        .collect();
    until_true("somebody downloads", || upstream.count("GET", &layer[layer.find("sha256").unwrap()..]) > 0);
    upstream.set(|faults| faults.hold_at = None);
    for client in clients {
        assert_eq!(digest(&client.join().unwrap()), digest(&image.layers[0]));
    }
    assert_eq!(upstream.count("GET", &digest(&image.layers[0])), 1);
    assert_eq!(upstream.count("GET", &image.digest()), 1);
}

#[test]
fn bytes_come_while_they_are_downloaded_and_a_client_that_leaves_stops_nothing() {
    let (upstream, image) = (Upstream::start(), Image::random(3, &[8 << 20]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "");
    let registry = node.registry();
    upstream.set(|faults| faults.hold_at = Some(4 << 20));
    registry.manifest(HUB, "v1").expect(200);
    let mut reader = BufReader::new(registry.http.get(&blob(&image, 0)).open().unwrap());
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).unwrap();
    }
    // What has come is handed on, all of it: the end that is held back is that of the blob.
    let mut half = vec![0; 4 << 20];
    reader.read_exact(&mut half).unwrap();
    assert!(half == image.layers[0][..4 << 20]);
    drop(reader);
    upstream.set(|faults| faults.hold_at = None);
    let got = registry.http.get(&blob(&image, 0)).send().expect(200);
    assert_eq!(digest(&got.body), digest(&image.layers[0]));
    assert_eq!(upstream.count("GET", &digest(&image.layers[0])), 1);
    let part = registry.http.get(&blob(&image, 0)).header("Range", "bytes=5-9").send().expect(206);
    assert_eq!(part.body, image.layers[0][5..10]);
}

#[test]
fn clients_that_come_later_read_along_and_those_of_another_node_wait_for_all_of_it() {
    let (upstream, image) = (Upstream::start(), Image::random(28, &[8 << 20]));
    upstream.add("library/app", "v1", &image);
    let (config, folders) = (upstream.config("docker.io", ""), [temp_dir("config"), temp_dir("config")]);
    let cluster = Cluster::start(1);
    let nodes = folders
        .each_ref()
        .map(|folder| Node::start(with_config(cluster.options("b"), folder.path(), &config)));
    until_true("the nodes are connected", || nodes.iter().all(|node| node.sessions().len() == 2));
    upstream.set(|faults| faults.hold_at = Some(4 << 20));
    let layer = blob(&image, 0);
    let [here, other] = nodes.each_ref().map(|node| node.registry().http);
    let open = || {
        let mut reader = BufReader::new(here.get(&layer).open().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        let mut half = vec![0; 4 << 20];
        reader.read_exact(&mut half).unwrap();
        assert!(half == image.layers[0][..4 << 20], "other bytes");
        reader
    };
    here.get(&format!("/v2/{HUB}/manifests/{}", image.digest())).send().expect(200);
    other.get(&format!("/v2/{HUB}/manifests/{}", image.digest())).send().expect(200);
    let readers = [open(), open(), open()];
    let waiting = thread::spawn({
        let (other, layer) = (other.clone(), layer.clone());
        move || other.get(&layer).send().expect(200).body
    });
    // What a member says of an upstream's content is a claim, so nothing of it is handed out before all of it is here.
    other.head(&layer).send().expect(200);
    assert!(!waiting.is_finished());
    upstream.set(|faults| faults.hold_at = None);
    for mut reader in readers {
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert!(rest == image.layers[0][4 << 20..], "other bytes");
    }
    assert!(waiting.join().unwrap() == image.layers[0], "other bytes");
    assert_eq!(upstream.count("GET", &digest(&image.layers[0])), 1, "one download for all of them");
}

#[test]
fn a_cut_download_goes_on_where_it_ended() {
    let (upstream, image) = (Upstream::start(), Image::random(4, &[5 << 20]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "");
    upstream.set(|faults| faults.cut = Some((1 << 20, 2)));
    node.registry().assert_has(HUB, "v1", &image);
    let asked = upstream.asked("GET", &digest(&image.layers[0]));
    let ranges: Vec<bool> = asked.iter().map(|request| request.headers.contains_key("range")).collect();
    assert_eq!(ranges, [false, true, true], "{asked:?}");
}

#[test]
fn a_download_that_has_begun_outlasts_a_break_of_the_link() {
    let (upstream, image) = (Upstream::start(), Image::random(27, &[5 << 20]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "");
    let registry = node.registry();
    registry.http.head(&format!("/v2/{HUB}/manifests/v1")).send().expect(200);
    upstream.set(|faults| faults.hold_at = Some(2 << 20));
    let (http, target) = (registry.http.clone(), blob(&image, 0));
    let client = thread::spawn(move || http.get(&target).send().expect(200).body);
    until_true("it has begun", || upstream.count("GET", &digest(&image.layers[0])) == 1);
    upstream.set(|faults| (faults.cut, faults.down, faults.hold_at) = (Some((3 << 20, 1)), true, None));
    until_true("the upstream is left alone", || {
        node.status()["upstreams"][0]["endpoints"][0]["away"] == true
    });
    upstream.set(|faults| faults.down = false);
    assert!(client.join().unwrap() == image.layers[0]);
    let asked = upstream.asked("GET", &digest(&image.layers[0]));
    assert!(asked[1..].iter().all(|request| request.headers.contains_key("range")), "{asked:?}");
}

#[test]
fn wrong_bytes_are_cut_short_and_not_kept() {
    let (upstream, image) = (Upstream::start(), Image::random(5, &[2 << 20]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "");
    let registry = node.registry();
    // From before anything is asked: with the manifest, the rest is downloaded in the background.
    upstream.set(|faults| faults.wrong_byte = true);
    registry.manifest(HUB, "v1").expect(200);
    let lies: [fn(&Upstream); 2] = [
        |upstream| upstream.set(|faults| faults.wrong_byte = true),
        |upstream| upstream.set(|faults| (faults.wrong_byte, faults.wrong_length) = (false, true)),
    ];
    for lie in lies {
        lie(&upstream);
        let answer = registry.http.get(&blob(&image, 0)).try_send();
        assert!(!answer.is_ok_and(|answer| answer.status == 200), "served as if it were whole");
    }
    assert!(node.status()["blobs"].as_u64() <= Some(2), "only manifest and config are kept");
    upstream.set(|faults| faults.wrong_length = false);
    assert_eq!(registry.http.get(&blob(&image, 0)).send().expect(200).body, image.layers[0]);
    // A manifest that is not what its digest says, or no manifest at all.
    let other = Image::random(6, &[100]);
    upstream.add("library/app", "v2", &other);
    upstream.set(|faults| faults.other_manifest = Some(image.manifest.clone()));
    registry.manifest(HUB, "v2").expect(404);
    let page = b"<html>log in</html>".to_vec();
    upstream.set(|faults| faults.other_manifest = None);
    upstream.add_manifest("library/app", "page", MANIFEST_TYPE, &page);
    registry.manifest(HUB, "page").expect(404);
}

#[test]
fn what_was_pulled_is_there_when_the_upstream_is_away() {
    let (upstream, image) = (Upstream::start(), Image::random(7, &[1 << 20, 50]));
    upstream.add("library/app", "v1", &image);
    let (mut node, _config) = node(&upstream, "revalidate = \"0s\"");
    node.registry().assert_has(HUB, "v1", &image);
    let other = Image::random(8, &[3000]);
    upstream.add("library/app", "half", &other);
    // Only its manifest is here, when the upstream goes away.
    node.registry().http.head(&format!("/v2/{HUB}/manifests/half")).send().expect(200);
    upstream.set(|faults| faults.down = true);
    for restart in [false, true] {
        if restart {
            node.stop();
            node.start_again();
        }
        let registry = node.registry();
        let answer = registry.manifest(HUB, "v1").expect(200);
        let warning = answer.header("warning").expect("an old answer says so").to_owned();
        assert!(warning.starts_with("299 - ") && warning.contains("ago"), "{warning}");
        registry.assert_has(HUB, "v1", &image);
        registry.manifest(HUB, "unknown").expect_error(404, "MANIFEST_UNKNOWN");
        let half = registry.manifest(HUB, "half").expect_error(404, "MANIFEST_UNKNOWN");
        assert!(half.contains("not here"), "{half}");
        assert_eq!(registry.tags(HUB), ["half", "v1"]);
    }
}

#[test]
fn staleness_has_the_limit_that_the_operator_sets() {
    let (upstream, image) = (Upstream::start(), Image::random(9, &[100]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "revalidate = \"0s\"\nstale-for = \"never\"");
    let registry = node.registry();
    registry.assert_has(HUB, "v1", &image);
    upstream.set(|faults| faults.down = true);
    registry.manifest(HUB, "v1").expect(404);
    // A digest is what it is.
    registry.manifest(HUB, &image.digest()).expect(200);
}

#[test]
fn what_one_node_pulled_the_others_have_without_the_upstream() {
    let (upstream, image) = (Upstream::start(), Image::random(10, &[2 << 20, 70_000]));
    upstream.add("library/app", "v1", &image);
    let config = upstream.config("docker.io", "");
    let (one, two) = (temp_dir("config"), temp_dir("config"));
    let cluster = Cluster::start(1);
    let first = Node::start(with_config(cluster.options("a"), one.path(), &config));
    let second = Node::start(with_config(cluster.options("b"), two.path(), &config));
    until_true("the nodes are connected", || second.sessions().len() == 2);
    first.registry().assert_has(HUB, "v1", &image);
    upstream.set(|faults| faults.down = true);
    // The digest is known wherever; the tag only from nodes that the operator trusts with it.
    let pulled = second.registry().pull(HUB, &image.digest());
    assert!(pulled.blobs.iter().eq(image.blobs()));
    second.registry().manifest(HUB, "v1").expect(404);
    // A node that is not told of the upstream gives none of it: it does not know who may have it.
    cluster[0].registry().manifest(HUB, &image.digest()).expect(404);
    cluster[0].registry().http.get(&blob(&image, 0)).send().expect(404);
    assert_eq!(upstream.count("GET", &digest(&image.layers[0])), 1);
}

#[test]
fn the_tag_of_a_granted_node_counts_everywhere() {
    let (upstream, image) = (Upstream::start(), Image::random(11, &[1000]));
    upstream.add("library/app", "v1", &image);
    let config = upstream.config("docker.io", "");
    let (one, two) = (temp_dir("config"), temp_dir("config"));
    let mut options = Options::site("a");
    options = with_config(options, one.path(), &config);
    let first = Node::start(options);
    let mesh = one.path().join("mesh.toml");
    crate::harness::cluster::export_mesh(&first, &mesh);
    let mut joining = Options::site("b").mesh(&mesh);
    joining.join = vec![first.ready("join").to_owned()];
    let second = Node::start(with_config(joining, two.path(), &config));
    until_true("the nodes are connected", || second.sessions().len() == 1);
    first.registry().assert_has(HUB, "v1", &image);
    upstream.set(|faults| faults.down = true);
    until_true("the sighting has spread", || second.registry().manifest(HUB, "v1").status == 200);
    second.registry().assert_has(HUB, "v1", &image);
}

#[test]
fn names_of_the_mesh_are_never_looked_up_elsewhere() {
    let (upstream, image) = (Upstream::start(), Image::random(12, &[1000]));
    upstream.add("team/app", "evil", &image);
    let (node, _config) = node(&upstream, "mirror-for-unqualified = true");
    let own = Image::random(13, &[500]);
    node.registry().push("team/app", "v1", &own);
    node.registry().assert_has("team/app", "v1", &own);
    node.registry().manifest("team/app", "evil").expect(404);
    node.registry().push(HUB, "mine", &own);
    node.registry().assert_has(HUB, "mine", &own);
    assert_eq!(upstream.count("HEAD", "") + upstream.count("GET", ""), 0);
}

#[test]
fn only_platforms_that_somebody_wants_are_fetched() {
    let upstream = Upstream::start();
    let (amd, arm, s390) =
        (Image::random(14, &[3000]), Image::random(15, &[3000]), Image::random(16, &[3000]));
    let list = "application/vnd.oci.image.index.v1+json";
    let manifests: Vec<_> = [(&amd, "amd64"), (&arm, "arm64"), (&s390, "s390x")]
        .iter()
        .map(|(image, architecture)| {
            upstream.add("library/app", &format!("only-{architecture}"), image);
            json!({"mediaType": MANIFEST_TYPE, "digest": image.digest(), "size": image.manifest.len(),
                "platform": {"os": "linux", "architecture": architecture}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": list, "manifests": manifests}).to_string();
    upstream.add_manifest("library/app", "v1", list, index.as_bytes());
    let (node, _config) = node(&upstream, "platforms = [\"linux/arm64\"]");
    let answer = node.registry().manifest(HUB, "v1").expect(200);
    assert_eq!(answer.body, index.as_bytes());
    node.registry().pull(HUB, &amd.digest());
    until_true("the platform that the operator wants is here", || {
        upstream.count("GET", &digest(&arm.layers[0])) == 1
    });
    until_true("nothing is on its way", || node.status()["blobs"].as_u64() == Some(7));
    assert_eq!(upstream.count("GET", &s390.digest()), 0);
    assert_eq!(upstream.count("GET", &digest(&s390.layers[0])), 0);
}

#[test]
fn what_belongs_to_another_repository_is_not_shown() {
    let upstream = Upstream::start();
    let (one, two) = (Image::random(17, &[40_000]), Image::random(18, &[50_000]));
    upstream.add("library/app", "v1", &one);
    upstream.add("library/secret", "v1", &two);
    let (node, _config) = node(&upstream, "");
    let registry = node.registry();
    registry.assert_has(HUB, "v1", &one);
    registry.assert_has("docker.io/library/secret", "v1", &two);
    registry.http.get(&format!("/v2/{HUB}/blobs/{}", digest(&two.layers[0]))).send().expect(404);
    registry.manifest(HUB, &two.digest()).expect(404);
    until_true("all of both is here", || node.status()["blobs"].as_u64() == Some(6));
    // The same layer in a second repository is served without a second download.
    upstream.add("library/again", "v1", &two);
    registry.assert_has("docker.io/library/again", "v1", &two);
    assert_eq!(upstream.count("GET", "/library/again/blobs/"), 0);
}

#[test]
fn another_mesh_is_an_upstream_and_a_circle_ends() {
    let central = Node::start(Options::site("central"));
    let image = Image::random(19, &[1 << 20]);
    central.registry().push("team/app", "v1", &image);
    let folder = temp_dir("config");
    let config = format!(
        "[[upstream]]\nnamespace = \"central.example\"\nendpoints = [\"http://{}\"]\n",
        central.ready("listen")
    );
    let edge = Node::start(with_config(Options::site("edge"), folder.path(), &config));
    edge.registry().assert_has("central.example/team/app", "v1", &image);

    // Two that pull through one another.
    let folders = [temp_dir("config"), temp_dir("config")];
    let port = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let addresses = [port(), port()];
    let nodes: Vec<Node> = (0..2)
        .map(|n| {
            let other = addresses[1 - n];
            let config = format!(
                "[registry]\nlisten = \"{}\"\n[[upstream]]\nnamespace = \"docker.io\"\nendpoints = [\"http://{other}\"]\nmirror-for-unqualified = true\n",
                addresses[n]
            );
            let mut options = with_config(Options::site("x"), folders[n].path(), &config);
            options.extra.extend(["--listen".to_owned(), addresses[n].to_string()]);
            Node::start(options)
        })
        .collect();
    let answer = Http::new(&addresses[0].to_string()).get("/v2/library/nothing/manifests/v1").send();
    assert!(answer.status >= 400, "{answer:?}");
    drop(nodes);
}

#[test]
fn an_upstream_that_hangs_costs_one_short_time_out() {
    let (upstream, image) = (Upstream::start(), Image::random(20, &[1000]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "revalidate = \"0s\"");
    node.registry().assert_has(HUB, "v1", &image);
    upstream.set(|faults| faults.down = true);
    for _ in 0..20 {
        node.registry().manifest(HUB, "v1").expect(200);
    }
    let status = node.status();
    assert_eq!(status["upstreams"][0]["endpoints"][0]["away"], true, "{status}");
    upstream.set(|faults| faults.down = false);
    until_true("the upstream is asked again", || {
        node.registry().manifest(HUB, "v1").header("warning").is_none()
    });
}

#[test]
fn no_part_of_wrong_bytes_is_given_as_whole() {
    let (upstream, image) = (Upstream::start(), Image::random(21, &[2 << 20, 40_000]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "");
    let registry = node.registry();
    registry.http.head(&format!("/v2/{HUB}/manifests/v1")).send().expect(200);
    upstream.set(|faults| faults.wrong_byte = true);
    for range in ["bytes=0-9", "bytes=0-300000,400000-500000", "bytes=1000000-1200000"] {
        let answer = registry.http.get(&blob(&image, 0)).header("Range", range).try_send();
        assert!(!answer.is_ok_and(|answer| answer.status == 206), "{range} served as if it were right");
    }
    // Of one so small that all of it would be held back, that can be said properly.
    registry.http.get(&blob(&image, 1)).send().expect(404);
    // What has no bytes at the upstream has none to check.
    upstream.set(|faults| (faults.wrong_byte, faults.empty) = (false, true));
    let unnamed = digest(b"unnamed");
    upstream.add_blob("library/app", &unnamed, b"unnamed");
    let answer = registry.http.get(&format!("/v2/{HUB}/blobs/{unnamed}")).send();
    assert_ne!(answer.status, 200, "{answer:?}");
    upstream.set(|faults| faults.empty = false);
    registry.assert_has(HUB, "v1", &image);
    upstream.add_blob("library/app", &digest(b""), b"");
    let empty = registry.http.get(&format!("/v2/{HUB}/blobs/{}", digest(b""))).send().expect(200);
    assert!(empty.body.is_empty());
}

#[test]
fn a_blob_that_is_here_for_one_repository_is_not_downloaded_for_another_that_has_it_too() {
    let (upstream, image) = (Upstream::start(), Image::random(23, &[1 << 20]));
    ["library/app", "library/again"].iter().for_each(|name| upstream.add(name, "v1", &image));
    let other = Image::random(24, &[1000]);
    upstream.add("library/other", "v1", &other);
    let (node, _config) = node(&upstream, "");
    let layer = digest(&image.layers[0]);
    node.registry().assert_has("docker.io/library/app", "v1", &image);
    node.registry().assert_has("docker.io/library/again", "v1", &image);
    assert_eq!(upstream.count("GET", &layer), 1);
    // One that the upstream does not have in that repository is not given from there.
    let elsewhere = format!("/v2/docker.io/library/other/blobs/{layer}");
    node.registry().http.get(&elsewhere).send().expect(404);
}

#[test]
fn a_blob_that_two_repositories_want_at_once_is_downloaded_once() {
    let (upstream, image) = (Upstream::start(), Image::random(22, &[4 << 20]));
    let names = ["library/app", "library/again", "library/third"];
    names.iter().for_each(|name| upstream.add(name, "v1", &image));
    let (node, _config) = node(&upstream, "");
    upstream.set(|faults| faults.hold_at = Some(1 << 20));
    let layer = digest(&image.layers[0]);
    let clients: Vec<_> = names
        .iter()
        .map(|name| {
            let http = node.registry().http;
            let path = format!("/v2/docker.io/{name}");
            let layer = layer.clone();
            thread::spawn(move || {
                http.get(&format!("{path}/manifests/v1")).send().expect(200);
                http.get(&format!("{path}/blobs/{layer}")).send().expect(200).body
            })
        })
        .collect();
    until_true("all have asked", || upstream.count("GET", "/manifests/sha256") == names.len());
    upstream.set(|faults| faults.hold_at = None);
    for client in clients {
        assert_eq!(digest(&client.join().unwrap()), layer);
    }
    assert_eq!(upstream.count("GET", &layer), 1);
}

#[test]
fn a_slow_upstream_keeps_nothing_waiting_that_comes_from_another() {
    let (slow, quick) = (Upstream::start(), Upstream::start());
    let images: Vec<Image> = (0..18).map(|n| Image::random(100 + n, &[200_000])).collect();
    images.iter().enumerate().for_each(|(n, image)| slow.add("library/app", &format!("v{n}"), image));
    let other = Image::random(23, &[100_000]);
    quick.add("team/app", "v1", &other);
    let (node, _config) = node(&slow, &quick.config("quick.example", ""));
    let registry = node.registry();
    slow.set(|faults| faults.hold_at = Some(20_000));
    // Each has the rest of its image brought, and waits for the upstream.
    let streams: Vec<_> = images[..17]
        .iter()
        .map(|image| {
            registry.http.head(&format!("/v2/{HUB}/manifests/{}", image.digest())).send().expect(200);
            registry.http.get(&blob(image, 0)).open().unwrap()
        })
        .collect();
    until_true("as many as may are coming", || slow.count("GET", "/blobs/") >= 16);
    registry.assert_has("quick.example/team/app", "v1", &other);
    registry.manifest(HUB, &images[17].digest()).expect(200);
    slow.set(|faults| faults.hold_at = None);
    drop(streams);
}

#[test]
fn a_manifest_whose_blobs_nobody_gives_is_not_given() {
    let (upstream, image) = (Upstream::start(), Image::random(24, &[20_000]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "");
    let registry = node.registry();
    registry.http.head(&format!("/v2/{HUB}/manifests/v1")).send().expect(200);
    upstream.set(|faults| faults.down = true);
    // Nothing has told the node yet: it finds out before it promises.
    let target = format!("/v2/{HUB}/manifests/{}", image.digest());
    until_true("the node looks", || registry.http.head(&target).send().status == 404);
    assert_eq!(upstream.count("GET", "/blobs/"), 0);
}

#[test]
fn a_layer_is_no_manifest() {
    let (upstream, image) = (Upstream::start(), Image::random(25, &[17 << 20]));
    upstream.add("library/app", "v1", &image);
    let (node, _config) = node(&upstream, "");
    node.registry().assert_has(HUB, "v1", &image);
    for blob in image.blobs() {
        node.registry().manifest(HUB, &digest(blob)).expect_error(404, "MANIFEST_UNKNOWN");
    }
}

#[test]
fn what_is_no_upstream_any_more_gives_nothing() {
    let (upstream, image) = (Upstream::start(), Image::random(26, &[20_000]));
    upstream.add("library/app", "v1", &image);
    let folder = temp_dir("config");
    let mut options = with_config(Options::site("a"), folder.path(), &upstream.config("docker.io", ""));
    options.extra.extend(["--anonymous".to_owned(), "pull".to_owned()]);
    let mut node = Node::start(options);
    node.registry().assert_has(HUB, "v1", &image);
    until_true("all of it is kept", || node.status()["blobs"].as_u64() == Some(3));
    node.stop();
    std::fs::write(folder.path().join("node.toml"), "").unwrap();
    node.start_again();
    node.registry().http.get(&blob(&image, 0)).send().expect(404);
    node.registry().manifest(HUB, &image.digest()).expect(404);
}
