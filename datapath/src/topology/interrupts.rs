//! Which interrupt tells of a receive queue's packets.

use std::path::PathBuf;
use std::{fs, io};

use super::netdev;
use crate::thread;

/// The interrupts of an interface's receive queues, and the processors that these go to.
#[derive(Debug, Default)]
pub(super) struct Interrupts(Vec<(u32, u32)>);

impl Interrupts {
    /// What the kernel says of an interface's queues, and by the names that drivers give interrupts where it does not.
    pub(super) fn read(interface: u32, driver: &str, devices: &[PathBuf]) -> Interrupts {
        let mut found: Vec<(u32, u32)> = netdev::queue_interrupts(interface)
            .unwrap_or_default()
            .into_iter()
            .filter_map(|(queue, irq)| Some((queue, irq?)))
            .collect();
        if found.is_empty() {
            let own = own_interrupts(devices).unwrap_or_default();
            let table = fs::read_to_string("/proc/interrupts").unwrap_or_default();
            let names = names(&table).filter(|(irq, _)| own.contains(irq));
            found = by_names(driver, names);
        }
        Interrupts(found)
    }

    pub(super) fn of(&self, queue: u32) -> Option<(u32, Vec<usize>)> {
        let (_, irq) = self.0.iter().find(|(of, _)| *of == queue)?;
        let processors = thread::read_cpulist(&format!("/proc/irq/{irq}/smp_affinity_list"));
        Some((*irq, processors.unwrap_or_default()))
    }
}

fn own_interrupts(devices: &[PathBuf]) -> io::Result<Vec<u32>> {
    let directory = devices
        .iter()
        .find_map(|device| fs::read_dir(device.join("msi_irqs")).ok())
        .ok_or(io::ErrorKind::NotFound)?;
    Ok(directory
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect())
}

/// The numbers and names of `/proc/interrupts`.
fn names(table: &str) -> impl Iterator<Item = (u32, &str)> {
    table.lines().filter_map(|line| {
        let (irq, rest) = line.split_once(':')?;
        Some((irq.trim().parse().ok()?, rest.split_whitespace().next_back()?))
    })
}

/// Receive queues and their interrupts, by the names of those.
fn by_names<'a>(driver: &str, names: impl Iterator<Item = (u32, &'a str)>) -> Vec<(u32, u32)> {
    let mut found: Vec<(u32, u32)> = names
        .filter_map(|(irq, name)| Some((receive_vector(name)?, irq)))
        .collect();
    found.sort_unstable();
    if driver == "gve" {
        // Its vectors serve the transmit queues first, and then as many receive queues.
        let first = found.len() as u32 / 2;
        found.retain(|(vector, _)| *vector >= first);
        found.iter_mut().for_each(|(vector, _)| *vector -= first);
    }
    found
}

/// The number of a vector that tells of received packets, by the name of its interrupt. Others end in digits too: one that tells of the link
/// may have the bare name of the interface.
fn receive_vector(name: &str) -> Option<u32> {
    let name = name.split('@').next()?.to_ascii_lowercase();
    let before = name.trim_end_matches(|c: char| c.is_ascii_digit());
    let has = |ends: &[&str]| ends.iter().any(|end| before.ends_with(end));
    let is_receiver = has(&RECEIVERS) && !has(&NO_RECEIVERS);
    is_receiver.then(|| name[before.len()..].parse().ok()).flatten()
}

