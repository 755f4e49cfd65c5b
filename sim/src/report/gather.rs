//! Everything that a report shows, from two readings of a file of measurements.

use std::{collections::BTreeMap, path::Path};

use super::{
    ReportError,
    group::Group,
    lines,
    outline::{Outline, natural},
};
use crate::{
    measure::{Measurement, RunId},
    summary::run_of,
};

/// Broken promises that are listed; more are counted.
const LISTED_MAX: usize = 100;

/// All of a file.
pub struct Gathered {
    /// The runs.
    pub outline: Outline,
    /// Systems with variants: variants in natural order, in each our own system first.
    pub groups: Vec<Group>,
    /// Systems in the order of their colours.
    pub systems: Vec<String>,
    /// The variant that is shown in detail: of those of the first system the one with the most nodes.
    pub shown: String,
    /// Broken promises.
    pub violations: Violations,
}

/// Broken promises.
#[derive(Default)]
pub struct Violations {
    /// How many, by group and checker.
    pub counts: BTreeMap<(String, String, String), u64>,
    /// The first of them.
    pub listed: Vec<Violation>,
}

/// A broken promise.
pub struct Violation {
    /// Of which run.
    pub run: RunId,
    /// Which checker found it.
    pub checker: String,
    /// When.
    pub at: f64,
    /// For people.
    pub text: String,
}

impl Gathered {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        let mut outline = Outline::default();
        lines::each(path, |measurement| outline.take(measurement))?;
        if outline.runs.is_empty() {
            return Err(ReportError::Empty { path: path.to_owned() });
        }
        let mut groups: BTreeMap<(String, String), Group> = BTreeMap::new();
        for (run, known) in &outline.runs {
            groups.entry((run.system.clone(), run.variant.clone())).or_default().join(run, known);
        }
        let mut systems: Vec<String> = groups.keys().map(|key| key.0.clone()).collect();
        systems.dedup();
        systems.sort_by_key(|system| (system != "waystation", system.clone()));
        let shown = shown(&systems, groups.values());
        groups.values_mut().filter(|group| group.variant == shown).for_each(Group::keep_detail);

        let mut violations = Violations::default();
        lines::each(path, |measurement| {
            let run = run_of(&measurement);
            let known = outline.runs.get(run);
            let group = groups.get_mut(&(run.system.clone(), run.variant.clone()));
            // The file may have grown between the two readings: what is new is left out.
            if let (Some(known), Some(group)) = (known, group) {
                group.take(known, &measurement);
            }
            if let Measurement::Violation { run, checker, at, text } = measurement {
                violations.take(Violation { run, checker, at, text });
            }
            Ok(())
        })?;
        let rank = |system: &String| systems.iter().position(|known| known == system);
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by(|a, b| {
            natural(&a.variant, &b.variant).then_with(|| rank(&a.system).cmp(&rank(&b.system)))
        });
        Ok(Gathered { outline, groups, systems, shown, violations })
    }

    /// The groups that are shown in detail, in the order of the systems.
    pub fn detailed(&self) -> impl Iterator<Item = &Group> {
        self.groups.iter().filter(|group| group.variant == self.shown)
    }

    /// The colour of a system.
    pub fn colour(&self, system: &str) -> usize {
        self.systems.iter().position(|known| known == system).unwrap_or_default()
    }
}

impl Violations {
    fn take(&mut self, violation: Violation) {
        let key = (violation.run.system.clone(), violation.run.variant.clone(), violation.checker.clone());
        *self.counts.entry(key).or_default() += 1;
        if self.listed.len() < LISTED_MAX {
            self.listed.push(violation);
        }
    }

    /// All of them.
    pub fn count(&self) -> u64 {
        self.counts.values().sum()
    }

    /// Those of a group.
    pub fn of(&self, group: &Group) -> u64 {
        let of = |key: &&(String, String, String)| key.0 == group.system && key.1 == group.variant;
        self.counts.iter().filter(|(key, _)| of(key)).map(|(_, count)| count).sum()
    }
}

fn shown<'a>(systems: &[String], groups: impl Iterator<Item = &'a Group>) -> String {
    let first = systems.first();
    let shown = groups
        .filter(|group| Some(&group.system) == first)
        .max_by(|a, b| a.nodes.cmp(&b.nodes).then_with(|| natural(&a.variant, &b.variant)));
    shown.map(|group| group.variant.clone()).unwrap_or_default()
}
