//! A client's run, but for the calls of its stack: what its streams send and receive, and when it is over.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use bytes::Bytes;
use ringway_peers::{ClientArgs, Meter, Pattern, Scenario};

/// How often a client looks, at least, whether anything is achieved.
const LOOK: Duration = Duration::from_secs(1);
/// Silence at the end of a run from which it is clear that the server has gone.
const SILENCE: Duration = Duration::from_secs(1);

pub struct Run {
    args: ClientArgs,
    meter: Meter,
    pattern: Pattern,
    /// What each stream begins with; but for uploads, all that it sends.
    header: Bytes,
    /// What each stream sends in all.
    len: u64,
    /// `None`: when all is transferred.
    end: Option<Instant>,
    /// Transfers that are not complete.
    transfers: usize,
    handshakes: usize,
    heard: Instant,
}

/// A stream of a client.
pub struct Stream {
    start: Instant,
    /// Bytes given to the stack, and whether those were all.
    given: u64,
    is_given: bool,
    received: u64,
}

impl Stream {
    pub fn start() -> Self {
        Stream {
            start: Instant::now(),
            given: 0,
            is_given: false,
            received: 0,
        }
    }
}

impl Run {
    pub fn start(args: &ClientArgs) -> Self {
        let pattern = Pattern::default();
        let header = if args.is_requests() {
            args.request(&pattern)
        } else {
            args.response_len().to_be_bytes().to_vec().into()
        };
        let now = Instant::now();
        let meter = Meter::start(args);
        Run {
            args: args.clone(),
            pattern,
            len: header.len() as u64 + args.upload_len(),
            header,
            end: meter.remaining().map(|left| now + left),
            meter,
            transfers: args.connection_count() * args.stream_count(),
            handshakes: 0,
            heard: now,
        }
    }

    /// Whether there is something left to do. Fails if there is, and for long nothing was done.
    pub fn goes_on(&self, now: Instant) -> Result<bool> {
        if self.transfers == 0 || self.end.is_some_and(|end| end <= now) {
            return Ok(false);
        }
        self.meter.ensure_progress()?;
        Ok(true)
    }

    /// How long the run may wait at most for something to arrive.
    pub fn limit(&self, now: Instant) -> Duration {
        self.end
            .map_or(LOOK, |end| end.saturating_duration_since(now).min(LOOK))
    }

