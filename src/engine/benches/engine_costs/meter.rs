//! What of a scenario is measured: the instructions of one part, by callgrind, or else the time of each.

use std::hint::black_box;
use std::time::{Duration, Instant};

use clap::ValueEnum;

/// Who does what.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Everything that the client does.
    Client,
    /// Everything that the server does.
    Server,
    /// Data goes out.
    Send,
    /// Data comes in.
    Receive,
    /// Acknowledgements go out.
    SendAck,
    /// Acknowledgements come in.
    ReceiveAck,
}

/// Runs parts, and measures.
pub(crate) struct Meter {
    /// The part whose instructions are counted.
    counted: Option<Part>,
    warm: bool,
    /// By [`Part`], unless that part is counted.
    spent: [Duration; 6],
}

impl Meter {
    /// Counts nothing before [`Meter::begin`].
    pub(crate) fn new(counted: Option<Part>) -> Self {
        Meter {
            counted,
            warm: false,
            spent: [Duration::ZERO; 6],
        }
    }

    /// The scenario is warm: what comes from here on counts.
    pub(crate) fn begin(&mut self) {
        self.warm = true;
        self.spent = [Duration::ZERO; 6];
    }

    /// Does a piece of work of this part.
    pub(crate) fn run<T>(&mut self, part: Part, work: impl FnOnce() -> T) -> T {
        if self.warm && self.counted == Some(part) {
            return counted(work);
        }
        let begin = Instant::now();
        let done = work();
        self.spent[part as usize] += begin.elapsed();
        done
    }

    /// Time that a part has taken.
    pub(crate) fn spent(&self, part: Part) -> Duration {
        self.spent[part as usize]
    }
}

/// Callgrind knows it by its name.
#[inline(never)]
fn counted<T>(work: impl FnOnce() -> T) -> T {
    black_box(work())
}
