//! A network interface: its queues, their interrupts, and how it spreads what it receives. From sysfs and ethtool.

use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;

use super::rss::Rss;
use super::sys;
use crate::thread;

/// A network interface.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Interface {
    /// As `ip link` shows it.
    pub name: String,
    /// The system's number.
    pub index: u32,
    /// Its driver, if it is of a device.
    pub driver: Option<String>,
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// The NUMA node that it is attached to, if the system says so.
    pub node: Option<usize>,
    /// Receive queues, by number.
    pub queues: Vec<Queue>,
    /// How it spreads datagrams over them, if it says so.
    pub rss: Option<Rss>,
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
        let interrupts = interrupts(&devices);
        let count = count(&directory.join("queues"), "rx-");
        // A driver may have more queues than it uses.
        let count = sys::channels(name)
            .filter(|&used| used > 0)
            .map_or(count, |used| used.min(count));
        Ok(Interface {
            index: number("ifindex").ok_or(io::ErrorKind::InvalidData)?,
            mtu: number("mtu").ok_or(io::ErrorKind::InvalidData)?,
            driver: driver.and_then(|path| Some(path.file_name()?.to_str()?.to_owned())),
            node,
            queues: (0..count)
                .map(|number| Queue {
                    number,
                    interrupt: interrupts
                        .iter()
                        .find(|(queue, ..)| *queue == number)
                        .map(|(_, irq, processors)| (*irq, processors.clone())),
                })
                .collect(),
            rss: sys::rss(name).map(|(key, table)| Rss { key, table }),
            name: name.to_owned(),
        })
    }
}

impl Interface {
    /// Leaves out all queues but these.
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

/// Receive queues with their interrupts and the processors that these go to.
fn interrupts(devices: &[PathBuf]) -> Vec<(u32, u32, Vec<usize>)> {
    let Some(own) = devices
        .iter()
        .find_map(|device| fs::read_dir(device.join("msi_irqs")).ok())
    else {
        return Vec::new();
    };
    let own: Vec<u32> = own
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect();
    let table = fs::read_to_string("/proc/interrupts").unwrap_or_default();
    receive_queues(&table)
        .filter(|(irq, _)| own.contains(irq))
        .map(|(irq, queue)| {
            let list = thread::read_cpulist(&format!("/proc/irq/{irq}/smp_affinity_list"));
            (queue, irq, list.unwrap_or_default())
        })
        .collect()
}

/// Interrupts and queues from `/proc/interrupts`: drivers name them `virtio2-input.0`, `eth0-TxRx-3`, `mlx5_comp7@pci:0000:41:00.0`.
fn receive_queues(table: &str) -> impl Iterator<Item = (u32, u32)> {
    table.lines().filter_map(|line| {
        let (irq, rest) = line.split_once(':')?;
        let irq = irq.trim().parse().ok()?;
        let name = rest
            .split_whitespace()
            .next_back()?
            .split('@')
            .next()?
            .to_ascii_lowercase();
        let no_receiver = name.contains("output")
            || name.contains("async")
            || (name.contains("tx") && !name.contains("rx"));
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let queue = name[name.len() - digits..].parse().ok()?;
        (!no_receiver).then_some((irq, queue))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_of_receive_queues_are_found_by_the_names_that_drivers_give_them() {
        let table = "           CPU0       CPU1\n\
             37:          0          0 PCI-MSIX-0000:00:03.0   0-edge      virtio2-config\n\
             38:          0       9325 PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0\n\
             39:       7267          0 PCI-MSIX-0000:00:03.0   2-edge      virtio2-output.0\n\
             50:          1          0 PCI-MSIX-0000:41:00.0   0-edge      mlx5_async0@pci:0000:41:00.0\n\
             51:          1          0 PCI-MSIX-0000:41:00.0   1-edge      mlx5_comp12@pci:0000:41:00.0\n\
             60:          1          0 IR-PCI-MSI 524288-edge      ens5-Tx-Rx-3\n\
             61:          1          0 IR-PCI-MSI 524288-edge      eth0-tx-4\n\
            NMI:          0          0   Non-maskable interrupts\n";
        let found: Vec<_> = receive_queues(table).collect();
        assert_eq!(found, [(38, 0), (51, 12), (60, 3)]);
    }

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
        for name in ["", "..", "lo/../lo", "no such"] {
            let error = Interface::read(name).unwrap_err();
            assert!(error.to_string().contains("lo"), "{error}");
        }
    }
}
