//! What foreign registries are called. Owns that one registry has one name, whichever of its names a client, a
//! repository or a configuration uses; which registries there are is the configuration's.

use reqwest::Url;
use waystation_proto::RepoName;

/// Docker Hub's name in references.
pub const DOCKER_HUB: &str = "docker.io";

/// The one name of a registry as it stands in front of repositories here: in lowercase, a port after `_`, Docker
/// Hub always `docker.io`. `None` for what cannot be a registry's name.
pub fn normalise(text: &str) -> Option<String> {
    let name = text.trim_end_matches('.').to_ascii_lowercase();
    let (host, port) = match name.rsplit_once([':', '_']) {
        Some((host, port)) if is_port(port) => (host, Some(port)),
        Some(_) => return None,
        None => (name.as_str(), None),
    };
    let host = host.trim_end_matches('.');
    // What browsers and clients take for the default; a repository is the same with and without it.
    let port = port.filter(|port| *port != "443");
    if HUB_HOSTS.contains(&host) && port.is_none() {
        return Some(DOCKER_HUB.to_owned());
    }
    let one = match port {
        Some(port) => format!("{host}_{port}"),
        None => host.to_owned(),
    };
    let component = !one.contains('/') && one.parse::<RepoName>().is_ok();
    // Docker's rule for what is a host in a reference: a dot, a port, or localhost.
    (component && (host.contains('.') || port.is_some() || host == "localhost")).then_some(one)
}

/// Whether `host`, with a port where it has one, is the registry of this normalised name itself rather than a
/// mirror of it.
pub fn is_home(namespace: &str, host: &str) -> bool {
    normalise(host).is_some_and(|name| name == namespace)
}

/// The name as it stands in references, with a port after `:`.
pub fn spoken(namespace: &str) -> String {
    namespace.replacen('_', ":", 1)
}

/// The host of a URL, with a port where it has one that is not the usual.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// The path of a repository at the registry: single names at Docker Hub are in `library/`.
pub fn path_at(namespace: &str, path: &str) -> String {
    if namespace == DOCKER_HUB && !path.contains('/') { format!("library/{path}") } else { path.to_owned() }
}

/// The URL of a registry that has only been named.
pub fn default_endpoint(namespace: &str) -> String {
    if namespace == DOCKER_HUB {
        return "https://registry-1.docker.io".to_owned();
    }
    format!("https://{}", spoken(namespace))
}

/// Whether a key of a Docker `config.json` speaks of this host. Keys are hosts, or URLs with the path of an API.
pub fn is_docker_key(key: &str, host: &str) -> bool {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let (key_host, path) = bare.split_once('/').unwrap_or((bare, ""));
    if !matches!(path.trim_end_matches('/'), "" | "v1" | "v2") {
        return false;
    }
    match (normalise(key_host), normalise(host)) {
        (Some(key), Some(host)) => key == host,
        _ => key_host.eq_ignore_ascii_case(host),
    }
}

fn is_port(text: &str) -> bool {
    text.len() <= 5
        && text.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<u16>().is_ok_and(|port| port != 0)
}

/// Every host that is Docker Hub.
const HUB_HOSTS: [&str; 3] = [DOCKER_HUB, "index.docker.io", "registry-1.docker.io"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_registry_one_name() {
        let table = [
            ("docker.io", Some("docker.io")),
            ("index.docker.io", Some("docker.io")),
            ("registry-1.docker.io", Some("docker.io")),
            ("Registry-1.Docker.IO.", Some("docker.io")),
            ("docker.io:443", Some("docker.io")),
            ("docker.io:5000", Some("docker.io_5000")),
            ("ghcr.io", Some("ghcr.io")),
            ("GHCR.io", Some("ghcr.io")),
            ("reg.example:5000", Some("reg.example_5000")),
            ("reg.example_5000", Some("reg.example_5000")),
            ("reg.example:443", Some("reg.example")),
            ("localhost:5000", Some("localhost_5000")),
            ("localhost", Some("localhost")),
            ("127.0.0.1:5000", Some("127.0.0.1_5000")),
            ("registry:5000", Some("registry_5000")),
            ("library", None),
            ("", None),
            (".", None),
            ("a..b", None),
            ("reg.example:0", None),
            ("reg.example:99999", None),
            ("reg.example:x", None),
            ("reg.example/x", None),
            ("[::1]:5000", None),
            ("ex ample.com", None),
            ("-a.example", None),
        ];
        for (text, expected) in table {
            assert_eq!(normalise(text).as_deref(), expected, "{text:?}");
            if let Some(expected) = expected {
                assert_eq!(normalise(expected).as_deref(), Some(expected), "twice: {text:?}");
            }
        }
        assert_eq!(path_at("docker.io", "alpine"), "library/alpine");
        assert_eq!(path_at("docker.io", "grafana/loki"), "grafana/loki");
        assert_eq!(path_at("ghcr.io", "alpine"), "alpine");
        assert_eq!(default_endpoint("docker.io"), "https://registry-1.docker.io");
        assert_eq!(default_endpoint("reg.example_5000"), "https://reg.example:5000");
        assert!(is_home("docker.io", "registry-1.docker.io") && !is_home("docker.io", "mirror.example"));
    }

    #[test]
    fn keys_of_docker_configurations() {
        let table = [
            ("https://index.docker.io/v1/", "registry-1.docker.io", true),
            ("docker.io", "registry-1.docker.io", true),
            ("registry-1.docker.io", "docker.io", true),
            ("ghcr.io", "ghcr.io", true),
            ("https://ghcr.io", "ghcr.io", true),
            ("http://ghcr.io/v2/", "ghcr.io", true),
            ("reg.example:5000", "reg.example:5000", true),
            ("https://reg.example:5000/", "reg.example:5000", true),
            ("reg.example", "reg.example:5000", false),
            ("quay.io/team", "quay.io", false),
            ("https://index.docker.io/v1/", "ghcr.io", false),
            ("REG", "reg", true),
            ("", "reg", false),
        ];
        for (key, host, expected) in table {
            assert_eq!(is_docker_key(key, host), expected, "{key} {host}");
        }
    }
}
