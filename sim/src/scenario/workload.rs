//! What is published, held and pulled: `[workload]` of a scenario becomes actions.

use toml::Spanned;
use waystation_topology::{Place, Problem, Topology};

use super::{
    actions::{Actions, spread_over},
    content::Library,
    form::{Burst, Moves, Publishes, Rolling, Sleep, Steady, Workload},
    who::Who,
};
use crate::{
    images::{Zipf, exponential},
    setup::{Action, Nanos},
};

/// How pulls spread over artifacts where the file does not say it.
const ZIPF: f64 = 0.9;

/// All of it, publications first: nothing is pulled that nobody ever has.
pub fn add(
    workload: &Workload,
    topology: &Topology,
    library: &mut Library,
    actions: &mut Actions,
) -> Result<(), Problem> {
    for held in &workload.held {
        let at = choose(&held.at, topology, &mut actions.chances("held"))?;
        for artifact in library.find(&held.artifact)? {
            library.appears(artifact, 0);
            for at in &at {
                actions.add(0, Action::Seed { artifact, at: *at })?;
            }
        }
    }
    for publish in &workload.publish {
        let at = publisher(publish.at.as_ref(), topology, &mut actions.chances("publish"))?;
        for artifact in library.find(&publish.artifact)? {
            library.appears(artifact, publish.time.nanos());
            actions.add(publish.time.nanos(), Action::Publish { artifact, at })?;
        }
    }
    for block in &workload.publishes {
        publishes(block, topology, library, actions)?;
    }
    for block in &workload.moves {
        moves(block, topology, library, actions)?;
    }
    for block in &workload.burst {
        burst(block, topology, library, actions)?;
    }
    for block in &workload.rolling {
        rolling(block, topology, library, actions)?;
    }
    for block in &workload.steady {
        steady(block, topology, library, actions)?;
    }
    for block in &workload.sleep {
        sleep(block, topology, actions)?;
    }
    Ok(())
}

/// The nodes that are meant; an error where there is none.
pub fn choose(
    who: &Spanned<Who>,
    topology: &Topology,
    rng: &mut fastrand::Rng,
) -> Result<Vec<Place>, Problem> {
    let nodes = who.get_ref().nodes(topology, rng);
    if nodes.is_empty() {
        let names: Vec<_> = topology.sites.iter().take(5).map(|site| site.name.as_str()).collect();
        let text = format!("chooses no node of this topology (its first sites: {})", names.join(", "));
        return Err(Problem::at(who, text));
    }
    Ok(nodes)
}

/// The first of the nodes that are meant, or of the origin's.
fn publisher(
    who: Option<&Spanned<Who>>,
    topology: &Topology,
    rng: &mut fastrand::Rng,
) -> Result<Place, Problem> {
    let nodes = match who {
        Some(who) => choose(who, topology, rng)?,
        None => Who::origin().nodes(topology, rng),
    };
    nodes.first().copied().ok_or_else(|| Problem::whole("no site is the origin; write origin = true in one"))
}

fn publishes(
    block: &Publishes,
    topology: &Topology,
    library: &mut Library,
    actions: &mut Actions,
) -> Result<(), Problem> {
    let mut rng = actions.chances("publishes");
    let places = match &block.at {
        Some(who) => choose(who, topology, &mut rng)?,
        None => Who::origin().nodes(topology, &mut rng),
    };
    let times = actions.times(&mut rng, block.pace, block.from, block.until);
    for (artifact, at) in library.find(&block.images)?.into_iter().zip(times) {
        library.appears(artifact, at);
        let place = places[rng.usize(0..places.len())];
        actions.add(at, Action::Publish { artifact, at: place })?;
    }
    Ok(())
}

