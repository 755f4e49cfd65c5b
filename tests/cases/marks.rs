//! What publishers say of an artifact counts at every node, also at one that was away, and whoever may not say it
//! changes nothing.

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest, random_bytes},
    node::{Ended, Node},
    wait::until_true,
};

fn mark(node: &Node, state: &str) -> Ended {
    node.cli(&["mark", "app:v1", state, "--reason", "CVE-2026-1"])
}

#[track_caller]
fn wait_for_manifest(node: &Node, what: &str, status: u16) {
    until_true(&format!("{what} answers {status} at {}", node.id()), || {
        node.registry().manifest("app", what).status == status
    });
}

#[test]
fn what_was_revoked_is_refused_everywhere_and_says_why() {
    let mut cluster = Cluster::start(2);
    let image = Image::random(1, &[200_000]);
    let digest = image.digest();
    cluster[0].registry().push("app", "v1", &image);
    cluster[1].registry().wait_for_tag("app", "v1", &image);
    cluster[1].registry().assert_has("app", "v1", &image);

    // Without a grant nothing happens.
    let refused = mark(&cluster[1], "revoked").expect(1);
    assert!(refused.stderr.contains("grant"), "{refused:?}");
    wait_for_manifest(&cluster[0], "v1", 200);

    // One that is away hears of it when it is back.
    cluster[1].kill();
    let said = mark(&cluster[0], "revoked").expect(0);
    assert!(said.stdout.contains("revoked"), "{said:?}");
    for what in ["v1", digest.as_str()] {
        let refused = cluster[0].registry().manifest("app", what);
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.body).contains("CVE-2026-1"), "{refused:?}");
    }
    cluster[1].start_again();
    cluster.wait_until_connected();
    for what in ["v1", digest.as_str()] {
        wait_for_manifest(&cluster[1], what, 403);
    }
    let shown = cluster[1].cli_json(&["inspect", "app:v1", "--json"]);
    assert_eq!(
        (&shown["artifact"]["status"], &shown["reason"]),
        (&"revoked".into(), &"CVE-2026-1".into()),
        "{shown}"
    );

    // A push of the same again does not bring it back; approving it does.
    cluster[0].registry().push("app", "v2", &image);
    assert_eq!(cluster[0].registry().manifest("app", "v2").status, 403);
    mark(&cluster[0], "quarantined").expect(0);
    wait_for_manifest(&cluster[1], "v1", 404);
    mark(&cluster[0], "approved").expect(0);
    wait_for_manifest(&cluster[1], "v1", 200);
    cluster[1].registry().assert_has("app", "v1", &image);
}

/// What GET of a blob answers, and what it says.
fn blob(node: &Node, repository: &str, bytes: &[u8]) -> (u16, String) {
    let target = format!("/v2/{repository}/blobs/{}", digest(bytes));
    let answer = node.registry().http.get(&target).send();
    (answer.status, String::from_utf8_lossy(&answer.body[..answer.body.len().min(1000)]).into_owned())
}

#[test]
fn blobs_go_with_the_artifacts_that_were_taken_back() {
    let cluster = Cluster::start(2);
    let [only_bad, shared, only_good] = [1, 2, 3].map(|seed| random_bytes(seed, 50_000));
    let bad = Image::of(vec![only_bad.clone(), shared.clone()]);
    let good = Image::of(vec![shared.clone(), only_good.clone()]);
    cluster[0].registry().push("app", "v1", &bad);
    cluster[0].registry().push("app", "good", &good);
    for tag in [("v1", &bad), ("good", &good)] {
        cluster[1].registry().wait_for_tag("app", tag.0, tag.1);
        cluster[1].registry().assert_has("app", tag.0, tag.1);
    }
    mark(&cluster[0], "revoked").expect(0);
    // Where it was pushed, and where a copy is.
    for node in cluster.iter() {
        wait_for_manifest(node, "v1", 403);
        let (status, said) = blob(node, "app", &only_bad);
        assert_eq!(status, 403, "{said}");
        assert!(said.contains("CVE-2026-1") && said.contains("DENIED"), "{said}");
        assert_eq!(blob(node, "app", &bad.config).0, 403);
        node.registry().assert_has("app", "good", &good);
        // Whoever pushes a mended image need not send again what is here,
        assert_eq!(node.registry().head_blob("app", &digest(&only_bad)).status, 200);
    }
    // but does not get it into another repository without sending it.
    let mount = |bytes: &[u8]| {
        let target = format!("/v2/other/blobs/uploads/?mount={}&from=app", digest(bytes));
        cluster[0].registry().http.request("POST", &target).send().status
    };
    assert_eq!((mount(&only_bad), mount(&shared)), (202, 201));
    // A good artifact of the same bytes has them served again.
    let mended = Image::of(vec![only_bad.clone()]);
    cluster[0].registry().push("app", "v2", &mended);
    assert_eq!(blob(&cluster[0], "app", &only_bad).0, 200);
    assert_eq!(blob(&cluster[0], "app", &bad.config).0, 403);
    mark(&cluster[0], "quarantined").expect(0);
    until_true("it is hidden", || blob(&cluster[1], "app", &bad.config).0 == 404);
    mark(&cluster[0], "approved").expect(0);
    until_true("it is back", || blob(&cluster[1], "app", &bad.config).0 == 200);
}
