//! An axis of a plot: its range, where a value lies on it, and its ticks at numbers that people like.

use super::unit::Unit;

/// Ticks that are aimed at.
const WANTED: f64 = 5.0;
/// Seconds that are good distances between ticks from a minute on.
const ROUND_SECONDS: [f64; 17] = [
    10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 900.0, 1800.0, 3600.0, 7200.0, 10_800.0, 21_600.0, 43_200.0,
    86_400.0, 172_800.0, 604_800.0,
];

/// One axis.
#[derive(Clone, Debug)]
pub struct Axis {
    /// What is on it.
    pub label: String,
    /// Of its numbers.
    pub unit: Unit,
    /// Where there are lines and numbers, in order.
    pub ticks: Vec<f64>,
    low: f64,
    high: f64,
    log: bool,
}

impl Axis {
    /// From zero to the largest of the values, in even steps.
    pub fn linear(label: &str, unit: Unit, values: impl IntoIterator<Item = f64>) -> Self {
        let most = values.into_iter().filter(|value| value.is_finite()).fold(0.0, f64::max);
        let most = if most > 0.0 { most } else { 1.0 };
        let step = step(unit, most);
        let steps = (most / step - 1e-9).ceil().max(1.0);
        let ticks = (0..=steps as u32).map(|n| f64::from(n) * step).collect();
        Axis { label: label.to_owned(), unit, ticks, low: 0.0, high: steps * step, log: false }
    }

    /// In even factors where the positive values lie more than `apart` times apart; otherwise as [`Axis::linear`].
    pub fn log_where_wide(
        label: &str,
        unit: Unit,
        values: impl IntoIterator<Item = f64>,
        apart: f64,
    ) -> Self {
        let values: Vec<f64> = values.into_iter().filter(|value| value.is_finite() && *value > 0.0).collect();
        let (least, most) = values
            .iter()
            .fold((f64::INFINITY, 0.0), |(least, most): (f64, f64), v| (least.min(*v), most.max(*v)));
        if values.is_empty() || most / least <= apart {
            return Axis::linear(label, unit, values);
        }
        let (fine, coarse) = candidates(unit);
        let low = fine.iter().copied().rfind(|tick| *tick <= least * (1.0 + 1e-9)).unwrap_or(least);
        let high = fine.iter().copied().find(|tick| *tick >= most * (1.0 - 1e-9)).unwrap_or(most);
        let within = |ticks: Vec<f64>| -> Vec<f64> {
            ticks.into_iter().filter(|tick| (low..=high).contains(tick)).collect()
        };
        let (fine, coarse) = (within(fine), within(coarse));
        let ticks = if fine.len() <= 7 { fine } else { coarse };
        let every = ticks.len().div_ceil(8).max(1);
        let ticks = ticks.into_iter().step_by(every).collect();
        Axis { label: label.to_owned(), unit, ticks, low, high, log: true }
    }

