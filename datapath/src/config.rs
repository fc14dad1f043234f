//! What devices take, and which of them is made.

use std::io;
use std::time::Duration;

use crate::device::Device;
use crate::io_uring::IoUringDevice;
use crate::socket::SocketDevice;

/// A kind of device. MsQuic has one for each platform; here it is chosen at run time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Backend {
    /// The first of `io_uring` and `socket` that this system lets us have. The notes of its
    /// [`Capabilities`](crate::device::Capabilities) say why it is not an earlier one.
    #[default]
    Auto,
    /// Kernel sockets through io_uring.
    IoUring,
    /// Kernel sockets and epoll: works everywhere.
    Socket,
}

/// What the devices use of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DatapathConfig {
    /// The kind of device. Default: [`Backend::Auto`].
    pub backend: Backend,
    /// Generic segmentation offload, where the kernel has it: many datagrams in one system call. Default: true.
    pub gso: bool,
    /// Generic receive offload, where the kernel has it. Default: true.
    pub gro: bool,
    /// Bytes that the kernel may keep for each socket before they are received. Beyond the system's limit (`net.core.rmem_max`) only with
    /// CAP_NET_ADMIN; as much as is allowed otherwise. Default: 8 MiB.
    pub receive_buffer_bytes: usize,
    /// Bytes that the kernel may keep for each socket before they are sent, likewise. Default: 4 MiB.
    pub send_buffer_bytes: usize,
    /// Receive buffers of 66 KiB that each partition gives the kernel (io_uring): messages that can be handed over before some are
    /// given back. A power of two. Default: 16.
    pub receive_buffers: u16,
    /// How long the kernel polls the NIC before a thread sleeps (io_uring, Linux 6.9). Default: zero, not at all.
    pub busy_poll: Duration,
}

impl Default for DatapathConfig {
    fn default() -> Self {
        DatapathConfig {
            backend: Backend::Auto,
            gso: true,
            gro: true,
            receive_buffer_bytes: 8 << 20,
            send_buffer_bytes: 4 << 20,
            receive_buffers: 16,
            busy_poll: Duration::ZERO,
        }
    }
}

impl Device {
    /// A device for kernel sockets, of the kind that `config` asks for. With `one_thread` it is used by one thread for ever, the first that
    /// receives or sends with it; some kinds are cheaper so.
    pub fn open(config: &DatapathConfig, one_thread: bool) -> io::Result<Device> {
        let io_uring = || {
            IoUringDevice::new(config, one_thread)
                .map(Box::new)
                .map(Device::IoUring)
        };
        let socket = || SocketDevice::new(config).map(Device::Socket);
        match config.backend {
            Backend::IoUring => io_uring(),
            Backend::Socket => socket(),
            Backend::Auto => io_uring().or_else(|error| {
                tracing::info!(%error, "datapath socket: io_uring cannot be had");
                let mut device = socket()?;
                device.note(format!("io_uring: {error}"));
                Ok(device)
            }),
        }
    }
}
