//! Many blobs fetched at the same time, by as many clients, beside many connections that say nothing: how much
//! memory that takes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::{
    Sizes,
    harness::image::{digest, random_bytes},
    load::{Async, Client, get_request, runtime},
    peers::{Kind, Server},
    samples::{head, line},
};

pub fn measure(sizes: Sizes) {
    let mut servers: Vec<Server> = Server::nginx().into_iter().collect();
    servers.extend(Kind::ALL.into_iter().filter_map(|kind| kind.start(&[])));
    let mut targets = Vec::new();
    for n in 0..sizes.parallel {
        let blob = random_bytes(100 + n as u64, sizes.part);
        let name = digest(&blob);
        targets.push(format!("/v2/bench/blobs/{name}"));
        for server in &servers {
            match server.name {
                "nginx" => server.put(&targets[n], &blob),
                _ => Client::new(&server.address).push_blob("bench", &name, &blob),
            }
        }
    }
    println!(
        "{} GETs of {} MiB each at a time beside {} idle connections; goal: memory < 128 MiB",
        sizes.parallel,
        sizes.part >> 20,
        sizes.idle
    );
    head(&[
        "server",
        "MB/s in all",
        "MiB with idle ones",
        "MiB most while busy",
        "MiB peak of process",
        "CPU s/GiB",
    ]);
    for server in &mut servers {
        // What the push took is not asked here.
        server.start_again();
        turn(server, &targets, sizes);
    }
}

fn turn(server: &Server, targets: &[String], sizes: Sizes) {
    let idle = runtime();
    let clients = idle.block_on(async {
        let mut clients = Vec::new();
        for _ in 0..sizes.idle {
            let mut client = Async::new(&server.address, 1024).await;
            client.ask(&get_request("/v2/")).await;
            clients.push(client);
        }
        clients
    });
    let resting = server.memory();
    let before = server.cpu();
    let (took, most) = busy(server, targets);
    let bytes = (targets.len() * sizes.part) as f64;
    line(&[
        server.name.to_owned(),
        format!("{:.0}", bytes / took.as_secs_f64() / 1e6),
        format!("{resting:.1}"),
        format!("{most:.1}"),
        format!("{:.1}", server.peak()),
        format!("{:.2}", (server.cpu() - before) / (bytes / f64::from(1 << 30))),
    ]);
    drop(clients);
}

/// How long it took until all had theirs, and the most memory on the way.
fn busy(server: &Server, targets: &[String]) -> (Duration, f64) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most: f64 = 0.0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(server.memory());
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let start = Instant::now();
        runtime().block_on(async {
            let mut clients = tokio::task::JoinSet::new();
            for target in targets {
                let (address, request) = (server.address.clone(), get_request(target));
                clients.spawn(async move { Async::new(&address, 256 * 1024).await.ask(&request).await });
            }
            clients.join_all().await
        });
        let took = start.elapsed();
        done.store(true, Ordering::Relaxed);
        (took, watch.join().unwrap())
    })
}
