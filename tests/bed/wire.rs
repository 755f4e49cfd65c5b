//! A line that delays and loses packets, for kernels without `netem`: two TUN devices in two namespaces, and
//! threads of this process that carry packets from one to the other.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tun_rs::{DeviceBuilder, InterruptEvent, SyncDevice};
use waystation_topology::Uplink;

use crate::spaces::Space;

/// What a TUN device hands out at most.
const PACKET_BYTES: usize = 1600;
/// Packets on the way in one direction. The limit before the line keeps them below; beyond it they are lost.
const PACKETS_MAX: usize = 32_768;

/// One line. Dropping it ends its threads and its devices.
pub struct Wire {
    stop: Arc<InterruptEvent>,
    threads: Vec<JoinHandle<()>>,
    /// Packets that found the wire full.
    pub overflowed: Arc<AtomicU64>,
}

impl Wire {
    /// Makes a device in each namespace, down and without an address, and joins them.
    pub fn new(ends: [(&Space, &str); 2], uplink: Uplink, seed: u64) -> io::Result<Self> {
        let [near, far] = ends;
        let (near, far) = (device(near)?, device(far)?);
        let stop = Arc::new(InterruptEvent::new()?);
        let mut wire = Wire { stop, threads: vec![], overflowed: Arc::default() };
        wire.carry(near.clone(), far.clone(), uplink, seed);
        wire.carry(far, near, uplink, seed ^ 1);
        Ok(wire)
    }

    fn carry(&mut self, from: Arc<SyncDevice>, to: Arc<SyncDevice>, uplink: Uplink, seed: u64) {
        let (sender, receiver) = sync_channel(PACKETS_MAX);
        let (stop, overflowed) = (self.stop.clone(), self.overflowed.clone());
        self.threads.push(thread::spawn(move || take(&from, &stop, &sender, uplink, seed, &overflowed)));
        self.threads.push(thread::spawn(move || hand_over(&to, &receiver)));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        let _ = self.stop.trigger();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A packet on the way, and when it arrives.
type Packet = (Instant, Vec<u8>);

/// Takes packets in at one end, or loses them, until told to stop.
fn take(
    from: &SyncDevice,
    stop: &InterruptEvent,
    sender: &SyncSender<Packet>,
    uplink: Uplink,
    seed: u64,
    overflowed: &AtomicU64,
) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut buffer = [0; PACKET_BYTES];
    loop {
        match from.recv_intr(&mut buffer, stop) {
            Ok(length) => {
                if random.u64(..1_000_000) < uplink.loss.millionths() {
                    continue;
                }
                let due = Instant::now() + uplink.delay.duration();
                if sender.try_send((due, buffer[..length].to_vec())).is_err() {
                    overflowed.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return,
            // Down, or not up yet.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Hands packets out at the other end when they are due; all wait equally long, so they stay in order.
fn hand_over(to: &SyncDevice, receiver: &Receiver<Packet>) {
    for (due, packet) in receiver {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Lost where the device is down.
        let _ = to.send(&packet);
    }
}

fn device((space, name): (&Space, &str)) -> io::Result<Arc<SyncDevice>> {
    space.on(|| DeviceBuilder::new().name(name).inherit_enable_state().build_sync()).map(Arc::new)
}
