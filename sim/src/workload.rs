//! What clients ask for each step of theirs (`steps` says which there are). Keeps every request and checks that it
//! is answered once, and that the answer is true.

use std::collections::BTreeMap;

use waystation_proto::{
    Digest, Event, Hash, Input, RepoName, RequestId, Tag,
    body::State,
    event::{BlobRef, WantFailure},
};

use crate::{
    Options,
    content::Content,
    random::stream,
    steps::{self, Step},
};

/// Clients, and what they asked.
pub struct Workload {
    seed: u64,
    granted: usize,
    /// Artifacts, by the step that made them.
    made: BTreeMap<u64, usize>,
    /// What steps asked.
    requested: BTreeMap<u64, RequestId>,
    requests: BTreeMap<RequestId, Request>,
    /// Pulls that have to work: where, of what, and how often they may be tried again.
    tries: BTreeMap<RequestId, (usize, usize, u32)>,
    /// Those of them that are to be tried again.
    again: Vec<(usize, usize, u32)>,
    last: u64,
    /// Artifacts whose publication was acknowledged.
    written: Vec<usize>,
    /// Numbers for the summary.
    pub tally: Tally,
}

/// How requests ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that were acknowledged.
    pub written: u64,
    /// Writes that were refused.
    pub refused: u64,
    /// Pulls that were served.
    pub pulled: u64,
    /// Pulls that were not.
    pub not_pulled: u64,
}

/// Something that a client does at a host.
pub struct Operation {
    /// Where.
    pub host: usize,
    /// Blobs that it pushes first, with their sizes.
    pub pushed: Vec<(Hash, u64)>,
    /// What it asks.
    pub input: Input,
}

#[derive(Clone, Debug)]
struct Request {
    host: usize,
    asked: Asked,
    answers: u32,
    abandoned: bool,
    /// Whether it has to succeed: nothing goes wrong any more.
    must: bool,
}

#[derive(Clone, Debug)]
enum Asked {
    /// To write in a repository, where the host may or may not; the artifact, if it is a publication.
    Write { allowed: bool, artifact: Option<usize> },
    /// To have these blobs.
    Blobs(Vec<Hash>),
    /// To pin an artifact, or not to keep it pinned.
    Pin { manifest: Digest, pinned: bool },
}

impl Workload {
    /// The clients of a run.
    pub fn new(options: &Options) -> Self {
        Workload {
            seed: options.seed,
            granted: options.granted,
            made: BTreeMap::new(),
            requested: BTreeMap::new(),
            requests: BTreeMap::new(),
            tries: BTreeMap::new(),
            again: Vec::new(),
            last: 0,
            written: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Carries out a step at hosts that are up; nothing where it is about what is not there.
    pub fn step(&mut self, content: &mut Content, number: u64, step: &Step) -> Option<Operation> {
        let before = self.last;
        let operation = match step {
            Step::Publish { host, repository, tags, layers } => {
                let artifact = self.make(content, number, repository, layers)?;
                Some(self.publish_as(content, *host, named(tags), artifact))
            }
            Step::Again { host, of, tags } => {
                let artifact = *self.made.get(of)?;
                Some(self.publish_as(content, *host, named(tags), artifact))
            }
            Step::Untag { host, repository, tag } => {
                let (repository, tag) = (repository.parse().ok()?, tag.parse().ok()?);
                Some(self.untag(*host, repository, tag))
            }
            Step::Unpublish { host, of } => self.unpublish(content, *host, *of),
            Step::Status { host, of, state } => self.set_status(content, *host, *of, (*state).into()),
            Step::Pull { host, of, closure } => {
                let artifact = *self.made.get(of)?;
                Some(self.pull_of(content, *host, artifact, *closure))
            }
            Step::PullBlob { host, of, layer } => self.pull_blob(content, *host, *of, *layer),
            Step::Abandon { of } => self.abandon(*of),
            Step::Pin { host, of, pinned } => self.pin(content, *host, *of, *pinned),
        };
        if self.last > before {
            self.requested.insert(number, RequestId(self.last));
        }
        operation
    }

    /// What has to work when nothing goes wrong any more: each granted node publishes.
    pub fn last_writes(&mut self, content: &mut Content, first: u64, up: &[usize]) -> Vec<Operation> {
        let steps = up.iter().filter(|host| **host < self.granted).zip(first..);
        let step = |(host, number): (&usize, u64)| {
            let mut rng = stream(self.seed, number as usize, "step");
            let layers = (0..rng.usize(1..4)).map(|_| rng.u64(0..steps::LAYERS)).collect();
            let tags = vec![steps::tag(&mut rng)];
            (number, Step::Publish { host: *host, repository: steps::repository(&mut rng), tags, layers })
        };
        let steps: Vec<(u64, Step)> = steps.map(step).collect();
        let mut operations = Vec::new();
        for (number, step) in steps {
            operations.extend(self.step(content, number, &step));
        }
        self.oblige(operations)
    }

    /// And everybody gets the newest artifacts that the catalog has.
    pub fn last_pulls(
        &mut self,
        content: &Content,
        up: &[usize],
        known: impl Fn(usize) -> bool,
    ) -> Vec<Operation> {
        let newest: Vec<usize> = self.written.iter().rev().copied().filter(|n| known(*n)).take(3).collect();
        let pairs = newest.into_iter().flat_map(|artifact| up.iter().map(move |host| (artifact, *host)));
        let pairs: Vec<(usize, usize)> = pairs.collect();
        self.pull_all(content, &pairs, TRIES)
    }

    /// Clients ask again for what nobody could be reached for: a node that has no session with a holder does not
    /// keep a client waiting for longer than it takes to say so, and opens one meanwhile.
    pub fn retries(&mut self, content: &Content) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (host, artifact, tries) in std::mem::take(&mut self.again) {
            operations.extend(self.pull_all(content, &[(artifact, host)], tries));
        }
        operations
    }

    fn pull_all(&mut self, content: &Content, pairs: &[(usize, usize)], tries: u32) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (artifact, host) in pairs {
            operations.push(self.pull_of(content, *host, *artifact, true));
            self.tries.insert(RequestId(self.last), (*host, *artifact, tries));
        }
        self.oblige(operations)
    }

