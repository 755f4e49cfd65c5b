//! stub
/// Stub.
pub struct Replica {}
