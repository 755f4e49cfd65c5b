//! The world: one clock, one queue of occurrences, and the loop that makes them happen one by one. What
//! outputs of a replica do is in `perform`, messages are in `messages`, sessions and crashes in `sessions`, blobs on
//! their way in `data`. A run is either a `trial` by random faults or carries out a setup (`carry`).

mod carry;
mod data;
mod marks;
mod messages;
mod observe;
mod perform;
mod pulls;
mod room;
mod sessions;
mod trial;
mod trouble;
mod upstream;
mod warm;

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use waystation_proto::{
    DialTarget, Digest, FetchId, Hash, Input, MeshId, NodeId, Output, Shared, Timer,
    event::{Source, WriteId},
    record::Trust,
};

pub use self::{
    carry::{How, Summary},
    trial::Report,
};
use self::{data::Data, messages::Delivery, observe::Course};
use crate::{
    Options,
    case::{Case, Item, What},
    check::Checks,
    content::Content,
    disk::Common,
    evictor::Evictor,
    faults::Fault,
    gossip::{Gossip, Number, Params},
    ground::Ground,
    host::Host,
    network::{Load, Network},
    queue::Queue,
    random::{bytes, stream},
    rogue::Rogue,
    setup::{MILLISECOND, Nanos},
    steps::Step,
    trace::{Reader, Trace},
    words,
    workload::Workload,
};

/// Hosts, what connects them, and what is going to happen.
pub struct World {
    /// What a run of random faults was made from; calm where a setup is carried out.
    pub options: Options,
    /// Every node.
    pub hosts: Vec<Host>,
    /// Links and traffic.
    pub network: Network,
    ground: Ground,
    now: Nanos,
    queue: Queue<Occurrence>,
    gossip: Gossip,
    data: Data,
    /// What operators asked by hand.
    asked: u64,
    connections: u64,
    numbers: BTreeMap<NodeId, usize>,
    root: SigningKey,
    trust: Trust,
    content: Content,
    workload: Workload,
    rogue: Rogue,
    planted: Vec<Shared>,
    /// Whether every occurrence is checked, and not one of many: large worlds have no time for it.
    thorough: bool,
    /// Whether the part with faults is over.
    healed: bool,
    changes: u64,
    occurrences: u64,
    own_words: BTreeMap<usize, Vec<Shared>>,
    /// Artifacts that hosts told to be complete there.
    completed: BTreeSet<(usize, Digest)>,
    course: Course,
    evictors: Vec<Evictor>,
    trouble: trouble::Trouble,
    upstream: upstream::Upstream,
    /// For steps that no case has.
    next_number: u64,
    checks: Checks,
    trace: Trace,
    rng: fastrand::Rng,
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
    /// A message comes to the line into the site of its receiver.
    Enters(Delivery, Load),
    Arrives(Delivery),
    /// A host passes on what it heard.
    Passes {
        host: usize,
        life: u64,
        from: usize,
        number: Number,
    },
    /// A host's gossip does what it does every second.
    Beat {
        host: usize,
        life: u64,
    },
    Dialled {
        host: usize,
        life: u64,
        target: Box<DialTarget>,
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
        operation: Box<Operating>,
    },
    /// A request for bytes comes to a holder.
    Asked {
        host: usize,
        life: u64,
        fetch: FetchId,
    },
    /// Bytes may have come since this was last looked at.
    Arriving {
        host: usize,
        life: u64,
        fetch: FetchId,
    },
    /// A fetch ends early, as far as its host notices.
    Broken {
        host: usize,
        life: u64,
        fetch: FetchId,
        fault: waystation_proto::event::Fault,
    },
    Goes(u64, Box<Fault>),
    /// A disk is neither full nor slow any more.
    Eases(usize),
    /// A host looks through its disk.
    Scrubs(usize),
    MakesRoom {
        host: usize,
        life: u64,
    },
    Starts(usize),
    Mends(u64),
    /// A host's grant is given to the first host.
    Grants(usize),
    Work(u64, Box<Step>),
    /// The next action of a setup is due.
    Action(usize),
    /// A client asks again.
    Retry(usize),
    /// A part of the run is over, over which things are counted.
    Bucket,
}

