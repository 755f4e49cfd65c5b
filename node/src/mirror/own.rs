//! What the mesh has of its own, which goes before everything that an upstream has under the same name. Whoever can
//! publish at an upstream must not be able to stand in for the mesh: a name that the mesh ever used means the mesh,
//! and a node that has just started hears from others before it takes a name for an upstream's.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::Instant;
use waystation_oci::path::{Reference, Route};
use waystation_proto::{Digest, RepoName};

use crate::{driver::handle::ReplicaHandle, store::Store};

/// What is wanted of a repository that may be an upstream's.
pub enum Wanted {
    /// A manifest.
    Manifest(Reference),
    /// A blob.
    Blob(Digest),
    /// The list of tags.
    Tags,
    /// The list of manifests that refer to one.
    Referrers(Digest),
}

/// What the mesh has of its own.
pub struct Own {
    store: Store,
    replica: ReplicaHandle,
    settled: AtomicBool,
    /// When this node goes on with what it knows.
    until: Instant,
}

impl Wanted {
    /// What a request wants, if it can be had of an upstream.
    pub fn of(route: &Route) -> Option<Self> {
        match route {
            Route::Manifest(_, reference) => Some(Wanted::Manifest(reference.clone())),
            Route::Blob(_, digest) => Some(Wanted::Blob(*digest)),
            Route::Tags(_) => Some(Wanted::Tags),
            Route::Referrers(_, subject) => Some(Wanted::Referrers(*subject)),
            Route::Base | Route::Catalog | Route::Uploads(_) | Route::Upload(..) => None,
        }
    }
}

impl Own {
    /// `others` says whether there may be members that know more than this node.
    pub fn new(store: Store, replica: ReplicaHandle, others: bool) -> Self {
        Own { store, replica, settled: AtomicBool::new(!others), until: Instant::now() + PATIENCE }
    }

    /// Whether the mesh has, or ever had, something of its own under this name. What was deleted counts: clients
    /// that still ask for it must not be given what a stranger put under its name somewhere else.
    pub fn uses(&self, repository: &RepoName) -> bool {
        self.store.index().was_published(repository)
    }

    /// Whether the mesh itself has this: it is not looked up elsewhere then. Lists are the upstream's.
    pub fn has(&self, repository: &RepoName, wanted: &Wanted) -> bool {
        let index = self.store.index();
        match wanted {
            Wanted::Manifest(Reference::Tag(tag)) => {
                index.tag(repository, tag).is_some_and(|entry| entry.target.is_some())
            }
            Wanted::Manifest(Reference::Digest(digest)) => index.artifact(repository, digest).is_some(),
            Wanted::Blob(digest) => {
                index.link(repository, digest).is_some_and(|link| link.manifest.is_some())
            }
            Wanted::Tags | Wanted::Referrers(_) => false,
        }
    }

    /// Whether this node has heard what the mesh knows, or nobody told it for so long that it goes on without.
    pub fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Relaxed)
    }

    /// Waits until it is.
    pub async fn settle(&self) {
        if !self.is_settled() {
            let _ = tokio::time::timeout_at(self.until, self.replica.reconciled()).await;
            self.settled.store(true, Ordering::Relaxed);
        }
    }
}

/// How long after its start a node waits to hear what the mesh has: a member that is there is dialled at once, and
/// a site that is cut off must go on.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, oneshot};

    use super::*;
    use crate::driver::handle::Command;

    async fn own(others: bool) -> (Own, mpsc::Receiver<Command>, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path()).await.expect("opened").store;
        let (commands, queue) = mpsc::channel(4);
        (Own::new(store, ReplicaHandle::new(commands), others), queue, dir)
    }

    async fn asked(queue: &mut mpsc::Receiver<Command>) -> oneshot::Sender<()> {
        match queue.recv().await {
            Some(Command::Reconciled(answer)) => answer,
            _ => panic!("another question"),
        }
    }

    #[tokio::test]
    async fn the_first_member_is_heard_once() {
        let (own, mut queue, _dir) = own(true).await;
        assert!(!own.is_settled());
        let answer = async {
            let _ = asked(&mut queue).await.send(());
        };
        tokio::join!(own.settle(), answer);
        assert!(own.is_settled());
        own.settle().await;
        assert!(queue.try_recv().is_err(), "asked again");
    }

    #[tokio::test]
    async fn who_is_alone_goes_on() {
        let (alone, ..) = own(false).await;
        assert!(alone.is_settled());
        let (own, mut queue, _dir) = own(true).await;
        tokio::time::pause();
        let start = Instant::now();
        let (_unanswered, ()) = tokio::join!(asked(&mut queue), own.settle());
        assert!(own.is_settled());
        assert_eq!(start.elapsed().as_secs(), PATIENCE.as_secs());
    }
}
