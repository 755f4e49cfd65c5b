//! `[[upstream]]`: what an operator says of a foreign registry. Owns names, defaults, units and the texts of
//! complaints; what the values do is the business of the modules beside it.

use std::{path::PathBuf, time::Duration};

use reqwest::Url;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use waystation_proto::glob::Glob;

use super::namespace;

/// One foreign registry. `configs/node.toml` shows each key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct UpstreamConfig {
    /// What clients call it, such as `docker.io`; normalised, a port after `_`. Needed.
    #[serde(deserialize_with = "namespace_of_text")]
    pub namespace: String,
    /// Where it is, in the order of trying. Empty: at its name.
    #[serde(with = "endpoints", skip_serializing_if = "Vec::is_empty")]
    pub endpoints: Vec<Url>,
    /// Whether requests that do not say whose repository they mean are meant for it.
    pub mirror_for_unqualified: bool,
    /// What may be pulled through, as patterns over paths at the upstream.
    pub repositories: Vec<Glob>,
    /// Who the node is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The file with the password for `username`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// A Docker `config.json` with credentials, instead of `username`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub docker_config: Option<PathBuf>,
    /// Certificates (PEM) that are trusted beside the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// How long a tag's digest is believed without asking again.
    #[serde(with = "duration")]
    pub revalidate: Duration,
    /// How old an answer about a tag may be while the upstream is away.
    pub stale_for: StaleFor,
    /// How long a connection may take to be made.
    #[serde(with = "duration")]
    pub connect_timeout: Duration,
    /// How long nothing may come on a connection.
    #[serde(with = "duration")]
    pub read_timeout: Duration,
    /// Who may have what is pulled through. Absent: everybody, but only local clients who have rights in the
    /// repository where the node has credentials of its own at the upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// Platforms (`os/architecture[/variant]`) that are fetched beside those asked for.
    #[serde(deserialize_with = "platforms")]
    pub platforms: Vec<String>,
}

/// Who may have what was pulled through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Everybody who may talk to the registry endpoint.
    Open,
    /// Clients who have a right to pull in the repository here.
    Local,
    /// Clients whose credentials the upstream accepts for the repository.
    VerifyUpstream,
}

/// How old an answer about a tag may be while the upstream is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleFor {
    /// Not at all.
    Never,
    /// At most so old.
    Within(Duration),
    /// As old as it is.
    Forever,
}

impl UpstreamConfig {
    /// The configuration of an upstream of which only the name is known. The name is normalised where it can be.
    pub fn named(name: &str) -> Self {
        let namespace = namespace::normalise(name).unwrap_or_else(|| name.to_owned());
        UpstreamConfig { namespace, ..UpstreamConfig::default() }
    }

    /// Who may have what was pulled through: what was asked for, else everybody, else (with credentials of the
    /// node's own, that others must not borrow) who has the right here.
    pub fn access(&self) -> Access {
        let own = self.username.is_some() || self.docker_config.is_some();
        self.access.unwrap_or(if own { Access::Local } else { Access::Open })
    }

    /// Where it is, in the order of trying; never empty for a name that is valid.
    pub fn endpoints(&self) -> Vec<Url> {
        if self.endpoints.is_empty() {
            return namespace::default_endpoint(&self.namespace).parse().into_iter().collect();
        }
        self.endpoints.clone()
    }

    /// Whether this path at the upstream may be pulled through.
    pub fn allows(&self, path: &str) -> bool {
        self.repositories.iter().any(|glob| glob.matches(path))
    }
}

impl StaleFor {
    /// Whether an answer of this age may be given.
    pub fn allows(&self, age: Duration) -> bool {
        match self {
            StaleFor::Never => false,
            StaleFor::Within(limit) => age <= *limit,
            StaleFor::Forever => true,
        }
    }
}

