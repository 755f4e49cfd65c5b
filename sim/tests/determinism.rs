//! One seed is one history, in every process.

use std::process::Command;

fn run(seed: u64) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_waystation-sim"))
        .args(["replay", "--summary", "--nodes", "7", "--minutes", "2", "--seed", &seed.to_string()])
        .output()
        .expect("the simulator starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "seed {seed} broke a promise:\n{text}");
    text
}

fn trace(text: &str) -> &str {
    text.lines().find(|line| line.starts_with("trace: ")).expect("the trace's hash is printed")
}

#[test]
fn a_seed_gives_the_same_trace_in_two_processes() {
    let (first, second) = (run(4), run(4));
    assert_eq!(first, second);
}

/// The same on every machine. Whoever changes what nodes decide, or what the simulator does, changes it: the new
/// one stands in what this test prints.
const TRACE: &str =
    "trace: 125878dc263b1b344a88fed5eb76df749ccdaff2465f33b043836b97f0e2eea3 over 6154 occurrences";

#[test]
fn a_seed_gives_the_same_trace_on_every_machine() {
    let text = run(4);
    assert_eq!(
        trace(&text),
        TRACE,
        "if nodes or the simulator were meant to behave otherwise, it is the new one"
    );
}

#[test]
fn another_seed_gives_another_trace() {
    assert_ne!(trace(&run(4)), trace(&run(5)));
}
