//! What the safe functions of the crate do not reach: parameters, who owns a handle, and memory that MsQuic holds while it sends.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::io::Write;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::ptr::{self, null_mut};
use std::slice;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use msquic::ffi::{
    HQUIC, QUIC_CERTIFICATE, QUIC_GLOBAL_EXECUTION_CONFIG_FLAGS_QUIC_GLOBAL_EXECUTION_CONFIG_FLAG_AFFINITIZE,
    QUIC_PARAM_CONFIGURATION_SETTINGS, QUIC_PARAM_CONN_LOCAL_ADDRESS, QUIC_PARAM_CONN_REMOTE_ADDRESS,
    QUIC_PARAM_CONN_RESUMPTION_TICKET, QUIC_PARAM_CONN_SHARE_UDP_BINDING, QUIC_PARAM_CONN_TLS_SECRETS,
    QUIC_PARAM_GLOBAL_EXECUTION_CONFIG, QUIC_PARAM_GLOBAL_RETRY_MEMORY_PERCENT, QUIC_PARAM_GLOBAL_SETTINGS,
    QUIC_TLS_SECRETS,
};
use msquic::{
    Addr, Api, BufferRef, Configuration, Connection, ConnectionRef, SendFlags, Settings, Status, StatusCode,
    Stream, StreamEvent, StreamOpenFlags, StreamRef,
};
use ringway_peers::key_log;
use rustix::thread::{CpuSet, sched_getaffinity};

/// Of msquicp.h, which the crate has no constants of. It takes no value.
const QUIC_PARAM_CONN_FORCE_KEY_UPDATE: u32 = 0x8500_0000;
/// MsQuic's limit.
const PARTITIONS: usize = 512;

/// `QUIC_GLOBAL_EXECUTION_CONFIG`, whose list of processors is as long as it needs to be.
#[repr(C)]
struct ExecutionConfig {
    flags: u32,
    polling_idle_timeout_us: u32,
    processor_count: u32,
    processors: [u16; PARTITIONS],
}

unsafe extern "C" {
    /// Of the OpenSSL that is part of MsQuic.
    fn X509_check_host(
        certificate: *mut c_void,
        name: *const c_char,
        name_len: usize,
        flags: c_uint,
        peer_name: *mut *mut c_char,
    ) -> c_int;
}

/// Makes MsQuic run a thread on each processor that this process may use, and on no other. By itself it takes all of the machine, and
/// moves its threads there. To be called before anything else of MsQuic.
pub fn keep_to_processors() -> Result<()> {
    let allowed = sched_getaffinity(None).context("asking for the processors that this process may use")?;
    let mut config = ExecutionConfig {
        flags: QUIC_GLOBAL_EXECUTION_CONFIG_FLAGS_QUIC_GLOBAL_EXECUTION_CONFIG_FLAG_AFFINITIZE,
        polling_idle_timeout_us: 0,
        processor_count: 0,
        processors: [0; PARTITIONS],
    };
    for (place, processor) in config
        .processors
        .iter_mut()
        .zip((0..CpuSet::MAX_CPU).filter(|&processor| allowed.is_set(processor)))
    {
        *place = processor as u16;
        config.processor_count += 1;
    }
    ensure!(config.processor_count > 0, "no processor to run on");
    Api::get_ffi();
    // SAFETY: this parameter takes this structure, with at least `processor_count` processors.
    unsafe { set(null_mut(), QUIC_PARAM_GLOBAL_EXECUTION_CONFIG, &config) }
        .context("setting the processors of MsQuic")
}

/// Makes every client prove its address: no memory at all may be spent on handshakes before.
pub fn always_retry() -> Result<()> {
    // SAFETY: this parameter takes an u16.
    unsafe { set(null_mut(), QUIC_PARAM_GLOBAL_RETRY_MEMORY_PERCENT, &0u16) }.context("demanding Retry")
}

/// Settings of which MsQuic looks only at those of the whole process.
pub fn set_globally(settings: &Settings) -> Result<()> {
    // SAFETY: this parameter takes this structure.
    unsafe { set(null_mut(), QUIC_PARAM_GLOBAL_SETTINGS, settings.as_ffi_ref()) }.context("setting MsQuic up")
}

