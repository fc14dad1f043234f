//! What is compared: stacks, the ways they have to the network, and which of them take turns in a scenario.

use std::fmt;

use clap::ValueEnum;
use ringway_perf_protocol::Scenario;
use serde::{Deserialize, Serialize};

use crate::floor::DatagramKind;
use crate::options::Api;

/// Whose programs run.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Stack {
    /// This one, in all its modes
    Ringway,
    /// Microsoft's, in C
    Msquic,
    /// In Rust, on tokio
    Quinn,
    /// Amazon's, in Rust, on tokio
    S2nQuic,
    /// Cloudflare's, in Rust
    Quiche,
    /// Tencent's, in Rust
    Tquic,
    /// TLS over the kernel's TCP: for reference, no QUIC
    TlsTcp,
    /// Datagrams without a protocol: what this machine moves at most
    Floor,
}

impl Stack {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Stack::Ringway => "Ringway",
            Stack::Msquic => "MsQuic",
            Stack::Quinn => "quinn",
            Stack::S2nQuic => "s2n-quic",
            Stack::Quiche => "quiche",
            Stack::Tquic => "tquic",
            Stack::TlsTcp => "TLS/TCP",
            Stack::Floor => "floor",
        }
    }

    /// The program of a stack that is not ours, and the package that gives it its version.
    pub(crate) fn peer(self) -> Option<(&'static str, &'static str)> {
        match self {
            Stack::Ringway | Stack::Floor => None,
            Stack::Msquic => Some(("msquic-peer", "msquic")),
            Stack::Quinn => Some(("quinn-peer", "quinn")),
            Stack::S2nQuic => Some(("s2n-quic-peer", "s2n-quic")),
            Stack::Quiche => Some(("quiche-peer", "quiche")),
            Stack::Tquic => Some(("tquic-peer", "tquic")),
            Stack::TlsTcp => Some(("tls-tcp-peer", "rustls")),
        }
    }

    /// Whether it is what Ringway is measured against.
    pub(crate) fn is_quic_peer(self) -> bool {
        self.peer().is_some() && self != Stack::TlsTcp
    }

    /// Why it has no part in a scenario with such handshakes; `None`: it has one.
    pub(crate) fn lacks(self, scenario: Scenario, handshakes: Handshakes) -> Option<&'static str> {
        let needed = |ability| match ability {
            Ability::ResumeEachTime => handshakes.resumed,
            Ability::ZeroRtt => scenario == Scenario::LatencyZeroRtt,
            Ability::PostQuantum => handshakes.group == Group::X25519Mlkem768,
            Ability::Protocol => !scenario.is_bulk(),
        };
        let lacking = CANNOT.iter().copied();
        lacking
            .filter(|(stack, ability, _)| *stack == self && needed(*ability))
            .map(|(_, _, reason)| reason)
            .next()
    }
}

/// What not every stack can do.
#[derive(Clone, Copy)]
enum Ability {
    /// Connections one after the other, each of which resumes the session of the one before.
    ResumeEachTime,
    ZeroRtt,
    /// X25519MLKEM768.
    PostQuantum,
    /// Connections, requests and responses.
    Protocol,
}

/// What stacks, or their programs here, cannot do, and why.
const CANNOT: [(Stack, Ability, &str); 7] = [
    (
        Stack::S2nQuic,
        Ability::ResumeEachTime,
        "its server gives no ticket on a connection that has resumed a session, so every second handshake would be a full one",
    ),
    (Stack::S2nQuic, Ability::ZeroRtt, "it has no 0-RTT"),
    (
        Stack::TlsTcp,
        Ability::ResumeEachTime,
        "its program here resumes no sessions",
    ),
    (
        Stack::TlsTcp,
        Ability::ZeroRtt,
        "its program here resumes no sessions",
    ),
    (
        Stack::Tquic,
        Ability::PostQuantum,
        "it has no setting for the group of the key exchange",
    ),
    (
        Stack::Msquic,
        Ability::PostQuantum,
        "the OpenSSL that it is built with does not know X25519MLKEM768",
    ),
    (
        Stack::Floor,
        Ability::Protocol,
        "it moves datagrams one way, and knows no connections and no requests",
    ),
];

/// How connections of a scenario are set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Handshakes {
    /// Each resumes the session of the connection before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resumed: bool,
    #[serde(default, skip_serializing_if = "Group::is_usual")]
    pub group: Group,
}

/// Of the key exchange, the same at both ends.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub(crate) enum Group {
    /// X25519; P-256 between ends of s2n-quic, which prefers it
    #[default]
    X25519,
    /// X25519 and ML-KEM-768 together
    X25519Mlkem768,
}

