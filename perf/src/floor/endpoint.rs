//! One endpoint of a measurement, in a process of its own.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ringway_datapath::clock::Clock;
use ringway_datapath::config::{DatapathConfig, Placement, Threading};
use ringway_datapath::device::Device;
use ringway_datapath::event::EventQueue;
use ringway_datapath::floor::{DATAGRAM_BYTES, RawReceiver, RawSender};
use ringway_datapath::meta::TransmitMeta;
use ringway_datapath::open::open_devices;
use ringway_datapath::port::BoundPort;
use ringway_datapath::thread;
use ringway_types::{Ecn, PortId};

use super::args::{DatagramKind, FloorEndpointArgs, Layer, Role};
use super::sealing::{PAYLOAD_BYTES, Sealing};
use crate::output;

/// Not counted: caches, queues and the peer come up.
const WARM_UP: Duration = Duration::from_millis(200);
/// A receiver that nothing reaches has failed.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Slots that are sent together: about what a turn of a connection sends.
const MESSAGES_PER_TURN: usize = 4;
const SINGLES_PER_TURN: usize = 64;
const PORT: PortId = PortId(0);

pub(crate) fn run(args: &FloorEndpointArgs) -> Result<()> {
    if let Some(processor) = args.cpu {
        thread::pin(processor).with_context(|| format!("binding to processor {processor}"))?;
    }
    let config = args.config();
    let sealing = match args.datagrams {
        DatagramKind::Raw => None,
        DatagramKind::Sealed => Some(Sealing::new()?),
    };
    match (args.role, args.layer) {
        (Role::Sender, Layer::Kernel) => send_raw(&config, args.address, sealing),
        (Role::Sender, Layer::Device) => send_by_device(&config, args.address, sealing),
        (Role::Receiver, Layer::Kernel) => receive_raw(&config, args, sealing),
        (Role::Receiver, Layer::Device) => receive_by_device(&config, args, sealing),
    }
}

/// Fills datagrams that lie back to back.
fn fill(sealing: &mut Option<Sealing>, run: &mut [u8]) -> Result<()> {
    match sealing {
        None => Ok(()),
        Some(sealing) => run
            .chunks_exact_mut(DATAGRAM_BYTES)
            .try_for_each(|datagram| sealing.seal(datagram)),
    }
}

fn send_raw(config: &DatapathConfig, to: SocketAddr, mut sealing: Option<Sealing>) -> Result<()> {
    let mut sender = RawSender::open(config, to)?;
    let mut outcome = Ok(());
    while outcome.is_ok() {
        sender.send(&mut |run| outcome = fill(&mut sealing, run))?;
    }
    outcome
}

/// A device of one partition, with a port.
fn device(config: &DatapathConfig, local: SocketAddr) -> Result<(Device, EventQueue, SocketAddr)> {
    let threading = Threading {
        one_thread: true,
        ..Threading::default()
    };
    let mut device = open_devices(config, &[Placement::default()], threading)?
        .pop()
        .context("no device")?;
    let queue = EventQueue::new()?;
    device.register(&queue)?;
    let port = BoundPort::socket(local, config)?;
    let local = port.local_addr();
    let mut device = Device::from(device);
    device.attach(PORT, port)?;
    Ok((device, queue, local))
}

fn meta(remote: SocketAddr) -> TransmitMeta {
    TransmitMeta {
        port: PORT,
        remote,
        local_ip: None,
        ecn: Ecn::NotEct,
        segment_size: DATAGRAM_BYTES,
        sender: 0,
        probe_timeouts: 0,
    }
}

