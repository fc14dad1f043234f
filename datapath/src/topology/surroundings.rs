//! What an interface stands on, what it is part of, and what else is attached to it: whether frames on it can pass the kernel by, and how.

use serde::Serialize;

/// What is around an interface. Read with the feature `af_xdp`, which is what it matters to.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Surroundings {
    /// The kind of a virtual interface, as `ip -d link` calls it: `bond`, `bridge`, `macvlan`, `veth`. `None`: a NIC, or loopback.
    pub kind: Option<String>,
    /// Name and kind of what it is a member of: a bond, a bridge.
    pub master: Option<(String, String)>,
    /// Its members, if it is a bond or a bridge.
    pub members: Vec<String>,
    /// The VLAN devices of the host on it.
    pub vlans: Vec<String>,
    /// The NIC takes the tags of VLANs off the frames that it receives, so that an XDP program does not see them.
    pub strips_tags: bool,
    /// The XDP program that is attached to it: its number.
    pub program: Option<u32>,
    /// That is the dispatcher of libxdp, which runs several. False, too, where the process may not look into the file system of BPF.
    pub is_dispatched: bool,
    /// Its driver runs XDP programs, and takes AF_XDP sockets without copies. `None`: the kernel does not say (before Linux 6.3).
    pub driver: Option<DriverXdp>,
}

/// What a driver can do for AF_XDP.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct DriverXdp {
    /// It runs XDP programs that redirect.
    pub native: bool,
    /// It reads and writes the memory of AF_XDP sockets.
    pub zero_copy: bool,
}

impl Surroundings {
    /// True for a bond. The kernel runs a program in the driver mode of a bond on its members, whose frames no AF_XDP socket of the bond takes.
    pub fn is_bond(&self) -> bool {
        self.kind.as_deref() == Some("bond")
    }

    /// True if its frames may come by other interfaces of this host, as those of bonds, bridges, VLAN devices and macvlans do: of virtual interfaces
    /// all but veth, and whatever has members.
    pub fn is_above_others(&self) -> bool {
        self.kind.as_deref().is_some_and(|kind| kind != "veth") || !self.members.is_empty()
    }

    /// What AF_XDP does not do on the interface of this name, does in another way than elsewhere, or leaves to the kernel: sentences for people.
    pub fn notes(&self, name: &str) -> Vec<String> {
        let mut notes = Vec::new();
        if self.is_dispatched {
            notes.push(format!(
                "{name} has XDP programs already, which libxdp's dispatcher runs (xdp-loader status {name}): ours is to be one of them, behind \
                 those that filter, in the mode that they have (with CAP_SYS_ADMIN and CAP_PERFMON)"
            ));
        } else if let Some(program) = self.program {
            notes.push(format!(
                "{name} has an XDP program already, number {program} (bpftool prog show id {program}): AF_XDP is refused beside it, and `auto` \
                 takes io_uring or sockets. Take that one off first (ip link set dev {name} xdp off; xdp-loader unload {name} --all); one that is \
                 named ringway is of a process that runs, and ends with it"
            ));
        }
        notes.extend(self.mode_note(name));
        if let Some((master, kind)) = &self.master {
            notes.push(match kind.as_str() {
                "bridge" => format!(
                    "{name} is a port of the bridge {master}: only frames to {name}'s own link address go past the kernel. Those of {master} do if \
                     it has the same (ip link set dev {master} address ...)"
                ),
                _ => format!(
                    "{name} is a member of the {kind} {master}: what comes by other members goes by the kernel's sockets"
                ),
            });
        }
        if self.strips_tags && !self.vlans.is_empty() {
            let vlans = self.vlans.join(", ");
            notes.push(format!(
                "{name} takes VLAN tags off what it receives, so that the XDP program cannot tell VLANs: the addresses of {vlans} are left to \
                 the kernel's sockets (ethtool -K {name} rxvlan off)"
            ));
        }
        notes
    }

    fn mode_note(&self, name: &str) -> Option<String> {
        let members = self.members.join(", ");
        match self.kind.as_deref() {
            Some("bond") => Some(format!(
                "{name} is a bond: XDP is generic on it, with copies. One of its members ({members}) can be served in its driver; what comes \
                 by the others goes by the kernel's sockets then"
            )),
            Some("bridge") => Some(format!(
                "{name} is a bridge: XDP is generic on it, with copies. One of its ports ({members}) can be served in its driver, if {name} has \
                 the link address of it"
            )),
            Some("vlan") => Some(format!(
                "{name} is a VLAN device: XDP is generic on it, with copies. The interface below it can be served, with the frames of this VLAN"
            )),
            Some("macvlan") => Some(format!(
                "{name} is a macvlan: XDP is generic on it, with copies. The kernel answers for it with the address of the interface below, too, \
                 unless net.ipv4.conf.all.arp_ignore is 1"
            )),
            _ => match self.driver? {
                DriverXdp { native: false, .. } => Some(format!(
                    "the driver of {name} runs no XDP programs: XDP is generic on it, with copies"
                )),
                DriverXdp { zero_copy: false, .. } => Some(format!(
                    "the driver of {name} takes no AF_XDP sockets without copies (EOPNOTSUPP): the kernel copies each frame"
                )),
                _ => None,
            },
        }
    }
}

#[cfg(feature = "af_xdp")]
pub(super) mod read {
    use std::env;
    use std::path::PathBuf;

    use netlink_packet_route::link::{LinkAttribute, LinkInfo, LinkMessage, LinkXdp};

    use super::super::{netdev, netlink, sys};
    use super::{DriverXdp, Surroundings};

