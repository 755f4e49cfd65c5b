//! Requests as such: targets, methods, connections.

use super::*;

#[tokio::test]
async fn is_a_registry() {
    let world = World::new().await;
    let answer = world.get("/v2/").await;
    assert_eq!((answer.status, answer.header("docker-distribution-api-version")), (200, "registry/2.0"));
    world.get("/v3/").await.fails_with(404, "UNSUPPORTED");
    let answer = world.ask("POST /v2/", &[], "").await;
    answer.fails_with(405, "UNSUPPORTED");
    assert_eq!(answer.header("allow"), "GET, HEAD");
    world.get(&format!("/v2/a/tags/list?last={}", "x".repeat(9000))).await.fails_with(414, "UNSUPPORTED");
    world.metrics.encode().find("route=\"unknown\",method=\"get\",status=\"404\"").expect("counted");
}

#[tokio::test]
async fn hostile_names_are_refused() {
    let world = World::new().await;
    for path in ["/v2/../etc/tags/list", "/v2/A/tags/list", "/v2/a%2f..%2fb/tags/list"] {
        world.get(path).await.fails_with(400, "NAME_INVALID");
    }
    world.get("/v2/a/manifests/sha256:baddigeststring").await.fails_with(400, "DIGEST_INVALID");
    world
        .ask("PUT /v2/a/manifests/sha256:baddigeststring", &[], "{}")
        .await
        .fails_with(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn over_a_real_connection() {
    let world = World::new().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let base = format!("http://{}", listener.local_addr().expect("bound"));
    let shutdown = CancellationToken::new();
    let server = tokio::spawn(crate::registry::serve(
        listener,
        world.registry.router(Origin::Network),
        shutdown.clone(),
    ));
    // reqwest wants a provider even for plain HTTP; another test may have installed it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::new();
    let large: Vec<u8> = (0..20_000_000_u32).map(|i| (i / 1000) as u8).collect();
    let digest = sha256(&large);
    let started = client.post(format!("{base}/v2/a/blobs/uploads/")).send().await.expect("answered");
    let at = format!("{base}{}", started.headers()["location"].to_str().expect("text"));
    let parts: Vec<_> = large.chunks(300_000).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(stream::iter(parts));
    let patched = client.patch(&at).body(body).send().await.expect("answered");
    assert_eq!(patched.headers()["range"], "0-19999999");
    let put = client.put(format!("{at}?digest={digest}")).send().await.expect("answered");
    assert_eq!(put.status(), 201);
    let blob = format!("{base}/v2/a/blobs/{digest}");
    let head = client.head(&blob).send().await.expect("answered");
    assert_eq!(head.headers()["content-length"], "20000000");
    let got = client.get(&blob).send().await.expect("answered").bytes().await.expect("whole");
    assert!(got == large);
    // Clients that go away in the middle leave nothing behind.
    for _ in 0..40 {
        let mut cut = client.get(&blob).header("range", "bytes=100-").send().await.expect("answered");
        assert_eq!((cut.status().as_u16(), cut.chunk().await.expect("some").is_some()), (206, true));
    }
    drop(client);
    let idle = world.registry.inner.readers.idle();
    tokio::time::timeout(Duration::from_secs(20), idle).await.expect("the budget is whole again");
    shutdown.cancel();
    server.await.expect("no panic");
}
