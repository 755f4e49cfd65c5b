//! What a setup can be run with: the product's own protocol in the simulated world, or a policy that is implemented
//! anew on the same links. Owns their names; how each of them runs is its own file's.

use crate::{
    baseline::{self, Baseline},
    measure::{Measurement, RunId, Sink},
    setup::{Nanos, Setup},
    world::{How, World},
};

/// Every system that there is; the first is the product.
pub const SYSTEMS: &[&str] = &["waystation", "origin", "site-cache", "whole-blob", "central"];

/// Hears how far a run is: its time, and how many things happened in it.
pub type Progress<'a> = &'a mut dyn FnMut(Nanos, u64);

/// No system has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no system \"{name}\"; write some of {}", SYSTEMS.join(", "))]
pub struct SystemError {
    /// What was given.
    name: String,
}

/// Carries a setup out with the system that the run names, and writes all its measurements.
pub fn carry_out(
    setup: &Setup,
    source: &str,
    run: &RunId,
    sink: &mut dyn Sink,
    progress: Progress<'_>,
) -> Result<(), SystemError> {
    match run.system.as_str() {
        "waystation" => {
            let how = How { source: source.to_owned(), ..How::plain(run.clone()) };
            World::carry_out(setup, &how, sink, progress);
            Ok(())
        }
        name => {
            let Some(baseline) = Baseline::named(name) else {
                return Err(SystemError { name: name.to_owned() });
            };
            baseline::carry_out(setup, baseline, run, source, sink, progress);
            Ok(())
        }
    }
}

/// Whether there are systems of these names.
pub fn check(names: &[String]) -> Result<(), SystemError> {
    match names.iter().find(|name| !SYSTEMS.contains(&name.as_str())) {
        Some(name) => Err(SystemError { name: name.clone() }),
        None if names.is_empty() => Err(SystemError { name: String::new() }),
        None => Ok(()),
    }
}

/// The worst that messages took of any line in any part of a run: their bytes over what the line carries both ways,
/// from 0 to 1. Lines that change are taken as the topology has them.
pub fn control_share(setup: &Setup, measurements: &[Measurement]) -> f64 {
    let share = |measurement: &Measurement| match measurement {
        Measurement::Line { site, seconds, control, .. } => {
            let line = setup.topology.sites.get(*site as usize)?.uplink;
            Some(*control as f64 / ((line.up.bytes() + line.down.bytes()) * seconds))
        }
        _ => None,
    };
    measurements.iter().filter_map(share).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_system() {
        for name in &SYSTEMS[1..] {
            assert_eq!(Baseline::named(name).map(Baseline::name), Some(*name));
        }
        assert_eq!(SYSTEMS.len(), Baseline::ALL.len() + 1);
        let error = check(&["torrent".to_owned()]).unwrap_err().to_string();
        assert_eq!(
            error,
            "there is no system \"torrent\"; write some of waystation, origin, site-cache, whole-blob, central"
        );
    }
}
