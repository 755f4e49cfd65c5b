//! The endpoint against a real store, with a small loop in the replica's place: it writes what it is asked
//! to straight into the index and answers wants as each test says.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request},
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture, stream};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use waystation_proto::{
    Change, Digest, Hash, Input, NodeId, Refusal, RepoName,
    body::{ArtifactPlace, HoldingState, State, TagBody},
    event::WantFailure,
    index::ArtifactIndex,
};

use super::{Origin, Registry, RegistryConfig};
use crate::{
    driver::handle::{Command, ReplicaHandle},
    metrics::Metrics,
    mirror::{Downloads, Mirror},
    registry::Anonymous,
    store::Store,
    upstream::Upstreams,
};

const NODE: NodeId = NodeId([7; 32]);
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

type Want = Arc<dyn Fn(Store, Input) -> BoxFuture<'static, Result<(), WantFailure>> + Send + Sync>;

/// How the loop answers.
#[derive(Clone)]
struct Rules {
    may_publish: Result<(), Refusal>,
    /// Called with the store for each want, to make what was wanted appear.
    want: Want,
}

struct World {
    store: Store,
    registry: Registry,
    metrics: Metrics,
    rules: Arc<Mutex<Rules>>,
    dir: tempfile::TempDir,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
}

impl World {
    async fn new() -> Self {
        World::with(RegistryConfig { anonymous: Anonymous::Push, ..RegistryConfig::default() }).await
    }

    async fn with(config: RegistryConfig) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let store = Store::open(dir.path()).await.expect("a fresh store").store;
        let (commands, queue) = mpsc::channel(16);
        let rules = Rules { may_publish: Ok(()), want: failing(WantFailure::NoHolder) };
        let rules = Arc::new(Mutex::new(rules));
        tokio::spawn(replica(store.clone(), queue, rules.clone()));
        let metrics = Metrics::new();
        let replica = ReplicaHandle::new(commands);
        let none = Upstreams::new(&[]).expect("no upstreams");
        let downloads = Downloads::new(store.clone(), none.clone(), metrics.clone());
        let stop = CancellationToken::new();
        let (mirror, _) =
            Mirror::start(none, Vec::new(), store.clone(), replica.clone(), NODE, downloads, stop);
        let registry = Registry::new(store.clone(), replica, NODE, mirror, config, metrics.clone());
        World { store, registry, metrics, rules, dir }
    }

    fn rules(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut self.rules.lock().expect("no panic"));
    }

    async fn send(&self, origin: Origin, request: Request<Body>) -> Answer {
        call(self.registry.router(origin), request).await
    }

    /// A request from the network: `<method> <path>`, headers, body.
    async fn ask(&self, line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.send(Origin::Network, request(line, headers, body)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path}"), &[], "").await
    }

    async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let digest = sha256(bytes);
        let line = format!("POST /v2/{repository}/blobs/uploads/?digest={digest}");
        let answer = self.ask(&line, &[], bytes.to_vec()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest
    }

    /// Pushes config, layer and manifest.
    async fn push_image(&self, repository: &str, tag: &str, layer: &[u8]) -> Digest {
        let config = self.push_blob(repository, b"{}").await;
        let layer_digest = self.push_blob(repository, layer).await;
        let manifest = image((config, 2), (layer_digest, layer.len())).to_string();
        let line = format!("PUT /v2/{repository}/manifests/{tag}");
        let answer = self.ask(&line, &[("content-type", IMAGE)], manifest.clone()).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        sha256(manifest.as_bytes())
    }

    fn set_status(&self, repository: &str, manifest: Digest, state: State) {
        self.store.index().apply(&Change::Status {
            repository: name(repository),
            manifest,
            state,
            reason: "because".into(),
        });
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("text"))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    fn fails_with(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{}", self.text());
        assert_eq!(self.json()["errors"][0]["code"], code);
        assert_eq!(self.header("docker-distribution-api-version"), "registry/2.0");
    }
}

/// The loop in the replica's place.
async fn replica(store: Store, mut queue: mpsc::Receiver<Command>, rules: Arc<Mutex<Rules>>) {
    while let Some(command) = queue.recv().await {
        let rules = rules.lock().expect("no panic").clone();
        match command {
            Command::May(_, _, answer) => drop(answer.send(rules.may_publish)),
            Command::Write(_, input, answer) => {
                write(&store, input);
                drop(answer.send(Ok(())));
            }
            Command::Want(_, input, answer) => drop(answer.send((rules.want)(store.clone(), input).await)),
            Command::Tell(_) => {}
            Command::Status(answer) => drop(answer.send(Default::default())),
            Command::Lease(_, _, answer) => drop(answer),
            Command::Kept(_, answer) => drop(answer),
        }
    }
}

