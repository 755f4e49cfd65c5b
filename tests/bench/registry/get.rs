//! A held blob, fetched by one client: the first time after a start, from the disk and from the system's memory,
//! and again and again.

use super::{
    Sizes,
    harness::image::{digest, random_bytes},
    load::Client,
    peers::{Kind, Server},
    samples::{Samples, head, line, times},
};

/// Parts that are asked for, of a quarter of the blob together.
const PARTS: usize = 32;

#[derive(Default)]
struct Result {
    cold: f64,
    first: f64,
    parts: f64,
    repeated: Samples,
    cpu: Samples,
}

pub fn measure(sizes: Sizes) {
    let blob = random_bytes(1, sizes.blob);
    let name = digest(&blob);
    let target = format!("/v2/bench/blobs/{name}");
    let mut servers = Vec::new();
    if let Some(nginx) = Server::nginx() {
        nginx.put(&target, &blob);
        servers.push(nginx);
    }
    for server in Kind::ALL.into_iter().filter_map(|kind| kind.start(&[])) {
        Client::new(&server.address).push_blob("bench", &name, &blob);
        servers.push(server);
    }
    drop(blob);
    let mut results: Vec<Result> = servers.iter().map(|_| Result::default()).collect();
    for (server, result) in servers.iter_mut().zip(&mut results) {
        server.start_again();
        server.chill();
        result.cold = Client::new(&server.address).get(&target);
        server.start_again();
        // Spread over the blob, none where another was, and none that begins where the server might cut it.
        let starts: Vec<usize> = (0..PARTS).map(|n| n * (sizes.blob / PARTS) + 12_345).collect();
        result.parts = Client::new(&server.address).get_parts(&target, &starts, sizes.blob / PARTS / 4);
        server.start_again();
        result.first = Client::new(&server.address).get(&target);
        assert_eq!(Client::new(&server.address).digest_of(&target), name, "{}", server.name);
    }
    let gibibytes = sizes.blob as f64 / f64::from(1 << 30);
    for _ in 0..sizes.rounds {
        for (server, result) in servers.iter().zip(&mut results) {
            let mut client = Client::new(&server.address);
            let before = server.cpu();
            let turns = [0; 2].map(|_| client.get(&target));
            result.cpu.add((server.cpu() - before) / gibibytes / turns.len() as f64);
            turns.iter().for_each(|rate| result.repeated.add(rate / 1e6));
        }
    }
    println!("GET of {} MiB on one connection; goal: repeated ≥ 1.0 × nginx", sizes.blob >> 20);
    head(&[
        "server",
        "first, cold, MB/s",
        "first, warm, MB/s",
        "first parts, warm, MB/s",
        "repeated, MB/s",
        "waystation is",
        "CPU s/GiB",
    ]);
    let ours = servers.iter().position(|server| server.name == Kind::Waystation.name()).unwrap();
    for (server, result) in servers.iter().zip(&results) {
        line(&[
            server.name.to_owned(),
            format!("{:.0}", result.cold / 1e6),
            format!("{:.0}", result.first / 1e6),
            format!("{:.0}", result.parts / 1e6),
            result.repeated.show(0),
            times(results[ours].repeated.median(), result.repeated.median()),
            result.cpu.show(2),
        ]);
    }
}
