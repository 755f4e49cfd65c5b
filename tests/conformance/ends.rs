//! The two ends of the checks, and what they found.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::harness::http::{Http, Request, Response};

/// Where is pushed and where is pulled.
pub struct Ends {
    pub push: Http,
    pub pull: Http,
    /// How long the second end may take to hear of what the first acknowledged. None at one node.
    patience: Duration,
}

/// Checks that were made.
#[derive(Default)]
pub struct Report {
    pub passed: usize,
    pub failed: Vec<String>,
}

impl Ends {
    /// One node for both.
    pub fn one(http: Http) -> Self {
        Ends { push: http.clone(), pull: http, patience: Duration::ZERO }
    }

    /// Two nodes of a mesh.
    pub fn two(push: Http, pull: Http) -> Self {
        Ends { push, pull, patience: Duration::from_secs(20) }
    }

    /// Asks the second end until the answer is as it should be, or for as long as the news may take.
    pub fn see(&self, method: &str, target: &str, is_right: impl Fn(&Response) -> bool) -> Response {
        let start = Instant::now();
        loop {
            let answer = accepting(self.pull.request(method, target)).send();
            if is_right(&answer) || start.elapsed() >= self.patience {
                return answer;
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// As [`Ends::see`], for a status.
    pub fn see_status(&self, method: &str, target: &str, status: u16) -> Response {
        self.see(method, target, |answer| answer.status == status)
    }
}

impl Report {
    /// Counts a check.
    pub fn check(&mut self, what: &str, is_so: bool, found: impl FnOnce() -> String) {
        if is_so {
            self.passed += 1;
        } else {
            self.failed.push(format!("{what}: {}", found()));
        }
    }

    /// Checks a status; gives the answer back.
    pub fn status(&mut self, what: &str, answer: Response, expected: &[u16]) -> Response {
        self.check(what, expected.contains(&answer.status), || {
            format!("{} instead of {expected:?}: {}", answer.status, text(&answer))
        });
        answer
    }

    /// Checks a header.
    pub fn header(&mut self, what: &str, answer: &Response, name: &str, expected: &str) {
        let found = answer.header(name);
        self.check(what, found == Some(expected), || format!("{name} is {found:?}, not {expected:?}"));
    }

    /// Checks that the body is an error of the specification's form.
    pub fn error_form(&mut self, what: &str, answer: &Response) {
        let body: Option<Value> = serde_json::from_slice(&answer.body).ok();
        let code = body.as_ref().and_then(|body| body["errors"][0]["code"].as_str());
        self.check(what, code.is_some_and(|code| !code.is_empty()), || {
            format!("not an error body: {}", text(answer))
        });
    }

    /// Panics where something was not as it should be, or fewer checks were made than there are.
    #[track_caller]
    pub fn expect(self, at_least: usize) {
        let (passed, failed) = (self.passed, self.failed.len());
        println!("conformance: {passed} checks passed, {failed} failed, 0 skipped");
        assert!(
            self.failed.is_empty(),
            "{failed} of {} failed:\n{}",
            passed + failed,
            self.failed.join("\n")
        );
        assert!(passed >= at_least, "only {passed} checks were made, there are at least {at_least}");
    }
}

/// Two Accept lines, as some clients send.
fn accepting(request: Request<'_>) -> Request<'_> {
    request
        .header("Accept", "application/vnd.oci.image.index.v1+json")
        .header("Accept", "application/vnd.oci.image.manifest.v1+json, */*")
}

fn text(answer: &Response) -> String {
    String::from_utf8_lossy(&answer.body).chars().take(300).collect()
}
