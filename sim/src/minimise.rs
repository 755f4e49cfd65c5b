//! Makes a case that breaks a promise smaller, for as long as it breaks the same one in the same way: leaves items
//! out (delta debugging), then nodes, then what links and disks do by chance, then time. What to try and in which
//! order is decided here; running a case, and how long to go on, is the caller's.
//!
//! After Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (ddmin).

use crate::{Case, Options, case::Item, check::Violation};

/// How a run broke a promise: which, and in which words, without what differs from run to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Symptom {
    promise: &'static str,
    shape: Vec<String>,
}

impl Symptom {
    /// Of a violation.
    pub fn of(violation: &Violation) -> Self {
        let plain = |word: &&str| !word.chars().any(|c| c.is_ascii_digit());
        let shape = violation.text.split_whitespace().filter(plain).take(SHAPE_WORDS).map(String::from);
        Symptom { promise: violation.promise, shape: shape.collect() }
    }

    /// Whether one of these is the same.
    pub fn is_in(&self, violations: &[Violation]) -> bool {
        violations.iter().any(|violation| Symptom::of(violation) == *self)
    }
}

/// Runs a case and says whether it shows the symptom, or nothing where there is no more time.
type Fails<'a> = dyn FnMut(&Case) -> Option<bool> + 'a;
/// One way of making a case smaller; nothing where there is no more time.
type Pass = fn(&mut Case, &mut Fails<'_>) -> Option<()>;

/// The smallest case that was found. `fails` runs one and says whether it shows the symptom; it says nothing where
/// there is no more time.
pub fn minimise(case: Case, broken_at: u64, mut fails: impl FnMut(&Case) -> Option<bool>) -> Case {
    let mut best = case;
    // What came after cannot have been the cause.
    let mut early = best.clone();
    early.items.retain(|item| item.at <= broken_at);
    if early.items.len() < best.items.len() && fails(&early) == Some(true) {
        best = early;
    }
    loop {
        let size = weight(&best);
        let passes: [Pass; 4] = [fewer_items, fewer_nodes, fewer_chances, less_time];
        for pass in passes {
            if pass(&mut best, &mut fails).is_none() {
                return best;
            }
        }
        if weight(&best) >= size {
            return best;
        }
    }
}

/// What is to become small.
fn weight(case: &Case) -> (usize, usize, usize, u64) {
    let Options { nodes, faults_ms, .. } = case.options;
    let chances = calmer(&case.options).into_iter().filter(|calm| *calm != case.options).count();
    (case.items.len(), nodes, chances, faults_ms)
}

/// ddmin: leaves out ever smaller parts of the items.
fn fewer_items(best: &mut Case, fails: &mut Fails<'_>) -> Option<()> {
    let mut parts = 2;
    while !best.items.is_empty() {
        let length = best.items.len().div_ceil(parts);
        let mut from = 0;
        let mut shrunk = false;
        while from < best.items.len() {
            let to = (from + length).min(best.items.len());
            let without: Vec<Item> = best.items[..from].iter().chain(&best.items[to..]).cloned().collect();
            let smaller = Case { items: without, ..best.clone() };
            if fails(&smaller)? {
                *best = smaller;
                shrunk = true;
            } else {
                from = to;
            }
        }
        if shrunk {
            parts = parts.saturating_sub(1).max(2);
        } else if length == 1 {
            break;
        } else {
            parts = (parts * 2).min(best.items.len());
        }
    }
    Some(())
}

/// The last nodes go, with what happens to them.
fn fewer_nodes(best: &mut Case, fails: &mut Fails<'_>) -> Option<()> {
    for nodes in 1..best.options.nodes {
        let mut smaller = best.clone();
        smaller.options.nodes = nodes;
        smaller.options.sites = smaller.options.sites.min(nodes);
        smaller.options.granted = smaller.options.granted.min(nodes);
        let options = smaller.options.clone();
        smaller.items.retain(|item| item.fits(&options));
        if fails(&smaller)? {
            *best = smaller;
            break;
        }
    }
    Some(())
}

/// One thing after another that happens by chance does not.
fn fewer_chances(best: &mut Case, fails: &mut Fails<'_>) -> Option<()> {
    for index in 0..calmer(&best.options).len() {
        let options = calmer(&best.options)[index].clone();
        if options == best.options {
            continue;
        }
        let smaller = Case { options, ..best.clone() };
        if smaller.items.iter().all(|item| item.fits(&smaller.options)) && fails(&smaller)? {
            *best = smaller;
        }
    }
    Some(())
}

/// Each of what a run has by chance, taken away alone.
fn calmer(options: &Options) -> Vec<Options> {
    let change = |with: fn(&mut Options)| {
        let mut options = options.clone();
        with(&mut options);
        options
    };
    vec![
        change(|options| options.loss = 0),
        change(|options| options.duplication = 0),
        change(|options| options.reordering = 0),
        change(|options| options.disk_failures = 0),
        change(|options| options.liars = 0),
        change(|options| options.clockless = 0),
        change(|options| options.quota = 0),
        change(|options| options.jitter_ms = 0),
        change(|options| options.sites = 1),
        change(|options| options.far_reconcile_ms = options.reconcile_ms),
    ]
}

/// The part with faults ends soon after the last of them, and gaps between items become short.
fn less_time(best: &mut Case, fails: &mut Fails<'_>) -> Option<()> {
    let last = best.items.iter().map(|item| item.at).max().unwrap_or(0);
    for after in [100, 10_000, 60_000] {
        if last + after < best.options.faults_ms {
            let mut smaller = best.clone();
            smaller.options.faults_ms = last + after;
            if fails(&smaller)? {
                *best = smaller;
                break;
            }
        }
    }
    Some(())
}

/// Words of a text by which it is known again.
const SHAPE_WORDS: usize = 12;
