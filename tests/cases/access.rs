//! Who may do what: logins by password and by token, rules, limits, and that guessing is slow and seen.

use std::{
    fs,
    io::Read as _,
    net::TcpStream,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::clients::{image, write_dir};
use crate::harness::clients::{Client, run};
use crate::harness::{
    http::{Http, Request},
    image::{Image, digest},
    node::{Node, Options, temp_dir, waystation},
    wait::until_true,
};

/// ann has team/**, olga everything, everybody may pull public/**.
const RULES: &str = r#"
[auth.groups]
ops = ["olga"]
[[auth.rule]]
users = ["anonymous"]
repositories = ["public/**"]
actions = ["pull"]
[[auth.rule]]
users = ["ann"]
repositories = ["team/**"]
actions = ["pull", "push"]
[[auth.rule]]
groups = ["ops"]
repositories = ["**"]
actions = ["admin"]
"#;
const USERS: &[(&str, &str)] = &[("ann", "apple-7"), ("olga", "orange-8")];

struct Guarded {
    node: Node,
    folder: tempfile::TempDir,
}

impl Guarded {
    /// `auth`: more keys of `[auth]`; `rest`: more sections.
    #[track_caller]
    fn start(auth: &str, rest: &str) -> Self {
        let folder = temp_dir("access");
        write_users(&folder.path().join("users"), USERS);
        let config = folder.path().join("node.toml");
        let users = folder.path().join("users");
        fs::write(&config, format!("[auth]\nhtpasswd = {users:?}\n{auth}\n{rest}")).unwrap();
        let extra = vec!["--config".to_owned(), config.display().to_string()];
        Guarded { node: Node::start(Options { extra, ..Options::site("guarded") }), folder }
    }

    fn http(&self) -> Http {
        self.node.registry().http
    }

    fn users(&self) -> PathBuf {
        self.folder.path().join("users")
    }

    /// A token, by GET.
    #[track_caller]
    fn token(&self, user: Option<(&str, &str)>, scopes: &[&str]) -> Value {
        let scopes: String = scopes.iter().map(|scope| format!("&scope={scope}")).collect();
        let target = format!("/token?service=waystation{scopes}");
        let http = self.http();
        let request = match user {
            Some((user, password)) => as_user(http.get(&target), user, password),
            None => http.get(&target),
        };
        request.send().expect(200).json()
    }

    /// Pushes an image as olga.
    #[track_caller]
    fn push(&self, repository: &str, image: &Image) {
        let http = self.http();
        for blob in image.blobs() {
            let target = format!("/v2/{repository}/blobs/uploads/?digest={}", digest(blob));
            as_user(http.request("POST", &target), "olga", "orange-8").body(blob).send().expect(201);
        }
        let target = format!("/v2/{repository}/manifests/v1");
        as_user(http.request("PUT", &target), "olga", "orange-8")
            .header("Content-Type", "application/vnd.oci.image.manifest.v1+json")
            .body(&image.manifest)
            .send()
            .expect(201);
    }
}

#[test]
fn rules_hold_for_passwords_and_tokens() {
    let guarded = Guarded::start("", RULES);
    let http = guarded.http();
    let image = Image::random(1, &[50_000]);
    guarded.push("public/app", &image);
    guarded.push("secret/app", &image);

    // Nobody in particular.
    let greeting = http.get("/v2/").send();
    let challenge = greeting.header("www-authenticate").unwrap().to_owned();
    greeting.expect_error(401, "UNAUTHORIZED");
    let realm =
        format!("Bearer realm=\"http://{}/token\",service=\"waystation\"", guarded.node.ready("listen"));
    assert_eq!(challenge, realm);
    http.get("/v2/public/app/manifests/v1").send().expect(200);
    http.get("/v2/secret/app/manifests/v1").send().expect_error(401, "UNAUTHORIZED");
    let catalog = |request: Request<'_>| request.send().expect(200).json()["repositories"].clone();
    assert_eq!(catalog(http.get("/v2/_catalog")), serde_json::json!(["public/app"]));
    let anonymous = guarded.token(None, &["repository:secret/app:pull", "repository:public/app:pull"]);
    assert_eq!(anonymous["scope"], "repository:public/app:pull");

    // A user without the right, one with it.
    as_user(http.get("/v2/secret/app/manifests/v1"), "ann", "apple-7").send().expect_error(403, "DENIED");
    as_user(http.get("/v2/"), "ann", "apple-7").send().expect(200);
    let all = catalog(as_user(http.get("/v2/_catalog"), "olga", "orange-8"));
    assert_eq!(all, serde_json::json!(["public/app", "secret/app"]));
    let token = guarded.token(Some(("ann", "apple-7")), &["repository:team/x:pull,push"]);
    assert_eq!(token["token"], token["access_token"]);
    assert!(token["expires_in"] == 300 && token["issued_at"].as_str().unwrap().ends_with('Z'), "{token}");
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let layer = digest(&image.layers[0]);
    let mount = |from: &str| {
        let target = format!("/v2/team/x/blobs/uploads/?mount={layer}&from={from}");
        http.request("POST", &target).header("Authorization", &bearer).send().status
    };
    // As if it were not there: the token does not name it, or the rules do not.
    assert_eq!((mount("secret/app"), mount("public/app")), (202, 202));
    let both = ["repository:team/x:pull,push", "repository:public/app:pull", "repository:secret/app:pull"];
    let token = guarded.token(Some(("ann", "apple-7")), &both);
    let bearer = format!("Bearer {}", token["token"].as_str().unwrap());
    let mount = |from: &str| {
        let target = format!("/v2/team/x/blobs/uploads/?mount={layer}&from={from}");
        http.request("POST", &target).header("Authorization", &bearer).send().status
    };
    assert_eq!((mount("secret/app"), mount("public/app")), (202, 201));
    let other = http.get("/v2/team/other/tags/list").header("Authorization", &bearer).send();
    assert!(other.header("www-authenticate").unwrap().contains("insufficient_scope"));

    // The OAuth2 form, and a token to fetch others with.
    let post = |form: &str| {
        let request =
            http.request("POST", "/token").header("Content-Type", "application/x-www-form-urlencoded");
        request.body(form.as_bytes()).send()
    };
    let first =
        post("grant_type=password&username=ann&password=apple-7&service=s&client_id=c&access_type=offline");
    let refresh = first.expect(200).json()["refresh_token"].as_str().unwrap().to_owned();
    let scope = "repository%3Ateam%2Fx%3Apull";
    let second = post(&format!("grant_type=refresh_token&refresh_token={refresh}&scope={scope}"));
    assert_eq!(second.expect(200).json()["scope"], "repository:team/x:pull");
    post("grant_type=password&username=ann&password=wrong").expect_error(401, "UNAUTHORIZED");
    post("grant_type=magic").expect_error(400, "UNSUPPORTED");
    http.request("DELETE", "/token").send().expect(405);

    // Without any of this at the operator's socket.
    guarded.node.cli(&["tags", "secret/app"]).expect(0);
}

#[test]
fn failed_logins_are_slow_and_seen_and_changed_passwords_count() {
    let guarded = Guarded::start("", "");
    let http = guarded.http();
    let status = |user: &str, password: &str| as_user(http.get("/v2/"), user, password).send().status;
    assert_eq!(status("ann", "apple-7"), 200);
    let started = Instant::now();
    let statuses: Vec<_> = (0..6).map(|n| status("ann", &format!("guess-{n}-word"))).collect();
    assert_eq!(statuses, [401; 6]);
    assert!(started.elapsed() > Duration::from_millis(1500), "{:?}", started.elapsed());
    assert_eq!(status("nobody\u{1b}[2J", "guess-x-word"), 401);
    // Who was in stays in.
    assert_eq!(status("ann", "apple-7"), 200);
    let log = guarded.node.log();
    assert!(log.contains("login failed") && log.contains("ann") && log.contains("127.0.0.1"), "{log}");
    for secret in ["guess-", "apple-7", "$2", "\u{1b}[2J"] {
        assert!(!log.contains(secret), "{secret} in\n{log}");
    }
    assert_eq!(guarded.node.metric("waystation_logins_failed_total"), 7.0);
    assert_eq!(guarded.node.status()["access"]["logins_failed"], 7);

    write_users(&guarded.users(), &[("ann", "avocado-9")]);
    until_true("the old password is over", || status("ann", "apple-7") == 401);
    until_true("the new one counts", || status("ann", "avocado-9") == 200);
    fs::write(guarded.users(), "ann:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n").unwrap();
    until_true("the broken file is complained about", || guarded.node.log().contains("line 1: only bcrypt"));
    assert_eq!(status("ann", "avocado-9"), 200);
}

#[test]
fn clients_log_in_either_way() {
    for challenge in ["bearer", "basic"] {
        let auth = format!("challenge = \"{challenge}\"");
        let guarded = Guarded::start(&auth, RULES);
        let address = guarded.node.ready("listen").to_owned();
        let image = image();
        if let Some(skopeo) = Client::find("skopeo", &["--version"]) {
            write_dir(&guarded.folder.path().join("in"), &image);
            let from = format!("dir:{}/in", guarded.folder.path().display());
            let there = format!("docker://{address}/team/app:v1");
            let copy = ["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false"];
            run(Command::new(skopeo.path())
                .args(copy)
                .args(["--dest-creds", "ann:apple-7"])
                .arg(&from)
                .arg(&there));
            // Mounted from a repository that the user may read.
            let copy = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"];
            let creds = ["--src-creds", "olga:orange-8", "--dest-creds", "olga:orange-8"];
            let public = format!("docker://{address}/public/app:v1");
            run(Command::new(skopeo.path()).args(copy).args(creds).arg(&there).arg(&public));
            let inspect = ["inspect", "--raw", "--tls-verify=false", "--no-creds"];
            run(Command::new(skopeo.path()).args(inspect).arg(&public));
            let refused = Command::new(skopeo.path()).args(inspect).arg(&there).output().unwrap();
            assert!(!refused.status.success());
            let tags = ["list-tags", "--tls-verify=false", "--creds", "ann:apple-7"];
            let tags =
                run(Command::new(skopeo.path()).args(tags).arg(format!("docker://{address}/team/app")));
            assert!(tags.contains("v1"));
            let delete = ["delete", "--tls-verify=false", "--creds", "olga:orange-8"];
            run(Command::new(skopeo.path()).args(delete).arg(&public));
        }
        if let Some(podman) = Client::find("podman", &["--version"]) {
            let podman = Podman { program: podman.path().to_owned(), folder: guarded.folder.path() };
            let login = |password: &str| {
                podman.command(&["login", "--tls-verify=false", "-u", "olga", "-p", password, &address])
            };
            assert!(!login("wrong").output().unwrap().status.success());
            assert!(run(&mut login("orange-8")).contains("Login Succeeded"));
            guarded.push("team/podman", &image);
            let there = format!("{address}/team/podman:v1");
            run(&mut podman.command(&["pull", "--tls-verify=false", &there]));
            run(&mut podman.command(&[
                "push",
                "--tls-verify=false",
                &there,
                &format!("{address}/team/again:v1"),
            ]));
            run(&mut podman.command(&["logout", &address]));
            run(&mut podman.command(&["rmi", "--all", "--force"]));
            assert!(
                !podman.command(&["pull", "--tls-verify=false", &there]).output().unwrap().status.success()
            );
        }
    }
}

#[test]
fn requests_beyond_the_limit_are_told_to_wait() {
    let guarded = Guarded::start("", "[limits]\nrequests = 2\n[registry]\nanonymous = \"pull\"\n");
    let image = Image::random(2, &[32 << 20]);
    guarded.push("big/app", &image);
    let http = guarded.http();
    let blob = format!("/v2/big/app/blobs/{}", digest(&image.layers[0]));
    // Two clients that take the beginning only: their answers are under way until they go.
    let held: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = http.get(&blob).open().unwrap();
            stream.read_exact(&mut [0; 1000]).unwrap();
            stream
        })
        .collect();
    let refused = http.get("/v2/big/app/tags/list").send();
    assert_eq!(refused.header("retry-after"), Some("1"));
    refused.expect_error(429, "TOOMANYREQUESTS");
    assert!(guarded.node.metric("waystation_limited_total") >= 1.0);
    drop(held);
    until_true("requests are taken again", || http.get("/v2/big/app/tags/list").send().status == 200);
}

