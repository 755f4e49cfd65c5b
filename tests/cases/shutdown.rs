//! SIGTERM lets running requests finish, for a few seconds; a second signal ends the node at once.

use std::{
    io::Read,
    net::TcpStream,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::harness::{
    image::{Image, digest},
    node::{Node, Options, listens},
    wait::{until_true, until_within},
};

/// How long running requests may take, and a little for the rest.
const DRAIN: Duration = Duration::from_secs(5 + 2);
/// More than sockets buffer, so that the node cannot be done with it before the client reads.
const BLOB: usize = 64 << 20;

#[test]
fn an_idle_node_stops_cleanly_and_at_once() {
    let mut node = Node::start(Options::default());
    node.registry().push("app", "v1", &Image::random(1, &[1000]));
    let ready_file = node.data_dir().parent().unwrap().join("ready.json");
    assert!(ready_file.exists());
    let start = Instant::now();
    node.signal(Signal::TERM);
    let status = node.wait_for_end(DRAIN);
    assert_eq!(status.code(), Some(0), "{}", node.log());
    assert!(start.elapsed() < DRAIN);
    assert!(!ready_file.exists(), "the ready file says that a node serves which does not");
    node.start_again();
    assert_eq!(node.stop().code(), Some(0));
}

#[test]
fn a_download_is_finished_before_the_node_stops() {
    let mut node = Node::start(Options::default());
    let mut download = start_download(&node);
    node.signal(Signal::TERM);
    until_true("no new client is taken", || !listens(node.ready("listen")));
    let mut rest = vec![];
    download.read_to_end(&mut rest).unwrap();
    let body = rest.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
    assert_eq!(rest.len() - body, BLOB, "the download was cut");
    assert_eq!(node.wait_for_end(DRAIN).code(), Some(0));
}

#[test]
fn a_client_that_never_reads_does_not_hold_the_node_up() {
    let mut node = Node::start(Options::default());
    let download = start_download(&node);
    let start = Instant::now();
    node.signal(Signal::TERM);
    node.wait_for_end(DRAIN);
    assert!(start.elapsed() >= Duration::from_secs(1), "it did not wait for the client at all");
    drop(download);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut node = Node::start(Options::default());
    let download = start_download(&node);
    node.signal(Signal::TERM);
    until_within(DRAIN, "no new client is taken", || (!listens(node.ready("listen"))).then_some(()));
    let start = Instant::now();
    node.signal(Signal::TERM);
    node.wait_for_end(DRAIN);
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
    drop(download);
}

/// Asks for a large blob and reads nothing of it, once the first bytes are there.
fn start_download(node: &Node) -> TcpStream {
    let image = Image::random(2, &[BLOB]);
    node.registry().push("app", "v1", &image);
    let target = format!("/v2/app/blobs/{}", digest(&image.layers[0]));
    let stream = node.registry().http.get(&target).open().unwrap();
    stream.peek(&mut [0]).unwrap();
    stream
}
