//! End to end: starts the real binary and speaks to it as its users do, through its command line and HTTP,
//! never through its code. `harness` starts nodes and is the client; `cases` has one promise a file.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod conformance;
mod harness;

mod cases {
    //! What the product promises, one promise a file.
    mod access;
    mod admin;
    mod bad_http;
    mod bad_input;
    mod bad_upstream;
    mod blob_delete;
    mod budget;
    mod cli;
    mod clients;
    mod closed_mesh;
    mod conformance;
    mod crash_rounds;
    mod cut_link;
    mod dedup;
    mod doctor;
    mod durability_order;
    mod entitlement;
    mod explain;
    mod grants;
    mod isolation;
    mod marks;
    mod nat;
    mod one_fetch;
    mod own_names;
    mod policy;
    mod proxy;
    mod pull_through;
    mod pulled_lists;
    mod push_pull;
    mod restart;
    mod resumed_download;
    mod rot;
    mod shutdown;
    mod space;
    mod start_errors;
    mod streaming;
    mod tag_history;
    mod tls;
    mod uploads;
    mod watch;
}
