//! The API itself, lists in pages, and referrers kept under tags by clients that know no better.

use serde_json::{Value, json};

use super::{
    blobs,
    content::{Algorithm, IMAGE, INDEX},
    ends::{Ends, Report},
};
use crate::harness::{http::Response, image::to_bytes};

const REPOSITORY: &str = "conformance/lists";

/// Before anything is pushed.
pub fn empty(ends: &Ends, report: &mut Report) {
    for http in [&ends.push, &ends.pull] {
        report.status("the API answers", http.get("/v2/").send(), &[200]);
    }
    let answer = ends.pull.get("/v2/conformance/nothing/tags/list").send();
    report.status("tags of an unknown repository", answer, &[404]);
    let digest = Algorithm::Sha256.digest(b"nothing");
    let what = "referrers of what is unknown";
    for filter in ["", "?artifactType=a/b"] {
        let answer = ends.pull.get(&format!("/v2/conformance/nothing/referrers/{digest}{filter}")).send();
        let answer = report.status(what, answer, &[200]);
        report.header(what, &answer, "content-type", INDEX);
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let expected = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []});
        report.check(what, json == expected, || json.to_string());
    }
    let answer = ends.pull.get("/v2/conformance/nothing/referrers/sha256:x").send();
    let answer = report.status("referrers of no digest", answer, &[400]);
    report.error_form("referrers of no digest", &answer);
}

/// Tags, repositories and referrers in pages.
pub fn run(ends: &Ends, report: &mut Report) {
    let config = b"{}".to_vec();
    for repository in [REPOSITORY, "conformance/lists/a", "conformance/lists/b"] {
        blobs::push(ends, report, "an empty config", 0, repository, Algorithm::Sha256, &config);
    }
    let config = json!({"mediaType": "application/vnd.oci.empty.v1+json", "digest": Algorithm::Sha256.digest(&config), "size": 2});
    let image = json!({"schemaVersion": 2, "mediaType": IMAGE, "artifactType": "a/b", "config": config, "layers": []});
    let bytes = to_bytes(&image);
    let put = |repository: &str, reference: &str, media_type: &str, bytes: &[u8]| {
        let target = format!("/v2/{repository}/manifests/{reference}");
        ends.push.request("PUT", &target).header("Content-Type", media_type).body(bytes).send()
    };
    let tags: Vec<String> = (0..7).map(|n| format!("v{n}")).collect();
    for tag in tags.iter().rev() {
        report.status("a tag is pushed", put(REPOSITORY, tag, IMAGE, &bytes), &[201]);
    }
    for repository in ["conformance/lists/a", "conformance/lists/b"] {
        report.status("a tag is pushed", put(repository, "v1", IMAGE, &bytes), &[201]);
    }
    let all = ends.see("GET", &format!("/v2/{REPOSITORY}/tags/list"), |answer| names(answer, "tags") == tags);
    report.check("all tags are listed", names(&all, "tags") == tags, || format!("{:?}", names(&all, "tags")));
    pages(ends, report, &format!("/v2/{REPOSITORY}/tags/list?n=3"), "tags", &tags, &[3, 3, 1]);
    for (query, expected) in [
        ("n=0", &tags[..0]),
        ("last=v2", &tags[3..]),
        ("n=2&last=v1", &tags[2..4]),
        ("last=v", &tags[..]),
        ("last=v6", &tags[7..]),
    ] {
        let answer = ends.pull.get(&format!("/v2/{REPOSITORY}/tags/list?{query}")).send();
        report.check(&format!("tags {query}"), names(&answer, "tags") == expected, || {
            format!("{:?}", names(&answer, "tags"))
        });
        let has_next = answer.header("link").is_some();
        report.check(&format!("tags {query}: link"), has_next == (query == "n=2&last=v1"), || {
            format!("{has_next}")
        });
    }
    let mine = |answer: &Response| -> Vec<String> {
        names(answer, "repositories").into_iter().filter(|name| name.starts_with(REPOSITORY)).collect()
    };
    let expected = [REPOSITORY, "conformance/lists/a", "conformance/lists/b"];
    let answer = ends.see("GET", "/v2/_catalog", |answer| mine(answer) == expected);
    report.check("repositories are listed", mine(&answer) == expected, || format!("{:?}", mine(&answer)));
    let every = names(&answer, "repositories");
    pages(ends, report, "/v2/_catalog?n=1", "repositories", &every, &vec![1; every.len()]);
    referrers(ends, report, &image, &put);
}

