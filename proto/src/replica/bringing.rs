//! Bringing content here: what is wanted, what came of it, and what follows. Which bytes from whom is
//! [`crate::wants`]' business, which blobs an artifact needs [`crate::artifacts`]', what upstreams have
//! [`crate::pulls`]'.

use alloc::vec::Vec;

use super::Replica;
use crate::{
    artifacts::Means,
    body::{ArtifactPlace, HoldingState},
    catalog::Catalog,
    event::{BlobRef, Change, Event, Input, Output, RequestId, Timer, WantFailure},
    id::{Digest, Hash, NodeId, RepoName},
    index::ArtifactIndex,
    pulls::{self, Pulls, Wanted},
    time::{Now, Span},
    wants::{Ended, Order, Waiter},
    world::World,
};

impl Replica {
    pub(super) fn want_artifact(
        &mut self,
        now: Now,
        request: RequestId,
        repository: RepoName,
        manifest: Digest,
        closure: bool,
        out: &mut Vec<Output>,
    ) {
        let Some(place) = self.catalog.artifact(&repository, &manifest) else {
            let result = Err(WantFailure::Unknown);
            out.push(Output::Notify(Event::WantDone { request, result }));
            return;
        };
        if closure {
            self.note_it_comes(now, &manifest, out);
            self.keeper.pulled(&repository, manifest);
        }
        // First, so that nothing is promised that a holder without a word for long would have to give.
        self.seek_holders(now, manifest, out);
        self.bring(now, Some(request), manifest, place, closure, out);
    }

    pub(super) fn bring(
        &mut self,
        now: Now,
        request: Option<RequestId>,
        manifest: Digest,
        place: ArtifactPlace,
        closure: bool,
        out: &mut Vec<Output>,
    ) {
        let world = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
        let mut means = Means { now: now.time, held: &self.held, wants: &mut self.wants, world: &world };
        self.artifacts.want(&mut means, request, manifest, place, closure, out);
    }

    pub(super) fn want_blob(
        &mut self,
        now: Now,
        request: RequestId,
        blob: BlobRef,
        manifest: Digest,
        out: &mut Vec<Output>,
    ) {
        let BlobRef { digest, hash, size } = blob;
        if self.held.contains(&hash) {
            out.push(Output::Notify(Event::WantDone { request, result: Ok(()) }));
            return;
        }
        let (digest, told_by, waiter) = (Some(digest), None, Waiter::Request(request));
        self.wants.want(now.time, Order { hash, size, digest, manifest, told_by, waiter }, out);
        self.seek_holders(now, manifest, out);
    }

    /// Ends waits for artifacts: well where a holder turned out to be there, else where none is about to come.
    pub(super) fn look_after_artifacts(&mut self, now: Now, out: &mut Vec<Output>) {
        let outside = self.outside(now);
        let world = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
        let coming = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
        let coming = coming.with_coming(outside);
        let mut means = Means { now: now.time, held: &self.held, wants: &mut self.wants, world: &world };
        self.artifacts.tick(
            &mut means,
            self.config.probe_patience,
            |manifest| coming.is_coming(manifest),
            out,
        );
    }

    pub(super) fn want_pull(&mut self, now: Now, request: RequestId, wanted: Wanted, out: &mut Vec<Output>) {
        let manifest = wanted.manifest.unwrap_or(wanted.source.digest);
        let away = wanted.away;
        let (pulls, mut means) = self.pulling(now);
        pulls.want(&mut means, request, wanted, out);
        if away {
            self.seek_holders(now, manifest, out);
        }
    }

