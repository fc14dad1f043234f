//! The thread's end: packets in the order of their times, with headers where they have none yet, into a pcapng file.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, BufWriter, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::time::Duration;

use pcap_file::pcapng::PcapNgWriter;
use pcap_file::pcapng::blocks::enhanced_packet::{EnhancedPacketBlock, EnhancedPacketOption};
use pcap_file::pcapng::blocks::interface_description::{
    InterfaceDescriptionBlock, InterfaceDescriptionOption,
};
use pcap_file::pcapng::blocks::interface_statistics::{InterfaceStatisticsBlock, InterfaceStatisticsOption};
use pcap_file::pcapng::blocks::section_header::{SectionHeaderBlock, SectionHeaderOption};
use pcap_file::{DataLink, Endianness, PcapError};
use ringway_types::Instant;

use super::options::{CaptureOptions, CaptureStats};
use super::tap::{Direction, Ends, Record, TapReader};
use crate::headers::{HEADERS_MAX, HeaderTemplate, LinkHeader};

/// A capture file that is being written.
pub struct CaptureFile<W: Write> {
    readers: Vec<TapReader>,
    /// The interfaces of the file: of which reader, and of which of its queues if it has some.
    interfaces: Vec<(usize, Option<u32>)>,
    writer: PcapNgWriter<Counted<BufWriter<W>>>,
    options: CaptureOptions,
    began: Instant,
    /// Since 1970, at `began`.
    unix_time: Duration,
    /// The packet that is written.
    packet: Vec<u8>,
    sources: SourceAddresses,
    packets: u64,
}

impl<W: Write> CaptureFile<W> {
    pub(super) fn new(
        options: &CaptureOptions,
        readers: Vec<TapReader>,
        output: W,
        began: Instant,
        unix_time: Duration,
    ) -> io::Result<Self> {
        let output = Counted {
            inner: BufWriter::with_capacity(BUFFER_BYTES, output),
            bytes: 0,
        };
        let section = SectionHeaderBlock {
            endianness: Endianness::native(),
            options: vec![SectionHeaderOption::UserApplication(Cow::Borrowed(concat!(
                "ringway ",
                env!("CARGO_PKG_VERSION")
            )))],
            ..SectionHeaderBlock::default()
        };
        let mut file = CaptureFile {
            writer: PcapNgWriter::with_section_header(output, section).map_err(into_io)?,
            readers,
            interfaces: Vec::new(),
            options: options.clone(),
            began,
            unix_time,
            packet: Vec::new(),
            sources: SourceAddresses::default(),
            packets: 0,
        };
        for reader in 0..file.readers.len() {
            match file.readers[reader].queues.clone() {
                None => file.interface(reader, None)?,
                // Others are told of when they come.
                Some(queues) => queues
                    .into_iter()
                    .try_fold(0, |_, queue| file.interface(reader, Some(queue)))?,
            };
        }
        Ok(file)
    }

    /// The interface of a reader and its queue, which is described when it is new.
    fn interface(&mut self, reader: usize, queue: Option<u32>) -> io::Result<u32> {
        let known = self.interfaces.iter().position(|known| *known == (reader, queue));
        if let Some(known) = known {
            return Ok(known as u32);
        }
        let TapReader { name, partition, .. } = &self.readers[reader];
        let (linktype, description) = match queue {
            Some(queue) => (
                DataLink::ETHERNET,
                format!("queue {queue}, partition {partition}"),
            ),
            None => (
                DataLink::RAW,
                format!(
                    "UDP sockets, partition {partition}; IP and UDP headers are made of what the sockets tell"
                ),
            ),
        };
        let mut options = vec![
            InterfaceDescriptionOption::IfName(Cow::Borrowed(name)),
            InterfaceDescriptionOption::IfDescription(Cow::Owned(description)),
            InterfaceDescriptionOption::IfTsResol(NANOSECONDS),
        ];
        if self.options.every > 1 {
            let comment = format!("one of {} packets is here", self.options.every);
            options.push(InterfaceDescriptionOption::Comment(Cow::Owned(comment)));
        }
        let block = InterfaceDescriptionBlock {
            linktype,
            snaplen: self.options.snap_length,
            options,
        };
        self.writer.write_pcapng_block(block).map_err(into_io)?;
        self.interfaces.push((reader, queue));
        Ok(self.interfaces.len() as u32 - 1)
    }

