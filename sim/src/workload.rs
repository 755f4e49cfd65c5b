//! What clients do: push, move and delete tags, take artifacts back, say what state they are in, pull.
//! Several granted nodes write the same few tags, also at the same moment. Keeps every request and checks
//! that it is answered once, and that the answer is true.

use std::collections::BTreeMap;

use waystation_proto::{
    Event, Hash, Input, RepoName, RequestId, Tag,
    body::State,
    event::{BlobRef, WantFailure},
};

use crate::{Options, content::Content, random::stream};

/// Clients, and what they asked.
pub struct Workload {
    rng: fastrand::Rng,
    granted: usize,
    requests: BTreeMap<RequestId, Request>,
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
}

impl Workload {
    /// The clients of a run.
    pub fn new(options: &Options) -> Self {
        Workload {
            rng: stream(options.seed, 0, "workload"),
            granted: options.granted,
            requests: BTreeMap::new(),
            last: 0,
            written: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// What clients do next at the hosts that are up.
    pub fn step(&mut self, content: &mut Content, up: &[usize]) -> Vec<Operation> {
        let granted: Vec<usize> = up.iter().copied().filter(|host| *host < self.granted).collect();
        let (Some(anywhere), writer) = (self.rng.choice(up).copied(), self.rng.choice(&granted).copied())
        else {
            return Vec::new();
        };
        let writer = if self.rng.u8(0..20) == 0 { anywhere } else { writer.unwrap_or(anywhere) };
        match self.rng.u8(0..100) {
            0..25 => vec![self.publish(content, writer)],
            25..40 => {
                let tag = self.tag();
                granted.iter().map(|host| self.publish_as(content, *host, vec![tag.clone()])).collect()
            }
            40..48 => vec![self.untag(writer)],
            48..52 => self.unpublish(content, writer).into_iter().collect(),
            52..60 => self.set_status(content, writer).into_iter().collect(),
            60..82 => self.pull(content, anywhere).into_iter().collect(),
            82..94 => self.pull_blob(content, anywhere).into_iter().collect(),
            _ => self.abandon(up).into_iter().collect(),
        }
    }

    /// What has to work when nothing goes wrong any more: each granted node publishes.
    pub fn last_writes(&mut self, content: &mut Content) -> Vec<Operation> {
        let operations: Vec<Operation> = (0..self.granted).map(|host| self.publish(content, host)).collect();
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
        let operations = pairs.map(|(artifact, host)| self.pull_of(content, host, artifact, true)).collect();
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
        }
        Ok(())
    }

    /// A host stopped: whoever asked it gets no answer.
    pub fn crash(&mut self, host: usize) {
        self.requests.retain(|_, request| request.host != host || request.answers > 0);
    }

    /// Requests that wait for an answer, as text.
    pub fn unanswered(&self) -> impl Iterator<Item = String> + '_ {
        let waiting = self.requests.values().filter(|request| request.answers == 0 && !request.abandoned);
        waiting.map(|request| format!("{request:?}"))
    }

    fn publish(&mut self, content: &mut Content, host: usize) -> Operation {
        let tags = (0..self.rng.usize(0..3)).map(|_| self.tag()).collect();
        self.publish_as(content, host, tags)
    }

