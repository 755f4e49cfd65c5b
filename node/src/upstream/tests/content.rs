//! What comes is what was asked for: tags, manifests, blobs in parts, lists.

use super::{
    fake::{Fake, raw, reply},
    *,
};

fn image(n: usize) -> String {
    format!("{{\"schemaVersion\":2,\"mediaType\":\"{IMAGE}\",\"n\":{n}}}")
}

#[tokio::test]
async fn a_tag_is_resolved_without_a_get_where_head_suffices() {
    let bytes = image(1);
    let digest = sha256(bytes.as_bytes());
    let fake = Fake::start(move |seen| {
        let said = digest.to_string();
        let length = bytes.len().to_string();
        let all: &[(&str, &str)] = &[("content-type", IMAGE), ("docker-content-digest", &said)];
        match (seen.path.as_str(), seen.method.as_str()) {
            ("/v2/a/manifests/full", "HEAD") => {
                assert!(seen.header("accept").is_some_and(|accept| accept.contains(INDEX)));
                reply(
                    200,
                    &[all, &[("content-length", &length), ("ratelimit-remaining", "76;w=21600")]].concat(),
                    "",
                )
            }
            ("/v2/a/manifests/bare", "HEAD") => reply(200, &[], ""),
            ("/v2/a/manifests/not-head", "HEAD") => reply(405, &[], ""),
            ("/v2/a/manifests/moved", "HEAD" | "GET") => reply(307, &[("location", "/signed-for-get")], ""),
            ("/signed-for-get", "HEAD") => reply(403, &[], ""),
            ("/v2/a/manifests/nonsense", _) => reply(200, &[("docker-content-digest", "sha256:beef")], "{}"),
            ("/v2/a/manifests/portal", _) => {
                reply(200, &[("content-type", "text/html")], "<html>log in</html>")
            }
            ("/v2/a/manifests/liar", "GET") => {
                let other = sha256(b"other").to_string();
                reply(200, &[("content-type", IMAGE), ("docker-content-digest", &other)], bytes.clone())
            }
            ("/v2/a/manifests/liar", _) => reply(405, &[], ""),
            ("/v2/a/manifests/gone", _) => reply(404, &[], ""),
            _ => reply(200, &[("content-type", IMAGE)], bytes.clone()),
        }
    })
    .await;
    let upstream = at(&fake.url);
    let size = Some(image(1).len() as u64);
    let expected = Resolved { digest, media_type: Some(IMAGE.into()), size };
    for name in ["full", "bare", "not-head", "moved"] {
        assert_eq!(upstream.resolve("a", &tag(name)).await, Ok(expected.clone()), "{name}");
    }
    assert_eq!(fake.lines().iter().filter(|line| *line == "GET /v2/a/manifests/full").count(), 0);
    assert_eq!(fake.lines().iter().filter(|line| *line == "HEAD /signed-for-get").count(), 1);
    for name in ["nonsense", "portal", "liar"] {
        let error = upstream.resolve("a", &tag(name)).await.expect_err(name);
        assert!(matches!(error, UpstreamError::Invalid(_)), "{name}: {error}");
    }
    assert_eq!(upstream.resolve("a", &tag("gone")).await, Err(UpstreamError::NotFound));
    assert_eq!(upstream.resolve("../../etc", &tag("x")).await, Err(UpstreamError::NotFound));
    let status = upstream.inner.status();
    let quota = Quota { limit: None, remaining: 76, window_s: Some(21600) };
    assert_eq!(status.endpoints[0].quota, Some(quota));
}

