//! What checkers found: in red, and first.

use maud::html;

use super::{Section, table};
use crate::report::{
    gather::Gathered,
    unit::{Unit, count},
};

/// Where any promise was broken.
pub fn section(gathered: &Gathered) -> Option<Section> {
    let violations = &gathered.violations;
    let all = violations.count();
    let more = all - (violations.listed.len() as u64).min(all);
    let counts = html! {
        @for ((system, variant, checker), number) in &violations.counts {
            tr { th scope="row" { (checker) } td { (system) } td { (variant) } td class="n" { (count(*number)) } }
        }
    };
    let listed = html! {
        @for violation in &violations.listed {
            tr {
                td class="n" { (Unit::Seconds.text(violation.at)) }
                th scope="row" { (violation.checker) }
                td class="words" { (violation.text) }
                td { (violation.run.system) }
                td { (violation.run.variant) }
                td class="n" { (violation.run.seed) }
            }
        }
    };
    let body = html! {
        p { "A promise of the product, a law of physics or a bound did not hold in these runs. Nothing else in this report can be relied on until it is understood." }
        (table("By checker", &["Checker", "System", "Variant", "How often"], counts))
        (table("One by one", &["When", "Checker", "What", "System", "Variant", "Seed"], listed))
        @if more > 0 { p { "And " (count(more)) " more in the file of measurements." } }
    };
    let section =
        Section { id: "violations", short: "Broken promises", title: "Broken promises", alarm: true, body };
    (all > 0).then_some(section)
}
