//! One node: an unchanged replica, its disk, its clocks and its view of who is connected. Starting,
//! stopping and starting again is here; what the outputs do to the world is the world's.

use ed25519_dalek::SigningKey;
use waystation_proto::{
    Input, NodeId, Output, Replica, ReplicaConfig, Shared,
    body::{NodeBody, Tier},
    record::Trust,
    time::{Now, Time, Wall},
};

use crate::{
    Options,
    disk::Disk,
    ground::Ground,
    peers::Peers,
    random,
    setup::{MILLISECOND, Nanos, SECOND},
};

/// One node.
pub struct Host {
    /// Its number in the world.
    pub number: usize,
    /// Its name in the mesh.
    pub id: NodeId,
    /// What others dial.
    pub address: String,
    /// Whether it sends wrong bytes.
    pub lies: bool,
    /// Of so many requests one gets them.
    pub lies_every: u32,
    /// Requests for bytes that it was asked.
    pub requests: u64,
    /// Whether it is gone for good.
    pub left: bool,
    /// Its disk, which outlives it.
    pub disk: Disk,
    /// Sessions: with whom, and over which connection.
    pub peers: Peers,
    /// How often it was started. What was meant for an earlier life is dropped.
    pub life: u64,
    replica: Option<Replica>,
    key: SigningKey,
    trust: Trust,
    config: ReplicaConfig,
    booted: Nanos,
    /// What its calendar said when the world began; starts again at every boot where there is no clock.
    wall: Option<u64>,
}

impl Host {
    /// A node that was never started.
    pub fn new(ground: &Ground, number: usize, trust: &Trust) -> Self {
        let key = SigningKey::from_bytes(&random::bytes(ground.seed, number, "key"));
        let site = ground.site(number);
        let defaults = ReplicaConfig::default();
        let config = ReplicaConfig {
            site: site.name.clone(),
            tier: match site.tier {
                waystation_topology::Tier::Cloud => Tier::Cloud,
                waystation_topology::Tier::Edge => Tier::Edge,
                waystation_topology::Tier::Iot => Tier::Iot,
            },
            join: ground.join.iter().copied().filter(|n| *n != number).map(address).collect(),
            reconcile_interval: ground.reconcile.unwrap_or(defaults.reconcile_interval),
            far_reconcile_interval: ground.far_reconcile.unwrap_or(defaults.far_reconcile_interval),
            ..defaults
        };
        // Clocks are off by up to a day.
        let skew = random::stream(ground.seed, number, "clock").u64(0..86_400);
        Host {
            number,
            id: NodeId(key.verifying_key().to_bytes()),
            address: address(number),
            lies: false,
            lies_every: 1,
            requests: 0,
            left: false,
            disk: Disk::new(random::stream(ground.seed, number, "disk")),
            peers: Peers::default(),
            life: 0,
            replica: None,
            key,
            trust: trust.clone(),
            config,
            booted: 0,
            wall: Some(WALL + skew),
        }
    }

    /// What the options of a run say of it: the last nodes lie, and the last of the others have no clock.
    pub fn with_options(mut self, options: &Options) -> Self {
        let number = self.number;
        self.lies = number + options.liars >= options.nodes;
        if number + options.clockless >= options.nodes && number >= options.granted {
            self.wall = None;
        }
        self
    }

    /// Starts a fresh replica over what is durable.
    pub fn start(&mut self, now: Nanos, seed: u64) -> Vec<Output> {
        self.life += 1;
        self.booted = now;
        let purpose = format!("replica {}", self.life);
        let seed = random::stream(seed, self.number, &purpose).u64(..);
        let config = ReplicaConfig { seed, ..self.config.clone() };
        let (catalog, records) = self.disk.known();
        self.replica = Some(Replica::new(config, self.key.clone(), self.trust.clone()).knowing(catalog));
        let restore = Input::Restore { records, held: self.disk.complete() };
        let mut outputs = self.handle(now, restore);
        outputs.extend(self.handle(now, Input::Reachable { addresses: vec![self.address.clone()] }));
        outputs
    }

    /// Stops at once. Returns its own words, which it had told others.
    pub fn crash(&mut self, now: Nanos) -> Vec<Shared> {
        self.peers.clear();
        self.disk.crash(now);
        let own = |replica: Replica| {
            let records = replica.catalog().iter().filter(|record| record.author == self.id);
            records.cloned().collect()
        };
        self.replica.take().map(own).unwrap_or_default()
    }

    /// Hands an input to the replica; nothing follows where none runs.
    pub fn handle(&mut self, now: Nanos, input: Input) -> Vec<Output> {
        let now = self.clocks(now);
        self.replica.as_mut().map(|replica| replica.handle(now, input)).unwrap_or_default()
    }

    /// The replica, while one runs.
    pub fn replica(&self) -> Option<&Replica> {
        self.replica.as_ref()
    }

    /// Whether it runs.
    pub fn is_up(&self) -> bool {
        self.replica.is_some()
    }

    /// What it signs with, for what it said before the world began.
    pub fn key(&self) -> &SigningKey {
        &self.key
    }

    /// The site that it is on.
    pub fn site(&self) -> &str {
        &self.config.site
    }

    /// What it says of itself when it starts.
    pub fn body(&self) -> NodeBody {
        NodeBody {
            site: self.config.site.clone(),
            tier: self.config.tier,
            addresses: vec![self.address.clone()],
            software: self.config.software.clone(),
            region: self.config.region.clone(),
            labels: self.config.labels.clone(),
        }
    }

    /// When in the world's time a time of this node's own is.
    pub fn world_time(&self, time: Time) -> Nanos {
        self.booted.saturating_add(time.0.saturating_mul(MILLISECOND))
    }

    /// What its clocks say.
    pub fn clocks(&self, now: Nanos) -> Now {
        let since_boot = now.saturating_sub(self.booted);
        let wall = self.wall.map_or(since_boot / SECOND, |base| base + now / SECOND);
        Now { time: Time(since_boot / MILLISECOND), wall: Wall(wall) }
    }

    /// Its calendar is set, forward or back.
    pub fn set_clock(&mut self, seconds: i64) {
        self.wall = self.wall.map(|base| base.saturating_add_signed(seconds));
    }
}

/// What the node with this number is dialled by.
pub fn address(number: usize) -> String {
    format!("node-{number}:4717")
}

/// The node that an address leads to.
pub fn number_at(address: &str) -> Option<usize> {
    address.strip_prefix("node-")?.strip_suffix(":4717")?.parse().ok()
}

/// What calendars say when the world begins, in seconds since 1970.
pub const WALL: u64 = 1_800_000_000;
