//! What the report shows, section by section. A section without data is left out, and one that could have more says
//! what to run.

use maud::{Markup, html};

use super::gather::Gathered;

mod completion;
mod control;
mod figures;
mod growth;
mod outage;
mod spread;
mod summary;
mod traffic;
mod uplink;
mod violations;

/// A part of the page.
pub struct Section {
    /// Of its heading, for links.
    pub id: &'static str,
    /// In the list of sections.
    pub short: &'static str,
    /// Heading.
    pub title: &'static str,
    /// Whether something is wrong.
    pub alarm: bool,
    /// What it shows.
    pub body: Markup,
}

/// All that have something to show, in order.
pub fn all(gathered: &Gathered) -> Vec<Section> {
    [
        violations::section(gathered),
        summary::section(gathered),
        completion::section(gathered),
        growth::section(gathered),
        uplink::section(gathered),
        outage::section(gathered),
        traffic::lines(gathered),
        traffic::matrix(gathered),
        spread::section(gathered),
        control::section(gathered),
        figures::figures(gathered),
        figures::runs(gathered),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Which of several variants and seeds a section shows; nothing where there is only one.
fn shown(gathered: &Gathered, seeds: &str) -> Markup {
    let variants = gathered.groups.iter().any(|group| group.variant != gathered.shown);
    let many = gathered.groups.iter().any(|group| group.seeds.len() > 1);
    html! {
        @if variants { " Shown is " strong { (gathered.shown) } ", the variant with the most nodes." }
        @if many { " " (seeds) }
    }
}

/// Drops what has nothing in it.
fn filled(section: Section, plots: usize) -> Option<Section> {
    (plots > 0).then_some(section)
}

/// A table that scrolls sideways by itself where it is too wide.
fn table(caption: &str, head: &[&str], rows: Markup) -> Markup {
    html! {
        div class="wide" tabindex="0" role="region" aria-label=(caption) {
            table {
                caption { (caption) }
                thead { tr { @for name in head { th scope="col" { (name) } } } }
                tbody { (rows) }
            }
        }
    }
}
