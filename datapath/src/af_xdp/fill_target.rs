//! How many of a queue's frames the kernel should hold at a time, to receive into.

/// The kernel uses the frames that it has in turn. Where it copies, each of them is memory that two cores have to come by again and again: while
/// hardly any wait for us, fewer of them are with it. (One bulk transfer over veth: 8.6 Gbit/s with 2048, 9.3 with 512, no more with 256.) A thread
/// that others keep off its processor now and then needs them all: what comes meanwhile would be lost.
#[derive(Debug)]
pub(super) struct FillTarget {
    frames: u32,
    min: u32,
    max: u32,
    /// The most frames that waited for us, and how many were taken, since it was adapted last.
    backlog: u32,
    taken: u32,
}

impl FillTarget {
    pub(super) fn new(min: u32, max: u32) -> FillTarget {
        FillTarget {
            frames: max,
            min,
            max,
            backlog: 0,
            taken: 0,
        }
    }

    /// Chunks that should be with the kernel.
    pub(super) fn chunks(&self) -> u32 {
        self.frames
    }

    /// Twice as many at once where more than half of them waited for us, half as many where few did for a while. `backlog` waited when we looked,
    /// `taken` of them were taken.
    pub(super) fn adapt(&mut self, backlog: u32, taken: u32) {
        self.backlog = self.backlog.max(backlog);
        self.taken += taken;
        if self.backlog > self.frames / 2 {
            self.frames = self.max.min(self.frames * 2);
        } else if self.taken < ADAPT_AFTER {
            return;
        } else if self.backlog < self.frames / 8 {
            self.frames = self.min.max(self.frames / 2);
        }
        self.backlog = 0;
        self.taken = 0;
    }
}

/// Frames taken that show how deep the backlog becomes.
const ADAPT_AFTER: u32 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calm_makes_it_less_deep_and_a_burst_deeper_at_once() {
        let mut target = FillTarget::new(512, 2048);
        let mut after = |calm: u32, backlog: u32| {
            for _ in 0..calm {
                target.adapt(3, 1);
            }
            target.adapt(backlog, 1);
            target.chunks()
        };
        assert_eq!(after(0, 3), 2048, "as deep as can be at first");
        assert_eq!(after(8192, 3), 1024);
        assert_eq!(after(8192, 3), 512);
        assert_eq!(
            after(20_000, 256),
            512,
            "no less deep than the least, and half of it may wait"
        );
        assert_eq!(after(0, 257), 1024);
        // A burst in each of such times keeps it so.
        for _ in 0..10 {
            assert_eq!(after(8000, 300), 1024);
        }
        assert_eq!(after(0, 700), 2048);
        assert_eq!(after(0, 2000), 2048, "no deeper than there are frames");
    }
}
