//! Leases: a node that wants to delete its copy of an artifact first has another one promise to keep its own.
//! A promise is durable before it is given, and is counted by the clock that never goes back: a clock that is set
//! ends none early, and after a restart each counts anew from its beginning. Neither side believes records here:
//! whoever promises looks at what it holds itself.
//!
//! A lease has to last only until whoever asked has deleted its copy and said so. Later the node that promised is
//! itself a holder that must find another before it deletes.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use ed25519_dalek::SigningKey;

use crate::{
    body::{LeaseBody, PinBody},
    event::{Event, LeaseRefusal, Output, RequestId},
    id::{Digest, Hash, MeshId, NodeId},
    record::{Key, Kind, Record},
    shared::Shared,
    time::{Span, Time, Wall},
    wire::Message,
};

/// Leases that this node gave, or asks for, and what its operator pinned.
#[derive(Debug, Default)]
pub struct Leases {
    /// By slot: records of leases that ended are written over, so that there are never more than these.
    given: BTreeMap<u32, Given>,
    /// By artifact.
    asked: BTreeMap<Digest, Asked>,
    /// Pins, and the version of the record that says so.
    pins: BTreeMap<Digest, (bool, u64)>,
}

#[derive(Debug)]
struct Given {
    manifest: Digest,
    until: Time,
    /// Of the slot's record.
    version: u64,
    /// Who waits for it to be durable.
    waiting: Option<NodeId>,
}

#[derive(Debug)]
struct Asked {
    request: RequestId,
    blobs: Vec<Hash>,
    /// Who is to be asked after this one.
    others: Vec<NodeId>,
    /// Who has been asked, and when. Nobody where the lease was granted and the copy is being deleted.
    of: Option<(NodeId, Time)>,
    since: Time,
}

/// What comes of being asked for a lease.
#[derive(Debug, PartialEq, Eq)]
pub enum Promise {
    /// To be made durable and then answered.
    Write(Shared),
    /// To be answered now.
    Answer(bool),
}

impl Leases {
    /// Takes in what was kept over a restart.
    pub fn restore(&mut self, now: Time, record: &Record) {
        let (kind, name) = record.key.name.split_once('/').unwrap_or_default();
        match (kind, name.parse::<u32>(), name.parse::<Digest>()) {
            ("lease", Ok(slot), _) => {
                if let Ok(LeaseBody { manifest, millis }) = record.read() {
                    // How long the node was away cannot be told without a clock that may have been set.
                    let until = now + Span(millis.min(Self::SPAN.0));
                    let given = Given { manifest, until, version: record.version, waiting: None };
                    self.given.insert(slot, given);
                }
            }
            ("pin", _, Ok(manifest)) => {
                if let Ok(PinBody { pinned }) = record.read() {
                    self.pins.insert(manifest, (pinned, record.version));
                }
            }
            _ => {}
        }
    }

    /// Artifacts that others rely on.
    pub fn leased(&self, now: Time) -> BTreeSet<Digest> {
        self.given.values().filter(|given| given.until > now).map(|given| given.manifest).collect()
    }

    /// Artifacts that the operator pinned.
    pub fn pinned(&self) -> BTreeSet<Digest> {
        self.pins.iter().filter(|(_, (pinned, _))| *pinned).map(|(manifest, _)| *manifest).collect()
    }

    /// The record that pins an artifact or does not any more; nothing where it is so already. Nothing is pinned
    /// before it is durable: see [`Self::durable`].
    pub fn pin(&self, sign: &Sign<'_>, manifest: Digest, pinned: bool) -> Result<Option<Shared>, PinsFull> {
        let (now, version) = self.pins.get(&manifest).copied().unwrap_or_default();
        if now == pinned {
            return Ok(None);
        }
        if version == 0 && self.pins.len() >= Self::PINS_MAX {
            return Err(PinsFull);
        }
        Ok(Some(sign.record(alloc::format!("pin/{manifest}"), version + 1, &PinBody { pinned })))
    }

