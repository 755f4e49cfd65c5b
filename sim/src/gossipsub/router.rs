//! What gossipsub does at one node, with one topic and no scores: whom it sends a message, what it tells of and
//! asks for, and whom it has in its mesh. Follows the code of rust-libp2p that the node runs. Has no clock
//! and no links: it is given the time and returns frames. Checks nothing; whether a message may be passed on is
//! for whoever runs it to say.

use std::collections::{BTreeMap, BTreeSet};

use super::params::{Rules, Wire};
use crate::setup::{MILLISECOND, Nanos, SECOND};

/// A message: whatever number its run gives it.
pub type Name = u64;

/// A message on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Which.
    pub name: Name,
    /// Who wrote it, to whom it is never sent.
    pub author: usize,
    /// Of its payload.
    pub bytes: u64,
}

/// What goes over a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// What each end says first.
    Hello,
    /// A message.
    Publish(Message),
    /// These are here.
    Have(Vec<Name>),
    /// Send these.
    Want(Vec<Name>),
    /// Do not send these.
    Unwanted(Vec<Name>),
    /// You are in my mesh.
    Graft,
    /// You are not in my mesh.
    Prune,
}

/// A frame, and to whom.
pub type Sent = (usize, Frame);

/// One node.
#[derive(Clone, Debug)]
pub struct Router {
    rules: Rules,
    sessions: BTreeMap<usize, Session>,
    mesh: BTreeSet<usize>,
    /// Whom not to ask before when.
    backoff: BTreeMap<usize, Nanos>,
    /// Until when a message is known.
    seen: BTreeMap<Name, Nanos>,
    held: BTreeMap<Name, Held>,
    /// What came in since the last heartbeat, in the one before, and so on.
    history: Vec<Vec<Name>>,
    /// Messages that were asked for, and of whom. Never asked for again, as there.
    asked: BTreeMap<Name, BTreeSet<usize>>,
}

#[derive(Clone, Debug, Default)]
struct Session {
    /// Whether this node dialled.
    dialled: bool,
    /// Whether the other end has said hello.
    greeted: bool,
    /// What it does not want, and since when.
    unwanted: BTreeMap<Name, Nanos>,
}

#[derive(Clone, Debug)]
struct Held {
    message: Message,
    /// Whom it came from first; nobody if it was written here.
    from: Option<usize>,
    /// Who sent it too before it was passed on.
    also: BTreeSet<usize>,
    passed: bool,
    sent: BTreeMap<usize, u32>,
}

impl Router {
    /// Without sessions.
    pub fn new(rules: Rules) -> Self {
        Router {
            history: vec![Vec::new(); rules.history.max(1)],
            rules,
            sessions: BTreeMap::new(),
            mesh: BTreeSet::new(),
            backoff: BTreeMap::new(),
            seen: BTreeMap::new(),
            held: BTreeMap::new(),
            asked: BTreeMap::new(),
        }
    }

    /// A session came up.
    pub fn connected(&mut self, peer: usize, dialled: bool) -> Vec<Sent> {
        self.sessions.insert(peer, Session { dialled, ..Session::default() });
        vec![(peer, Frame::Hello)]
    }

    /// A session ended.
    pub fn disconnected(&mut self, peer: usize) {
        self.sessions.remove(&peer);
        self.mesh.remove(&peer);
    }

    /// Something is announced here.
    pub fn publish(&mut self, now: Nanos, message: Message) -> Vec<Sent> {
        if self.knows(now, message.name) {
            return Vec::new();
        }
        let greeted = self.sessions.iter().filter(|(_, session)| session.greeted).map(|(peer, _)| *peer);
        let to: Vec<usize> = if self.rules.flood_publish {
            greeted.collect()
        } else {
            let others = greeted.filter(|peer| !self.mesh.contains(peer));
            let missing = self.rules.mesh.saturating_sub(self.mesh.len());
            self.mesh.iter().copied().chain(others.take(missing)).collect()
        };
        if to.is_empty() {
            return Vec::new();
        }
        self.keep(now, message, None);
        if let Some(held) = self.held.get_mut(&message.name) {
            held.passed = true;
        }
        to.into_iter().map(|peer| (peer, Frame::Publish(message))).collect()
    }

    /// A frame arrived. The second is a message that is new here: [`Router::pass`] is called for it once it was
    /// looked at.
    pub fn receive(&mut self, now: Nanos, from: usize, frame: &Frame) -> (Vec<Sent>, Option<Message>) {
        let sent = match frame {
            Frame::Publish(message) => return self.on_message(now, from, *message),
            Frame::Hello => self.on_hello(now, from),
            Frame::Have(names) => self.on_have(now, from, names),
            Frame::Want(names) => self.on_want(from, names),
            Frame::Unwanted(names) => {
                if let Some(session) = self.sessions.get_mut(&from) {
                    session.unwanted.extend(names.iter().map(|name| (*name, now)));
                }
                Vec::new()
            }
            Frame::Graft => self.on_graft(now, from),
            Frame::Prune => {
                self.mesh.remove(&from);
                self.back_off(now, from);
                Vec::new()
            }
        };
        (sent, None)
    }

