//! Registries are reached through the proxy that the usual variables name, except those that they except, and never
//! around it.

use std::fs;

use tempfile::TempDir;

use crate::harness::{
    image::{Image, digest},
    node::{Node, Options, temp_dir},
    proxy::{Asked, Proxy},
    sealed::{add_address, sealed},
};

/// Not loopback, for which nobody asks a proxy.
const REGISTRY: &str = "10.77.1.1";
const PROXY: &str = "10.77.1.2";

/// A registry (a node of another mesh), and an image that it has as `library/app:v1`.
struct Far {
    node: Node,
    image: Image,
    folder: TempDir,
}

impl Far {
    #[track_caller]
    fn start(tls: bool) -> Self {
        let image = Image::random(31, &[1 << 20, 10_000]);
        let mut far = Node::start(Options::site("far"));
        far.registry().push("library/app", "v1", &image);
        far.stop();
        // Pushed on loopback, served elsewhere.
        let mut words =
            vec!["--listen", "10.77.1.1:5000", "--anonymous", "pull", "--mesh-listen", "127.0.0.1:0"];
        words.extend(tls.then_some("--tls-self-made"));
        far.reconfigure(|options| options.extra = words.iter().map(|word| (*word).to_owned()).collect());
        far.start_again();
        let folder = temp_dir("config");
        let scheme = if tls { "https" } else { "http" };
        let endpoint = format!("{scheme}://{}", far.ready("listen"));
        let mut config = format!("[[upstream]]\nnamespace = \"docker.io\"\nendpoints = [{endpoint:?}]\n");
        if tls {
            let ca = folder.path().join("ca.pem");
            fs::write(&ca, far.cli(&["tls", "ca"]).expect(0).stdout).unwrap();
            config.push_str(&format!("ca-file = {ca:?}\n"));
        }
        fs::write(folder.path().join("node.toml"), config).unwrap();
        Far { node: far, image, folder }
    }

    /// A node that pulls through it, with these variables.
    #[track_caller]
    fn behind(&self, variables: &[(&str, &str)]) -> Node {
        let file = self.folder.path().join("node.toml");
        Node::start(Options {
            extra: vec!["--config".to_owned(), file.display().to_string()],
            variables: variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
            ..Options::site("near")
        })
    }

    fn address(&self) -> &str {
        self.node.ready("listen")
    }
}

/// The image's name at a node that pulls it through.
const HUB: &str = "docker.io/library/app";

fn sealed_with_addresses(work: impl FnOnce() + Send) {
    sealed(|| {
        add_address(REGISTRY);
        add_address(PROXY);
        work();
    });
}

#[test]
fn plain_registries_are_asked_through_the_proxy_and_it_learns_who_asks() {
    sealed_with_addresses(|| {
        let (far, proxy) = (Far::start(false), Proxy::start(PROXY));
        for (name, login) in [("HTTP_PROXY", "gate:sesame-5@"), ("http_proxy", "")] {
            let before = proxy.asked().len();
            let node = far.behind(&[(name, &format!("http://{login}{}", proxy.address()))]);
            node.registry().assert_has(HUB, "v1", &far.image);
            let asked = &proxy.asked()[before..];
            for blob in far.image.blobs() {
                let url = format!("http://{}/v2/library/app/blobs/{}", far.address(), digest(blob));
                let count = asked
                    .iter()
                    .filter(|asked| asked.method == "GET" && asked.target.starts_with(&url))
                    .count();
                assert_eq!(count, 1, "{name}: {asked:?}");
            }
            let word = login.strip_suffix('@');
            let basic = word.map(|word| format!("Basic {}", data_encoding::BASE64.encode(word.as_bytes())));
            assert!(asked.iter().all(|asked| asked.login == basic), "{name}: {asked:?}");
            assert!(!node.log().contains("sesame-5"), "{}", node.log());
        }
    });
}

#[test]
fn registries_with_tls_are_reached_by_a_tunnel() {
    sealed_with_addresses(|| {
        let (far, proxy) = (Far::start(true), Proxy::start(PROXY));
        let node = far.behind(&[("HTTPS_PROXY", &format!("http://{}", proxy.address()))]);
        node.registry().assert_has(HUB, "v1", &far.image);
        let tunnel = Asked { method: "CONNECT".into(), target: far.address().into(), login: None };
        let asked = proxy.asked();
        assert!(!asked.is_empty() && asked.iter().all(|asked| *asked == tunnel), "{asked:?}");
    });
}

#[test]
fn who_needs_no_proxy_is_asked_directly() {
    sealed_with_addresses(|| {
        let (far, proxy) = (Far::start(false), Proxy::start(PROXY));
        let url = format!("http://{}", proxy.address());
        // The other variable is for the other scheme.
        let lists: [&[(&str, &str)]; 4] = [
            &[("ALL_PROXY", &url), ("NO_PROXY", "*")],
            &[("HTTP_PROXY", &url), ("NO_PROXY", "example.test,10.77.1.1")],
            &[("ALL_PROXY", &url), ("no_proxy", "10.77.0.0/16")],
            &[("HTTPS_PROXY", &url)],
        ];
        for variables in lists {
            let node = far.behind(variables);
            node.registry().assert_has(HUB, "v1", &far.image);
            assert_eq!(proxy.asked(), [], "{variables:?}");
        }
        let node = far.behind(&[("HTTP_PROXY", &url), ("NO_PROXY", "10.77.1.2,example.test")]);
        node.registry().assert_has(HUB, "v1", &far.image);
        assert_ne!(proxy.asked(), []);
    });
}

#[test]
fn a_proxy_that_is_away_is_not_gone_around() {
    sealed_with_addresses(|| {
        let far = Far::start(false);
        // Nobody listens there.
        let node = far.behind(&[("ALL_PROXY", &format!("http://{PROXY}:9"))]);
        let refused = node.registry().manifest(HUB, "v1").expect_error(404, "MANIFEST_UNKNOWN");
        assert!(refused.contains(&format!("the proxy {PROXY}:9")), "{refused}");
    });
}