/// What drivers put before the number of a vector that receives, in lower case: `eth0-TxRx-3`, `virtio2-input.0`, `mlx5_comp7`.
const RECEIVERS: [&str; 9] = [
    "-txrx-",
    "-tx-rx-",
    "-rxtx-",
    "-rx-",
    ":rx-",
    "-input.",
    "_comp",
    "-ntfy-blk",
    "-ntfy-block.",
];
/// What ends like them, and serves filters of the NIC (i40e, ice).
const NO_RECEIVERS: [&str; 2] = ["fdir-txrx-", "ctrl-txrx-"];

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines of `/proc/interrupts` of one device, of which only the first and the last column count.
    fn queues(driver: &str, names: &[&str]) -> Vec<(u32, u32)> {
        let lines: Vec<String> = (40..)
            .zip(names)
            .map(|(irq, name)| {
                format!(" {irq}:     123          0  PCI-MSIX-0000:41:00.0   0-edge      {name}\n")
            })
            .collect();
        let table = format!(
            "           CPU0       CPU1\n{}NMI:          0          0   Non-maskable interrupts\n",
            lines.concat()
        );
        by_names(driver, super::names(&table))
    }

    #[test]
    fn interrupts_of_receive_queues_are_found_by_the_names_that_drivers_give_them() {
        // As the sources of Linux 6.18 have them. The first of each is no queue's, though it may end in a digit.
        for (driver, names, expected) in [
            (
                "igb",
                &["nic0", "nic0-TxRx-0", "nic0-TxRx-1"][..],
                &[(0, 41), (1, 42)][..],
            ),
            (
                "igb",
                &["eth0", "eth0-rx-0", "eth0-tx-0", "eth0-rx-1", "eth0-tx-1"],
                &[(0, 41), (1, 43)],
            ),
            ("igc", &["enp3s0", "enp3s0-TxRx-0"], &[(0, 41)]),
            (
                "ixgbe",
                &["eth0", "eth0-TxRx-0", "eth0-TxRx-1"],
                &[(0, 41), (1, 42)],
            ),
            (
                "i40e",
                &[
                    "i40e-0000:41:00.0:misc",
                    "i40e-eth0-TxRx-0",
                    "i40e-eth0-TxRx-1",
                    "i40e-0000:41:00.0:fdir-TxRx-0",
                ],
                &[(0, 41), (1, 42)],
            ),
            (
                "ice",
                &[
                    "ice-0000:41:00.0:misc",
                    "ice-eth0-TxRx-0",
                    "ice-eth0-TxRx-1",
                    "ice-eth0-ctrl-TxRx-0",
                ],
                &[(0, 41), (1, 42)],
            ),
            (
                "mlx5_core",
                &[
                    "mlx5_async0@pci:0000:41:00.0",
                    "mlx5_comp0@pci:0000:41:00.0",
                    "mlx5_comp12@pci:0000:41:00.0",
                ],
                &[(0, 41), (12, 42)],
            ),
            (
                "ena",
                &["ena-mgmnt@pci:0000:00:05.0", "ens5-Tx-Rx-0", "ens5-Tx-Rx-1"],
                &[(0, 41), (1, 42)],
            ),
            (
                "gve",
                &[
                    "gve-mgmnt@pci:0000:00:04.0",
                    "gve-ntfy-blk0@pci:0000:00:04.0",
                    "gve-ntfy-blk1@pci:0000:00:04.0",
                    "gve-ntfy-blk2@pci:0000:00:04.0",
                    "gve-ntfy-blk3@pci:0000:00:04.0",
                ],
                // Blocks 0 and 1 are of transmit queues.
                &[(0, 43), (1, 44)],
            ),
            (
                "bnxt_en",
                &["eth0", "eth0-TxRx-0", "eth0-TxRx-1"],
                &[(0, 41), (1, 42)],
            ),
            ("bnxt_en", &["eth0", "eth0-rx-0", "eth0-tx-0"], &[(0, 41)]),
            (
                "virtio_net",
                &[
                    "virtio2-config",
                    "virtio2-input.0",
                    "virtio2-output.0",
                    "virtio2-input.1",
                    "virtio2-output.1",
                ],
                &[(0, 41), (1, 43)],
            ),
            (
                "vmxnet3",
                &["ens192-event-2", "ens192-rxtx-0", "ens192-rxtx-1"],
                &[(0, 41), (1, 42)],
            ),
            ("stmmac", &["eth0:mac", "eth0:rx-0", "eth0:tx-0"], &[(0, 41)]),
        ] {
            assert_eq!(queues(driver, names), expected, "{driver}: {names:?}");
        }
    }

    #[test]
    fn interrupt_of_the_link_is_no_queues_whatever_its_interface_is_called() {
        for name in [
            "nic0",
            "rx0",
            "comp1",
            "input0",
            "tx-0",
            "eth0-tx-0",
            "mlx5_async7@pci:0000:41:00.0",
            "",
            "-rx-",
        ] {
            assert_eq!(receive_vector(name), None, "{name:?}");
        }
    }
}
