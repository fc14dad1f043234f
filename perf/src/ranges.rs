//! Ranges of sizes and times on the command line: what lies outside is refused there, with the name of the option.

use std::time::Duration;

use bytesize::ByteSize;

/// Longer times nobody waits for; the system's clocks cannot count much longer ones.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// Takes sizes from so many bytes to so many.
pub(crate) fn size(min: u64, max: u64) -> impl Fn(&str) -> Result<ByteSize, String> + Clone {
    move |text| {
        let size: ByteSize = text
            .parse()
            .map_err(|_| "not a size such as 512B, 64KiB or 10MB".to_owned())?;
        // What a number of 64 bits cannot hold comes as the largest that it can.
        if (min..=max).contains(&size.as_u64()) {
            return Ok(size);
        }
        let (min, max) = (ByteSize::b(min), ByteSize::b(max));
        Err(format!(
            "it takes {} to {}",
            min.display().iec(),
            max.display().iec()
        ))
    }
}

/// Takes numbers from one to so many.
pub(crate) fn count(max: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let count = text.parse().ok();
        let count = count.filter(|count| (1..=max).contains(count));
        count.ok_or_else(|| format!("it takes 1 to {max}"))
    }
}

/// Takes times that a run can have: from a millisecond to a year.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    time_within(Duration::from_millis(1), YEAR)(text)
}

/// Takes times from so long to so long.
pub(crate) fn time_within(min: Duration, max: Duration) -> impl Fn(&str) -> Result<Duration, String> + Clone {
    move |text| {
        let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
        if (min..=max).contains(&time) {
            return Ok(time);
        }
        let [min, max] = [min, max].map(humantime::format_duration);
        Err(format!("it takes {min} to {max}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_out_of_range_are_refused_however_large() {
        let size = size(1, 1 << 20);
        assert_eq!(size("64KiB").unwrap().as_u64(), 65_536);
        for text in [
            "0",
            "0B",
            "2MiB",
            "100GiB",
            "99999999999EiB",
            "18446744073709551616",
            "-1",
            "x",
        ] {
            assert!(size(text).is_err(), "{text}: {:?}", size(text));
        }
        assert_eq!(size("0").unwrap_err(), "it takes 1 B to 1.0 MiB");
    }

    #[test]
    fn times_out_of_range_are_refused_however_long() {
        assert_eq!(time("50ms").unwrap(), Duration::from_millis(50));
        for text in [
            "0s",
            "1us",
            "2years",
            "500000000000years",
            "99999999999999999999s",
            "5",
            "-1s",
            "",
        ] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