/// What a disk is doing.
enum Operating {
    Persist(WriteId, Vec<Shared>),
    Seal(Hash, u64),
    Probe(Hash),
    ReadIndex(Hash),
    /// What a registry sent.
    Ingest(Source, Hash, u64),
}

impl World {
    /// The world that the options describe, every host started, the grants given out at the first.
    pub fn new(options: Options) -> Self {
        Self::with(options, false, &[])
    }

    /// The same, told in words if wanted, and with these records on every disk from the start.
    pub fn with(options: Options, print: bool, records: &[Shared]) -> Self {
        Self::of(&Case::of(options), print.then(Reader::of_all), records)
    }

    /// The world of a case, read by somebody while it goes on, and with these records on every disk from the start.
    pub fn of(case: &Case, reader: Option<Reader>, records: &[Shared]) -> Self {
        let ground = Ground::of_options(&case.options);
        let mut world = World::on(ground, case.options.clone(), reader);
        world.next_number = case.next_number();
        let common = Common::new(records.iter().cloned());
        let joins = |item: &Item| match item.what {
            What::Fault(Fault::Join { host }) => Some(host),
            _ => None,
        };
        let later: BTreeSet<usize> = case.items.iter().filter_map(joins).collect();
        for host in 0..world.hosts.len() {
            world.hosts[host].disk.begin_with(common.clone());
            let at = world.rng.u64(0..1_000) * MILLISECOND;
            if !later.contains(&host) {
                world.at(at, Occurrence::Starts(host));
            }
        }
        for item in case.items.iter().cloned() {
            let occurrence = match item.what {
                What::Fault(fault) => Occurrence::Goes(item.number, Box::new(fault)),
                What::Step(step) => Occurrence::Work(item.number, Box::new(step)),
            };
            world.at(item.at * MILLISECOND, occurrence);
        }
        world
    }

    /// A world in which nothing is going to happen yet.
    fn on(ground: Ground, options: Options, reader: Option<Reader>) -> Self {
        let root = SigningKey::from_bytes(&bytes(ground.seed, 0, "root"));
        let root_id = NodeId(root.verifying_key().to_bytes());
        let trust = Trust { mesh: MeshId::of_root(&root_id), root: root.verifying_key() };
        let host = |number: usize| Host::new(&ground, number, &trust).with_options(&options);
        let hosts: Vec<Host> = (0..ground.hosts()).map(host).collect();
        World {
            numbers: hosts.iter().map(|host| (host.id, host.number)).collect(),
            network: Network::new(&ground),
            evictors: hosts.iter().map(|_| Evictor::default()).collect(),
            trouble: trouble::Trouble::default(),
            upstream: upstream::Upstream::default(),
            next_number: 1,
            gossip: Gossip::new(ground.seed, hosts.len(), Params::default()),
            data: Data::new(&ground),
            hosts,
            now: 0,
            queue: Queue::default(),
            asked: 0,
            connections: 0,
            content: Content::default(),
            workload: Workload::new(&options),
            rogue: Rogue::new(ground.seed, trust.mesh, &root),
            planted: Vec::new(),
            thorough: true,
            healed: false,
            changes: 0,
            occurrences: 0,
            own_words: BTreeMap::new(),
            completed: BTreeSet::new(),
            course: Course::default(),
            checks: Checks::default(),
            trace: Trace::new(reader),
            rng: stream(ground.seed, 0, "world"),
            root,
            trust,
            options,
            ground,
        }
    }

    /// Lets everything happen up to a time in milliseconds.
    pub fn run_until(&mut self, end: u64) {
        self.run_to(end * MILLISECOND);
    }

    /// Lets everything happen up to a time.
    fn run_to(&mut self, end: Nanos) {
        loop {
            let bytes = self.data.next();
            let due = self.queue.next();
            // Of one time, what links carried comes first.
            if let Some(at) = bytes.filter(|at| *at <= end && due.is_none_or(|due| *at <= due)) {
                self.now = self.now.max(at);
                self.carry_bytes();
                continue;
            }
            let Some((at, occurrence)) = self.queue.pop(end) else { break };
            self.now = at;
            self.occurrences += 1;
            self.happen(occurrence);
        }
        self.now = self.now.max(end);
        self.settle_lines();
        self.hosts.iter_mut().for_each(|host| host.disk.settle(self.now));
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
        self.now / MILLISECOND
    }

