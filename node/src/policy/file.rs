//! The form in which policies are written: TOML with a `[[policy]]` for each, every key known, every complaint
//! with the policy's number, the key and what to write instead. `get` prints the same form, without what is as
//! it would be anyway.

use std::{collections::BTreeMap, fmt::Display, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use waystation_proto::{
    RepoName,
    body::Tier,
    glob::{Glob, Pattern},
    policy::{Places, Policy, TagRule, Window},
};

/// One `[[policy]]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Form {
    /// Its name: of the form of a repository's, and covered by grants like one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<RepoName>,
    /// Repositories meant.
    pub repositories: Vec<Glob>,
    /// Tags meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<Pattern>,
    /// Range of versions meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
    /// How many of the newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub newest: Option<u16>,
    /// Sites meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sites: Vec<Pattern>,
    /// Regions meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub regions: Vec<Pattern>,
    /// Ids of nodes meant, or their starts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<String>,
    /// Tiers meant.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tiers: Vec<Tier>,
    /// Labels that nodes must have.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, Pattern>,
    /// Platforms meant of images for several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// Copies on each site.
    #[serde(skip_serializing_if = "is_default")]
    pub copies_per_site: PerSite,
    /// Copies in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copies: Option<u16>,
    /// Higher ones first.
    #[serde(skip_serializing_if = "is_default")]
    pub priority: u8,
    /// Hours in which copies may be brought.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub windows: Vec<Text<Hours>>,
    /// The clock that `windows` speaks of.
    #[serde(skip_serializing_if = "is_default")]
    pub utc_offset: Text<Offset>,
    /// Whether metered uplinks may be used.
    #[serde(skip_serializing_if = "is_default")]
    pub metered: Metered,
    /// How long a holder may be away before it is replaced.
    #[serde(skip_serializing_if = "is_default")]
    pub grace: Text<Grace>,
    /// Whether signatures, SBOMs and the like come along.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub referrers: bool,
    /// Whether what an artifact depends on comes along.
    #[serde(skip_serializing_if = "Clone::clone")]
    pub depends: bool,
}

/// `"all"`, or a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerSite(Option<u16>);

/// `"allowed"` or `"never"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Metered {
    /// They may.
    #[default]
    Allowed,
    /// They may not.
    Never,
}

/// A value that is written as text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text<T>(T);

/// A window, as `mon-fri 22:00-06:00`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours(Window);

/// Minutes east of UTC, as `+02:00`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offset(i16);

/// Seconds, as `10m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grace(u32);

/// Reads a file. All complaints at once; `name` is how they call the file.
pub fn parse(text: &str, name: &str) -> Result<Vec<(RepoName, Policy)>, Vec<String>> {
    let document: toml::Table = toml::from_str(text)
        .map_err(|e| vec![format!("{name} is not TOML: {}", e.to_string().trim_end())])?;
    let mut wrong = Vec::new();
    for key in document.keys().filter(|key| *key != "policy") {
        wrong.push(format!("{name}: {key}: unknown; a file of policies has nothing but [[policy]]"));
    }
    let listed = document.get("policy").and_then(toml::Value::as_array).cloned().unwrap_or_default();
    if listed.is_empty() {
        wrong.push(format!("{name}: it has no [[policy]]; begin one with that line"));
    }
    let mut policies: Vec<(RepoName, Policy)> = Vec::new();
    for (n, value) in listed.iter().enumerate() {
        let keys = value.as_table().cloned().unwrap_or_default();
        let place = match keys.get("name").and_then(toml::Value::as_str) {
            Some(own) => format!("{name}: policy {} ({own:.60})", n + 1),
            None => format!("{name}: policy {}", n + 1),
        };
        match read(&keys) {
            Ok((own, _)) if policies.iter().any(|(other, _)| *other == own) => {
                wrong.push(format!("{place}: name: there is another policy of this name; rename one"));
            }
            Ok(policy) => policies.push(policy),
            Err(complaints) => wrong.extend(complaints.into_iter().map(|why| format!("{place}: {why}"))),
        }
    }
    if wrong.is_empty() { Ok(policies) } else { Err(wrong) }
}

