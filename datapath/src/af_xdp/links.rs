//! The link layer of an interface as the kernel has it: the address of the interface, and the host's VLANs on it; and the news of these and of IP
//! addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use ringway_bpf::Vlan;

use crate::topology::{self, netlink};

/// What frames to this host on an interface look like.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct LinkLayer {
    pub(super) address: [u8; 6],
    pub(super) is_loopback: bool,
    /// In order.
    pub(super) vlans: Vec<Vlan>,
    /// The interfaces of VLANs whose tags the NIC takes off, in order: frames to their addresses look like any others.
    pub(super) untold: Vec<String>,
}

/// Knows the links and addresses of this host: reads them once, and then hears what changes.
#[derive(Debug)]
pub(super) struct Links {
    interface: u32,
    name: String,
    news: Socket,
    buffer: Vec<u8>,
    /// As of the last news. `None`: to be read, as some were missed or not understood.
    host: Option<Host>,
    /// The interface was deleted since it was taken for ours, whatever has its number now.
    is_gone: bool,
}

/// What has become of the interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Presence {
    There,
    Gone,
    /// Gone, and another one has its name, with this number.
    Back(u32),
}

/// What this host has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Host {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<Address>,
}

/// An address of this host, with what tells it from others as the kernel keeps them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Address {
    /// The number of its link.
    link: u32,
    ip: IpAddr,
    /// Of IPv4, which has one and the same with several prefixes and peers: the length of the prefix, and an address in it.
    prefix: Option<(u8, IpAddr)>,
}

impl Links {
    pub(super) fn open(interface: u32, name: &str) -> io::Result<Links> {
        let mut news = Socket::new(NETLINK_ROUTE)?;
        news.bind(&SocketAddr::new(0, NEWS))?;
        news.set_non_blocking(true)?;
        Ok(Links {
            interface,
            name: name.to_owned(),
            news,
            buffer: Vec::with_capacity(netlink::REPLY_BYTES_MAX),
            host: None,
            is_gone: false,
        })
    }

    /// Of the interface.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Readable when there is news.
    pub(super) fn news(&self) -> RawFd {
        self.news.as_raw_fd()
    }

    /// Takes what the kernel has told since this was called last. True if a link or an address of this host may have changed. Hosts of many
    /// containers have news all the time, of which nothing but the news is read.
    pub(super) fn take_news(&mut self) -> bool {
        let mut changed = false;
        // What does not come to an end is looked at again soon.
        for _ in 0..NEWS_MAX {
            self.buffer.clear();
            match self.news.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // There were more than the kernel keeps.
                Err(_) => {
                    self.host = None;
                    changed = true;
                    continue;
                }
            }
            let (host, interface, is_gone) = (&mut self.host, self.interface, &mut self.is_gone);
            let taken = netlink::take(&self.buffer, |message| {
                *is_gone |= message
                    .as_ref()
                    .is_some_and(|message| deletes(message, interface));
                changed |= hear(host, interface, message);
            });
            if taken.is_err() {
                self.host = None;
                changed = true;
            }
        }
        changed
    }

    fn host(&mut self) -> io::Result<&Host> {
        let host = match self.host.take() {
            Some(host) => host,
            None => Host::read()?,
        };
        Ok(self.host.insert(host))
    }

    /// Whether the interface is there.
    pub(super) fn presence(&mut self) -> io::Result<Presence> {
        let (interface, is_gone, name) = (self.interface, self.is_gone, self.name.clone());
        let links = &self.host()?.links;
        if !is_gone && links.contains_key(&interface) {
            return Ok(Presence::There);
        }
        let mut others = links.values();
        let other = others.find(|link| link.name == name);
        Ok(other.map_or(Presence::Gone, |link| Presence::Back(link.index)))
    }

    /// The interface is gone, though no news say so: some may have been missed.
    pub(super) fn lose(&mut self) {
        self.is_gone = true;
    }

    /// The interface is this one from now on.
    pub(super) fn adopt(&mut self, interface: u32) {
        self.interface = interface;
        self.is_gone = false;
    }

    /// The link layer as it is now.
    pub(super) fn read(&mut self) -> io::Result<LinkLayer> {
        let interface = self.interface;
        let strips_tags = topology::strips_tags(&self.name);
        let links: Vec<Link> = self.host()?.links.values().cloned().collect();
        link_layer(interface, &links, strips_tags).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// The addresses of this host, with the names of their interfaces. One may be there more than once.
    pub(super) fn addresses(&mut self) -> io::Result<Vec<(String, IpAddr)>> {
        let host = self.host()?;
        let named = host.addresses.iter().filter_map(|address| {
            let link = host.links.get(&address.link)?;
            Some((link.name.clone(), address.ip))
        });
        Ok(named.collect())
    }
}

