//! Packets sent in one packet number space.
//!
//! Records lie in a ring, indexed by packet number; a number that was skipped has a record too. Tokens lie in a
//! second ring in the order of the packets. Both rings give from the front what is settled. Their length is
//! bounded by the congestion window, and, for what is kept to recognise late acknowledgements, by time.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use ringway_types::Instant;

use crate::base::range_set::RangeSet;

/// What is remembered of a packet when it is sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SentPacket {
    /// Size in bytes: the UDP payload that the packet takes.
    pub size: u16,
    /// It asks for an acknowledgement.
    pub ack_eliciting: bool,
    /// It counts against the congestion window.
    pub in_flight: bool,
    /// It probes for a larger datagram size.
    pub mtu_probe: bool,
    /// It was marked ECT(0).
    pub ecn_marked: bool,
}

/// A packet number's record: 16 bytes.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub(super) time_sent: Instant,
    /// Index of its first token, counted from the first token ever, modulo 2^32.
    first_token: u32,
    pub(super) size: u16,
    tokens: u8,
    flags: u8,
}

const ACK_ELICITING: u8 = 1;
const IN_FLIGHT: u8 = 2;
const MTU_PROBE: u8 = 4;
const ECN_MARKED: u8 = 8;
// Two bits of state; 0: outstanding.
const STATE: u8 = 3 << 6;
const ACKED: u8 = 1 << 6;
const LOST: u8 = 2 << 6;
const SKIPPED: u8 = 3 << 6;

impl Record {
    #[inline]
    fn state(&self) -> u8 {
        self.flags & STATE
    }

    #[inline]
    fn set_state(&mut self, state: u8) {
        self.flags = self.flags & !STATE | state;
    }

    #[inline]
    pub(super) fn ack_eliciting(&self) -> bool {
        self.flags & ACK_ELICITING != 0
    }

    #[inline]
    pub(super) fn in_flight(&self) -> bool {
        self.flags & IN_FLIGHT != 0
    }

    #[inline]
    pub(super) fn mtu_probe(&self) -> bool {
        self.flags & MTU_PROBE != 0
    }

    #[inline]
    pub(super) fn ecn_marked(&self) -> bool {
        self.flags & ECN_MARKED != 0
    }
}

pub(super) struct SentPackets<T> {
    /// Packet number of the first record.
    base: u64,
    records: VecDeque<Record>,
    tokens: VecDeque<T>,
    /// Index of the first token in the ring.
    tokens_base: u32,
    /// Packet numbers from `base` on that are acknowledged, lost or skipped: an acknowledgement looks at the others only.
    settled: RangeSet,
    /// Those of them that are lost, and may yet be acknowledged.
    lost: RangeSet,
    skipped: VecDeque<u64>,
    pub(super) next_skip: u64,
    pub(super) largest_acked: Option<u64>,
    /// When the next packet becomes lost by time.
    pub(super) loss_time: Option<Instant>,
    /// Outstanding packets that are ack-eliciting.
    pub(super) ack_eliciting: u64,
    pub(super) last_ack_eliciting: Instant,
    pub(super) last_sent: Option<Instant>,
}

impl<T> Default for SentPackets<T> {
    fn default() -> Self {
        SentPackets {
            base: 0,
            records: VecDeque::new(),
            tokens: VecDeque::new(),
            tokens_base: 0,
            settled: RangeSet::new(),
            lost: RangeSet::new(),
            skipped: VecDeque::new(),
            next_skip: 0,
            largest_acked: None,
            loss_time: None,
            ack_eliciting: 0,
            last_ack_eliciting: Instant::ZERO,
            last_sent: None,
        }
    }
}

