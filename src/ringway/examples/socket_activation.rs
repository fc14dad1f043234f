//! Sends back what comes on streams, on the UDP sockets that systemd passes to it (`LISTEN_FDS`): `socket_activation CHAIN.pem KEY.pem`.
//!
//! Tried without units by `systemd-socket-activate --datagram --listen=4433 socket_activation CHAIN.pem KEY.pem`. With units, `echo.socket`:
//!
//! ```ini
//! [Socket]
//! ListenDatagram=4433
//! ReceiveBuffer=8M
//! SendBuffer=4M
//!
//! [Install]
//! WantedBy=sockets.target
//! ```
//!
//! and `echo.service`, which needs no privilege, not even for ports below 1024:
//!
//! ```ini
//! [Service]
//! ExecStart=/usr/local/bin/socket_activation /etc/echo/chain.pem /etc/echo/key.pem
//! DynamicUser=yes
//! NoNewPrivileges=yes
//! ```
//!
//! One socket is served by one partition. For clients to be spread over several, the socket unit names the address once for each of them, with
//! `ReusePort=yes`, and the service has as many processors (`RINGWAY_PROCESSORS=0-3`).

use std::net::UdpSocket;
use std::sync::Arc;

use listenfd::ListenFd;
use ringway::{AdoptedSocket, ExecutionConfig, Listener, ListenerOptions, Registration, ServerCredentials};

#[allow(dead_code, reason = "it has a main function of its own")]
#[path = "echo_server.rs"]
mod echo_server;
use echo_server::{ALPN, common::Done, echo};

fn main() -> Done {
    let arguments: Vec<_> = std::env::args().collect();
    let [_, chain, key] = &arguments[..] else {
        return Err("usage: socket_activation CHAIN.pem KEY.pem".into());
    };
    let credentials = ServerCredentials::from_pem(&std::fs::read(chain)?, &std::fs::read(key)?)?;
    let _serving = serve(passed()?, credentials)?;
    loop {
        std::thread::park();
    }
}

/// The sockets that this process was started with.
pub(crate) fn passed() -> Done<Vec<UdpSocket>> {
    let mut passed = ListenFd::from_env();
    let sockets = (0..passed.len()).filter_map(|index| passed.take_udp_socket(index).transpose());
    let sockets = sockets.collect::<Result<Vec<_>, _>>()?;
    match sockets.is_empty() {
        true => Err("no socket was passed: start it by a socket unit, or by systemd-socket-activate".into()),
        false => Ok(sockets),
    }
}

/// The threads of the registration serve for as long as all is kept.
pub(crate) fn serve(
    sockets: Vec<UdpSocket>,
    credentials: ServerCredentials,
) -> Done<(Registration, Vec<Listener>)> {
    let registration = Registration::open("echo", &ExecutionConfig::load(None)?)?;
    let adopted = if sockets.len() > 1 && sockets.len() == registration.partition_count() {
        vec![registration.adopt_socket_group(sockets.into_iter().map(Into::into))?]
    } else {
        // Each partition has one in turn.
        let adopt = |socket| registration.adopt_socket(socket, None);
        sockets.into_iter().map(adopt).collect::<Result<Vec<_>, _>>()?
    };
    let handler = Arc::new(echo(&registration, credentials)?);
    let listen = |socket: &AdoptedSocket| {
        let (options, handler) = (
            ListenerOptions::new(socket.local_address(), &[ALPN]),
            Arc::clone(&handler),
        );
        Listener::start_on(socket, options, move |event| handler(event))
    };
    let listeners = adopted.iter().map(listen).collect::<Result<_, _>>()?;
    Ok((registration, listeners))
}
