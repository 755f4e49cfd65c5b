//! A client as a container engine is one: the manifest by tag, then the blobs, three at a time, every byte
//! checked, tried again after a failure.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::harness::{
    image::{Image, digest},
    registry::Registry,
};

/// Container engines fetch so many layers at a time.
const BLOBS_AT_A_TIME: usize = 3;
/// An engine waits longer than a cut of a minute.
const PATIENCE: Duration = Duration::from_secs(180);
/// After a failure.
const PAUSE: Duration = Duration::from_millis(500);

/// How a pull ended.
#[derive(Clone, Copy, Debug)]
pub struct Pulled {
    /// Until the last byte.
    pub took: Duration,
    /// Requests that failed and were made again.
    pub retries: usize,
}

/// Pulls the whole artifact; nothing where `given_up` says so first. Panics where bytes are wrong, or at `deadline`.
pub fn pull(
    address: &str,
    (repository, tag): (&str, &str),
    image: &Image,
    deadline: Instant,
    given_up: &AtomicBool,
) -> Option<Pulled> {
    let start = Instant::now();
    let mut registry = Registry::new(address);
    registry.http = registry.http.with_patience(PATIENCE);
    let tries = Tries { retries: AtomicUsize::new(0), deadline, given_up };
    let manifest = format!("/v2/{repository}/manifests/{tag}");
    let accepted = crate::harness::image::MANIFEST_TYPE;
    let answer = tries.until("the manifest", || {
        let answer = registry.http.get(&manifest).header("Accept", accepted).try_send();
        answer.ok().filter(|answer| answer.status == 200)
    })?;
    assert_eq!(digest(&answer.body), image.digest(), "another manifest");
    let left = Mutex::new(image.blobs().map(|blob| digest(blob)).collect::<Vec<_>>());
    let next = || left.lock().unwrap().pop();
    let all = thread::scope(|scope| {
        let fetch = || {
            while let Some(wanted) = next() {
                let target = format!("/v2/{repository}/blobs/{wanted}");
                let came = tries.until(&wanted, || {
                    let answer = registry.http.get(&target).try_send_checked();
                    answer.ok().filter(|answer| answer.status == 200)
                })?;
                assert_eq!(came.digest, wanted, "wrong bytes under a digest");
            }
            Some(())
        };
        let workers: Vec<_> = (0..BLOBS_AT_A_TIME).map(|_| scope.spawn(fetch)).collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Option<Vec<()>>>()
    });
    all.map(|_| Pulled { took: start.elapsed(), retries: tries.retries.load(Ordering::SeqCst) })
}

struct Tries<'a> {
    retries: AtomicUsize,
    deadline: Instant,
    given_up: &'a AtomicBool,
}

impl Tries<'_> {
    fn until<T>(&self, what: &str, ask: impl Fn() -> Option<T>) -> Option<T> {
        loop {
            if self.given_up.load(Ordering::SeqCst) {
                return None;
            }
            if let Some(answer) = ask() {
                return Some(answer);
            }
            assert!(Instant::now() < self.deadline, "{what} did not come in time");
            self.retries.fetch_add(1, Ordering::SeqCst);
            thread::sleep(PAUSE);
        }
    }
}
