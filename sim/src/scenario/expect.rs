//! What a scenario is expected to give: `[[expect]]`. Read here, and held against the figures of a run.

use serde::Deserialize;
use toml::Spanned;
use waystation_topology::{Part, Problem, Size, Time};

use crate::summary::{Metric, Table, Unit};

/// One `[[expect]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expect {
    metric: Spanned<String>,
    at_most: Option<Spanned<toml::Value>>,
    at_least: Option<Spanned<toml::Value>>,
    system: Option<String>,
    #[serde(default)]
    variant: String,
}

/// A goal: a figure, and what it must not be beyond.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// Which figure.
    pub metric: Metric,
    /// Whether the limit is the most, or else the least.
    pub at_most: bool,
    /// In the unit of the metric.
    pub limit: f64,
    /// Of which system.
    pub system: String,
    /// Only variants with all of these settings; all where empty.
    pub variant: String,
}

/// A goal, and what came of it for one variant.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// For people: what was expected.
    pub goal: String,
    /// Which variant.
    pub variant: String,
    /// For people: what there was.
    pub found: String,
    /// Whether it is as expected.
    pub kept: bool,
}

impl Expect {
    /// The goals that are meant.
    pub fn goals(&self) -> Result<Vec<Goal>, Problem> {
        let metric: Metric =
            self.metric.get_ref().parse().map_err(|error| Problem::at(&self.metric, error))?;
        let mut goals = vec![];
        for (at_most, limit) in [(true, &self.at_most), (false, &self.at_least)] {
            let Some(limit) = limit else { continue };
            let value = read(limit.get_ref(), metric.unit()).map_err(|text| {
                Problem::at(limit, format!("{text} for the metric {}", self.metric.get_ref()))
            })?;
            goals.push(Goal {
                metric: metric.clone(),
                at_most,
                limit: value,
                system: self.system.clone().unwrap_or_else(|| "waystation".to_owned()),
                variant: self.variant.clone(),
            });
        }
        if goals.is_empty() {
            return Err(Problem::at(&self.metric, "nothing is expected of it; add at-most or at-least"));
        }
        Ok(goals)
    }
}

fn read(value: &toml::Value, unit: Unit) -> Result<f64, String> {
    let number = match value {
        toml::Value::Integer(number) => Some(*number as f64),
        toml::Value::Float(number) => Some(*number),
        _ => None,
    };
    let text = value.as_str().unwrap_or_default();
    match unit {
        Unit::Seconds => text.parse::<Time>().map(Time::seconds).map_err(|error| error.to_string()),
        Unit::Bytes => {
            text.parse::<Size>().map(|size| size.bytes() as f64).map_err(|error| error.to_string())
        }
        Unit::Share => text.parse::<Part>().map(Part::ratio).map_err(|error| error.to_string()),
        Unit::Number => number.ok_or_else(|| format!("{value} is no number; write one such as 1.05")),
    }
}

impl Goal {
    /// Holds the goal against every variant that it is for. One for which there is no figure is not kept.
    pub fn check(&self, table: &Table) -> Vec<Outcome> {
        let unit = self.metric.unit();
        let word = if self.at_most { "at most" } else { "at least" };
        let goal = format!("{} {}: {word} {}", self.system, self.metric, unit.show(self.limit));
        let rows = table.rows().filter(|row| row.system == self.system && fits(&row.variant, &self.variant));
        let mut outcomes: Vec<Outcome> = rows
            .map(|row| {
                let value = table.get(row, &self.metric);
                let kept =
                    value.is_some_and(|v| if self.at_most { v <= self.limit } else { v >= self.limit });
                let found = value.map_or_else(|| "no figure".to_owned(), |value| unit.show(value));
                Outcome { goal: goal.clone(), variant: row.variant.clone(), found, kept }
            })
            .collect();
        if outcomes.is_empty() {
            let found = "no run".to_owned();
            outcomes.push(Outcome { goal, variant: self.variant.clone(), found, kept: false });
        }
        outcomes
    }
}

/// Whether a variant has all the settings that are named: `nodes=50` does not mean `nodes=500`.
pub fn fits(variant: &str, named: &str) -> bool {
    named.is_empty() || named.split(',').all(|one| variant.split(", ").any(|setting| setting == one.trim()))
}
