//! Upstreams against registries on loopback that keep to the specifications strictly, or break them on purpose.

mod auth;
mod content;
mod fake;
mod faults;
mod tls;

use std::time::Duration;

use sha2::Digest as _;
use waystation_proto::Digest;

use super::*;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const IMAGE: &str = "application/vnd.oci.image.manifest.v1+json";

fn sha256(bytes: &[u8]) -> Digest {
    Digest::Sha256(sha2::Sha256::digest(bytes).into())
}

fn tag(text: &str) -> Tag {
    text.parse().expect("a tag")
}

/// An upstream `reg.example` at these places.
fn config(endpoints: &[&str]) -> UpstreamConfig {
    UpstreamConfig {
        endpoints: endpoints.iter().map(|url| url.parse().expect("a URL")).collect(),
        // So long that a busy machine does not look like an upstream that is away.
        connect_timeout: Duration::from_secs(10),
        ..UpstreamConfig::named("reg.example")
    }
}

fn upstream(config: UpstreamConfig) -> Upstream {
    let namespace = config.namespace.clone();
    let all = Upstreams::new(&[config]).expect("valid").of_node(&NodeId([7; 32]));
    all.for_namespace(&namespace).expect("there")
}

/// One that is given up soon.
fn hasty(endpoint: &str) -> Upstream {
    let soon = Duration::from_millis(800);
    upstream(UpstreamConfig { connect_timeout: soon, read_timeout: soon, ..config(&[endpoint]) })
}

fn at(endpoint: &str) -> Upstream {
    upstream(config(&[endpoint]))
}

#[test]
fn repositories_have_the_namespace_in_front() {
    let mut hub = UpstreamConfig::named("docker.io");
    hub.mirror_for_unqualified = true;
    hub.repositories = vec!["library/*".parse().expect("a pattern"), "team/**".parse().expect("a pattern")];
    let all = Upstreams::new(&[hub, UpstreamConfig::named("reg.example:5000")]).expect("valid");
    let name = |text: &str| -> RepoName { text.parse().expect("a name") };
    let table = [
        ("docker.io/library/alpine", Some(("docker.io", "library/alpine"))),
        ("docker.io/alpine", Some(("docker.io", "library/alpine"))),
        ("index.docker.io/team/a/b", Some(("docker.io", "team/a/b"))),
        ("docker.io/other/alpine", None),
        ("reg.example_5000/a", Some(("reg.example_5000", "a"))),
        ("reg.example/a", None),
        ("library/alpine", None),
        ("docker.io", None),
    ];
    for (repository, expected) in table {
        let found = all.of_repository(&name(repository));
        let found = found.map(|(upstream, path)| (upstream.config().namespace.clone(), path));
        assert_eq!(found, expected.map(|(a, b)| (a.to_owned(), b.to_owned())), "{repository}");
    }
    for (namespace, expected) in
        [("registry-1.docker.io", true), ("reg.example:5000", true), ("reg.example", false), ("..", false)]
    {
        assert_eq!(all.for_namespace(namespace).is_some(), expected, "{namespace}");
    }
    let hub = all.unqualified().expect("docker.io");
    assert_eq!(hub.repository("alpine"), Some(name("docker.io/library/alpine")));
    assert_eq!(hub.repository("team/a"), Some(name("docker.io/team/a")));
    assert_eq!(hub.repository("other/a"), None);
    assert_eq!(hub.repository("library/../x"), None);
    let port = all.for_namespace("reg.example_5000").expect("there");
    assert_eq!(port.repository("a"), Some(name("reg.example_5000/a")));
    assert!(!port.is_away());
    assert_eq!(all.status().len(), 2);
}

#[test]
fn files_that_cannot_be_used_are_all_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut one = UpstreamConfig::named("one.example");
    one.ca_file = Some(dir.path().join("ca.pem"));
    one.username = Some("me".into());
    one.password_file = Some(dir.path().join("password"));
    let mut two = UpstreamConfig::named("two.example");
    let docker = dir.path().join("config.json");
    std::fs::write(&docker, r#"{"auths":{"other.example":{"auth":"bWU6cGE6c3M="}}}"#).expect("written");
    two.docker_config = Some(docker);
    let why = Upstreams::new(&[one, two]).err().expect("three mistakes").to_string();
    for part in [
        "upstream one.example: ca-file",
        "one.example: password-file",
        "two.example: docker-config",
        "no login",
    ] {
        assert!(why.contains(part), "{part} in {why}");
    }
}

/// All bytes, and what they ended with.
async fn collect_until(mut body: ByteStream) -> (Vec<u8>, Option<std::io::Error>) {
    use futures_util::StreamExt;
    let mut bytes = Vec::new();
    while let Some(chunk) = body.next().await {
        match chunk {
            Ok(chunk) => bytes.extend_from_slice(&chunk),
            Err(error) => {
                assert!(body.next().await.is_none(), "an error is the end");
                return (bytes, Some(error));
            }
        }
    }
    (bytes, None)
}

async fn collect(body: ByteStream) -> std::io::Result<Vec<u8>> {
    match collect_until(body).await {
        (bytes, None) => Ok(bytes),
        (_, Some(error)) => Err(error),
    }
}
