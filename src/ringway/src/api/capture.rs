//! Captures: what a registration receives and sends, in a pcapng file.

use std::convert::Infallible;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ringway_datapath::capture::{self, CaptureFile, CaptureOptions, CaptureStats};
use ringway_datapath::clock::Clock;

use super::error::SetupError;
use super::registration::Registration;
use crate::worker::inbox::{DeviceOperation, Operation};
use crate::worker::unix_time::unix_time;

/// A capture that is under way. Dropped, it ends in the background; [`Capture::finish`] waits for that.
pub struct Capture {
    /// Dropped, it tells the thread to end.
    stop: Option<mpsc::Sender<Infallible>>,
    thread: Option<JoinHandle<io::Result<CaptureStats>>>,
    stats: Arc<Mutex<CaptureStats>>,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Capture")
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Registration {
    /// Writes what is received and sent from now on to `output`, as a pcapng file (draft-ietf-opsawg-pcapng) that Wireshark, tshark and tcpdump
    /// open: what tcpdump does for packets that the kernel sees. Packets are as they are on the wire, encrypted; with a key log
    /// ([`key_log_callback`](crate::key_log_callback)) Wireshark decrypts them.
    ///
    /// With AF_XDP these are the Ethernet frames, each with its queue; checksums may be missing from those of senders on the same machine. What goes
    /// by sockets has IP and UDP headers made of what the sockets tell: addresses, ports, ECN; GSO and GRO runs are taken apart. A datagram counts as
    /// sent when it is handed to the kernel, whatever that does with it. All packets of one turn of a thread have its time.
    ///
    /// The packet path copies what is taken into a ring ([`CaptureOptions::buffer_bytes`]), without a lock, and a thread of the capture's own writes
    /// to `output` and may wait for it. Packets that find no room in the ring are missing from the file, nowhere else; they are counted, in
    /// [`CaptureStats::dropped`] and at the end of the file. A registration has one capture at a time.
    ///
    /// That thread has the capabilities of the calling one, as Linux keeps them by thread: a process that gives them up makes captures on a thread
    /// that has done so ([`drop_capabilities`](crate::drop_capabilities)).
    ///
    /// May be called on any thread. Does not wait: devices begin in their next turns, before anything that is posted to them after this call, so that
    /// connections and listeners that start afterwards are captured from their first packet on.
    ///
    /// # Errors
    ///
    /// [`SetupError::InvalidValue`]: an option cannot be, as it says, or the network is a simulated one. [`SetupError::Io`]: there is a capture
    /// already, the beginning of the file cannot be written, or no thread can be started.
    pub fn capture(
        &self,
        output: impl io::Write + Send + 'static,
        options: &CaptureOptions,
    ) -> Result<Capture, SetupError> {
        let devices = self.capabilities();
        let checked = match devices.iter().any(|device| device.backend == "sim") {
            true => Err((
                "capture",
                "a simulated network has no packets to capture".to_owned(),
            )),
            false => options.check(&devices),
        };
        checked.map_err(|(key, problem)| SetupError::InvalidValue { key, problem })?;
        let running = Running::new(&self.inner.capturing).map_err(SetupError::io("capturing"))?;
        let (clock, interface) = (Clock::shared(), self.inner.interface.as_deref());
        let (taps, file) = capture::begin(options, &devices, interface, output, clock.now(), unix_time())
            .map_err(SetupError::io("writing the beginning of a capture"))?;
        let stats = Arc::new(Mutex::new(file.stats()));
        let (stop, stopped) = mpsc::channel();
        let write = {
            let stats = Arc::clone(&stats);
            move || {
                let written = write(file, clock, &stopped, &stats);
                if let Err(error) = &written {
                    tracing::warn!(%error, "a capture ends: it cannot be written");
                }
                drop(running);
                written
            }
        };
        let thread = std::thread::Builder::new()
            .name("capture".to_owned())
            .spawn(write)
            .map_err(SetupError::io("starting a thread"))?;
        for (inbox, taps) in self.inner.inboxes.iter().zip(taps) {
            inbox.post(Operation::Device(DeviceOperation::SetTaps(taps)));
        }
        Ok(Capture {
            stop: Some(stop),
            thread: Some(thread),
            stats,
        })
    }
}

impl Capture {
    /// What it has done so far. May be called on any thread.
    pub fn stats(&self) -> CaptureStats {
        *lock(&self.stats)
    }

    /// True when it has ended: it has what it was to take, its registration is closed, or it could not be written. [`Capture::finish`] says which.
    pub fn is_over(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Ends it, waits until the file is written, and gives what it has done. What was taken by now is in the file. Must not be called in an event
    /// handler: it waits for `output`.
    ///
    /// # Errors
    ///
    /// `output` gave this error: the file ends there.
    pub fn finish(mut self) -> io::Result<CaptureStats> {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        ended.unwrap_or_else(|| Ok(Ok(self.stats()))).unwrap_or_else(|_| {
            Err(io::Error::other(
                "the thread that writes the capture has panicked",
            ))
        })
    }
}

/// One capture at a time.
struct Running(Arc<AtomicBool>);

impl Running {
    fn new(flag: &Arc<AtomicBool>) -> io::Result<Running> {
        match flag.swap(true, Ordering::Relaxed) {
            false => Ok(Running(Arc::clone(flag))),
            true => Err(io::Error::new(
                io::ErrorKind::ResourceBusy,
                "there is a capture under way: a registration has one at a time",
            )),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Writes until there is nothing more to be written, or it is told to end.
fn write<W: io::Write>(
    mut file: CaptureFile<W>,
    clock: Clock,
    stopped: &mpsc::Receiver<Infallible>,
    stats: &Mutex<CaptureStats>,
) -> io::Result<CaptureStats> {
    let mut is_told = false;
    while !file.is_complete() {
        let written = file.write_arrived()?;
        *lock(stats) = file.stats();
        if is_told {
            // What was taken before is written still.
            match written {
                0 => break,
                _ => continue,
            }
        }
        is_told = match written {
            0 => stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Disconnected),
            _ => stopped.try_recv() == Err(TryRecvError::Disconnected),
        } || file.is_overdue(clock.now());
        if is_told {
            file.end();
        }
    }
    let ended = file.finish(clock.now())?;
    *lock(stats) = ended;
    Ok(ended)
}

fn lock(stats: &Mutex<CaptureStats>) -> MutexGuard<'_, CaptureStats> {
    stats.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often it is looked for packets when there were none.
const LOOK_EVERY: Duration = Duration::from_millis(2);
