//! A run is what its schedule says: items are drawn each by itself, can be left out, written down and read again.

use waystation_sim::{
    Case, Options, World,
    case::What,
    check::Violation,
    faults::{DiskAfter, Fault},
    minimise::{Symptom, minimise},
};

#[test]
fn a_case_that_was_written_down_is_the_same_run() {
    let case = Case::of(Options::harsh(3, 5, 1));
    let read = Case::parse(&case.text().expect("text")).expect("a case");
    assert_eq!(case, read);
    let traces = [case, read].map(|case| World::of(&case, None, &[]).run().trace);
    assert_eq!(traces[0], traces[1]);
}

#[test]
fn a_file_that_makes_no_sense_is_an_error_and_no_panic() {
    let case = Case::of(Options::harsh(3, 5, 1));
    let text = case.text().expect("text");
    for wrong in [
        "{}".to_owned(),
        text.replace("\"nodes\": 5", "\"nodes\": 0"),
        text.replace("\"nodes\": 5", "\"nodes\": 2"),
        text.replace("\"seed\"", "\"sed\""),
        text.replace("team/app", "Team//App"),
    ] {
        assert!(Case::parse(&wrong).is_err(), "{wrong:.200}");
    }
}

/// Whoever leaves one fault out finds the others as they were: what chance decides is drawn for each by itself.
#[test]
fn leaving_one_sort_of_fault_out_changes_no_other() {
    let all = Case::of(Options::harsh(12, 9, 5)).items;
    let quiet = Options { disk_every_ms: 0, ..Options::harsh(12, 9, 5) };
    let fewer = Case::of(quiet).items;
    let of_disks = |fault: &Fault| {
        matches!(
            fault,
            Fault::Image { .. }
                | Fault::Full { .. }
                | Fault::Slow { .. }
                | Fault::Rot { .. }
                | Fault::Crash { disk: DiskAfter::Lost | DiskAfter::Old, .. }
        )
    };
    let faults = |items: Vec<waystation_sim::case::Item>| -> Vec<(u64, Fault)> {
        let faults = items.into_iter().filter_map(|item| match item.what {
            What::Fault(fault) if !of_disks(&fault) => Some((item.at, fault)),
            _ => None,
        });
        faults.collect()
    };
    assert!(all.len() > fewer.len(), "this seed has broken disks");
    assert_eq!(faults(all), faults(fewer));
}

/// A broken promise that needs two items and three nodes is found again with nothing else.
#[test]
fn the_smallest_case_has_what_it_needs_and_nothing_else() {
    let case = Case::of(Options::harsh(12, 9, 5));
    let crash = |case: &Case| {
        let of_two = |item: &&waystation_sim::case::Item| {
            matches!(item.what, What::Fault(Fault::Crash { host: 2, .. }))
        };
        case.items.iter().find(of_two).map(|item| item.number)
    };
    let (first, last) = (crash(&case).expect("host 2 crashes"), case.items.len() - 1);
    let last = case.items[last].number;
    let has = |case: &Case, number| case.items.iter().any(|item| item.number == number);
    let mut runs = 0;
    let small = minimise(case, u64::MAX, |case| {
        runs += 1;
        Some(has(case, first) && has(case, last))
    });
    let mut numbers: Vec<u64> = small.items.iter().map(|item| item.number).collect();
    numbers.sort_unstable();
    let mut needed = vec![first, last];
    needed.sort_unstable();
    assert_eq!(numbers, needed);
    assert_eq!((small.options.loss, small.options.quota, small.options.sites), (0, 0, 1));
    assert!(runs < 400, "{runs} runs");
}

#[test]
fn a_symptom_is_known_again_by_its_words_and_not_by_its_numbers() {
    let broken = |text: &str| Violation { promise: "holdings", at: 1, host: 1, text: text.into() };
    let symptom = Symptom::of(&broken("host 2 says to hold 5114812c, but lacks 3b7e4d54"));
    assert!(symptom.is_in(&[broken("host 7 says to hold 4eb4b876, but lacks 29fc4e0a")]));
    assert!(!symptom.is_in(&[broken("host 7 does not say that it holds 4eb4b876")]));
}
