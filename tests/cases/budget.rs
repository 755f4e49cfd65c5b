//! What may go over links to other sites is what the operator says, also while the node runs; it is shown, and a
//! restart does not forget what was spent.

use serde_json::Value;

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    node::Node,
    wait::until_true,
};

#[test]
fn a_limit_set_on_a_running_node_is_shown_everywhere_and_taken_back() {
    let cluster = Cluster::start(2);
    let (publisher, edge) = (&cluster[0], &cluster[1]);
    let set = ["budget", "set", "--down", "200Mbit/s", "--up", "1MB/s", "--client-share", "70", "--json"];
    let answer = edge.cli_json(&set);
    assert_eq!((&answer["limits"]["down"], &answer["changed"]), (&Value::from("200 Mbit/s"), &true.into()));
    let limits = &edge.status()["budget"]["limits"];
    assert_eq!((&limits["up"], &limits["client_share"]), (&Value::from("8 Mbit/s"), &70.into()));
    let shown = edge.cli(&["limits", "show"]).expect(0).stdout;
    assert!(shown.contains("200 Mbit/s") && shown.contains("waystation budget reset"), "{shown}");
    until_true("the metric shows the limit", || edge.metric("waystation_budget_rate_bytes") == 26_000_000.0);

    let image = Image::random(1, &[2 << 20, 500_000]);
    publisher.registry().push("app", "v1", &image);
    edge.registry().wait_for_tag("app", "v1", &image);
    edge.registry().assert_has("app", "v1", &image);
    assert!(spent(edge, "down") >= image.blob_bytes());
    assert!(spent(publisher, "up") >= image.blob_bytes());
    until_true("the metric shows what was moved", || {
        edge.metric("waystation_budget_spent_bytes") >= image.blob_bytes() as f64
    });

    edge.cli(&["budget", "reset"]).expect(0);
    assert_eq!(edge.status()["budget"]["limits"]["down"], "");
    assert_eq!(edge.status()["budget"]["changed"], false);
    until_true("the metric is gone", || edge.metric("waystation_budget_rate_bytes") == 0.0);
}

#[test]
fn what_cannot_be_is_refused_in_words() {
    let cluster = Cluster::start(1);
    for (arguments, says) in [
        (&["--down", "fast"][..], "10 Mbit/s"),
        (&["--monthly", "1GB", "--monthly-reserve", "2GB"], "at most budget.monthly"),
        (&["--client-share", "0"], "1 to 100"),
        (&["--window", "night"], "22:00-06:00"),
        (&[], "--help"),
    ] {
        let ended = cluster[0].cli(&[&["budget", "set"], arguments].concat()).expect(2);
        assert!(ended.stderr.contains(says), "{arguments:?}: {}", ended.stderr);
    }
}

#[test]
fn the_background_stops_before_what_is_kept_for_clients() {
    let cluster = Cluster::start(2);
    let edge = &cluster[1];
    let (first, second) = (Image::random(2, &[1_500_000]), Image::random(3, &[400_000, 300_000]));
    pull(&cluster, "first", &first);
    edge.cli(&["budget", "set", "--monthly", "20MB", "--monthly-reserve", "19MB"]).expect(0);
    let budget = &edge.status()["budget"];
    assert_eq!(budget["blocked"][0]["class"], "background");
    assert!(budget["blocked"][0]["why"].as_str().unwrap().contains("19 MB is kept for clients"), "{budget}");
    assert!(edge.cli(&["status"]).expect(0).stdout.contains("background BLOCKED"));
    until_true("the metric shows it", || edge.metric("waystation_budget_blocked") == 1.0);

    // A client's manifest comes, and the layer that it asks for; what nobody asked for does not.
    cluster[0].registry().push("app", "second", &second);
    edge.registry().wait_for_tag("app", "second", &second);
    edge.registry().manifest("app", "second").expect(200);
    let layer = digest(&second.layers[0]);
    edge.registry().http.get(&format!("/v2/app/blobs/{layer}")).send().expect(200);
    let held = |layer: &[u8]| {
        let inspected = edge.cli_json(&["inspect", "app:second", "--json"]);
        let blobs = inspected["blobs"].as_array().cloned().unwrap_or_default();
        blobs.iter().any(|blob| blob["digest"] == digest(layer) && blob["held"] == true)
    };
    assert!(held(&second.layers[0]) && !held(&second.layers[1]));

    edge.cli(&["budget", "set", "--monthly", "50MB"]).expect(0);
    until_true("the rest comes in the background", || held(&second.layers[1]));
}

#[test]
fn a_spent_cap_stops_clients_too_unless_it_is_soft_and_a_restart_keeps_it() {
    let mut cluster = Cluster::start(2);
    let (first, second) = (Image::random(4, &[1_000_000]), Image::random(5, &[200_000]));
    pull(&cluster, "first", &first);
    let before = spent(&cluster[1], "down");
    assert!(before >= first.blob_bytes());
    assert!(cluster[1].stop().success());
    cluster[1].start_again();
    cluster.wait_until_connected();
    assert!(spent(&cluster[1], "down") >= before, "a restart forgot what was spent");

    let edge = &cluster[1];
    edge.cli(&["budget", "set", "--monthly", "1MB"]).expect(0);
    let shown = edge.cli(&["budget", "show"]).expect(0).stdout;
    assert!(shown.contains("clients BLOCKED") && shown.contains("budget set --monthly"), "{shown}");
    until_true("the planner knows", || edge.metric("waystation_budget_blocked") == 2.0);
    cluster[0].registry().push("app", "second", &second);
    until_true("the tag is known", || edge.registry().tags("app").contains(&"second".to_owned()));
    assert_eq!(edge.registry().manifest("app", "second").status, 404);
    // What is here is served as ever.
    edge.registry().assert_has("app", "first", &first);

    edge.cli(&["budget", "set", "--hard", "false"]).expect(0);
    edge.registry().wait_for_tag("app", "second", &second);
    edge.registry().assert_has("app", "second", &second);
}

#[test]
fn a_node_whose_cap_is_spent_gives_other_sites_nothing() {
    let cluster = Cluster::at_sites(&["here", "there", "here"]);
    let (first, second) = (Image::random(6, &[1_000_000]), Image::random(7, &[200_000]));
    pull(&cluster, "first", &first);
    let publisher = &cluster[0];
    publisher.cli(&["budget", "set", "--monthly", "1MB"]).expect(0);
    publisher.registry().push("app", "second", &second);
    until_true("the tag is known", || cluster[1].registry().tags("app").contains(&"second".to_owned()));
    assert_eq!(cluster[1].registry().manifest("app", "second").status, 404);
    // The own site costs nothing.
    cluster[2].registry().wait_for_tag("app", "second", &second);
    cluster[2].registry().assert_has("app", "second", &second);

    publisher.cli(&["budget", "reset", "--spent"]).expect(0);
    cluster[1].registry().wait_for_tag("app", "second", &second);
    cluster[1].registry().assert_has("app", "second", &second);
}

/// Publishes at the first node and pulls at the second.
#[track_caller]
fn pull(cluster: &Cluster, tag: &str, image: &Image) {
    cluster[0].registry().push("app", tag, image);
    cluster[1].registry().wait_for_tag("app", tag, image);
    cluster[1].registry().assert_has("app", tag, image);
}

/// Bytes over links to other sites this month.
#[track_caller]
fn spent(node: &Node, way: &str) -> u64 {
    node.status()["budget"][format!("spent_{way}")].as_u64().expect("a number")
}
