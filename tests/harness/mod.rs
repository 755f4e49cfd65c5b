//! Nodes, meshes of nodes, and a client of its own: what tests and measurements share.

pub mod clients;
pub mod cluster;
pub mod events;
pub mod http;
pub mod image;
pub mod net;
pub mod node;
pub mod proxy;
pub mod registry;
pub mod relay;
pub mod sealed;
pub mod upstream;
pub mod wait;