/// The text of a file with these policies.
pub fn print(policies: &[(RepoName, Policy)]) -> String {
    #[derive(Serialize)]
    struct File {
        policy: Vec<Form>,
    }
    let file = File { policy: policies.iter().map(|(name, policy)| Form::of(name, policy)).collect() };
    // Every field has a form in TOML.
    if policies.is_empty() { String::new() } else { toml::to_string(&file).unwrap_or_default() }
}

/// Every key on its own, so that one mistake does not hide the next.
fn read(keys: &toml::Table) -> Result<(RepoName, Policy), Vec<String>> {
    let mut wrong = Vec::new();
    for (key, value) in keys {
        let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
        if let Err(e) = alone.try_into::<Form>() {
            wrong.push(format!("{key}: {}", e.message().trim().replace('\n', " ")));
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let form: Form = keys.clone().try_into().map_err(|e: toml::de::Error| vec![e.message().to_owned()])?;
    form.into_policy().map_err(|why| vec![why])
}

impl Form {
    /// The form of a policy.
    pub fn of(name: &RepoName, policy: &Policy) -> Self {
        let policy = policy.clone();
        Form {
            name: Some(name.clone()),
            repositories: policy.repositories,
            tags: policy.tags.patterns,
            semver: policy.tags.versions,
            newest: policy.tags.newest,
            sites: policy.places.sites,
            regions: policy.places.regions,
            nodes: policy.places.nodes,
            tiers: policy.places.tiers,
            labels: policy.places.labels,
            platforms: policy.platforms,
            copies_per_site: PerSite(policy.copies_per_site),
            copies: policy.copies,
            priority: policy.priority,
            windows: policy.windows.into_iter().map(|window| Text(Hours(window))).collect(),
            utc_offset: Text(Offset(policy.utc_offset)),
            metered: if policy.metered { Metered::Allowed } else { Metered::Never },
            grace: Text(Grace(policy.grace)),
            referrers: policy.referrers,
            depends: policy.depends,
        }
    }

    /// What it says; the error names the key and the fix.
    pub fn into_policy(self) -> Result<(RepoName, Policy), String> {
        let name = self.name.ok_or("name: it needs one, such as name = \"shops/base\"")?;
        if self.repositories.is_empty() {
            return Err("repositories: it needs some, such as repositories = [\"shops/**\"]".to_owned());
        }
        let policy = Policy {
            repositories: self.repositories,
            tags: TagRule { patterns: self.tags, versions: self.semver, newest: self.newest },
            places: Places {
                sites: self.sites,
                regions: self.regions,
                nodes: self.nodes,
                tiers: self.tiers,
                labels: self.labels,
            },
            platforms: self.platforms,
            copies_per_site: self.copies_per_site.0,
            copies: self.copies,
            priority: self.priority,
            windows: self.windows.into_iter().map(|Text(Hours(window))| window).collect(),
            utc_offset: self.utc_offset.0.0,
            metered: self.metered == Metered::Allowed,
            grace: self.grace.0.0,
            referrers: self.referrers,
            depends: self.depends,
        };
        policy.check().map_err(|why| explain(&policy, why))?;
        Ok((name, policy))
    }
}

/// Which key is meant by what the protocol refuses, and what to write.
fn explain(policy: &Policy, why: &'static str) -> String {
    let range = policy.tags.versions.as_deref().unwrap_or_default();
    match why {
        "a policy's range of versions" => {
            format!("semver: {range:?} is not a range of versions; write one such as \">=1.2, <2\" or \"^1.4\"")
        }
        "a policy's platforms" => {
            "platforms: write os/architecture, such as \"linux/arm64\", perhaps with a variant".to_owned()
        }
        "a policy's nodes or labels" => {
            "nodes: give ids as `waystation peers` shows them, at least 8 of their hexadecimal digits; labels have \
             names of at most 63 bytes"
                .to_owned()
        }
        "a policy that wants none" => {
            "copies, copies-per-site and newest: at least 1; to want nothing, delete the policy".to_owned()
        }
        "a policy's list is too long" => {
            format!("a list has more than {} entries; use patterns, or several policies", Policy::LIST_MAX)
        }
        other => other.to_owned(),
    }
}

impl Default for Form {
    fn default() -> Self {
        Form {
            name: None,
            repositories: Vec::new(),
            tags: Vec::new(),
            semver: None,
            newest: None,
            sites: Vec::new(),
            regions: Vec::new(),
            nodes: Vec::new(),
            tiers: Vec::new(),
            labels: BTreeMap::new(),
            platforms: Vec::new(),
            copies_per_site: PerSite::default(),
            copies: None,
            priority: 0,
            windows: Vec::new(),
            utc_offset: Text::default(),
            metered: Metered::default(),
            grace: Text::default(),
            referrers: true,
            depends: true,
        }
    }
}

impl Default for PerSite {
    fn default() -> Self {
        PerSite(Some(1))
    }
}

impl Default for Grace {
    fn default() -> Self {
        Grace(Policy::GRACE)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Serialize for PerSite {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(copies) => s.serialize_u16(copies),
            None => s.serialize_str("all"),
        }
    }
}

impl<'de> Deserialize<'de> for PerSite {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Either {
            Number(u16),
            Word(String),
        }
        match Either::deserialize(d) {
            Ok(Either::Number(copies)) => Ok(PerSite(Some(copies))),
            Ok(Either::Word(word)) if word == "all" => Ok(PerSite(None)),
            _ => Err(D::Error::custom("write a number, or \"all\" for every node that is meant")),
        }
    }
}

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&self.0)
    }
}

