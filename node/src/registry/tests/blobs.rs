//! Downloads of blobs: links, ranges, conditions, what has to be fetched first.

use super::*;

#[tokio::test]
async fn push_and_pull() {
    let world = World::new().await;
    let layer: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 1000) as u8).collect();
    let digest = world.push_image("team/app", "v1", &layer).await;
    for reference in ["v1".to_owned(), digest.to_string()] {
        let path = format!("/v2/team/app/manifests/{reference}");
        let got = world.get(&path).await;
        assert_eq!((got.status, sha256(&got.body)), (200, digest));
        assert_eq!(got.header("content-type"), IMAGE);
        assert_eq!(got.header("docker-content-digest"), digest.to_string());
        let head = world.ask(&format!("HEAD {path}"), &[], "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        assert_eq!(head.header("content-length"), got.body.len().to_string());
        assert_eq!(head.header("docker-content-digest"), digest.to_string());
        let again = world.ask(&format!("GET {path}"), &[("if-none-match", got.header("etag"))], "").await;
        assert_eq!((again.status, again.body.len()), (304, 0));
        let part = world.ask(&format!("GET {path}"), &[("range", "bytes=0-")], "").await;
        assert_eq!((part.status, &part.body), (206, &got.body));
    }
    let blob = format!("/v2/team/app/blobs/{}", sha256(&layer));
    let got = world.get(&blob).await;
    assert_eq!((got.status, got.body == layer), (200, true));
    let head = world.ask(&format!("HEAD {blob}"), &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, "3000000"));
    assert!(world.metrics.encode().contains("waystation_ingested_blobs_total 3"));
}

#[tokio::test]
async fn ranges_of_blobs() {
    let world = World::new().await;
    let large: Vec<u8> = (0..2_500_000_u32).map(|i| (i / 1000) as u8).collect();
    for bytes in [b"0123456789".to_vec(), large] {
        let path = format!("GET /v2/a/blobs/{}", world.push_blob("a", &bytes).await);
        let size = bytes.len();
        for (range, start, end) in [
            ("bytes=2-4", 2, 5),
            ("bytes=7-", 7, size),
            ("bytes=-3", size - 3, size),
            ("bytes=5-99999999", 5, size),
        ] {
            let got = world.ask(&path, &[("range", range)], "").await;
            assert_eq!(got.status, 206);
            assert!(got.body == bytes[start..end], "{range} of {size}");
            assert_eq!(got.header("content-range"), format!("bytes {start}-{}/{size}", end - 1));
            assert_eq!(got.header("content-length"), (end - start).to_string());
        }
        let wrong = world.ask(&path, &[("range", "bytes=99999999-")], "").await;
        wrong.fails_with(416, "SIZE_INVALID");
        assert_eq!(wrong.header("content-range"), format!("bytes */{size}"));
    }
}

/// Takes a `multipart/byteranges` body apart: the Content-Range and the bytes of each part.
fn parts(answer: &Answer) -> Vec<(String, Vec<u8>)> {
    let boundary = answer.header("content-type").strip_prefix("multipart/byteranges; boundary=");
    let boundary = boundary.expect("several parts");
    let (mut rest, mut found) = (&answer.body[..], Vec::new());
    let skip = |rest: &mut &[u8], text: &str| {
        *rest = rest.strip_prefix(text.as_bytes()).unwrap_or_else(|| panic!("{text} is missing"));
    };
    loop {
        if !found.is_empty() {
            skip(&mut rest, "\r\n");
        }
        skip(&mut rest, &format!("--{boundary}"));
        if rest == b"--\r\n" {
            return found;
        }
        let end = rest.windows(4).position(|four| four == b"\r\n\r\n").expect("a part's head");
        let head = String::from_utf8(rest[..end].to_vec()).expect("text");
        assert!(head.contains("\r\nContent-Type: "), "{head}");
        let range = head.split("Content-Range: bytes ").nth(1).expect("a range").to_owned();
        let (span, _) = range.split_once('/').expect("a size");
        let (first, last) = span.split_once('-').expect("a span");
        let length = last.parse::<usize>().expect("last") + 1 - first.parse::<usize>().expect("first");
        rest = &rest[end + 4..];
        found.push((range, rest[..length].to_vec()));
        rest = &rest[length..];
    }
}

