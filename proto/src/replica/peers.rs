//! What members send and what is sent to them: sessions, records, reconciliation, and whom to dial.

use alloc::{string::String, vec::Vec};

use super::{PERSIST_WITHIN, RECONCILE_TICK, Replica};
use crate::{
    body::HoldingState,
    catalog::{Applied, Limits, change_of},
    event::{Event, Output},
    id::{Digest, NodeId},
    membership::Candidate,
    reconcile,
    record::{Kind, Record, RecordError, RecordId},
    time::{Now, Span, Time},
    wire::Message,
    writes::Pending,
};

impl Replica {
    pub(super) fn peer_up(&mut self, now: Now, peer: NodeId, dialled: Option<String>, out: &mut Vec<Output>) {
        let known = self.membership.is_up(&peer);
        self.membership.up(peer, dialled);
        if known {
            return;
        }
        self.wants.peer_up(&peer);
        // Both ends see the session; one of them starts.
        if self.me() < peer {
            out.push(Output::Send { to: peer, message: reconcile::opening(&self.catalog) });
        }
        let next = self.next_reconcile(now, &peer);
        self.reconcile_at.insert(peer, next);
    }

    pub(super) fn peer_down(&mut self, now: Now, peer: &NodeId, out: &mut Vec<Output>) {
        self.membership.down(peer);
        self.reconcile_at.remove(peer);
        self.dial(now, out);
    }

    pub(super) fn received(&mut self, now: Now, from: NodeId, message: Message, out: &mut Vec<Output>) {
        match message {
            Message::Records(records) => self.take_in(now, from, records, out),
            Message::Request(ids) => self.send_records(from, &ids, out),
            Message::Reconcile(summaries) => {
                let step = reconcile::step(&self.catalog, &summaries);
                if step.equal {
                    out.push(Output::Notify(Event::Reconciled { peer: from, received: 0 }));
                }
                if !step.summaries.is_empty() {
                    out.push(Output::Send { to: from, message: Message::Reconcile(step.summaries) });
                }
                if !step.request.is_empty() {
                    out.push(Output::Send { to: from, message: Message::Request(step.request) });
                }
                self.send_records(from, &step.push, out);
                if step.truncated {
                    self.reconcile_soon(now, from);
                }
            }
        }
    }

    pub(super) fn take_in(&mut self, now: Now, from: NodeId, records: Vec<Record>, out: &mut Vec<Output>) {
        let mut refused: Option<(usize, RecordError)> = None;
        let mut news = Vec::new();
        for record in records {
            if self.is_known(&record) || self.writes.outdo(&record) {
                continue;
            }
            match record.check(self.writes.trust()) {
                Ok(()) if self.apply(now, record.clone(), out) == Applied::New => news.push(record),
                Ok(()) => {}
                Err(error) => refused.get_or_insert((0, error)).0 += 1,
            }
        }
        if let Some((count, why)) = refused {
            out.push(Output::Notify(Event::RecordsRefused { from, count, why }));
        }
        if !news.is_empty() {
            let pending = Pending { records: news.clone(), request: None, own: false, then: None };
            let write = self.writes.start(pending);
            out.push(Output::Persist { write, records: news, within: PERSIST_WITHIN });
        }
    }

    /// Whether a record brings nothing: checking signatures costs more than looking.
    fn is_known(&self, record: &Record) -> bool {
        self.catalog.get(&record.key).is_some_and(|known| known == record || known.version > record.version)
    }

    pub(super) fn apply(&mut self, now: Now, record: Record, out: &mut Vec<Output>) -> Applied {
        let limits = Limits { records: self.config.records_max, unknown: self.config.unknown_records_max };
        let change = change_of(&record);
        let node = (record.key.kind == Kind::NODE).then_some(record.author);
        let applied = self.catalog.apply(record, limits);
        if applied == Applied::New {
            out.extend(change.ok().flatten().map(Output::Catalog));
            if node.is_some_and(|node| !self.membership.is_up(&node)) {
                self.dial(now, out);
            }
        }
        applied
    }

    fn send_records(&self, to: NodeId, ids: &[RecordId], out: &mut Vec<Output>) {
        let records = ids.iter().filter_map(|id| self.catalog.by_id(id)).cloned();
        for batch in batches(records, Message::MAX_BYTES / 2) {
            out.push(Output::Send { to, message: Message::Records(batch) });
        }
    }

    pub(super) fn next_reconcile(&mut self, now: Now, peer: &NodeId) -> Time {
        let site = self.catalog.node(peer).map(|node| node.site);
        let near = site.is_none_or(|site| site == self.config.site);
        let interval = if near { self.config.reconcile_interval } else { self.config.far_reconcile_interval };
        now.time + Span(interval.0 / 2 + self.rng.u64(0..=interval.0))
    }

    fn reconcile_soon(&mut self, now: Now, peer: NodeId) {
        if let Some(at) = self.reconcile_at.get_mut(&peer) {
            *at = (*at).min(now.time + RECONCILE_TICK);
        }
    }

    pub(super) fn dial(&mut self, now: Now, out: &mut Vec<Output>) {
        let me = self.me();
        let candidates = self
            .catalog
            .iter()
            .filter(|record| record.key.kind == Kind::NODE && record.author != me)
            .filter_map(|record| self.candidate(record.author))
            .collect();
        self.membership.dial(now.time, &self.config, candidates, &mut self.rng, out);
    }

    pub(super) fn dial_holders(&mut self, now: Now, manifest: &Digest, out: &mut Vec<Output>) {
        let me = self.me();
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        let holders: Vec<NodeId> = whole.map(|(node, _)| node).collect();
        if holders.iter().any(|node| self.membership.is_up(node)) {
            return;
        }
        for node in holders.into_iter().filter(|node| *node != me).take(HOLDERS_DIALLED) {
            if let Some(candidate) = self.candidate(node) {
                self.membership.dial_needed(now.time, candidate, out);
            }
        }
    }

    fn candidate(&self, node: NodeId) -> Option<Candidate> {
        let body = self.catalog.node(&node)?;
        Some(Candidate { node, addresses: body.addresses, far: body.site != self.config.site })
    }
}

/// Tells the mesh, in announcements that are small enough.
pub(super) fn announce(records: Vec<Record>, out: &mut Vec<Output>) {
    let batches = batches(records.into_iter(), Message::MAX_ANNOUNCE_BYTES / 2);
    out.extend(batches.into_iter().map(|records| Output::Announce { records }));
}

/// Splits records into groups that stay below a size and the limit of items in a message.
fn batches(records: impl Iterator<Item = Record>, bytes_max: usize) -> Vec<Vec<Record>> {
    let mut batches: Vec<Vec<Record>> = Vec::new();
    let mut bytes = usize::MAX;
    for record in records {
        let size = record.encode().len();
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

/// Holders without a session that are dialled for one want.
const HOLDERS_DIALLED: usize = 3;
