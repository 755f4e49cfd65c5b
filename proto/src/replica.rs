//! The replica: routes each input to the machine whose business it is and collects what follows. It
//! decides nothing itself but whom to compare catalogs with, and when; that, and what members send, is in
//! `peers`.

mod alarms;
mod bringing;
mod candidates;
mod coming;
mod company;
mod holdings;
mod inquiries;
mod peers;
mod policies;
pub mod space;

use alloc::{collections::BTreeSet, string::String, vec::Vec};

use ed25519_dalek::SigningKey;

use crate::{
    artifacts::Artifacts,
    body::{ArtifactPlace, HoldingState, NodeBody},
    catalog::{Applied, Catalog, Limits},
    config::ReplicaConfig,
    event::{Change, Event, Input, Output, Refusal, RequestId, Timer, Told, WriteId},
    gave_way::GaveWay,
    grant::Action,
    id::{Digest, Hash, NodeId, RepoName, Tag},
    index::ArtifactIndex,
    leases::Leases,
    manners::Manners,
    membership::Membership,
    policy::keeper::Keeper,
    pulls::{Pulls, Wanted},
    record::{Kind, Trust},
    rounds::Rounds,
    shared::Shared,
    suppliers::Suppliers,
    time::{Now, Span, Time},
    wants::Wants,
    world::World,
    writes::{Origin, Pending, Writes},
};

/// One node's part of the protocol.
#[derive(Debug)]
pub struct Replica {
    config: ReplicaConfig,
    catalog: Catalog,
    membership: Membership,
    wants: Wants,
    artifacts: Artifacts,
    pulls: Pulls,
    keeper: Keeper,
    writes: Writes,
    gave_way: GaveWay,
    leases: Leases,
    held: BTreeSet<Hash>,
    rng: fastrand::Rng,
    rounds: Rounds,
    suppliers: Suppliers,
    manners: Manners,
    inquiries: inquiries::Inquiries,
    company: company::Company,
    tellers: holdings::Tellers,
    wants_timer: bool,
    sharing_timer: bool,
    alarms: alarms::Alarms,
}

/// Numbers for status displays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records known.
    pub records: usize,
    /// Blobs wanted.
    pub wants: usize,
    /// Transfers under way.
    pub fetches: usize,
}

impl Replica {
    /// A replica that knows nothing yet; the first input must be [`Input::Restore`].
    pub fn new(config: ReplicaConfig, key: SigningKey, trust: Trust) -> Self {
        Replica {
            membership: Membership::new(&config.join),
            rng: fastrand::Rng::with_seed(config.seed),
            catalog: Catalog::default(),
            wants: Wants::default(),
            artifacts: Artifacts::default(),
            pulls: Pulls::default(),
            keeper: Keeper::default(),
            writes: Writes::new(key, trust),
            gave_way: GaveWay::default(),
            leases: Leases::default(),
            held: BTreeSet::new(),
            rounds: Rounds::default(),
            suppliers: Suppliers::default(),
            manners: Manners::default(),
            inquiries: inquiries::Inquiries::default(),
            company: company::Company::default(),
            tellers: holdings::Tellers::default(),
            wants_timer: false,
            sharing_timer: false,
            alarms: alarms::Alarms::default(),
            config,
        }
    }

    /// Has it know all that is in a catalog, before the first input. For many replicas in one process that know the
    /// same: [`Input::Restore`] then brings what each knows beside.
    #[must_use]
    pub fn knowing(self, catalog: Catalog) -> Self {
        Replica { catalog, ..self }
    }

