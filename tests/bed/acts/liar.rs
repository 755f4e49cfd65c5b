//! One of three holders flips a bit in every tenth piece that it is asked for.

use std::{collections::BTreeSet, net::SocketAddr, sync::atomic::Ordering};

use iroh_blobs::Hash;
use waystation_proto::{
    Digest, RepoName,
    body::{ArtifactBody, HoldingState, SummaryBody},
    record::Key,
    wire::Message,
};
use waystation_topology::Place;

use super::holders::{read, wait_until_known};
use crate::{
    case::{Outcome, Scene, Skipped},
    fleet::{Fleet, REPOSITORY},
    harness::{image::Image, wait::until_true},
    holder::{Data, Lie},
    member::Member,
    network::address,
};

/// The site whose place the liar takes.
const LIAR: Place = Place { site: 2, node: 0 };
const PORT: u16 = 4717;

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    let honest = super::holders::act(scene)?;
    let (fleet, image) = (scene.fleet(&[LIAR])?, scene.image());
    let reader = fleet.members().len() - 1;
    fleet.publish("v1", &image);
    let patience = std::time::Duration::from_secs(300);
    fleet.pull(&[1], "v1", &image, patience, |_| ());
    let liar = fleet.network.space(LIAR).on(|| Liar::join(&fleet, reader, &image));
    let id = liar.member.id();
    wait_until_known(&fleet, reader, &[0, 1], "v1");
    let node = &fleet.members()[reader].node;
    until_true("the reader counts the liar as a holder", || {
        node.cli(&["inspect", &format!("{REPOSITORY}:v1"), "--json"]).stdout.contains(&id.to_string())
    });
    let mut outcome = read(scene, &fleet, reader, &[0, 1], &image)?;
    // The least time is that of three holders, not of the two that are counted as nodes.
    let least = honest.value("T_min").unwrap_or(f64::NAN);
    let time = outcome.value("time max").unwrap_or(f64::NAN);
    outcome.figures.retain(|figure| !["T_min", "time / T_min"].contains(&figure.name.as_str()));
    outcome.marks.retain(|mark| !mark.starts_with("T_min"));
    let usual = honest.value("time max").unwrap_or(f64::NAN);
    outcome.add("T_min", least, "s");
    outcome.add("honest", usual, "s");
    outcome.add("time / honest", time / usual, "");
    let lies = liar.data.lies.load(Ordering::SeqCst);
    outcome.add("pieces with a flipped bit", lies as f64, "");
    if lies == 0 {
        outcome.marks.push("the liar was asked for fewer than ten pieces, so it never lied".to_owned());
    }
    let named = format!("peer={}", id.short());
    let log = node.log();
    let named = log.lines().any(|line| line.contains("wrong bytes") && line.contains(&named));
    outcome.add("holder named", f64::from(u8::from(named)), "");
    Ok(outcome)
}

/// A member on both planes, at its site.
struct Liar {
    member: Member,
    data: Data,
}

impl Liar {
    /// Runs in the liar's network: joins at the reader and tells it to hold everything.
    fn join(fleet: &Fleet, reader: usize, image: &Image) -> Self {
        let (origin, reader) = (&fleet.members()[0], &fleet.members()[reader]);
        let member = Member::new(&fleet.mesh_file);
        member.join_at(&reader.node, &format!("{}:{PORT}", address(reader.place)));
        let (repository, manifest): (RepoName, Digest) =
            (REPOSITORY.parse().unwrap(), image.digest().parse().unwrap());
        let key = Key::artifact(&repository, &manifest);
        let record = member.read_record(|record| record.key == key);
        let index = record.read::<ArtifactBody>().unwrap().place.unwrap().index;
        let own: SocketAddr = format!("{}:{PORT}", address(LIAR)).parse().unwrap();
        let data = Data::member_at(&member.identity, &fleet.mesh_file, own);
        data.fetch(&format!("{}:{PORT}", address(origin.place)), origin.node.id(), Hash::from_bytes(index.0));
        data.add(&image.manifest);
        let blobs: BTreeSet<Hash> = image.blobs().map(|blob| data.add(blob)).collect();
        data.serve(Lie::TenthPiece, blobs);
        let held = SummaryBody { state: HoldingState::Complete, copies: 1 };
        let holding = member.record(Key::summary(&manifest, &member.id()), 1, &held);
        let site = &fleet.network.topology.sites[LIAR.site].name;
        member
            .say(&Message::Records(vec![member.node_record(site, &own.to_string()).into(), holding.into()]));
        Liar { member, data }
    }
}
