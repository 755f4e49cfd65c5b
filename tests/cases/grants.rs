//! A node publishes only what the mesh's root granted it, and says what to run where it is not.

use crate::harness::{cluster::Cluster, image::Image, registry::Upload, wait::until_true};

#[test]
fn a_node_publishes_only_what_it_was_granted() {
    let cluster = Cluster::start(2);
    let (root, edge) = (&cluster[0], &cluster[1]);
    let image = Image::random(1, &[10_000]);

    let refused = edge.registry().http.request("POST", "/v2/team/app/blobs/uploads/").send();
    let message = refused.expect_error(403, "DENIED");
    assert!(message.contains("waystation mesh grant"), "says what to run: {message}");
    assert!(message.contains(edge.id()), "says for whom: {message}");

    let file = edge.data_dir().join("VERSION");
    let ended = edge.cli(&["push", "team/app:v1", file.to_str().unwrap()]).expect(2);
    assert!(ended.stderr.contains("waystation mesh grant"), "{}", ended.stderr);

    let id = edge.id();
    root.cli(&["mesh", "grant", id, "--repositories", "team/*", "--for", "90d"]).expect(0);
    until_true("the grant arrives", || {
        let answer = edge.registry().http.request("POST", "/v2/team/app/blobs/uploads/").send();
        answer.status == 202
    });
    edge.registry().push("team/app", "v1", &image);
    root.registry().wait_for_tag("team/app", "v1", &image);
    root.registry().assert_has("team/app", "v1", &image);

    for other in ["other/app", "team", "team/app/deep", "teamx/app"] {
        let target = format!("/v2/{other}/blobs/uploads/");
        edge.registry().http.request("POST", &target).send().expect_error(403, "DENIED");
        edge.registry().push_manifest(other, "v1", &image.manifest).expect_error(403, "DENIED");
    }
    root.registry().push("other/app", "v1", &image);
    edge.registry().wait_for_tag("other/app", "v1", &image);
    let target = format!("/v2/other/app/manifests/{}", image.digest());
    edge.registry().http.request("DELETE", &target).send().expect_error(403, "DENIED");
    root.registry().assert_has("other/app", "v1", &image);
}

#[test]
fn a_grant_ends() {
    let cluster = Cluster::start(2);
    let (root, edge) = (&cluster[0], &cluster[1]);
    let image = Image::random(2, &[10_000]);
    let ask = || edge.registry().http.request("POST", "/v2/app/blobs/uploads/").send();
    root.cli(&["mesh", "grant", edge.id(), "--repositories", "**", "--for", "4s"]).expect(0);
    until_true("the grant arrives", || ask().status == 202);
    edge.registry().push("app", "v1", &image);
    until_true("the grant ends", || ask().status == 403);
    let message = ask().expect_error(403, "DENIED");
    assert!(message.contains("expired") && message.contains("waystation mesh grant"), "{message}");
    // What was published while it held stays.
    root.registry().wait_for_tag("app", "v1", &image);
    root.registry().assert_has("app", "v1", &image);
}

#[test]
fn only_the_root_grants() {
    let cluster = Cluster::start(2);
    let edge = &cluster[1];
    let refused = edge.cli(&["mesh", "grant", edge.id(), "--repositories", "**"]);
    assert_ne!(refused.code, 0, "a node without the root key granted itself: {}", refused.stdout);
    assert!(refused.stderr.contains("root key"), "{}", refused.stderr);
    let answer = edge.registry().http.request("POST", "/v2/app/blobs/uploads/").send();
    assert_eq!(answer.status, 403);
}

#[test]
fn a_granted_node_pulls_and_publishes_after_a_restart_without_the_root() {
    let mut cluster = Cluster::start(2);
    cluster.grant(1);
    // Stopped, not killed: what came from others is written a moment later, and would come again.
    cluster[1].stop();
    cluster[0].kill();
    cluster[1].start_again();
    let image = Image::random(3, &[10_000]);
    for blob in image.blobs() {
        cluster[1].registry().push_blob(Upload::Put, "app", blob).expect(201);
    }
    cluster[1].registry().push("app", "v1", &image);
    cluster[0].start_again();
    cluster[0].registry().wait_for_tag("app", "v1", &image);
    cluster[0].registry().assert_has("app", "v1", &image);
}
