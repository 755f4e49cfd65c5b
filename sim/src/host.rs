//! One node: an unchanged replica, its disk, its clocks and its view of who is connected. Starting,
//! stopping and starting again is here; what the outputs do to the world is the world's.

use std::collections::BTreeMap;

use ed25519_dalek::SigningKey;
use waystation_proto::{
    Hash, Input, NodeId, Output, Record, Replica, ReplicaConfig,
    body::Tier,
    record::Trust,
    time::{Now, Span, Time, Wall},
};

use crate::{Options, disk::Disk, random};

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
    /// Whether it is gone for good.
    pub left: bool,
    /// Its disk, which outlives it.
    pub disk: Disk,
    /// Sessions: with whom, and over which connection.
    pub peers: BTreeMap<usize, u64>,
    /// How often it was started. What was meant for an earlier life is dropped.
    pub life: u64,
    replica: Option<Replica>,
    key: SigningKey,
    trust: Trust,
    config: ReplicaConfig,
    booted: u64,
    /// What its calendar said when the world began; starts again at every boot where there is no clock.
    wall: Option<u64>,
    /// Gossip that was seen, and when.
    seen: BTreeMap<Hash, u64>,
}

impl Host {
    /// A node that was never started.
    pub fn new(options: &Options, number: usize, trust: &Trust) -> Self {
        let key = SigningKey::from_bytes(&random::bytes(options.seed, number, "key"));
        let config = ReplicaConfig {
            site: format!("site-{}", number % options.sites),
            tier: if number == 0 { Tier::Cloud } else { Tier::Edge },
            join: (0..options.nodes.min(2)).filter(|n| *n != number).map(address).collect(),
            reconcile_interval: Span(options.reconcile_ms),
            far_reconcile_interval: Span(options.far_reconcile_ms),
            ..ReplicaConfig::default()
        };
        // Clocks are off by up to a day; the last nodes but the liars have none.
        let skew = random::stream(options.seed, number, "clock").u64(0..86_400);
        let clockless = number + options.clockless >= options.nodes && number >= options.granted;
        Host {
            number,
            id: NodeId(key.verifying_key().to_bytes()),
            address: address(number),
            lies: number + options.liars >= options.nodes,
            left: false,
            disk: Disk::new(random::stream(options.seed, number, "disk")),
            peers: BTreeMap::new(),
            life: 0,
            replica: None,
            key,
            trust: trust.clone(),
            config,
            booted: 0,
            wall: (!clockless).then_some(WALL + skew),
            seen: BTreeMap::new(),
        }
    }

    /// Starts a fresh replica over what is durable.
    pub fn start(&mut self, now: u64, seed: u64) -> Vec<Output> {
        self.life += 1;
        self.booted = now;
        let purpose = format!("replica {}", self.life);
        let seed = random::stream(seed, self.number, &purpose).u64(..);
        let config = ReplicaConfig { seed, ..self.config.clone() };
        self.replica = Some(Replica::new(config, self.key.clone(), self.trust.clone()));
        let restore = Input::Restore { records: self.disk.records(), held: self.disk.complete() };
        let mut outputs = self.handle(now, restore);
        outputs.extend(self.handle(now, Input::Reachable { addresses: vec![self.address.clone()] }));
        outputs
    }

    /// Stops at once. Returns its own words, which it had told others.
    pub fn crash(&mut self) -> Vec<Record> {
        self.peers.clear();
        self.seen.clear();
        self.disk.crash();
        let own = |replica: Replica| {
            let records = replica.catalog().iter().filter(|record| record.author == self.id);
            records.cloned().collect()
        };
        self.replica.take().map(own).unwrap_or_default()
    }

    /// Hands an input to the replica; nothing follows where none runs.
    pub fn handle(&mut self, now: u64, input: Input) -> Vec<Output> {
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

    /// When in the world's time a time of this node's own is.
    pub fn world_time(&self, time: Time) -> u64 {
        self.booted.saturating_add(time.0)
    }

    /// Sets its calendar, by so many seconds; one that has none keeps none.
    pub fn set_clock(&mut self, seconds: i64) {
        self.wall = self.wall.map(|base| base.saturating_add_signed(seconds));
    }

    /// What its clocks say.
    pub fn clocks(&self, now: u64) -> Now {
        let since_boot = now.saturating_sub(self.booted);
        let wall = self.wall.map_or(since_boot / 1000, |base| base + now / 1000);
        Now { time: Time(since_boot), wall: Wall(wall) }
    }

    /// Notes a piece of gossip; whether it is news.
    pub fn hears(&mut self, now: u64, content: Hash) -> bool {
        self.seen.retain(|_, at| *at + SEEN_MS > now);
        self.seen.insert(content, now).is_none()
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
const WALL: u64 = 1_800_000_000;
/// How long gossip is remembered, as gossipsub's duplicate cache does.
const SEEN_MS: u64 = 60_000;
