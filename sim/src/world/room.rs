//! Hosts that keep within their quotas: what their evictors ask and delete.

use waystation_proto::{
    Event, Input,
    retention::{Go, Name, Origin},
};

use super::{Occurrence, World};
use crate::{
    evictor::{Outcome, TICK_MS},
    setup::{MILLISECOND, Nanos},
};

impl World {
    /// A host that has a quota begins to keep it.
    pub(super) fn room_soon(&mut self, host: usize) {
        if self.options.quota > 0 {
            let life = self.hosts[host].life;
            self.at(self.now + TICK, Occurrence::MakesRoom { host, life });
        }
    }

    /// A host looks whether it has room.
    pub(super) fn makes_room(&mut self, host: usize, life: u64) {
        self.at(self.now + TICK, Occurrence::MakesRoom { host, life });
        let quota = self.options.quota;
        let inputs =
            self.evictors[host].round(self.now / MILLISECOND, &self.hosts[host], &self.content, quota);
        for input in inputs {
            self.tell(host, input);
        }
    }

    /// Whether an event was for the host's evictor.
    pub(super) fn for_evictor(&mut self, host: usize, event: &Event) -> bool {
        let outcome = self.evictors[host].told(self.now / MILLISECOND, event);
        match outcome {
            None => return false,
            Some(Outcome::Promised(manifest, by)) => {
                if let Some(by) = self.number(&by) {
                    self.checks.retention.promised(host, manifest, by);
                }
            }
            Some(Outcome::Delete { go, spared }) => {
                self.delete(host, &go);
                for hash in spared {
                    self.tell(host, Input::Sealed { hash });
                }
                let life = self.hosts[host].life;
                self.at(self.now + MILLISECOND, Occurrence::MakesRoom { host, life });
            }
            Some(Outcome::Nothing) => {}
        }
        true
    }

    fn delete(&mut self, host: usize, go: &Go) {
        if let (Name::Content(manifest), Origin::Referenced) = (go.name, go.origin) {
            self.completed.remove(&(host, manifest));
            let mut artifacts = self.content.artifacts().iter();
            if let Some(artifact) = artifacts.find(|artifact| artifact.index.manifest == manifest) {
                let good = self.checks.retention.deletes(&self.hosts, host, artifact, &go.frees);
                self.note("retention", host, good);
            }
        }
        for (hash, _) in &go.frees {
            self.hosts[host].disk.lose(hash);
        }
    }
}

const TICK: Nanos = TICK_MS * MILLISECOND;
