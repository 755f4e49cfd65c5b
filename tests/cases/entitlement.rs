//! What an upstream keeps for some, a node that pulls it through gives to nobody else, by whatever name it is asked
//! for, at whatever node of the mesh, and whether or not the upstream is there.

use std::{fs, path::Path};

use tempfile::TempDir;

use super::access::{as_user, write_users};
use super::clients::image;
use crate::harness::{
    clients::Client,
    cluster::Cluster,
    http::Response,
    image::{Image, digest},
    node::{Node, Options, temp_dir},
    upstream::Upstream,
    wait::{until, until_true},
};

const NAME: &str = "private.example/secret/app";
const NODE: (&str, &str) = ("node", "node-secret-0");
const ANN: (&str, &str) = ("ann", "ann-secret-1");
const BEN: (&str, &str) = ("ben", "ben-secret-2");
const EVE: (&str, &str) = ("eve", "eve-secret-3");

/// A registry where ann may have `secret/app`, ben something else, and the node all.
fn private(image: &Image) -> Upstream {
    let upstream = Upstream::start();
    for repository in ["secret/app", "other/app"] {
        upstream.add(repository, "v1", image);
    }
    let user = |(name, password): (&str, &str), repositories: &[&str]| {
        (format!("{name}:{password}"), repositories.iter().map(|name| (*name).to_owned()).collect())
    };
    let all = ["secret/app", "other/app"];
    upstream.set(|faults| faults.users = vec![user(NODE, &all), user(ANN, &all[..1]), user(BEN, &all[1..])]);
    upstream
}

fn configured(mut options: Options, folder: &Path, upstream: &Upstream, more: &str) -> Options {
    let (password, file) = (folder.join("password"), folder.join("node.toml"));
    fs::write(&password, NODE.1).unwrap();
    let keys = format!("username = \"{}\"\npassword-file = {password:?}\n{more}", NODE.0);
    fs::write(&file, upstream.config("private.example", &keys)).unwrap();
    options.extra.extend(["--config".to_owned(), file.display().to_string()]);
    options
}

/// A node that leaves it to the upstream who may have what.
fn verifying(options: Options, upstream: &Upstream) -> (Node, TempDir) {
    let folder = temp_dir("config");
    let options = configured(options, folder.path(), upstream, "access = \"verify-upstream\"");
    (Node::start(options), folder)
}

fn get(node: &Node, target: &str, user: Option<(&str, &str)>) -> Response {
    let http = node.registry().http;
    let request = http.get(target);
    match user {
        Some((name, password)) => as_user(request, name, password).send(),
        None => request.send(),
    }
}

fn manifest(image: &Image) -> String {
    format!("/v2/{NAME}/manifests/{}", image.digest())
}

fn layer(image: &Image) -> String {
    format!("/v2/{NAME}/blobs/{}", digest(&image.layers[0]))
}

/// How often the upstream was asked with these credentials.
fn asked_as(upstream: &Upstream, (name, password): (&str, &str)) -> usize {
    let basic = format!("Basic {}", data_encoding::BASE64.encode(format!("{name}:{password}").as_bytes()));
    let asked = ["GET", "HEAD"].map(|method| upstream.asked(method, ""));
    asked.iter().flatten().filter(|request| request.headers.get("authorization") == Some(&basic)).count()
}

fn assert_keeps_secrets(node: &Node) {
    let said = format!("{}{}", node.log(), node.status());
    for (_, password) in [NODE, ANN, BEN, EVE] {
        assert!(!said.contains(password), "{password} is told");
        let encoded = data_encoding::BASE64.encode(password.as_bytes());
        assert!(!said.contains(&encoded[..encoded.len() - 4]), "{password} is told, encoded");
    }
}

#[test]
fn the_upstream_says_who_may_have_what_is_here() {
    let image = Image::random(31, &[300_000, 10]);
    let upstream = private(&image);
    let (node, _config) = verifying(Options::site("a"), &upstream);
    let by_tag = format!("/v2/{NAME}/manifests/v1");
    let refused = get(&node, &by_tag, None).expect(401);
    assert!(refused.header("www-authenticate").is_some(), "{refused:?}");
    for _ in 0..5 {
        get(&node, &by_tag, Some(ANN)).expect(200);
        assert_eq!(get(&node, &layer(&image), Some(ANN)).expect(200).body, image.layers[0]);
    }
    assert!(asked_as(&upstream, ANN) <= 2, "one question, of at most two requests");
    for stranger in [None, Some(BEN), Some(EVE)] {
        for target in [
            by_tag.clone(),
            manifest(&image),
            layer(&image),
            format!("/v2/{NAME}/tags/list"),
            format!("/v2/{NAME}/referrers/{}", image.digest()),
            // Whatever else it may be called.
            "/v2/secret/app/manifests/v1?ns=private.example".to_owned(),
            format!("{}?ns=elsewhere.example", layer(&image)),
            format!("/v2/{NAME}/blobs/{}?ns=elsewhere.example", image.digest()),
        ] {
            get(&node, &target, stranger).expect(401);
        }
    }
    let http = node.registry().http;
    let known =
        http.get(&layer(&image)).header("If-None-Match", &format!("\"{}\"", digest(&image.layers[0])));
    known.send().expect(401);
    assert!(asked_as(&upstream, BEN) <= 2 && asked_as(&upstream, EVE) <= 2, "refusals are remembered too");
    let listed = http.get("/v2/_catalog").send();
    assert!(!String::from_utf8_lossy(&listed.body).contains("private"), "{listed:?}");
    assert_keeps_secrets(&node);
}

