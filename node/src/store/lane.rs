//! A lane: one kind of work on a body's bytes, done in their order on threads for work that blocks, and apart from
//! the other lanes. What comes while it works waits and is then done in one go, so that a lane that lags behind
//! need not be woken for every piece.

use std::{future, io, mem};

use bytes::Bytes;
use tokio::task::JoinHandle;

/// Work with what it needs from one piece to the next.
pub(super) struct Lane<S> {
    work: fn(&mut S, &[Bytes]) -> io::Result<()>,
    state: Option<S>,
    job: Option<JoinHandle<io::Result<S>>>,
    /// Bytes that the job has.
    busy: u64,
    waiting: Vec<Bytes>,
    /// Bytes that wait.
    behind: u64,
}

impl<S: Send + 'static> Lane<S> {
    pub fn new(state: S, work: fn(&mut S, &[Bytes]) -> io::Result<()>) -> Self {
        Lane { work, state: Some(state), job: None, busy: 0, waiting: Vec::new(), behind: 0 }
    }

    /// Hands over the next bytes.
    pub fn push(&mut self, piece: Bytes) {
        self.behind += piece.len() as u64;
        self.waiting.push(piece);
    }

    /// How many bytes have not been worked on.
    pub fn load(&self) -> u64 {
        self.busy + self.behind
    }

    /// How many bytes [`Self::start`] would begin with: none where it works, or where fewer than `least` wait.
    pub fn ready(&self, least: u64) -> u64 {
        if self.state.is_some() && self.behind >= least { self.behind } else { 0 }
    }

    /// Begins with all that waits, if that is `least` bytes and the lane rests.
    pub fn start(&mut self, least: u64) {
        if self.ready(least) == 0 {
            return;
        }
        if let Some(mut state) = self.state.take() {
            let (work, pieces) = (self.work, mem::take(&mut self.waiting));
            self.busy = mem::take(&mut self.behind);
            self.job = Some(tokio::task::spawn_blocking(move || work(&mut state, &pieces).map(|()| state)));
        }
    }

    /// Waits for the end of what is being worked on; for ever where the lane rests. May be dropped and called
    /// again.
    pub async fn turn(&mut self) -> io::Result<()> {
        match &mut self.job {
            None => future::pending().await,
            Some(job) => {
                let state = job.await;
                self.job = None;
                self.busy = 0;
                self.state = Some(state.map_err(io::Error::other)??);
                Ok(())
            }
        }
    }

    /// What the work left, where no more of it waits.
    pub fn end(self) -> io::Result<S> {
        self.state.filter(|_| self.behind == 0).ok_or_else(|| io::Error::other("work was left undone"))
    }
}