    /// Something has arrived.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
    }

    /// A handshake is done. How many streams are to be opened on the connection.
    pub fn connected(&mut self) -> usize {
        self.handshakes += 1;
        match self.args.scenario {
            Scenario::Hps | Scenario::Idle => {
                self.meter.connected();
                0
            }
            _ => {
                self.meter.opened();
                self.args.stream_count()
            }
        }
    }

    /// After a handshake: whether another connection is to be begun now.
    pub fn begins_another(&self) -> bool {
        // Each handshake so far has been followed by one.
        self.args.initial_connections() + self.handshakes <= self.args.connection_count()
    }

    /// What a stream has to send next, and whether that is the last of it.
    pub fn next_piece(&self, stream: &Stream) -> Option<(Bytes, bool)> {
        if stream.is_given {
            return None;
        }
        let header = self.header.len() as u64;
        let piece = if stream.given < header {
            self.header.slice(stream.given as usize..)
        } else {
            self.pattern.piece(stream.given - header, self.len - stream.given)
        };
        let is_last = stream.given + piece.len() as u64 == self.len;
        Some((piece, is_last))
    }

    /// The stack has taken `count` bytes of the next piece. The end goes with the last of them.
    pub fn on_given(&mut self, stream: &mut Stream, count: usize) {
        if stream.given >= self.header.len() as u64 {
            self.meter.moved(count as u64);
        }
        stream.given += count as u64;
        stream.is_given = stream.given == self.len;
    }

    /// `data` has arrived on a stream.
    pub fn on_received(&mut self, stream: &mut Stream, data: &[u8]) -> Result<()> {
        ensure!(
            !self.args.verify || self.pattern.matches(stream.received, data),
            "wrong content near offset {} of a response",
            stream.received
        );
        stream.received += data.len() as u64;
        if self.args.scenario == Scenario::Download {
            self.meter.moved(data.len() as u64);
        }
        Ok(())
    }

    /// A response is complete. Whether another stream is to be opened for it. The times of requests in the first flight count of connections with
    /// a ticket alone.
    pub fn on_end(&mut self, stream: &Stream, has_ticket: bool) -> Result<bool> {
        if self.args.is_early() {
            if has_ticket {
                self.meter.answered(stream.start, stream.received)?;
            }
            return Ok(false);
        }
        if self.args.is_requests() {
            self.meter.answered(stream.start, stream.received)?;
            return Ok(true);
        }
        let expected = self.args.response_len();
        ensure!(
            stream.received == expected,
            "a response of {} bytes, not {expected}",
            stream.received
        );
        self.transfers -= 1;
        Ok(false)
    }

    /// Prints the figures, if it was a run worth the name. To be called before connections are closed.
    pub fn report(&self, now: Instant) -> Result<()> {
        let target = self.args.target;
        let count = match self.args.scenario {
            Scenario::Hps | Scenario::LatencyZeroRtt => 1,
            _ => self.args.connection_count(),
        };
        ensure!(
            self.handshakes > 0,
            "no handshake with {target} was completed: is a server running there?"
        );
        ensure!(
            self.handshakes >= count,
            "only {} of {count} connections to {target} were made in time",
            self.handshakes
        );
        let silence = now - self.heard;
        ensure!(
            silence < SILENCE || self.args.scenario == Scenario::Idle,
            "{target} has said nothing for {:.1} s",
            silence.as_secs_f64()
        );
        self.meter.report()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ringway_peers::{Args, Command};

    use super::*;

    fn run(options: &str) -> Run {
        let line = format!("peer client --target 127.0.0.1:1 --ca none {options}");
        let Command::Client(args) = Args::parse_from(line.split(' ')).command else {
            panic!()
        };
        Run::start(&args)
    }

    /// All that a stream sends, if the stack takes at most `most` bytes of each piece.
    fn sent(run: &mut Run, most: usize) -> Vec<u8> {
        let mut stream = Stream::start();
        let mut sent = Vec::new();
        while let Some((piece, is_last)) = run.next_piece(&stream) {
            let taken = piece.len().min(most);
            sent.extend_from_slice(&piece[..taken]);
            run.on_given(&mut stream, taken);
            assert_eq!(stream.is_given, is_last && taken == piece.len());
        }
        sent
    }

    #[test]
    fn streams_send_header_and_content_in_any_pieces() {
        for most in [1, 7, 1000, usize::MAX] {
            let upload = sent(&mut run("--scenario upload --bytes 200000B"), most);
            assert_eq!(upload[..8], [0; 8]);
            assert_eq!(upload.len(), 200_008);
            assert!(Pattern::default().matches(0, &upload[8..]));
            let request = sent(&mut run("--scenario rps --request 600B --response 300B"), most);
            assert_eq!(request[..8], 300u64.to_be_bytes());
            assert_eq!(request.len(), 600);
            assert!(Pattern::default().matches(0, &request[8..]));
            let download = sent(&mut run("--scenario download --bytes 5B"), most);
            assert_eq!(download, 5u64.to_be_bytes());
        }
    }

    #[test]
    fn wrong_content_and_wrong_lengths_are_seen() {
        let mut run = run("--scenario download --bytes 5B --verify");
        let mut stream = Stream::start();
        run.on_received(&mut stream, &[0, 1, 2]).unwrap();
        assert!(run.on_end(&stream, false).is_err());
        assert!(run.on_received(&mut stream, &[4]).is_err());
        run.on_received(&mut stream, &[3, 4]).unwrap();
        assert!(!run.on_end(&stream, false).unwrap());
        assert!(!run.goes_on(Instant::now()).unwrap());
    }

    #[test]
    fn a_run_without_a_handshake_or_with_a_silent_server_is_none() {
        let mut run = run("--scenario hps --time 0s");
        let now = Instant::now();
        assert!(!run.goes_on(now).unwrap());
        assert!(run.report(now).is_err());
        assert_eq!(run.connected(), 0, "no streams");
        assert!(run.report(now).is_ok());
        assert!(run.report(now + SILENCE).is_err());
    }
}
