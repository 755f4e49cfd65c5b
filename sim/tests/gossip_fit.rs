//! The model of gossip does what real nodes did. Measured figures are those of one run of a few messages on each
//! graph, so they have chance in them; the tolerances are those that `sim/fit/README.md` states.

use waystation_sim::gossipsub::{
    figures::Figures,
    fit::{Case, Fit, Model, mean},
    run, world,
};

const SEEDS: u64 = 3;

fn each(fit: &Fit, model: Model, mut check: impl FnMut(&Case, u64, Figures, Figures)) {
    assert!(fit.case.len() >= 5);
    for case in &fit.case {
        let (modelled, _) = case.modelled(model, &fit.params, &case.payloads(), SEEDS);
        for (batch, modelled) in case.batch.iter().zip(modelled) {
            check(case, batch.payload, batch.measured, modelled);
        }
    }
}

/// Whether it is so within a share of the measured value.
fn near(measured: f64, modelled: f64, share: f64) -> bool {
    (measured - modelled).abs() <= share * measured
}

#[test]
fn routers_send_as_many_copies_over_as_many_sessions_as_real_nodes() {
    each(&Fit::committed().unwrap(), run::run, |case, payload, measured, modelled| {
        let which = format!("{}, {payload} bytes: {measured:?} {modelled:?}", case.name);
        assert!(near(measured.copies, modelled.copies, 0.05), "copies: {which}");
        // Of long messages some came after the time for which bytes are counted.
        assert!(payload > 2_000 || near(measured.bytes, modelled.bytes, 0.10), "bytes: {which}");
        assert!((measured.hops_half - modelled.hops_half).abs() <= 1.0, "hops: {which}");
        assert!(near(measured.hops_most, modelled.hops_most, 0.20), "hops: {which}");
        assert!(measured.missed == 0 && modelled.missed == 0, "missed: {which}");
        assert!((measured.asked - modelled.asked).abs() <= 0.05, "asked: {which}");
    });
}

#[test]
fn the_worlds_gossip_reaches_as_far_with_about_as_many_copies() {
    each(&Fit::committed().unwrap(), world::run, |case, payload, measured, modelled| {
        let which = format!("{}, {payload} bytes: {measured:?} {modelled:?}", case.name);
        assert!(near(measured.copies, modelled.copies, 0.05), "copies: {which}");
        assert!(near(measured.hops_most, modelled.hops_most, 0.20), "hops: {which}");
        assert!(payload > 2_000 || near(measured.bytes, modelled.bytes, 0.10), "bytes: {which}");
        assert_eq!(modelled.missed, 0, "missed: {which}");
    });
}

#[test]
fn meshes_are_as_large_as_those_of_real_nodes() {
    let fit = Fit::committed().unwrap();
    for case in &fit.case {
        let measured: Vec<f64> = case.mesh.iter().map(|count| *count as f64).collect();
        let (_, modelled) = case.modelled(run::run, &fit.params, &case.payloads(), SEEDS);
        let (measured, modelled) = (mean(&measured), mean(&modelled));
        assert!(near(measured, modelled, 0.1), "{}: {measured} {modelled}", case.name);
    }
}

#[test]
fn the_same_seed_is_the_same_run() {
    let fit = Fit::committed().unwrap();
    let of = || fit.case[0].modelled(run::run, &fit.params, &fit.case[0].payloads(), 1);
    assert_eq!(of(), of());
}
