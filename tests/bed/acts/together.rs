//! All nodes that are not at the origin pull at once.

use crate::case::{Outcome, Scene, Skipped};

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    let (fleet, image) = (scene.fleet(&[])?, scene.image());
    fleet.publish("v1", &image);
    let pullers = fleet.away();
    let least = scene.least_time(&fleet, &[0], &pullers, image.blob_bytes());
    let race = fleet.pull(&pullers, "v1", &image, scene.patience(&least, pullers.len()), |_| ());
    assert_eq!(race.pulled.len(), pullers.len(), "a pull did not end");
    Ok(scene.outcome(&fleet, &race, &least, image.blob_bytes()))
}
