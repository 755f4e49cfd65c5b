//! A blob is visible in a repository only where it was pushed, mounted, or is part of what was pushed.

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    node::{Node, Options},
};

#[test]
fn a_blob_is_not_visible_through_another_repository() {
    let cluster = Cluster::start(2);
    let (ours, theirs) = (Image::random(1, &[200_000]), Image::random(2, &[200_000]));
    cluster[0].registry().push("team/ours", "v1", &ours);
    cluster[0].registry().push("team/theirs", "v1", &theirs);
    for node in cluster.iter() {
        let registry = node.registry();
        registry.wait_for_tag("team/ours", "v1", &ours);
        registry.wait_for_tag("team/theirs", "v1", &theirs);
        registry.assert_has("team/ours", "v1", &ours);
        let layer = digest(&ours.layers[0]);
        registry.head_blob("team/theirs", &layer).expect(404);
        let blob = format!("/v2/team/theirs/blobs/{layer}");
        registry.http.get(&blob).send().expect_error(404, "BLOB_UNKNOWN");
        registry.manifest("team/theirs", &ours.digest()).expect_error(404, "MANIFEST_UNKNOWN");
        registry.head_blob("team", &layer).expect(404);
    }
}

#[test]
fn a_mount_needs_the_blob_in_the_repository_it_is_mounted_from() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let image = Image::random(3, &[100_000]);
    registry.push("from", "v1", &image);
    let layer = digest(&image.layers[0]);
    let mount = |from: &str| {
        let target = format!("/v2/to/blobs/uploads/?mount={layer}&from={from}");
        registry.http.request("POST", &target).send()
    };
    mount("elsewhere").expect(202);
    registry.head_blob("to", &layer).expect(404);
    mount("from").expect(201);
    registry.head_blob("to", &layer).expect(200);
    let mounted = registry.http.get(&format!("/v2/to/blobs/{layer}")).send().expect(200);
    assert_eq!(mounted.body, image.layers[0]);
}

#[test]
fn deleting_takes_away_here_and_nowhere_else() {
    let cluster = Cluster::start(2);
    let image = Image::random(4, &[100_000]);
    let (first, second) = (cluster[0].registry(), cluster[1].registry());
    for repository in ["gone", "kept"] {
        first.push(repository, "v1", &image);
        second.wait_for_tag(repository, "v1", &image);
    }
    let manifest = format!("/v2/gone/manifests/{}", image.digest());
    first.http.request("DELETE", &manifest).send().expect(202);
    for registry in [&first, &second] {
        crate::harness::wait::until_true("the deletion is everywhere", || {
            registry.manifest("gone", "v1").status == 404
                && registry.manifest("gone", &image.digest()).status == 404
        });
        registry.assert_has("kept", "v1", &image);
    }
}