    /// A message was looked at and is good.
    pub fn pass(&mut self, name: Name) -> Vec<Sent> {
        let Some(held) = self.held.get_mut(&name) else { return Vec::new() };
        held.passed = true;
        let (message, from, also) = (held.message, held.from, std::mem::take(&mut held.also));
        let to = self.mesh.iter().filter(|peer| {
            Some(**peer) != from
                && **peer != message.author
                && !also.contains(peer)
                && self.sessions.get(peer).is_some_and(|session| !session.unwanted.contains_key(&name))
        });
        to.map(|peer| (*peer, Frame::Publish(message))).collect()
    }

    /// Once in a while: mends the mesh, and tells some of those outside it what came in.
    pub fn heartbeat(&mut self, now: Nanos, rng: &mut fastrand::Rng) -> Vec<Sent> {
        let mut changes = Vec::new();
        if self.mesh.len() < self.rules.mesh_low {
            let missing = self.rules.mesh.saturating_sub(self.mesh.len());
            self.graft(now, missing, false, rng, &mut changes);
        }
        if self.mesh.len() >= self.rules.mesh_high {
            self.let_go(now, rng, &mut changes);
        }
        if self.mesh.len() >= self.rules.mesh_low {
            let dialled = self.mesh.iter().filter(|peer| self.dialled(peer)).count();
            let missing = self.rules.mesh_outbound.saturating_sub(dialled);
            self.graft(now, missing, true, rng, &mut changes);
        }
        let mut sent = self.tell(rng);
        sent.append(&mut changes);
        self.forget(now);
        sent
    }

    /// Whether heartbeats would do nothing until something happens.
    pub fn is_quiet(&self, now: Nanos) -> bool {
        let low = self.mesh.len() < self.rules.mesh_low && self.may_be_asked(now, false).next().is_some();
        let dialled = self.mesh.iter().filter(|peer| self.dialled(peer)).count();
        let inward = dialled < self.rules.mesh_outbound && self.may_be_asked(now, true).next().is_some();
        let waits = !self.backoff.is_empty() || self.sessions.values().any(|s| !s.unwanted.is_empty());
        self.held.is_empty() && !low && !inward && !waits && self.mesh.len() < self.rules.mesh_high
    }

    /// Who is in its mesh.
    pub fn mesh(&self) -> &BTreeSet<usize> {
        &self.mesh
    }

    /// With whom it has sessions.
    pub fn sessions(&self) -> impl Iterator<Item = usize> {
        self.sessions.keys().copied()
    }

    fn knows(&self, now: Nanos, name: Name) -> bool {
        self.seen.get(&name).is_some_and(|until| *until > now)
    }

    fn keep(&mut self, now: Nanos, message: Message, from: Option<usize>) {
        self.seen.insert(message.name, now + self.rules.seen_ms * MILLISECOND);
        self.asked.remove(&message.name);
        self.history[0].push(message.name);
        let held = Held { message, from, also: BTreeSet::new(), passed: false, sent: BTreeMap::new() };
        self.held.insert(message.name, held);
    }

    fn on_message(&mut self, now: Nanos, from: usize, message: Message) -> (Vec<Sent>, Option<Message>) {
        if self.knows(now, message.name) {
            if let Some(held) = self.held.get_mut(&message.name).filter(|held| !held.passed) {
                held.also.insert(from);
            }
            return (Vec::new(), None);
        }
        let mut sent = Vec::new();
        if message.bytes > self.rules.unwanted_above {
            let promised = self.asked.get(&message.name).into_iter().flatten();
            let told: BTreeSet<usize> = self.mesh.iter().chain(promised).copied().collect();
            let told = told.into_iter().filter(|peer| *peer != from && *peer != message.author);
            sent.extend(told.map(|peer| (peer, Frame::Unwanted(vec![message.name]))));
        }
        self.keep(now, message, Some(from));
        (sent, Some(message))
    }

    fn on_hello(&mut self, now: Nanos, from: usize) -> Vec<Sent> {
        let Some(session) = self.sessions.get_mut(&from) else { return Vec::new() };
        session.greeted = true;
        let wanted = self.mesh.len() < self.rules.mesh_low && !self.is_backed_off(now, from);
        if wanted && self.mesh.insert(from) { vec![(from, Frame::Graft)] } else { Vec::new() }
    }

    fn on_have(&mut self, now: Nanos, from: usize, names: &[Name]) -> Vec<Sent> {
        let new = |name: &&Name| !self.knows(now, **name) && !self.asked.contains_key(name);
        let wanted: Vec<Name> = names.iter().filter(new).copied().collect();
        if wanted.is_empty() {
            return Vec::new();
        }
        for name in &wanted {
            self.asked.entry(*name).or_default().insert(from);
        }
        vec![(from, Frame::Want(wanted))]
    }

