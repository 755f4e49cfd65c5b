//! Blobs by every form of upload, in each algorithm; what is wrong with them; ranges; mounts.

use super::{
    content::Algorithm,
    ends::{Ends, Report},
};
use crate::harness::{http::Response, image::random_bytes, registry::with_query};

const REPOSITORY: &str = "conformance/blobs";
const OTHER: &str = "conformance/other";

/// Pushes a blob by one of the forms of upload, which `turn` chooses, and reads it where it is said to be.
pub fn push(
    ends: &Ends,
    report: &mut Report,
    what: &str,
    turn: usize,
    repository: &str,
    algorithm: Algorithm,
    blob: &[u8],
) {
    let digest = algorithm.digest(blob);
    let uploads = format!("/v2/{repository}/blobs/uploads/");
    let answer = match turn % 4 {
        0 => ends.push.request("POST", &format!("{uploads}?digest={digest}")).body(blob).send(),
        1 => finish(ends, &start(ends, report, what, &uploads), &digest, blob),
        2 => {
            let session = start(ends, report, what, &uploads);
            let range = format!("0-{}", blob.len().saturating_sub(1));
            let request = ends.push.request("PATCH", &session).header("Content-Range", &range).body(blob);
            let patched = report.status(what, request.send(), &[202]);
            report.header(what, &patched, "range", &range);
            finish(ends, &patched.location(), &digest, b"")
        }
        _ => {
            let session =
                start(ends, report, what, &format!("{uploads}?digest-algorithm={}", algorithm.name()));
            let patched =
                report.status(what, ends.push.request("PATCH", &session).chunked(blob).send(), &[202]);
            finish(ends, &patched.location(), &digest, b"")
        }
    };
    stored(ends, report, what, answer, &digest, blob);
}

fn start(ends: &Ends, report: &mut Report, what: &str, uploads: &str) -> String {
    report.status(what, ends.push.request("POST", uploads).send(), &[202]).location()
}

fn finish(ends: &Ends, session: &str, digest: &str, rest: &[u8]) -> Response {
    ends.push.request("PUT", &with_query(session, &format!("digest={digest}"))).body(rest).send()
}

/// 201, and what Location leads to is the blob.
fn stored(ends: &Ends, report: &mut Report, what: &str, answer: Response, digest: &str, blob: &[u8]) {
    let answer = report.status(what, answer, &[201]);
    if answer.status != 201 {
        return;
    }
    report.header(what, &answer, "docker-content-digest", digest);
    let location = answer.location();
    let head = report.status(what, ends.push.head(&location).send(), &[200]);
    report.header(what, &head, "content-length", &blob.len().to_string());
    let got = report.status(what, ends.push.get(&location).send(), &[200]);
    report.header(what, &got, "docker-content-digest", digest);
    report.check(what, got.body == blob, || "Location leads to other bytes".into());
}

/// Everything about blobs by themselves, where they are pushed: no other node knows of a blob that no manifest names.
pub fn run(ends: &Ends, algorithm: Algorithm, report: &mut Report) {
    let seed = if algorithm == Algorithm::Sha256 { 5000 } else { 6000 };
    let name = algorithm.name();
    let missing = format!("/v2/{REPOSITORY}/blobs/{}", algorithm.digest(b"missing"));
    for method in ["HEAD", "GET", "DELETE"] {
        let answer = ends.push.request(method, &missing).send();
        report.status(&format!("{name}: {method} of a missing blob"), answer, &[404]);
    }
    for (turn, form) in ["POST", "PUT", "chunk", "stream"].iter().enumerate() {
        for (n, blob) in [random_bytes(seed + turn as u64, 2048), vec![], b"{}".to_vec()].iter().enumerate() {
            if *form == "chunk" && blob.is_empty() {
                continue;
            }
            push(ends, report, &format!("{name}: {form}, blob {n}"), turn, REPOSITORY, algorithm, blob);
        }
    }
    chunks(ends, algorithm, seed, report);
    out_of_order(ends, algorithm, seed, report);
    sessions(ends, algorithm, report);
    wrong_digests(ends, algorithm, report);
    mounts(ends, algorithm, seed, report);
    ranges(ends, algorithm, seed, report);
}