#[test]
fn many_that_ask_at_once_are_one_question() {
    let image = Image::random(32, &[300_000]);
    let upstream = private(&image);
    let (node, _config) = verifying(Options::site("a"), &upstream);
    std::thread::scope(|scope| {
        for _ in 0..12 {
            scope.spawn(|| get(&node, &manifest(&image), Some(ANN)).expect(200));
        }
    });
    assert!(asked_as(&upstream, ANN) <= 2, "asked {} times", asked_as(&upstream, ANN));
}

#[test]
fn pushing_takes_nothing_over_that_is_left_to_an_upstream() {
    let image = Image::random(33, &[300_000]);
    let upstream = private(&image);
    let (node, _config) = verifying(Options::site("a"), &upstream);
    get(&node, &manifest(&image), Some(ANN)).expect(200);
    get(&node, &layer(&image), Some(ANN)).expect(200);
    let registry = node.registry();
    let secret = digest(&image.layers[0]);
    for from in [format!("&from={NAME}"), String::new()] {
        let mount = format!("/v2/mine/app/blobs/uploads/?mount={secret}{from}");
        registry.http.request("POST", &mount).send().expect(202);
    }
    registry.http.get(&format!("/v2/mine/app/blobs/{secret}")).send().expect(404);
    assert_ne!(registry.push_manifest("mine/app", "v1", &image.manifest).status, 201);
    // Nor is it put into what the mesh itself has under that name.
    registry.push_manifest(NAME, "mine", &image.manifest).expect(403);
    registry.http.request("POST", &format!("/v2/{NAME}/blobs/uploads/")).send().expect(403);
    get(&node, &layer(&image), None).expect(401);
}

#[test]
fn who_was_entitled_goes_on_without_the_upstream_at_every_node() {
    let image = Image::random(34, &[300_000, 20]);
    let upstream = private(&image);
    let cluster = Cluster::start(1);
    let (first, _config) = verifying(cluster.options("b"), &upstream);
    let (second, _other) = verifying(cluster.options("b"), &upstream);
    until_true("the nodes are connected", || second.sessions().len() == 2);
    get(&first, &manifest(&image), Some(ANN)).expect(200);
    for blob in image.blobs() {
        get(&first, &format!("/v2/{NAME}/blobs/{}", digest(blob)), Some(ANN)).expect(200);
    }
    // The second has nothing but what the upstream said of them.
    let tags = format!("/v2/{NAME}/tags/list");
    get(&second, &tags, Some(ANN)).expect(200);
    get(&second, &tags, Some(BEN)).expect(401);
    upstream.set(|faults| faults.down = true);
    for node in [&first, &second] {
        get(node, &manifest(&image), Some(ANN)).expect(200);
        assert_eq!(get(node, &layer(&image), Some(ANN)).expect(200).body, image.layers[0]);
        for stranger in [None, Some(BEN), Some(EVE)] {
            for target in [manifest(&image), layer(&image), tags.clone()] {
                let answer = get(node, &target, stranger);
                assert!(matches!(answer.status, 401 | 404), "{answer:?}");
            }
        }
        assert_keeps_secrets(node);
    }
    assert_eq!(upstream.count("GET", &digest(&image.layers[0])), 1);
    // A node that knows nothing of the upstream gives nothing of it.
    assert_eq!(get(&cluster[0], &layer(&image), Some(ANN)).status, 404);
}

