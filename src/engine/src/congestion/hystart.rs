//! HyStart++ (RFC 9406): slow start ends when round trips get longer, before the queue on the path overflows.

use std::time::Duration;

use ringway_types::Instant;

use super::window::Acked;

/// What it knows of the first slow start.
#[derive(Clone, Debug)]
pub(super) struct HyStart {
    /// Packets are spread over the round trip: no bound on what one acknowledgement adds (section 4.3, L).
    paced: bool,
    /// The round ends when a packet is acknowledged that was sent after this.
    round_start: Instant,
    /// The shortest round trip of this round and of the one before, if there was a sample.
    round_min: Option<Duration>,
    last_round_min: Option<Duration>,
    samples: u32,
    /// Conservative slow start: the shortest round trip when it began, and the rounds since.
    conservative: Option<(Duration, u32)>,
}

/// How the window goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Growth {
    /// It grows by this.
    By(u64),
    /// Slow start is over.
    End,
}

impl HyStart {
    pub(super) fn new(paced: bool) -> Self {
        HyStart {
            paced,
            round_start: Instant::ZERO,
            round_min: None,
            last_round_min: None,
            samples: 0,
            conservative: None,
        }
    }

    /// Packets were acknowledged in slow start.
    pub(super) fn on_ack(&mut self, now: Instant, acked: &Acked, mtu: u64) -> Growth {
        if acked.sent >= self.round_start {
            self.round_start = now;
            self.last_round_min = self.round_min.take();
            self.samples = 0;
            if let Some((_, rounds)) = &mut self.conservative {
                *rounds += 1;
                if *rounds >= CSS_ROUNDS {
                    return Growth::End;
                }
            }
        }
        if let Some(latest) = acked.latest {
            self.round_min = Some(self.round_min.map_or(latest, |min| min.min(latest)));
            self.samples += 1;
        }
        if self.samples >= N_RTT_SAMPLE
            && let Some(min) = self.round_min
        {
            match self.conservative {
                None if self
                    .last_round_min
                    .is_some_and(|last| min >= last + threshold(last)) =>
                {
                    self.conservative = Some((min, 0));
                }
                Some((baseline, _)) if min < baseline => self.conservative = None,
                _ => {}
            }
        }
        let most = if self.paced { u64::MAX } else { L * mtu };
        let bytes = acked.bytes.min(most);
        Growth::By(match self.conservative {
            None => bytes,
            Some(_) => bytes / CSS_GROWTH_DIVISOR,
        })
    }
}

/// By how much round trips must be longer than those of the round before.
fn threshold(last: Duration) -> Duration {
    (last / MIN_RTT_DIVISOR).clamp(MIN_RTT_THRESH, MAX_RTT_THRESH)
}

// RFC 9406 section 4.3.
const MIN_RTT_THRESH: Duration = Duration::from_millis(4);
const MAX_RTT_THRESH: Duration = Duration::from_millis(16);
const MIN_RTT_DIVISOR: u32 = 8;
const N_RTT_SAMPLE: u32 = 8;
const CSS_GROWTH_DIVISOR: u64 = 4;
const CSS_ROUNDS: u32 = 5;
const L: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const MTU: u64 = 1200;

    /// Rounds of ten acknowledgements of a packet each; gives what the window grows by in each, until slow start ends.
    fn rounds(hystart: &mut HyStart, rtts_ms: &[u64]) -> Vec<Option<u64>> {
        let mut now = Instant::from_nanos(1);
        let mut grown = Vec::new();
        for &rtt in rtts_ms {
            let rtt = Duration::from_millis(rtt);
            let sent = now;
            now += rtt;
            let mut sum = Some(0);
            for packet in 0..10 {
                let acked = Acked {
                    bytes: MTU,
                    sent: sent + Duration::from_nanos(packet),
                    rtt,
                    latest: Some(rtt),
                    app_limited: false,
                };
                match hystart.on_ack(now + Duration::from_nanos(packet), &acked, MTU) {
                    Growth::By(bytes) => sum = sum.map(|sum| sum + bytes),
                    Growth::End => sum = None,
                }
            }
            now += Duration::from_nanos(10);
            grown.push(sum);
            if sum.is_none() {
                break;
            }
        }
        grown
    }

    #[test]
    fn round_trips_that_stay_as_they_are_leave_slow_start_alone() {
        let grown = rounds(&mut HyStart::new(true), &[100; 20]);
        assert_eq!(grown, vec![Some(10 * MTU); 20]);
    }

    #[test]
    fn longer_round_trips_slow_the_growth_to_a_quarter_and_end_it_after_five_rounds() {
        let grown = rounds(&mut HyStart::new(true), &[100, 100, 113, 113, 113, 113, 113, 113]);
        assert_eq!(grown[..2], [Some(10 * MTU); 2]);
        // Seven acknowledgements before there are enough samples, three after.
        assert_eq!(grown[2], Some(7 * MTU + 3 * MTU / 4));
        assert_eq!(grown[3..7], [Some(10 * MTU / 4); 4]);
        assert_eq!(grown[7..], [None]);
    }

    #[test]
    fn round_trips_that_get_short_again_bring_slow_start_back() {
        let grown = rounds(&mut HyStart::new(true), &[100, 113, 100, 100]);
        assert_eq!(grown[3], Some(10 * MTU));
    }

    #[test]
    fn without_pacing_one_acknowledgement_adds_eight_packets_at_most() {
        let acked = Acked {
            bytes: 100 * MTU,
            sent: Instant::from_nanos(1),
            rtt: Duration::from_millis(100),
            latest: None,
            app_limited: false,
        };
        let now = Instant::from_nanos(2);
        assert_eq!(HyStart::new(false).on_ack(now, &acked, MTU), Growth::By(8 * MTU));
        assert_eq!(HyStart::new(true).on_ack(now, &acked, MTU), Growth::By(100 * MTU));
    }
}