impl<T: Copy> SentPackets<T> {
    #[inline]
    pub(super) fn next(&self) -> u64 {
        self.base + self.records.len() as u64
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    #[inline]
    pub(super) fn push(&mut self, now: Instant, packet: SentPacket, tokens: &[T]) {
        debug_assert!(tokens.len() <= usize::from(u8::MAX));
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        self.records.push_back(Record {
            time_sent: now,
            first_token: self.tokens_base.wrapping_add(self.tokens.len() as u32),
            size: packet.size,
            tokens: tokens.len() as u8,
            flags: flag(packet.ack_eliciting, ACK_ELICITING)
                | flag(packet.in_flight, IN_FLIGHT)
                | flag(packet.mtu_probe, MTU_PROBE)
                | flag(packet.ecn_marked, ECN_MARKED),
        });
        for &token in tokens {
            self.tokens.push_back(token);
        }
        self.last_sent = Some(now);
        if packet.ack_eliciting {
            self.ack_eliciting += 1;
            self.last_ack_eliciting = now;
        }
    }

    pub(super) fn push_skipped(&mut self, now: Instant) {
        let number = self.next();
        let first_token = self.tokens_base.wrapping_add(self.tokens.len() as u32);
        self.records.push_back(Record {
            time_sent: now,
            first_token,
            size: 0,
            tokens: 0,
            flags: SKIPPED,
        });
        self.settled.insert_one(number);
        self.skipped.push_back(number);
    }

    /// Bytes that it holds, itself included.
    pub(super) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.records.capacity() * size_of::<Record>()
            + self.tokens.capacity() * size_of::<T>()
            + self.skipped.capacity() * size_of::<u64>()
            + self.settled.memory()
            + self.lost.memory()
    }

    /// Frees the records if nothing outstanding is ack-eliciting.
    pub(super) fn shrink_to_fit(&mut self) {
        if self.ack_eliciting == 0 && self.lost.is_empty() {
            self.forget(Instant::FAR_FUTURE, &mut |_| ());
        }
        if self.records.is_empty() {
            self.records = VecDeque::new();
            self.tokens = VecDeque::new();
            self.settled = RangeSet::new();
        }
    }

    /// True if a number in `range` was skipped.
    #[inline]
    pub(super) fn skips_in(&self, range: &Range<u64>) -> bool {
        !self.skipped.is_empty() && self.skipped.iter().any(|number| range.contains(number))
    }

    /// Settles the packets in `range`. `on_packet` gets each that was outstanding or (last argument) lost, `on_token` their tokens likewise.
    #[inline]
    pub(super) fn acknowledge(
        &mut self,
        range: Range<u64>,
        on_packet: &mut impl FnMut(u64, &Record, bool),
        on_token: &mut impl FnMut(T, bool),
    ) {
        let range = range.start.max(self.base)..range.end;
        if range.is_empty() {
            return;
        }
        let mut late = RangeSet::new();
        if !self.lost.is_empty() {
            for lost in self.lost.intersection(range.clone()) {
                late.insert(lost);
            }
        }
        // Numbers are visited in ascending order within the range: data of streams is mostly in the order of packets.
        let mut next = range.start;
        while let Some(gap) = self.settled.first_gap(next..range.end) {
            next = gap.end;
            self.settled.insert(gap.clone());
            let mut ack_eliciting = 0;
            let mut on_outstanding = |number, record: &Record| {
                ack_eliciting += u64::from(record.ack_eliciting());
                on_packet(number, record, false);
            };
            self.settle(gap, &mut on_outstanding, &mut |token| on_token(token, false));
            self.ack_eliciting -= ack_eliciting;
        }
        for lost in late.iter() {
            self.settle(
                lost.clone(),
                &mut |number, record| on_packet(number, record, true),
                &mut |token| on_token(token, true),
            );
            self.lost.remove(lost);
        }
    }