/// What is wrong with the upstreams as a whole, a sentence each; `[[upstream]]` keys on their own were checked when
/// they were read.
pub fn check(upstreams: &[UpstreamConfig]) -> Vec<String> {
    let mut wrong = Vec::new();
    if upstreams.len() > MAX_UPSTREAMS {
        wrong.push(format!("upstream: {} are too many; give at most {MAX_UPSTREAMS}", upstreams.len()));
    }
    for (n, upstream) in upstreams.iter().enumerate() {
        let name = &upstream.namespace;
        if name.is_empty() {
            wrong.push(format!(
                "upstream {}: namespace is missing; give the name that clients use, such as \"docker.io\"",
                n + 1
            ));
            continue;
        }
        if upstreams[..n].iter().any(|earlier| earlier.namespace == *name) {
            wrong.push(format!("upstream {name}: given twice; put its endpoints into one [[upstream]]"));
        }
        wrong.extend(check_one(upstream).map(|what| format!("upstream {name}: {what}")));
    }
    let unqualified: Vec<&str> =
        upstreams.iter().filter(|u| u.mirror_for_unqualified).map(|u| u.namespace.as_str()).collect();
    if unqualified.len() > 1 {
        wrong.push(format!(
            "mirror-for-unqualified: only one upstream can be meant by a name without registry; choose of {}",
            unqualified.join(", ")
        ));
    }
    wrong
}

fn check_one(upstream: &UpstreamConfig) -> impl Iterator<Item = String> {
    let UpstreamConfig { username, password_file, docker_config, .. } = upstream;
    let too_many = |what: &str, n: usize, max: usize| {
        (n > max).then(|| format!("{n} {what} are too many; give at most {max}"))
    };
    let all = [
        too_many("endpoints", upstream.endpoints.len(), MAX_ENDPOINTS),
        too_many("repositories", upstream.repositories.len(), MAX_REPOSITORIES),
        too_many("platforms", upstream.platforms.len(), MAX_PLATFORMS),
        (username.is_some() != password_file.is_some())
            .then(|| "username and password-file belong together; give both or none".to_owned()),
        username
            .as_ref()
            .filter(|name| name.is_empty() || name.contains(':') || name.chars().any(char::is_control))
            .map(|name| format!("username {name:?} cannot be sent; it must not be empty or hold a colon")),
        (docker_config.is_some() && (username.is_some() || password_file.is_some()))
            .then(|| "docker-config or username and password-file, not both".to_owned()),
        upstream.repositories.is_empty().then(|| {
            "repositories is empty, so nothing could be pulled through; leave it out for all".to_owned()
        }),
        (upstream.connect_timeout.is_zero() || upstream.connect_timeout > MAX_TIMEOUT)
            .then(|| "connect-timeout must be more than 0s and at most 10m".to_owned()),
        (upstream.read_timeout.is_zero() || upstream.read_timeout > MAX_TIMEOUT)
            .then(|| "read-timeout must be more than 0s and at most 10m".to_owned()),
    ];
    all.into_iter().flatten()
}

impl Default for UpstreamConfig {
    fn default() -> Self {
        UpstreamConfig {
            namespace: String::new(),
            endpoints: Vec::new(),
            mirror_for_unqualified: false,
            repositories: vec![Glob::everything()],
            username: None,
            password_file: None,
            docker_config: None,
            ca_file: None,
            revalidate: Duration::from_secs(60),
            stale_for: StaleFor::Within(Duration::from_secs(7 * 24 * 3600)),
            connect_timeout: Duration::from_secs(3),
            read_timeout: Duration::from_secs(30),
            access: None,
            platforms: Vec::new(),
        }
    }
}

impl Serialize for StaleFor {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self {
            StaleFor::Never => s.serialize_str("never"),
            StaleFor::Within(limit) => duration::serialize(limit, s),
            StaleFor::Forever => s.serialize_str("forever"),
        }
    }
}

impl<'de> Deserialize<'de> for StaleFor {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        match String::deserialize(d)?.as_str() {
            "never" => Ok(StaleFor::Never),
            "forever" => Ok(StaleFor::Forever),
            text => match duration::parse(text) {
                Ok(limit) => Ok(StaleFor::Within(limit)),
                Err(wrong) => Err(D::Error::custom(format!("{wrong}, or \"never\", or \"forever\""))),
            },
        }
    }
}

