//! What happens is told as it happens: over HTTP as server-sent events, and by `waystation watch`.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::harness::{
    cluster::Cluster,
    events::Stream,
    image::Image,
    node::{BINARY, Node, Options},
    wait::until_true,
};

#[test]
fn a_publication_and_its_way_to_another_site_are_told_as_they_happen() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(1, &[300_000]);
    let mut publisher = Stream::open(&cluster[0], "/events", None);
    let mut puller = Stream::open(&cluster[1], "/events", None);

    cluster[0].registry().push("app", "v1", &image);
    let published = publisher.next_of("published", |event| event["tag"] == "v1");
    assert_eq!(published["digest"], image.digest());
    assert_eq!(published["author"], cluster[0].id());
    publisher.next_of("held", |event| event["digest"] == image.digest());

    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);
    let layer = crate::harness::image::digest(&image.layers[0]);
    puller.next_of("published", |event| event["tag"] == "v1" && event["repository"] == "app");
    let started = puller.next_of("fetch-started", |event| event["digest"] == layer);
    assert_eq!((&started["from"], &started["site"]), (&cluster[0].id().into(), &"site-0".into()));
    let fetched = puller.next_of("fetched", |event| event["digest"] == layer);
    assert_eq!(fetched["hash"], started["hash"]);
    puller.next_of("held", |event| event["digest"] == image.digest());
    let complete = puller.next_of("site-complete", |event| event["digest"] == image.digest());
    assert_eq!((&complete["site"], &complete["nodes"]), (&"site-1".into(), &1.into()));

    // Whoever comes back says what it had last, and gets what it missed; types can be chosen.
    let last = started["id"].as_str().unwrap();
    let mut again = Stream::open(&cluster[1], "/events?type=held,fetched", Some(last));
    // The config, or another blob of it, may have come before the layer.
    loop {
        let event = again.next();
        assert!(event["type"] == "fetched" || event["type"] == "held", "no other types: {event}");
        if event == fetched {
            break;
        }
    }
    let answer = cluster[1].admin().get("/events?type=held,nonsense").send();
    assert_eq!(answer.status, 400);
    assert!(String::from_utf8_lossy(&answer.body).contains("site-complete"), "says which there are");

    let first = cluster[0].id().to_owned();
    cluster[0].stop();
    puller.next_of("node-down", |event| event["node"] == first.as_str() && event["site"] == "site-0");
    cluster[0].start_again();
    puller.next_of("node-up", |event| event["node"] == first.as_str());
}

#[test]
fn after_a_restart_a_reader_is_told_that_it_missed_something_and_streams_do_not_hold_a_node() {
    let mut node = Node::start(Options::default());
    let mut stream = Stream::open(&node, "/events", None);
    node.registry().push("app", "v1", &Image::random(2, &[1000]));
    let last = stream.next_of("published", |event| event["tag"] == "v1")["id"].clone();
    assert!(node.stop().success(), "a stream that is open does not keep a node from ending well");
    assert!(stream.ends(), "and ends with it");
    node.start_again();
    let mut stream = Stream::open(&node, "/events", last.as_str());
    let missed = stream.next();
    assert_eq!((&missed["type"], &missed["count"]), (&"missed".into(), &Value::Null));
}

#[test]
fn the_command_prints_events_for_people_and_for_machines() {
    let mut node = Node::start(Options::default());
    let (mut people, mut machines) =
        (Watch::start(&node, &[]), Watch::start(&node, &["--json", "--type", "published"]));
    // Both began before the push: where they began too late, the push is repeated under another tag.
    let mut n = 0;
    until_true("events are printed", || {
        n += 1;
        node.registry().push("app", &format!("v{n}"), &Image::random(3 + n, &[1000]));
        people.has_printed("app:v") && machines.has_printed("published")
    });
    let line = people.line_with("app:v");
    assert!(line.contains("published") && line.contains("sha256:"), "{line}");
    let event: Value = serde_json::from_str(&machines.line_with("published")).unwrap();
    assert_eq!(event["repository"], "app");

    let since = Watch::start(&node, &["--json", "--since", event["id"].as_str().unwrap()]).line_with("held");
    assert!(since.contains("digest"), "{since}");
    node.cli(&["watch", "--type", "nonsense"]).expect(2);
    node.stop();
    assert!(people.child.wait().unwrap().success(), "ends with the node");
}

/// A `waystation watch` that runs until it is dropped.
struct Watch {
    child: Child,
    lines: std::sync::mpsc::Receiver<String>,
    seen: Vec<String>,
}

impl Watch {
    fn start(node: &Node, arguments: &[&str]) -> Self {
        let mut child = Command::new(BINARY)
            .arg("watch")
            .args(arguments)
            .arg("--data-dir")
            .arg(node.data_dir())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, lines) = std::sync::mpsc::sync_channel(1000);
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
        Watch { child, lines, seen: vec![] }
    }

    fn has_printed(&mut self, part: &str) -> bool {
        self.seen.extend(self.lines.try_iter());
        self.seen.iter().any(|line| line.contains(part))
    }

    fn line_with(&mut self, part: &str) -> String {
        crate::harness::wait::until("a line is printed", || {
            self.has_printed(part);
            self.seen.iter().find(|line| line.contains(part)).cloned()
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
