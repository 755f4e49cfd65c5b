//! What publishers say of an artifact counts at every node, also at one that was away, and whoever may not say it
//! changes nothing.

use crate::harness::{
    cluster::Cluster,
    image::Image,
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