fn write(store: &Store, input: Input) {
    let apply = |change: Change| store.index().apply(&change);
    let point = |repository: &RepoName, tag, target| {
        let body = TagBody { target };
        apply(Change::Tag { repository: repository.clone(), tag, body, version: 1, author: NODE });
    };
    match input {
        Input::Publish { repository, tags, index, index_hash, index_size, .. } => {
            let place = ArtifactPlace {
                manifest: index.hash,
                manifest_size: index.size,
                media_type: index.media_type.clone(),
                index: index_hash,
                index_size,
            };
            let manifest = index.manifest;
            apply(Change::Artifact { repository: repository.clone(), manifest, place: Some(place) });
            apply(Change::Reachable { repository: repository.clone(), index });
            apply(Change::Holding { manifest, node: NODE, state: HoldingState::Complete });
            tags.into_iter().for_each(|tag| point(&repository, tag, Some(manifest)));
        }
        Input::Untag { repository, tag, .. } => point(&repository, tag, None),
        Input::Unpublish { repository, manifest, .. } => {
            for (tag, entry) in store.index().tags(&repository, None, 100) {
                if entry.target == Some(manifest) {
                    point(&repository, tag, None);
                }
            }
            apply(Change::Artifact { repository, manifest, place: None });
        }
        Input::Unlink { repository, blob, .. } => apply(Change::Link { repository, blob, removed: true }),
        Input::Relink { repository, blob, .. } => apply(Change::Link { repository, blob, removed: false }),
        other => panic!("not expected: {other:?}"),
    }
}

async fn call(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 64 << 20).await.expect("a body");
    Answer { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn request(line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request<Body> {
    let (method, path) = line.split_once(' ').expect("method and path");
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(body.into()).expect("a request")
}

fn sha256(bytes: &[u8]) -> Digest {
    Digest::Sha256(Sha256::digest(bytes).into())
}

fn name(text: &str) -> RepoName {
    text.parse().expect("valid name")
}

fn image(config: (Digest, usize), layer: (Digest, usize)) -> Value {
    let descriptor = |media_type: &str, (digest, size): (Digest, usize)| json!({"mediaType": media_type, "digest": digest.to_string(), "size": size});
    json!({"schemaVersion": 2, "mediaType": IMAGE, "config": descriptor(CONFIG, config), "layers": [descriptor(LAYER, layer)]})
}

/// A mesh that brings nothing.
fn failing(why: WantFailure) -> Want {
    Arc::new(move |_, _| std::future::ready(Err(why.clone())).boxed())
}

/// A body whose length is not known in advance.
fn streamed(bytes: &[u8]) -> Body {
    let parts: Vec<_> = bytes.chunks(7).map(|part| Ok::<_, std::io::Error>(part.to_vec())).collect();
    Body::from_stream(stream::iter(parts))
}

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

/// What another node has published: in the catalog, nothing of it here.
fn remote(world: &World, layer: &[u8]) -> (Digest, Bytes, ArtifactIndex) {
    let manifest = Bytes::from(image((sha256(b"{}"), 2), (sha256(layer), layer.len())).to_string());
    let digest = sha256(&manifest);
    let known = |wanted: &Digest| {
        let bytes = if *wanted == sha256(layer) { layer } else { b"{}" };
        Some((Hash::of(bytes), bytes.len() as u64))
    };
    let parsed = waystation_oci::manifest::parse(&manifest, None).expect("an image");
    let index = parsed.into_index(digest, Hash::of(&manifest), false, known).expect("blobs known");
    let encoded = index.encode();
    let place = ArtifactPlace {
        manifest: index.hash,
        manifest_size: index.size,
        media_type: index.media_type.clone(),
        index: Hash::of(&encoded),
        index_size: encoded.len() as u64,
    };
    let repository = name("a");
    world.store.index().apply(&Change::Artifact {
        repository: repository.clone(),
        manifest: digest,
        place: Some(place),
    });
    let body = TagBody { target: Some(digest) };
    let state = HoldingState::Complete;
    world.store.index().apply(&Change::Holding { manifest: digest, node: NodeId([1; 32]), state });
    let tag = "v1".parse().expect("valid tag");
    world.store.index().apply(&Change::Tag { repository, tag, body, version: 1, author: NodeId([1; 32]) });
    (digest, manifest, index)
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
    let server =
        tokio::spawn(super::serve(listener, world.registry.router(Origin::Network), shutdown.clone()));
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
