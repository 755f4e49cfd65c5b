//! The world: one clock, one queue of occurrences, and the loop that makes them happen one by one. What
//! outputs of a replica do is in `perform`, sessions and crashes are in `sessions`.

mod perform;
mod room;
mod sessions;
mod trouble;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    rc::Rc,
};

use ed25519_dalek::SigningKey;
use waystation_proto::{
    DialTarget, Digest, FetchId, Hash, Input, MeshId, NodeId, Output, Record, RepoName, RequestId, Tag,
    Timer,
    event::WriteId,
    glob::Glob,
    grant::{Actions, Grant},
    record::Trust,
    wire::Message,
};

use crate::{
    Options,
    case::{Case, What},
    check::{Checks, Violation, convergence, holdings, integrity, liveness, memory},
    content::Content,
    evictor::Evictor,
    faults::Fault,
    host::Host,
    network::{Network, Traffic},
    random::{bytes, stream},
    rogue::Rogue,
    steps::Step,
    trace::{Reader, Trace},
    transfer::Transfers,
    words,
    workload::{Operation, Tally, Workload, grant_pattern},
};

/// Hosts, what connects them, and what is going to happen.
pub struct World {
    /// What the run was made from.
    pub options: Options,
    /// Every node.
    pub hosts: Vec<Host>,
    /// Links and traffic.
    pub network: Network,
    now: u64,
    queue: BTreeMap<(u64, u64), Occurrence>,
    sequence: u64,
    /// What operators asked by hand.
    asked: u64,
    connections: u64,
    numbers: BTreeMap<NodeId, usize>,
    root: SigningKey,
    trust: Trust,
    content: Content,
    transfers: Transfers,
    workload: Workload,
    rogue: Rogue,
    planted: Vec<Record>,
    /// Whether the part with faults is over.
    healed: bool,
    changes: u64,
    own_words: BTreeMap<usize, Vec<Record>>,
    /// Artifacts that hosts told to be complete there.
    completed: BTreeSet<(usize, Digest)>,
    evictors: Vec<Evictor>,
    trouble: trouble::Trouble,
    /// For steps that no case has.
    next_number: u64,
    checks: Checks,
    trace: Trace,
    rng: fastrand::Rng,
}

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

/// Something that is going to happen.
enum Occurrence {
    Timer {
        host: usize,
        life: u64,
        timer: Timer,
    },
    /// What a host's driver answers to an output.
    Told {
        host: usize,
        life: u64,
        input: Box<Input>,
    },
    Arrives {
        from: usize,
        to: usize,
        connection: u64,
        bytes: Rc<[u8]>,
        gossip: bool,
    },
    Dialled {
        host: usize,
        life: u64,
        target: DialTarget,
        to: Option<usize>,
    },
    /// A session that nothing came over for a while.
    Silent {
        a: usize,
        b: usize,
        connection: u64,
    },
    /// A host finds that a session is no more.
    Ended {
        host: usize,
        peer: usize,
        connection: u64,
    },
    Disk {
        host: usize,
        life: u64,
        operation: Operating,
    },
    Transferred {
        host: usize,
        life: u64,
        fetch: FetchId,
    },
    Goes(u64, Fault),
    /// A disk is neither full nor slow any more.
    Eases(usize),
    FindsRot(usize),
    MakesRoom {
        host: usize,
        life: u64,
    },
    Starts(usize),
    Mends(u64),
    /// A host's grant is given to the first host.
    Grants(usize),
    Work(u64, Step),
}

/// What a disk is doing.
enum Operating {
    Persist(WriteId, Vec<Record>),
    Seal(Hash, u64),
    Probe(Hash),
    ReadIndex(Hash),
}

impl World {
    /// The world that the options describe, every host started, the grants given out at the first.
    pub fn new(options: Options) -> Self {
        Self::with(options, false, &[])
    }

    /// The same, told in words if wanted, and with these records on every disk from the start.
    pub fn with(options: Options, print: bool, records: &[Record]) -> Self {
        Self::of(&Case::of(options), print.then(Reader::of_all), records)
    }

    /// The world of a case, read by somebody while it goes on, and with these records on every disk from the start.
    pub fn of(case: &Case, reader: Option<Reader>, records: &[Record]) -> Self {
        let options = case.options.clone();
        let root = root(&options);
        let root_id = NodeId(root.verifying_key().to_bytes());
        let trust = Trust { mesh: MeshId::of_root(&root_id), root: root.verifying_key() };
        let hosts: Vec<Host> = (0..options.nodes).map(|number| Host::new(&options, number, &trust)).collect();
        let mut world = World {
            numbers: hosts.iter().map(|host| (host.id, host.number)).collect(),
            hosts,
            network: Network::new(&options),
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            asked: 0,
            connections: 0,
            content: Content::default(),
            transfers: Transfers::default(),
            workload: Workload::new(&options),
            rogue: Rogue::new(options.seed, trust.mesh, &root),
            planted: Vec::new(),
            healed: false,
            changes: 0,
            own_words: BTreeMap::new(),
            completed: BTreeSet::new(),
            evictors: (0..options.nodes).map(|_| Evictor::default()).collect(),
            trouble: trouble::Trouble::default(),
            next_number: case.next_number(),
            checks: Checks::default(),
            trace: Trace::new(reader),
            rng: stream(options.seed, 0, "world"),
            root,
            trust,
            options,
        };
        world.populate(case, records);
        world
    }

