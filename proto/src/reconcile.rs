//! stub
use crate::record::RecordId;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};
/// Stub.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// ids
    pub ids: Vec<RecordId>,
}
impl Summary {
    /// items
    pub fn items(&self) -> usize {
        self.ids.len()
    }
}
