//! What the XDP program makes of packets: one by one, run by the kernel without an interface.
//!
//! Reported as ignored, with the reason, where the process may not load programs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::sync::Mutex;

use libtest_mimic::{Arguments, Failed, Trial};
use ringway_bpf::Verdict::{
    DropRule, PassCutOff, PassFragment, PassMalformed, PassNoSocket, PassNotIp, PassNotOurs, PassNotUdp,
    PassOptions, PassOtherHost, PassOtherVlan, PassRule, PassSource, PassTooLong, Redirected,
};
use ringway_bpf::{SourceAction, Verdict, Vlan, XdpProgram};
use socket2::{Domain, Socket, Type};

const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;
const XDP_REDIRECT: u32 = 4;
const AF_XDP: i32 = 44;
const PORT: u16 = 4433;
const OURS_V4: [u8; 4] = [192, 0, 2, 1];
const OURS_V6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const ARP: u16 = 0x0806;
const VLAN: u16 = 0x8100;
const SERVICE_VLAN: u16 = 0x88a8;

const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMP: u8 = 1;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The interface's address.
const LINK: [u8; 6] = [0x02, 0, 0, 0, 0, 1];

fn ethernet(tags: &[u16], protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = [LINK, [0x02, 0, 0, 0, 0, 2]].concat();
    for tag in tags {
        frame.extend(tag.to_be_bytes());
        frame.extend([0, 7]);
    }
    frame.extend(protocol.to_be_bytes());
    frame.extend(payload);
    frame
}

fn udp_datagram(port: u16, payload: usize) -> Vec<u8> {
    let mut datagram = [
        40_000u16.to_be_bytes(),
        port.to_be_bytes(),
        (8 + payload as u16).to_be_bytes(),
        [0, 0],
    ]
    .concat();
    datagram.extend(vec![0x41; payload]);
    datagram
}

struct V4 {
    protocol: u8,
    fragment: u16,
    options: usize,
    from: [u8; 4],
    to: [u8; 4],
}

const PLAIN_V4: V4 = V4 {
    protocol: UDP,
    fragment: 0x4000,
    options: 0,
    from: [192, 0, 2, 2],
    to: OURS_V4,
};

fn ipv4(header: &V4, payload: &[u8]) -> Vec<u8> {
    let len = 20 + header.options + payload.len();
    let mut packet = vec![0x40 + (len - payload.len()) as u8 / 4, 0];
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(header.fragment.to_be_bytes());
    packet.extend([64, header.protocol, 0, 0]);
    packet.extend(header.from);
    packet.extend(header.to);
    packet.extend(vec![1; header.options]);
    let checksum = checksum(&packet);
    packet[10..12].copy_from_slice(&checksum);
    packet.extend(payload);
    packet
}

/// RFC 1071, of bytes in which there is none yet.
fn checksum(header: &[u8]) -> [u8; 2] {
    let mut sum: u32 = header
        .chunks(2)
        .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// The same IPv4 frame with other bytes in its header, and the checksum that they need.
fn changed_v4(frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut frame = changed(changed(frame, at, bytes), 24, &[0, 0]);
    let checksum = checksum(&frame[14..34]);
    frame[24..26].copy_from_slice(&checksum);
    frame
}

/// Extension headers: kind, and length in units of 8 bytes.
fn ipv6(extensions: &[(u8, u8)], protocol: u8, to: [u8; 16], payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for (index, &(_, units)) in extensions.iter().enumerate() {
        body.extend([
            extensions.get(index + 1).map_or(protocol, |next| next.0),
            units - 1,
        ]);
        body.extend(vec![0; usize::from(units) * 8 - 2]);
    }
    body.extend(payload);
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((body.len() as u16).to_be_bytes());
    packet.extend([extensions.first().map_or(protocol, |first| first.0), 64]);
    packet.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    packet.extend(to);
    packet.extend(body);
    packet
}

fn v4(payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV4, &ipv4(&PLAIN_V4, payload))
}

fn v6(extensions: &[(u8, u8)], protocol: u8, payload: &[u8]) -> Vec<u8> {
    ethernet(&[], IPV6, &ipv6(extensions, protocol, OURS_V6, payload))
}

fn changed(mut frame: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    frame[at..at + bytes.len()].copy_from_slice(bytes);
    frame
}

/// The verdict on a frame that is ours is `PassNoSocket`: no queue has a socket here.
const OURS: Verdict = PassNoSocket;

