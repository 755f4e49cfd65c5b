//! Lists: tags, repositories, referrers.

use super::*;

#[tokio::test]
async fn tags_come_in_pages_and_go() {
    let world = World::new().await;
    world.get("/v2/a/tags/list").await.fails_with(404, "NAME_UNKNOWN");
    let digest = world.push_image("a", "v1", b"layer").await;
    let manifest = world.get("/v2/a/manifests/v1").await.body;
    let many = format!("PUT /v2/a/manifests/{digest}?tag=v3&tag=v2&tag=v3");
    let put = world.ask(&many, &[("content-type", IMAGE)], manifest).await;
    assert_eq!(put.headers.get_all("oci-tag").iter().collect::<Vec<_>>(), ["v3", "v2"]);
    let all = world.get("/v2/a/tags/list").await;
    assert_eq!(all.json(), json!({"name": "a", "tags": ["v1", "v2", "v3"]}));
    assert_eq!(all.header("link"), "");
    let page = world.get("/v2/a/tags/list?n=2").await;
    assert_eq!(page.json()["tags"], json!(["v1", "v2"]));
    assert_eq!(page.header("link"), "</v2/a/tags/list?n=2&last=v2>; rel=\"next\"");
    let page = world.get("/v2/a/tags/list?n=2&last=v2").await;
    assert_eq!((page.json()["tags"].clone(), page.header("link")), (json!(["v3"]), ""));
    let none = world.get("/v2/a/tags/list?n=0").await;
    assert_eq!((none.json()["tags"].clone(), none.header("link")), (json!([]), ""));
    world.get("/v2/a/tags/list?n=-1").await.fails_with(400, "UNSUPPORTED");
    world.push_image("b/c", "v1", b"layer").await;
    assert_eq!(world.get("/v2/_catalog").await.json(), json!({"repositories": ["a", "b/c"]}));
    assert_eq!(world.get("/v2/_catalog?n=1").await.header("link"), "</v2/_catalog?n=1&last=a>; rel=\"next\"");

    assert_eq!(world.ask("DELETE /v2/a/manifests/v2", &[], "").await.status, 202);
    world.ask("DELETE /v2/a/manifests/v2", &[], "").await.fails_with(404, "MANIFEST_UNKNOWN");
    assert_eq!(world.get("/v2/a/tags/list").await.json()["tags"], json!(["v1", "v3"]));
    assert_eq!(world.ask(&format!("DELETE /v2/a/manifests/{digest}"), &[], "").await.status, 202);
    world.get("/v2/a/manifests/v1").await.fails_with(404, "MANIFEST_UNKNOWN");
    world.get(&format!("/v2/a/manifests/{digest}")).await.fails_with(404, "MANIFEST_UNKNOWN");
    // Nor as a blob: the push made no link of its own that would outlive the artifact.
    world.get(&format!("/v2/a/blobs/{digest}")).await.fails_with(404, "BLOB_UNKNOWN");
    assert_eq!(world.get("/v2/b/c/manifests/v1").await.status, 200);
    assert_eq!(world.get(&format!("/v2/b/c/blobs/{digest}")).await.status, 200);
}

#[tokio::test]
async fn referrers_are_found() {
    let world = World::new().await;
    let subject = world.push_image("a", "v1", b"layer").await;
    let nothing = world.get(&format!("/v2/nobody/referrers/{subject}")).await;
    assert_eq!(nothing.json()["manifests"], json!([]));
    assert_eq!(nothing.header("content-type"), "application/vnd.oci.image.index.v1+json");
    let mut signature = image((sha256(b"{}"), 2), (sha256(b"layer"), 5));
    signature["artifactType"] = json!("a/signature");
    signature["annotations"] = json!({"made.by": "me"});
    signature["subject"] = json!({"mediaType": IMAGE, "digest": subject.to_string(), "size": 1});
    let put = world
        .ask(
            &format!("PUT /v2/a/manifests/{}", sha256(signature.to_string().as_bytes())),
            &[],
            signature.to_string(),
        )
        .await;
    assert_eq!((put.status, put.header("oci-subject")), (201, subject.to_string().as_str()));
    for _ in 0..2 {
        let found = world.get(&format!("/v2/a/referrers/{subject}")).await.json();
        assert_eq!(found["manifests"].as_array().map(Vec::len), Some(1), "{found}");
        assert_eq!(found["manifests"][0]["artifactType"], "a/signature");
        assert_eq!(found["manifests"][0]["annotations"], json!({"made.by": "me"}));
    }
    let filtered = world.get(&format!("/v2/a/referrers/{subject}?artifactType=a/other")).await;
    assert_eq!(
        (filtered.json()["manifests"].clone(), filtered.header("oci-filters-applied")),
        (json!([]), "artifactType")
    );
}

