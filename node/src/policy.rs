//! Policies as people write and read them. The form of a file is [`mod@file`]'s, what the node answers about them
//! [`answer`]'s; what a policy means and how it is carried out is the protocol's.

pub mod answer;
pub mod file;

pub use answer::{CoverageAnswer, CoverageRow, Explained, Policies};
pub use file::{Form, parse, print};
