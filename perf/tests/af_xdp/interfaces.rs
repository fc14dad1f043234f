//! Interfaces on and below others: what the plan says of them, and what goes past the kernel there.

use std::time::Duration;

use libtest_mimic::Failed;
use ringway_perf::process;
use serde_json::Value;

use super::{AF_XDP, Namespaces, Outcome, RINGPERF, SOCKET, V4, check, count, end, passed, refused, with};

impl Namespaces {
    /// An upload to a server on this interface, as the server reports it.
    fn upload_to(&self, interface: &str, arguments: &[&str]) -> Result<Value, Failed> {
        let on_it = with(&["--datapath", "af_xdp", "--interface", interface], arguments);
        let server = self.server(V4.0, &on_it)?;
        self.client(V4.1, "upload", &["--bytes", "3000000"], &SOCKET)?;
        end(server)
    }

    fn plan(&self, interface: &str) -> Result<String, Failed> {
        let mut command = self.command('a', RINGPERF);
        Ok(process::run(command.args(["plan", "--interface", interface]))?)
    }

    fn plan_says(&self, interface: &str, what: &str) -> Outcome {
        let plan = self.plan(interface)?;
        check(plan.contains(what), || format!("{interface}: {plan}"))
    }

    fn set_offload(&self, side: char, offload: &str, value: &str) -> Outcome {
        let mut command = self.command(side, "ethtool");
        Ok(process::run(command.args(["-K", "rw0", offload, value])).map(drop)?)
    }

    /// Moves the server's address to an interface that is new.
    fn move_address(&self, to: &str) -> Outcome {
        self.ip('a', "addr flush dev rw0")?;
        self.ip('a', &format!("link set {to} up"))?;
        self.ip('a', &format!("addr add 10.9.0.1/24 dev {to}"))?;
        // The kernel answers for its other interfaces, too, unless it is told not to.
        process::run(
            self.command('a', "sh")
                .args(["-c", "echo 1 >/proc/sys/net/ipv4/conf/all/arp_ignore"]),
        )?;
        self.ip('b', "neigh flush all").map(drop)
    }
}

fn is_past_the_kernel(report: &Value) -> Outcome {
    let received = count(report, "received_datagrams");
    let past = count(report, "bypass_received_datagrams");
    check(received > 1000 && past * 10 >= received * 9, || {
        format!("{past} past the kernel: {report}")
    })
}

fn is_left_to_the_kernel(report: &Value) -> Outcome {
    let past = count(report, "bypass_received_datagrams");
    check(past == 0 && count(report, "received_datagrams") > 1000, || {
        format!("{past} past the kernel: {report}")
    })
}

pub(super) fn bridge_and_port() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    namespaces.ip('a', "link add br0 type bridge")?;
    namespaces.ip('a', "link set rw0 master br0")?;
    namespaces.move_address("br0")?;
    namespaces.plan_says("br0", "br0 is a bridge: XDP is generic on it")?;
    namespaces.plan_says("rw0", "rw0 is a port of the bridge br0")?;
    is_past_the_kernel(&namespaces.upload_to("br0", &[])?)?;
    // A bridge has the address of its first port, unless it has its own.
    is_past_the_kernel(&namespaces.upload_to("rw0", &["--xdp-attach", "native"])?)?;
    namespaces.ip('a', "link set br0 address 02:00:00:00:09:01")?;
    namespaces.ip('b', "neigh flush all")?;
    is_left_to_the_kernel(&namespaces.upload_to("rw0", &[])?)
}

/// The kernel joins datagrams of a socket that takes runs where they come in (GRO), before a program of an interface above sees them.
pub(super) fn datagrams_joined_below() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    namespaces.set_offload('a', "gro", "on")?;
    // veth asks for it of what comes from a socket only where the peer could not have cut runs itself.
    namespaces.set_offload('b', "tso", "off")?;
    // For so many nanoseconds it waits for more to join.
    process::run(
        namespaces
            .command('a', "sh")
            .args(["-c", "echo 2000000 >/sys/class/net/rw0/gro_flush_timeout"]),
    )?;
    namespaces.ip('a', "link add br0 type bridge")?;
    namespaces.ip('a', "link set rw0 master br0")?;
    namespaces.move_address("br0")?;
    is_past_the_kernel(&namespaces.upload_to("br0", &[])?)
}

/// The runs of a peer on another veth are cut into datagrams (GSO) by the kernel only, behind a program of the network stack.
pub(super) fn runs_that_nobody_has_cut() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    namespaces.set_offload('b', "tx-udp-segmentation", "on")?;
    let server = namespaces.server(V4.0, &with(&AF_XDP, &["--xdp-attach", "generic"]))?;
    namespaces.client(V4.1, "upload", &["--bytes", "3000000"], &["--datapath", "socket"])?;
    // Counts of the program are told twice a second, where something happens.
    std::thread::sleep(Duration::from_millis(600));
    namespaces.client(V4.1, "upload", &["--bytes", "3000000"], &["--datapath", "socket"])?;
    let report = end(server)?;
    check(passed(&report, "passed_too_long") > 10, || report.to_string())?;
    let received = count(&report, "received_datagrams");
    let past = count(&report, "bypass_received_datagrams");
    check(past * 10 < received && received > 1000, || report.to_string())
}

pub(super) fn macvlan() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    namespaces.ip('a', "link add mv0 link rw0 type macvlan mode bridge")?;
    namespaces.move_address("mv0")?;
    namespaces.plan_says("mv0", "mv0 is a macvlan: XDP is generic on it")?;
    is_past_the_kernel(&namespaces.upload_to("mv0", &[])?)?;
    is_left_to_the_kernel(&namespaces.upload_to("rw0", &[])?)
}

/// Not all drivers have what native XDP takes: veth wants as many queues to receive by as its peer has to send by.
pub(super) fn too_few_queues_for_native() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    process::run(
        namespaces
            .command('a', "ethtool")
            .args(["-L", "rw0", "rx", "1", "tx", "2"]),
    )?;
    namespaces.plan_says("rw0", "XDP is generic on it")?;
    let error = refused(
        namespaces
            .server(V4.0, &with(&AF_XDP, &["--xdp-attach", "native"]))
            .map(drop),
    )?;
    check(error.contains("too few queues for native XDP"), || error)?;
    is_past_the_kernel(&namespaces.upload_to("rw0", &[])?)
}

pub(super) fn another_program() -> Outcome {
    let namespaces = Namespaces::up(&["1500", "2"])?;
    let before = namespaces.plan("rw0")?;
    check(!before.contains("XDP program already"), || before)?;
    let server = namespaces.server(V4.0, &AF_XDP)?;
    namespaces.plan_says("rw0", "rw0 has an XDP program already, number ")?;
    namespaces.plan_says("rw0", "named ringway is of a process that runs")?;
    end(server)?;
    let after = namespaces.plan("rw0")?;
    check(!after.contains("XDP program already"), || after)
}
