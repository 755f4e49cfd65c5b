//! `waystation-sim plan`

use std::{collections::BTreeMap, fs, path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use clap::Args;
use waystation_sim::{
    fleet_state::{self, Lines},
    plan::{self, Question},
};
use waystation_topology::{Delay, Lan, Part, Rate, Size, Time, Topology};

use super::{BROKEN, topology::LineText};

/// What would be published, and where.
#[derive(Args)]
pub struct PlanArgs {
    /// Bytes that have to move to a node that has nothing, such as "3 GB".
    #[arg(long)]
    size: Size,
    /// How much of them the nodes do not have yet.
    #[arg(long, default_value = "100 %")]
    changed: Part,
    /// A site that is to have it; may be given several times. All but the publisher's where left out.
    #[arg(long = "to", value_name = "SITE")]
    to: Vec<String>,
    /// Copies at each site; every node where left out.
    #[arg(long)]
    copies: Option<usize>,
    /// By when, such as "1 h".
    #[arg(long)]
    deadline: Option<Time>,
    /// How much of a line's raw rate is content.
    #[arg(long, default_value = "94 %")]
    efficiency: Part,
    /// The network's file.
    #[arg(long, required_unless_present = "mesh_status")]
    topology: Option<PathBuf>,
    /// The network of a live mesh: what `waystation peers --json` prints, or `waystation status --json` at each node.
    #[arg(long, conflicts_with = "topology")]
    mesh_status: Option<PathBuf>,
    #[command(flatten)]
    lines: LineArgs,
    /// Also simulate it with the product's own protocol.
    #[arg(long)]
    simulate: bool,
}

/// What no node knows of a live mesh.
#[derive(Args)]
struct LineArgs {
    /// With --mesh-status: the publisher's site; that of the node that answered where left out.
    #[arg(long, value_name = "SITE")]
    from: Option<String>,
    /// With --mesh-status: the line of each site.
    #[arg(long, value_name = "UP,DOWN[,DELAY[,LOSS]]", default_value = "20 Mbit/s, 50 Mbit/s, 10 ms")]
    line: LineText,
    /// With --mesh-status: the line of the publisher's site.
    #[arg(long, value_name = "UP,DOWN[,DELAY[,LOSS]]", default_value = "1 Gbit/s, 1 Gbit/s, 2 ms")]
    origin_line: LineText,
    /// With --mesh-status: the line of one site; may be given several times.
    #[arg(long, value_name = "SITE=UP,DOWN[,DELAY[,LOSS]]", value_parser = site_line)]
    site_line: Vec<(String, LineText)>,
    /// With --mesh-status: the rate of each node's link within a site.
    #[arg(long, default_value = "1 Gbit/s")]
    lan: Rate,
}

fn site_line(text: &str) -> Result<(String, LineText), String> {
    let (site, line) =
        text.split_once('=').ok_or_else(|| "write SITE=UP,DOWN: \"shop=5 Mbit/s, 20 Mbit/s\"".to_owned())?;
    Ok((site.trim().to_owned(), line.parse()?))
}

/// Prints the plan. Ends with 3 where a site misses the deadline by its own line or all together do.
pub fn plan(args: PlanArgs) -> anyhow::Result<ExitCode> {
    let topology = network(&args)?;
    let question = Question {
        bytes: (args.size.bytes() as f64 * args.changed.ratio()) as u64,
        sites: args.to.iter().map(|name| site(&topology, name)).collect::<anyhow::Result<_>>()?,
        copies: args.copies,
        deadline: args.deadline.map(Time::seconds),
        efficiency: args.efficiency.ratio(),
    };
    if question.bytes == 0
        || question.copies == Some(0)
        || question.efficiency == 0.0
        || question.deadline == Some(0.0)
    {
        bail!(
            "nothing to plan: --size, --changed, --copies, --deadline and --efficiency must be more than 0"
        );
    }
    let plan = plan::plan(&topology, &question);
    if plan.sites.is_empty() {
        bail!("no site but the publisher's; nothing has to be sent");
    }
    print!("{plan}");
    println!("These are limits: nothing is faster. Delays, disks and other traffic come on top.");
    if args.simulate {
        let end = ((plan.all * 10.0).max(600.0) * 1e9) as u64;
        let setup = plan::setup(&topology, &question, end, 1);
        println!("\nSimulated:");
        super::run::show_one(&setup)?;
    }
    let late =
        plan.sites.iter().any(|site| site.late) || plan.deadline.is_some_and(|deadline| plan.all > deadline);
    Ok(if late { ExitCode::from(BROKEN) } else { ExitCode::SUCCESS })
}

fn network(args: &PlanArgs) -> anyhow::Result<Topology> {
    if let Some(file) = &args.topology {
        return Ok(Topology::load(file)?);
    }
    let Some(file) = &args.mesh_status else { bail!("give --topology or --mesh-status") };
    let text = fs::read_to_string(file).with_context(|| {
        format!("{}: cannot be read; give what `waystation peers --json` printed", file.display())
    })?;
    let LineArgs { from, line, origin_line, site_line, lan } = &args.lines;
    let lines = Lines {
        line: line.0,
        origin: origin_line.0,
        of_site: site_line.iter().map(|(site, line)| (site.clone(), line.0)).collect::<BTreeMap<_, _>>(),
        lan: Lan { rate: *lan, delay: Delay::from_micros(200) },
    };
    let topology = fleet_state::read(file, &text, from.as_deref(), &lines)?;
    for (name, _) in site_line {
        site(&topology, name)?;
    }
    Ok(topology)
}

fn site(topology: &Topology, name: &str) -> anyhow::Result<usize> {
    topology.sites.iter().position(|site| site.name == name).with_context(|| {
        let names: Vec<_> = topology.sites.iter().take(10).map(|site| site.name.as_str()).collect();
        format!("there is no site \"{name}\"; name one such as {}", names.join(", "))
    })
}
