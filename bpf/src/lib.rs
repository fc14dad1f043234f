//! The XDP program that hands datagrams to AF_XDP sockets, loaded, and the maps that steer it.
//!
//! Which packets it takes is decided by [`XdpProgram::add_endpoint`] alone: UDP datagrams to one of these addresses and ports, unfragmented and
//! well-formed, not longer than the sockets take, in frames to the interface's own address. All else goes to the kernel as if it were not there. Of
//! what it takes, rules for sources ([`XdpProgram::set_source`]) leave some to the kernel, or drop it. Loading needs CAP_BPF and CAP_NET_ADMIN.

mod counters;
mod refusal;
mod sources;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use ipnet::IpNet;
pub use libbpf_rs;
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, ProgramInput};

use self::counters::{COUNTER_BYTES, into_io, sum_of};
use self::sources::{Families, SourceRules};
pub use self::sources::{SOURCE_RULES_MAX, SourceAction};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/xdp.bpf.o"));

/// What became of a packet. In the order of `enum verdict` of `xdp.bpf.c`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Verdict {
    /// It went to the AF_XDP socket of its queue.
    Redirected,
    /// To the kernel: neither IPv4 nor IPv6.
    PassNotIp,
    /// To the kernel: another transport than UDP.
    PassNotUdp,
    /// To the kernel, which puts datagrams together: a fragment.
    PassFragment,
    /// To the kernel, which counts it: with lengths that contradict each other, or with a wrong checksum of the IPv4 header.
    PassMalformed,
    /// To the kernel: shorter than its headers say. A NIC may have put the rest into another buffer.
    PassCutOff,
    /// To the kernel: another address or port.
    PassNotOurs,
    /// To the kernel: ours, but its queue has no AF_XDP socket.
    PassNoSocket,
    /// To the kernel: a frame to a group, or to another host.
    PassOtherHost,
    /// To the kernel: of a VLAN that this host does not have on the interface, or more than two tags.
    PassOtherVlan,
    /// To the kernel: with IPv4 options, or with IPv6 extension headers.
    PassOptions,
    /// To the kernel: from an address or port that nobody may answer to (RFC 1122 section 3.2.1.3), or from a link-local one within a VLAN.
    PassSource,
    /// To the kernel: ours, but by a rule for where it comes from.
    PassRule,
    /// To the kernel: ours, but longer than [`XdpProgram::set_packet_max`] says.
    PassTooLong,
    /// Dropped: ours, but by a rule for where it comes from.
    DropRule,
}

impl Verdict {
    /// All of them, in order.
    pub const ALL: [Verdict; 15] = [
        Verdict::Redirected,
        Verdict::PassNotIp,
        Verdict::PassNotUdp,
        Verdict::PassFragment,
        Verdict::PassMalformed,
        Verdict::PassCutOff,
        Verdict::PassNotOurs,
        Verdict::PassNoSocket,
        Verdict::PassOtherHost,
        Verdict::PassOtherVlan,
        Verdict::PassOptions,
        Verdict::PassSource,
        Verdict::PassRule,
        Verdict::PassTooLong,
        Verdict::DropRule,
    ];
}

/// The name of the program in the kernel.
pub const PROGRAM_NAME: &str = "ringway";
/// The most receive queues of an interface: entries of the maps `sockets` and `processors`.
pub const QUEUES_MAX: u32 = 512;
/// Bytes of `struct endpoint`: address, port in network order, two of zero.
const ENDPOINT_BYTES: usize = 20;
/// Bytes of `struct link`: a link-layer address, and four numbers of two bytes: not zero for the loopback interface, and where there are rules for
/// sources of IPv4 and of IPv6; and the longest IP packets that are taken.
const LINK_BYTES: usize = 14;
const IS_LOOPBACK: usize = 6;
const HAS_RULES_V4: usize = 8;
const HAS_RULES_V6: usize = 10;
const PACKET_MAX: usize = 12;
/// Bytes of `struct tags`: two numbers, in network order.
const TAGS_BYTES: usize = 4;
/// In the place of an inner tag where there is none.
const NO_TAG: u16 = 0xffff;

/// A VLAN of this host: the number of its tag, and of the inner one if it is a VLAN within another.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Vlan {
    /// The tag behind the addresses.
    pub outer: u16,
    /// The tag behind that.
    pub inner: Option<u16>,
}

/// The program in the kernel, with its maps. Dropped, it is gone, unless it is attached.
pub struct XdpProgram {
    object: Object,
    program: OwnedFd,
    endpoints: MapHandle,
    link: MapHandle,
    /// What is in that map.
    link_value: Mutex<[u8; LINK_BYTES]>,
    sources: SourceRules,
    vlans: MapHandle,
    sockets: MapHandle,
    verdicts: MapHandle,
    processors: MapHandle,
}

