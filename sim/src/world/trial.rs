//! A run of random faults: a part in which things go wrong, and then a part in which everything must come right.
//! What goes wrong is drawn in [`crate::faults`] and done in `trouble`; what clients do is drawn in [`crate::steps`].

use std::fmt;

use waystation_proto::{
    Hash, Input, RepoName, RequestId, Shared, Tag,
    glob::Glob,
    grant::{Actions, Grant},
    wire::Message,
};

use super::{GRANT_REQUESTS, World};
use crate::{
    check::{Violation, convergence, holdings, integrity, liveness, memory},
    host::Host,
    network::Traffic,
    setup::MILLISECOND,
    steps::Step,
    words,
    workload::{Operation, Tally, grant_pattern},
};

/// How a run went.
#[derive(Clone, Debug)]
pub struct Report {
    /// Hash over everything that happened.
    pub trace: String,
    /// How many things happened.
    pub occurrences: u64,
    /// How long it was until everything had come right, from the end of the faults on, in milliseconds.
    pub healed_after: Option<u64>,
    /// Records that every node knows in the end.
    pub records: usize,
    /// Changes that replicas told their drivers to look up by.
    pub changes: u64,
    /// How requests ended.
    pub tally: Tally,
    /// Messages.
    pub traffic: Traffic,
    /// Bytes of blobs that moved.
    pub blob_bytes: u64,
    /// Promises that were broken.
    pub violations: Vec<Violation>,
}

impl World {
    /// Lets everything happen: the part with faults, then the part in which all must come right.
    pub fn run(mut self) -> Report {
        self.run_until(self.options.faults_ms);
        let from = self.now();
        self.heal();
        let healed_after = self.settle(self.options.patience_ms()).map(|at| at - from);
        self.report(healed_after)
    }

    /// Waits until everything has come right; when that was, or nothing if it takes longer than `patience`,
    /// in which case the broken promises are noted.
    pub fn settle(&mut self, patience: u64) -> Option<u64> {
        let deadline = self.now() + patience;
        while self.now() < deadline {
            self.run_until(self.now() + SETTLE_STEP_MS);
            let retries = self.workload.retries(&self.content);
            self.operate(retries);
            if self.converged().is_ok() && self.done().is_ok() && self.told().is_ok() {
                self.check_end();
                return Some(self.now());
            }
        }
        let (converged, done, told) = (self.converged(), self.done(), self.told());
        self.note("convergence", 0, converged);
        self.note("liveness", 0, done);
        self.note("holdings", 0, told);
        self.check_end();
        None
    }

    /// What became of the run so far.
    pub fn report(&self, healed_after: Option<u64>) -> Report {
        Report {
            trace: self.trace.hash(),
            occurrences: self.trace.lines(),
            healed_after,
            records: self.hosts[0].replica().map_or(0, |replica| replica.catalog().len()),
            changes: self.changes,
            tally: self.workload.tally,
            traffic: self.network.traffic(),
            blob_bytes: self.data.bytes,
            violations: self.checks.violations().to_vec(),
        }
    }