fn table() -> Vec<(&'static str, Vec<u8>, Verdict)> {
    let ours = udp_datagram(PORT, 20);
    let others = udp_datagram(53, 20);
    let v4_with = |header: &V4| ethernet(&[], IPV4, &ipv4(header, &udp_datagram(PORT, 20)));
    vec![
        ("ipv4", v4(&ours), OURS),
        ("ipv4, empty datagram", v4(&udp_datagram(PORT, 0)), OURS),
        ("ipv4, 1472 bytes", v4(&udp_datagram(PORT, 1472)), OURS),
        ("ipv4, other port", v4(&others), PassNotOurs),
        (
            "ipv4, other address",
            v4_with(&V4 {
                to: [192, 0, 2, 9],
                ..PLAIN_V4
            }),
            PassNotOurs,
        ),
        (
            "ipv4, broadcast",
            v4_with(&V4 {
                to: [255; 4],
                ..PLAIN_V4
            }),
            PassNotOurs,
        ),
        (
            "ipv4, multicast",
            v4_with(&V4 {
                to: [224, 0, 0, 251],
                ..PLAIN_V4
            }),
            PassNotOurs,
        ),
        (
            "ipv4, may be fragmented",
            v4_with(&V4 {
                fragment: 0,
                ..PLAIN_V4
            }),
            OURS,
        ),
        (
            "ipv4, reserved flag",
            v4_with(&V4 {
                fragment: 0x8000,
                ..PLAIN_V4
            }),
            OURS,
        ),
        (
            "ipv4, first fragment",
            v4_with(&V4 {
                fragment: 0x2000,
                ..PLAIN_V4
            }),
            PassFragment,
        ),
        (
            "ipv4, middle fragment",
            v4_with(&V4 {
                fragment: 0x2010,
                ..PLAIN_V4
            }),
            PassFragment,
        ),
        (
            "ipv4, last fragment",
            v4_with(&V4 {
                fragment: 0x0010,
                ..PLAIN_V4
            }),
            PassFragment,
        ),
        (
            "ipv4, fragment of tcp",
            v4_with(&V4 {
                fragment: 0x2000,
                protocol: TCP,
                ..PLAIN_V4
            }),
            PassNotUdp,
        ),
        (
            "ipv4, 4 bytes of options",
            v4_with(&V4 {
                options: 4,
                ..PLAIN_V4
            }),
            PassOptions,
        ),
        (
            "ipv4, 40 bytes of options",
            v4_with(&V4 {
                options: 40,
                ..PLAIN_V4
            }),
            PassOptions,
        ),
        (
            "ipv4, tcp",
            v4_with(&V4 {
                protocol: TCP,
                ..PLAIN_V4
            }),
            PassNotUdp,
        ),
        (
            "ipv4, icmp",
            v4_with(&V4 {
                protocol: ICMP,
                ..PLAIN_V4
            }),
            PassNotUdp,
        ),
        (
            "ipv4, header length 4 words",
            changed_v4(v4(&ours), 14, &[0x44]),
            PassMalformed,
        ),
        (
            "ipv4, header length 15 words that are not there",
            changed_v4(v4(&ours), 14, &[0x4f]),
            PassMalformed,
        ),
        (
            "ipv4, version 5",
            changed_v4(v4(&ours), 14, &[0x55]),
            PassMalformed,
        ),
        (
            "ipv4, total length 0",
            changed_v4(v4(&ours), 16, &[0, 0]),
            PassMalformed,
        ),
        (
            "ipv4, total length without udp",
            changed_v4(v4(&ours), 16, &[0, 20]),
            PassMalformed,
        ),
        (
            "ipv4, total length one short",
            changed_v4(v4(&ours), 16, &[0, 47]),
            PassMalformed,
        ),
        (
            "ipv4, total length one long",
            changed_v4(v4(&ours), 16, &[0, 49]),
            PassCutOff,
        ),
        (
            "ipv4, total length 65535",
            changed_v4(v4(&ours), 16, &[0xff; 2]),
            PassCutOff,
        ),
        (
            "ipv4, udp length 0",
            changed(v4(&ours), 38, &[0, 0]),
            PassMalformed,
        ),
        (
            "ipv4, udp length 7",
            changed(v4(&ours), 38, &[0, 7]),
            PassMalformed,
        ),
        (
            "ipv4, udp length one short",
            changed(v4(&ours), 38, &[0, 27]),
            OURS,
        ),
        (
            "ipv4, udp length one long",
            changed(v4(&ours), 38, &[0, 29]),
            PassMalformed,
        ),
        ("ipv4, padded", [v4(&ours), vec![0; 30]].concat(), OURS),
        ("vlan", ethernet(&[VLAN], IPV4, &ipv4(&PLAIN_V4, &ours)), OURS),
        (
            "vlan in vlan",
            ethernet(&[SERVICE_VLAN, VLAN], IPV4, &ipv4(&PLAIN_V4, &ours)),
            OURS,
        ),
        (
            "three vlans",
            ethernet(&[SERVICE_VLAN, VLAN, VLAN], IPV4, &ipv4(&PLAIN_V4, &ours)),
            PassNotIp,
        ),
        (
            "vlan, ipv6",
            ethernet(&[VLAN], IPV6, &ipv6(&[], UDP, OURS_V6, &ours)),
            OURS,
        ),
        (
            "vlan, other port",
            ethernet(&[VLAN], IPV4, &ipv4(&PLAIN_V4, &others)),
            PassNotOurs,
        ),
        ("vlan, arp", ethernet(&[VLAN], ARP, &[0; 28]), PassNotIp),
        (
            "vlan, cut within its tag",
            ethernet(&[], VLAN, &[0, 7]),
            PassNotIp,
        ),
        (
            "vlan, with a priority",
            changed(ethernet(&[VLAN], IPV4, &ipv4(&PLAIN_V4, &ours)), 14, &[0xe0]),
            OURS,
        ),
        (
            "vlan that the host does not have",
            changed(ethernet(&[VLAN], IPV4, &ipv4(&PLAIN_V4, &ours)), 15, &[8]),
            PassOtherVlan,
        ),
        (
            "vlan in vlan that the host does not have",
            changed(
                ethernet(&[SERVICE_VLAN, VLAN], IPV4, &ipv4(&PLAIN_V4, &ours)),
                19,
                &[8],
            ),
            PassOtherVlan,
        ),
        (
            "vlan within which the host has another",
            changed(ethernet(&[VLAN], IPV4, &ipv4(&PLAIN_V4, &ours)), 15, &[9]),
            PassOtherVlan,
        ),
        (
            "frame to another host",
            changed(v4(&ours), 5, &[9]),
            PassOtherHost,
        ),
        ("frame to all", changed(v4(&ours), 0, &[0xff; 6]), PassOtherHost),
        (
            "frame to a group, of ipv4",
            changed(v4(&ours), 0, &[3]),
            PassOtherHost,
        ),
        (
            "frame to a group, of ipv6",
            changed(v6(&[], UDP, &ours), 0, &[0x33, 0x33]),
            PassOtherHost,
        ),
        (
            "ipv4, wrong checksum",
            changed(v4(&ours), 22, &[63]),
            PassMalformed,
        ),
        (
            "ipv4, no checksum",
            changed(v4(&ours), 24, &[0, 0]),
            PassMalformed,
        ),
        ("arp", ethernet(&[], ARP, &[0; 28]), PassNotIp),
        (
            "length instead of protocol",
            ethernet(&[], 46, &[0; 46]),
            PassNotIp,
        ),
        (
            "ipv4 said to be ipv6",
            ethernet(&[], IPV6, &ipv4(&PLAIN_V4, &udp_datagram(PORT, 60))),
            PassMalformed,
        ),
        (
            "ipv6 said to be ipv4",
            ethernet(&[], IPV4, &ipv6(&[], UDP, OURS_V6, &ours)),
            PassMalformed,
        ),
        ("ipv6", v6(&[], UDP, &ours), OURS),
        ("ipv6, empty datagram", v6(&[], UDP, &udp_datagram(PORT, 0)), OURS),
        ("ipv6, other port", v6(&[], UDP, &others), PassNotOurs),
        (
            "ipv6, other address",
            ethernet(&[], IPV6, &ipv6(&[], UDP, [9; 16], &ours)),
            PassNotOurs,
        ),
        ("ipv6, tcp", v6(&[], TCP, &ours), PassNotUdp),
        ("ipv6, no next header", v6(&[], 59, &ours), PassNotUdp),
        (
            "ipv6, hop-by-hop options",
            v6(&[(HOP_BY_HOP, 1)], UDP, &ours),
            PassOptions,
        ),
        (
            "ipv6, destination options of 16 bytes",
            v6(&[(DESTINATION_OPTIONS, 2)], UDP, &ours),
            PassOptions,
        ),
        (
            "ipv6, routing header",
            v6(&[(ROUTING, 1)], UDP, &ours),
            PassOptions,
        ),
        ("ipv6, fragment", v6(&[(FRAGMENT, 1)], UDP, &ours), PassFragment),
        (
            "ipv6, payload length 0",
            changed(v6(&[], UDP, &ours), 18, &[0, 0]),
            PassMalformed,
        ),
        (
            "ipv6, payload length one short",
            changed(v6(&[], UDP, &ours), 18, &[0, 27]),
            PassMalformed,
        ),
        (
            "ipv6, payload length one long",
            changed(v6(&[], UDP, &ours), 18, &[0, 29]),
            PassCutOff,
        ),
        (
            "ipv6, udp length one long",
            changed(v6(&[], UDP, &ours), 58, &[0, 29]),
            PassMalformed,
        ),
        (
            "ipv6, version 4",
            changed(v6(&[], UDP, &ours), 14, &[0x40]),
            PassMalformed,
        ),
    ]
}