    /// An answer came. An error says what is wrong with it.
    pub fn answered(&mut self, event: &Event, holds: impl Fn(&Hash) -> bool) -> Result<(), String> {
        let (id, good, text) = match event {
            Event::Written { request } => (request, true, String::new()),
            Event::Refused { request, refusal } => (request, false, refusal.to_string()),
            Event::WantDone { request, result: Ok(()) } => (request, true, String::new()),
            Event::WantDone { request, result: Err(failure) } => (request, false, failure.to_string()),
            _ => return Ok(()),
        };
        let Some(request) = self.requests.get_mut(id) else {
            return Err(format!("{id:?} was answered but never asked"));
        };
        request.answers += 1;
        if request.answers > 1 {
            return Err(format!("{request:?} was answered again: {event:?}"));
        }
        let unreached = matches!(event, Event::WantDone { result: Err(WantFailure::NoHolder), .. });
        if let Some((host, artifact, tries)) = self.tries.remove(id)
            && unreached
            && tries > 0
        {
            self.again.push((host, artifact, tries - 1));
            return Ok(());
        }
        if request.must
            && !good
            && !matches!(event, Event::WantDone { result: Err(WantFailure::Unknown), .. })
        {
            return Err(format!("{request:?} failed though nothing is wrong: {text}"));
        }
        match (&request.asked, good) {
            (Asked::Write { allowed: false, .. }, true) => {
                return Err(format!("host {} wrote without a grant", request.host));
            }
            (Asked::Write { artifact, .. }, true) => {
                self.tally.written += 1;
                self.written.extend(*artifact);
            }
            (Asked::Write { .. }, false) => self.tally.refused += 1,
            (Asked::Blobs(blobs), true) => {
                self.tally.pulled += 1;
                if let Some(hash) = blobs.iter().find(|hash| !holds(hash)) {
                    return Err(format!("{hash:?} was answered for, but is not durable"));
                }
            }
            (Asked::Blobs(_), false) => self.tally.not_pulled += 1,
            (Asked::Pin { .. }, _) => {}
        }
        Ok(())
    }

    /// What was pinned, or is not any more, by an answer that says so.
    pub fn pinned(&self, event: &Event) -> Option<(usize, Digest, bool)> {
        let Event::Written { request } = event else { return None };
        match self.requests.get(request)? {
            Request { host, asked: Asked::Pin { manifest, pinned }, .. } => Some((*host, *manifest, *pinned)),
            _ => None,
        }
    }

    /// Artifacts whose publication was acknowledged.
    pub fn written(&self) -> &[usize] {
        &self.written
    }

    /// A host stopped: whoever asked it gets no answer.
    pub fn crash(&mut self, host: usize) {
        self.requests.retain(|_, request| request.host != host || request.answers > 0);
    }

