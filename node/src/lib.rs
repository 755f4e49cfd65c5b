//! The Waystation node: carries out what `waystation-proto` decides, and serves what it holds.
//!
//! Reading order: [`app`] builds the process in the order of dependencies; [`driver`] owns the replica and
//! performs its outputs; [`store`] says what is on disk and what a crash can lose; [`registry`] is the OCI
//! endpoint; [`control`] and [`data`] are the two planes between nodes.

pub mod access;
pub mod admin;
pub mod api;
pub mod app;
pub mod budget;
pub mod cli;
pub mod config;
pub mod control;
pub mod data;
pub mod doctor;
pub mod driver;
pub mod events;
pub mod explain;
pub mod gc;
pub mod home;
pub mod identity;
mod memory;
pub mod mesh;
pub mod metrics;
pub mod mirror;
pub mod platform;
pub mod policy;
pub mod reach;
pub mod reference;
pub mod registry;
pub mod secret;
pub mod shutdown;
pub mod socket;
mod sparse;
pub mod store;
pub mod units;
pub mod upstream;
