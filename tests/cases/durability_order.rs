//! A push is answered only after its bytes, their directory entry and the store's database were synced, seen
//! from outside with strace.

use std::{collections::BTreeMap, fs, path::Path};

use rustix::process::Signal;

use crate::harness::{
    cluster::Cluster,
    image::{Image, digest, random_bytes},
    node::{Node, Options, temp_dir},
    registry::{Upload, with_query},
    wait::{PATIENCE, until_true},
};

/// What the node did that matters here, in order of completion.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// fsync or fdatasync of a path.
    Synced(String),
    /// An answer went to a client.
    Answered(u16),
    /// Something as long as an announcement of an artifact, a tag and a holding went to another node.
    Announced,
}

#[test]
fn a_push_is_answered_after_everything_is_synced() {
    let folder = temp_dir("strace");
    let trace = folder.path().join("trace");
    let options = Options { wrapper: traced_into(&trace), ..Options::default() };
    let mut node = Node::start(options);
    let registry = node.registry();
    let blob = random_bytes(1, 1 << 20);

    let session = registry.http.request("POST", "/v2/app/blobs/uploads/").send().expect(202).location();
    let put = with_query(&session, &format!("digest={}", digest(&blob)));
    registry.http.request("PUT", &put).body(&blob).send().expect(201);
    let image = Image::of(vec![blob]);
    registry.push_blob(Upload::Put, "app", &image.config).expect(201);
    registry.push_manifest("app", "v1", &image.manifest).expect(201);
    let data_dir = fs::canonicalize(node.data_dir()).unwrap();
    node.signal(Signal::TERM);
    node.wait_for_end(PATIENCE);
    until_true("strace wrote everything", || read(&trace).contains("+++ exited with"));

    let acts = acts(&read(&trace));
    let answers: Vec<_> = (0..acts.len()).filter(|at| matches!(acts[*at], Act::Answered(_))).collect();
    // POST, PUT of the layer; POST, PUT of the config; PUT of the manifest.
    let codes: Vec<_> = answers.iter().map(|at| acts[*at].clone()).collect();
    assert_eq!(codes, [202, 201, 202, 201, 201].map(Act::Answered));

    let layer = &acts[answers[0]..answers[1]];
    let data = position(layer, "the layer's bytes", |path| is_content(&data_dir, path));
    let directory = position(layer, "the layer's directory", |path| {
        is_content(&data_dir, path) && Path::new(path).is_dir() && path != data_dir.to_str().unwrap()
    });
    let database = last_position(layer, "the store's database", |path| path.ends_with("blobs.db"));
    assert!(data < directory && directory < database, "another order than decided: {layer:#?}");

    let manifest = &acts[answers[3]..answers[4]];
    last_position(manifest, "the database, for manifest and records", |path| path.ends_with("blobs.db"));
}

#[test]
fn an_announcement_goes_out_after_everything_is_synced() {
    let cluster = Cluster::start(1);
    let folder = temp_dir("strace");
    let trace = folder.path().join("trace");
    let mut node = Node::start(Options { wrapper: traced_into(&trace), ..cluster.options("traced") });
    cluster[0].cli(&["mesh", "grant", node.id(), "--repositories", "**"]).expect(0);
    let registry = node.registry();
    until_true("the granted node may publish", || {
        registry.http.request("POST", "/v2/app/blobs/uploads/").send().status == 202
    });
    let image = Image::random(1, &[100_000]);
    for blob in image.blobs() {
        registry.push_blob(Upload::Put, "app", blob).expect(201);
    }
    registry.push_manifest("app", "v1", &image.manifest).expect(201);
    cluster[0].registry().wait_for_tag("app", "v1", &image);
    node.signal(Signal::TERM);
    node.wait_for_end(PATIENCE);
    until_true("strace wrote everything", || read(&trace).contains("+++ exited with"));

    let acts = acts(&read(&trace));
    let created = |act: &Act| *act == Act::Answered(201);
    let manifest = acts.iter().rposition(created).expect("the manifest was answered");
    let before = acts[..manifest].iter().rposition(created).expect("a blob was answered");
    let said = acts[before..].iter().position(|act| *act == Act::Announced).expect("it was announced");
    let is_database = |act: &Act| matches!(act, Act::Synced(path) if path.ends_with("blobs.db"));
    let syncs = acts[before..before + said].iter().filter(|act| is_database(act)).count();
    let syncs_of_push = acts[before..manifest].iter().filter(|act| is_database(act)).count();
    assert!(syncs_of_push >= 2, "bytes and records are synced one after the other: {acts:#?}");
    assert!(syncs >= syncs_of_push, "announced before all of it was synced: {:#?}", &acts[before..]);
}

