//! System calls of AF_XDP.

use std::any::Any;
use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use super::kernel::{BindMode, Binding, Counts, Kernel};
use crate::umem::{Consumer, Memory, Producer, RingSides, RingSizes, Rings, UmemChunk, sides};

/// An AF_XDP socket, with a UMEM of its own.
#[derive(Debug)]
pub(in crate::af_xdp) struct XskSocket {
    descriptor: OwnedFd,
    /// Where that is.
    memory: u64,
}

/// A socket with which the memory of a queue is registered too, to be put into the place of another one.
pub(in crate::af_xdp) struct SpareSocket {
    socket: XskSocket,
    sides: RingSides,
}

impl XskSocket {
    /// What a socket is made of. This takes CAP_NET_RAW; what is done with it later takes no privilege.
    pub(in crate::af_xdp) fn open() -> io::Result<OwnedFd> {
        // SAFETY: takes no pointer.
        let descriptor =
            check(unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
    }

    /// A socket with its rings and all chunks of its memory, not bound yet, of a descriptor of which nothing was made before. There are at least so
    /// many chunks of so many bytes; `place` is that of the queue in its device.
    pub(in crate::af_xdp) fn new(
        descriptor: OwnedFd,
        chunk_bytes: u32,
        chunks: u32,
        place: usize,
        sizes: RingSizes,
    ) -> io::Result<(XskSocket, Rings, Vec<UmemChunk>)> {
        let memory = Memory::map(chunk_bytes, chunks, place)?;
        let SpareSocket { socket, sides } = XskSocket::register(descriptor, &memory, sizes)?;
        // SAFETY: these are the rings of the one socket with which the memory, which is new, is registered.
        let (rings, chunks) = unsafe { Rings::new(memory, sides) };
        Ok((socket, rings, chunks))
    }

    /// Comes into the place of a socket that was [closed](XskSocket::close).
    pub(in crate::af_xdp) fn replace(spare: SpareSocket, rings: &mut Rings) -> io::Result<XskSocket> {
        let SpareSocket { socket, sides } = spare;
        if rings.is_connected() || socket.memory != rings.memory().address() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: these are the rings of a socket with which the memory is registered, and that nobody else has; there is no other that is used.
        unsafe { rings.connect(sides) };
        Ok(socket)
    }

    /// Closes the socket of an interface that is gone, and gives back the chunks that the kernel had to receive into, and those that it was to send.
    /// As long as it is bound, it stays, and comes back.
    pub(in crate::af_xdp) fn close(
        self,
        rings: &mut Rings,
        received: &mut Vec<UmemChunk>,
        sent: &mut Vec<UmemChunk>,
    ) -> Option<XskSocket> {
        if self.memory != rings.memory().address() || !self.is_unbound() {
            return Some(self);
        }
        // SAFETY: these are its rings: memory has one socket at a time. The kernel itself, and not a driver, has said that the socket is bound to
        // nothing, and whoever unbound it has let go of its lock since, which is when driver and NIC are done with the memory.
        unsafe { rings.disconnect(received, sent) };
        None
    }

    /// A socket with its rings, not bound yet, of a descriptor of which nothing was made before. Memory may be that of several sockets, of which one
    /// at most is bound.
    pub(in crate::af_xdp) fn register(
        descriptor: OwnedFd,
        memory: &Memory,
        sizes: RingSizes,
    ) -> io::Result<SpareSocket> {
        let socket = XskSocket {
            descriptor,
            memory: memory.address(),
        };
        // The form that every kernel takes.
        let region = libc::xdp_umem_reg_v1 {
            addr: memory.address(),
            len: memory.bytes() as u64,
            chunk_size: memory.chunk_bytes(),
            headroom: 0,
        };
        socket.set(libc::XDP_UMEM_REG, &region)?;
        socket.set(libc::XDP_UMEM_FILL_RING, &sizes.fill)?;
        socket.set(libc::XDP_UMEM_COMPLETION_RING, &sizes.transmit)?;
        socket.set(libc::XDP_RX_RING, &sizes.receive)?;
        socket.set(libc::XDP_TX_RING, &sizes.transmit)?;
        // SAFETY: plain numbers.
        let mut offsets: libc::xdp_mmap_offsets = unsafe { zeroed() };
        if socket.get(libc::XDP_MMAP_OFFSETS, &mut offsets)? < size_of::<libc::xdp_mmap_offsets>() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "AF_XDP of this kernel tells nobody when it must be woken: it needs Linux 5.4",
            ));
        }
        let (fill_at, completions_at) = (
            libc::XDP_UMEM_PGOFF_FILL_RING,
            libc::XDP_UMEM_PGOFF_COMPLETION_RING,
        );
        let (fill_at, completions_at) = (fill_at as libc::off_t, completions_at as libc::off_t);
        // SAFETY: this one's first time; the kernel consumes.
        let (fill, _) = unsafe { socket.map(&offsets.fr, fill_at, sizes.fill) }?;
        // SAFETY: this one's first time; the kernel produces.
        let (_, completions) = unsafe { socket.map(&offsets.cr, completions_at, sizes.transmit) }?;
        // SAFETY: this one's first time; the kernel produces.
        let (_, receive) = unsafe { socket.map(&offsets.rx, libc::XDP_PGOFF_RX_RING, sizes.receive) }?;
        // SAFETY: this one's first time; the kernel consumes.
        let (transmit, _) = unsafe { socket.map(&offsets.tx, libc::XDP_PGOFF_TX_RING, sizes.transmit) }?;
        let sides = RingSides {
            fill,
            completions,
            receive,
            transmit,
        };
        Ok(SpareSocket { socket, sides })
    }

    /// Binds it to a receive queue. The fill ring should have chunks before: a driver takes some at once.
    pub(in crate::af_xdp) fn bind(&self, binding: Binding) -> io::Result<()> {
        let mode = match binding.mode {
            BindMode::Copy => libc::XDP_COPY,
            BindMode::ZeroCopy => libc::XDP_ZEROCOPY,
        };
        let multi_buffer = if binding.multi_buffer { libc::XDP_USE_SG } else { 0 };
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: mode | multi_buffer | libc::XDP_USE_NEED_WAKEUP,
            sxdp_ifindex: binding.interface,
            sxdp_queue_id: binding.queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY: `address` lives during the call and has the size that is given.
        let result = unsafe {
            libc::bind(
                self.descriptor.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        check(result).map(drop)
    }

    /// Lets one system call send more than the 32 frames that it sends by default where the kernel copies (Linux 6.17). Others do without.
    pub(in crate::af_xdp) fn raise_budget(&self) {
        let _ = self.set(XDP_MAX_TX_SKB_BUDGET, &TRANSMIT_BUDGET);
    }

    fn ask_to_send(&self, flags: libc::c_int) -> io::Result<()> {
        // SAFETY: no buffer is passed.
        let result = unsafe {
            libc::sendto(
                self.descriptor.as_raw_fd(),
                std::ptr::null(),
                0,
                flags,
                std::ptr::null(),
                0,
            )
        };
        check_long(result)
    }

    fn set<T>(&self, option: libc::c_int, value: &T) -> io::Result<()> {
        set_option(self.descriptor.as_fd(), libc::SOL_XDP, option, value)
    }

    /// Gives how many bytes the kernel has written.
    fn get<T>(&self, option: libc::c_int, value: &mut T) -> io::Result<usize> {
        let mut len = size_of::<T>() as libc::socklen_t;
        // SAFETY: `value` is plain numbers, lives during the call and has the size that is given.
        let result = unsafe {
            libc::getsockopt(
                self.descriptor.as_raw_fd(),
                libc::SOL_XDP,
                option,
                std::ptr::from_mut(value).cast(),
                &raw mut len,
            )
        };
        check(result)?;
        Ok(len as usize)
    }

    /// A ring of this socket.
    ///
    /// # Safety
    ///
    /// `T` is what the ring has entries of, and it has so many. It is called once for each ring, and the side that is the kernel's is not used.
    unsafe fn map<T: Copy>(
        &self,
        offsets: &libc::xdp_ring_offset,
        page: libc::off_t,
        size: u32,
    ) -> io::Result<(Producer<T>, Consumer<T>)> {
        let bytes = offsets.desc as usize + size as usize * size_of::<T>();
        let mapping = Mapping::new(self.descriptor.as_fd(), page, bytes)?;
        let start = mapping.start;
        let memory: Arc<dyn Any + Send + Sync> = Arc::new(mapping);
        let offsets = [offsets.producer, offsets.consumer, offsets.flags, offsets.desc];
        // SAFETY: the kernel says where in the mapping they are; the rest the caller promises.
        Ok(unsafe { sides(memory, start, offsets.map(|offset| offset as usize), size) })
    }
}

impl Kernel for XskSocket {
    fn send(&self) -> io::Result<()> {
        self.ask_to_send(libc::MSG_DONTWAIT)
    }

    fn is_unbound(&self) -> bool {
        // A call that may wait the kernel refuses itself if the socket is bound, and asks no driver, who may answer as if it were not.
        let is_unbound = self
            .ask_to_send(0)
            .is_err_and(|error| error.raw_os_error() == Some(libc::ENXIO));
        // Whoever unbinds it holds a lock until all is done that this waits for.
        is_unbound && self.counts().is_ok()
    }

    fn receive(&self) -> io::Result<()> {
        // SAFETY: no buffer is passed: this only makes the driver look at the fill ring.
        let result = unsafe {
            libc::recvfrom(
                self.descriptor.as_raw_fd(),
                std::ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
                std::ptr::null_mut(),
            )
        };
        check_long(result)
    }

    fn counts(&self) -> io::Result<Counts> {
        // SAFETY: plain numbers.
        let mut counted: libc::xdp_statistics = unsafe { zeroed() };
        self.get(libc::XDP_STATISTICS, &mut counted)?;
        Ok(Counts {
            dropped: counted.rx_dropped,
            invalid_descriptors: counted.rx_invalid_descs + counted.tx_invalid_descs,
            ring_full: counted.rx_ring_full,
            fill_ring_empty: counted.rx_fill_ring_empty_descs,
        })
    }

    fn prefer_busy_poll(&self, micros: i32, budget: i32) -> io::Result<()> {
        for (option, value) in [
            (libc::SO_PREFER_BUSY_POLL, 1),
            (libc::SO_BUSY_POLL, micros),
            (libc::SO_BUSY_POLL_BUDGET, budget),
        ] {
            set_option(self.descriptor.as_fd(), libc::SOL_SOCKET, option, &value)?;
        }
        Ok(())
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A ring, mapped as long as this lives. (As long as it is, the kernel keeps the socket bound.)
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: it does nothing with its memory but to unmap it, once.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(descriptor: BorrowedFd<'_>, page: libc::off_t, bytes: usize) -> io::Result<Mapping> {
        // SAFETY: a new mapping, anywhere.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_POPULATE,
                descriptor.as_raw_fd(),
                page,
            )
        };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Mapping {
                start: start.cast(),
                bytes,
            }),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, of this size, and nobody has the ring any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

fn set_option<T>(
    descriptor: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `value` lives during the call and has the size that is given.
    let result = unsafe {
        libc::setsockopt(
            descriptor.as_raw_fd(),
            level,
            option,
            std::ptr::from_ref(value).cast(),
            size_of::<T>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

fn check_long(result: libc::ssize_t) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Frames that one system call sends at most.
const TRANSMIT_BUDGET: u32 = 256;
// linux/if_xdp.h
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;