/// Sources that nobody may answer to, beside some that look alike.
fn sources() -> Vec<(String, Vec<u8>, Verdict)> {
    let ours = udp_datagram(PORT, 20);
    let from_v4 = |from: [u8; 4]| ethernet(&[], IPV4, &ipv4(&V4 { from, ..PLAIN_V4 }, &ours));
    let v4 = [
        ([0, 0, 0, 0], PassSource),
        ([0, 0, 0, 1], PassSource),
        ([127, 0, 0, 1], PassSource),
        ([224, 0, 0, 1], PassSource),
        ([239, 255, 255, 255], PassSource),
        ([255, 255, 255, 255], PassSource),
        ([1, 0, 0, 0], OURS),
        ([126, 0, 0, 1], OURS),
        ([128, 0, 0, 1], OURS),
        ([223, 255, 255, 255], OURS),
    ];
    let v4 = v4.map(|(from, verdict)| {
        (
            format!("ipv4, from {}", std::net::Ipv4Addr::from(from)),
            from_v4(from),
            verdict,
        )
    });
    let v6 = [
        ("::", PassSource),
        ("::1", PassSource),
        ("::ffff:192.0.2.2", PassSource),
        ("ff02::1", PassSource),
        ("fe80::1", OURS),
        ("fd00::1", OURS),
        ("2001:db8::2", OURS),
    ];
    let v6 = v6.map(|(from, verdict)| {
        let address: Ipv6Addr = from.parse().unwrap();
        let frame = changed(self::v6(&[], UDP, &ours), 22, &address.octets());
        (format!("ipv6, from {from}"), frame, verdict)
    });
    let link_local: Ipv6Addr = "fe80::1".parse().unwrap();
    let tagged = changed(
        ethernet(&[VLAN], IPV6, &ipv6(&[], UDP, OURS_V6, &ours)),
        26,
        &link_local.octets(),
    );
    let tagged = ("vlan, ipv6, from fe80::1".to_owned(), tagged, PassSource);
    let without_port = [
        (
            "ipv4, from port 0",
            changed(self::v4(&ours), 34, &[0, 0]),
            PassSource,
        ),
        (
            "ipv6, from port 0",
            changed(self::v6(&[], UDP, &ours), 54, &[0, 0]),
            PassSource,
        ),
    ];
    let without_port = without_port.map(|(name, frame, verdict)| (name.to_owned(), frame, verdict));
    v4.into_iter()
        .chain(v6)
        .chain([tagged])
        .chain(without_port)
        .collect()
}

