//! What libxdp does with its dispatcher, behind safe functions.

use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use libxdp_sys::{
    libxdp_get_error, libxdp_set_print, xdp_attach_mode, xdp_attach_mode_XDP_MODE_NATIVE,
    xdp_attach_mode_XDP_MODE_SKB, xdp_multiprog, xdp_multiprog__attach_mode, xdp_multiprog__close,
    xdp_multiprog__get_from_ifindex, xdp_multiprog__is_legacy, xdp_multiprog__next_prog, xdp_program,
    xdp_program__attach, xdp_program__close, xdp_program__detach, xdp_program__from_bpf_obj,
    xdp_program__from_id, xdp_program__id, xdp_program__name, xdp_program__set_run_prio,
};
use ringway_bpf::libbpf_rs::{Object, OpenObject};

/// The programs that a dispatcher runs.
#[derive(Debug)]
pub(super) struct Chain {
    /// The dispatcher runs in the driver.
    pub(super) native: bool,
    /// Their numbers and names, in their order.
    pub(super) programs: Vec<(u32, String)>,
}

/// libxdp keeps what it has found out in variables of its own, without locks.
static LIBXDP: Mutex<()> = Mutex::new(());

fn with_libxdp<T>(call: impl FnOnce() -> T) -> T {
    let _one = LIBXDP.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: no other thread is within libxdp, which then says nothing on standard error: its errors are ours to tell.
    unsafe { libxdp_set_print(None) };
    call()
}

/// A pointer of libxdp, which may be an error in the place of one.
fn checked<T>(pointer: *mut T) -> io::Result<NonNull<T>> {
    // SAFETY: it is looked at as a number only.
    let error = unsafe { libxdp_get_error(pointer.cast()) };
    match NonNull::new(pointer) {
        Some(pointer) if error == 0 => Ok(pointer),
        _ => Err(io::Error::from_raw_os_error(
            i32::try_from(-error).unwrap_or(libc::EINVAL),
        )),
    }
}

fn result(code: libc::c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(error.saturating_neg())),
    }
}

/// A program of libxdp's, closed when dropped.
struct Program(NonNull<xdp_program>);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used by nobody else.
        unsafe { xdp_program__close(self.0.as_ptr()) };
    }
}

/// What libxdp knows of an interface, closed when dropped.
struct Dispatcher(NonNull<xdp_multiprog>);

impl Dispatcher {
    /// `None`: there is none.
    fn of(interface: libc::c_int) -> io::Result<Option<Dispatcher>> {
        let found = Dispatcher::or_program_of(interface)?;
        // SAFETY: it is open.
        let is_alone = |found: &Dispatcher| unsafe { xdp_multiprog__is_legacy(found.0.as_ptr()) };
        Ok(found.filter(|found| !is_alone(found)))
    }

    /// As which a program without dispatcher is shown, too.
    fn or_program_of(interface: libc::c_int) -> io::Result<Option<Dispatcher>> {
        // SAFETY: it takes a number.
        match checked(unsafe { xdp_multiprog__get_from_ifindex(interface) }) {
            Ok(found) => Ok(Some(Dispatcher(found))),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn mode(&self) -> xdp_attach_mode {
        // SAFETY: it is open.
        unsafe { xdp_multiprog__attach_mode(self.0.as_ptr()) }
    }

    fn programs(&self) -> Vec<(u32, String)> {
        let mut programs = Vec::new();
        let mut program: *mut xdp_program = std::ptr::null_mut();
        loop {
            // SAFETY: it is open, and the program, unless it is null for the first, is one of its own.
            program = unsafe { xdp_multiprog__next_prog(program, self.0.as_ptr()) };
            if program.is_null() {
                return programs;
            }
            // SAFETY: it is one of the dispatcher's, which is open.
            let id = unsafe { xdp_program__id(program) };
            // SAFETY: as above.
            let name = unsafe { xdp_program__name(program) };
            let name = match name.is_null() {
                true => String::new(),
                // SAFETY: a string that lives as long as the program.
                false => unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(),
            };
            programs.push((id, name));
        }
    }
}

impl Drop for Dispatcher {
    fn drop(&mut self) {
        // SAFETY: it is ours, and used by nobody else.
        unsafe { xdp_multiprog__close(self.0.as_ptr()) };
    }
}

fn number(interface: u32) -> io::Result<libc::c_int> {
    libc::c_int::try_from(interface).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// The chain of an interface; `None` if it has no dispatcher.
pub(super) fn chain(interface: u32) -> io::Result<Option<Chain>> {
    with_libxdp(|| {
        let found = Dispatcher::of(number(interface)?)?;
        Ok(found.map(|found| Chain {
            native: found.mode() == xdp_attach_mode_XDP_MODE_NATIVE,
            programs: found.programs(),
        }))
    })
}

/// Loads the one program of an object into the chain of an interface, with this priority, and tells its number in the kernel. What it passes goes on
/// to those behind it.
pub(super) fn attach(
    object: OpenObject,
    interface: u32,
    native: bool,
    priority: u32,
) -> io::Result<(Object, u32)> {
    let interface = number(interface)?;
    let mode = match native {
        true => xdp_attach_mode_XDP_MODE_NATIVE,
        false => xdp_attach_mode_XDP_MODE_SKB,
    };
    let object = object.take_ptr();
    let attached = with_libxdp(|| {
        // SAFETY: the object is open, not loaded, and outlives the program; that is its first section if none is named.
        let program = Program(checked(unsafe {
            xdp_program__from_bpf_obj(object.as_ptr().cast(), std::ptr::null())
        })?);
        // SAFETY: as above; it is not loaded yet.
        result(unsafe { xdp_program__set_run_prio(program.0.as_ptr(), priority) })?;
        // SAFETY: as above.
        result(unsafe { xdp_program__attach(program.0.as_ptr(), interface, mode, 0) })?;
        // SAFETY: as above.
        Ok(unsafe { xdp_program__id(program.0.as_ptr()) })
    });
    // SAFETY: the pointer was taken from an object, and nobody else has it. It is loaded if it could be attached, and closed with this if not.
    let object = unsafe { Object::from_ptr(object) };
    attached.map(|id| (object, id))
}

/// Takes a program off the chain of an interface, on which the others stay; or off the interface, if it is alone there.
pub(super) fn detach(interface: u32, id: u32) -> io::Result<()> {
    let interface = number(interface)?;
    with_libxdp(|| {
        let found = Dispatcher::or_program_of(interface)?.ok_or(io::ErrorKind::NotFound)?;
        let mode = found.mode();
        // SAFETY: it takes a number.
        let program = Program(checked(unsafe { xdp_program__from_id(id) })?);
        // SAFETY: it is open.
        result(unsafe { xdp_program__detach(program.0.as_ptr(), interface, mode, 0) })
    })
}
