//! Upstreams behind TLS: private authorities, HTTP/2, and that nothing secret or unverified leaves TLS.

use axum::http::Version;

use super::{
    fake::{Fake, reply},
    *,
};

/// An upstream that trusts this authority, with a password.
fn trusting(url: &str, ca: &str) -> (Upstream, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = config(&[url]);
    config.ca_file = Some(dir.path().join("ca.pem"));
    config.username = Some("me".into());
    config.password_file = Some(dir.path().join("password"));
    std::fs::write(dir.path().join("ca.pem"), ca).expect("written");
    std::fs::write(dir.path().join("password"), "pw").expect("written");
    (upstream(config), dir)
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_configured() {
    let (fake, ca) = Fake::start_tls(|_| reply(200, &[("content-type", IMAGE)], "{}")).await;
    let (upstream, _files) = trusting(&fake.url, &ca);
    upstream.manifest("a", &(&tag("v1")).into()).await.expect("trusted");
    assert_eq!(fake.seen()[0].version, Version::HTTP_2, "offered, so used");

    let (_, other) = Fake::start_tls(|_| reply(200, &[], "")).await;
    let (upstream, _files) = trusting(&fake.url, &other);
    let error = upstream.manifest("a", &(&tag("v1")).into()).await.expect_err("another authority");
    let UpstreamError::Unavailable(why) = &error else { panic!("{error}") };
    assert!(why.contains("certificate"), "{why}");
    assert_eq!(fake.lines().len(), 1);
}

#[tokio::test]
async fn nothing_unverified_and_nothing_secret_leaves_tls() {
    let plain = Fake::start(|_| reply(200, &[("content-type", IMAGE)], "{}")).await;
    let elsewhere = format!("{}/x", plain.url);
    let (fake, ca) = Fake::start_tls(move |seen| match seen.path.as_str() {
        path if path.starts_with("/v2/realm/") => {
            let realm = format!("Bearer realm=\"{elsewhere}\",service=\"s\"");
            reply(401, &[("www-authenticate", &realm)], "")
        }
        _ if seen.header("authorization").is_none() => {
            reply(401, &[("www-authenticate", "Basic realm=x")], "")
        }
        _ => reply(307, &[("location", &elsewhere)], ""),
    })
    .await;
    let (upstream, _files) = trusting(&fake.url, &ca);
    for path in ["realm/a", "a"] {
        let error = upstream.manifest(path, &(&tag("v1")).into()).await.expect_err(path);
        let UpstreamError::Invalid(why) = &error else { panic!("{path}: {error}") };
        assert!(why.contains("without TLS"), "{path}: {why}");
    }
    assert_eq!(plain.lines(), Vec::<String>::new());
    // What is checked against its digest may come that way, but is not asked for with credentials.
    upstream.manifest("a", &(&sha256(b"{}")).into()).await.expect("verified");
    assert!(fake.seen().last().expect("asked").header("authorization").is_some());
    assert_eq!(plain.lines(), ["GET /x"]);
    assert!(plain.seen()[0].header("authorization").is_none());
}
