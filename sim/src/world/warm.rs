//! What is so before a setup's time begins: who knows whom, who may publish what, who has what. Written down as it
//! would have been told, and put on every disk, so that a large mesh need not be built by gossip first.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use waystation_proto::{
    Record, Shared, Tag,
    body::{ArtifactBody, ArtifactPlace, HoldingBody, HoldingState, SummaryBody, TagBody},
    glob::Glob,
    grant::{Actions, Grant},
    record::Key,
    time::Wall,
};

use super::World;
use crate::{
    content::Artifact,
    disk::Common,
    host::{Host, WALL},
    setup::{self, Action},
};

/// What is so before anything happens, by whose words it is.
#[derive(Default)]
struct Before {
    records: Vec<(usize, Shared)>,
    /// How many of each host's words there are: each has a higher version than those before.
    words: BTreeMap<usize, u64>,
    told: BTreeSet<usize>,
}

impl World {
    /// Makes it so. Hosts that join later, and all of them where the start is cold, know only their own words.
    pub(super) fn prepare(&mut self, artifacts: &[setup::Artifact], later: &BTreeSet<usize>, warm: bool) {
        let mut before = Before::default();
        let mut tellers: BTreeMap<(usize, String), usize> = BTreeMap::new();
        let grants = self.grants();
        for (host, grant) in &grants {
            before.add(&self.hosts[*host], self.trust.mesh, None, Key::grant(grant), Some(1), &**grant);
        }
        if warm {
            for host in self.hosts.iter().filter(|host| !later.contains(&host.number)) {
                before.add(host, self.trust.mesh, None, Key::node(&host.id), None, &host.body());
            }
        }
        for (artifact, host) in self.seeds() {
            let content = self.content.artifacts()[self.course.artifacts[artifact]].clone();
            for (hash, size) in content.blobs() {
                self.hosts[host].disk.seal(hash, size);
            }
            if self.upstream.is(host) {
                continue;
            }
            self.completed.insert((host, content.index.manifest));
            let says = &self.hosts[host];
            if before.told.insert(artifact) {
                let grant = grants.get(&host);
                before.artifact(says, self.trust.mesh, grant, &content, &artifacts[artifact].tags);
            }
            let (manifest, state) = (&content.index.manifest, HoldingState::Complete);
            let key = Key::holding(says.site(), manifest, &says.id);
            before.add(says, self.trust.mesh, None, key, None, &HoldingBody { state });
            let told = tellers.entry((artifact, says.site().to_owned())).or_default();
            *told += 1;
            if *told <= TELLERS {
                let body = SummaryBody { state, copies: *told as u16 };
                before.add(says, self.trust.mesh, None, Key::summary(manifest, &says.id), None, &body);
            }
        }
        if warm {
            let records = before.records.into_iter().map(|(_, record)| record);
            let (of_sites, of_all): (Vec<Shared>, Vec<Shared>) =
                records.partition(|record| record.site().is_some());
            let common = Common::new(of_all);
            let mut sites: BTreeMap<String, Vec<Shared>> = BTreeMap::new();
            for record in of_sites {
                sites.entry(record.key.scope.clone()).or_default().push(record);
            }
            for host in self.hosts.iter_mut().filter(|host| !later.contains(&host.number)) {
                let of_site = sites.get(host.site()).cloned().unwrap_or_default();
                host.disk.begin_with(common.clone());
                host.disk.keep(0, of_site);
            }
            return;
        }
        for (host, record) in before.records {
            self.hosts[host].disk.keep(0, vec![record]);
        }
    }

    /// Everybody who publishes anything may publish everything.
    fn grants(&self) -> BTreeMap<usize, Arc<Grant>> {
        let publishers = self.course.actions.iter().filter_map(|(_, action)| match action {
            Action::Publish { at, .. } | Action::Seed { at, .. } | Action::Untag { at, .. } => {
                self.ground.number(*at).filter(|host| !self.upstream.is(*host))
            }
            _ => None,
        });
        let publishers: BTreeSet<usize> = publishers.collect();
        let grant = |host: usize| {
            let (subject, all) = (self.hosts[host].id, Glob::everything());
            Grant::issue(&self.trust.mesh, &self.root, subject, all, Actions::ALL, None, 1)
        };
        publishers.into_iter().map(|host| (host, Arc::new(grant(host)))).collect()
    }

    fn seeds(&self) -> Vec<(usize, usize)> {
        let seeds = self.course.actions.iter().filter_map(|(_, action)| match action {
            Action::Seed { artifact, at } => Some((*artifact, self.ground.number(*at)?)),
            _ => None,
        });
        seeds.collect()
    }
}

impl Before {
    fn artifact(
        &mut self,
        says: &Host,
        mesh: waystation_proto::MeshId,
        grant: Option<&Arc<Grant>>,
        content: &Artifact,
        tags: &[String],
    ) {
        let manifest = content.index.manifest;
        let place = ArtifactPlace {
            manifest: content.index.hash,
            manifest_size: content.index.size,
            media_type: content.index.media_type.clone(),
            index: content.index_hash,
            index_size: content.index_size,
            subject: content.index.subject(),
        };
        let key = Key::artifact(&content.repository, &manifest);
        self.add(says, mesh, grant, key, None, &ArtifactBody { place: Some(place) });
        for tag in tags.iter().filter_map(|tag| tag.parse::<Tag>().ok()) {
            let body = TagBody { target: Some(manifest) };
            self.add(says, mesh, grant, Key::tag(&content.repository, &tag), None, &body);
        }
    }

    /// A host's word.
    fn add<B: serde::Serialize>(
        &mut self,
        says: &Host,
        mesh: waystation_proto::MeshId,
        grant: Option<&Arc<Grant>>,
        key: Key,
        version: Option<u64>,
        body: &B,
    ) {
        let words = self.words.entry(says.number).or_default();
        *words += 1;
        let version = version.unwrap_or(*words);
        let record = Record::author(&mesh, says.key(), grant.cloned(), key, version, Wall(WALL), body);
        self.records.push((says.number, record.into()));
    }
}

/// Hosts of a site that tell the mesh of an artifact.
const TELLERS: usize = 2;
