//! What was measured in several rounds: the median counts, the spread is shown.

/// Numbers of one kind, one a round.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    pub fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    pub fn median(&self) -> f64 {
        match self.0.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => self.0[n / 2],
            n => self.0[n / 2 - 1].midpoint(self.0[n / 2]),
        }
    }

    /// The median, and least and most in brackets.
    pub fn show(&self, decimals: usize) -> String {
        let (least, most) = (self.0.first().unwrap_or(&f64::NAN), self.0.last().unwrap_or(&f64::NAN));
        format!("{:.decimals$} [{least:.decimals$} {most:.decimals$}]", self.median())
    }
}

/// One line of a table.
pub fn line(cells: &[String]) {
    let cells: Vec<_> = cells.iter().map(|cell| format!("{cell:<26}")).collect();
    println!("| {} |", cells.join(" | "));
}

/// The head of a table.
pub fn head(cells: &[&str]) {
    line(&cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>());
    line(&cells.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
}

/// Ours beside another's, in times.
pub fn times(ours: f64, theirs: f64) -> String {
    format!("{:.2} ×", ours / theirs)
}
