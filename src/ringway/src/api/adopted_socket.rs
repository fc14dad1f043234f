//! UDP sockets that the application has opened, as ports of a registration.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use ringway_datapath::port::BoundPort;

use super::error::SetupError;
use super::registration::Registration;
use crate::worker::port_lease::PortLease;

/// A UDP socket that the application has opened and bound, as a port of a registration: one that systemd passes to a service, that is bound to an
/// interface (`SO_BINDTODEVICE`), or that was opened in another network namespace.
///
/// Listeners start on it with [`Listener::start_on`](crate::Listener::start_on), connections with
/// [`Connection::start_on`](crate::Connection::start_on), any number of both. Nothing is read from it before the first of them, so what waits
/// there is not lost. The registration has it as long as one of them, or a clone of this handle, is there, and closes it then. Descriptors of it
/// that the application keeps are not closed: as long as there is one, the system has the address in use.
///
/// It stays a socket of the kernel on every datapath. Where that is AF_XDP, its packets pass the XDP program by and have no part in the bypass.
#[derive(Clone)]
pub struct AdoptedSocket(Arc<Adopted>);

struct Adopted {
    registration: Registration,
    port: Arc<PortLease>,
    /// The partition that receives from it; `None`: each from its own socket.
    partition: Option<usize>,
    only_v6: bool,
    /// Until the first use.
    unused: Mutex<Vec<BoundPort>>,
}

impl std::fmt::Debug for AdoptedSocket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdoptedSocket")
            .field("local", &self.local_address())
            .field("partition", &self.0.partition)
            .finish_non_exhaustive()
    }
}

impl Registration {
    /// Takes over a UDP socket that the application has opened and bound. The thread of `partition` receives from it; all partitions send by it.
    /// `None`: the partition of the calling event handler or, outside of handlers, each partition in turn.
    ///
    /// So one descriptor is as fast as one partition: connections that a listener accepts on it are on this partition, and connections of other
    /// partitions that go out from it have their packets handed over. To spread clients over all partitions, open as many sockets:
    /// [`Registration::adopt_socket_group`].
    ///
    /// It is set on the socket what receiving needs: packet info, ECN, UDP_GRO, no fragmentation (`IP_MTU_DISCOVER`), close-on-exec, and whether it
    /// blocks; the latter holds for other descriptors of it, too. Its buffers grow to
    /// [`receive_buffer_bytes`](crate::DatapathConfig::receive_buffer_bytes) and
    /// [`send_buffer_bytes`](crate::DatapathConfig::send_buffer_bytes) if they are smaller. All else stays as the application has set it.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidConfig`]: the descriptor is not a UDP socket over IPv4 or IPv6, is not bound to a port, or is connected; the partition
    /// does not exist; or the registration is on a simulated network. [`SetupError::Io`]: the system refuses an option that is needed. The
    /// descriptor is closed in each case. [`SetupError::Closed`]: the registration is being closed.
    pub fn adopt_socket(
        &self,
        socket: impl Into<OwnedFd>,
        partition: Option<usize>,
    ) -> Result<AdoptedSocket, SetupError> {
        let partition = partition.unwrap_or_else(|| self.inner.next_partition());
        self.inner.check_partition(partition)?;
        let bound = self.inner.adopt_socket(socket.into(), partition);
        self.adopted(bound, Some(partition))
    }

    /// Takes over UDP sockets that share one address, one for each partition ([`Registration::partition_count`]), in the order in which they were
    /// bound. Each has `SO_REUSEPORT`, set before it was bound. Clients are spread over them as over those that a listener opens by itself: the
    /// registration attaches a program to the group that gives each packet to the partition of its connection.
    ///
    /// Where other processes have sockets of the group, or the order is another, packets arrive on other partitions and are handed over, which
    /// costs time but nothing else.
    ///
    /// # Errors
    ///
    /// As [`Registration::adopt_socket`], and [`SetupError::InvalidConfig`]: there are more or fewer sockets than partitions, two are the same, or
    /// they do not share an address.
    pub fn adopt_socket_group(
        &self,
        sockets: impl IntoIterator<Item = OwnedFd>,
    ) -> Result<AdoptedSocket, SetupError> {
        let bound = self.inner.adopt_socket_group(sockets.into_iter().collect());
        self.adopted(bound, None)
    }

    fn adopted(
        &self,
        bound: io::Result<Vec<BoundPort>>,
        partition: Option<usize>,
    ) -> Result<AdoptedSocket, SetupError> {
        let bound = bound.map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => SetupError::InvalidConfig(error.to_string()),
            _ => SetupError::io("taking over a UDP socket")(error),
        })?;
        Ok(AdoptedSocket(Arc::new(Adopted {
            registration: self.clone(),
            port: self.inner.new_lease(bound[0].local_addr(), None),
            partition,
            only_v6: bound[0].is_only_v6(),
            unused: Mutex::new(bound),
        })))
    }
}

impl AdoptedSocket {
    /// The local address that it is bound to.
    pub fn local_address(&self) -> SocketAddr {
        self.0.port.local
    }

    /// The partition that receives from it; `None` if it is a group of sockets, of which each partition has one.
    pub fn partition(&self) -> Option<usize> {
        self.0.partition
    }

    pub(super) fn registration(&self) -> &Registration {
        &self.0.registration
    }

    /// The port, with what is to be attached to the partitions if this is the first use.
    pub(super) fn port(&self) -> (Arc<PortLease>, Vec<BoundPort>) {
        let mut unused = self.0.unused.lock().unwrap_or_else(PoisonError::into_inner);
        (Arc::clone(&self.0.port), std::mem::take(&mut *unused))
    }

    /// Options that name a local address must name that of the socket.
    pub(super) fn check_local(&self, local: SocketAddr) -> Result<(), SetupError> {
        let ours = self.local_address();
        if local == ours {
            return Ok(());
        }
        Err(SetupError::InvalidConfig(format!(
            "the local address is {local}, and the socket is bound to {ours}: name that one (AdoptedSocket::local_address)"
        )))
    }

    /// It can send there.
    pub(super) fn check_remote(&self, remote: SocketAddr) -> Result<(), SetupError> {
        check_versions(self.local_address(), self.0.only_v6, remote)
    }
}

/// A socket that is bound there can send to the remote address.
pub(super) fn check_versions(local: SocketAddr, only_v6: bool, remote: SocketAddr) -> Result<(), SetupError> {
    let can = match local.is_ipv6() && local.ip().is_unspecified() {
        true => remote.is_ipv6() || !only_v6,
        false => remote.ip().to_canonical().is_ipv4() == local.ip().to_canonical().is_ipv4(),
    };
    if can {
        return Ok(());
    }
    Err(SetupError::InvalidConfig(format!(
        "a socket at {local} cannot reach {remote}, which is of another version of IP"
    )))
}