type Put<'a> = dyn Fn(&str, &str, &str, &[u8]) -> Response + 'a;

/// Many referrers, pushed by a client that also keeps them under the subject's fallback tag.
fn referrers(ends: &Ends, report: &mut Report, image: &Value, put: &Put<'_>) {
    let bytes = to_bytes(image);
    let subject =
        json!({"mediaType": IMAGE, "digest": Algorithm::Sha256.digest(&bytes), "size": bytes.len()});
    let (mut listed, mut digests) = (vec![], vec![]);
    for n in 0..5 {
        let mut referrer = image.clone();
        referrer["subject"] = subject.clone();
        referrer["annotations"] = json!({"n": n.to_string()});
        let bytes = to_bytes(&referrer);
        let digest = Algorithm::Sha256.digest(&bytes);
        report.status("a referrer is pushed", put(REPOSITORY, &digest, IMAGE, &bytes), &[201]);
        listed
            .push(json!({"mediaType": IMAGE, "digest": digest, "size": bytes.len(), "artifactType": "a/b"}));
        digests.push(digest);
    }
    let digest = subject["digest"].as_str().expect("text");
    let fallback = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": listed});
    let answer = put(REPOSITORY, &digest.replace(':', "-"), INDEX, &to_bytes(&fallback));
    report.status("a fallback tag is pushed", answer, &[201]);
    let answer =
        ends.see_status("GET", &format!("/v2/{REPOSITORY}/manifests/{}", digest.replace(':', "-")), 200);
    report.status("a fallback tag is read", answer, &[200]);
    digests.sort();
    let target = format!("/v2/{REPOSITORY}/referrers/{digest}");
    let seen = ends.see("GET", &target, |answer| names(answer, "manifests") == digests);
    report.check("all referrers, each once", names(&seen, "manifests") == digests, || {
        format!("{:?}", names(&seen, "manifests"))
    });
    pages(ends, report, &format!("{target}?n=2"), "manifests", &digests, &[2, 2, 1]);
    pages(ends, report, &format!("{target}?artifactType=a/b&n=4"), "manifests", &digests, &[4, 1]);
}

/// Follows the links from a first page on.
fn pages(ends: &Ends, report: &mut Report, first: &str, key: &str, all: &[String], lengths: &[usize]) {
    let what = format!("pages of {first}");
    let (mut target, mut found, mut sizes) = (first.to_owned(), vec![], vec![]);
    while sizes.len() <= lengths.len() {
        let answer = report.status(&what, ends.pull.get(&target).send(), &[200]);
        let page = names(&answer, key);
        sizes.push(page.len());
        found.extend(page);
        let next =
            answer.header("link").and_then(|link| link.strip_prefix('<')?.strip_suffix(">; rel=\"next\""));
        match next {
            Some(next) => target = next.to_owned(),
            None => break,
        }
    }
    report.check(&what, found == all && sizes == lengths, || format!("{sizes:?}: {found:?}"));
}

/// The names in a list: of manifests, their digests.
fn names(answer: &Response, key: &str) -> Vec<String> {
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let entries = json[key].as_array().cloned().unwrap_or_default();
    let name = |entry: &Value| entry.as_str().or(entry["digest"].as_str()).unwrap_or_default().to_owned();
    entries.iter().map(name).collect()
}