    /// Ends the faults: links carry, disks work, everybody runs, and clients ask for what must work now.
    pub fn heal(&mut self) {
        self.healed = true;
        self.network.heal();
        self.trace.note(self.now, 0, format_args!("heals"));
        self.trace.say(self.now, 0, || "all faults end here, and what is down starts".into());
        for host in 0..self.hosts.len() {
            self.ease(host);
            if !self.hosts[host].is_up() && !self.hosts[host].left {
                self.start(host);
            }
        }
        // What came to one node that crashed before it was durable is gone, and nobody was told otherwise.
        let hosts = &self.hosts;
        self.planted.retain(|record| {
            let mut replicas = hosts.iter().filter_map(Host::replica);
            replicas.any(|replica| replica.catalog().get(&record.key) == Some(record))
        });
        if self.options.work_every_ms > 0 {
            // Sessions have to come back first, and grants to arrive.
            self.settle_sessions();
            self.plant(0);
            self.settle_catalogs();
            let up = self.up();
            let writes = self.workload.last_writes(&mut self.content, self.next_number, &up);
            self.operate(writes);
            self.run_until(self.now() + 5_000);
            self.settle_catalogs();
            let catalog = self.hosts[0].replica().map(|replica| replica.catalog());
            let known = |number: usize| {
                let artifact = &self.content.artifacts()[number];
                let held = |(hash, _): (Hash, u64)| {
                    let mut honest = self.hosts.iter().filter(|host| host.is_up() && !host.lies);
                    honest.any(|host| host.disk.holds(&hash))
                };
                let place = |catalog: &waystation_proto::catalog::Catalog| {
                    catalog.artifact(&artifact.repository, &artifact.index.manifest)
                };
                catalog.and_then(place).is_some() && artifact.blobs().into_iter().all(held)
            };
            let up = self.up();
            let pulls = self.workload.last_pulls(&self.content, &up, known);
            self.operate(pulls);
        }
    }

    /// A host learns a record from a neighbour that nobody else hears.
    pub fn teach(&mut self, host: usize, record: Shared) {
        let from = self.hosts[host].id;
        self.tell(host, Input::Received { from, message: Message::Records(vec![record]) });
    }

    /// A machine stops, and starts again after ten seconds.
    pub fn stop(&mut self, host: usize) {
        self.stop_for(host, 10_000);
    }

    /// A machine stops without a word, and starts again after so many milliseconds.
    pub fn stop_for(&mut self, host: usize, ms: u64) {
        self.crash(host, Some(ms * MILLISECOND), true);
    }

    /// An operator asks something of a host, by the request given; it has to be done.
    pub fn operator(&mut self, host: usize, ask: impl FnOnce(RequestId) -> Input) {
        self.asked += 1;
        let request = RequestId(GRANT_REQUESTS + self.options.nodes as u64 + self.asked);
        self.tell(host, ask(request));
    }

    /// An operator pushes a new artifact at a host, with these tags; its number in [`crate::content::Content::artifacts`].
    pub fn push(&mut self, host: usize, repository: &RepoName, tags: &[Tag]) -> usize {
        let layer = self.content.blob(&format!("layer of push {}", self.asked), 1_000);
        let number = self.content.artifact(repository, &[layer]);
        let artifact = self.content.artifacts()[number].clone();
        for (hash, size) in artifact.blobs() {
            self.hosts[host].disk.seal(hash, size);
            self.tell(host, Input::Sealed { hash });
        }
        self.operator(host, |request| Input::Publish {
            request,
            repository: repository.clone(),
            tags: tags.to_vec(),
            index: artifact.index,
            index_hash: artifact.index_hash,
            index_size: artifact.index_size,
        });
        number
    }

    /// Whether all catalogs are equal, and have all that was planted.
    pub fn converged(&self) -> Result<(), String> {
        convergence::equal(&self.hosts, &self.planted)
    }

    fn up(&self) -> Vec<usize> {
        self.hosts.iter().filter(|host| host.is_up()).map(|host| host.number).collect()
    }

    fn settle_sessions(&mut self) {
        let deadline = self.now() + REDIAL_MS;
        while self.now() < deadline && liveness::connected(&self.hosts).is_err() {
            self.run_until(self.now() + SETTLE_STEP_MS);
        }
        let connected = liveness::connected(&self.hosts);
        self.note("liveness", 0, connected);
    }

    fn settle_catalogs(&mut self) {
        let deadline = self.now() + self.options.patience_ms();
        while self.now() < deadline && self.converged().is_err() {
            self.run_until(self.now() + SETTLE_STEP_MS);
        }
    }

    fn done(&self) -> Result<(), String> {
        liveness::done(&self.hosts, &self.content, &self.workload)
    }

