//! Sees what goes into and comes out of the replica, and tells it on: to the event stream, and to the journal of
//! where blobs came from. Changes nothing and decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use waystation_proto::{
    Digest, Event, FetchId, Hash, Input, NodeId, Output, Replica,
    body::{HoldingState, State},
    event::{Change, Told},
};

use crate::{
    doctor::Reached,
    events::{Blob, Events, What},
    explain::{
        Insight, Journal,
        journal::{self, Place},
    },
    upstream::Upstreams,
};

/// What is told on, and the little that has to be remembered for it.
pub struct Witness {
    events: Events,
    journal: Journal,
    reached: Reached,
    upstreams: Upstreams,
    site: String,
    /// Members with a session.
    up: BTreeSet<NodeId>,
    /// Artifacts that were told to be complete on the site.
    complete: BTreeSet<Digest>,
    /// Upstreams that are away.
    away: BTreeSet<String>,
    /// Why transfers failed, from when the data plane told until the replica is told.
    why: BTreeMap<FetchId, String>,
}

impl Witness {
    /// Of a node on this site.
    pub fn new(insight: &Insight, upstreams: Upstreams, site: String) -> Self {
        let (up, complete, away, why) = Default::default();
        let Insight { events, journal, reached, .. } = insight.clone();
        Witness { reached, events, journal, upstreams, site, up, complete, away, why }
    }

    /// Why a transfer failed that the replica is about to hear of.
    pub fn because(&mut self, fetch: FetchId, why: String) {
        self.why.insert(fetch, why);
    }

    /// The replica is about to be given this.
    pub fn input(&mut self, input: &Input, replica: &Replica) {
        match input {
            Input::PeerUp { peer, dialled } => {
                if dialled.is_none() {
                    self.reached.by(*peer);
                }
                if self.up.insert(*peer) {
                    let site = replica.catalog().node(peer).map(|body| body.site.clone());
                    self.events.tell(What::NodeUp { node: peer.to_string(), site });
                }
            }
            Input::PeerDown { peer } => {
                self.up.remove(peer);
                let site = replica.catalog().node(peer).map(|body| body.site.clone());
                self.events.tell(What::NodeDown { node: peer.to_string(), site });
            }
            Input::Fetched { fetch } => self.journal.came(*fetch),
            Input::FetchFailed { fetch, fault } => {
                let why = self.why.remove(fetch).unwrap_or_else(|| HERE.to_owned());
                if let Some((hash, node)) = self.journal.failed(*fetch, *fault, &why) {
                    let (blob, from) = (self.blob(&hash), node.to_string());
                    let fault = journal::fault_name(*fault).to_owned();
                    self.events.tell(What::FetchFailed { blob, from, fault, why });
                }
            }
            Input::Sealed { hash } => {
                if let Some(took_ms) = self.journal.sealed(*hash) {
                    self.events.tell(What::Fetched { blob: self.blob(hash), took_ms });
                }
            }
            Input::Pulled { source, result } => {
                let Some((from, took_ms)) = self.journal.pulled(&source.digest, result) else { return };
                let hash = result.as_ref().ok().map(|(hash, _)| hash.to_string());
                let blob = Blob { digest: Some(source.digest.to_string()), hash };
                self.events.tell(match result {
                    Ok(_) => What::Fetched { blob, took_ms },
                    Err(failure) => {
                        let (fault, why) = journal::pull_failure(failure);
                        What::FetchFailed { blob, from, fault: fault.into(), why }
                    }
                });
            }
            Input::Lost { hash, .. } => {
                self.journal.gone(hash);
                self.events.tell(What::Evicted { blob: self.blob(hash) });
            }
            _ => {}
        }
    }

    /// The replica wants this to be done.
    pub fn output(&mut self, output: &Output, replica: &Replica) {
        match output {
            Output::Probe { hash, size } => self.journal.wanted(*hash, *size),
            Output::Fetch { fetch, from, hash, range, .. } => {
                let site = replica.catalog().node(from).map(|body| body.site.clone());
                let far = site.as_ref().is_some_and(|site| *site != self.site);
                let place = Place::member(from, site.clone(), far);
                if self.journal.began(*fetch, *from, place, *hash, range.clone()) {
                    let (blob, from) = (self.blob(hash), from.to_string());
                    self.events.tell(What::FetchStarted { blob, from, site });
                }
            }
            Output::CancelFetch { fetch } => {
                self.why.remove(fetch);
                self.journal.cancelled(*fetch);
            }
            Output::Seal { hash, digest, .. } => {
                digest.iter().for_each(|digest| self.journal.paired(*hash, *digest));
                self.journal.sealing(*hash);
            }
            Output::Pull { source, .. } => {
                let upstream = self.upstreams.of_repository(&source.repository);
                let from = upstream.map_or_else(String::new, |(found, _)| found.config().namespace.clone());
                self.journal.pulling(source.digest, &from);
                let blob = Blob { digest: Some(source.digest.to_string()), hash: None };
                self.events.tell(What::FetchStarted { blob, from, site: None });
            }
            Output::Catalog(change) => self.change(change, replica),
            Output::Notify(Event::HolderLied { node, hash }) => {
                let blob = self.blob(hash);
                self.events.tell(What::HolderLied { node: node.to_string(), blob });
            }
            _ => {}
        }
    }

