//! What registry clients may say, as pure parsing: request paths, byte ranges, upload sessions, manifests, charts, scopes
//! of tokens.
//!
//! No IO and no HTTP library, so that what strangers send can be tested and fuzzed by itself. Which answer an
//! error becomes is the node's business.
#![forbid(unsafe_code)]

pub mod chart;
pub mod manifest;
pub mod path;
pub mod range;
pub mod scope;
pub mod upload;