#[tokio::test]
async fn several_ranges_at_once() {
    let world = World::new().await;
    let large: Vec<u8> = (0..2_500_000_u32).map(|i| (i / 7) as u8).collect();
    for bytes in [b"0123456789".repeat(1000), large] {
        let digest = world.push_blob("a", &bytes).await;
        let (path, size) = (format!("GET /v2/a/blobs/{digest}"), bytes.len());
        // As many as asked for, in that order, touching and overlapping ones too.
        let spans: Vec<_> =
            (0..957).map(|n| ((n * 7919) % (size - 9), (n * 7919) % (size - 9) + 9)).collect();
        let specs: Vec<String> = spans.iter().map(|(first, last)| format!("{first}-{last}")).collect();
        let got = world.ask(&path, &[("range", &format!("bytes={}", specs.join(",")))], "").await;
        assert_eq!((got.status, got.header("content-length")), (206, got.body.len().to_string().as_str()));
        assert_eq!((got.header("content-range"), got.header("content-encoding")), ("", ""));
        assert_eq!(got.header("docker-content-digest"), digest.to_string());
        let expected: Vec<_> = spans
            .iter()
            .map(|(first, last)| (format!("{first}-{last}/{size}"), bytes[*first..=*last].to_vec()))
            .collect();
        assert!(parts(&got) == expected, "{size}");

        let one_left = world.ask(&path, &[("range", "bytes=99999999-,2-3")], "").await;
        assert_eq!((one_left.status, &one_left.body[..]), (206, &bytes[2..4]));
        assert_eq!(one_left.header("content-range"), format!("bytes 2-3/{size}"));
        let none = world.ask(&path, &[("range", "bytes=99999999-,99999999-")], "").await;
        none.fails_with(416, "SIZE_INVALID");
        assert_eq!(none.header("content-range"), format!("bytes */{size}"));
        let thrice = world.ask(&path, &[("range", "bytes=0-,0-,0-")], "").await;
        assert_eq!((thrice.status, thrice.body == bytes), (200, true));
        let many = format!("bytes={}", vec!["0-0"; 1001].join(","));
        world.ask(&path, &[("range", &many)], "").await.fails_with(400, "UNSUPPORTED");
    }
}

#[tokio::test]
async fn conditions() {
    let world = World::new().await;
    let digest = world.push_image("a", "v1", b"0123456789").await;
    let manifest = world.get("/v2/a/manifests/v1").await.body;
    let layer = sha256(b"0123456789");
    for (path, digest, body) in [
        (format!("/v2/a/blobs/{layer}"), layer, Bytes::from("0123456789")),
        ("/v2/a/manifests/v1".to_owned(), digest, manifest),
    ] {
        let (get, etag) = (format!("GET {path}"), format!("\"{digest}\""));
        let fresh = world.ask(&get, &[("range", "bytes=2-3"), ("if-range", &etag)], "").await;
        assert_eq!((fresh.status, fresh.body), (206, body.slice(2..4)));
        for other in ["\"x\"", &format!("W/{etag}"), "Sun, 22 Nov 2026 06:00:00 GMT"] {
            let whole = world.ask(&get, &[("range", "bytes=2-3"), ("if-range", other)], "").await;
            assert_eq!((whole.status, &whole.body), (200, &body), "{other}");
        }
        let several = world.ask(&get, &[("range", "bytes=0-0,2-3")], "").await;
        assert_eq!(parts(&several).len(), 2);
        for method in ["GET", "HEAD"] {
            let line = format!("{method} {path}");
            for known in [etag.as_str(), "*", &format!("\"y\", W/{etag}")] {
                let unchanged = world.ask(&line, &[("if-none-match", known)], "").await;
                assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{known}");
                assert_eq!(unchanged.header("etag"), etag);
            }
        }
        // A HEAD says what a GET without ranges would.
        let head = world.ask(&format!("HEAD {path}"), &[("range", "bytes=0-1")], "").await;
        assert_eq!((head.status, head.header("content-length")), (200, body.len().to_string().as_str()));
        assert_eq!((head.header("accept-ranges"), head.header("etag")), ("bytes", etag.as_str()));
    }
}

