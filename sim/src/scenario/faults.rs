//! What goes wrong: `[fault]` of a scenario becomes actions.

use toml::Spanned;
use waystation_topology::{Pace, Problem, Time, Topology};

use super::{
    actions::{Actions, spread_over},
    content::Library,
    form::{Clock, Crash, DiskFor, Faults, Lies, Line, Rot, Stale, Ways},
    who::Who,
    workload::choose,
};
use crate::setup::{Action, DiskState, Nanos};

/// All of it.
pub fn add(
    faults: &Faults,
    topology: &Topology,
    library: &Library,
    actions: &mut Actions,
) -> Result<(), Problem> {
    for block in &faults.crash {
        crash(block, topology, actions)?;
    }
    for block in &faults.join {
        let mut rng = actions.chances("join");
        for at in choose(&block.who, topology, &mut rng)? {
            actions.add(spread_over(&mut rng, block.time.nanos(), block.spread), Action::Join { at })?;
        }
    }
    for block in &faults.leave {
        let mut rng = actions.chances("leave");
        for at in choose(&block.who, topology, &mut rng)? {
            let action = Action::Crash { at, down: None, loses_disk: false, silent: false };
            actions.add(spread_over(&mut rng, block.time.nanos(), block.spread), action)?;
        }
    }
    for block in &faults.away {
        let mut rng = actions.chances("away");
        for at in choose(&block.who, topology, &mut rng)? {
            let down = Some(spread_over(&mut rng, block.lasts.nanos(), block.spread));
            actions.add(block.time.nanos(), Action::Crash { at, down, loses_disk: false, silent: true })?;
        }
    }
    cuts(faults, topology, actions)?;
    for block in &faults.clock {
        clock(block, topology, actions)?;
    }
    for block in &faults.lies {
        lies(block, topology, actions)?;
    }
    for (blocks, state) in [(&faults.disk_full, DiskState::Full), (&faults.disk_slow, DiskState::Slow)] {
        blocks.iter().try_for_each(|block| disk(block, state, topology, actions))?;
    }
    for block in &faults.stale {
        stale(block, topology, actions)?;
    }
    for block in &faults.rot {
        rot(block, topology, library, actions)?;
    }
    for block in &faults.line {
        line(block, topology, actions)?;
    }
    Ok(())
}

/// What separates sites: partitions, outages of the origin, power cuts.
fn cuts(faults: &Faults, topology: &Topology, actions: &mut Actions) -> Result<(), Problem> {
    for spanned in &faults.partition {
        let block = spanned.get_ref();
        let mut rng = actions.chances("partition");
        let (both, lasts) = (block.ways == Ways::Both, block.lasts.nanos());
        for time in times(spanned, (block.time, block.pace, block.from, block.until), actions, &mut rng)? {
            let sites = choose_sites(&block.sites, topology, &mut rng)?;
            actions.add(time, Action::Partition { sites, both, lasts })?;
        }
    }
    for block in &faults.outage {
        let sites = vec![topology.origin()];
        let action = Action::Partition { sites, both: true, lasts: block.lasts.nanos() };
        actions.add(block.time.nanos(), action)?;
    }
    for spanned in &faults.power_cut {
        let block = spanned.get_ref();
        let mut rng = actions.chances("power cut");
        for time in times(spanned, (block.time, block.pace, block.from, block.until), actions, &mut rng)? {
            for site in choose_sites(&block.sites, topology, &mut rng)? {
                actions.add(time, Action::PowerCut { site, down: block.lasts.nanos() })?;
            }
        }
    }
    Ok(())
}

/// At a time all that are meant; at a pace one after the other, any of them.
fn crash(spanned: &Spanned<Crash>, topology: &Topology, actions: &mut Actions) -> Result<(), Problem> {
    let block = spanned.get_ref();
    let mut rng = actions.chances("crash");
    let nodes = choose(&block.who, topology, &mut rng)?;
    let action = |at| Action::Crash {
        at,
        down: Some(block.down.nanos()),
        loses_disk: block.loses_disk,
        silent: block.silent,
    };
    for time in times(spanned, (block.time, block.pace, block.from, block.until), actions, &mut rng)? {
        if block.pace.is_some() {
            actions.add(time, action(nodes[rng.usize(0..nodes.len())]))?;
        } else {
            nodes.iter().try_for_each(|at| actions.add(time, action(*at)))?;
        }
    }
    Ok(())
}