/// Several chunks, and a last one with the PUT.
fn chunks(ends: &Ends, algorithm: Algorithm, seed: u64, report: &mut Report) {
    let blob = random_bytes(seed + 10, 3000);
    let digest = algorithm.digest(&blob);
    for put_last in [false, true] {
        let what = format!("{}: chunks, the last with the PUT: {put_last}", algorithm.name());
        let mut session = start(ends, report, &what, &format!("/v2/{REPOSITORY}/blobs/uploads/"));
        let patched = if put_last { 2000 } else { 3000 };
        for from in (0..patched).step_by(1000) {
            let range = format!("{from}-{}", from + 999);
            let request = ends.push.request("PATCH", &session).header("Content-Range", &range);
            let answer = report.status(&what, request.body(&blob[from..from + 1000]).send(), &[202]);
            report.header(&what, &answer, "range", &format!("0-{}", from + 999));
            session = answer.location();
            let status = report.status(&what, ends.push.get(&session).send(), &[204]);
            report.header(&what, &status, "range", &format!("0-{}", from + 999));
        }
        let target = with_query(&session, &format!("digest={digest}"));
        let mut request = ends.push.request("PUT", &target);
        if put_last {
            request = request.header("Content-Range", "2000-2999");
        }
        let answer = request.body(&blob[patched..]).send();
        stored(ends, report, &what, answer, &digest, &blob);
    }
}

/// A chunk in the wrong place is refused, the session says where to go on, and goes on there.
fn out_of_order(ends: &Ends, algorithm: Algorithm, seed: u64, report: &mut Report) {
    let blob = random_bytes(seed + 11, 2000);
    let digest = algorithm.digest(&blob);
    for method in ["PATCH", "PUT"] {
        let what = format!("{}: {method} out of order", algorithm.name());
        let session = start(ends, report, &what, &format!("/v2/{REPOSITORY}/blobs/uploads/"));
        let target = match method {
            "PUT" => with_query(&session, &format!("digest={digest}")),
            _ => session.clone(),
        };
        let request = ends.push.request(method, &target).header("Content-Range", "1000-1999");
        report.status(&what, request.body(&blob[1000..]).send(), &[416]);
        let status = report.status(&what, ends.push.get(&target).send(), &[204]);
        report.header(&what, &status, "range", "0-0");
        let mut session = status.location();
        for (range, part) in [("0-999", &blob[..1000]), ("1000-1999", &blob[1000..])] {
            let request = ends.push.request("PATCH", &session).header("Content-Range", range);
            session = report.status(&what, request.body(part).send(), &[202]).location();
        }
        stored(ends, report, &what, finish(ends, &session, &digest, b""), &digest, &blob);
    }
}

/// Sessions that are cancelled, finished or were never there.
fn sessions(ends: &Ends, algorithm: Algorithm, report: &mut Report) {
    let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let what = format!("{}: a cancelled session", algorithm.name());
    let session = start(ends, report, &what, &uploads);
    report.status(&what, ends.push.request("PATCH", &session).body(b"some").send(), &[202]);
    report.status(&what, ends.push.request("DELETE", &session).send(), &[204]);
    let digest = algorithm.digest(b"some");
    for answer in [
        ends.push.get(&session).send(),
        ends.push.request("DELETE", &session).send(),
        ends.push.request("PATCH", &session).body(b"more").send(),
        finish(ends, &session, &digest, b""),
    ] {
        report.status(&what, answer, &[404]);
    }
    let what = format!("{}: an unknown algorithm", algorithm.name());
    let answer = ends.push.request("POST", &format!("{uploads}?digest-algorithm=md5")).send();
    let answer = report.status(&what, answer, &[400]);
    report.error_form(&what, &answer);
}

