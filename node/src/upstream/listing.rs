//! Lists of an upstream: tags of a repository, manifests that refer to one. Owns their limits, and that what cannot
//! be a tag or a descriptor is left out.

use std::collections::BTreeSet;

use reqwest::header::{self, HeaderMap};
use serde::Deserialize;
use serde_json::Value;
use waystation_proto::{Digest, Tag};

use super::{Answer, Ask, Manifest, Target, Upstream, UpstreamError, ask, body, content_type};

/// A part of a repository's tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagPage {
    /// In the upstream's order.
    pub tags: Vec<Tag>,
    /// What to ask for next, as `last`; `None` at the end.
    pub next: Option<String>,
}

/// The manifests that refer to one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Referrers {
    /// Their descriptors (JSON objects), each with a digest that is valid.
    pub manifests: Vec<Value>,
    /// Whether these are all.
    pub complete: bool,
}

#[derive(Deserialize)]
struct TagList {
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct IndexOfManifests {
    #[serde(default)]
    manifests: Vec<Value>,
}

impl Upstream {
    /// At most `n` (and at most 1000) tags, those after `last`.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn tags(&self, path: &str, last: Option<&str>, n: usize) -> Result<TagPage, UpstreamError> {
        let n = n.clamp(1, MAX_TAGS);
        let mut query = vec![("n", n.to_string())];
        query.extend(last.map(|last| ("last", last.to_owned())));
        let Answer { response, host } = self.ask(&Ask { query, ..ask(path, "tags/list".into()) }).await?;
        let linked = next_of(response.headers());
        let body = body::bounded(response, MAX_LIST).await?;
        let list: TagList = serde_json::from_slice(&body)
            .map_err(|_| UpstreamError::Invalid(format!("{host} sent something else than a list of tags")))?;
        let mut listed = list.tags.unwrap_or_default();
        // Some give everything, whatever they were asked.
        if let Some(at) = last.and_then(|last| listed.iter().position(|tag| tag == last)) {
            listed.drain(..=at);
        }
        let more = listed.len() > n;
        listed.truncate(n);
        let end = listed.last().cloned().filter(|end| last != Some(end.as_str()));
        let next = if more { end } else { linked.map(|after| after.or(end)).unwrap_or_default() };
        let next = next.filter(|next| last != Some(next.as_str()));
        Ok(TagPage { tags: listed.iter().filter_map(|tag| tag.parse().ok()).collect(), next })
    }

