//! Clients that pull: the manifest first, then the layers, three at a time, as container runtimes do. What was
//! refused is asked for again after a second, then after twice as long each time, up to half a minute.

use std::collections::BTreeSet;

use waystation_proto::{
    Event, Hash, Input, RequestId,
    event::{BlobRef, Source, WantFailure},
    ranges::Ranges,
};

use super::{Occurrence, World};
use crate::{
    account::PullId,
    setup::{Nanos, SECOND},
};

/// One client that pulls.
pub(super) struct Pull {
    /// By number in the setup.
    pub(super) artifact: usize,
    pub(super) host: usize,
    id: Option<PullId>,
    /// Whether all of it is there.
    pub(super) done: bool,
    /// Blobs that are not durable at the host yet, the manifest included.
    missing: BTreeSet<Hash>,
    /// What its first byte is one of: the first layer, or the manifest where there are none. It counts as there
    /// when the first 16 KiB can be read.
    first: Hash,
    /// Whether something of it is being asked for.
    asking: bool,
    /// Requests that are not answered yet.
    outstanding: usize,
    /// Layers that were asked for since the last refusal.
    asked: BTreeSet<Hash>,
    /// How often it was refused.
    pub(super) refusals: u32,
}

impl World {
    /// A client asks a host for an artifact.
    pub(super) fn pull(&mut self, artifact: usize, host: usize) {
        let content = &self.content.artifacts()[self.course.artifacts[artifact]];
        let disk = &self.hosts[host].disk;
        let layers: Vec<Hash> = content.index.closure().map(|(_, hash)| hash).collect();
        let manifest = content.index.hash;
        let blobs = layers.iter().copied().chain([manifest]);
        let missing: BTreeSet<Hash> = blobs.filter(|hash| !disk.holds(hash)).collect();
        let number = self.course.pulls.len();
        let pull = Pull {
            artifact,
            host,
            id: None,
            done: false,
            missing,
            first: layers.first().copied().unwrap_or(manifest),
            asking: false,
            outstanding: 0,
            asked: BTreeSet::new(),
            refusals: 0,
        };
        self.course.pulls.push(pull);
        let (now, place) = (self.setup_time(), self.ground.places[host]);
        if let Some(account) = &mut self.course.account {
            self.course.pulls[number].id = Some(account.asked(now, artifact, place));
        }
        self.course.open.entry(host).or_default().insert(number);
        self.look_after(number);
        self.ask_for_manifest(number);
    }

    fn ask_for_manifest(&mut self, number: usize) {
        let pull = &mut self.course.pulls[number];
        if pull.done || pull.asking || !self.hosts[pull.host].is_up() {
            return;
        }
        pull.asking = true;
        let host = pull.host;
        let content = &self.content.artifacts()[self.course.artifacts[pull.artifact]];
        let (repository, manifest) = (content.repository.clone(), content.index.manifest);
        let through = self.upstream.has(self.course.pulls[number].artifact);
        let request = self.request_of(number);
        if through {
            let source = Source { repository, digest: manifest };
            let away = self.upstream.is_away(self.now, host);
            let input = Input::Pull { request, source, size: None, manifest: None, is_manifest: true, away };
            self.tell(host, input);
        } else {
            self.tell(host, Input::WantArtifact { request, repository, manifest, closure: true });
        }
    }

    fn ask_for_layers(&mut self, number: usize) {
        let pull = &self.course.pulls[number];
        let host = pull.host;
        let content = &self.content.artifacts()[self.course.artifacts[pull.artifact]];
        let (repository, manifest) = (content.repository.clone(), content.index.manifest);
        let wanted = |hash: &Hash| pull.missing.contains(hash) && !pull.asked.contains(hash);
        let layers = content.index.closure().filter(|(_, hash)| wanted(hash));
        let layers: Vec<BlobRef> = layers
            .map(|(edge, hash)| BlobRef { digest: edge.digest, hash, size: edge.size })
            .take(LAYERS_AT_A_TIME.saturating_sub(pull.outstanding))
            .collect();
        for blob in layers {
            self.course.pulls[number].asked.insert(blob.hash);
            let request = self.request_of(number);
            if self.upstream.has(self.course.pulls[number].artifact) {
                let source = Source { repository: repository.clone(), digest: blob.digest };
                let (size, manifest) = (Some(blob.size), Some(manifest));
                let away = self.upstream.is_away(self.now, host);
                let is_manifest = false;
                self.tell(host, Input::Pull { request, source, size, manifest, is_manifest, away });
            } else {
                self.tell(host, Input::WantBlob { request, blob, manifest });
            }
        }
    }