/// Lets MsQuic send from our memory. The crate's settings can only turn this buffering on.
pub fn disable_send_buffering(configuration: &Configuration) -> Result<()> {
    let mut settings = *Settings::new().set_SendBufferingEnabled().as_ffi_ref();
    settings.set_SendBufferingEnabled(0);
    // SAFETY: the handle is that of a configuration, and lives.
    let handle = unsafe { configuration.as_raw() };
    // SAFETY: this parameter takes this structure.
    unsafe { set(handle, QUIC_PARAM_CONFIGURATION_SETTINGS, &settings) }.context("turning send buffering off")
}

/// Where to connect to, whatever the server's name resolves to.
pub fn set_remote(connection: &Connection, address: SocketAddr) -> Result<(), Status> {
    // SAFETY: the handle is that of a connection, and lives.
    let handle = unsafe { connection.as_raw() };
    // SAFETY: this parameter takes an address.
    unsafe { set(handle, QUIC_PARAM_CONN_REMOTE_ADDRESS, &Addr::from(address)) }
}

/// Lets a connection share a socket: the one at `local`, else one that others may join.
pub fn share_socket(connection: &Connection, local: Option<&Addr>) -> Result<(), Status> {
    // SAFETY: the handle is that of a connection, and lives.
    let handle = unsafe { connection.as_raw() };
    // SAFETY: this parameter takes a BOOLEAN, which is an u8.
    unsafe { set(handle, QUIC_PARAM_CONN_SHARE_UDP_BINDING, &1u8) }?;
    match local {
        // SAFETY: this parameter takes an address.
        Some(local) => unsafe { set(handle, QUIC_PARAM_CONN_LOCAL_ADDRESS, local) },
        None => Ok(()),
    }
}

/// Gives the client of a connection, whose handshake is complete, a ticket.
pub fn give_ticket(connection: &Connection) -> Result<(), Status> {
    let send = Api::get_ffi().ConnectionSendResumptionTicket;
    let send = send.ok_or(StatusCode::QUIC_STATUS_NOT_SUPPORTED)?;
    // SAFETY: the handle is that of a connection, and lives; there are no flags, and no data of ours.
    let status = unsafe { send(connection.as_raw(), 0, 0, ptr::null()) };
    Status::ok_from_raw(status)
}

/// Resumes the session of a ticket. To be called before the connection starts.
pub fn resume(connection: &Connection, ticket: &[u8]) -> Result<(), Status> {
    // SAFETY: the handle is that of a connection, and lives.
    let handle = unsafe { connection.as_raw() };
    // SAFETY: this parameter takes so many bytes, and copies them.
    unsafe {
        Api::set_param(
            handle,
            QUIC_PARAM_CONN_RESUMPTION_TICKET,
            ticket.len() as u32,
            ticket.as_ptr().cast(),
        )
    }
}

/// Where MsQuic writes the secrets of a connection. It is never freed: they are for tests.
pub struct Secrets(*mut QUIC_TLS_SECRETS);

// SAFETY: it is read by nobody but the handler of the connection, whose thread is the one that writes.
unsafe impl Send for Secrets {}
// SAFETY: the same.
unsafe impl Sync for Secrets {}

impl Secrets {
    /// Of a connection that has not started, if they are wanted.
    pub fn of(connection: &Connection) -> Result<Option<Secrets>, Status> {
        if key_log().is_none() {
            return Ok(None);
        }
        // SAFETY: integers and bits, all of which may be zero.
        let memory: &mut QUIC_TLS_SECRETS = Box::leak(Box::new(unsafe { zeroed() }));
        let memory = ptr::from_mut(memory);
        // SAFETY: the handle is that of a connection, and lives; this parameter takes such memory, which it keeps, and which is never freed.
        unsafe {
            Api::set_param(
                connection.as_raw(),
                QUIC_PARAM_CONN_TLS_SECRETS,
                size_of::<QUIC_TLS_SECRETS>() as u32,
                memory.cast(),
            )
        }?;
        Ok(Some(Secrets(memory)))
    }

    /// Writes them to the key log. To be called with the Connected event.
    pub fn write(&self) {
        // SAFETY: it is never freed, and nobody writes to it during this event.
        let secrets = unsafe { *self.0 };
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let len = usize::from(secrets.SecretLength);
        let lines: String = [
            (
                "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
                secrets.ClientHandshakeTrafficSecret,
            ),
            (
                "SERVER_HANDSHAKE_TRAFFIC_SECRET",
                secrets.ServerHandshakeTrafficSecret,
            ),
            ("CLIENT_TRAFFIC_SECRET_0", secrets.ClientTrafficSecret0),
            ("SERVER_TRAFFIC_SECRET_0", secrets.ServerTrafficSecret0),
        ]
        .iter()
        .map(|(label, secret)| format!("{label} {} {}\n", hex(&secrets.ClientRandom), hex(&secret[..len])))
        .collect();
        if let Some(mut file) = key_log() {
            // A test misses what cannot be written.
            let _ = file.write_all(lines.as_bytes());
        }
    }
}

