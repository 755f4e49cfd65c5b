//! Uploads: every form, wrong ones, many at once, mounts.

use super::*;

#[tokio::test]
async fn upload_in_chunks_and_as_a_stream() {
    let world = World::new().await;
    let bytes = b"the quick brown fox jumps over the lazy dog";
    let digest = sha256(bytes);
    let started = world.ask("POST /v2/a/blobs/uploads/", &[], "").await;
    assert_eq!((started.status, started.header("range")), (202, "0-0"));
    let at = started.header("location").to_owned();
    let patch = format!("PATCH {at}");
    let first = world.ask(&patch, &[("content-range", "0-9"), ("content-length", "10")], &bytes[..10]).await;
    assert_eq!((first.status, first.header("range"), first.header("location")), (202, "0-9", at.as_str()));
    let wrong = world.ask(&patch, &[("content-range", "20-29")], &bytes[20..30]).await;
    wrong.fails_with(416, "BLOB_UPLOAD_INVALID");
    assert_eq!((wrong.header("range"), wrong.header("location")), ("0-9", at.as_str()));
    let wrong = world.ask(&patch, &[("content-range", "10-12"), ("content-length", "2")], "ab").await;
    wrong.fails_with(400, "SIZE_INVALID");
    let status = world.get(&at).await;
    assert_eq!((status.status, status.header("range")), (204, "0-9"));
    let second = world.ask(&patch, &[], streamed(&bytes[10..30])).await;
    assert_eq!((second.status, second.header("range")), (202, "0-29"));
    let last = format!("PUT {at}?digest={digest}");
    let put = world.ask(&last, &[("content-range", "30-42")], &bytes[30..]).await;
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest.to_string().as_str()));
    let got = world.get(put.header("location")).await;
    assert_eq!((got.status, &got.body[..]), (200, &bytes[..]));
    world.get(&at).await.fails_with(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn uploads_with_sha512_and_nothing() {
    let world = World::new().await;
    let bytes = b"long digests";
    let digest = Digest::Sha512(Sha512::digest(bytes).into());
    let at = world.ask("POST /v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let put = world.ask(&format!("PUT {at}?digest={digest}"), &[], &bytes[..]).await;
    assert_eq!((put.status, put.header("docker-content-digest")), (201, digest.to_string().as_str()));
    let empty = world.push_blob("a", b"").await;
    let got = world.get(&format!("/v2/a/blobs/{empty}")).await;
    assert_eq!((got.status, got.header("content-length")), (200, "0"));
}

#[tokio::test]
async fn wrong_uploads() {
    let world = World::with(RegistryConfig {
        anonymous: Anonymous::Push,
        blob_limit: 100,
        ..RegistryConfig::default()
    })
    .await;
    let other = sha256(b"other");
    let post = format!("POST /v2/a/blobs/uploads/?digest={other}");
    world.ask(&post, &[], "bytes").await.fails_with(400, "DIGEST_INVALID");
    let start = async || world.ask("POST /v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
    let at = start().await;
    world.ask(&format!("PUT {at}?digest={other}"), &[], "bytes").await.fails_with(400, "DIGEST_INVALID");
    world.get(&format!("/v2/a/blobs/{other}")).await.fails_with(404, "BLOB_UNKNOWN");
    let at = start().await;
    world.ask(&format!("PUT {at}"), &[], "bytes").await.fails_with(400, "DIGEST_INVALID");
    world.ask(&format!("PUT {at}?digest=sha256:x"), &[], "bytes").await.fails_with(400, "DIGEST_INVALID");
    world.ask(&format!("PATCH {at}"), &[], streamed(&[0; 101])).await.fails_with(413, "SIZE_INVALID");
    world.ask(&post, &[("content-length", "101")], vec![0; 101]).await.fails_with(413, "SIZE_INVALID");
    let cut = Body::from_stream(stream::iter([Ok(Bytes::from("byt")), Err(std::io::Error::other("gone"))]));
    world.ask(&post, &[], cut).await.fails_with(400, "BLOB_UPLOAD_INVALID");
    // Sessions belong to one repository and end when they are cancelled.
    let at = start().await;
    world.get(&at.replace("/v2/a/", "/v2/b/")).await.fails_with(404, "BLOB_UPLOAD_UNKNOWN");
    assert_eq!(world.ask(&format!("DELETE {at}"), &[], "").await.status, 204);
    world.get(&at).await.fails_with(404, "BLOB_UPLOAD_UNKNOWN");
    let made_up = "PATCH /v2/a/blobs/uploads/00000000-0000-4000-8000-000000000000";
    world.ask(made_up, &[], "x").await.fails_with(404, "BLOB_UPLOAD_UNKNOWN");
}

#[tokio::test]
async fn mounts_find_their_source() {
    let world = World::new().await;
    for n in 0..20 {
        world.push_blob(&format!("full/{n}"), format!("other {n}").as_bytes()).await;
    }
    let digest = world.push_blob("mine", b"bytes").await;
    let mount = format!("POST /v2/new/blobs/uploads/?mount={digest}");
    let mounted = world.ask(&mount, &[], "").await;
    assert_eq!((mounted.status, mounted.header("docker-content-digest")), (201, &*digest.to_string()));
    assert_eq!(world.get(mounted.header("location")).await.body, "bytes");
    // What was taken out everywhere is not found.
    for repository in ["mine", "new"] {
        let delete = format!("DELETE /v2/{repository}/blobs/{digest}");
        assert_eq!(world.ask(&delete, &[], "").await.status, 202);
    }
    assert_eq!(world.ask(&mount, &[], "").await.status, 202);
    let unknown = format!("POST /v2/new/blobs/uploads/?mount={}", sha256(b"unknown"));
    assert_eq!(world.ask(&unknown, &[], "").await.status, 202);
    let wrong = "POST /v2/new/blobs/uploads/?mount=sha256:x";
    world.ask(wrong, &[], "").await.fails_with(400, "DIGEST_INVALID");
}

#[tokio::test]
async fn too_many_sessions_are_an_answer() {
    let world = World::new().await;
    let start = "POST /v2/a/blobs/uploads/";
    let mut first = None;
    let refused = loop {
        let answer = world.ask(start, &[], "").await;
        if answer.status != 202 {
            break answer;
        }
        first.get_or_insert(answer.header("location").to_owned());
    };
    refused.fails_with(429, "TOOMANYREQUESTS");
    assert!(!refused.header("retry-after").is_empty());
    // Sessions that are open go on, whole blobs are still taken, and a cancelled one makes room.
    let first = first.expect("some were started");
    assert_eq!(world.ask(&format!("PATCH {first}"), &[], "bytes").await.status, 202);
    world.push_blob("a", b"whole").await;
    assert_eq!(world.ask(&format!("DELETE {first}"), &[], "").await.status, 204);
    assert_eq!(world.ask(start, &[], "").await.status, 202);
    world.ask(start, &[], "").await.fails_with(429, "TOOMANYREQUESTS");
}

#[tokio::test]
async fn many_uploads_at_once() {
    let world = Arc::new(World::new().await);
    let uploads = (0..64_u8).map(|n| {
        let world = world.clone();
        tokio::spawn(async move {
            let bytes = vec![n; 50_000 + usize::from(n)];
            let at = world.ask("POST /v2/a/blobs/uploads/", &[], "").await.header("location").to_owned();
            for (i, chunk) in bytes.chunks(20_000).enumerate() {
                let range = format!("{}-{}", i * 20_000, i * 20_000 + chunk.len() - 1);
                let patch =
                    world.ask(&format!("PATCH {at}"), &[("content-range", &range)], chunk.to_vec()).await;
                assert_eq!(patch.status, 202, "{}", patch.text());
            }
            let put = world.ask(&format!("PUT {at}?digest={}", sha256(&bytes)), &[], "").await;
            assert_eq!(put.status, 201, "{}", put.text());
            assert!(world.get(put.header("location")).await.body == bytes);
        })
    });
    for upload in uploads.collect::<Vec<_>>() {
        upload.await.expect("no panic");
    }
}
