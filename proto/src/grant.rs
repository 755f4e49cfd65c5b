//! Grants: the root's word that a node may publish. A grant travels inside every record that rests on it,
//! so that whether a record counts depends on its own bytes and the root key, and on nothing that may
//! arrive later, earlier or never.

use alloc::{string::String, vec::Vec};

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::{
    glob::Glob,
    id::{MeshId, NodeId},
    time::Wall,
};

/// What a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Write tags and artifact indexes.
    Publish,
    /// Take tags and artifacts back.
    Delete,
    /// Say what state an artifact is in (approved, revoked, …).
    Status,
    /// Say what is to be held where.
    Policy,
}

impl Action {
    const fn bit(self) -> u8 {
        match self {
            Action::Publish => 1,
            Action::Delete => 2,
            Action::Status => 4,
            Action::Policy => 8,
        }
    }
}

/// A set of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actions(u8);

impl Actions {
    /// Every action there is, also those that later versions add.
    pub const ALL: Actions = Actions(0xff);

    /// The set of these.
    pub fn of(actions: &[Action]) -> Self {
        Actions(actions.iter().fold(0, |bits, action| bits | action.bit()))
    }

    /// Whether `action` is in the set.
    pub fn allows(self, action: Action) -> bool {
        self.0 & action.bit() != 0
    }

    /// Names for people.
    pub fn names(self) -> Vec<&'static str> {
        let all = [
            (Action::Publish, "publish"),
            (Action::Delete, "delete"),
            (Action::Status, "status"),
            (Action::Policy, "policy"),
        ];
        all.into_iter().filter(|(action, _)| self.allows(*action)).map(|(_, name)| name).collect()
    }
}

/// The root's signed permission for one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// Who may.
    pub subject: NodeId,
    /// In which repositories.
    pub repositories: Glob,
    /// What.
    pub actions: Actions,
    /// Until when; never ends where absent.
    pub expires: Option<Wall>,
    /// Distinguishes grants to one node; the newest is used first.
    pub serial: u64,
    /// The root's signature over all of the above and the mesh id.
    #[serde(with = "signature_bytes")]
    pub signature: [u8; 64],
}

impl Grant {
    /// Makes and signs a grant. `root` must be the mesh's root key.
    pub fn issue(
        mesh: &MeshId,
        root: &SigningKey,
        subject: NodeId,
        repositories: Glob,
        actions: Actions,
        expires: Option<Wall>,
        serial: u64,
    ) -> Self {
        let mut grant = Grant { subject, repositories, actions, expires, serial, signature: [0; 64] };
        grant.signature = root.sign(&grant.signed_bytes(mesh)).to_bytes();
        grant
    }

    /// Whether the mesh's root signed this.
    pub fn is_signed_by(&self, mesh: &MeshId, root: &VerifyingKey) -> bool {
        let signature = Signature::from_bytes(&self.signature);
        root.verify_strict(&self.signed_bytes(mesh), &signature).is_ok()
    }

    /// Whether it lets its subject do `action` in the repository at the time `at`.
    pub fn allows(&self, action: Action, repository: &str, at: Wall) -> bool {
        self.actions.allows(action) && self.repositories.matches(repository) && !self.has_expired(at)
    }

    /// Whether it has run out at `at`. A clock that was never set cannot say so.
    pub fn has_expired(&self, at: Wall) -> bool {
        self.expires.is_some_and(|expires| expires < at)
    }

    /// The name under which its record is kept.
    pub fn name(&self) -> String {
        alloc::format!("{}/{}", self.subject, self.repositories)
    }

    fn signed_bytes(&self, mesh: &MeshId) -> Vec<u8> {
        let fields = (mesh, &self.subject, &self.repositories, self.actions, self.expires, self.serial);
        let mut bytes = b"waystation grant v1\0".to_vec();
        bytes.extend(postcard::to_allocvec(&fields).expect("plain data always encodes"));
        bytes
    }
}

/// 64 bytes for serde, which stops at 32.
pub(crate) mod signature_bytes {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8; 64], s: S) -> Result<S::Ok, S::Error> {
        let (low, high) = bytes.split_at(32);
        let halves: ([u8; 32], [u8; 32]) =
            (low.try_into().expect("32 bytes"), high.try_into().expect("32 bytes"));
        halves.serialize(s)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 64], D::Error> {
        let (low, high) = <([u8; 32], [u8; 32])>::deserialize(d)?;
        let mut bytes = [0; 64];
        bytes[..32].copy_from_slice(&low);
        bytes[32..].copy_from_slice(&high);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mesh() -> (SigningKey, MeshId) {
        let root = SigningKey::from_bytes(&[7; 32]);
        let id = MeshId::of_root(&NodeId(root.verifying_key().to_bytes()));
        (root, id)
    }

    #[test]
    fn signature_covers_every_field_and_the_mesh() {
        let (root, mesh) = mesh();
        let subject = NodeId([1; 32]);
        let grant = Grant::issue(&mesh, &root, subject, Glob::everything(), Actions::ALL, Some(Wall(9)), 1);
        let key = root.verifying_key();
        assert!(grant.is_signed_by(&mesh, &key));
        assert!(!grant.is_signed_by(&MeshId([0; 32]), &key));
        let changed = [
            Grant { subject: NodeId([2; 32]), ..grant.clone() },
            Grant { repositories: "a".parse().expect("valid"), ..grant.clone() },
            Grant { actions: Actions::of(&[Action::Publish]), ..grant.clone() },
            Grant { expires: None, ..grant.clone() },
            Grant { serial: 2, ..grant.clone() },
        ];
        assert!(changed.iter().all(|grant| !grant.is_signed_by(&mesh, &key)));
    }

    #[test]
    fn allows_only_what_it_says() {
        let (root, mesh) = mesh();
        let actions = Actions::of(&[Action::Publish]);
        let glob = "team/*".parse().expect("valid");
        let grant = Grant::issue(&mesh, &root, NodeId([1; 32]), glob, actions, Some(Wall(100)), 1);
        assert!(grant.allows(Action::Publish, "team/app", Wall(100)));
        assert!(!grant.allows(Action::Publish, "team/app", Wall(101)));
        assert!(!grant.allows(Action::Delete, "team/app", Wall(1)));
        assert!(!grant.allows(Action::Publish, "other/app", Wall(1)));
    }
}
