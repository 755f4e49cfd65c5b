//! The site's line is cut when half has come, and mended a minute later.

use std::{
    cell::Cell,
    thread,
    time::{Duration, Instant},
};

use super::killed::wait_for_part;
use crate::case::{EFFICIENCY, Outcome, Scene, Skipped};

const CUT: Duration = Duration::from_secs(60);
const CUT_QUICK: Duration = Duration::from_secs(15);

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    let (fleet, image) = (scene.fleet(&[])?, scene.image());
    fleet.publish("v1", &image);
    let pullers = fleet.away();
    let least = scene.least_time(&fleet, &[0], &pullers, image.blob_bytes());
    let site = fleet.members()[pullers[0]].place.site;
    let cut = if scene.quick { CUT_QUICK } else { CUT };
    let patience = scene.patience(&least, pullers.len()) + cut;
    let (before, start) = (fleet.moved(), Instant::now());
    let (arrived, mended) = (Cell::new(0), Cell::new(Duration::ZERO));
    let race = fleet.pull(&pullers, "v1", &image, patience, |fleet| {
        wait_for_part(fleet, site, image.blob_bytes() / 2, patience);
        fleet.network.cut(site);
        let began = Instant::now();
        // Nothing comes any more, so what is told now is what had come.
        let moved = fleet.moved().since(&before);
        let into = moved.iter().filter(|((from, to), _)| !fleet.is_at(*from, site) && fleet.is_at(*to, site));
        arrived.set(into.map(|(_, bytes)| bytes).sum::<u64>());
        thread::sleep(cut.saturating_sub(began.elapsed()));
        fleet.network.mend(site);
        mended.set(start.elapsed());
    });
    assert_eq!(race.pulled.len(), pullers.len(), "a pull did not end");
    let mut outcome = scene.outcome(&fleet, &race, &least, image.blob_bytes());
    let left = image.blob_bytes().saturating_sub(arrived.get());
    let link = left as f64 / (scene.topology.sites[site].uplink.down.bytes() * EFFICIENCY);
    let last = race.seconds().last().copied().unwrap_or(f64::NAN);
    outcome.add("cut for", cut.as_secs_f64(), "s");
    outcome.add("the link's time for what was left", link, "s");
    outcome.add("after the cut, over the link's time", last - mended.get().as_secs_f64() - link, "s");
    Ok(outcome)
}
