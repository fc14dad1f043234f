//! The kernel's own account of queues: the netlink family `netdev` (Linux 6.7) tells which NAPI instance serves a queue, and which interrupt
//! that has. Drivers had to learn to say so, and many say it only in later kernels or in part.

use std::collections::HashMap;
use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NlasIterator,
    ParseableParametrized,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::{Socket, protocols::NETLINK_GENERIC};

use super::netlink;

// linux/netdev.h
#[cfg(feature = "af_xdp")]
const DEVICE_GET: u8 = 1;
const QUEUE_GET: u8 = 10;
const NAPI_GET: u8 = 11;
#[cfg(feature = "af_xdp")]
const DEVICE_IFINDEX: u16 = 1;
#[cfg(feature = "af_xdp")]
const DEVICE_XDP_FEATURES: u16 = 3;
/// Of both requests, an attribute of its own number each.
const QUEUE_IFINDEX: u16 = 2;
const QUEUE_ID: u16 = 1;
const QUEUE_TYPE: u16 = 3;
const QUEUE_TYPE_RX: u32 = 0;
const QUEUE_NAPI_ID: u16 = 4;
const NAPI_IFINDEX: u16 = 1;
const NAPI_ID: u16 = 2;
const NAPI_IRQ: u16 = 3;

/// What an interface can do for XDP, in the driver. An error if the kernel does not say.
#[cfg(feature = "af_xdp")]
pub(super) fn xdp_features(interface: u32) -> io::Result<u32> {
    let devices = Netlink::open()?.dump(DEVICE_GET, DEVICE_IFINDEX, interface)?;
    let mut its = devices
        .iter()
        .filter(|device| device.get(DEVICE_IFINDEX) == Some(interface));
    let features = its.find_map(|device| device.get(DEVICE_XDP_FEATURES));
    features.ok_or_else(|| io::ErrorKind::NotFound.into())
}

// enum netdev_xdp_act
#[cfg(feature = "af_xdp")]
pub(super) const XDP_REDIRECT: u32 = 1 << 1;
#[cfg(feature = "af_xdp")]
pub(super) const XDP_ZERO_COPY: u32 = 1 << 3;

/// Receive queues of an interface, each with its interrupt if the driver says which. An error if the kernel does not know the family.
pub(super) fn queue_interrupts(interface: u32) -> io::Result<Vec<(u32, Option<u32>)>> {
    let netlink = Netlink::open()?;
    let queues = netlink.dump(QUEUE_GET, QUEUE_IFINDEX, interface)?;
    let napi = netlink.dump(NAPI_GET, NAPI_IFINDEX, interface)?;
    Ok(join(&queues, &napi))
}

/// Receive queues with the interrupts of the NAPI instances that serve them.
fn join(queues: &[Attributes], napi: &[Attributes]) -> Vec<(u32, Option<u32>)> {
    let interrupts: HashMap<u32, u32> = napi
        .iter()
        .filter_map(|napi| Some((napi.get(NAPI_ID)?, napi.get(NAPI_IRQ)?)))
        .collect();
    let receive = queues
        .iter()
        .filter(|queue| queue.get(QUEUE_TYPE) == Some(QUEUE_TYPE_RX));
    let mut found: Vec<_> = receive
        .filter_map(|queue| {
            let napi = queue.get(QUEUE_NAPI_ID);
            Some((
                queue.get(QUEUE_ID)?,
                napi.and_then(|napi| interrupts.get(&napi).copied()),
            ))
        })
        .collect();
    found.sort_unstable();
    found
}

/// A conversation with the family.
struct Netlink {
    socket: Socket,
    family: u16,
}

