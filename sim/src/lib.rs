//! A simulated world in which unchanged replicas run.
//!
//! Real: [`waystation_proto::Replica`], the wire codec, signatures and hashes. Simulated: clocks, disks,
//! links, sessions, gossip, blob transfers and clients. One thread, one queue of occurrences ordered by
//! (time, sequence), and a seeded random stream for each (seed, node, purpose): one seed is one history,
//! in every process.
//!
//! A run has a part with faults and then a part without, in which everything must come right within a
//! bound. Setups, made from scenario files, are carried out instead for as long as they say.
//!
//! Reading order: [`setup`], [`measure`], [`scenario`], [`world`], [`host`], [`check`]; [`summary`] for figures.
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
pub mod words;
pub mod workload;
pub mod world;

pub use case::Case;
pub use options::Options;
pub use world::{Report, World};
