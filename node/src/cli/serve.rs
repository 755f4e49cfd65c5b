//! `waystation serve`: lays flags and environment over the file, sets up logging, and runs the node.

use std::{net::SocketAddr, path::PathBuf};

use clap::Args;
use tracing_subscriber::EnvFilter;
use waystation_proto::body::Tier;

use super::Failure;
use crate::{
    config::{Config, ConfigError, LogFormat, SharingConfig, parse_anonymous, parse_endpoint, parse_listen},
    control::Reachable,
    gc::config::Amount,
    registry::Anonymous,
};

/// A flag beats its variable, the variable beats the file, the file beats the default.
#[derive(Debug, Default, Args)]
pub struct ServeArgs {
    /// Read the configuration from this file (configs/node.toml lists every key).
    #[arg(long, value_name = "FILE", env = "WAYSTATION_CONFIG")]
    config: Option<PathBuf>,
    /// Keep blobs, records and keys here [default: the user's data directory; root: /var/lib/waystation].
    #[arg(long, value_name = "DIR", env = "WAYSTATION_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Serve the OCI endpoint here [default: 127.0.0.1:5000].
    #[arg(long, value_name = "ADDR", env = "WAYSTATION_LISTEN", value_parser = parse_listen)]
    listen: Option<SocketAddr>,
    /// Let other nodes connect here, TCP and UDP [default: port 4717 on loopback, on all interfaces once
    /// the mesh is shared].
    #[arg(long, value_name = "ADDR", env = "WAYSTATION_MESH_LISTEN", value_parser = parse_listen)]
    mesh_listen: Option<SocketAddr>,
    /// Tell other nodes to connect to this host:port; repeat it or separate by commas [default: this
    /// machine's addresses].
    #[arg(long, value_name = "ADDR", env = "WAYSTATION_ADVERTISE", value_delimiter = ',', value_parser = parse_endpoint)]
    advertise: Vec<String>,
    /// The LAN that this node is on [default: default].
    #[arg(long, value_name = "NAME", env = "WAYSTATION_SITE")]
    site: Option<String>,
    /// Its place in the continuum [default: edge].
    #[arg(long, value_name = "TIER", env = "WAYSTATION_TIER")]
    tier: Option<TierArg>,
    /// Where in the world this node is, for policies to choose by.
    #[arg(long, value_name = "NAME", env = "WAYSTATION_REGION")]
    region: Option<String>,
    /// What policies may choose this node by: name=value; repeat it or separate by commas.
    #[arg(long, value_name = "NAME=VALUE", env = "WAYSTATION_LABELS", value_delimiter = ',', value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// The link to other sites is paid for by what it carries: policies may spare it.
    #[arg(long, env = "WAYSTATION_METERED")]
    metered: bool,
    /// What clients may do that do not say who they are [default: push on a loopback listener, else none].
    #[arg(long, value_name = "none|pull|push", env = "WAYSTATION_ANONYMOUS", value_parser = parse_anonymous)]
    anonymous: Option<Anonymous>,
    /// Let users of this htpasswd file (bcrypt) log in.
    #[arg(long, value_name = "FILE", env = "WAYSTATION_HTPASSWD")]
    htpasswd: Option<PathBuf>,
    /// How clients reach the OCI endpoint where a proxy is before it, such as `https://registry.example`.
    #[arg(long, value_name = "URL", env = "WAYSTATION_PUBLIC_URL")]
    public_url: Option<String>,
    /// Speak TLS at the OCI endpoint with this certificate (PEM) and --tls-key.
    #[arg(long, value_name = "FILE", env = "WAYSTATION_TLS_CERTIFICATE")]
    tls_certificate: Option<PathBuf>,
    /// The private key (PEM) of --tls-certificate.
    #[arg(long, value_name = "FILE", env = "WAYSTATION_TLS_KEY")]
    tls_key: Option<PathBuf>,
    /// Speak TLS at the OCI endpoint with a certificate of the node's own CA (`waystation tls ca` prints it).
    #[arg(long, env = "WAYSTATION_TLS_SELF_MADE")]
    tls_self_made: bool,
    /// Serve health checks and metrics here [default: 127.0.0.1:5001, or a free port if that is taken].
    #[arg(long, value_name = "ADDR", env = "WAYSTATION_ADMIN_LISTEN", value_parser = parse_listen)]
    admin_listen: Option<SocketAddr>,
    /// Find the mesh at this host:port, beside those in the mesh file; repeat it or separate by commas.
    #[arg(long, value_name = "ADDR", env = "WAYSTATION_JOIN", value_delimiter = ',', value_parser = parse_endpoint)]
    join: Vec<String>,
    /// Join the mesh of this file, made by `waystation mesh export` [default: the mesh of the data
    /// directory, or a new one].
    #[arg(long, value_name = "FILE", env = "WAYSTATION_MESH")]
    mesh: Option<PathBuf>,
    /// Share what comes from other nodes like this; anything but swarm is for comparison [default: swarm].
    #[arg(long, value_name = "HOW", env = "WAYSTATION_REPLICATION_SHARING")]
    replication_sharing: Option<SharingConfig>,
    /// Let members that nobody can dial be reached through this node.
    #[arg(long, env = "WAYSTATION_RELAY")]
    relay: bool,
    /// Whether members of other sites can dial this node; where not, it is reached through members that relay
    /// [default: auto].
    #[arg(long, value_name = "auto|yes|no", env = "WAYSTATION_REACHABLE")]
    reachable: Option<Reachable>,
    /// Write this file once the node serves.
    #[arg(long, value_name = "FILE", env = "WAYSTATION_READY_FILE")]
    ready_file: Option<PathBuf>,
    /// Take at most this much of the disk: a part such as 80%, or an amount such as 20GiB [default: 80%].
    #[arg(long, value_name = "AMOUNT", env = "WAYSTATION_QUOTA")]
    quota: Option<Amount>,
    /// How log lines look [default: human]. What is logged: the variable RUST_LOG.
    #[arg(long, value_name = "FORMAT", env = "WAYSTATION_LOG_FORMAT")]
    log_format: Option<LogFormat>,
    /// Stop when standard input ends, so that the node never outlives whoever started it.
    #[arg(long, hide = true)]
    pub(super) exit_with_stdin: bool,
}

