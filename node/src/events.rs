//! What happens at this node and in its mesh, as a stream for whoever watches: a bounded ring of numbered events.
//! A reader that is too slow, or comes back too late, is told how many it missed. Who tells what is the driver's
//! witness; how it goes over HTTP is [`stream`]'s.

pub mod stream;

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// Events of this run. Clones are the same.
#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    /// Tells this run's numbers from another's.
    run: String,
    ring: Mutex<Ring>,
    /// The number of the next event.
    next: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    next: u64,
    kept: VecDeque<Arc<Event>>,
}

/// One event. The JSON is stable: fields are added, never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in the stream: `<run>-<number>`; give it back to go on after it.
    pub id: String,
    /// When, by this node's clock, in seconds since 1970-01-01 UTC.
    pub time: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum What {
    /// An artifact is new in a repository (no tag), or a tag points there now.
    Published {
        /// The repository.
        repository: String,
        /// The tag that was written.
        tag: Option<String>,
        /// The manifest.
        digest: String,
        /// Who wrote the tag.
        author: Option<String>,
    },
    /// A tag, or an artifact (no tag), was taken out of a repository.
    Deleted {
        /// The repository.
        repository: String,
        /// The tag.
        tag: Option<String>,
        /// The manifest.
        digest: Option<String>,
    },
    /// A write of a tag gave way to another.
    TagLost {
        /// The repository.
        repository: String,
        /// The tag.
        tag: String,
        /// Where it would point.
        digest: Option<String>,
        /// Who wrote it.
        author: String,
    },
    /// A publisher said what state an artifact is in.
    Status {
        /// The repository.
        repository: String,
        /// The manifest.
        digest: String,
        /// `validating`, `quarantined`, `approved`, `rejected` or `revoked`.
        status: String,
        /// Why.
        reason: String,
    },
    /// Every blob of an artifact is here, durably.
    Held {
        /// The manifest.
        digest: String,
    },
    /// This node, and every node of its site that it has a session with, say to hold all of an artifact.
    SiteComplete {
        /// The manifest.
        digest: String,
        /// The site.
        site: String,
        /// How many nodes that are.
        nodes: u64,
    },
    /// The first bytes of a blob were asked for.
    FetchStarted {
        /// The blob.
        #[serde(flatten)]
        blob: Blob,
        /// Of whom: a node's id, or an upstream's name.
        from: String,
        /// Where that node is.
        site: Option<String>,
    },
    /// A blob that was fetched is here, durably.
    Fetched {
        /// The blob.
        #[serde(flatten)]
        blob: Blob,
        /// From when it was wanted, in milliseconds.
        took_ms: u64,
    },
    /// A transfer came to nothing. Others may have been tried after it.
    FetchFailed {
        /// The blob.
        #[serde(flatten)]
        blob: Blob,
        /// Of whom it was asked: a node's id, or an upstream's name.
        from: String,
        /// `peer`, `lied`, `local`, `absent`, `away` or `wrong`.
        fault: String,
        /// For people.
        why: String,
    },
    /// A holder's bytes did not match; it is not asked for a while.
    HolderLied {
        /// The node.
        node: String,
        /// The blob.
        #[serde(flatten)]
        blob: Blob,
    },
    /// A blob is not held here any more.
    Evicted {
        /// The blob.
        #[serde(flatten)]
        blob: Blob,
    },
    /// A session with a member came up.
    NodeUp {
        /// The node.
        node: String,
        /// Where it is, as far as is known.
        site: Option<String>,
    },
    /// The last session with a member ended.
    NodeDown {
        /// The node.
        node: String,
        /// Where it is, as far as is known.
        site: Option<String>,
    },
    /// An upstream fails and is left alone for a while.
    UpstreamAway {
        /// Its name.
        upstream: String,
    },
    /// An upstream answers again.
    UpstreamBack {
        /// Its name.
        upstream: String,
    },
    /// Events that this reader did not get.
    Missed {
        /// How many; absent where they are of an earlier run of the node.
        count: Option<u64>,
    },
}

/// How events name a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Its digest, where it is known yet.
    pub digest: Option<String>,
    /// Its BLAKE3 hash, where it is known yet.
    pub hash: Option<String>,
}

impl What {
    /// Every value of `type`.
    pub const TYPES: [&str; 16] = [
        "published",
        "deleted",
        "tag-lost",
        "status",
        "held",
        "site-complete",
        "fetch-started",
        "fetched",
        "fetch-failed",
        "holder-lied",
        "evicted",
        "node-up",
        "node-down",
        "upstream-away",
        "upstream-back",
        "missed",
    ];

    /// Its value of `type`.
    pub fn name(&self) -> &'static str {
        let n = match self {
            What::Published { .. } => 0,
            What::Deleted { .. } => 1,
            What::TagLost { .. } => 2,
            What::Status { .. } => 3,
            What::Held { .. } => 4,
            What::SiteComplete { .. } => 5,
            What::FetchStarted { .. } => 6,
            What::Fetched { .. } => 7,
            What::FetchFailed { .. } => 8,
            What::HolderLied { .. } => 9,
            What::Evicted { .. } => 10,
            What::NodeUp { .. } => 11,
            What::NodeDown { .. } => 12,
            What::UpstreamAway { .. } => 13,
            What::UpstreamBack { .. } => 14,
            What::Missed { .. } => 15,
        };
        Self::TYPES[n]
    }
}

