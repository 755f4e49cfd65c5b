//! Names in client configurations: where the node is, and whose images come from it.

use std::{fmt, net::SocketAddr, str::FromStr};

/// Where clients reach a node: scheme, host and perhaps port; no path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether by TLS.
    pub secure: bool,
    /// `host` or `host:port`.
    pub authority: String,
}

/// A foreign registry, as images name it: `docker.io`, `registry.example.org:5000`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Upstream(String);

impl Endpoint {
    /// Of a node that listens there.
    pub fn of_node(listen: SocketAddr, secure: bool) -> Self {
        Endpoint { secure, authority: listen.to_string() }
    }

    /// Whether clients take it for this machine.
    pub fn is_loopback(&self) -> bool {
        let host = self.authority.rsplit_once(':').map_or(&*self.authority, |(host, _)| host);
        host == "localhost" || host.starts_with("127.") || host == "[::1]"
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.secure { "https" } else { "http" }, self.authority)
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (secure, rest) = match text.split_once("://") {
            None => (false, text),
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some((scheme, _)) => return Err(format!("{scheme}:// is neither http:// nor https://")),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        check_host(authority)?;
        Ok(Endpoint { secure, authority: authority.to_owned() })
    }
}

impl Upstream {
    /// docker.io, which images without a host come from.
    pub fn docker_hub() -> Self {
        Upstream(DOCKER_HUB.into())
    }

    /// Whether it is docker.io.
    pub fn is_docker_hub(&self) -> bool {
        self.0 == DOCKER_HUB
    }

    /// As images name it.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// As the first part of a repository's name at a node, where no colon may be.
    pub fn path(&self) -> String {
        self.0.replacen(':', "_", 1)
    }

    /// Where it is: Docker Hub has its registry elsewhere than its name says.
    pub fn server(&self) -> String {
        if self.is_docker_hub() {
            "https://registry-1.docker.io".into()
        } else {
            format!("https://{}", self.0)
        }
    }
}

impl FromStr for Upstream {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        check_host(text)?;
        if !text.contains(['.', ':']) && text != "localhost" {
            return Err(format!("{text:?} is no registry's host, such as docker.io or quay.io"));
        }
        // Docker's own names for it.
        Ok(match text {
            "index.docker.io" | "registry-1.docker.io" => Self::docker_hub(),
            other => Upstream(other.to_owned()),
        })
    }
}

/// `host`, `host:port` or `[IPv6]:port`: nothing that could break out of the files it is written into.
fn check_host(text: &str) -> Result<(), String> {
    let wrong = || format!("{text:?} is no host:port");
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((ip, rest)) => {
            ip.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?;
            match rest.strip_prefix(':') {
                Some(port) => ("", Some(port)),
                None if rest.is_empty() => ("", None),
                None => return Err(wrong()),
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    if port.is_some_and(|port| port.parse::<u16>().map_or(true, |port| port == 0)) {
        return Err(wrong());
    }
    let bracketed = text.starts_with('[');
    let part = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_')
    };
    if !bracketed && (host.len() > HOST_MAX || !host.split('.').all(part)) {
        return Err(format!("{} (small letters, digits, dots and hyphens)", wrong()));
    }
    Ok(())
}

const DOCKER_HUB: &str = "docker.io";

/// RFC 1035, section 2.3.4.
const HOST_MAX: usize = 253;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints() {
        let good = [
            ("127.0.0.1:5000", "http://127.0.0.1:5000", true),
            ("http://127.0.0.1:5000/", "http://127.0.0.1:5000", true),
            ("https://cache.harbour.example", "https://cache.harbour.example", false),
            ("http://[::1]:5000", "http://[::1]:5000", true),
            ("localhost:5000", "http://localhost:5000", true),
        ];
        for (text, shown, loopback) in good {
            let endpoint: Endpoint = text.parse().unwrap();
            assert_eq!((endpoint.to_string(), endpoint.is_loopback()), (shown.to_owned(), loopback));
        }
        for bad in [
            "",
            "ftp://x:1",
            "http://x/v2",
            "x:0",
            "x:65536",
            "x:",
            "a b",
            "x\"y:1",
            "user@x:1",
            "[::1",
            "[x]:1",
            "-x",
            "X:1",
            "x..y",
        ] {
            assert!(bad.parse::<Endpoint>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn upstreams() {
        for (text, name, server) in [
            ("docker.io", "docker.io", "https://registry-1.docker.io"),
            ("index.docker.io", "docker.io", "https://registry-1.docker.io"),
            ("quay.io", "quay.io", "https://quay.io"),
            ("registry.example.org:5000", "registry.example.org:5000", "https://registry.example.org:5000"),
        ] {
            let upstream: Upstream = text.parse().unwrap();
            assert_eq!((upstream.name(), &*upstream.server()), (name, server));
        }
        assert_eq!(
            "registry.example.org:5000".parse::<Upstream>().unwrap().path(),
            "registry.example.org_5000"
        );
        for bad in ["", "quay", "https://quay.io", "quay.io/team", "*", "..", "quay.io\n", "a/../b.c"] {
            assert!(bad.parse::<Upstream>().is_err(), "{bad:?}");
        }
    }
}
