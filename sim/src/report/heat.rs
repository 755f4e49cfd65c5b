//! A matrix of bytes as coloured cells. Shades are factors of about three, the same for all matrices of a page.

use maud::{Markup, html};

use super::{
    chart::{WIDTH, round},
    unit::Unit,
};

/// Shades of cells, the last the darkest.
const SHADES: usize = 8;
const LEFT: f64 = 64.0;
const TOP: f64 = 34.0;
/// Space for names below and beside it that a cell should at least have.
const NAMED_FROM: f64 = 13.0;

/// A matrix.
pub struct Heat<'a> {
    /// Unique on the page.
    pub id: String,
    /// Above it.
    pub title: String,
    /// Of rows and columns.
    pub names: &'a [String],
    /// Bytes, row by row.
    pub cells: &'a [f64],
    /// The largest of all matrices that are to be compared.
    pub most: f64,
}

impl Heat<'_> {
    /// The matrix with its heading.
    pub fn draw(&self) -> Markup {
        let n = self.names.len().max(1);
        let size = ((WIDTH - LEFT - 8.0) / n as f64).min(40.0);
        let height = TOP + size * n as f64 + 26.0;
        let sum: f64 = self.cells.iter().sum();
        html! {
            figure class="plot" {
                figcaption { (self.title) }
                svg viewBox=(format!("0 0 {WIDTH} {}", round(height))) role="img" aria-labelledby=(format!("{0}-t {0}-d", self.id)) {
                    title id=(format!("{}-t", self.id)) { (self.title) }
                    desc id=(format!("{}-d", self.id)) {
                        "A row for each site that sends, a column for each that receives; " (Unit::Bytes.text(sum)) " in all."
                    }
                    text class="label" x="4" y="14" { "from ↓ to →" }
                    @for (row, name) in self.names.iter().enumerate() {
                        @let at = TOP + size * row as f64;
                        @if self.is_named(row, size) {
                            text class="tick" x=(LEFT - 5.0) y=(round(at + size / 2.0 + 4.0)) text-anchor="end" { (short(name, 9)) title { (name) } }
                        }
                        @for (column, to) in self.names.iter().enumerate() {
                            @let bytes = self.cells.get(row * n + column).copied().unwrap_or_default();
                            rect class=(format!("heat h{}", shade(bytes, self.most))) x=(round(LEFT + size * column as f64)) y=(round(at))
                                width=(round(size - 0.6)) height=(round(size - 0.6)) {
                                @if bytes > 0.0 { title { (name) " to " (to) ": " (Unit::Bytes.text(bytes)) } }
                            }
                        }
                    }
                    @for (column, name) in self.names.iter().enumerate() {
                        @if self.is_named_below(column, size) {
                            text class="tick" x=(round(LEFT + size * (column as f64 + 0.5))) y=(round(height - 10.0)) text-anchor="middle" {
                                (short(name, if size >= 36.0 { 5 } else { 9 })) title { (name) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn is_named(&self, row: usize, size: f64) -> bool {
        let every = (NAMED_FROM / size).ceil().max(1.0) as usize;
        row.is_multiple_of(every)
    }

    /// Names below stand side by side: only so many that they have room, and none beyond the edge.
    fn is_named_below(&self, column: usize, size: f64) -> bool {
        if size >= 36.0 {
            return true;
        }
        let every = (68.0 / size).ceil() as usize;
        column.is_multiple_of(every) && size * (self.names.len() - column) as f64 >= 30.0
    }
}

/// What the shades mean.
pub fn key(most: f64) -> Markup {
    html! {
        ul class="legend" {
            @for shade in 0..=SHADES {
                @let text = match shade {
                    0 => "nothing".to_owned(),
                    shade => format!("up to {}", Unit::Bytes.text(most / factor(SHADES - shade))),
                };
                li {
                    svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" {
                        rect class=(format!("heat h{shade}")) x="2" y="1" width="24" height="10" {}
                    }
                    (text)
                }
            }
        }
    }
}

/// 1, 3.2, 10, 32, ...
fn factor(steps: usize) -> f64 {
    libm::pow(10.0, steps as f64 / 2.0)
}

/// 0 for nothing, 1 for little, up to [`SHADES`].
fn shade(bytes: f64, most: f64) -> usize {
    if bytes <= 0.0 || most <= 0.0 {
        return 0;
    }
    (1..SHADES).find(|shade| bytes <= most / factor(SHADES - shade)).unwrap_or(SHADES)
}

/// The first letters of a name, and that there are more.
fn short(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    let begin: String = name.chars().take(letters - 1).collect();
    format!("{begin}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_are_factors() {
        assert_eq!([shade(0.0, 1e9), shade(1.0, 1e9), shade(1e9, 1e9)], [0, 1, 8]);
        assert_eq!([shade(1.1e8, 1e9), shade(1e8, 1e9), shade(0.9e8, 1e9)], [7, 6, 6]);
        assert_eq!(shade(1.0, 0.0), 0);
    }

    #[test]
    fn long_names_are_cut_between_letters() {
        assert_eq!(short("übermäßig", 5), "über…");
        assert_eq!(short("edge", 5), "edge");
    }

    #[test]
    fn each_cell_says_what_it_is() {
        let names = ["a".to_owned(), "<b>".to_owned()];
        let heat = Heat {
            id: "h".into(),
            title: "Bytes".into(),
            names: &names,
            cells: &[0.0, 5.0, 7.0, 0.0],
            most: 7.0,
        };
        let text = heat.draw().into_string();
        assert_eq!(text.matches("<rect").count(), 4);
        assert!(text.contains("a to &lt;b&gt;: 5 B") && !text.contains("<b>"));
    }
}
