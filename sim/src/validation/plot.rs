//! The comparison as a picture: times against times, and how far each is off. One SVG that needs nothing else.

use std::fmt::Write;

use super::{Case, Simulated, ends};

const WIDTH: f64 = 760.0;
/// The square on the left, and the strip on the right.
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;
const SIDE: f64 = 280.0;
const STRIP: f64 = 490.0;
const STRIP_WIDTH: f64 = 240.0;
/// Ends of the axes: seconds, and percent both ways.
const SECONDS: (f64, f64) = (1.0, 200.0);
const PERCENT: f64 = 20.0;

/// Points on the left are cases, simulated against measured, on axes of powers of ten. On the right is how far each
/// is off: full what counts, hollow what was measured while other programs ran, lines from the least to the most of
/// the seeds.
pub fn plot(pairs: &[(&Case, &Simulated)]) -> String {
    let height = TOP + SIDE + 60.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         font-family=\"sans-serif\" font-size=\"12\" role=\"img\">\n\
         <title>Simulated against measured</title>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    times(&mut svg, pairs);
    errors(&mut svg, pairs);
    svg + "</svg>\n"
}

/// Where a time is along an axis, from 0 to 1.
fn along(seconds: f64) -> f64 {
    let (first, last) = SECONDS;
    (libm::log(seconds.clamp(first, last) / first)) / libm::log(last / first)
}

fn times(svg: &mut String, pairs: &[(&Case, &Simulated)]) {
    let (x, y) = (|s| LEFT + SIDE * along(s), |s| TOP + SIDE * (1.0 - along(s)));
    let (first, last) = SECONDS;
    let band = 1.1;
    let corners = [
        (first, first),
        (first * band, first),
        (last, last / band),
        (last, last),
        (last / band, last),
        (first, first * band),
    ];
    let corners: Vec<String> = corners.iter().map(|(m, s)| format!("{:.1},{:.1}", x(*m), y(*s))).collect();
    let _ = writeln!(svg, "<polygon points=\"{}\" fill=\"#e4ecf5\"/>", corners.join(" "));
    line(svg, (x(first), y(first)), (x(last), y(last)), "#777");
    for tick in [1.0, 3.0, 10.0, 30.0, 100.0] {
        line(svg, (x(tick), TOP), (x(tick), TOP + SIDE), "#ddd");
        line(svg, (LEFT, y(tick)), (LEFT + SIDE, y(tick)), "#ddd");
        text(svg, (x(tick), TOP + SIDE + 16.0), "middle", &format!("{tick} s"));
        text(svg, (LEFT - 6.0, y(tick) + 4.0), "end", &format!("{tick} s"));
    }
    text(svg, (LEFT + SIDE / 2.0, TOP + SIDE + 34.0), "middle", "measured, last node; band: 10 %");
    text(svg, (LEFT, TOP - 12.0), "start", "simulated, last node");
    for (case, simulated) in pairs {
        for measured in &case.measured {
            dot(svg, (x(measured.seconds), y(simulated.typical_seconds())), measured.disturbed);
        }
    }
}

fn errors(svg: &mut String, pairs: &[(&Case, &Simulated)]) {
    let x =
        |percent: f64| STRIP + STRIP_WIDTH * (percent.clamp(-PERCENT, PERCENT) + PERCENT) / (2.0 * PERCENT);
    for (within, colour) in [(10.0, "#e4ecf5"), (5.0, "#cfdeee")] {
        let _ = writeln!(
            svg,
            "<rect x=\"{:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{SIDE}\" fill=\"{colour}\"/>",
            x(-within),
            x(within) - x(-within),
        );
    }
    line(svg, (x(0.0), TOP), (x(0.0), TOP + SIDE), "#777");
    for tick in [-20.0, -10.0, 0.0, 10.0, 20.0] {
        text(svg, (x(tick), TOP + SIDE + 16.0), "middle", &format!("{tick:+} %"));
    }
    text(svg, (STRIP + STRIP_WIDTH / 2.0, TOP + SIDE + 34.0), "middle", "simulated over measured");
    text(svg, (STRIP, TOP - 12.0), "start", "error; hollow: measured while other programs ran");
    let step = SIDE / (pairs.len() as f64 + 1.0);
    for (row, (case, simulated)) in pairs.iter().enumerate() {
        let y = TOP + step * (row as f64 + 1.0);
        text(svg, (STRIP - 8.0, y + 4.0), "end", &case.name);
        let (least, most) = ends(&simulated.seconds);
        for measured in &case.measured {
            let off = |seconds: f64| x(100.0 * (seconds / measured.seconds - 1.0));
            if !measured.disturbed {
                line(svg, (off(least), y), (off(most), y), "#1f5f9e");
            }
            dot(svg, (off(simulated.typical_seconds()), y), measured.disturbed);
        }
    }
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\"/>"
    );
}

fn dot(svg: &mut String, (x, y): (f64, f64), hollow: bool) {
    let fill = if hollow { "white" } else { "#1f5f9e" };
    let _ = writeln!(
        svg,
        "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\" fill=\"{fill}\" stroke=\"#1f5f9e\" stroke-width=\"1.5\"/>"
    );
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\">{words}</text>"
    );
}