impl FromStr for Hours {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        window(text).map(Hours).ok_or_else(|| {
            format!(
                "{text:.60?} is not a window; write HH:MM-HH:MM, or with days before it, such as \"sat,sun \
                 00:00-24:00\" or \"mon-fri 22:00-06:00\""
            )
        })
    }
}

impl Display for Hours {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&window_text(&self.0))
    }
}

impl<'de, T: FromStr<Err = String>> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map(Text).map_err(D::Error::custom)
    }
}

impl FromStr for Offset {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (sign, rest) = match text.strip_prefix('-') {
                Some(rest) => (-1, rest),
                None => (1, text.strip_prefix('+')?),
            };
            let minutes = i16::try_from(minute(rest)?).ok()?;
            Some(Offset(sign * minutes)).filter(|_| minutes <= 14 * 60)
        };
        parse().ok_or_else(|| format!("{text:.60?} is not an offset from UTC; write one such as \"+02:00\""))
    }
}

impl Display for Offset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let minutes = self.0.unsigned_abs();
        let sign = if self.0 < 0 { '-' } else { '+' };
        write!(f, "{sign}{:02}:{:02}", minutes / 60, minutes % 60)
    }
}

impl FromStr for Grace {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(text).ok().and_then(|span| u32::try_from(span.as_secs()).ok());
        span.filter(|seconds| *seconds > 0)
            .map(Grace)
            .ok_or_else(|| format!("{text:.60?} is not a span of time; write one such as \"10m\""))
    }
}

impl Display for Grace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        humantime::format_duration(Duration::from_secs(u64::from(self.0))).fmt(f)
    }
}

/// `[days ]HH:MM-HH:MM`
fn window(text: &str) -> Option<Window> {
    let (days, hours) = match text.trim().rsplit_once(' ') {
        Some((days, hours)) => (days_of(days.trim())?, hours),
        None => (0x7f, text.trim()),
    };
    let (from, to) = hours.split_once('-')?;
    let (from, to) = (minute(from)?, minute(to)?);
    Some(Window { days, from, to }).filter(|_| from < 24 * 60 && to <= 24 * 60)
}

/// `mon,wed-fri`
fn days_of(text: &str) -> Option<u8> {
    let number = |name: &str| DAYS.iter().position(|day| *day == name.trim());
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None => (number(part)?, number(part)?),
        };
        let mut day = first;
        loop {
            days |= 1 << day;
            if day == last {
                break;
            }
            day = (day + 1) % DAYS.len();
        }
    }
    Some(days)
}

