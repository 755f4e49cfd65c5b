//! How a measured quantity is spread, in bounded memory: values are counted in classes 0.02 % wide, so that a
//! million of them cost no more than the classes that occur. The least and the largest are kept exactly.

use std::collections::BTreeMap;

/// Mantissa bits that are dropped: 12 of 52 remain, so a class is at most 1 part in 4,096 wide.
const DROPPED: u32 = 40;

/// Values of zero or more. What is below zero or no number is not taken.
#[derive(Clone, Debug, Default)]
pub struct Quantiles {
    /// By the leading bits of the value: for positive numbers these are in the order of the values.
    classes: BTreeMap<u64, u64>,
    count: u64,
    least: f64,
    most: f64,
}

impl Quantiles {
    /// Counts a value.
    pub fn add(&mut self, value: f64) {
        if !value.is_finite() || value < 0.0 {
            return;
        }
        // Adding zero makes a negative zero positive.
        *self.classes.entry((value + 0.0).to_bits() >> DROPPED).or_default() += 1;
        self.least = if self.count == 0 { value } else { self.least.min(value) };
        self.most = if self.count == 0 { value } else { self.most.max(value) };
        self.count += 1;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest.
    pub fn most(&self) -> Option<f64> {
        (self.count > 0).then_some(self.most)
    }

    /// The least.
    pub fn least(&self) -> Option<f64> {
        (self.count > 0).then_some(self.least)
    }

    /// The least value that at least `share` (0 to 1) of them do not exceed, to within 0.02 %.
    pub fn at(&self, share: f64) -> Option<f64> {
        let wanted = ((share * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        self.steps().find(|(_, sum)| *sum >= wanted).map(|(value, _)| value)
    }

    /// Each value with how many are not above it, in order.
    pub fn steps(&self) -> impl Iterator<Item = (f64, u64)> + '_ {
        let mut sum = 0;
        self.classes.iter().map(move |(class, count)| {
            sum += count;
            let low = f64::from_bits(class << DROPPED);
            let middle = f64::from_bits((class << DROPPED) | (1 << (DROPPED - 1)));
            // The middle of a class may lie beyond all of its values.
            let value = if low == 0.0 { 0.0 } else { middle.clamp(self.least, self.most) };
            (value, sum)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_their_class() {
        let mut all = Quantiles::default();
        assert_eq!(all.at(0.5), None);
        for value in 1..=1000 {
            all.add(f64::from(value) / 10.0);
        }
        all.add(f64::NAN);
        all.add(-1.0);
        assert_eq!(all.count(), 1000);
        for (share, expected) in [(0.5, 50.0), (0.9, 90.0), (0.99, 99.0), (0.999, 99.9), (1.0, 100.0)] {
            let value = all.at(share).unwrap();
            assert!((value / expected - 1.0).abs() < 0.0002, "{share}: {value} is not {expected}");
        }
        assert_eq!((all.least(), all.most()), (Some(0.1), Some(100.0)));
        assert_eq!(all.steps().last().map(|step| step.1), Some(1000));
    }

    #[test]
    fn one_value_is_itself() {
        let mut one = Quantiles::default();
        one.add(10.5);
        assert_eq!([one.at(0.0), one.at(0.5), one.at(1.0)], [Some(10.5); 3]);
        one.add(0.0);
        assert_eq!(one.at(0.1), Some(0.0));
    }

    #[test]
    fn many_values_cost_few_classes() {
        let mut many = Quantiles::default();
        for value in 0..200_000 {
            many.add(1.0 + f64::from(value) / 200_000.0);
        }
        assert!(many.classes.len() <= 4097);
    }
}
