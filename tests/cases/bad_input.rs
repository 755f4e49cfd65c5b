//! What a client gets wrong is answered with the specification's code, and nothing of it is kept.

use crate::harness::{
    http::Response,
    image::{Image, MANIFEST_TYPE, descriptor, digest, random_bytes, to_bytes},
    node::{Node, Options, disk_usage},
    registry::{Registry, with_query},
    wait::until_true,
};

use serde_json::json;

#[test]
fn a_blob_with_another_digest_is_refused_and_not_kept() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    registry.push("app", "v1", &Image::random(1, &[10_000]));
    let before = disk_usage(&node.data_dir());
    let (sent, named) = (random_bytes(2, 32 << 20), digest(b"something else"));
    let post = format!("/v2/app/blobs/uploads/?digest={named}");
    registry.http.request("POST", &post).body(&sent).send().expect_error(400, "DIGEST_INVALID");
    let session = open_session(&registry);
    let put = with_query(&session, &format!("digest={named}"));
    registry.http.request("PUT", &put).body(&sent).send().expect_error(400, "DIGEST_INVALID");
    for name in [named, digest(&sent)] {
        registry.head_blob("app", &name).expect(404);
    }
    assert_shrinks_to(&node, before);
}

#[test]
fn a_body_that_ends_early_is_not_kept() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let before = disk_usage(&node.data_dir());
    let whole = random_bytes(3, 16 << 20);
    let half = &whole[..whole.len() / 2];
    for name in [digest(&whole), digest(half)] {
        let post = format!("/v2/app/blobs/uploads/?digest={name}");
        let request = registry.http.request("POST", &post).truncated(whole.len() as u64, half);
        // Whether an answer reaches a client that hung up is up to the kernel.
        if let Ok(answer) = request.try_send() {
            assert!(answer.status >= 400, "half a body was answered with {}", answer.status);
        }
        registry.head_blob("app", &name).expect(404);
    }
    assert_shrinks_to(&node, before);
}

#[test]
fn manifests_that_are_none_are_refused() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let image = Image::random(4, &[10_000]);
    let push = |bytes: &[u8]| registry.push_manifest("app", "v1", bytes);
    push(b"this is not JSON").expect_error(400, "MANIFEST_INVALID");
    push(b"[]").expect_error(400, "MANIFEST_INVALID");
    push(b"{}").expect_error(400, "MANIFEST_INVALID");
    push(&[0xff, 0xfe, 0x00]).expect_error(400, "MANIFEST_INVALID");
    // Deep enough to exhaust the stack of a careless parser.
    push("[".repeat(1 << 20).as_bytes()).expect_error(400, "MANIFEST_INVALID");
    let message = push(&image.manifest).expect_error(404, "MANIFEST_BLOB_UNKNOWN");
    assert!(message.contains("sha256:"), "says which blob is missing: {message}");

    let mut negative = descriptor("application/octet-stream", b"x");
    negative["size"] = json!(-1);
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": negative, "layers": []});
    push(&to_bytes(&manifest)).expect_error(400, "MANIFEST_INVALID");
    assert_eq!(registry.http.get("/v2/app/manifests/v1").send().status, 404);
}

#[test]
fn a_manifest_over_the_limit_is_refused() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let image = Image::random(5, &[1000]);
    for blob in image.blobs() {
        registry.push_blob(crate::harness::registry::Upload::Put, "app", blob).expect(201);
    }
    let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
    let mut with_padding = |bytes: usize| {
        manifest["annotations"] = json!({"padding": "x".repeat(bytes)});
        registry.push_manifest("app", "large", &to_bytes(&manifest))
    };
    // The specification wants 4 MiB to be taken.
    with_padding((4 << 20) - 2000).expect(201);
    let refused = with_padding(64 << 20);
    assert_eq!(refused.status, 413, "{}", String::from_utf8_lossy(&refused.body));
}

#[test]
fn a_manifest_under_another_digest_is_refused() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let image = Image::random(6, &[1000]);
    registry.push("app", "v1", &image);
    let other = digest(b"other");
    registry.push_manifest("app", &other, &image.manifest).expect_error(400, "DIGEST_INVALID");
    registry.manifest("app", &other).expect_error(404, "MANIFEST_UNKNOWN");
}

