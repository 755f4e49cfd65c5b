//! Makes records durable, several writes in one sync: while one batch is on its way to disk the next
//! gathers, and writes that nobody waits for give others a moment to join.

use std::time::Duration;

use tokio::{sync::mpsc, time::Instant};
use tracing::error;
use waystation_proto::{Input, Shared, event::WriteId};

use crate::store::Store;

/// One write of the replica's.
#[derive(Debug)]
pub struct Job {
    /// Which.
    pub write: WriteId,
    /// What.
    pub records: Vec<Shared>,
    /// How long it may wait for company.
    pub within: Duration,
}

/// Runs until the queue's other end is dropped, and leaves nothing unwritten.
pub async fn run(store: Store, mut jobs: mpsc::Receiver<Job>, answers: mpsc::Sender<Input>) {
    while let Some(first) = jobs.recv().await {
        let mut batch = vec![first];
        gather(&mut jobs, &mut batch).await;
        let (writes, records): (Vec<WriteId>, Vec<Vec<Shared>>) =
            batch.into_iter().map(|job| (job.write, job.records)).unzip();
        let result = store.persist(records.into_iter().flatten().collect()).await;
        if let Err(why) = &result {
            error!(%why, "records could not be written to disk");
        }
        for write in writes {
            let answer = match &result {
                Ok(()) => Input::Persisted { write },
                Err(why) => Input::PersistFailed { write, why: why.to_string() },
            };
            if answers.send(answer).await.is_err() {
                return;
            }
        }
    }
}

/// Takes what is there, and waits for more only as long as every job in the batch can wait.
async fn gather(jobs: &mut mpsc::Receiver<Job>, batch: &mut Vec<Job>) {
    let started = Instant::now();
    while batch.len() < BATCH_MAX {
        let within = batch.iter().map(|job| job.within).min().unwrap_or_default();
        let next = if within.is_zero() {
            jobs.try_recv().ok()
        } else {
            tokio::time::timeout_at(started + within, jobs.recv()).await.ok().flatten()
        };
        match next {
            Some(job) => batch.push(job),
            None => return,
        }
    }
}

/// Writes in one sync at most.
const BATCH_MAX: usize = 512;