    fn request_of(&mut self, number: usize) -> RequestId {
        self.course.last_request += 1;
        let request = RequestId(CLIENT_REQUESTS + self.course.last_request);
        self.course.requests.insert(request, number);
        self.course.pulls[number].outstanding += 1;
        request
    }

    /// A host's replica says something. True where it was to a client that pulls, or to an operator of a setup.
    pub(super) fn told_client(&mut self, host: usize, event: &Event) -> bool {
        match event {
            Event::WantDone { request, result } if request.0 >= CLIENT_REQUESTS => {
                if let Some(number) = self.course.requests.remove(request) {
                    let pull = &mut self.course.pulls[number];
                    pull.outstanding = pull.outstanding.saturating_sub(1);
                    self.pull_answered(number, result);
                }
                true
            }
            Event::Written { request } | Event::Refused { request, .. } => request.0 >= CLIENT_REQUESTS,
            Event::Arrived { hash, have } => {
                self.arrived(host, hash, have);
                false
            }
            _ => false,
        }
    }

    fn pull_answered(&mut self, number: usize, result: &Result<(), WantFailure>) {
        let pull = &self.course.pulls[number];
        if pull.done {
            return;
        }
        let content = &self.content.artifacts()[self.course.artifacts[pull.artifact]];
        let has_manifest = self.hosts[pull.host].disk.holds(&content.index.hash);
        if result.is_err() {
            self.refused(number);
        } else if has_manifest {
            self.ask_for_layers(number);
        }
    }

    /// Something of it cannot be had now: the client asks again a little later.
    fn refused(&mut self, number: usize) {
        let pull = &mut self.course.pulls[number];
        if !pull.asking {
            return;
        }
        pull.asking = false;
        let wait = (SECOND << pull.refusals.min(5)).min(RETRY_MAX);
        pull.refusals += 1;
        self.at(self.now + wait, Occurrence::Retry(number));
    }

    pub(super) fn retry(&mut self, number: usize) {
        self.course.pulls[number].asked.clear();
        self.ask_for_manifest(number);
    }

    /// A host stopped: whoever asked it hears nothing.
    pub(super) fn pulls_cut_off(&mut self, host: usize) {
        for number in self.course.open.get(&host).cloned().unwrap_or_default() {
            self.course.requests.retain(|_, other| *other != number);
            let pull = &mut self.course.pulls[number];
            (pull.asking, pull.outstanding) = (false, 0);
            pull.asked.clear();
        }
    }

    /// A host is there again: whoever waited asks again.
    pub(super) fn pulls_resumed(&mut self, host: usize) {
        for number in self.course.open.get(&host).cloned().unwrap_or_default() {
            self.at(self.now + SECOND, Occurrence::Retry(number));
        }
    }

    /// More of a blob can be read at a host.
    fn arrived(&mut self, host: usize, hash: &Hash, have: &Ranges) {
        let Some(open) = self.course.open.get(&host) else { return };
        for number in open {
            let pull = &self.course.pulls[*number];
            let size = self.content.truth(hash).map_or(0, |blob| blob.size);
            let start = 0..size.min(FIRST_BYTES);
            if pull.first == *hash
                && have.contains(&start)
                && let (Some(account), Some(id)) = (&mut self.course.account, pull.id)
            {
                account.first_byte(self.now - self.course.origin, id);
            }
        }
    }

    /// A blob is durable at a host.
    pub(super) fn sealed(&mut self, host: usize, hash: &Hash) {
        let Some(open) = self.course.open.get(&host) else { return };
        let open: Vec<usize> = open.iter().copied().collect();
        for number in open {
            if self.course.pulls[number].missing.remove(hash) {
                self.look_after(number);
            }
        }
    }

    /// Whether a pull has come to its first byte, or to its end.
    fn look_after(&mut self, number: usize) {
        let now = self.setup_time();
        let pull = &mut self.course.pulls[number];
        let (Some(account), Some(id)) = (&mut self.course.account, pull.id) else { return };
        if !pull.missing.contains(&pull.first) {
            account.first_byte(now, id);
        }
        if pull.missing.is_empty() && !pull.done {
            pull.done = true;
            account.done(now, id);
            if let Some(open) = self.course.open.get_mut(&pull.host) {
                open.remove(&number);
            }
        }
    }

    /// What it is, since the setup's time began.
    pub(super) fn setup_time(&self) -> Nanos {
        self.now.saturating_sub(self.course.origin)
    }
}

/// Requests of a setup's clients and operators.
pub(super) const CLIENT_REQUESTS: u64 = 1 << 41;
/// What a client must be able to read for its first byte.
const FIRST_BYTES: u64 = 16 * 1024;
/// What Docker and containerd take where nothing else is configured.
const LAYERS_AT_A_TIME: usize = 3;
/// The longest that a client waits before it asks again.
const RETRY_MAX: Nanos = 30 * SECOND;