impl Group {
    fn is_usual(&self) -> bool {
        *self == Group::X25519
    }
}

/// What lies between server and client.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum NetworkKind {
    /// The loopback interface
    Loopback,
    /// A pair of virtual interfaces between two network namespaces, which passes runs of datagrams on in one piece
    Veth,
    /// The same, with each datagram by itself, as on a NIC without segmentation
    VethSingle,
}

impl NetworkKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            NetworkKind::Loopback => "Loopback",
            NetworkKind::Veth => "veth",
            NetworkKind::VethSingle => "veth, each datagram by itself",
        }
    }

    pub(crate) fn is_in_namespaces(self) -> bool {
        self != NetworkKind::Loopback
    }
}

/// A datapath, and of AF_XDP where the XDP program runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) enum DatapathKind {
    #[serde(rename = "socket")]
    Socket,
    #[serde(rename = "io_uring")]
    IoUring,
    /// The XDP program is in the network stack.
    #[serde(rename = "af_xdp-generic")]
    XdpGeneric,
    /// It is in the driver.
    #[serde(rename = "af_xdp-native")]
    XdpNative,
}

impl DatapathKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            DatapathKind::Socket => "socket",
            DatapathKind::IoUring => "io_uring",
            DatapathKind::XdpGeneric => "XDP generic",
            DatapathKind::XdpNative => "XDP native",
        }
    }

    /// The datapath whose floor it stands on: io_uring moves datagrams through the same sockets.
    pub(crate) fn floor(self) -> DatapathKind {
        match self {
            DatapathKind::IoUring => DatapathKind::Socket,
            datapath => datapath,
        }
    }
}

/// A stack in one of its modes, which takes turns with others.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Contender {
    pub stack: Stack,
    /// Of Ringway and of the floor; the other stacks have only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datapath: Option<DatapathKind>,
    /// What Ringway's ends are written with.
    #[serde(default, skip_serializing_if = "is_callback")]
    pub api: Api,
    /// Threads look for work for a while before they sleep, at both ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub polling: bool,
    /// Of the floor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub datagrams: Option<DatagramKind>,
}

fn is_callback(api: &Api) -> bool {
    *api == Api::Callback
}

impl fmt::Display for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.stack.name())?;
        if let Some(datapath) = self.datapath {
            write!(f, " {}", datapath.name())?;
        }
        if let Some(datagrams) = self.datagrams {
            f.write_str(match datagrams {
                DatagramKind::Raw => ", raw",
                DatagramKind::Sealed => ", sealed",
            })?;
        }
        f.write_str(self.variety())
    }
}

impl Contender {
    /// The contender of a stack that has only one.
    pub(crate) fn of(stack: Stack) -> Self {
        Contender {
            stack,
            datapath: None,
            api: Api::Callback,
            polling: false,
            datagrams: None,
        }
    }

    /// What tells it from those that wait as they come and are written with handlers.
    pub(crate) fn variety(&self) -> &'static str {
        match (self.api, self.polling) {
            (Api::Callback, false) => "",
            (Api::Callback, true) => ", polling",
            (Api::Async, false) => ", tasks",
            (Api::Async, true) => ", tasks, polling",
            (Api::AsyncThreads, false) => ", tasks on another thread",
            (Api::AsyncThreads, true) => ", tasks on another thread, polling",
        }
    }

    /// How it is called where its stack is known.
    pub(crate) fn mode(&self) -> String {
        let name = self.to_string();
        let mode = name.trim_start_matches(self.stack.name());
        mode.trim_start().to_owned()
    }
}

/// The contenders of a scenario, in the order of their turns.
pub(crate) fn contenders(
    network: NetworkKind,
    scenario: Scenario,
    stacks: &[Stack],
    apis: &[Api],
) -> Vec<Contender> {
    let one_by_one = network == NetworkKind::VethSingle;
    let xdp = |datapath| one_by_one.then_some(datapath);
    let mut contenders = Vec::new();
    for stack in stacks {
        let contender = Contender::of(*stack);
        match stack {
            Stack::Ringway => {
                let datapaths = [DatapathKind::Socket, DatapathKind::IoUring].into_iter();
                let datapaths = datapaths
                    .chain(xdp(DatapathKind::XdpGeneric))
                    .chain(xdp(DatapathKind::XdpNative));
                for (datapath, api) in
                    datapaths.flat_map(|datapath| apis.iter().map(move |api| (datapath, *api)))
                {
                    let as_it_comes = Contender {
                        datapath: Some(datapath),
                        api,
                        ..contender
                    };
                    contenders.push(as_it_comes);
                    if gains_from_polling(datapath, scenario) {
                        contenders.push(Contender {
                            polling: true,
                            ..as_it_comes
                        });
                    }
                }
            }
            Stack::Floor => {
                let datapaths = [DatapathKind::Socket].into_iter();
                let datapaths = datapaths
                    .chain(xdp(DatapathKind::XdpGeneric))
                    .chain(xdp(DatapathKind::XdpNative));
                for datapath in datapaths {
                    for datagrams in [DatagramKind::Raw, DatagramKind::Sealed] {
                        let (datapath, datagrams) = (Some(datapath), Some(datagrams));
                        contenders.push(Contender {
                            datapath,
                            datagrams,
                            ..contender
                        });
                    }
                }
            }
            _ => contenders.push(contender),
        }
    }
    contenders
}