    /// Requests that wait for an answer, as text.
    pub fn unanswered(&self) -> impl Iterator<Item = String> + '_ {
        let waiting = self.requests.values().filter(|request| request.answers == 0 && !request.abandoned);
        let again =
            self.again.iter().map(|(host, artifact, _)| format!("host {host} asks again for {artifact}"));
        waiting.map(|request| format!("{request:?}")).chain(again)
    }

    fn publish_as(&mut self, content: &Content, host: usize, tags: Vec<Tag>, number: usize) -> Operation {
        let artifact = &content.artifacts()[number];
        let (pushed, repository) = (artifact.blobs(), artifact.repository.clone());
        let asked = Asked::Write { allowed: self.may_write(host, &repository), artifact: Some(number) };
        let artifact = artifact.clone();
        let request = self.ask(host, asked);
        let input = Input::Publish {
            request,
            repository,
            tags,
            index: artifact.index,
            index_hash: artifact.index_hash,
            index_size: artifact.index_size,
        };
        Operation { host, pushed, input }
    }

    /// A new artifact, of layers some of which others have too.
    fn make(
        &mut self,
        content: &mut Content,
        number: u64,
        repository: &str,
        layers: &[u64],
    ) -> Option<usize> {
        let repository = repository.parse().ok()?;
        let blob = |layer: &u64| (format!("layer {layer}"), steps::layer_size(*layer));
        let layers: Vec<BlobRef> =
            layers.iter().map(blob).map(|(text, size)| content.blob(&text, size)).collect();
        let artifact = content.named(&format!("manifest of step {number}"), &repository, &layers);
        self.made.insert(number, artifact);
        Some(artifact)
    }

    fn untag(&mut self, host: usize, repository: RepoName, tag: Tag) -> Operation {
        let request = self.ask_to_write(host, &repository);
        Operation { host, pushed: Vec::new(), input: Input::Untag { request, repository, tag } }
    }

    fn unpublish(&mut self, content: &Content, host: usize, of: u64) -> Option<Operation> {
        let artifact = &content.artifacts()[*self.made.get(&of)?];
        let (repository, manifest) = (artifact.repository.clone(), artifact.index.manifest);
        let request = self.ask_to_write(host, &repository);
        let input = Input::Unpublish { request, repository, manifest };
        Some(Operation { host, pushed: Vec::new(), input })
    }

    fn set_status(&mut self, content: &Content, host: usize, of: u64, state: State) -> Option<Operation> {
        let artifact = &content.artifacts()[*self.made.get(&of)?];
        let (repository, manifest) = (artifact.repository.clone(), artifact.index.manifest);
        let request = self.ask_to_write(host, &repository);
        let reason = "because".into();
        let input = Input::SetStatus { request, repository, manifest, state, reason };
        Some(Operation { host, pushed: Vec::new(), input })
    }

    fn pin(&mut self, content: &Content, host: usize, of: u64, pinned: bool) -> Option<Operation> {
        let manifest = content.artifacts()[*self.made.get(&of)?].index.manifest;
        let request = self.ask(host, Asked::Pin { manifest, pinned });
        Some(Operation { host, pushed: Vec::new(), input: Input::Pin { request, manifest, pinned } })
    }

    fn pull_of(&mut self, content: &Content, host: usize, artifact: usize, closure: bool) -> Operation {
        let artifact = &content.artifacts()[artifact];
        let request = self.ask(host, Asked::Blobs(vec![artifact.index.hash, artifact.index_hash]));
        let (repository, manifest) = (artifact.repository.clone(), artifact.index.manifest);
        let input = Input::WantArtifact { request, repository, manifest, closure };
        Operation { host, pushed: Vec::new(), input }
    }

    fn pull_blob(&mut self, content: &Content, host: usize, of: u64, layer: u64) -> Option<Operation> {
        let artifact = &content.artifacts()[*self.made.get(&of)?];
        let layers: Vec<BlobRef> = artifact
            .index
            .closure()
            .map(|(edge, hash)| BlobRef { digest: edge.digest, hash, size: edge.size })
            .collect();
        let blob = *layers.get(layer as usize % layers.len().max(1))?;
        let request = self.ask(host, Asked::Blobs(vec![blob.hash]));
        let input = Input::WantBlob { request, blob, manifest: artifact.index.manifest };
        Some(Operation { host, pushed: Vec::new(), input })
    }

    fn abandon(&mut self, of: u64) -> Option<Operation> {
        let id = *self.requested.get(&of)?;
        let request = self.requests.get_mut(&id)?;
        if request.answers > 0 || request.abandoned || !matches!(request.asked, Asked::Blobs(_)) {
            return None;
        }
        request.abandoned = true;
        Some(Operation { host: request.host, pushed: Vec::new(), input: Input::Abandon { request: id } })
    }

    fn oblige(&mut self, operations: Vec<Operation>) -> Vec<Operation> {
        let newest = self.last.saturating_sub(operations.len() as u64);
        for (_, request) in self.requests.range_mut(RequestId(newest + 1)..) {
            request.must = !matches!(request.asked, Asked::Write { allowed: false, .. });
        }
        operations
    }

    fn ask_to_write(&mut self, host: usize, repository: &RepoName) -> RequestId {
        let asked = Asked::Write { allowed: self.may_write(host, repository), artifact: None };
        self.ask(host, asked)
    }

    fn ask(&mut self, host: usize, asked: Asked) -> RequestId {
        self.last += 1;
        let request = Request { host, asked, answers: 0, abandoned: false, must: false };
        self.requests.insert(RequestId(self.last), request);
        RequestId(self.last)
    }

    /// What the grants of a run allow, see [`grant_pattern`].
    fn may_write(&self, host: usize, repository: &RepoName) -> bool {
        host < self.granted && (host < 2 || repository.as_str().starts_with("team/"))
    }
}

/// Tags by these names; there is none that is not one, see [`Step::is_named_well`].
fn named(tags: &[String]) -> Vec<Tag> {
    tags.iter().filter_map(|name| name.parse().ok()).collect()
}

/// The repositories that the root grants a host.
pub fn grant_pattern(host: usize) -> &'static str {
    if host < 2 { "**" } else { "team/**" }
}

/// How often a client asks again for what must be there.
const TRIES: u32 = 5;
