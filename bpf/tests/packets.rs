//! What the XDP program makes of packets: one by one, run by the kernel without an interface.
//!
//! Reported as ignored, with the reason, where the process may not load programs.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;

use libtest_mimic::{Arguments, Failed, Trial};
use ringway_bpf::Verdict::{
    PassCutOff, PassFragment, PassMalformed, PassNoSocket, PassNotIp, PassNotOurs, PassNotUdp,
};
use ringway_bpf::{Verdict, XdpProgram};

const XDP_PASS: u32 = 2;
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

fn ethernet(tags: &[u16], protocol: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x02, 0, 0, 0, 0, 1, 0x02, 0, 0, 0, 0, 2];
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
    to: [u8; 4],
}

const PLAIN_V4: V4 = V4 {
    protocol: UDP,
    fragment: 0x4000,
    options: 0,
    to: OURS_V4,
};

fn ipv4(header: &V4, payload: &[u8]) -> Vec<u8> {
    let len = 20 + header.options + payload.len();
    let mut packet = vec![0x40 + (len - payload.len()) as u8 / 4, 0];
    packet.extend((len as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(header.fragment.to_be_bytes());
    packet.extend([64, header.protocol, 0, 0, 192, 0, 2, 2]);
    packet.extend(header.to);
    packet.extend(vec![1; header.options]);
    packet.extend(payload);
    packet
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
            OURS,
        ),
        (
            "ipv4, 40 bytes of options",
            v4_with(&V4 {
                options: 40,
                ..PLAIN_V4
            }),
            OURS,
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
            changed(v4(&ours), 14, &[0x44]),
            PassMalformed,
        ),
        (
            "ipv4, header length 15 words that are not there",
            changed(v4(&ours), 14, &[0x4f]),
            PassMalformed,
        ),
        ("ipv4, version 5", changed(v4(&ours), 14, &[0x55]), PassMalformed),
        (
            "ipv4, total length 0",
            changed(v4(&ours), 16, &[0, 0]),
            PassMalformed,
        ),
        (
            "ipv4, total length without udp",
            changed(v4(&ours), 16, &[0, 20]),
            PassMalformed,
        ),
        (
            "ipv4, total length one short",
            changed(v4(&ours), 16, &[0, 47]),
            PassMalformed,
        ),
        (
            "ipv4, total length one long",
            changed(v4(&ours), 16, &[0, 49]),
            PassCutOff,
        ),
        (
            "ipv4, total length 65535",
            changed(v4(&ours), 16, &[0xff; 2]),
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
            OURS,
        ),
        (
            "ipv6, destination options of 16 bytes",
            v6(&[(DESTINATION_OPTIONS, 2)], UDP, &ours),
            OURS,
        ),
        (
            "ipv6, both options",
            v6(&[(HOP_BY_HOP, 1), (DESTINATION_OPTIONS, 3)], UDP, &ours),
            OURS,
        ),
        (
            "ipv6, five options",
            v6(&[(DESTINATION_OPTIONS, 1); 5], UDP, &ours),
            OURS,
        ),
        (
            "ipv6, six options",
            v6(&[(DESTINATION_OPTIONS, 1); 6], UDP, &ours),
            PassNotUdp,
        ),
        (
            "ipv6, options, tcp",
            v6(&[(HOP_BY_HOP, 1)], TCP, &ours),
            PassNotUdp,
        ),
        (
            "ipv6, routing header",
            v6(&[(ROUTING, 1)], UDP, &ours),
            PassNotOurs,
        ),
        ("ipv6, fragment", v6(&[(FRAGMENT, 1)], UDP, &ours), PassFragment),
        (
            "ipv6, options, fragment",
            v6(&[(HOP_BY_HOP, 1), (FRAGMENT, 1)], UDP, &ours),
            PassFragment,
        ),
        (
            "ipv6, options longer than the packet",
            changed(v6(&[(HOP_BY_HOP, 1)], UDP, &ours), 55, &[255]),
            PassMalformed,
        ),
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

type Check = Box<dyn Fn(&Mutex<Counted>) -> Result<(), Failed> + Send>;

/// The program, and what it has counted so far: tests take turns.
struct Counted {
    xdp: XdpProgram,
    before: Vec<(Verdict, u64)>,
}

impl Counted {
    fn new() -> std::io::Result<Self> {
        let xdp = XdpProgram::load()?;
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
        if answer != XDP_PASS {
            return Err(format!("it answered {answer}").into());
        }
        match counted[..] {
            [verdict] => Ok(verdict),
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

fn endpoint_taken_back(counted: &Mutex<Counted>) -> Result<(), Failed> {
    let frame = v4(&udp_datagram(9, 1));
    check(counted, &frame, PassNotOurs)?;
    let endpoint = SocketAddr::new(OURS_V4.into(), 9);
    let with = |change: &dyn Fn(&XdpProgram) -> std::io::Result<()>| change(&counted.lock().unwrap().xdp);
    with(&|xdp| xdp.add_endpoint(endpoint))?;
    check(counted, &frame, OURS)?;
    with(&|xdp| xdp.remove_endpoint(endpoint))?;
    check(counted, &frame, PassNotOurs)
}

fn unspecified_address(counted: &Mutex<Counted>) -> Result<(), Failed> {
    let any: SocketAddr = "0.0.0.0:4433".parse().unwrap();
    match counted.lock().unwrap().xdp.add_endpoint(any) {
        Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => Ok(()),
        result => Err(format!("{result:?}").into()),
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
    let mut trials: Vec<Trial> = table()
        .into_iter()
        .map(|(name, frame, expected)| trial(name, Box::new(move |counted| check(counted, &frame, expected))))
        .collect();
    let cut_v4 = v4(&udp_datagram(PORT, 20));
    trials.push(trial(
        "ipv4, cut at each byte",
        Box::new(move |counted| truncations(counted, &cut_v4, 14..34)),
    ));
    let cut_v6 = v6(
        &[(HOP_BY_HOP, 1), (DESTINATION_OPTIONS, 2)],
        UDP,
        &udp_datagram(PORT, 20),
    );
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
        "endpoint that is taken back is the kernel's again",
        Box::new(endpoint_taken_back),
    ));
    trials.push(trial(
        "unspecified address is refused",
        Box::new(unspecified_address),
    ));
    libtest_mimic::run(&arguments, trials).exit();
}
