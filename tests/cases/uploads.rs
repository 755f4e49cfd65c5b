//! Uploads end well or leave nothing: also where the node is killed, the disk is full, or the client is gone.

use std::{fs, path::Path};

use crate::harness::{
    cluster::Cluster,
    http::Http,
    image::{digest, random_bytes},
    node::{Node, Options},
    registry::{Upload, with_query},
    wait::until_true,
};

#[test]
fn a_session_goes_on_after_the_node_was_killed() {
    let mut cluster = Cluster::start(1);
    let http = cluster[0].registry().http;
    let blob = random_bytes(1, 3_000_000);
    let session = http.request("POST", "/v2/app/blobs/uploads/").send().expect(202).location();
    let first = http.request("PATCH", &session).body(&blob[..1_000_000]).send().expect(202);
    assert_eq!(first.header("range"), Some("0-999999"));
    // Cut in the middle: what came counts.
    let _ = http.request("PATCH", &session).truncated(2_000_000, &blob[1_000_000..1_500_000]).try_send();
    cluster[0].kill();
    cluster[0].start_again();

    let status = http.get(&session).send().expect(204);
    let range = status.header("range").expect("a range");
    let have = range.strip_prefix("0-").expect("from the start").parse::<usize>().expect("a number") + 1;
    assert!((1_000_000..=1_500_000).contains(&have), "{have}");
    let rest = format!("{have}-{}", blob.len() - 1);
    let patch = http.request("PATCH", &session).header("Content-Range", &rest).body(&blob[have..]);
    patch.send().expect(202);
    let put = http.request("PUT", &with_query(&session, &format!("digest={}", digest(&blob)))).send();
    let got = http.get(&put.expect(201).location()).send().expect(200);
    assert!(got.body == blob);
}

/// Files of unfinished bodies below the data directory.
fn unfinished(data: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut folders = vec![data.join("uploads"), data.join("files")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            match entry.path().is_dir() {
                true => folders.push(entry.path()),
                false => found.push(entry.path().display().to_string()),
            }
        }
    }
    found
}

/// A node whose data directory is a small disk of its own, in a mount namespace of its own: that works without
/// root, too. The harness gives the directory as the first flag.
fn on_a_small_disk() -> Node {
    let mount = "mkdir -p \"$4\" && mount -t tmpfs -o size=96m,mode=700 small \"$4\" && exec \"$@\"";
    let namespaces: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["--mount"],
        false => &["--mount", "--user", "--map-root-user"],
    };
    let words = [&["unshare"], namespaces, &["sh", "-c", mount, "sh"]].concat();
    let wrapper = words.iter().map(|word| (*word).to_owned()).collect();
    Node::start(Options { wrapper, ..Options::site("small") })
}

#[test]
fn a_full_disk_is_an_answer_and_leaves_nothing() {
    let node = on_a_small_disk();
    // The disk is to be seen in the node's own namespace only.
    let root = Path::new("/proc").join(node.pid().to_string()).join("root");
    let data = root.join(node.data_dir().strip_prefix("/").unwrap());
    let registry = node.registry();
    let kept = random_bytes(1, 5 << 20);
    registry.push_blob(Upload::Put, "app", &kept).expect(201);
    let before = unfinished(&data);
    assert_eq!(before.len(), 1, "the blob that was kept: {before:?}");

    let large = random_bytes(2, 120 << 20);
    let target = format!("/v2/app/blobs/uploads/?digest={}", digest(&large));
    for _ in 0..3 {
        let refused = registry.http.request("POST", &target).body(&large).send();
        let message = refused.expect_error(507, "UNKNOWN");
        assert!(message.contains("free space"), "{message}");
        until_true("nothing of it is left", || unfinished(&data) == before);
    }
    let session = registry.http.request("POST", "/v2/app/blobs/uploads/").send().expect(202).location();
    registry.http.request("PATCH", &session).body(&large).send().expect_error(507, "UNKNOWN");
    // A session keeps what it has, for when there is room, and gives it back when it is cancelled.
    registry.http.get(&session).send().expect(204);
    registry.http.request("DELETE", &session).send().expect(204);
    assert_eq!(unfinished(&data), before);

    // What is there is served, and what fits is taken.
    registry.head_blob("app", &digest(&large)).expect(404);
    let got = registry.http.get(&format!("/v2/app/blobs/{}", digest(&kept))).send().expect(200);
    assert!(got.body == kept);
    registry.push_blob(Upload::Chunks, "app", &random_bytes(3, 5 << 20)).expect(201);
}

/// Bytes that the process has asked the system to read.
fn bytes_read(node: &Node) -> u64 {
    let text = fs::read_to_string(format!("/proc/{}/io", node.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("rchar: "));
    line.expect("the system counts").parse().unwrap()
}

fn open_files(node: &Node) -> usize {
    fs::read_dir(format!("/proc/{}/fd", node.pid())).unwrap().count()
}

/// As containerd fetches layers in parallel: each chunk by an open range that it drops when it has enough.
#[test]
fn clients_that_take_a_chunk_of_an_open_range_cost_no_more() {
    use std::io::Read as _;
    const REQUESTS: u64 = 40;
    const CHUNK: u64 = 256 * 1024;
    let cluster = Cluster::start(1);
    let node = &cluster[0];
    let blob = random_bytes(5, 64 << 20);
    node.registry().push_blob(Upload::Put, "app", &blob).expect(201);
    let target = format!("/v2/app/blobs/{}", digest(&blob));
    let http: Http = node.registry().http;
    http.get(&target).send().expect(200);
    let (files, read) = (open_files(node), bytes_read(node));
    for n in 0..REQUESTS {
        let from = (n * (1 << 20)) as usize;
        let mut stream = http.get(&target).header("Range", &format!("bytes={from}-")).open().unwrap();
        let mut taken = vec![0; CHUNK as usize];
        stream.read_exact(&mut taken).unwrap();
        let head_end = taken.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let body = &taken[head_end..];
        assert!(body == &blob[from..from + body.len()]);
    }
    until_true("no file stays open", || open_files(node) <= files);
    let each = (bytes_read(node) - read) / REQUESTS;
    // What the connection's buffers of both ends take, and a step ahead; the rest of the blob would be 44 MiB.
    assert!(each < 6 << 20, "{each} bytes were read for each chunk of {CHUNK}");
    assert!(http.get(&target).send().expect(200).body == blob);
}