    fn happen(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Timer { host, life, timer } if self.lives(host, life) => {
                self.tell(host, Input::TimerFired(timer));
            }
            Occurrence::Told { host, life, input } if self.lives(host, life) => self.tell(host, *input),
            Occurrence::Enters(delivery, load) => self.enter(delivery, load),
            Occurrence::Arrives(delivery) => self.arrive(delivery),
            Occurrence::Passes { host, life, from, number } if self.lives(host, life) => {
                self.pass_on(host, from, number);
            }
            Occurrence::Beat { host, life } if self.lives(host, life) => self.beat(host),
            Occurrence::Dialled { host, life, target, to } if self.lives(host, life) => {
                self.dialled(host, *target, to);
            }
            Occurrence::Silent { a, b, connection } => self.silent(a, b, connection),
            Occurrence::Ended { host, peer, connection } => self.ended(host, peer, connection),
            Occurrence::Disk { host, life, operation } if self.lives(host, life) => {
                self.disk_done(host, *operation);
            }
            Occurrence::Asked { host, life, fetch } if self.lives(host, life) => self.asked(host, fetch),
            Occurrence::Arriving { host, life, fetch } if self.lives(host, life) => {
                self.arriving(host, fetch);
            }
            Occurrence::Broken { host, life, fetch, fault } if self.lives(host, life) => {
                self.broken(host, fetch, fault);
            }
            Occurrence::Goes(number, fault) if !self.healed => self.go_wrong(number, *fault),
            Occurrence::Eases(host) => self.ease(host),
            Occurrence::Scrubs(host) => self.scrub(host),
            Occurrence::MakesRoom { host, life } if self.lives(host, life) => self.makes_room(host, life),
            Occurrence::Starts(host) if !self.hosts[host].is_up() && !self.hosts[host].left => {
                self.start(host);
            }
            Occurrence::Mends(cut) => self.mend(cut),
            Occurrence::Grants(host) => self.grant(host),
            Occurrence::Work(number, step) if !self.healed => self.work(number, &step),
            Occurrence::Action(number) => self.act(number),
            Occurrence::Retry(pull) => self.retry(pull),
            Occurrence::Bucket => self.end_bucket(),
            // Meant for a life that is over, or for the part with faults.
            _ => {}
        }
    }

    fn lives(&self, host: usize, life: u64) -> bool {
        self.hosts[host].life == life && self.hosts[host].is_up()
    }

    fn at(&mut self, at: Nanos, occurrence: Occurrence) {
        self.queue.push(at.max(self.now), occurrence);
    }

    /// Something that a host's driver answers a moment later.
    fn answer(&mut self, host: usize, input: Input) {
        let life = self.hosts[host].life;
        self.at(self.now + MILLISECOND, Occurrence::Told { host, life, input: Box::new(input) });
    }

    /// Gives an input to a host's replica and performs what comes back.
    fn tell(&mut self, host: usize, input: Input) {
        let (what, which) = marks::of(&input);
        self.trace.mark(self.now, host, what, which);
        self.trace.say(self.now, host, || words::input(&input, |node| self.number(node)));
        self.hand(host, input);
    }

    /// The same for what the trace has already.
    fn hand(&mut self, host: usize, input: Input) {
        let outputs = self.hosts[host].handle(self.now, input);
        self.perform_all(host, outputs);
    }

    /// Whether what happens now is checked.
    fn checks_this(&self) -> bool {
        self.thorough || self.occurrences.is_multiple_of(CHECKED_EVERY)
    }

    fn perform_all(&mut self, host: usize, outputs: Vec<Output>) {
        if self.checks_this() {
            let bounded = crate::check::bounds::after(&self.hosts[host], &outputs);
            self.note("bounds", host, bounded);
        }
        for output in outputs {
            self.perform(host, output);
        }
    }

    fn note(&mut self, promise: &'static str, host: usize, result: Result<(), String>) {
        self.checks.note(promise, self.now / MILLISECOND, host, result);
    }
}

/// Requests of operators, which the workload does not know.
const GRANT_REQUESTS: u64 = 1 << 40;
/// Of so many occurrences one is checked where not all are.
const CHECKED_EVERY: u64 = 64;
