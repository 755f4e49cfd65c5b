//! A tag never goes backwards in the sight of one node, however messages come.

use std::collections::BTreeMap;

use waystation_proto::{Change, NodeId, RepoName, Tag};

/// The newest write of each tag that each host told of.
#[derive(Default)]
pub struct Tags {
    newest: BTreeMap<(usize, RepoName, Tag), (u64, NodeId)>,
}

impl Tags {
    /// Whether a change moves a tag forward.
    pub fn changed(&mut self, host: usize, change: &Change) -> Result<(), String> {
        let Change::Tag { repository, tag, version, author, .. } = change else { return Ok(()) };
        let key = (host, repository.clone(), tag.clone());
        let write = (*version, *author);
        match self.newest.insert(key, write) {
            Some(before) if before > write => {
                Err(format!("{repository}:{tag} went from version {} to {version}", before.0))
            }
            _ => Ok(()),
        }
    }

    /// A host lost what was not durable: others' newest writes come again.
    pub fn crash(&mut self, host: usize) {
        self.newest.retain(|(who, _, _), _| *who != host);
    }
}