    /// Notes packets as acknowledged. Their records lie one behind the other, and so do their tokens.
    #[inline]
    fn settle(
        &mut self,
        numbers: Range<u64>,
        on_packet: &mut impl FnMut(u64, &Record),
        on_token: &mut impl FnMut(T),
    ) {
        let (first, last) = (
            (numbers.start - self.base) as usize,
            (numbers.end - 1 - self.base) as usize,
        );
        let tokens = self.token_range(&self.records[first]).start..self.token_range(&self.records[last]).end;
        for (number, record) in numbers.zip(self.records.range_mut(first..=last)) {
            record.set_state(ACKED);
            on_packet(number, record);
        }
        self.tokens.range(tokens).copied().for_each(on_token);
    }

    #[inline]
    fn token_range(&self, record: &Record) -> Range<usize> {
        let start = record.first_token.wrapping_sub(self.tokens_base) as usize;
        start..start + usize::from(record.tokens)
    }

    /// Declares packets lost that were sent `delay` or three packets before an acknowledged one, and notes when the next is.
    #[inline]
    pub(super) fn detect_losses(
        &mut self,
        now: Instant,
        delay: Duration,
        on_packet: &mut impl FnMut(&Record),
        on_token: &mut impl FnMut(T),
    ) {
        self.loss_time = None;
        let Some(largest_acked) = self.largest_acked else {
            return;
        };
        let lost_before = now - delay;
        let mut next = self.base;
        while let Some(gap) = self.settled.first_gap(next..largest_acked) {
            next = gap.end;
            for number in gap.clone() {
                let record = self.records[(number - self.base) as usize];
                if number + PACKET_THRESHOLD <= largest_acked || record.time_sent <= lost_before {
                    self.lose(number, on_packet, on_token);
                } else {
                    // Later packets were sent later: this one is the next to become lost.
                    self.loss_time = Some(record.time_sent + delay);
                    return;
                }
            }
        }
    }

    fn lose(&mut self, number: u64, on_packet: &mut impl FnMut(&Record), on_token: &mut impl FnMut(T)) {
        self.settled.insert_one(number);
        self.lost.insert_one(number);
        let record = &mut self.records[(number - self.base) as usize];
        record.set_state(LOST);
        let record = *record;
        self.ack_eliciting -= u64::from(record.ack_eliciting());
        on_packet(&record);
        self.tokens
            .range(self.token_range(&record))
            .copied()
            .for_each(on_token);
    }

    /// Declares those outstanding lost of which `which` says so, whatever was acknowledged behind them.
    #[cold]
    pub(super) fn lose_where(
        &mut self,
        which: impl Fn(&Record) -> bool,
        on_packet: &mut impl FnMut(&Record),
        on_token: &mut impl FnMut(T),
    ) {
        let mut next = self.base;
        while let Some(gap) = self.settled.first_gap(next..self.next()) {
            next = gap.end;
            for number in gap {
                if which(&self.records[(number - self.base) as usize]) {
                    self.lose(number, on_packet, on_token);
                }
            }
        }
    }

    /// Declares everything outstanding lost, and forgets it with what was (last argument of `visit`) lost before.
    pub(super) fn lose_all(&mut self, visit: &mut impl FnMut(T, bool)) {
        self.each_unsettled(&mut |record| {
            let was_lost = record.state() == LOST;
            let tokens = self.tokens.range(self.token_range(record));
            tokens.copied().for_each(|token| visit(token, was_lost));
        });
        let next = self.next();
        self.tokens_base = self.tokens_base.wrapping_add(self.tokens.len() as u32);
        self.tokens.clear();
        self.records.clear();
        self.base = next;
        self.settled.clear();
        self.lost.clear();
        self.skipped.clear();
        self.ack_eliciting = 0;
        self.loss_time = None;
    }

    /// Visits the tokens of all packets that may yet be acknowledged.
    pub(super) fn unsettled_tokens(&self, visit: &mut impl FnMut(T)) {
        self.each_unsettled(&mut |record| {
            let tokens = self.tokens.range(self.token_range(record));
            tokens.copied().for_each(&mut *visit);
        });
    }