    /// Lets devices take nothing more.
    pub fn end(&self) {
        for reader in &self.readers {
            reader.counts.is_over.store(true, Ordering::Relaxed);
        }
    }

    /// Writes what has come by now. Gives how many packets that was; [`CaptureFile::is_complete`] may be true then.
    ///
    /// # Errors
    ///
    /// The output gave this error: the file ends there, and what has not been written is lost.
    pub fn write_arrived(&mut self) -> io::Result<usize> {
        let mut written = 0;
        while written < PACKETS_AT_ONCE && !self.is_full() {
            // Of all that wait, the one that came first.
            let first = |reader: &TapReader| reader.records.peek().ok().map(|record| record.time);
            let waiting = self.readers.iter().enumerate();
            let times = waiting.filter_map(|(index, reader)| Some((first(reader)?, index)));
            let Some((_, index)) = times.min() else { break };
            self.write_packet(index)?;
            written += 1;
        }
        if written == 0 {
            // Who reads it meanwhile is to see it.
            self.writer.get_mut().flush()?;
        }
        Ok(written)
    }

    fn write_packet(&mut self, index: usize) -> io::Result<()> {
        let reader = &mut self.readers[index];
        let Ok(record) = reader.records.pop() else {
            return Ok(());
        };
        self.packet.clear();
        self.packet.resize(HEADERS_MAX + record.taken as usize, 0);
        if (reader.bytes)
            .pop_entire_slice(&mut self.packet[HEADERS_MAX..])
            .is_err()
        {
            return Err(io::Error::other(
                "a packet of the capture is not where it should be",
            ));
        }
        let (start, headers) = match record.ends {
            None => (HEADERS_MAX, 0),
            Some(ends) => match self.write_headers(&record, ends) {
                Some(headers) => (HEADERS_MAX - headers, headers),
                // Addresses of two families, or longer than any datagram.
                None => return Ok(()),
            },
        };
        let interface_id = self.interface(index, record.queue)?;
        let direction = match record.direction {
            Direction::Received => INBOUND,
            Direction::Sent => OUTBOUND,
        };
        let end = self.packet.len().min(start + self.options.snap_length as usize);
        let block = EnhancedPacketBlock {
            interface_id,
            timestamp: self.unix_time + record.time.since(self.began),
            original_len: record.len + headers as u32,
            data: Cow::Borrowed(&self.packet[start..end]),
            options: vec![EnhancedPacketOption::Flags(direction)],
        };
        self.writer.write_pcapng_block(block).map_err(into_io)?;
        self.packets += 1;
        Ok(())
    }

    /// Makes the headers of a datagram, before its payload; gives how many bytes they have.
    fn write_headers(&mut self, record: &Record, ends: Ends) -> Option<usize> {
        let Ends {
            source,
            destination,
            traffic_class,
        } = ends;
        let (source, destination) = match record.direction {
            Direction::Sent => (self.sources.complete(source, destination), destination),
            Direction::Received => (source, self.sources.complete(destination, source)),
        };
        let template = HeaderTemplate::new(&LinkHeader::NONE, source, destination, traffic_class, true)?;
        let headers = template.len();
        let datagram = &mut self.packet[HEADERS_MAX - headers..];
        template
            .write_for(datagram, record.len as usize)
            .then_some(headers)
    }

    /// True when what was to be taken is in the file, or the devices are gone and nothing is left to be written.
    pub fn is_complete(&self) -> bool {
        let is_gone = |reader: &TapReader| reader.records.is_abandoned() && reader.records.is_empty();
        self.is_full() || self.readers.iter().all(is_gone)
    }

    /// True when the time is over that was asked for.
    pub fn is_overdue(&self, now: Instant) -> bool {
        (self.options.duration).is_some_and(|duration| now.since(self.began) >= duration)
    }

