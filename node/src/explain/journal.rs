//! Where blobs came from: for each, the ranges that were asked for, of whom, what came of them and how long it
//! took. In memory only, of this run; what is over the bounds is forgotten, the oldest first.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use waystation_proto::{
    Digest, FetchId, Hash, NodeId,
    event::{Fault, PullFailure},
};

/// The journal of this run. Clones are the same.
#[derive(Clone)]
pub struct Journal(Arc<Mutex<Book>>);

struct Book {
    begun: Instant,
    stories: BTreeMap<Hash, Telling>,
    /// Blobs in the order in which they were begun.
    order: VecDeque<Hash>,
    transfers: BTreeMap<FetchId, Transfer>,
    /// Downloads from upstreams whose hash is not known yet.
    pulls: BTreeMap<Digest, (String, Instant)>,
    /// Downloads that came to nothing.
    failed_pulls: BTreeMap<Digest, Trouble>,
    troubles: BTreeMap<NodeId, Trouble>,
    digests: BTreeMap<Hash, Digest>,
}

struct Transfer {
    hash: Hash,
    node: NodeId,
    /// Counted from the blob's first.
    number: u64,
    since: Instant,
}

/// A story while it goes on.
struct Telling {
    story: Story,
    wanted: Instant,
    fetching: Option<Instant>,
    sealing: Option<Instant>,
    /// Parts begun, kept or not.
    parts: u64,
}

/// Where one blob came from, or is coming from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Story {
    /// Its size in bytes; 0 where nobody told.
    pub size: u64,
    /// When it was wanted first, in seconds since 1970-01-01 UTC, by this node's clock.
    pub began: u64,
    /// The same in milliseconds since the node started.
    pub began_ms: u64,
    /// Whether it is here, durably.
    pub here: bool,
    /// From when it was wanted until somebody was asked for it.
    pub waited_ms: u64,
    /// From then until every byte had come.
    pub moved_ms: u64,
    /// From then until it was durable.
    pub settled_ms: u64,
    /// Bytes by where they came from.
    pub sources: Vec<Source>,
    /// What was asked for, in order; the last [`Journal::PARTS_MAX`].
    pub parts: Vec<Part>,
}

/// A place that bytes came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// What kind of place, and which.
    #[serde(flatten)]
    pub place: Place,
    /// Bytes that came.
    pub bytes: u64,
    /// Transfers that came to nothing.
    pub failures: u64,
}

/// Where bytes can come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// `member`, `upstream` or `client` (a push).
    pub kind: String,
    /// The node's id, or the upstream's name; empty for clients.
    pub name: String,
    /// Where the node is, as far as is known.
    pub site: Option<String>,
    /// Whether that is another site than this node's.
    pub far: bool,
}

/// One transfer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Of whom.
    #[serde(flatten)]
    pub place: Place,
    /// First byte.
    pub start: u64,
    /// After the last byte.
    pub end: u64,
    /// When it was begun, in milliseconds since the blob was wanted.
    pub after_ms: u64,
    /// How long it took; absent while it goes on.
    pub took_ms: Option<u64>,
    /// `under way`, `done`, `failed` or `cancelled`.
    pub result: String,
    /// Why it failed.
    pub why: Option<String>,
    /// Its number among the blob's.
    number: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When, in seconds since 1970-01-01 UTC.
    pub at: u64,
    /// `peer`, `lied`, `local`, `absent`, `away` or `wrong`.
    pub fault: String,
    /// For people.
    pub why: String,
    /// How often in a row.
    pub times: u64,
}

impl Place {
    /// A node of the mesh.
    pub fn member(node: &NodeId, site: Option<String>, far: bool) -> Self {
        Place { kind: "member".into(), name: node.to_string(), site, far }
    }

    /// A foreign registry.
    pub fn upstream(namespace: &str) -> Self {
        Place { kind: "upstream".into(), name: namespace.into(), site: None, far: true }
    }

    fn client() -> Self {
        Place { kind: "client".into(), name: String::new(), site: None, far: false }
    }
}

impl Default for Journal {
    fn default() -> Self {
        Journal(Arc::new(Mutex::new(Book {
            begun: Instant::now(),
            stories: BTreeMap::new(),
            order: VecDeque::new(),
            transfers: BTreeMap::new(),
            pulls: BTreeMap::new(),
            failed_pulls: BTreeMap::new(),
            troubles: BTreeMap::new(),
            digests: BTreeMap::new(),
        })))
    }
}

