//! What this node holds less of: rotten blobs, copies that it wants to delete, what others rely on it for, and
//! what its operator pinned.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

use super::Replica;
use crate::{
    body::HoldingState,
    event::{Event, Input, Output, Refusal, RequestId},
    id::{Digest, Hash, NodeId},
    leases::Promise,
    shared::Shared,
    time::{Now, Span},
    wants::Holders,
    wire::Message,
    world::World,
    writes::{Origin, Pending},
};

/// What a deletion has to know of the protocol's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Artifacts that the operator pinned.
    pub pinned: BTreeSet<Digest>,
    /// Artifacts that others rely on.
    pub leased: BTreeSet<Digest>,
    /// Blobs that are wanted.
    pub wanted: BTreeSet<Hash>,
    /// Artifacts that are being brought here.
    pub coming: BTreeSet<Digest>,
    /// Artifacts, of those asked about, that a policy wants here, or may want for all that is known so far.
    pub policy: BTreeSet<Digest>,
    /// How many other members that can be reached say to hold all of an artifact, of those asked about.
    pub holders: BTreeMap<Digest, usize>,
}

impl Replica {
    /// What must stay, and how many others hold each of these artifacts.
    pub fn kept(&self, now: Now, manifests: &[Digest]) -> Kept {
        let world = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
        Kept {
            pinned: self.leases.pinned(),
            leased: self.leases.leased(now.time),
            wanted: self.wants.hashes().collect(),
            coming: self.artifacts.manifests().collect(),
            policy: manifests.iter().filter(|manifest| self.may_be_policy_held(manifest)).copied().collect(),
            holders: manifests.iter().map(|manifest| (*manifest, world.holders(manifest).len())).collect(),
        }
    }

    fn may_be_policy_held(&self, manifest: &Digest) -> bool {
        self.keeper.wants(manifest) != Some(false)
    }

    pub(super) fn space(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Lost { hash, manifests } => self.lost(now, hash, &manifests, out),
            Input::AskLease { request, manifest, blobs } => {
                let world = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
                let holders = world.holders(&manifest).into_iter().map(|holder| holder.node).collect();
                self.leases.ask(now.time, request, (manifest, blobs), holders, out);
            }
            Input::LetGo { request, manifests, leased, blobs } => {
                self.let_go(now, request, (&manifests, &leased), &blobs, out);
            }
            Input::Pin { request, manifest, pinned } => {
                match self.leases.pin(&self.writes.sign(now.wall), manifest, pinned) {
                    Ok(Some(record)) => self.note(record, Some(request), out),
                    Ok(None) => out.push(Output::Notify(Event::Written { request })),
                    Err(_) => {
                        let refusal = Refusal::Invalid("there are too many pins; unpin some".into());
                        out.push(Output::Notify(Event::Refused { request, refusal }));
                    }
                }
            }
            _ => {}
        }
    }

    /// A blob is gone: its artifacts are not whole any more, and are brought here again.
    fn lost(&mut self, now: Now, hash: Hash, manifests: &[Digest], out: &mut Vec<Output>) {
        self.held.remove(&hash);
        let me = self.me();
        for manifest in manifests {
            if self.catalog.holding(manifest, &me) != Some(HoldingState::Complete) {
                continue;
            }
            let records = self.says(now, manifest, HoldingState::Partial);
            self.persist_own(records, None, None, out);
            let repository = self.catalog.repositories(manifest).next().cloned();
            let place = repository.and_then(|repository| self.catalog.artifact(&repository, manifest));
            if let Some(place) = place {
                self.bring(now, None, *manifest, place, true, out);
            }
        }
    }

    /// Nobody is to be sent here for what is about to be deleted.
    fn let_go(
        &mut self,
        now: Now,
        request: RequestId,
        (manifests, leased): (&[Digest], &[Digest]),
        blobs: &[Hash],
        out: &mut Vec<Output>,
    ) {
        let given = self.leases.leased(now.time);
        let coming: BTreeSet<Digest> = self.artifacts.manifests().collect();
        let pinned = self.leases.pinned();
        // All of this was looked at before, and may have changed since.
        let kept = |manifest: &&Digest| {
            given.contains(*manifest) || coming.contains(*manifest) || pinned.contains(*manifest)
        };
        let stays = manifests.iter().find(kept);
        let late = leased.iter().find(|manifest| !self.leases.may_go(now.time, manifest));
        let wanted = blobs.iter().any(|hash| self.wants.contains(hash));
        let refused = stays.is_some() || late.is_some() || wanted;
        // From here on this node has not all of them, so it promises nobody to keep them either.
        leased.iter().for_each(|manifest| self.leases.over(manifest));
        if refused {
            let refusal = Refusal::Invalid("it is needed again".into());
            out.push(Output::Notify(Event::Refused { request, refusal }));
            return;
        }
        for hash in blobs {
            self.held.remove(hash);
        }
        let state = HoldingState::Gone;
        let records: Vec<Shared> =
            manifests.iter().flat_map(|manifest| self.says(now, manifest, state)).collect();
        self.persist_own(records, Some(request), None, out);
    }

    /// A member wants to rely on this node's copy.
    pub(super) fn lease_asked(
        &mut self,
        now: Now,
        from: NodeId,
        manifest: Digest,
        blobs: &[Hash],
        out: &mut Vec<Output>,
    ) {
        let me = self.me();
        let says = self.catalog.holding(&manifest, &me) == Some(HoldingState::Complete);
        let referenced = self.catalog.repositories(&manifest).next().is_some();
        let holds = says && referenced && blobs.iter().all(|hash| self.held.contains(hash));
        let sign = self.writes.sign(now.wall);
        match self.leases.asked(now.time, &sign, from, manifest, holds, out) {
            Promise::Write(record) => self.note(record, None, out),
            Promise::Answer(granted) => {
                out.push(Output::Send { to: from, message: Message::LeaseAnswer { manifest, granted } });
            }
        }
    }

    /// Keeps a note of this node's for itself.
    fn note(&mut self, record: Shared, request: Option<RequestId>, out: &mut Vec<Output>) {
        let records = alloc::vec![record];
        let pending = Pending { records: records.clone(), request, origin: Origin::Local, then: None };
        let write = self.writes.start(pending);
        out.push(Output::Persist { write, records, within: Span::default() });
    }
}