/// A manifest about `subject` that differs by `n`.
async fn push_referrer(world: &World, subject: Digest, n: usize, padding: usize) -> Digest {
    let mut referrer = image((sha256(b"{}"), 2), (sha256(b"layer"), 5));
    referrer["artifactType"] = json!(if n.is_multiple_of(2) { "a/even+x" } else { "a/odd" });
    referrer["annotations"] = json!({"n": n.to_string(), "padding": "x".repeat(padding)});
    referrer["subject"] = json!({"mediaType": IMAGE, "digest": subject.to_string(), "size": 1});
    let (text, digest) = (referrer.to_string(), sha256(referrer.to_string().as_bytes()));
    let put = world.ask(&format!("PUT /v2/a/manifests/{digest}"), &[], text).await;
    assert_eq!(put.status, 201, "{}", put.text());
    digest
}

/// Follows the links from `path` on: the digests of each page.
async fn pages(world: &World, path: &str) -> Vec<Vec<String>> {
    let (mut path, mut found) = (path.to_owned(), Vec::new());
    loop {
        let page = world.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.text());
        let json = page.json();
        let manifests = json["manifests"].as_array().expect("a list");
        found.push(manifests.iter().map(|m| m["digest"].as_str().expect("a digest").to_owned()).collect());
        let link = page.header("link");
        let Some(next) = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")) else {
            assert_eq!(link, "");
            return found;
        };
        path = next.to_owned();
    }
}

#[tokio::test]
async fn referrers_come_in_pages() {
    let world = World::new().await;
    let subject = world.push_image("a", "v1", b"layer").await;
    let mut all = Vec::new();
    for n in 0..10 {
        all.push(push_referrer(&world, subject, n, 0).await.to_string());
    }
    let (even, mut sorted): (Vec<_>, Vec<_>) = (all.iter().step_by(2).cloned().collect(), all.clone());
    sorted.sort();
    let path = format!("/v2/a/referrers/{subject}");
    assert_eq!(pages(&world, &path).await, [sorted.clone()]);
    let by_four = pages(&world, &format!("{path}?n=4")).await;
    assert_eq!(by_four.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
    assert_eq!(by_four.concat(), sorted);
    let filtered = pages(&world, &format!("{path}?n=2&artifactType=a/even%2Bx")).await;
    assert_eq!(filtered.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    assert!(filtered.concat().iter().all(|digest| even.contains(digest)));
    assert_eq!(pages(&world, &format!("{path}?n=0")).await, [Vec::<String>::new()]);
    world.get(&format!("{path}?last=x")).await.fails_with(400, "DIGEST_INVALID");
    // Long descriptors make short pages.
    for n in 10..14 {
        push_referrer(&world, subject, n, 900_000).await;
    }
    let long = pages(&world, &path).await;
    assert!(long.len() > 1 && long.concat().len() == 14, "{long:?}");
}

#[tokio::test]
async fn referrers_that_only_the_mesh_has_are_found() {
    let world = World::new().await;
    let (digest, manifest, index) = remote(&world, b"layer");
    let about =
        |edge: &waystation_proto::index::Edge| edge.kind == waystation_proto::index::EdgeKind::Subject;
    assert!(!index.edges.iter().any(about));
    let subject = sha256(b"subject");
    // Nobody answers: an empty list, and it says so.
    let unseen = world.get(&format!("/v2/a/referrers/{subject}")).await;
    assert_eq!((unseen.status, unseen.json()["manifests"].clone()), (200, json!([])));
    assert!(unseen.header("warning").contains("1 manifests of a could not be looked at"));
    world.rules(|rules| {
        rules.want = Arc::new(move |store, input| {
            let (mut index, manifest) = (index.clone(), manifest.clone());
            async move {
                let Input::WantArtifact { .. } = input else { panic!("not expected: {input:?}") };
                let edge = index.edges[0].clone();
                let kind = waystation_proto::index::EdgeKind::Subject;
                let edge =
                    waystation_proto::index::Edge { kind, digest: sha256(b"subject"), hash: None, ..edge };
                index.edges.push(edge);
                let encoded = Bytes::from(index.encode());
                let place = ArtifactPlace {
                    manifest: index.hash,
                    manifest_size: index.size,
                    media_type: index.media_type.clone(),
                    index: Hash::of(&encoded),
                    index_size: encoded.len() as u64,
                    subject: index.subject(),
                };
                let manifest_digest = index.manifest;
                store.ingest_manifest(manifest_digest, manifest, encoded).await.expect("stored");
                let (repository, place) = (name("a"), Some(place));
                store.index().apply(&Change::Artifact { repository, manifest: manifest_digest, place });
                store.index().apply(&Change::Reachable { repository: name("a"), index });
                Ok(())
            }
            .boxed()
        });
    });
    let found = world.get(&format!("/v2/a/referrers/{subject}")).await;
    assert_eq!(found.json()["manifests"][0]["digest"], digest.to_string(), "{}", found.text());
    assert_eq!(found.json()["manifests"][0]["artifactType"], CONFIG);
    assert_eq!(found.header("warning"), "");
}
