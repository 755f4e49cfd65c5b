//! How long after its acknowledgement a tag is visible at the other nodes of a LAN.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Sizes,
    harness::{
        cluster::Cluster,
        image::{Image, MANIFEST_TYPE},
        wait::PATIENCE,
    },
    table::{Row, milliseconds},
};

const NODES: usize = 5;
const APART: Duration = Duration::from_millis(100);
const POLL: Duration = Duration::from_millis(2);

pub fn measure(sizes: Sizes) -> Vec<Row> {
    let cluster = Cluster::at_sites(&["lan"; NODES]);
    let image = Image::random(1, &[10_000]);
    let publisher = cluster[0].registry();
    publisher.push("bench", "first", &image);
    for node in cluster.iter() {
        node.registry().wait_for_tag("bench", "first", &image);
        node.registry().assert_has("bench", "first", &image);
    }
    let (seen_sender, seen) = mpsc::sync_channel(sizes.tags * NODES);
    let (mut acknowledged, mut writes) = (vec![], vec![]);
    thread::scope(|scope| {
        for node in cluster.iter().skip(1) {
            let (address, seen) = (node.ready("listen").to_owned(), seen_sender.clone());
            scope.spawn(move || {
                let mut watcher = Watcher::new(&address);
                for n in 0..sizes.tags {
                    seen.send((n, watcher.wait_for(&tag(n)))).unwrap();
                }
            });
        }
        for n in 0..sizes.tags {
            let start = Instant::now();
            publisher.push_manifest("bench", &tag(n), &image.manifest).expect(201);
            acknowledged.push(Instant::now());
            writes.push(start.elapsed());
            thread::sleep(APART);
        }
    });
    drop(seen_sender);
    // A tag may be visible elsewhere before its acknowledgement has reached the publisher.
    let after = seen.iter().map(|(n, at): (usize, Instant)| at.saturating_duration_since(acknowledged[n]));
    let what = format!("tag published to visible, {NODES} LAN nodes");
    let goal = "≤ 30 / 150 ms";
    vec![
        percentiles(&what, after.collect(), goal),
        percentiles("tag written (PUT of its manifest)", writes, ""),
    ]
}

fn tag(n: usize) -> String {
    format!("t{n}")
}

fn percentiles(what: &str, mut times: Vec<Duration>, goal: &'static str) -> Row {
    times.sort();
    let at = |part: f64| milliseconds(times[((times.len() - 1) as f64 * part).round() as usize]);
    Row::new(what, format!("p50 {}, p99 {}", at(0.5), at(0.99)), goal)
}

/// Asks one node over one connection until a tag is there.
struct Watcher {
    address: String,
    stream: BufReader<TcpStream>,
}

impl Watcher {
    fn new(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        Watcher { address: address.to_owned(), stream: BufReader::new(stream) }
    }

    fn wait_for(&mut self, tag: &str) -> Instant {
        let start = Instant::now();
        while self.head(tag) != 200 {
            assert!(start.elapsed() < PATIENCE, "{tag} did not come to {}", self.address);
            thread::sleep(POLL);
        }
        Instant::now()
    }

    /// Status of a HEAD, whose answer has no body.
    fn head(&mut self, tag: &str) -> u16 {
        let request = format!(
            "HEAD /v2/bench/manifests/{tag} HTTP/1.1\r\nHost: {}\r\nAccept: {MANIFEST_TYPE}\r\n\r\n",
            self.address
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut status = None;
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "{} hung up", self.address);
            if line == "\r\n" {
                return status.expect("a status line comes first");
            }
            status = status.or_else(|| line.split(' ').nth(1).and_then(|code| code.parse().ok()));
        }
    }
}
