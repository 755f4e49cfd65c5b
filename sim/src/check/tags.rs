//! A tag never goes backwards in the sight of one node, however messages come.

use std::collections::BTreeMap;

use waystation_proto::{Change, NodeId, RepoName, Tag};

/// The newest write of each tag that each host told of. Thousands of hosts tell of the same tags, and some crash all
/// the time: names are kept once, and what a host told of lies together.
#[derive(Default)]
pub struct Tags {
    numbers: BTreeMap<RepoName, BTreeMap<Tag, u32>>,
    count: u32,
    /// By host.
    newest: BTreeMap<usize, BTreeMap<u32, (u64, NodeId)>>,
}

impl Tags {
    /// Whether a change moves a tag forward.
    pub fn changed(&mut self, host: usize, change: &Change) -> Result<(), String> {
        let Change::Tag { repository, tag, version, author, .. } = change else { return Ok(()) };
        let write = (*version, *author);
        let number = self.number(repository, tag);
        match self.newest.entry(host).or_default().insert(number, write) {
            Some(before) if before > write => {
                Err(format!("{repository}:{tag} went from version {} to {version}", before.0))
            }
            _ => Ok(()),
        }
    }

    /// A host lost what was not durable: others' newest writes come again.
    pub fn crash(&mut self, host: usize) {
        self.newest.remove(&host);
    }

    fn number(&mut self, repository: &RepoName, tag: &Tag) -> u32 {
        if let Some(number) = self.numbers.get(repository).and_then(|tags| tags.get(tag)) {
            return *number;
        }
        self.count += 1;
        self.numbers.entry(repository.clone()).or_default().insert(tag.clone(), self.count);
        self.count
    }
}