    fn is_full(&self) -> bool {
        // One more must not be too much, with what is written at the end.
        let more = u64::from(self.options.snap_length)
            + (PACKET_MORE + STATISTICS_BYTES * self.readers.len()) as u64;
        let has_all = (self.options.packets).is_some_and(|packets| self.packets >= packets);
        has_all || (self.options.bytes).is_some_and(|bytes| self.writer.get_ref().bytes + more > bytes)
    }

    /// What was seen, written and dropped so far.
    pub fn stats(&self) -> CaptureStats {
        let sum = |count: fn(&TapReader) -> u64| self.readers.iter().map(count).sum();
        CaptureStats {
            seen: sum(|reader| reader.counts.seen.load(Ordering::Relaxed)),
            packets: self.packets,
            bytes: self.writer.get_ref().bytes,
            dropped: sum(|reader| reader.counts.dropped.load(Ordering::Relaxed)),
        }
    }

    /// Writes the end of the file, which says what was dropped.
    ///
    /// # Errors
    ///
    /// The output gave this error: the file ends there, without the counts of what was dropped.
    pub fn finish(mut self, now: Instant) -> io::Result<CaptureStats> {
        let end = (self.unix_time + now.since(self.began)).as_nanos() as u64;
        for (index, reader) in self.readers.iter().enumerate() {
            // Of all queues of the partition, at the first of them.
            let Some(interface) = self.interfaces.iter().position(|(of, _)| *of == index) else {
                continue;
            };
            let (seen, dropped) = (&reader.counts.seen, &reader.counts.dropped);
            let block = InterfaceStatisticsBlock {
                interface_id: interface as u32,
                timestamp: high_first(end),
                options: vec![
                    InterfaceStatisticsOption::IsbStartTime(high_first(self.unix_time.as_nanos() as u64)),
                    InterfaceStatisticsOption::IsbEndTime(high_first(end)),
                    InterfaceStatisticsOption::IsbIfRecv(seen.load(Ordering::Relaxed)),
                    InterfaceStatisticsOption::IsbIfDrop(dropped.load(Ordering::Relaxed)),
                ],
            };
            self.writer.write_pcapng_block(block).map_err(into_io)?;
        }
        self.writer.get_mut().flush()?;
        Ok(self.stats())
    }
}

/// Times are two words of 32 bits, the higher first, whatever the order of their bytes: pcap-file writes those of statistics as one number.
fn high_first(time: u64) -> u64 {
    match Endianness::native().is_little() {
        true => time.rotate_left(32),
        false => time,
    }
}

/// Addresses of ours that the sockets leave to the kernel: asked for once for each peer.
#[derive(Default)]
struct SourceAddresses {
    known: HashMap<IpAddr, IpAddr>,
}

impl SourceAddresses {
    /// Our address, as it would be towards this peer if it is none yet.
    fn complete(&mut self, ours: SocketAddr, peer: SocketAddr) -> SocketAddr {
        if !ours.ip().is_unspecified() && ours.is_ipv4() == peer.is_ipv4() {
            return ours;
        }
        if self.known.len() >= SOURCES_MAX {
            self.known.clear();
        }
        let ip = self.known.entry(peer.ip()).or_insert_with(|| {
            let any = match peer.ip() {
                IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            };
            let ask = || {
                let socket = UdpSocket::bind((any, 0))?;
                socket.connect(peer)?;
                socket.local_addr()
            };
            ask().map_or(any, |local| local.ip())
        });
        SocketAddr::new(*ip, ours.port())
    }
}

/// Counts what is written.
struct Counted<W> {
    inner: W,
    bytes: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buffer)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn into_io(error: PcapError) -> io::Error {
    match error {
        PcapError::IoError(error) => error,
        error => io::Error::other(error),
    }
}

/// draft-ietf-opsawg-pcapng: the resolution of times, and bits of epb_flags.
const NANOSECONDS: u8 = 9;
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;
/// Bytes of a block of a packet beside its data, at most; and those of a block of statistics.
const PACKET_MORE: usize = 64;
const STATISTICS_BYTES: usize = 80;
/// Packets after which it is looked whether the capture is to end.
const PACKETS_AT_ONCE: usize = 1024;
const BUFFER_BYTES: usize = 256 << 10;
/// Peers whose way is remembered.
const SOURCES_MAX: usize = 4096;
