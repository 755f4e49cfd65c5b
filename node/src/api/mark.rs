//! Saying what state an artifact is in, so that the whole mesh acts on it: what may be handed out is the
//! protocol's verdict, asked by whoever hands something out.

use serde::{Deserialize, Serialize};
use waystation_proto::{
    Digest,
    body::{State, StatusBody},
};

use super::{Api, ApiError, answer::state_name};
use crate::reference::Reference;

/// Body of `POST mark`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkRequest {
    /// `repository[:tag][@digest]`.
    pub reference: String,
    /// `validating`, `quarantined`, `approved`, `rejected` or `revoked`.
    pub state: Mark,
    /// Why, for people; clients that are refused are told. At most [`StatusBody::REASON_MAX`] bytes.
    #[serde(default)]
    pub reason: String,
}

/// Answer to `POST mark`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marked {
    /// The repository in which it counts.
    pub repository: String,
    /// The artifact.
    pub digest: String,
    /// Its state now.
    pub state: String,
}

/// What an artifact can be marked as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Mark {
    /// Checks are running: clients get it with a warning.
    Validating,
    /// Something looked wrong: clients do not see it.
    Quarantined,
    /// Checked and good: clients get it. Also takes back any other mark.
    Approved,
    /// Checked and not good: nobody gets it.
    Rejected,
    /// Was good once, must not be used any more: nobody gets it.
    Revoked,
}

impl From<Mark> for State {
    fn from(mark: Mark) -> State {
        match mark {
            Mark::Validating => State::Validating,
            Mark::Quarantined => State::Quarantined,
            Mark::Approved => State::Approved,
            Mark::Rejected => State::Rejected,
            Mark::Revoked => State::Revoked,
        }
    }
}

impl Api {
    /// Says what state an artifact is in, and tells the mesh.
    pub async fn mark(&self, request: &MarkRequest) -> Result<Marked, ApiError> {
        if request.reason.len() > StatusBody::REASON_MAX {
            return Err(ApiError::Invalid(format!(
                "the reason is longer than {} bytes; shorten it",
                StatusBody::REASON_MAX
            )));
        }
        let reference: Reference =
            request.reference.parse().map_err(|e| ApiError::Invalid(format!("{e}")))?;
        let digest = self.digest_of(&reference)?;
        let repository = reference.repository;
        if self.store.index().artifact(&repository, &digest).is_none() {
            return Err(ApiError::NotFound(format!("{repository}@{digest} is not known here")));
        }
        let state = State::from(request.state);
        self.replica()
            .set_status(repository.clone(), digest, state, request.reason.clone())
            .await
            .map_err(|refusal| ApiError::Refused(refusal.to_string()))?;
        Ok(Marked {
            repository: repository.to_string(),
            digest: digest.to_string(),
            state: state_name(state).to_owned(),
        })
    }

    /// The artifact that is meant: by its digest, or by where its tag points.
    pub(super) fn digest_of(&self, reference: &Reference) -> Result<Digest, ApiError> {
        let (repository, tag) = (&reference.repository, reference.tag_or_latest());
        let tagged = || self.store.index().tag(repository, &tag).and_then(|entry| entry.target);
        reference.digest.or_else(tagged).ok_or_else(|| {
            ApiError::NotFound(format!("{repository} has no tag {tag}; see: waystation tags {repository}"))
        })
    }
}