    fn on_want(&mut self, from: usize, names: &[Name]) -> Vec<Sent> {
        let mut sent = Vec::new();
        let Some(session) = self.sessions.get(&from) else { return sent };
        for name in names {
            let Some(held) = self.held.get_mut(name).filter(|held| held.passed) else { continue };
            let times = held.sent.entry(from).or_default();
            *times += 1;
            if *times <= self.rules.retransmissions && !session.unwanted.contains_key(name) {
                sent.push((from, Frame::Publish(held.message)));
            }
        }
        sent
    }

    fn on_graft(&mut self, now: Nanos, from: usize) -> Vec<Sent> {
        if self.mesh.contains(&from) || !self.sessions.contains_key(&from) {
            return Vec::new();
        }
        let early = self.backoff.get(&from).is_some_and(|until| *until > now);
        let full = self.mesh.len() >= self.rules.mesh_high && !self.dialled(&from);
        if early || full {
            self.back_off(now, from);
            return vec![(from, Frame::Prune)];
        }
        self.mesh.insert(from);
        Vec::new()
    }

    fn graft(
        &mut self,
        now: Nanos,
        count: usize,
        dialled: bool,
        rng: &mut fastrand::Rng,
        sent: &mut Vec<Sent>,
    ) {
        if count == 0 {
            return;
        }
        let mut peers: Vec<usize> = self.may_be_asked(now, dialled).collect();
        rng.shuffle(&mut peers);
        for peer in peers.into_iter().take(count) {
            self.mesh.insert(peer);
            sent.push((peer, Frame::Graft));
        }
    }

    fn let_go(&mut self, now: Nanos, rng: &mut fastrand::Rng, sent: &mut Vec<Sent>) {
        let mut peers: Vec<usize> = self.mesh.iter().copied().collect();
        rng.shuffle(&mut peers);
        let mut dialled = peers.iter().filter(|peer| self.dialled(peer)).count();
        for peer in peers {
            if self.mesh.len() <= self.rules.mesh {
                return;
            }
            if self.dialled(&peer) {
                if dialled <= self.rules.mesh_outbound {
                    continue;
                }
                dialled -= 1;
            }
            self.mesh.remove(&peer);
            self.back_off(now, peer);
            sent.push((peer, Frame::Prune));
        }
    }

    fn tell(&self, rng: &mut fastrand::Rng) -> Vec<Sent> {
        let recent = self.history.iter().take(self.rules.history_gossip).flatten();
        let is_passed = |name: &&Name| self.held.get(name).is_some_and(|held| held.passed);
        let names: Vec<Name> = recent.filter(is_passed).copied().collect();
        if names.is_empty() {
            return Vec::new();
        }
        let outside = self.sessions.iter().filter(|(peer, s)| s.greeted && !self.mesh.contains(peer));
        let mut outside: Vec<usize> = outside.map(|(peer, _)| *peer).collect();
        let count = self.rules.lazy.max(outside.len() * self.rules.lazy_permille / 1000);
        rng.shuffle(&mut outside);
        outside.truncate(count);
        outside.into_iter().map(|peer| (peer, Frame::Have(names.clone()))).collect()
    }

    fn forget(&mut self, now: Nanos) {
        let slack = self.rules.backoff_slack * self.rules.heartbeat();
        self.backoff.retain(|_, until| *until + slack > now);
        self.seen.retain(|_, until| *until > now);
        for session in self.sessions.values_mut() {
            session.unwanted.retain(|_, since| *since + UNWANTED > now);
        }
        for name in self.history.pop().into_iter().flatten() {
            self.held.remove(&name);
        }
        self.history.insert(0, Vec::new());
    }

    fn may_be_asked(&self, now: Nanos, dialled: bool) -> impl Iterator<Item = usize> {
        let candidates = self.sessions.iter().filter(move |(peer, session)| {
            session.greeted
                && (session.dialled || !dialled)
                && !self.mesh.contains(peer)
                && !self.is_backed_off(now, **peer)
        });
        candidates.map(|(peer, _)| *peer)
    }

    fn is_backed_off(&self, now: Nanos, peer: usize) -> bool {
        let slack = self.rules.backoff_slack * self.rules.heartbeat();
        self.backoff.get(&peer).is_some_and(|until| *until + slack > now)
    }

    fn back_off(&mut self, now: Nanos, peer: usize) {
        self.backoff.insert(peer, now + self.rules.backoff_ms * MILLISECOND);
    }

    fn dialled(&self, peer: &usize) -> bool {
        self.sessions.get(peer).is_some_and(|session| session.dialled)
    }
}

impl Frame {
    /// Bytes, without what is below.
    pub fn bytes(&self, wire: &Wire) -> u64 {
        let named = |names: &[Name]| names.len() as u64 * wire.name;
        match self {
            Frame::Hello => wire.hello,
            Frame::Publish(message) => wire.publish + message.bytes,
            Frame::Have(names) => wire.have + named(names),
            Frame::Want(names) => wire.want + named(names),
            Frame::Unwanted(names) => wire.unwanted + named(names),
            Frame::Graft => wire.graft,
            Frame::Prune => wire.prune,
        }
    }
}

/// How long it is remembered that a peer does not want a message. Fixed in gossipsub.
const UNWANTED: Nanos = 3 * SECOND;