/// True if it says that an interface is deleted, or has gone to another network namespace.
fn deletes(message: &RouteNetlinkMessage, interface: u32) -> bool {
    matches!(message, RouteNetlinkMessage::DelLink(link)
        if link.header.index == interface && link.header.interface_family == AddressFamily::Unspec)
}

/// Takes one piece of news, which may not be understood. True if something may be another than before.
fn hear(host: &mut Option<Host>, interface: u32, message: Option<RouteNetlinkMessage>) -> bool {
    let (Some(known), Some(message)) = (host.as_mut(), message) else {
        *host = None;
        return true;
    };
    // Of the interface itself features may have changed, such as who takes the tags of VLANs off: the message does not say.
    let is_of_itself = matches!(&message, RouteNetlinkMessage::NewLink(link)
        if link.header.index == interface && link.header.interface_family == AddressFamily::Unspec);
    known.apply(&message) || is_of_itself
}

impl Host {
    fn read() -> io::Result<Host> {
        let mut host = Host::default();
        netlink::links(|link| {
            host.apply(&RouteNetlinkMessage::NewLink(link));
        })?;
        netlink::addresses(|address| {
            host.apply(&RouteNetlinkMessage::NewAddress(address));
        })?;
        Ok(host)
    }

    /// True if something is another than before.
    fn apply(&mut self, message: &RouteNetlinkMessage) -> bool {
        match message {
            // Those of bridges are of their ports, and others, of wireless devices, have no name: neither says what a link is.
            RouteNetlinkMessage::NewLink(link) | RouteNetlinkMessage::DelLink(link)
                if link.header.interface_family != AddressFamily::Unspec =>
            {
                false
            }
            RouteNetlinkMessage::NewLink(message) => {
                let link = Link::of(message);
                !link.name.is_empty() && self.links.insert(link.index, link.clone()) != Some(link)
            }
            RouteNetlinkMessage::DelLink(message) => {
                let index = message.header.index;
                self.addresses.retain(|address| address.link != index);
                self.links.remove(&index).is_some()
            }
            RouteNetlinkMessage::NewAddress(message) => {
                address(message).is_some_and(|address| self.addresses.insert(address))
            }
            RouteNetlinkMessage::DelAddress(message) => {
                address(message).is_some_and(|address| self.addresses.remove(&address))
            }
            _ => false,
        }
    }
}

/// `None`: there is none in the message.
fn address(message: &AddressMessage) -> Option<Address> {
    let (mut local, mut peer) = (None, None);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(ip) => local = Some(*ip),
            // Of the other end, where a link has two, and else the same.
            AddressAttribute::Address(ip) => peer = Some(*ip),
            _ => {}
        }
    }
    let ip = local.or(peer)?;
    Some(Address {
        link: message.header.index,
        ip,
        // That of IPv6 may change without a word of the former one.
        prefix: ip
            .is_ipv4()
            .then_some((message.header.prefix_len, peer.unwrap_or(ip))),
    })
}

/// A link of this host, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Link {
    index: u32,
    name: String,
    address: Option<[u8; 6]>,
    is_loopback: bool,
    /// The link that it stands on, unless that is of another network namespace.
    below: Option<u32>,
    /// The number of its tag, if it is a VLAN.
    vlan: Option<u16>,
}

impl Link {
    fn of(message: &LinkMessage) -> Link {
        let mut link = Link {
            index: message.header.index,
            is_loopback: message.header.flags.contains(LinkFlags::Loopback),
            ..Link::default()
        };
        let mut is_elsewhere = false;
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(address) => link.address = address.as_slice().try_into().ok(),
                LinkAttribute::Link(below) => link.below = Some(*below),
                LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
                LinkAttribute::LinkInfo(infos) => link.vlan = infos.iter().find_map(vlan_number),
                _ => {}
            }
        }
        if is_elsewhere {
            link.below = None;
        }
        link
    }
}

fn vlan_number(info: &LinkInfo) -> Option<u16> {
    let LinkInfo::Data(InfoData::Vlan(data)) = info else {
        return None;
    };
    data.iter().find_map(|item| match item {
        InfoVlan::Id(number) => Some(*number),
        _ => None,
    })
}

