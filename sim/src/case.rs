//! A case: everything that one run is made of, item by item, so that items can be left out. It is drawn from the
//! options, or read from a file that somebody found a broken promise with.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::{
    Options,
    faults::{self, Fault},
    steps::{self, Step},
};

/// Options, and what happens when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it is about: for people.
    #[serde(default)]
    pub about: String,
    /// How nodes, links and disks are.
    pub options: Options,
    /// In the order of time.
    pub items: Vec<Item>,
}

/// One fault or one step of a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// When, in milliseconds.
    pub at: u64,
    /// Its own: what chance decides about it is drawn by this number, whatever else is in the case.
    pub number: u64,
    /// What happens.
    pub what: What,
}

/// What an item is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Something goes wrong.
    Fault(Fault),
    /// A client does something.
    Step(Step),
}

/// Why a text is no case.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// Not what [`Case::text`] writes.
    #[error("this is no case: {0}; cases are what `waystation-sim swarm` writes")]
    Form(#[from] serde_json::Error),
    /// Something that a run of it would fall over.
    #[error("this case cannot be run: {0}")]
    Sense(String),
}

impl Case {
    /// What these options stand for.
    pub fn of(options: Options) -> Self {
        let faults = faults::schedule(&options);
        let first = faults.len() as u64 + 1;
        let faults = faults.into_iter().zip(1..);
        let faults = faults.map(|((at, fault), number)| Item { at, number, what: What::Fault(fault) });
        let steps = steps::schedule(&options, first).into_iter();
        let steps = steps.map(|(at, number, step)| Item { at, number, what: What::Step(step) });
        let mut items: Vec<Item> = faults.chain(steps).collect();
        items.sort_by_key(|item| (item.at, item.number));
        Case { about: String::new(), options, items }
    }

    /// The first number that no item has.
    pub fn next_number(&self) -> u64 {
        self.items.iter().map(|item| item.number).max().unwrap_or(0) + 1
    }

    /// As JSON, with a line for each item.
    ///
    /// # Errors
    /// None that is known: everything in a case can be written.
    pub fn text(&self) -> Result<String, CaseError> {
        let mut text = String::from("{\n");
        let about = serde_json::to_string(&self.about)?;
        let options = serde_json::to_string_pretty(&self.options)?;
        // Writing to a string does not fail.
        let _ = write!(text, "\"about\": {about},\n\"options\": {options},\n\"items\": [");
        for (index, item) in self.items.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\n  {}", serde_json::to_string(item)?);
        }
        text.push_str("\n]\n}\n");
        Ok(text)
    }

    /// Reads what [`Self::text`] wrote.
    ///
    /// # Errors
    /// See [`CaseError`].
    pub fn parse(text: &str) -> Result<Self, CaseError> {
        let mut case: Case = serde_json::from_str(text)?;
        case.items.sort_by_key(|item| (item.at, item.number));
        case.check()?;
        Ok(case)
    }

    fn check(&self) -> Result<(), CaseError> {
        let Options { nodes, sites, .. } = self.options;
        let wrong = |text: String| Err(CaseError::Sense(text));
        if !(1..=NODES_MAX).contains(&nodes) || sites == 0 {
            return wrong(format!("it has {nodes} nodes on {sites} sites; 1 to {NODES_MAX} and 1 at least"));
        }
        let mut numbers: Vec<u64> = self.items.iter().map(|item| item.number).collect();
        numbers.sort_unstable();
        if let Some(pair) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            return wrong(format!("two items have the number {}", pair[0]));
        }
        match self.items.iter().find(|item| !item.fits(&self.options)) {
            Some(item) => wrong(format!("item {} names what is not there", item.number)),
            None => Ok(()),
        }
    }
}

impl Item {
    /// Whether the hosts, sites and names in it can be.
    pub fn fits(&self, options: &Options) -> bool {
        match &self.what {
            What::Fault(fault) => fault.fits(options.nodes, options.sites),
            What::Step(step) => step.host().is_none_or(|host| host < options.nodes) && step.is_named_well(),
        }
    }
}

/// More would not end.
const NODES_MAX: usize = 10_000;