    /// A member asks this node to keep an artifact, all of which is here if `holds`.
    pub fn asked(
        &mut self,
        now: Time,
        sign: &Sign<'_>,
        from: NodeId,
        manifest: Digest,
        holds: bool,
        out: &mut Vec<Output>,
    ) -> Promise {
        if !holds || !self.yields(sign.me, from, &manifest, out) {
            return Promise::Answer(false);
        }
        let until = now + Self::SPAN;
        if let Some(given) = self.given.values_mut().find(|given| given.manifest == manifest) {
            if given.waiting.is_none() {
                // Its record is there, and counts anew after a restart.
                given.until = until;
                return Promise::Answer(true);
            }
            // Whoever asks again later is answered then.
            return Promise::Answer(false);
        }
        let ended = self.given.iter().find(|(_, given)| given.until <= now && given.waiting.is_none());
        let slot = match ended {
            Some((slot, _)) => *slot,
            None if self.given.len() >= Self::GIVEN_MAX => return Promise::Answer(false),
            None => self.given.len() as u32,
        };
        let version = self.given.get(&slot).map_or(0, |given| given.version) + 1;
        self.given.insert(slot, Given { manifest, until, version, waiting: Some(from) });
        let body = LeaseBody { manifest, millis: Self::SPAN.0 };
        Promise::Write(sign.record(alloc::format!("lease/{slot}"), version, &body))
    }

    /// Whether this node does not itself delete what it is asked to keep. Of two that ask each other, the one with
    /// the lower id goes first.
    fn yields(&mut self, me: NodeId, from: NodeId, manifest: &Digest, out: &mut Vec<Output>) -> bool {
        match self.asked.get(manifest) {
            None => true,
            Some(asked) if asked.of.is_some() && from < me => {
                let request = asked.request;
                self.asked.remove(manifest);
                out.push(done(request, Err(LeaseRefusal::Yielded)));
                true
            }
            Some(_) => false,
        }
    }

    /// A record of [`Self::asked`] or [`Self::pin`] is durable now, or could not be written.
    pub fn durable(&mut self, record: &Record, written: bool, out: &mut Vec<Output>) {
        let (kind, name) = record.key.name.split_once('/').unwrap_or_default();
        match (kind, name.parse::<u32>(), name.parse::<Digest>()) {
            ("lease", Ok(slot), _) => {
                let Some(given) = self.given.get_mut(&slot) else { return };
                let Some(to) = given.waiting.take() else { return };
                let manifest = given.manifest;
                if !written {
                    given.until = Time(0);
                }
                out.push(Output::Send { to, message: Message::LeaseAnswer { manifest, granted: written } });
            }
            ("pin", _, Ok(manifest)) if written => {
                if let Ok(PinBody { pinned }) = record.read() {
                    self.pins.insert(manifest, (pinned, record.version));
                }
            }
            _ => {}
        }
    }

    /// This node wants to delete its copy: asks one holder after another. Answered by [`Event::LeaseDone`].
    pub fn ask(
        &mut self,
        now: Time,
        request: RequestId,
        (manifest, blobs): (Digest, Vec<Hash>),
        mut holders: Vec<NodeId>,
        out: &mut Vec<Output>,
    ) {
        let room = self.asked.len() < Self::ASKED_MAX && !self.asked.contains_key(&manifest);
        if !room || blobs.len() > Message::MAX_LEASED {
            out.push(done(request, Err(LeaseRefusal::Busy)));
            return;
        }
        holders.truncate(HOLDERS_ASKED);
        holders.reverse();
        let asked = Asked { request, blobs, others: holders, of: None, since: now };
        self.asked.insert(manifest, asked);
        self.ask_next(now, &manifest, out);
    }

    /// A member answers.
    pub fn answered(
        &mut self,
        now: Time,
        from: NodeId,
        manifest: Digest,
        granted: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(asked) = self.asked.get_mut(&manifest) else { return };
        if asked.of.is_none_or(|(node, _)| node != from) {
            return;
        }
        if granted {
            asked.of = None;
            asked.since = now;
            out.push(done(asked.request, Ok(from)));
        } else {
            self.ask_next(now, &manifest, out);
        }
    }

