//! Upstreams that fail: away, slow, busy, in circles, pointing back at this machine.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use tokio::net::TcpListener;

use super::{
    fake::{Fake, raw, reply},
    *,
};

fn found() -> axum::http::Response<axum::body::Body> {
    reply(200, &[("content-type", IMAGE), ("docker-content-digest", &sha256(b"{}").to_string())], "{}")
}

#[tokio::test]
async fn one_that_is_silent_costs_one_time_out() {
    // Takes connections and never answers.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let upstream = hasty(&format!("http://{}", listener.local_addr().expect("bound")));
    let start = Instant::now();
    for n in 0..50 {
        let error = upstream.resolve("a", &tag("v1")).await.expect_err("away");
        assert!(matches!(error, UpstreamError::Unavailable(_)), "{n}: {error}");
    }
    assert!(upstream.is_away());
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(700) && took < Duration::from_secs(5), "{took:?}");
    let status = &upstream.inner.status().endpoints[0];
    assert!(status.away && status.trouble.as_ref().is_some_and(|why| why.contains("in time")), "{status:?}");
}

#[tokio::test]
async fn one_that_is_gone_is_noticed_at_once_and_the_next_is_asked() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let gone = format!("http://{}", listener.local_addr().expect("bound"));
    drop(listener);
    let fake = Fake::start(|_| found()).await;
    let both = upstream(config(&[&gone, &fake.url]));
    both.resolve("a", &tag("v1")).await.expect("by the second");
    let start = Instant::now();
    for _ in 0..20 {
        both.resolve("a", &tag("v1")).await.expect("by the second");
    }
    assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
    assert!(!both.is_away());
    assert!(fake.seen().iter().all(|seen| seen.all("ns") == ["reg.example"]));

    let alone = at(&gone);
    for away in [false, true] {
        assert!(matches!(alone.resolve("a", &tag("v1")).await, Err(UpstreamError::Unavailable(_))));
        assert_eq!(alone.is_away(), away);
    }
}

#[tokio::test]
async fn the_last_endpoint_has_the_last_word() {
    let busy = Fake::start(|_| reply(429, &[("retry-after", "60")], "")).await;
    let none = Fake::start(|_| reply(404, &[], "")).await;
    let both = upstream(config(&[&busy.url, &none.url]));
    assert_eq!(both.resolve("a", &tag("v1")).await, Err(UpstreamError::NotFound));
    let both = upstream(config(&[&none.url, &busy.url]));
    let limited = UpstreamError::RateLimited { retry_after: Duration::from_secs(60) };
    assert_eq!(both.resolve("a", &tag("v1")).await, Err(limited));
}

#[tokio::test]
async fn one_broken_thing_does_not_take_the_rest_with_it() {
    let fake = Fake::start(|seen| match seen.path.contains("broken") {
        true => reply(500, &[], ""),
        false => found(),
    })
    .await;
    let upstream = at(&fake.url);
    for _ in 0..3 {
        let error = upstream.manifest("broken", &(&tag("v1")).into()).await.expect_err("broken");
        assert!(matches!(error, UpstreamError::Unavailable(_)), "{error}");
        upstream.resolve("a", &tag("v1")).await.expect("found");
    }
}