#[tokio::test]
async fn manifests_have_their_digest_and_type_or_are_refused() {
    let wrong_type = format!("{{\"mediaType\":\"{IMAGE}\"}}");
    let large = format!("{{\"x\":\"{}\"}}", "a".repeat(16 << 20));
    let table: Vec<(String, &str, Option<&str>)> = vec![
        (image(1), IMAGE, Some(IMAGE)),
        (image(2), "application/vnd.OCI.image.manifest.v1+json; charset=utf-8", Some(IMAGE)),
        (image(3), "application/octet-stream", Some(IMAGE)),
        ("{\"schemaVersion\":2}".into(), "application/json", Some("")),
        ("{\"manifests\":[]}".into(), INDEX, Some(INDEX)),
        (wrong_type, INDEX, None),
        ("[]".into(), IMAGE, None),
        ("<html>".into(), "text/html", None),
        (large, IMAGE, None),
    ];
    let bodies: Vec<(String, String)> =
        table.iter().map(|(body, said, _)| (body.clone(), (*said).to_owned())).collect();
    let fake = Fake::start(move |seen| {
        let wanted = seen.path.rsplit('/').next().expect("a digest");
        let (body, said) =
            bodies.iter().find(|(body, _)| sha256(body.as_bytes()).to_string() == wanted).expect("asked for");
        reply(200, &[("content-type", said)], body.clone())
    })
    .await;
    let upstream = at(&fake.url);
    for (body, said, expected) in table {
        let digest = sha256(body.as_bytes());
        let found = upstream.manifest("a", &(&digest).into()).await;
        match expected {
            Some(media_type) => {
                let expected = Manifest { bytes: body.into(), media_type: media_type.into(), digest };
                assert_eq!(found.expect(said), expected, "{said}");
            }
            None => assert!(matches!(found, Err(UpstreamError::Invalid(_))), "{said}: {found:.200?}"),
        }
    }
    let fake = Fake::start(|_| reply(200, &[("content-type", IMAGE)], "{\"other\":1}")).await;
    let error = at(&fake.url).manifest("a", &(&sha256(b"{}")).into()).await.expect_err("another one");
    assert!(matches!(error, UpstreamError::Invalid(_)), "{error}");
    let sha512: Digest = Digest::Sha512(sha2::Sha512::digest(b"{\"other\":1}").into());
    assert_eq!(at(&fake.url).manifest("a", &(&sha512).into()).await.expect("that one").digest, sha512);
}

#[tokio::test]
async fn a_manifest_without_end_is_given_up() {
    let chunk = format!("1000\r\n{}\r\n", "a".repeat(4096));
    let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    answer.extend(chunk.as_bytes().repeat((16 << 20) / 4096 + 2));
    let (url, _) = raw(vec![answer]).await;
    let error = at(&url).manifest("a", &(&tag("v1")).into()).await.expect_err("too large");
    let UpstreamError::Invalid(why) = &error else { panic!("{error}") };
    assert!(why.contains("larger"), "{why}");
}

#[tokio::test]
async fn a_blob_goes_on_where_it_broke_off() {
    let blob: Vec<u8> = (0..5000_u32).flat_map(u32::to_le_bytes).collect();
    let digest = sha256(&blob);
    let head = |status: &str, headers: &str| {
        format!("HTTP/1.1 {status}\r\ndocker-content-digest: {digest}\r\n{headers}\r\n\r\n").into_bytes()
    };
    let first = [head("200 OK", "content-length: 20000"), blob[..7000].to_vec()].concat();
    let rest = head("206 Partial Content", "content-length: 13000\r\ncontent-range: bytes 7000-19999/20000");
    let second = [rest, blob[7000..].to_vec()].concat();
    let (url, heads) = raw(vec![first, second]).await;
    let upstream = at(&url);
    let body = upstream.blob("a", &digest, 0).await.expect("begins");
    assert_eq!((body.size, body.from), (Some(20000), 0));
    let (mut got, broke) = collect_until(body.body).await;
    assert_eq!(got, blob[..7000]);
    let why = broke.expect("breaks off").to_string();
    assert!(why.contains("7000 bytes"), "{why}");
    let body = upstream.blob("a", &digest, 7000).await.expect("goes on");
    assert_eq!((body.size, body.from), (Some(20000), 7000));
    got.extend(collect(body.body).await.expect("whole"));
    assert_eq!(got, blob);
    let heads = heads.lock().expect("not poisoned").clone();
    assert!(!heads[0].contains("range:") && heads[1].contains("range: bytes=7000-\r\n"), "{heads:?}");
    assert!(heads[0].contains("accept-encoding: identity"), "{heads:?}");
}

