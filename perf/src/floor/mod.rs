//! `ringperf floor`: the speed of light of this machine, now. Moves datagrams in one direction between two processes, straight on the
//! interface of the kernel and through the device that stands on it, as they are and copied and sealed, opened and copied: no protocol.
//!
//! Layers and datagrams take turns, so that what the machine does meanwhile meets all of them.

mod args;
mod endpoint;
mod sealing;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde::Serialize;

use self::args::Role;
pub(crate) use self::args::{DatagramKind, FloorArgs, FloorEndpointArgs, Layer};
pub(crate) use self::endpoint::run as run_endpoint;
pub(crate) use self::sealing::Sealing;
use crate::namespace::command_in;
use crate::options::Datapath;
use crate::output;
use crate::process::Process;
use crate::processors;
use crate::statistics::median;

/// Figures of a run, in Gbit/s: of UDP payload for raw datagrams, of what was opened for sealed ones.
#[derive(Debug, Serialize)]
struct FloorReport {
    rounds: u32,
    devices: BTreeMap<String, DeviceFloor>,
}

/// Medians, and what they are of.
#[derive(Debug, Default, Serialize)]
struct DeviceFloor {
    raw: LayerFigures,
    sealed: LayerFigures,
}

#[derive(Debug, Default, Serialize)]
struct LayerFigures {
    kernel: Vec<f64>,
    device: Vec<f64>,
    kernel_median: f64,
    device_median: f64,
    /// Of the device to the kernel's interface: the median of those of each round, as both were measured one after the other.
    ratio: f64,
}

impl LayerFigures {
    fn summarize(&mut self) {
        self.kernel_median = median(&self.kernel);
        self.device_median = median(&self.device);
        let pairs = self.device.iter().zip(&self.kernel);
        self.ratio = median(&pairs.map(|(device, kernel)| device / kernel).collect::<Vec<_>>());
    }
}

pub(crate) fn run(args: &FloorArgs) -> Result<()> {
    processors::pair(&args.cpus, "that of the sending end", "that of the receiving end")?;
    let mut devices: BTreeMap<String, DeviceFloor> = BTreeMap::new();
    for _ in 0..args.rounds {
        for datapath in args.datapaths() {
            let floor = devices.entry(name(datapath)).or_default();
            for (datagrams, figures) in [
                (DatagramKind::Raw, &mut floor.raw),
                (DatagramKind::Sealed, &mut floor.sealed),
            ] {
                figures
                    .kernel
                    .push(measure(args, datapath, Layer::Kernel, datagrams)?);
                figures
                    .device
                    .push(measure(args, datapath, Layer::Device, datagrams)?);
            }
        }
    }
    for floor in devices.values_mut() {
        floor.raw.summarize();
        floor.sealed.summarize();
    }
    let report = FloorReport {
        rounds: args.rounds,
        devices,
    };
    output::print_report(args.json, &report)
}

/// How long an endpoint may take to be ready, or to print its figure when the time is over.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Runs both endpoints once: Gbit/s.
pub(crate) fn measure(
    args: &FloorArgs,
    datapath: Datapath,
    layer: Layer,
    datagrams: DatagramKind,
) -> Result<f64> {
    run_endpoints(args, datapath, layer, datagrams)
        .with_context(|| format!("{} {layer:?} {datagrams:?}", name(datapath)))
}

fn run_endpoints(args: &FloorArgs, datapath: Datapath, layer: Layer, datagrams: DatagramKind) -> Result<f64> {
    let listen = SocketAddr::new(args.address, 0);
    let mut receiver = start(args, datapath, layer, datagrams, Role::Receiver, listen)?;
    let line = receiver.next_line(TIMEOUT)?.context("it does not start")?;
    let address: SocketAddr = line
        .strip_prefix("LISTENING ")
        .and_then(|address| address.parse().ok())
        .with_context(|| format!("it printed {line}"))?;
    let mut sender = start(args, datapath, layer, datagrams, Role::Sender, address)?;
    let figure = receiver.next_line(args.time + TIMEOUT);
    // Where the sender failed, the receiver can only say that nothing arrives.
    if let Some(reason) = sender.failure() {
        return Err(reason);
    }
    let figure = figure?.context("it does not end")?;
    figure.parse().with_context(|| format!("it printed {figure}"))
}

fn start(
    args: &FloorArgs,
    datapath: Datapath,
    layer: Layer,
    datagrams: DatagramKind,
    role: Role,
    address: SocketAddr,
) -> Result<Process> {
    let own = std::env::current_exe().context("finding this program")?;
    let (namespace, processor) = match role {
        Role::Sender => (&args.send_in, args.cpus.0.first()),
        Role::Receiver => (&args.receive_in, args.cpus.0.get(1)),
    };
    let mut command = command_in(namespace.as_deref(), own);
    let value = |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| {
        value()
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    };
    command.args(["floor-endpoint", &value(&|| role.to_possible_value())]);
    command.args(["--layer", &value(&|| layer.to_possible_value())]);
    command.args(["--datagrams", &value(&|| datagrams.to_possible_value())]);
    command.args(["--datapath", &name(datapath)]);
    command.args(["--address", &address.to_string()]);
    command.args(["--time", &humantime::format_duration(args.time).to_string()]);
    command.args(["--xdp-attach", &value(&|| args.xdp_attach.to_possible_value())]);
    if let Some(interface) = &args.interface {
        command.args(["--interface", interface]);
    }
    if let Some(processor) = processor {
        command.args(["--cpu", &processor.to_string()]);
    }
    Process::start(&mut command)
}

fn name(datapath: Datapath) -> String {
    let value = datapath.to_possible_value();
    value.map(|value| value.get_name().to_owned()).unwrap_or_default()
}

impl fmt::Display for FloorReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "Gbit/s, medians of {}   kernel alone      device   ratio",
            self.rounds
        )?;
        for (name, floor) in &self.devices {
            for (datagrams, figures) in [("raw", &floor.raw), ("copied and sealed", &floor.sealed)] {
                writeln!(
                    f,
                    "  {name:<9} {datagrams:<18} {:>10.2} {:>11.2} {:>7.2}",
                    figures.kernel_median, figures.device_median, figures.ratio
                )?;
            }
        }
        Ok(())
    }
}
