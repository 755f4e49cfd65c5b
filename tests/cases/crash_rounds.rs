//! Kill -9 at random moments of pushing and replicating: nothing acknowledged is lost, nothing wrong is ever
//! served, and both nodes end with everything.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest},
    registry::{Registry, with_query},
};

const ROUNDS: u64 = 50;
/// Images pushed in one round, at most.
const IMAGES: u64 = 8;
/// The longest that a round may take to come up, be checked and be killed, on average.
const ROUND: Duration = Duration::from_secs(3);
const SEED: u64 = 4717;

#[test]
fn nothing_acknowledged_is_lost_in_fifty_crashes() {
    let mut cluster = Cluster::start(2);
    let mut rng = fastrand::Rng::with_seed(SEED);
    let mut acknowledged = vec![];
    let start = Instant::now();
    for round in 0..ROUNDS {
        let delay = Duration::from_millis(rng.u64(0..250));
        let victim = rng.usize(0..2);
        let done = crash_during_pushes(&mut cluster, victim, round, delay);
        if victim == 0 {
            for (tag, image) in &done {
                cluster[0].registry().assert_has("app", tag, image);
            }
        }
        acknowledged.extend(done);
        // Some of what is older, too, so that no crash takes away what an earlier one spared.
        for _ in 0..3.min(acknowledged.len()) {
            let (tag, image) = &acknowledged[rng.usize(0..acknowledged.len())];
            cluster[0].registry().assert_has("app", tag, image);
        }
    }
    let took = start.elapsed();
    eprintln!("{ROUNDS} rounds, {} acknowledged images, {took:?}", acknowledged.len());
    assert!(acknowledged.len() as u64 > ROUNDS / 2, "too few pushes were acknowledged to show anything");
    assert!(took < ROUND * ROUNDS as u32, "{ROUNDS} rounds took {took:?}");
    for (tag, image) in &acknowledged {
        cluster[1].registry().wait_for_tag("app", tag, image);
        cluster[1].registry().assert_has("app", tag, image);
    }
}

/// Pushes at the first node and pulls at the second until one of them is killed; starts it again. Returns
/// what was acknowledged.
fn crash_during_pushes(
    cluster: &mut Cluster,
    victim: usize,
    round: u64,
    delay: Duration,
) -> Vec<(String, Image)> {
    let (publisher, reader) = (cluster[0].registry(), cluster[1].registry());
    let stop = AtomicBool::new(false);
    let done = Mutex::new(vec![]);
    thread::scope(|scope| {
        scope.spawn(|| {
            for n in 0..IMAGES {
                let seed = SEED + round * IMAGES + n;
                let image = Image::random(seed, &[(seed as usize * 7919) % 300_000 + 1, 4000]);
                let tag = format!("r{round}-{n}");
                if stop.load(Ordering::Relaxed) || !try_push(&publisher, &tag, &image) {
                    return;
                }
                done.lock().unwrap().push((tag, image));
            }
        });
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let newest = done.lock().unwrap().last().map(|(tag, image)| (tag.clone(), image.clone()));
                if let Some((tag, image)) = newest {
                    check_what_comes(&reader, &tag, &image);
                }
                thread::yield_now();
            }
        });
        // The moment of the crash: a matter of time, not of an event.
        thread::sleep(delay);
        cluster[victim].kill();
        stop.store(true, Ordering::Relaxed);
    });
    cluster[victim].start_again();
    done.into_inner().unwrap()
}

/// Whether every request was answered with success.
fn try_push(registry: &Registry, tag: &str, image: &Image) -> bool {
    let blobs = image.blobs().all(|blob| {
        let post = registry.http.request("POST", "/v2/app/blobs/uploads/").try_send();
        let Some(session) = post.ok().filter(|answer| answer.status == 202) else { return false };
        let put = with_query(&session.location(), &format!("digest={}", digest(blob)));
        registry.http.request("PUT", &put).body(blob).try_send().is_ok_and(|answer| answer.status == 201)
    });
    let target = format!("/v2/app/manifests/{tag}");
    let manifest = || {
        let request = registry.http.request("PUT", &target).body(&image.manifest);
        request.header("Content-Type", crate::harness::image::MANIFEST_TYPE).try_send()
    };
    blobs && manifest().is_ok_and(|answer| answer.status == 201)
}

/// Whatever is answered as complete is right; that nothing is answered is fine in a crash.
fn check_what_comes(registry: &Registry, tag: &str, image: &Image) {
    let get = |target: &str| registry.http.get(target).try_send().ok().filter(|answer| answer.status == 200);
    if let Some(answer) = get(&format!("/v2/app/manifests/{tag}")) {
        assert_eq!(answer.body, image.manifest, "{tag}: another manifest");
        for blob in image.blobs() {
            if let Some(answer) = get(&format!("/v2/app/blobs/{}", digest(blob))) {
                assert!(answer.body == *blob, "{tag}: wrong bytes under {}", digest(blob));
            }
        }
    }
}
