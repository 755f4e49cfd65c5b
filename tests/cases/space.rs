//! Room on the disk: a node stays within its quota while clients pull and push, never deletes a last copy or what
//! others rely on, answers a full disk, and recovers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use serde_json::Value;

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest, random_bytes},
    node::{Node, Options, disk_usage, temp_dir},
    registry::Upload,
    upstream::Upstream,
    wait::until_true,
};

const MIB: u64 = 1 << 20;
const QUOTA: u64 = 60 * MIB;
/// What a node may take beyond its quota for a moment: what came in while it was measured.
const SLACK: u64 = 8 * MIB;

fn with(mut options: Options, arguments: &[&str]) -> Options {
    options.extra.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    options
}

fn with_config(options: Options, folder: &Path, text: &str) -> Options {
    let file = folder.join("node.toml");
    fs::write(&file, text).unwrap();
    with(options, &["--config", file.to_str().unwrap()])
}

/// Ten MiB in two layers.
fn image(seed: u64) -> Image {
    Image::random(seed, &[6 << 20, 4 << 20])
}

fn gc(node: &Node, arguments: &[&str]) -> Value {
    node.cli_json(&[&["gc", "--json"], arguments].concat())
}

fn deleted(report: &Value) -> Vec<String> {
    let all = report["deleted"].as_array().unwrap().iter();
    all.map(|deleted| deleted["name"].as_str().unwrap().to_owned()).collect()
}

/// What `du` says of an image, if it says anything.
fn usage(node: &Node, image: &Image) -> Option<Value> {
    let usage = node.cli_json(&["du", "--json"]);
    let artifacts = usage["artifacts"].as_array().unwrap().clone();
    artifacts.into_iter().find(|artifact| artifact["digest"] == image.digest().as_str())
}

#[test]
fn three_times_the_quota_is_pulled_and_no_pull_breaks() {
    let cluster = Cluster::start(1);
    let small = with(cluster.options("small"), &["--quota", "60MiB"]);
    let mut small = Node::start(small);
    let images: Vec<Image> = (0..18).map(image).collect();
    for (n, image) in images.iter().enumerate() {
        cluster[0].registry().push("app", &format!("v{n}"), image);
    }
    small.registry().wait_for_tag("app", "v17", &images[17]);
    let (registry, data, over) = (small.registry(), small.data_dir(), AtomicBool::new(false));
    thread::scope(|scope| {
        // Somebody reads all the time: what they have just pulled, and what may have gone long ago.
        let reader = small.registry();
        let (images, over) = (&images, &over);
        scope.spawn(move || {
            let mut n = 0;
            while !over.load(Ordering::SeqCst) {
                reader.assert_has("app", &format!("v{}", n % 3), &images[n % 3]);
                n += 1;
            }
        });
        for (n, image) in images.iter().enumerate() {
            registry.assert_has("app", &format!("v{n}"), image);
            let used = disk_usage(&data);
            assert!(used <= QUOTA + SLACK, "{} MiB after {n} images", used / MIB);
        }
        over.store(true, Ordering::SeqCst);
    });
    assert!(small.metric("waystation_evicted_copies_total") > 5.0);
    let here = images.iter().filter(|image| usage(&small, image).is_some()).count();
    assert!((1..=6).contains(&here), "{here} of 18 are here");
    for (n, image) in images.iter().enumerate() {
        cluster[0].registry().assert_has("app", &format!("v{n}"), image);
    }
    // The same after a crash in the middle of it.
    small.kill();
    small.start_again();
    for (n, image) in images.iter().enumerate().skip(10) {
        small.registry().assert_has("app", &format!("v{n}"), image);
    }
    assert!(disk_usage(&data) <= QUOTA + SLACK);
}

#[test]
fn the_last_copy_stays_and_pushes_are_refused() {
    let node = Node::start(with(Options::site("a"), &["--quota", "30MiB"]));
    let registry = node.registry();
    let images = [image(1), image(2)];
    registry.push("app", "v1", &images[0]);
    registry.push("app", "v2", &images[1]);
    let refused = registry.push_blob(Upload::Put, "app", &random_bytes(3, 12 << 20));
    let why = refused.expect_error(507, "UNKNOWN");
    assert!(why.contains("storage.quota"), "{why}");
    let report = gc(&node, &["--free", "5MiB"]);
    assert_eq!(deleted(&report), [""; 0]);
    assert!(report["short"].as_u64().unwrap() > 0);
    assert!(report["stays"]["no other node promises to keep it"].as_u64().unwrap() > 20 * MIB);
    registry.assert_has("app", "v1", &images[0]);
    registry.assert_has("app", "v2", &images[1]);
    assert_eq!(node.metric("waystation_evicted_copies_total"), 0.0);
}

