//! Manifests: what they need, who may see them, what cannot be supplied.

use super::*;

#[tokio::test]
async fn manifests_need_their_blobs_in_the_repository() {
    let world = World::new().await;
    let config = world.push_blob("a", b"{}").await;
    let layer = world.push_blob("b", b"layer").await;
    let manifest = image((config, 2), (layer, 5)).to_string();
    let refused = world.ask("PUT /v2/a/manifests/v1", &[("content-type", IMAGE)], manifest.clone()).await;
    refused.fails_with(404, "MANIFEST_BLOB_UNKNOWN");
    assert!(refused.text().contains(&layer.to_string()));
    world.get("/v2/a/manifests/v1").await.fails_with(404, "MANIFEST_UNKNOWN");
    world.push_blob("a", b"layer").await;
    let other = sha256(b"other");
    let by_digest = format!("PUT /v2/a/manifests/{other}");
    world
        .ask(&by_digest, &[("content-type", IMAGE)], manifest.clone())
        .await
        .fails_with(400, "DIGEST_INVALID");
    let list = "application/vnd.oci.image.index.v1+json";
    world
        .ask("PUT /v2/a/manifests/v1", &[("content-type", list)], manifest.clone())
        .await
        .fails_with(400, "MANIFEST_INVALID");
    world.ask("PUT /v2/a/manifests/v1", &[], "{").await.fails_with(400, "MANIFEST_INVALID");
    world.ask("PUT /v2/a/manifests/v1", &[], vec![b' '; (4 << 20) + 1]).await.fails_with(413, "SIZE_INVALID");
    world.ask("PUT /v2/a/manifests/.v1", &[], manifest.clone()).await.fails_with(400, "MANIFEST_INVALID");
    assert_eq!(world.ask("PUT /v2/a/manifests/v1", &[], manifest).await.status, 201);
}

#[tokio::test]
async fn the_verdict_decides() {
    let world = World::new().await;
    let digest = world.push_image("a", "v1", b"layer").await;
    world.set_status("a", digest, State::Validating);
    let warned = world.get("/v2/a/manifests/v1").await;
    assert_eq!((warned.status, warned.header("warning")), (200, "299 - \"still being validated: because\""));
    world.set_status("a", digest, State::Quarantined);
    world.get("/v2/a/manifests/v1").await.fails_with(404, "MANIFEST_UNKNOWN");
    assert_eq!(world.get("/v2/a/tags/list").await.json()["tags"], json!([]));
    let seen = world.send(Origin::Socket, request("GET /v2/a/manifests/v1", &[], "")).await;
    assert_eq!((seen.status, seen.header("warning")), (200, "299 - \"quarantined: because\""));
    world.set_status("a", digest, State::Revoked);
    let denied = world.get("/v2/a/manifests/v1").await;
    denied.fails_with(403, "DENIED");
    assert!(denied.text().contains("revoked by its publisher: because"));
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let world = World::with(RegistryConfig::default()).await;
    let refused = world.ask("POST /v2/a/blobs/uploads/", &[], "").await;
    refused.fails_with(403, "DENIED");
    assert!(refused.text().contains("--anonymous push"));
    world.get("/v2/a/tags/list").await.fails_with(404, "NAME_UNKNOWN");
    let post = || request("POST /v2/a/blobs/uploads/", &[], "");
    assert_eq!(world.send(Origin::Socket, post()).await.status, 202);
    let refusal = Refusal::NoGrant { action: "publish", repository: name("a"), node: NODE };
    world.rules(|rules| rules.may_publish = Err(refusal.clone()));
    for line in ["POST /v2/a/blobs/uploads/", "PUT /v2/a/manifests/v1"] {
        let refused = world.send(Origin::Socket, request(line, &[], "x")).await;
        refused.fails_with(403, "DENIED");
        assert!(refused.text().contains("waystation mesh grant"));
    }
    let closed =
        World::with(RegistryConfig { anonymous: Anonymous::None, ..RegistryConfig::default() }).await;
    closed.get("/v2/a/tags/list").await.fails_with(403, "DENIED");
    assert_eq!(closed.get("/v2/").await.status, 200);
}

#[tokio::test]
async fn what_cannot_be_supplied_is_not_there() {
    let world = World::new().await;
    let (digest, ..) = remote(&world, b"layer");
    world.get("/v2/a/manifests/v1").await.fails_with(404, "MANIFEST_UNKNOWN");
    world.get(&format!("/v2/a/blobs/{}", sha256(b"layer"))).await.fails_with(404, "BLOB_UNKNOWN");
    world.rules(|rules| rules.want = failing(WantFailure::Stalled));
    world.get(&format!("/v2/a/manifests/{digest}")).await.fails_with(504, "UNKNOWN");
}
