//! Peers that mean harm, against the real binary: strangers without the mesh file, members that break the
//! rules on either plane, links that are cut. Unlike the end to end tests this target speaks the wire
//! itself, through the same libraries as the product, because no honest client can misbehave enough.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

#[path = "../harness/mod.rs"]
#[allow(dead_code, reason = "shared with the end to end tests, which use more of it")]
mod harness;

mod control;
mod cut;
mod data;
mod holder;
mod lan;
mod member;
mod strangers;
mod watch;
