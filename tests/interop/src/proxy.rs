//! A UDP proxy that loses, delays, reorders and repeats datagrams, and changes its address towards the server.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// What happens to datagrams, in both directions.
#[derive(Clone, Copy, Debug)]
pub struct Faults {
    /// From 0 to 1.
    pub loss: f64,
    pub duplication: f64,
    pub delay: Duration,
    /// More delay at random: datagrams overtake each other.
    pub jitter: Duration,
    /// Once the server has sent so many bytes in 1-RTT packets, the client's datagrams come from another port. Not a time: on a busy
    /// machine that would fall into the handshake, and servers may ignore who moves before it is done (RFC 9000, section 9).
    pub rebind_after: Option<usize>,
    /// The second datagram of each connection is lost: of a client whose ClientHello takes two, the rest of that.
    pub loses_second: bool,
    /// An attacker records what clients send first, and sends it again, from an address of its own.
    pub replays: bool,
    pub seed: u64,
}

/// How long the attacker waits before it sends again: the first copy has been taken by then.
const REPLAY_AFTER: Duration = Duration::from_millis(20);

/// A running proxy; ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    /// Connections whose first flight was sent again.
    pub replayed: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// In front of servers that take turns: each new connection leads to the next.
    pub fn start(servers: Vec<SocketAddr>, faults: Faults) -> io::Result<Proxy> {
        let front = socket()?;
        let address = front.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let replayed = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&replayed);
        let thread = std::thread::spawn(move || {
            if let Err(error) = run(front, servers, faults, &counter, &stopped) {
                eprintln!("proxy: {error}");
            }
        });
        Ok(Proxy {
            address,
            replayed,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn socket() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Where a datagram goes.
#[derive(Clone, Copy)]
enum To {
    Client,
    /// Of this number.
    Server(usize),
    /// The same, from the attacker.
    Victim(usize),
}

/// A datagram on its way: when it goes on, and where.
struct Waiting {
    at: Instant,
    to: To,
    bytes: Vec<u8>,
}

/// Which connection leads to which server.
#[derive(Default)]
struct Routes {
    /// Connection IDs that clients write to, and whether a client has chosen it, for want of one of the server's.
    ids: Vec<(Vec<u8>, usize, bool)>,
    connections: usize,
}

impl Routes {
    /// The server that a client's datagram goes to, and whether it belongs to what the client sent before any answer.
    fn of(&mut self, datagram: &[u8], servers: usize) -> (usize, bool) {
        let known = match long_header(datagram) {
            Some((to, _)) => self.ids.iter().rfind(|(id, ..)| id == to),
            None => self
                .ids
                .iter()
                .rfind(|(id, ..)| datagram.get(1..).is_some_and(|rest| rest.starts_with(id))),
        };
        if let Some(&(_, server, is_first)) = known {
            return (server, is_first);
        }
        let Some((to, _)) = long_header(datagram) else {
            // One of the IDs that came later, which nobody here can read.
            return (self.connections.saturating_sub(1) % servers, false);
        };
        let server = self.connections % servers;
        self.ids.push((to.to_vec(), server, true));
        self.connections += 1;
        (server, true)
    }

    /// A server has sent this.
    fn on_answer(&mut self, datagram: &[u8], server: usize) {
        if let Some((_, from)) = long_header(datagram)
            && !from.is_empty()
            && !self.ids.iter().any(|(id, ..)| id == from)
        {
            self.ids.push((from.to_vec(), server, false));
        }
    }
}

/// The connection IDs of a long header (RFC 8999, section 5.1): the receiver's, and the sender's.
fn long_header(datagram: &[u8]) -> Option<(&[u8], &[u8])> {
    if datagram.first()? & 0x80 == 0 {
        return None;
    }
    let (&len, rest) = datagram.get(5..)?.split_first()?;
    let (to, rest) = rest.split_at_checked(len.into())?;
    let (&len, rest) = rest.split_first()?;
    Some((to, rest.get(..len.into())?))
}

fn run(
    front: UdpSocket,
    servers: Vec<SocketAddr>,
    faults: Faults,
    replayed: &AtomicUsize,
    stop: &AtomicBool,
) -> io::Result<()> {
    let sockets = || servers.iter().map(|_| socket()).collect::<io::Result<Vec<_>>>();
    let (mut backs, attacker) = (sockets()?, socket()?);
    let mut routes = Routes::default();
    let mut rng = StdRng::seed_from_u64(faults.seed);
    let mut client = None;
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut buffer = [0; 65536];
    let mut one_rtt_bytes = 0;
    let mut from_client = 0;
    let mut rebind_after = faults.rebind_after;
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for from_server in [None].into_iter().chain((0..servers.len()).map(Some)) {
            let from = from_server.map_or(&front, |server| &backs[server]);
            for _ in 0..64 {
                let Ok((len, address)) = from.recv_from(&mut buffer) else {
                    break;
                };
                idle = false;
                let now = Instant::now();
                let datagram = &buffer[..len];
                let to = if let Some(server) = from_server {
                    routes.on_answer(datagram, server);
                    if buffer[0] & 0x80 == 0 {
                        one_rtt_bytes += len;
                    }
                    To::Client
                } else {
                    client = Some(address);
                    let before = routes.connections;
                    let (server, is_first) = routes.of(datagram, servers.len());
                    from_client = if routes.connections == before {
                        from_client + 1
                    } else {
                        1
                    };
                    if faults.loses_second && from_client == 2 {
                        continue;
                    }
                    if faults.replays && is_first {
                        waiting.push(Waiting {
                            at: now + REPLAY_AFTER,
                            to: To::Victim(server),
                            bytes: datagram.to_vec(),
                        });
                        replayed.fetch_add(routes.connections - before, Ordering::Relaxed);
                    }
                    To::Server(server)
                };
                if rng.random_bool(faults.loss) {
                    continue;
                }
                let copies = if rng.random_bool(faults.duplication) { 2 } else { 1 };
                for _ in 0..copies {
                    let at = now + faults.delay + faults.jitter.mul_f64(rng.random());
                    waiting.push(Waiting {
                        at,
                        to,
                        bytes: buffer[..len].to_vec(),
                    });
                }
            }
        }
        let now = Instant::now();
        if rebind_after.is_some_and(|after| one_rtt_bytes >= after) {
            backs = sockets()?;
            rebind_after = None;
        }
        let mut index = 0;
        while index < waiting.len() {
            if waiting[index].at > now {
                index += 1;
                continue;
            }
            idle = false;
            let datagram = waiting.remove(index);
            // What the kernel does not take is one more loss.
            let _ = match (datagram.to, client) {
                (To::Server(server), _) => backs[server].send_to(&datagram.bytes, servers[server]),
                (To::Victim(server), _) => attacker.send_to(&datagram.bytes, servers[server]),
                (To::Client, Some(client)) => front.send_to(&datagram.bytes, client),
                (To::Client, None) => continue,
            };
        }
        if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}
