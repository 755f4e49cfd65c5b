//! An image of many small layers, pushed as docker does: five layers at a time, then the manifest.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::Instant,
};

use super::{
    Sizes,
    harness::image::{Image, digest},
    load::Client,
    peers::{Kind, Server},
    samples::{Samples, head, line, times},
};

pub fn measure(sizes: Sizes) {
    let servers: Vec<Server> = Kind::ALL.into_iter().filter_map(|kind| kind.start(&[])).collect();
    let mut results = vec![(Samples::default(), Samples::default()); servers.len()];
    // From 1 KiB to 64 KiB.
    let lengths: Vec<usize> = (0..sizes.layers).map(|n| 1024 << (n % 7)).collect();
    for round in 0..sizes.rounds {
        let image = Image::random(300 + round as u64, &lengths);
        let blobs: Vec<(String, &Vec<u8>)> = image.blobs().map(|blob| (digest(blob), blob)).collect();
        for (server, (rate, cpu)) in servers.iter().zip(&mut results) {
            let (start, before) = (Instant::now(), server.cpu());
            push(server, &image, &blobs, &format!("v{round}"));
            rate.add(start.elapsed().as_secs_f64() * 1e3);
            cpu.add((server.cpu() - before) * 1e3);
        }
    }
    println!(
        "push of an image with {} layers of 1 to 64 KiB, {AT_ONCE} at a time; goal: ≥ 2 × as fast as docker-registry",
        sizes.layers
    );
    head(&["server", "ms", "waystation is", "CPU ms"]);
    let ours = results[0].0.median();
    for (server, (took, cpu)) in servers.iter().zip(&results) {
        line(&[server.name.to_owned(), took.show(0), times(took.median(), ours), cpu.show(0)]);
    }
}

fn push(server: &Server, image: &Image, blobs: &[(String, &Vec<u8>)], tag: &str) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                let mut client = Client::new(&server.address);
                while let Some((name, blob)) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    client.push_blob("layers", name, blob);
                }
            });
        }
    });
    Client::new(&server.address).push_manifest("layers", tag, &image.manifest);
}

/// docker's `max-concurrent-uploads`.
const AT_ONCE: usize = 5;
