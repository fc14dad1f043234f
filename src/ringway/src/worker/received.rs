//! Received data as handlers see it, and what they keep of it.

use std::fmt;
use std::ops::{Bound, Deref, RangeBounds};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use ringway_datapath::lent::{LentBytes, Loan};

/// A datagram that was received: its bytes, valid during the event only.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedDatagram<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) zero_rtt: bool,
    pub(super) keeper: Keeper<'a>,
}

impl ReceivedDatagram<'_> {
    /// It came in 0-RTT: others may have sent the same before, or may send it again.
    pub fn is_zero_rtt(&self) -> bool {
        self.zero_rtt
    }

    /// Keeps the datagram beyond the event, as [`ReceivedData::keep`] does with data of streams.
    pub fn keep(&self) -> KeptData {
        self.keeper.keep(&[self.data])
    }
}

impl Deref for ReceivedDatagram<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.data
    }
}

/// Received stream data, in order: slices of decrypted packets, valid during the event only.
#[derive(Clone, Copy)]
pub struct ReceivedData<'a>(pub(super) &'a Received<'a>);

/// What [`ReceivedData`] refers to: events are moved about, and stay small so.
pub(super) struct Received<'a> {
    pub(super) offset: u64,
    pub(super) slices: &'a [&'a [u8]],
    pub(super) fin: bool,
    pub(super) zero_rtt: bool,
    pub(super) keeper: Keeper<'a>,
}

impl<'a> ReceivedData<'a> {
    /// Offset in the stream of the first byte.
    pub fn offset(&self) -> u64 {
        self.0.offset
    }

    /// The data. The slices are contiguous in the stream.
    pub fn slices(&self) -> &'a [&'a [u8]] {
        self.0.slices
    }

    /// The number of bytes in all slices. May be 0 if [`fin`](Self::fin) is set.
    pub fn len(&self) -> usize {
        self.0.slices.iter().map(|slice| slice.len()).sum()
    }

    /// True if there are no bytes, only the end of the stream.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data, or its beginning, came in 0-RTT: others may have sent the same before, or may send it again.
    pub fn is_zero_rtt(&self) -> bool {
        self.0.zero_rtt
    }

    /// True if the stream ends after this data.
    pub fn fin(&self) -> bool {
        self.0.fin
    }

    /// Copies the data, so that it can be kept.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.slices.concat()
    }

    /// Keeps the data beyond the event: it stays where it is, in the packet that has brought it, and nothing is copied or allocated.
    ///
    /// That is so for data that has arrived in order, as long as the packet memory that the partition lends is not used up
    /// ([`DatapathConfig::lent_bytes`](crate::DatapathConfig::lent_bytes)) and at least an eighth of the buffer or chunk is filled (a
    /// datagram that the kernel has put into a buffer of 64 KiB by itself is not worth keeping that from use). Data that had to wait, as it came
    /// out of order or the application did not take it, and all else, is copied once. [`KeptData::is_copy`] says which it was, and
    /// [`WorkerStats::kept_bytes`](crate::WorkerStats::kept_bytes) and
    /// [`kept_copied_bytes`](crate::WorkerStats::kept_copied_bytes) count both.
    ///
    /// Keeping says nothing of flow control: the peer gets credit for what the handler's status, or
    /// [`Stream::receive_complete`](crate::Stream::receive_complete), says is consumed. So a handler that keeps all and returns
    /// [`Done`](crate::EventStatus::Done) lets the peer send on: to bound how much it holds, it pauses
    /// ([`Consumed`](crate::EventStatus::Consumed), [`Stream::set_receive_enabled`](crate::Stream::set_receive_enabled)) until it has dropped some.
    pub fn keep(&self) -> KeptData {
        self.0.keeper.keep(self.0.slices)
    }
}

impl fmt::Debug for ReceivedData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedData")
            .field("offset", &self.offset())
            .field("len", &self.len())
            .field("fin", &self.fin())
            .finish()
    }
}

/// How much of what was received an application keeps.
#[derive(Debug, Default)]
pub(super) struct KeptBytes {
    /// Where they were.
    in_place: AtomicU64,
    copied: AtomicU64,
}

impl KeptBytes {
    /// Bytes that were kept in place, and those that were copied, since it was asked last.
    #[inline]
    pub(super) fn take(&mut self) -> (u64, u64) {
        (
            std::mem::take(self.in_place.get_mut()),
            std::mem::take(self.copied.get_mut()),
        )
    }
}

/// How the data of one event is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Keeper<'a> {
    /// The data, if it lies in a packet.
    pub(super) loan: Option<Loan<'a>>,
    pub(super) kept: &'a KeptBytes,
}

impl Keeper<'_> {
    fn keep(&self, slices: &[&[u8]]) -> KeptData {
        if let Some(kept) = self.loan.and_then(|loan| loan.keep()) {
            self.kept.in_place.fetch_add(kept.len() as u64, Ordering::Relaxed);
            return KeptData(Place::Packet(kept));
        }
        let copy = Bytes::from(slices.concat());
        self.kept.copied.fetch_add(copy.len() as u64, Ordering::Relaxed);
        KeptData(Place::Copy(copy))
    }
}

/// Received data that an application keeps ([`ReceivedData::keep`]): bytes that do not change, for any thread. Cheap to clone and to cut up; parts
/// keep as much memory as the whole.
///
/// Its memory, which is packet memory unless [it was copied](Self::is_copy), goes back to its partition when the last clone or part is dropped, on
/// whichever thread and whenever: the partition looks for it in its turns, and the memory outlives the registration. It becomes a
/// [`Bytes`] by `into`, at the price of an allocation, without a copy.
#[derive(Clone)]
pub struct KeptData(Place);

#[derive(Clone)]
enum Place {
    Packet(LentBytes),
    Copy(Bytes),
}

impl KeptData {
    /// It could not stay where it was.
    pub fn is_copy(&self) -> bool {
        matches!(self.0, Place::Copy(_))
    }

    /// A part of it.
    ///
    /// # Panics
    ///
    /// As with slices, where the range is not within it.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> KeptData {
        KeptData(match &self.0 {
            Place::Packet(kept) => Place::Packet(kept.slice(range)),
            Place::Copy(bytes) => Place::Copy(bytes.slice(range)),
        })
    }

    /// Takes the first `len` bytes off.
    ///
    /// # Panics
    ///
    /// There are not as many.
    #[must_use = "the part that was taken off is dropped"]
    pub fn split_to(&mut self, len: usize) -> KeptData {
        let first = self.slice((Bound::Unbounded, Bound::Excluded(len)));
        *self = self.slice(len..);
        first
    }
}

impl Deref for KeptData {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Place::Packet(kept) => kept,
            Place::Copy(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for KeptData {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<KeptData> for Bytes {
    fn from(kept: KeptData) -> Bytes {
        match kept.0 {
            Place::Copy(bytes) => bytes,
            place => Bytes::from_owner(KeptData(place)),
        }
    }
}

impl PartialEq for KeptData {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for KeptData {}

impl fmt::Debug for KeptData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptData")
            .field("len", &self.len())
            .field("is_copy", &self.is_copy())
            .finish()
    }
}
