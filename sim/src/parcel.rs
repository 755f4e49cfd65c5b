//! A message under way: encoded once to know its bytes. An announcement is decoded once for all that receive it, as
//! the real codec does both; a message to one member arrives as it was sent, with the records that its sender has, and
//! is decoded where everything is checked. Owns also what travels around a message, and the names that costs are told by.

use waystation_proto::{
    Hash,
    wire::{Message, WireError},
};

/// A message and what it weighs.
#[derive(Clone, Debug)]
pub struct Parcel {
    /// As the receiver decodes it.
    pub message: Message,
    /// Encoded, without anything around it.
    pub bytes: u32,
    /// Of the encoded bytes.
    pub hash: Hash,
    /// Which messages it is counted among.
    pub kind: Kind,
}

/// Which messages something is counted among.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Announcements, each copy.
    Gossip,
    /// What gossip tells beside: which messages a node has, which it asks for, who is in whose mesh.
    Heartbeat,
    /// Steps of comparing catalogs.
    Reconcile,
    /// Records that were found to be missing, and requests for them.
    Records,
    /// Who has what, of the mesh or of an upstream.
    Ask,
    /// Are you there?
    Probe,
    /// How far blobs are.
    Progress,
    /// Promises to keep, and sessions that are given up.
    Lease,
    /// Opening sessions.
    Session,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 9] = [
        Kind::Gossip,
        Kind::Heartbeat,
        Kind::Reconcile,
        Kind::Records,
        Kind::Ask,
        Kind::Probe,
        Kind::Progress,
        Kind::Lease,
        Kind::Session,
    ];

    /// As measurements spell it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Gossip => "gossip",
            Kind::Heartbeat => "heartbeat",
            Kind::Reconcile => "reconcile",
            Kind::Records => "records",
            Kind::Ask => "ask",
            Kind::Probe => "probe",
            Kind::Progress => "progress",
            Kind::Lease => "lease",
            Kind::Session => "session",
        }
    }

    fn of(message: &Message) -> Self {
        match message {
            Message::Records(_) | Message::Request(_) => Kind::Records,
            Message::Reconcile { .. } => Kind::Reconcile,
            Message::Ask { .. } | Message::Tell { .. } | Message::WhoHas { .. } => Kind::Ask,
            Message::Probe { .. } | Message::ProbeAnswer { .. } => Kind::Probe,
            Message::Progress(_) | Message::Elsewhere(_) => Kind::Progress,
            Message::LeaseAsk { .. } | Message::LeaseAnswer { .. } | Message::LetGo => Kind::Lease,
        }
    }
}

impl Parcel {
    /// A message to one member. Where it is to be checked it is decoded, and must be the same then; what arrives is what
    /// was sent all the same, so that whoever has checked a record's signature has done so for all who share it.
    pub fn direct(message: Message, checked: bool) -> Result<Self, WireError> {
        let (bytes, kind) = (message.encode(), Kind::of(&message));
        if bytes.len() > Message::MAX_BYTES {
            return Err(WireError::TooLarge("1 MiB"));
        }
        if checked && Message::decode(&bytes)?.encode() != bytes {
            return Err(WireError::Malformed);
        }
        Ok(Parcel { message, bytes: bytes.len() as u32, hash: Hash::of(&bytes), kind })
    }

    /// An announcement.
    pub fn announced(message: &Message) -> Result<Self, WireError> {
        let bytes = message.encode();
        let message = Message::decode(&bytes)?;
        Ok(Parcel { message, bytes: bytes.len() as u32, hash: Hash::of(&bytes), kind: Kind::Gossip })
    }

    /// With what is around it on a link.
    pub fn weight(&self, gossip_header: u32) -> u64 {
        let around = if self.kind == Kind::Gossip { gossip_header } else { AROUND_DIRECT };
        u64::from(self.bytes) + u64::from(around) + segments(self.bytes) * SEGMENT
    }
}

/// Headers of TCP and IP for what is longer than a segment; those of the first are in what is around a message.
fn segments(bytes: u32) -> u64 {
    u64::from(bytes) / 1_400
}

/// Around a message to one member, both ways together: its length, encryption, TCP and IP, the byte that answers it in
/// a segment of its own, and acknowledgements. Between real nodes messages of 310 bytes came to 647 on the line.
const AROUND_DIRECT: u32 = 340;
/// TCP and IP headers with timestamps.
const SEGMENT: u64 = 52;
/// A handshake of TCP, noise and yamux and the protocols' introductions, both ways together. Pings of sessions
/// that stay (300 bytes each, both ends, every twenty minutes) are not counted.
pub const SESSION_BYTES: u64 = 3_000;