#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum TierArg {
    /// Data centre.
    Cloud,
    /// A site's server.
    Edge,
    /// A small device.
    Iot,
}

impl ServeArgs {
    /// The configuration that these arguments and the file that they name amount to.
    fn config(&self) -> Result<Config, ConfigError> {
        let mut config = match &self.config {
            Some(path) => Config::read(path)?,
            None => Config::default(),
        };
        overlay(&mut config.node.data_dir, &self.data_dir);
        overlay(&mut config.node.site, &self.site);
        overlay(&mut config.node.tier, &self.tier.map(Tier::from));
        overlay(&mut config.node.region, &self.region);
        config.node.labels.extend(self.labels.iter().cloned());
        config.node.metered |= self.metered;
        overlay(&mut config.registry.listen, &self.listen);
        overlay(&mut config.log.format, &self.log_format);
        overlay(&mut config.replication.sharing, &self.replication_sharing);
        overlay(&mut config.storage.quota, &self.quota);
        config.node.ready_file = self.ready_file.clone().or(config.node.ready_file);
        config.registry.anonymous = self.anonymous.or(config.registry.anonymous);
        config.auth.htpasswd = self.htpasswd.clone().or(config.auth.htpasswd);
        overlay(&mut config.auth.public_url, &self.public_url);
        config.tls.certificate = self.tls_certificate.clone().or(config.tls.certificate);
        config.tls.key = self.tls_key.clone().or(config.tls.key);
        config.tls.self_made |= self.tls_self_made;
        config.admin.listen = self.admin_listen.or(config.admin.listen);
        config.mesh.listen = self.mesh_listen.or(config.mesh.listen);
        config.mesh.file = self.mesh.clone().or(config.mesh.file);
        config.mesh.relay |= self.relay;
        overlay(&mut config.mesh.reachable, &self.reachable);
        if !self.advertise.is_empty() {
            config.mesh.advertise.clone_from(&self.advertise);
        }
        if !self.join.is_empty() {
            config.mesh.join.clone_from(&self.join);
        }
        config.check()?;
        Ok(config)
    }
}

