//! The page: heading, what to know first, the sections that have something to show, and the style sheet.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{gather::Gathered, sections, unit::count};

/// Nothing but what is in the page may be loaded, and no script runs.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
const STYLE: &str = include_str!("style.css");
/// Names that are listed one by one in the heading.
const NAMED_MAX: usize = 12;

/// The whole document.
pub fn page(gathered: &Gathered) -> Markup {
    let names: Vec<&str> = gathered.outline.scenarios.iter().map(String::as_str).collect();
    let name = if names.is_empty() { "simulation".to_owned() } else { some(&names) };
    let sections = sections::all(gathered);
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                title { (name) " – simulation report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    p class="kind" { "Waystation simulation report" }
                    h1 { (name) }
                    @for source in &gathered.outline.sources {
                        p class="source" { (source) }
                    }
                    (facts(gathered))
                    (verdict(gathered))
                    nav aria-label="Sections" {
                        @for section in &sections { a href=(format!("#{}", section.id)) { (section.short) } " " }
                    }
                }
                main {
                    @for section in &sections {
                        section id=(section.id) class=[section.alarm.then_some("alarm")] {
                            h2 { (section.title) }
                            (section.body)
                        }
                    }
                }
                footer {
                    p {
                        "Simulated, not measured on machines. Times are of the world's clock; sizes and rates are decimal "
                        "(1 MB is 1,000,000 bytes). The same scenario and seed give the same trace hash and this same file."
                    }
                    @if gathered.systems.iter().any(|system| system != "waystation") {
                        p {
                            "Systems other than waystation are policies of others, written anew in the same engine: "
                            "they stand for ways of distribution, not for the products that use them."
                        }
                    }
                }
            }
        }
    }
}

fn facts(gathered: &Gathered) -> Markup {
    let mut variants: Vec<&str> = gathered.groups.iter().map(|group| group.variant.as_str()).collect();
    variants.dedup();
    variants.retain(|variant| !variant.is_empty());
    let systems: Vec<&str> = gathered.systems.iter().map(String::as_str).collect();
    let mut seeds: Vec<u64> = gathered.outline.runs.keys().map(|run| run.seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    let seeds: Vec<String> = seeds.iter().map(u64::to_string).collect();
    let seeds: Vec<&str> = seeds.iter().map(String::as_str).collect();
    let nodes = range(gathered.outline.runs.values().map(|run| run.nodes));
    let sites = range(gathered.outline.runs.values().map(|run| run.sites.len() as u64));
    html! {
        dl class="facts" {
            div { dt { "Systems" } dd { (some(&systems)) } }
            @if !variants.is_empty() { div { dt { "Variants" } dd { (some(&variants)) } } }
            div { dt { "Nodes" } dd { (nodes) } }
            div { dt { "Sites" } dd { (sites) } }
            div { dt { "Seeds" } dd { (some(&seeds)) } }
            div { dt { "Runs" } dd { (count(gathered.outline.runs.len() as u64)) } }
        }
    }
}

fn verdict(gathered: &Gathered) -> Markup {
    let violations = gathered.violations.count();
    let failed: u64 = gathered.groups.iter().map(|group| group.failed).sum();
    html! {
        @if violations > 0 {
            p class="verdict bad" {
                strong { (count(violations)) " broken " (if violations == 1 { "promise" } else { "promises" }) }
                ": see " a href="#violations" { "Broken promises" } "."
            }
        } @else {
            p class="verdict good" { strong { "No broken promise" } " was found by the checkers of these runs." }
        }
        @if failed > 0 {
            p class="verdict note" { (count(failed)) " pulls had not ended when their run was over." }
        }
    }
}

/// Names with commas; of many, the first and how many more.
fn some(names: &[&str]) -> String {
    let mut text = names.iter().take(NAMED_MAX).copied().collect::<Vec<_>>().join(", ");
    if names.len() > NAMED_MAX {
        text.push_str(&format!(" and {} more", count((names.len() - NAMED_MAX) as u64)));
    }
    text
}

/// The least and the largest.
fn range(values: impl Iterator<Item = u64> + Clone) -> String {
    match (values.clone().min(), values.max()) {
        (Some(least), Some(most)) if least < most => format!("{} to {}", count(least), count(most)),
        (Some(most), _) => count(most),
        _ => String::new(),
    }
}
