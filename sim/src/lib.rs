//! A simulated world in which unchanged replicas run.
//!
//! Real: [`waystation_proto::Replica`], the wire codec, signatures and hashes. Simulated: clocks, disks,
//! links, sessions, gossip, blob transfers and clients. One thread, one queue of occurrences ordered by
//! (time, sequence), and a seeded random stream for each (seed, node, purpose): one seed is one history,
//! in every process.
//!
//! A run either carries out a [`setup`] and measures it ([`World::carry_out`]), or is one of random faults: a part
//! with faults and then a part without, in which everything must come right within a bound. One that breaks a promise
//! is told again by `waystation-sim replay`.
//!
//! Reading order: [`setup`], [`mod@measure`], [`scenario`], [`mod@world`], [`host`], [`network`], [`gossip`], [`flow`],
//! [`options`], [`check`]; [`summary`] for figures.
//!
//! What the world leaves out: processors and queues inside a machine; loss and retransmission below a message (a line's
//! loss is the chance that a message is lost); blobs waiting behind messages and messages behind blobs on a line;
//! pings of idle sessions; several connections between two nodes; relays and upstreams.
#![forbid(unsafe_code)]

pub mod account;
pub mod baseline;
pub mod case;
pub mod check;
pub mod compare;
pub mod content;
pub mod cost;
pub mod disk;
pub mod evictor;
pub mod faults;
pub mod fleet_state;
pub mod flow;
pub mod gossip;
pub mod gossipsub;
pub mod ground;
pub mod host;
pub mod images;
pub mod kept;
pub mod ledger;
pub mod measure;
pub mod minimise;
pub mod network;
pub mod options;
pub mod parcel;
pub mod peers;
pub mod plan;
pub mod queue;
pub mod random;
pub mod reconcile;
pub mod report;
pub mod rogue;
pub mod scenario;
pub mod setup;
pub mod steps;
pub mod summary;
pub mod system;
pub mod trace;
pub mod validation;
pub mod words;
pub mod workload;
pub mod world;

pub use case::Case;
pub use options::Options;
pub use world::{Report, World};
