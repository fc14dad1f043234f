//! The dispatcher of libxdp, which runs several XDP programs on an interface one after the other, and ours as one of them.
//!
//! Such programs are pinned into a file system of the kernel's and outlive their processes. One of ours whose process has gone passes all that
//! comes, as its sockets are closed; the next process takes it off. Whether a program has a process shows by a lock that this holds, which ends with
//! it, however it ends: of a directory beside those of libxdp, where nobody else gets.

mod sys;

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ringway_bpf::{PROGRAM_NAME, XdpProgram};

use crate::config::AttachMode;
use crate::topology;

/// A program on a chain. Dropped, it is taken off, if the process may do that still.
#[derive(Debug)]
pub(super) struct Chained {
    interface: u32,
    id: u32,
    /// `None` until it has one.
    _mark: Option<Mark>,
}

#[cfg(test)]
impl Chained {
    /// On no chain.
    pub(super) fn nowhere(interface: u32) -> Chained {
        Chained {
            interface,
            id: u32::MAX,
            _mark: None,
        }
    }
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
    // Until our program has its mark, another process would take it for one that was left. libxdp itself locks the directory above.
    let one_at_a_time = open(&marks().join("ringway"))?;
    one_at_a_time.lock()?;
    let Some(mut chain) = sys::chain(interface)? else {
        return Ok(None);
    };
    let mut left = Vec::new();
    for (id, name) in &chain.programs {
        if name == PROGRAM_NAME && is_free(&mark_of(*id))? {
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
            // If it stays, the program that gets the number locks it.
            let _ = fs::remove_dir(mark_of(id));
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
    let mut chained = None;
    let xdp = XdpProgram::load_by(|object| {
        let (object, id) = sys::attach(object, interface, chain.native, PRIORITY)?;
        // Whatever fails from here on takes it off.
        chained = Some(Chained {
            interface,
            id,
            _mark: None,
        });
        Ok(object)
    })?;
    let mut chained = chained.ok_or_else(|| io::Error::other("the XDP program was not attached"))?;
    chained._mark = Some(Mark::hold(mark_of(chained.id))?);
    // Without dispatcher, libxdp may have attached it alone: for ever, and in the way of others.
    let is_on_it = |chain: &sys::Chain| chain.programs.iter().any(|(id, _)| *id == chained.id);
    if !sys::chain(interface)?.as_ref().is_some_and(is_on_it) {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the dispatcher has gone meanwhile, or does not run it: start anew",
        ));
    }
    Ok(Some((xdp, chained, chain.native)))
}

/// A directory that is locked for as long as the process lives.
#[derive(Debug)]
struct Mark {
    directory: PathBuf,
    _lock: File,
}

impl Mark {
    /// Fails if another process holds it.
    fn hold(directory: PathBuf) -> io::Result<Mark> {
        let lock = open(&directory)?;
        lock.try_lock()?;
        Ok(Mark {
            directory,
            _lock: lock,
        })
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // If it may not, that is what tells the next process.
        let _ = fs::remove_dir(&self.directory);
    }
}

/// libxdp makes it for its dispatchers, for one user alone.
fn marks() -> PathBuf {
    topology::bpf_files().join("xdp")
}

fn mark_of(id: u32) -> PathBuf {
    marks().join(format!("ringway-{id}"))
}

/// A directory, which is made if it is not there.
fn open(directory: &Path) -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(directory),
    }
}

/// No process holds a mark.
fn is_free(directory: &Path) -> io::Result<bool> {
    let mark = match File::open(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        mark => mark?,
    };
    match mark.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Behind programs that filter (50 if they say nothing), which ours relies on as the kernel does.
const PRIORITY: u32 = 90;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_is_held_until_its_process_ends_even_if_it_cannot_be_removed() {
        let mark = std::env::temp_dir().join(format!("ringway-mark-{}", std::process::id()));
        assert!(is_free(&mark).unwrap());
        let held = Mark::hold(mark.clone()).unwrap();
        assert_eq!(
            Mark::hold(mark.clone()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
        assert!(!is_free(&mark).unwrap());
        fs::write(mark.join("file"), []).unwrap();
        drop(held);
        assert!(mark.exists() && is_free(&mark).unwrap());
        fs::remove_file(mark.join("file")).unwrap();
        drop(Mark::hold(mark.clone()).unwrap());
        assert!(!mark.exists());
    }
}
