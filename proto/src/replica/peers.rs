//! What members send and what is sent to them: sessions, records, reconciliation, and whom to dial.

use alloc::{string::String, vec::Vec};

use super::{PERSIST_WITHIN, Replica};
use crate::{
    body::{HoldingState, NodeBody},
    catalog::{Applied, Limits, change_of},
    event::{Change, Event, Output},
    id::{Digest, NodeId},
    membership::{Candidate, Connected},
    reconcile::{self, Summary},
    record::{Kind, Record, RecordError, RecordId},
    time::{Now, Span},
    wire::{Message, batches},
    writes::{Origin, Pending},
};

impl Replica {
    pub(super) fn peer_up(&mut self, now: Now, peer: NodeId, dialled: Option<String>, out: &mut Vec<Output>) {
        let known = self.membership.is_up(&peer);
        self.membership.up(now.time, peer, dialled);
        if known {
            return;
        }
        self.wants.peer_up(&peer);
        self.pulls.peer_up(peer, out);
        // Both ends see the session; one of them starts.
        if self.me() < peer {
            out.push(Output::Send { to: peer, message: reconcile::opening(&self.catalog) });
        }
        // Once more when gossip has found the session too.
        self.rounds.start(now.time, peer, &mut self.rng);
    }

    pub(super) fn peer_down(&mut self, now: Now, peer: &NodeId, out: &mut Vec<Output>) {
        self.membership.down(now.time, peer, &mut self.rng);
        self.rounds.stop(peer);
        let (pulls, mut means) = self.pulling(now);
        pulls.peer_down(&mut means, peer, out);
        self.leases.peer_down(now.time, peer, out);
        self.dial(now, out);
    }

    pub(super) fn received(&mut self, now: Now, from: NodeId, message: Message, out: &mut Vec<Output>) {
        match message {
            Message::Records(records) => self.take_in(now, from, records, out),
            Message::Request(ids) => {
                if self.send_records(from, &ids, out) {
                    self.rounds.soon(now.time, &from, self.is_near(&from));
                }
            }
            Message::Ask { repository, digests } => {
                let me = self.me();
                self.pulls.asked(me, from, repository, digests, out);
            }
            Message::Tell { repository, answers } => {
                let (pulls, mut means) = self.pulling(now);
                pulls.told(&mut means, from, &repository, answers, out);
            }
            Message::LeaseAsk { manifest, blobs } => self.lease_asked(now, from, manifest, &blobs, out),
            Message::LeaseAnswer { manifest, granted } => {
                self.leases.answered(now.time, from, manifest, granted, out);
            }
            Message::Reconcile(summaries) => self.compare(now, from, &summaries, out),
        }
    }

    fn compare(&mut self, now: Now, from: NodeId, theirs: &[Summary], out: &mut Vec<Output>) {
        let step = reconcile::step(&self.catalog, theirs);
        if step.equal {
            self.rounds.equal(&from);
            out.push(Output::Notify(Event::Reconciled { peer: from }));
        }
        let near = self.is_near(&from);
        let first = step.first_difference();
        if !step.summaries.is_empty() {
            out.push(Output::Send { to: from, message: Message::Reconcile(step.summaries) });
        }
        if !first.is_some_and(|first| self.rounds.differs(now.time, &from, first, near)) {
            return;
        }
        if !step.request.is_empty() {
            out.push(Output::Send { to: from, message: Message::Request(step.request) });
        }
        let cut = self.send_records(from, &step.push, out);
        if cut || step.truncated {
            self.rounds.soon(now.time, &from, near);
        }
    }

    /// Whether a member is on this node's site, as far as is known.
    pub(super) fn is_near(&self, peer: &NodeId) -> bool {
        self.catalog.node(peer).is_none_or(|body| body.site == self.config.site)
    }

    pub(super) fn take_in(&mut self, now: Now, from: NodeId, records: Vec<Record>, out: &mut Vec<Output>) {
        let mut refused: Option<(usize, RecordError)> = None;
        let (mut news, mut relied) = (Vec::new(), Vec::new());
        for record in records {
            if self.is_known(&record) || self.writes.outdo(&record) {
                continue;
            }
            let room = self.catalog.has_room(&record.key, self.limits());
            let checked = if room { record.check(self.writes.trust()) } else { Err(RecordError::Full) };
            if let Err(error) = checked {
                refused.get_or_insert((0, error)).0 += 1;
                continue;
            }
            if self.writes.set_right(&self.catalog, &record) {
                out.push(Output::Notify(Event::KeyShared { from }));
            }
            if record.key.kind == Kind::GRANT {
                relied.push(record);
            } else if self.apply(now, record.clone(), out) == Applied::New {
                news.push(record);
            }
        }
        if let Some((count, why)) = refused {
            out.push(Output::Notify(Event::RecordsRefused { from, count, why }));
        }
        for (records, origin, within) in
            [(news, Origin::Others, PERSIST_WITHIN), (relied, Origin::Relied, Span::default())]
        {
            if !records.is_empty() {
                let pending = Pending { records: records.clone(), request: None, origin, then: None };
                let write = self.writes.start(pending);
                out.push(Output::Persist { write, records, within });
            }
        }
    }