impl Journal {
    /// Blobs whose stories are kept.
    pub const BLOBS_MAX: usize = 1000;
    /// For how long, in seconds.
    pub const KEPT_S: u64 = 24 * 3600;
    /// Transfers of a blob that are kept one by one.
    pub const PARTS_MAX: usize = 32;

    /// Where a blob came from, if that is known.
    pub fn story(&self, hash: &Hash) -> Option<Story> {
        let book = self.book();
        let telling = book.stories.get(hash)?;
        (now().saturating_sub(telling.story.began) <= Self::KEPT_S).then(|| telling.story.clone())
    }

    /// Why content of an upstream did not come last time, if it did not.
    pub fn failed_pull(&self, digest: &Digest) -> Option<Trouble> {
        self.book().failed_pulls.get(digest).cloned()
    }

    /// Whether content of an upstream is being downloaded.
    pub fn is_pulling(&self, digest: &Digest) -> bool {
        self.book().pulls.contains_key(digest)
    }

    /// What went wrong last with a node; nothing once something came from it again.
    pub fn trouble(&self, node: &NodeId) -> Option<Trouble> {
        self.book().troubles.get(node).cloned()
    }

    /// The digest of a hash, as far as records and artifact indexes told.
    pub fn digest(&self, hash: &Hash) -> Option<Digest> {
        self.book().digests.get(hash).copied()
    }

    /// An authority pairs these.
    pub fn paired(&self, hash: Hash, digest: Digest) {
        let mut book = self.book();
        if book.digests.len() >= DIGESTS_MAX {
            // Whatever is fetched next is paired again by its artifact's index.
            book.digests.clear();
        }
        book.digests.insert(hash, digest);
    }

    /// A blob is wanted.
    pub fn wanted(&self, hash: Hash, size: u64) {
        self.book().telling(hash, size);
    }

    /// A transfer began. True where it is the blob's first.
    pub fn began(&self, fetch: FetchId, node: NodeId, place: Place, hash: Hash, range: Range<u64>) -> bool {
        let mut book = self.book();
        let now = Instant::now();
        let telling = book.telling(hash, 0);
        let number = telling.begin(place, range, now);
        book.transfers.insert(fetch, Transfer { hash, node, number, since: now });
        number == 0
    }

    /// A transfer brought all that it was to.
    pub fn came(&self, fetch: FetchId) {
        let mut book = self.book();
        if let Some(transfer) = book.end(fetch, "done", None) {
            book.troubles.remove(&transfer.node);
        }
    }

    /// A transfer came to nothing. Says of which blob and from whom it was.
    pub fn failed(&self, fetch: FetchId, fault: Fault, why: &str) -> Option<(Hash, NodeId)> {
        let mut book = self.book();
        let transfer = book.end(fetch, "failed", Some(why))?;
        if fault != Fault::Local {
            note(&mut book.troubles, transfer.node, fault_name(fault), why);
        }
        Some((transfer.hash, transfer.node))
    }

    /// A transfer was not needed any more.
    pub fn cancelled(&self, fetch: FetchId) {
        self.book().end(fetch, "cancelled", None);
    }

    /// Every byte is here.
    pub fn sealing(&self, hash: Hash) {
        if let Some(telling) = self.book().stories.get_mut(&hash) {
            let now = Instant::now();
            telling.story.moved_ms = telling.fetching.map_or(0, |since| millis(now - since));
            telling.sealing = Some(now);
        }
    }

    /// A blob is durable. How long it took from when it was wanted, where it was fetched; a client pushed it
    /// otherwise.
    pub fn sealed(&self, hash: Hash) -> Option<u64> {
        let mut book = self.book();
        let now = Instant::now();
        let fetched = book.stories.get(&hash).is_some_and(|telling| telling.parts > 0);
        let telling = book.telling(hash, 0);
        telling.story.here = true;
        if !fetched {
            telling.story.sources = vec![Source { place: Place::client(), bytes: 0, failures: 0 }];
            return None;
        }
        telling.story.settled_ms = telling.sealing.map_or(0, |since| millis(now - since));
        Some(millis(now - telling.wanted))
    }

    /// A download from an upstream began.
    pub fn pulling(&self, digest: Digest, namespace: &str) {
        let mut book = self.book();
        if book.pulls.len() >= PULLS_MAX {
            book.pulls.pop_first();
        }
        book.pulls.insert(digest, (namespace.to_owned(), Instant::now()));
    }