    /// Lets everything happen: the part with faults, then the part in which all must come right.
    pub fn run(mut self) -> Report {
        self.run_until(self.options.faults_ms);
        let from = self.now;
        self.heal();
        let healed_after = self.settle(self.options.patience_ms()).map(|at| at - from);
        self.report(healed_after)
    }

    /// Lets everything happen up to a time.
    pub fn run_until(&mut self, end: u64) {
        while let Some(entry) = self.queue.first_entry()
            && entry.key().0 <= end
        {
            let ((at, _), occurrence) = entry.remove_entry();
            self.now = at;
            self.happen(occurrence);
        }
        self.now = self.now.max(end);
    }

    /// Waits until everything has come right; when that was, or nothing if it takes longer than `patience`,
    /// in which case the broken promises are noted.
    pub fn settle(&mut self, patience: u64) -> Option<u64> {
        let deadline = self.now + patience;
        while self.now < deadline {
            self.run_until(self.now + SETTLE_STEP_MS);
            if self.converged().is_ok() && self.done().is_ok() && self.told().is_ok() {
                self.check_end();
                return Some(self.now);
            }
        }
        let (converged, done, told) = (self.converged(), self.done(), self.told());
        self.checks.note("convergence", self.now, 0, converged);
        self.checks.note("liveness", self.now, 0, done);
        self.checks.note("holdings", self.now, 0, told);
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
            blob_bytes: self.transfers.bytes,
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
            self.hosts[host].disk.full = false;
            self.hosts[host].disk.slow = false;
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
            self.run_until(self.now + 5_000);
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
    pub fn teach(&mut self, host: usize, record: Record) {
        let from = self.hosts[host].id;
        self.tell(host, Input::Received { from, message: Message::Records(vec![record]) });
    }

    /// A machine stops, and starts again after ten seconds.
    pub fn stop(&mut self, host: usize) {
        self.stop_for(host, 10_000);
    }

    /// A machine stops without a word, and starts again after so many milliseconds.
    pub fn stop_for(&mut self, host: usize, ms: u64) {
        self.crash(host, ms, true);
    }

    /// An operator asks something of a host, by the request given; it has to be done.
    pub fn operator(&mut self, host: usize, ask: impl FnOnce(RequestId) -> Input) {
        self.asked += 1;
        let request = RequestId(GRANT_REQUESTS + self.options.nodes as u64 + self.asked);
        self.tell(host, ask(request));
    }

    /// An operator pushes a new artifact at a host, with these tags; its number in [`Content::artifacts`].
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

    /// What exists.
    pub fn content(&self) -> &Content {
        &self.content
    }

    /// Sessions that were ever opened.
    pub fn connections(&self) -> u64 {
        self.connections
    }

    /// What the mesh's members trust.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// What it is, in milliseconds since the world began.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Whether all catalogs are equal, and have all that was planted.
    pub fn converged(&self) -> Result<(), String> {
        convergence::equal(&self.hosts, &self.planted)
    }

    fn populate(&mut self, case: &Case, records: &[Record]) {
        let joins = |item: &crate::case::Item| match item.what {
            What::Fault(Fault::Join { host }) => Some(host),
            _ => None,
        };
        let later: BTreeSet<usize> = case.items.iter().filter_map(joins).collect();
        for host in 0..self.hosts.len() {
            self.hosts[host].disk.keep(records.to_vec());
            let at = self.rng.u64(0..1_000);
            if !later.contains(&host) {
                self.at(at, Occurrence::Starts(host));
            }
        }
        for item in case.items.iter().cloned() {
            let occurrence = match item.what {
                What::Fault(fault) => Occurrence::Goes(item.number, fault),
                What::Step(step) => Occurrence::Work(item.number, step),
            };
            self.at(item.at, occurrence);
        }
    }

    fn up(&self) -> Vec<usize> {
        self.hosts.iter().filter(|host| host.is_up()).map(|host| host.number).collect()
    }

    fn settle_sessions(&mut self) {
        let deadline = self.now + REDIAL_MS;
        while self.now < deadline && liveness::connected(&self.hosts).is_err() {
            self.run_until(self.now + SETTLE_STEP_MS);
        }
        let connected = liveness::connected(&self.hosts);
        self.checks.note("liveness", self.now, 0, connected);
    }

    fn settle_catalogs(&mut self) {
        let deadline = self.now + self.options.patience_ms();
        while self.now < deadline && self.converged().is_err() {
            self.run_until(self.now + SETTLE_STEP_MS);
        }
    }

    fn done(&self) -> Result<(), String> {
        liveness::done(&self.hosts, &self.content, &self.workload)
    }

    fn told(&self) -> Result<(), String> {
        self.hosts.iter().try_for_each(|host| {
            let told = holdings::told(host, &self.content, &self.completed);
            told.map_err(|text| format!("host {} {text}", host.number))
        })
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
            self.checks.note("memory", self.now, host, within);
        }
        let written = self.workload.written();
        let kept = self.checks.retention.nothing_lost(&self.hosts, &self.content, written);
        self.checks.note("retention", self.now, 0, kept);
        for host in &self.hosts {
            let clean = integrity::clean(host, self.rogue.garbage_ids());
            self.checks.note("integrity", self.now, host.number, clean);
        }
    }

