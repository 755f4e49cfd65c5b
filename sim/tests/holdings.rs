//! Bytes between sites grow with sites and not with nodes, and a copy is found although hardly anybody told of it.

use std::collections::BTreeSet;

use waystation_proto::{Digest, Input, RepoName, body::HoldingState};
use waystation_sim::{Options, World, check::holdings};

const MINUTE: u64 = 60_000;

fn repository() -> RepoName {
    "team/app".parse().expect("a repository's name")
}

/// A mesh in which every node has pulled an artifact that the first one published.
fn everywhere(sites: usize, nodes: usize) -> (World, Digest) {
    let mut world = World::new(Options { sites, granted: 1, ..Options::calm(11, nodes) });
    world.run_until(MINUTE);
    let artifact = world.push(0, &repository(), &["v1".parse().expect("a tag")]);
    let manifest = world.content().artifacts()[artifact].index.manifest;
    world.run_until(world.now() + 10_000);
    for host in 1..nodes {
        let repository = repository();
        let pull = |request| Input::WantArtifact { request, repository, manifest, closure: true };
        world.operator(host, pull);
    }
    world.run_until(world.now() + 3 * MINUTE);
    (world, manifest)
}

/// Who tells the mesh, as one host knows.
fn tellers(world: &World, at: usize, manifest: &Digest) -> BTreeSet<usize> {
    let catalog = world.hosts[at].replica().expect("runs").catalog();
    let whole = catalog.summaries(manifest).filter(|(_, state, _)| *state == HoldingState::Complete);
    let ids: Vec<_> = whole.map(|(node, ..)| node).collect();
    world.hosts.iter().filter(|host| ids.contains(&host.id)).map(|host| host.number).collect()
}

#[test]
fn sites_tell_one_another_in_summary_however_many_nodes_they_have() {
    for (sites, nodes) in [(3, 6), (3, 30)] {
        let (world, manifest) = everywhere(sites, nodes);
        assert_eq!(world.converged(), Ok(()), "{nodes} nodes");
        let told = tellers(&world, 0, &manifest);
        for site in 0..sites {
            let of_site = told.iter().filter(|host| *host % sites == site).count();
            assert!((2..=3).contains(&of_site), "{of_site} of site {site} tell, of {nodes} nodes");
        }
        // Each site knows exactly what its own nodes hold, and how many the others have.
        for host in &world.hosts {
            let catalog = host.replica().expect("runs").catalog();
            let near = |id| world.hosts.iter().any(|other| other.id == id && other.site() == host.site());
            let here = catalog.holders(&manifest).filter(|(id, _)| near(*id)).count();
            assert_eq!(here, nodes / sites, "at host {}", host.number);
            let most = catalog.summaries(&manifest).map(|(.., copies)| usize::from(copies)).max();
            assert_eq!(most, Some(nodes / sites), "at host {}", host.number);
        }
        assert_eq!(holdings::found(&world.hosts, world.content()), Ok(()));
    }
}

#[test]
fn others_of_a_site_tell_when_those_who_did_are_gone() {
    let sites = 3;
    let (mut world, manifest) = everywhere(sites, 15);
    let told: Vec<usize> =
        tellers(&world, 0, &manifest).into_iter().filter(|host| host % sites == 1).collect();
    for host in &told {
        world.stop_for(*host, 60 * MINUTE);
    }
    world.run_until(world.now() + 5 * MINUTE);
    assert_eq!(holdings::found(&world.hosts, world.content()), Ok(()));
    let now = tellers(&world, 0, &manifest);
    let instead = now.iter().filter(|host| *host % sites == 1 && !told.contains(host)).count();
    assert!((1..=2).contains(&instead), "{instead} took over from {told:?}");
    // They come back, and nothing more is said.
    world.run_until(world.now() + 90 * MINUTE);
    assert_eq!(tellers(&world, 0, &manifest), now);
    assert_eq!(world.converged(), Ok(()));
}
