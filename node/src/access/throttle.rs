//! How long who failed to log in must wait before the next try counts. Pure: time is an argument.

use std::{
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Failures and waits of one kind of key, bounded.
pub struct Throttle<K> {
    tries: HashMap<K, Tries>,
    longest: Duration,
}

#[derive(Clone, Copy)]
struct Tries {
    failures: u32,
    under_way: u32,
    next: Instant,
    last: Instant,
}

impl<K: Clone + Eq + Hash> Throttle<K> {
    /// Waits between two tries grow up to `longest`.
    pub fn new(longest: Duration) -> Self {
        Throttle { tries: HashMap::new(), longest }
    }

    /// A try begins: how long it must wait before it is checked. Tries under way count as failures, so that
    /// many at once gain nothing.
    pub fn begin(&mut self, key: &K, now: Instant) -> Duration {
        if !self.tries.contains_key(key) && self.tries.len() >= KEYS_MAX {
            self.forget(now);
        }
        let fresh = Tries { failures: 0, under_way: 0, next: now, last: now };
        let tries = self.tries.entry(key.clone()).or_insert(fresh);
        let forgiven = (now.saturating_duration_since(tries.last).as_secs() / FORGIVEN.as_secs())
            .min(u64::from(u32::MAX));
        tries.failures = tries.failures.saturating_sub(forgiven as u32);
        let pause = pause(tries.failures + tries.under_way, self.longest);
        let wait = tries.next.saturating_duration_since(now);
        if wait < self.longest {
            tries.next = tries.next.max(now) + pause;
        }
        tries.under_way += 1;
        tries.last = now;
        wait.max(pause).min(self.longest)
    }

    /// A try ended.
    pub fn end(&mut self, key: &K, failed: bool, now: Instant) {
        let Some(tries) = self.tries.get_mut(key) else { return };
        tries.under_way = tries.under_way.saturating_sub(1);
        if failed {
            tries.failures = tries.failures.saturating_add(1);
            tries.last = now;
        } else if tries.failures == 0 && tries.under_way == 0 {
            self.tries.remove(key);
        }
    }

    /// Makes room: whoever has waited out goes, else who failed least.
    fn forget(&mut self, now: Instant) {
        let stale = |tries: &Tries| now.saturating_duration_since(tries.last) > FORGIVEN * FREE;
        self.tries.retain(|_, tries| tries.under_way > 0 || !stale(tries));
        if self.tries.len() >= KEYS_MAX
            && let Some(least) = self.tries.iter().min_by_key(|(_, tries)| (tries.failures, tries.last))
        {
            let key = least.0.clone();
            self.tries.remove(&key);
        }
    }
}

/// After so many failures.
fn pause(failures: u32, longest: Duration) -> Duration {
    match failures.checked_sub(FREE) {
        None => Duration::ZERO,
        Some(over) => (FIRST_PAUSE * 2_u32.pow(over.min(16))).min(longest),
    }
}

/// Failures that cost nothing but the check itself: people mistype.
const FREE: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// One failure is forgotten for each of these without a try.
const FORGIVEN: Duration = Duration::from_secs(60);
/// Most users or addresses remembered, about 100 bytes each.
const KEYS_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_are_forgiven() {
        let mut throttle = Throttle::new(Duration::from_secs(8));
        let start = Instant::now();
        let mut now = start;
        let mut waits = vec![];
        for _ in 0..10 {
            let wait = throttle.begin(&"eve", now);
            waits.push(wait.as_millis());
            now += wait;
            throttle.end(&"eve", true, now);
        }
        assert_eq!(waits, [0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 8000]);
        assert_eq!(throttle.begin(&"ann", now), Duration::ZERO);
        throttle.end(&"ann", false, now);
        now += FORGIVEN * 20;
        assert_eq!(throttle.begin(&"eve", now), Duration::ZERO);
    }

    #[test]
    fn tries_at_once_wait_for_one_another() {
        let mut throttle = Throttle::new(Duration::from_secs(8));
        let now = Instant::now();
        let waits: Vec<_> = (0..12).map(|_| throttle.begin(&1, now).as_millis()).collect();
        assert!(waits[..3].iter().all(|wait| *wait == 0), "{waits:?}");
        assert!(waits.is_sorted() && waits[11] == 8000, "{waits:?}");
        (0..12).for_each(|_| throttle.end(&1, false, now));
        assert!(throttle.tries.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_the_worst_stay() {
        let mut throttle = Throttle::new(Duration::from_secs(8));
        let now = Instant::now();
        for _ in 0..5 {
            throttle.begin(&0, now);
            throttle.end(&0, true, now);
        }
        for key in 1..KEYS_MAX * 2 {
            throttle.begin(&key, now);
            throttle.end(&key, true, now);
        }
        assert!(throttle.tries.len() <= KEYS_MAX);
        assert_eq!(throttle.tries[&0].failures, 5);
    }
}
