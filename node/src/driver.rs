//! The loop that owns the replica. (to be written)

pub mod handle;