    /// Whether a record brings nothing: checking signatures costs more than looking.
    fn is_known(&self, record: &Record) -> bool {
        self.catalog.get(&record.key).is_some_and(|known| known == record || known.version > record.version)
    }

    pub(super) fn apply(&mut self, now: Now, record: Record, out: &mut Vec<Output>) -> Applied {
        let limits = self.limits();
        let change = change_of(&record);
        let node = (record.key.kind == Kind::NODE).then_some(record.author);
        let applied = self.catalog.apply(record, limits);
        if applied == Applied::New {
            let change = change.ok().flatten();
            if let Some(Change::Artifact { place: Some(place), .. }) = &change
                && self.held.contains(&place.index)
            {
                // Its content is reachable through another repository already; now through this one too.
                out.push(Output::ReadIndex { hash: place.index });
            }
            out.extend(change.map(Output::Catalog));
            if node.is_some_and(|node| !self.membership.is_up(&node)) {
                self.dial(now, out);
            }
        }
        applied
    }

    fn limits(&self) -> Limits {
        Limits { records: self.config.records_max, unknown: self.config.unknown_records_max }
    }

    /// Sends as many of these records as may be on their way at once. True where some were left out.
    fn send_records(&self, to: NodeId, ids: &[RecordId], out: &mut Vec<Output>) -> bool {
        let mut room = SEND_BYTES_MAX;
        let mut records = ids.iter().filter_map(|id| self.catalog.by_id(id)).cloned().peekable();
        let fitting = core::iter::from_fn(|| {
            records.next_if(|record| {
                let size = record.encode().len();
                let fits = size <= room;
                room = room.saturating_sub(size);
                fits
            })
        });
        for batch in batches(fitting, SEND_BATCH_BYTES) {
            out.push(Output::Send { to, message: Message::Records(batch) });
        }
        records.peek().is_some()
    }

    pub(super) fn dial(&mut self, now: Now, out: &mut Vec<Output>) {
        let me = self.me();
        let site = &self.config.site;
        let mut connected = Connected::default();
        for peer in self.membership.sessions() {
            let far = self.catalog.node(&peer).is_some_and(|body| body.site != *site);
            *(if far { &mut connected.far } else { &mut connected.near }) += 1;
        }
        let others = self.catalog.nodes().filter(|(node, _)| **node != me && !self.membership.is_up(node));
        let candidates = others.map(|(node, body)| candidate(*node, body, site)).collect();
        self.membership.dial(now.time, &self.config, connected, candidates, &mut self.rng, out);
    }

    /// Dials holders of what is being brought here in the background: sessions with them may have ended, or
    /// there were none when it was first wanted.
    pub(super) fn dial_for_closures(&mut self, now: Now, out: &mut Vec<Output>) {
        let manifests: Vec<Digest> = self.artifacts.manifests().collect();
        let mut dialled = 0;
        for manifest in manifests {
            dialled += self.dial_holders(now, &manifest, false, out);
            if dialled >= HOLDERS_DIALLED {
                return;
            }
        }
    }

    /// Dials some of those who hold an artifact, unless one has a session: near ones first, and others where
    /// those were tried in vain. How many it dialled.
    pub(super) fn dial_holders(
        &mut self,
        now: Now,
        manifest: &Digest,
        somebody_waits: bool,
        out: &mut Vec<Output>,
    ) -> usize {
        let me = self.me();
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        let holders: Vec<NodeId> = whole.map(|(node, _)| node).filter(|node| *node != me).collect();
        if holders.iter().any(|node| self.membership.is_up(node)) {
            return 0;
        }
        let known = holders.iter().filter_map(|node| Some((*node, self.catalog.node(node)?)));
        let mut candidates: Vec<Candidate> =
            known.map(|(node, body)| candidate(node, &body, &self.config.site)).collect();
        // No order among equals: all nodes of the mesh may want it at once.
        self.rng.shuffle(&mut candidates);
        candidates.sort_by_key(|candidate| candidate.far);
        let mut dialled = 0;
        for candidate in candidates {
            dialled += usize::from(self.membership.dial_needed(now.time, candidate, somebody_waits, out));
            if dialled == HOLDERS_DIALLED {
                break;
            }
        }
        dialled
    }
}

fn candidate(node: NodeId, body: &NodeBody, site: &str) -> Candidate {
    Candidate { node, addresses: body.addresses.clone(), far: body.site != site }
}

/// Tells the mesh, in announcements that are small enough.
pub(super) fn announce(records: Vec<Record>, out: &mut Vec<Output>) {
    let batches = batches(records.into_iter(), Message::MAX_ANNOUNCE_BYTES / 2);
    out.extend(batches.into_iter().map(|records| Output::Announce { records }));
}

/// Holders without a session that are dialled for one want.
const HOLDERS_DIALLED: usize = 3;
/// Bytes of records sent in answer to one message: what a link of 256 kbit/s carries before its peer gives
/// up on the answer.
const SEND_BYTES_MAX: usize = 1024 * 1024;
/// In messages of this size, so that other things find room between them.
const SEND_BATCH_BYTES: usize = 128 * 1024;
