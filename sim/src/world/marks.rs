//! What the trace keeps of an input: a number for what it is and one for which. Enough to tell two histories
//! apart, since whatever differs in an input soon differs in the messages that follow.

use waystation_proto::{Hash, Input, NodeId};

/// The number of a message that is received, beside its hash.
pub(super) const RECEIVED: u8 = 1;

/// What an input is, and which.
pub(super) fn of(input: &Input) -> (u8, u64) {
    match input {
        Input::Restore { records, held } => (2, ((records.len() as u64) << 32) + held.len() as u64),
        Input::Reachable { .. } => (3, 0),
        Input::Received { from, message } => {
            (RECEIVED, of_node(from) ^ of_hash(&Hash::of(&message.encode())))
        }
        Input::PeerUp { peer, .. } => (4, of_node(peer)),
        Input::PeerDown { peer } => (5, of_node(peer)),
        Input::TimerFired(timer) => (6, *timer as u64),
        Input::Probed { hash, have } => (7, of_hash(hash).wrapping_add(have.len())),
        Input::Arriving { fetch } => (8, fetch.0),
        Input::Fetched { fetch } => (9, fetch.0),
        Input::FetchFailed { fetch, fault } => (10, (fetch.0 << 8) + *fault as u64),
        Input::Sealed { hash } => (11, of_hash(hash)),
        Input::SealFailed { hash, .. } => (12, of_hash(hash)),
        Input::IndexRead { hash, index } => (13, of_hash(hash).wrapping_add(u64::from(index.is_some()))),
        Input::Persisted { write } => (14, write.0),
        Input::PersistFailed { write, .. } => (15, write.0),
        Input::DialFailed { .. } => (16, 0),
        Input::Publish { request, .. } => (17, request.0),
        Input::WantArtifact { request, .. } => (18, request.0),
        Input::WantBlob { request, .. } => (19, request.0),
        Input::Abandon { request } => (20, request.0),
        // Seldom enough to be told in words.
        other => (0, of_hash(&Hash::of(format!("{other:?}").as_bytes()))),
    }
}

/// The first bytes of a hash.
pub(super) fn of_hash(hash: &Hash) -> u64 {
    first_bytes(&hash.0)
}

fn of_node(node: &NodeId) -> u64 {
    first_bytes(&node.0)
}

fn first_bytes(bytes: &[u8; 32]) -> u64 {
    bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