impl std::fmt::Debug for XdpProgram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("XdpProgram")
    }
}

impl XdpProgram {
    /// Loads the program. An error says what is missing.
    ///
    /// # Errors
    ///
    /// The kernel does not load it: which of the privileges CAP_NET_ADMIN and CAP_BPF this process lacks, or else the last words of the verifier.
    pub fn load() -> io::Result<Self> {
        Self::load_by(|object| object.load().map_err(into_io))
    }

    /// The same by what also attaches it: a dispatcher of several programs, of which this is to be one.
    ///
    /// # Errors
    ///
    /// As [`XdpProgram::load`], and what `load` itself gives.
    pub fn load_by(load: impl FnOnce(OpenObject) -> io::Result<Object>) -> io::Result<Self> {
        let object = refusal::with_words(|| {
            let object = ObjectBuilder::default().open_memory(OBJECT).map_err(into_io)?;
            load(object)
        })?;
        let map = |name: &str, key: usize, value: usize| {
            let map = object.maps().find(|map| map.name() == name);
            let map = map.ok_or_else(|| io::Error::other(format!("the BPF object has no map {name}")))?;
            if (map.key_size() as usize, map.value_size() as usize) != (key, value) {
                return Err(io::Error::other(format!(
                    "the map {name} has another layout than this code"
                )));
            }
            MapHandle::try_from(&map).map_err(into_io)
        };
        let program = object
            .progs()
            .next()
            .ok_or_else(no_program)?
            .as_fd()
            .try_clone_to_owned()?;
        let mut link_value = [0; LINK_BYTES];
        link_value[PACKET_MAX..PACKET_MAX + 2].copy_from_slice(&u16::MAX.to_ne_bytes());
        Ok(XdpProgram {
            program,
            endpoints: map("endpoints", ENDPOINT_BYTES, 4)?,
            link: map("link", 4, LINK_BYTES)?,
            link_value: Mutex::new(link_value),
            sources: SourceRules::new(map)?,
            vlans: map("vlans", TAGS_BYTES, 4)?,
            sockets: map("sockets", 4, 4)?,
            verdicts: map("verdicts", 4, COUNTER_BYTES)?,
            processors: map("processors", 4, COUNTER_BYTES)?,
            object,
        })
    }