type Check = Box<dyn Fn(&Mutex<Counted>) -> Result<(), Failed> + Send>;

/// The program, and what it has counted so far: tests take turns. Those that change what it takes have one of their own.
struct Counted {
    xdp: XdpProgram,
    before: Vec<(Verdict, u64)>,
}

impl Counted {
    fn new() -> std::io::Result<Self> {
        let xdp = XdpProgram::load()?;
        xdp.set_link(LINK, false)?;
        xdp.add_vlan(Vlan {
            outer: 7,
            inner: None,
        })?;
        for outer in [7, 9] {
            let inner = Some(7);
            xdp.add_vlan(Vlan { outer, inner })?;
        }
        xdp.add_endpoint(SocketAddr::new(OURS_V4.into(), PORT))?;
        xdp.add_endpoint(SocketAddr::new(IpAddr::V6(Ipv6Addr::from(OURS_V6)), PORT))?;
        let before = xdp.counters()?.to_vec();
        Ok(Counted { xdp, before })
    }

    /// The one verdict that was counted for a frame.
    fn verdict(&mut self, frame: &[u8]) -> Result<Verdict, Failed> {
        let answer = self.xdp.run(frame)?;
        let after = self.xdp.counters()?.to_vec();
        let counted: Vec<Verdict> = std::iter::zip(&self.before, &after)
            .flat_map(|(before, after)| std::iter::repeat_n(after.0, (after.1 - before.1) as usize))
            .collect();
        self.before = after;
        match counted[..] {
            [DropRule] if answer == XDP_DROP => Ok(DropRule),
            [Redirected] if answer == XDP_REDIRECT => Ok(Redirected),
            [verdict] if answer == XDP_PASS && ![DropRule, Redirected].contains(&verdict) => Ok(verdict),
            [verdict] => Err(format!("it answered {answer} and counted {verdict:?}").into()),
            _ => Err(format!("it counted {counted:?}").into()),
        }
    }
}

