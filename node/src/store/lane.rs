//! A lane: one kind of work on a body's bytes, done in their order on threads for work that blocks, and apart from
//! the other lanes. What comes while it works it takes up by itself, so that a lane that lags behind need not be woken
//! for every block.

use std::{
    future, io, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{sync::Notify, task::JoinHandle};

use super::block::Block;

/// Work with what it needs from one block to the next.
pub(super) struct Lane<S> {
    work: fn(&mut S, &[u8]) -> io::Result<()>,
    /// Absent while a job has it.
    state: Option<S>,
    job: Option<JoinHandle<io::Result<S>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Vec<Arc<Block>>>,
    /// Told when blocks have been worked on.
    progress: Notify,
}

impl<S: Send + 'static> Lane<S> {
    pub fn new(state: S, work: fn(&mut S, &[u8]) -> io::Result<()>) -> Self {
        Lane { work, state: Some(state), job: None, shared: Arc::default() }
    }

    /// Hands over the next bytes.
    pub fn push(&mut self, block: Arc<Block>) {
        self.shared.waiting().push(block);
        self.start();
    }

    /// Whether all has been done.
    pub fn rests(&self) -> bool {
        self.state.is_some()
    }

    /// Waits until some of the blocks have been worked on; for ever where the lane rests. May be dropped and called
    /// again.
    pub async fn turn(&mut self) -> io::Result<()> {
        let Some(job) = &mut self.job else { return future::pending().await };
        tokio::select! {
            () = self.shared.progress.notified() => {}
            state = job => {
                self.job = None;
                self.state = Some(state.map_err(io::Error::other)??);
                // Something may have come after the job looked for the last time.
                self.start();
            }
        }
        Ok(())
    }

    /// Leaves undone what nobody has begun with, and waits until nobody works any more.
    pub async fn halt(&mut self) {
        self.shared.waiting().clear();
        if let Some(job) = self.job.take() {
            // Whatever came of it, there is no use for it.
            let _ = job.await;
        }
    }

    /// What the work left, once the lane rests.
    pub fn end(self) -> io::Result<S> {
        self.state.ok_or_else(|| io::Error::other("work was left undone"))
    }

    fn start(&mut self) {
        if self.shared.waiting().is_empty() {
            return;
        }
        if let Some(mut state) = self.state.take() {
            let (work, shared) = (self.work, self.shared.clone());
            self.job = Some(tokio::task::spawn_blocking(move || {
                loop {
                    let blocks = mem::take(&mut *shared.waiting());
                    if blocks.is_empty() {
                        return Ok(state);
                    }
                    for block in blocks {
                        work(&mut state, block.bytes())?;
                        drop(block);
                        shared.progress.notify_one();
                    }
                }
            }));
        }
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Vec<Arc<Block>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