#[test]
fn a_copy_goes_only_after_another_holder_promised_to_keep_its_own() {
    let mut cluster = Cluster::start(2);
    let image = image(1);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);
    until_true("the first node knows of the second copy", || {
        usage(&cluster[0], &image).is_some_and(|usage| usage["holders"] == 1)
    });
    cluster[1].kill();
    assert_eq!(deleted(&gc(&cluster[0], &["--free", "1MiB"])), [""; 0], "nobody can promise it");
    cluster[0].registry().assert_has("app", "v1", &image);
    cluster[1].start_again();
    cluster.wait_until_connected();
    let dry = gc(&cluster[0], &["--free", "1MiB", "--dry-run"]);
    assert_eq!(deleted(&dry), [image.digest()]);
    assert_eq!(dry["deleted"][0]["needs_promise"], true);
    assert!(usage(&cluster[0], &image).is_some(), "a dry run deletes nothing");
    let report = gc(&cluster[0], &["--free", "1MiB"]);
    assert_eq!(deleted(&report), [image.digest()]);
    assert!(report["freed"].as_u64().unwrap() > 10 * MIB);
    assert!(disk_usage(&cluster[0].data_dir()) < 8 * MIB, "its bytes are gone");
    // The other one is the last copy now, and was promised.
    assert_eq!(usage(&cluster[1], &image).unwrap()["leased"], true);
    assert_eq!(deleted(&gc(&cluster[1], &["--free", "1MiB"])), [""; 0]);
    // A promise outlives a crash of who gave it.
    cluster[1].kill();
    cluster[1].start_again();
    cluster.wait_until_connected();
    assert_eq!(usage(&cluster[1], &image).unwrap()["leased"], true);
    // It is still known, and comes again when it is asked for.
    cluster[0].registry().assert_has("app", "v1", &image);
    until_true("both hold it again", || {
        usage(&cluster[1], &image).is_some_and(|usage| usage["holders"] == 1)
    });
}

#[test]
fn what_is_pinned_stays() {
    let cluster = Cluster::start(2);
    let (pinned, other) = (image(1), image(2));
    for (tag, image) in [("pinned", &pinned), ("other", &other)] {
        cluster[0].registry().push("app", tag, image);
        cluster[1].registry().wait_for_tag("app", tag, image);
        cluster[1].registry().assert_has("app", tag, image);
    }
    cluster[1].cli(&["pin", "app:pinned"]).expect(0);
    assert_eq!(deleted(&gc(&cluster[1], &["--free", "100MiB"])), [other.digest()]);
    assert_eq!(usage(&cluster[1], &pinned).unwrap()["pinned"], true);
    cluster[1].cli(&["unpin", "app:pinned"]).expect(0);
    assert_eq!(deleted(&gc(&cluster[1], &["--free", "100MiB"])), [pinned.digest()]);
    cluster[1].cli(&["pin", "app:nothing"]).expect(4);
}

#[test]
fn usage_tells_shared_bytes_from_others() {
    let node = Node::start(Options::site("a"));
    let shared = random_bytes(1, 3 << 20);
    let one = Image::of(vec![shared.clone(), random_bytes(2, 1 << 20)]);
    let two = Image::of(vec![shared.clone(), random_bytes(3, 2 << 20)]);
    node.registry().push("app", "one", &one);
    node.registry().push("lib", "two", &two);
    let all = |image: &Image| image.blob_bytes() + image.manifest.len() as u64;
    for (image, repository) in [(&one, "app"), (&two, "lib")] {
        let usage = usage(&node, image).unwrap();
        assert_eq!(usage["bytes"], all(image));
        assert_eq!(usage["unshared"], all(image) - (3 << 20));
        assert_eq!(usage["repositories"][0], repository);
    }
    assert_eq!(node.cli_json(&["du", "--json"])["shared"], 3 << 20);
    let text = node.cli(&["du"]).expect(0).stdout;
    assert!(text.contains("3.00 MiB shared"), "{text}");
    let status = node.status();
    assert!(status["space"]["quota"].as_u64().unwrap() > 0, "{status}");
}

