//! Clients that log in: with a wrong password none of them gets anywhere, with the right one each pushes and pulls
//! what the rules let it, and says so where they do not. Engines are in [`engines`], other tools in [`tools`].

use std::{cell::RefCell, fs, path::Path};

use crate::harness::node::{Node, Options, temp_dir};

mod engines;
mod tools;

/// ann may push and pull what is the team's, bob may pull it.
const CONFIG: &str = r#"
[[auth.rule]]
users = ["ann", "bob"]
repositories = ["team/**"]
actions = ["pull"]
[[auth.rule]]
users = ["ann"]
repositories = ["team/**"]
actions = ["push"]
"#;
const ANN: (&str, &str) = ("ann", "apple-7");
const BOB: (&str, &str) = ("bob", "banana-8");
/// What clients say to those who are not known, or not let in.
const UNKNOWN: &[&str] = &["401", "unauthorized", "invalid username/password", "use basic auth"];
const DENIED: &[&str] = &["403", "denied", "forbidden"];

/// A node that asks who is there.
struct Door {
    node: Node,
    folder: tempfile::TempDir,
}

impl Door {
    #[track_caller]
    fn start(more: &[&str]) -> Self {
        let folder = temp_dir("door");
        let (users, config) = (folder.path().join("users"), folder.path().join("node.toml"));
        let line =
            |(user, password): (&str, &str)| format!("{user}:{}\n", bcrypt::hash(password, 5).unwrap());
        fs::write(&users, line(ANN) + &line(BOB)).unwrap();
        fs::write(&config, format!("[auth]\nhtpasswd = {users:?}\n{CONFIG}")).unwrap();
        let mut extra = vec!["--config".to_owned(), config.display().to_string()];
        extra.extend(more.iter().map(|word| (*word).to_owned()));
        // Some that are told where logins are want them to be there.
        fs::write(folder.path().join("auth.json"), "{}").unwrap();
        Door { node: Node::start(Options { extra, ..Options::site("guarded") }), folder }
    }

    fn address(&self) -> &str {
        self.node.ready("listen")
    }

    /// `host:port/repository:v1`
    fn at(&self, repository: &str) -> String {
        format!("{}/{repository}:v1", self.address())
    }

    /// For files of the client.
    fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// What a client did, or why not, as it said.
type Said = Result<String, String>;

/// A client of the node.
trait Visitor {
    /// Who it is from now on; clients that ask nobody whether that is so succeed.
    fn login(&self, user: &str, password: &str) -> Said;
    /// Pushes something of its kind.
    fn push(&self, repository: &str) -> Said;
    /// Pulls what it pushed.
    fn pull(&self, repository: &str) -> Said;
}

/// Who a client is that says so with each command.
#[derive(Default)]
struct Known(RefCell<Option<String>>);

impl Known {
    fn set(&self, user: &str, password: &str) -> Said {
        *self.0.borrow_mut() = Some(format!("{user}:{password}"));
        Ok(String::new())
    }

    fn arguments(&self) -> Vec<String> {
        let known = self.0.borrow().clone();
        known.into_iter().flat_map(|user| ["--user".to_owned(), user]).collect()
    }
}

/// Goes through all that users can meet.
#[track_caller]
fn visit(visitor: &impl Visitor) {
    let refused = |what: &str, said: Said, words: &[&str]| {
        let said = said.expect_err(what).to_lowercase();
        assert!(words.iter().any(|word| said.contains(word)), "{what}: not clear: {said}");
        for secret in [ANN.1, BOB.1] {
            assert!(!said.contains(secret), "{what}: a password is shown: {said}");
        }
    };
    refused("a push without a login", visitor.push("team/app"), UNKNOWN);
    let wrong = visitor.login(ANN.0, "apple-8").and_then(|_| visitor.push("team/app"));
    refused("a push with a wrong password", wrong, UNKNOWN);

    visitor.login(ANN.0, ANN.1).unwrap();
    visitor.push("team/app").unwrap();
    visitor.pull("team/app").unwrap();
    refused("a push without the right", visitor.push("secret/app"), DENIED);

    visitor.login(BOB.0, BOB.1).unwrap();
    visitor.pull("team/app").unwrap();
    refused("a push by who may pull", visitor.push("team/other"), DENIED);
    refused("a pull without the right", visitor.pull("secret/app"), DENIED);
}
