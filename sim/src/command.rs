//! The simulator's subcommands, one file each.

pub mod replay;
pub mod swarm;