#[tokio::test]
async fn a_range_may_be_asked_of_one_entity_only() {
    let fake = Fake::start(|seen| match (seen.path.rsplit('/').next(), seen.header("if-range")) {
        (_, Some("\"one\"")) => {
            assert_eq!(seen.header("range"), Some("bytes=4-"));
            reply(206, &[("content-range", "bytes 4-9/10"), ("etag", "\"one\"")], "456789")
        }
        (_, Some(_)) => reply(200, &[("etag", "\"two\"")], "0123456789"),
        // One that says only that much is alike, and what is none.
        (_, None) if seen.path.starts_with("/v2/weak/") => reply(200, &[("etag", "W/\"one\"")], "0123456789"),
        (_, None) => reply(200, &[("etag", "one two")], "0123456789"),
    })
    .await;
    let (upstream, digest) = (at(&fake.url), sha256(b"0123456789"));
    let ask = async |path: &str, from: u64, etag: Option<&str>| {
        let body = upstream.blob_if(path, &digest, from, etag).await.expect("answered");
        (body.from, body.size, body.etag)
    };
    assert_eq!(ask("a", 4, Some("\"one\"")).await, (4, Some(10), Some("\"one\"".to_owned())));
    assert_eq!(ask("a", 4, Some("\"old\"")).await, (0, Some(10), Some("\"two\"".to_owned())));
    assert_eq!(ask("weak", 0, None).await, (0, Some(10), None));
    // Nothing is asked conditionally that is asked for as a whole.
    assert_eq!(ask("a", 0, Some("\"one\"")).await, (0, Some(10), None));
}

#[tokio::test]
async fn ranges_are_ignored_or_wrong() {
    let blob = b"0123456789".to_vec();
    let digest = sha256(&blob);
    let fake = Fake::start(move |seen| {
        let digest = digest.to_string();
        let range = |text: &str, body: &'static str| reply(206, &[("content-range", text)], body);
        match seen.path.split('/').nth(2).expect("a name") {
            "ignores" => reply(200, &[], "0123456789"),
            "other" => range("bytes 3-9/10", "3456789"),
            "contradicts" => range("bytes 4-9/20", "456789"),
            "shorter" => range("bytes 4-9/10", "4567"),
            "none" => reply(206, &[], "456789"),
            "open" => range("bytes 4-9/*", "456789"),
            "refuses" => reply(416, &[], ""),
            "another" => reply(200, &[("docker-content-digest", &sha256(b"x").to_string())], "0123456789"),
            "says" => reply(200, &[("docker-content-digest", &digest)], "0123456789"),
            _ => reply(404, &[], ""),
        }
    })
    .await;
    let upstream = at(&fake.url);
    for (name, from, size) in [("ignores", 0, Some(10)), ("says", 0, Some(10)), ("open", 4, None)] {
        let body = upstream.blob(name, &digest, 4).await.expect(name);
        assert_eq!((body.from, body.size), (from, size), "{name}");
        assert_eq!(collect(body.body).await.expect(name), blob[from as usize..], "{name}");
    }
    for name in ["other", "contradicts", "shorter", "none", "refuses", "another"] {
        let error = upstream.blob(name, &digest, 4).await.err().expect(name);
        assert!(matches!(error, UpstreamError::Invalid(_)), "{name}: {error}");
    }
    assert_eq!(upstream.blob("gone", &digest, 0).await.err(), Some(UpstreamError::NotFound));
    assert_eq!(
        collect(upstream.blob("ignores", &digest, 0).await.expect("all").body).await.expect("whole"),
        blob
    );
}

#[tokio::test]
async fn sizes_of_blobs_are_told_by_some() {
    let digest = sha256(b"x");
    let fake = Fake::start(move |seen| match seen.path.split('/').nth(2).unwrap_or_default() {
        "tells" => reply(200, &[("content-length", "1")], "x"),
        "public-ecr" => reply(401, &[("www-authenticate", "Basic realm=x")], ""),
        "bare" => reply(403, &[], ""),
        "not-head" => reply(405, &[], ""),
        "moved" => reply(307, &[("location", "/signed-for-get")], ""),
        "" => reply(403, &[], ""),
        _ => reply(404, &[], ""),
    })
    .await;
    let upstream = at(&fake.url);
    assert_eq!(upstream.blob_size("tells", &digest).await, Ok(Some(1)));
    for name in ["public-ecr", "bare", "not-head", "moved"] {
        assert_eq!(upstream.blob_size(name, &digest).await, Ok(None), "{name}");
    }
    assert_eq!(upstream.blob_size("gone", &digest).await, Err(UpstreamError::NotFound));
}