/// Latencies do on every datapath; past the kernel's sockets so does all that data flows in, as each wake-up is for few packets there.
fn gains_from_polling(datapath: DatapathKind, scenario: Scenario) -> bool {
    match datapath {
        DatapathKind::Socket | DatapathKind::IoUring => scenario == Scenario::Latency,
        DatapathKind::XdpGeneric | DatapathKind::XdpNative => {
            !matches!(scenario, Scenario::Hps | Scenario::Idle)
        }
    }
}

/// In the order in which people ask for them.
pub(crate) const SCENARIOS: [Scenario; 7] = [
    Scenario::Download,
    Scenario::Upload,
    Scenario::Rps,
    Scenario::RpsMulti,
    Scenario::Latency,
    Scenario::Hps,
    Scenario::Idle,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn af_xdp_is_tried_where_each_datagram_comes_by_itself() {
        let count = |network, scenario| {
            let able = |stack: &Stack| stack.lacks(scenario, Handshakes::default()).is_none();
            let stacks: Vec<_> = Stack::value_variants().iter().copied().filter(able).collect();
            contenders(network, scenario, &stacks, &[Api::Callback]).len()
        };
        assert_eq!(count(NetworkKind::Loopback, Scenario::Rps), 2 + 6);
        assert_eq!(count(NetworkKind::Veth, Scenario::Download), 2 + 6 + 2);
        assert_eq!(count(NetworkKind::VethSingle, Scenario::Upload), 6 + 6 + 6);
        assert_eq!(count(NetworkKind::VethSingle, Scenario::Hps), 4 + 6);
        assert_eq!(count(NetworkKind::VethSingle, Scenario::Latency), 8 + 6);
    }

    #[test]
    fn lanes_have_names_and_can_be_stored() {
        let all = contenders(
            NetworkKind::VethSingle,
            Scenario::Latency,
            Stack::value_variants(),
            &[Api::Callback],
        );
        assert_eq!(all[5].to_string(), "Ringway XDP generic, polling");
        assert_eq!(all[5].mode(), "XDP generic, polling");
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Contender>>(&text).unwrap(), all);
    }

    #[test]
    fn tasks_take_turns_with_handlers_where_they_are_asked_for() {
        let all = contenders(
            NetworkKind::Loopback,
            Scenario::Rps,
            &[Stack::Ringway, Stack::Quinn],
            &[Api::Callback, Api::Async],
        );
        let names: Vec<_> = all.iter().map(Contender::to_string).collect();
        assert_eq!(
            names,
            [
                "Ringway socket",
                "Ringway socket, tasks",
                "Ringway io_uring",
                "Ringway io_uring, tasks",
                "quinn"
            ]
        );
        let text = serde_json::to_string(&all).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Contender>>(&text).unwrap(), all);
    }

    #[test]
    fn stack_has_no_part_in_what_it_cannot_do_and_in_all_else_it_has() {
        let all = Stack::value_variants().iter();
        let lacking = |scenario, handshakes| -> Vec<_> {
            let stacks = all
                .clone()
                .filter(|stack| stack.lacks(scenario, handshakes).is_some());
            stacks.copied().collect()
        };
        let resumed = Handshakes {
            resumed: true,
            ..Handshakes::default()
        };
        let post_quantum = Handshakes {
            group: Group::X25519Mlkem768,
            ..Handshakes::default()
        };
        let without = [Stack::S2nQuic, Stack::TlsTcp, Stack::Floor];
        assert_eq!(lacking(Scenario::Hps, resumed), without);
        assert_eq!(lacking(Scenario::LatencyZeroRtt, Handshakes::default()), without);
        assert_eq!(
            lacking(Scenario::Download, post_quantum),
            [Stack::Msquic, Stack::Tquic]
        );
        assert_eq!(lacking(Scenario::Hps, Handshakes::default()), [Stack::Floor]);
        assert_eq!(lacking(Scenario::Upload, Handshakes::default()), []);
    }
}