    /// A link of this network namespace, as far as it matters here.
    #[derive(Default)]
    struct Link {
        index: u32,
        name: String,
        kind: Option<String>,
        below: Option<u32>,
        master: Option<u32>,
        program: Option<u32>,
    }

    impl Link {
        fn of(message: LinkMessage) -> Link {
            let mut link = Link {
                index: message.header.index,
                ..Link::default()
            };
            for attribute in message.attributes {
                match attribute {
                    LinkAttribute::IfName(name) => link.name = name,
                    LinkAttribute::Link(below) => link.below = Some(below),
                    LinkAttribute::Controller(master) => link.master = Some(master),
                    LinkAttribute::LinkInfo(infos) => {
                        link.kind = infos.iter().find_map(|info| match info {
                            LinkInfo::Kind(kind) => Some(kind.to_string()),
                            _ => None,
                        });
                    }
                    LinkAttribute::Xdp(xdp) => {
                        link.program = xdp.iter().find_map(|item| match item {
                            LinkXdp::ProgId(id) => Some(*id),
                            _ => None,
                        });
                    }
                    _ => {}
                }
            }
            link
        }
    }

    /// Where the kernel's file system of BPF is, as libxdp has it.
    pub(crate) fn bpf_files() -> PathBuf {
        env::var_os("LIBXDP_BPFFS").map_or_else(|| PathBuf::from("/sys/fs/bpf"), PathBuf::from)
    }

    /// libxdp pins the programs of its dispatchers there.
    fn is_dispatcher(interface: u32, program: u32) -> bool {
        bpf_files()
            .join(format!("xdp/dispatch-{interface}-{program}"))
            .is_dir()
    }

    impl Surroundings {
        /// What cannot be read is left out.
        pub(in crate::topology) fn read(index: u32, name: &str) -> Surroundings {
            let mut links = Vec::new();
            if let Err(error) = netlink::links(|message| links.push(Link::of(message))) {
                tracing::debug!(%error, "the links of this host cannot be read");
            }
            let mut found = Surroundings {
                strips_tags: sys::strips_tags(name),
                driver: netdev::xdp_features(index).ok().map(|features| DriverXdp {
                    native: features & netdev::XDP_REDIRECT != 0,
                    zero_copy: features & netdev::XDP_ZERO_COPY != 0,
                }),
                ..Surroundings::default()
            };
            let Some(itself) = links.iter().find(|link| link.index == index) else {
                return found;
            };
            let names =
                |is: &dyn Fn(&&Link) -> bool| links.iter().filter(is).map(|link| link.name.clone()).collect();
            found.kind.clone_from(&itself.kind);
            found.program = itself.program;
            found.is_dispatched = itself
                .program
                .is_some_and(|program| is_dispatcher(index, program));
            found.members = names(&|link| link.master == Some(index));
            // One of another namespace may have the same number below it.
            found.vlans = names(&|link| link.below == Some(index) && link.kind.as_deref() == Some("vlan"));
            let master = links.iter().find(|link| itself.master == Some(link.index));
            found.master =
                master.map(|master| (master.name.clone(), master.kind.clone().unwrap_or_default()));
            found
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(surroundings: Surroundings) -> String {
        surroundings.notes("eth7").join("\n")
    }

    #[test]
    fn nic_whose_driver_does_all_has_no_notes() {
        let driver = Some(DriverXdp {
            native: true,
            zero_copy: true,
        });
        let nic = Surroundings {
            strips_tags: true,
            driver,
            ..Surroundings::default()
        };
        assert_eq!(notes(nic), "");
        assert_eq!(notes(Surroundings::default()), "");
    }

    #[test]
    fn what_stands_in_the_way_is_said_with_what_to_do() {
        let driver = |native, zero_copy| Surroundings {
            driver: Some(DriverXdp { native, zero_copy }),
            ..Surroundings::default()
        };
        assert!(notes(driver(false, false)).contains("no XDP programs"));
        assert!(notes(driver(true, false)).contains("the kernel copies"));
        let bond = Surroundings {
            kind: Some("bond".to_owned()),
            members: vec!["eth0".to_owned(), "eth1".to_owned()],
            ..driver(true, true)
        };
        assert!(notes(bond.clone()).contains("One of its members (eth0, eth1)"));
        assert!(bond.is_bond() && bond.is_above_others());
        let of_kind = |kind: Option<&str>| Surroundings {
            kind: kind.map(str::to_owned),
            ..Surroundings::default()
        };
        assert!(of_kind(Some("vlan")).is_above_others());
        assert!(!of_kind(Some("veth")).is_above_others() && !of_kind(None).is_above_others());
        let program = Surroundings {
            program: Some(12),
            ..driver(true, true)
        };
        assert!(notes(program.clone()).contains("number 12"));
        let dispatched = Surroundings {
            is_dispatched: true,
            ..program
        };
        let dispatched = notes(dispatched);
        assert!(
            dispatched.contains("ours is to be one of them") && !dispatched.contains("refused"),
            "{dispatched}"
        );
        let port = Surroundings {
            master: Some(("br0".to_owned(), "bridge".to_owned())),
            ..driver(true, true)
        };
        assert!(notes(port).contains("a port of the bridge br0"));
        let member = Surroundings {
            master: Some(("bond0".to_owned(), "bond".to_owned())),
            ..driver(true, true)
        };
        assert!(notes(member).contains("a member of the bond bond0"));
        let tagged = |strips_tags| Surroundings {
            vlans: vec!["eth7.5".to_owned()],
            strips_tags,
            ..driver(true, true)
        };
        assert!(notes(tagged(true)).contains("ethtool -K eth7 rxvlan off"));
        assert_eq!(notes(tagged(false)), "");
    }
}
