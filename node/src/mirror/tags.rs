//! Where tags of upstreams point: asked of the upstream unless that was done a moment ago, and remembered for
//! when it is away. Nothing here is believed that could not be the operator's wish: while an upstream is away, a
//! tag points where this node or one with a grant for the repository last saw it, and the answer says so.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use waystation_proto::{Digest, NodeId, RepoName, Tag, Wall};

use super::names::Place;
use crate::{
    driver::handle::ReplicaHandle,
    store::{SightingEntry, Store},
    upstream::{StaleFor, UpstreamError},
};

/// What this node knows of upstreams' tags.
pub struct Tags {
    store: Store,
    replica: ReplicaHandle,
    node: NodeId,
    recent: Mutex<BTreeMap<Name, Recent>>,
}

type Name = (RepoName, Tag);

/// What a tag is known to point at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// The manifest.
    pub digest: Digest,
    /// What the client should know about how this is known.
    pub warning: Option<String>,
}

/// One question at a time about a tag, and the last answer.
#[derive(Clone, Default)]
struct Recent {
    turn: Arc<tokio::sync::Mutex<()>>,
    answer: Option<(Digest, Instant)>,
}

impl Tags {
    /// Nothing asked yet.
    pub fn new(store: Store, replica: ReplicaHandle, node: NodeId) -> Self {
        Tags { store, replica, node, recent: Mutex::default() }
    }