    /// Where a value lies, from 0 to 1; what is outside is at the end.
    pub fn place(&self, value: f64) -> f64 {
        let place = if self.log {
            let low = libm::log(self.low);
            (libm::log(value.max(self.low)) - low) / (libm::log(self.high) - low)
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if place.is_finite() { place.clamp(0.0, 1.0) } else { 0.0 }
    }

    /// Whether its steps are factors.
    pub fn is_log(&self) -> bool {
        self.log
    }

    /// The largest value on it.
    pub fn high(&self) -> f64 {
        self.high
    }

    /// A value with its unit.
    pub fn text(&self, value: f64) -> String {
        self.unit.text(value)
    }
}

/// The distance between ticks for about [`WANTED`] of them from zero to `most`.
fn step(unit: Unit, most: f64) -> f64 {
    let rough = most / WANTED;
    if unit == Unit::Seconds && most > 90.0 {
        return ROUND_SECONDS
            .into_iter()
            .find(|step| *step >= rough)
            .unwrap_or_else(|| 86_400.0 * decimal_step(rough / 86_400.0));
    }
    let step = decimal_step(rough);
    if unit == Unit::Count { step.max(1.0) } else { step }
}

/// The least of 1, 2, 5 times a power of ten that is not less.
fn decimal_step(rough: f64) -> f64 {
    let power = libm::pow(10.0, libm::floor(libm::log10(rough)));
    let factor =
        [1.0, 2.0, 5.0, 10.0].into_iter().find(|f| f * power >= rough * (1.0 - 1e-9)).unwrap_or(10.0);
    factor * power
}

/// Where ticks of an axis of factors may be: all, and fewer.
fn candidates(unit: Unit) -> (Vec<f64>, Vec<f64>) {
    let powers = |from: i32, to: i32| (from..=to).map(|n| libm::pow(10.0, f64::from(n)));
    let thirds = |power: f64| [power, 2.0 * power, 5.0 * power];
    if unit != Unit::Seconds {
        return (powers(-12, 24).flat_map(thirds).collect(), powers(-12, 24).collect());
    }
    let mut fine: Vec<f64> = powers(-9, 0).flat_map(thirds).chain([10.0, 20.0]).collect();
    fine.extend([60.0, 120.0, 300.0, 600.0, 1200.0, 3600.0, 7200.0, 18_000.0, 43_200.0, 86_400.0, 172_800.0]);
    fine.extend(powers(0, 9).flat_map(thirds).map(|days| 432_000.0 * days));
    let mut coarse: Vec<f64> = powers(-9, 1).chain([60.0, 600.0, 3600.0, 43_200.0]).collect();
    coarse.extend(powers(0, 9).map(|days| 432_000.0 * days));
    (fine, coarse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_cover_the_values() {
        let axis = Axis::linear("time", Unit::Seconds, [3.2, 11.9]);
        assert_eq!(axis.ticks, [0.0, 5.0, 10.0, 15.0]);
        let axis = Axis::linear("time", Unit::Seconds, [7000.0]);
        assert_eq!(axis.ticks, [0.0, 1800.0, 3600.0, 5400.0, 7200.0]);
        let axis = Axis::linear("nodes", Unit::Count, [3.0]);
        assert_eq!(axis.ticks, [0.0, 1.0, 2.0, 3.0]);
        let axis = Axis::linear("size", Unit::Bytes, [0.4e9]);
        assert_eq!(axis.ticks, [0.0, 1e8, 2e8, 3e8, 4e8]);
        let axis = Axis::linear("nothing", Unit::Share, []);
        assert_eq!(axis.place(0.5), 0.5);
    }

    #[test]
    fn a_wide_range_is_in_factors() {
        let axis = Axis::log_where_wide("time", Unit::Seconds, [0.02, 4000.0, 0.0], 20.0);
        assert!(axis.is_log());
        assert_eq!(axis.ticks.first(), Some(&0.1));
        assert!(axis.ticks.contains(&60.0) && axis.ticks.contains(&3600.0));
        assert_eq!(axis.place(0.02), 0.0);
        assert!(axis.place(4000.0) < 1.0);
        assert_eq!(axis.place(0.0), 0.0);
        assert!(!Axis::log_where_wide("time", Unit::Seconds, [1.0, 5.0], 20.0).is_log());
    }

    #[test]
    fn there_are_never_many_ticks() {
        for n in 0..60 {
            let most = libm::pow(1.7, f64::from(n)) / 1000.0;
            for unit in [Unit::Seconds, Unit::Bytes, Unit::Count, Unit::Rate] {
                let axis = Axis::linear("x", unit, [most]);
                assert!((2..=8).contains(&axis.ticks.len()), "{most}: {:?}", axis.ticks);
                assert!(axis.high() >= most * 0.999_999);
                let axis = Axis::log_where_wide("x", unit, [most, most * 1e-6], 10.0);
                assert!((1..=8).contains(&axis.ticks.len()), "{most}: {:?}", axis.ticks);
            }
        }
    }
}
