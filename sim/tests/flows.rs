//! Laws of shared links, on random networks: nothing carries more than it can, shares are max-min fair, they are
//! those of an independent solver, bytes are neither lost nor made, and one history has one result.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;
use waystation_sim::{
    flow::{Class, Config, Flows, Path, Resource, Route},
    setup::{MILLISECOND, SECOND},
};

/// Capacities, and for each session its way, cap and weight.
#[derive(Clone, Debug)]
struct Case {
    capacities: Vec<u64>,
    sessions: Vec<Way>,
}

#[derive(Clone, Debug)]
struct Way {
    over: Vec<usize>,
    cap: Option<u64>,
    weight: u32,
}

fn cases() -> impl Strategy<Value = Case> {
    let capacities = prop::collection::vec(prop_oneof![9 => 1_000..100_000_000_u64, 1 => Just(0)], 1..8);
    capacities.prop_flat_map(|capacities| {
        let some =
            prop::sample::subsequence((0..capacities.len()).collect::<Vec<_>>(), 1..=capacities.len().min(5));
        let cap = prop::option::weighted(0.3, 0..50_000_000_u64);
        let way = (some, cap, 1..4_u32).prop_map(|(over, cap, weight)| Way { over, cap, weight });
        let sessions = prop::collection::vec(way, 1..12);
        sessions.prop_map(move |sessions| Case { capacities: capacities.clone(), sessions })
    })
}

/// All sessions at work, and their rates.
fn rates(case: &Case) -> Vec<f64> {
    let mut flows = Flows::new(Config::fluid(MILLISECOND));
    let resources: Vec<_> = case.capacities.iter().map(|bytes| flows.resource(*bytes)).collect();
    for number in 0..case.sessions.len() {
        flows.start(0, &route(case, &resources, number), u64::MAX / 4, Class::Background);
    }
    flows.advance(0);
    (0..case.sessions.len() as u32).map(|to| flows.rate(0, to) as f64).collect()
}

fn route(case: &Case, resources: &[Resource], number: usize) -> Route {
    let way = &case.sessions[number];
    let over: Vec<_> = way.over.iter().map(|place| resources[*place]).collect();
    Route {
        from: 0,
        to: number as u32,
        path: Path::of(&over),
        round_trip: 0,
        cap: way.cap,
        weight: way.weight,
    }
}

/// Water that rises in small steps of reason: again and again, the limit that is met first among all that are left
/// stops those it limits. Slow, by the definition, and written without a look at the other one.
fn by_definition(case: &Case) -> Vec<f64> {
    let mut rates: Vec<Option<f64>> = vec![None; case.sessions.len()];
    while rates.iter().any(Option::is_none) {
        let open = |session: &usize| rates[*session].is_none();
        let over = |resource: usize| {
            (0..case.sessions.len()).filter(move |session| case.sessions[*session].over.contains(&resource))
        };
        // (level, who stops there)
        let mut first: (f64, Vec<usize>) = (f64::INFINITY, vec![]);
        for (resource, capacity) in case.capacities.iter().enumerate() {
            let taken: f64 = over(resource).filter_map(|session| rates[session]).sum();
            let sharers: Vec<_> = over(resource).filter(open).collect();
            let weight: f64 = sharers.iter().map(|session| f64::from(case.sessions[*session].weight)).sum();
            let level = (*capacity as f64 - taken).max(0.0) / weight;
            if !sharers.is_empty() && level < first.0 {
                first = (level, sharers);
            }
        }
        for session in (0..case.sessions.len()).filter(open) {
            let level = case.sessions[session]
                .cap
                .map_or(f64::INFINITY, |cap| cap as f64 / f64::from(case.sessions[session].weight));
            if level < first.0 {
                first = (level, vec![session]);
            }
        }
        for session in first.1 {
            rates[session] = Some(first.0 * f64::from(case.sessions[session].weight));
        }
    }
    rates.into_iter().map(Option::unwrap).collect()
}

fn near(one: f64, other: f64) -> bool {
    (one - other).abs() <= 2.0 + 1e-6 * one.abs().max(other.abs())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn shares_are_those_of_the_definition(case in cases()) {
        let (found, right) = (rates(&case), by_definition(&case));
        for (one, other) in found.iter().zip(&right) {
            prop_assert!(near(*one, *other), "{found:?} and not {right:?}");
        }
    }

    /// Max-min fairness itself: each session is stopped by its cap, or by a resource that is full and over which
    /// nobody has more for its weight.
    #[test]
    fn each_session_has_a_bottleneck(case in cases()) {
        let rates = rates(&case);
        let over = |resource: usize| {
            let sessions = case.sessions.iter().zip(&rates).filter(move |(way, _)| way.over.contains(&resource));
            sessions.map(|(way, rate)| (*rate, rate / f64::from(way.weight)))
        };
        for (resource, capacity) in case.capacities.iter().enumerate() {
            let sum: f64 = over(resource).map(|(rate, _)| rate).sum();
            // Rates are told to the nearest byte.
            prop_assert!(sum <= *capacity as f64 + rates.len() as f64, "{resource} carries {sum}");
        }
        for (way, rate) in case.sessions.iter().zip(&rates) {
            let capped = way.cap.is_some_and(|cap| near(*rate, cap as f64));
            let level = rate / f64::from(way.weight);
            let stops = |resource: &usize| {
                let sum: f64 = over(*resource).map(|(rate, _)| rate).sum();
                let full = sum + 2.0 * rates.len() as f64 >= case.capacities[*resource] as f64 * (1.0 - 1e-6);
                full && over(*resource).all(|(_, other)| other <= level + 2.0 + 1e-6 * level)
            };
            prop_assert!(capped || way.over.iter().any(stops), "{way:?} at {rate} is stopped by nothing");
        }
    }

    /// Whatever happens in whatever order: resources never carry more than they can, what arrives is what was asked
    /// for or what is told of what was cancelled, and the same again gives the same again.
    #[test]
    fn bytes_are_neither_lost_nor_made(case in cases(), steps in prop::collection::vec(steps(), 1..40)) {
        let first = history(&case, &steps);
        prop_assert_eq!(&first, &history(&case, &steps));
        let (over_capacity, arrived, carried) = (first.0, first.1, first.2);
        prop_assert_eq!(over_capacity, 0);
        prop_assert_eq!(arrived, carried);
    }
}

