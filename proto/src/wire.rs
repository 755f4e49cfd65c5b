//! Messages between members, and their bytes. Decoding is total and bounded: whatever a peer sends is a
//! message or an error.

use alloc::{string::String, vec::Vec};

use serde::{Deserialize, Serialize};

use crate::{
    body::NodeBody,
    id::{Digest, Hash, NodeId, RepoName},
    reconcile::Summary,
    record::RecordId,
    shared::Shared,
};

/// What members say to one another. All of it may be lost, repeated and reordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Records that the receiver may not know: gossip, or an answer to `Request`.
    Records(Vec<Shared>),
    /// One step of a reconciliation: what the sender has in these parts of the catalog.
    Reconcile {
        /// The site that the sender takes both to be on, whose own records are compared too. Whoever is not on it
        /// begins anew without.
        site: Option<String>,
        /// The parts.
        summaries: Vec<Summary>,
    },
    /// Send me these.
    Request(Vec<RecordId>),
    /// Which of these contents of an upstream do you have, or are you pulling? Answered by `Tell`.
    Ask {
        /// The repository through which they are seen.
        repository: RepoName,
        /// What. At most [`Message::MAX_ASKED`].
        digests: Vec<Digest>,
    },
    /// Answers to `Ask`; once more, unasked, when what was being pulled is there or was given up.
    Tell {
        /// The repository that was asked about.
        repository: RepoName,
        /// One for each digest, in any order.
        answers: Vec<Answer>,
    },
    /// Are you there? Answered by `ProbeAnswer`, at once.
    Probe {
        /// Comes back with the answer.
        nonce: u64,
    },
    /// Answer to `Probe`.
    ProbeAnswer {
        /// Of the probe.
        nonce: u64,
        /// Sessions that the sender has with other sites.
        outside: u16,
    },
    /// I have more sessions than I keep: end this one if you can do without it. Not answered.
    LetGo,
    /// Who has this artifact? Answered by `Records`, of holders and of what they hold, or not at all.
    WhoHas {
        /// Its manifest.
        manifest: Digest,
        /// Over how many members the question may go, this one included. More than two count as two.
        hops: u8,
    },
    /// How far blobs are that the sender is getting, or that the receiver said it was. At most
    /// [`Message::MAX_PROGRESS`].
    Progress(Vec<Progress>),
    /// I want to delete my copy of this artifact: do you keep yours? Answered by `LeaseAnswer`.
    LeaseAsk {
        /// The artifact.
        manifest: Digest,
        /// All that it consists of. At most [`Message::MAX_LEASED`].
        blobs: Vec<Hash>,
    },
    /// Answer to `LeaseAsk`.
    LeaseAnswer {
        /// The artifact.
        manifest: Digest,
        /// Whether it is all there, and will be for [`crate::leases::Leases::SPAN`].
        granted: bool,
    },
    /// How far blobs that the receiver gets too are at members of other sites, as these said to the sender: most nodes
    /// have sessions with few of those. To members of the sender's site. At most [`Message::MAX_PROGRESS`].
    Elsewhere(Vec<Elsewhere>),
}

/// What of a blob is at a member that the receiver may have no session with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Elsewhere {
    /// Who.
    pub node: NodeId,
    /// What it said.
    pub progress: Progress,
}

/// What of a blob is at the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The blob.
    pub hash: Hash,
    /// How much.
    pub extent: Extent,
}

/// How much of a blob is at a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// It is being brought there. Sets of cells as [`crate::cells::Cells::to_bytes`] writes them.
    Partial {
        /// Verified, and to be had.
        have: Vec<u8>,
        /// On their way from another site.
        coming: Vec<u8>,
    },
    /// All of it.
    Whole,
    /// It is not wanted there, or not any more. Whoever says [`Extent::Partial`] to a member for which that is so is
    /// told, so that it need not wait.
    Dropped,
    /// As [`Extent::Partial`], of a large site whose nodes hear of some of the others only.
    InCrowd {
        /// Verified, and to be had.
        have: Vec<u8>,
        /// On their way from another site.
        coming: Vec<u8>,
        /// Here or on their way at neighbours of the sender that are getting it too.
        beyond: Vec<u8>,
        /// Here or on their way at the neighbours of these.
        farther: Vec<u8>,
    },
}

/// What a member says about one content of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// What was asked for.
    pub digest: Digest,
    /// How it stands there.
    pub state: Standing,
}

/// How content of an upstream stands at a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// Not there.
    Absent,
    /// On its way from the upstream; will be told of when it is there.
    Pulling,
    /// There, durably, by these names. A claim: the receiver computes the digest itself.
    Held {
        /// Its hash.
        hash: Hash,
        /// Its size in bytes.
        size: u64,
    },
}

