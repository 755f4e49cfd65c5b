//! Answers of the local API about policies, as stable JSON, and how they are built from what the replica says.

use serde::{Deserialize, Serialize};
use waystation_proto::{
    Digest, NodeId, RepoName,
    policy::{
        Policy,
        report::{Covered, Explanation, Whom},
    },
};

use super::Form;
use crate::{
    api::{Api, ApiError},
    reference::Reference,
};

/// Answer to `policies`, and body of `POST policies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policies {
    /// By name.
    pub policies: Vec<Form>,
}

/// Body of `POST policies/delete`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deletion {
    /// Which.
    pub name: String,
}

/// Answer to what changes something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// The policies that were written or deleted.
    pub names: Vec<String>,
}

/// Answer to `coverage`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageAnswer {
    /// By artifact and site.
    pub rows: Vec<CoverageRow>,
    /// Whether there are more than one answer carries; ask by repository.
    pub truncated: bool,
}

/// How an artifact is covered at a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoverageRow {
    /// The repository.
    pub repository: String,
    /// Tags there that point to it.
    pub tags: Vec<String>,
    /// The manifest's digest.
    pub digest: String,
    /// The artifact that it is a part of, unless it is selected itself.
    pub part_of: Option<String>,
    /// The site.
    pub site: String,
    /// Copies that are to be there.
    pub wanted: u64,
    /// Copies that are there.
    pub held: u64,
    /// Copies on their way.
    pub coming: u64,
    /// Copies that are neither.
    pub missing: u64,
    /// Why there are fewer than wanted.
    pub why: String,
}

/// Answer to `explain`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// The node or site that was asked about.
    pub whom: String,
    /// The artifact.
    pub reference: String,
    /// Its digest.
    pub digest: String,
    /// Whether it is to be held there.
    pub wanted: bool,
    /// What is known of it there.
    pub state: String,
    /// What each policy says.
    pub reasons: Vec<Reason>,
}

/// What one policy says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Its name.
    pub policy: String,
    /// A sentence without its subject, which is the policy.
    pub says: String,
}

impl Api {
    /// The policies of the mesh.
    pub async fn policies(&self) -> Policies {
        let all: Vec<(RepoName, Policy)> =
            self.replica().look(|replica, _| replica.policies().collect()).await.unwrap_or_default();
        let mut policies: Vec<Form> = all.iter().map(|(name, policy)| Form::of(name, policy)).collect();
        policies.sort_by(|a, b| a.name.cmp(&b.name));
        Policies { policies }
    }

    /// Declares policies: all that are given are sound, or none is written.
    pub async fn apply_policies(&self, given: Policies) -> Result<Done, ApiError> {
        let read: Result<Vec<_>, String> = given.policies.into_iter().map(Form::into_policy).collect();
        let mut names = Vec::new();
        for (name, policy) in read.map_err(ApiError::Invalid)? {
            let written = self.replica().set_policy(name.clone(), Some(policy)).await;
            written.map_err(|refusal| {
                let before = match names.len() {
                    0 => String::new(),
                    n => format!(" ({n} before it were written)"),
                };
                ApiError::Refused(format!("{refusal}{before}"))
            })?;
            names.push(name.to_string());
        }
        Ok(Done { names })
    }

    /// Takes a policy away.
    pub async fn delete_policy(&self, deletion: &Deletion) -> Result<Done, ApiError> {
        let name = &deletion.name;
        let parsed: RepoName = name.parse().map_err(|e| ApiError::Invalid(format!("{name:?}: {e}")))?;
        let known = self.policies().await.policies.iter().any(|form| form.name.as_ref() == Some(&parsed));
        if !known {
            let text = format!("there is no policy {name}; see: waystation policy get");
            return Err(ApiError::NotFound(text));
        }
        let deleted = self.replica().set_policy(parsed, None).await;
        deleted.map_err(|refusal| ApiError::Refused(refusal.to_string()))?;
        Ok(Done { names: vec![name.clone()] })
    }

    /// What is wanted, held, on its way and missing, of one repository or of all.
    pub async fn coverage(&self, repository: Option<RepoName>) -> CoverageAnswer {
        let found = self.replica().look(move |replica, now| replica.coverage(now, repository.as_ref())).await;
        let found = found.unwrap_or_default();
        let rows = found.rows.into_iter().map(|row| self.coverage_row(row)).collect();
        CoverageAnswer { rows, truncated: found.truncated }
    }

    fn coverage_row(&self, row: Covered) -> CoverageRow {
        CoverageRow {
            tags: self.tags_of(&row.repository, &row.manifest),
            repository: row.repository.to_string(),
            digest: row.manifest.to_string(),
            part_of: row.part_of.map(|root| root.to_string()),
            site: row.site,
            wanted: row.wanted as u64,
            held: row.held as u64,
            coming: row.coming as u64,
            missing: row.missing as u64,
            why: row.why,
        }
    }

    /// Why an artifact is, or is not, to be held at a node or site. A node is meant by its id or the start of
    /// it; any other word is a site.
    pub async fn explain_policy(&self, whom: &str, reference: &Reference) -> Result<Explained, ApiError> {
        let (repository, digest) = self.resolve(reference)?;
        let meant = self.whom(whom)?;
        let looked = self.replica().look({
            let repository = repository.clone();
            move |replica, now| replica.explain(now, &meant, &repository, &digest)
        });
        let Explanation { wanted, state, reasons } = looked.await.unwrap_or_default();
        let reason = |(policy, says): (RepoName, String)| Reason { policy: policy.to_string(), says };
        Ok(Explained {
            whom: whom.to_owned(),
            reference: reference.to_string(),
            digest: digest.to_string(),
            wanted,
            state,
            reasons: reasons.into_iter().map(reason).collect(),
        })
    }

    fn resolve(&self, reference: &Reference) -> Result<(RepoName, Digest), ApiError> {
        let repository = reference.repository.clone();
        let tag = reference.tag_or_latest();
        let of_tag = || self.store().index().tag(&repository, &tag).and_then(|entry| entry.target);
        let digest = reference.digest.or_else(of_tag).ok_or_else(|| {
            ApiError::NotFound(format!("{repository} has no tag {tag}; see: waystation tags {repository}"))
        })?;
        Ok((repository, digest))
    }

    fn whom(&self, text: &str) -> Result<Whom, ApiError> {
        let nodes = self.store().index().nodes();
        if nodes.iter().any(|(_, body)| body.site == text) {
            return Ok(Whom::Site(text.to_owned()));
        }
        let starts = |node: &&NodeId| text.len() >= 8 && node.to_string().starts_with(text);
        let meant: Vec<&NodeId> = nodes.iter().map(|(node, _)| node).filter(starts).collect();
        match meant.as_slice() {
            [node] => Ok(Whom::Node(**node)),
            [] => Err(ApiError::NotFound(format!(
                "{text:.80} is neither a site nor the id of a node that is known here; see: waystation peers"
            ))),
            _ => {
                Err(ApiError::Invalid(format!("more than one node's id starts with {text}; give more of it")))
            }
        }
    }

    fn tags_of(&self, repository: &RepoName, manifest: &Digest) -> Vec<String> {
        let tags = self.store().index().tags(repository, None, TAGS_MAX);
        let of_it = tags.into_iter().filter(|(_, entry)| entry.target == Some(*manifest));
        of_it.map(|(tag, _)| tag.to_string()).collect()
    }
}

/// Tags of a repository that are looked through for each row.
const TAGS_MAX: usize = 1000;
