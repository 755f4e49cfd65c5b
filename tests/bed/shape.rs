//! Limits of links: the arguments of `tbf` and `netem`, what the kernel has of them, and what passed them.

use waystation_topology::{Rate, Uplink};

use crate::spaces::{Names, Space};

/// What one frame takes at most.
const FRAME_BYTES: u64 = 1514;
/// What may pass at once: the rate over this long. Less, and timers that are late cost rate; more, and a short
/// transfer is faster than its link.
const BURST_MICROS: u64 = 4_000;
const BURST_FRAMES_MIN: u64 = 6;
/// How long a packet waits at most before a line; what comes then is dropped.
const LINE_QUEUE_MICROS: u64 = 50_000;
/// The same before a link of a LAN.
const LAN_QUEUE_MICROS: u64 = 10_000;
const QUEUE_FRAMES_MIN: u64 = 64;

/// Where a limit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queue {
    Line,
    Lan,
}

/// Limits what leaves by an interface.
#[track_caller]
pub fn limit(space: &Space, device: &str, rate: Rate, queue: Queue) {
    let micros = if queue == Queue::Line { LINE_QUEUE_MICROS } else { LAN_QUEUE_MICROS };
    let over = |micros: u64| rate.bits() / 8 * micros / 1_000_000;
    let burst = over(BURST_MICROS).max(BURST_FRAMES_MIN * FRAME_BYTES);
    let limit = burst + over(micros).max(QUEUE_FRAMES_MIN * FRAME_BYTES);
    let (rate, burst, limit) = (format!("{}bit", rate.bits()), burst.to_string(), limit.to_string());
    space.tc(&[
        "qdisc", "replace", "dev", device, "root", "tbf", "rate", &rate, "burst", &burst, "limit", &limit,
    ]);
}

/// Delays and loses what leaves by an interface.
#[track_caller]
pub fn bend(space: &Space, device: &str, uplink: Uplink) {
    // What is under way at the line's rate, and as much again.
    let frames = uplink.up.max(uplink.down).bits() / 8 * uplink.delay.micros() / 1_000_000 / FRAME_BYTES;
    let (delay, loss) = (format!("{}us", uplink.delay.micros()), format!("{}%", uplink.loss.ratio() * 100.0));
    let limit = (2 * frames).max(1000).to_string();
    space.tc(&[
        "qdisc", "replace", "dev", device, "root", "netem", "limit", &limit, "delay", &delay, "loss", &loss,
    ]);
}

/// Whether this kernel can delay and lose packets by itself.
pub fn has_netem() -> bool {
    let Ok(probe) = Space::new(&Names::new(), "probe") else { return false };
    probe.try_tc(&["qdisc", "add", "dev", "lo", "root", "netem", "delay", "1ms"]).is_ok()
}

/// Bytes that passed the limit of an interface, as frames on a wire: where several packets pass as one, each
/// is counted with its headers, which the interface's own counter does not do.
#[track_caller]
pub fn passed(space: &Space, device: &str) -> u64 {
    let told = space.tc(&["-s", "-j", "qdisc", "show", "dev", device, "root"]);
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    told[0]["bytes"].as_u64().unwrap_or_else(|| panic!("no count of bytes: {told}"))
}
