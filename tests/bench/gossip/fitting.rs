//! From what was observed to the parameters of the model.

use std::collections::BTreeMap;

use libp2p::gossipsub;
use waystation::control;
use waystation_sim::gossipsub::{
    figures::Kind,
    fit::Schedule,
    params::{Params, Rules, Wire, Work},
};

use crate::nodes::Observed;

/// A case and what happened in it.
pub struct Sample {
    pub schedule: Schedule,
    pub observed: Observed,
}

pub fn params(samples: &[Sample]) -> Params {
    let wire = wire(samples);
    let config = control::gossip_config().unwrap();
    Params { rules: rules(&config, wire.publish), wire, work: work(samples) }
}

fn rules(config: &gossipsub::Config, publish: u64) -> Rules {
    let milliseconds = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap();
    Rules {
        mesh: config.mesh_n(),
        mesh_low: config.mesh_n_low(),
        mesh_high: config.mesh_n_high(),
        mesh_outbound: config.mesh_outbound_min(),
        lazy: config.gossip_lazy(),
        lazy_permille: (config.gossip_factor() * 1000.0) as usize,
        heartbeat_ms: milliseconds(config.heartbeat_interval()),
        first_heartbeat_ms: milliseconds(config.heartbeat_initial_delay()),
        history: config.history_length(),
        history_gossip: config.history_gossip(),
        seen_ms: milliseconds(config.duplicate_cache_time()),
        backoff_ms: milliseconds(config.prune_backoff()),
        backoff_slack: config.backoff_slack().into(),
        flood_publish: config.flood_publish(),
        unwanted_above: (config.idontwant_message_size_threshold() as u64).saturating_sub(publish - FRAME),
        retransmissions: config.gossip_retransimission(),
    }
}

fn wire(samples: &[Sample]) -> Wire {
    let frames = || samples.iter().flat_map(|sample| &sample.observed.entries.frames);
    let of = |kind: Kind| frames().filter(move |frame| frame.kind == kind);
    let mean = |kind: Kind, name: u64| {
        let (mut sum, mut count) = (0, 0);
        for frame in of(kind) {
            sum += frame.bytes - name * frame.content;
            count += 1;
        }
        (sum + count / 2).checked_div(count).unwrap_or(0)
    };
    let haves: Vec<(f64, f64)> =
        of(Kind::Have).map(|frame| (frame.content as f64, frame.bytes as f64)).collect();
    let name = slope(&haves) as u64;
    let (below, ppm) = below(samples);
    Wire {
        publish: mean(Kind::Publish, 1),
        have: mean(Kind::Have, name),
        want: mean(Kind::Want, name),
        unwanted: mean(Kind::Unwanted, name),
        name,
        graft: mean(Kind::Graft, 0),
        prune: mean(Kind::Prune, 0),
        hello: mean(Kind::Hello, 0),
        below: below.round().max(0.0) as u64,
        below_ppm: (ppm * 1e6).round().max(0.0) as u64,
    }
}

/// What yamux and noise add to a frame, and to each byte: over the messages of each size, all frames against all
/// bytes on the wire.
fn below(samples: &[Sample]) -> (f64, f64) {
    let mut points = Vec::new();
    for Sample { schedule, observed } in samples {
        for (from, until, _) in &schedule.batches {
            // Until nothing of these is told of any more.
            let within = *from..*until + 4_500_000_000;
            let frames = observed.entries.frames.iter().filter(|frame| within.contains(&frame.at));
            let (mut count, mut bytes) = (0.0, 0.0);
            for frame in frames {
                count += 1.0;
                bytes += frame.bytes as f64;
            }
            let wire = observed.trace.wire.iter().filter(|(at, _)| within.contains(at));
            let wire: f64 = wire.map(|(_, bytes)| *bytes as f64).sum();
            // For each frame: its mean length against the mean of what is added.
            points.push((bytes / f64::max(count, 1.0), (wire - bytes) / f64::max(count, 1.0)));
        }
    }
    let ppm = slope(&points);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    (mean(|point| point.1) - ppm * mean(|point| point.0), ppm)
}

/// From the time that a node had a message until it sent copies, and from then until they were there less what
/// the link took.
fn work(samples: &[Sample]) -> Work {
    let (mut passed, mut carried) = (Vec::new(), BTreeMap::<u64, Vec<i64>>::new());
    for Sample { schedule, observed } in samples {
        let delays: BTreeMap<(usize, usize), i64> =
            schedule.graph.links.iter().fold(BTreeMap::new(), |mut delays, link| {
                delays.insert((link.dialler, link.listener), link.delay as i64);
                delays.insert((link.listener, link.dialler), link.delay as i64);
                delays
            });
        let published = &observed.trace.published;
        let first: Vec<_> = (0..published.len()).map(|message| observed.trace.first(message)).collect();
        let asked = &observed.trace.asked;
        let mut sent = BTreeMap::new();
        for (at, from, to, name) in &observed.entries.sent {
            let message = observed.names[name];
            sent.insert((*from, *to, message), *at as i64);
            let is_asked = asked.contains(&(*to, *from, message));
            if let Some(arrival) = first[message].get(from).filter(|_| !is_asked) {
                passed.push(*at as i64 - arrival.at as i64);
            }
        }
        for copy in &observed.trace.copies {
            let Some(began) = sent.get(&(copy.from, copy.to, copy.message)) else { continue };
            let took = copy.at as i64 - began - delays[&(copy.from, copy.to)];
            carried.entry(published[copy.message].2).or_default().push(took);
        }
    }
    // Of the fastest tenth: the others waited for the machine, which all nodes share.
    let fast = |times: &mut Vec<i64>| {
        times.sort_unstable();
        times.get(times.len() / 10).copied().unwrap_or(0) as f64
    };
    let points: Vec<(f64, f64)> =
        carried.iter_mut().map(|(size, times)| (*size as f64, fast(times))).collect();
    let each = slope(&points).max(0.0);
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
    let fixed = mean(|point| point.1) - each * mean(|point| point.0);
    eprintln!("bytes, and nanoseconds to carry them: {points:?}");
    Work {
        pass_us: (fast(&mut passed) / 1e3).max(0.0) as u64,
        carry_us: (fixed / 1e3).max(0.0) as u64,
        carry_kilobyte_ns: (each * 1000.0) as u64,
    }
}

/// Of the straight line that fits best.
fn slope(points: &[(f64, f64)]) -> f64 {
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / points.len().max(1) as f64;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let (mut above, mut below) = (0.0, 0.0);
    for point in points {
        above += (point.0 - x) * (point.1 - y);
        below += (point.0 - x) * (point.0 - x);
    }
    if below == 0.0 { 0.0 } else { above / below }
}

/// Around a message in a frame: two tags, two lengths of two bytes. Gossipsub does not count them.
const FRAME: u64 = 5;