    /// What came of a download. Where it was from, and how long it took.
    pub fn pulled(
        &self,
        digest: &Digest,
        result: &Result<(Hash, u64), PullFailure>,
    ) -> Option<(String, u64)> {
        let mut book = self.book();
        let (namespace, since) = book.pulls.remove(digest)?;
        let took = millis(since.elapsed());
        match result {
            Ok((hash, size)) => {
                book.failed_pulls.remove(digest);
                if book.stories.get(hash).is_some_and(|telling| telling.story.here) {
                    // It had come for another repository.
                    return Some((namespace, took));
                }
                let telling = book.telling(*hash, *size);
                telling.wanted = since;
                telling.story.began_ms = telling.story.began_ms.saturating_sub(took);
                telling.fetching = Some(since);
                telling.begin(Place::upstream(&namespace), 0..*size, since);
                telling.end(0, *size, "done", None, took);
                (telling.story.moved_ms, telling.story.here) = (took, true);
            }
            Err(failure) => {
                let (fault, why) = pull_failure(failure);
                note(&mut book.failed_pulls, *digest, fault, &why);
            }
        }
        Some((namespace, took))
    }

    /// A blob is not held any more.
    pub fn gone(&self, hash: &Hash) {
        let mut book = self.book();
        book.stories.remove(hash);
        book.order.retain(|known| known != hash);
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// The story of a blob, a new one where there is none, or where it is wanted though it had come before.
    fn telling(&mut self, hash: Hash, size: u64) -> &mut Telling {
        if self.stories.get(&hash).is_some_and(|telling| size > 0 && telling.story.here) {
            self.stories.remove(&hash);
        }
        if !self.stories.contains_key(&hash) {
            self.order.retain(|known| *known != hash);
            while self.order.len() >= Journal::BLOBS_MAX {
                let oldest = self.order.pop_front();
                oldest.map(|oldest| self.stories.remove(&oldest));
            }
            self.order.push_back(hash);
        }
        let (wanted, begun) = (Instant::now(), self.begun);
        let telling = self.stories.entry(hash).or_insert_with(|| {
            let story = Story { began: now(), began_ms: millis(wanted - begun), ..Story::default() };
            Telling { story, wanted, fetching: None, sealing: None, parts: 0 }
        });
        telling.story.size = telling.story.size.max(size);
        telling
    }

    fn end(&mut self, fetch: FetchId, result: &str, why: Option<&str>) -> Option<Transfer> {
        let transfer = self.transfers.remove(&fetch)?;
        if let Some(telling) = self.stories.get_mut(&transfer.hash) {
            let took = millis(transfer.since.elapsed());
            let part = telling.story.parts.iter().find(|part| part.number == transfer.number);
            let bytes = part.filter(|_| result == "done").map_or(0, |part| part.end - part.start);
            telling.end(transfer.number, bytes, result, why, took);
        }
        Some(transfer)
    }
}

impl Telling {
    /// Notes a transfer; its number.
    fn begin(&mut self, place: Place, range: Range<u64>, at: Instant) -> u64 {
        if self.fetching.is_none() {
            self.story.waited_ms = millis(at.saturating_duration_since(self.wanted));
            self.fetching = Some(at);
        }
        let number = self.parts;
        self.parts += 1;
        if self.story.parts.len() >= Journal::PARTS_MAX {
            // One that goes on is still to be told of.
            let ended = self.story.parts.iter().position(|part| part.took_ms.is_some()).unwrap_or(0);
            self.story.parts.remove(ended);
        }
        self.story.parts.push(Part {
            place,
            start: range.start,
            end: range.end,
            after_ms: millis(at.saturating_duration_since(self.wanted)),
            took_ms: None,
            result: "under way".into(),
            why: None,
            number,
        });
        number
    }

    fn end(&mut self, number: u64, bytes: u64, result: &str, why: Option<&str>, took: u64) {
        let Some(part) = self.story.parts.iter_mut().find(|part| part.number == number) else { return };
        (part.took_ms, part.result, part.why) = (Some(took), result.to_owned(), why.map(str::to_owned));
        let place = part.place.clone();
        let failures = u64::from(result == "failed");
        let sources = &mut self.story.sources;
        match sources.iter().position(|source| source.place == place) {
            Some(n) => {
                (sources[n].bytes, sources[n].failures) =
                    (sources[n].bytes + bytes, sources[n].failures + failures)
            }
            None if sources.len() < SOURCES_MAX => sources.push(Source { place, bytes, failures }),
            None => {}
        }
    }
}

/// A fault as events and explanations name it.
pub fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Peer => "peer",
        Fault::Lied => "lied",
        Fault::Local => "local",
        Fault::Budget => "budget",
    }
}