    /// Takes one input and says what is to be done. Never fails: what a peer sends wrong is dropped and
    /// told as an [`Event`].
    pub fn handle(&mut self, now: Now, input: Input) -> Vec<Output> {
        let mut out = Vec::new();
        self.membership.note_time(now.time);
        self.membership.presence.before(now.time, &input);
        match input {
            Input::Restore { records, held } => self.restore(now, records, held, &mut out),
            Input::Reachable { addresses } => self.reachable(now, addresses, &mut out),
            Input::Publish { .. }
            | Input::Untag { .. }
            | Input::Unpublish { .. }
            | Input::Unlink { .. }
            | Input::Relink { .. }
            | Input::SetStatus { .. }
            | Input::SetPolicy { .. }
            | Input::AddGrant { .. } => self.write(now, input, &mut out),
            Input::Persisted { write } => self.persisted(now, write, &mut out),
            Input::PersistFailed { write, why } => self.persist_failed(write, why, &mut out),
            Input::WantArtifact { request, repository, manifest, closure } => {
                self.want_artifact(now, request, repository, manifest, closure, &mut out);
            }
            Input::WantBlob { request, blob, manifest } => {
                self.want_blob(now, request, blob, manifest, &mut out);
            }
            Input::Pull { request, source, size, manifest, is_manifest, away } => {
                let wanted = Wanted { source, size, manifest, is_manifest, away };
                self.want_pull(now, request, wanted, &mut out);
            }
            Input::Pulled { .. } | Input::Proved { .. } | Input::LookedUp { .. } => {
                self.pull_progress(now, input, &mut out);
            }
            Input::Sighted { .. } | Input::Keeping { .. } => self.say(now, input, &mut out),
            Input::Abandon { request } => {
                self.artifacts.abandon(request);
                self.pulls.abandon(request);
                self.wants.abandon(request, &mut out);
            }
            Input::Lost { .. } | Input::AskLease { .. } | Input::LetGo { .. } | Input::Pin { .. } => {
                self.space(now, input, &mut out);
            }
            Input::Received { from, message } => self.received(now, from, message, &mut out),
            Input::PeerUp { peer, dialled } => self.peer_up(now, peer, dialled, &mut out),
            Input::PeerDown { peer } => self.peer_down(now, &peer, &mut out),
            Input::Discovered { address } => {
                self.membership.discovered(address);
                self.dial(now, &mut out);
            }
            Input::DialFailed { target } => self.dial_failed(now, &target, &mut out),
            Input::TimerFired(timer) => self.timer(now, timer, &mut out),
            Input::Budget { far_background, far_client } => {
                self.membership.set_far_allowed(far_background, far_client);
                self.wants.stir();
            }
            Input::Probed { .. }
            | Input::Arriving { .. }
            | Input::Fetched { .. }
            | Input::FetchFailed { .. }
            | Input::Sealed { .. }
            | Input::SealFailed { .. }
            | Input::Incomplete { .. }
            | Input::IndexRead { .. } => self.progress(now, input, &mut out),
        }
        self.note_complete(now, &mut out);
        self.plan(now, &mut out);
        self.arm(now, &mut out);
        self.membership.presence.after(now.time, &out);
        out
    }

    /// What is known. For displays and checkers; decisions are made in here.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// Members with a session.
    pub fn sessions(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.membership.sessions()
    }