fn clock(spanned: &Spanned<Clock>, topology: &Topology, actions: &mut Actions) -> Result<(), Problem> {
    let block = spanned.get_ref();
    let seconds = match (block.ahead, block.behind) {
        (Some(time), None) => time.seconds() as i64,
        (None, Some(time)) => -(time.seconds() as i64),
        _ => return Err(Problem::at(spanned, "write one of ahead = \"1 h\" and behind = \"1 h\"")),
    };
    for at in choose(&block.who, topology, &mut actions.chances("clock"))? {
        actions.add(block.time.nanos(), Action::Clock { at, seconds })?;
    }
    Ok(())
}

fn lies(spanned: &Spanned<Lies>, topology: &Topology, actions: &mut Actions) -> Result<(), Problem> {
    let block = spanned.get_ref();
    let every = block.every.unwrap_or(1);
    if every == 0 {
        return Err(Problem::at(spanned, "every = 0; write 1 for every request, 10 for one of ten"));
    }
    for at in choose(&block.who, topology, &mut actions.chances("lies"))? {
        actions.add(block.time.nanos(), Action::Lies { at, every })?;
    }
    Ok(())
}

fn disk(
    block: &DiskFor,
    state: DiskState,
    topology: &Topology,
    actions: &mut Actions,
) -> Result<(), Problem> {
    let purpose = if state == DiskState::Full { "disk full" } else { "disk slow" };
    for at in choose(&block.who, topology, &mut actions.chances(purpose))? {
        actions.add(block.time.nanos(), Action::Disk { at, state })?;
        if let Some(lasts) = block.lasts {
            let over = Action::Disk { at, state: DiskState::Works };
            actions.add(block.time.nanos() + lasts.nanos(), over)?;
        }
    }
    Ok(())
}

fn stale(block: &Stale, topology: &Topology, actions: &mut Actions) -> Result<(), Problem> {
    for at in choose(&block.who, topology, &mut actions.chances("stale"))? {
        actions.add(block.time.nanos(), Action::Remember { at })?;
        let back = Action::Stale { at, down: block.down.nanos() };
        actions.add(block.time.nanos() + block.lasts.nanos(), back)?;
    }
    Ok(())
}

fn rot(
    spanned: &Spanned<Rot>,
    topology: &Topology,
    library: &Library,
    actions: &mut Actions,
) -> Result<(), Problem> {
    let block = spanned.get_ref();
    let mut rng = actions.chances("rot");
    let nodes = choose(&block.who, topology, &mut rng)?;
    let artifacts = library.find(&block.artifact)?;
    for time in times(spanned, (block.time, block.pace, block.from, block.until), actions, &mut rng)? {
        if block.pace.is_some() {
            let (at, artifact) = (nodes[rng.usize(0..nodes.len())], artifacts[rng.usize(0..artifacts.len())]);
            actions.add(time, Action::Rot { at, artifact })?;
        } else {
            for at in &nodes {
                artifacts
                    .iter()
                    .try_for_each(|a| actions.add(time, Action::Rot { at: *at, artifact: *a }))?;
            }
        }
    }
    Ok(())
}

fn line(block: &Line, topology: &Topology, actions: &mut Actions) -> Result<(), Problem> {
    for site in choose_sites(&block.sites, topology, &mut actions.chances("line"))? {
        let change = Action::Line { site, up: block.up.bits(), down: block.down.bits() };
        actions.add(block.time.nanos(), change)?;
        if let Some(lasts) = block.lasts {
            let before = topology.sites[site].uplink;
            let back = Action::Line { site, up: before.up.bits(), down: before.down.bits() };
            actions.add(block.time.nanos() + lasts.nanos(), back)?;
        }
    }
    Ok(())
}

/// The sites that are meant; an error where there is none.
fn choose_sites(
    who: &Spanned<Who>,
    topology: &Topology,
    rng: &mut fastrand::Rng,
) -> Result<Vec<usize>, Problem> {
    let sites = who.get_ref().sites(topology, rng);
    if sites.is_empty() {
        return Err(Problem::at(who, "chooses no site of this topology"));
    }
    Ok(sites)
}

/// When a fault happens: once at a time, or again and again at a pace.
fn times<T>(
    block: &Spanned<T>,
    (time, pace, from, until): (Option<Time>, Option<Pace>, Time, Option<Time>),
    actions: &Actions,
    rng: &mut fastrand::Rng,
) -> Result<Vec<Nanos>, Problem> {
    match (time, pace) {
        (Some(time), None) => Ok(vec![time.nanos()]),
        (None, Some(pace)) => Ok(actions.times(rng, pace, from, until)),
        _ => Err(Problem::at(
            block,
            "write one of time = \"1 h\" (once) and pace = \"6 per hour\" (at random)",
        )),
    }
}
