//! A node that does not belong to a mesh learns nothing of it and gets nothing into it.

use crate::harness::{
    image::Image,
    node::{Node, Options},
    wait::until_true,
};

#[test]
fn a_node_of_another_mesh_is_refused() {
    let ours = Node::start(Options::site("ours"));
    let image = Image::random(1, &[10_000]);
    ours.registry().push("secret/app", "v1", &image);
    assert_eq!(refused(&ours), 0.0);

    let join = vec![ours.ready("join").to_owned()];
    let stranger = Node::start(Options { join, ..Options::site("theirs") });
    stranger.registry().push("foreign/app", "v1", &Image::random(2, &[10_000]));

    until_true("the stranger was refused", || refused(&ours) + refused(&stranger) >= 1.0);
    until_true("the refusal is in a log", || {
        [&ours, &stranger].iter().any(|node| node.log().contains("mesh"))
    });
    for (node, foreign) in [(&ours, "foreign/app"), (&stranger, "secret/app")] {
        assert_eq!(node.sessions(), Vec::<String>::new());
        let artifacts = node.cli(&["artifacts", "--json"]).expect(0).stdout;
        assert!(!artifacts.contains(foreign), "a record leaked: {artifacts}");
        assert_eq!(node.registry().manifest(foreign, "v1").status, 404);
        let peers = node.cli(&["peers", "--json"]).expect(0).stdout;
        let other = if foreign == "foreign/app" { &stranger } else { &ours };
        assert!(!peers.contains(other.id()), "a node record leaked: {peers}");
        assert_eq!(node.bytes_received(), 0);
    }
    // It still works for its own clients.
    ours.registry().assert_has("secret/app", "v1", &image);
}

/// Sessions refused on the control plane.
fn refused(node: &Node) -> f64 {
    node.metric("waystation_refused_total")
}