fn namespace_of_text<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    let text = String::deserialize(d)?;
    namespace::normalise(&text).ok_or_else(|| {
        D::Error::custom(format!(
            "{text:?} cannot be a registry's name; write its host as in references, such as \"docker.io\" or \
             \"registry.example:5000\""
        ))
    })
}

/// An endpoint's URL, from text; the error is a sentence.
pub fn parse_endpoint(text: &str) -> Result<Url, String> {
    let wrong = |why: &str| {
        format!("{text:?} is not a registry's URL ({why}); write for example \"https://registry.example\"")
    };
    let url: Url = text.parse().map_err(|why| wrong(&format!("{why}")))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(wrong("neither https nor http"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        // Not quoted: it has a secret in it.
        return Err("an endpoint must not hold credentials; use username and password-file".to_owned());
    }
    if !url.has_host() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong("host, port and path only"));
    }
    Ok(url)
}

fn platforms<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    let listed = Vec::<String>::deserialize(d)?;
    let word = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
    };
    match listed.iter().find(|text| !matches!(text.split('/').count(), 2 | 3) || !text.split('/').all(word)) {
        None => Ok(listed),
        Some(wrong) => Err(D::Error::custom(format!(
            "{wrong:?} is not a platform; write os/architecture, such as \"linux/amd64\" or \"linux/arm/v7\""
        ))),
    }
}

/// URLs as text.
mod endpoints {
    use super::{Deserialize, Deserializer, Serializer, Url, parse_endpoint};

    pub fn serialize<S: Serializer>(value: &[Url], s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(value.iter().map(Url::as_str))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<Url>, D::Error> {
        let listed = Vec::<String>::deserialize(d)?;
        listed
            .iter()
            .map(|text| parse_endpoint(text))
            .collect::<Result<_, _>>()
            .map_err(serde::de::Error::custom)
    }
}

/// A length of time with its unit.
mod duration {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub fn parse(text: &str) -> Result<Duration, String> {
        humantime::parse_duration(text).map_err(|_| {
            format!("{text:?} is not a length of time; write number and unit, such as \"30s\" or \"7d\"")
        })
    }

    pub fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        parse(&String::deserialize(d)?).map_err(serde::de::Error::custom)
    }
}

