//! Sockets, io_uring and AF_XDP as bare as they come, behind safe functions. Each has its own loops: it shares no code with the device
//! that is compared with it.
//!
//! Invariants that the `unsafe` blocks rest on: memory that the kernel uses after a call returns is on the heap, never moves, is owned by the
//! ring that names it, and is not written to before that request has ended; a frame of AF_XDP is in one place at a time, as its descriptor is.

use std::io;
use std::mem::MaybeUninit;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

use ::io_uring::{EnterFlags, IoUring, cqueue, opcode, types};
use socket2::SockAddr;

use crate::uring::{OwningRing, RequestMemory};

/// UDP payload of each datagram: a full one of 1500 bytes over IPv4.
pub const DATAGRAM_BYTES: usize = 1472;

/// Datagrams in one message: as many as 64 KiB hold.
const SEGMENTS: usize = 44;
const MESSAGE_BYTES: usize = SEGMENTS * DATAGRAM_BYTES;
const BUFFER_BYTES: usize = 66 * 1024;
const CONTROL_BYTES: usize = 64;
/// Messages that a ring sends together.
const RING_SENDS: usize = 8;
const RING_BUFFERS: u16 = 16;

/// `sendmsg` from one buffer. Not connected: a server's socket has many peers.
#[derive(Debug)]
pub struct SocketSender {
    socket: UdpSocket,
    to: SocketAddr,
    buffer: Box<[u8]>,
}

/// Memory that is there: untouched pages would all be the same one.
fn memory(bytes: usize) -> Box<[u8]> {
    vec![1; bytes].into()
}

/// `recvmsg` into one buffer.
#[derive(Debug)]
pub struct SocketReceiver {
    socket: UdpSocket,
    buffer: Box<[u8]>,
}

