//! Plots with two axes as SVG: lines, steps, points, columns. Colours are classes, so that light, dark and print
//! are the style sheet's; whatever is said by colour is said by dashes, shapes or words too.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::{axis::Axis, unit::Unit};

/// Of the coordinates of a plot, before the page scales it.
pub const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = HEIGHT - 48.0;
/// A wide character of a label.
const CHARACTER: f64 = 6.8;
/// Points of a line that get a text of their own when the pointer rests there.
const HOVER_MAX: usize = 60;

/// A plot.
pub struct Chart {
    /// Unique on the page.
    pub id: String,
    /// Above it.
    pub title: String,
    /// For who cannot see it.
    pub description: String,
    /// From left to right.
    pub x: Axis,
    /// From the bottom up.
    pub y: Axis,
    /// In the order of the legend.
    pub series: Vec<Series>,
    /// Upright lines at values of x, with a word each.
    pub marks: Vec<(f64, String)>,
}

/// What is drawn in one colour.
pub struct Series {
    /// In the legend.
    pub name: String,
    /// Which of the colours.
    pub colour: usize,
    /// How.
    pub look: Look,
    /// In the order of x.
    pub points: Vec<(f64, f64)>,
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// From point to point, thin and dashed.
    Dashed,
    /// At the height of a point until the next.
    Step,
    /// From point to point with a mark at each.
    Dotted,
    /// Marks only.
    Points,
    /// Columns from one x to the next, each on top of those of the series before it.
    Columns,
}

impl Chart {
    /// The plot with its heading and legend.
    pub fn draw(&self) -> Markup {
        html! {
            figure class="plot" {
                figcaption { (self.title) }
                svg viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-labelledby=(format!("{0}-t {0}-d", self.id)) {
                    title id=(format!("{}-t", self.id)) { (self.title) }
                    desc id=(format!("{}-d", self.id)) { (self.description) }
                    (self.grid())
                    @let columns = self.columns();
                    (columns)
                    @for series in &self.series { (self.series(series)) }
                    (self.marks())
                }
                (legend(self.series.iter().map(|series| (series.name.as_str(), series.colour, series.look))))
            }
        }
    }

    fn x_of(&self, value: f64) -> f64 {
        LEFT + (RIGHT - LEFT) * self.x.place(value)
    }

    fn y_of(&self, value: f64) -> f64 {
        BOTTOM - (BOTTOM - TOP) * self.y.place(value)
    }

    fn grid(&self) -> Markup {
        let mut free_from = 0.0;
        let labels: Vec<(f64, String)> = self
            .x
            .ticks
            .iter()
            .filter_map(|tick| {
                let (at, text) = (self.x_of(*tick), self.x.text(*tick));
                let half = text.chars().count() as f64 * CHARACTER / 2.0;
                let shown = at - half >= free_from && at + half <= WIDTH;
                free_from = if shown { at + half + CHARACTER } else { free_from };
                shown.then_some((at, text))
            })
            .collect();
        html! {
            @for tick in &self.y.ticks {
                @let at = self.y_of(*tick);
                line class="grid" x1=(LEFT) x2=(RIGHT) y1=(round(at)) y2=(round(at)) {}
                text class="tick" x=(LEFT - 6.0) y=(round(at + 4.0)) text-anchor="end" { (self.y.text(*tick)) }
            }
            @for (at, text) in &labels {
                line class="axis" x1=(round(*at)) x2=(round(*at)) y1=(BOTTOM) y2=(BOTTOM + 4.0) {}
                text class="tick" x=(round(*at)) y=(BOTTOM + 17.0) text-anchor="middle" { (text) }
            }
            line class="axis" x1=(LEFT) x2=(RIGHT) y1=(BOTTOM) y2=(BOTTOM) {}
            text class="label" x="4" y="14" { (self.y.label) @if self.y.is_log() { " (log)" } }
            text class="label" x=(RIGHT) y=(HEIGHT - 10.0) text-anchor="end" {
                (self.x.label) @if self.x.is_log() { " (log)" }
            }
        }
    }