#[test]
fn a_thousand_idle_connections_are_cheap() {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
    let node = Node::start(Options::site("idle"));
    let http = node.registry().http;
    http.get("/v2/").send().expect(200);
    let before = resident(node.pid());
    let idle: Vec<TcpStream> = (0..1000)
        .map(|_| {
            use std::io::Write as _;
            let mut stream = TcpStream::connect(node.ready("listen")).unwrap();
            stream.write_all(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
            stream.read_exact(&mut [0; 12]).unwrap();
            stream
        })
        .collect();
    http.get("/v2/").send().expect(200);
    let grown = resident(node.pid()).saturating_sub(before);
    assert!(grown < 48 << 20, "{} connections cost {grown} bytes", idle.len());
}

#[test]
fn what_cannot_be_is_said_at_the_start() {
    let folder = temp_dir("refused");
    let users = folder.path().join("users");
    fs::write(&users, "ann:$apr1$secret\n").unwrap();
    let data = folder.path().join("data");
    let serve = |more: &[&str]| {
        let mut words = vec!["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
        words.extend(["--mesh-listen", "127.0.0.1:0"]);
        words.extend(more);
        waystation(&words, Some(&data)).expect(2).stderr
    };
    let complaint = serve(&["--htpasswd", users.to_str().unwrap()]);
    assert!(complaint.contains("line 1: only bcrypt") && !complaint.contains("secret"), "{complaint}");
    assert!(serve(&["--tls-key", "x"]).contains("belong together"));
    assert!(serve(&["--public-url", "registry"]).contains("auth.public_url"));
    assert!(serve(&["--tls-certificate", "/nowhere/c", "--tls-key", "/nowhere/k"]).contains("/nowhere/c"));
}

#[test]
fn logins_without_tls_are_warned_of() {
    let folder = temp_dir("warned");
    let users = folder.path().join("users");
    write_users(&users, USERS);
    let start = |more: &[&str]| {
        let mut extra = vec!["--htpasswd".to_owned(), users.display().to_string()];
        extra.extend(more.iter().map(|word| (*word).to_owned()));
        Node::start(Options { extra, ..Options::site("warned") }).log()
    };
    let warning = "clients log in without TLS";
    assert!(start(&["--listen", "0.0.0.0:0"]).contains(warning));
    assert!(!start(&[]).contains(warning));
    assert!(!start(&["--listen", "0.0.0.0:0", "--tls-self-made"]).contains(warning));
}

struct Podman<'a> {
    program: PathBuf,
    folder: &'a Path,
}

impl Podman<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        for (flag, name) in [("--root", "root"), ("--runroot", "run")] {
            command.arg(flag).arg(self.folder.join(name));
        }
        command.args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"]).args(arguments);
        command.env("REGISTRY_AUTH_FILE", self.folder.join("auth.json"));
        command
    }
}

pub fn as_user<'a>(request: Request<'a>, user: &str, password: &str) -> Request<'a> {
    let encoded = data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes());
    request.header("Authorization", &format!("Basic {encoded}"))
}

pub fn write_users(file: &Path, users: &[(&str, &str)]) {
    let line = |(user, password): &(&str, &str)| format!("{user}:{}\n", bcrypt::hash(password, 5).unwrap());
    fs::write(file, users.iter().map(line).collect::<String>()).unwrap();
}

/// Bytes of memory that a process has.
fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}
