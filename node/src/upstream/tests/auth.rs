//! Who the node is there: Bearer tokens, Basic, identity tokens, other people's credentials, and whom they are told.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{body::Body, http::Response};
use data_encoding::BASE64;

use super::{
    fake::{Fake, Seen, reply},
    *,
};

const MANIFEST: &str = "{\"schemaVersion\":2}";

fn basic(text: &str) -> String {
    format!("Basic {}", BASE64.encode(text.as_bytes()))
}

fn found() -> Response<Body> {
    reply(
        200,
        &[("content-type", IMAGE), ("docker-content-digest", &sha256(MANIFEST.as_bytes()).to_string())],
        MANIFEST,
    )
}

fn unauthorized(challenge: &str) -> Response<Body> {
    reply(
        401,
        &[("www-authenticate", challenge)],
        r#"{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}"#,
    )
}

fn own(seen: &Seen) -> String {
    format!("http://{}", seen.header("host").expect("HTTP/1.1"))
}

fn challenge(seen: &Seen, scopes: &str) -> Response<Body> {
    unauthorized(&format!(r#"Bearer realm="{}/token",service="a service",scope="{scopes}""#, own(seen)))
}

/// A registry with tokens `t1`, `t2`, …; a token is good while `good` says so.
async fn registry(
    login: Option<&'static str>,
    grant: fn(usize) -> String,
    good: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Fake {
    let given = AtomicUsize::new(0);
    Fake::start(move |seen| {
        let authorization = seen.header("authorization");
        if seen.path == "/token" {
            assert_eq!(seen.all("service"), ["a service"]);
            assert!(
                seen.all("scope")
                    .iter()
                    .all(|scope| scope.starts_with("repository:") && scope.ends_with(":pull"))
            );
            if authorization != login.map(basic).as_deref() {
                return unauthorized("Basic realm=x");
            }
            return reply(
                200,
                &[("content-type", "application/json")],
                grant(given.fetch_add(1, Ordering::SeqCst) + 1),
            );
        }
        match authorization.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) if good(token) => found(),
            _ => {
                let path = seen.path.trim_start_matches("/v2/").split("/manifests/").next().expect("a path");
                challenge(seen, &format!("repository:{path}:pull"))
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_token_is_asked_for_once_and_used_again() {
    for (grant, what) in [
        ((|n| format!(r#"{{"token":"t{n}","expires_in":300}}"#)) as fn(usize) -> String, "token"),
        (
            |n| format!(r#"{{"access_token":"t{n}","expires_in":300,"issued_at":"1970-01-01T00:00:00Z"}}"#),
            "access_token",
        ),
        (|n| format!(r#"{{"token":"","access_token":"t{n}"}}"#), "an empty one"),
    ] {
        let fake = registry(None, grant, |_| true).await;
        let upstream = at(&fake.url);
        let found = upstream.manifest("a/b", &(&tag("v1")).into()).await.expect(what);
        assert_eq!(found.bytes, MANIFEST);
        upstream.resolve("a/b", &tag("v1")).await.expect(what);
        upstream.resolve("c", &tag("v1")).await.expect(what);
        let expected = [
            "GET /v2/a/b/manifests/v1",
            "GET /token",
            "GET /v2/a/b/manifests/v1",
            "HEAD /v2/a/b/manifests/v1",
            // Another repository: the token is had before the question.
            "GET /token",
            "HEAD /v2/c/manifests/v1",
        ];
        assert_eq!(fake.lines(), expected, "{what}");
        assert_eq!(fake.seen()[1].all("scope"), ["repository:a/b:pull"]);
        assert_eq!(fake.seen()[5].header("authorization"), Some("Bearer t2"));
    }
}

#[tokio::test]
async fn requests_at_once_share_one_token() {
    let fake = registry(Some("me:pw"), |n| format!(r#"{{"token":"t{n}","expires_in":300}}"#), |_| true).await;
    let dir = tempfile::tempdir().expect("a directory");
    let mut config = config(&[&fake.url]);
    config.username = Some("me".into());
    config.password_file = Some(dir.path().join("password"));
    std::fs::write(dir.path().join("password"), "pw\n").expect("written");
    let upstream = upstream(config);
    let asking = (0..20).map(|n| {
        let upstream = upstream.clone();
        async move { upstream.resolve("a", &tag(&format!("v{n}"))).await }
    });
    for answer in futures_util::future::join_all(asking).await {
        answer.expect("found");
    }
    assert_eq!(fake.lines().iter().filter(|line| *line == "GET /token").count(), 1);
}

#[tokio::test]
async fn a_token_that_ends_is_renewed_before_and_one_that_is_withdrawn_after_a_refusal() {
    let fake = registry(None, |n| format!(r#"{{"token":"t{n}","expires_in":0.25}}"#), |_| true).await;
    let upstream = at(&fake.url);
    upstream.resolve("a", &tag("v1")).await.expect("found");
    // Eight tenths of its time.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_millis(200) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    upstream.resolve("a", &tag("v1")).await.expect("found");
    let tail = ["GET /token", "HEAD /v2/a/manifests/v1"];
    assert_eq!(fake.lines()[3..], tail, "no refusal in between");

    let withdrawn = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&withdrawn);
    let good = move |token: &str| token == "t2" || !state.load(Ordering::SeqCst);
    let fake = registry(None, |n| format!(r#"{{"token":"t{n}","expires_in":300}}"#), good).await;
    let upstream = at(&fake.url);
    upstream.resolve("a", &tag("v1")).await.expect("found");
    withdrawn.store(true, Ordering::SeqCst);
    upstream.resolve("a", &tag("v1")).await.expect("found");
    let head = "HEAD /v2/a/manifests/v1";
    assert_eq!(fake.lines()[3..], [head, "GET /token", head]);
}

#[tokio::test]
async fn a_proof_that_is_not_enough_ends_in_denied() {
    let fake = registry(None, |n| format!(r#"{{"token":"t{n}"}}"#), |_| false).await;
    let error = at(&fake.url).manifest("a", &(&tag("v1")).into()).await.expect_err("denied");
    let UpstreamError::Denied(why) = &error else { panic!("{error}") };
    assert!(why.contains("authentication required"), "{why}");
    assert_eq!(fake.lines().len(), 3, "asked, token, asked: {:?}", fake.lines());

    let fake = registry(Some("me:pw"), |n| format!(r#"{{"token":"t{n}"}}"#), |_| true).await;
    let error = at(&fake.url).manifest("a", &(&tag("v1")).into()).await.expect_err("no credentials");
    assert!(matches!(error, UpstreamError::Denied(_)), "{error}");

    for answer in ["{}", "<html>", r#"{"token":""}"#, r#"{"token":"a\nb"}"#] {
        let fake = Fake::start(move |seen| match seen.path.as_str() {
            "/token" => reply(200, &[], answer),
            _ => challenge(seen, "repository:a:pull"),
        })
        .await;
        let error = at(&fake.url).manifest("a", &(&tag("v1")).into()).await.expect_err("no token");
        assert!(matches!(error, UpstreamError::Invalid(_)), "{answer}: {error}");
    }
}

#[tokio::test]
async fn several_scopes_are_asked_for_one_by_one() {
    let fake = Fake::start(|seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/token", _) => {
            assert_eq!(seen.all("scope"), ["repository:a:pull", "repository:base:pull"]);
            reply(200, &[], r#"{"token":"both"}"#)
        }
        (_, Some("Bearer both")) => found(),
        _ => challenge(seen, "repository:base:pull repository:a:pull"),
    })
    .await;
    let upstream = at(&fake.url);
    upstream.resolve("a", &tag("v1")).await.expect("found");
    upstream.resolve("a", &tag("v1")).await.expect("found");
    assert_eq!(fake.lines().len(), 4);
}

#[tokio::test]
async fn basic_is_shown_at_once_after_the_first_question() {
    let fake = Fake::start(|seen| match seen.header("authorization") {
        Some(shown) if shown == basic("me:p:w") => found(),
        _ => unauthorized("Basic realm=\"Registry Realm\""),
    })
    .await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.json");
    let host = fake.url.trim_start_matches("http://");
    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{{"auth":"{}"}}}}}}"#, BASE64.encode(b"me:p:w")))
        .expect("written");
    let mut config = config(&[&fake.url]);
    config.docker_config = Some(file.clone());
    let own = upstream(config.clone());
    own.resolve("a", &tag("v1")).await.expect("found");
    own.resolve("b", &tag("v1")).await.expect("found");
    assert_eq!(fake.lines().len(), 3);

    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{{"auth":"{}"}}}}}}"#, BASE64.encode(b"me:no")))
        .expect("written");
    let error = upstream(config).resolve("a", &tag("v1")).await.expect_err("wrong password");
    assert!(matches!(error, UpstreamError::Denied(_)), "{error}");
    assert_eq!(fake.lines().len(), 5, "the same again is not tried");
    let error = at(&fake.url).resolve("a", &tag("v1")).await.expect_err("nobody");
    assert!(matches!(error, UpstreamError::Denied(_)), "{error}");
}

#[tokio::test]
async fn an_identity_token_buys_tokens_by_post() {
    let fake = Fake::start(|seen| match (seen.path.as_str(), seen.header("authorization")) {
        ("/token", None) => {
            assert_eq!(seen.method, "POST");
            assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
            assert_eq!(
                seen.body,
                "service=a+service&scope=repository%3Aa%3Apull&client_id=waystation&grant_type=refresh_token\
                 &refresh_token=long%26secret"
            );
            reply(200, &[], r#"{"access_token":"bought"}"#)
        }
        (_, Some("Bearer bought")) => found(),
        _ => challenge(seen, "repository:a:pull"),
    })
    .await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.json");
    let host = fake.url.trim_start_matches("http://");
    let entry = format!(r#"{{"auths":{{"{host}":{{"auth":"MDo=","identitytoken":"long&secret"}}}}}}"#);
    std::fs::write(&file, entry).expect("written");
    let mut config = config(&[&fake.url]);
    config.docker_config = Some(file);
    upstream(config).resolve("a", &tag("v1")).await.expect("found");
}

#[tokio::test]
async fn authorization_stays_with_its_host() {
    let blob = b"layer".repeat(100);
    let digest = sha256(&blob);
    let storage = Fake::start(move |seen| {
        // As object storage does: "only one auth mechanism allowed".
        if seen.headers.contains_key("authorization") || seen.all("signature") != ["s"] {
            return reply(400, &[], "");
        }
        reply(200, &[], b"layer".repeat(100))
    })
    .await;
    let away = format!("{}/bucket/x?signature=s", storage.url);
    let fake = Fake::start(move |seen| match seen.path.as_str() {
        "/token" => reply(200, &[], r#"{"token":"t"}"#),
        "/v2/near" => reply(404, &[], ""),
        path if seen.header("authorization") != Some("Bearer t") => {
            let _ = path;
            challenge(seen, "repository:a:pull")
        }
        // Once more to the same host: there it is shown.
        path if path.starts_with("/v2/") => reply(307, &[("location", "/elsewhere")], "moved"),
        _ => reply(302, &[("location", &away)], "moved"),
    })
    .await;
    let body = at(&fake.url).blob("a", &digest, 0).await.expect("found");
    assert_eq!(collect(body.body).await.expect("whole"), blob);
    assert_eq!(storage.lines(), ["GET /bucket/x"]);
    assert!(storage.seen()[0].header("via").is_some_and(|via| via.starts_with("1.1 waystation-")));
}

#[tokio::test]
async fn mirrors_are_not_told_the_registrys_credentials() {
    let mirror = Fake::start(|_| unauthorized("Basic realm=x")).await;
    let itself = Fake::start(|seen| match seen.header("authorization") {
        Some(_) => found(),
        None => unauthorized("Basic realm=x"),
    })
    .await;
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("config.json");
    let host = itself.url.trim_start_matches("http://");
    std::fs::write(&file, format!(r#"{{"auths":{{"{host}":{{"auth":"bWU6cGE6c3M="}}}}}}"#)).expect("written");
    let mut config = config(&[&mirror.url, &itself.url]);
    config.docker_config = Some(file);
    let upstream = upstream(config);
    upstream.resolve("a", &tag("v1")).await.expect("found");
    assert!(upstream.entitles("a", "guest", &Secret::new("pw")).await.expect("known"));
    assert!(mirror.seen().iter().all(|seen| seen.header("authorization").is_none()));
    assert_eq!(mirror.lines().len(), 1, "guests are none of its business");
}

#[tokio::test]
async fn others_are_entitled_if_the_registry_says_so() {
    let fake = Fake::start(|seen| {
        let authorization = seen.header("authorization");
        match seen.path.as_str() {
            "/token" if authorization == Some(&basic("good:pw")) => {
                reply(200, &[], format!(r#"{{"token":"for {}"}}"#, seen.all("scope")[0]))
            }
            "/token" if authorization.is_none() => reply(200, &[], r#"{"token":"nobody"}"#),
            "/token" => unauthorized("Basic"),
            path => {
                let repository = path.trim_start_matches("/v2/").split('/').next().expect("a name");
                if authorization != Some(&format!("Bearer for repository:{repository}:pull"))
                    || repository == "secret"
                {
                    return challenge(seen, &format!("repository:{repository}:pull"));
                }
                match (repository, path.ends_with("/tags/list")) {
                    ("latest", false) => found(),
                    ("tagged", true) => reply(200, &[], r#"{"tags":[]}"#),
                    ("broken", _) => reply(503, &[], ""),
                    _ => reply(404, &[], ""),
                }
            }
        }
    })
    .await;
    let upstream = at(&fake.url);
    let table = [
        ("latest", "good", "pw", Some(true)),
        ("tagged", "good", "pw", Some(true)),
        ("hidden", "good", "pw", Some(false)),
        ("secret", "good", "pw", Some(false)),
        ("latest", "good", "wrong", Some(false)),
        ("latest", "", "", Some(false)),
        ("latest", "go:od", "pw", Some(false)),
        ("latest", "good\n", "pw", Some(false)),
        ("broken", "good", "pw", None),
    ];
    for (repository, user, password, expected) in table {
        let entitled = upstream.entitles(repository, user, &Secret::new(password)).await.ok();
        assert_eq!(entitled, expected, "{repository} {user} {password}");
    }
    // Nothing of it is used for the node itself.
    let fresh = at(&fake.url);
    assert!(fresh.entitles("latest", "good", &Secret::new("pw")).await.expect("known"));
    assert!(matches!(fresh.resolve("latest", &tag("v1")).await, Err(UpstreamError::Denied(_))));
}
