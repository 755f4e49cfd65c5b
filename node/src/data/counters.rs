//! What the data plane counts: payload bytes, duplicates included, without what the transport adds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use waystation_proto::NodeId;

/// Since the node started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DataCounters {
    /// Payload bytes received.
    pub bytes_in: u64,
    /// Payload bytes sent, counted when a request ends.
    pub bytes_out: u64,
    /// The same by member, for the first 4096 members.
    pub peers: BTreeMap<NodeId, PeerBytes>,
    /// Fetches begun.
    pub fetches: u64,
    /// Fetches that failed; those cancelled, or stopped by the budget, are not among them.
    pub failed: u64,
    /// Connections that did not prove this mesh's admission secret, either way.
    pub refused: u64,
}

/// Payload bytes exchanged with one member.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerBytes {
    /// Received from it.
    pub bytes_in: u64,
    /// Sent to it.
    pub bytes_out: u64,
}

/// The counting side; clones count together.
#[derive(Clone, Debug, Default)]
pub struct Counting(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    bytes: Mutex<Bytes>,
    fetches: AtomicU64,
    failed: AtomicU64,
    refused: AtomicU64,
}

#[derive(Debug, Default)]
struct Bytes {
    total: PeerBytes,
    peers: BTreeMap<NodeId, PeerBytes>,
    came: BTreeSet<NodeId>,
}

impl Counting {
    pub(super) fn received(&self, from: NodeId, bytes: u64) {
        self.bytes().add(from, |count| count.bytes_in += bytes);
    }

    pub(super) fn sent(&self, to: NodeId, bytes: u64) {
        self.bytes().add(to, |count| count.bytes_out += bytes);
    }

    /// A member has connected to this node.
    pub(super) fn came(&self, node: NodeId) {
        let mut bytes = self.bytes();
        if bytes.came.len() < PEERS_MAX {
            bytes.came.insert(node);
        }
    }

    /// Members that have connected to this node since the start.
    pub fn who_came(&self) -> BTreeSet<NodeId> {
        self.bytes().came.clone()
    }

    pub(super) fn fetch(&self) {
        self.0.fetches.fetch_add(1, Relaxed);
    }

    pub(super) fn failed(&self) {
        self.0.failed.fetch_add(1, Relaxed);
    }

    pub(super) fn refused(&self) {
        self.0.refused.fetch_add(1, Relaxed);
    }

    /// What was counted until now.
    pub fn now(&self) -> DataCounters {
        let bytes = self.bytes();
        DataCounters {
            bytes_in: bytes.total.bytes_in,
            bytes_out: bytes.total.bytes_out,
            peers: bytes.peers.clone(),
            fetches: self.0.fetches.load(Relaxed),
            failed: self.0.failed.load(Relaxed),
            refused: self.0.refused.load(Relaxed),
        }
    }

    fn bytes(&self) -> MutexGuard<'_, Bytes> {
        // Sums stay sums even if somebody panicked while adding.
        self.0.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bytes {
    fn add(&mut self, peer: NodeId, count: impl Fn(&mut PeerBytes)) {
        count(&mut self.total);
        if self.peers.len() < PEERS_MAX || self.peers.contains_key(&peer) {
            count(self.peers.entry(peer).or_default());
        }
    }
}

const PEERS_MAX: usize = 4096;
