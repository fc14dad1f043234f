//! Which devices are made, and why not others.

use std::io;

#[cfg(feature = "af_xdp")]
use crate::af_xdp::AfXdpDevice;
use crate::config::{Backend, DatapathConfig, Placement, Threading};
use crate::contract::DeviceBackend;
use crate::io_uring::IoUringDevice;
use crate::local::LocalDevice;
use crate::socket::SocketDevice;
use crate::thread;

/// A device for each partition, of the kind that `config` asks for.
///
/// # Errors
///
/// The kind of device that is named cannot be had, and the error says what is missing: a privilege, a feature of the kernel or of this build, an
/// interface, a queue that nobody else has. With [`Backend::Auto`]: not even sockets can.
pub fn open_devices(
    config: &DatapathConfig,
    partitions: &[Placement],
    threading: Threading,
) -> io::Result<Vec<LocalDevice>> {
    let mut devices = match config.backend {
        Backend::AfXdp => af_xdp(config, partitions, threading),
        Backend::IoUring => each(partitions, || io_uring(config, threading)),
        Backend::Socket => each(partitions, || socket(config)),
        Backend::Auto => auto(config, partitions, threading),
    }?;
    let without_filter = devices
        .iter_mut()
        .filter(|device| device.source_filter().is_none());
    if !config.af_xdp.source_rules.is_empty() {
        without_filter.for_each(|device| {
            tracing::warn!("{RULES_NOT_APPLIED}");
            device.add_note(RULES_NOT_APPLIED.to_owned());
        });
    }
    Ok(devices)
}

const RULES_NOT_APPLIED: &str = "the source rules are not applied: they are AF_XDP's, and what this datapath receives the host's firewall \
                                 (nftables) has seen";

fn auto(
    config: &DatapathConfig,
    partitions: &[Placement],
    threading: Threading,
) -> io::Result<Vec<LocalDevice>> {
    let mut refused = Vec::new();
    let mut refuse = |kind: &str, error: io::Error| {
        tracing::info!(%error, "datapath: not {kind}");
        refused.push(format!("{kind}: {error}"));
    };
    let devices = if config.af_xdp.interface.is_some() {
        af_xdp(config, partitions, threading)
            .map_err(|error| refuse("af_xdp", error))
            .ok()
    } else {
        None
    };
    let devices = devices.or_else(|| {
        each(partitions, || io_uring(config, threading))
            .map_err(|error| refuse("io_uring", error))
            .ok()
    });
    let mut devices = match devices {
        Some(devices) => devices,
        None => each(partitions, || socket(config))?,
    };
    for device in &mut devices {
        refused.iter().for_each(|note| device.add_note(note.clone()));
    }
    Ok(devices)
}

fn each(
    partitions: &[Placement],
    open: impl Fn() -> io::Result<LocalDevice>,
) -> io::Result<Vec<LocalDevice>> {
    let near = |partition: &Placement| thread::with_preferred_node(partition.node, &open);
    partitions.iter().map(near).collect()
}

fn socket(config: &DatapathConfig) -> io::Result<LocalDevice> {
    SocketDevice::new(config).map(LocalDevice::Socket)
}

fn io_uring(config: &DatapathConfig, threading: Threading) -> io::Result<LocalDevice> {
    IoUringDevice::new(config, threading.one_thread).map(LocalDevice::IoUring)
}

#[cfg(feature = "af_xdp")]
fn af_xdp(
    config: &DatapathConfig,
    partitions: &[Placement],
    threading: Threading,
) -> io::Result<Vec<LocalDevice>> {
    let devices = AfXdpDevice::open(config, partitions, threading)?;
    Ok(devices.into_iter().map(LocalDevice::AfXdp).collect())
}

#[cfg(not(feature = "af_xdp"))]
fn af_xdp(_: &DatapathConfig, _: &[Placement], _: Threading) -> io::Result<Vec<LocalDevice>> {
    Err(io::Error::new(
        io::ErrorKind::Unsupported,
        "this program was built without AF_XDP (the feature `af_xdp`)",
    ))
}
