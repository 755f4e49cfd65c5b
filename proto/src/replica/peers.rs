//! What members send and what is sent to them: sessions, records, reconciliation, and whom to dial.

use alloc::{collections::BTreeSet, string::String, vec::Vec};

use super::{PERSIST_WITHIN, Replica, candidates::Candidates};
use crate::{
    body::HoldingState,
    catalog::{Applied, Limits},
    event::{Change, Event, Output, WriteId},
    id::{Digest, NodeId},
    membership::{Candidate, Connected, Membership, Sorts},
    presence::{FRESH, QUIET, QUIET_FOR_BOTH},
    quota::Quota,
    reconcile::{self, Summary, Within},
    record::{Kind, RecordError, RecordId},
    shared::Shared,
    surplus::{GATEWAYS, Session, Share, Surplus},
    time::{Now, Span},
    wire::{Message, batches},
    world::World,
    writes::{Origin, Pending},
};

impl Replica {
    pub(super) fn peer_up(&mut self, now: Now, peer: NodeId, dialled: Option<String>, out: &mut Vec<Output>) {
        let known = self.membership.is_up(&peer);
        self.membership.up(now.time, peer, dialled);
        if self.manners.is_shunned(now.time, &peer) {
            out.push(Output::Hangup { peer });
            return;
        }
        if known {
            return;
        }
        self.tellers.up(&peer);
        self.wants.peer_up(&peer);
        let world = World::of(&self.config, &self.catalog, &self.membership, self.me());
        self.wants.welcome(&self.config, &peer, &world, out);
        self.pulls.peer_up(peer, out);
        out.extend(self.gave_way.message().map(|message| Output::Send { to: peer, message }));
        // Both ends see the session; one of them starts.
        if self.me() < peer {
            out.push(Output::Send { to: peer, message: self.opening_for(&peer) });
        }
        self.alarms.dial_soon(now.time);
        // Once more when gossip has found the session too.
        self.rounds.start(now.time, peer, &mut self.rng);
    }

    pub(super) fn peer_down(&mut self, now: Now, peer: &NodeId, out: &mut Vec<Output>) {
        self.membership.down(now.time, peer, &mut self.rng);
        self.rounds.stop(peer);
        self.suppliers.stop(peer);
        self.wants.peer_down(now.time, peer, out);
        self.manners.forget(peer);
        if self.catalog.site_of(peer) == Some(self.config.site.as_str()) {
            self.tellers.down(now.time, *peer);
        }
        self.keeper.parted(now.time, *peer);
        let (pulls, mut means) = self.pulling(now);
        pulls.peer_down(&mut means, peer, out);
        self.leases.peer_down(now.time, peer, out);
        self.dial(now, out);
    }

