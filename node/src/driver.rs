//! The loop that owns the replica: turns what happens into inputs, one at a time, and performs the
//! outputs. It decides nothing and never waits: whatever takes time runs in a task that answers with an
//! input. Nothing else in the process can touch the replica.

pub mod arrivals;
pub mod effects;
pub mod handle;
pub mod persister;
pub mod timers;
pub mod waiters;
pub mod witness;

use std::{
    collections::VecDeque,
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use waystation_proto::{
    DialTarget, Input, NodeId, Now, Replica, Time, Wall,
    body::NodeBody,
    event::{Class, Fault},
    record::Key,
};

use crate::{
    budget::{Budget, spending},
    control::{Control, ControlEvent},
    data::{Data, DataEvent},
    driver::{
        effects::Effects,
        handle::{Command, DriverStatus},
        timers::Timers,
        waiters::Waiters,
        witness::Witness,
    },
    metrics::{Metrics, Plane, PlaneLabels},
    mirror::Downloads,
    store::Store,
};

/// What the driver is built from.
pub struct Parts {
    /// The protocol's state, not yet restored.
    pub replica: Replica,
    /// Where bytes and records are kept.
    pub store: Store,
    /// Messages to and from members.
    pub control: Control,
    /// Blobs from members.
    pub data: Data,
    /// Blobs and manifests from upstreams.
    pub downloads: Downloads,
    /// Where numbers are shown.
    pub metrics: Metrics,
    /// What may go over links to other sites.
    pub budget: Budget,
    /// Who tells on what happens.
    pub witness: Witness,
    /// Addresses to tell the mesh; empty: those that the control plane finds itself listening on.
    pub advertise: Vec<String>,
}

/// The queues that feed the loop.
pub struct Sources {
    /// Requests of HTTP and the CLI.
    pub commands: mpsc::Receiver<Command>,
    /// From the control plane.
    pub control: mpsc::Receiver<ControlEvent>,
    /// From the data plane.
    pub data: mpsc::Receiver<DataEvent>,
}

/// Owns the replica.
pub struct Driver {
    replica: Replica,
    effects: Effects,
    timers: Timers,
    waiters: Waiters,
    metrics: Metrics,
    budget: Budget,
    /// Whether the background, and clients, may fetch from other sites, as the replica was told.
    allowed: (bool, bool),
    witness: Witness,
    advertise: Vec<String>,
    started: Instant,
    /// Inputs that followed from performing an output.
    follow: VecDeque<Input>,
    /// Answers of tasks.
    answers: mpsc::Receiver<Input>,
}

impl Driver {
    /// Builds the driver and gives the replica what was restored from disk.
    pub fn new(
        parts: Parts,
        records: Vec<waystation_proto::Shared>,
        held: Vec<waystation_proto::Hash>,
    ) -> Self {
        let (answer, answers) = mpsc::channel(ANSWERS_MAX);
        let Parts { replica, store, control, data, downloads, metrics, budget, witness, advertise } = parts;
        let effects = Effects::new(store, control, data, downloads, metrics.clone(), answer);
        let mut driver = Driver {
            replica,
            effects,
            timers: Timers::default(),
            waiters: Waiters::default(),
            metrics,
            budget,
            allowed: (true, true),
            witness,
            advertise,
            started: Instant::now(),
            follow: VecDeque::new(),
            answers,
        };
        driver.tell_budget();
        driver.take(Input::Restore { records, held });
        if !driver.advertise.is_empty() {
            let addresses = driver.advertise.clone();
            driver.take(Input::Reachable { addresses });
        }
        driver
    }

    /// Runs until `stop`, or until something that it needs has ended by itself, then closes both planes.
    pub async fn run(mut self, mut sources: Sources, stop: CancellationToken) {
        let mut counting = tokio::time::interval(COUNT_INTERVAL);
        loop {
            let due = self.timers.next(self.started);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(input) = self.answers.recv() => self.take(input),
                Some(event) = sources.data.recv() => self.on_data(event),
                Some(parked) = self.effects.unparked() => {
                    if let Some(input) = self.effects.unpark(parked) {
                        self.take(input);
                    }
                }
                Some(command) = sources.commands.recv() => self.on_command(command),
                event = sources.control.recv() => match event {
                    Some(event) => self.on_control(event),
                    // Without it the node would look well and be alone for ever.
                    None => {
                        error!("the control plane has ended by itself; the node stops, start it again");
                        break;
                    }
                },
                _ = counting.tick() => {
                    let [down, up] = self.effects.count();
                    self.look_after_budget(down, up);
                    self.witness.look();
                    if !self.effects.can_persist() {
                        error!("the writer of records has ended by itself; the node stops, start it again");
                        break;
                    }
                }
                () = sleep_until(due), if due.is_some() => {
                    for timer in self.timers.due(self.now().time) {
                        self.take(Input::TimerFired(timer));
                    }
                }
            }
        }
        self.finish_writes().await;
        self.effects.shutdown().await;
    }

    /// Waits for the writes under way. The index must hear of what they made durable: it is left as complete
    /// after this, and the next start does not go through the records again.
    async fn finish_writes(&mut self) {
        let Some(mut writing) = self.effects.stop_writing() else { return };
        let end = tokio::time::Instant::now() + PERSIST_PATIENCE;
        loop {
            tokio::select! {
                Some(input) = self.answers.recv() => self.take(input),
                _ = &mut writing => break,
                () = tokio::time::sleep_until(end) => {
                    warn!("records were still being written when the node stopped; they were not acknowledged");
                    return;
                }
            }
        }
        while let Ok(input) = self.answers.try_recv() {
            self.take(input);
        }
    }

    /// Tells the budget of the control plane's bytes since the last time, and the replica of the budget.
    fn look_after_budget(&mut self, down: u64, up: u64) {
        let catalog = self.replica.catalog();
        let site_of = |peer: &NodeId| catalog.site_of(peer);
        let own = site_of(&self.replica.me());
        let sessions: Vec<NodeId> = self.replica.sessions().collect();
        let near = sessions.iter().filter(|peer| own.is_some() && site_of(peer) == own).count() as u64;
        self.budget.connected(near, sessions.len() as u64 - near);
        self.budget.control(down, up);
        self.budget.look(spending::wall());
        self.budget.show(&self.metrics);
        self.tell_budget();
    }

    /// Tells the replica what the budget allows, where that has changed.
    fn tell_budget(&mut self) {
        let [far_background, far_client] =
            [Class::Background, Class::Client].map(|class| !self.budget.is_blocked(class));
        if std::mem::replace(&mut self.allowed, (far_background, far_client)) != (far_background, far_client)
        {
            self.take(Input::Budget { far_background, far_client });
        }
    }

    /// Gives the replica an input, performs what follows, and what follows from that.
    fn take(&mut self, input: Input) {
        self.follow.push_back(input);
        while let Some(input) = self.follow.pop_front() {
            self.witness.input(&input, &self.replica);
            let outputs = self.replica.handle(self.now(), input);
            for output in outputs {
                self.witness.output(&output, &self.replica);
                let next = self.effects.perform(output, &mut self.timers, &mut self.waiters, &self.replica);
                self.follow.extend(next);
            }
        }
        let counts = self.replica.counts();
        self.metrics.records.set(gauge(counts.records));
        self.metrics.sessions.set(gauge(self.replica.sessions().count()));
        self.metrics.wants.set(gauge(counts.wants));
        self.metrics.fetches.set(gauge(counts.fetches));
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Write(request, input, answer) => {
                self.waiters.write(request, answer);
                self.take(input);
            }
            Command::Want(request, input, answer) => {
                self.waiters.want(request, answer);
                self.take(input);
            }
            Command::Follow(request, input, answer, hash, arrived) => {
                self.waiters.want(request, answer);
                self.waiters.arrivals.follow(request, hash, arrived);
                self.take(input);
            }
            Command::Tell(input) => {
                if let Input::Abandon { request } = &input {
                    self.waiters.abandoned(*request);
                }
                self.take(input);
            }
            Command::May(action, repository, answer) => {
                // Whoever asked may be gone; nothing depends on the answer then.
                let _ = answer.send(self.replica.may(self.now(), action, &repository));
            }
            Command::Reconciled(answer) => self.waiters.until_reconciled(answer),
            Command::Look(look) => look(&self.replica, self.now()),
            Command::Lease(request, input, answer) => {
                self.waiters.lease(request, answer);
                self.take(input);
            }
            Command::Kept(manifests, answer) => {
                let _ = answer.send(self.replica.kept(self.now(), &manifests));
            }
            Command::Status(answer) => {
                let counts = self.replica.counts();
                let _ = answer.send(DriverStatus {
                    sessions: self.replica.sessions().collect(),
                    records: counts.records,
                    wants: counts.wants,
                    fetches: counts.fetches,
                    avoided: self.replica.avoided(self.now().time).collect(),
                    authored: self.replica.sessions().filter_map(|node| self.authored(node)).collect(),
                });
            }
        }
    }

    /// What a member's clock said when it last told of itself.
    fn authored(&self, node: NodeId) -> Option<(NodeId, Wall)> {
        Some((node, self.replica.catalog().get(&Key::node(&node))?.authored))
    }

    fn on_control(&mut self, event: ControlEvent) {
        match event {
            ControlEvent::Up { peer, dialled } => {
                info!(peer = %peer.short(), "session with a member is up");
                self.take(Input::PeerUp { peer, dialled });
            }
            ControlEvent::Down { peer } => {
                info!(peer = %peer.short(), "session with a member ended");
                self.effects.forget_link(&peer);
                self.take(Input::PeerDown { peer });
            }
            ControlEvent::Message { from, message } => self.take(Input::Received { from, message }),
            ControlEvent::Garbage { from, why } => {
                self.metrics.garbage_frames.inc();
                warn!(peer = %from.short(), why, "dropped what a member sent: not a message");
            }
            ControlEvent::Discovered { address } => self.take(Input::Discovered { address }),
            ControlEvent::DialFailed { target, why } => {
                match &target {
                    DialTarget::Address(address) => info!(address, why, "could not reach a node to join at"),
                    DialTarget::Node(node, _) => {
                        debug!(peer = %node.short(), why, "could not reach a member")
                    }
                }
                self.take(Input::DialFailed { target });
            }
            ControlEvent::Refused { address, why } => {
                self.metrics.refused.get_or_create(&PlaneLabels { plane: Plane::Control }).inc();
                debug!(address, why, "refused on the control plane");
            }
            ControlEvent::Listening { addresses, relayed } => {
                let mut told = if self.advertise.is_empty() { addresses } else { self.advertise.clone() };
                told.truncate(NodeBody::ADDRESSES_MAX - relayed.len().min(NodeBody::ADDRESSES_MAX));
                told.extend(relayed);
                self.take(Input::Reachable { addresses: told });
            }
            ControlEvent::PeerSlow { peer } => {
                self.metrics.messages_dropped.inc();
                debug!(peer = %peer.short(), "a member does not keep up; a message to it was dropped");
            }
        }
    }

    fn on_data(&mut self, event: DataEvent) {
        if let DataEvent::Fetched { fetch } | DataEvent::Failed { fetch, .. } = &event {
            self.effects.landed(*fetch);
        }
        match event {
            DataEvent::Arriving { fetch } => self.take(Input::Arriving { fetch }),
            DataEvent::Fetched { fetch } => self.take(Input::Fetched { fetch }),
            DataEvent::Failed { fetch, fault: Fault::Budget, why } => {
                debug!(fetch = fetch.0, why, "the budget ended a transfer");
                // First, or it would be planned again at once.
                self.tell_budget();
                self.take(Input::FetchFailed { fetch, fault: Fault::Budget });
            }
            DataEvent::Failed { fetch, fault, why } => {
                self.metrics.fetches_failed.inc();
                debug!(fetch = fetch.0, ?fault, why, "a transfer failed");
                self.witness.because(fetch, why);
                self.take(Input::FetchFailed { fetch, fault });
            }
            DataEvent::Refused { address, why } => {
                self.metrics.refused.get_or_create(&PlaneLabels { plane: Plane::Data }).inc();
                debug!(address, why, "refused on the data plane");
            }
        }
    }

    fn now(&self) -> Now {
        let time = Time(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX));
        // A clock before 1970 says nothing: zero is what boards without one report.
        let wall =
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Now { time, wall: Wall(wall) }
    }
}

