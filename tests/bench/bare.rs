//! The reference for replication: iroh-blobs alone, from one store on disk into another, then what makes the
//! result durable (fsync, the database's sync), and, measured apart, what makes it known by its digest
//! (sha256), which a node needs only where no granted publisher paired digest and hash.

use std::{
    fs::File,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use iroh::{Endpoint, EndpointAddr, TransportAddr, endpoint::presets, protocol::Router};
use iroh_blobs::{
    ALPN, BlobsProtocol,
    store::fs::{FsStore, options::PathOptions},
};
use sha2::{Digest as _, Sha256};

/// How long it took.
pub struct Took {
    /// Until it was durable.
    pub durable: Duration,
    /// Until it was hashed, too.
    pub hashed: Duration,
}

/// Fetches the file from one store into another, over loopback.
pub fn fetch(folder: &Path, file: &Path) -> Took {
    // A runtime each, as two processes would have.
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (provider, fetcher) = (runtime(), runtime());
    let (router, source, hash) = provider.block_on(async {
        let store = FsStore::load(folder.join("source")).await.unwrap();
        let tag = store.add_path(file).await.unwrap();
        let router = Router::builder(endpoint().await).accept(ALPN, BlobsProtocol::new(&store, None)).spawn();
        (router, store, tag.hash)
    });
    let bound = router.endpoint().bound_sockets()[0];
    let id = router.endpoint().id();
    let address = EndpointAddr { id, addrs: [TransportAddr::Ip(bound)].into_iter().collect() };
    let took = fetcher.block_on(async {
        let root = folder.join("target");
        let store = FsStore::load(&root).await.unwrap();
        let endpoint = endpoint().await;
        let start = Instant::now();
        let connection = endpoint.connect(address, ALPN).await.unwrap();
        store.remote().fetch(connection, hash).complete().await.unwrap();
        let paths = PathOptions::new(&root);
        let data = paths.data_path(&hash);
        let path = data.clone();
        tokio::task::spawn_blocking(move || make_durable(&path)).await.unwrap();
        store.sync_db().await.unwrap();
        let durable = start.elapsed();
        tokio::task::spawn_blocking(move || read_and_hash(&data)).await.unwrap();
        let took = Took { durable, hashed: start.elapsed() };
        endpoint.close().await;
        store.shutdown().await.unwrap();
        took
    });
    // Takes the store down, too.
    provider.block_on(router.shutdown()).unwrap();
    drop(source);
    took
}

fn make_durable(data: &Path) {
    File::open(data).unwrap().sync_all().unwrap();
    File::open(data.parent().unwrap()).unwrap().sync_all().unwrap();
}

fn read_and_hash(data: &Path) {
    let mut file = File::open(data).unwrap();
    let (mut sha256, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => break,
            n => sha256.update(&buffer[..n]),
        }
    }
    std::hint::black_box(sha256.finalize());
}

async fn endpoint() -> Endpoint {
    let builder = Endpoint::builder(presets::Minimal).clear_ip_transports();
    builder.bind_addr("127.0.0.1:0").unwrap().bind().await.unwrap()
}
