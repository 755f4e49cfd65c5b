//! A download from an upstream that a crash of the node interrupts goes on from what the disk has of it; what is
//! damaged there, or of content that the upstream has no more, comes anew. Nothing wrong is ever served as whole.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{
    http::Http,
    image::{Image, digest},
    node::{Node, Options, temp_dir},
    upstream::Upstream,
    wait::{until, until_true},
};

const HUB: &str = "docker.io/library/app";
const SIZE: usize = 8 << 20;
/// What has come before the crash.
const HALF: u64 = 5 << 20;
/// What of that may be lost: what came after the last note.
const WINDOW: u64 = 1 << 20;

/// A node that was killed while a layer came.
struct Crashed {
    upstream: Upstream,
    node: Node,
    layer: Vec<u8>,
    name: String,
    /// The file that has the layer's beginning, and how much of it its note vouches for.
    partial: PathBuf,
    noted: u64,
    _config: TempDir,
}

impl Crashed {
    fn new(seed: u64, etag: Option<&str>) -> Self {
        let (upstream, image) = (Upstream::start(), Image::random(seed, &[SIZE]));
        upstream.add("library/app", "v1", &image);
        upstream.set(|faults| (faults.hold_at, faults.etag) = (Some(HALF), etag.map(str::to_owned)));
        let config = temp_dir("config");
        let file = config.path().join("node.toml");
        fs::write(&file, upstream.config("docker.io", "")).unwrap();
        let mut options = Options::site("a");
        options.extra.extend(["--config".to_owned(), file.to_str().unwrap().to_owned()]);
        let mut node = Node::start(options);
        let layer = image.layers[0].clone();
        let name = digest(&layer);
        let registry = node.registry();
        registry.http.head(&format!("/v2/{HUB}/manifests/v1")).send().expect(200);
        let client = registry.http.get(&target(&name)).open().unwrap();
        let folder = node.data_dir().join("uploads/+partial");
        let (partial, noted) = until("most of what came is noted", || {
            note(&folder).filter(|(_, noted)| noted + WINDOW >= HALF && *noted <= HALF)
        });
        assert_eq!(upstream.sent(&name), HALF);
        node.kill();
        drop(client);
        upstream.set(|faults| faults.hold_at = None);
        Crashed { upstream, node, layer, name, partial, noted, _config: config }
    }

    fn get(&self) -> Vec<u8> {
        self.node.registry().http.get(&target(&self.name)).send().expect(200).body
    }

    /// Everything came from byte 0 on, and that is what is served and kept.
    fn assert_anew(&self) {
        assert_eq!(digest(&self.get()), self.name);
        let (sent, all) = (self.upstream.sent(&self.name), HALF + SIZE as u64);
        // Some is sent to the killed node before the connection is found broken.
        assert!((all..all + WINDOW).contains(&sent), "{sent} bytes were sent of {SIZE}");
        until_true("what is whole is no unfinished download", || self.left() == 0);
        assert_eq!(digest(&self.get()), self.name);
    }

    /// Files of unfinished downloads.
    fn left(&self) -> usize {
        fs::read_dir(self.partial.parent().unwrap()).unwrap().count()
    }
}

fn target(name: &str) -> String {
    format!("/v2/{HUB}/blobs/{name}")
}

/// The file that a note is of, and how much it vouches for.
fn note(folder: &Path) -> Option<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).ok()?;
    let path = entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "json"))?;
    let note: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    Some((path.with_extension(""), note["synced"].as_u64()?))
}

#[test]
fn a_download_goes_on_after_a_crash() {
    let mut crashed = Crashed::new(1, Some("\"one\""));
    crashed.node.start_again();
    // While the rest is held back, what was there is read along.
    crashed.upstream.set(|faults| faults.hold_at = Some(HALF));
    let http: Http = crashed.node.registry().http;
    let mut stream = http.get(&target(&crashed.name)).open().unwrap();
    let mut answer = Vec::new();
    let wanted = &crashed.layer[..usize::try_from(crashed.noted).unwrap() - 65_536];
    until("the beginning has come", || {
        let mut some = [0; 65_536];
        let came = stream.read(&mut some).unwrap();
        assert!(came > 0, "the answer ended");
        answer.extend_from_slice(&some[..came]);
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let body = &answer[head..];
        (body.len() >= wanted.len()).then(|| assert!(body.starts_with(wanted)))
    });
    drop(stream);
    crashed.upstream.set(|faults| faults.hold_at = None);
    assert_eq!(digest(&crashed.get()), crashed.name);
    let asked = crashed.upstream.asked("GET", &crashed.name);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[1].headers["range"], format!("bytes={}-", crashed.noted));
    assert_eq!(asked[1].headers["if-range"], "\"one\"");
    let sent = crashed.upstream.sent(&crashed.name);
    assert!(sent <= SIZE as u64 + WINDOW, "{sent} bytes were sent of {SIZE}");
    until_true("what is whole is no unfinished download", || crashed.left() == 0);
}

#[test]
fn what_was_damaged_on_disk_comes_anew() {
    let mut crashed = Crashed::new(2, None);
    let mut bytes = fs::read(&crashed.partial).unwrap();
    bytes[1 << 20] ^= 1;
    fs::write(&crashed.partial, bytes).unwrap();
    crashed.node.start_again();
    crashed.assert_anew();
}

#[test]
fn what_the_upstream_has_otherwise_now_comes_anew() {
    let mut crashed = Crashed::new(3, Some("\"one\""));
    crashed.upstream.set(|faults| faults.etag = Some("\"two\"".into()));
    crashed.node.start_again();
    crashed.assert_anew();
}

#[test]
fn what_is_wrong_at_the_end_is_not_gone_on_with() {
    let mut crashed = Crashed::new(4, None);
    crashed.node.start_again();
    let half = SIZE / 2;
    let mut wrong = crashed.layer.clone();
    wrong[half..].iter_mut().for_each(|byte| *byte ^= 1);
    crashed.upstream.add_blob("library/app", &crashed.name, &wrong);
    let answer = crashed.node.registry().http.get(&target(&crashed.name)).try_send();
    assert!(!answer.is_ok_and(|answer| answer.status == 200), "served as if it were whole");
    assert!(crashed.upstream.asked("GET", &crashed.name)[1].headers.contains_key("range"));
    crashed.upstream.add_blob("library/app", &crashed.name, &crashed.layer);
    // Whoever asks while the wrong one is just coming to its end shares that end.
    let body = until("it comes anew", || {
        let answer = crashed.node.registry().http.get(&target(&crashed.name)).try_send().ok()?;
        (answer.status == 200).then_some(answer.body)
    });
    assert_eq!(digest(&body), crashed.name);
    let asked = crashed.upstream.asked("GET", &crashed.name);
    assert!(!asked.last().unwrap().headers.contains_key("range"), "{asked:?}");
}
