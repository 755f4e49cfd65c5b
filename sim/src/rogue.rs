//! Records by hand: those of a member that tries everything it must not get away with, and those of a
//! member that runs a newer version.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use waystation_proto::{
    Digest, Hash, MeshId, NodeId, Record, RecordId, Shared,
    body::{HoldingState, SummaryBody, TagBody},
    glob::Glob,
    grant::{Action, Actions, Grant},
    record::{Key, Kind},
    time::Wall,
};

use crate::random;

/// A member with bad intentions, and all that it ever sent.
pub struct Rogue {
    key: SigningKey,
    mesh: MeshId,
    /// Signed by the root, but over at a time that the records that rest on it are after.
    expired: Arc<Grant>,
    /// Signed by the root for repositories that nobody uses.
    elsewhere: Arc<Grant>,
    sent: u64,
    ids: Vec<RecordId>,
}

impl Rogue {
    /// The rogue of a run.
    pub fn new(seed: u64, mesh: MeshId, root: &SigningKey) -> Self {
        let key = SigningKey::from_bytes(&random::bytes(seed, 0, "rogue"));
        let me = NodeId(key.verifying_key().to_bytes());
        let expired = Grant::issue(&mesh, root, me, Glob::everything(), Actions::ALL, Some(Wall(5)), 1);
        let glob = "elsewhere/**".parse().expect("a pattern");
        let elsewhere = Grant::issue(&mesh, root, me, glob, Actions::of(&[Action::Publish]), None, 2);
        Rogue {
            key,
            mesh,
            expired: Arc::new(expired),
            elsewhere: Arc::new(elsewhere),
            sent: 0,
            ids: Vec::new(),
        }
    }

    /// One record of each sort that must not count. `victim` is an honest node with this grant, if any.
    pub fn garbage(&mut self, victim: NodeId, grant: Option<Arc<Grant>>) -> Vec<Shared> {
        self.sent += 1;
        let me = NodeId(self.key.verifying_key().to_bytes());
        let tag = |scope: &str| Key { kind: Kind::TAG, scope: scope.into(), name: "latest".into() };
        let body = TagBody { target: Some(Digest::Sha256([6; 32])) };
        let everything = Glob::everything();
        let forged =
            Grant { subject: victim, repositories: everything, serial: u64::MAX, ..(*self.expired).clone() };
        let version = 1_000 + self.sent;
        let write = |grant: Option<&Arc<Grant>>, key: Key, version: u64| {
            Record::author(&self.mesh, &self.key, grant.cloned(), key, version, Wall(9), &body)
        };
        let mut wrong_signature = write(Some(&self.elsewhere), tag("elsewhere/x"), version);
        wrong_signature.body.push(0);
        let mut other_author = write(grant.as_ref(), tag("team/app"), version);
        other_author.author = victim;
        let holding = Key::summary(&Digest::Sha256([6; 32]), &victim);
        let complete = SummaryBody { state: HoldingState::Complete, copies: 1 };
        let unknown = Key { kind: Kind(4243), scope: String::new(), name: format!("{me}") };
        let records = vec![
            wrong_signature,
            other_author,
            write(None, tag("team/app"), version),
            write(Some(&self.expired), tag("team/app"), version),
            write(Some(&self.elsewhere), tag("team/app"), version),
            write(grant.as_ref(), tag("team/app"), version),
            write(Some(&self.elsewhere), tag("elsewhere/x"), Record::MAX_VERSION + self.sent),
            write(Some(&Arc::new(forged.clone())), tag("team/app"), version),
            write(Some(&Arc::new(forged)), unknown, version),
            Record::author(&self.mesh, &self.key, None, holding, version, Wall(9), &complete),
            Record::author(&self.mesh, &self.key, None, Key::node(&victim), version, Wall(9), &complete),
        ];
        let records: Vec<Shared> = records.into_iter().map(Shared::new).collect();
        self.ids.extend(records.iter().map(Shared::id));
        records
    }

    /// A record of a kind that only a newer version knows.
    pub fn of_unknown_kind(&mut self) -> Shared {
        self.sent += 1;
        unknown(&self.mesh, &self.key, self.sent)
    }

    /// Most records that this member sent of which some may count.
    pub fn unknown_sent(&self) -> u64 {
        self.sent
    }

    /// The ids of all garbage so far.
    pub fn garbage_ids(&self) -> &[RecordId] {
        &self.ids
    }
}

/// A record of a made-up kind, which counts.
pub fn unknown(mesh: &MeshId, key: &SigningKey, number: u64) -> Shared {
    let name = Hash::of(&number.to_le_bytes()).to_string();
    let record_key = Key { kind: Kind(4242), scope: "from the future".into(), name };
    Record::author(mesh, key, None, record_key, 1, Wall(0), &(number, "something new")).into()
}