    /// The manifests whose subject is this one, of one artifact type or of all; where the upstream does not know
    /// referrers, those that clients keep under the fallback tag (distribution-spec, "Referrers Tag Schema").
    ///
    /// # Errors
    /// See [`UpstreamError`]. That there are none is no error.
    pub async fn referrers(
        &self,
        path: &str,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, UpstreamError> {
        let what = format!("referrers/{digest}");
        let mut found = Referrers { complete: true, ..Referrers::default() };
        let mut next: Vec<(String, String)> = Vec::new();
        let mut seen = BTreeSet::new();
        for page in 0..MAX_PAGES {
            let mut query: Vec<(&'static str, String)> =
                artifact_type.map(|wanted| ("artifactType", wanted.to_owned())).into_iter().collect();
            query.extend(next.drain(..).filter_map(|(name, value)| {
                PAGE_PARAMETERS.iter().find(|known| **known == name).map(|known| (*known, value))
            }));
            let ask = Ask { query, accept: Some(INDEX_TYPE), ..ask(path, what.clone()) };
            let Answer { response, host } = match self.ask(&ask).await {
                Ok(answer) if content_type(answer.response.headers()).as_deref() == Some(INDEX_TYPE) => {
                    answer
                }
                // An answer that is none, as from servers that answer every path.
                Ok(_) if page == 0 => return self.tagged_referrers(path, digest, artifact_type).await,
                Err(failed)
                    if page == 0
                        && failed.status.is_some_and(|s| matches!(s.as_u16(), 400 | 404..=406 | 501)) =>
                {
                    return self.tagged_referrers(path, digest, artifact_type).await;
                }
                Ok(answer) => {
                    return Err(UpstreamError::Invalid(format!("{} sent no list of referrers", answer.host)));
                }
                Err(failed) => return Err(failed.error),
            };
            next = page_of(response.headers());
            let more = !next.is_empty() && seen.insert(next.clone());
            let body = body::bounded(response, MAX_LIST).await?;
            let index = index(&body, &host)?;
            found.add(index, artifact_type);
            if !more || !found.complete {
                found.complete &= next.is_empty();
                return Ok(found);
            }
        }
        found.complete = false;
        Ok(found)
    }

    async fn tagged_referrers(
        &self,
        path: &str,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Referrers, UpstreamError> {
        // Longer digests do not fit into a tag and are cut (distribution-spec, "Referrers Tag Schema").
        let mut name = digest.to_string().replace(':', "-");
        name.truncate(digest.algorithm().len() + 1 + 64);
        let mut found = Referrers { complete: true, ..Referrers::default() };
        let Ok(tag) = name.parse::<Tag>() else { return Ok(found) };
        match self.manifest(path, &Target::Tag(tag)).await {
            Ok(Manifest { bytes, .. }) => found.add(index(&bytes, "it")?, artifact_type),
            Err(UpstreamError::NotFound) => {}
            Err(error) => return Err(error),
        }
        Ok(found)
    }
}

impl Referrers {
    /// Filters here, too: the server need not have done it, or may say so without having done it.
    fn add(&mut self, index: IndexOfManifests, artifact_type: Option<&str>) {
        for descriptor in index.manifests {
            let valid = descriptor["digest"].as_str().is_some_and(|text| text.parse::<Digest>().is_ok());
            let own_type = descriptor["artifactType"].as_str();
            if !valid || artifact_type.is_some_and(|wanted| own_type != Some(wanted)) {
                continue;
            }
            if self.manifests.len() == MAX_REFERRERS {
                self.complete = false;
                return;
            }
            self.manifests.push(descriptor);
        }
    }
}

fn index(bytes: &[u8], host: &str) -> Result<IndexOfManifests, UpstreamError> {
    serde_json::from_slice(bytes)
        .map_err(|_| UpstreamError::Invalid(format!("{host} sent something else than a list of manifests")))
}

/// The parameters of the next page (`Link: <…>; rel="next"`, RFC 8288). Empty: there is none.
fn page_of(headers: &HeaderMap) -> Vec<(String, String)> {
    let next = headers
        .get_all(header::LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .filter(|value| value.len() <= MAX_LINK)
        .flat_map(|value| value.split(",<").flat_map(|part| part.split(", <")))
        .find_map(|link| {
            let (target, parameters) = link.trim_start_matches([' ', '<']).split_once('>')?;
            let is_next = parameters.split(';').any(|parameter| {
                let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
                name.trim().eq_ignore_ascii_case("rel")
                    && value.trim().trim_matches('"').split(' ').any(|rel| rel.eq_ignore_ascii_case("next"))
            });
            is_next.then(|| target.to_owned())
        });
    // Only its parameters are used: the rest is known, and must not lead elsewhere.
    let base = reqwest::Url::parse("http://next").expect("a constant URL");
    let Some(url) = next.and_then(|target| base.join(&target).ok()) else { return Vec::new() };
    url.query_pairs().take(MAX_PAGE_PARAMETERS).map(|(k, v)| (k.into_owned(), v.into_owned())).collect()
}

/// Whether there is a next page, and the `last` that it begins after where that is said.
fn next_of(headers: &HeaderMap) -> Option<Option<String>> {
    let page = page_of(headers);
    let last = page.iter().find(|(name, _)| name == "last").map(|(_, value)| value.clone());
    (!page.is_empty()).then_some(last)
}

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// What registries name the place in a list by.
const PAGE_PARAMETERS: [&str; 6] = ["n", "last", "page", "token", "next_page", "nextPageToken"];
const MAX_PAGE_PARAMETERS: usize = 16;
const MAX_TAGS: usize = 1000;
const MAX_REFERRERS: usize = 1000;
const MAX_PAGES: usize = 10;
const MAX_LINK: usize = 8 * 1024;
/// A list: repositories with some ten thousand tags give all of them at once.
const MAX_LIST: usize = 16 * 1024 * 1024;