/// strace, writing what matters here to a file. -D: the traced process is our child, so that signals reach it.
fn traced_into(trace: &Path) -> Vec<String> {
    let options =
        ["strace", "-D", "-f", "-yy", "-s", "32", "-e", "trace=fsync,fdatasync,write,writev,sendto,sendmsg"];
    options.into_iter().chain(["-o", trace.to_str().unwrap()]).map(str::to_owned).collect()
}

/// Below the data directory, and neither database nor index nor lock.
fn is_content(data_dir: &Path, path: &str) -> bool {
    let Ok(below) = Path::new(path).strip_prefix(data_dir) else { return false };
    !below.starts_with("index") && !path.ends_with(".db") && !path.contains("(deleted)")
}

#[track_caller]
fn position(acts: &[Act], what: &str, wanted: impl Fn(&str) -> bool) -> usize {
    let found = acts.iter().position(|act| matches!(act, Act::Synced(path) if wanted(path)));
    found.unwrap_or_else(|| panic!("{what} was not synced before the answer: {acts:#?}"))
}

#[track_caller]
fn last_position(acts: &[Act], what: &str, wanted: impl Fn(&str) -> bool) -> usize {
    let found = acts.iter().rposition(|act| matches!(act, Act::Synced(path) if wanted(path)));
    found.unwrap_or_else(|| panic!("{what} was not synced before the answer: {acts:#?}"))
}

/// Reads strace's lines. A call that others interrupted is in two lines; it is done at the second.
fn acts(trace: &str) -> Vec<Act> {
    let mut begun: BTreeMap<&str, &str> = BTreeMap::new();
    let mut acts = vec![];
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if let Some(answer) = answer(call) {
            // An answer counts from when its writing begins.
            acts.push(Act::Answered(answer));
        } else if is_announcement(call) {
            acts.push(Act::Announced);
        } else if call.starts_with("fsync(") || call.starts_with("fdatasync(") {
            if call.contains("<unfinished") {
                begun.insert(thread, call);
            } else if call.trim_end().ends_with("= 0") {
                acts.extend(synced_path(call).map(Act::Synced));
            }
        } else if call.starts_with("<... fsync resumed") || call.starts_with("<... fdatasync resumed") {
            let first = begun.remove(thread).filter(|_| call.trim_end().ends_with("= 0"));
            acts.extend(first.and_then(synced_path).map(Act::Synced));
        }
    }
    acts
}

/// `fsync(12</path>)…` → `/path`
fn synced_path(call: &str) -> Option<String> {
    let (_, rest) = call.split_once('<')?;
    rest.split_once('>').map(|(path, _)| path.to_owned())
}

/// The status code, where the call writes the head of an answer to a socket.
fn answer(call: &str) -> Option<u16> {
    let names = ["write(", "writev(", "sendto(", "sendmsg("];
    let socket = call.contains("<TCP:") || call.contains("<socket:");
    let writes = names.iter().any(|name| call.starts_with(name)) && socket;
    let (_, rest) = call.split_once("\"HTTP/1.1 ").filter(|_| writes)?;
    rest.get(..3)?.parse().ok()
}

/// Whether the call sends at least [`ANNOUNCEMENT_BYTES`] to a TCP socket, and is no answer over HTTP.
fn is_announcement(call: &str) -> bool {
    let length = call
        .strip_prefix("sendto(")
        .filter(|rest| rest.contains("<TCP:"))
        .and_then(|rest| rest.split_once("\"..., "))
        .and_then(|(_, rest)| rest.split(',').next()?.parse::<u64>().ok());
    length.is_some_and(|length| length >= ANNOUNCEMENT_BYTES)
}

/// Three signed records, two of them with a grant, take about 1,000 bytes; a step of reconciliation between
/// equal catalogs takes less than 100.
const ANNOUNCEMENT_BYTES: u64 = 700;

fn read(trace: &Path) -> String {
    String::from_utf8_lossy(&fs::read(trace).unwrap_or_default()).into_owned()
}

#[test]
fn traces_are_read() {
    let trace = "\
7 fsync(9</d/x>) = 0
8 fdatasync(5</d/blobs.db> <unfinished ...>
7 write(3<TCP:[127.0.0.1:1->127.0.0.1:2]>, \"HTTP/1.1 201 Created\\r\\n\"..., 90) = 90
8 <... fdatasync resumed>) = 0
7 write(1</log>, \"HTTP/1.1 200 OK\", 9) = 9
7 fsync(9</d/y>) = -1 EIO (Input/output error)
";
    let synced = |path: &str| Act::Synced(path.to_owned());
    assert_eq!(acts(trace), [synced("/d/x"), Act::Answered(201), synced("/d/blobs.db")]);
}
