//! Made-up measurements with something for each section of the report. No run gave them.

use waystation_sim::measure::{Measurement, RunId};

const SYSTEMS: [(&str, f64); 4] =
    [("waystation", 1.0), ("origin", 9.0), ("site-cache", 2.2), ("whole-blob", 1.7)];
const NODES: [u64; 4] = [50, 100, 200, 500];
const BYTES: u64 = 1_250_000_000;
const SITES: u64 = 40;
const LEAST: f64 = 10.0;

/// What is made.
pub struct Sample {
    scenario: String,
    /// In every text that a file can hold.
    pub word: String,
    random: fastrand::Rng,
    all: Vec<Measurement>,
}

impl Sample {
    /// Of a scenario with this name.
    pub fn new(scenario: &str) -> Self {
        let word = "edge-cabinet".to_owned();
        Sample { scenario: scenario.to_owned(), word, random: fastrand::Rng::with_seed(7), all: vec![] }
    }

    /// All of them.
    pub fn measurements(mut self) -> Vec<Measurement> {
        for (system, slow) in SYSTEMS {
            for nodes in NODES {
                for seed in [1, 2] {
                    let run = RunId { system: system.into(), seed, variant: format!("nodes={nodes}") };
                    // What everybody gets from the origin takes the longer the more there are.
                    let slow = if system == "origin" { slow * nodes as f64 / 50.0 } else { slow };
                    self.run(&run, nodes, slow);
                }
            }
        }
        let run = RunId { system: "whole-blob".into(), seed: 2, variant: "nodes=500".into() };
        for at in [3.0, 125.0] {
            let text =
                format!("{} held a blob that nobody could get, although a holder was there", self.word);
            self.all.push(Measurement::Violation { run: run.clone(), checker: "liveness".into(), at, text });
        }
        self.all
    }

    fn run(&mut self, run: &RunId, nodes: u64, slow: f64) {
        let word = self.word.clone();
        let sites =
            (0..SITES).map(|n| if n == 0 { "central".into() } else { format!("{word}-{n}") }).collect();
        let (scenario, source) = (self.scenario.clone(), format!("made up for a test, {word}"));
        self.all.push(Measurement::Run { run: run.clone(), scenario, source, nodes, sites });
        let cut = format!("into site {word}-3");
        self.all.push(Measurement::Bound {
            run: run.clone(),
            artifact: 0,
            bytes: BYTES,
            cut,
            seconds: LEAST,
        });
        self.pulls(run, nodes, slow);
        self.lines(run, nodes, slow);
        self.control(run, slow);
        let copies = if run.system == "origin" { nodes } else { 1 + (slow * 2.0) as u64 };
        self.all.push(Measurement::Origin { run: run.clone(), bytes: copies * BYTES, content: BYTES });
        for (name, value, text) in [
            ("trace", None, Some(format!("{:016x}{word}", run.seed * 0x9e37_79b9_7f4a))),
            ("occurrences", Some(nodes as f64 * 12_345.0), None),
            ("bytes per record", Some(118.5), None),
            ("availability of what was held", Some(if slow > 1.0 { 0.97 } else { 1.0 }), None),
            ("outage-from", Some(0.0), None),
            ("note", None, Some(word)),
        ] {
            let figure = Measurement::Figure { run: run.clone(), name: name.into(), value, text };
            self.all.push(figure);
        }
    }

    fn pulls(&mut self, run: &RunId, nodes: u64, slow: f64) {
        for node in 0..nodes {
            let took = LEAST * slow * (1.0 + 0.08 * self.random.f64() + 0.3 * self.random.f64().powi(12));
            let pull = |asked: f64, took: Option<f64>, artifact, bytes| Measurement::Pull {
                run: run.clone(),
                artifact,
                bytes,
                site: node % SITES,
                node: node / SITES,
                asked,
                first_byte: took.map(|took| asked + took / 20.0),
                done: took.map(|took| asked + took),
            };
            let first = pull(0.0, Some(took), 0, BYTES);
            self.all.push(first);
            for hour in 0..24 {
                let lost = slow > 1.0 && self.random.f64() < 0.02 * f64::from(hour);
                let asked = f64::from(hour) * 3600.0 + self.random.f64() * 3600.0;
                if node % 10 == 0 {
                    self.all.push(pull(asked, (!lost).then_some(0.4), 1, 20_000_000));
                }
            }
        }
    }

    fn lines(&mut self, run: &RunId, nodes: u64, slow: f64) {
        let bucket = (LEAST * slow / 24.0).max(0.5);
        let end = (LEAST * slow / bucket).ceil() as u64;
        for site in 0..SITES {
            for part in 0..end {
                let wave = 0.6 + 0.4 * self.random.f64();
                let fresh = if part + 2 < end { wave } else { 0.2 };
                let (up, down) = if site == 0 { (2.4e8, 0.0) } else { (2e7 * site as f64, 1.2e8) };
                self.all.push(Measurement::Line {
                    run: run.clone(),
                    site,
                    from: part as f64 * bucket,
                    seconds: bucket,
                    up: (up * fresh * bucket) as u64,
                    down: (down * fresh * bucket) as u64,
                    control: 2_000,
                });
            }
            for to in (0..SITES).filter(|to| *to != 0 && (site == 0 || (site + to) % 3 == 0)) {
                let bytes = if site == 0 { BYTES / 10 } else { self.random.u64(1..BYTES / 4) };
                let bytes = if site == to { bytes * nodes } else { bytes };
                self.all.push(Measurement::Between { run: run.clone(), from: site, to, bytes });
            }
        }
    }

    fn control(&mut self, run: &RunId, slow: f64) {
        let kinds = [("gossip", 900_000), ("reconcile", 400_000), ("progress", 250_000), ("have", 90_000)];
        for (message, bytes) in kinds {
            for hour in 0..24 {
                let bytes = bytes + self.random.u64(0..bytes / 4);
                let from = f64::from(hour) * 3600.0;
                let (message, messages, far) = (message.to_owned(), bytes / 180, bytes / 3);
                let (run, dropped) = (run.clone(), u64::from(message == "gossip" && hour == 3));
                self.all.push(Measurement::Control {
                    run,
                    message,
                    from,
                    seconds: 3600.0,
                    messages,
                    bytes,
                    far,
                    dropped,
                });
            }
        }
        for artifact in 0..60 {
            let half = 0.05 + 0.05 * self.random.f64() * slow;
            let most = half * (2.0 + self.random.f64());
            let all = (artifact % 20 != 0).then_some(most * (1.2 + 3.0 * self.random.f64().powi(6)));
            self.all.push(Measurement::Spread {
                run: run.clone(),
                artifact,
                published: artifact as f64 * 60.0,
                half: Some(half),
                most: Some(most),
                all,
                missed: u64::from(all.is_none()),
            });
        }
        for minute in (0..1440).step_by(10) {
            let outage = (600..720).contains(&minute);
            let behind = if outage { 120 } else { self.random.u64(0..6) };
            let (run, at) = (run.clone(), f64::from(minute) * 60.0);
            self.all.push(Measurement::Staleness { run, at, behind, nodes: 500, records: 9_000 });
        }
    }
}
