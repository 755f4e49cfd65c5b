//! The report as a reader gets it: what it says, that it is always the same, that nothing in a file of measurements
//! can break out of its text, and (in `browser`) how it looks.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a failing check may panic; tests write files"
)]

mod browser;
mod sample;

use std::{fmt::Write as _, fs, path::Path};

use sample::Sample;
use waystation_sim::{
    measure::{Measurement, RunId},
    report::{self, MEASUREMENTS, ReportError},
};

/// The report of some measurements.
fn report_of(measurements: &[Measurement]) -> String {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), measurements);
    fs::read_to_string(report::write(folder.path()).unwrap()).unwrap()
}

fn write(folder: &Path, measurements: &[Measurement]) {
    let mut text = String::new();
    for measurement in measurements {
        writeln!(text, "{}", serde_json::to_string(measurement).unwrap()).unwrap();
    }
    fs::write(folder.join(MEASUREMENTS), text).unwrap();
}

fn run() -> RunId {
    RunId { system: "waystation".into(), seed: 1, variant: String::new() }
}

fn begin() -> Measurement {
    Measurement::Run {
        run: run(),
        scenario: "small".into(),
        source: String::new(),
        nodes: 2,
        sites: vec!["a".into()],
    }
}

fn pull(asked: f64, done: Option<f64>) -> Measurement {
    Measurement::Pull {
        run: run(),
        artifact: 0,
        bytes: 1000,
        site: 0,
        node: 0,
        asked,
        first_byte: done,
        done,
    }
}

#[test]
fn the_same_measurements_give_the_same_bytes() {
    let measurements = Sample::new("edge rollout").measurements();
    let text = report_of(&measurements);
    assert_eq!(text, report_of(&measurements));
    assert!(text.len() < 1_000_000, "{} bytes", text.len());
}

#[test]
fn every_section_is_there_when_there_is_data_for_it() {
    let text = report_of(&Sample::new("edge rollout").measurements());
    for id in [
        "violations",
        "summary",
        "completion",
        "growth",
        "uplink",
        "outage",
        "traffic",
        "matrix",
        "spread",
        "control",
        "figures",
        "runs",
    ] {
        assert!(text.contains(&format!("<section id=\"{id}\"")), "{id} is missing");
    }
    for words in ["edge rollout", "T_min 10 s", "1.25 GB", "availability of what was held", "p99 × T_min"] {
        assert!(text.contains(words), "does not say {words}");
    }
}

#[test]
fn sections_without_data_are_left_out() {
    let text = report_of(&[begin(), pull(0.0, Some(2.5))]);
    let sections: Vec<&str> =
        text.split("<section id=\"").skip(1).filter_map(|part| part.split('"').next()).collect();
    assert_eq!(sections, ["summary", "completion", "runs"]);
    assert!(text.contains("No broken promise") && text.contains("2.5 s"));
    let text = report_of(&[begin()]);
    assert!(text.contains("<section id=\"runs\"") && !text.contains("<section id=\"completion\""));
}

#[test]
fn no_text_of_a_file_becomes_markup() {
    const EVIL: &str = "</title><script>alert(1)</script>\"'&<svg onload=x>";
    let mut sample = Sample::new(EVIL);
    sample.word = EVIL.to_owned();
    let text = report_of(&sample.measurements());
    assert!(!text.contains("<script") && !text.contains("<svg onload") && !text.contains("\"'&"));
    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
}

#[test]
fn nothing_is_loaded_from_elsewhere() {
    let text = report_of(&Sample::new("edge rollout").measurements());
    for outside in ["http:", "https:", "//cdn", "src=", "@import", "url(", "<script", "<link"] {
        assert!(!text.contains(outside), "has {outside}");
    }
    assert!(text.contains("default-src 'none'"));
}

#[test]
fn pulls_that_never_end_are_told() {
    let text = report_of(&[begin(), pull(0.0, Some(2.0)), pull(1.0, None), pull(7200.0, None)]);
    assert!(text.contains("2 pulls had not ended") && text.contains("<section id=\"outage\""));
}

#[test]
fn odd_numbers_break_nothing() {
    let figure = |value| Measurement::Figure { run: run(), name: "odd".into(), value, text: None };
    let line = |from, seconds| Measurement::Line {
        run: run(),
        site: u64::MAX,
        from,
        seconds,
        up: u64::MAX,
        down: u64::MAX,
        control: 0,
    };
    let bound =
        |seconds| Measurement::Bound { run: run(), artifact: 0, bytes: 0, cut: String::new(), seconds };
    let text = report_of(&[
        begin(),
        bound(0.0),
        bound(-1.0),
        pull(5.0, Some(1.0)),
        pull(-5.0, Some(0.0)),
        pull(1e300, Some(1e301)),
        figure(Some(-1e300)),
        figure(None),
        line(-10.0, 0.0),
        line(1e200, 1e200),
        line(0.0, 1e-300),
        Measurement::Between { run: run(), from: 0, to: u64::MAX, bytes: 7 },
        Measurement::Origin { run: run(), bytes: 0, content: 0 },
        Measurement::Staleness { run: run(), at: -1.0, behind: 5, nodes: 0, records: 0 },
    ]);
    assert!(!text.contains("NaN") && !text.contains("inf\""), "a coordinate is no number");
}

#[test]
fn what_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    assert!(matches!(report::write(folder.path()), Err(ReportError::Read { .. })));
    fs::write(folder.path().join(MEASUREMENTS), "\n").unwrap();
    assert!(matches!(report::write(folder.path()), Err(ReportError::Empty { .. })));
    fs::write(folder.path().join(MEASUREMENTS), "\n{\"kind\":\"dance\"}\n").unwrap();
    let error = report::write(folder.path()).unwrap_err();
    assert!(error.to_string().contains("measurements.jsonl, line 2: no measurement"), "{error}");
    write(folder.path(), &[begin()]);
    fs::create_dir(folder.path().join(report::REPORT)).unwrap();
    assert!(matches!(report::write(folder.path()), Err(ReportError::Write { .. })));
}

#[test]
fn many_pulls_make_no_larger_report() {
    let few: Vec<_> =
        [begin()].into_iter().chain((0..2_000).map(|n| pull(0.0, Some(f64::from(n) / 200.0)))).collect();
    let many: Vec<_> =
        [begin()].into_iter().chain((0..60_000).map(|n| pull(0.0, Some(f64::from(n) / 6000.0)))).collect();
    let (few, many) = (report_of(&few), report_of(&many));
    assert!(many.len() < few.len() + 2_000, "{} against {}", many.len(), few.len());
}