/// Something happens a while after what happened before.
#[derive(Clone, Debug)]
struct Step {
    after: u64,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Start { session: usize, bytes: u64, client: bool },
    Cancel { which: usize },
    Hasten { which: usize },
    Capacity { resource: usize, bytes: u64 },
    Cap { session: usize, cap: Option<u64> },
}

fn steps() -> impl Strategy<Value = Step> {
    let what = prop_oneof![
        6 => (any::<usize>(), 0..30_000_000_u64, any::<bool>())
            .prop_map(|(session, bytes, client)| What::Start { session, bytes, client }),
        2 => any::<usize>().prop_map(|which| What::Cancel { which }),
        1 => any::<usize>().prop_map(|which| What::Hasten { which }),
        1 => (any::<usize>(), prop_oneof![Just(0), 1_000..100_000_000_u64])
            .prop_map(|(resource, bytes)| What::Capacity { resource, bytes }),
        1 => (any::<usize>(), prop::option::of(0..50_000_000_u64))
            .prop_map(|(session, cap)| What::Cap { session, cap }),
    ];
    let after = prop_oneof![Just(0), 0..10 * MILLISECOND, 0..SECOND];
    (after, what).prop_map(|(after, what)| Step { after, what })
}

/// (bytes above what resources can carry, bytes that arrived by session, bytes that the first resource of each
/// session's way carried, when each request ended).
type History = (u64, u64, u64, Vec<u64>);

fn history(case: &Case, steps: &[Step]) -> History {
    let mut flows = Flows::new(Config { coalesce: 3 * MILLISECOND, ..Config::default() });
    // Each session has a resource of its own in front, by which it is counted.
    let own: Vec<_> = case.sessions.iter().map(|_| flows.resource(1_000_000_000)).collect();
    let resources: Vec<_> = case.capacities.iter().map(|bytes| flows.resource(*bytes)).collect();
    let mut capacities = case.capacities.clone();
    let mut carried = vec![0; resources.len()];
    let mut routes: Vec<_> = (0..case.sessions.len()).map(|number| route(case, &resources, number)).collect();
    for (route, own) in routes.iter_mut().zip(&own) {
        let mut over = vec![*own];
        over.extend(route.path.resources());
        *route = Route { path: Path::of(&over), round_trip: 20 * MILLISECOND, ..*route };
    }
    let (mut now, mut above, mut arrived, mut ended) = (0, 0, 0, vec![]);
    let mut under_way = vec![];
    let last = Step { after: 3 * SECOND, what: What::Cancel { which: usize::MAX } };
    for step in steps.iter().chain([&last]) {
        let until = now + step.after;
        while let Some(at) = flows.due().filter(|at| *at <= until) {
            for flow in flows.advance(at) {
                let place = under_way.iter().position(|(other, _)| *other == flow).unwrap();
                arrived += under_way.swap_remove(place).1;
                ended.push(at);
            }
        }
        for (place, resource) in resources.iter().enumerate() {
            let total = flows.carried(until, *resource);
            let could = u128::from(capacities[place]) * u128::from(until - now) / u128::from(SECOND);
            // A byte that was begun before may be counted now.
            above +=
                (total - carried[place]).saturating_sub(could as u64 + case.sessions.len() as u64 * 40 + 1);
            carried[place] = total;
        }
        now = until;
        match &step.what {
            What::Start { session, bytes, client } => {
                let route = &routes[session % routes.len()];
                let class = if *client { Class::Client } else { Class::Background };
                under_way.push((flows.start(now, route, *bytes, class), *bytes));
            }
            What::Cancel { which } if !under_way.is_empty() => {
                let (flow, _) = under_way.swap_remove(which % under_way.len());
                arrived += flows.cancel(now, flow);
            }
            What::Hasten { which } if !under_way.is_empty() => {
                flows.hasten(now, under_way[which % under_way.len()].0);
            }
            What::Cancel { .. } | What::Hasten { .. } => {}
            What::Capacity { resource, bytes } => {
                let place = resource % resources.len();
                capacities[place] = *bytes;
                flows.set_capacity(now, resources[place], *bytes);
            }
            What::Cap { session, cap } => {
                let place = session % routes.len();
                routes[place].cap = *cap;
                flows.set_caps(now, |_, to| routes[to as usize].cap);
            }
        }
    }
    arrived += under_way.iter().map(|(flow, _)| flows.cancel(now, *flow)).sum::<u64>();
    (above, arrived, own.iter().map(|own| flows.carried(now, *own)).sum(), ended)
}
