//! What the control plane counts, for metrics and `status`.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use waystation_proto::wire::Message;

use crate::metrics::Kind;

/// Since the node started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlCounters {
    /// What came.
    pub received: Traffic,
    /// What was handed to libp2p.
    pub sent: Traffic,
    /// Connections that ended in the handshake because the other side is no member, does not finish it, or
    /// is one too many, and own ones that another mesh's node answered.
    pub refused: u64,
    /// Frames that were not messages.
    pub garbage: u64,
    /// Messages that were not sent because their receiver was away or too slow.
    pub dropped: u64,
}

/// Messages by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Announcements by gossip.
    pub gossip: Tally,
    /// Records sent to one member.
    pub records: Tally,
    /// Steps of reconciliation.
    pub reconcile: Tally,
    /// Requests for records, and whether somebody is there.
    pub request: Tally,
    /// What is asked and told of contents of upstreams.
    pub pulls: Tally,
    /// How far blobs are that several nodes are getting.
    pub progress: Tally,
}

impl Traffic {
    /// Each kind.
    pub fn kinds(&self) -> [(Kind, Tally); 6] {
        [
            (Kind::Gossip, self.gossip),
            (Kind::Records, self.records),
            (Kind::Reconcile, self.reconcile),
            (Kind::Request, self.request),
            (Kind::Pulls, self.pulls),
            (Kind::Progress, self.progress),
        ]
    }

    /// Bytes of all kinds.
    pub fn bytes(&self) -> u64 {
        self.kinds().iter().map(|(_, tally)| tally.bytes).sum()
    }
}

/// How many, and how large together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages.
    pub messages: u64,
    /// Their encoded bytes, without what the transport adds.
    pub bytes: u64,
}

/// The counting side; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    received: [Count; KINDS],
    sent: [Count; KINDS],
    refused: AtomicU64,
    garbage: AtomicU64,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Count {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// The way that a message takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Gossip,
    Direct,
}

impl Counting {
    pub(crate) fn received(&self, way: Way, message: &Message, bytes: usize) {
        self.0.received[slot(way, message)].add(bytes);
    }

    pub(crate) fn sent(&self, way: Way, message: &Message, bytes: usize) {
        self.0.sent[slot(way, message)].add(bytes);
    }

    pub(crate) fn refused(&self) {
        self.0.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn garbage(&self) {
        self.0.garbage.fetch_add(1, Relaxed);
    }

    pub(crate) fn dropped(&self) {
        self.0.dropped.fetch_add(1, Relaxed);
    }

    /// What was counted until now.
    pub fn now(&self) -> ControlCounters {
        ControlCounters {
            received: traffic(&self.0.received),
            sent: traffic(&self.0.sent),
            refused: self.0.refused.load(Relaxed),
            garbage: self.0.garbage.load(Relaxed),
            dropped: self.0.dropped.load(Relaxed),
        }
    }
}

impl Count {
    fn add(&self, bytes: usize) {
        self.messages.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    fn tally(&self) -> Tally {
        Tally { messages: self.messages.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }
}

fn slot(way: Way, message: &Message) -> usize {
    match (way, message) {
        (Way::Gossip, _) => 0,
        (Way::Direct, Message::Records(_)) => 1,
        (Way::Direct, Message::Reconcile { .. }) => 2,
        (
            Way::Direct,
            Message::Request(_)
            | Message::Probe { .. }
            | Message::ProbeAnswer { .. }
            | Message::LetGo
            | Message::WhoHas { .. },
        ) => 3,
        (Way::Direct, Message::Ask { .. } | Message::Tell { .. }) => 4,
        (Way::Direct, Message::Progress(_) | Message::Elsewhere(_)) => 5,
        // Seldom, and small.
        (Way::Direct, Message::LeaseAsk { .. } | Message::LeaseAnswer { .. }) => 3,
    }
}

fn traffic(counts: &[Count; KINDS]) -> Traffic {
    let [gossip, records, reconcile, request, pulls, progress] = counts;
    Traffic {
        gossip: gossip.tally(),
        records: records.tally(),
        reconcile: reconcile.tally(),
        request: request.tally(),
        pulls: pulls.tally(),
        progress: progress.tally(),
    }
}

/// Kinds of messages that are counted apart.
const KINDS: usize = 6;
