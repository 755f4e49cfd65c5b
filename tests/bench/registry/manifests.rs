//! A held manifest, asked for by its tag and by its digest on 32 connections at a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Sizes,
    harness::image::{Image, MANIFEST_TYPE},
    load::{Async, Client, get_request, runtime},
    peers::{Kind, Server},
    samples::{Samples, head, line, times},
};

#[derive(Clone, Default)]
struct Result {
    rate: Samples,
    median: Samples,
    slowest: Samples,
    cpu: Samples,
}

pub fn measure(sizes: Sizes) {
    let image = Image::random(2, &[3000; 8]);
    let by_tag = "/v2/bench/manifests/latest".to_owned();
    let by_digest = format!("/v2/bench/manifests/{}", image.digest());
    let mut servers = Vec::new();
    if let Some(nginx) = Server::nginx() {
        nginx.put(&by_tag, &image.manifest);
        nginx.put(&by_digest, &image.manifest);
        servers.push(nginx);
    }
    for server in Kind::ALL.into_iter().filter_map(|kind| kind.start(&[])) {
        Client::new(&server.address).push_image("bench", "latest", &image);
        servers.push(server);
    }
    for (how, target) in [("tag", by_tag), ("digest", by_digest)] {
        let mut results = vec![Result::default(); servers.len()];
        for server in &servers {
            let accept = format!("Accept: {MANIFEST_TYPE}\r\n");
            let mut bytes = Vec::new();
            let mut client = Client::new(&server.address);
            client.send("GET", &target, &accept, &[], |part| bytes.extend_from_slice(part)).unwrap();
            assert!(bytes == image.manifest, "{}", server.name);
        }
        for _ in 0..sizes.rounds {
            for (server, result) in servers.iter().zip(&mut results) {
                turn(server, &target, sizes.turn, result);
            }
        }
        show(how, image.manifest.len(), &servers, &results);
    }
}

fn show(how: &str, size: usize, servers: &[Server], results: &[Result]) {
    println!(
        "GET of a manifest of {size} bytes by {how}, {CONNECTIONS} connections; \
         goal: ≥ 0.5 × nginx, ≥ 5 × distribution 3"
    );
    head(&["server", "requests/s", "waystation is", "p50 ms", "p99 ms", "CPU µs/request"]);
    let ours = servers.iter().position(|server| server.name == Kind::Waystation.name()).unwrap();
    for (server, result) in servers.iter().zip(results) {
        line(&[
            server.name.to_owned(),
            result.rate.show(0),
            times(results[ours].rate.median(), result.rate.median()),
            result.median.show(2),
            result.slowest.show(2),
            result.cpu.show(1),
        ]);
    }
}

/// Everyone asks again as soon as it is answered.
fn turn(server: &Server, target: &str, length: Duration, result: &mut Result) {
    let request: Arc<[u8]> = get_request(target).into();
    let before = server.cpu();
    let start = Instant::now();
    let mut taken = runtime().block_on(async {
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..CONNECTIONS {
            let (address, request) = (server.address.clone(), request.clone());
            clients.spawn(async move {
                let mut client = Async::new(&address, 16 * 1024).await;
                let mut taken = Vec::with_capacity(64 * 1024);
                let mut now = Instant::now();
                while now - start < length {
                    client.ask(&request).await;
                    let then = std::mem::replace(&mut now, Instant::now());
                    taken.push(now - then);
                }
                taken
            });
        }
        clients.join_all().await.concat()
    });
    let took = start.elapsed().as_secs_f64();
    taken.sort_unstable();
    let milliseconds = |part: usize| taken[(taken.len() - 1) * part / 100].as_secs_f64() * 1e3;
    result.rate.add(taken.len() as f64 / took);
    result.median.add(milliseconds(50));
    result.slowest.add(milliseconds(99));
    result.cpu.add((server.cpu() - before) * 1e6 / taken.len() as f64);
}

const CONNECTIONS: usize = 32;