    /// Looks whether upstreams went away or came back. To be called now and then.
    pub fn look(&mut self) {
        for upstream in self.upstreams.iter() {
            let name = &upstream.config().namespace;
            match (upstream.is_away(), self.away.contains(name)) {
                (true, false) => {
                    self.away.insert(name.clone());
                    self.events.tell(What::UpstreamAway { upstream: name.clone() });
                }
                // One that is merely due to be tried again has not answered yet.
                (false, true) if upstream.has_answered_within(LOOKED_WITHIN) => {
                    self.away.remove(name);
                    self.events.tell(What::UpstreamBack { upstream: name.clone() });
                }
                _ => {}
            }
        }
    }

    fn change(&mut self, change: &Change, replica: &Replica) {
        match change {
            Change::Tag { repository, tag, body, author, .. } => {
                let (repository, tag) = (repository.to_string(), Some(tag.to_string()));
                self.events.tell(match body.target {
                    Some(digest) => {
                        let (digest, author) = (digest.to_string(), Some(author.to_string()));
                        What::Published { repository, tag, digest, author }
                    }
                    None => What::Deleted { repository, tag, digest: None },
                });
            }
            Change::TagLost { repository, tag, body, author, .. } => self.events.tell(What::TagLost {
                repository: repository.to_string(),
                tag: tag.to_string(),
                digest: body.target.map(|digest| digest.to_string()),
                author: author.to_string(),
            }),
            Change::Artifact { repository, manifest, place } => {
                place.iter().for_each(|place| self.journal.paired(place.manifest, *manifest));
                let (repository, digest) = (repository.to_string(), manifest.to_string());
                self.events.tell(match place {
                    Some(_) => What::Published { repository, tag: None, digest, author: None },
                    None => What::Deleted { repository, tag: None, digest: Some(digest) },
                });
            }
            Change::Reachable { index, .. } => {
                index.closure().for_each(|(edge, hash)| self.journal.paired(hash, edge.digest));
            }
            Change::Status { repository, manifest, state, reason } => self.events.tell(What::Status {
                repository: repository.to_string(),
                digest: manifest.to_string(),
                status: state_name(*state).to_owned(),
                reason: reason.clone(),
            }),
            // What is told the mesh of a node of the site, the site was told too.
            Change::Holding { manifest, node, state, told: Told::Site(_) } => {
                self.holding(manifest, node, *state, replica);
            }
            _ => {}
        }
    }

    fn holding(&mut self, manifest: &Digest, node: &NodeId, state: HoldingState, replica: &Replica) {
        let catalog = replica.catalog();
        let is_here = |node: &NodeId| catalog.node(node).is_some_and(|body| body.site == self.site);
        let mine = *node == replica.me();
        if !mine && !is_here(node) {
            return;
        }
        if state != HoldingState::Complete {
            self.complete.remove(manifest);
            return;
        }
        if mine {
            self.events.tell(What::Held { digest: manifest.to_string() });
        }
        let members: BTreeSet<NodeId> = replica.sessions().filter(is_here).chain([replica.me()]).collect();
        let holders: BTreeSet<NodeId> = catalog
            .holders(manifest)
            .filter(|(_, state)| *state == HoldingState::Complete)
            .map(|(node, _)| node)
            .collect();
        if !members.is_subset(&holders) || self.complete.contains(manifest) {
            return;
        }
        if self.complete.len() >= COMPLETE_MAX {
            // One that is forgotten is told of once more when a node of the site says so again.
            self.complete.pop_first();
        }
        self.complete.insert(*manifest);
        let (digest, site) = (manifest.to_string(), self.site.clone());
        self.events.tell(What::SiteComplete { digest, site, nodes: members.len() as u64 });
    }

    fn blob(&self, hash: &Hash) -> Blob {
        let digest = self.journal.digest(hash).map(|digest| digest.to_string());
        Blob { digest, hash: Some(hash.to_string()) }
    }
}

fn state_name(state: State) -> &'static str {
    match state {
        State::Validating => "validating",
        State::Quarantined => "quarantined",
        State::Approved => "approved",
        State::Rejected => "rejected",
        State::Revoked => "revoked",
    }
}

/// Why a transfer failed that never reached the data plane.
const HERE: &str = "this node has no room for it, on its disk or among its transfers";
/// Artifacts that are remembered as complete on the site.
const COMPLETE_MAX: usize = 10_000;
/// An answer that is no older means that an upstream is back.
const LOOKED_WITHIN: std::time::Duration = std::time::Duration::from_secs(5);
