//! Peers that hand out whole blobs. A node tells of an image's layers when it has the whole image; others of its
//! site take each layer from a random one of those, or from the origin where there is none.

use std::collections::BTreeMap;

use super::stage::{Policy, RETRY, Stage, Transfer};
use crate::{flow::FlowId, random, setup::Setup};

/// The policy.
pub struct WholeBlob {
    rng: fastrand::Rng,
    /// Who tells of a blob, by site.
    told: BTreeMap<(usize, usize), Vec<usize>>,
}

impl WholeBlob {
    /// Nobody tells of anything.
    pub fn new(setup: &Setup) -> Self {
        WholeBlob { rng: random::stream(setup.seed, 0, "whole-blob"), told: BTreeMap::new() }
    }

    /// Tells of every image that is whole now that this blob is there.
    fn tell(&mut self, stage: &Stage<'_>, node: usize, blob: usize) {
        for artifact in 0..stage.setup.artifacts.len() {
            let blobs = stage.artifact(artifact);
            if !blobs.contains(&blob) || !blobs.iter().all(|blob| stage.has(node, *blob)) {
                continue;
            }
            for blob in blobs {
                let told = self.told.entry((stage.plant.site(node), *blob)).or_default();
                if !told.contains(&node) {
                    told.push(node);
                }
            }
        }
    }
}

impl Policy for WholeBlob {
    fn want(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize) {
        let told = self.told.get(&(stage.plant.site(node), blob));
        let peers: Vec<usize> = told
            .into_iter()
            .flatten()
            .copied()
            .filter(|peer| *peer != node && stage.reaches(*peer, node))
            .collect();
        let peer = self.rng.choice(peers);
        match peer.or_else(|| stage.source(node, blob)) {
            Some(source) => stage.fetch(source, node, blob),
            None => stage.ring(RETRY, node, blob),
        }
    }

    fn arrived(&mut self, stage: &mut Stage<'_>, _flow: FlowId, transfer: Transfer) {
        stage.complete(self, transfer.to, transfer.blob);
        self.tell(stage, transfer.to, transfer.blob);
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

    fn stopped(&mut self, _stage: &mut Stage<'_>, node: usize, loses_disk: bool) {
        if loses_disk {
            for told in self.told.values_mut() {
                told.retain(|other| *other != node);
            }
        }
    }
}
