//! A second version with nine of ten layers as before.

use crate::{
    case::{Outcome, Scene, Skipped},
    harness::image::{Image, random_bytes},
};

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    let (fleet, first) = (scene.fleet(&[])?, scene.image());
    let mut layers = first.layers.clone();
    let Some(last) = layers.last_mut() else { return Err(Skipped("an artifact without layers".to_owned())) };
    *last = random_bytes(scene.seed ^ 0x5eed, last.len());
    let new = last.len() as u64;
    let second = Image::of(layers);
    let new = new + second.config.len() as u64;
    let pullers = fleet.away();
    for (tag, image) in [("v1", &first), ("v2", &second)] {
        let bytes = if tag == "v2" { new } else { image.blob_bytes() };
        fleet.publish(tag, image);
        let least = scene.least_time(&fleet, &[0], &pullers, bytes);
        let race = fleet.pull(&pullers, tag, image, scene.patience(&least, pullers.len()), |_| ());
        assert_eq!(race.pulled.len(), pullers.len(), "a pull did not end");
        if tag == "v2" {
            let mut outcome = scene.outcome(&fleet, &race, &least, bytes);
            let ratio = outcome.value("WAN blob bytes / content").unwrap_or(f64::NAN);
            outcome.add("WAN blob bytes / new content", ratio, "");
            return Ok(outcome);
        }
    }
    Err(Skipped("there is no second version".to_owned()))
}