#[tokio::test]
async fn tags_come_in_pages() {
    let fake = Fake::start(|seen| {
        let (n, last) = (seen.all("n"), seen.all("last"));
        match (seen.path.split('/').nth(2).expect("a name"), last.first().copied()) {
            ("pages", None) => {
                assert_eq!(n, ["2"]);
                let link = "</v2/pages/tags/list?last=b&n=2>; rel=\"next\"";
                reply(200, &[("link", link)], r#"{"name":"pages","tags":["a","b"]}"#)
            }
            ("pages", Some("b")) => reply(200, &[], r#"{"tags":["c"]}"#),
            ("everything", _) => reply(200, &[], r#"{"tags":["a","b","c","-not a tag","d"]}"#),
            ("circle", _) => reply(200, &[("link", "<?last=a>; rel=next")], r#"{"tags":["a"]}"#),
            ("null", _) => reply(200, &[], r#"{"tags":null}"#),
            ("page", _) => reply(200, &[], "<html>"),
            _ => reply(404, &[], ""),
        }
    })
    .await;
    let upstream = at(&fake.url);
    let ask = async |path: &str, last: Option<&str>, n: usize| {
        let page = upstream.tags(path, last, n).await.expect(path);
        (page.tags.iter().map(Tag::to_string).collect::<Vec<_>>().join(" "), page.next)
    };
    let page = |tags: &str, next: Option<&str>| (tags.to_owned(), next.map(str::to_owned));
    assert_eq!(ask("pages", None, 2).await, page("a b", Some("b")));
    assert_eq!(ask("pages", Some("b"), 2).await, page("c", None));
    assert_eq!(ask("everything", None, 2).await, page("a b", Some("b")));
    assert_eq!(ask("everything", Some("b"), 2).await, page("c", Some("-not a tag")));
    assert_eq!(ask("everything", Some("-not a tag"), 2).await, page("d", None));
    assert_eq!(ask("circle", Some("a"), 2).await, page("", None));
    assert_eq!(ask("null", None, 0).await, page("", None));
    assert!(matches!(upstream.tags("page", None, 9).await, Err(UpstreamError::Invalid(_))));
    assert_eq!(upstream.tags("gone", None, 9).await, Err(UpstreamError::NotFound));
}

#[tokio::test]
async fn referrers_by_api_or_by_tag() {
    let subject = sha256(b"subject");
    let one = |n: usize, kind: &str| {
        format!(
            r#"{{"digest":"{}","size":{n},"mediaType":"{IMAGE}","artifactType":"{kind}"}}"#,
            sha256(&[n as u8])
        )
    };
    let index = |all: &[String]| {
        format!(r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{}]}}"#, all.join(","))
    };
    let (first, second) =
        (index(&[one(1, "sig"), one(2, "sbom"), "{\"digest\":\"x\"}".into()]), index(&[one(3, "sig")]));
    let fallback = format!("sha256-{}", subject.to_string().trim_start_matches("sha256:"));
    let fake = Fake::start(move |seen| {
        let api = seen.path.contains("/referrers/");
        match (seen.path.split('/').nth(2).expect("a name"), seen.all("page").first().copied()) {
            ("api", None) if api => {
                let link = format!("<{}?page=2>; rel=\"next\"", seen.path);
                reply(200, &[("content-type", INDEX), ("link", &link)], first.clone())
            }
            ("api", Some("2")) if api => reply(200, &[("content-type", INDEX)], second.clone()),
            ("endless", _) if api => {
                let link = format!("<{}?page=2>; rel=\"next\"", seen.path);
                reply(200, &[("content-type", INDEX), ("link", &link)], second.clone())
            }
            ("portal" | "tagged", _) if seen.path.ends_with(&fallback) => {
                reply(200, &[("content-type", INDEX)], second.clone())
            }
            ("portal", _) if api => reply(200, &[("content-type", "text/html")], "<html>"),
            ("broken", _) => reply(200, &[("content-type", INDEX)], "<html>"),
            _ => reply(404, &[], ""),
        }
    })
    .await;
    let upstream = at(&fake.url);
    let sizes = async |path: &str, kind: Option<&str>| {
        let found = upstream.referrers(path, &subject, kind).await.expect(path);
        (
            found.manifests.iter().map(|one| one["size"].as_u64().unwrap_or(0)).collect::<Vec<_>>(),
            found.complete,
        )
    };
    assert_eq!(sizes("api", None).await, (vec![1, 2, 3], true));
    assert_eq!(sizes("api", Some("sig")).await, (vec![1, 3], true));
    assert_eq!(sizes("tagged", None).await, (vec![3], true));
    assert_eq!(sizes("tagged", Some("sbom")).await, (vec![], true));
    assert_eq!(sizes("portal", None).await, (vec![3], true));
    assert_eq!(sizes("nothing", None).await, (vec![], true));
    assert_eq!(sizes("endless", None).await, (vec![3, 3], false));
    assert!(matches!(upstream.referrers("broken", &subject, None).await, Err(UpstreamError::Invalid(_))));
}