    /// Where a tag points.
    ///
    /// # Errors
    /// What the upstream answered, where nothing is known that may be given instead.
    pub async fn resolve(&self, place: &Place, tag: &Tag) -> Result<Resolved, UpstreamError> {
        let name = (place.repository.clone(), tag.clone());
        let fresh = || self.fresh(&name, place.upstream.config().revalidate);
        if let Some(digest) = fresh() {
            return Ok(Resolved { digest, warning: None });
        }
        let turn = self.turn(&name);
        // Many clients that ask at once are one question. Where that is whether an upstream is back, who comes
        // meanwhile does not wait for the answer.
        let _turn = match turn.try_lock() {
            Ok(turn) => turn,
            Err(_) => {
                let away = UpstreamError::Unavailable("it was away a moment ago".into());
                let known = place.upstream.is_away().then(|| self.last_known(place, tag, &away)).flatten();
                if let Some(known) = known {
                    return Ok(known);
                }
                turn.lock().await
            }
        };
        if let Some(digest) = fresh() {
            return Ok(Resolved { digest, warning: None });
        }
        match place.upstream.resolve(&place.path, tag).await {
            Ok(resolved) => {
                self.note(&name, resolved.digest).await;
                Ok(Resolved { digest: resolved.digest, warning: None })
            }
            Err(error @ (UpstreamError::Unavailable(_) | UpstreamError::RateLimited { .. })) => {
                self.last_known(place, tag, &error).ok_or(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Remembers where the upstream says that a tag points, and tells the mesh.
    async fn note(&self, name: &Name, digest: Digest) {
        self.keep(name, digest);
        self.replica.sighted(name.0.clone(), name.1.clone(), digest).await;
    }

    fn keep(&self, name: &Name, digest: Digest) {
        self.recent().entry(name.clone()).or_default().answer = Some((digest, Instant::now()));
    }

    /// Whose turn it is to ask about a tag, of which clients may name any number.
    fn turn(&self, name: &Name) -> Arc<tokio::sync::Mutex<()>> {
        let mut recent = self.recent();
        if recent.len() >= RECENT_MAX {
            recent.retain(|_, known| known.answer.is_some() || Arc::strong_count(&known.turn) > 1);
        }
        if recent.len() >= RECENT_MAX {
            // Only answers that are fresh are worth keeping, and questions under way keep their own turn.
            recent.clear();
        }
        recent.entry(name.clone()).or_default().turn.clone()
    }

    fn fresh(&self, name: &Name, for_how_long: Duration) -> Option<Digest> {
        let (digest, since) = self.recent().get(name)?.answer?;
        (since.elapsed() < for_how_long).then_some(digest)
    }

    /// Where the tag was last seen to point, if that is not too long ago.
    fn last_known(&self, place: &Place, tag: &Tag, why: &UpstreamError) -> Option<Resolved> {
        let mut sightings = self.store.index().sightings(&place.repository, tag);
        let config = place.upstream.config();
        let now = wall();
        // A tag that does not move is told of seldom; when it was last looked at, this run may know better.
        let recent = self.recent().get(&(place.repository.clone(), tag.clone())).and_then(|r| r.answer);
        if let Some((manifest, since)) = recent {
            let seen = Wall(now.0.saturating_sub(since.elapsed().as_secs()));
            sightings.push(SightingEntry { node: self.node, manifest, seen, granted: false });
        }
        let last = believed(&sightings, &self.node, now, config.stale_for)?;
        let age = match last.age {
            Some(age) => format!("{} ago", humantime::format_duration(Duration::from_secs(age.as_secs()))),
            None => "at a time that this node's clock cannot tell".to_owned(),
        };
        let seen_by = if last.entry.node == self.node {
            "this node".to_owned()
        } else {
            format!("node {}", last.entry.node.short())
        };
        let (namespace, digest) = (&config.namespace, last.entry.manifest);
        let warning =
            format!("{namespace} cannot be asked ({why}); {tag} is where {seen_by} last saw it, {age}");
        Some(Resolved { digest, warning: Some(warning) })
    }

    fn recent(&self) -> MutexGuard<'_, BTreeMap<Name, Recent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A sighting, and how long ago it was, as far as the clocks allow to say.
#[derive(Debug, PartialEq, Eq)]
struct Believed<'a> {
    entry: &'a SightingEntry,
    age: Option<Duration>,
}

/// The latest sighting of those that count. Clocks decide only between nodes that may all be believed.
fn believed<'a>(
    sightings: &'a [SightingEntry],
    me: &NodeId,
    now: Wall,
    stale_for: StaleFor,
) -> Option<Believed<'a>> {
    let counts = sightings.iter().filter(|entry| entry.granted || entry.node == *me);
    // What says to be of tomorrow tells nothing of when it was: it counts only where nothing else does.
    let possible = |entry: &SightingEntry| !now.is_plausible() || entry.seen.0 <= now.0 + SKEW;
    let entry = counts.max_by_key(|entry| (possible(entry), entry.seen, entry.node))?;
    let clocks = now.is_plausible() && entry.seen.is_plausible();
    let age = clocks.then(|| now.0.checked_sub(entry.seen.0)).flatten().map(Duration::from_secs);
    let allowed = match age {
        Some(age) => stale_for.allows(age),
        // A board without a clock must go on; an operator who wants none of this says so.
        None => stale_for != StaleFor::Never,
    };
    allowed.then_some(Believed { entry, age })
}

fn wall() -> Wall {
    Wall(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// How many seconds clocks of nodes may differ.
const SKEW: u64 = 300;
/// Tags whose last answer is kept.
const RECENT_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Wall = Wall(1_800_000_000);

    fn entry(node: u8, seconds_ago: u64, granted: bool) -> SightingEntry {
        let (node, manifest) = (NodeId([node; 32]), Digest::Sha256([node; 32]));
        SightingEntry { node, manifest, seen: Wall(NOW.0 - seconds_ago), granted }
    }

    #[test]
    fn only_this_node_and_granted_ones_are_believed() {
        let me = NodeId([1; 32]);
        let week = StaleFor::Within(Duration::from_secs(7 * 86_400));
        let claims = [entry(2, 10, false), entry(3, 20, false)];
        assert_eq!(believed(&claims, &me, NOW, week), None);
        let all = [entry(1, 100, false), entry(2, 10, false), entry(3, 50, true)];
        let last = believed(&all, &me, NOW, week).expect("two count");
        assert_eq!((last.entry.node, last.age), (NodeId([3; 32]), Some(Duration::from_secs(50))));
    }

    #[test]
    fn staleness_has_a_limit_and_clocks_may_be_wrong() {
        let me = NodeId([1; 32]);
        let mine = [entry(1, 3600, false)];
        let hour = |hours: u64| StaleFor::Within(Duration::from_secs(hours * 3600));
        assert!(believed(&mine, &me, NOW, hour(1)).is_some());
        assert_eq!(believed(&mine, &me, Wall(NOW.0 + 1), hour(1)), None);
        assert!(believed(&mine, &me, Wall(NOW.0 + 1), StaleFor::Forever).is_some());
        assert_eq!(believed(&mine, &me, NOW, StaleFor::Never), None);
        // A node whose clock is years ahead does not have the last word for years.
        let ahead = SightingEntry { seen: Wall(NOW.0 + 1_000_000), ..entry(2, 0, true) };
        let both = [mine[0], ahead];
        assert_eq!(believed(&both, &me, NOW, hour(2)).expect("one counts").entry.node, me);
        let unset = believed(&mine, &me, Wall(12), hour(1)).expect("a board without a clock goes on");
        assert_eq!(unset.age, None);
        assert_eq!(believed(&mine, &me, Wall(12), StaleFor::Never), None);
    }
}
