//! What else was measured, and which runs there were with their trace hashes.

use maud::html;

use super::{Section, table};
use crate::report::{
    gather::Gathered,
    unit::{Unit, count},
};

/// Lines of a table.
const ROWS_MAX: usize = 1000;
/// Figures that have a place of their own.
const ELSEWHERE: [&str; 5] = ["trace", "origin", "outage-from", "outage from", "end"];

/// Figures that no other section shows.
pub fn figures(gathered: &Gathered) -> Option<Section> {
    let others = |name: &str| !ELSEWHERE.contains(&name) && !name.starts_with("availability");
    let all: Vec<_> = gathered
        .groups
        .iter()
        .flat_map(|group| group.figures.iter().map(move |(name, figure)| (group, name, figure)))
        .filter(|(_, name, _)| others(name))
        .take(ROWS_MAX)
        .collect();
    let rows = html! {
        @for (group, name, figure) in &all {
            tr {
                th scope="row" { (name) }
                td { (group.name()) }
                td class="n" { @if figure.count > 0 { (Unit::Count.text(figure.sum / figure.count as f64)) } }
                td class="n" { @if figure.count > 1 { (figure.values.least().map_or_else(String::new, |v| Unit::Count.text(v))) } }
                td class="n" { @if figure.count > 1 { (figure.values.most().map_or_else(String::new, |v| Unit::Count.text(v))) } }
                td class="words" { (figure.words.iter().cloned().collect::<Vec<_>>().join("; ")) }
            }
        }
    };
    let body =
        html! { (table("Other figures", &["Figure", "System", "Mean", "Least", "Most", "Words"], rows)) };
    let section =
        Section { id: "figures", short: "Other figures", title: "Other figures", alarm: false, body };
    (!all.is_empty()).then_some(section)
}

/// Every run: with its seed and version of the program it can be had again.
pub fn runs(gathered: &Gathered) -> Option<Section> {
    let all = &gathered.outline.runs;
    let rows = html! {
        @for (run, known) in all.iter().take(ROWS_MAX) {
            tr {
                th scope="row" { (run.system) }
                td { (run.variant) }
                td class="n" { (run.seed) }
                td class="n" { (count(known.nodes)) }
                td class="n" { (count(known.sites.len() as u64)) }
                td class="n" { (Unit::Seconds.text(known.end)) }
                td class="hash" { (known.trace.as_deref().unwrap_or("not told")) }
            }
        }
    };
    let body = html! {
        p { "A run with the same scenario and seed has the same trace hash, on any machine." }
        details open[all.len() <= 20] {
            summary { (count(all.len() as u64)) " runs" }
            (table("Runs", &["System", "Variant", "Seed", "Nodes", "Sites", "Virtual time", "Trace hash"], rows))
            @if all.len() > ROWS_MAX { p { "Only the first " (ROWS_MAX) " are shown." } }
        }
    };
    Some(Section { id: "runs", short: "Runs", title: "Runs and trace hashes", alarm: false, body })
}
