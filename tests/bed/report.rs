//! Results: a table for people and the same as JSON, with what they were measured on.

use std::{
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use serde_json::{Value, json};

use crate::case::{Case, EVERYWHERE, Goal, Outcome, Sharing};

/// Everything that one run of the testbed came to.
pub struct Report {
    started: String,
    machine: Machine,
    rows: Vec<Row>,
}

/// What it ran on.
struct Machine {
    processor: String,
    cores: usize,
    memory_mib: u64,
    kernel: String,
    netem: bool,
    /// Processes that wanted a core in the minute before: other work spoils times.
    load: f64,
    build: &'static str,
}

/// One case with one way of sharing.
struct Row {
    case: &'static str,
    about: &'static str,
    sharing: Sharing,
    content_bytes: usize,
    runs: usize,
    result: Result<Outcome, String>,
    goals: &'static [(&'static str, Goal)],
}

impl Report {
    pub fn new() -> Self {
        let started = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        Report { started, machine: Machine::read(), rows: vec![] }
    }

    /// Takes in a case and prints it. The runs' medians count.
    pub fn add(
        &mut self,
        case: &Case,
        sharing: Sharing,
        content_bytes: usize,
        runs: Result<Vec<Outcome>, String>,
    ) {
        let count = runs.as_ref().map_or(0, Vec::len);
        // Goals are for the product, not for what it is compared with.
        let goals = if sharing == Sharing::Swarm { case.goals } else { &[] };
        let result = runs.map(|runs| medians(&runs));
        let row =
            Row { case: case.name, about: case.about, sharing, content_bytes, runs: count, result, goals };
        print!("{}", row.table());
        self.rows.push(row);
    }

    /// Figures that miss their goals, for people.
    pub fn missed(&self) -> Vec<String> {
        self.rows.iter().flat_map(Row::missed).collect()
    }

    /// Writes a table and JSON, named by the day and `name`.
    pub fn save(&self, folder: &Path, name: &str) -> io::Result<PathBuf> {
        fs::create_dir_all(folder)?;
        let day = self.started.split('T').next().unwrap_or_default();
        let json = folder.join(format!("{day}-{name}.json"));
        fs::write(&json, format!("{:#}\n", self.json()))?;
        fs::write(json.with_extension("md"), self.text())?;
        Ok(json)
    }

    fn text(&self) -> String {
        let m = &self.machine;
        let mut text = format!(
            "# Testbed, {}\n\n{}, {} cores, {} MiB, Linux {}, netem: {}, load before: {}, {} build, waystation {}\n",
            self.started,
            m.processor,
            m.cores,
            m.memory_mib,
            m.kernel,
            if m.netem { "yes" } else { "no" },
            m.load,
            m.build,
            env!("CARGO_PKG_VERSION"),
        );
        self.rows.iter().for_each(|row| text.push_str(&row.table()));
        text
    }

    fn json(&self) -> Value {
        let m = &self.machine;
        json!({
            "format": 1,
            "started": self.started,
            "waystation": env!("CARGO_PKG_VERSION"),
            "machine": {
                "processor": m.processor, "cores": m.cores, "memory_mib": m.memory_mib,
                "kernel": m.kernel, "netem": m.netem, "load_before": m.load, "build": m.build,
            },
            "rows": self.rows.iter().map(Row::json).collect::<Vec<_>>(),
        })
    }
}

impl Row {
    fn goal(&self, figure: &str) -> Option<Goal> {
        let everywhere = if self.goals.is_empty() { &[][..] } else { EVERYWHERE };
        let mut goals = self.goals.iter().chain(everywhere);
        goals.find(|(name, _)| *name == figure).map(|(_, goal)| *goal)
    }

    fn table(&self) -> String {
        let mut text = format!("\n## {}: {}\n\n{}", self.case, self.sharing.name(), self.about);
        if self.content_bytes > 0 {
            let _ = write!(text, "; {:.0} MiB", self.content_bytes as f64 / 1_048_576.0);
        }
        let outcome = match &self.result {
            Ok(outcome) => outcome,
            Err(why) => return format!("{text}; NOT RUN: {why}\n"),
        };
        let _ = writeln!(text, "; median of {}", self.runs);
        outcome.marks.iter().for_each(|mark| text.push_str(&format!("; {mark}\n")));
        let _ = writeln!(text, "\n| {:<42} | {:>16} | {:>12} |      |", "figure", "measured", "goal");
        let _ = writeln!(text, "| --- | ---: | ---: | --- |");
        for figure in &outcome.figures {
            let goal = self.goal(&figure.name);
            let verdict = match goal {
                Some(goal) if goal.holds(figure.value) => "ok",
                Some(_) => "MISS",
                None => "",
            };
            let goal = goal.map_or(String::new(), |goal| goal.to_string());
            let value = format!("{:.3} {}", figure.value, figure.unit);
            let _ =
                writeln!(text, "| {:<42} | {:>16} | {goal:>12} | {verdict:<4} |", figure.name, value.trim());
        }
        text
    }

    fn missed(&self) -> Vec<String> {
        let Ok(outcome) = &self.result else { return vec![] };
        let missed = |figure: &&crate::case::Figure| {
            self.goal(&figure.name).is_some_and(|goal| !goal.holds(figure.value))
        };
        let line = |figure: &crate::case::Figure| {
            let goal = self.goal(&figure.name).map_or(String::new(), |goal| goal.to_string());
            format!("{}: {} is {:.3} {}, goal {goal}", self.case, figure.name, figure.value, figure.unit)
        };
        outcome.figures.iter().filter(missed).map(line).collect()
    }

    fn json(&self) -> Value {
        let figures = |outcome: &Outcome| {
            let figure = |figure: &crate::case::Figure| {
                let goal = self.goal(&figure.name);
                json!({
                    "name": figure.name, "value": figure.value, "unit": figure.unit,
                    "goal": goal.map(|goal| goal.to_string()),
                    "holds": goal.map(|goal| goal.holds(figure.value)),
                })
            };
            outcome.figures.iter().map(figure).collect::<Vec<_>>()
        };
        json!({
            "case": self.case, "about": self.about, "sharing": self.sharing.name(),
            "content_bytes": self.content_bytes, "runs": self.runs,
            "skipped": self.result.as_ref().err(),
            "marks": self.result.as_ref().ok().map(|outcome| outcome.marks.clone()),
            "figures": self.result.as_ref().ok().map(figures),
        })
    }
}

impl Machine {
    fn read() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let value = |text: &str, key: &str| {
            let line = text.lines().find(|line| line.starts_with(key));
            line.and_then(|line| line.split(':').nth(1)).map(|v| v.trim().to_owned()).unwrap_or_default()
        };
        let memory = value(&read("/proc/meminfo"), "MemTotal");
        let memory = memory.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
        Machine {
            processor: value(&read("/proc/cpuinfo"), "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_mib: memory / 1024,
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            netem: crate::shape::has_netem(),
            load: read("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            build: if cfg!(debug_assertions) { "debug" } else { "release" },
        }
    }
}

/// Figure by figure; marks of all runs, each once.
fn medians(runs: &[Outcome]) -> Outcome {
    let mut all = Outcome::default();
    for figure in runs.first().map(|run| run.figures.as_slice()).unwrap_or_default() {
        let mut values: Vec<f64> = runs.iter().filter_map(|run| run.value(&figure.name)).collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { (values[middle - 1] + values[middle]) / 2.0 };
        all.add(&figure.name, median, figure.unit);
    }
    for mark in runs.iter().flat_map(|run| &run.marks) {
        if !all.marks.contains(mark) {
            all.marks.push(mark.clone());
        }
    }
    all
}