    fn each_unsettled(&self, visit: &mut impl FnMut(&Record)) {
        let unsettled = |record: &&Record| matches!(record.state(), 0 | LOST);
        self.records.iter().filter(unsettled).for_each(visit);
    }

    /// The path over which all of this went is left: nothing of it counts against the congestion window, or probes for its datagram size.
    pub(super) fn detach_path(&mut self) {
        for record in &mut self.records {
            record.flags &= !(IN_FLIGHT | MTU_PROBE);
        }
    }

    /// True if no packet counts as lost.
    pub(super) fn nothing_lost(&self) -> bool {
        self.lost.is_empty()
    }

    /// Bytes outstanding.
    pub(super) fn bytes_in_flight(&self) -> u64 {
        self.settled
            .gaps(self.base..self.next())
            .flatten()
            .map(|number| &self.records[(number - self.base) as usize])
            .filter(|record| record.in_flight())
            .map(|record| u64::from(record.size))
            .sum()
    }

    /// Visits the tokens of the first `packets` outstanding ack-eliciting packets.
    pub(super) fn oldest_tokens(&self, packets: usize, visit: &mut impl FnMut(T)) {
        self.settled
            .gaps(self.base..self.next())
            .flatten()
            .map(|number| &self.records[(number - self.base) as usize])
            .filter(|record| record.ack_eliciting() && !record.mtu_probe())
            .take(packets)
            .for_each(|record| {
                self.tokens
                    .range(self.token_range(record))
                    .copied()
                    .for_each(&mut *visit);
            });
    }

    /// True if ack-eliciting packets sent more than `period` apart, and after `since`, are lost and none in between was acknowledged
    /// (RFC 9002 section 7.6.2).
    pub(super) fn persistent_congestion(&self, since: Instant, period: Duration) -> bool {
        let mut first = None;
        for record in &self.records {
            match record.state() {
                ACKED => first = None,
                LOST if record.ack_eliciting() && record.time_sent > since => {
                    let first = *first.get_or_insert(record.time_sent);
                    if record.time_sent.since(first) > period {
                        return true;
                    }
                }
                _ => {}
            }
        }
        false
    }

    /// Drops settled records from the front; those that may yet be acknowledged only if sent before `horizon`, and gives the tokens of those that
    /// were lost to `on_forgotten`.
    #[inline]
    pub(super) fn forget(&mut self, horizon: Instant, on_forgotten: &mut impl FnMut(T)) {
        if self.lost.is_empty()
            && let Some(settled) = self.settled.first().filter(|settled| settled.start == self.base)
        {
            self.forget_first((settled.end - self.base) as usize);
        }
        let mut count = 0;
        while let Some(record) = self.records.get(count) {
            let settled = match record.state() {
                ACKED | SKIPPED => true,
                LOST => record.time_sent < horizon,
                // Nobody need ever acknowledge these.
                _ => !record.ack_eliciting() && !record.in_flight() && record.time_sent < horizon,
            };
            if !settled {
                break;
            }
            if record.state() == LOST {
                let tokens = self.tokens.range(self.token_range(record));
                tokens.copied().for_each(&mut *on_forgotten);
            }
            count += 1;
        }
        self.forget_first(count);
        self.settled.remove_below(self.base);
        self.lost.remove_below(self.base);
        while self.skipped.front().is_some_and(|&number| number < self.base) {
            self.skipped.pop_front();
        }
    }

    #[inline]
    fn forget_first(&mut self, count: usize) {
        let Some(last) = count.checked_sub(1) else { return };
        let tokens = self.token_range(&self.records[last]).end;
        self.records.drain(..count);
        self.base += count as u64;
        self.tokens.drain(..tokens);
        self.tokens_base = self.tokens_base.wrapping_add(tokens as u32);
    }
}

/// RFC 9002 section 6.1.1, kPacketThreshold.
pub(crate) const PACKET_THRESHOLD: u64 = 3;