/// Whose fault a download's failure is, and why, for people.
pub fn pull_failure(failure: &PullFailure) -> (&'static str, String) {
    match failure {
        PullFailure::Unknown => ("absent", "the upstream does not have it, or not for this node".into()),
        PullFailure::Away(why) => ("away", why.clone()),
        PullFailure::Wrong(why) => ("wrong", why.clone()),
        PullFailure::Storage(why) => ("local", why.clone()),
    }
}

fn note<K: Ord>(troubles: &mut BTreeMap<K, Trouble>, key: K, fault: &str, why: &str) {
    if troubles.len() >= TROUBLES_MAX && !troubles.contains_key(&key) {
        troubles.pop_first();
    }
    let times = troubles.get(&key).map_or(0, |trouble| trouble.times) + 1;
    troubles.insert(key, Trouble { at: now(), fault: fault.into(), why: why.into(), times });
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// Places that one blob came from.
const SOURCES_MAX: usize = 32;
const TROUBLES_MAX: usize = 1024;
const PULLS_MAX: usize = 4096;
const DIGESTS_MAX: usize = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn place(n: u8) -> Place {
        Place::member(&NodeId([n; 32]), Some("s".into()), n > 1)
    }

    #[test]
    fn a_story_says_where_each_byte_came_from() {
        let (journal, hash) = (Journal::default(), Hash([1; 32]));
        let node = |n: u8| NodeId([n; 32]);
        journal.wanted(hash, 30);
        assert!(journal.began(FetchId(1), node(1), place(1), hash, 0..10));
        assert!(!journal.began(FetchId(2), node(2), place(2), hash, 10..30));
        assert_eq!(journal.failed(FetchId(1), Fault::Lied, "bad bytes"), Some((hash, node(1))));
        assert_eq!(journal.trouble(&node(1)).expect("noted").fault, "lied");
        journal.came(FetchId(2));
        assert!(!journal.began(FetchId(3), node(2), place(2), hash, 0..10));
        journal.wanted(hash, 30);
        journal.came(FetchId(3));
        journal.sealing(hash);
        assert!(!journal.story(&hash).expect("known").here);
        assert!(journal.sealed(hash).is_some());
        let story = journal.story(&hash).expect("known");
        let bytes: Vec<_> = story.sources.iter().map(|s| (s.place.far, s.bytes, s.failures)).collect();
        assert_eq!(bytes, [(false, 0, 1), (true, 30, 0)]);
        let results: Vec<_> = story.parts.iter().map(|part| part.result.as_str()).collect();
        assert_eq!(results, ["failed", "done", "done"]);
        assert!(story.here && story.size == 30);
        assert_eq!(journal.trouble(&node(2)), None);
        journal.gone(&hash);
        assert_eq!(journal.story(&hash), None);
    }

    #[test]
    fn pushes_pulls_and_bounds() {
        let journal = Journal::default();
        assert_eq!(journal.sealed(Hash([9; 32])), None);
        assert_eq!(journal.story(&Hash([9; 32])).expect("known").sources[0].place.kind, "client");
        let digest = Digest::Sha256([1; 32]);
        journal.pulling(digest, "docker.io");
        assert!(journal.is_pulling(&digest));
        journal.pulled(&digest, &Err(PullFailure::Away("no route".into())));
        assert_eq!(journal.failed_pull(&digest).expect("noted").fault, "away");
        journal.pulling(digest, "docker.io");
        let (from, _) = journal.pulled(&digest, &Ok((Hash([8; 32]), 5))).expect("was pulling");
        assert_eq!((from.as_str(), journal.failed_pull(&digest)), ("docker.io", None));
        let story = journal.story(&Hash([8; 32])).expect("known");
        assert_eq!((story.sources[0].bytes, story.here), (5, true));

        for n in 0..2 * Journal::BLOBS_MAX as u64 {
            journal.wanted(Hash::of(&n.to_le_bytes()), 1);
        }
        assert_eq!(journal.book().stories.len(), Journal::BLOBS_MAX);
        let hash = Hash([7; 32]);
        for n in 0..3 * Journal::PARTS_MAX as u64 {
            journal.began(FetchId(n), NodeId([1; 32]), place(1), hash, n..n + 1);
            journal.came(FetchId(n));
        }
        let story = journal.story(&hash).expect("known");
        assert_eq!(
            (story.parts.len(), story.sources[0].bytes),
            (Journal::PARTS_MAX, 3 * Journal::PARTS_MAX as u64)
        );
    }
}