    pub(super) fn pull_progress(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Pulled { source, result } => {
                let sealed = result.as_ref().ok().map(|(hash, _)| *hash);
                self.held.extend(sealed);
                let (pulls, mut means) = self.pulling(now);
                pulls.pulled(&mut means, &source, result, out);
                let ended = sealed.and_then(|hash| self.wants.sealed(hash, out));
                self.ended(now, ended, out);
            }
            Input::Proved { source, hash, proof } => {
                let (pulls, mut means) = self.pulling(now);
                pulls.proved(&mut means, &source, hash, proof, out);
            }
            Input::LookedUp { to, repository, answers } if self.membership.is_up(&to) => {
                self.pulls.looked_up(self.writes.me(), to, &repository, answers, out);
            }
            _ => {}
        }
    }

    /// The pulls, and what they need.
    pub(crate) fn pulling(&mut self, now: Now) -> (&mut Pulls, pulls::Means<'_>) {
        let coming = if self.pulls.has_away() { self.awaited_and_coming(now) } else { Vec::new() };
        let (me, sessions) = (self.writes.me(), self.membership.sessions().collect::<Vec<_>>());
        let is_near =
            |peer: &&NodeId| self.catalog.site_of(peer).is_some_and(|site| site == self.config.site);
        let near = sessions.iter().filter(is_near).copied().collect();
        let (now, held, wants) = (now.time, &self.held, &mut self.wants);
        let means = pulls::Means { now, me, sessions, near, held, wants, coming };
        (&mut self.pulls, means)
    }

    pub(super) fn progress(&mut self, now: Now, input: Input, out: &mut Vec<Output>) {
        let time = now.time;
        let ended = match input {
            Input::Probed { hash, have } => {
                self.wants.probed(hash, &have, out);
                None
            }
            Input::Arriving { fetch } => {
                self.wants.arriving(time, fetch);
                None
            }
            Input::Fetched { fetch } => {
                self.wants.fetched(time, fetch, out);
                None
            }
            Input::FetchFailed { fetch, fault } => self.wants.failed(time, fetch, fault, out),
            Input::Sealed { hash } => {
                self.held.insert(hash);
                self.wants.sealed(hash, out)
            }
            Input::Incomplete { hash } => {
                self.wants.incomplete(time, hash, out);
                None
            }
            Input::SealFailed { hash, why } => self.wants.not_stored(time, hash, why, out),
            Input::IndexRead { hash, index } => {
                let world = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
                let mut means = Means { now: time, held: &self.held, wants: &mut self.wants, world: &world };
                let reachable = index.iter().flat_map(|index| reachable(&self.catalog, hash, index));
                out.extend(reachable.map(Output::Catalog));
                self.artifacts.index_read(&mut means, hash, index.as_ref(), out);
                self.keeper.index_read(time, &self.catalog, hash, index.as_ref());
                None
            }
            _ => None,
        };
        self.ended(now, ended, out);
    }

    pub(super) fn ended(&mut self, now: Now, ended: impl IntoIterator<Item = Ended>, out: &mut Vec<Output>) {
        for ended in ended {
            let world = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
            let mut means = Means { now: now.time, held: &self.held, wants: &mut self.wants, world: &world };
            for request in self.artifacts.ended(&mut means, &ended, out) {
                out.push(Output::Notify(Event::WantDone { request, result: ended.result.clone() }));
            }
            for waiter in &ended.waiters {
                if let Waiter::Pull(digest) = waiter {
                    let (pulls, mut means) = self.pulling(now);
                    pulls.fetched(&mut means, digest, (ended.hash, &ended.result), out);
                }
            }
        }
    }

    /// Where an artifact became complete, the mesh is to know.
    pub(super) fn note_complete(&mut self, now: Now, out: &mut Vec<Output>) {
        let complete: Vec<Digest> = out
            .iter()
            .filter_map(|output| match output {
                Output::Notify(Event::ArtifactComplete { manifest }) => Some(*manifest),
                _ => None,
            })
            .collect();
        for manifest in complete {
            let records = self.says(now, &manifest, HoldingState::Complete);
            self.persist_own(records, None, None, out);
        }
    }

    pub(super) fn plan(&mut self, now: Now, out: &mut Vec<Output>) {
        let world = World::of(&self.config, &self.catalog, &self.membership, self.writes.me());
        self.wants.plan(now.time, &self.config, &world, out);
        self.pulls.arm(out);
        self.keeper.arm(now.time, out);
        let waiting = self.wants.counts().0 > 0 || self.artifacts.is_waited_for();
        if waiting && !self.wants_timer {
            self.wants_timer = true;
            out.push(Output::SetTimer { at: now.time + WANTS_INTERVAL, timer: Timer::Wants });
        }
        if !self.sharing_timer && self.wants.is_sharing(now.time) {
            self.sharing_timer = true;
            out.push(Output::SetTimer { at: now.time + SHARING_INTERVAL, timer: Timer::Sharing });
        }
    }
}

/// What an artifact index makes reachable: its content, in every repository that its artifact is in.
fn reachable(catalog: &Catalog, hash: Hash, index: &ArtifactIndex) -> impl Iterator<Item = Change> {
    let fits = move |repository: &&RepoName| {
        let place = catalog.artifact(repository, &index.manifest);
        place.is_some_and(|place| place.index == hash && place.manifest == index.hash)
    };
    let repositories = catalog.repositories(&index.manifest).filter(fits);
    repositories.map(|repository| Change::Reachable { repository: repository.clone(), index: index.clone() })
}

const WANTS_INTERVAL: Span = Span::millis(250);
/// How often others are told how far this node is, while there is something to tell.
const SHARING_INTERVAL: Span = Span::millis(50);
