//! How long who failed to log in must wait before the next try counts. Pure: time is an argument.

use std::{collections::HashMap, hash::Hash, time::Duration};

use tokio::time::Instant;

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
    /// many at once gain nothing. Where the wait is above `patience`, it is the error, and nothing began.
    pub fn begin(&mut self, key: &K, now: Instant, patience: Duration) -> Result<Duration, Duration> {
        if !self.tries.contains_key(key) && self.tries.len() >= KEYS_MAX {
            self.forget(now);
        }
        let fresh = Tries { failures: 0, under_way: 0, next: now, last: now };
        let tries = self.tries.entry(key.clone()).or_insert(fresh);
        let wait = tries.next.saturating_duration_since(now);
        if wait > patience {
            return Err(wait);
        }
        let forgiven = now.saturating_duration_since(tries.last).as_secs() / FORGIVEN.as_secs();
        tries.failures = tries.failures.saturating_sub(u32::try_from(forgiven).unwrap_or(u32::MAX));
        tries.under_way += 1;
        tries.next = now + wait + pause(tries.failures + tries.under_way, self.longest);
        tries.last = now;
        Ok(wait)
    }

    /// A try ended.
    pub fn end(&mut self, key: &K, failed: bool, now: Instant) {
        let Some(tries) = self.tries.get_mut(key) else { return };
        tries.under_way = tries.under_way.saturating_sub(1);
        if failed {
            tries.failures = tries.failures.saturating_add(1);
            tries.last = now;
        } else if tries.under_way == 0 {
            tries.next = tries.next.min(now + pause(tries.failures, self.longest));
            if tries.failures == 0 {
                self.tries.remove(key);
            }
        }
    }

    /// Whoever this is has proved it: earlier failures count no more.
    pub fn forgive(&mut self, key: &K) {
        self.tries.remove(key);
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

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn waits_grow_and_are_forgiven() {
        let mut throttle = Throttle::new(Duration::from_secs(8));
        let mut now = Instant::now();
        let mut waits = vec![];
        for _ in 0..10 {
            let wait = throttle.begin(&"eve", now, LONG).expect("patient");
            waits.push(wait.as_millis());
            now += wait;
            throttle.end(&"eve", true, now);
        }
        assert_eq!(waits, [0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 8000]);
        // Asking again and again makes the wait no longer.
        for _ in 0..100 {
            assert_eq!(throttle.begin(&"eve", now, Duration::from_secs(5)), Err(Duration::from_secs(8)));
        }
        assert_eq!(throttle.begin(&"ann", now, LONG), Ok(Duration::ZERO));
        throttle.end(&"ann", false, now);
        let later = now + FORGIVEN * 20;
        assert_eq!(throttle.begin(&"eve", later, LONG), Ok(Duration::ZERO));
        throttle.end(&"eve", true, later);
        assert_eq!(throttle.begin(&"eve", later, LONG), Ok(Duration::ZERO));
    }

    #[test]
    fn tries_at_once_wait_for_one_another() {
        let mut throttle = Throttle::new(Duration::from_secs(8));
        let now = Instant::now();
        let waits: Vec<_> = (0..8).map(|_| throttle.begin(&1, now, LONG).expect("patient")).collect();
        assert!(waits[..3].iter().all(Duration::is_zero), "{waits:?}");
        assert!(waits.is_sorted() && waits[7] > Duration::from_secs(4), "{waits:?}");
        (0..8).for_each(|_| throttle.end(&1, false, now));
        assert!(throttle.tries.is_empty());
    }

    #[test]
    fn memory_is_bounded_and_the_worst_stay() {
        let mut throttle = Throttle::new(Duration::from_secs(8));
        let now = Instant::now();
        for _ in 0..5 {
            throttle.begin(&0, now, LONG).expect("patient");
            throttle.end(&0, true, now);
        }
        for key in 1..KEYS_MAX * 2 {
            throttle.begin(&key, now, LONG).expect("patient");
            throttle.end(&key, true, now);
        }
        assert!(throttle.tries.len() <= KEYS_MAX);
        assert_eq!(throttle.tries[&0].failures, 5);
    }
}