    /// Goes on to the next where one does not answer, and forgets what was granted and is not used.
    pub fn tick(&mut self, now: Time, out: &mut Vec<Output>) {
        let late = |asked: &Asked| asked.of.is_some_and(|(_, since)| now.since(since) >= ANSWER_PATIENCE);
        let late: Vec<Digest> =
            self.asked.iter().filter(|(_, asked)| late(asked)).map(|(manifest, _)| *manifest).collect();
        for manifest in late {
            self.ask_next(now, &manifest, out);
        }
        self.asked.retain(|_, asked| asked.of.is_some() || now.since(asked.since) < Self::SPAN);
    }

    /// When [`Self::tick`] has something to do.
    pub fn next(&self) -> Option<Time> {
        let due = |asked: &Asked| match asked.of {
            Some((_, since)) => since + ANSWER_PATIENCE,
            None => asked.since + Self::SPAN,
        };
        self.asked.values().map(due).min()
    }

    /// A member's session ended.
    pub fn peer_down(&mut self, now: Time, peer: &NodeId, out: &mut Vec<Output>) {
        let of_peer = |asked: &Asked| asked.of.is_some_and(|(node, _)| node == *peer);
        let gone: Vec<Digest> =
            self.asked.iter().filter(|(_, asked)| of_peer(asked)).map(|(manifest, _)| *manifest).collect();
        for manifest in gone {
            self.ask_next(now, &manifest, out);
        }
    }

    /// Whether another holder's promise still stands, with time to spare, so that this node may let go of it.
    pub fn may_go(&self, now: Time, manifest: &Digest) -> bool {
        self.asked
            .get(manifest)
            .is_some_and(|asked| asked.of.is_none() && now.since(asked.since) < USED_WITHIN)
    }

    /// This node has deleted its copy, or will not.
    pub fn over(&mut self, manifest: &Digest) {
        if self.asked.get(manifest).is_some_and(|asked| asked.of.is_none()) {
            self.asked.remove(manifest);
        }
    }

    fn ask_next(&mut self, now: Time, manifest: &Digest, out: &mut Vec<Output>) {
        let Some(asked) = self.asked.get_mut(manifest) else { return };
        match asked.others.pop() {
            Some(to) => {
                asked.of = Some((to, now));
                let message = Message::LeaseAsk { manifest: *manifest, blobs: asked.blobs.clone() };
                out.push(Output::Send { to, message });
            }
            None => {
                let request = asked.request;
                self.asked.remove(manifest);
                out.push(done(request, Err(LeaseRefusal::Nobody)));
            }
        }
    }

    /// How long a lease lasts. Far longer than deleting takes, short enough that a promise to a node which is
    /// gone for good does not matter.
    pub const SPAN: Span = Span::secs(600);
    /// Most leases that this node gives at a time.
    pub const GIVEN_MAX: usize = 4096;
    /// Most that it asks for at a time.
    pub const ASKED_MAX: usize = 256;
    /// Most artifacts that were ever pinned.
    pub const PINS_MAX: usize = 65_536;
}

/// There are too many pins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinsFull;

/// What signing a record of this node needs.
pub struct Sign<'a> {
    /// This node.
    pub me: NodeId,
    /// Its key.
    pub key: &'a SigningKey,
    /// The mesh.
    pub mesh: &'a MeshId,
    /// What the clock shows.
    pub wall: Wall,
}

impl Sign<'_> {
    fn record<B: serde::Serialize>(&self, name: alloc::string::String, version: u64, body: &B) -> Shared {
        let key = Key { kind: Kind::LOCAL, scope: alloc::string::String::new(), name };
        Record::author(self.mesh, self.key, None, key, version, self.wall, body).into()
    }
}

fn done(request: RequestId, result: Result<NodeId, LeaseRefusal>) -> Output {
    Output::Notify(Event::LeaseDone { request, result })
}

/// Holders that are asked for one artifact.
const HOLDERS_ASKED: usize = 3;
/// How long one of them may take.
const ANSWER_PATIENCE: Span = Span::secs(5);
/// After so long a promise is not relied on any more: the other half of its time is for clocks that run apart.
const USED_WITHIN: Span = Span::secs(300);