    fn told(&self) -> Result<(), String> {
        self.hosts.iter().try_for_each(|host| {
            let told = holdings::told(host, &self.content, &self.completed);
            told.map_err(|text| format!("host {} {text}", host.number))
        })?;
        holdings::found(&self.hosts, &self.content)
    }

    fn check_end(&mut self) {
        let known = memory::Known {
            nodes: self.hosts.len(),
            artifacts: self.content.artifacts().len(),
            tags: TAGS_MAX,
            planted: self.rogue.unknown_sent() as usize,
        };
        for host in 0..self.hosts.len() {
            let within = memory::within(&self.hosts[host], known);
            self.note("memory", host, within);
        }
        let written = self.workload.written();
        let kept = self.checks.retention.nothing_lost(&self.hosts, &self.content, written);
        self.note("retention", 0, kept);
        for host in &self.hosts {
            let clean = integrity::clean(host, self.rogue.garbage_ids());
            self.checks.note("integrity", self.now / MILLISECOND, host.number, clean);
        }
    }

    pub(super) fn work(&mut self, number: u64, step: &Step) {
        self.trace.say(self.now, step.host().unwrap_or(0), || words::step(number, step));
        if step.host().is_some_and(|host| !self.hosts[host].is_up()) {
            return;
        }
        let operation = self.workload.step(&mut self.content, number, step);
        self.operate(operation.into_iter().collect());
    }

    fn operate(&mut self, operations: Vec<Operation>) {
        for Operation { host, pushed, input } in operations {
            match &input {
                Input::Publish { index, request, .. } => {
                    self.evictors[host].touch(index.manifest);
                    let blobs = pushed.iter().map(|(hash, _)| *hash).collect();
                    self.evictors[host].claim(*request, blobs);
                }
                Input::WantArtifact { manifest, .. } | Input::WantBlob { manifest, .. } => {
                    self.evictors[host].touch(*manifest);
                }
                Input::Pin { manifest, pinned: false, .. } => {
                    self.checks.retention.pinned(host, *manifest, false);
                }
                _ => {}
            }
            for (hash, size) in pushed {
                self.hosts[host].disk.seal(hash, size);
                self.tell(host, Input::Sealed { hash });
            }
            self.tell(host, input);
        }
    }

    /// The root's grant for a host, given to the first host by its operator.
    pub(super) fn grant(&mut self, host: usize) {
        let glob: Glob = grant_pattern(host).parse().expect("a pattern");
        let subject = self.hosts[host].id;
        let grant = Grant::issue(&self.trust.mesh, &self.root, subject, glob, Actions::ALL, None, 1);
        let request = RequestId(GRANT_REQUESTS + host as u64);
        self.tell(0, Input::AddGrant { request, grant });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { written, refused, pulled, not_pulled } = self.tally;
        let Traffic { messages, direct_bytes, gossip_bytes, .. } = self.traffic;
        writeln!(f, "writes: {written} acknowledged, {refused} refused")?;
        writeln!(f, "pulls: {pulled} served, {not_pulled} not")?;
        writeln!(f, "messages: {messages}, {direct_bytes} bytes direct, {gossip_bytes} bytes gossip")?;
        writeln!(f, "blobs: {} bytes moved", self.blob_bytes)?;
        writeln!(f, "records: {}", self.records)?;
        match self.healed_after {
            Some(ms) => writeln!(f, "healed after: {ms} ms")?,
            None => writeln!(f, "healed after: never")?,
        }
        for violation in &self.violations {
            writeln!(f, "{violation}")?;
        }
        write!(f, "trace: {} over {} occurrences", self.trace, self.occurrences)
    }
}

/// The longest wait before a lost member is dialled again, and a dial.
const REDIAL_MS: u64 = 75_000;
const SETTLE_STEP_MS: u64 = 1_000;
/// Tags in all repositories that clients, and tests, write.
const TAGS_MAX: usize = 64;