    fn series(&self, series: &Series) -> Markup {
        let dots = matches!(series.look, Look::Dotted | Look::Points);
        let lined = !matches!(series.look, Look::Points | Look::Columns);
        let hover = !dots && series.look != Look::Columns && series.points.len() <= HOVER_MAX;
        html! {
            g class=(class_of(series.colour)) {
                @if lined {
                    path class=(line_class(series.look)) d=(self.path(series)) { title { (series.name) } }
                }
                @if dots {
                    @for (x, y) in &series.points {
                        path class="dot" d=(shape(series.colour, self.x_of(*x), self.y_of(*y), 4.0)) {
                            title { (self.hover(series, *x, *y)) }
                        }
                    }
                } @else if hover {
                    @for (x, y) in &series.points {
                        circle class="touch" cx=(round(self.x_of(*x))) cy=(round(self.y_of(*y))) r="6" {
                            title { (self.hover(series, *x, *y)) }
                        }
                    }
                }
            }
        }
    }

    fn hover(&self, series: &Series, x: f64, y: f64) -> String {
        format!("{}: {} at {}", series.name, self.y.text(y), self.x.text(x))
    }

    fn path(&self, series: &Series) -> String {
        let mut path = String::new();
        let mut before = None;
        for (x, y) in &series.points {
            let (x, y) = (round(self.x_of(*x)), round(self.y_of(*y)));
            // A text cannot fail to be written to.
            let _ = match (before, series.look) {
                (None, _) => write!(path, "M{x} {y}"),
                (Some(_), Look::Step) => write!(path, "H{x}V{y}"),
                (Some(_), _) => write!(path, "L{x} {y}"),
            };
            before = Some((x, y));
        }
        path
    }

    /// The columns of all series that have any, piled up.
    fn columns(&self) -> Markup {
        let piled: Vec<&Series> = self.series.iter().filter(|series| series.look == Look::Columns).collect();
        let places = piled.iter().map(|series| series.points.len()).max().unwrap_or_default();
        let width = |at: usize| -> (f64, f64) {
            let x = |n: usize| piled.iter().find_map(|series| series.points.get(n)).map(|point| point.0);
            let from = x(at).unwrap_or_default();
            let step = x(1).zip(x(0)).map_or(self.x.high() - from, |(second, first)| second - first);
            (self.x_of(from), self.x_of(from + step))
        };
        html! {
            @for at in 0..places {
                @let (from, to) = width(at);
                @let mut sum = 0.0;
                @for series in &piled {
                    @if let Some((x, y)) = series.points.get(at) {
                        @let below = self.y_of(sum);
                        @let above = { sum += y; self.y_of(sum) };
                        @if *y > 0.0 {
                            rect class=(format!("column {}", class_of(series.colour))) x=(round(from + 0.5))
                                width=(round((to - from - 1.0).max(0.5))) y=(round(above)) height=(round(below - above)) {
                                title { (self.hover(series, *x, *y)) }
                            }
                        }
                    }
                }
            }
        }
    }

    fn marks(&self) -> Markup {
        html! {
            @for (row, (value, text)) in self.marks.iter().enumerate() {
                @let at = self.x_of(*value);
                @let fits_right = at + 6.0 + text.chars().count() as f64 * CHARACTER <= WIDTH;
                line class="mark" x1=(round(at)) x2=(round(at)) y1=(TOP - 10.0) y2=(BOTTOM) {
                    title { (text) }
                }
                text class="mark-text" x=(round(if fits_right { at + 5.0 } else { at - 5.0 }))
                    y=(TOP - 4.0 + 14.0 * row as f64) text-anchor=(if fits_right { "start" } else { "end" }) { (text) }
            }
        }
    }
}

/// A list of names with the colour and the look of each; nothing for one name.
pub fn legend<'a>(entries: impl Iterator<Item = (&'a str, usize, Look)>) -> Markup {
    let entries: Vec<_> = entries.collect();
    html! {
        @if !entries.is_empty() {
            ul class="legend" {
                @for (name, colour, look) in entries {
                    li {
                        svg class="swatch" viewBox="0 0 28 12" aria-hidden="true" {
                            g class=(class_of(colour)) {
                                @match look {
                                    Look::Columns => rect class="column" x="4" y="1" width="20" height="10" {},
                                    Look::Points => path class="dot" d=(shape(colour, 14.0, 6.0, 4.0)) {},
                                    Look::Dotted => {
                                        path class=(line_class(look)) d="M0 6H28" {}
                                        path class="dot" d=(shape(colour, 14.0, 6.0, 4.0)) {}
                                    }
                                    _ => path class=(line_class(look)) d="M0 6H28" {},
                                }
                            }
                        }
                        (name)
                    }
                }
            }
        }
    }
}

