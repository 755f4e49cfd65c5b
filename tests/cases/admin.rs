//! The admin endpoint: alive, ready, numbers; and where it listens when its usual port is taken.

use std::net::TcpListener;

use crate::harness::{
    http::Http,
    image::Image,
    node::{Node, Options},
};

#[test]
fn it_says_that_the_node_lives_and_is_ready_and_counts() {
    let node = Node::start(Options::default());
    node.admin().get("/healthz").send().expect(200);
    node.admin().get("/readyz").send().expect(200);
    let image = Image::random(1, &[10_000]);
    node.registry().push("app", "v1", &image);
    assert!(node.metric("waystation_ingested_blobs_total") >= 3.0);
    assert!(node.metric("waystation_catalog_records") >= 3.0);
    let text = String::from_utf8(node.admin().get("/metrics").send().expect(200).body).unwrap();
    assert!(text.lines().any(|line| line == "# EOF"), "not in the OpenMetrics format: {text}");
    // What is for operators is not on the endpoint for clients.
    assert_eq!(node.registry().http.get("/metrics").send().status, 404);
}

#[test]
fn it_takes_a_free_port_where_the_usual_one_is_taken_and_was_not_asked_for() {
    // Held by this test, or by whoever had it before.
    let _taken = TcpListener::bind("127.0.0.1:5001");
    let node = Node::start(Options { usual_admin_port: true, ..Options::default() });
    let address = node.ready("admin_listen").to_owned();
    assert_ne!(address, "127.0.0.1:5001");
    Http::new(&address).get("/healthz").send().expect(200);
    assert!(node.log().contains("the usual admin port is taken"), "{}", node.log());
}
