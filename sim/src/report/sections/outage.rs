//! For planners: what fails when the cloud is away, by the hours that it has been away.

use maud::{Markup, html};

use super::{Section, filled, shown, table};
use crate::report::{
    axis::Axis,
    chart::{Chart, Look, Series},
    gather::Gathered,
    group::{Detail, Group},
    unit::{Unit, count},
};

/// Where pulls did not end, or availability was measured, or an outage began.
pub fn section(gathered: &Gathered) -> Option<Section> {
    let wanted = gathered.detailed().any(|group| {
        let measured = group.figures.keys().any(|name| name.starts_with("availability"));
        group.failed > 0 || measured || group.first.outage_from.is_some()
    });
    if !wanted {
        return None;
    }
    let plots: Vec<Chart> = gathered
        .detailed()
        .enumerate()
        .filter_map(|(at, group)| Some(plot(at, group, group.detail.as_ref()?)))
        .filter(|chart| !chart.series.is_empty())
        .collect();
    let known = gathered.detailed().any(|group| group.first.outage_from.is_some());
    let body = html! {
        p {
            "Pulls by when they were asked for: those that ended, and those that had not when the run was over."
            @if !known { " When the cloud went away is not among the measurements: hours count from the begin of the run. The scenario outage tells." }
            (shown(gathered, "All seeds are added up."))
        }
        div class="plots" { @for plot in &plots { (plot.draw()) } }
        (availability(gathered))
    };
    let section = Section {
        id: "outage",
        short: "Without the cloud",
        title: "What fails when the cloud is away",
        alarm: false,
        body,
    };
    let any =
        gathered.detailed().any(|group| group.figures.keys().any(|name| name.starts_with("availability")));
    filled(section, plots.len() + usize::from(any))
}

fn plot(at: usize, group: &Group, detail: &Detail) -> Chart {
    let (served, failed) = &detail.served;
    let begin = served.points().next().map_or(0.0, |point| point.0);
    let series = [(served, "ended", 2), (failed, "did not end", 1)]
        .into_iter()
        .filter(|(bins, ..)| bins.used())
        .map(|(bins, name, colour)| Series {
            name: format!("{name}: {}", count(bins.total() as u64)),
            colour,
            look: Look::Columns,
            points: bins.points().map(|(from, sum)| (from - begin, sum)).collect(),
        })
        .collect::<Vec<_>>();
    let parts = served.points().count() as f64;
    let most = served.points().zip(failed.points()).map(|(a, b)| a.1 + b.1).fold(0.0, f64::max);
    let label = if detail.outage_known { "since the cloud went away" } else { "since the run began" };
    Chart {
        id: format!("outage-{at}"),
        title: format!("Pulls asked for: {}", group.system),
        description: format!(
            "{}: {} pulls ended, {} did not.",
            group.system,
            count(served.total() as u64),
            count(failed.total() as u64)
        ),
        x: Axis::linear(label, Unit::Seconds, [parts * served.width()]),
        y: Axis::linear(&format!("pulls in {}", Unit::Seconds.text(served.width())), Unit::Count, [most]),
        series,
        marks: vec![],
    }
}

fn availability(gathered: &Gathered) -> Markup {
    let mut any = false;
    let rows = html! {
        @for group in &gathered.groups {
            @for (name, figure) in group.figures.iter().filter(|(name, _)| name.starts_with("availability")) {
                @let _ = any = true;
                tr {
                    th scope="row" { (group.name()) }
                    td { (name) }
                    td class="n" {
                        @if figure.count > 0 {
                            @let mean = figure.sum / figure.count as f64;
                            (if mean <= 1.0 { Unit::Share.text(mean) } else { Unit::Count.text(mean) })
                        }
                    }
                    td class="words" { (figure.words.iter().cloned().collect::<Vec<_>>().join("; ")) }
                }
            }
        }
    };
    html! {
        @if any { (table("Availability, mean of the seeds", &["System", "What", "How much", "Words"], rows)) }
    }
}
