//! For planners: how fast the tightest cut has to be for a rollout to be over in time.
//!
//! Over a cut, T_min is bytes over rate. So for a deadline d the rate must be bytes / d at least; a system whose p99
//! is r times T_min needs r times that. The points are what was simulated: the p99 of each run's group beside the
//! rate that its cut had.

use maud::{Markup, html};

use super::{Section, filled, table};
use crate::report::{
    axis::Axis,
    chart::{Chart, Look, Series},
    gather::Gathered,
    group::Group,
    outline::Bound,
    unit::Unit,
};

/// Deadlines in the table, in seconds.
const DEADLINES: [f64; 9] = [10.0, 60.0, 300.0, 900.0, 3600.0, 14_400.0, 43_200.0, 86_400.0, 604_800.0];
/// Points of a curve: it is straight where both axes are in factors.
const POINTS: usize = 24;

/// Where bounds are known.
pub fn section(gathered: &Gathered) -> Option<Section> {
    let bound =
        gathered.detailed().find_map(Group::bound).filter(|bound| bound.seconds > 0.0 && bound.bytes > 0)?;
    let plot = plot(gathered, bound);
    let body = html! {
        p {
            "For " strong { (Unit::Bytes.text(bound.bytes as f64)) } " and the tightest cut (" (bound.cut)
            "): what that cut has to carry so that a rollout to all nodes is over by a deadline. Below the dashed line nothing can be in time. "
            "Points are what was simulated: the time within which 99 % of the pulls ended, beside the rate that the cut had."
        }
        div class="plots one" { (plot.draw()) (deadlines(gathered, bound)) }
    };
    let title = "Uplink needed for a rollout deadline";
    filled(Section { id: "uplink", short: "Uplink and deadline", title, alarm: false, body }, 1)
}

/// Bits per second for a deadline.
fn rate(bytes: u64, deadline: f64) -> f64 {
    bytes as f64 * 8.0 / deadline
}

fn plot(gathered: &Gathered, bound: &Bound) -> Chart {
    let points: Vec<Series> = gathered
        .systems
        .iter()
        .enumerate()
        .filter_map(|(colour, system)| {
            let groups = gathered.groups.iter().filter(|group| &group.system == system);
            let mut points: Vec<(f64, f64)> =
                groups.filter_map(|group| simulated(group, bound.bytes)).collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
            let name = format!("{system}, simulated");
            (!points.is_empty()).then_some(Series { name, colour, look: Look::Points, points })
        })
        .collect();
    let times = || points.iter().flat_map(|series| &series.points).map(|point| point.0);
    let from = times().fold(bound.seconds, f64::min) / 2.0;
    let to = times().fold(bound.seconds * 20.0, f64::max) * 2.0;
    let steps = (0..=POINTS).map(|n| from * libm::pow(to / from, n as f64 / POINTS as f64));
    let least: Vec<(f64, f64)> = steps.map(|deadline| (deadline, rate(bound.bytes, deadline))).collect();
    let x = Axis::log_where_wide("deadline", Unit::Seconds, least.iter().map(|point| point.0), 2.0);
    let rates = least.iter().map(|point| point.1).chain(points.iter().flat_map(|s| &s.points).map(|p| p.1));
    let y = Axis::log_where_wide("rate of the cut", Unit::Rate, rates, 2.0);
    let mut series = vec![Series {
        name: "the least that any system needs".into(),
        colour: 7,
        look: Look::Dashed,
        points: least,
    }];
    series.extend(points);
    Chart {
        id: "uplink-plot".into(),
        title: "Rate against deadline".into(),
        description: format!(
            "To have {} everywhere within {}, the cut must carry at least {}; half the time needs twice the rate.",
            Unit::Bytes.text(bound.bytes as f64),
            Unit::Seconds.text(bound.seconds),
            Unit::Rate.text(rate(bound.bytes, bound.seconds)),
        ),
        x,
        y,
        series,
        marks: vec![],
    }
}

/// Time and rate of a group, where it is about as many bytes.
fn simulated(group: &Group, bytes: u64) -> Option<(f64, f64)> {
    let bound = group.bound().filter(|bound| bound.bytes == bytes && bound.seconds > 0.0)?;
    Some((bound.seconds * group.ratio.at(0.99)?, rate(bound.bytes, bound.seconds)))
}

fn deadlines(gathered: &Gathered, bound: &Bound) -> Markup {
    let systems: Vec<(&str, f64)> = gathered
        .detailed()
        .filter_map(|group| Some((group.system.as_str(), group.ratio.at(0.99)?)))
        .collect();
    let head: Vec<&str> =
        ["Deadline", "Any system"].into_iter().chain(systems.iter().map(|system| system.0)).collect();
    let near = |deadline: &&f64| (bound.seconds / 20.0..=bound.seconds * 2000.0).contains(*deadline);
    let rows = html! {
        @for deadline in DEADLINES.iter().filter(near) {
            tr {
                th scope="row" { (Unit::Seconds.text(*deadline)) }
                td class="n" { (Unit::Rate.text(rate(bound.bytes, *deadline))) }
                @for (_, ratio) in &systems { td class="n" { (Unit::Rate.text(rate(bound.bytes, *deadline) * ratio)) } }
            }
        }
    };
    table("Rate that the cut must carry, for 99 % of the pulls by the deadline", &head, rows)
}