#[test]
fn who_was_entitled_is_so_after_a_restart_without_the_upstream() {
    let image = Image::random(36, &[300_000]);
    let upstream = private(&image);
    let (mut node, _config) = verifying(Options::site("a"), &upstream);
    get(&node, &manifest(&image), Some(ANN)).expect(200);
    get(&node, &layer(&image), Some(ANN)).expect(200);
    get(&node, &layer(&image), Some(BEN)).expect(401);
    let file = node.data_dir().join("entitled.json");
    let kept = until("it is kept", || fs::read_to_string(&file).ok());
    for (name, password) in [ANN, BEN] {
        assert!(!kept.contains(password) && kept.contains(name) == (name == ANN.0), "{kept}");
    }
    upstream.set(|faults| faults.down = true);
    node.kill();
    node.start_again();
    assert_eq!(get(&node, &layer(&image), Some(ANN)).expect(200).body, image.layers[0]);
    for stranger in [None, Some(BEN), Some(EVE), Some((ANN.0, BEN.1))] {
        let answer = get(&node, &layer(&image), stranger);
        assert!(matches!(answer.status, 401 | 404), "{answer:?}");
    }
    // Once the upstream says otherwise, that counts.
    upstream.set(|faults| {
        faults.down = false;
        faults.users.retain(|(login, _)| !login.starts_with(ANN.0));
    });
    until_true("the upstream is asked again", || get(&node, &layer(&image), Some(ANN)).status == 401);
    assert_keeps_secrets(&node);
}

#[test]
fn skopeo_logs_in_through_a_node() {
    let Some(skopeo) = Client::find("skopeo", &["--version"]) else { return };
    let image = image();
    let upstream = private(&image);
    let (node, folder) = verifying(Options::site("a"), &upstream);
    let from = format!("docker://{}/{NAME}:v1", node.ready("listen"));
    let copy = |user: (&str, &str), name: &str| {
        let to = format!("dir:{}", folder.path().join(name).display());
        let credentials = format!("{}:{}", user.0, user.1);
        let arguments =
            ["--insecure-policy", "copy", "--src-tls-verify=false", "--src-creds", &credentials, &from, &to];
        skopeo.command().args(arguments).output().unwrap()
    };
    let copied = copy(ANN, "ann");
    assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
    assert_eq!(fs::read(folder.path().join("ann/manifest.json")).unwrap(), image.manifest);
    let refused = copy(BEN, "ben");
    assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));
    assert_keeps_secrets(&node);
}

#[test]
fn local_rules_are_about_what_a_name_means() {
    let image = Image::random(35, &[300_000]);
    let upstream = private(&image);
    let folder = temp_dir("config");
    let users = folder.path().join("users");
    write_users(&users, &[ANN, BEN]);
    let more = format!(
        "access = \"local\"\nmirror-for-unqualified = true\n[auth]\nhtpasswd = {users:?}\n[[auth.rule]]\nusers = \
         [\"ann\"]\nrepositories = [\"private.example/secret/**\"]\nactions = [\"pull\"]\n[[auth.rule]]\nusers = \
         [\"ben\"]\nrepositories = [\"secret/**\"]\nactions = [\"pull\"]\n"
    );
    let node = Node::start(configured(Options::site("a"), folder.path(), &upstream, &more));
    let names = ["/v2/private.example/secret/app/", "/v2/secret/app/"];
    let ways = |what: &str| {
        names
            .map(|name| format!("{name}{what}"))
            .into_iter()
            .chain([format!("{}{what}?ns=private.example", names[1])])
    };
    for target in ways("manifests/v1").chain(ways(&format!("blobs/{}", digest(&image.layers[0])))) {
        get(&node, &target, Some(ANN)).expect(200);
        // His rule is for a name that means nothing of the mesh's own here.
        get(&node, &target, Some(BEN)).expect(403);
        get(&node, &target, Some(EVE)).expect(401);
        assert!(get(&node, &target, None).expect(401).header("www-authenticate").is_some());
    }
    get(&node, "/v2/private.example/other/app/manifests/v1", Some(ANN)).expect(403);
    get(&node, "/v2/other/app/manifests/v1?ns=private.example", Some(ANN)).expect(403);
    // Tokens are for the name by which it is asked for.
    let token = |name: &str| {
        let target = format!("/token?service=waystation&scope=repository:{name}:pull");
        get(&node, &target, Some(ANN)).expect(200).json()["token"].as_str().unwrap().to_owned()
    };
    let bearing = |name: &str, target: &str| {
        let http = node.registry().http;
        http.get(target).header("Authorization", &format!("Bearer {}", token(name))).send().status
    };
    assert_eq!(bearing("secret/app", "/v2/secret/app/manifests/v1"), 200);
    assert_eq!(bearing(NAME, "/v2/secret/app/manifests/v1?ns=private.example"), 200);
    assert_eq!(bearing("other/app", "/v2/secret/app/manifests/v1"), 401);
    assert_eq!(asked_as(&upstream, ANN), 0, "passwords of this node's users go nowhere");
    assert_keeps_secrets(&node);
}
