//! What happens as there are more nodes: completion time and what leaves the origin, over the number in `nodes=…`.

use std::collections::BTreeMap;

use maud::html;

use super::{Section, filled};
use crate::report::{
    axis::Axis,
    chart::{Chart, Look, Series},
    gather::Gathered,
    group::Group,
    unit::Unit,
};

/// Combinations of what else was varied that get plots.
const COMBINATIONS_MAX: usize = 6;
/// Numbers that lie further apart are drawn in factors.
const WIDE: f64 = 25.0;

/// Where the number of nodes was varied.
pub fn section(gathered: &Gathered) -> Option<Section> {
    let mut combinations: BTreeMap<String, Vec<(f64, &Group)>> = BTreeMap::new();
    for group in &gathered.groups {
        if let Some((nodes, rest)) = nodes_of(&group.variant) {
            combinations.entry(rest).or_default().push((nodes, group));
        }
    }
    combinations.retain(|_, points| points.iter().any(|point| point.0 != points[0].0));
    let all = combinations.len();
    let plots: Vec<Chart> = combinations
        .iter()
        .take(COMBINATIONS_MAX)
        .enumerate()
        .flat_map(|(at, (rest, points))| {
            [time(gathered, at, rest, points), egress(gathered, at, rest, points)]
        })
        .flatten()
        .collect();
    let body = html! {
        p {
            "Sharing that works takes about as long for many nodes as for few, and leaves the origin about once."
            @if all > COMBINATIONS_MAX { " The first " (COMBINATIONS_MAX) " of " (all) " combinations are shown; the table has all." }
        }
        div class="plots" { @for plot in &plots { (plot.draw()) } }
    };
    let title = "More nodes";
    filled(Section { id: "growth", short: "More nodes", title, alarm: false, body }, plots.len())
}

/// The number in the part `nodes=…` of a variant, and the other parts.
fn nodes_of(variant: &str) -> Option<(f64, String)> {
    let parts: Vec<&str> =
        variant.split([',', ';', ' ', '/']).map(str::trim).filter(|part| !part.is_empty()).collect();
    let nodes = parts.iter().find_map(|part| part.strip_prefix("nodes=")?.parse::<f64>().ok())?;
    let rest: Vec<&str> = parts.into_iter().filter(|part| !part.starts_with("nodes=")).collect();
    Some((nodes, rest.join(", "))).filter(|(nodes, _)| nodes.is_finite())
}

fn titled(title: &str, rest: &str) -> String {
    if rest.is_empty() { title.to_owned() } else { format!("{title}, {rest}") }
}

fn time(gathered: &Gathered, at: usize, rest: &str, points: &[(f64, &Group)]) -> Option<Chart> {
    let mut series = by_system(gathered, points, |group| group.completion.at(0.99));
    let mut least: Vec<(f64, f64)> =
        points.iter().filter_map(|(nodes, group)| Some((*nodes, group.bound()?.seconds))).collect();
    least.dedup_by(|a, b| a.0 == b.0);
    if !least.is_empty() {
        // Grey: the colour after those of the systems.
        series.push(Series { name: "T_min".into(), colour: 7, look: Look::Dashed, points: least });
    }
    let values = series.iter().flat_map(|series| &series.points).map(|point| point.1);
    let y = Axis::log_where_wide("completion time, p99", Unit::Seconds, values, WIDE);
    chart(series, points, y, format!("growth-time-{at}"), titled("Completion time (p99)", rest))
}

fn egress(gathered: &Gathered, at: usize, rest: &str, points: &[(f64, &Group)]) -> Option<Chart> {
    let series = by_system(gathered, points, Group::origin_bytes);
    let values = series.iter().flat_map(|series| &series.points).map(|point| point.1);
    let y = Axis::log_where_wide("bytes out of the origin's site", Unit::Bytes, values, WIDE);
    chart(series, points, y, format!("growth-egress-{at}"), titled("Origin egress", rest))
}

fn chart(series: Vec<Series>, points: &[(f64, &Group)], y: Axis, id: String, title: String) -> Option<Chart> {
    let x = Axis::log_where_wide("nodes", Unit::Count, points.iter().map(|point| point.0), WIDE);
    let described: Vec<String> = series
        .iter()
        .filter_map(|series| {
            let (first, last) = (series.points.first()?, series.points.last()?);
            let (from, to) = (y.text(first.1), y.text(last.1));
            Some(format!(
                "{}: {from} with {} nodes, {to} with {}.",
                series.name,
                x.text(first.0),
                x.text(last.0)
            ))
        })
        .collect();
    let chart = Chart { id, title, description: described.join(" "), x, y, series, marks: vec![] };
    (!described.is_empty()).then_some(chart)
}

fn by_system(
    gathered: &Gathered,
    points: &[(f64, &Group)],
    value: impl Fn(&Group) -> Option<f64>,
) -> Vec<Series> {
    let of = |system: &String| -> Vec<(f64, f64)> {
        let own = points.iter().filter(|(_, group)| &group.system == system);
        let mut own: Vec<(f64, f64)> =
            own.filter_map(|(nodes, group)| Some((*nodes, value(group)?))).collect();
        own.sort_by(|a, b| a.0.total_cmp(&b.0));
        own
    };
    gathered
        .systems
        .iter()
        .enumerate()
        .map(|(colour, system)| Series {
            name: system.clone(),
            colour,
            look: Look::Dotted,
            points: of(system),
        })
        .filter(|series| !series.points.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_nodes_is_taken_out_of_a_variant() {
        assert_eq!(nodes_of("nodes=500"), Some((500.0, String::new())));
        assert_eq!(nodes_of("sites=4, nodes=10,uplink=50"), Some((10.0, "sites=4, uplink=50".to_owned())));
        assert_eq!(nodes_of("uplink=50"), None);
        assert_eq!(nodes_of("nodes=many"), None);
        assert_eq!(nodes_of("nodes=inf"), None);
    }
}
