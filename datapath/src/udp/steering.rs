//! Which socket of a group a datagram goes to: by the partition that its connection ID names.
//!
//! Packets with a short header, and Handshake packets, carry a connection ID of ours. All others (Initial, 0-RTT, other versions)
//! carry one that the client chose: they go to the partition whose thread is bound to the processor that received them, where receive side
//! scaling or the sender's own processor has brought all packets of the flow; else by the kernel's hash of the addresses. In either case
//! all of a handshake's first packets reach one socket.
//!
//! A classic BPF program does it: it needs no privilege, which an extended one would.

use ringway_types::LOCAL_CID_LEN;

use crate::config::Steering;
use crate::partition::{CID_PARTITION_OFFSET, Partitioning};

const LD_BYTE: u16 = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
const LD_HALF: u16 = (libc::BPF_LD | libc::BPF_H | libc::BPF_ABS) as u16;
const LD_WORD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const JUMP_SET: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const JUMP_EQ: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const RETURN_A: u16 = (libc::BPF_RET | BPF_A) as u16;
const RETURN_K: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
const BPF_A: u32 = 0x10;

/// More than there are sockets: the kernel falls back to its hash of the addresses.
const ANY: u32 = u32::MAX;

/// Loaded from here: the processor that runs the program.
const PROCESSOR: u32 = (libc::SKF_AD_OFF + libc::SKF_AD_CPU) as u32;

/// Where the Destination Connection ID begins in a short header, and in a long one (RFC 8999 section 5).
const SHORT_CID: u32 = 1;
const LONG_CID_LEN: u32 = 5;
const LONG_CID: u32 = 6;

fn op(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    }
}

/// Jumps over `jt` instructions if the condition holds, over `jf` otherwise.
fn jump(code: u16, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code, jt, jf, k }
}

/// The classic BPF program. It sees the datagram from the UDP payload on. `processors`: those that the partitions are bound to, if they are.
pub(super) fn program(
    partitioning: Partitioning,
    processors: &[usize],
    steering: Steering,
) -> Vec<libc::sock_filter> {
    let mut program = match steering {
        Steering::ConnectionId => by_connection_id(partitioning),
        Steering::Flow => Vec::new(),
    };
    program.push(op(LD_WORD, PROCESSOR));
    for (partition, &processor) in processors.iter().take(partitioning.count()).enumerate() {
        program.push(jump(JUMP_EQ, processor as u32, 0, 1));
        program.push(op(RETURN_K, partition as u32));
    }
    program.push(op(RETURN_K, ANY));
    program
}

/// Leads to its end for a datagram of no connection yet.
fn by_connection_id(partitioning: Partitioning) -> Vec<libc::sock_filter> {
    let mask = u32::from(partitioning.mask());
    let offset = CID_PARTITION_OFFSET as u32;
    vec![
        /* 0 */ op(LD_BYTE, 0),
        /* 1 */ jump(JUMP_SET, 0x80, 3, 0),
        // Short header.
        /* 2 */ op(LD_HALF, SHORT_CID + offset),
        /* 3 */ op(AND, mask),
        /* 4 */ op(RETURN_A, 0),
        // Long header: which type means Handshake depends on the version (RFC 9000 section 17.2, RFC 9369 section 3.2).
        /* 5 */
        op(AND, 0x30),
        /* 6 */ jump(JUMP_EQ, 0x20, 0, 2),
        /* 7 */ op(LD_WORD, 1),
        /* 8 */ jump(JUMP_EQ, 0x0000_0001, 3, 8),
        /* 9 */ jump(JUMP_EQ, 0x30, 0, 7),
        /* 10 */ op(LD_WORD, 1),
        /* 11 */ jump(JUMP_EQ, 0x6b33_43cf, 0, 5),
        /* 12 */ op(LD_BYTE, LONG_CID_LEN),
        /* 13 */ jump(JUMP_EQ, LOCAL_CID_LEN as u32, 0, 3),
        /* 14 */ op(LD_HALF, LONG_CID + offset),
        /* 15 */ op(AND, mask),
        /* 16 */ op(RETURN_A, 0),
        /* 17: of no connection yet. */
    ]
}
