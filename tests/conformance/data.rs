//! A data set's whole life: pushed, listed, pulled by tag and digest, found as referrer, deleted.

use serde_json::Value;

use super::{
    blobs,
    content::{Algorithm, INDEX, Manifest, Set},
    ends::{Ends, Report},
};
use crate::harness::http::Response;

const REPOSITORY: &str = "conformance/data";

/// Pushes, pulls and deletes one set.
pub fn run(ends: &Ends, set: &Set, report: &mut Report) {
    for (n, blob) in set.blobs.iter().enumerate() {
        let what = format!("{}: blob {n} is pushed", set.name);
        blobs::push(ends, report, &what, n, REPOSITORY, set.algorithm, blob);
    }
    for (n, manifest) in set.manifests.iter().enumerate() {
        push(ends, report, set, n, manifest);
    }
    tags(ends, report, set);
    for (n, manifest) in set.manifests.iter().enumerate() {
        let digest = manifest.digest(set.algorithm);
        for reference in manifest.tags.iter().chain([&digest]) {
            pull(
                ends,
                report,
                &format!("{}: manifest {n} by {reference:.20}", set.name),
                manifest,
                reference,
                &digest,
            );
        }
        referrers(ends, report, set, n, manifest);
    }
    for (n, blob) in set.blobs.iter().enumerate() {
        pull_blob(ends, report, &format!("{}: blob {n}", set.name), &set.algorithm.digest(blob), blob);
    }
    late(ends, report, set);
    delete(ends, report, set);
}

/// Blobs that are not there are not served, and are once they have been pushed.
fn late(ends: &Ends, report: &mut Report, set: &Set) {
    for (n, blob) in set.absent.iter().enumerate() {
        let (digest, what) = (set.algorithm.digest(blob), format!("{}: absent blob {n}", set.name));
        let target = format!("/v2/{REPOSITORY}/blobs/{digest}");
        for method in ["HEAD", "GET"] {
            let answer = report.status(&what, ends.pull.request(method, &target).send(), &[404]);
            if method == "GET" {
                report.error_form(&what, &answer);
            }
        }
        blobs::push(ends, report, &what, n, REPOSITORY, set.algorithm, blob);
        pull_blob(ends, report, &what, &digest, blob);
    }
}

fn push(ends: &Ends, report: &mut Report, set: &Set, n: usize, manifest: &Manifest) {
    let digest = manifest.digest(set.algorithm);
    let by_tag = !manifest.tags.is_empty() && !manifest.by_parameter;
    let parameters: Vec<_> = manifest.tags.iter().map(|tag| format!("tag={tag}")).collect();
    let targets = match (by_tag, manifest.by_parameter) {
        (true, _) => manifest.tags.clone(),
        (false, true) => vec![format!("{digest}?{}", parameters.join("&"))],
        (false, false) => vec![digest.clone()],
    };
    for target in targets {
        let what = format!("{}: manifest {n} is pushed to {target:.30}", set.name);
        let answer = put(ends, &target, manifest);
        let answer = report.status(&what, answer, &[201]);
        if answer.status != 201 {
            continue;
        }
        report.header(&what, &answer, "docker-content-digest", &digest);
        let stored = ends.push.get(&answer.location()).send();
        report.check(&what, stored.body == manifest.bytes, || "Location leads to other bytes".into());
        if let Some(subject) = &manifest.subject {
            report.header(&what, &answer, "oci-subject", subject);
        }
        if manifest.by_parameter {
            let tags: Vec<_> = answer.headers.iter().filter(|(name, _)| name == "oci-tag").collect();
            let all = manifest.tags.iter().all(|tag| tags.iter().any(|(_, found)| found == tag));
            report.check(&what, all && tags.len() == manifest.tags.len(), || format!("OCI-Tag: {tags:?}"));
        }
    }
}

fn put(ends: &Ends, reference: &str, manifest: &Manifest) -> Response {
    let target = format!("/v2/{REPOSITORY}/manifests/{reference}");
    ends.push.request("PUT", &target).header("Content-Type", manifest.media_type).body(&manifest.bytes).send()
}

