//! Whether a node can do its work, and what to do where it cannot. Owns what a finding is; what a running node
//! knows of itself and its mesh is looked at in [`node`], what can be seen of the machine without it in [`machine`].
//! Every check is one function; none changes anything but a file that it writes and removes to try the disk.

mod clients;
mod disk;
pub mod machine;
pub mod node;
mod ports;
mod reached;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use waystation_proto::{NodeId, Wall};

/// What one check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Which check, such as `disk` or `reach-data`. Fixed, for scripts.
    pub check: String,
    /// How bad it is.
    pub level: Level,
    /// What is so, a sentence.
    pub what: String,
    /// Why that is known, or matters.
    pub why: Option<String>,
    /// What to do.
    pub todo: Option<String>,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Works, and needs somebody's attention; or could not be found out.
    Warn,
    /// Does not work.
    Fail,
}

impl Finding {
    /// As it should be.
    pub fn ok(check: &str, what: impl Into<String>) -> Self {
        Finding { check: check.into(), level: Level::Ok, what: what.into(), why: None, todo: None }
    }

    /// Needs attention.
    pub fn warn(check: &str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Finding { level: Level::Warn, todo: Some(todo.into()), ..Finding::ok(check, what) }
    }

    /// Does not work.
    pub fn fail(check: &str, what: impl Into<String>, todo: impl Into<String>) -> Self {
        Finding { level: Level::Fail, todo: Some(todo.into()), ..Finding::ok(check, what) }
    }

    /// And why that is known, or matters.
    #[must_use]
    pub fn because(self, why: impl Into<String>) -> Self {
        Finding { why: Some(why.into()), ..self }
    }
}

/// Who connected to this node's control plane since the start. Clones are the same.
#[derive(Clone, Default)]
pub struct Reached(Arc<Mutex<BTreeMap<NodeId, u64>>>);

impl Reached {
    /// Somebody has.
    pub fn by(&self, node: NodeId) {
        let mut nodes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if nodes.len() < REACHED_MAX || nodes.contains_key(&node) {
            *nodes.entry(node).or_default() += 1;
        }
    }

    /// Who did.
    pub fn nodes(&self) -> Vec<NodeId> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

fn now() -> Wall {
    Wall(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

const REACHED_MAX: usize = 4096;
