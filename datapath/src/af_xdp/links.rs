//! The link layer of an interface as the kernel has it: the address of the interface, and the host's VLANs on it; and the news of these and of IP
//! addresses.

use std::io;

use netlink_packet_route::link::{InfoData, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
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

/// Reads the link layer, and hears when something changes.
#[derive(Debug)]
pub(super) struct Links {
    interface: u32,
    name: String,
    news: Socket,
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
        })
    }

    /// True if a link or an address of this host may have changed since this was called last.
    pub(super) fn have_news(&self) -> bool {
        let mut have = false;
        // What does not come to an end is looked at again soon.
        for _ in 0..NEWS_MAX {
            match self
                .news
                .recv(&mut Vec::with_capacity(NEWS_BYTES), libc::MSG_DONTWAIT)
            {
                Ok(_) => have = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // There were more than the kernel keeps.
                Err(_) => have = true,
            }
        }
        have
    }

    /// The link layer as it is now.
    pub(super) fn read(&self) -> io::Result<LinkLayer> {
        let mut links = Vec::new();
        netlink::links(|link| links.push(Link::of(&link)))?;
        let strips_tags = topology::strips_tags(&self.name);
        link_layer(self.interface, &links, strips_tags).ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A link of this host, as far as it matters here.
#[derive(Clone, Debug, Default)]
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
/// Messages that are taken at a time; what is in them does not matter.
const NEWS_MAX: usize = 64;
const NEWS_BYTES: usize = 8 << 10;

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
        let links = Links::open(1, "lo").unwrap();
        let expected = LinkLayer {
            is_loopback: true,
            ..LinkLayer::default()
        };
        assert_eq!(links.read().unwrap(), expected);
        links.have_news();
        assert!(!links.have_news());
    }
}
