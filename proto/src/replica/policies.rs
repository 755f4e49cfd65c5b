//! Carries out at this node what policies want, and answers what is asked about them.

use alloc::{collections::BTreeSet, vec::Vec};

use super::{Replica, peers::HOLDERS_DIALLED};
use crate::{
    event::Output,
    id::{Digest, RepoName},
    policy::{
        Policy,
        keeper::{Step, View},
        report::{self, Coverage, Explanation, Whom},
    },
    time::Now,
};

impl Replica {
    /// The policies of the mesh, by name.
    pub fn policies(&self) -> impl Iterator<Item = (RepoName, Policy)> {
        self.catalog.policies().filter_map(|record| {
            let body = record.read::<crate::policy::PolicyBody>().ok()?;
            Some((record.key.name.parse().ok()?, body.policy?))
        })
    }

    /// Whether a policy wants an artifact, or something that it is a part of, held at this node. Unknown while
    /// something that could change the answer was not looked at yet: then nothing should be evicted. What a
    /// repository is does not matter: an artifact that is wanted through one is wanted.
    pub fn policy_held(&self, _repository: &RepoName, manifest: &Digest) -> Option<bool> {
        self.keeper.wants(manifest)
    }

    /// What of which artifacts is wanted, held, on its way and missing at each site, as far as is known here.
    pub fn coverage(&self, now: Now, repository: Option<&RepoName>) -> Coverage {
        let coming = self.coming();
        report::coverage(&self.keeper, &self.view(now, &coming), repository)
    }

    /// Why an artifact is, or is not, to be held at a node or site, policy by policy.
    pub fn explain(&self, now: Now, whom: &Whom, repository: &RepoName, manifest: &Digest) -> Explanation {
        let coming = self.coming();
        report::explain(&self.keeper, &self.view(now, &coming), whom, repository, manifest)
    }

    pub(super) fn look_after_policies(&mut self, now: Now, out: &mut Vec<Output>) {
        if !self.keeper.is_due(now.time) {
            return;
        }
        let coming = self.coming();
        let view = View {
            now,
            me: self.writes.me(),
            config: &self.config,
            catalog: &self.catalog,
            membership: &self.membership,
            held: &self.held,
            coming: &coming,
        };
        for step in self.keeper.evaluate(&view) {
            match step {
                Step::Read(hash) => out.push(Output::ReadIndex { hash }),
                Step::Dial(manifest) => {
                    self.dial_holders(now, &manifest, false, HOLDERS_DIALLED, out);
                }
                Step::Bring(repository, manifest) => {
                    let Some(place) = self.catalog.artifact(&repository, &manifest) else { continue };
                    self.note_it_comes(now, &manifest, out);
                    self.bring(now, None, manifest, place, true, out);
                }
            }
        }
    }

    fn coming(&self) -> BTreeSet<Digest> {
        self.artifacts.closures().collect()
    }

    fn view<'a>(&'a self, now: Now, coming: &'a BTreeSet<Digest>) -> View<'a> {
        View {
            now,
            me: self.writes.me(),
            config: &self.config,
            catalog: &self.catalog,
            membership: &self.membership,
            held: &self.held,
            coming,
        }
    }
}
