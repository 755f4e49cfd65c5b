//! The one verdict: whether something may be handed out. Asked by HTTP, peers and exports alike.

use alloc::string::String;

use crate::body::State;

/// What is known about an artifact when somebody asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// What its publishers last said, and why.
    pub status: Option<(State, String)>,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requester {
    /// A client of this node's OCI endpoint.
    Client,
    /// Another member of the mesh.
    Member,
    /// The operator, at the node's own socket.
    Operator,
}

/// What for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To run or install it.
    Use,
    /// To keep a copy, or look into it.
    Keep,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it out.
    Serve,
    /// Hand it out with this warning.
    Warn(String),
    /// Answer as if it were not there.
    Hide,
    /// Refuse, with this reason.
    Deny(String),
}

/// May it be handed out?
///
/// Members and the operator may move copies of anything but what was revoked or rejected (evidence has to
/// reach whoever looks into it, bad bits need not spread); clients get what is approved or unjudged, get
/// what is being checked with a warning, do not see what is quarantined, and are told why when something
/// was taken back.
pub fn verdict(facts: &Facts, requester: Requester, purpose: Purpose) -> Verdict {
    let Some((state, reason)) = &facts.status else { return Verdict::Serve };
    let because = |what: &str| {
        if reason.is_empty() { what.into() } else { alloc::format!("{what}: {reason}") }
    };
    let client = requester == Requester::Client;
    match state {
        State::Approved => Verdict::Serve,
        State::Validating if client => Verdict::Warn(because("still being validated")),
        State::Validating => Verdict::Serve,
        State::Quarantined if client => Verdict::Hide,
        State::Quarantined => Verdict::Warn(because("quarantined")),
        State::Rejected | State::Revoked if requester == Requester::Operator && purpose == Purpose::Keep => {
            Verdict::Warn(because("taken back"))
        }
        State::Rejected => Verdict::Deny(because("rejected by its publisher")),
        State::Revoked => Verdict::Deny(because("revoked by its publisher")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        use Purpose::*;
        use Requester::*;
        let serve = |v: &Verdict| matches!(v, Verdict::Serve);
        let warn = |v: &Verdict| matches!(v, Verdict::Warn(_));
        let hide = |v: &Verdict| matches!(v, Verdict::Hide);
        let deny = |v: &Verdict| matches!(v, Verdict::Deny(_));
        let check = |state: Option<State>, requester, purpose, expected: fn(&Verdict) -> bool| {
            let facts = Facts { status: state.map(|state| (state, "why".into())) };
            let got = verdict(&facts, requester, purpose);
            assert!(expected(&got), "{state:?} {requester:?} {purpose:?}: {got:?}");
        };
        check(None, Client, Use, serve);
        check(Some(State::Approved), Client, Use, serve);
        check(Some(State::Validating), Client, Use, warn);
        check(Some(State::Validating), Member, Keep, serve);
        check(Some(State::Quarantined), Client, Use, hide);
        check(Some(State::Quarantined), Operator, Keep, warn);
        check(Some(State::Rejected), Client, Use, deny);
        check(Some(State::Revoked), Client, Use, deny);
        check(Some(State::Revoked), Member, Keep, deny);
        check(Some(State::Revoked), Operator, Keep, warn);
        check(Some(State::Revoked), Operator, Use, deny);
    }
}
