//! How an announcement spreads over sessions, as the node's gossipsub spreads it. [`params`] is what was fitted to
//! real nodes, [`router`] what one node does, [`graph`] who has a session with whom, [`run`] a set of routers
//! by themselves, [`mod@world`] the same with the faster gossip of the world, [`figures`] what is compared, and [`fit`] the committed comparison. Knows no records.

pub mod figures;
pub mod fit;
pub mod graph;
pub mod params;
pub mod router;
pub mod run;
pub mod world;

pub use params::Params;
