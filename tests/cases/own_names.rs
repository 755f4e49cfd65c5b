//! Whoever can publish at an upstream cannot stand in for the mesh: names that the mesh uses, or has used, are never
//! looked up there, not even by a node that has just started.

use std::{fs, path::Path};

use crate::harness::{
    cluster::Cluster,
    image::Image,
    node::{Node, Options, temp_dir},
    upstream::Upstream,
};

/// A node that takes unqualified names for those of this upstream.
fn confusable(mut options: Options, folder: &Path, upstream: &Upstream) -> Node {
    let file = folder.join("node.toml");
    fs::write(&file, upstream.config("docker.io", "mirror-for-unqualified = true")).unwrap();
    options.extra.extend(["--config".to_owned(), file.display().to_string()]);
    Node::start(options)
}

#[test]
fn a_node_that_has_just_joined_asks_the_mesh_first() {
    let (upstream, folder) = (Upstream::start(), temp_dir("config"));
    let (own, evil) = (Image::random(41, &[1000]), Image::random(42, &[1000]));
    for tag in ["v1", "evil"] {
        upstream.add("team/app", tag, &evil);
    }
    let cluster = Cluster::start(1);
    cluster[0].registry().push("team/app", "v1", &own);
    // Its first request, before it can have heard of anything.
    let node = confusable(cluster.options("b"), folder.path(), &upstream);
    let first = node.registry().manifest("team/app", "evil");
    first.expect_error(404, "MANIFEST_UNKNOWN");
    node.registry().assert_has("team/app", "v1", &own);
    assert_eq!(upstream.count("HEAD", "team/") + upstream.count("GET", "team/"), 0);
    // What the mesh never had is the upstream's.
    upstream.add("library/app", "v1", &evil);
    node.registry().assert_has("library/app", "v1", &evil);
}

#[test]
fn a_name_of_which_all_was_deleted_stays_the_meshs() {
    let (upstream, folder) = (Upstream::start(), temp_dir("config"));
    let (own, evil) = (Image::random(43, &[1000]), Image::random(44, &[1000]));
    upstream.add("team/app", "v1", &evil);
    let cluster = Cluster::start(1);
    let http = cluster[0].registry().http;
    cluster[0].registry().push("team/app", "v1", &own);
    http.request("DELETE", &format!("/v2/team/app/manifests/{}", own.digest())).send().expect(202);
    // It has never seen what was deleted.
    let mut node = confusable(cluster.options("b"), folder.path(), &upstream);
    for _ in 0..2 {
        for reference in ["v1", &evil.digest()] {
            node.registry().manifest("team/app", reference).expect_error(404, "MANIFEST_UNKNOWN");
        }
        node.stop();
        // Its index is built from the records again.
        fs::remove_dir_all(node.data_dir().join("index")).unwrap();
        node.start_again();
    }
    assert_eq!(upstream.count("HEAD", "team/") + upstream.count("GET", "team/"), 0);
}