fn send_by_device(config: &DatapathConfig, to: SocketAddr, mut sealing: Option<Sealing>) -> Result<()> {
    let clock = Clock::shared();
    let local = SocketAddr::new([0, 0, 0, 0].into(), 0);
    let (mut device, _queue, _) = device(config, local)?;
    let meta = meta(to);
    // The answer to a greeting tells an AF_XDP device the way.
    let start = Instant::now();
    while device.receive(clock.now(), &mut |_| ControlFlow::Continue(()))? == 0 {
        ensure!(start.elapsed() < SILENCE_MAX, "no answer from {to}");
        if device.slot().is_some() {
            device.commit(clock.now(), &meta, 1);
        }
        device.flush();
        std::thread::park_timeout(Duration::from_millis(10));
    }
    let segments = device.capabilities().send_segments_max;
    let slots = match segments {
        1 => SINGLES_PER_TURN,
        _ => MESSAGES_PER_TURN,
    };
    loop {
        let now = clock.now();
        device.receive(now, &mut |_| ControlFlow::Continue(()))?;
        for _ in 0..slots {
            let Some(slot) = device.slot() else { break };
            let datagrams = segments.min(slot.len() / DATAGRAM_BYTES);
            ensure!(datagrams > 0, "datagrams of {DATAGRAM_BYTES} bytes do not fit");
            let len = datagrams * DATAGRAM_BYTES;
            fill(&mut sealing, &mut slot[..len])?;
            device.commit(now, &meta, len);
        }
        device.flush();
    }
}

/// Counts for a time from the end of the warm-up on, which begins with the first datagram.
struct Meter {
    sealing: Option<Sealing>,
    opened_at: Instant,
    warm: Option<Instant>,
    counting: bool,
    datagrams: u64,
    error: Option<anyhow::Error>,
}

impl Meter {
    fn new(sealing: Option<Sealing>) -> Self {
        Meter {
            sealing,
            opened_at: Instant::now(),
            warm: None,
            counting: false,
            datagrams: 0,
            error: None,
        }
    }

    fn take(&mut self, run: &mut [u8]) {
        for datagram in run.chunks_exact_mut(DATAGRAM_BYTES) {
            self.datagrams += 1;
            if let Some(sealing) = &mut self.sealing
                && let Err(error) = sealing.open(datagram)
            {
                self.error = Some(error);
            }
        }
    }

    /// Gbit/s when the time is over. The clock is read now and then only.
    fn figure(&mut self, time: Duration) -> Result<Option<f64>> {
        if let Some(error) = self.error.take() {
            bail!(error);
        }
        let now = Instant::now();
        let Some(warm) = self.warm else {
            ensure!(now - self.opened_at < SILENCE_MAX, "nothing arrives");
            self.warm = (self.datagrams > 0).then(|| now + WARM_UP);
            return Ok(None);
        };
        if !self.counting && now >= warm {
            self.counting = true;
            self.datagrams = 0;
            self.warm = Some(now);
        }
        if !self.counting || now - warm < time {
            return Ok(None);
        }
        let bytes = match self.sealing {
            Some(_) => PAYLOAD_BYTES,
            None => DATAGRAM_BYTES,
        };
        let bits = (self.datagrams * bytes as u64 * 8) as f64;
        Ok(Some(bits / (now - warm).as_secs_f64() / 1e9))
    }
}

/// Polls between two readings of the clock.
const POLLS: usize = 32;

fn receive_raw(config: &DatapathConfig, args: &FloorEndpointArgs, sealing: Option<Sealing>) -> Result<()> {
    let mut receiver = RawReceiver::open(config, args.address)?;
    output::print_line(&format!("LISTENING {}", receiver.local_addr()?))?;
    let mut meter = Meter::new(sealing);
    loop {
        for _ in 0..POLLS {
            receiver.receive(&mut |run| meter.take(run))?;
        }
        if let Some(figure) = meter.figure(args.time)? {
            return output::print_line(&figure.to_string());
        }
    }
}

fn receive_by_device(
    config: &DatapathConfig,
    args: &FloorEndpointArgs,
    sealing: Option<Sealing>,
) -> Result<()> {
    let clock = Clock::shared();
    let (mut device, _queue, local) = device(config, args.address)?;
    output::print_line(&format!("LISTENING {local}"))?;
    let mut meter = Meter::new(sealing);
    loop {
        for _ in 0..POLLS {
            let now = clock.now();
            let mut greeted = None;
            device.receive(now, &mut |burst| {
                let remote = burst.meta.remote;
                let data = burst.into_data();
                if data.len() < DATAGRAM_BYTES {
                    greeted = Some(remote);
                }
                meter.take(data);
                ControlFlow::Continue(())
            })?;
            if let Some(remote) = greeted
                && device.slot().is_some()
            {
                device.commit(now, &meta(remote), 1);
            }
            device.flush();
        }
        if let Some(figure) = meter.figure(args.time)? {
            return output::print_line(&figure.to_string());
        }
    }
}