/// Runs a node until it is told to stop.
pub async fn run(args: ServeArgs) -> Result<(), Failure> {
    let config = args.config()?;
    init_logging(config.log.format)?;
    if args.exit_with_stdin {
        exit_with_stdin()?;
    }
    crate::app::run(config).await.map_err(|e| Failure::Usage(e.to_string()))
}

impl From<TierArg> for Tier {
    fn from(tier: TierArg) -> Tier {
        match tier {
            TierArg::Cloud => Tier::Cloud,
            TierArg::Edge => Tier::Edge,
            TierArg::Iot => Tier::Iot,
        }
    }
}

/// `name=value`; the error is a sentence.
fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("{text:?} is no label; write name=value"))?;
    Ok((name.to_owned(), value.to_owned()))
}

fn overlay<T: Clone>(value: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        value.clone_from(given);
    }
}

fn init_logging(format: LogFormat) -> Result<(), Failure> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => EnvFilter::try_new(&text)
            .map_err(|e| Failure::Usage(format!("the variable RUST_LOG is not a log filter: {e}")))?,
        _ => EnvFilter::new(LOG_DEFAULT),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Human => {
            builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init()
        }
        LogFormat::Json => builder.json().try_init(),
    };
    result.map_err(|e| Failure::Failed(anyhow::anyhow!("logging could not start: {e}")))
}

/// Tells this process to stop as a supervisor would, once standard input ends.
fn exit_with_stdin() -> Result<(), Failure> {
    let wait = || {
        // Whatever comes is thrown away; an error ends the wait like the end itself.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    };
    std::thread::Builder::new()
        .name("stdin".into())
        .spawn(wait)
        .map(|_| ())
        .map_err(|e| Failure::Failed(anyhow::anyhow!("no thread to watch standard input: {e}")))
}

/// Ours in full; of the libraries only what needs somebody's attention.
const LOG_DEFAULT: &str = "warn,waystation=info";

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    #[test]
    fn flags_beat_the_file_and_the_file_beats_defaults() {
        let file = file(
            "[node]\nsite = \"from-file\"\ntier = \"iot\"\n[registry]\nlisten = \"127.0.0.1:7000\"\n\
             [mesh]\njoin = [\"file:1\"]\nadvertise = [\"file:2\"]\n",
        );
        let args = ServeArgs {
            config: Some(file.path().to_owned()),
            site: Some("from-flag".into()),
            join: vec!["flag:1".into()],
            anonymous: Some(Anonymous::Pull),
            ..ServeArgs::default()
        };
        let config = args.config().expect("valid");
        assert_eq!(config.node.site, "from-flag");
        assert_eq!(config.node.tier, Tier::Iot);
        assert_eq!(config.registry.listen.port(), 7000);
        assert_eq!(config.mesh.join, ["flag:1"]);
        assert_eq!(config.mesh.advertise, ["file:2"]);
        assert_eq!(config.anonymous(), Anonymous::Pull);
        assert_eq!(config.log, Config::default().log);
        assert_eq!(ServeArgs::default().config().expect("valid"), Config::default());
    }

    #[test]
    fn a_bad_file_is_a_usage_failure() {
        let file = file("[node]\nsight = 1\ntier = \"fog\"\n");
        let args = ServeArgs { config: Some(file.path().to_owned()), ..ServeArgs::default() };
        let failure = Failure::from(args.config().expect_err("two mistakes"));
        assert_eq!(failure.code(), 2);
        assert_eq!(failure.to_string().lines().count(), 2);
    }
}