    pub(super) fn received(&mut self, now: Now, from: NodeId, message: Message, out: &mut Vec<Output>) {
        if self.manners.is_shunned(now.time, &from) {
            return;
        }
        self.membership.presence.heard(now.time, &from);
        match message {
            Message::Probe { nonce } => {
                let outside = u16::try_from(self.connected().far).unwrap_or(u16::MAX);
                out.push(Output::Send { to: from, message: Message::ProbeAnswer { nonce, outside } });
            }
            Message::WhoHas { manifest, hops } => self.inquired(now, from, manifest, hops, out),
            Message::LetGo => self.let_go_of(now, from, out),
            Message::ProbeAnswer { outside, .. } => {
                if self.membership.presence.answered(now.time, &from, outside) {
                    self.alarms.dial_soon(now.time);
                }
                self.look_after_artifacts(now, out);
            }
            Message::Records(records) => self.take_in(now, from, records, out),
            Message::Request(ids) => {
                if self.send_records(from, &ids, out) {
                    self.rounds.soon(now.time, &from, self.is_near(&from));
                }
            }
            Message::Ask { repository, digests } => {
                self.membership.presence.used(now.time, &from);
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
            Message::Reconcile { site, summaries } => match site {
                Some(site) if site != self.config.site => {
                    out.push(Output::Send { to: from, message: reconcile::opening(&self.catalog, None) });
                }
                site => self.compare(now, from, (site, summaries), out),
            },
            Message::Progress(progress) => {
                let world = World::of(&self.config, &self.catalog, &self.membership, self.me());
                self.wants.heard(now.time, from, progress, &self.held, &world, out);
            }
            Message::Elsewhere(told) => {
                let world = World::of(&self.config, &self.catalog, &self.membership, self.me());
                self.wants.heard_of(now.time, &from, told, &world);
            }
        }
    }

    /// What begins a comparison with a member: with one that is known to be of this site, of all that the site knows.
    pub(super) fn opening_for(&self, peer: &NodeId) -> Message {
        let site = self.catalog.site_of(peer).filter(|site| *site == self.config.site);
        reconcile::opening(&self.catalog, site)
    }

    fn compare(
        &mut self,
        now: Now,
        from: NodeId,
        (site, mut theirs): (Option<String>, Vec<Summary>),
        out: &mut Vec<Output>,
    ) {
        let near = self.is_near(&from);
        let within = if site.is_some() { Within::Site } else { Within::Mesh };
        if self.suppliers.sift(now.time, (&from, near), (&self.catalog, within), &mut theirs) {
            self.rounds.put_off(now.time, &from, &mut self.rng);
        }
        let step = reconcile::step(&self.catalog, within, &theirs);
        if step.equal {
            self.rounds.equal(&from);
            out.push(Output::Notify(Event::Reconciled { peer: from }));
        }
        let first = step.first_difference();
        if !step.summaries.is_empty() {
            let message = Message::Reconcile { site, summaries: step.summaries };
            out.push(Output::Send { to: from, message });
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
        self.catalog.site_of(peer).is_none_or(|site| site == self.config.site)
    }

    pub(super) fn take_in(&mut self, now: Now, from: NodeId, records: Vec<Shared>, out: &mut Vec<Output>) {
        let mut refused: Option<(usize, RecordError)> = None;
        let mut wrong = 0;
        let (mut news, mut relied) = (Vec::new(), Vec::new());
        for mut record in records {
            // Whoever sent it takes this node to be where it is not.
            if record.site().is_some_and(|site| site != self.config.site) {
                continue;
            }
            if self.is_known(&record) || self.writes.outdo(&record) {
                self.tell_lost(&record, out);
                continue;
            }
            let room = self.catalog.has_room(&record, self.limits());
            let checked = if room { record.check(self.writes.trust()) } else { Err(RecordError::Full) };
            if let Err(error) = checked {
                wrong += usize::from(error.is_hostile());
                refused.get_or_insert((0, error)).0 += 1;
                continue;
            }
            // Before the record is in many hands.
            self.catalog.share_grant(&mut record);
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
        if wrong > 0 && self.manners.wrong(now.time, from, wrong) {
            out.push(Output::Notify(Event::Shunned { peer: from }));
            out.push(Output::Hangup { peer: from });
        }
        if !news.is_empty() || !relied.is_empty() {
            self.suppliers.came(now.time, &from);
        }
        self.answer_inquiries(now, &news, out);
        self.pass_on(from, &news, out);
        // Some may have made room for others since.
        news.retain(|record: &Shared| self.catalog.same_key(record) == Some(record));
        // They count already, and nobody is told that they do: what is lost with a crash comes again.
        if !news.is_empty() {
            out.push(Output::Persist { write: WriteId::UNANSWERED, records: news, within: PERSIST_WITHIN });
        }
        if !relied.is_empty() {
            let pending =
                Pending { records: relied.clone(), request: None, origin: Origin::Relied, then: None };
            let write = self.writes.start(pending);
            out.push(Output::Persist { write, records: relied, within: Span::default() });
        }
    }

    /// Whether a record brings nothing: checking signatures costs more than looking.
    fn is_known(&self, record: &Shared) -> bool {
        self.catalog.same_key(record).is_some_and(|known| !record.beats(known))
    }

    /// Tells of an older write to a tag, for the tag's history. Whoever shows it takes the author's name for
    /// true, so this is worth checking a signature.
    fn tell_lost(&mut self, record: &Shared, out: &mut Vec<Output>) {
        let known = self.catalog.same_key(record).filter(|known| *known != record && known.beats(record));
        let is_concurrent = known.is_some_and(|known| are_concurrent(known, record));
        let is_older = record.key.kind == Kind::TAG && (known.is_some() || self.writes.outdo(record));
        if is_older && record.check(self.writes.trust()).is_ok() {
            // Every member that comes tells of the same ones again.
            if is_concurrent && !self.gave_way.note(record) {
                return;
            }
            let change = record.change().ok().flatten();
            out.extend(change.map(|change| Output::Catalog(change.lost())));
        }
    }

    /// The write that gives way to a record that is about to be applied, where neither knew of the other.
    fn gives_way(&self, record: &Shared) -> Option<Shared> {
        let known = (record.key.kind == Kind::TAG).then(|| self.catalog.same_key(record)).flatten();
        known.filter(|known| are_concurrent(known, record) && record.beats(known)).cloned()
    }

    /// Catalogs are compared by what counts, so members that never had a write that gave way would not learn
    /// of it: those with a session are told at once, the others when they come.
    fn tell_of_giving_way(&mut self, record: Shared, out: &mut Vec<Output>) {
        if !self.gave_way.note(&record) {
            return;
        }
        for to in self.membership.sessions() {
            out.push(Output::Send { to, message: Message::Records(alloc::vec![record.clone()]) });
        }
        out.push(Output::Announce { records: alloc::vec![record] });
    }

    pub(super) fn apply(&mut self, now: Now, record: Shared, out: &mut Vec<Output>) -> Applied {
        let limits = self.limits();
        let change = record.change();
        let gives_way = self.gives_way(&record);
        let offered = (record.key.kind == Kind::TAG).then(|| record.clone());
        let author = record.author;
        let node = (record.key.kind == Kind::NODE).then_some(author);
        let site = node.and_then(|node| self.catalog.site_of(&node)).map(String::from);
        let applied = self.catalog.apply(record, limits);
        if applied == Applied::Stale
            && let Some(record) = &offered
        {
            self.tell_lost(record, out);
        }
        if applied == Applied::New {
            if let Some(record) = gives_way {
                self.tell_of_giving_way(record, out);
            }
            let change = change.ok().flatten();
            self.keeper.hear(now.time, &author);
            if let Some(change) = &change {
                self.keeper.note(now.time, change, &self.config.site);
                self.note_told(now.time, change, site.as_deref());
            }
            if let Some(Change::Artifact { place: Some(place), .. }) = &change
                && self.held.contains(&place.index)
            {
                // Its content is reachable through another repository already; now through this one too.
                out.push(Output::ReadIndex { hash: place.index });
            }
            out.extend(change.map(Output::Catalog));
            self.drop_evicted(out);
            match node {
                Some(node) if self.membership.is_up(&node) => self.alarms.dial_soon(now.time),
                Some(_) => self.dial(now, out),
                None => {}
            }
        }
        applied
    }

    /// What follows for records that had to go because their author has too many: neither the disk nor what
    /// clients look up keeps them. Where they are this node's own and still so, it says them again.
    pub(super) fn drop_evicted(&mut self, out: &mut Vec<Output>) {
        let evicted = self.catalog.take_evicted();
        if evicted.is_empty() {
            return;
        }
        let (me, quota) = (self.me(), Quota::MESH.holdings.min(Quota::MESH.summaries));
        for record in &evicted {
            let Ok(Some(Change::Holding { manifest, node, state, told })) = record.change() else { continue };
            out.push(Output::Catalog(Change::Holding { manifest, node, state: HoldingState::Gone, told }));
            // Near the quota one word would push out the next without end.
            if node == me
                && state != HoldingState::Gone
                && self.catalog.held_by(&me, record.key.kind).count() < quota / 4 * 3
            {
                self.writes.put_off(alloc::vec![record.clone()]);
            }
        }
        out.push(Output::Forget { keys: evicted.into_iter().map(|record| record.key.clone()).collect() });
    }

    fn limits(&self) -> Limits {
        Limits {
            records: self.config.records_max,
            unknown: self.config.unknown_records_max,
            by_author: Quota::MESH,
        }
    }

    /// Sends as many of these records as may be on their way at once. True where some were left out.
    fn send_records(&self, to: NodeId, ids: &[RecordId], out: &mut Vec<Output>) -> bool {
        let mut room = SEND_BYTES_MAX;
        let mut records = ids.iter().filter_map(|id| self.catalog.by_id(id)).cloned().peekable();
        let fitting = core::iter::from_fn(|| {
            records.next_if(|record| {
                let size = record.size();
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

    /// Offers to end sessions that are too many, asks those of the site who keep them for all, and those of other sites
    /// that said nothing for long whether they are there.
    pub(super) fn look_after_sessions(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.membership.surplus.is_due(now.time) {
            return;
        }
        let (me, far_share, connected) = (self.me(), self.far_share(now), self.connected());
        let near_share = Share::near(&self.config, connected.others);
        let peers: Vec<NodeId> = self.membership.sessions().collect();
        let (near, far): (Vec<NodeId>, Vec<NodeId>) = peers.into_iter().partition(|peer| self.is_near(peer));
        for peer in self.home_by_weight().into_iter().take(2 * GATEWAYS) {
            out.extend(self.membership.presence.ask_outside(now.time, peer));
        }
        for peer in &far {
            let quiet = if me < *peer { QUIET } else { QUIET_FOR_BOTH };
            out.extend(self.membership.presence.probe(now.time, *peer, quiet));
        }
        for (share, peers) in [(near_share, near), (far_share, far)] {
            let presence = &self.membership.presence;
            // One in use counts, and is never offered.
            let session = |peer| Session { peer, idle_since: presence.idle_since(&peer).unwrap_or(now.time) };
            let sessions: Vec<Session> = peers.into_iter().map(session).collect();
            for peer in self.membership.surplus.offers(now.time, &me, share, &sessions) {
                out.push(Output::Send { to: peer, message: Message::LetGo });
            }
        }
    }

    /// A member offers to end the session with it: done where this node can do without.
    fn let_go_of(&mut self, now: Now, peer: NodeId, out: &mut Vec<Output>) {
        let (near, connected) = (self.is_near(&peer), self.connected());
        let (share, count) = if near {
            (Share::near(&self.config, connected.others), connected.near)
        } else {
            (self.far_share(now), connected.far)
        };
        let Some(idle_since) = self.membership.presence.idle_since(&peer) else { return };
        if Surplus::can_spare(now.time, share, count, Session { peer, idle_since }) {
            self.membership.surplus.part(now.time, peer);
            out.push(Output::Hangup { peer });
        }
    }

    /// A client waits for something of an artifact: sees to it that those who hold it can be asked, and that
    /// it is soon known if they cannot.
    pub(super) fn seek_holders(&mut self, now: Now, manifest: Digest, out: &mut Vec<Output>) {
        if self.membership.presence.awaits(now.time, manifest) {
            self.probe_holders(now, &manifest, out);
            self.inquire(now, manifest, out);
        }
        self.dial_holders(now, &manifest, true, HOLDERS_DIALLED, out);
        self.probe_outside(now, &manifest, out);
    }

    /// Looks after holders of what clients have asked for: a link may break while they wait.
    pub(super) fn probe_awaited(&mut self, now: Now, out: &mut Vec<Output>) {
        for manifest in self.membership.presence.awaited(now.time) {
            self.probe_holders(now, &manifest, out);
            self.inquire(now, manifest, out);
        }
    }

    /// Whoever did not answer is asked again, so that one that is there after all counts soon.
    pub(super) fn probe_silent(&mut self, now: Now, out: &mut Vec<Output>) {
        for (peer, gone) in self.membership.presence.silent(now.time) {
            if gone {
                out.push(Output::Hangup { peer });
                continue;
            }
            out.extend(self.membership.presence.probe(now.time, peer, FRESH));
        }
        self.membership.presence.questions_asked();
    }

    fn probe_holders(&mut self, now: Now, manifest: &Digest, out: &mut Vec<Output>) {
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        let up = whole.map(|(node, _)| node).filter(|node| self.membership.is_up(node));
        let mut up: Vec<(bool, NodeId)> = up.map(|node| (!self.is_near(&node), node)).collect();
        up.sort_unstable();
        for (_, peer) in up.into_iter().take(HOLDERS_PROBED) {
            out.extend(self.membership.presence.probe(now.time, peer, FRESH));
        }
    }

    pub(super) fn dial(&mut self, now: Now, out: &mut Vec<Output>) {
        let connected = Connected { share: Some(self.far_share(now)), ..self.connected() };
        let whole = self.has_all_of_site();
        let (me, catalog, manners, here) = (self.me(), &self.catalog, &self.manners, &self.config.site);
        let find = |membership: &Membership, sorts: Sorts, rng: &mut fastrand::Rng| {
            let sorts = Sorts { near: sorts.near && !whole, ..sorts };
            let is_wanted =
                |node: &NodeId| *node != me && !membership.is_up(node) && !manners.is_shunned(now.time, node);
            Candidates { catalog, here, is_wanted }.of(membership, sorts, rng)
        };
        let again = self.membership.dial(now.time, &self.config, connected, find, &mut self.rng, out);
        let others = self.others_outside_until(now.time);
        self.alarms.dial_again(again.into_iter().chain(others).min());
    }

    /// Dials holders of what is being brought here in the background: sessions with them may have ended, or
    /// there were none when it was first wanted.
    pub(super) fn dial_for_closures(&mut self, now: Now, out: &mut Vec<Output>) {
        let manifests: Vec<Digest> = self.artifacts.manifests().collect();
        self.inquire_idly(now, &manifests, out);
        let mut dialled = 0;
        for manifest in manifests {
            dialled += self.dial_holders(now, &manifest, false, HOLDERS_DIALLED, out);
            if dialled >= HOLDERS_DIALLED {
                return;
            }
        }
    }

    /// Dials at most so many of those who hold an artifact, unless one has a session: near ones first, and others where
    /// those were tried in vain. How many it dialled.
    pub(super) fn dial_holders(
        &mut self,
        now: Now,
        manifest: &Digest,
        somebody_waits: bool,
        most: usize,
        out: &mut Vec<Output>,
    ) -> usize {
        let me = self.me();
        let whole = self.catalog.holders(manifest).filter(|(_, state)| *state == HoldingState::Complete);
        let holders: Vec<NodeId> = whole.map(|(node, _)| node).filter(|node| *node != me).collect();
        if holders.iter().any(|node| self.membership.is_live(now.time, node)) {
            return 0;
        }
        let known = holders.iter().filter_map(|node| Some((*node, self.catalog.node(node)?)));
        // A word stands for a site: where those who gave it cannot be reached, others there know who has it.
        let hopeless = !self.has_hope(now.time, manifest);
        let sites = if hopeless { self.sites_with(manifest) } else { BTreeSet::new() };
        let stand_in = |node: &NodeId| *node != me && !holders.contains(node) && !self.membership.is_up(node);
        let of_sites = sites.into_iter().filter(|site| *site != self.config.site).flat_map(|site| {
            let nodes = self.catalog.nodes_of(site).filter(|(node, _)| stand_in(node));
            nodes.take(GATEWAYS).map(|(node, body)| (*node, body))
        });
        let known = known.chain(of_sites);
        let mut candidates: Vec<Candidate<'_>> =
            known.map(|(node, body)| Candidate::of(node, body, &self.config.site)).collect();
        // No order among equals: all nodes of the mesh may want it at once.
        self.rng.shuffle(&mut candidates);
        candidates.sort_by_key(|candidate| candidate.far);
        let mut dialled = 0;
        for candidate in candidates {
            dialled += usize::from(self.membership.dial_needed(now.time, candidate, somebody_waits, out));
            if dialled == most {
                break;
            }
        }
        dialled
    }
}

/// Writes of which neither author knew the other's.
fn are_concurrent(one: &Shared, other: &Shared) -> bool {
    one.version == other.version && one.author != other.author
}

/// Tells the mesh, in announcements that are small enough.
pub(super) fn announce(records: Vec<Shared>, out: &mut Vec<Output>) {
    let batches = batches(records.into_iter(), Message::MAX_ANNOUNCE_BYTES / 2);
    out.extend(batches.into_iter().map(|records| Output::Announce { records }));
}

/// Holders with a session that are asked whether they are there, for one want.
const HOLDERS_PROBED: usize = 8;
/// Holders without a session that are dialled for one want.
pub(super) const HOLDERS_DIALLED: usize = 3;
/// Bytes of records sent in answer to one message: what a link of 256 kbit/s carries before its peer gives
/// up on the answer.
const SEND_BYTES_MAX: usize = 1024 * 1024;
/// In messages of this size, so that other things find room between them.
const SEND_BATCH_BYTES: usize = 128 * 1024;