#[tokio::test]
async fn blobs_are_taken_out_and_pushed_again() {
    let world = World::new().await;
    let manifest = world.push_image("a", "v1", b"layer").await;
    world.push_image("b", "v1", b"layer").await;
    let layer = sha256(b"layer");
    let (path, delete) = (format!("/v2/a/blobs/{layer}"), format!("DELETE /v2/a/blobs/{layer}"));
    assert_eq!(world.ask(&delete, &[], "").await.status, 202);
    world.get(&path).await.fails_with(404, "BLOB_UNKNOWN");
    world.ask(&delete, &[], "").await.fails_with(404, "BLOB_UNKNOWN");
    // The manifest stays, and so does what other repositories have.
    assert_eq!(world.get("/v2/a/manifests/v1").await.status, 200);
    assert_eq!(world.get(&format!("/v2/b/blobs/{layer}")).await.body, "layer");
    let text = image((sha256(b"{}"), 2), (layer, 5)).to_string();
    assert_eq!(sha256(text.as_bytes()), manifest);
    world.ask("PUT /v2/a/manifests/v2", &[], text.clone()).await.fails_with(404, "MANIFEST_BLOB_UNKNOWN");
    let mount = world.ask(&format!("POST /v2/c/blobs/uploads/?mount={layer}&from=a"), &[], "").await;
    assert_eq!(mount.status, 202);

    let mount = format!("POST /v2/a/blobs/uploads/?mount={layer}&from=b");
    for again in ["push", "mount"] {
        match again {
            "push" => drop(world.push_blob("a", b"layer").await),
            _ => assert_eq!(world.ask(&mount, &[], "").await.status, 201),
        }
        assert_eq!(world.get(&path).await.body, "layer", "{again}");
        assert_eq!(world.ask("PUT /v2/a/manifests/v2", &[], text.clone()).await.status, 201);
        assert_eq!(world.ask(&delete, &[], "").await.status, 202, "{again}");
        world.get(&path).await.fails_with(404, "BLOB_UNKNOWN");
    }
    world.ask(&format!("DELETE /v2/nobody/blobs/{layer}"), &[], "").await.fails_with(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn blobs_are_visible_only_through_links() {
    let world = World::new().await;
    let digest = world.push_blob("mine", b"bytes").await;
    world.get(&format!("/v2/other/blobs/{digest}")).await.fails_with(404, "BLOB_UNKNOWN");
    let mount = |from: &str| format!("POST /v2/other/blobs/uploads/?mount={digest}{from}");
    for from in ["&from=nobody", "&from=../mine"] {
        let session = world.ask(&mount(from), &[], "").await;
        assert_eq!(session.status, 202, "{from}");
        assert_eq!(world.ask(&format!("DELETE {}", session.header("location")), &[], "").await.status, 204);
    }
    let mounted = world.ask(&mount("&from=mine"), &[], "").await;
    assert_eq!(mounted.status, 201);
    assert_eq!(world.get(mounted.header("location")).await.body, "bytes");
}

#[tokio::test]
async fn what_the_mesh_has_is_fetched() {
    let world = World::new().await;
    let (digest, manifest, index) = remote(&world, b"layer");
    let wanted = Arc::new(Mutex::new(Vec::new()));
    let (log, remote_manifest) = (wanted.clone(), manifest.clone());
    world.rules(|rules| {
        rules.want = Arc::new(move |store, input| {
            let (index, manifest, log) = (index.clone(), remote_manifest.clone(), log.clone());
            async move {
                let (what, bytes, named) = match input {
                    Input::WantArtifact { closure, manifest: digest, .. } => (closure, manifest, digest),
                    Input::WantBlob { blob, .. } => (true, Bytes::from_static(b"layer"), blob.digest),
                    other => panic!("not expected: {other:?}"),
                };
                log.lock().expect("no panic").push(what);
                store.index().apply(&Change::Reachable { repository: name("a"), index });
                store.ingest_bytes(None, named, bytes).await.expect("stored");
                Ok(())
            }
            .boxed()
        });
    });
    // A blob asked for before its manifest: the index is fetched, then the link is there.
    let layer = format!("/v2/a/blobs/{}", sha256(b"layer"));
    let head = world.ask(&format!("HEAD {layer}"), &[], "").await;
    assert_eq!((head.status, head.header("content-length")), (200, "5"));
    let got = world.get(&format!("/v2/a/manifests/{digest}")).await;
    assert_eq!((got.status, got.body), (200, manifest));
    assert_eq!(*wanted.lock().expect("no panic"), [false, true]);
    assert_eq!(world.get(&layer).await.body, "layer");
    world.rules(|rules| rules.want = failing(WantFailure::NoHolder));
    assert_eq!(world.get(&layer).await.body, "layer");
    world.get(&format!("/v2/a/blobs/{}", sha256(b"{}"))).await.fails_with(404, "BLOB_UNKNOWN");
}

#[tokio::test]
async fn a_damaged_blob_is_fetched_again() {
    let world = World::new().await;
    let layer: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 1000) as u8).collect();
    world.push_image("a", "v1", &layer).await;
    let (asked, hash) = (Arc::new(Mutex::new(0)), Hash::of(&layer));
    let file = find(world.dir.path(), &layer).expect("the blob's file");
    let mut damaged = layer.clone();
    damaged[1_000_000] ^= 1;
    std::fs::write(&file, &damaged).expect("written");
    let counted = asked.clone();
    world.rules(|rules| {
        rules.want = Arc::new(move |_, input| {
            assert!(matches!(input, Input::WantBlob { blob, .. } if blob.hash == hash));
            *counted.lock().expect("no panic") += 1;
            std::future::ready(Err(WantFailure::NoHolder)).boxed()
        });
    });
    let blob = format!("/v2/a/blobs/{}", sha256(&layer));
    world.get(&blob).await.fails_with(404, "BLOB_UNKNOWN");
    assert_eq!(*asked.lock().expect("no panic"), 1);
    // Whoever pushes it again is not told that it is there already.
    assert_eq!(world.ask(&format!("HEAD {blob}"), &[], "").await.status, 404);
    world.push_blob("a", &layer).await;
    assert!(world.get(&blob).await.body == layer);
}

/// The file below `dir` with exactly these bytes.
fn find(dir: &Path, bytes: &[u8]) -> Option<PathBuf> {
    std::fs::read_dir(dir).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        let same = || std::fs::read(&path).is_ok_and(|content| content == bytes);
        if path.is_dir() { find(&path, bytes) } else { same().then_some(path.clone()) }
    })
}
