//! A blob that is deleted is out of the repository on every node, until it is pushed there again.

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    node::Node,
    registry::Upload,
    wait::until_true,
};

#[track_caller]
fn wait_for_blob(node: &Node, repository: &str, blob: &str, status: u16) {
    until_true(&format!("{repository}@{blob} is {status} at {}", node.id()), || {
        node.registry().head_blob(repository, blob).status == status
    });
}

#[test]
fn a_deleted_blob_is_out_everywhere() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(1, &[300_000, 20_000]);
    for repository in ["app", "other"] {
        cluster[0].registry().push(repository, "v1", &image);
        cluster[1].registry().wait_for_tag(repository, "v1", &image);
        cluster[1].registry().assert_has(repository, "v1", &image);
    }
    let layer = digest(&image.layers[0]);
    let target = format!("/v2/app/blobs/{layer}");

    // A node without a grant may not, and nothing happens.
    let refused = cluster[1].registry().http.request("DELETE", &target).send();
    refused.expect_error(403, "DENIED");
    wait_for_blob(&cluster[0], "app", &layer, 200);

    cluster[0].registry().http.request("DELETE", &target).send().expect(202);
    cluster[0].registry().http.get(&target).send().expect_error(404, "BLOB_UNKNOWN");
    cluster[0].registry().http.request("DELETE", &target).send().expect_error(404, "BLOB_UNKNOWN");
    wait_for_blob(&cluster[1], "app", &layer, 404);
    for node in cluster.iter() {
        let registry = node.registry();
        registry.manifest("app", "v1").expect(200);
        registry.assert_has("other", "v1", &image);
        let mount = format!("/v2/third/blobs/uploads/?mount={layer}&from=app");
        assert_ne!(registry.http.request("POST", &mount).send().status, 201);
    }

    // A crash changes nothing, though the index is built again after it: at once where it was answered, and elsewhere,
    // where what was heard may wait some 100 ms for others before it is written, as soon as a member tells of it again.
    for n in 0..2 {
        cluster[n].kill();
        cluster[n].start_again();
        match n {
            0 => assert_eq!(cluster[n].registry().head_blob("app", &layer).status, 404),
            _ => wait_for_blob(&cluster[n], "app", &layer, 404),
        }
    }
    cluster.wait_until_connected();

    cluster[0].registry().push_blob(Upload::Put, "app", &image.layers[0]).expect(201);
    cluster[0].registry().assert_has("app", "v1", &image);
    wait_for_blob(&cluster[1], "app", &layer, 200);
    cluster[1].registry().assert_has("app", "v1", &image);
}

#[test]
fn a_node_that_was_away_hears_of_it() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(2, &[20_000]);
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);
    cluster[1].kill();
    let layer = digest(&image.layers[0]);
    cluster[0].registry().http.request("DELETE", &format!("/v2/app/blobs/{layer}")).send().expect(202);
    cluster[1].start_again();
    wait_for_blob(&cluster[1], "app", &layer, 404);
}