fn wrong_digests(ends: &Ends, algorithm: Algorithm, report: &mut Report) {
    let uploads = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let other = algorithm.digest(b"other bytes");
    for (n, digest) in [other.as_str(), "sha256:baddigeststring", "md5:00", "", "nothing"].iter().enumerate()
    {
        let what = format!("{}: wrong digest {n}", algorithm.name());
        let session = start(ends, report, &what, &uploads);
        let answer = report.status(&what, finish(ends, &session, digest, b"bytes"), &[400]);
        report.error_form(&what, &answer);
        let target = format!("{uploads}?digest={digest}");
        report.status(&what, ends.push.request("POST", &target).body(b"bytes").send(), &[400]);
    }
    let missing = ends.push.head(&format!("/v2/{REPOSITORY}/blobs/{other}")).send();
    report.status("nothing is kept under a wrong digest", missing, &[404]);
}

fn mounts(ends: &Ends, algorithm: Algorithm, seed: u64, report: &mut Report) {
    let name = algorithm.name();
    for (n, from) in [format!("&from={REPOSITORY}"), String::new()].iter().enumerate() {
        let what = format!("{name}: mount {n}");
        let blob = random_bytes(seed + 20 + n as u64, 2048);
        let digest = algorithm.digest(&blob);
        push(ends, report, &what, 0, REPOSITORY, algorithm, &blob);
        let hidden = ends.push.get(&format!("/v2/{OTHER}/blobs/{digest}")).send();
        report.status(&what, hidden, &[404]);
        let target = format!("/v2/{OTHER}/blobs/uploads/?mount={digest}{from}");
        stored(ends, report, &what, ends.push.request("POST", &target).send(), &digest, &blob);
    }
    // What is not there to mount opens a session.
    let what = format!("{name}: mount of what is missing");
    let blob = random_bytes(seed + 30, 100);
    let digest = algorithm.digest(&blob);
    let target = format!("/v2/{OTHER}/blobs/uploads/?mount={digest}&from={REPOSITORY}");
    let session = report.status(&what, ends.push.request("POST", &target).send(), &[202]).location();
    stored(ends, report, &what, finish(ends, &session, &digest, &blob), &digest, &blob);
}

fn ranges(ends: &Ends, algorithm: Algorithm, seed: u64, report: &mut Report) {
    let what = format!("{}: ranges", algorithm.name());
    let blob = random_bytes(seed + 40, 2048);
    push(ends, report, &what, 1, REPOSITORY, algorithm, &blob);
    let target = format!("/v2/{REPOSITORY}/blobs/{}", algorithm.digest(&blob));
    for (range, from, to) in [
        ("bytes=0-0", 0, 1),
        ("bytes=0-499", 0, 500),
        ("bytes=500-", 500, 2048),
        ("bytes=2000-5000", 2000, 2048),
        ("bytes=-500", 1548, 2048),
    ] {
        let answer = ends.push.get(&target).header("Range", range).send();
        let answer = report.status(&format!("{what}: {range}"), answer, &[206]);
        report.check(&what, answer.body == blob[from..to], || format!("other bytes for {range}"));
        report.header(&what, &answer, "content-range", &format!("bytes {from}-{}/2048", to - 1));
        report.header(&what, &answer, "content-length", &(to - from).to_string());
    }
    for range in ["bytes=500-0", "bytes=2048-", "bytes=5000-6000"] {
        let answer = ends.push.get(&target).header("Range", range).send();
        let answer = report.status(&format!("{what}: {range}"), answer, &[416]);
        report.header(&what, &answer, "content-range", "bytes */2048");
    }
    let answer = ends.push.get(&target).header("Range", "bytes=0-9,20-29").send();
    let answer = report.status(&format!("{what}: two of them"), answer, &[206]);
    let several = answer.header("content-type").is_some_and(|kind| kind.starts_with("multipart/byteranges"));
    report.check(&what, several, || format!("{:?}", answer.headers));
    let head = ends.push.head(&target).header("Range", "bytes=0-9").send();
    let head = report.status(&what, head, &[200]);
    report.header(&what, &head, "content-length", "2048");
}
