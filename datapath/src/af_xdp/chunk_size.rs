//! How large chunks of packet memory are.

use super::socket::BindMode;

/// What fits the longest packets of an interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct ChunkSize {
    pub(super) bytes: u32,
    /// Packets of the interface's MTU lie in several chunks.
    pub(super) multi_buffer: bool,
}

impl ChunkSize {
    /// The smallest chunks of which one has room for a packet of the MTU, or the largest ones.
    pub(super) fn of(mtu: u32, mode: BindMode) -> ChunkSize {
        let fitting = SIZES
            .into_iter()
            .find(|bytes| mtu + LINK_HEADERS <= room(*bytes, mode));
        ChunkSize {
            bytes: fitting.unwrap_or(CHUNK_BYTES_MAX),
            multi_buffer: fitting.is_none(),
        }
    }
}

/// Bytes of the longest IP packets that a socket takes with chunks of this size.
pub(super) fn packet_max(chunk_bytes: u32, mode: BindMode, multi_buffer: bool) -> u16 {
    let frame = match multi_buffer {
        true => JUMBO_BYTES as u32,
        false => room(chunk_bytes, mode),
    };
    (frame - LINK_HEADERS) as u16
}

/// Bytes of a chunk that are left for a frame.
///
/// Where the kernel does not copy, the NIC is told how much that is, and puts what is longer into the next chunk, whether or not anybody can join
/// the parts. What `xsk_pool_get_rx_frame_size` says to the driver, without room at the end for what describes the parts, igb, igc and the 82599
/// of ixgbe round down to whole KiB (`SRRCTL.BSIZEPKT`), i40e and ice to 128 bytes. That mlx5 and virtio_net do not round costs memory only.
fn room(chunk_bytes: u32, mode: BindMode) -> u32 {
    match mode {
        BindMode::Copy => chunk_bytes - XDP_HEADROOM,
        BindMode::ZeroCopy => (chunk_bytes - XDP_HEADROOM - SHARED_INFO) / ZERO_COPY_UNIT * ZERO_COPY_UNIT,
    }
}

/// The kernel takes powers of two, of a page at most.
const SIZES: [u32; 2] = [2048, CHUNK_BYTES_MAX];
pub(super) const CHUNK_BYTES_MAX: u32 = 4096;
/// Bytes of the longest packet in several chunks, with its headers.
pub(super) const JUMBO_BYTES: usize = 9216 + 64;
/// The kernel leaves so much in front of a frame (`XDP_PACKET_HEADROOM`)...
const XDP_HEADROOM: u32 = 256;
/// ...and some kernels so much behind it (`struct skb_shared_info`).
const SHARED_INFO: u32 = 320;
const ZERO_COPY_UNIT: u32 = 1024;
/// Ethernet, and two VLAN tags.
const LINK_HEADERS: u32 = 22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_the_mtu_fits_what_is_left_of_a_chunk() {
        let of = |mtu, mode| {
            let ChunkSize { bytes, multi_buffer } = ChunkSize::of(mtu, mode);
            assert!(u32::from(packet_max(bytes, mode, multi_buffer)) >= mtu);
            (bytes, multi_buffer)
        };
        assert_eq!(of(1500, BindMode::Copy), (2048, false));
        assert_eq!(of(1770, BindMode::Copy), (2048, false));
        assert_eq!(of(1771, BindMode::Copy), (4096, false));
        assert_eq!(of(3818, BindMode::Copy), (4096, false));
        assert_eq!(of(3819, BindMode::Copy), (4096, true));
        // igb takes 1024 bytes of 2048, and 3072 of 4096.
        assert_eq!(of(1000, BindMode::ZeroCopy), (2048, false));
        assert_eq!(of(1500, BindMode::ZeroCopy), (4096, false));
        assert_eq!(of(3050, BindMode::ZeroCopy), (4096, false));
        assert_eq!(of(3051, BindMode::ZeroCopy), (4096, true));
        assert_eq!(of(9216, BindMode::Copy), (4096, true));
        assert_eq!(packet_max(2048, BindMode::Copy, false), 1770);
        assert_eq!(packet_max(2048, BindMode::ZeroCopy, false), 1002);
        assert_eq!(packet_max(4096, BindMode::ZeroCopy, false), 3050);
        assert_eq!(packet_max(4096, BindMode::Copy, true), 9258);
    }
}
