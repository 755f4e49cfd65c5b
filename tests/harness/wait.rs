//! Waiting for events: asks again in short steps until something is so, and fails loudly at a deadline.
//! Nothing else in the tests waits for time to pass.

use std::{
    thread,
    time::{Duration, Instant},
};

/// What an event between processes may take on a loaded machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(60);

const STEP: Duration = Duration::from_millis(20);

/// The first answer of `look`; panics when there is none for [`PATIENCE`].
#[track_caller]
pub fn until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look)
}

/// The first answer of `look`; panics when there is none for `patience`.
#[track_caller]
pub fn until_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < patience, "waited {patience:?} in vain until {what}");
        thread::sleep(STEP);
    }
}

/// As [`until`], for what is either so or not.
#[track_caller]
pub fn until_true(what: &str, mut look: impl FnMut() -> bool) {
    until(what, || look().then_some(()));
}
