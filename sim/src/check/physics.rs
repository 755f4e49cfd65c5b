//! Nothing beats physics: no transfer ends before the bound of its cuts, and no line carries more than its rate
//! allows. Reads measurements, so it holds for whatever wrote them. Where it finds something, the simulator is wrong.

use std::collections::{BTreeMap, BTreeSet};

use waystation_topology::{Place, Topology, Transfer};

use crate::{
    account::fastest,
    measure::Measurement,
    setup::{Action, Nanos, SECOND, Setup},
};

/// Whether the measurements of one run of a setup can be.
pub fn possible(setup: &Setup, measurements: &[Measurement]) -> Result<(), String> {
    let topology = fastest(setup);
    lines(setup, measurements)?;
    (0..setup.artifacts.len()).try_for_each(|artifact| transfer(setup, &topology, artifact, measurements))
}

/// No bucket of a line has more bytes than its best rate in that time, and one unit that straddles its end.
fn lines(setup: &Setup, measurements: &[Measurement]) -> Result<(), String> {
    for measurement in measurements {
        let Measurement::Line { site, from, seconds, up, down, .. } = measurement else { continue };
        let number = *site as usize;
        let Some(here) = setup.topology.sites.get(number) else {
            return Err(format!("a line of site {number} was measured, which there is not"));
        };
        let window = (nanos(*from), nanos(from + seconds));
        let best = |first: u64, rate: fn(u64, u64) -> u64| best_rate(setup, number, window, first, rate);
        let (best_up, best_down) =
            (best(here.uplink.up.bits(), |up, _| up), best(here.uplink.down.bits(), |_, down| down));
        for (way, bytes, rate) in [("out of", *up, best_up), ("into", *down, best_down)] {
            let most = rate as f64 / 8.0 * seconds * efficiency(setup) * TOLERANCE + STRADDLING;
            if bytes as f64 > most {
                let name = &here.name;
                return Err(format!(
                    "{bytes} bytes went {way} {name} from {from} s on in {seconds} s; {most:.0} can at {rate} bit/s"
                ));
            }
        }
    }
    Ok(())
}

/// The best rate that a line had in a time: what it had at its beginning, and what it was given in it.
fn best_rate(
    setup: &Setup,
    site: usize,
    (from, to): (Nanos, Nanos),
    first: u64,
    rate: fn(u64, u64) -> u64,
) -> u64 {
    let (mut at_start, mut best_after) = (first, 0);
    for (at, action) in &setup.actions {
        let Action::Line { site: of, up, down } = action else { continue };
        if *of != site || *at >= to {
            continue;
        }
        if *at <= from {
            at_start = rate(*up, *down);
        } else {
            best_after = best_after.max(rate(*up, *down));
        }
    }
    at_start.max(best_after)
}

/// All who pulled an artifact and had none of it take at least as long, from the first question to the last answer,
/// as its own bytes take over the tightest cut.
fn transfer(
    setup: &Setup,
    topology: &Topology,
    artifact: usize,
    measurements: &[Measurement],
) -> Result<(), String> {
    let bytes = own_bytes(setup, artifact);
    let mut holders = BTreeSet::new();
    for (_, action) in &setup.actions {
        match action {
            Action::Publish { artifact: of, at } | Action::Seed { artifact: of, at } if *of == artifact => {
                holders.insert(*at);
            }
            _ => {}
        }
    }
    // Each node's first pull that was done: what it has later it may have from then.
    let mut pulls: BTreeMap<Place, (f64, f64)> = BTreeMap::new();
    let mut asked_first = f64::INFINITY;
    for measurement in measurements {
        let Measurement::Pull { artifact: of, site, node, asked, done, .. } = measurement else { continue };
        let place = Place { site: *site as usize, node: *node as usize };
        if *of as usize != artifact || holders.contains(&place) {
            continue;
        }
        // Bytes may have come for somebody whose own pull never ended.
        asked_first = asked_first.min(*asked);
        if let Some(done) = done {
            let first = pulls.entry(place).or_insert((*asked, *done));
            *first = (first.0.min(*asked), first.1.min(*done));
        }
    }
    let Some(last) = pulls.values().map(|(_, done)| *done).max_by(f64::total_cmp) else { return Ok(()) };
    if holders.is_empty() {
        return Err(format!("artifact {artifact} was pulled by {} nodes, but nobody had it", pulls.len()));
    }
    let transfer = Transfer {
        bytes,
        holders: holders.into_iter().collect(),
        wanters: pulls.keys().copied().collect(),
        efficiency: efficiency(setup),
    };
    let least = transfer.least_time(topology);
    let took = last - asked_first;
    if took * TOLERANCE < least.seconds {
        let (cut, seconds) = (least.cut, least.seconds);
        return Err(format!(
            "artifact {artifact} was everywhere in {took:.6} s; over {cut} it takes {seconds:.6} s"
        ));
    }
    Ok(())
}

