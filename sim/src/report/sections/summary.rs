//! The table that most readers want: a line for each system and variant.

use maud::{Markup, html};

use super::{Section, table};
use crate::report::{
    gather::Gathered,
    group::Group,
    quantiles::Quantiles,
    unit::{Unit, count},
};

/// Lines of the table.
const ROWS_MAX: usize = 400;

/// Always there; columns without any number are not.
pub fn section(gathered: &Gathered) -> Option<Section> {
    let columns: Vec<Column> = COLUMNS
        .into_iter()
        .filter(|column| gathered.groups.iter().any(|group| (column.value)(group).is_some()))
        .collect();
    let head: Vec<&str> = ["System", "Variant", "Nodes"]
        .into_iter()
        .chain(columns.iter().map(|column| column.name))
        .chain(["Broken promises"])
        .collect();
    let rows = html! {
        @for group in gathered.groups.iter().take(ROWS_MAX) {
            tr class=[(group.system == "waystation").then_some("own")] {
                th scope="row" { (group.system) }
                td { (group.variant) }
                td class="n" { (count(group.nodes)) }
                @for column in &columns {
                    td class="n" { (column.text(group)) }
                }
                (violations(gathered.violations.of(group)))
            }
        }
    };
    let body = html! {
        (table("Each system and variant, all seeds together", &head, rows))
        @if gathered.groups.len() > ROWS_MAX {
            p { "Only the first " (ROWS_MAX) " lines are shown." }
        }
        p class="how" {
            "Completion: from asking for an artifact until a node has all of it; p99 is the time within which 99 % of the pulls ended. "
            "T_min is what no system can beat over the tightest cut of the network; p99 × T_min compares each pull with its own. "
            "Origin copies: what left the origin's site over the content that was pulled. "
            "Copies per site: what came into the other sites over what they pulled, each artifact once (below 1 where artifacts share layers). "
            "Spread: until 99 % of the nodes knew of a publication, the median of all."
        }
    };
    Some(Section { id: "summary", short: "Summary", title: "Summary", alarm: false, body })
}

struct Column {
    name: &'static str,
    unit: Unit,
    value: fn(&Group) -> Option<f64>,
}

const COLUMNS: [Column; 14] = [
    Column { name: "p50", unit: Unit::Seconds, value: |group| group.completion.at(0.5) },
    Column { name: "p90", unit: Unit::Seconds, value: |group| group.completion.at(0.9) },
    Column { name: "p99", unit: Unit::Seconds, value: |group| group.completion.at(0.99) },
    Column { name: "p99.9", unit: Unit::Seconds, value: |group| group.completion.at(0.999) },
    Column { name: "max", unit: Unit::Seconds, value: |group| group.completion.most() },
    Column { name: "T_min", unit: Unit::Seconds, value: |group| group.bound().map(|bound| bound.seconds) },
    Column { name: "p99 × T_min", unit: Unit::Times, value: |group| group.ratio.at(0.99) },
    Column { name: "First byte p50", unit: Unit::Seconds, value: |group| group.first_byte.at(0.5) },
    Column { name: "Origin copies", unit: Unit::Times, value: Group::origin_copies },
    Column { name: "Copies per site", unit: Unit::Times, value: Group::site_copies },
    Column { name: "Control per node and hour", unit: Unit::Bytes, value: Group::control_rate },
    Column { name: "Spread to 99 %", unit: Unit::Seconds, value: |group| median(&group.spread[1]) },
    Column { name: "Missed", unit: Unit::Count, value: |group| known(group.published, group.missed) },
    Column {
        name: "Not ended",
        unit: Unit::Count,
        value: |group| known(group.failed + group.completion.count(), group.failed),
    },
];

impl Column {
    fn text(&self, group: &Group) -> String {
        (self.value)(group).map_or_else(|| "–".to_owned(), |value| self.unit.text(value))
    }
}

fn median(quantiles: &Quantiles) -> Option<f64> {
    quantiles.at(0.5)
}

fn known(of: u64, value: u64) -> Option<f64> {
    (of > 0).then_some(value as f64)
}

fn violations(number: u64) -> Markup {
    html! {
        @if number > 0 { td class="n bad" { strong { (count(number)) } } } @else { td class="n" { "none" } }
    }
}
