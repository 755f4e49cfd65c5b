//! A site that is cut off serves what it holds, fails fast on what it does not, and catches up afterwards;
//! the others do not notice.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::harness::{cluster::Cluster, image::Image, node::Node, wait::until_true};

/// Longer than any probe of a holder, shorter than a client's patience.
const FAST: Duration = Duration::from_secs(15);

#[test]
fn a_node_that_hangs_holds_nobody_up_and_catches_up() {
    let cluster = Cluster::start(3);
    let (before, during) = (Image::random(1, &[500_000]), Image::random(2, &[500_000]));
    cluster[0].registry().push("app", "before", &before);
    cluster[2].registry().wait_for_tag("app", "before", &before);
    // Stopped, not killed: its connections stay open and nothing answers, as on a cut link.
    cluster[2].signal(Signal::STOP);
    cluster[0].registry().push("app", "during", &during);
    cluster[1].registry().wait_for_tag("app", "during", &during);
    cluster[1].registry().assert_has("app", "before", &before);
    cluster[1].registry().assert_has("app", "during", &during);

    cluster[2].signal(Signal::CONT);
    for (tag, image) in [("before", &before), ("during", &during)] {
        cluster[2].registry().wait_for_tag("app", tag, image);
        cluster[2].registry().assert_has("app", tag, image);
    }
}

#[test]
fn a_site_that_is_alone_serves_what_it_holds_and_fails_fast_on_the_rest() {
    let mut cluster = Cluster::start(2);
    let (held, missing) = (Image::random(3, &[500_000]), Image::random(4, &[40 << 20]));
    cluster[0].registry().push("app", "held", &held);
    cluster[1].registry().wait_for_tag("app", "held", &held);
    cluster[1].registry().assert_has("app", "held", &held);
    cluster[0].kill();

    let alone = cluster[1].registry();
    alone.assert_has("app", "held", &held);
    let start = Instant::now();
    assert_eq!(alone.manifest("app", &missing.digest()).status, 404);
    assert_eq!(alone.manifest("app", "missing").status, 404);
    alone.assert_has("app", "held", &held);
    assert!(start.elapsed() < FAST, "took {:?}", start.elapsed());

    cluster[0].start_again();
    cluster[0].registry().push("app", "missing", &missing);
    alone.wait_for_tag("app", "missing", &missing);
    alone.assert_has("app", "missing", &missing);
}

#[test]
fn a_publisher_that_crashed_and_came_back_is_asked_at_once() {
    let mut cluster = Cluster::start(2);
    let (before, after) = (Image::random(7, &[500_000]), Image::random(8, &[500_000]));
    cluster[0].registry().push("app", "before", &before);
    cluster[1].registry().wait_for_tag("app", "before", &before);
    cluster[1].registry().assert_has("app", "before", &before);
    cluster[0].kill();
    until_true("the crash is noticed", || cluster[1].sessions().is_empty());
    cluster[0].start_again();
    cluster.wait_until_connected();
    cluster[0].registry().push("app", "after", &after);
    let registry = cluster[1].registry();
    let tags = || registry.http.get("/v2/app/tags/list").send().json()["tags"].to_string();
    until_true("the tag is known", || tags().contains("after"));
    let start = Instant::now();
    registry.assert_has("app", "after", &after);
    // The connection that ended with the crash is not tried until it times out.
    assert!(start.elapsed() < Duration::from_secs(5), "took {:?}", start.elapsed());
}

#[test]
fn a_site_that_starts_alone_serves_what_it_holds() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(6, &[500_000, 20_000]);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);
    wait_until_complete(&cluster[1], "app:v1");
    // The power is cut at the site, and comes back before the link does.
    cluster[0].kill();
    for stop in [Node::kill, |node: &mut Node| assert!(node.stop().success())] {
        stop(&mut cluster[1]);
        cluster[1].start_again();
        let alone = cluster[1].registry();
        alone.assert_has("app", "v1", &image);
        assert_eq!(alone.tags("app"), ["v1"]);
    }
}

#[test]
fn an_artifact_comes_from_another_holder_when_the_publisher_is_gone() {
    let mut cluster = Cluster::start(3);
    let image = Image::random(5, &[2 << 20]);
    cluster[0].registry().push("app", "v1", &image);
    for node in [1, 2] {
        cluster[node].registry().wait_for_tag("app", "v1", &image);
    }
    cluster[1].registry().assert_has("app", "v1", &image);
    until_true("the third node knows of the second's copy", || {
        let inspected = cluster[2].cli(&["inspect", "app:v1", "--json"]);
        inspected.code == 0 && inspected.stdout.contains(cluster[1].id())
    });
    cluster[0].kill();
    cluster[2].registry().assert_has("app", "v1", &image);
}

/// Waits until everything of the artifact is durable here.
fn wait_until_complete(node: &Node, reference: &str) {
    until_true("the artifact is complete here", || {
        node.cli_json(&["inspect", reference, "--json"])["artifact"]["here"] == "complete"
    });
}