/// Colours repeat after eight.
pub fn class_of(colour: usize) -> String {
    format!("c{}", colour % 8)
}

fn line_class(look: Look) -> &'static str {
    if look == Look::Dashed { "line bound" } else { "line" }
}

/// A mark that differs from colour to colour: disc, square, triangle, diamond.
fn shape(colour: usize, x: f64, y: f64, r: f64) -> String {
    let (x, y) = (round(x), round(y));
    match colour % 4 {
        0 => format!("M{} {y}a{r} {r} 0 1 0 {} 0a{r} {r} 0 1 0 -{} 0", round(x - r), 2.0 * r, 2.0 * r),
        1 => format!("M{} {}h{}v{}h-{}z", round(x - r), round(y - r), 2.0 * r, 2.0 * r, 2.0 * r),
        2 => format!("M{x} {}l{r} {}h-{}z", round(y - r), 2.0 * r, 2.0 * r),
        _ => format!("M{x} {}l{r} {r}l-{r} {r}l-{r} -{r}z", round(y - r)),
    }
}

/// Coordinates to a tenth: less cannot be seen, and costs bytes.
pub fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// Points of a curve that only rises, without those that lie within `dx` and `dy` of the one kept before; the first
/// and the last stay.
pub fn thin(
    points: impl IntoIterator<Item = (f64, f64)>,
    dx: impl Fn(f64, f64) -> bool,
    dy: f64,
) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = vec![];
    let mut last = None;
    for point in points {
        let far = kept.last().is_none_or(|before| dx(before.0, point.0) || (point.1 - before.1).abs() > dy);
        if far {
            kept.push(point);
        }
        last = Some((point, far));
    }
    if let Some((point, false)) = last {
        kept.push(point);
    }
    kept
}

/// What tells values on an axis apart, for [`thin`]: more than one part in `parts` of its length.
pub fn apart(axis: &Axis, parts: f64) -> impl Fn(f64, f64) -> bool + '_ {
    move |a, b| (axis.place(b) - axis.place(a)).abs() * parts > 1.0
}

/// An axis from 0 to 100 %.
pub fn share_axis(label: &str) -> Axis {
    Axis::linear(label, Unit::Share, [1.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(series: Vec<Series>) -> Chart {
        Chart {
            id: "a".into(),
            title: "One & two".into(),
            description: "Three".into(),
            x: Axis::linear("time", Unit::Seconds, [10.0]),
            y: share_axis("nodes"),
            series,
            marks: vec![(10.0, "T_min 10 s".into())],
        }
    }

    #[test]
    fn a_plot_is_named_and_escaped() {
        let series =
            Series { name: "<b>".into(), colour: 0, look: Look::Step, points: vec![(0.0, 0.0), (5.0, 1.0)] };
        let text = chart(vec![series]).draw().into_string();
        assert!(text.contains("One &amp; two</title>") && text.contains("<desc id=\"a-d\">Three"));
        assert!(text.contains("&lt;b&gt;") && !text.contains("<b>"));
        assert!(text.contains("M64 232H240V34"), "{text}");
    }

    #[test]
    fn columns_are_piled_up() {
        let columns = |colour, y| Series {
            name: "x".into(),
            colour,
            look: Look::Columns,
            points: vec![(0.0, y), (5.0, y)],
        };
        let text = chart(vec![columns(0, 0.25), columns(1, 0.5)]).draw().into_string();
        assert_eq!(text.matches("<rect").count(), 4 + 2);
        assert!(text.contains("height=\"99\""), "{text}");
    }

    #[test]
    fn thinning_keeps_the_ends_and_the_form() {
        let axis = Axis::linear("x", Unit::Count, [100_000.0]);
        let all = (0..=100_000).map(|n| (f64::from(n), f64::from(n) / 100_000.0));
        let kept = thin(all, apart(&axis, 200.0), 1.0 / 200.0);
        assert!(kept.len() <= 202, "{}", kept.len());
        assert_eq!((kept[0], kept[kept.len() - 1]), ((0.0, 0.0), (100_000.0, 1.0)));
        let flat = thin([(1.0, 0.5), (1.0, 0.5)], |_, _| false, 1.0);
        assert_eq!(flat, [(1.0, 0.5), (1.0, 0.5)]);
        assert_eq!(thin([], |_, _| true, 1.0), []);
    }
}