    fn happen(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Timer { host, life, timer } if self.lives(host, life) => {
                self.tell(host, Input::TimerFired(timer));
            }
            Occurrence::Told { host, life, input } if self.lives(host, life) => self.tell(host, *input),
            Occurrence::Arrives { from, to, connection, bytes, gossip } => {
                self.arrive(from, to, connection, bytes, gossip);
            }
            Occurrence::Dialled { host, life, target, to } if self.lives(host, life) => {
                self.dialled(host, target, to);
            }
            Occurrence::Silent { a, b, connection } => self.silent(a, b, connection),
            Occurrence::Ended { host, peer, connection } => self.ended(host, peer, connection),
            Occurrence::Disk { host, life, operation } if self.lives(host, life) => {
                self.disk_done(host, operation);
            }
            Occurrence::Transferred { host, life, fetch } if self.lives(host, life) => {
                self.transferred(host, fetch);
            }
            Occurrence::Goes(number, fault) if !self.healed => self.go_wrong(number, fault),
            Occurrence::Eases(host) => {
                self.hosts[host].disk.full = false;
                self.hosts[host].disk.slow = false;
            }
            Occurrence::FindsRot(host) => self.finds_rot(host),
            Occurrence::MakesRoom { host, life } if self.lives(host, life) => self.makes_room(host, life),
            Occurrence::Starts(host) if !self.hosts[host].is_up() && !self.hosts[host].left => {
                self.start(host);
            }
            Occurrence::Mends(cut) => self.network.mend(cut),
            Occurrence::Grants(host) => self.grant(host),
            Occurrence::Work(number, step) if !self.healed => self.work(number, &step),
            // Meant for a life that is over, or for the part with faults.
            _ => {}
        }
    }

    fn work(&mut self, number: u64, step: &Step) {
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
    fn grant(&mut self, host: usize) {
        let glob: Glob = grant_pattern(host).parse().expect("a pattern");
        let subject = self.hosts[host].id;
        let grant = Grant::issue(&self.trust.mesh, &self.root, subject, glob, Actions::ALL, None, 1);
        let request = RequestId(GRANT_REQUESTS + host as u64);
        self.tell(0, Input::AddGrant { request, grant });
    }

    fn lives(&self, host: usize, life: u64) -> bool {
        self.hosts[host].life == life && self.hosts[host].is_up()
    }

    fn at(&mut self, at: u64, occurrence: Occurrence) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), occurrence);
    }

    /// Gives an input to a host's replica and performs what comes back.
    fn tell(&mut self, host: usize, input: Input) {
        match &input {
            Input::Received { message, .. } => {
                let hash = Hash::of(&message.encode());
                self.trace.note(self.now, host, format_args!("receives {hash:?}"));
            }
            input => self.trace.note(self.now, host, format_args!("{input:?}")),
        }
        self.trace.say(self.now, host, || words::input(&input, |node| self.numbers.get(node).copied()));
        let outputs = self.hosts[host].handle(self.now, input);
        self.perform_all(host, outputs);
    }

    fn perform_all(&mut self, host: usize, outputs: Vec<Output>) {
        let bounded = crate::check::bounds::after(&self.hosts[host], &outputs);
        self.checks.note("bounds", self.now, host, bounded);
        for output in outputs {
            self.perform(host, output);
        }
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

/// The mesh's root key.
pub fn root(options: &Options) -> SigningKey {
    SigningKey::from_bytes(&bytes(options.seed, 0, "root"))
}

/// The longest wait before a lost member is dialled again, and a dial.
const REDIAL_MS: u64 = 75_000;
/// Tags in all repositories that clients, and tests, write.
const TAGS_MAX: usize = 64;
const SETTLE_STEP_MS: u64 = 1_000;
/// Requests of operators, which the workload does not know.
const GRANT_REQUESTS: u64 = 1 << 40;
