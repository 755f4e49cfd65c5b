//! Helm charts: which images a chart names, as pure parsing of its config, annotations and values.
//!
//! The rule, in this order; the first that names an image decides whether it is hard:
//!
//! 1. The annotation `artifacthub.io/images` of Chart.yaml, a list whose entries have an `image`. Hard: the chart's
//!    author said so. Entries that are `whitelisted` count like all others.
//! 2. In `values.yaml`, of the chart and of the charts within it: a key `image` with a text, a tag in the same
//!    text or beside it as `tag`; or a table with `repository` and a text in `tag` or `digest`, and perhaps
//!    `registry`. Soft: a value may be meant for something else. A `tag` that is absent or empty stands for the
//!    chart's `appVersion`, as in the charts that `helm create` makes.
//!
//! What a name means in a mesh is the caller's to find out; [`ImageName::repositories`] says where to look.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use waystation_proto::{Digest, RepoName, Tag};

/// The media type of a chart's config blob.
pub const CONFIG_TYPE: &str = "application/vnd.cncf.helm.config.v1+json";
/// The media type of the layer with a chart's files.
pub const CONTENT_TYPE: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// Longest config, values or Chart.yaml that is read, in bytes.
pub const TEXT_MAX: usize = 1 << 20;
/// Most images of one chart.
pub const IMAGES_MAX: usize = 256;

/// An image as a chart names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageName {
    /// Perhaps with a host before it.
    repository: String,
    /// Its tag, where one is given.
    pub tag: Option<Tag>,
    /// Its digest, where one is given.
    pub digest: Option<Digest>,
}

/// The images of a chart, and whether it is useless without each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Images {
    found: BTreeMap<ImageName, bool>,
}

impl ImageName {
    /// `[host/]repository[:tag][@digest]`; nothing where it is not that, or names neither tag nor digest.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > 512 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return None;
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().ok()?)),
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.parse().ok()?)),
            _ => (name, None),
        };
        let image = ImageName { repository: name.to_owned(), tag, digest };
        let named = image.tag.is_some() || image.digest.is_some();
        (named && !image.repositories().is_empty()).then_some(image)
    }

    /// Where in a mesh it may be, the likeliest first: under its whole name, and without its host. A name without
    /// a host is one of Docker Hub, where names of one word are in `library`.
    pub fn repositories(&self) -> Vec<RepoName> {
        let whole = self.repository.as_str();
        let (host, path) = match whole.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            _ => (None, whole),
        };
        let hub = host.is_none_or(|host| host == "docker.io" || host == "index.docker.io");
        let short = path.strip_prefix("library/").filter(|_| hub).unwrap_or(path);
        let library = format!("library/{short}");
        let mut names = vec![whole.to_owned(), path.to_owned()];
        if hub {
            names.push(short.to_owned());
            names.push(format!("docker.io/{path}"));
            if !short.contains('/') {
                names.push(format!("docker.io/{library}"));
                names.push(library);
            }
        }
        let mut repositories: Vec<RepoName> = Vec::new();
        for name in names.iter().filter_map(|name| name.parse().ok()) {
            if !repositories.contains(&name) {
                repositories.push(name);
            }
        }
        repositories
    }
}

impl Images {
    /// Adds what a chart's config blob (Chart.yaml as JSON) names. Returns its `appVersion`.
    pub fn read_config(&mut self, config: &[u8]) -> Option<String> {
        let chart: Value = serde_json::from_slice(config.get(..TEXT_MAX).unwrap_or(config)).ok()?;
        if let Some(text) = chart["annotations"]["artifacthub.io/images"].as_str() {
            let listed = yaml(text).unwrap_or_default();
            for entry in listed.as_array().into_iter().flatten() {
                self.add(entry["image"].as_str().and_then(ImageName::parse), true);
            }
        }
        chart["appVersion"].as_str().map(str::to_owned)
    }

    /// Adds what a values.yaml names, for a chart of this `appVersion`.
    pub fn read_values(&mut self, values: &str, app_version: Option<&str>) {
        let Some(values) = yaml(values) else { return };
        let mut next = vec![&values];
        let mut seen = 0;
        while let Some(value) = next.pop() {
            seen += 1;
            if seen > VALUES_MAX {
                return;
            }
            match value {
                Value::Array(items) => next.extend(items),
                Value::Object(table) => {
                    self.add(of_table(table, app_version), false);
                    self.add(of_text(table, app_version), false);
                    next.extend(table.values());
                }
                _ => {}
            }
        }
    }

    /// What was found, in order, and whether the chart is useless without it.
    pub fn found(&self) -> impl Iterator<Item = (&ImageName, bool)> {
        self.found.iter().map(|(name, hard)| (name, *hard))
    }

    fn add(&mut self, image: Option<ImageName>, hard: bool) {
        if let Some(image) = image
            && (self.found.len() < IMAGES_MAX || self.found.contains_key(&image))
        {
            *self.found.entry(image).or_default() |= hard;
        }
    }
}

/// The `appVersion` of a Chart.yaml.
pub fn app_version(chart: &str) -> Option<String> {
    yaml(chart)?["appVersion"].as_str().map(str::to_owned)
}

