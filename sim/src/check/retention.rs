//! Nothing that is referenced, pinned or leased is deleted, and no last copy of what is referenced. Looks at what is
//! on the disks and not at what anybody says, and knows which copies faults took.

use std::collections::{BTreeMap, BTreeSet};

use waystation_proto::{Digest, Hash};

use crate::{
    content::{Artifact, Content},
    host::Host,
};

/// What must stay, as far as it was told, and what faults took.
#[derive(Default)]
pub struct Retention {
    pinned: BTreeSet<(usize, Digest)>,
    /// By (who deletes, which artifact): who promised to keep it; nobody any more where a fault took that copy.
    promises: BTreeMap<(usize, Digest), Option<usize>>,
    /// Blobs whose last copy a fault took.
    taken: BTreeSet<Hash>,
}

impl Retention {
    /// An operator was told that an artifact is pinned, or asked that it is not any more.
    pub fn pinned(&mut self, host: usize, manifest: Digest, pinned: bool) {
        if pinned {
            self.pinned.insert((host, manifest));
        } else {
            self.pinned.remove(&(host, manifest));
        }
    }

    /// A host that wants to delete its copy was told who keeps another.
    pub fn promised(&mut self, host: usize, manifest: Digest, by: usize) {
        self.promises.insert((host, manifest), Some(by));
    }

    /// A fault takes blobs from a host; those of `doomed` by number others may be deleting already.
    pub fn takes(&mut self, hosts: &[Host], host: usize, blobs: &[Hash], doomed: &[BTreeSet<Hash>]) {
        for hash in blobs {
            let kept = hosts.iter().any(|other| {
                let dooms = doomed.get(other.number).is_some_and(|doomed| doomed.contains(hash));
                other.number != host && !other.left && other.disk.holds(hash) && !dooms
            });
            if !kept {
                self.taken.insert(*hash);
            }
        }
        for by in self.promises.values_mut().filter(|by| **by == Some(host)) {
            *by = None;
        }
    }

    /// What a host knew of its operator's wishes is gone with its disk.
    pub fn forgets(&mut self, host: usize) {
        self.pinned.retain(|(who, _)| *who != host);
        self.promises.retain(|(who, _), _| *who != host);
    }

    /// Whether a host may delete its copy of an artifact, `frees` of it, which some repository refers to.
    pub fn deletes(
        &mut self,
        hosts: &[Host],
        host: usize,
        artifact: &Artifact,
        frees: &[(Hash, u64)],
    ) -> Result<(), String> {
        let manifest = artifact.index.manifest;
        if self.pinned.contains(&(host, manifest)) {
            return Err(format!("deletes {manifest:?}, which is pinned there"));
        }
        match self.promises.remove(&(host, manifest)) {
            None => return Err(format!("deletes {manifest:?}, which nobody promised to keep")),
            // Nobody can know that a disk that promised something broke a moment later.
            Some(None) => return Ok(()),
            Some(Some(_)) => {}
        }
        let elsewhere = |hash: &Hash| {
            let mut others = hosts.iter().filter(|other| other.number != host && !other.left);
            others.any(|other| other.disk.holds(hash))
        };
        match frees.iter().find(|(hash, _)| !elsewhere(hash) && !self.taken.contains(hash)) {
            Some((hash, _)) => Err(format!("deletes the last copy of {hash:?} of {manifest:?}")),
            None => Ok(()),
        }
    }

    /// Whether everything that clients were told is written, and that is still referenced, is somewhere.
    pub fn nothing_lost(&self, hosts: &[Host], content: &Content, written: &[usize]) -> Result<(), String> {
        let replicas = hosts.iter().filter_map(Host::replica);
        let Some(catalog) = replicas.map(|replica| replica.catalog()).next() else { return Ok(()) };
        for artifact in written.iter().map(|number| &content.artifacts()[*number]) {
            let manifest = artifact.index.manifest;
            if catalog.artifact(&artifact.repository, &manifest).is_none() {
                continue;
            }
            let held = |hash: &Hash| hosts.iter().any(|host| !host.left && host.disk.holds(hash));
            let lost = |(hash, _): &(Hash, u64)| !held(hash) && !self.taken.contains(hash);
            if let Some((hash, _)) = artifact.blobs().into_iter().find(lost) {
                return Err(format!("{hash:?} of {manifest:?} is nowhere, and no fault took it"));
            }
        }
        Ok(())
    }
}
