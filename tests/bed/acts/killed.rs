//! The node that fetches from outside is killed when half has come; the others of its site go on.

use std::{thread, time::Duration};

use crate::{
    case::{Outcome, Scene, Skipped},
    fleet::Fleet,
    usage::Moved,
};

const STEP: Duration = Duration::from_millis(20);

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    let undisturbed = super::together::act(scene)?;
    let (fleet, image) = (scene.fleet(&[])?, scene.image());
    fleet.publish("v1", &image);
    let pullers = fleet.away();
    let least = scene.least_time(&fleet, &[0], &pullers, image.blob_bytes());
    let site = fleet.members()[pullers[0]].place.site;
    let patience = scene.patience(&least, pullers.len());
    let before = fleet.moved();
    let race = fleet.pull(&pullers, "v1", &image, patience, |fleet| {
        wait_for_part(fleet, site, image.blob_bytes() / 2, patience);
        fleet.kill(fetcher(fleet, &pullers, &before));
    });
    assert_eq!(race.pulled.len(), pullers.len() - 1, "a pull did not end");
    let mut outcome = scene.outcome(&fleet, &race, &least, image.blob_bytes());
    let (time, usual) = (outcome.value("time max"), undisturbed.value("time max"));
    let (time, usual) = (time.unwrap_or(f64::NAN), usual.unwrap_or(f64::NAN));
    outcome.add("undisturbed", usual, "s");
    outcome.add("time over 1.1 x undisturbed", time - 1.1 * usual, "s");
    Ok(outcome)
}

/// Waits until so many bytes of content came into the site.
pub fn wait_for_part(fleet: &Fleet, site: usize, bytes: u64, patience: Duration) {
    let start = fleet.network.crossed(site);
    let began = std::time::Instant::now();
    let enough = bytes as f64 / crate::case::EFFICIENCY;
    while (fleet.network.crossed(site).since(start).down as f64) < enough {
        assert!(began.elapsed() < patience, "half of the bytes did not come in time");
        thread::sleep(STEP);
    }
}

/// Which of the site got the most from the origin.
fn fetcher(fleet: &Fleet, pullers: &[usize], before: &Moved) -> usize {
    let moved = fleet.moved().since(before);
    let from_origin = |number: &&usize| moved.get(&(0, **number)).copied().unwrap_or(0);
    pullers.iter().max_by_key(from_origin).copied().unwrap_or(pullers[0])
}
