//! Everybody straight from where it was published.

use super::stage::{Policy, RETRY, Stage, Transfer};
use crate::flow::FlowId;

/// The policy. It remembers nothing.
pub struct Origin;

impl Policy for Origin {
    fn want(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize) {
        match stage.source(node, blob) {
            Some(source) => stage.fetch(source, node, blob),
            None => stage.ring(RETRY, node, blob),
        }
    }

    fn arrived(&mut self, stage: &mut Stage<'_>, _flow: FlowId, transfer: Transfer) {
        stage.complete(self, transfer.to, transfer.blob);
    }

    fn broke(&mut self, stage: &mut Stage<'_>, _flow: FlowId, transfer: Transfer) {
        if stage.runs(transfer.to) {
            stage.ring(RETRY, transfer.to, transfer.blob);
        }
    }

    fn rings(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize) {
        if stage.runs(node) && stage.wants(node, blob) {
            self.want(stage, node, blob);
        }
    }

    fn stopped(&mut self, _stage: &mut Stage<'_>, _node: usize, _loses_disk: bool) {}
}
