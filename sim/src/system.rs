//! What can be run: the product's own protocol in the simulated world, or a policy that is implemented anew on the
//! same links. Owns the form that they share, and what every run says of itself, whichever system runs.

use waystation_topology::{Place, Transfer};

use crate::{
    measure::{Measurement, RunId, Sink},
    setup::{Action, Nanos, Setup},
};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// On the world's clock.
    pub now: Nanos,
    /// What happened until then.
    pub events: u64,
}

/// Something that carries out a setup.
pub trait System {
    /// Its name in every measurement.
    fn name(&self) -> &'static str;

    /// Runs it and writes what is measured, but for what [`begin`] writes. Says now and then how far it is.
    fn carry_out(&self, setup: &Setup, run: &RunId, sink: &mut dyn Sink, progress: &mut dyn FnMut(Progress));
}

/// The first measurements of every run: what it is, and what nothing can beat in it.
pub fn begin(setup: &Setup, source: &str, run: &RunId, sink: &mut dyn Sink) {
    sink.take(Measurement::Run {
        run: run.clone(),
        scenario: setup.name.clone(),
        source: source.to_owned(),
        nodes: setup.topology.places().count() as u64,
        sites: setup.topology.sites.iter().map(|site| site.name.clone()).collect(),
    });
    for (artifact, transfer) in bursts(setup) {
        let bound = transfer.least_time(&setup.topology);
        sink.take(Measurement::Bound {
            run: run.clone(),
            artifact: artifact as u64,
            bytes: transfer.bytes,
            cut: bound.cut,
            seconds: bound.seconds,
        });
    }
}

/// The artifacts that are pulled by several nodes at one time and at no other, as transfers from those who have them
/// before to those who pull. For others no least time is known: what they share with earlier pulls is not looked at.
/// Where several are pulled at once, each bound is that of the artifact alone.
pub fn bursts(setup: &Setup) -> Vec<(usize, Transfer)> {
    let mut holders: Vec<Vec<Place>> = vec![vec![]; setup.artifacts.len()];
    let mut pulls: Vec<Vec<(Nanos, Place)>> = vec![vec![]; setup.artifacts.len()];
    for (when, action) in &setup.actions {
        match action {
            Action::Publish { artifact, at } | Action::Seed { artifact, at } => holders[*artifact].push(*at),
            Action::Pull { artifact, at } => pulls[*artifact].push((*when, *at)),
            _ => {}
        }
    }
    let efficiency = f64::from(setup.network.efficiency) / 1e6;
    let transfer = |artifact: usize| {
        let (from, pulls) = (&holders[artifact], &pulls[artifact]);
        let at_once = pulls.iter().all(|(when, _)| *when == pulls[0].0);
        let mut wanters: Vec<Place> =
            pulls.iter().map(|(_, at)| *at).filter(|at| !from.contains(at)).collect();
        wanters.sort_unstable();
        wanters.dedup();
        let bytes = distinct_bytes(setup, artifact);
        (at_once && !from.is_empty() && !wanters.is_empty())
            .then(|| (artifact, Transfer { bytes, holders: from.clone(), wanters, efficiency }))
    };
    (0..setup.artifacts.len()).filter_map(transfer).collect()
}

/// Equal layers of an artifact move once.
fn distinct_bytes(setup: &Setup, artifact: usize) -> u64 {
    let mut layers: Vec<_> = setup.artifacts[artifact].layers.iter().collect();
    layers.sort_unstable();
    layers.dedup();
    layers.iter().map(|layer| layer.bytes).sum()
}