fn check(counted: &Mutex<Counted>, frame: &[u8], expected: Verdict) -> Result<(), Failed> {
    let verdict = counted
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .verdict(frame)?;
    if verdict == expected {
        Ok(())
    } else {
        Err(format!("{verdict:?} instead of {expected:?}").into())
    }
}

/// Cut anywhere, a packet is nobody's but the kernel's. `ip`: where the header of IP is.
fn truncations(counted: &Mutex<Counted>, frame: &[u8], ip: std::ops::Range<usize>) -> Result<(), Failed> {
    for cut in 14..frame.len() {
        let expected = match cut {
            _ if cut < ip.start => PassNotIp,
            _ if cut < ip.end => PassMalformed,
            _ => PassCutOff,
        };
        check(counted, &frame[..cut], expected).map_err(|failed| format!("cut to {cut}: {failed:?}"))?;
    }
    Ok(())
}

fn endpoint_taken_back(_: &Mutex<Counted>) -> Result<(), Failed> {
    let counted = &Mutex::new(Counted::new()?);
    let frame = v4(&udp_datagram(9, 1));
    check(counted, &frame, PassNotOurs)?;
    let endpoint = SocketAddr::new(OURS_V4.into(), 9);
    let with = |change: &dyn Fn(&XdpProgram) -> std::io::Result<()>| change(&counted.lock().unwrap().xdp);
    with(&|xdp| xdp.add_endpoint(endpoint))?;
    check(counted, &frame, OURS)?;
    with(&|xdp| xdp.remove_endpoint(endpoint))?;
    check(counted, &frame, PassNotOurs)
}

/// Rules for where it comes from hold for it all the same.
fn too_long_for_the_sockets(_: &Mutex<Counted>) -> Result<(), Failed> {
    let counted = &Mutex::new(Counted::new()?);
    let with = |change: &dyn Fn(&XdpProgram) -> std::io::Result<()>| change(&counted.lock().unwrap().xdp);
    let socket = Socket::new(Domain::from(AF_XDP), Type::RAW, None)?;
    with(&|xdp| xdp.set_socket(0, socket.as_fd()))?;
    with(&|xdp| xdp.set_packet_max(1500))?;
    let udp = |packet: usize, ip: usize| udp_datagram(PORT, packet - ip - 8);
    let tagged = |packet| ethernet(&[VLAN], IPV4, &ipv4(&PLAIN_V4, &udp(packet, 20)));
    for (packet, expected) in [(1500, Redirected), (1501, PassTooLong)] {
        check(counted, &v4(&udp(packet, 20)), expected)?;
        check(counted, &v6(&[], UDP, &udp(packet, 40)), expected)?;
        check(counted, &tagged(packet), expected)?;
    }
    check(counted, &v4(&udp_datagram(53, 3000)), PassNotOurs)?;
    let from_ours = "192.0.2.0/24".parse()?;
    with(&|xdp| xdp.set_source(from_ours, SourceAction::Drop))?;
    check(counted, &v4(&udp(1501, 20)), DropRule)
}