/// Bytes of the layers that no other artifact has, each once.
fn own_bytes(setup: &Setup, artifact: usize) -> u64 {
    let others = setup.artifacts.iter().enumerate().filter(|(number, _)| *number != artifact);
    let shared: BTreeSet<&str> =
        others.flat_map(|(_, other)| &other.layers).map(|layer| layer.content.as_str()).collect();
    let own: BTreeMap<&str, u64> = setup.artifacts[artifact]
        .layers
        .iter()
        .filter(|layer| !shared.contains(layer.content.as_str()))
        .map(|layer| (layer.content.as_str(), layer.bytes))
        .collect();
    own.values().sum()
}

fn efficiency(setup: &Setup) -> f64 {
    f64::from(setup.network.efficiency) / 1e6
}

fn nanos(seconds: f64) -> Nanos {
    (seconds.max(0.0) * SECOND as f64) as Nanos
}

/// For what is rounded to whole bytes and nanoseconds.
const TOLERANCE: f64 = 1.000_1;
/// Bytes that may be counted in the bucket in which they end.
const STRADDLING: f64 = 64.0 * 1024.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        measure::RunId,
        setup::{Artifact, Layer, Network, Start},
    };

    /// A cloud with 8 Mbit/s out of it, and two sites; 1 MB takes one second over that line.
    fn setup() -> Setup {
        let text = r#"
            [[site]]
            name = "cloud"
            tier = "cloud"
            origin = true
            nodes = 1
            lan = { rate = "1 Gbit/s" }
            uplink = { up = "8 Mbit/s", down = "8 Mbit/s" }

            [[site]]
            name = "edge"
            tier = "edge"
            nodes = 2
            lan = { rate = "1 Gbit/s" }
            uplink = { up = "100 Mbit/s", down = "100 Mbit/s" }
        "#;
        let at = Place { site: 0, node: 0 };
        let layer = Layer { content: "one".into(), bytes: 1_000_000 };
        Setup {
            name: "test".into(),
            seed: 1,
            topology: Topology::parse(std::path::Path::new("test.toml"), text).expect("a topology"),
            network: Network { efficiency: 1_000_000, ..Network::default() },
            artifacts: vec![Artifact { repository: "a/b".into(), tags: vec![], layers: vec![layer] }],
            upstream: None,
            start: Start::Warm,
            actions: vec![(0, Action::Seed { artifact: 0, at })],
            end: 100 * SECOND,
            bucket: SECOND,
        }
    }

    fn run() -> RunId {
        RunId { system: "waystation".into(), seed: 1, variant: String::new() }
    }

    fn pull(node: u64, asked: f64, done: Option<f64>) -> Measurement {
        Measurement::Pull {
            run: run(),
            artifact: 0,
            bytes: 1_000_000,
            site: 1,
            node,
            asked,
            first_byte: done,
            done,
        }
    }

    fn line(site: u64, from: f64, up: u64, down: u64) -> Measurement {
        Measurement::Line { run: run(), site, from, seconds: 1.0, up, down, control: 0 }
    }

    #[test]
    fn a_pull_that_beats_its_cut_is_found() {
        assert_eq!(possible(&setup(), &[pull(0, 5.0, Some(6.01))]), Ok(()));
        assert_eq!(possible(&setup(), &[pull(0, 5.0, None)]), Ok(()));
        let beaten = possible(&setup(), &[pull(0, 5.0, Some(5.9))]);
        assert!(beaten.is_err_and(|text| text.contains("artifact 0 was everywhere")));
        // What another's unfinished pull has brought to the site already may be there.
        assert_eq!(possible(&setup(), &[pull(0, 4.0, None), pull(1, 5.0, Some(5.9))]), Ok(()));
        let nobody = Setup { actions: vec![], ..setup() };
        assert!(
            possible(&nobody, &[pull(0, 5.0, Some(9.0))]).is_err_and(|text| text.contains("nobody had it"))
        );
    }

    #[test]
    fn a_line_that_carries_more_than_its_rate_is_found() {
        assert_eq!(possible(&setup(), &[line(0, 3.0, 1_000_000, 900_000)]), Ok(()));
        let out = possible(&setup(), &[line(0, 3.0, 1_200_000, 0)]);
        assert!(out.is_err_and(|text| text.contains("out of cloud")));
        assert!(
            possible(&setup(), &[line(0, 3.0, 0, 1_200_000)]).is_err_and(|text| text.contains("into cloud"))
        );
        assert!(possible(&setup(), &[line(7, 3.0, 0, 0)]).is_err());
    }

    #[test]
    fn a_line_counts_with_the_rates_that_it_has_at_the_time() {
        let mut faster = setup();
        faster.actions.push((5 * SECOND, Action::Line { site: 0, up: 16_000_000, down: 8_000_000 }));
        faster.actions.push((9 * SECOND, Action::Line { site: 0, up: 0, down: 8_000_000 }));
        assert!(possible(&faster, &[line(0, 3.0, 2_000_000, 0)]).is_err(), "before it was fast");
        assert_eq!(possible(&faster, &[line(0, 4.5, 2_000_000, 0)]), Ok(()));
        assert_eq!(possible(&faster, &[line(0, 7.0, 2_000_000, 0)]), Ok(()));
        assert!(possible(&faster, &[line(0, 10.0, 100_000, 0)]).is_err(), "when it was cut");
        assert_eq!(possible(&faster, &[pull(0, 5.0, Some(5.6))]), Ok(()), "bounds use the best rate");
    }
}
