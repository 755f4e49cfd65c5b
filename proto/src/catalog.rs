//! What is known: every record that counts, one for each key.

use alloc::vec::Vec;

use crate::{
    event::Change,
    grant::Grant,
    record::{Kind, Record, RecordError, holding_name},
};

/// What a record of a known kind changes in what is looked up; nothing for kinds unknown here.
/// A function of the record alone, so that a driver's index can be rebuilt from stored records.
pub fn change_of(record: &Record) -> Result<Option<Change>, RecordError> {
    Ok(Some(match record.key.kind {
        Kind::TAG => Change::Tag {
            repository: record.repository()?,
            tag: record.named_tag()?,
            body: record.read()?,
            version: record.version,
            author: record.author,
        },
        Kind::STATUS => {
            let body: crate::body::StatusBody = record.read()?;
            Change::Status {
                repository: record.repository()?,
                manifest: record.named_digest()?,
                state: body.state,
                reason: body.reason,
            }
        }
        Kind::ARTIFACT => {
            let body: crate::body::ArtifactBody = record.read()?;
            Change::Artifact {
                repository: record.repository()?,
                manifest: record.named_digest()?,
                place: body.place,
            }
        }
        Kind::HOLDING => {
            let (manifest, node) =
                holding_name(&record.key.name).ok_or(RecordError::Malformed("holding's name"))?;
            let body: crate::body::HoldingBody = record.read()?;
            Change::Holding { manifest, node, state: body.state }
        }
        Kind::NODE => Change::Node { node: record.author, body: record.read()? },
        Kind::GRANT => Change::Grant(record.read::<Grant>()?),
        _ => return Ok(None),
    }))
}

/// Placeholder.
pub type Todo = Vec<()>;