#[test]
fn hostile_names_are_refused_and_reach_no_file() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    registry.push("app", "v1", &Image::random(7, &[1000]));
    let longest = "a".repeat(300);
    let repositories = [
        "..",
        "../../etc",
        "app/..",
        "%2e%2e/%2e%2e/etc",
        "..%2f..%2fetc",
        "App",
        "app//x",
        "-app",
        "app/",
        "a%00b",
        "app%2F..%2F..%2Fetc",
        "ap\u{fc}",
        &longest,
    ];
    for repository in repositories {
        for target in [
            format!("/v2/{repository}/manifests/v1"),
            format!("/v2/{repository}/blobs/{}", digest(b"x")),
            format!("/v2/{repository}/tags/list"),
        ] {
            assert_refused(&registry.http.get(&target).send(), &target);
        }
        let upload = format!("/v2/{repository}/blobs/uploads/");
        assert_refused(&registry.http.request("POST", &upload).send(), &upload);
    }
    let manifest = Image::random(7, &[1000]).manifest;
    let long_tag = "t".repeat(129);
    for tag in ["..", ".hidden", "-dash", "a%2fb", "a%00", "sha256:short", "sha256:", &long_tag, "%2e%2e"] {
        let target = format!("/v2/app/manifests/{tag}");
        assert_refused(&registry.push_manifest("app", tag, &manifest), &target);
        assert_refused(&registry.http.get(&target).send(), &target);
    }
    for name in
        ["sha256:../../VERSION", "sha256:ABC", "md5:d41d8cd98f00b204e9800998ecf8427e", "sha256:%2e%2e"]
    {
        let target = format!("/v2/app/blobs/{name}");
        assert_refused(&registry.http.get(&target).send(), &target);
    }
    for session in ["..", "%2e%2e%2f%2e%2e%2fVERSION", "00000000-0000-0000-0000-000000000000", "x/../y"] {
        let target = format!("/v2/app/blobs/uploads/{session}");
        assert_refused(&registry.http.request("PATCH", &target).body(b"x").send(), &target);
        assert_refused(&registry.http.request("DELETE", &target).send(), &target);
    }
    registry.assert_has("app", "v1", &Image::random(7, &[1000]));
}

#[test]
fn chunks_out_of_order_are_refused_and_the_upload_goes_on() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let bytes = random_bytes(8, 200_000);
    let session = open_session(&registry);
    let patch = |session: &str, from: usize, to: usize| {
        let range = format!("{from}-{}", to - 1);
        let request = registry.http.request("PATCH", session).header("Content-Range", &range);
        request.body(&bytes[from..to]).send()
    };
    let session = patch(&session, 0, 100_000).expect(202).location();
    patch(&session, 150_000, 200_000).expect(416);
    patch(&session, 0, 100_000).expect(416);
    let state = registry.http.get(&session).send().expect(204);
    assert_eq!(state.header("range"), Some("0-99999"));
    let session = patch(&session, 100_000, 200_000).expect(202).location();
    let put = with_query(&session, &format!("digest={}", digest(&bytes)));
    registry.http.request("PUT", &put).send().expect(201);
    let blob = registry.http.get(&format!("/v2/app/blobs/{}", digest(&bytes))).send().expect(200);
    assert_eq!(blob.body, bytes);
}

#[test]
fn an_upload_that_was_cancelled_leaves_nothing() {
    let node = Node::start(Options::default());
    let registry = node.registry();
    let before = disk_usage(&node.data_dir());
    let session = open_session(&registry);
    let bytes = random_bytes(9, 16 << 20);
    let session = registry.http.request("PATCH", &session).chunked(&bytes).send().expect(202).location();
    registry.http.request("DELETE", &session).send().expect(204);
    registry.http.get(&session).send().expect_error(404, "BLOB_UPLOAD_UNKNOWN");
    registry.head_blob("app", &digest(&bytes)).expect(404);
    assert_shrinks_to(&node, before);
}

fn open_session(registry: &Registry) -> String {
    registry.http.request("POST", "/v2/app/blobs/uploads/").send().expect(202).location()
}

/// A client's mistake, told as one: no success, no failure of ours, no redirect that a client would follow.
fn assert_refused(answer: &Response, target: &str) {
    assert!((400..500).contains(&answer.status), "{target} was answered with {}", answer.status);
}

/// What was refused is off the disk soon; the databases may grow a little.
fn assert_shrinks_to(node: &Node, before: u64) {
    const DATABASES: u64 = 4 << 20;
    until_true("what was refused is off the disk", || disk_usage(&node.data_dir()) <= before + DATABASES);
}