/// `{registry, repository, tag, digest}`
fn of_table(table: &Map<String, Value>, app_version: Option<&str>) -> Option<ImageName> {
    let text = |key: &str| table.get(key).and_then(scalar).filter(|text| !text.is_empty());
    let repository = text("repository")?;
    // Charts have tables with a repository that are no images: only a key for what is in it tells.
    if !table.contains_key("tag") && !table.contains_key("digest") {
        return None;
    }
    let registry = text("registry").map(|host| format!("{host}/")).unwrap_or_default();
    with_version(
        &format!("{registry}{repository}"),
        text("tag").as_deref(),
        text("digest").as_deref(),
        app_version,
    )
}

/// `image: text`, with `tag` beside it or not.
fn of_text(table: &Map<String, Value>, app_version: Option<&str>) -> Option<ImageName> {
    let image = table.get("image")?.as_str()?;
    if let Some(whole) = ImageName::parse(image) {
        return Some(whole);
    }
    let tag = table.get("tag")?;
    with_version(image, scalar(tag).filter(|tag| !tag.is_empty()).as_deref(), None, app_version)
}

fn with_version(
    name: &str,
    tag: Option<&str>,
    digest: Option<&str>,
    app_version: Option<&str>,
) -> Option<ImageName> {
    match (digest, tag.or(app_version)) {
        (Some(digest), _) => ImageName::parse(&format!("{name}@{digest}")),
        (None, Some(tag)) => ImageName::parse(&format!("{name}:{tag}")),
        (None, None) => None,
    }
}

/// A text, or a number that stands for one: `tag: 1.25`.
fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// YAML of a stranger, as JSON; the library bounds depth, nodes and aliases.
fn yaml(text: &str) -> Option<Value> {
    if text.len() > TEXT_MAX {
        return None;
    }
    serde_saphyr::from_str(text).ok()
}

/// Values looked at in one file.
const VALUES_MAX: usize = 100_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn names(images: &Images) -> Vec<String> {
        let one = |(name, hard): (&ImageName, bool)| {
            let tag = name.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
            let digest =
                name.digest.as_ref().map(|digest| format!("@{}", digest.short())).unwrap_or_default();
            format!("{}{tag}{digest}{}", name.repository, if hard { " hard" } else { "" })
        };
        images.found().map(one).collect()
    }

    #[test]
    fn images_that_the_author_lists_are_hard() {
        let config = br#"{"name":"app","appVersion":"1.4.0","annotations":{"artifacthub.io/images":
            "- name: web\n  image: registry.example/team/web:1.4.0\n  platforms: [linux/amd64]\n- image: team/sidecar@sha256:0101010101010101010101010101010101010101010101010101010101010101\n- image: nothing\n"}}"#;
        let mut images = Images::default();
        assert_eq!(images.read_config(config).as_deref(), Some("1.4.0"));
        assert_eq!(
            names(&images),
            ["registry.example/team/web:1.4.0 hard", "team/sidecar@sha256:010101010101 hard"]
        );
    }

    #[test]
    fn images_in_values_are_soft() {
        let values = r#"
            replicas: 2
            image: { registry: registry.example, repository: team/web, tag: "" }
            worker:
              image: "team/worker:2"
              repository: https://charts.example
            jobs:
              - image: team/job
                tag: 1.25
              - { image: { repository: team/pinned, tag: x, digest: "sha256:0202020202020202020202020202020202020202020202020202020202020202" } }
            source: { repository: git.example/app }
        "#;
        let mut images = Images::default();
        images.read_values(values, Some("1.4.0"));
        assert_eq!(
            names(&images),
            [
                "registry.example/team/web:1.4.0",
                "team/job:1.25",
                "team/pinned@sha256:020202020202",
                "team/worker:2",
            ]
        );
        images.read_config(br#"{"annotations":{"artifacthub.io/images":"- image: team/worker:2"}}"#);
        assert!(names(&images).contains(&"team/worker:2 hard".to_owned()));
    }

    #[test]
    fn where_a_name_may_be() {
        let places = |text: &str| -> Vec<String> {
            let image = ImageName::parse(text).expect("an image");
            image.repositories().iter().map(RepoName::to_string).collect()
        };
        assert_eq!(places("registry.example/team/web:1"), ["registry.example/team/web", "team/web"]);
        assert_eq!(places("registry.example:5000/team/web:1"), ["team/web"]);
        assert_eq!(
            places("nginx:1"),
            ["nginx", "docker.io/nginx", "docker.io/library/nginx", "library/nginx"]
        );
        assert_eq!(places("team/web:1"), ["team/web", "docker.io/team/web"]);
        for bad in ["nginx", "UPPER:1", "a b:1", ":1", "", "x@sha256:0"] {
            assert_eq!(ImageName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn values_that_blow_up_name_nothing() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n");
        for n in 1..12 {
            let before = format!("*a{}", n - 1);
            let row = vec![before; 10].join(",");
            bomb.push_str(&format!("a{n}: &a{n} [{row}]\n"));
        }
        let mut images = Images::default();
        images.read_values(&bomb, None);
        images.read_values(&"[".repeat(100_000), None);
        images.read_values("image: {{ .Values.x }}:1", None);
        images.read_values("\u{0}\t- :", None);
        assert_eq!(images, Images::default());
    }
}