/// Each move publishes a version under the tags of the first one.
fn moves(
    block: &Moves,
    topology: &Topology,
    library: &mut Library,
    actions: &mut Actions,
) -> Result<(), Problem> {
    let mut rng = actions.chances("moves");
    let at = publisher(block.at.as_ref(), topology, &mut rng)?;
    let pullers = match &block.pulled_by {
        Some(who) => choose(who, topology, &mut rng)?,
        None => vec![],
    };
    for mut artifact in library.find(&block.artifact)? {
        let times = actions.times(&mut rng, block.pace, block.from, block.until);
        for (number, time) in times.into_iter().enumerate() {
            artifact = library.version(artifact, number as u64 + 2, block.changes.ratio());
            library.appears(artifact, time);
            actions.add(time, Action::Publish { artifact, at })?;
            for puller in &pullers {
                let when = spread_over(&mut rng, time, block.spread);
                actions.add(when, Action::Pull { artifact, at: *puller })?;
            }
        }
    }
    Ok(())
}

fn burst(
    block: &Burst,
    topology: &Topology,
    library: &Library,
    actions: &mut Actions,
) -> Result<(), Problem> {
    let mut rng = actions.chances("burst");
    let nodes = choose(&block.who, topology, &mut rng)?;
    for (_, artifact) in library.available(&block.artifact)? {
        for at in &nodes {
            let when = spread_over(&mut rng, block.time.nanos(), block.spread);
            actions.add(when, Action::Pull { artifact, at: *at })?;
        }
    }
    Ok(())
}

fn rolling(
    block: &Rolling,
    topology: &Topology,
    library: &Library,
    actions: &mut Actions,
) -> Result<(), Problem> {
    let mut rng = actions.chances("rolling");
    let mut nodes = choose(&block.who, topology, &mut rng)?;
    rng.shuffle(&mut nodes);
    let batch = block.batch.get_ref().of(nodes.len());
    if batch == 0 {
        return Err(Problem::at(&block.batch, "nobody is in a batch; write such as \"20 %\""));
    }
    for (_, artifact) in library.available(&block.artifact)? {
        for (number, at) in nodes.iter().enumerate() {
            let when = block.time.nanos() + block.every.nanos() * (number / batch) as Nanos;
            actions.add(when, Action::Pull { artifact, at: *at })?;
        }
    }
    Ok(())
}

fn steady(
    block: &Steady,
    topology: &Topology,
    library: &Library,
    actions: &mut Actions,
) -> Result<(), Problem> {
    let mut rng = actions.chances("steady");
    let nodes = choose(&block.who, topology, &mut rng)?;
    let available = library.available(&block.artifact)?;
    let alpha = block.zipf.as_ref().map_or(ZIPF, |zipf| *zipf.get_ref());
    if !(0.0..=5.0).contains(&alpha) {
        let text = format!("zipf is {alpha}; popularity falls with the rank to the power of 0 to 5");
        return Err(block
            .zipf
            .as_ref()
            .map_or_else(|| Problem::whole(&text), |zipf| Problem::at(zipf, &text)));
    }
    let zipf = Zipf::new(available.len(), alpha);
    for at in nodes {
        for when in actions.times(&mut rng, block.pace, block.from, block.until) {
            let there = available.partition_point(|(since, _)| *since <= when);
            if let Some(rank) = zipf.draw(&mut rng, there) {
                actions.add(when, Action::Pull { artifact: available[rank].1, at })?;
            }
        }
    }
    Ok(())
}

/// A device that sleeps is one that is off for a while and keeps its disk.
fn sleep(block: &Sleep, topology: &Topology, actions: &mut Actions) -> Result<(), Problem> {
    let mut rng = actions.chances("sleep");
    let until = actions.until(block.until);
    for time in [&block.awake, &block.asleep] {
        if time.get_ref().nanos() == 0 {
            return Err(Problem::at(time, "0 s; write how long on average, such as \"50 min\""));
        }
    }
    for at in choose(&block.who, topology, &mut rng)? {
        let mut time = block.from.nanos() + exponential(&mut rng, block.awake.get_ref().nanos());
        while time < until {
            let down = exponential(&mut rng, block.asleep.get_ref().nanos()).max(1);
            actions.add(time, Action::Crash { at, down: Some(down), loses_disk: false, silent: true })?;
            time = time
                .saturating_add(down)
                .saturating_add(exponential(&mut rng, block.awake.get_ref().nanos()).max(1));
        }
    }
    Ok(())
}
