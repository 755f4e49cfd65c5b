//! A limit is set while a fetch runs at full speed, and a client pulls something small meanwhile.

use std::{
    thread,
    time::{Duration, Instant},
};

use crate::{
    case::{Outcome, Scene, Skipped},
    fleet::REPOSITORY,
    harness::{image::Image, node::waystation},
};

/// What is set, and how.
const LIMIT_BITS: f64 = 10e6;
const SET: &[&str] = &["budget", "set", "--down", "10 Mbit/s"];
/// From the setting until it must hold.
const GRACE: Duration = Duration::from_secs(2);
/// How long it is looked at.
const WINDOW: Duration = Duration::from_secs(10);
const RUN_UP: Duration = Duration::from_secs(3);
const SMALL_BYTES: usize = 4 << 20;

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    if waystation(&["budget", "set", "--help"], None).code != 0 {
        return Err(Skipped("this binary has no `waystation budget set`".to_owned()));
    }
    let (fleet, large) = (scene.fleet(&[])?, scene.image());
    let small = Image::random(scene.seed ^ 0x5eed, &[SMALL_BYTES]);
    fleet.publish("large", &large);
    fleet.publish("small", &small);
    let reader = fleet.away()[0];
    let site = fleet.members()[reader].place.site;
    let node = &fleet.members()[reader].node;
    // Whoever gets the manifest is about to want the rest: the node fetches it without being asked again.
    fleet.on(reader, || node.registry().manifest(REPOSITORY, "large").expect(200));
    let rate_over = |time: Duration| {
        let (start, then) = (Instant::now(), fleet.network.crossed(site));
        thread::sleep(time);
        fleet.network.crossed(site).since(then).down as f64 * 8.0 / start.elapsed().as_secs_f64()
    };
    let before = rate_over(RUN_UP);
    let set = node.cli(SET);
    if set.code != 0 {
        return Err(Skipped(format!("`waystation {}` says: {}", SET.join(" "), set.stderr.trim())));
    }
    thread::sleep(GRACE);
    let after = rate_over(WINDOW);
    let pulled = Instant::now();
    fleet.on(reader, || node.registry().pull(REPOSITORY, "small"));
    let took = pulled.elapsed().as_secs_f64();
    let mut outcome = Outcome::default();
    outcome.add("before", before / 1e6, "Mbit/s");
    outcome.add("from 2 s after", after / 1e6, "Mbit/s");
    outcome.add("from 2 s after / limit", after / LIMIT_BITS, "");
    outcome.add("a client's rate meanwhile", small.blob_bytes() as f64 * 8.0 / took / 1e6, "Mbit/s");
    scene.mark(&fleet, &mut outcome);
    Ok(outcome)
}
