//! What the OCI distribution specification (1.1 and what its main branch adds) asks of a registry, in the
//! workflows of the official conformance suite: blobs by every form of upload, data sets of every kind of
//! manifest from push to deletion, lists. Each check is counted; none stops the others. Pushes go to one
//! endpoint, pulls to another, which may be a node elsewhere in the mesh.

mod blobs;
mod content;
mod data;
mod ends;
mod lists;

pub use ends::{Ends, Report};

/// What is asked of registries that take images of which not all is there.
pub fn run_sparse(ends: &Ends) -> Report {
    let mut report = Report::default();
    for set in content::sparse_images() {
        data::run(ends, &set, &mut report);
    }
    report
}

/// Runs everything.
pub fn run(ends: &Ends) -> Report {
    let mut report = Report::default();
    lists::empty(ends, &mut report);
    for algorithm in content::Algorithm::ALL {
        blobs::run(ends, algorithm, &mut report);
    }
    for set in content::sets() {
        data::run(ends, &set, &mut report);
    }
    data::wrong(ends, &mut report);
    lists::run(ends, &mut report);
    report
}
