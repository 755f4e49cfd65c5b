//! What a setup can be run with: the product's own protocol in the simulated world, or a policy that is implemented
//! anew on the same links. Owns their names; how each of them runs is its own file's.

use crate::{
    measure::{RunId, Sink},
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
        name => Err(SystemError { name: name.to_owned() }),
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
