//! One cache for each site, at its first node: it fetches a blob once and hands it out when it has all of it.

use std::collections::{BTreeMap, BTreeSet};

use super::stage::{Policy, RETRY, Stage, Transfer};
use crate::flow::FlowId;

/// The policy.
pub struct SiteCache {
    /// The cache of each site.
    caches: Vec<usize>,
    /// Who waits for the cache to have a blob.
    queues: BTreeMap<(usize, usize), BTreeSet<usize>>,
}

impl SiteCache {
    /// At the first node of each site.
    pub fn new(stage: &Stage<'_>) -> Self {
        let caches = (0..stage.plant.sites()).map(|site| stage.plant.at(site).start).collect();
        SiteCache { caches, queues: BTreeMap::new() }
    }

    fn cache(&self, stage: &Stage<'_>, node: usize) -> usize {
        self.caches[stage.plant.site(node)]
    }

    fn straight(&self, stage: &mut Stage<'_>, node: usize, blob: usize) {
        match stage.source(node, blob) {
            Some(source) => stage.fetch(source, node, blob),
            None => stage.ring(RETRY, node, blob),
        }
    }
}

impl Policy for SiteCache {
    fn want(&mut self, stage: &mut Stage<'_>, node: usize, blob: usize) {
        let cache = self.cache(stage, node);
        let site = stage.plant.site(node);
        let at_origin = stage.source(node, blob).is_some_and(|source| stage.plant.site(source) == site);
        if node == cache || at_origin || !stage.reaches(cache, node) {
            self.straight(stage, node, blob);
        } else if stage.has(cache, blob) {
            stage.fetch(cache, node, blob);
        } else {
            self.queues.entry((cache, blob)).or_default().insert(node);
            if !stage.wants(cache, blob) {
                stage.want_for_others(cache, blob);
                self.want(stage, cache, blob);
            }
        }
    }

    fn arrived(&mut self, stage: &mut Stage<'_>, _flow: FlowId, transfer: Transfer) {
        stage.complete(self, transfer.to, transfer.blob);
        for node in self.queues.remove(&(transfer.to, transfer.blob)).unwrap_or_default() {
            if stage.runs(node) && stage.wants(node, transfer.blob) {
                stage.fetch(transfer.to, node, transfer.blob);
            }
        }
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

    fn stopped(&mut self, stage: &mut Stage<'_>, node: usize, _loses_disk: bool) {
        for queue in self.queues.values_mut() {
            queue.remove(&node);
        }
        let mine = self.queues.range((node, 0)..(node + 1, 0)).map(|(key, _)| *key);
        for key in mine.collect::<Vec<_>>() {
            for waiting in self.queues.remove(&key).unwrap_or_default() {
                stage.ring(RETRY, waiting, key.1);
            }
        }
    }
}
