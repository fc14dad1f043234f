//! What a client prints with `--json`: at least this, with these names and units.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Figures of a client's run.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct ClientFigures {
    /// Bytes of payload that arrived (upload: that were acknowledged, or given to the stack where that does not say).
    pub bytes: u64,
    /// Requests answered, or handshakes completed.
    pub operations: u64,
    /// Wall time of the whole run in seconds, handshakes and waiting for the end included.
    pub seconds: f64,
    /// The part of it in which data could flow: from the opening of the first stream (where there are none, from the start) to the last byte or
    /// operation that counts.
    pub flow_seconds: f64,
    /// Processor time of all threads of the client in seconds.
    pub cpu_seconds: f64,
    /// 10^9 bits of payload in a second of `flow_seconds`.
    pub goodput_gbit_s: f64,
    /// Operations in a second of `flow_seconds`.
    pub operations_per_s: f64,
    /// Processor time of the client for each gigabyte (10^9 bytes).
    pub cpu_s_per_gb: Option<f64>,
    /// From the start of a request to the end of its response.
    pub latency: Option<Latency>,
}

/// How long a run took.
#[derive(Clone, Copy, Debug)]
pub struct RunTimes {
    /// From its start to its end.
    pub wall: Duration,
    /// From the opening of the first stream to the last byte or operation that counts.
    pub flow: Duration,
    /// Processor time of all threads.
    pub cpu: Duration,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Requests that were timed.
    pub count: u64,
    /// The arithmetic mean.
    pub mean_us: f64,
    /// The median.
    pub p50_us: f64,
    /// 90 % took at most this long.
    pub p90_us: f64,
    /// 99 % did.
    pub p99_us: f64,
    /// 99.9 % did.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl ClientFigures {
    /// Of a run that took this much time.
    pub fn new(bytes: u64, operations: u64, times: RunTimes, latency: Option<Latency>) -> Self {
        let (seconds, cpu_seconds) = (times.wall.as_secs_f64(), times.cpu.as_secs_f64());
        // Nothing that was achieved took no time at all.
        let flow_seconds = times.flow.max(Duration::from_nanos(1)).as_secs_f64();
        ClientFigures {
            bytes,
            operations,
            seconds,
            flow_seconds,
            cpu_seconds,
            goodput_gbit_s: bytes as f64 * 8e-9 / flow_seconds,
            operations_per_s: operations as f64 / flow_seconds,
            cpu_s_per_gb: cpu_s_per_gb(cpu_seconds, bytes),
            latency,
        }
    }
}

/// Seconds for each 10^9 bytes; `None` for hardly any bytes.
pub fn cpu_s_per_gb(cpu_seconds: f64, bytes: u64) -> Option<f64> {
    (bytes >= 1_000_000).then(|| cpu_seconds / (bytes as f64 / 1e9))
}

impl Latency {
    /// Of a histogram of nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let micros = |nanos: u64| nanos as f64 / 1000.0;
        Latency {
            count: histogram.len(),
            mean_us: histogram.mean() / 1000.0,
            p50_us: micros(histogram.value_at_quantile(0.5)),
            p90_us: micros(histogram.value_at_quantile(0.9)),
            p99_us: micros(histogram.value_at_quantile(0.99)),
            p999_us: micros(histogram.value_at_quantile(0.999)),
            max_us: micros(histogram.max()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodput_is_over_the_time_in_which_data_flowed() {
        let times = RunTimes {
            wall: Duration::from_secs(10),
            flow: Duration::from_secs(2),
            cpu: Duration::from_secs(1),
        };
        let figures = ClientFigures::new(1_000_000_000, 10, times, None);
        assert_eq!((figures.goodput_gbit_s, figures.operations_per_s), (4.0, 5.0));
        assert_eq!((figures.seconds, figures.flow_seconds), (10.0, 2.0));
        assert_eq!(figures.cpu_s_per_gb, Some(1.0));
        let at_once = RunTimes {
            flow: Duration::ZERO,
            ..times
        };
        assert!(ClientFigures::new(1, 1, at_once, None).goodput_gbit_s.is_finite());
    }

    #[test]
    fn percentiles_are_those_of_the_samples() {
        let mut histogram = Histogram::new(3).unwrap();
        (1..=1000u64).for_each(|micros| histogram.record(micros * 1000).unwrap());
        let latency = Latency::of(&histogram);
        assert!((499.0..502.0).contains(&latency.p50_us), "{latency:?}");
        assert!((989.0..992.0).contains(&latency.p99_us), "{latency:?}");
        assert_eq!(latency.count, 1000);
    }
}
