//! What is pushed at one node by any form of upload is pulled at every other, byte for byte.

use crate::harness::{
    cluster::Cluster,
    http::Response,
    image::{Image, MANIFEST_TYPE, digest},
    node::{Node, Options, temp_dir},
    registry::{Registry, Upload},
};

const REPOSITORY: &str = "library/app";

#[test]
fn every_form_of_upload_reaches_every_node() {
    let cluster = Cluster::start(3);
    let mut tags = vec![];
    for (n, form) in Upload::ALL.into_iter().enumerate() {
        let image = Image::random(n as u64, &[3 << 20, 100_000, 1]);
        let tag = format!("by-{form:?}").to_lowercase();
        cluster[0].registry().push_by(form, REPOSITORY, &tag, &image);
        cluster[0].registry().assert_has(REPOSITORY, &tag, &image);
        for node in cluster.iter().skip(1) {
            node.registry().wait_for_tag(REPOSITORY, &tag, &image);
            node.registry().assert_has(REPOSITORY, &tag, &image);
            check_heads_and_ranges(&node.registry(), &tag, &image);
        }
        tags.push(tag);
    }
    tags.sort();
    for node in cluster.iter() {
        assert_eq!(node.registry().tags(REPOSITORY), tags);
    }
}

#[test]
fn a_tag_that_moves_moves_everywhere() {
    let cluster = Cluster::start(2);
    let (old, new) = (Image::random(1, &[50_000]), Image::random(2, &[60_000]));
    for image in [&old, &new] {
        cluster[0].registry().push(REPOSITORY, "latest", image);
        cluster[1].registry().wait_for_tag(REPOSITORY, "latest", image);
        cluster[1].registry().assert_has(REPOSITORY, "latest", image);
    }
    // What the tag left behind is still there by digest.
    let pulled = cluster[1].registry().pull(REPOSITORY, &old.digest());
    assert!(pulled.blobs.iter().eq(old.blobs()));
}

#[test]
fn an_image_that_others_published_can_be_pulled_by_digest_before_its_tag_was_asked_for() {
    let cluster = Cluster::start(2);
    let image = Image::random(7, &[2 << 20]);
    cluster[0].registry().push(REPOSITORY, "v1", &image);
    cluster[1].registry().wait_for_tag(REPOSITORY, "v1", &image);
    let layer = digest(&image.layers[0]);
    let blob = cluster[1].registry().http.get(&format!("/v2/{REPOSITORY}/blobs/{layer}")).send().expect(200);
    assert_eq!(blob.body, image.layers[0]);
}

#[test]
fn a_sparse_image_is_taken_where_the_operator_wants_it() {
    let image = Image::random(8, &[1000, 2000]);
    let push = |registry: &Registry| {
        for blob in [&image.config, &image.layers[1]] {
            registry.push_blob(Upload::Put, REPOSITORY, blob).expect(201);
        }
        registry.push_manifest(REPOSITORY, "v1", &image.manifest)
    };
    let strict = Node::start(Options::site("a"));
    push(&strict.registry()).expect_error(404, "MANIFEST_BLOB_UNKNOWN");

    let folder = temp_dir("config");
    let file = folder.path().join("node.toml");
    std::fs::write(&file, "[registry]\nsparse = true\n").unwrap();
    let extra = vec!["--config".to_owned(), file.to_str().unwrap().to_owned()];
    let node = Node::start(Options { extra, ..Options::site("a") });
    let registry = node.registry();
    push(&registry).expect(201);
    assert_eq!(registry.manifest(REPOSITORY, "v1").expect(200).body, image.manifest);
    let blob =
        |n: usize| registry.http.get(&format!("/v2/{REPOSITORY}/blobs/{}", digest(&image.layers[n]))).send();
    assert_eq!(blob(1).expect(200).body, image.layers[1]);
    blob(0).expect_error(404, "BLOB_UNKNOWN");
    // Pushed later, it is there.
    registry.push_blob(Upload::Post, REPOSITORY, &image.layers[0]).expect(201);
    registry.assert_has(REPOSITORY, "v1", &image);
}

fn check_heads_and_ranges(registry: &Registry, tag: &str, image: &Image) {
    let head = registry
        .http
        .head(&format!("/v2/{REPOSITORY}/manifests/{tag}"))
        .header("Accept", MANIFEST_TYPE)
        .send()
        .expect(200);
    let describes = |head: &Response, bytes: &[u8]| {
        assert_eq!(head.header("content-length"), Some(&*bytes.len().to_string()));
        assert_eq!(head.header("docker-content-digest"), Some(&*digest(bytes)));
        assert!(head.body.is_empty());
    };
    describes(&head, &image.manifest);
    assert_eq!(head.header("content-type"), Some(MANIFEST_TYPE));

    let layer = &image.layers[0];
    let name = digest(layer);
    describes(&registry.head_blob(REPOSITORY, &name).expect(200), layer);
    let target = format!("/v2/{REPOSITORY}/blobs/{name}");
    let range = |range: &str| registry.http.get(&target).header("Range", range).send();
    let size = layer.len();
    for (asked, from, to) in [
        ("bytes=10-19".to_owned(), 10, 20),
        (format!("bytes={}-", size - 5), size - 5, size),
        ("bytes=-7".to_owned(), size - 7, size),
        (format!("bytes=100000-{}", size * 2), 100_000, size),
    ] {
        let part = range(&asked).expect(206);
        assert_eq!(part.body, layer[from..to], "{asked}");
        assert_eq!(part.header("content-range"), Some(&*format!("bytes {from}-{}/{size}", to - 1)));
    }
    range(&format!("bytes={size}-")).expect(416);
}