/// A count as a gauge takes it.
fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

async fn sleep_until(due: Option<Instant>) {
    if let Some(due) = due {
        tokio::time::sleep_until(due.into()).await;
    }
}

/// A write takes one sync; a disk that needs longer than this at shutdown is not waited for.
const PERSIST_PATIENCE: Duration = Duration::from_secs(3);
/// How old the planes' byte counts in the metrics may be.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Answers of tasks that may wait for the loop: each output starts at most one task.
const ANSWERS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use waystation_proto::ReplicaConfig;

    use super::*;
    use crate::{
        control::ControlConfig, data::DataConfig, explain::Insight, identity::Identity, mesh::MeshFile,
    };

    /// A driver that nobody tells anything but by these queues.
    async fn driver(dir: &std::path::Path) -> Driver {
        let loopback: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let store = Store::open(dir).await.expect("opened").store;
        let identity = Identity::load_or_create(&dir.join("node.key")).expect("created");
        let (mesh, _) = MeshFile::create();
        let (to_control, _) = mpsc::channel(64);
        let control = ControlConfig::new(loopback, false);
        let control = Control::start(control, &identity, &mesh, to_control).await;
        let (to_data, _) = mpsc::channel(64);
        let data = DataConfig { listen: loopback };
        let data = Data::start(data, &identity, &mesh, store.blobs(), Budget::unlimited(), to_data).await;
        let replica = Replica::new(ReplicaConfig::default(), identity.signing_key(), mesh.trust());
        let none = crate::upstream::Upstreams::new(&[]).expect("no upstreams");
        let parts = Parts {
            replica,
            downloads: Downloads::new(store.clone(), none.clone(), Metrics::new()),
            store,
            control: control.expect("started"),
            data: data.expect("started"),
            metrics: Metrics::new(),
            budget: Budget::unlimited(),
            witness: Witness::new(&Insight::new(1, vec![], vec![]), none, "default".into()),
            advertise: vec!["127.0.0.1:1".into()],
        };
        Driver::new(parts, Vec::new(), Vec::new())
    }

    #[tokio::test]
    async fn a_control_plane_that_ends_by_itself_ends_the_driver() {
        let dir = tempfile::tempdir().expect("a directory");
        let driver = driver(dir.path()).await;
        let (_commands, commands) = mpsc::channel(1);
        let (_data, data) = mpsc::channel(1);
        let (to_driver, control) = mpsc::channel(1);
        let running = tokio::spawn(driver.run(Sources { commands, control, data }, CancellationToken::new()));
        drop(to_driver);
        let ended = tokio::time::timeout(Duration::from_secs(20), running).await;
        assert!(matches!(ended, Ok(Ok(()))));
    }
}
