//! System calls about threads and processors.

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

pub(super) fn affinity() -> io::Result<Vec<usize>> {
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: `set` has the size that is given, and all zero is a valid value of it.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), set.as_mut_ptr()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was zeroed, and the kernel has filled it.
    let set = unsafe { set.assume_init() };
    let is_set = |processor: usize| {
        // SAFETY: `processor` is below CPU_SETSIZE, which is what the set has room for.
        unsafe { libc::CPU_ISSET(processor, &set) }
    };
    Ok((0..libc::CPU_SETSIZE as usize)
        .filter(|&processor| is_set(processor))
        .collect())
}

pub(super) fn set_affinity(processors: &[usize]) -> io::Result<()> {
    if processors
        .iter()
        .any(|&processor| processor >= libc::CPU_SETSIZE as usize)
    {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut set = MaybeUninit::<libc::cpu_set_t>::zeroed();
    // SAFETY: all zero is a valid value of the set.
    let set = unsafe { set.assume_init_mut() };
    for &processor in processors {
        // SAFETY: `processor` is below CPU_SETSIZE.
        unsafe { libc::CPU_SET(processor, set) };
    }
    // SAFETY: `set` has the size that is given.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), set) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

pub(super) fn set_round_robin(priority: libc::c_int) -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: priority,
    };
    // SAFETY: `parameters` lives during the call.
    let result = unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &parameters) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Empties all sets of capabilities of the calling thread; the ambient one empties with them.
pub(super) fn clear_capabilities() -> io::Result<()> {
    // linux/capability.h: version 3, of the calling thread; two words of each set: effective, permitted, inheritable.
    let header: [u32; 2] = [0x2008_0522, 0];
    let sets = [[0u32; 3]; 2];
    // SAFETY: both live during the call, and have the layout of this version.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// The calling thread has a capability, by its number, in its user namespace.
#[cfg(feature = "af_xdp")]
pub(super) fn has_capability(number: u32) -> bool {
    let header: [u32; 2] = [0x2008_0522, 0];
    let mut sets = [[0u32; 3]; 2];
    // SAFETY: both live during the call, and have the layout of this version.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    result == 0 && sets[number as usize / 32][0] & (1 << (number % 32)) != 0
}

/// Asks for new memory of the calling thread to be of a NUMA node, or of any.
pub(super) fn prefer_node(node: Option<usize>) -> io::Result<()> {
    let mut mask = [0u64; NODES_MAX / 64];
    let mode = match node {
        Some(node) if node < NODES_MAX => {
            mask[node / 64] |= 1 << (node % 64);
            libc::MPOL_PREFERRED
        }
        Some(_) => return Err(io::Error::from(io::ErrorKind::InvalidInput)),
        None => libc::MPOL_DEFAULT,
    };
    let nodes = if node.is_some() {
        mask.as_ptr()
    } else {
        std::ptr::null()
    };
    // SAFETY: `mask` lives during the call; the kernel reads one bit less than it is told.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes, NODES_MAX + 1) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// As many as the kernel can be built for.
const NODES_MAX: usize = 1024;

pub(super) fn current_processor() -> Option<usize> {
    // SAFETY: takes no pointer.
    usize::try_from(unsafe { libc::sched_getcpu() }).ok()
}

pub(super) fn cpu_time(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives during the call. Both clocks that are asked for always exist.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
