//! What the control plane costs: bytes for each node and hour, by kind of message.

use std::collections::BTreeMap;

use maud::html;

use super::{Section, filled, shown, table};
use crate::report::{
    bars::Bars,
    gather::Gathered,
    group::Group,
    unit::{Unit, count},
};

/// Kinds that have a colour of their own; the others are one.
const KINDS_MAX: usize = 7;

/// Where messages were counted.
pub fn section(gathered: &Gathered) -> Option<Section> {
    let groups: Vec<&Group> =
        gathered.detailed().filter(|group| !group.control.is_empty() && group.node_hours > 0.0).collect();
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for (kind, cost) in groups.iter().flat_map(|group| &group.control) {
        let sum = sums.entry(kind).or_default();
        *sum = sum.saturating_add(cost.bytes);
    }
    let mut kinds: Vec<(&str, u64)> = sums.into_iter().collect();
    kinds.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut parts: Vec<String> = kinds.iter().take(KINDS_MAX).map(|kind| kind.0.to_owned()).collect();
    let rows: Vec<(String, Vec<f64>)> = groups
        .iter()
        .map(|group| {
            let rate =
                |name: &str| group.control.get(name).map_or(0.0, |cost| cost.bytes as f64 / group.node_hours);
            let mut values: Vec<f64> = kinds.iter().take(KINDS_MAX).map(|kind| rate(kind.0)).collect();
            if kinds.len() > KINDS_MAX {
                values.push(kinds.iter().skip(KINDS_MAX).map(|kind| rate(kind.0)).sum());
            }
            (group.system.clone(), values)
        })
        .collect();
    if kinds.len() > KINDS_MAX {
        parts.push("all others".into());
    }
    let bars = Bars {
        id: "control-bars".into(),
        title: "Bytes for each node and hour".into(),
        unit: Unit::Bytes,
        parts: &parts,
        rows: &rows,
    };
    let table_rows = html! {
        @for group in &groups {
            @for (kind, _) in &kinds {
                @if let Some(cost) = group.control.get(*kind) {
                    tr {
                        th scope="row" { (group.system) }
                        td { (kind) }
                        td class="n" { (Unit::Count.text(cost.messages as f64 / group.node_hours)) }
                        td class="n" { (Unit::Bytes.text(cost.bytes as f64 / group.node_hours)) }
                        td class="n" { (Unit::Bytes.text(cost.far as f64 / group.node_hours)) }
                        td class="n" { (count(cost.dropped)) }
                    }
                }
            }
        }
    };
    let body = html! {
        p {
            "All that nodes tell one another, without the blobs."
            (shown(gathered, "All seeds are taken together."))
        }
        div class="plots one" {
            (bars.draw())
            (table("For each node and hour", &["System", "Kind", "Messages", "Bytes", "Of these between sites", "Dropped in all"], table_rows))
        }
    };
    let title = "Cost of the control plane";
    filled(Section { id: "control", short: "Control plane", title, alarm: false, body }, groups.len())
}
