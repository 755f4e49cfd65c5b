//! One node pulls what several others have: the one at the last site, from all others.

use std::time::Duration;

use crate::{
    case::{Outcome, Scene, Skipped},
    fleet::{Fleet, REPOSITORY},
    harness::{image::Image, wait::until_within},
};

const PATIENCE: Duration = Duration::from_secs(300);

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    let (fleet, image) = (scene.fleet(&[])?, scene.image());
    let reader = fleet.members().len() - 1;
    let holders: Vec<_> = (0..reader).collect();
    fleet.publish("v1", &image);
    fleet.pull(&holders[1..], "v1", &image, PATIENCE, |_| ());
    wait_until_known(&fleet, reader, &holders, "v1");
    read(scene, &fleet, reader, &holders, &image)
}

/// The reader pulls from holders that it knows of.
pub fn read(
    scene: &Scene,
    fleet: &Fleet,
    reader: usize,
    holders: &[usize],
    image: &Image,
) -> Result<Outcome, Skipped> {
    let least = scene.least_time(fleet, holders, &[reader], image.blob_bytes());
    let race = fleet.pull(&[reader], "v1", image, PATIENCE, |_| ());
    let mut outcome = scene.outcome(fleet, &race, &least, image.blob_bytes());
    let took = race.seconds().first().copied().unwrap_or(f64::NAN);
    outcome.add("rate", image.blob_bytes() as f64 / took / 1e6, "MB/s");
    Ok(outcome)
}

/// Waits until the reader knows these nodes to hold all of the artifact.
pub fn wait_until_known(fleet: &Fleet, reader: usize, holders: &[usize], tag: &str) {
    let reader = &fleet.members()[reader].node;
    until_within(PATIENCE, "the holders are known", || {
        let told = reader.cli(&["inspect", &format!("{REPOSITORY}:{tag}"), "--json"]);
        let known = |holder: &usize| told.stdout.contains(fleet.members()[*holder].node.id());
        (told.code == 0 && holders.iter().all(known)).then_some(())
    });
}
