//! A quantity over time, in parts of equal length.

/// At most so many parts where their length is a round number of hours or minutes.
const ROUND_MAX: f64 = 40.0;
/// Lengths that are round, in seconds.
const ROUND: [f64; 15] = [
    1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0,
    604_800.0,
];

/// Parts of a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Bins {
    from: f64,
    width: f64,
    sums: Vec<f64>,
    used: bool,
}

impl Bins {
    /// So many parts.
    pub fn new(from: f64, to: f64, parts: usize) -> Self {
        let length = if to > from { to - from } else { 1.0 };
        Bins { from, width: length / parts.max(1) as f64, sums: vec![0.0; parts.max(1)], used: false }
    }

    /// Parts of a round length, at most 40, or whole weeks where that is not enough.
    pub fn rounded(from: f64, to: f64) -> Self {
        let length = if to > from { to - from } else { 1.0 };
        let fits = |width: &f64| length / width <= ROUND_MAX;
        let weeks = (length / ROUND_MAX / 604_800.0).ceil().max(1.0) * 604_800.0;
        let width = ROUND.into_iter().find(fits).unwrap_or(weeks);
        let parts = (length / width).ceil().max(1.0) as usize;
        Bins { from, width, sums: vec![0.0; parts], used: false }
    }

    /// Length of a part, in seconds.
    pub fn width(&self) -> f64 {
        self.width
    }

    /// Whether anything was counted.
    pub fn used(&self) -> bool {
        self.used
    }

    /// Adds to the part in which `at` is; what was before all of them is left out.
    pub fn put(&mut self, at: f64, amount: f64) {
        if let Some(sum) = self.part(at) {
            *sum += amount;
        }
    }

    /// Takes the larger of what is in the part and this.
    pub fn raise(&mut self, at: f64, value: f64) {
        if let Some(sum) = self.part(at) {
            *sum = sum.max(value);
        }
    }

    /// Adds evenly over the parts that a length of time covers; what lies outside is left out.
    pub fn spread(&mut self, from: f64, seconds: f64, amount: f64) {
        if seconds <= 0.0 || !amount.is_finite() {
            return self.put(from, amount);
        }
        let end = self.from + self.width * self.sums.len() as f64;
        let (begin, until) = (from.max(self.from), (from + seconds).min(end));
        if begin >= until {
            return;
        }
        let first = ((begin - self.from) / self.width) as usize;
        for (at, sum) in self.sums.iter_mut().enumerate().skip(first) {
            let low = self.from + self.width * at as f64;
            if low >= until {
                break;
            }
            let covered = (until.min(low + self.width) - begin.max(low)).max(0.0);
            *sum += amount * covered / seconds;
            self.used |= amount > 0.0;
        }
    }

    /// Begin of each part, with its sum.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> + '_ {
        self.sums.iter().enumerate().map(|(at, sum)| (self.from + self.width * at as f64, *sum))
    }

    /// The sum of all parts.
    pub fn total(&self) -> f64 {
        self.sums.iter().sum()
    }

    /// The part in which a time is; the end belongs to the last.
    fn part(&mut self, at: f64) -> Option<&mut f64> {
        let place = (at - self.from) / self.width;
        if place.is_nan() || place < 0.0 || place > self.sums.len() as f64 {
            return None;
        }
        self.used = true;
        let last = self.sums.len() - 1;
        self.sums.get_mut((place as usize).min(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_spread_keeps_its_sum() {
        let mut bins = Bins::new(0.0, 10.0, 5);
        bins.spread(1.0, 2.0, 8.0);
        bins.spread(9.0, 4.0, 4.0);
        bins.spread(-1.0, 2.0, 2.0);
        bins.spread(20.0, 1.0, 9.0);
        let sums: Vec<f64> = bins.points().map(|point| point.1).collect();
        assert_eq!(sums, [5.0, 4.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn parts_are_round_and_few() {
        let hours = Bins::rounded(0.0, 72.0 * 3600.0);
        assert_eq!((hours.width(), hours.points().count()), (7200.0, 36));
        let one = Bins::rounded(5.0, 5.0);
        assert_eq!(one.points().count(), 1);
        let long = Bins::rounded(0.0, 1e9);
        assert!(long.points().count() <= 41);
    }

    #[test]
    fn the_end_belongs_to_the_last_part() {
        let mut bins = Bins::new(10.0, 20.0, 2);
        bins.put(20.0, 1.0);
        bins.put(9.0, 1.0);
        bins.put(f64::NAN, 1.0);
        bins.raise(12.0, 0.5);
        bins.raise(12.0, 0.2);
        assert_eq!(bins.points().collect::<Vec<_>>(), [(10.0, 0.5), (15.0, 1.0)]);
    }
}