#[test]
fn what_nothing_refers_to_goes_after_a_while() {
    let folder = temp_dir("config");
    let config = "[storage]\nloose_after = \"2s\"\n";
    let node = Node::start(with_config(Options::site("a"), folder.path(), config));
    let (kept, gone) = (image(1), image(2));
    let registry = node.registry();
    registry.push("app", "kept", &kept);
    registry.push("app", "gone", &gone);
    let target = format!("/v2/app/manifests/{}", gone.digest());
    registry.http.request("DELETE", &target).send().expect(202);
    until_true("what was deleted leaves the disk", || {
        gc(&node, &[]);
        disk_usage(&node.data_dir()) < 15 * MIB
    });
    registry.assert_has("app", "kept", &kept);
    let blob = digest(&gone.layers[0]);
    until_true("nor is it found any more", || registry.head_blob("app", &blob).status == 404);
    registry.push("app", "gone", &gone);
    registry.assert_has("app", "gone", &gone);
}

#[test]
fn a_damaged_blob_that_was_fetched_is_fetched_again() {
    let mut cluster = Cluster::start(2);
    let image = image(1);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);
    cluster[1].stop();
    let data = cluster[1].data_dir().join("blobs/data");
    let large = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().path());
    let large: Vec<PathBuf> = large.filter(|path| fs::metadata(path).unwrap().len() == 6 << 20).collect();
    assert_eq!(large.len(), 1);
    let mut bytes = fs::read(&large[0]).unwrap();
    bytes[5 << 20] ^= 1;
    fs::write(&large[0], bytes).unwrap();
    cluster[1].start_again();
    cluster.wait_until_connected();
    // What was sent before the damage was met cannot be taken back: it is cut short.
    let layer = image.layers.iter().find(|layer| layer.len() == 6 << 20).unwrap();
    let path = format!("/v2/app/blobs/{}", digest(layer));
    assert!(cluster[1].registry().http.get(&path).try_send().is_err(), "damage was served as whole");
    cluster[1].registry().assert_has("app", "v1", &image);
    assert!(cluster[1].log().contains("is damaged"));
    until_true("it counts as a whole copy again", || {
        usage(&cluster[0], &image).is_some_and(|usage| usage["holders"] == 1)
    });
}

#[test]
fn what_comes_from_an_upstream_goes_without_anybodys_promise() {
    let upstream = Upstream::start();
    let folder = temp_dir("config");
    let config = format!("{}\n[storage]\nquota = \"60 MiB\"\n", upstream.config("docker.io", ""));
    let node = Node::start(with_config(Options::site("a"), folder.path(), &config));
    let images: Vec<Image> = (0..18).map(|n| image(100 + n)).collect();
    for (n, image) in images.iter().enumerate() {
        upstream.add("library/app", &format!("v{n}"), image);
        node.registry().assert_has("docker.io/library/app", &format!("v{n}"), image);
        let used = disk_usage(&node.data_dir());
        assert!(used <= QUOTA + 12 * MIB, "{} MiB after {n} images", used / MIB);
    }
    assert!(node.metric("waystation_evicted_copies_total") > 5.0);
    node.registry().assert_has("docker.io/library/app", "v0", &images[0]);
}

/// The data directory is a small disk of its own, which only the node sees.
fn on_small_disk(mut options: Options) -> Options {
    let script = "mkdir -p \"$0\" && mount -t tmpfs -o size=100m,mode=700 none \"$0\" && exec \"$@\"";
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--map-root-user"] };
    let words = [&["unshare", "--mount"], user, &["sh", "-c", script]].concat();
    options.wrapper = words.into_iter().map(str::to_owned).collect();
    options
}

#[test]
fn a_full_disk_is_answered_and_survived() {
    let mut node = Node::stopped(on_small_disk(Options::site("a")));
    let data = node.data_dir();
    node.reconfigure(|options| options.wrapper.push(data.to_str().unwrap().to_owned()));
    node.start_again();
    let registry = node.registry();
    let (before, after) = (image(1), image(2));
    registry.push("app", "before", &before);
    // Somebody else takes the rest of the disk.
    let inside = PathBuf::from(format!("/proc/{}/root{}", node.pid(), data.display()));
    let filler = inside.join("filler");
    let mut taken = fs::File::create(&filler).unwrap();
    let full = std::io::copy(&mut std::io::repeat(1), &mut taken).unwrap_err();
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    drop(taken);
    let refused = registry.push_blob(Upload::Put, "app", &after.layers[0]);
    let why = refused.expect_error(507, "UNKNOWN");
    assert!(why.contains("free space"), "{why}");
    let refused = registry.push_manifest("app", "again", &Image::random(3, &[]).manifest);
    assert!(refused.status >= 400, "{}", refused.status);
    registry.assert_has("app", "before", &before);
    fs::remove_file(&filler).unwrap();
    registry.push("app", "after", &after);
    for (tag, image) in [("before", &before), ("after", &after)] {
        registry.assert_has("app", tag, image);
    }
}
