//! What became of a tag: the last writes of it that this node heard of, those that another write went before
//! among them. Derived like the rest of the index; after a loss of the index only what the segments of records
//! still have comes back.

use waystation_proto::{NodeId, RepoName, Tag, body::TagBody, time::Wall};

use super::{Index, keys, put, rows::WriteRow, rows::decode};
use crate::store::WriteEntry;

impl Index {
    /// The last writes of a tag that are known here, the one that counts first.
    pub fn history(&self, repository: &RepoName, tag: &Tag) -> Vec<WriteEntry> {
        let prefix = keys::sightings(repository, tag);
        self.rows(self.history.scan_prefix(&prefix).rev())
            .filter_map(|(key, value)| {
                let (version, author) = keys::read_write(&key[prefix.len()..])?;
                let WriteRow { target, authored } = decode(&value)?;
                Some(WriteEntry { target, version, author, authored })
            })
            .collect()
    }

    /// Notes a write, whether it counts or not, and forgets the oldest over [`WRITES_MAX`].
    pub(super) fn remember(
        &self,
        (repository, tag): (&RepoName, &Tag),
        body: &TagBody,
        (version, author): (u64, &NodeId),
        authored: Wall,
    ) -> sled::Result<()> {
        let row = WriteRow { target: body.target, authored };
        put(&self.history, keys::write(repository, tag, version, author), &row)?;
        let all = self.history.scan_prefix(keys::sightings(repository, tag)).rev();
        for old in all.skip(WRITES_MAX) {
            self.history.remove(old?.0)?;
        }
        Ok(())
    }
}

/// Writes of one tag that are kept.
pub const WRITES_MAX: usize = 16;
