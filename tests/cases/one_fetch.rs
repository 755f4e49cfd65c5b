//! However many clients ask a node for a blob that it has not, it crosses the network once.

use std::thread;

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    registry::Registry,
};

const BLOB: usize = 20 << 20;

#[test]
fn fifty_clients_of_one_missing_blob_cause_one_fetch() {
    let cluster = Cluster::start(2);
    let image = Image::random(1, &[BLOB]);
    cluster[0].registry().push("app", "v1", &image);
    let here = cluster[1].registry();
    here.wait_for_tag("app", "v1", &image);

    pull_at_once(&[&here], 50, &digest(&image.layers[0]));

    here.assert_has("app", "v1", &image);
    let moved = cluster[1].bytes_received();
    let size = image.blob_bytes();
    assert!(moved >= size, "the counter missed bytes: {moved}");
    assert!(moved as f64 <= 1.1 * size as f64, "{moved} bytes were moved for {size}");
}

#[test]
fn two_hundred_clients_of_one_blob_all_get_it() {
    let cluster = Cluster::start(3);
    let image = Image::random(2, &[1 << 20]);
    cluster[0].registry().push("app", "v1", &image);
    let registries: Vec<_> = cluster.iter().map(crate::harness::node::Node::registry).collect();
    for registry in &registries {
        registry.wait_for_tag("app", "v1", &image);
    }
    // At a node that holds it and at two that fetch it meanwhile.
    pull_at_once(&registries.iter().collect::<Vec<_>>(), 200, &digest(&image.layers[0]));
}

/// So many clients at once, in turn at these endpoints; every one must get every byte.
fn pull_at_once(registries: &[&Registry], clients: usize, blob: &str) {
    let target = format!("/v2/app/blobs/{blob}");
    let failures: Vec<_> = thread::scope(|scope| {
        let pulls = (0..clients).map(|n| {
            let request = registries[n % registries.len()].http.get(&target);
            scope.spawn(move || request.try_send_checked())
        });
        let pulls: Vec<_> = pulls.collect();
        let results = pulls.into_iter().map(|pull| pull.join().unwrap());
        results
            .filter_map(|result| match result {
                Ok(got) if got.status == 200 && got.digest == blob => None,
                Ok(got) => Some(format!("status {}, {} bytes, {}", got.status, got.size, got.digest)),
                Err(error) => Some(error.to_string()),
            })
            .collect()
    });
    assert!(failures.is_empty(), "{} of {clients} clients failed: {failures:#?}", failures.len());
}