fn link_taken_back(_: &Mutex<Counted>) -> Result<(), Failed> {
    let counted = &Mutex::new(Counted::new()?);
    let frame = ethernet(&[VLAN], IPV4, &ipv4(&PLAIN_V4, &udp_datagram(PORT, 1)));
    let vlan = Vlan {
        outer: 7,
        inner: None,
    };
    let with = |change: &dyn Fn(&XdpProgram) -> std::io::Result<()>| change(&counted.lock().unwrap().xdp);
    check(counted, &frame, OURS)?;
    with(&|xdp| xdp.remove_vlan(vlan))?;
    check(counted, &frame, PassOtherVlan)?;
    with(&|xdp| xdp.add_vlan(vlan))?;
    with(&|xdp| xdp.set_link([2, 0, 0, 0, 0, 3], false))?;
    check(counted, &frame, PassOtherHost)?;
    with(&|xdp| xdp.set_link(LINK, false))?;
    check(counted, &frame, OURS)
}

fn loopback_interface(_: &Mutex<Counted>) -> Result<(), Failed> {
    let counted = &Mutex::new(Counted::new()?);
    let with = |change: &dyn Fn(&XdpProgram) -> std::io::Result<()>| change(&counted.lock().unwrap().xdp);
    with(&|xdp| xdp.set_link(LINK, true))?;
    let expected = |name: &str| match name {
        "ipv4, from 127.0.0.1" | "ipv6, from ::1" => Some(OURS),
        "ipv4, from 0.0.0.0" | "ipv6, from ff02::1" => Some(PassSource),
        _ => None,
    };
    let mut frames = sources()
        .into_iter()
        .filter_map(|(name, frame, _)| Some((frame, expected(&name)?)));
    let checked = frames.try_for_each(|(frame, expected)| check(counted, &frame, expected));
    with(&|xdp| xdp.set_link(LINK, false))?;
    checked
}

fn unspecified_address(counted: &Mutex<Counted>) -> Result<(), Failed> {
    let any: SocketAddr = "0.0.0.0:4433".parse().unwrap();
    match counted.lock().unwrap().xdp.add_endpoint(any) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        result => Err(format!("{result:?}").into()),
    }
}

/// Of both families, from 192.0.2.2 and 2001:db8::2: a rule holds for what is ours alone, the longest prefix decides, each rule counts for itself.
fn source_rules(_: &Mutex<Counted>) -> Result<(), Failed> {
    let counted = &Mutex::new(Counted::new()?);
    let socket = Socket::new(Domain::from(AF_XDP), Type::RAW, None)?;
    counted.lock().unwrap().xdp.set_socket(0, socket.as_fd())?;
    let frames = [v4(&udp_datagram(PORT, 1)), v6(&[], UDP, &udp_datagram(PORT, 1))];
    let others = [v4(&udp_datagram(53, 1)), v6(&[], UDP, &udp_datagram(53, 1))];
    for (index, (wide, narrow, host, elsewhere)) in [
        ("192.0.0.0/8", "192.0.2.0/24", "192.0.2.2/32", "0.0.0.0/1"),
        ("2000::/3", "2001:db8::/64", "2001:db8::2/128", "8000::/1"),
    ]
    .into_iter()
    .enumerate()
    {
        let (ours, other) = (&frames[index], &others[index]);
        let set = |prefix: &str, action| {
            counted
                .lock()
                .unwrap()
                .xdp
                .set_source(prefix.parse()?, action)
                .map_err(Failed::from)
        };
        let remove = |prefix: &str| {
            counted
                .lock()
                .unwrap()
                .xdp
                .remove_source(prefix.parse()?)
                .map_err(Failed::from)
        };
        let count = |prefix: &str| {
            counted
                .lock()
                .unwrap()
                .xdp
                .source_count(prefix.parse()?)
                .map_err(Failed::from)
        };
        set(elsewhere, SourceAction::Drop)?;
        check(counted, ours, Redirected)?;
        set(wide, SourceAction::Drop)?;
        check(counted, ours, DropRule)?;
        check(counted, other, PassNotOurs)?;
        check(counted, &frames[1 - index], Redirected)?;
        set(narrow, SourceAction::Pass)?;
        check(counted, ours, PassRule)?;
        set(host, SourceAction::Accept)?;
        check(counted, ours, Redirected)?;
        check(counted, ours, Redirected)?;
        let counts = [elsewhere, wide, narrow, host].map(count);
        let counts = counts.into_iter().collect::<Result<Vec<_>, _>>()?;
        if counts != [Some(0), Some(1), Some(1), Some(2)] {
            return Err(format!("{counts:?}").into());
        }
        // Another action counts on; another prefix begins anew, with the counter that is free.
        remove(host)?;
        set(narrow, SourceAction::Drop)?;
        check(counted, ours, DropRule)?;
        set(host, SourceAction::Drop)?;
        if (count(narrow)?, count(host)?) != (Some(2), Some(0)) {
            return Err(format!("{:?} {:?}", count(narrow)?, count(host)?).into());
        }
        for prefix in [elsewhere, wide, narrow, host] {
            remove(prefix)?;
        }
        check(counted, ours, Redirected)?;
        if count(wide)?.is_some() {
            return Err("a rule that is gone has a count".into());
        }
    }
    Ok(())
}

