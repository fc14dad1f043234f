//! The dispatcher of libxdp, which runs several XDP programs on an interface one after the other, and ours as one of them.
//!
//! Such programs are pinned into a file system of the kernel's and outlive their processes. One of ours whose process has gone passes all that
//! comes, as its sockets are closed; the next process takes it off. Whether a program has a process shows by a name that this holds for it: an
//! abstract UNIX address, which is of the network namespace, as the interface is, and ends with the process, however that ends.

mod sys;

use std::fs::File;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use ringway_bpf::{PROGRAM_NAME, XdpProgram};

use crate::config::AttachMode;
use crate::topology;

/// A program on a chain. Dropped, it is taken off, if the process may do that still.
#[derive(Debug)]
pub(super) struct Chained {
    interface: u32,
    id: u32,
    /// `None` until it has one.
    _name: Option<UnixDatagram>,
}

impl Drop for Chained {
    fn drop(&mut self) {
        if let Err(error) = sys::detach(self.interface, self.id) {
            let id = self.id;
            tracing::info!(%error, id, "the XDP program stays on its chain, and passes all");
        }
    }
}

/// Joins the chain of an interface, with what it takes to leave it again, and whether it runs in the driver. `None` if there is no dispatcher.
pub(super) fn join(interface: u32, attach: AttachMode) -> io::Result<Option<(XdpProgram, Chained, bool)>> {
    // Until our program has its process's name, another process would take it for one that was left.
    // libxdp itself locks a directory below this one.
    let one_at_a_time = File::open(topology::bpf_files())?;
    one_at_a_time.lock()?;
    let Some(mut chain) = sys::chain(interface)? else {
        return Ok(None);
    };
    let mut left = Vec::new();
    for (id, name) in &chain.programs {
        if name == PROGRAM_NAME && is_free(&name_of(*id))? {
            left.push(*id);
        }
    }
    if !left.is_empty() {
        for id in left {
            tracing::info!(id, "an XDP program whose process has gone is taken off its chain");
            match sys::detach(interface, id) {
                // Somebody else has done so.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                done => done?,
            }
        }
        // It may have been the only one.
        match sys::chain(interface)? {
            Some(rest) => chain = rest,
            None => return Ok(None),
        }
    }
    let is_other_mode = match attach {
        AttachMode::Auto => false,
        AttachMode::Native => !chain.native,
        AttachMode::Generic => chain.native,
    };
    if is_other_mode {
        let mode = if chain.native { "native" } else { "generic" };
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("in use: other XDP programs run on it in {mode} mode, which ours has to take too"),
        ));
    }
    // Before anything is attached that would stay without it.
    UnixDatagram::unbound().map_err(|error| {
        let what = format!(
            "no UNIX socket can be had, by which others see that its process lives (AF_UNIX): {error}"
        );
        io::Error::new(error.kind(), what)
    })?;
    let mut chained = None;
    let xdp = XdpProgram::load_by(|object| {
        let (object, id) = sys::attach(object, interface, chain.native, PRIORITY)?;
        // Whatever fails from here on takes it off.
        chained = Some(Chained {
            interface,
            id,
            _name: None,
        });
        Ok(object)
    })?;
    let mut chained = chained.ok_or_else(|| io::Error::other("the XDP program was not attached"))?;
    chained._name = Some(hold(&name_of(chained.id))?);
    Ok(Some((xdp, chained, chain.native)))
}

fn name_of(id: u32) -> String {
    format!("ringway-xdp-{id}")
}

/// Holds a name for as long as the socket is open; fails if another one does.
fn hold(name: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

/// Nobody holds a name.
fn is_free(name: &str) -> io::Result<bool> {
    match hold(name) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error),
    }
}

/// Behind programs that filter (50 if they say nothing), which ours relies on as the kernel does.
const PRIORITY: u32 = 90;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_is_held_until_its_socket_is_closed() {
        let name = format!("ringway-test-{}", std::process::id());
        let held = hold(&name).unwrap();
        assert_eq!(hold(&name).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(!is_free(&name).unwrap());
        drop(held);
        assert!(is_free(&name).unwrap());
    }
}
