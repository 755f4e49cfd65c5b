//! How soon nodes hear of what is published, and how far catalogs are apart.

use maud::{Markup, html};

use super::{Section, filled, shown, table};
use crate::report::{
    axis::Axis,
    chart::{Chart, Look, Series, apart, share_axis, thin},
    gather::Gathered,
    group::Group,
    unit::{Unit, count},
};

/// Parts of an axis that a reader can tell apart.
const PARTS: f64 = 180.0;
/// Times that lie further apart are drawn in factors.
const WIDE: f64 = 15.0;
/// How many knew.
const SHARES: [&str; 3] = ["half", "99 %", "all"];

/// Where publications or catalogs were watched.
pub fn section(gathered: &Gathered) -> Option<Section> {
    let mut plots: Vec<Chart> = gathered
        .detailed()
        .enumerate()
        .filter(|(_, group)| group.spread.iter().any(|quantiles| quantiles.count() > 0))
        .map(|(at, group)| spread(at, group))
        .collect();
    plots.extend(staleness(gathered));
    let published = gathered.groups.iter().any(|group| group.published > 0);
    let body = html! {
        p {
            "Spread: the share of the publications of which half, 99 % and all of the nodes within reach had heard after a time. "
            "Staleness: the share of the running nodes that lacked any record that counts, the worst in each part of the run."
            (shown(gathered, "All seeds are taken together."))
        }
        div class="plots" { @for plot in &plots { (plot.draw()) } }
        @if published { (numbers(gathered)) }
    };
    let title = "Spread of publications and staleness of catalogs";
    filled(Section { id: "spread", short: "Spread", title, alarm: false, body }, plots.len())
}

fn spread(at: usize, group: &Group) -> Chart {
    let values: Vec<f64> = group.spread.iter().flat_map(|q| [q.at(0.01), q.most()]).flatten().collect();
    let x = Axis::log_where_wide("time after publication", Unit::Seconds, values, WIDE);
    let series = group
        .spread
        .iter()
        .enumerate()
        .filter(|(_, quantiles)| quantiles.count() > 0)
        .map(|(colour, quantiles)| {
            let steps =
                quantiles.steps().map(|(value, sum)| (value, sum as f64 / group.published.max(1) as f64));
            let start = quantiles.least().map(|least| (least, 0.0));
            let points = thin(start.into_iter().chain(steps), apart(&x, PARTS), 1.0 / PARTS);
            Series { name: format!("{} knew", SHARES[colour]), colour, look: Look::Step, points }
        })
        .collect();
    Chart {
        id: format!("spread-{at}"),
        title: format!("Spread of publications: {}", group.system),
        description: format!(
            "{}: the median publication was known to 99 % of the nodes after {}.",
            group.system,
            group.spread[1]
                .at(0.5)
                .map_or_else(|| "no time that was measured".to_owned(), |s| Unit::Seconds.text(s)),
        ),
        x,
        y: share_axis("publications"),
        series,
        marks: vec![],
    }
}

fn staleness(gathered: &Gathered) -> Option<Chart> {
    let groups: Vec<&Group> = gathered
        .detailed()
        .filter(|group| group.detail.as_ref().is_some_and(|detail| detail.behind.used()))
        .collect();
    let series: Vec<Series> = groups
        .iter()
        .filter_map(|group| {
            let points = group.detail.as_ref()?.behind.points().collect();
            let colour = gathered.colour(&group.system);
            Some(Series { name: group.system.clone(), colour, look: Look::Step, points })
        })
        .collect();
    let most = series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max);
    let end = groups.iter().map(|group| group.first.end).fold(0.0, f64::max);
    let chart = Chart {
        id: "staleness".into(),
        title: "Staleness of catalogs".into(),
        description: format!(
            "At the worst time {} of the running nodes lacked something.",
            Unit::Share.text(most)
        ),
        x: Axis::linear("time", Unit::Seconds, [end]),
        y: Axis::linear("nodes behind", Unit::Share, [most]),
        series,
        marks: vec![],
    };
    (!chart.series.is_empty()).then_some(chart)
}

fn numbers(gathered: &Gathered) -> Markup {
    let rows = html! {
        @for group in gathered.groups.iter().filter(|group| group.published > 0) {
            @for (share, quantiles) in SHARES.iter().zip(&group.spread) {
                tr {
                    th scope="row" { (group.name()) }
                    td { (share) }
                    @for at in [0.5, 0.9, 0.99, 1.0] {
                        td class="n" { (quantiles.at(at).map_or_else(|| "–".to_owned(), |value| Unit::Seconds.text(value))) }
                    }
                    td class="n" { (count(group.published - quantiles.count().min(group.published))) }
                }
            }
        }
    };
    table(
        "Until so many nodes knew of a publication",
        &["System", "Nodes that knew", "p50", "p90", "p99", "max", "Publications that never did"],
        rows,
    )
}