/// Starts to use new keys on the connection of `stream`; fails while MsQuic may not yet.
pub fn update_keys(stream: &Stream) -> Result<(), Status> {
    // SAFETY: the handle is that of a stream, and lives; it stands for its connection.
    let handle = unsafe { stream.as_raw() };
    // SAFETY: this parameter has no value.
    unsafe { Api::set_param(handle, QUIC_PARAM_CONN_FORCE_KEY_UPDATE, 0, ptr::null()) }
}

/// # Safety
///
/// `handle` lives (or is null for a global parameter), and `T` is what `parameter` takes.
unsafe fn set<T>(handle: HQUIC, parameter: u32, value: &T) -> Result<(), Status> {
    // SAFETY: the buffer is as long as it says, and is read before this returns; the rest is the caller's promise.
    unsafe {
        Api::set_param(
            handle,
            parameter,
            size_of::<T>() as u32,
            ptr::from_ref(value).cast(),
        )
    }
}

/// Whether the certificate that came with a `PeerCertificateReceived` event is for `name`: MsQuic looks at the chain only.
pub fn is_for(certificate: *mut QUIC_CERTIFICATE, name: &CStr) -> bool {
    // SAFETY: without portable certificates this pointer is an `X509` that lives during the event; no length: the name ends with a NUL.
    unsafe { X509_check_host(certificate.cast(), name.as_ptr(), 0, 0, null_mut()) == 1 }
}

/// Opens a stream and starts it with `data`. It belongs to whoever gets its last event: see [`Ended`].
pub fn open<F>(connection: &Connection, data: Bytes, flags: SendFlags, handler: F) -> Result<(), Status>
where
    F: FnMut(StreamRef, StreamEvent) -> Result<(), Status> + Send + 'static,
{
    let stream = Stream::open(connection, StreamOpenFlags::NONE, handler)?;
    send(&stream, data, SendFlags::START | flags)?;
    // SAFETY: it is started, so its last event will come, and there the handle is owned again.
    unsafe { stream.into_raw() };
    Ok(())
}

/// What MsQuic holds of a send until it is complete.
struct Held {
    buffer: BufferRef,
    data: Bytes,
}

/// Sends `data` without copying it.
pub fn send(stream: &Stream, data: Bytes, flags: SendFlags) -> Result<(), Status> {
    let held = Box::into_raw(Box::new(Held {
        buffer: BufferRef::from(&data[..]),
        data,
    }));
    // SAFETY: `held` was just made, and only `sent` frees it.
    let buffers = unsafe { slice::from_ref(&(*held).buffer) };
    // SAFETY: the buffer and what it points to live in `held` until the SendComplete event, where `sent` frees it.
    let outcome = unsafe { stream.send(buffers, flags, held.cast()) };
    if outcome.is_err() {
        // No event will come.
        sent(held.cast());
    }
    outcome
}

/// Frees what a SendComplete event gives back; tells how many bytes it was.
pub fn sent(context: *const c_void) -> u64 {
    // SAFETY: all sends are made by `send`, so every context is a `Held` of it, and comes back once.
    let held = unsafe { Box::from_raw(context.cast_mut().cast::<Held>()) };
    held.data.len() as u64
}

/// Owns the streams of a connection that have ended. A handle must not be closed within its own event, since that would free the
/// running handler; so each is closed when the next ends, and the last one with the connection.
#[derive(Default)]
pub struct Ended(Mutex<Option<Stream>>);

impl Ended {
    /// To be called with each stream's ShutdownComplete event, and only there.
    pub fn take(&self, stream: &StreamRef) {
        // SAFETY: a stream has no owner until its last event: those opened here were let go by `open`, those of the peer never had one.
        let stream = unsafe { Stream::from_raw(stream.as_raw()) };
        let before = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .replace(stream);
        drop(before);
    }

    /// To be called with the connection's ShutdownComplete event, which comes after those of its streams.
    pub fn close(&self) {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(last);
    }
}

/// Owns a connection of a client, to be called with its ShutdownComplete event. Whoever gets it closes it on another thread.
pub fn take(connection: &ConnectionRef) -> Connection {
    // SAFETY: a connection that a listener accepted has no owner until its last event.
    unsafe { Connection::from_raw(connection.as_raw()) }
}
