//! A large blob, pushed as docker does, until it is acknowledged; beside it what one core hashes and what the disk
//! takes. What each server syncs before it acknowledges is counted by strace.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    time::Instant,
};

use super::{
    Sizes,
    harness::{
        image::{digest, random_bytes},
        node::temp_dir,
    },
    load::Client,
    peers::{Kind, Server, in_path},
    samples::{Samples, head, line, times},
};

pub fn measure(sizes: Sizes) {
    let start = || -> Vec<Server> { Kind::ALL.into_iter().filter_map(|kind| kind.start(&[])).collect() };
    let mut servers = start();
    let mut results = vec![(Samples::default(), Samples::default(), Samples::default()); servers.len()];
    let (mut hashed, mut written) = (Samples::default(), Samples::default());
    let megabytes = sizes.blob as f64 / 1e6;
    for round in 0..sizes.rounds {
        if round > 0 {
            // Others begin anew, so that no round needs more of the disk than one blob for each.
            servers.clear();
            servers = start();
        }
        let blob = random_bytes(200 + round as u64, sizes.blob);
        let start = Instant::now();
        let name = digest(&blob);
        hashed.add(megabytes / start.elapsed().as_secs_f64());
        written.add(megabytes / plain(&blob));
        for (server, (rate, cpu, after)) in servers.iter().zip(&mut results) {
            // What is still to be written for others is not this one's to wait for.
            rustix::fs::sync();
            let mut client = Client::new(&server.address);
            let (start, before) = (Instant::now(), server.cpu());
            client.push_blob("bench", &name, &blob);
            rate.add(megabytes / start.elapsed().as_secs_f64());
            let gibibytes = sizes.blob as f64 / f64::from(1 << 30);
            let answered = server.cpu();
            cpu.add((answered - before) / gibibytes);
            server.rest();
            after.add((server.cpu() - answered) / gibibytes);
        }
    }
    let fastest = results[1..].iter().map(|(rate, ..)| rate.median()).fold(f64::NAN, f64::max);
    println!(
        "push of {} MiB: HEAD, POST, PATCH, PUT; goal: ≥ 2 × the fastest peer; it is {}",
        sizes.blob >> 20,
        times(results[0].0.median(), fastest)
    );
    head(&[
        "server",
        "MB/s",
        "waystation is",
        "CPU s/GiB",
        "CPU s/GiB afterwards",
        "synced before the answer",
    ]);
    let ours = results[0].0.median();
    for ((server, kind), (rate, cpu, after)) in servers.iter().zip(Kind::ALL).zip(&results) {
        debug_assert_eq!(server.name, kind.name());
        line(&[
            server.name.to_owned(),
            rate.show(0),
            times(ours, rate.median()),
            cpu.show(2),
            after.show(2),
            syncs(kind, sizes.blob.min(64 << 20)),
        ]);
    }
    for (name, rate) in [("sha256 on one core", hashed), ("plain file and fsync", written)] {
        line(&[name.to_owned(), rate.show(0), times(ours, rate.median())]);
    }
}

/// Seconds to write the same bytes to a file and sync it, with nothing else.
fn plain(bytes: &[u8]) -> f64 {
    rustix::fs::sync();
    let folder = temp_dir("disk");
    let mut file = File::create(folder.path().join("plain")).unwrap();
    let start = Instant::now();
    file.write_all(bytes).unwrap();
    file.sync_all().unwrap();
    start.elapsed().as_secs_f64()
}

/// Which system calls that order or sync what is on disk a push of this size makes.
fn syncs(kind: Kind, size: usize) -> String {
    if in_path("strace").is_none() {
        return "strace is not installed".to_owned();
    }
    let folder = temp_dir("strace");
    let trace = folder.path().join("trace");
    let calls = "fsync,fdatasync,sync_file_range,syncfs,sync,msync,rename,renameat,renameat2,link,linkat";
    let words = ["strace", "-D", "-f", "-qq", "-e", &format!("trace={calls}"), "-o", trace.to_str().unwrap()];
    let Some(server) = kind.start(&words.map(str::to_owned)) else { return String::new() };
    let count = || {
        let text = fs::read_to_string(&trace).unwrap_or_default();
        let calls = text.lines().filter_map(|line| line.split_once('(')?.0.rsplit(' ').next());
        let mut counts = BTreeMap::<String, usize>::new();
        for call in calls.filter(|call| call.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')) {
            *counts.entry(call.to_owned()).or_default() += 1;
        }
        counts
    };
    let before = count();
    let blob = random_bytes(300, size);
    Client::new(&server.address).push_blob("bench", &digest(&blob), &blob);
    let after = count();
    let made = after.iter().map(|(call, n)| (call, n - before.get(call).unwrap_or(&0)));
    let made: Vec<_> = made.filter(|(_, n)| *n > 0).map(|(call, n)| format!("{n} {call}")).collect();
    if made.is_empty() { "nothing".to_owned() } else { made.join(", ") }
}
