//! Nodes that know of many artifacts and do nothing.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    case::{Outcome, Scene, Skipped},
    fleet::{Fleet, REPOSITORY},
    harness::{
        image::{Image, MANIFEST_TYPE, to_bytes},
        wait::until_within,
    },
    usage::Usage,
};

const ARTIFACTS: usize = 5_000;
const ARTIFACTS_QUICK: usize = 500;
const PUSHERS: usize = 4;
/// What the publishing set off is over after this long: nodes that found one another by it end the sessions that they do
/// not need after five idle minutes, a few at a time.
const SETTLED: Duration = Duration::from_secs(480);
const SETTLED_QUICK: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(900);
const MONTH_SECONDS: f64 = 30.0 * 86_400.0;

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    let fleet = scene.fleet(&[])?;
    let artifacts = if scene.quick { ARTIFACTS_QUICK } else { ARTIFACTS };
    publish(&fleet, artifacts);
    eprintln!("{artifacts} artifacts are published; waiting until {} nodes know them", fleet.members().len());
    // Not the records: what a node tells its site is not known at others.
    for (number, member) in fleet.members().iter().enumerate() {
        fleet.on(number, || {
            until_within(PATIENCE, "a node knows all tags", || {
                let answer = member
                    .node
                    .registry()
                    .http
                    .get(&format!("/v2/{REPOSITORY}/tags/list"))
                    .try_send()
                    .ok()?;
                let tags = answer.json()["tags"].as_array()?.len();
                (tags > artifacts).then_some(())
            });
        });
    }
    eprintln!("they do; waiting until they have settled");
    let known = fleet.crossed();
    let settled = if scene.quick { SETTLED_QUICK } else { SETTLED };
    thread::sleep(settled);
    eprintln!("watching");
    let look = || {
        let nodes = fleet
            .members()
            .iter()
            .map(|member| (fleet.network.node_bytes(member.place), Usage::of(member.node.pid())));
        (fleet.crossed(), nodes.collect::<Vec<_>>(), Instant::now())
    };
    let before = look();
    thread::sleep(scene.idle);
    let after = look();
    let seconds = (after.2 - before.2).as_secs_f64();
    let settling: Vec<f64> = (1..known.len())
        .map(|site| before.0[site].since(known[site]))
        .map(|crossed| (crossed.up + crossed.down) as f64 / 1e3)
        .collect();
    let lines: Vec<f64> = (1..before.0.len())
        .map(|site| after.0[site].since(before.0[site]))
        .map(|crossed| (crossed.up + crossed.down) as f64 / seconds * MONTH_SECONDS / 1e6)
        .collect();
    let links = after.1.iter().zip(&before.1).map(|(a, b)| (a.0 - b.0) as f64 * 8.0 / seconds / 1e3);
    let links: Vec<f64> = links.skip(1).collect();
    let cpus = after.1.iter().zip(&before.1).map(|(a, b)| (a.1.cpu - b.1.cpu) / seconds * 100.0);
    let cpus: Vec<f64> = cpus.collect();
    let mut outcome = Outcome::default();
    outcome.add("artifacts known", artifacts as f64, "");
    outcome.add("WAN of a site while settling", most(&settling), "kB");
    outcome.add("settled for", settled.as_secs_f64(), "s");
    outcome.add("watched for", seconds, "s");
    outcome.add("WAN of a site in 30 days", most(&lines), "MB");
    outcome.add("LAN of a node", most(&links), "kbit/s");
    outcome.add("CPU of a node", most(&cpus), "%");
    outcome.add("CPU of a node, mean", cpus.iter().sum::<f64>() / cpus.len() as f64, "%");
    let rss = after.1.iter().map(|node| node.1.rss).fold(0.0, f64::max);
    outcome.add("RSS of a node, peak", rss / 1_048_576.0, "MiB");
    outcome.marks.push("the worst site and node; all bytes of all protocols".to_owned());
    scene.mark(&fleet, &mut outcome);
    Ok(outcome)
}

/// So many artifacts, with the same blobs: what is known matters, not what is held.
fn publish(fleet: &Fleet, artifacts: usize) {
    let image = Image::random(1, &[1000]);
    fleet.publish("first", &image);
    let push = |pusher: usize| {
        let registry = fleet.members()[0].node.registry();
        for number in (pusher..artifacts).step_by(PUSHERS) {
            let mut manifest: serde_json::Value = serde_json::from_slice(&image.manifest).unwrap();
            manifest["annotations"] = json!({"number": number.to_string()});
            let (target, body) = (format!("/v2/{REPOSITORY}/manifests/n{number}"), to_bytes(&manifest));
            let put = registry.http.request("PUT", &target).header("Content-Type", MANIFEST_TYPE);
            put.body(&body).send().expect(201);
        }
    };
    fleet.on(0, || {
        thread::scope(|scope| {
            (0..PUSHERS).for_each(|pusher| drop(scope.spawn(move || push(pusher))));
        });
    });
}

fn most(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