/// `None`: there is no such interface, or it has no address of six bytes.
fn link_layer(interface: u32, links: &[Link], strips_tags: bool) -> Option<LinkLayer> {
    let vlans_on = |below: u32| {
        links
            .iter()
            .filter(move |link| link.below == Some(below))
            .filter_map(|link| Some((link, link.vlan?)))
    };
    let itself = links.iter().find(|link| link.index == interface)?;
    let (mut vlans, mut untold) = (Vec::new(), Vec::new());
    for (on_it, outer) in vlans_on(interface) {
        vlans.push(Vlan { outer, inner: None });
        untold.push(on_it.name.clone());
        for (within, inner) in vlans_on(on_it.index) {
            let inner = Some(inner);
            vlans.push(Vlan { outer, inner });
            untold.push(within.name.clone());
        }
    }
    vlans.sort_unstable();
    untold.sort_unstable();
    if !strips_tags {
        untold.clear();
    }
    Some(LinkLayer {
        address: itself.address?,
        is_loopback: itself.is_loopback,
        vlans,
        untold,
    })
}

// linux/rtnetlink.h
const RTMGRP_LINK: u32 = 1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
const NEWS: u32 = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR;
/// Messages that are taken at a time.
const NEWS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vlans_of_an_interface_are_those_on_it_and_within_these() {
        let link = |index, below, vlan| Link {
            index,
            name: format!("if{index}"),
            address: Some([2, 0, 0, 0, 0, index as u8]),
            is_loopback: false,
            below,
            vlan,
        };
        let links = [
            link(2, None, None),
            link(3, None, None),
            link(4, Some(2), Some(5)),
            link(5, Some(4), Some(7)),
            // On another interface; and a macvlan.
            link(6, Some(3), Some(9)),
            link(7, Some(2), None),
            link(8, Some(5), Some(8)),
        ];
        let found = link_layer(2, &links, false).unwrap();
        let inner = |inner| Vlan { outer: 5, inner };
        assert_eq!(found.address, [2, 0, 0, 0, 0, 2]);
        assert_eq!(found.vlans, [inner(None), inner(Some(7))]);
        assert!(found.untold.is_empty());
        assert_eq!(link_layer(2, &links, true).unwrap().untold, ["if4", "if5"]);
        assert_eq!(link_layer(9, &links, false), None);
    }

    #[test]
    fn loopback_is_read_from_the_kernel() {
        let mut links = Links::open(1, "lo").unwrap();
        let expected = LinkLayer {
            is_loopback: true,
            ..LinkLayer::default()
        };
        assert_eq!(links.read().unwrap(), expected);
        links.take_news();
        assert!(!links.take_news());
    }

    #[test]
    fn what_is_known_of_links_and_addresses_follows_the_news() {
        let mut host = Host::default();
        let link = |index, name: &str, family| {
            let mut link = LinkMessage::default();
            link.header.index = index;
            link.header.interface_family = family;
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
            link
        };
        let address = |index, ip: &str, peer: Option<&str>| {
            let mut address = AddressMessage::default();
            address.header.index = index;
            let ip = ip.parse().unwrap();
            address.attributes = match peer {
                Some(peer) => vec![
                    AddressAttribute::Address(peer.parse().unwrap()),
                    AddressAttribute::Local(ip),
                ],
                None => vec![AddressAttribute::Address(ip)],
            };
            address
        };
        let of = |host: &Host| {
            let links: Vec<String> = host.links.values().map(|link| link.name.clone()).collect();
            let addresses: Vec<String> = host
                .addresses
                .iter()
                .map(|address| address.ip.to_string())
                .collect();
            (links.join(" "), addresses.join(" "))
        };
        use RouteNetlinkMessage::{DelAddress, DelLink, NewAddress, NewLink};
        assert!(host.apply(&NewLink(link(2, "eth0", AddressFamily::Unspec))));
        assert!(
            !host.apply(&NewLink(link(2, "eth0", AddressFamily::Unspec))),
            "nothing new"
        );
        assert!(host.apply(&NewLink(link(3, "veth1", AddressFamily::Unspec))));
        assert!(host.apply(&NewAddress(address(2, "192.0.2.1", Some("192.0.2.9")))));
        assert!(host.apply(&NewAddress(address(3, "fe80::1", None))));
        assert!(
            !host.apply(&NewAddress(address(3, "fe80::1", None))),
            "not tentative any more"
        );
        assert_eq!(of(&host), ("eth0 veth1".into(), "192.0.2.1 fe80::1".into()));
        // It leaves a bridge, and is there still; what has no name says something else.
        assert!(!host.apply(&DelLink(link(3, "veth1", AddressFamily::Bridge))));
        assert!(!host.apply(&NewLink(link(3, "", AddressFamily::Unspec))));
        assert!(host.apply(&NewLink(link(2, "wan", AddressFamily::Unspec))));
        assert_eq!(of(&host), ("wan veth1".into(), "192.0.2.1 fe80::1".into()));
        assert!(host.apply(&DelAddress(address(2, "192.0.2.1", Some("192.0.2.9")))));
        assert!(host.apply(&DelLink(link(3, "veth1", AddressFamily::Unspec))));
        assert!(!host.apply(&DelLink(link(3, "veth1", AddressFamily::Unspec))));
        assert_eq!(of(&host), ("wan".into(), String::new()));
    }

    #[test]
    fn news_of_the_interface_itself_may_be_of_its_features() {
        let link = |index, family| {
            let mut link = LinkMessage::default();
            link.header.index = index;
            link.header.interface_family = family;
            link.attributes.push(LinkAttribute::IfName(format!("if{index}")));
            Some(RouteNetlinkMessage::NewLink(link))
        };
        let mut host = Some(Host::default());
        let mut hear_of = |index, family| hear(&mut host, 2, link(index, family));
        assert!(hear_of(2, AddressFamily::Unspec) && hear_of(3, AddressFamily::Unspec));
        assert!(hear_of(2, AddressFamily::Unspec));
        assert!(!hear_of(3, AddressFamily::Unspec));
        assert!(!hear_of(2, AddressFamily::Bridge));
        assert!(hear(&mut host, 2, None) && host.is_none(), "not understood");
    }

    #[test]
    fn interface_is_back_when_another_has_its_name_or_its_number_and_not_while_it_is_only_renamed() {
        let message = |index, name: &str, family| {
            let mut link = LinkMessage::default();
            link.header.index = index;
            link.header.interface_family = family;
            link.attributes.push(LinkAttribute::IfName(name.to_owned()));
            link
        };
        let mut links = Links::open(7, "eth7").unwrap();
        let mut presence = |there: &[(u32, &str)]| {
            let mut host = Host::default();
            for (index, name) in there {
                let link = message(*index, name, AddressFamily::Unspec);
                host.apply(&RouteNetlinkMessage::NewLink(link));
            }
            links.host = Some(host);
            let presence = links.presence().unwrap();
            if let Presence::Back(index) = presence {
                links.adopt(index);
            }
            presence
        };
        assert_eq!(presence(&[(1, "lo"), (7, "eth7")]), Presence::There);
        assert_eq!(presence(&[(7, "wan"), (8, "eth7")]), Presence::There);
        assert_eq!(presence(&[(1, "lo")]), Presence::Gone);
        assert_eq!(presence(&[(1, "lo"), (8, "eth7")]), Presence::Back(8));
        assert_eq!(presence(&[(1, "lo"), (8, "eth7")]), Presence::There);
        let deleted =
            |index, family| deletes(&RouteNetlinkMessage::DelLink(message(index, "eth7", family)), 8);
        assert!(deleted(8, AddressFamily::Unspec));
        assert!(!deleted(7, AddressFamily::Unspec) && !deleted(8, AddressFamily::Bridge));
        links.is_gone = true;
        assert_eq!(links.presence().unwrap(), Presence::Back(8));
    }

    #[test]
    fn address_that_is_there_with_two_prefixes_stays_until_both_are_gone() {
        let mut host = Host::default();
        let address = |ip: &str, prefix_len, peer: &str| {
            let mut address = AddressMessage::default();
            address.header.index = 2;
            address.header.prefix_len = prefix_len;
            address.attributes = vec![
                AddressAttribute::Address(peer.parse().unwrap()),
                AddressAttribute::Local(ip.parse().unwrap()),
            ];
            address
        };
        use RouteNetlinkMessage::{DelAddress, NewAddress};
        let [wide, narrow, towards] = [
            address("192.0.2.1", 24, "192.0.2.1"),
            address("192.0.2.1", 32, "192.0.2.1"),
            address("192.0.2.1", 32, "192.0.2.9"),
        ];
        for address in [&wide, &narrow, &towards] {
            host.apply(&NewAddress(address.clone()));
        }
        let has = |host: &Host, ip: &str| host.addresses.iter().any(|address| address.ip.to_string() == ip);
        for address in [wide, towards] {
            host.apply(&DelAddress(address));
            assert!(has(&host, "192.0.2.1"));
        }
        host.apply(&DelAddress(narrow));
        assert!(!has(&host, "192.0.2.1"));
        // There is one of IPv6 only, whose peer may change.
        host.apply(&NewAddress(address("2001:db8::1", 64, "2001:db8::1")));
        host.apply(&NewAddress(address("2001:db8::1", 64, "2001:db8::9")));
        host.apply(&DelAddress(address("2001:db8::1", 64, "2001:db8::9")));
        assert!(!has(&host, "2001:db8::1"));
    }

    #[test]
    fn news_that_were_missed_are_made_up_for_by_reading_anew() {
        let mut links = Links::open(1, "lo").unwrap();
        let before = links.host().unwrap().clone();
        assert!(before.links.values().any(|link| link.name == "lo"));
        links.host = None;
        assert_eq!(links.addresses().unwrap().len(), before.addresses.len());
        assert_eq!(links.host.as_ref(), Some(&before));
    }
}
