//! Waystation's replication protocol: decisions only.
//!
//! Nothing in this crate reads a clock, a file or a socket, waits, locks or draws randomness of its own:
//! it is `no_std`, so it could not. A driver (the node, or the simulator) turns what happens in its world
//! into an [`Input`], hands it to [`Replica::handle`] and performs every [`Output`] that comes back.
//! The same inputs give the same outputs in every process.
//!
//! Reading order: [`event`] is the whole contract with a driver; [`replica`] routes inputs to the
//! machines; [`record`] and [`catalog`] say what is known and what counts; [`reconcile`] makes catalogs
//! equal; [`wants`] plans who fetches what from whom; [`policy`] says what is to be held where; [`verdict`] says what may
//! be served; [`retention`] says what may be deleted.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod alarm;
pub mod artifacts;
pub mod body;
pub mod catalog;
pub mod cells;
pub mod config;
pub mod event;
pub mod gave_way;
pub mod glob;
pub mod grant;
pub mod id;
pub mod index;
pub mod leases;
mod lookups;
pub mod manners;
pub mod membership;
pub mod placement;
pub mod policy;
pub mod presence;
pub mod pulls;
pub mod quota;
pub mod ranges;
pub mod reconcile;
pub mod record;
pub mod replica;
pub mod retention;
pub mod rounds;
mod row;
pub mod shared;
mod sorted;
mod sums;
pub mod suppliers;
pub mod surplus;
pub mod time;
pub mod verdict;
pub mod wants;
pub mod wire;
mod world;
pub mod writes;

pub use config::ReplicaConfig;
pub use event::{Change, DialTarget, Event, FetchId, Input, Output, Refusal, RequestId, Timer};
pub use id::{Digest, Hash, MeshId, NodeId, RepoName, Tag};
pub use record::{Record, RecordId};
pub use replica::Replica;
pub use shared::Shared;
pub use time::{Now, Span, Time, Wall};