    /// Takes datagrams to this address and port from now on. The address must be one, not the unspecified one: the kernel may forward
    /// what goes to others.
    ///
    /// # Errors
    ///
    /// Kind `InvalidInput`: the address is the unspecified one: add each local address. Others: the map is full.
    pub fn add_endpoint(&self, local: SocketAddr) -> io::Result<()> {
        if local.ip().is_unspecified() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("{local}: name each local address, not the unspecified one"),
            ));
        }
        self.endpoints
            .update(&endpoint(local), &1u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(into_io)
    }

    /// Leaves datagrams to this address and port to the kernel again.
    ///
    /// # Errors
    ///
    /// Kind `NotFound`: it was not taken.
    pub fn remove_endpoint(&self, local: SocketAddr) -> io::Result<()> {
        self.endpoints.delete(&endpoint(local)).map_err(into_io)
    }

    /// Takes frames to this address, the interface's own, and no others. On the loopback interface, loopback addresses may be their source.
    ///
    /// # Errors
    ///
    /// The kernel refuses; the program goes on with what it had.
    pub fn set_link(&self, address: [u8; 6], is_loopback: bool) -> io::Result<()> {
        self.change_link(|value| {
            value[..6].copy_from_slice(&address);
            value[IS_LOOPBACK] = is_loopback.into();
        })
    }

    /// Leaves IP packets of more bytes than this to the kernel from now on: the sockets have no room for them, or they are several datagrams in one.
    ///
    /// # Errors
    ///
    /// As [`XdpProgram::set_link`].
    pub fn set_packet_max(&self, bytes: u16) -> io::Result<()> {
        self.change_link(|value| value[PACKET_MAX..PACKET_MAX + 2].copy_from_slice(&bytes.to_ne_bytes()))
    }

    fn change_link(&self, change: impl FnOnce(&mut [u8; LINK_BYTES])) -> io::Result<()> {
        let mut known = self.link_value.lock().unwrap_or_else(PoisonError::into_inner);
        let mut value = *known;
        change(&mut value);
        self.link
            .update(&0u32.to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(into_io)?;
        *known = value;
        Ok(())
    }

    /// Does this with datagrams to our endpoints that come from a prefix, from now on, unless there is a rule for a longer prefix that they come from.
    /// The counter of a prefix that had a rule before goes on.
    ///
    /// # Errors
    ///
    /// The map is full, or the kernel refuses: the rule is not in force.
    pub fn set_source(&self, prefix: IpNet, action: SourceAction) -> io::Result<()> {
        self.sources
            .set(prefix, action)
            .and_then(|families| self.tell_of_rules(families))
    }

    /// Takes the rule for a prefix back.
    ///
    /// # Errors
    ///
    /// The kernel refuses: the rule may be in force yet.
    pub fn remove_source(&self, prefix: IpNet) -> io::Result<()> {
        self.sources
            .remove(prefix)
            .and_then(|families| self.tell_of_rules(families))
    }

    /// How many datagrams the rule for a prefix has been applied to since it was set; `None` if there is none.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub fn source_count(&self, prefix: IpNet) -> io::Result<Option<u64>> {
        self.sources.count(prefix)
    }

    /// The program looks for rules of a family only if there are some.
    fn tell_of_rules(&self, families: Families) -> io::Result<()> {
        self.change_link(|value| {
            value[HAS_RULES_V4] = families.v4.into();
            value[HAS_RULES_V6] = families.v6.into();
        })
    }

    /// Takes frames of a VLAN from now on.
    ///
    /// # Errors
    ///
    /// The map is full, or the kernel refuses.
    pub fn add_vlan(&self, vlan: Vlan) -> io::Result<()> {
        self.vlans
            .update(&tags(vlan), &1u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(into_io)
    }

    /// Leaves frames of a VLAN to the kernel again.
    ///
    /// # Errors
    ///
    /// Kind `NotFound`: they were not taken.
    pub fn remove_vlan(&self, vlan: Vlan) -> io::Result<()> {
        self.vlans.delete(&tags(vlan)).map_err(into_io)
    }

    /// Gives datagrams that come in on a receive queue to the AF_XDP socket that is bound to that queue: at one that is bound to another, or to none,
    /// which the kernel does not check here, they are lost. The kernel takes the socket out by itself when it is closed.
    ///
    /// # Errors
    ///
    /// There is no such queue in the map, or the socket is none of AF_XDP.
    pub fn set_socket(&self, queue: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        self.sockets
            .update(
                &queue.to_ne_bytes(),
                &socket.as_raw_fd().to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(into_io)
    }

    /// Leaves all datagrams to the kernel until there are sockets again.
    ///
    /// # Errors
    ///
    /// The kernel does not take one out; those of higher queues may still be there.
    pub fn remove_sockets(&self) -> io::Result<()> {
        // It is no error that there is none of a queue.
        (0..QUEUES_MAX).try_for_each(|queue| self.sockets.delete(&queue.to_ne_bytes()).map_err(into_io))
    }

    /// Packets by what became of them, over all processors, since the program was loaded.
    ///
    /// # Errors
    ///
    /// The kernel does not tell.
    pub fn counters(&self) -> io::Result<[(Verdict, u64); Verdict::ALL.len()]> {
        let mut counters = Verdict::ALL.map(|verdict| (verdict, 0));
        for (index, (_, count)) in counters.iter_mut().enumerate() {
            *count = sum_of(&self.verdicts, index as u32)?;
        }
        Ok(counters)
    }

    /// For each of [`QUEUES_MAX`] receive queues eight bytes, in the machine's order: the processor that served it when the last datagram to an
    /// endpoint came, plus one; zero before. To be mapped into memory, where the program changes them at any time.
    pub fn processors(&self) -> BorrowedFd<'_> {
        self.processors.as_fd()
    }

    /// The program itself, to attach it.
    pub fn program(&self) -> BorrowedFd<'_> {
        self.program.as_fd()
    }

    /// Runs the program on a frame of at least 14 bytes, without any interface, and gives what it answers: `XDP_DROP` is 1, `XDP_PASS` is 2,
    /// `XDP_REDIRECT` is 4.
    ///
    /// # Errors
    ///
    /// The kernel refuses: the frame is too short or too long, or the process lacks CAP_BPF.
    pub fn run(&self, frame: &[u8]) -> io::Result<u32> {
        let program = self.object.progs_mut().next().ok_or_else(no_program)?;
        let input = ProgramInput {
            data_in: Some(frame),
            ..ProgramInput::default()
        };
        program
            .test_run(input)
            .map(|output| output.return_value)
            .map_err(into_io)
    }
}

fn no_program() -> io::Error {
    io::Error::other("the BPF object has no program")
}

fn endpoint(local: SocketAddr) -> [u8; ENDPOINT_BYTES] {
    let address = match local.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    let mut key = [0; ENDPOINT_BYTES];
    key[..16].copy_from_slice(&address.octets());
    key[16..18].copy_from_slice(&local.port().to_be_bytes());
    key
}

fn tags(vlan: Vlan) -> [u8; TAGS_BYTES] {
    let [a, b] = vlan.outer.to_be_bytes();
    // As it stands in the C code, in the machine's order: it reads the same either way.
    let [c, d] = vlan.inner.unwrap_or(NO_TAG).to_be_bytes();
    [a, b, c, d]
}
