//! How long pulls took: a curve for each system, with what no system can beat.

use maud::html;

use super::{Section, filled};
use crate::report::{
    axis::Axis,
    chart::{Chart, Look, Series, apart, share_axis, thin},
    gather::Gathered,
    group::Group,
    unit::Unit,
};

/// Variants that get a plot.
const PLOTS_MAX: usize = 6;
/// Parts of an axis that a reader can tell apart.
const PARTS: f64 = 180.0;
/// Times that lie further apart are drawn in factors.
const WIDE: f64 = 15.0;

/// A plot for some of the variants, always the first and the last.
pub fn section(gathered: &Gathered) -> Option<Section> {
    let mut variants: Vec<&str> = gathered
        .groups
        .iter()
        .filter(|group| group.completion.count() > 0)
        .map(|group| group.variant.as_str())
        .collect();
    variants.dedup();
    let all = variants.len();
    let shown = spaced(all, PLOTS_MAX);
    let plots: Vec<Chart> = shown.iter().map(|at| plot(gathered, *at, variants[*at])).collect();
    let body = html! {
        p {
            "The share of the pulls that had ended after a time. The upright line is T_min: no way of sharing can have all nodes served sooner."
            @if all > PLOTS_MAX { " " (PLOTS_MAX) " of " (all) " variants are shown; the table has all." }
        }
        div class="plots" { @for plot in &plots { (plot.draw()) } }
    };
    let title = "How long pulls took";
    filled(Section { id: "completion", short: "Completion", title, alarm: false, body }, plots.len())
}

/// So many of `count` places, evenly, with both ends.
fn spaced(count: usize, most: usize) -> Vec<usize> {
    if count <= most {
        return (0..count).collect();
    }
    (0..most).map(|n| n * (count - 1) / (most - 1)).collect()
}

fn plot(gathered: &Gathered, number: usize, variant: &str) -> Chart {
    let of_it = |group: &&Group| group.variant == variant && group.completion.count() > 0;
    let groups: Vec<&Group> = gathered.groups.iter().filter(of_it).collect();
    let mut bounds: Vec<f64> =
        groups.iter().filter_map(|group| group.bound()).map(|bound| bound.seconds).collect();
    bounds.sort_by(f64::total_cmp);
    bounds.dedup_by(|a, b| *a <= *b * 1.005);
    // A few that ended at once must not stretch an axis of factors.
    let ends = groups.iter().flat_map(|group| [group.completion.at(0.01), group.completion.most()]).flatten();
    let values: Vec<f64> = ends.chain(bounds.iter().copied().filter(|seconds| *seconds > 0.0)).collect();
    let x = Axis::log_where_wide("time after asking", Unit::Seconds, values, WIDE);
    let series = groups
        .iter()
        .map(|group| {
            let all = (group.completion.count() + group.failed) as f64;
            let steps = group.completion.steps().map(|(value, sum)| (value, sum as f64 / all));
            let start = group.completion.least().map(|least| (least, 0.0));
            let points = thin(start.into_iter().chain(steps), apart(&x, PARTS), 1.0 / PARTS);
            let name = match group.completion.at(0.99) {
                Some(p99) => format!("{} (p99 {})", group.system, Unit::Seconds.text(p99)),
                None => group.system.clone(),
            };
            Series { name, colour: gathered.colour(&group.system), look: Look::Step, points }
        })
        .collect();
    let largest = groups.iter().any(|group| group.first.bounds.len() > 1);
    let word = if largest { "T_min of the largest" } else { "T_min" };
    let described: Vec<String> = groups.iter().map(|group| described(group)).collect();
    Chart {
        id: format!("completion-{number}"),
        title: if variant.is_empty() {
            "Completion time".into()
        } else {
            format!("Completion time, {variant}")
        },
        description: described.join(" "),
        x,
        y: share_axis("pulls that ended"),
        series,
        marks: bounds.into_iter().take(3).map(|s| (s, format!("{word} {}", Unit::Seconds.text(s)))).collect(),
    }
}

fn described(group: &Group) -> String {
    let text = |share| group.completion.at(share).map_or_else(String::new, |value| Unit::Seconds.text(value));
    format!("{}: half ended within {}, 99 % within {}.", group.system, text(0.5), text(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_variants_the_ends_are_shown() {
        assert_eq!(spaced(3, 6), [0, 1, 2]);
        assert_eq!(spaced(36, 6), [0, 7, 14, 21, 28, 35]);
    }
}