fn tags(ends: &Ends, report: &mut Report, set: &Set) {
    let all: Vec<&String> = set.manifests.iter().flat_map(|manifest| &manifest.tags).collect();
    let listed = |answer: &Response| -> Vec<String> {
        let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let tags = json["tags"].as_array().into_iter().flatten();
        tags.filter_map(|tag| tag.as_str().map(str::to_owned)).collect()
    };
    let answer = ends.see("GET", &format!("/v2/{REPOSITORY}/tags/list"), |answer| {
        let tags = listed(answer);
        all.iter().all(|tag| tags.contains(tag))
    });
    let tags = listed(&answer);
    let what = format!("{}: tags are listed", set.name);
    report.check(&what, all.iter().all(|tag| tags.contains(tag)), || format!("{tags:?}"));
    report.check(&what, tags.is_sorted(), || format!("not in order: {tags:?}"));
}

fn pull(ends: &Ends, report: &mut Report, what: &str, manifest: &Manifest, reference: &str, digest: &str) {
    let target = format!("/v2/{REPOSITORY}/manifests/{reference}");
    let length = manifest.bytes.len().to_string();
    for method in ["HEAD", "GET"] {
        let answer = ends.see_status(method, &target, 200);
        let answer = report.status(&format!("{method} of {what}"), answer, &[200]);
        report.header(what, &answer, "content-type", manifest.media_type);
        report.header(what, &answer, "content-length", &length);
        report.header(what, &answer, "docker-content-digest", digest);
        if method == "GET" {
            report.check(what, answer.body == manifest.bytes, || "other bytes".into());
        }
    }
}

fn pull_blob(ends: &Ends, report: &mut Report, what: &str, digest: &str, blob: &[u8]) {
    let target = format!("/v2/{REPOSITORY}/blobs/{digest}");
    for method in ["HEAD", "GET"] {
        // What no manifest names is not known elsewhere.
        let answer = ends.see_status(method, &target, 200);
        let answer = report.status(&format!("{method} of {what}"), answer, &[200]);
        report.header(what, &answer, "content-length", &blob.len().to_string());
        report.header(what, &answer, "docker-content-digest", digest);
        report.check(what, answer.header("content-encoding").is_none(), || "is encoded".into());
        if method == "GET" {
            report.check(what, answer.body == blob, || "other bytes".into());
        }
    }
}

/// The descriptors in a list of referrers.
fn descriptors(answer: &Response) -> Vec<Value> {
    let json: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    json["manifests"].as_array().cloned().unwrap_or_default()
}

fn referrers(ends: &Ends, report: &mut Report, set: &Set, n: usize, manifest: &Manifest) {
    let Some(subject) = &manifest.subject else { return };
    let what = format!("{}: manifest {n} refers to its subject", set.name);
    let digest = manifest.digest(set.algorithm);
    let target = format!("/v2/{REPOSITORY}/referrers/{subject}");
    let find = |answer: &Response| descriptors(answer).into_iter().find(|found| found["digest"] == *digest);
    let answer = ends.see("GET", &target, |answer| find(answer).is_some());
    report.header(&what, &answer, "content-type", INDEX);
    let found = find(&answer).unwrap_or_default();
    report.check(&what, found["mediaType"] == manifest.media_type, || found.to_string());
    report.check(&what, found["size"] == manifest.bytes.len(), || found.to_string());
    report.check(&what, found["annotations"] == manifest.annotations, || found.to_string());
    report.check(&what, found["artifactType"].as_str() == manifest.artifact_type.as_deref(), || {
        found.to_string()
    });
    if let Some(artifact_type) = &manifest.artifact_type {
        let answer = ends.pull.get(&format!("{target}?artifactType={artifact_type}")).send();
        report.header(&what, &answer, "oci-filters-applied", "artifactType");
        report.check(&what, find(&answer).is_some(), || "not found by its type".into());
        let others: Vec<_> = descriptors(&answer)
            .into_iter()
            .filter(|found| found["artifactType"] != **artifact_type)
            .collect();
        report.check(&what, others.is_empty(), || format!("of another type: {others:?}"));
        let answer = ends.pull.get(&format!("{target}?artifactType=application/vnd.example.none")).send();
        report.check(&what, descriptors(&answer).is_empty(), || "found by another type".into());
    }
}

