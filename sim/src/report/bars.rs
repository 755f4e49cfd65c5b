//! Lying bars, one for each name, each made of parts; with the numbers in the texts of the parts and at the end.

use maud::{Markup, html};

use super::{
    chart::{Look, WIDTH, class_of, legend, round},
    unit::Unit,
};

const ROW: f64 = 46.0;
const TOP: f64 = 6.0;

/// Bars.
pub struct Bars<'a> {
    /// Unique on the page.
    pub id: String,
    /// Above them.
    pub title: String,
    /// Of the numbers.
    pub unit: Unit,
    /// Names of the parts, in the order of the colours.
    pub parts: &'a [String],
    /// For each bar its name and its parts.
    pub rows: &'a [(String, Vec<f64>)],
}

impl Bars<'_> {
    /// The bars with heading and legend.
    pub fn draw(&self) -> Markup {
        let most = self.rows.iter().map(|row| row.1.iter().sum::<f64>()).fold(0.0, f64::max);
        let scale = if most > 0.0 { (WIDTH - 8.0) / most } else { 0.0 };
        let height = TOP + ROW * self.rows.len() as f64;
        html! {
            figure class="plot" {
                figcaption { (self.title) }
                svg viewBox=(format!("0 0 {WIDTH} {height}")) role="img" aria-labelledby=(format!("{0}-t {0}-d", self.id)) {
                    title id=(format!("{}-t", self.id)) { (self.title) }
                    desc id=(format!("{}-d", self.id)) { "A bar for each row of the table below, with a part for each kind." }
                    @for (at, (name, values)) in self.rows.iter().enumerate() {
                        @let y = TOP + ROW * at as f64;
                        @let mut x = 4.0;
                        text class="label" x="4" y=(y + 14.0) { (name) }
                        text class="label" x=(WIDTH - 4.0) y=(y + 14.0) text-anchor="end" {
                            (self.unit.text(values.iter().sum()))
                        }
                        @for (part, value) in values.iter().enumerate() {
                            @let from = x;
                            @let width = { x += value * scale; value * scale };
                            @if *value > 0.0 {
                                rect class=(format!("column {}", class_of(part))) x=(round(from)) y=(y + 20.0)
                                    width=(round(width.max(0.5))) height="18" {
                                    title {
                                        (name) ", " (self.parts.get(part).map_or("", String::as_str)) ": " (self.unit.text(*value))
                                    }
                                }
                            }
                        }
                    }
                }
                (legend(self.parts.iter().enumerate().map(|(part, name)| (name.as_str(), part, Look::Columns))))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_the_width_and_say_their_numbers() {
        let bars = Bars {
            id: "b".into(),
            title: "Bytes".into(),
            unit: Unit::Bytes,
            parts: &["gossip".into(), "reconcile".into()],
            rows: &[("one".into(), vec![3e3, 1e3]), ("two".into(), vec![0.0, 2e3])],
        };
        let text = bars.draw().into_string();
        assert!(text.contains("one, gossip: 3 kB") && text.contains("width=\"324\""), "{text}");
        assert!(!text.contains("two, gossip"));
        assert!(text.contains(">4 kB<"));
    }
}
