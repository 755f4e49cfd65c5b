//! `waystation-sim topology`

use std::{process::ExitCode, str::FromStr};

use clap::Args;
use waystation_topology::{Delay, Fleet, Lan, Rate, Share, Size, Tier, Uplink, file::spread, generate};

/// What fleet.
#[derive(Args)]
pub struct TopologyArgs {
    /// Sites beside the origin and the regions.
    #[arg(long)]
    sites: usize,
    /// Nodes at each of them.
    #[arg(long, default_value_t = 1)]
    nodes: usize,
    /// Their tier.
    #[arg(long, default_value = "edge", value_parser = tier)]
    tier: Tier,
    /// Their lines: out, in, delay, loss. Given several times, each gets as many sites as the others.
    #[arg(
        long = "line",
        value_name = "UP,DOWN[,DELAY[,LOSS]]",
        default_value = "20 Mbit/s, 50 Mbit/s, 10 ms"
    )]
    lines: Vec<LineText>,
    /// Rate of each node's link within a site.
    #[arg(long, default_value = "1 Gbit/s")]
    lan: Rate,
    /// What each of their nodes may store.
    #[arg(long)]
    disk: Option<Size>,
    /// Sites with regional servers.
    #[arg(long, default_value_t = 0)]
    regions: usize,
    /// Nodes at each region.
    #[arg(long, default_value_t = 4)]
    region_nodes: usize,
    /// The line of each region.
    #[arg(long, value_name = "UP,DOWN[,DELAY[,LOSS]]", default_value = "100 Mbit/s, 200 Mbit/s, 10 ms")]
    region_line: LineText,
    /// Nodes at the origin.
    #[arg(long, default_value_t = 1)]
    origin_nodes: usize,
    /// The origin's line.
    #[arg(long, value_name = "UP,DOWN[,DELAY[,LOSS]]", default_value = "1 Gbit/s, 1 Gbit/s, 2 ms")]
    origin_line: LineText,
}

/// A line as an argument.
#[derive(Clone, Copy, Debug)]
pub struct LineText(pub Uplink);

impl FromStr for LineText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        fn read<T: FromStr<Err: ToString>>(part: Option<&str>) -> Result<Option<T>, String> {
            part.map(|part| part.parse().map_err(|error: T::Err| error.to_string())).transpose()
        }
        let mut parts = text.split(',').map(str::trim);
        let up: Option<Rate> = read(parts.next())?;
        let down: Option<Rate> = read(parts.next())?;
        let delay: Option<Delay> = read(parts.next())?;
        let loss: Option<Share> = read(parts.next())?;
        match (up, down, parts.next()) {
            (Some(up), Some(down), None) => Ok(LineText(Uplink {
                up,
                down,
                delay: delay.unwrap_or_default(),
                loss: loss.unwrap_or_default(),
            })),
            _ => Err(
                "write out, in, and if there are any delay and loss: \"5 Mbit/s, 20 Mbit/s, 25 ms, 0.5 %\""
                    .into(),
            ),
        }
    }
}

fn tier(text: &str) -> Result<Tier, String> {
    let tiers = [Tier::Cloud, Tier::Edge, Tier::Iot];
    tiers.into_iter().find(|tier| tier.name() == text).ok_or_else(|| "write cloud, edge or iot".to_owned())
}

/// Prints it.
pub fn topology(args: TopologyArgs) -> anyhow::Result<ExitCode> {
    let line = args.lines.first().map_or_else(|| args.region_line.0, |line| line.0);
    let fleet = Fleet {
        tier: args.tier,
        lines: args.lines.iter().map(|line| line.0).collect(),
        lan: Lan { rate: args.lan, delay: Delay::from_micros(200) },
        disk: args.disk,
        regions: args.regions,
        region_nodes: args.region_nodes,
        region_line: args.region_line.0,
        origin_nodes: args.origin_nodes,
        origin_line: args.origin_line.0,
        ..Fleet::new(args.sites, args.nodes, line)
    };
    let groups = fleet.groups();
    spread(&groups).map_err(|problem| anyhow::anyhow!(problem.text))?;
    print!("{}", generate::text(&groups));
    Ok(ExitCode::SUCCESS)
}
