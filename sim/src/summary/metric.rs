//! Figures by name, as expectations and comparisons ask for them, and their units. What their values are is
//! [`crate::summary`]'s.

use std::{fmt, str::FromStr};

use waystation_topology::Time;

/// A part of the population, as `p99.9` says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quantile(pub f64);

/// A figure that can be asked for by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Metric {
    /// How long pulls took.
    Completion(Quantile),
    /// The same over the least time.
    Ratio(Quantile),
    /// Until the first byte.
    FirstByte(Quantile),
    /// How long pulls took on average.
    Mean,
    /// Part of the pulls that ended.
    Done,
    /// Bytes that the origin sent over the bytes of what was pulled.
    OriginCopies,
    /// Bytes into a site over the bytes of what was pulled there; the worst site.
    SiteCopies,
    /// Bytes of the control plane for each node and hour.
    Control,
    /// Bytes of the control plane for each node in all of a run.
    ControlPerNode,
    /// When some node last knew less than others did.
    BehindUntil,
    /// Until half of the nodes knew of a publication; the slowest publication.
    SpreadHalf,
    /// Until 99 % knew; the slowest publication.
    SpreadMost,
    /// Until all knew; the slowest publication.
    SpreadAll,
    /// Nodes that did not know of a publication in the end.
    Missed,
    /// Promises broken.
    Violations,
    /// How much less time pulls took on average than where everybody pulls from the origin, over what one copy for
    /// each site would save: 1 - 1/n with n nodes that pull at a site.
    SavingOfIdeal,
    /// Any other figure: the largest of all runs.
    Figure(String),
}

/// In what a figure is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// A part of a whole.
    Share,
    /// A number.
    Number,
}

impl Unit {
    /// A value of this unit for people.
    pub fn show(self, value: f64) -> String {
        match self {
            _ if value.is_infinite() => "never".to_owned(),
            Unit::Seconds if value >= 120.0 => {
                rounded(Time::from_micros((value * 1e3).round() as u64 * 1000))
            }
            Unit::Seconds if value < 1.0 => format!("{:.1} ms", value * 1e3),
            Unit::Seconds => format!("{value:.3} s"),
            Unit::Bytes => bytes(value),
            Unit::Share => format!("{:.2} %", value * 100.0),
            Unit::Number if value == value.round() => format!("{value:.0}"),
            Unit::Number => format!("{value:.3}"),
        }
    }
}

fn rounded(time: Time) -> String {
    let seconds = time.seconds();
    match seconds {
        s if s < 7_200.0 => format!("{:.1} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.1} h", s / 3600.0),
        s => format!("{:.1} d", s / 86_400.0),
    }
}

/// Bytes with three digits and a unit.
pub fn bytes(value: f64) -> String {
    let units = ["B", "kB", "MB", "GB", "TB", "PB"];
    let (mut value, mut unit) = (value, 0);
    while value >= 999.5 && unit + 1 < units.len() {
        (value, unit) = (value / 1000.0, unit + 1);
    }
    match value {
        v if unit == 0 || v >= 99.95 => format!("{v:.0} {}", units[unit]),
        v if v >= 9.995 => format!("{v:.1} {}", units[unit]),
        v => format!("{v:.2} {}", units[unit]),
    }
}

impl Metric {
    /// What its values are in.
    pub fn unit(&self) -> Unit {
        match self {
            Metric::Completion(_)
            | Metric::Mean
            | Metric::BehindUntil
            | Metric::FirstByte(_)
            | Metric::SpreadHalf
            | Metric::SpreadMost
            | Metric::SpreadAll => Unit::Seconds,
            Metric::Control | Metric::ControlPerNode => Unit::Bytes,
            Metric::Done | Metric::SavingOfIdeal => Unit::Share,
            _ => Unit::Number,
        }
    }
}

/// No figure has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "there is no metric \"{0}\"; write p50, p99, p99.9 or any other percentile, max, ratio-p99, first-byte-p50, done, \
     mean, origin-copies, site-copies, control-per-node-hour, control-per-node, behind-until, spread-half, spread-99, spread-all, missed, violations, \
     saving-of-ideal, or figure:NAME"
)]
pub struct MetricError(String);

impl FromStr for Metric {
    type Err = MetricError;

    fn from_str(text: &str) -> Result<Self, MetricError> {
        let fixed = match text {
            "mean" => Metric::Mean,
            "done" => Metric::Done,
            "origin-copies" => Metric::OriginCopies,
            "site-copies" => Metric::SiteCopies,
            "control-per-node-hour" => Metric::Control,
            "control-per-node" => Metric::ControlPerNode,
            "behind-until" => Metric::BehindUntil,
            "spread-half" => Metric::SpreadHalf,
            "spread-99" => Metric::SpreadMost,
            "spread-all" => Metric::SpreadAll,
            "missed" => Metric::Missed,
            "violations" => Metric::Violations,
            "saving-of-ideal" => Metric::SavingOfIdeal,
            text => {
                let part = |text: &str| text.parse().map_err(|()| MetricError(text.to_owned()));
                return match (text.strip_prefix("figure:"), text.split_once('-')) {
                    (Some(name), _) => Ok(Metric::Figure(name.to_owned())),
                    (None, Some(("ratio", rest))) => part(rest).map(Metric::Ratio),
                    (None, Some(("first", rest))) => {
                        part(rest.strip_prefix("byte-").unwrap_or(text)).map(Metric::FirstByte)
                    }
                    _ => part(text).map(Metric::Completion),
                };
            }
        };
        Ok(fixed)
    }
}

impl FromStr for Quantile {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        if text == "max" {
            return Ok(Quantile(1.0));
        }
        let percent: f64 = text.strip_prefix('p').and_then(|number| number.parse().ok()).ok_or(())?;
        if (0.0..=100.0).contains(&percent) { Ok(Quantile(percent / 100.0)) } else { Err(()) }
    }
}

impl fmt::Display for Quantile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 1.0 {
            return f.write_str("max");
        }
        let percent = format!("{:.3}", self.0 * 100.0);
        write!(f, "p{}", percent.trim_end_matches('0').trim_end_matches('.'))
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Metric::Completion(quantile) => write!(f, "{quantile}"),
            Metric::Ratio(quantile) => write!(f, "ratio-{quantile}"),
            Metric::FirstByte(quantile) => write!(f, "first-byte-{quantile}"),
            Metric::Mean => f.write_str("mean"),
            Metric::ControlPerNode => f.write_str("control-per-node"),
            Metric::BehindUntil => f.write_str("behind-until"),
            Metric::Done => f.write_str("done"),
            Metric::OriginCopies => f.write_str("origin-copies"),
            Metric::SiteCopies => f.write_str("site-copies"),
            Metric::Control => f.write_str("control-per-node-hour"),
            Metric::SpreadHalf => f.write_str("spread-half"),
            Metric::SpreadMost => f.write_str("spread-99"),
            Metric::SpreadAll => f.write_str("spread-all"),
            Metric::Missed => f.write_str("missed"),
            Metric::Violations => f.write_str("violations"),
            Metric::SavingOfIdeal => f.write_str("saving-of-ideal"),
            Metric::Figure(name) => write!(f, "figure:{name}"),
        }
    }
}
