//! `waystation tls …`: hands out what clients need to trust a node. How certificates are made is
//! [`crate::access::tls`]'s.

use clap::{Args, Subcommand};

use super::{Failure, NodeArgs, print};
use crate::access::tls::self_made;

/// `waystation tls`
#[derive(Debug, Subcommand)]
pub enum TlsCommand {
    /// Print the certificate of the node's own CA (PEM), for clients to trust.
    ///
    /// podman, skopeo: as /etc/containers/certs.d/HOST:PORT/ca.crt. docker: as /etc/docker/certs.d/HOST:PORT/ca.crt.
    /// containerd: as `ca` in hosts.toml.
    Ca(CaArgs),
}

/// `waystation tls ca`
#[derive(Debug, Args)]
pub struct CaArgs {
    #[command(flatten)]
    node: NodeArgs,
}

/// Does one of them.
pub fn run(command: &TlsCommand) -> Result<(), Failure> {
    let TlsCommand::Ca(args) = command;
    let data_dir = args.node.data_dir()?;
    if !self_made::ca_path(&data_dir).exists() {
        return Err(Failure::NotFound(format!(
            "the node in {} has no CA of its own yet; start it once with: waystation serve --tls-self-made",
            data_dir.display()
        )));
    }
    print(&self_made::read_ca(&data_dir).map_err(|error| Failure::Usage(error.to_string()))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_to_make_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let node = NodeArgs { data_dir: Some(dir.path().to_owned()), config: None };
        let error = run(&TlsCommand::Ca(CaArgs { node })).expect_err("none");
        assert_eq!(error.code(), 4);
        assert!(error.to_string().contains("--tls-self-made"), "{error}");
    }
}