/// Bytes that are not a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Another version of the wire format.
    #[error("message of wire version {0}, this node speaks version {VERSION}")]
    Version(u8),
    /// Over a limit.
    #[error("message over the limit of {0}")]
    TooLarge(&'static str),
    /// Cut or garbled.
    #[error("message does not decode")]
    Malformed,
}

const VERSION: u8 = 1;
/// Room for a message as most are, so that it does not grow while it is written.
const USUAL_BYTES: usize = 256;

impl Message {
    /// Longest encoded message in bytes.
    pub const MAX_BYTES: usize = 1024 * 1024;
    /// Longest encoded announcement in bytes (gossip floods, so it is kept small).
    pub const MAX_ANNOUNCE_BYTES: usize = 64 * 1024;
    /// Most records, summaries or ids in one message.
    pub const MAX_ITEMS: usize = 4096;
    /// Most digests that are asked for, or answered, at once.
    pub const MAX_ASKED: usize = 64;
    /// Most blobs whose progress is told at once.
    pub const MAX_PROGRESS: usize = 64;
    /// Most blobs of an artifact that a lease can be had for.
    pub const MAX_LEASED: usize = 4096;

    /// The message's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        bytes.push(VERSION);
        postcard::to_extend(self, bytes).expect("plain data always encodes")
    }

    /// Reads a message.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > Self::MAX_BYTES {
            return Err(WireError::TooLarge("1 MiB"));
        }
        let (version, body) = bytes.split_first().ok_or(WireError::Malformed)?;
        if *version != VERSION {
            return Err(WireError::Version(*version));
        }
        let (message, rest) = postcard::take_from_bytes::<Message>(body).map_err(|_| WireError::Malformed)?;
        let items = match &message {
            Message::Records(records) => records.len(),
            Message::Reconcile { site: Some(site), .. } if site.len() > NodeBody::SITE_MAX => {
                return Err(WireError::TooLarge("63 bytes of a site's name"));
            }
            Message::Reconcile { summaries, .. } => summaries.iter().map(Summary::items).sum(),
            Message::Request(ids) => ids.len(),
            Message::Ask { digests: asked, .. } => in_bounds(asked.len())?,
            Message::Tell { answers, .. } => in_bounds(answers.len())?,
            Message::Progress(progress) if progress.len() > Self::MAX_PROGRESS => {
                return Err(WireError::TooLarge("64 blobs"));
            }
            Message::Progress(progress) => progress.len(),
            Message::Elsewhere(told) if told.len() > Self::MAX_PROGRESS => {
                return Err(WireError::TooLarge("64 blobs"));
            }
            Message::Elsewhere(told) => told.len(),
            Message::Probe { .. } | Message::ProbeAnswer { .. } | Message::LetGo | Message::WhoHas { .. } => {
                1
            }
            Message::LeaseAsk { blobs, .. } => blobs.len(),
            Message::LeaseAnswer { .. } => 0,
        };
        if items > Self::MAX_ITEMS {
            return Err(WireError::TooLarge("4096 items"));
        }
        if !rest.is_empty() {
            return Err(WireError::Malformed);
        }
        Ok(message)
    }
}

fn in_bounds(asked: usize) -> Result<usize, WireError> {
    if asked > Message::MAX_ASKED { Err(WireError::TooLarge("64 digests")) } else { Ok(asked) }
}

/// Splits records into groups that stay below a size and the limit of items in a message.
pub fn batches(records: impl Iterator<Item = Shared>, bytes_max: usize) -> Vec<Vec<Shared>> {
    let mut batches: Vec<Vec<Shared>> = Vec::new();
    let mut bytes = usize::MAX;
    for record in records {
        let size = record.size();
        let full = batches.last().is_none_or(|batch| batch.len() >= Message::MAX_ITEMS);
        if full || bytes.saturating_add(size) > bytes_max {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(batch) = batches.last_mut() {
            batch.push(record);
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_message_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let mut framed = bytes.clone();
            framed.insert(0, VERSION);
            for candidate in [bytes, framed] {
                if let Ok(message) = Message::decode(&candidate) {
                    prop_assert_eq!(Message::decode(&message.encode()), Ok(message));
                }
            }
        }
    }

    #[test]
    fn says_which_version_it_met() {
        assert_eq!(Message::decode(&[9, 1]), Err(WireError::Version(9)));
        assert_eq!(Message::decode(&[]), Err(WireError::Malformed));
        assert_eq!(
            Message::decode(&alloc::vec![1; Message::MAX_BYTES + 1]),
            Err(WireError::TooLarge("1 MiB"))
        );
    }
}