/// `HH:MM` in minutes.
fn minute(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let two = |part: &str| {
        let fits = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
        part.parse::<u16>().ok().filter(|_| fits)
    };
    let (hours, minutes) = (two(hours)?, two(minutes)?);
    (hours <= 24 && minutes < 60).then_some(hours * 60 + minutes)
}

fn window_text(window: &Window) -> String {
    let hours = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
    let span = format!("{}-{}", hours(window.from), hours(window.to));
    if window.days == 0x7f {
        return span;
    }
    let days = DAYS.iter().enumerate().filter(|(n, _)| window.days & (1 << n) != 0);
    let days: Vec<&str> = days.map(|(_, day)| *day).collect();
    format!("{} {span}", days.join(","))
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
        [[policy]]
        name = "shops/base"
        repositories = ["shops/**", "base/*"]
        tags = ["v*", "stable"]
        semver = ">=1.2, <2"
        newest = 3
        sites = ["shop-*"]
        regions = ["eu-*"]
        nodes = ["0123456789ab"]
        tiers = ["edge", "iot"]
        labels = { role = "cache*" }
        platforms = ["linux/amd64", "linux/arm/v7"]
        copies-per-site = "all"
        copies = 12
        priority = 10
        windows = ["22:00-06:00", "sat,sun 00:00-24:00"]
        utc-offset = "-03:30"
        metered = "never"
        grace = "1h 5m"
        referrers = false
        depends = false

        [[policy]]
        name = "least"
        repositories = ["**"]
    "#;

    #[test]
    fn what_is_printed_reads_the_same() {
        let read = parse(FULL, "my.toml").expect("sound");
        assert_eq!(read.len(), 2);
        let (_, full) = &read[0];
        assert_eq!((full.grace, full.utc_offset, full.copies_per_site), (3900, -210, None));
        assert_eq!(full.windows[1], Window { days: 0b110_0000, from: 0, to: 1440 });
        assert_eq!((read[1].1.copies_per_site, read[1].1.grace), (Some(1), 600));
        let printed = print(&read);
        assert_eq!(parse(&printed, "printed").expect("sound"), read, "{printed}");
        assert!(printed.ends_with("name = \"least\"\nrepositories = [\"**\"]\n"), "{printed}");
    }

    #[test]
    fn complaints_name_the_policy_the_key_and_the_fix() {
        let text = r#"
            surprise = 1
            [[policy]]
            name = "Shops"
            windows = ["25:00-26:00"]
            copies-per-site = "some"
            grace = "soon"
            utc-offset = "2h"
            site = ["a"]
            metered = "sometimes"
            [[policy]]
            name = "a"
            repositories = ["**"]
            semver = "newest"
            [[policy]]
            repositories = ["**"]
            [[policy]]
            name = "b"
            [[policy]]
            name = "c"
            repositories = ["**"]
            copies = 0
        "#;
        let wrong = parse(text, "my.toml").expect_err("many mistakes");
        let all = wrong.join("\n");
        for part in [
            "my.toml: surprise: unknown",
            "policy 1 (Shops): name: ",
            "windows: \"25:00-26:00\" is not a window; write HH:MM-HH:MM",
            "copies-per-site: write a number, or \"all\"",
            "grace: \"soon\" is not a span of time",
            "utc-offset: \"2h\" is not an offset",
            "site: unknown field `site`",
            "metered: unknown variant `sometimes`, expected `allowed` or `never`",
            "policy 2 (a): semver: \"newest\" is not a range",
            "policy 3: name: it needs one",
            "policy 4 (b): repositories: it needs some",
            "policy 5 (c): copies, copies-per-site and newest: at least 1",
        ] {
            assert!(all.contains(part), "{part} in:\n{all}");
        }
        assert_eq!(wrong.len(), 12, "{all}");
        assert!(parse("", "empty").expect_err("nothing").concat().contains("no [[policy]]"));
    }

    #[test]
    fn days_wrap_around_the_week() {
        assert_eq!(days_of("sat-mon"), Some(0b110_0001));
        assert_eq!(days_of("mon"), Some(1));
        assert_eq!(days_of("someday"), None);
    }
}