impl Netlink {
    fn open() -> io::Result<Netlink> {
        let socket = netlink::connect(NETLINK_GENERIC)?;
        let request = GenlCtrl {
            cmd: GenlCtrlCmd::GetFamily,
            nlas: vec![GenlCtrlAttrs::FamilyName("netdev".to_owned())],
        };
        let mut message = NetlinkMessage::from(GenlMessage::from_payload(request));
        message.header.flags = NLM_F_REQUEST;
        netlink::send(&socket, message)?;
        let mut family = None;
        netlink::receive(&socket, |reply: GenlMessage<GenlCtrl>| {
            let id = reply.payload.nlas.iter().find_map(|attribute| match attribute {
                GenlCtrlAttrs::FamilyId(id) => Some(*id),
                _ => None,
            });
            family = family.or(id);
        })?;
        let family = family.ok_or(io::ErrorKind::NotFound)?;
        Ok(Netlink { socket, family })
    }

    /// All objects of a kind that an interface has.
    fn dump(&self, command: u8, key: u16, interface: u32) -> io::Result<Vec<Attributes>> {
        let request = Request {
            command,
            interface: DefaultNla::new(key, interface.to_ne_bytes().to_vec()),
        };
        let mut generic = GenlMessage::from_payload(request);
        generic.set_resolved_family_id(self.family);
        let mut message = NetlinkMessage::from(generic);
        message.header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        netlink::send(&self.socket, message)?;
        let mut objects = Vec::new();
        netlink::receive(&self.socket, |object: GenlMessage<Attributes>| {
            objects.push(object.payload);
        })?;
        Ok(objects)
    }
}

/// Asks for what an interface has.
#[derive(Debug)]
struct Request {
    command: u8,
    interface: DefaultNla,
}

impl GenlFamily for Request {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        self.command
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Request {
    fn buffer_len(&self) -> usize {
        self.interface.buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.interface.emit(buffer);
    }
}

/// Attributes of an object that are numbers, of which no more than 32 bits are wanted here.
#[derive(Debug, Default)]
struct Attributes(Vec<(u16, u32)>);

impl Attributes {
    fn get(&self, kind: u16) -> Option<u32> {
        self.0.iter().find(|(of, _)| *of == kind).map(|(_, value)| *value)
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Attributes {
    fn parse_with_param(bytes: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let mut numbers = Vec::new();
        for attribute in NlasIterator::new(bytes) {
            let attribute = attribute?;
            let value = match *attribute.value() {
                [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
                [a, b, c, d, e, f, g, h] => u64::from_ne_bytes([a, b, c, d, e, f, g, h]) as u32,
                _ => continue,
            };
            numbers.push((attribute.kind(), value));
        }
        Ok(Attributes(numbers))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queues_have_the_interrupts_of_the_napi_instances_that_serve_them() {
        let queue = |id, kind, napi: Option<u32>| {
            let mut attributes = vec![(QUEUE_ID, id), (QUEUE_IFINDEX, 7), (QUEUE_TYPE, kind)];
            attributes.extend(napi.map(|napi| (QUEUE_NAPI_ID, napi)));
            Attributes(attributes)
        };
        let queues = [
            queue(1, 0, Some(8196)),
            queue(0, 0, Some(8197)),
            queue(2, 0, None),
            queue(3, 0, Some(9000)),
            queue(0, 1, Some(8196)),
        ];
        let napi = [
            Attributes(vec![(NAPI_IFINDEX, 7), (NAPI_ID, 8196), (NAPI_IRQ, 41)]),
            Attributes(vec![(NAPI_IFINDEX, 7), (NAPI_ID, 8197), (NAPI_IRQ, 40)]),
            Attributes(vec![(NAPI_IFINDEX, 7), (NAPI_ID, 9000)]),
        ];
        assert_eq!(
            join(&queues, &napi),
            [(0, Some(40)), (1, Some(41)), (2, None), (3, None)]
        );
    }

    #[test]
    fn the_kernel_answers_for_an_interface_and_refuses_what_is_none() {
        if let Err(error) = Netlink::open() {
            // Before Linux 6.3 there is no such family.
            assert_eq!(error.raw_os_error(), Some(libc::ENOENT), "{error}");
            return;
        }
        // Loopback has a queue and no interrupt.
        for (queue, interrupt) in queue_interrupts(1).unwrap_or_default() {
            assert_eq!((queue, interrupt), (0, None));
        }
        assert!(queue_interrupts(u32::MAX).is_err_and(|error| error.raw_os_error().is_some()));
    }
}
