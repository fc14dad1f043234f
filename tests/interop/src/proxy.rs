//! A UDP proxy that loses, delays, reorders and repeats datagrams, and changes its address towards the server.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
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
    pub seed: u64,
}

/// A running proxy; ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(server: SocketAddr, faults: Faults) -> io::Result<Proxy> {
        let front = socket()?;
        let address = front.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            if let Err(error) = run(front, server, faults, &stopped) {
                eprintln!("proxy: {error}");
            }
        });
        Ok(Proxy {
            address,
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

/// A datagram on its way: when it goes on, and where.
struct Waiting {
    at: Instant,
    to_server: bool,
    bytes: Vec<u8>,
}

fn run(front: UdpSocket, server: SocketAddr, faults: Faults, stop: &AtomicBool) -> io::Result<()> {
    let mut back = socket()?;
    let mut rng = StdRng::seed_from_u64(faults.seed);
    let mut client = None;
    let mut waiting: Vec<Waiting> = Vec::new();
    let mut buffer = [0; 65536];
    let mut one_rtt_bytes = 0;
    let mut rebind_after = faults.rebind_after;
    while !stop.load(Ordering::Relaxed) {
        let mut idle = true;
        for to_server in [true, false] {
            let from = if to_server { &front } else { &back };
            for _ in 0..64 {
                let Ok((len, address)) = from.recv_from(&mut buffer) else {
                    break;
                };
                idle = false;
                let now = Instant::now();
                if to_server {
                    client = Some(address);
                } else if buffer[0] & 0x80 == 0 {
                    one_rtt_bytes += len;
                }
                if rng.random_bool(faults.loss) {
                    continue;
                }
                let copies = if rng.random_bool(faults.duplication) { 2 } else { 1 };
                for _ in 0..copies {
                    let at = now + faults.delay + faults.jitter.mul_f64(rng.random());
                    waiting.push(Waiting {
                        at,
                        to_server,
                        bytes: buffer[..len].to_vec(),
                    });
                }
            }
        }
        let now = Instant::now();
        if rebind_after.is_some_and(|after| one_rtt_bytes >= after) {
            back = socket()?;
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
            let _ = match (datagram.to_server, client) {
                (true, _) => back.send_to(&datagram.bytes, server),
                (false, Some(client)) => front.send_to(&datagram.bytes, client),
                (false, None) => continue,
            };
        }
        if idle {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}