fn set(fd: RawFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    // SAFETY: `value` lives during the call and has the size that is given.
    let result = unsafe {
        libc::setsockopt(
            fd,
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn prepare_sender(socket: &UdpSocket) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    // Where it is allowed.
    let _ = set(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 4 << 20);
    set(
        fd,
        libc::SOL_UDP,
        libc::UDP_SEGMENT,
        DATAGRAM_BYTES as libc::c_int,
    )
}

fn prepare_receiver(socket: &UdpSocket) -> io::Result<()> {
    let fd = socket.as_raw_fd();
    let _ = set(fd, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 8 << 20);
    set(fd, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// The kernel has no room, or nothing yet.
fn is_for_now(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR | libc::ECONNREFUSED)
    )
}

impl SocketSender {
    pub(super) fn new(socket: UdpSocket, to: SocketAddr) -> io::Result<Self> {
        prepare_sender(&socket)?;
        Ok(SocketSender {
            socket,
            to,
            buffer: memory(MESSAGE_BYTES),
        })
    }

    pub(super) fn send(&mut self, fill: &mut dyn FnMut(&mut [u8])) -> io::Result<usize> {
        fill(&mut self.buffer);
        loop {
            match self.socket.send_to(&self.buffer, self.to) {
                Ok(_) => return Ok(SEGMENTS),
                Err(error) if is_for_now(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl SocketReceiver {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        prepare_receiver(&socket)?;
        socket.set_nonblocking(true)?;
        Ok(SocketReceiver {
            socket,
            buffer: memory(BUFFER_BYTES),
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn receive(&mut self, visit: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
        let mut control = [0u8; CONTROL_BYTES];
        let mut slice = libc::iovec {
            iov_base: self.buffer.as_mut_ptr().cast(),
            iov_len: self.buffer.len(),
        };
        // SAFETY: all zero is a valid value of this plain C structure.
        let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
        message.msg_iov = &raw mut slice;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = CONTROL_BYTES as _;
        // SAFETY: the message points to memory of `self` and of this frame, with its right lengths, for the time of the call.
        let len = unsafe { libc::recvmsg(self.socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
        match usize::try_from(len) {
            Ok(len) => visit(&mut self.buffer[..len]),
            Err(_) => {
                let error = io::Error::last_os_error();
                if !is_for_now(&error) {
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// Messages through a ring.
pub struct UringSender {
    ring: OwningRing<Messages>,
    _socket: UdpSocket,
}

/// What the kernel reads of messages that are sent.
struct Messages {
    _to: Box<SockAddr>,
    _slices: Box<[libc::iovec]>,
    messages: Box<[libc::msghdr]>,
    buffers: Box<[u8]>,
}

impl RequestMemory for Messages {
    fn bytes(&self) -> usize {
        self.buffers.len()
    }
}

impl std::fmt::Debug for UringSender {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UringSender")
    }
}

fn uring(socket: &UdpSocket) -> io::Result<IoUring> {
    let uring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(1024)
        .build(64)?;
    uring.submitter().register_files(&[socket.as_raw_fd()])?;
    Ok(uring)
}

fn enter(uring: &IoUring, submissions: u32, completions: u32) -> io::Result<()> {
    let flags = EnterFlags::GETEVENTS.bits();
    // SAFETY: passes no pointer.
    let result = unsafe {
        uring
            .submitter()
            .enter::<libc::sigset_t>(submissions, completions, flags, None)
    };
    match result {
        Err(error) if !is_for_now(&error) => Err(error),
        _ => Ok(()),
    }
}

impl UringSender {
    pub(super) fn new(socket: UdpSocket, to: SocketAddr) -> io::Result<Self> {
        prepare_sender(&socket)?;
        let uring = uring(&socket)?;
        let to = Box::new(SockAddr::from(to));
        let mut buffers = memory(RING_SENDS * MESSAGE_BYTES);
        let mut slices: Box<[libc::iovec]> = buffers
            .chunks_exact_mut(MESSAGE_BYTES)
            .map(|buffer| libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            })
            .collect();
        // SAFETY: all zero is a valid value of this plain C structure.
        let message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
        let messages = slices
            .iter_mut()
            .map(|slice| libc::msghdr {
                msg_name: to.as_ptr().cast_mut().cast(),
                msg_namelen: to.len(),
                msg_iov: slice,
                msg_iovlen: 1,
                ..message
            })
            .collect();
        let memory = Messages {
            _to: to,
            _slices: slices,
            messages,
            buffers,
        };
        Ok(UringSender {
            ring: OwningRing::new(uring, memory),
            _socket: socket,
        })
    }

    pub(super) fn send(&mut self, fill: &mut dyn FnMut(&mut [u8])) -> io::Result<usize> {
        // None is left over, but after an error.
        self.finish()?;
        fill(&mut self.ring.parts().1.buffers);
        for index in 0..RING_SENDS {
            let message: *const libc::msghdr = &raw const self.ring.parts().1.messages[index];
            let entry = opcode::SendMsg::new(types::Fixed(0), message).build();
            // SAFETY: the message and what it points to are memory of the ring, on the heap, and are written to when no request is in flight.
            if !unsafe { self.ring.push(&entry) } {
                return Err(io::Error::other("the submission queue is full"));
            }
        }
        enter(self.ring.parts().0, RING_SENDS as u32, RING_SENDS as u32)?;
        Ok(self.finish()? * SEGMENTS)
    }

    /// Waits until no request is in flight; gives how many messages were sent.
    fn finish(&mut self) -> io::Result<usize> {
        let mut sent = 0;
        while self.ring.in_flight() > 0 {
            match self.ring.completion() {
                Some(completion) => sent += usize::from(completion.result() == MESSAGE_BYTES as i32),
                None => {
                    let uring = self.ring.parts().0;
                    // Those that an error has left there too.
                    let unsubmitted = uring.submission().len() as u32;
                    enter(uring, unsubmitted, 1)?;
                }
            }
        }
        Ok(sent)
    }
}

/// Multishot receive.
pub struct UringReceiver {
    ring: OwningRing<ReceiveMemory>,
    socket: UdpSocket,
    armed: bool,
}

/// What the kernel receives into.
struct ReceiveMemory {
    message: Box<libc::msghdr>,
    buffers: Box<[u8]>,
    entries: Box<[BufferEntries]>,
    tail: u16,
}

impl RequestMemory for ReceiveMemory {
    fn bytes(&self) -> usize {
        self.buffers.len()
    }
}

/// A page of the ring of buffers, aligned as the kernel wants it.
#[repr(C, align(4096))]
struct BufferEntries([u8; 4096]);

const _: () = assert!(RING_BUFFERS as usize * size_of::<types::BufRingEntry>() <= 4096);

impl std::fmt::Debug for UringReceiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UringReceiver")
    }
}

impl ReceiveMemory {
    /// Gives a buffer that the kernel does not hold to it.
    fn give_back(&mut self, buffer: u16) {
        let start = usize::from(buffer) * BUFFER_BYTES;
        let address = self.buffers[start..][..BUFFER_BYTES].as_mut_ptr() as u64;
        let entries = self.entries.as_mut_ptr().cast::<types::BufRingEntry>();
        let place = usize::from(self.tail % RING_BUFFERS);
        // SAFETY: within the page, which has room for all entries.
        let entry = unsafe { entries.add(place) };
        // SAFETY: zeroed memory is a valid entry; the kernel does not read entries from the tail on.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the page begins with the first entry of the ring of buffers.
        let tail = unsafe { types::BufRingEntry::tail(entries) };
        // SAFETY: the tail is aligned, lives as long as the page, and is written by us alone and atomically.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }
}

/// Where the payload begins in a buffer: behind four counts and the control messages.
const PAYLOAD: usize = 16 + CONTROL_BYTES;

impl UringReceiver {
    pub(super) fn new(socket: UdpSocket) -> io::Result<Self> {
        prepare_receiver(&socket)?;
        let uring = uring(&socket)?;
        let entries: Box<[BufferEntries]> = Box::new([BufferEntries([0; 4096])]);
        // SAFETY: the ring of buffers is zeroed memory of the right size and alignment, and outlives the ring.
        unsafe {
            uring
                .submitter()
                .register_buf_ring_with_flags(entries.as_ptr() as u64, RING_BUFFERS, 0, 0)?;
        }
        // SAFETY: all zero is a valid value of this plain C structure.
        let mut message = unsafe { MaybeUninit::<libc::msghdr>::zeroed().assume_init() };
        message.msg_controllen = CONTROL_BYTES as _;
        let mut memory = ReceiveMemory {
            message: Box::new(message),
            buffers: memory(usize::from(RING_BUFFERS) * BUFFER_BYTES),
            entries,
            tail: 0,
        };
        (0..RING_BUFFERS).for_each(|buffer| memory.give_back(buffer));
        Ok(UringReceiver {
            ring: OwningRing::new(uring, memory),
            socket,
            armed: false,
        })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    pub(super) fn receive(&mut self, visit: &mut dyn FnMut(&mut [u8])) -> io::Result<()> {
        if !self.armed {
            let message: *const libc::msghdr = &raw const *self.ring.parts().1.message;
            let entry = opcode::RecvMsgMulti::new(types::Fixed(0), message, 0).build();
            // SAFETY: the message is on the heap and belongs to the ring; buffers are given with the ring of buffers.
            self.armed = unsafe { self.ring.push(&entry) };
        }
        let uring = self.ring.parts().0;
        let submissions = uring.submission().len() as u32;
        // Deferred work runs in this call only, also when nothing is submitted.
        enter(uring, submissions, 0)?;
        while let Some(completion) = self.ring.completion() {
            self.armed &= cqueue::more(completion.flags());
            let (Some(buffer), Ok(len)) = (
                cqueue::buffer_select(completion.flags()),
                usize::try_from(completion.result()),
            ) else {
                // Out of buffers: armed again next time.
                continue;
            };
            let start = usize::from(buffer) * BUFFER_BYTES;
            let memory = self.ring.parts().1;
            if let Some(payload) = memory.buffers[start..][..len].get_mut(PAYLOAD..) {
                visit(payload);
            }
            memory.give_back(buffer);
        }
        Ok(())
    }
}

#[cfg(feature = "af_xdp")]
pub use xsk::{XskReceiver, XskSender};

#[cfg(feature = "af_xdp")]
mod xsk {
    use std::ffi::CString;
    use std::fs;
    use std::net::Ipv4Addr;
    use std::num::NonZeroU32;
    use std::os::fd::BorrowedFd;
    use std::time::Duration;

    use ringway_types::PortId;
    use xsk_rs::config::{BindFlags, FrameSize, Interface, LibxdpFlags, QueueSize, SocketConfig, UmemConfig};
    use xsk_rs::{CompQueue, FillQueue, FrameDesc, RxQueue, Socket, TxQueue, Umem};

    use super::*;
    use crate::af_xdp::program::{Port, Program};
    use crate::config::DatapathConfig;
    use crate::cpu;

    const RING: u32 = 4096;
    /// No more than suffice: they are used in turn, and should stay in cache.
    const FRAMES: u32 = 512;
    const BATCH: usize = 64;
    /// Ethernet, IPv4, UDP.
    const HEADERS: usize = 14 + 20 + 8;
    const UDP_LENGTH: usize = HEADERS - 4;
    const FRAME: usize = HEADERS + DATAGRAM_BYTES;
    const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

    type Parts = (Umem, Vec<FrameDesc>, TxQueue, RxQueue, FillQueue, CompQueue);

    fn open(interface: &str) -> io::Result<Parts> {
        let ring = QueueSize::new(RING).map_err(io::Error::other)?;
        let umem = UmemConfig::builder()
            .frame_size(FrameSize::new(2048).map_err(io::Error::other)?)
            .fill_queue_size(ring)
            .comp_queue_size(ring)
            .build()
            .map_err(io::Error::other)?;
        let count = NonZeroU32::MIN.saturating_add(FRAMES - 1);
        let (umem, frames) = Umem::new(umem, count, false).map_err(io::Error::other)?;
        let config = SocketConfig::builder()
            .rx_queue_size(ring)
            .tx_queue_size(ring)
            .libxdp_flags(LibxdpFlags::XSK_LIBXDP_FLAGS_INHIBIT_PROG_LOAD)
            .bind_flags(BindFlags::XDP_COPY | BindFlags::XDP_USE_NEED_WAKEUP)
            .build();
        let name = CString::new(interface).map_err(io::Error::other)?;
        let name = Interface::new(name);
        // The kernel takes its time to close the socket that had the queue before.
        let mut tries = 0..100;
        let (transmit, receive, queues) = loop {
            // SAFETY: the UMEM is new and bound nowhere else, and no program is loaded by libxdp.
            match unsafe { Socket::new(config, &umem, &name, 0) } {
                Ok(parts) => break parts,
                Err(error) if tries.next().is_none() => return Err(io::Error::other(error)),
                Err(_) => std::thread::park_timeout(Duration::from_millis(20)),
            }
        };
        let (fill, completions) = queues.ok_or_else(|| io::Error::other("AF_XDP gave no fill ring"))?;
        let _ = set(
            receive.fd().as_raw_fd(),
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            256,
        );
        Ok((umem, frames, transmit, receive, fill, completions))
    }

    fn interface(config: &DatapathConfig) -> io::Result<&str> {
        config
            .af_xdp
            .interface
            .as_deref()
            .ok_or_else(|| io::Error::other("AF_XDP needs the name of an interface"))
    }

    /// Frames of one flow.
    pub struct XskSender {
        umem: Umem,
        transmit: TxQueue,
        completions: CompQueue,
        free: Vec<FrameDesc>,
        batch: Box<[FrameDesc]>,
        headers: [u8; HEADERS],
        _unused: (RxQueue, FillQueue),
    }

    impl std::fmt::Debug for XskSender {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("XskSender")
        }
    }

    fn parse_mac(text: &str) -> Option<[u8; 6]> {
        let mut mac = [0; 6];
        let mut parts = text.trim().split(':');
        for byte in &mut mac {
            *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
        }
        Some(mac)
    }

    /// The kernel finds the neighbour out when something is sent to it.
    fn neighbour(socket: &UdpSocket, to: Ipv4Addr) -> io::Result<[u8; 6]> {
        for _ in 0..100 {
            let _ = socket.send(&[0]);
            std::thread::park_timeout(Duration::from_millis(10));
            let table = fs::read_to_string("/proc/net/arp")?;
            let found = table.lines().find_map(|line| {
                let mut words = line.split_whitespace();
                (words.next()? == to.to_string()).then(|| parse_mac(words.nth(2)?))?
            });
            if let Some(mac) = found.filter(|mac| *mac != [0; 6]) {
                return Ok(mac);
            }
        }
        Err(io::Error::new(
            io::ErrorKind::NotFound,
            format!("{to} is no neighbour on the link"),
        ))
    }

    impl XskSender {
        pub(in crate::floor) fn new(
            config: &DatapathConfig,
            socket: &UdpSocket,
            to: SocketAddr,
        ) -> io::Result<Self> {
            let interface = interface(config)?;
            // So that the socket has an address, which it would choose when it sends.
            socket.connect(to)?;
            let (SocketAddr::V4(from), SocketAddr::V4(to)) = (socket.local_addr()?, to) else {
                return Err(io::Error::other("the floor of AF_XDP is of IPv4"));
            };
            let own = fs::read_to_string(format!("/sys/class/net/{interface}/address"))?;
            let own = parse_mac(&own).ok_or(io::ErrorKind::InvalidData)?;
            let mut headers = [0; HEADERS];
            headers[..6].copy_from_slice(&neighbour(socket, *to.ip())?);
            headers[6..12].copy_from_slice(&own);
            headers[12..14].copy_from_slice(&[8, 0]);
            headers[14..24].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17]);
            headers[16..18].copy_from_slice(&((FRAME - 14) as u16).to_be_bytes());
            headers[26..30].copy_from_slice(&from.ip().octets());
            headers[30..34].copy_from_slice(&to.ip().octets());
            let words = headers[14..34].chunks_exact(2);
            let sum: u32 = words
                .map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])))
                .sum();
            let sum = (sum & 0xffff) + (sum >> 16);
            headers[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
            headers[34..36].copy_from_slice(&from.port().to_be_bytes());
            headers[36..38].copy_from_slice(&to.port().to_be_bytes());
            headers[38..40].copy_from_slice(&((DATAGRAM_BYTES + 8) as u16).to_be_bytes());
            let (umem, frames, transmit, receive, fill, completions) = open(interface)?;
            Ok(XskSender {
                umem,
                transmit,
                completions,
                batch: vec![frames[0]; BATCH].into(),
                free: frames,
                headers,
                _unused: (receive, fill),
            })
        }

        pub(in crate::floor) fn send(&mut self, fill: &mut dyn FnMut(&mut [u8])) -> io::Result<usize> {
            while self.free.len() < BATCH {
                self.transmit.wakeup()?;
                self.complete();
            }
            let start = self.free.len() - BATCH;
            for frame in &mut self.free[start..] {
                // SAFETY: the frame is in `free`: ours alone.
                let mut data = unsafe { self.umem.data_mut(frame) };
                data.cursor().set_pos(FRAME);
                let bytes = data.contents_mut();
                bytes[..HEADERS].copy_from_slice(&self.headers);
                fill(&mut bytes[HEADERS..]);
            }
            // SAFETY: these frames are ours, and leave `free` below if the ring takes them: all or none.
            let taken = unsafe { self.transmit.produce(&self.free[start..]) };
            if taken > 0 {
                self.free.truncate(start);
            }
            self.transmit.wakeup()?;
            self.complete();
            Ok(taken)
        }

        fn complete(&mut self) {
            loop {
                // SAFETY: the batch holds copies only; what is written here goes to `free` at once.
                let count = unsafe { self.completions.consume(&mut self.batch) };
                if count == 0 {
                    break;
                }
                self.free.extend_from_slice(&self.batch[..count]);
            }
        }
    }

    /// Frames of one queue, by descriptors as they come: to check them is the datapath's, and no part of a floor.
    pub struct XskReceiver {
        umem: Umem,
        receive: RxQueue,
        fill: FillQueue,
        backlog: Vec<FrameDesc>,
        batch: Box<[FrameDesc]>,
        program: Program,
        /// Holds the port.
        socket: UdpSocket,
        _unused: (TxQueue, CompQueue),
    }

    impl std::fmt::Debug for XskReceiver {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("XskReceiver")
        }
    }

    impl XskReceiver {
        pub(in crate::floor) fn new(config: &DatapathConfig, socket: UdpSocket) -> io::Result<Self> {
            let interface = interface(config)?;
            let (umem, frames, transmit, receive, fill, completions) = open(interface)?;
            let index = crate::topology::Interface::read(interface)?.index;
            let program = Program::attach(interface, index, config.af_xdp.attach, false)?;
            // SAFETY: the socket is open as long as its queues.
            let descriptor = unsafe { BorrowedFd::borrow_raw(receive.fd().as_raw_fd()) };
            // What is longer than a chunk is lost: nothing longer is sent here.
            program.set_socket(0, descriptor, u16::MAX)?;
            program.add(Port {
                id: PortId(0),
                local: socket.local_addr()?,
            })?;
            let mut receiver = XskReceiver {
                umem,
                receive,
                fill,
                batch: vec![frames[0]; BATCH].into(),
                backlog: frames,
                program,
                socket,
                _unused: (transmit, completions),
            };
            receiver.refill();
            Ok(receiver)
        }

        pub(in crate::floor) fn local_addr(&self) -> io::Result<SocketAddr> {
            self.socket.local_addr()
        }

        pub(in crate::floor) fn receive(&mut self, visit: &mut dyn FnMut(&mut [u8])) {
            // SAFETY: what the descriptors of the batch named before is back in `backlog`.
            let count = unsafe { self.receive.consume(&mut self.batch) };
            let demotes = count > 0 && self.program.is_served_by_another_core(0);
            for frame in &mut self.batch[..count] {
                // SAFETY: the kernel has given the frame to us with the descriptor just now, of this UMEM.
                let mut data = unsafe { self.umem.data_mut(frame) };
                // As long as its header says: frames may be padded.
                let bytes = data.contents_mut();
                let len = bytes
                    .get(UDP_LENGTH..)
                    .and_then(|bytes| bytes.first_chunk())
                    .map_or(0, |len| usize::from(u16::from_be_bytes(*len)));
                if let Some(payload) = bytes.get_mut(HEADERS..HEADERS - 8 + len) {
                    visit(payload);
                    if demotes {
                        cpu::demote_cache_lines(payload);
                    }
                }
            }
            self.backlog.extend_from_slice(&self.batch[..count]);
            self.refill();
        }

        fn refill(&mut self) {
            // SAFETY: these frames are ours, of this UMEM, and leave `backlog` if the ring takes them: all or none.
            let taken = unsafe { self.fill.produce(&self.backlog) };
            if taken > 0 {
                self.backlog.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(clippy::print_stdout, reason = "the reason why a test is skipped")]
    fn message_that_an_error_has_left_behind_goes_out_before_its_memory_is_filled_again() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let (socket, to) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            receiver.local_addr().unwrap(),
        );
        let mut sender = match UringSender::new(socket, to) {
            Ok(sender) => sender,
            Err(error) => return println!("SKIP no io_uring: {error}"),
        };
        // As where the kernel was not entered.
        let message: *const libc::msghdr = &raw const sender.ring.parts().1.messages[0];
        let entry = opcode::SendMsg::new(types::Fixed(0), message).build();
        // SAFETY: as in `send`.
        assert!(unsafe { sender.ring.push(&entry) });
        sender.send(&mut |buffers| buffers.fill(2)).unwrap();
        let mut datagram = [0; DATAGRAM_BYTES];
        assert_eq!(receiver.recv(&mut datagram).unwrap(), DATAGRAM_BYTES);
        assert!(datagram == [1; DATAGRAM_BYTES]);
    }
}
