//! The endpoint against a real store, with a small loop in the replica's place: it writes what it is asked
//! to straight into the index and answers wants as each test says.

mod blobs;
mod coming;
mod listing;
mod manifests;
mod requests;
mod uploads;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::Body,
    http::{HeaderMap, Request},
};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use waystation_proto::{
    Change, Digest, Hash, Input, NodeId, Refusal, RepoName,
    body::{ArtifactPlace, HoldingState, State, TagBody},
    event::{Told, WantFailure},
    index::ArtifactIndex,
    ranges::Ranges,
};

use super::{Origin, Registry, RegistryConfig};
use crate::{
    driver::handle::{Command, ReplicaHandle},
    metrics::Metrics,
    mirror::{Downloads, Mirror, MirrorConfig},
    registry::Anonymous,
    store::Store,
    upstream::Upstreams,
};

const NODE: NodeId = NodeId([7; 32]);
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

type Want = Arc<dyn Fn(Store, Input) -> BoxFuture<'static, Result<(), WantFailure>> + Send + Sync>;

type Follow =
    Arc<dyn Fn(Store, watch::Sender<Ranges>) -> BoxFuture<'static, Result<(), WantFailure>> + Send + Sync>;

/// How the loop answers.
#[derive(Clone)]
struct Rules {
    may_publish: Result<(), Refusal>,
    /// Called with the store for each want, to make what was wanted appear.
    want: Want,
    /// The same for wants of those who read along; where there is none, they are wants like others.
    follow: Option<Follow>,
    /// Wants that were given up.
    abandoned: Arc<AtomicUsize>,
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
        let rules = Rules {
            may_publish: Ok(()),
            want: failing(WantFailure::NoHolder),
            follow: None,
            abandoned: Arc::default(),
        };
        let rules = Arc::new(Mutex::new(rules));
        tokio::spawn(replica(store.clone(), queue, rules.clone()));
        let metrics = Metrics::new();
        let replica = ReplicaHandle::new(commands);
        let none = Upstreams::new(&[]).expect("no upstreams");
        let downloads = Downloads::new(store.clone(), none.clone(), metrics.clone());
        let stop = CancellationToken::new();
        let (mirror, _) = Mirror::start(
            none,
            MirrorConfig::default(),
            store.clone(),
            replica.clone(),
            NODE,
            downloads,
            stop,
        );
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
            Command::Follow(_, input, answer, _, arrived) => {
                let coming = match &rules.follow {
                    Some(follow) => follow(store.clone(), arrived),
                    None => (rules.want)(store.clone(), input),
                };
                tokio::spawn(async move { drop(answer.send(coming.await)) });
            }
            Command::Tell(Input::Abandon { .. }) => drop(rules.abandoned.fetch_add(1, Ordering::SeqCst)),
            Command::Tell(_) | Command::Reconciled(_) => {}
            Command::Status(answer) => drop(answer.send(Default::default())),
            Command::Look(_) => {}
            Command::Lease(_, _, answer) => drop(answer),
            Command::Kept(_, answer) => drop(answer),
        }
    }
}

fn write(store: &Store, input: Input) {
    let apply = |change: Change| store.index().apply(&change);
    let point = |repository: &RepoName, tag, target| {
        let body = TagBody { target };
        apply(Change::Tag {
            repository: repository.clone(),
            tag,
            body,
            version: 1,
            author: NODE,
            authored: Default::default(),
        });
    };
    match input {
        Input::Publish { repository, tags, index, index_hash, index_size, .. } => {
            let place = ArtifactPlace {
                manifest: index.hash,
                manifest_size: index.size,
                media_type: index.media_type.clone(),
                index: index_hash,
                index_size,
                subject: index.subject(),
            };
            let manifest = index.manifest;
            apply(Change::Artifact { repository: repository.clone(), manifest, place: Some(place) });
            apply(Change::Reachable { repository: repository.clone(), index });
            let told = Told::Site("s".into());
            apply(Change::Holding { manifest, node: NODE, state: HoldingState::Complete, told });
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
    // As a connection takes it: what has been sent is not kept.
    let (mut pieces, mut body) = (body.into_data_stream(), Vec::new());
    while let Some(piece) = pieces.next().await {
        body.extend_from_slice(&piece.expect("a body"));
    }
    Answer { status: parts.status.as_u16(), headers: parts.headers, body: body.into() }
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
        subject: index.subject(),
    };
    let repository = name("a");
    world.store.index().apply(&Change::Artifact {
        repository: repository.clone(),
        manifest: digest,
        place: Some(place),
    });
    let body = TagBody { target: Some(digest) };
    let state = HoldingState::Complete;
    let (node, told) = (NodeId([1; 32]), Told::Mesh(1));
    world.store.index().apply(&Change::Holding { manifest: digest, node, state, told });
    let tag = "v1".parse().expect("valid tag");
    world.store.index().apply(&Change::Tag {
        repository,
        tag,
        body,
        version: 1,
        author: NodeId([1; 32]),
        authored: Default::default(),
    });
    (digest, manifest, index)
}