/// A program that is left in a chain when its process has gone must do nothing.
fn program_without_sockets(_: &Mutex<Counted>) -> Result<(), Failed> {
    let counted = &Mutex::new(Counted::new()?);
    let ours = v4(&udp_datagram(PORT, 1));
    let socket = Socket::new(Domain::from(AF_XDP), Type::RAW, None)?;
    counted.lock().unwrap().xdp.set_socket(0, socket.as_fd())?;
    let everything = "0.0.0.0/0".parse()?;
    let set = counted
        .lock()
        .unwrap()
        .xdp
        .set_source(everything, SourceAction::Drop);
    set?;
    check(counted, &ours, DropRule)?;
    drop(socket);
    check(counted, &ours, PassNoSocket)?;
    // What the kernel has is not counted as if a rule had been applied to it.
    match counted.lock().unwrap().xdp.source_count(everything)? {
        Some(1) => Ok(()),
        count => Err(format!("{count:?}").into()),
    }
}

#[allow(clippy::print_stdout, reason = "the reason why tests are ignored")]
fn main() {
    let arguments = Arguments::from_args();
    let counted: Option<&'static Mutex<Counted>> = match Counted::new() {
        Ok(counted) => Some(Box::leak(Box::new(Mutex::new(counted)))),
        Err(error) => {
            println!("SKIP all: {error}");
            None
        }
    };
    let trial = |name: &str, run: Check| {
        let run = move || counted.map_or(Ok(()), &run);
        Trial::test(name, run).with_ignored_flag(counted.is_none())
    };
    let table = table()
        .into_iter()
        .map(|(name, frame, expected)| (name.to_owned(), frame, expected));
    let mut trials: Vec<Trial> = table
        .chain(sources())
        .map(|(name, frame, expected)| {
            trial(&name, Box::new(move |counted| check(counted, &frame, expected)))
        })
        .collect();
    let cut_v4 = v4(&udp_datagram(PORT, 20));
    trials.push(trial(
        "ipv4, cut at each byte",
        Box::new(move |counted| truncations(counted, &cut_v4, 14..34)),
    ));
    let cut_v6 = v6(&[], UDP, &udp_datagram(PORT, 20));
    trials.push(trial(
        "ipv6, cut at each byte",
        Box::new(move |counted| truncations(counted, &cut_v6, 14..54)),
    ));
    let cut_vlan = ethernet(&[VLAN], IPV4, &ipv4(&PLAIN_V4, &udp_datagram(PORT, 20)));
    trials.push(trial(
        "vlan, cut at each byte",
        Box::new(move |counted| truncations(counted, &cut_vlan, 18..38)),
    ));
    trials.push(trial(
        "source rules hold for datagrams to our endpoints by the longest prefix",
        Box::new(source_rules),
    ));
    trials.push(trial(
        "program whose sockets are closed drops nothing by its rules",
        Box::new(program_without_sockets),
    ));
    trials.push(trial(
        "what is too long for the sockets is the kernel's",
        Box::new(too_long_for_the_sockets),
    ));
    trials.push(trial(
        "endpoint that is taken back is the kernel's again",
        Box::new(endpoint_taken_back),
    ));
    trials.push(trial(
        "vlan and address that are taken back are the kernel's again",
        Box::new(link_taken_back),
    ));
    trials.push(trial(
        "on the loopback interface its addresses may be sources",
        Box::new(loopback_interface),
    ));
    trials.push(trial(
        "unspecified address is refused",
        Box::new(unspecified_address),
    ));
    libtest_mimic::run(&arguments, trials).exit();
}
