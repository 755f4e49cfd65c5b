//! The fit, for people: measured beside modelled.

use waystation_sim::gossipsub::{
    figures::Figures,
    fit::{Case, Fit, mean},
};

/// Runs of the model, each with its own chances.
const SEEDS: u64 = 8;

pub fn print(fit: &Fit) {
    println!("\n{:#?}\n", fit.params);
    println!(
        "| case | payload | copies | hops to 50 % | 99 % | all | seconds to 99 % | asked | missed | bytes |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
    for case in &fit.case {
        print_case(fit, case);
    }
    println!("\n| case | in the mesh, mean | from to | idle bytes a second and node |");
    println!("| --- | ---: | ---: | ---: |");
    for case in &fit.case {
        let (_, modelled) = case.modelled(&fit.params, &case.payloads(), SEEDS);
        let measured: Vec<f64> = case.mesh.iter().map(|count| *count as f64).collect();
        let range = |counts: &[f64]| {
            format!(
                "{}-{}",
                counts.iter().position(|n| *n > 0.0).unwrap_or(0),
                counts.len().saturating_sub(1)
            )
        };
        println!(
            "| {} | {:.2} ({:.2}) | {} ({}) | {:.2} |",
            case.name,
            mean(&measured),
            mean(&modelled),
            range(&measured),
            range(&modelled),
            case.idle
        );
    }
}

fn print_case(fit: &Fit, case: &Case) {
    let (modelled, _) = case.modelled(&fit.params, &case.payloads(), SEEDS);
    for (batch, modelled) in case.batch.iter().zip(modelled) {
        let both = |of: fn(&Figures) -> f64| format!("{:.2} ({:.2})", of(&batch.measured), of(&modelled));
        let cells = [
            both(|f| f.copies),
            both(|f| f.hops_half),
            both(|f| f.hops_most),
            both(|f| f.hops_all),
            both(|f| f.seconds_most),
            both(|f| 100.0 * f.asked) + " %",
            format!("{} ({:.1})", batch.measured.missed, modelled.missed as f64 / SEEDS as f64),
            both(|f| f.control_frames),
            both(|f| f.bytes),
        ];
        println!("| {} | {} | {} |", case.name, batch.payload, cells.join(" | "));
    }
}
