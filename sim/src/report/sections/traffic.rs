//! What crossed which line: over time for the origin and the busiest sites, and from site to site.

use maud::html;

use super::{Section, filled, shown};
use crate::report::{
    axis::Axis,
    bins::Bins,
    chart::{Chart, Look, Series},
    gather::Gathered,
    group::{Detail, Group},
    heat::{Heat, key},
    unit::Unit,
};

/// Lines over time.
pub fn lines(gathered: &Gathered) -> Option<Section> {
    let plots: Vec<Chart> = gathered
        .detailed()
        .enumerate()
        .filter_map(|(at, group)| Some(line_plot(at, group, group.detail.as_ref()?)))
        .filter(|chart| !chart.series.is_empty())
        .collect();
    let body = html! {
        p {
            "Blobs over the lines of the origin's site and of the busiest others, out and in."
            (shown(gathered, "Of each system the first seed is shown."))
        }
        div class="plots" { @for plot in &plots { (plot.draw()) } }
    };
    let title = "Traffic of lines over time";
    filled(Section { id: "traffic", short: "Lines", title, alarm: false, body }, plots.len())
}

fn line_plot(at: usize, group: &Group, detail: &Detail) -> Chart {
    let origin = group.first.origin();
    let rates = |bins: &Bins| -> Vec<(f64, f64)> {
        let points = bins.points().map(|(from, bytes)| (from, bytes * 8.0 / bins.width()));
        points.collect()
    };
    let mut sites: Vec<u64> = detail.traffic.keys().copied().collect();
    // The origin first, the others by name of the file's order.
    sites.sort_by_key(|site| (Some(*site) != origin, *site));
    let mut series = vec![];
    for site in sites {
        let Some((out, into)) = detail.traffic.get(&site) else { continue };
        let name = group.first.site(site);
        let is_origin = Some(site) == origin;
        let mut draw = |bins: &Bins, way: &str, look| {
            if bins.used() {
                let name =
                    if is_origin { format!("{name} (origin), {way}") } else { format!("{name}, {way}") };
                let colour = series.iter().filter(|s: &&Series| s.look == Look::Step).count();
                let colour = if look == Look::Dashed { colour.saturating_sub(1) } else { colour };
                series.push(Series { name, colour, look, points: rates(bins) });
            }
        };
        if is_origin {
            draw(out, "out", Look::Step);
        } else {
            draw(into, "in", Look::Step);
            draw(out, "out", Look::Dashed);
        }
    }
    let most = series.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.0, f64::max);
    Chart {
        id: format!("traffic-{at}"),
        title: format!("Lines: {}", group.system),
        description: format!(
            "{}: the busiest of these lines carried {} at most.",
            group.system,
            Unit::Rate.text(most)
        ),
        x: Axis::linear("time", Unit::Seconds, [group.first.busy_until]),
        y: Axis::linear("rate", Unit::Rate, [most]),
        series,
        marks: vec![],
    }
}

/// From site to site.
pub fn matrix(gathered: &Gathered) -> Option<Section> {
    let groups: Vec<(&Group, &Detail)> =
        gathered.detailed().filter_map(|group| Some((group, group.detail.as_ref()?))).collect();
    let groups: Vec<(&Group, &Detail)> =
        groups.into_iter().filter(|(_, detail)| detail.matrix.most() > 0.0).collect();
    let most = groups.iter().map(|(_, detail)| detail.matrix.most()).fold(0.0, f64::max);
    let together = groups.iter().map(|(_, detail)| detail.matrix.together).max().unwrap_or(1);
    let body = html! {
        p {
            "Bytes of blobs from each site to each other in all of the run; the diagonal is what stayed within a site."
            @if together > 1 { " " (together) " sites that follow one another share a row; the origin has its own." }
            (shown(gathered, "Of each system the first seed is shown."))
        }
        div class="plots" {
            @for (at, (group, detail)) in groups.iter().enumerate() {
                (Heat {
                    id: format!("matrix-{at}"),
                    title: format!("From site to site: {}", group.system),
                    names: &detail.matrix.names,
                    cells: &detail.matrix.cells,
                    most,
                }.draw())
            }
        }
        (key(most))
    };
    let title = "Bytes from site to site";
    filled(Section { id: "matrix", short: "Site to site", title, alarm: false, body }, groups.len())
}
