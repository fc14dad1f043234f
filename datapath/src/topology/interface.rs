//! A network interface: its queues, their interrupts, and how it spreads what it receives. From sysfs and ethtool.

use std::path::Path;
use std::{fs, io};

use serde::Serialize;

use super::interrupts::Interrupts;
use super::rss::Rss;
use super::surroundings::Surroundings;
use super::sys;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Interface {
    /// As `ip link` shows it.
    pub name: String,
    /// The system's number.
    pub index: u32,
    /// Its driver, if it is of a device.
    pub driver: Option<String>,
    /// What its frames are.
    pub link: LinkKind,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// The NUMA node that it is attached to, if the system says so.
    pub node: Option<usize>,
    /// Receive queues, by number.
    pub queues: Vec<Queue>,
    /// How many the driver can have at most, if it says so.
    pub queues_max: Option<u32>,
    /// How many transmit queues the network stack has.
    pub transmit_queues: u32,
    /// How it spreads datagrams over them, if it says so.
    pub rss: Option<Rss>,
    /// What it is part of, and what else is attached to it.
    pub surroundings: Surroundings,
}

/// What frames of an interface are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum LinkKind {
    /// Ethernet.
    Ethernet,
    /// Ethernet in form, within this host.
    Loopback,
    /// Another link, or a tunnel of IP packets.
    Other,
}

/// A receive queue.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Queue {
    /// As AF_XDP counts.
    pub number: u32,
    /// The interrupt that tells of its packets, and the processors that it may go to, where they can be found.
    pub interrupt: Option<(u32, Vec<usize>)>,
}

impl Interface {
    /// Reads what the system says of an interface.
    ///
    /// # Errors
    ///
    /// Kind `NotFound`: this network namespace has no such interface; the error lists those that there are. Kind `InvalidData`: the kernel says
    /// neither its number nor its MTU, as one that goes at this moment.
    pub fn read(name: &str) -> io::Result<Interface> {
        // A name is a file name below; it must not lead elsewhere.
        let directory = Path::new("/sys/class/net").join(name);
        if name.is_empty() || name.contains('/') || name.starts_with('.') || !directory.exists() {
            let known = names().join(", ");
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("there is no interface {name:?}; there are: {known}"),
            ));
        }
        let number = |file: &str| {
            fs::read_to_string(directory.join(file))
                .ok()?
                .trim()
                .parse::<u32>()
                .ok()
        };
        // Of a virtual function behind a bus of its own (virtio), interrupts and node are the parent's.
        let devices = [directory.join("device"), directory.join("device/..")];
        let node = devices.iter().find_map(|device| {
            let node: i64 = fs::read_to_string(device.join("numa_node"))
                .ok()?
                .trim()
                .parse()
                .ok()?;
            // -1: the firmware does not say.
            usize::try_from(node).ok()
        });
        let driver = fs::read_link(directory.join("device/driver")).ok();
        let driver = driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let index = number("ifindex").ok_or(io::ErrorKind::InvalidData)?;
        let interrupts = Interrupts::read(index, driver.as_deref().unwrap_or_default(), &devices);
        let queues = directory.join("queues");
        let receive_queues = count(&queues, "rx-");
        // A driver may have more queues than it uses.
        let receive_queues = sys::channels(name)
            .filter(|&used| used > 0)
            .map_or(receive_queues, |used| used.min(receive_queues));
        Ok(Interface {
            index,
            link: match number("type") {
                Some(ARPHRD_ETHER) => LinkKind::Ethernet,
                Some(ARPHRD_LOOPBACK) => LinkKind::Loopback,
                _ => LinkKind::Other,
            },
            mtu: number("mtu").ok_or(io::ErrorKind::InvalidData)?,
            driver,
            node,
            queues: (0..receive_queues)
                .map(|number| Queue {
                    number,
                    interrupt: interrupts.of(number),
                })
                .collect(),
            queues_max: sys::channels_max(name),
            transmit_queues: count(&queues, "tx-"),
            rss: sys::rss(name),
            #[cfg(feature = "af_xdp")]
            surroundings: Surroundings::read(index, name),
            #[cfg(not(feature = "af_xdp"))]
            surroundings: Surroundings::default(),
            name: name.to_owned(),
        })
    }
}

impl Interface {
    /// The driver has this receive queue only while it has an XDP program, as virtio_net has some: the network stack sends by no queue of this
    /// number.
    #[cfg(feature = "af_xdp")]
    pub(crate) fn is_of_program(&self, queue: u32) -> bool {
        self.adds_queues() && queue >= self.transmit_queues
    }

    /// Its driver may have more receive queues with an XDP program than without.
    pub(crate) fn adds_queues(&self) -> bool {
        self.driver.as_deref() == Some("virtio_net")
    }

    /// Leaves out all queues but these.
    ///
    /// # Errors
    ///
    /// Kind `InvalidInput`: the interface has no queue of that number; the error lists those that it has. None is left out then.
    pub fn retain_queues(&mut self, wanted: &[u32]) -> io::Result<()> {
        let there: Vec<u32> = self.queues.iter().map(|queue| queue.number).collect();
        if let Some(missing) = wanted.iter().find(|number| !there.contains(number)) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{} has no receive queue {missing}; it has {there:?}", self.name),
            ));
        }
        self.queues.retain(|queue| wanted.contains(&queue.number));
        Ok(())
    }
}

/// linux/if_arp.h
const ARPHRD_ETHER: u32 = 1;
const ARPHRD_LOOPBACK: u32 = 772;

/// Interfaces of this network namespace.
fn names() -> Vec<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn count(directory: &Path, prefix: &str) -> u32 {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
        .count() as u32
}

/// The number of the interface that has this name now.
#[cfg(feature = "af_xdp")]
pub(crate) fn index(interface: &str) -> Option<u32> {
    let number = fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
    number.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_that_are_named_are_kept_and_others_must_not_be_named() {
        let mut lo = Interface::read("lo").unwrap();
        assert!(lo.retain_queues(&[7]).unwrap_err().to_string().contains("[0]"));
        lo.retain_queues(&[0]).unwrap();
        assert_eq!(lo.queues.len(), 1);
    }

    #[test]
    fn loopback_is_read_and_what_is_no_interface_is_refused() {
        let lo = Interface::read("lo").unwrap();
        assert_eq!((lo.index, lo.queues.len(), lo.driver), (1, 1, None));
        assert_eq!(lo.link, LinkKind::Loopback);
        for name in ["", "..", "lo/../lo", "no such"] {
            let error = Interface::read(name).unwrap_err();
            assert!(error.to_string().contains("lo"), "{error}");
        }
    }
}