fn delete(ends: &Ends, report: &mut Report, set: &Set) {
    for manifest in set.manifests.iter().rev() {
        let digest = manifest.digest(set.algorithm);
        let base = format!("/v2/{REPOSITORY}/manifests");
        if let Some(tag) = manifest.tags.first() {
            gone(ends, report, &format!("{}: tag {tag} is deleted", set.name), &format!("{base}/{tag}"));
            let rest = ends.pull.head(&format!("{base}/{digest}")).send();
            report.status(&format!("{}: the manifest stays without a tag", set.name), rest, &[200]);
        }
        gone(ends, report, &format!("{}: {digest:.20} is deleted", set.name), &format!("{base}/{digest}"));
        for tag in &manifest.tags {
            let answer = ends.see_status("GET", &format!("{base}/{tag}"), 404);
            report.status(&format!("{}: {tag} went with its manifest", set.name), answer, &[404]);
        }
        if let Some(subject) = &manifest.subject {
            let lists =
                |answer: &Response| descriptors(answer).iter().any(|found| found["digest"] == *digest);
            let target = format!("/v2/{REPOSITORY}/referrers/{subject}");
            let answer = ends.see("GET", &target, |answer| !lists(answer));
            report.check(
                &format!("{}: a deleted manifest refers to nothing", set.name),
                !lists(&answer),
                || "still listed".into(),
            );
        }
    }
    for blob in set.blobs.iter().chain(&set.absent) {
        let target = format!("/v2/{REPOSITORY}/blobs/{}", set.algorithm.digest(blob));
        gone(ends, report, &format!("{}: a blob is deleted", set.name), &target);
    }
}

/// Deletes something that is there, and sees that it is not any more: at once where it was deleted.
fn gone(ends: &Ends, report: &mut Report, what: &str, target: &str) {
    let answer = ends.push.request("DELETE", target).send();
    report.status(what, answer, &[202]);
    for method in ["HEAD", "GET"] {
        let answer = report.status(what, ends.push.request(method, target).send(), &[404]);
        if method == "GET" {
            report.error_form(what, &answer);
        }
    }
    report.status(what, ends.see_status("GET", target, 404), &[404]);
    let again = ends.push.request("DELETE", target).send();
    report.status(&format!("{what}, again"), again, &[404]);
}

/// Manifests that cannot be taken, and names of nothing.
pub fn wrong(ends: &Ends, report: &mut Report) {
    let absent = Algorithm::Sha256.digest(b"was never pushed");
    for reference in ["missing", &absent] {
        for method in ["HEAD", "GET"] {
            let answer = ends.pull.request(method, &format!("/v2/{REPOSITORY}/manifests/{reference}")).send();
            report.status("a missing manifest", answer, &[404]);
        }
        let answer = ends.push.request("DELETE", &format!("/v2/{REPOSITORY}/manifests/{reference}")).send();
        report.status("deletion of a missing manifest", answer, &[404]);
    }
    let set = super::content::sets().into_iter().find(|set| set.name == "empty-index").expect("there");
    let manifest = &set.manifests[0];
    for (reference, what) in [
        (absent.clone(), "a manifest under another digest"),
        (Algorithm::Sha512.digest(b"other"), "a manifest under another sha512 digest"),
        ("sha256:baddigeststring".to_owned(), "a manifest under no digest"),
        (".wrong".to_owned(), "a manifest under no tag"),
    ] {
        let answer = report.status(what, put(ends, &reference, manifest), &[400]);
        report.error_form(what, &answer);
    }
    let answer = ends.pull.get(&format!("/v2/{REPOSITORY}/manifests/sha256:baddigeststring")).send();
    report.status("a manifest by no digest", answer, &[400, 404]);
    let mut incomplete = super::content::sets().swap_remove(0).manifests.swap_remove(0);
    incomplete.bytes =
        String::from_utf8(incomplete.bytes).expect("JSON").replace("\"image\"", "\"other\"").into();
    let answer = put(ends, "incomplete", &incomplete);
    let answer = report.status("a manifest whose blobs are missing", answer, &[400, 404]);
    report.error_form("a manifest whose blobs are missing", &answer);
    let huge = Manifest { bytes: vec![b' '; (4 << 20) + 1], ..incomplete };
    report.status("a manifest that is too large", put(ends, "huge", &huge), &[413]);
}
