//! Two results side by side: runs of the same variant and seed are pairs, and their differences say more than the
//! two means do. Reads summaries only.

use crate::summary::{Metric, Row, Table, aligned, bootstrap, mean};

/// A figure of one variant in both.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Which variant.
    pub variant: String,
    /// Of which systems.
    pub systems: String,
    /// Which figure.
    pub metric: Metric,
    /// Pairs of runs.
    pub pairs: usize,
    /// Mean of the first.
    pub a: f64,
    /// Mean of the second.
    pub b: f64,
    /// Where the mean of the differences (b - a) lies with 95 % confidence.
    pub interval: (f64, f64),
}

impl Difference {
    /// Whether the interval leaves out zero: -1 less, 1 more, 0 cannot be told.
    pub fn sign(&self) -> i8 {
        if self.interval.1 < 0.0 { -1 } else { i8::from(self.interval.0 > 0.0) }
    }
}

/// All figures of all pairs. A side is a table and, where only one system of it is meant, that system's name.
pub fn compare(
    (a, system_a): &(Table, Option<String>),
    (b, system_b): &(Table, Option<String>),
    metrics: &[Metric],
) -> Vec<Difference> {
    let mut differences = vec![];
    for row in a.rows().filter(|row| system_a.as_ref().is_none_or(|system| row.system == *system)) {
        let other = match (system_a, system_b) {
            (_, Some(system)) => system.clone(),
            _ => row.system.clone(),
        };
        if system_b.is_some() && system_a.is_none() && row.system != other {
            continue;
        }
        for metric in metrics {
            let pairs: Vec<(f64, f64)> = a
                .runs()
                .filter(|run| (&run.variant, &run.system) == (&row.variant, &row.system))
                .filter_map(|run| {
                    let twin = Row { system: other.clone(), ..run.clone() };
                    Some((a.get(run, metric)?, b.get(&twin, metric)?))
                })
                .filter(|(a, b)| a.is_finite() && b.is_finite())
                .collect();
            differences.extend(difference(row, &other, metric, &pairs));
        }
    }
    differences
}

fn difference(row: &Row, other: &str, metric: &Metric, pairs: &[(f64, f64)]) -> Option<Difference> {
    if pairs.is_empty() {
        return None;
    }
    let apart: Vec<f64> = pairs.iter().map(|(a, b)| b - a).collect();
    let side = |which: fn(&(f64, f64)) -> f64| mean(&pairs.iter().map(which).collect::<Vec<_>>());
    Some(Difference {
        variant: row.variant.clone(),
        systems: if row.system == other { other.to_owned() } else { format!("{} : {other}", row.system) },
        metric: metric.clone(),
        pairs: pairs.len(),
        a: side(|pair| pair.0),
        b: side(|pair| pair.1),
        interval: bootstrap(&apart),
    })
}

/// As a table.
pub fn text(differences: &[Difference]) -> String {
    let head = ["variant", "system", "metric", "pairs", "A", "B", "difference", "from", "to", ""];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for d in differences {
        let show = |value: f64| {
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{}", d.metric.unit().show(value.abs()))
        };
        lines.push(vec![
            if d.variant.is_empty() { "-".to_owned() } else { d.variant.clone() },
            d.systems.clone(),
            d.metric.to_string(),
            d.pairs.to_string(),
            show(d.a),
            show(d.b),
            show(d.b - d.a),
            show(d.interval.0),
            show(d.interval.1),
            match d.sign() {
                -1 => "less".to_owned(),
                1 => "more".to_owned(),
                _ => "cannot be told".to_owned(),
            },
        ]);
    }
    aligned(&lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::{Measurement, RunId};

    fn pulls(system: &str, seconds: impl Fn(u64) -> f64) -> Vec<Measurement> {
        let pull = |seed: u64| Measurement::Pull {
            run: RunId { system: system.to_owned(), seed, variant: String::new() },
            artifact: 0,
            bytes: 10,
            site: 1,
            node: 0,
            asked: 5.0,
            first_byte: None,
            done: Some(5.0 + seconds(seed)),
        };
        (1..=10).map(pull).collect()
    }

    #[test]
    fn pairs_show_what_means_do_not() {
        // Seeds differ by seconds, the systems by a tenth.
        let (slow, fast) = (pulls("x", |seed| seed as f64), pulls("x", |seed| seed as f64 - 0.1));
        let (slow, fast) = ((Table::of(&slow), None), (Table::of(&fast), None));
        let found = compare(&slow, &fast, &["p50".parse().unwrap()]);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].pairs, found[0].sign()), (10, -1));
        assert!((found[0].interval.0 + 0.1).abs() < 1e-9 && (found[0].interval.1 + 0.1).abs() < 1e-9);
        assert!(text(&found).contains("-100.0 ms"), "{}", text(&found));
    }

    #[test]
    fn what_goes_either_way_cannot_be_told() {
        let (a, b) = (pulls("x", |_| 2.0), pulls("y", |seed| if seed % 2 == 0 { 1.0 } else { 3.0 }));
        let side = |pulls, system: &str| (Table::of(pulls), Some(system.to_owned()));
        let found = compare(&side(&a, "x"), &side(&b, "y"), &["max".parse().unwrap()]);
        assert_eq!((found[0].sign(), found[0].systems.as_str()), (0, "x : y"));
        assert!(found[0].interval.0 < -0.3 && found[0].interval.1 > 0.3, "{:?}", found[0].interval);
    }
}
