//! What is done in each case.

pub mod budget;
pub mod cut;
pub mod holders;
pub mod idle;
pub mod killed;
pub mod liar;
pub mod links;
pub mod together;
pub mod update;
