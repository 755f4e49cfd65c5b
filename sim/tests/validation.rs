//! The simulator beside real nodes: what is kept is what it comes to, within the error that is stated, and is what
//! the document shows.

use std::{fs, path::Path};

use waystation_sim::validation::{Cases, Simulated, pairs, plot, spread, table};

fn here() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn kept() -> (Cases, Vec<Simulated>) {
    (Cases::load(here()).expect("cases"), Simulated::load(here()).expect("kept figures"))
}

#[test]
fn all_cases_are_within_the_stated_error() {
    let (cases, all) = kept();
    let pairs = pairs(&cases, &all);
    assert!(pairs.len() >= 5 && pairs.len() == cases.case.len(), "each case has kept figures");
    let (median, most) = spread(&pairs);
    assert!(median <= cases.goal.median && most <= cases.goal.most, "median {median}, most {most}");
}

#[test]
fn the_document_and_the_plot_show_what_is_kept() {
    let (cases, all) = kept();
    let pairs = pairs(&cases, &all);
    let document = fs::read_to_string(here().join("VALIDATION.md")).expect("the document");
    assert!(document.contains(&table(&pairs)), "write it anew: waystation-sim validate --keep");
    let svg = fs::read_to_string(here().join("validation.svg")).expect("the plot");
    assert_eq!(svg, plot(&pairs), "write it anew: waystation-sim validate --keep");
}

/// Those that take seconds also where nothing is optimised.
#[test]
fn quick_cases_come_to_what_is_kept() {
    let (cases, all) = kept();
    let quick: Vec<_> = pairs(&cases, &all).into_iter().filter(|(case, _)| case.quick).collect();
    assert!(quick.len() >= 3);
    for (case, kept) in quick {
        let now = case.simulate(&here().join("../configs/scenarios")).expect("it runs");
        let (error, was) = (case.error(&now), case.error(kept));
        assert!(error.abs() <= cases.goal.most, "{}: {error} of the measured time off", case.name);
        assert!(
            (error - was).abs() <= 0.02,
            "{}: {error} is not {was}: waystation-sim validate --keep",
            case.name
        );
    }
}
