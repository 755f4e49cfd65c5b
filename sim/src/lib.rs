//! A simulated world in which unchanged replicas run.
//!
//! Real: [`waystation_proto::Replica`], the wire codec, signatures and hashes. Simulated: clocks, disks,
//! links, sessions, gossip, blob transfers and clients. One thread, one queue of occurrences ordered by
//! (time, sequence), and a seeded random stream for each (seed, node, purpose): one seed is one history,
//! in every process.
//!
//! A run has a part with faults and then a part without, in which everything must come right within a
//! bound. To replay a failure run `waystation-sim run --seed S` with the options that were printed.
//!
//! Reading order: [`options`], [`world`], [`host`], [`check`].
#![forbid(unsafe_code)]

pub mod account;
pub mod check;
pub mod content;
pub mod cost;
pub mod disk;
pub mod faults;
pub mod flow;
pub mod gossip;
pub mod gossipsub;
pub mod ground;
pub mod host;
pub mod ledger;
pub mod measure;
pub mod network;
pub mod options;
pub mod parcel;
pub mod queue;
pub mod random;
pub mod rogue;
pub mod setup;
pub mod trace;
pub mod workload;
pub mod world;

pub use options::Options;
pub use world::{Report, World};