    /// Members that are not asked for blobs because they failed, and for how many milliseconds more.
    pub fn avoided(&self, now: Time) -> impl Iterator<Item = (NodeId, u64)> + '_ {
        self.wants.avoided(now).map(|(node, span)| (node, span.0))
    }

    /// This node.
    pub fn me(&self) -> NodeId {
        self.writes.me()
    }

    /// Whether a blob is complete and durable here.
    pub fn holds(&self, hash: &Hash) -> bool {
        self.held.contains(hash)
    }

    /// Whether this node could do that in a repository now.
    pub fn may(&self, now: Now, action: Action, repository: &RepoName) -> Result<(), Refusal> {
        self.writes.grant(&self.catalog, action, repository, now.wall).map(|_| ())
    }

    /// Numbers for status displays.
    pub fn counts(&self) -> Counts {
        let (wants, fetches) = self.wants.counts();
        Counts { records: self.catalog.len(), wants, fetches }
    }

    // ---- start ----

    fn restore(&mut self, now: Now, records: Vec<Shared>, held: Vec<Hash>, out: &mut Vec<Output>) {
        let mut elsewhere = Vec::new();
        for record in records {
            if record.site().is_some_and(|site| site != self.config.site) {
                elsewhere.push(record);
            } else if record.key.kind == Kind::LOCAL {
                self.leases.restore(now.time, &record);
            } else {
                self.catalog.apply(record, Limits::RESTORED);
            }
        }
        self.drop_evicted(out);
        self.held = held.into_iter().collect();
        self.keeper.restored(
            now.time,
            self.catalog.policies().next().is_some(),
            self.catalog.nodes_of(&self.config.site).map(|(node, _)| *node),
        );
        self.look_at_all_words(now.time);
        let moved = self.moved(now, &elsewhere, out);
        self.resume(now, &moved, out);
    }

    /// What was being brought here when the node stopped is brought on.
    fn resume(&mut self, now: Now, moved: &[Digest], out: &mut Vec<Output>) {
        let me = self.me();
        let mut partial: Vec<(RepoName, Digest)> = Vec::new();
        let coming: Vec<Digest> = self.catalog.partial_at(&me).chain(moved.iter().copied()).collect();
        for manifest in coming {
            // The driver's index may not have heard of it yet.
            if self.catalog.holding(&manifest, &me) == Some(HoldingState::Partial) {
                let (state, told) = (HoldingState::Partial, Told::Site(self.config.site.clone()));
                out.push(Output::Catalog(Change::Holding { manifest, node: me, state, told }));
            }
            let repositories = self.catalog.repositories(&manifest);
            partial.extend(repositories.map(|repository| (repository.clone(), manifest)));
        }
        for (repository, manifest) in partial {
            if let Some(place) = self.catalog.artifact(&repository, &manifest) {
                self.bring(now, None, manifest, place, true, out);
            }
        }
    }

    fn reachable(&mut self, now: Now, mut addresses: Vec<String>, out: &mut Vec<Output>) {
        // A machine with many networks has more: a record with all of them would count nowhere.
        addresses.truncate(NodeBody::ADDRESSES_MAX);

        let body = NodeBody {
            site: self.config.site.clone(),
            tier: self.config.tier,
            addresses,
            software: self.config.software.clone(),
            region: self.config.region.clone(),
            labels: self.config.labels.clone(),
        };
        let record = self.writes.node(&self.catalog, now.wall, &body);
        self.persist_own(record.into_iter().collect(), None, None, out);
        self.start_timers(now, out);
    }

    // ---- own writes ----

    fn write(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let (writes, catalog, wall) = (&self.writes, &self.catalog, now.wall);
        let one = |record: Result<Shared, Refusal>| record.map(|record| alloc::vec![record]);
        let (request, records, then) = match input {
            Input::Publish { request, repository, tags, index, index_hash, index_size } => {
                let place = place_of(&index, index_hash, index_size);
                let records = self.publication(now, &repository, &tags, &index, place);
                (request, records, Some(Change::Reachable { repository, index }))
            }
            Input::Untag { request, repository, tag } => {
                (request, one(writes.untag(catalog, wall, &repository, &tag)), None)
            }
            Input::Unpublish { request, repository, manifest } => {
                (request, writes.unpublication(catalog, wall, &repository, &manifest), None)
            }
            Input::Unlink { request, repository, blob } => {
                (request, one(writes.unlinking(catalog, wall, &repository, &blob)), None)
            }
            Input::Relink { request, repository, blob } => {
                let record = writes.relinking(catalog, wall, &repository, &blob);
                (request, record.map(|record| record.into_iter().collect()), None)
            }
            Input::SetStatus { request, repository, manifest, state, reason } => {
                let artifact = (&repository, &manifest);
                (request, one(writes.status(catalog, wall, artifact, state, &reason)), None)
            }
            Input::SetPolicy { request, name, policy } => {
                let record = writes.policy(catalog, wall, &name, policy.as_ref());
                (request, record.map(|record| record.into_iter().collect()), None)
            }
            Input::AddGrant { request, grant } => {
                let record = writes.granting(catalog, wall, &grant);
                (request, record.map(|record| record.into_iter().collect()), None)
            }
            _ => return,
        };
        match records {
            Ok(records) => self.persist_own(records, Some(request), then, out),
            Err(refusal) => out.push(Output::Notify(Event::Refused { request, refusal })),
        }
    }

    fn publication(
        &self,
        now: Now,
        repository: &RepoName,
        tags: &[Tag],
        index: &ArtifactIndex,
        place: ArtifactPlace,
    ) -> Result<Vec<Shared>, Refusal> {
        let artifact = (index.manifest, place);
        let mut records = self.writes.publication(&self.catalog, now.wall, repository, tags, artifact)?;
        let complete = index.closure().all(|(_, hash)| self.held.contains(&hash));
        let state = if complete { HoldingState::Complete } else { HoldingState::Partial };
        records.extend(self.publishes(now, &index.manifest, state));
        Ok(records)
    }

    /// What this node saw or keeps is told; nobody waits for it.
    fn say(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let records: Vec<Shared> = match input {
            Input::Sighted { repository, tag, manifest } => {
                let record = self.writes.sighting(&self.catalog, now.wall, &repository, &tag, manifest);
                record.into_iter().collect()
            }
            Input::Keeping { manifest, state } => self.says(now, &manifest, state),
            _ => Vec::new(),
        };
        self.persist_own(records, None, None, out);
    }

    fn persist_own(
        &mut self,
        records: Vec<Shared>,
        request: Option<RequestId>,
        then: Option<Change>,
        out: &mut Vec<Output>,
    ) {
        if records.is_empty() {
            out.extend(then.map(Output::Catalog));
            out.extend(request.map(|request| Output::Notify(Event::Written { request })));
            return;
        }
        // What others would refuse must not be known here only.
        let refused = records.iter().find_map(|record| record.check(self.writes.trust()).err());
        if let Some(why) = refused {
            out.push(Output::Notify(match request {
                Some(request) => {
                    let refusal = Refusal::Invalid(alloc::format!("other nodes would refuse it: {why}"));
                    Event::Refused { request, refusal }
                }
                None => Event::RecordsRefused { from: self.me(), count: records.len(), why },
            }));
            return;
        }
        // Somebody waits for a request's answer, and others to hear where this node is.
        let waited_for = request.is_some() || records.iter().any(|record| record.key.kind == Kind::NODE);
        let within = if waited_for { Span::default() } else { PERSIST_WITHIN };
        let write =
            self.writes.start(Pending { records: records.clone(), request, origin: Origin::Own, then });
        out.push(Output::Persist { write, records, within });
    }

    fn persisted(&mut self, now: Now, write: WriteId, out: &mut Vec<Output>) {
        let Some(pending) = self.writes.finish(write) else { return };
        match pending.origin {
            Origin::Local => {
                pending.records.iter().for_each(|record| self.leases.durable(record, true, out));
            }
            Origin::Aside => self.put_aside(now, pending.records),
            Origin::Own => self.say_durable(now, pending.records, out),
            Origin::Relied => {
                for record in pending.records {
                    self.writes.said(&record.key);
                    self.apply(now, record, out);
                }
            }
        }
        out.extend(pending.then.map(Output::Catalog));
        out.extend(pending.request.map(|request| Output::Notify(Event::Written { request })));
    }

    /// This node's own words are durable: from now on they count, and are told.
    fn say_durable(&mut self, now: Now, records: Vec<Shared>, out: &mut Vec<Output>) {
        for record in &records {
            self.writes.said(&record.key);
            if self.apply(now, record.clone(), out) == Applied::Stale {
                self.writes.lost(&self.catalog, record);
            }
        }
        self.answer_inquiries(now, &records, out);
        self.tell(now, records, out);
    }

    fn persist_failed(&mut self, write: WriteId, why: String, out: &mut Vec<Output>) {
        let Some(pending) = self.writes.finish(write) else { return };
        if pending.origin == Origin::Local {
            pending.records.iter().for_each(|record| self.leases.durable(record, false, out));
        }
        match pending.request {
            Some(request) => {
                out.push(Output::Notify(Event::Refused { request, refusal: Refusal::Storage(why) }));
            }
            None if pending.origin == Origin::Own => self.writes.put_off(pending.records),
            None => {}
        }
    }

    // ---- time ----

    fn timer(&mut self, now: Now, timer: Timer, out: &mut Vec<Output>) {
        self.alarms.fired(now.time, timer);
        match timer {
            Timer::Dial => {
                self.dial(now, out);
                self.dial_for_closures(now, out);
                self.probe_silent(now, out);
                self.look_after_sessions(now, out);
            }
            Timer::Reconcile => {
                let (catalog, site) = (&self.catalog, &self.config.site);
                let is_near = |peer: &NodeId| catalog.site_of(peer).is_none_or(|of| of == site);
                let me = self.writes.me();
                for peer in self.rounds.due(now.time, &self.config, &me, is_near, &mut self.rng) {
                    out.push(Output::Send { to: peer, message: self.opening_for(&peer) });
                }
                self.look_after_summaries(now, out);
                let again = self.writes.again(&self.catalog, now.wall);
                self.persist_own(again, None, None, out);
                self.leases.tick(now.time, out);
            }
            Timer::Policies => self.look_after_policies(now, out),
            Timer::Pulls => {
                let (pulls, mut means) = self.pulling(now);
                pulls.tick(&mut means, out);
            }
            // What there is to tell is told with each plan.
            Timer::Sharing => {
                self.sharing_timer = false;
                self.wants.stir();
            }
            Timer::Wants => {
                self.wants_timer = false;
                self.probe_awaited(now, out);
                let outside = self.outside(now);
                let world = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
                let world = world.with_coming(outside);
                let ended = self.wants.tick(now.time, &self.config, &world, out);
                self.ended(now, ended, out);
                self.look_after_artifacts(now, out);
            }
        }
    }
}

fn place_of(index: &ArtifactIndex, index_hash: Hash, index_size: u64) -> ArtifactPlace {
    ArtifactPlace {
        manifest: index.hash,
        manifest_size: index.size,
        media_type: index.media_type.clone(),
        index: index_hash,
        index_size,
        subject: index.subject(),
    }
}

/// How long records that nobody waits for may be collected for one sync.
const PERSIST_WITHIN: Span = Span::millis(100);

#[cfg(test)]
mod tests;