    fn publish_as(&mut self, content: &mut Content, host: usize, tags: Vec<Tag>) -> Operation {
        let old = self.rng.choice(&self.written).copied().filter(|_| self.rng.u8(0..3) == 0);
        let number = old.unwrap_or_else(|| self.make(content));
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
    fn make(&mut self, content: &mut Content) -> usize {
        let layers: Vec<BlobRef> = (0..self.rng.usize(1..4))
            .map(|_| {
                let number = self.rng.u64(0..LAYERS);
                let size = if number.is_multiple_of(8) { 50_000_000 } else { 1 + number * 3_000 };
                content.blob(&format!("layer {number}"), size)
            })
            .collect();
        let repository = self.repository();
        content.artifact(&repository, &layers)
    }

    fn untag(&mut self, host: usize) -> Operation {
        let (repository, tag) = (self.repository(), self.tag());
        let request = self.ask_to_write(host, &repository);
        Operation { host, pushed: Vec::new(), input: Input::Untag { request, repository, tag } }
    }

    fn unpublish(&mut self, content: &Content, host: usize) -> Option<Operation> {
        let artifact = &content.artifacts()[*self.rng.choice(&self.written)?];
        let (repository, manifest) = (artifact.repository.clone(), artifact.index.manifest);
        let request = self.ask_to_write(host, &repository);
        let input = Input::Unpublish { request, repository, manifest };
        Some(Operation { host, pushed: Vec::new(), input })
    }

    fn set_status(&mut self, content: &Content, host: usize) -> Option<Operation> {
        let artifact = &content.artifacts()[*self.rng.choice(&self.written)?];
        let (repository, manifest) = (artifact.repository.clone(), artifact.index.manifest);
        let state = *self.rng.choice([State::Validating, State::Approved, State::Revoked].iter())?;
        let request = self.ask_to_write(host, &repository);
        let reason = "because".into();
        let input = Input::SetStatus { request, repository, manifest, state, reason };
        Some(Operation { host, pushed: Vec::new(), input })
    }

    fn pull(&mut self, content: &Content, host: usize) -> Option<Operation> {
        let artifact = *self.rng.choice(&self.written)?;
        let closure = self.rng.bool();
        Some(self.pull_of(content, host, artifact, closure))
    }

    fn pull_of(&mut self, content: &Content, host: usize, artifact: usize, closure: bool) -> Operation {
        let artifact = &content.artifacts()[artifact];
        let request = self.ask(host, Asked::Blobs(vec![artifact.index.hash, artifact.index_hash]));
        let (repository, manifest) = (artifact.repository.clone(), artifact.index.manifest);
        let input = Input::WantArtifact { request, repository, manifest, closure };
        Operation { host, pushed: Vec::new(), input }
    }

    fn pull_blob(&mut self, content: &Content, host: usize) -> Option<Operation> {
        let artifact = &content.artifacts()[*self.rng.choice(&self.written)?];
        let layers: Vec<BlobRef> = artifact
            .index
            .closure()
            .map(|(edge, hash)| BlobRef { digest: edge.digest, hash, size: edge.size })
            .collect();
        let blob = *self.rng.choice(&layers)?;
        let request = self.ask(host, Asked::Blobs(vec![blob.hash]));
        let input = Input::WantBlob { request, blob, manifest: artifact.index.manifest };
        Some(Operation { host, pushed: Vec::new(), input })
    }

    fn abandon(&mut self, up: &[usize]) -> Option<Operation> {
        let waiting = self.requests.iter_mut().filter(|(_, request)| {
            request.answers == 0 && !request.abandoned && matches!(request.asked, Asked::Blobs(_))
        });
        let mut waiting: Vec<_> = waiting.filter(|(_, request)| up.contains(&request.host)).collect();
        let chosen = self.rng.usize(0..waiting.len().max(1));
        let (id, request) = waiting.get_mut(chosen)?;
        request.abandoned = true;
        let input = Input::Abandon { request: **id };
        Some(Operation { host: request.host, pushed: Vec::new(), input })
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

    fn repository(&mut self) -> RepoName {
        let name = ["team/app", "team/tools", "base/os"][self.rng.usize(0..3)];
        name.parse().expect("a repository's name")
    }

    fn tag(&mut self) -> Tag {
        let name = ["latest", "stable", "v1", "v2"][self.rng.usize(0..4)];
        name.parse().expect("a tag")
    }
}

/// The repositories that the root grants a host.
pub fn grant_pattern(host: usize) -> &'static str {
    if host < 2 { "**" } else { "team/**" }
}

/// Different layers that artifacts are made of: few, so that they share some.
const LAYERS: u64 = 40;
