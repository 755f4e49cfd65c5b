//! The catalog as looked up: derived from records and artifact indexes, in sled. Nothing here is the only
//! copy of anything: when it is missing, stale or broken, `recovery.rs` builds it again from the store.
//! Whether it may be used is decided by a mark that a clean shutdown leaves in it and that must fit the
//! name of the last run in the store (`ground.rs`).

mod history;
mod holders;
mod keys;
mod rows;

use std::{
    fs::{self, File},
    io,
    ops::Bound,
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use serde::{Serialize, de::DeserializeOwned};
use sled::{IVec, Tree};
use waystation_proto::{
    Digest, NodeId, RepoName, Tag,
    body::{ArtifactPlace, NodeBody, State},
    event::Change,
    grant::Grant,
    index::{ArtifactIndex, EdgeKind},
};

pub use history::WRITES_MAX;

use super::{ArtifactEntry, Held, LinkEntry, SightingEntry, TagEntry};
use rows::{ArtifactRow, HeldRow, LinkRow, SightingRow, TagRow, decode, encode};

/// Lookups by repository, tag, digest and holder. Reading never blocks writing.
pub struct Index {
    db: sled::Db,
    path: PathBuf,
    digests: Tree,
    tags: Tree,
    artifacts: Tree,
    /// (repository, digest, who made the link) → blob.
    links: Tree,
    /// (repository, manifest, digest) → nothing: which links an artifact made, and what it is about.
    reached: Tree,
    /// (repository, subject, manifest) → nothing: which artifacts are about it.
    referrers: Tree,
    /// (repository, digest) → nothing: blobs that were taken out, whose links are hidden.
    removed: Tree,
    holders: Tree,
    nodes: Tree,
    grants: Tree,
    /// (repository, tag, node) → where it saw the tag of an upstream point.
    sightings: Tree,
    /// (repository, tag, version, author) → a write of the tag.
    history: Tree,
    /// Held where a row is read, changed and written back.
    changing: Mutex<()>,
    /// Whether it is marked as complete. Read while something is written, so that no change falls between.
    left: RwLock<bool>,
    /// Set where a row could not be read or written: it is not complete then, whatever it is marked with.
    broken: AtomicBool,
}

impl Index {
    /// Puts what a record or an artifact index says into the lookups. A failing disk is logged: the next
    /// start after it builds the index again.
    pub fn apply(&self, change: &Change) {
        self.write(|| self.try_apply(change));
    }

    /// A held blob by digest.
    pub fn held(&self, digest: &Digest) -> Option<Held> {
        let row: HeldRow = self.row(&self.digests, &keys::digest(digest))?;
        Some(Held { digest: *digest, hash: row.hash, size: row.size })
    }

    /// How many digests are held.
    pub fn held_count(&self) -> usize {
        self.digests.len()
    }

    /// Where a tag points, also if it was deleted (its version still counts).
    pub fn tag(&self, repository: &RepoName, tag: &Tag) -> Option<TagEntry> {
        self.row(&self.tags, &keys::named(repository, tag.as_str())).map(tag_entry)
    }

    /// Living tags in lexical order after `last`, at most `limit`.
    pub fn tags(&self, repository: &RepoName, last: Option<&str>, limit: usize) -> Vec<(Tag, TagEntry)> {
        let all = keys::repository(repository);
        let from = keys::named(repository, last.unwrap_or(""));
        let rows = self.tags.range::<Vec<u8>, _>((Bound::Excluded(from), Bound::Unbounded));
        self.rows(rows)
            .take_while(|(key, _)| key.starts_with(&all))
            .filter_map(|(key, value)| {
                let tag = std::str::from_utf8(&key[all.len()..]).ok()?.parse().ok()?;
                Some((tag, tag_entry(decode(&value)?)))
            })
            .filter(|(_, entry)| entry.target.is_some())
            .take(limit)
            .collect()
    }

    /// An artifact of a repository.
    pub fn artifact(&self, repository: &RepoName, manifest: &Digest) -> Option<ArtifactEntry> {
        artifact_entry(self.row(&self.artifacts, &keys::in_repository(repository, manifest))?)
    }

    /// Artifacts of one repository, or of all.
    pub fn artifacts(&self, repository: Option<&RepoName>) -> Vec<(RepoName, Digest, ArtifactEntry)> {
        let prefix = repository.map(keys::repository).unwrap_or_default();
        self.rows(self.artifacts.scan_prefix(prefix))
            .filter_map(|(key, value)| {
                let (repository, manifest, _) = keys::read_in_repository(&key)?;
                Some((repository, manifest, artifact_entry(decode(&value)?)?))
            })
            .collect()
    }

    /// Whether an artifact is in a repository, or was until it was deleted.
    pub fn was_published(&self, repository: &RepoName) -> bool {
        let prefix = keys::repository(repository);
        [&self.artifacts, &self.tags].iter().any(|tree| self.rows(tree.scan_prefix(&prefix)).next().is_some())
    }

    /// Repositories with artifacts, in lexical order after `last`, at most `limit`.
    pub fn repositories(&self, last: Option<&str>, limit: usize) -> Vec<RepoName> {
        let mut found = Vec::new();
        // Past all rows of a repository: 1 sorts after the 0 that ends its name and before any longer name.
        let after = |name: &str| [name.as_bytes(), &[1]].concat();
        let mut from = last.map(after).unwrap_or_default();
        while found.len() < limit {
            let next = self.rows(self.artifacts.range::<Vec<u8>, _>(from..)).find(|(_, value)| {
                decode::<ArtifactRow>(value).is_some_and(|artifact| artifact.place.is_some())
            });
            let Some((key, _)) = next else { break };
            let Some((repository, _)) = keys::read_repository(&key) else { break };
            from = after(repository.as_str());
            found.push(repository);
        }
        found
    }

    /// Repositories with artifacts or with links, in lexical order after `last`, each with whether it has artifacts.
    pub fn listed(&self, last: Option<&str>) -> impl Iterator<Item = (RepoName, bool)> + '_ {
        let begin = last.map(str::to_owned);
        let mut published = self.repositories(begin.as_deref(), 1).pop();
        let mut linked = self.linked_after(begin.as_deref());
        std::iter::from_fn(move || {
            let next = published.iter().chain(&linked).min()?.clone();
            let is_published = published.as_ref() == Some(&next);
            if is_published {
                published = self.repositories(Some(next.as_str()), 1).pop();
            }
            if linked.as_ref() == Some(&next) {
                linked = self.linked_after(Some(next.as_str()));
            }
            Some((next, is_published))
        })
    }

    /// The first repository with links in lexical order after this one.
    fn linked_after(&self, last: Option<&str>) -> Option<RepoName> {
        // Past all rows of the repository, as in `repositories`.
        let from = last.map(|name| [name.as_bytes(), &[1]].concat()).unwrap_or_default();
        let (key, _) = self.rows(self.links.range::<Vec<u8>, _>(from..)).next()?;
        keys::read_repository(&key).map(|(name, _)| name)
    }

    /// Whether and how a blob is visible in a repository.
    pub fn link(&self, repository: &RepoName, digest: &Digest) -> Option<LinkEntry> {
        let prefix = keys::in_repository(repository, digest);
        // Looked up first, so that a link which comes and goes meanwhile is at worst missed.
        if self.is_removed(repository, digest) {
            return None;
        }
        let (key, value) = self.rows(self.links.scan_prefix(&prefix)).next()?;
        let row: LinkRow = decode(&value)?;
        Some(LinkEntry {
            hash: row.hash,
            size: row.size,
            manifest: keys::read_link_maker(&key[prefix.len()..]),
            media_type: row.media_type,
        })
    }

    /// Held blobs of at most `size` bytes that were pulled, pushed or mounted into a repository, at most `limit`.
    pub fn linked(&self, repository: &RepoName, size: u64, limit: usize) -> Vec<Held> {
        self.rows(self.links.scan_prefix(keys::repository(repository)))
            .filter_map(|(key, value)| {
                let (_, digest, _) = keys::read_in_repository(&key)?;
                let small = decode::<LinkRow>(&value)?.size <= size;
                self.held(&digest).filter(|_| small)
            })
            .take(limit)
            .collect()
    }

    /// Artifacts of a repository that a blob is part of, in the order of their digests.
    pub fn makers(&self, repository: &RepoName, digest: &Digest) -> impl Iterator<Item = Digest> + '_ {
        let prefix = keys::in_repository(repository, digest);
        let rows = self.rows(self.links.scan_prefix(&prefix));
        rows.filter_map(move |(key, _)| keys::read_link_maker(&key[prefix.len()..]))
    }

    /// Repositories in which a blob is visible, at most the first `limit` of those that have any links.
    pub fn repositories_with(&self, digest: &Digest, limit: usize) -> Vec<RepoName> {
        let (mut found, mut from) = (Vec::new(), Vec::new());
        for _ in 0..limit {
            let next = self.rows(self.links.range::<Vec<u8>, _>(from..)).next();
            let name = next.and_then(|(key, _)| keys::read_repository(&key).map(|(name, _)| name));
            let Some(repository) = name else { break };
            // Past all rows of the repository, as in `repositories`.
            from = [repository.as_str().as_bytes(), &[1]].concat();
            if self.link(&repository, digest).is_some() {
                found.push(repository);
            }
        }
        found
    }

    /// Artifacts of a repository that are about this manifest and whose indexes are here, in the order of their
    /// digests, after `last`.
    pub fn referrers(&self, repository: &RepoName, subject: &Digest, last: Option<&Digest>) -> Vec<Digest> {
        let prefix = keys::in_repository(repository, subject);
        let from = match last {
            Some(last) => Bound::Excluded(keys::reach(repository, subject, last)),
            None => Bound::Included(prefix.clone()),
        };
        self.rows(self.referrers.range::<Vec<u8>, _>((from, Bound::Unbounded)))
            .take_while(|(key, _)| key.starts_with(&prefix))
            .filter_map(|(key, _)| Some(keys::read_digest(&key[prefix.len()..])?.0))
            .collect()
    }

    /// Whether an artifact's index has been seen here, so that what it links and is about is known.
    pub fn is_reached(&self, repository: &RepoName, manifest: &Digest) -> bool {
        self.rows(self.reached.scan_prefix(keys::in_repository(repository, manifest))).next().is_some()
    }

    /// Whether a blob was taken out of a repository.
    pub fn is_removed(&self, repository: &RepoName, digest: &Digest) -> bool {
        let key = keys::in_repository(repository, digest);
        // What cannot be read is not served.
        self.logged(self.removed.contains_key(key)).unwrap_or(true)
    }

    /// Config, layers and the manifest itself of an artifact whose index has been seen here, with their hashes and
    /// sizes in bytes.
    pub fn closure(&self, repository: &RepoName, manifest: &Digest) -> Vec<Held> {
        let prefix = keys::in_repository(repository, manifest);
        self.rows(self.reached.scan_prefix(&prefix))
            .filter_map(|(key, _)| {
                let (digest, _) = keys::read_digest(&key[prefix.len()..])?;
                let row: LinkRow = self.row(&self.links, &keys::link(repository, &digest, Some(manifest)))?;
                Some(Held { digest, hash: row.hash, size: row.size })
            })
            .collect()
    }

    /// Artifacts that a blob is part of, at most `limit`, in at most that many repositories.
    pub fn artifacts_with(&self, digest: &Digest, limit: usize) -> Vec<Digest> {
        let mut found = Vec::new();
        for repository in self.repositories_with(digest, limit) {
            let prefix = keys::in_repository(&repository, digest);
            let makers = self.rows(self.links.scan_prefix(&prefix));
            found.extend(
                makers.filter_map(|(key, _)| keys::read_link_maker(&key[prefix.len()..])).take(limit),
            );
        }
        found.sort_unstable();
        found.dedup();
        found.truncate(limit);
        found
    }

    /// Whether some of it could not be read or written, so that what is not found may yet be there.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::SeqCst)
    }

    /// Where nodes, this one included, saw a tag of an upstream point.
    pub fn sightings(&self, repository: &RepoName, tag: &Tag) -> Vec<SightingEntry> {
        let prefix = keys::sightings(repository, tag);
        self.rows(self.sightings.scan_prefix(&prefix))
            .filter_map(|(key, value)| {
                let node = NodeId(key[prefix.len()..].try_into().ok()?);
                let SightingRow { manifest, seen, granted } = decode(&value)?;
                Some(SightingEntry { node, manifest, seen, granted })
            })
            .collect()
    }

    /// Tags of an upstream's repository that some node saw, in lexical order after `last`, at most `limit`.
    pub fn sighted_tags(&self, repository: &RepoName, last: Option<&str>, limit: usize) -> Vec<Tag> {
        let all = keys::repository(repository);
        let from = keys::named(repository, last.unwrap_or(""));
        let rows = self.rows(self.sightings.range(from..)).take_while(|(key, _)| key.starts_with(&all));
        let tags = rows.filter_map(|(key, _)| {
            let name = key[all.len()..].split(|byte| *byte == 0).next()?;
            std::str::from_utf8(name).ok()?.parse::<Tag>().ok()
        });
        let mut tags: Vec<Tag> = tags.filter(|tag| Some(tag.as_str()) != last).take(limit * 4).collect();
        tags.dedup();
        tags.truncate(limit);
        tags
    }

    /// All nodes that said what they are.
    pub fn nodes(&self) -> Vec<(NodeId, NodeBody)> {
        self.rows(self.nodes.iter())
            .filter_map(|(key, value)| Some((NodeId(key.as_ref().try_into().ok()?), decode(&value)?)))
            .collect()
    }

    /// What a node said that it is.
    pub fn node(&self, node: &NodeId) -> Option<NodeBody> {
        self.row(&self.nodes, &node.0)
    }

    /// All grants.
    pub fn grants(&self) -> Vec<Grant> {
        self.rows(self.grants.iter()).filter_map(|(_, value)| decode(&value)).collect()
    }

    /// Opens what is there, or an empty index.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let db = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(Some(FLUSH_EVERY_MS))
            .open()?;
        let tree = |name: &str| db.open_tree(name);
        Ok(Index {
            digests: tree("digests")?,
            tags: tree("tags")?,
            artifacts: tree("artifacts")?,
            links: tree("links")?,
            reached: tree("reached")?,
            referrers: tree("referrers")?,
            removed: tree("removed")?,
            holders: tree("holders")?,
            nodes: tree("nodes")?,
            grants: tree("grants")?,
            sightings: tree("sightings")?,
            history: tree("history")?,
            changing: Mutex::new(()),
            left: RwLock::new(false),
            broken: AtomicBool::new(false),
            path: path.to_owned(),
            db,
        })
    }

    /// Whether it was left complete by the run of this name, in the schema that this version reads.
    pub(super) fn is_left_by(&self, run: u64) -> bool {
        let reads =
            |key, value: u64| matches!(self.db.get(key), Ok(Some(row)) if decode(&row) == Some(value));
        reads(SCHEMA_KEY, SCHEMA) && reads(LEFT_KEY, run)
    }

    /// Makes it durable and marks it as complete, unless it is not. What is written later takes the mark away.
    pub(super) fn leave(&self, run: u64) -> io::Result<()> {
        let mut left = self.left.write().unwrap_or_else(PoisonError::into_inner);
        if self.broken.load(Ordering::SeqCst) {
            return Err(io::Error::other("some of it could not be read or written"));
        }
        self.db.flush()?;
        *left = true;
        self.db.insert(SCHEMA_KEY, encode(&SCHEMA))?;
        self.db.insert(LEFT_KEY, encode(&run))?;
        self.db.flush()?;
        // sled's flush does not empty the disk's own cache.
        for entry in fs::read_dir(&self.path)? {
            let path = entry?.path();
            if path.is_file() {
                File::open(path)?.sync_all()?;
            }
        }
        Ok(())
    }

    /// A blob is held under a digest now.
    pub(super) fn hold(&self, held: &Held) {
        let row = HeldRow { hash: held.hash, size: held.size };
        self.write(|| put(&self.digests, keys::digest(&held.digest), &row));
    }

    /// A blob is not held under a digest any more.
    pub(super) fn forget(&self, digest: &Digest) {
        self.write(|| self.digests.remove(keys::digest(digest)).map(|_| ()));
    }

    /// A held blob was pushed to, or mounted into, a repository.
    pub(super) fn link_local(&self, repository: &RepoName, held: &Held) {
        let media_type = "application/octet-stream".to_owned();
        let row = LinkRow { hash: held.hash, size: held.size, media_type };
        self.write(|| put(&self.links, keys::link(repository, &held.digest, None), &row));
    }

    /// It was pulled, pushed or mounted there, and is not any more.
    pub(super) fn unlink_local(&self, repository: &RepoName, digest: &Digest) {
        self.write(|| self.links.remove(keys::link(repository, digest, None)).map(|_| ()));
    }

    /// As a bad disk would leave a row.
    #[cfg(test)]
    pub(super) fn damage(&self, digest: &Digest) {
        self.digests.insert(keys::digest(digest), &[0xff]).expect("written");
    }

    fn try_apply(&self, change: &Change) -> sled::Result<()> {
        match change {
            Change::TagLost { repository, tag, body, version, author, authored } => {
                self.remember((repository, tag), body, (*version, author), *authored)
            }
            Change::Tag { repository, tag, body, version, author, authored } => {
                self.remember((repository, tag), body, (*version, author), *authored)?;
                let row = TagRow { target: body.target, version: *version, author: *author };
                put(&self.tags, keys::named(repository, tag.as_str()), &row)
            }
            Change::Artifact { repository, manifest, place } => {
                self.place_artifact(repository, manifest, place.clone())
            }
            Change::Reachable { repository, index } => self.reach(repository, index),
            Change::Link { repository, blob, removed: true } => {
                self.removed.insert(keys::in_repository(repository, blob), &[]).map(|_| ())
            }
            Change::Link { repository, blob, removed: false } => {
                self.removed.remove(keys::in_repository(repository, blob)).map(|_| ())
            }
            Change::Status { repository, manifest, state, reason } => {
                self.judge_artifact(repository, manifest, (*state, reason.clone()))
            }
            Change::Holding { manifest, node, state, told } => self.say(manifest, node, *state, told),
            Change::Sighting { repository, tag, node, body, granted } => {
                let row = SightingRow { manifest: body.manifest, seen: body.seen, granted: *granted };
                put(&self.sightings, keys::sighting(repository, tag, node), &row)
            }
            Change::Node { node, body } => put(&self.nodes, node.0.to_vec(), body.as_ref()),
            // The catalog itself is asked.
            Change::Policy { .. } => Ok(()),
            Change::Grant(grant) => put(&self.grants, grant.name().into_bytes(), grant),
        }
    }

    fn place_artifact(
        &self,
        repository: &RepoName,
        manifest: &Digest,
        place: Option<ArtifactPlace>,
    ) -> sled::Result<()> {
        let _changing = self.changing();
        let key = keys::in_repository(repository, manifest);
        let gone = place.is_none();
        let old: ArtifactRow = self.row(&self.artifacts, &key).unwrap_or_default();
        put(&self.artifacts, key, &ArtifactRow { place, ..old })?;
        if gone { self.unreach(repository, manifest) } else { Ok(()) }
    }

    fn judge_artifact(
        &self,
        repository: &RepoName,
        manifest: &Digest,
        status: (State, String),
    ) -> sled::Result<()> {
        let _changing = self.changing();
        let key = keys::in_repository(repository, manifest);
        let old: ArtifactRow = self.row(&self.artifacts, &key).unwrap_or_default();
        put(&self.artifacts, key, &ArtifactRow { status: Some(status), ..old })
    }

    fn reach(&self, repository: &RepoName, index: &ArtifactIndex) -> sled::Result<()> {
        let _changing = self.changing();
        let link = |digest: &Digest, row: &LinkRow| {
            self.reached.insert(keys::reach(repository, &index.manifest, digest), &[])?;
            put(&self.links, keys::link(repository, digest, Some(&index.manifest)), row)
        };
        let media_type = index.media_type.clone();
        link(&index.manifest, &LinkRow { hash: index.hash, size: index.size, media_type })?;
        for (edge, hash) in index.closure() {
            let media_type = edge.media_type.clone();
            link(&edge.digest, &LinkRow { hash, size: edge.size, media_type })?;
        }
        for edge in index.edges.iter().filter(|edge| edge.kind == EdgeKind::Subject) {
            self.reached.insert(keys::reach(repository, &index.manifest, &edge.digest), &[])?;
            self.referrers.insert(keys::reach(repository, &edge.digest, &index.manifest), &[])?;
        }
        Ok(())
    }

    /// Takes away the links that an artifact made, and that it is about another; what others made stays.
    fn unreach(&self, repository: &RepoName, manifest: &Digest) -> sled::Result<()> {
        for (key, _) in self.rows(self.reached.scan_prefix(keys::in_repository(repository, manifest))) {
            let digest = keys::read_in_repository(&key).and_then(|(_, _, rest)| keys::read_digest(rest));
            if let Some((digest, _)) = digest {
                self.links.remove(keys::link(repository, &digest, Some(manifest)))?;
                self.referrers.remove(keys::reach(repository, &digest, manifest))?;
            }
            self.reached.remove(key)?;
        }
        Ok(())
    }

    /// Writes something. Where that fails, or comes after the index was left, the next start builds it again.
    fn write(&self, change: impl FnOnce() -> sled::Result<()>) {
        let left = self.left.read().unwrap_or_else(PoisonError::into_inner);
        self.logged(change());
        if *left {
            self.logged(self.db.remove(LEFT_KEY).and_then(|_| self.db.flush()));
        }
    }

    /// A row, if it is there and sound.
    fn row<T: DeserializeOwned>(&self, tree: &Tree, key: &[u8]) -> Option<T> {
        let bytes = self.logged(tree.get(key))??;
        let row = decode(&bytes);
        if row.is_none() {
            self.break_up("a row is damaged");
        }
        row
    }

    /// The rows of an iterator, up to the first that cannot be read.
    fn rows(
        &self,
        rows: impl Iterator<Item = sled::Result<(IVec, IVec)>>,
    ) -> impl Iterator<Item = (IVec, IVec)> {
        rows.map_while(|row| self.logged(row))
    }

    fn logged<T>(&self, result: sled::Result<T>) -> Option<T> {
        result.inspect_err(|error| self.break_up(error)).ok()
    }

    fn break_up(&self, why: impl std::fmt::Display) {
        tracing::error!(%why, "the index is damaged; restart the node to build it again");
        self.broken.store(true, Ordering::SeqCst);
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn put<T: Serialize>(tree: &Tree, key: Vec<u8>, row: &T) -> sled::Result<()> {
    tree.insert(key, encode(row)).map(|_| ())
}

fn tag_entry(row: TagRow) -> TagEntry {
    TagEntry { target: row.target, version: row.version, author: row.author }
}

fn artifact_entry(row: ArtifactRow) -> Option<ArtifactEntry> {
    Some(ArtifactEntry { place: row.place?, status: row.status })
}

/// Raised with every change to keys or rows; another one makes the index stale.
const SCHEMA: u64 = 4;
const SCHEMA_KEY: &str = "schema";
const LEFT_KEY: &str = "left by run";
/// sled takes up to about six times as much memory as it is told.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Losing the index costs a rebuild, nothing else.
const FLUSH_EVERY_MS: u64 = 2_000;