/// More are surely a mistake.
const MAX_UPSTREAMS: usize = 64;
/// Each may cost a time-out.
const MAX_ENDPOINTS: usize = 8;
const MAX_REPOSITORIES: usize = 256;
const MAX_PLATFORMS: usize = 16;
/// Beyond, clients have given up long ago.
const MAX_TIMEOUT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Vec<UpstreamConfig>, Vec<String>> {
        Config::parse(text, "my.toml").map(|config| config.upstream)
    }

    /// The commented example of the shipped file; `all`: also the keys that have no default to show.
    fn example(all: bool) -> String {
        let shipped = include_str!("../../../configs/node.toml");
        let (_, section) = shipped.split_once("# [[upstream]]\n").expect("an example");
        let is_key = |line: &&str| line.split_once(" = ").is_some_and(|(key, _)| !key.contains([' ', '(']));
        let lines = section.lines().filter_map(|line| match line.strip_prefix("## ") {
            Some(line) => Some(line).filter(|_| all),
            None => line.strip_prefix("# "),
        });
        format!("[[upstream]]\n{}\n", lines.filter(is_key).collect::<Vec<_>>().join("\n"))
    }

    #[test]
    fn the_example_shows_defaults_and_every_key() {
        assert_eq!(parse(&example(false)), Ok(vec![UpstreamConfig::named("docker.io")]));
        let shown = parse(&example(true)).expect("valid").remove(0);
        let full = UpstreamConfig {
            endpoints: vec!["https://e.example".parse().expect("a URL")],
            username: Some("u".into()),
            password_file: Some("p".into()),
            docker_config: Some("d".into()),
            ca_file: Some("c".into()),
            access: Some(Access::Open),
            ..UpstreamConfig::default()
        };
        let keys = |config: &UpstreamConfig| -> Vec<String> {
            toml::Table::try_from(config).expect("a table").keys().cloned().collect()
        };
        assert_eq!(keys(&shown), keys(&full));
    }

    #[test]
    fn reads_what_it_writes() {
        let text = "
            [[upstream]]
            namespace = \"Index.Docker.io\"
            endpoints = [\"https://mirror.example/hub\", \"http://10.0.0.1:5000\"]
            repositories = [\"library/*\", \"team/**\"]
            stale-for = \"forever\"
            revalidate = \"0s\"
            access = \"verify-upstream\"
            platforms = [\"linux/amd64\", \"linux/arm/v7\"]
            [[upstream]]
            namespace = \"reg.example:5000\"
            stale-for = \"90m\"
        ";
        let all = parse(text).expect("valid");
        assert_eq!(check(&all), Vec::<String>::new());
        assert_eq!((all[0].namespace.as_str(), all[1].namespace.as_str()), ("docker.io", "reg.example_5000"));
        assert_eq!(all[1].endpoints()[0].as_str(), "https://reg.example:5000/");
        assert!(
            all[0].allows("library/alpine") && all[0].allows("team/a/b") && !all[0].allows("other/alpine")
        );
        assert!(all[0].stale_for.allows(Duration::MAX) && !StaleFor::Never.allows(Duration::ZERO));
        let minutes = |n: u64| Duration::from_secs(60 * n);
        assert!(all[1].stale_for.allows(minutes(90)) && !all[1].stale_for.allows(minutes(91)));
        let config = Config { upstream: all, ..Config::default() };
        let written = toml::to_string(&config).expect("written");
        assert_eq!(Config::parse(&written, "written"), Ok(config));
    }

    #[test]
    fn reports_every_mistake_at_once() {
        let text = "
            [[upstream]]
            namespace = \"library\"
            endpoints = [\"ftp://x\"]
            surprise = 1
            revalidate = \"60\"
            [[upstream]]
            stale-for = \"soon\"
            access = \"all\"
            endpoints = [\"https://me:hunter2@x\"]
            platforms = [\"amd64\"]
            repositories = [\"\"]
        ";
        let complaints = parse(text).expect_err("wrong");
        let all = complaints.join("\n");
        assert_eq!(complaints.len(), 9, "{all}");
        for part in [
            "my.toml: upstream 1: namespace: \"library\" cannot be a registry's name",
            "upstream 1: endpoints: \"ftp://x\" is not a registry's URL (neither https nor http)",
            "upstream 1: surprise: unknown field `surprise`",
            "upstream 1: revalidate: \"60\" is not a length of time",
            "upstream 2: stale-for: \"soon\" is not a length of time; write number and unit, such as \"30s\" or \
             \"7d\", or \"never\", or \"forever\"",
            "upstream 2: access: unknown variant `all`",
            "upstream 2: endpoints: an endpoint must not hold credentials",
            "upstream 2: platforms: \"amd64\" is not a platform",
            "upstream 2: repositories: ",
        ] {
            assert!(all.contains(part), "{part} in:\n{all}");
        }
        assert!(!all.contains("hunter2"), "{all}");
    }

    #[test]
    fn check_sees_the_whole() {
        let mut one = UpstreamConfig::named("docker.io");
        one.mirror_for_unqualified = true;
        one.username = Some("m:e".into());
        one.connect_timeout = Duration::ZERO;
        let two = UpstreamConfig { repositories: Vec::new(), ..one.clone() };
        let both = UpstreamConfig {
            docker_config: Some("x".into()),
            password_file: Some("y".into()),
            ..UpstreamConfig::named("ghcr.io")
        };
        let wrong = check(&[one, two, both, UpstreamConfig::default()]);
        let all = wrong.join("\n");
        assert_eq!(wrong.len(), 12, "{all}");
        for part in [
            "given twice",
            "username and password-file",
            "not both",
            "hold a colon",
            "only one upstream",
            "namespace is missing",
        ] {
            assert!(all.contains(part), "{part} in:\n{all}");
        }
    }

    #[test]
    fn own_credentials_are_not_lent() {
        let mut config = UpstreamConfig::named("docker.io");
        assert_eq!(config.access(), Access::Open);
        config.docker_config = Some("x".into());
        assert_eq!(config.access(), Access::Local);
        config.access = Some(Access::Open);
        assert_eq!(config.access(), Access::Open);
    }
}