#[tokio::test]
async fn hiccups_are_tried_again_and_errors_are_not() {
    let count = Arc::new(AtomicUsize::new(0));
    let n = Arc::clone(&count);
    let fake = Fake::start(move |seen| match (seen.path.as_str(), n.fetch_add(1, Ordering::SeqCst)) {
        ("/v2/a/manifests/wrong", _) => {
            reply(400, &[], r#"{"errors":[{"code":"X","message":"no\u0007pe"}]}"#)
        }
        (_, 0 | 1) => reply(503, &[], ""),
        _ => found(),
    })
    .await;
    let upstream = at(&fake.url);
    upstream.resolve("a", &tag("v1")).await.expect("the third time");
    assert_eq!(count.load(Ordering::SeqCst), 3);
    let error = upstream.manifest("a", &(&tag("wrong")).into()).await.expect_err("wrong");
    assert!(error.to_string().ends_with("nope (400)"), "{error:?}");
    assert_eq!(count.load(Ordering::SeqCst), 4);

    // A connection that is hung up before it answers.
    let answer =
        format!("HTTP/1.1 200 OK\r\ndocker-content-digest: {}\r\ncontent-length: 2\r\n\r\n", sha256(b"{}"));
    let (url, heads) = raw(vec![Vec::new(), answer.into_bytes()]).await;
    at(&url).resolve("a", &tag("v1")).await.expect("the second time");
    assert_eq!(heads.lock().expect("not poisoned").len(), 2);
}

#[tokio::test]
async fn a_limit_is_respected() {
    let fake =
        Fake::start(|_| reply(429, &[("retry-after", "120")], r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#))
            .await;
    let upstream = at(&fake.url);
    for _ in 0..5 {
        let error = upstream.resolve("a", &tag("v1")).await.expect_err("limited");
        let UpstreamError::RateLimited { retry_after } = error else { panic!("{error}") };
        assert!(retry_after > Duration::from_secs(110) && retry_after <= Duration::from_secs(120));
    }
    assert_eq!(fake.lines().len(), 1, "asked once");
    assert!(!upstream.is_away());
    assert!(upstream.inner.status().endpoints[0].limited_for_s.is_some_and(|s| s > 100));

    // Manifests are counted, blobs are not.
    let fake = Fake::start(|seen| match seen.path.contains("/blobs/") {
        true => reply(200, &[], "x"),
        false => reply(429, &[], ""),
    })
    .await;
    let upstream = at(&fake.url);
    let limited = UpstreamError::RateLimited { retry_after: Duration::from_secs(60) };
    assert_eq!(upstream.resolve("a", &tag("v1")).await, Err(limited));
    assert!(upstream.manifest("a", &(&tag("v1")).into()).await.is_err());
    collect(upstream.blob("a", &sha256(b"x"), 0).await.expect("a blob").body).await.expect("whole");
    assert_eq!(fake.lines().len(), 2);

    // A short one is waited for.
    let count = AtomicUsize::new(0);
    let fake = Fake::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => reply(429, &[("retry-after", "1")], ""),
        _ => found(),
    })
    .await;
    let start = Instant::now();
    at(&fake.url).resolve("a", &tag("v1")).await.expect("after a second");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn circles_end() {
    let fake = Fake::start(|seen| match seen.path.as_str() {
        "/v2/a/manifests/itself" => reply(302, &[("location", "itself")], ""),
        "/v2/a/manifests/two" => reply(302, &[("location", "three")], ""),
        "/v2/a/manifests/three" => reply(302, &[("location", "two")], ""),
        path if path.starts_with("/v2/a/manifests/long") => {
            reply(302, &[("location", &format!("{path}r"))], "")
        }
        "/v2/a/manifests/nowhere" => reply(302, &[], ""),
        "/v2/a/manifests/file" => reply(302, &[("location", "file:///etc/passwd")], ""),
        "/v2/a/manifests/login" => reply(302, &[("location", "http://me:pw@127.0.0.1/")], ""),
        _ => reply(404, &[], ""),
    })
    .await;
    let upstream = at(&fake.url);
    // The first request has a parameter more than the place in the circle.
    for (name, requests) in
        [("itself", 2), ("two", 3), ("long", 6), ("nowhere", 1), ("file", 1), ("login", 1)]
    {
        let before = fake.lines().len();
        let error = upstream.manifest("a", &(&tag(name)).into()).await.expect_err(name);
        assert!(matches!(error, UpstreamError::Invalid(_)), "{name}: {error}");
        assert_eq!(fake.lines().len() - before, requests, "{name}");
    }
}

#[tokio::test]
async fn this_machine_is_not_for_upstreams_out_in_the_world() {
    let here: reqwest::Url = "http://127.0.0.1:5000/v2/".parse().expect("a URL");
    let metadata: reqwest::Url = "http://169.254.169.254/latest".parse().expect("a URL");
    let public = config(&["http://reg.example", "http://127.0.0.1:5000"]);
    let transport = Transport::new(&public, &public.endpoints()).expect("made");
    let endpoints = public.endpoints();
    let refused =
        |url: &reqwest::Url, from: &reqwest::Url| transport.request(Method::GET, url, from).is_err();
    assert!(refused(&metadata, &endpoints[0]));
    assert!(refused(&"http://127.0.0.1:22/".parse().expect("a URL"), &endpoints[0]));
    assert!(refused(&"http://LOCALHOST/".parse().expect("a URL"), &endpoints[0]));
    assert!(!refused(&here, &endpoints[0]), "an endpoint of the same upstream");
    assert!(!refused(&metadata, &endpoints[1]), "it is on this machine itself");
    assert!(!refused(&"https://cdn.example/".parse().expect("a URL"), &endpoints[0]));
}

#[tokio::test]
async fn a_stream_that_stalls_ends_and_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let server = tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let (mut socket, _) = listener.accept().await.expect("a connection");
        let mut head = [0; 4096];
        let _ = socket.read(&mut head).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello").await.expect("written");
        // Held open until the test ends.
        std::future::pending::<()>().await;
    });
    let upstream = hasty(&url);
    let body = upstream.blob("a", &sha256(b"x"), 0).await.expect("begins");
    let (got, error) = collect_until(body.body).await;
    assert_eq!(got, b"hello");
    assert_eq!(error.expect("stalls").kind(), std::io::ErrorKind::TimedOut);
    assert!(!upstream.is_away(), "to be resumed at once");
    assert!(upstream.inner.status().endpoints[0].trouble.is_some());
    server.abort();
}

#[tokio::test]
async fn requests_say_whom_they_are_for() {
    let fake = Fake::start(|_| found()).await;
    let all = Upstreams::new(&[config(&[&fake.url])]).expect("valid").of_node(&NodeId([1; 32]));
    let mut incoming = HeaderMap::new();
    incoming.insert("via", "1.1 waystation-aa, 1.0 squid".parse().expect("a header"));
    let upstream = all.for_namespace("reg.example").expect("there").on_behalf(all.via(), &incoming);
    upstream.resolve("a", &tag("v1")).await.expect("found");
    let seen = &fake.seen()[0];
    let via = seen.header("via").expect("via");
    assert!(via.starts_with("1.1 waystation-aa, 1.1 waystation-") && !via.contains("squid"), "{via}");
    assert!(all.via().is_circle(&seen.headers));
    assert!(seen.header("user-agent").is_some_and(|name| name.starts_with("waystation/")));
}
