//! The committed fit, `sim/fit/gossip.toml`: what real nodes did on given graphs, and the parameters with which
//! the model does the same. Runs the model on the same graphs; measuring anew is
//! `cargo bench -p waystation --bench gossip_fit`, which has the real nodes.

use serde::{Deserialize, Serialize};

use super::{
    Params,
    figures::Figures,
    graph::{Graph, Shape},
    run::{Outcome, Plan},
};
use crate::{
    random::stream,
    setup::{MILLISECOND, Nanos, SECOND},
};

/// All of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Fit {
    /// The parameters.
    pub params: Params,
    /// What was measured.
    pub case: Vec<Case>,
}

/// A graph and what was measured on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    /// What is looked at.
    pub name: String,
    /// The graph.
    pub shape: Shape,
    /// Links that end while messages spread, in thousandths of all.
    pub cut_permille: usize,
    /// Messages of each size.
    pub messages: usize,
    /// How many nodes had so many neighbours in their mesh at the end: from none on.
    pub mesh: Vec<usize>,
    /// Bytes on the wire for each node and second while nothing is published.
    pub idle: f64,
    /// For each size of messages.
    pub batch: Vec<Batch>,
}

/// What messages of one size cost.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Batch {
    /// Bytes of each.
    pub payload: u64,
    /// What real nodes did.
    pub measured: Figures,
}

/// When what happens in a case, for real nodes and for the model.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Sessions and their delays.
    pub graph: Graph,
    /// What happens over them.
    pub plan: Plan,
    /// From when until when messages of which size are published.
    pub batches: Vec<(Nanos, Nanos, u64)>,
    /// From when until when nothing is done.
    pub idle: (Nanos, Nanos),
}

/// Routers ([`super::run::run`]) or the world's gossip ([`super::world::run`]).
pub type Model = fn(&Params, &Graph, &Plan, u64) -> Outcome;

impl Fit {
    /// The one that is committed.
    ///
    /// # Errors
    /// If the file is not what this version reads.
    pub fn committed() -> Result<Fit, toml::de::Error> {
        toml::from_str(include_str!("../../fit/gossip.toml"))
    }
}

impl Case {
    /// When what happens.
    pub fn schedule(&self, payloads: &[u64]) -> Schedule {
        let graph = self.shape.graph();
        let mut rng = stream(self.shape.seed, 0, "gossip plan");
        let count = graph.links.len() as u64;
        let up = (0..count).map(|n| STARTED + n * DIALLING / count).collect();
        let idle = (STARTED + DIALLING + SETTLING, STARTED + DIALLING + SETTLING + IDLE);
        let (mut at, mut publications, mut batches) = (idle.1, Vec::new(), Vec::new());
        for payload in payloads {
            let from = at;
            for _ in 0..self.messages {
                publications.push((at, rng.usize(0..graph.nodes), *payload));
                at += rng.u64(BETWEEN / 2..BETWEEN * 3 / 2);
            }
            batches.push((from, at, *payload));
            at += PAUSE;
        }
        let mut ends: Vec<usize> = (0..graph.links.len()).collect();
        rng.shuffle(&mut ends);
        ends.truncate(graph.links.len() * self.cut_permille / 1000);
        let last = publications.last().map_or(idle.1, |(at, ..)| *at);
        let cuts = ends.into_iter().map(|link| (rng.u64(idle.1..=last), link)).collect();
        Schedule { graph, plan: Plan { up, cuts, publications, end: at }, batches, idle }
    }

    /// The figures of the model, for each size, and its meshes: the mean of some seeds.
    pub fn modelled(
        &self,
        model: Model,
        params: &Params,
        payloads: &[u64],
        seeds: u64,
    ) -> (Vec<Figures>, Vec<f64>) {
        let schedule = self.schedule(payloads);
        let (mut figures, mut meshes) = (vec![Vec::new(); payloads.len()], Vec::new());
        for seed in 0..seeds {
            let outcome = model(params, &schedule.graph, &schedule.plan, seed);
            for (place, (from, until, _)) in schedule.batches.iter().enumerate() {
                figures[place].push(outcome.trace.figures(*from, *until));
            }
            meshes.extend(outcome.mesh);
        }
        let share = 1.0 / seeds.max(1) as f64;
        let mesh = histogram(&meshes).into_iter().map(|count| count as f64 * share).collect();
        (figures.iter().map(|runs| Figures::mean(runs)).collect(), mesh)
    }

    /// The sizes that were measured.
    pub fn payloads(&self) -> Vec<u64> {
        self.batch.iter().map(|batch| batch.payload).collect()
    }
}

/// How many there are of each number, from none on.
pub fn histogram(numbers: &[usize]) -> Vec<usize> {
    let mut counts = vec![0; numbers.iter().max().map_or(0, |most| most + 1)];
    for number in numbers {
        counts[*number] += 1;
    }
    counts
}

/// The mean of what a histogram counts.
pub fn mean(histogram: &[f64]) -> f64 {
    let sum: f64 = histogram.iter().enumerate().map(|(number, count)| number as f64 * count).sum();
    sum / histogram.iter().sum::<f64>().max(1.0)
}

/// All nodes have started; the last of them a heartbeat after the first.
const STARTED: Nanos = 1500 * MILLISECOND;
/// All sessions are up.
const DIALLING: Nanos = 2 * SECOND;
/// Meshes do not change any more.
const SETTLING: Nanos = 6 * SECOND;
/// How long the idle mesh is watched.
const IDLE: Nanos = 4 * SECOND;
/// Between two messages, about.
const BETWEEN: Nanos = 900 * MILLISECOND;
/// Between two sizes: until nothing is told of any more.
const PAUSE: Nanos = 5 * SECOND;
