//! The fit, for people: measured, and in brackets what routers and the world's gossip make of the same graphs.

use waystation_sim::gossipsub::{
    figures::Figures,
    fit::{Case, Fit, mean},
    run, world,
};

/// Runs of each model, each with its own chances.
const SEEDS: u64 = 8;

type Column = (&'static str, fn(&Figures) -> f64);

const COLUMNS: [Column; 8] = [
    ("copies", |f| f.copies),
    ("hops to 50 %", |f| f.hops_half),
    ("to 99 %", |f| f.hops_most),
    ("to all", |f| f.hops_all),
    ("seconds to 99 %", |f| f.seconds_most),
    ("asked for, %", |f| 100.0 * f.asked),
    ("control frames", |f| f.control_frames),
    ("bytes", |f| f.bytes),
];

pub fn print(fit: &Fit) {
    print!("| case | payload |");
    COLUMNS.iter().for_each(|(name, _)| print!(" {name} |"));
    println!(" missed |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for case in &fit.case {
        print_case(fit, case);
    }
    println!(
        "\n| case | neighbours in the mesh | idle bytes for each node and second |\n| --- | ---: | ---: |"
    );
    for case in &fit.case {
        let measured: Vec<f64> = case.mesh.iter().map(|count| *count as f64).collect();
        let (_, routers) = case.modelled(run::run, &fit.params, &case.payloads(), SEEDS);
        let (_, worlds) = case.modelled(world::run, &fit.params, &case.payloads(), SEEDS);
        let (measured, routers, worlds) = (mesh(&measured), mesh(&routers), mesh(&worlds));
        println!("| {} | {measured} ({routers}; {worlds}) | {:.2} |", case.name, case.idle);
    }
}

fn print_case(fit: &Fit, case: &Case) {
    let (routers, _) = case.modelled(run::run, &fit.params, &case.payloads(), SEEDS);
    let (worlds, _) = case.modelled(world::run, &fit.params, &case.payloads(), SEEDS);
    for ((batch, router), world) in case.batch.iter().zip(routers).zip(worlds) {
        print!("| {} | {} |", case.name, batch.payload);
        for (_, of) in COLUMNS {
            print!(" {:.2} ({:.2}; {:.2}) |", of(&batch.measured), of(&router), of(&world));
        }
        let runs = SEEDS as f64;
        let (router, world) = (router.missed as f64 / runs, world.missed as f64 / runs);
        println!(" {} ({router:.1}; {world:.1}) |", batch.measured.missed);
    }
}

/// Its mean, and from where to where it goes.
fn mesh(counts: &[f64]) -> String {
    let least = counts.iter().position(|count| *count > 0.0).unwrap_or(0);
    format!("{:.2}, {least} to {}", mean(counts), counts.len().saturating_sub(1))
}