impl Events {
    /// How many events are kept for those who come late.
    pub const KEPT: usize = 2048;

    /// No events yet; `run` is not another run's.
    pub fn new(run: u64) -> Self {
        let (ring, next) = (Mutex::default(), watch::Sender::new(0));
        Events(Arc::new(Shared { run: format!("{run:08x}"), ring, next }))
    }

    /// Tells everybody. Waits for nobody.
    pub fn tell(&self, what: What) {
        let mut ring = self.ring();
        let event = Event { id: self.id(ring.next), time: now(), what };
        if ring.kept.len() >= Self::KEPT {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Arc::new(event));
        ring.next += 1;
        self.0.next.send_replace(ring.next);
    }

    /// What comes from now on, or after the event with this id. `start` is before all that are kept.
    pub fn subscribe(&self, since: Option<&str>) -> Subscription {
        let next = self.0.next.subscribe();
        let ring = self.ring();
        let (at, earlier_run) = match since {
            None => (ring.next, false),
            Some("start") => (ring.oldest(), false),
            Some(id) => match id.strip_prefix(self.0.run.as_str()).and_then(|rest| rest.strip_prefix('-')) {
                Some(number) => {
                    let after =
                        number.parse::<u64>().map_or(ring.oldest(), |number| number.saturating_add(1));
                    (after.min(ring.next), false)
                }
                None => (ring.oldest(), true),
            },
        };
        drop(ring);
        Subscription { events: self.clone(), at, earlier_run, next }
    }

    fn id(&self, number: u64) -> String {
        format!("{}-{number}", self.0.run)
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One reader's place in the stream.
pub struct Subscription {
    events: Events,
    /// The number of the event that it is to get next.
    at: u64,
    earlier_run: bool,
    next: watch::Receiver<u64>,
}

impl Subscription {
    /// The next event; waits where there is none yet.
    pub async fn next(&mut self) -> Arc<Event> {
        loop {
            if let Some(event) = self.take() {
                return event;
            }
            // This handle keeps the sender alive.
            let _ = self.next.changed().await;
        }
    }

    fn take(&mut self) -> Option<Arc<Event>> {
        let ring = self.events.ring();
        let oldest = ring.oldest();
        if std::mem::take(&mut self.earlier_run) {
            return Some(self.missed(None));
        }
        if self.at < oldest {
            let count = oldest - self.at;
            self.at = oldest;
            return Some(self.missed(Some(count)));
        }
        let event = ring.kept.get(usize::try_from(self.at - oldest).ok()?)?.clone();
        self.at += 1;
        Some(event)
    }

    fn missed(&self, count: Option<u64>) -> Arc<Event> {
        // With the number of the last that is missing: whoever comes back with it gets what is next.
        let id = self.at.checked_sub(1).map_or_else(|| "start".to_owned(), |before| self.events.id(before));
        Arc::new(Event { id, time: now(), what: What::Missed { count } })
    }
}

impl Ring {
    /// The number of the oldest that is kept.
    fn oldest(&self) -> u64 {
        self.next - self.kept.len() as u64
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn up(n: usize) -> What {
        What::NodeUp { node: n.to_string(), site: None }
    }

    #[tokio::test]
    async fn readers_go_on_where_they_were_and_are_told_what_they_missed() {
        let events = Events::new(7);
        events.tell(up(0));
        let mut live = events.subscribe(None);
        events.tell(up(1));
        let first = live.next().await;
        assert_eq!((first.id.as_str(), &first.what), ("00000007-1", &up(1)));
        let mut again = events.subscribe(Some("00000007-0"));
        assert_eq!(again.next().await, first);
        assert_eq!(events.subscribe(Some("start")).next().await.what, up(0));

        for n in 2..Events::KEPT + 5 {
            events.tell(up(n));
        }
        // The slow one missed what the ring let go, and gets the rest.
        let missed = live.next().await;
        assert_eq!(missed.what, What::Missed { count: Some(3) });
        assert_eq!(live.next().await.what, up(5));
        assert_eq!(events.subscribe(Some(&missed.id)).next().await.what, up(5));

        let mut other = events.subscribe(Some("00000006-9"));
        assert_eq!(other.next().await.what, What::Missed { count: None });
        assert_eq!(other.next().await.what, up(5));
        assert_eq!(events.subscribe(Some("00000007-junk")).next().await.what, up(5));
    }

    #[test]
    fn json_is_flat_and_named_by_its_type() {
        let blob = Blob { digest: None, hash: Some("ab".into()) };
        let what = What::FetchStarted { blob, from: "docker.io".into(), site: None };
        let event = Event { id: "1-2".into(), time: 3, what };
        let text = serde_json::to_string(&event).expect("encodes");
        let expected = r#"{"id":"1-2","time":3,"type":"fetch-started","digest":null,"hash":"ab","from":"docker.io","site":null}"#;
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Event>(&text).expect("decodes"), event);
        assert_eq!(event.what.name(), "fetch-started");
    }
}
