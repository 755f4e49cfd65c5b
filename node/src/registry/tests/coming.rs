//! Blobs that are still on their way from other nodes, read along.

use futures_util::{StreamExt, stream::BoxStream};
use iroh_blobs::protocol::{ChunkRanges, ChunkRangesExt};
use tokio::sync::{Notify, oneshot};

use super::*;

const SIZE: usize = 400_000;
const PART: usize = 128 * 1024;

/// A node that knows of a blob and has none of it, and a store that has all.
struct Far {
    world: World,
    layer: Vec<u8>,
    there: Store,
    _dir: tempfile::TempDir,
}

impl Far {
    async fn new() -> Self {
        let (world, dir) = (World::new().await, tempfile::tempdir().expect("a temporary directory"));
        let there = Store::open(dir.path()).await.expect("a fresh store").store;
        let layer: Vec<u8> = (0..SIZE as u32).map(|i| (i / 100) as u8).collect();
        let stored = there.ingest_bytes(None, sha256(&layer), layer.clone().into()).await.expect("stored");
        there.servable(stored.hash).await;
        let (_, _, index) = remote(&world, &layer);
        world.store.index().apply(&Change::Reachable { repository: name("a"), index });
        Far { world, layer, there, _dir: dir }
    }

    fn target(&self) -> String {
        format!("/v2/a/blobs/{}", sha256(&self.layer))
    }

    /// Brings the bytes before this position to the node.
    fn bring(&self) -> impl Fn(Store, usize) -> BoxFuture<'static, ()> + Clone + Send + Sync + 'static {
        let (there, hash) = (self.there.clone(), Hash::of(&self.layer));
        move |here: Store, until: usize| {
            let there = there.clone();
            async move {
                let (ranges, hash) =
                    (ChunkRanges::bytes(..until as u64), iroh_blobs::Hash::from_bytes(hash.0));
                let bao = there.blobs().export_bao(hash, ranges.clone()).bao_to_vec().await.expect("here");
                here.blobs().import_bao_bytes(hash, ranges, bao).await.expect("verified");
            }
            .boxed()
        }
    }

    /// How the wants of those who read along go.
    fn follow<F: Future<Output = Result<(), WantFailure>> + Send + 'static>(
        &self,
        follow: impl Fn(Store, watch::Sender<Ranges>) -> F + Send + Sync + 'static,
    ) {
        self.world
            .rules(|rules| rules.follow = Some(Arc::new(move |store, told| follow(store, told).boxed())));
    }

    async fn open(&self, headers: &[(&str, &str)]) -> (u16, BoxStream<'static, Result<Bytes, axum::Error>>) {
        let request = request(&format!("GET {}", self.target()), headers, "");
        let response =
            self.world.registry.router(Origin::Network).oneshot(request).await.expect("infallible");
        (response.status().as_u16(), response.into_body().into_data_stream().boxed())
    }
}

/// So many bytes of a body, and no more.
async fn next(body: &mut BoxStream<'static, Result<Bytes, axum::Error>>, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend_from_slice(&body.next().await.expect("more").expect("not cut"));
    }
    bytes
}

#[tokio::test]
async fn what_is_here_is_sent_before_the_rest_is() {
    let far = Far::new().await;
    let (rest, bring) = (Arc::new(Notify::new()), far.bring());
    let (go, hash, digest) = (rest.clone(), Hash::of(&far.layer), sha256(&far.layer));
    far.follow(move |here, told| {
        let (bring, go) = (bring.clone(), go.clone());
        async move {
            bring(here.clone(), PART).await;
            told.send_replace(Ranges::all(PART as u64));
            go.notified().await;
            bring(here.clone(), SIZE).await;
            here.seal(hash, SIZE as u64, Some(digest)).await.expect("whole");
            Ok(())
        }
    });
    let (status, mut body) = far.open(&[]).await;
    assert_eq!(status, 200);
    assert!(next(&mut body, PART).await == far.layer[..PART]);
    let (status, mut part) = far.open(&[("range", "bytes=1000-1999")]).await;
    assert_eq!(status, 206);
    assert!(next(&mut part, 1000).await == far.layer[1000..2000]);
    assert!(part.next().await.is_none());
    // One for each of the two wants.
    rest.notify_one();
    rest.notify_one();
    assert!(next(&mut body, SIZE - PART).await == far.layer[PART..]);
    assert!(body.next().await.is_none());
    let idle = far.world.registry.inner.readers.idle();
    tokio::time::timeout(Duration::from_secs(20), idle).await.expect("the budget is whole again");
}

#[tokio::test]
async fn a_want_that_fails_cuts_the_answer_short() {
    let far = Far::new().await;
    far.follow(|_, _| std::future::ready(Err(WantFailure::NoHolder)));
    far.world.get(&far.target()).await.fails_with(404, "BLOB_UNKNOWN");
    far.follow(|_, _| std::future::ready(Err(WantFailure::Stalled)));
    far.world.get(&far.target()).await.fails_with(504, "UNKNOWN");

    let (fail, bring) = (Arc::new(Notify::new()), far.bring());
    let failing = fail.clone();
    far.follow(move |here, _told| {
        let (bring, fail) = (bring.clone(), failing.clone());
        async move {
            // Nobody tells: what has come is found by looking.
            bring(here, PART).await;
            fail.notified().await;
            Err(WantFailure::NoHolder)
        }
    });
    let (status, mut body) = far.open(&[]).await;
    assert_eq!(status, 200);
    assert!(next(&mut body, PART).await == far.layer[..PART]);
    fail.notify_one();
    assert!(body.next().await.expect("an end").is_err());
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn a_stalled_want_goes_on_where_bytes_have_come() {
    let far = Far::new().await;
    let (bring, times) = (far.bring(), Arc::new(AtomicUsize::new(0)));
    let counted = times.clone();
    far.follow(move |here, _told| {
        let (bring, times) = (bring.clone(), counted.clone());
        async move {
            let time = times.fetch_add(1, Ordering::SeqCst) + 1;
            bring(here, PART.min(time * PART / 2)).await;
            Err(WantFailure::Stalled)
        }
    });
    let (status, mut body) = far.open(&[]).await;
    assert_eq!(status, 200);
    assert!(next(&mut body, PART).await == far.layer[..PART]);
    assert!(body.next().await.expect("an end").is_err());
    assert_eq!(times.load(Ordering::SeqCst), 3, "twice more came, and then no more");
}

#[tokio::test]
async fn whoever_goes_away_gives_the_want_up() {
    let far = Far::new().await;
    let bring = far.bring();
    let (dropped, gone) = oneshot::channel::<()>();
    let dropped = Arc::new(Mutex::new(Some(dropped)));
    far.follow(move |here, told| {
        let (bring, dropped) = (bring.clone(), dropped.clone());
        async move {
            bring(here, PART).await;
            // The channel of those who have gone is closed.
            told.closed().await;
            drop(dropped.lock().expect("no panic").take());
            std::future::pending().await
        }
    });
    let (_, mut body) = far.open(&[]).await;
    assert!(next(&mut body, PART).await == far.layer[..PART]);
    drop(body);
    tokio::time::timeout(Duration::from_secs(20), gone).await.expect("it is noticed").expect_err("dropped");
    let abandoned = far.world.rules.lock().expect("no panic").abandoned.clone();
    far.world.get("/v2/").await;
    // The loop takes what it is told in order, and this comes after.
    far.world.ask("PUT /v2/a/manifests/x", &[], "{}").await.fails_with(400, "MANIFEST_INVALID");
    assert_eq!(abandoned.load(Ordering::SeqCst), 1);
}
