//! How many transfers from other sites a node has under way at a time for what others get too. What is on its way to one
//! node is nobody else's to fetch, so over a thin line it must not be on its way for long: transfers are few where they
//! take long, and more while they do not (additive increase, multiplicative decrease: Chiu and Jain 1989).

use crate::time::{Span, Time};

/// The number.
#[derive(Debug)]
pub(super) struct Window {
    size: usize,
    /// When it was last made smaller: transfers that began before tell nothing about what it is now.
    cut: Time,
}

impl Default for Window {
    fn default() -> Self {
        Window { size: FIRST, cut: Time::default() }
    }
}

impl Window {
    /// How many may be under way.
    pub(super) fn size(&self) -> usize {
        self.size
    }

    /// A transfer ended that was begun then.
    pub(super) fn ended(&mut self, now: Time, started: Time) {
        let took = now.since(started);
        if took < SHORT {
            self.size = (self.size + 1).min(MOST);
        } else if took > LONG && started >= self.cut {
            self.size = (self.size / 2).max(1);
            self.cut = now;
        }
    }
}

/// At first, so that several holders are tried.
const FIRST: usize = 4;
const MOST: usize = 256;
/// Requests are made to take half a second.
const SHORT: Span = Span::millis(750);
const LONG: Span = Span::millis(1_500);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_as_wide_as_the_line() {
        let mut window = Window::default();
        (0..10).for_each(|n| window.ended(Time(n * 100 + 100), Time(n * 100)));
        assert_eq!(window.size(), FIRST + 10);
        // Those that were under way together make it smaller once.
        (0..5).for_each(|_| window.ended(Time(5_000), Time(1_000)));
        assert_eq!(window.size(), 7);
        (0..9).for_each(|n| window.ended(Time(10_000 + n * 3_000), Time(7_500 + n * 3_000)));
        assert_eq!(window.size(), 1);
    }
}
