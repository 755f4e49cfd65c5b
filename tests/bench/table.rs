//! The table of results: rates, times, sizes, each with its reference and goal.

use std::time::Duration;

/// One line.
pub struct Row {
    pub what: String,
    pub value: String,
    /// What it is compared with, measured in the same run.
    pub reference: String,
    pub goal: &'static str,
}

impl Row {
    pub fn new(what: &str, value: String, goal: &'static str) -> Self {
        Row { what: what.to_owned(), value, reference: String::new(), goal }
    }

    /// A rate beside a reference rate, with their ratio.
    pub fn ratio(what: &str, rate: f64, name: &str, reference: f64, goal: &'static str) -> Self {
        let value = format!("{} ({:.2} ×)", megabytes(rate), rate / reference);
        Row { what: what.to_owned(), value, reference: format!("{name}: {}", megabytes(reference)), goal }
    }
}

pub fn print_head() {
    line("what", "measured", "reference in the same run", "goal");
    line("---", "---", "---", "---");
}

pub fn print(row: &Row) {
    line(&row.what, &row.value, &row.reference, row.goal);
}

/// Bytes a second.
pub fn rate(bytes: usize, took: Duration) -> f64 {
    bytes as f64 / took.as_secs_f64()
}

pub fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn megabytes(rate: f64) -> String {
    format!("{:.0} MB/s", rate / 1e6)
}

fn line(what: &str, value: &str, reference: &str, goal: &str) {
    println!("| {what:<44} | {value:<24} | {reference:<44} | {goal:<16} |");
}
