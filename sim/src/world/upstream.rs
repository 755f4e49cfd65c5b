//! A registry outside the mesh that nodes pull through. It is a site of the topology at which no node runs: what is
//! seeded there it has, its line is its uplink, and it is away while that is cut or dead. Owns what the driver
//! does for [`waystation_proto::Output::Pull`] and its kin; who pulls, and who is asked first, the replicas decide.

use std::collections::{BTreeMap, BTreeSet};

use waystation_proto::{
    Digest, FetchId, Hash, Input, NodeId, RepoName,
    event::{Class, Proof, PullFailure, Source},
    wire::{Answer, Standing},
};

use super::{Occurrence, Operating, World};
use crate::setup::{Action, Nanos, SECOND, Setup};

/// The registry, and downloads from it.
#[derive(Default)]
pub(super) struct Upstream {
    /// The host that stands for it.
    host: Option<usize>,
    /// Artifacts of the setup that it has, and no node to begin with.
    artifacts: BTreeSet<usize>,
    downloads: BTreeMap<(usize, FetchId), Source>,
    last: u64,
    /// Until when each host thinks that it is away.
    away: BTreeMap<usize, Nanos>,
}

impl Upstream {
    /// What a setup says of it.
    pub(super) fn of(setup: &Setup, number: impl Fn(waystation_topology::Place) -> Option<usize>) -> Self {
        let Some(site) = setup.upstream else { return Upstream::default() };
        let (mut outside, mut inside) = (BTreeSet::new(), BTreeSet::new());
        for (_, action) in &setup.actions {
            match action {
                Action::Seed { artifact, at } if at.site == site => drop(outside.insert(*artifact)),
                Action::Seed { artifact, .. } | Action::Publish { artifact, .. } => {
                    inside.insert(*artifact);
                }
                _ => {}
            }
        }
        let host = number(waystation_topology::Place { site, node: 0 });
        Upstream { host, artifacts: outside.difference(&inside).copied().collect(), ..Upstream::default() }
    }

    /// Whether clients ask for this artifact as for one of the upstream's.
    pub(super) fn has(&self, artifact: usize) -> bool {
        self.artifacts.contains(&artifact)
    }

    /// Whether a host is no node.
    pub(super) fn is(&self, host: usize) -> bool {
        self.host == Some(host)
    }

    /// Whether a fetch is a download.
    pub(super) fn brings(&self, host: usize, fetch: FetchId) -> bool {
        self.downloads.contains_key(&(host, fetch))
    }

    /// Whether a host left it alone because it did not answer lately.
    pub(super) fn is_away(&self, now: Nanos, host: usize) -> bool {
        self.away.get(&host).is_some_and(|until| *until > now)
    }

    /// A host stopped, and with it what it was downloading.
    pub(super) fn stopped(&mut self, host: usize) {
        self.downloads.retain(|(who, _), _| *who != host);
        self.away.remove(&host);
    }
}

impl World {
    /// Whether a host answers requests for bytes.
    pub(super) fn serves(&self, host: usize) -> bool {
        self.hosts[host].is_up() || self.upstream.is(host)
    }

    /// A host downloads something.
    pub(super) fn download(&mut self, host: usize, source: Source) {
        let Some(upstream) = self.upstream.host else {
            let result = Err(PullFailure::Away("there are no upstreams here".into()));
            self.answer(host, Input::Pulled { source, result });
            return;
        };
        if self.network.is_severed(host, upstream) {
            let life = self.hosts[host].life;
            self.upstream.away.insert(host, self.now + GIVEN_UP + LEFT_ALONE);
            let input = Box::new(Input::Pulled { source, result: Err(away()) });
            self.at(self.now + GIVEN_UP, Occurrence::Told { host, life, input });
            return;
        }
        let known = self.content.named_by(&source.digest);
        let Some((hash, size)) = known.filter(|(hash, _)| self.hosts[upstream].disk.holds(hash)) else {
            self.answer(host, Input::Pulled { source, result: Err(PullFailure::Unknown) });
            return;
        };
        self.upstream.last += 1;
        let fetch = FetchId(DOWNLOADS + self.upstream.last);
        self.upstream.downloads.insert((host, fetch), source);
        let from = self.hosts[upstream].id;
        self.fetch(host, fetch, &from, (hash, 0..size), Class::Client);
    }

    /// A download is over, and has to become durable.
    pub(super) fn downloaded(&mut self, host: usize, fetch: FetchId) {
        let Some(source) = self.upstream.downloads.remove(&(host, fetch)) else { return };
        let Some((hash, size)) = self.content.named_by(&source.digest) else { return };
        self.upstream.away.remove(&host);
        self.on_disk(host, 0, Operating::Ingest(source, hash, size));
    }

    /// A download broke.
    pub(super) fn download_broke(&mut self, host: usize, fetch: FetchId) {
        let Some(source) = self.upstream.downloads.remove(&(host, fetch)) else { return };
        self.upstream.away.insert(host, self.now + LEFT_ALONE);
        self.tell(host, Input::Pulled { source, result: Err(away()) });
    }

    /// Reads a blob that members sent, to see whether it is what it was said to be.
    pub(super) fn prove(&mut self, host: usize, source: Source, hash: Hash) {
        let named = self.content.named_by(&source.digest);
        let holds = named.is_some_and(|(named, _)| named == hash) && self.hosts[host].disk.holds(&hash);
        let proof = if holds { Proof::Holds } else { Proof::Fails };
        self.answer(host, Input::Proved { source, hash, proof });
    }

    /// Says which of these a host has.
    pub(super) fn look_up(&mut self, host: usize, to: NodeId, repository: RepoName, digests: Vec<Digest>) {
        let disk = &self.hosts[host].disk;
        let stand = |digest: Digest| {
            let held = self.content.named_by(&digest).filter(|(hash, _)| disk.holds(hash));
            let state = held.map_or(Standing::Absent, |(hash, size)| Standing::Held { hash, size });
            Answer { digest, state }
        };
        let answers = digests.into_iter().map(stand).collect();
        self.answer(host, Input::LookedUp { to, repository, answers });
    }
}

fn away() -> PullFailure {
    PullFailure::Away("the upstream does not answer".into())
}

/// Fetches from here on are downloads.
const DOWNLOADS: u64 = 1 << 62;
/// How long an upstream that does not answer is tried, and left alone then: as the node's own first waits.
const GIVEN_UP: Nanos = 5 * SECOND;
const LEFT_ALONE: Nanos = 5 * SECOND;
