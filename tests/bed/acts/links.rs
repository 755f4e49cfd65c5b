//! The testbed looks at itself: what TCP gets of each kind of link, and what the far line does to packets.
//! No node runs.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::mpsc::sync_channel,
    thread,
    time::{Duration, Instant},
};

use waystation_topology::{Place, Rate, Topology};

use crate::{
    case::{Goal, Outcome, Scene, Skipped, topology_file},
    network::{Network, address},
};

pub const GOALS: &[(&str, Goal)] = &[
    ("TCP into the site / raw rate", Goal::Between(0.9, 1.0)),
    ("TCP out of the site / raw rate", Goal::Between(0.9, 1.0)),
    ("TCP on the LAN / raw rate", Goal::Between(0.9, 1.0)),
    ("TCP of 511 Mbit/s / raw rate", Goal::Between(0.9, 1.0)),
    ("far line: round trip", Goal::Between(39.0, 50.0)),
    ("far line: packets lost", Goal::Between(0.05, 0.4)),
];

const ORIGIN: Place = Place { site: 0, node: 0 };
const NEAR: Place = Place { site: 1, node: 0 };
const NEIGHBOUR: Place = Place { site: 1, node: 1 };
/// After the first part, which fills queues and finds the rate.
const MEASURED: Duration = Duration::from_secs(4);
const RUN_UP: Duration = Duration::from_secs(1);
const PORT: u16 = 9000;
/// Round trips, and packets sent to see how many are lost (there and back).
const PINGS: usize = 50;
const PACKETS: usize = 20_000;

pub fn act(scene: &Scene) -> Result<Outcome, Skipped> {
    let mut outcome = Outcome::default();
    let network = Network::build(scene.topology.clone()).map_err(Skipped)?;
    let site = &scene.topology.sites[NEAR.site];
    for (name, from, to, rate) in [
        ("TCP into the site / raw rate", ORIGIN, NEAR, site.uplink.down),
        ("TCP out of the site / raw rate", NEAR, ORIGIN, site.uplink.up),
        ("TCP on the LAN / raw rate", NEIGHBOUR, NEAR, site.lan.rate),
    ] {
        outcome.add(name, tcp(&network, from, to, rate), "");
    }
    drop(network);
    let load = |name| Topology::load(&topology_file(name)).map_err(|error| Skipped(error.to_string()));
    let fast = load("three-holders.toml")?;
    let rate = fast.sites[ORIGIN.site].uplink.up;
    let network = Network::build(fast).map_err(Skipped)?;
    let reader = Place { site: 3, node: 0 };
    outcome.add("TCP of 511 Mbit/s / raw rate", tcp(&network, ORIGIN, reader, rate), "");
    drop(network);
    let far = load("far-site.toml")?;
    let rate = far.sites[NEAR.site].uplink.down;
    let network = Network::build(far).map_err(Skipped)?;
    let (round_trip, lost) = udp(&network, ORIGIN, NEAR);
    outcome.add("far line: round trip", round_trip, "ms");
    outcome.add("far line: packets lost", lost, "%");
    outcome.add("far line: TCP into the site / raw rate", tcp(&network, ORIGIN, NEAR, rate), "");
    if network.has_own_wires() {
        outcome.marks.push("delay and loss by the testbed, not by netem".to_owned());
    }
    Ok(outcome)
}

/// Bytes of content over the raw rate.
fn tcp(network: &Network, from: Place, to: Place, rate: Rate) -> f64 {
    let (ready, is_ready) = sync_channel(1);
    thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            network.space(to).on(|| {
                let listener = TcpListener::bind((address(to), PORT)).unwrap();
                ready.send(()).unwrap();
                let (mut stream, _) = listener.accept().unwrap();
                let mut buffer = vec![0; 1 << 18];
                let (start, mut counted) = (Instant::now(), 0_u64);
                let mut began = None;
                while start.elapsed() < RUN_UP + MEASURED {
                    let length = stream.read(&mut buffer).unwrap();
                    if start.elapsed() >= RUN_UP {
                        counted += began.map_or(0, |_| length as u64);
                        began.get_or_insert_with(Instant::now);
                    }
                }
                counted as f64 / began.unwrap().elapsed().as_secs_f64()
            })
        });
        is_ready.recv().unwrap();
        network.space(from).on(|| {
            let mut stream = TcpStream::connect((address(to), PORT)).unwrap();
            let bytes = vec![7; 1 << 18];
            // Ends when the receiver has seen enough and closes.
            while stream.write_all(&bytes).is_ok() {}
        });
        receiver.join().unwrap() / rate.bytes()
    })
}

/// The median round trip in milliseconds, and the part of packets lost one way, in percent.
fn udp(network: &Network, from: Place, to: Place) -> (f64, f64) {
    let socket = |place: Place, space: Place| {
        network.space(space).on(|| {
            let socket = UdpSocket::bind((address(place), PORT)).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
            socket
        })
    };
    let (here, there) = (socket(from, from), socket(to, to));
    here.connect((address(to), PORT)).unwrap();
    let echo = thread::spawn(move || {
        let mut buffer = [0; 64];
        // Nothing for a second, and it is over.
        while let Ok((length, peer)) = there.recv_from(&mut buffer) {
            let _ = there.send_to(&buffer[..length], peer);
        }
    });
    let mut buffer = [0; 64];
    let mut trips: Vec<f64> = (0..PINGS)
        .filter_map(|_| {
            let start = Instant::now();
            here.send(&[1; 32]).unwrap();
            here.recv(&mut buffer).ok().map(|_| start.elapsed().as_secs_f64() * 1e3)
        })
        .collect();
    trips.sort_by(f64::total_cmp);
    let mut back = 0;
    here.set_nonblocking(true).unwrap();
    for sent in 0..PACKETS {
        here.send(&[2; 32]).unwrap();
        if sent % 20 == 0 {
            // Well below the rate of the line.
            thread::sleep(Duration::from_millis(2));
        }
        while here.recv(&mut buffer).is_ok() {
            back += 1;
        }
    }
    here.set_nonblocking(false).unwrap();
    while here.recv(&mut buffer).is_ok() {
        back += 1;
    }
    echo.join().unwrap();
    let both_ways = 1.0 - f64::from(back) / PACKETS as f64;
    (trips.get(trips.len() / 2).copied().unwrap_or(f64::NAN), both_ways / 2.0 * 100.0)
}
