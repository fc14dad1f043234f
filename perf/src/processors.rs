//! Processors, as options name them: `0-3,8`.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use ringway_datapath::thread;

/// A list of processors on the command line, in the words that configuration files take.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ProcessorList(pub(crate) Vec<usize>);

impl FromStr for ProcessorList {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let list = thread::parse_cpulist(text).ok_or("not a list of processors such as 0-3,8")?;
        Ok(ProcessorList(list))
    }
}

/// That this process may use them.
///
/// # Errors
///
/// The first of them that it may not use, and those that it may.
pub fn check(processors: &[usize]) -> Result<()> {
    let usable = thread::affinity().context("reading which processors this process may use")?;
    for processor in processors {
        ensure!(
            usable.contains(processor),
            "processor {processor} is not among those that this process may use: {usable:?}"
        );
    }
    Ok(())
}

/// Two of them: what stands on the first, and what on the second.
pub(crate) fn pair(list: &ProcessorList, first: &str, second: &str) -> Result<[usize; 2]> {
    let pair: [usize; 2] = list
        .0
        .as_slice()
        .try_into()
        .ok()
        .with_context(|| format!("--cpus takes two processors: {first} and {second}"))?;
    check(&pair).context("--cpus")?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_ranges() {
        let list: ProcessorList = "0-2,5".parse().unwrap();
        assert_eq!(list.0, [0, 1, 2, 5]);
        for nonsense in ["", "3-1", "x", "0-99999999999999999999", "-1"] {
            assert!(nonsense.parse::<ProcessorList>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn pairs_must_be_two_that_are_there() {
        let pair = |text: &str| pair(&text.parse().unwrap(), "that of servers", "that of clients");
        assert!(pair("0").unwrap_err().to_string().contains("--cpus takes two"));
        let missing = format!("{:#}", pair("0,65000").unwrap_err());
        assert!(missing.starts_with("--cpus: processor 65000"), "{missing}");
    }
}
