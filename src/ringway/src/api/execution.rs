//! How execution is configured: mode, processors, flags, and where they come from.

use std::path::Path;
use std::time::Duration;

use bitflags::bitflags;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use ringway_datapath::config::{Backend, DatapathConfig};
use serde::{Deserialize, Serialize};

use super::error::SetupError;
use super::processors;
use crate::worker::limits::Limits;

/// How many threads a partition has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionMode {
    /// One: it receives, runs connections and handlers, and sends.
    #[default]
    LowLatency,
    /// Two, on neighbouring processors: one receives and sends, the other runs connections and handlers. Each
    /// connection gets more throughput, at the cost of a second processor and of some microseconds for each hand-over.
    MaxThroughput,
}

bitflags! {
    /// How threads run. MsQuic: `QUIC_EXECUTION_CONFIG_FLAGS`.
    ///
    /// In files and environment variables: a list of the names in lower case, such as `affinitize, high_priority`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ExecutionFlags: u32 {
        /// Threads have no ideal processor. Without this flag and [`AFFINITIZE`](Self::AFFINITIZE), each thread starts
        /// on its processor and stays on that processor's NUMA node.
        const NO_IDEAL_PROC = 0x08;
        /// Threads run before all ordinary ones (`SCHED_RR`, priority 1). Needs CAP_SYS_NICE or an RLIMIT_RTPRIO of 1.
        /// Together with long polling, it leaves other programs on these processors only what the kernel reserves for
        /// them (5 %).
        const HIGH_PRIORITY = 0x10;
        /// Each thread is bound to its processor.
        const AFFINITIZE = 0x20;
        /// Datagrams must come by AF_XDP. Opening fails rather than use another datapath.
        const XDP = 0x02;
    }
}

/// Predefined configurations. MsQuic: `QUIC_EXECUTION_PROFILE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExecutionProfile {
    /// The default configuration: one thread for each processor.
    #[default]
    LowLatency,
    /// Two threads for each pair of processors: [`ExecutionMode::MaxThroughput`].
    MaxThroughput,
    /// Uses little of the machine: one partition with one thread, on any processor ([`ExecutionFlags::NO_IDEAL_PROC`]).
    Scavenger,
    /// Like `LowLatency`, with bound threads of high priority: [`ExecutionFlags::AFFINITIZE`] and
    /// [`ExecutionFlags::HIGH_PRIORITY`], which needs CAP_SYS_NICE.
    RealTime,
}

/// Which threads there are, where they run, and what they do when there is no work. MsQuic: `QUIC_EXECUTION_CONFIG`.
///
/// Files and environment variables take effect only through [`ExecutionConfig::load`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutionConfig {
    /// How many threads a partition has. Default: [`ExecutionMode::LowLatency`].
    pub mode: ExecutionMode,
    /// The processors to use, each with one thread: a partition takes one processor, or two if it has two threads. In
    /// files and environment variables a list such as `0-3,8`. Default (`None`): all processors that the process may
    /// use, by its affinity, cpuset and quota.
    ///
    /// Without [`ExecutionFlags::AFFINITIZE`], processors that do not exist are no error: they only count threads.
    #[serde(with = "processors")]
    pub processors: Option<Vec<usize>>,
    /// How threads run. Default: no flags. If an interface is named
    /// ([`AfXdpConfig::interface`](crate::AfXdpConfig::interface)) and processors are not, however, threads are bound
    /// to processors near the interface, by the queues that they serve.
    #[serde(with = "flags")]
    pub flags: ExecutionFlags,
    /// How long a thread keeps polling without useful work before it sleeps. Default: zero, so it sleeps at once, or
    /// after 25 µs if its last sleeps were that short. [`Duration::MAX`]: it never sleeps.
    #[serde(with = "humantime_serde")]
    pub polling_idle_timeout: Duration,
    /// How much clients may make each partition hold.
    pub limits: Limits,
    /// Which datapath to use, and how.
    pub datapath: DatapathConfig,
}

impl From<ExecutionProfile> for ExecutionConfig {
    fn from(profile: ExecutionProfile) -> Self {
        let config = ExecutionConfig::default();
        match profile {
            ExecutionProfile::LowLatency => config,
            ExecutionProfile::MaxThroughput => ExecutionConfig {
                mode: ExecutionMode::MaxThroughput,
                ..config
            },
            ExecutionProfile::Scavenger => ExecutionConfig {
                processors: Some(vec![0]),
                flags: ExecutionFlags::NO_IDEAL_PROC,
                ..config
            },
            ExecutionProfile::RealTime => ExecutionConfig {
                flags: ExecutionFlags::AFFINITIZE | ExecutionFlags::HIGH_PRIORITY,
                ..config
            },
        }
    }
}

impl ExecutionConfig {
    /// Loads a configuration: the defaults, overridden by a TOML file, overridden by environment variables.
    ///
    /// The file is `file`, or else the one that `RINGWAY_CONFIG` names. The variables are named after the fields:
    /// `RINGWAY_MODE`, `RINGWAY_PROCESSORS` and so on, with two underscores before the field of a part:
    /// `RINGWAY_DATAPATH__BACKEND=af_xdp`. Unknown names are errors.
    ///
    /// ```toml
    /// mode = "max_throughput"
    /// processors = "0-3"
    /// flags = "affinitize, high_priority"
    /// polling_idle_timeout = "50us"
    /// [datapath]
    /// backend = "af_xdp"
    /// [datapath.af_xdp]
    /// interface = "eth0"
    /// ```
    pub fn load(file: Option<&Path>) -> Result<Self, SetupError> {
        let named = std::env::var_os(FILE_VARIABLE);
        let mut sources = Figment::from(Serialized::defaults(ExecutionConfig::default()));
        if let Some(file) = file.or(named.as_deref().map(Path::new)) {
            let text = std::fs::read_to_string(file)
                .map_err(SetupError::io(format!("reading {}", file.display())))?;
            sources = sources.merge(Toml::string(&text));
        }
        let variables = Env::prefixed(PREFIX).ignore(&["config"]).split("__");
        let loaded = sources.merge(variables).extract();
        loaded.map_err(|error| SetupError::InvalidConfig(format!("execution configuration: {error}")))
    }

    /// Fails if the configuration contradicts itself.
    pub(super) fn check(&self) -> Result<(), SetupError> {
        let invalid = |text: &str| Err(SetupError::InvalidConfig(text.to_owned()));
        self.limits.check().map_err(SetupError::InvalidConfig)?;
        let flags = self.flags;
        if flags.contains(ExecutionFlags::NO_IDEAL_PROC | ExecutionFlags::AFFINITIZE) {
            return invalid(
                "the flags NO_IDEAL_PROC and AFFINITIZE contradict each other: leave one of them out",
            );
        }
        if !flags.contains(ExecutionFlags::XDP) {
            return Ok(());
        }
        if !matches!(self.datapath.backend, Backend::Auto | Backend::AfXdp) {
            return invalid("the flag XDP contradicts a datapath other than af_xdp: leave one of them out");
        }
        if self.datapath.af_xdp.interface.is_none() {
            return invalid("the flag XDP needs the name of the interface whose queues are to be served");
        }
        Ok(())
    }

    /// The configuration of the devices.
    pub(super) fn datapath(&self) -> DatapathConfig {
        let mut datapath = self.datapath.clone();
        if self.flags.contains(ExecutionFlags::XDP) {
            datapath.backend = Backend::AfXdp;
        }
        datapath
    }
}

const PREFIX: &str = "RINGWAY_";
const FILE_VARIABLE: &str = "RINGWAY_CONFIG";

/// Reads and writes flags as a list of their names, in one string or several.
mod flags {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use super::ExecutionFlags;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Names {
        One(String),
        Many(Vec<String>),
    }

    pub(super) fn serialize<S: Serializer>(flags: &ExecutionFlags, serializer: S) -> Result<S::Ok, S::Error> {
        let names: Vec<String> = flags.iter_names().map(|(name, _)| name.to_lowercase()).collect();
        names.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<ExecutionFlags, D::Error> {
        let names = match Names::deserialize(deserializer)? {
            Names::One(text) => text.split(',').map(|name| name.trim().to_owned()).collect(),
            Names::Many(names) => names,
        };
        let mut flags = ExecutionFlags::empty();
        for name in names.iter().filter(|name| !name.is_empty()) {
            flags |= ExecutionFlags::from_name(&name.to_uppercase()).ok_or_else(|| {
                let known: Vec<String> = ExecutionFlags::all()
                    .iter_names()
                    .map(|(name, _)| name.to_lowercase())
                    .collect();
                de::Error::custom(format!(
                    "there is no flag {name:?}: flags are {}",
                    known.join(", ")
                ))
            })?;
        }
        Ok(flags)
    }
}

#[cfg(test)]
mod tests {
    use figment::Jail;

    use super::*;

    #[test]
    #[allow(clippy::result_large_err, reason = "what figment's test environment asks for")]
    fn variables_come_before_the_file_and_the_file_before_defaults() {
        Jail::expect_with(|jail| {
            jail.create_file(
                "ringway.toml",
                "mode = 'max_throughput'\nprocessors = [0, 1]\npolling_idle_timeout = '50us'\nflags = ['no_ideal_proc']\n\
                 [datapath]\nbackend = 'socket'\ngso = false\n[datapath.af_xdp]\ninterface = 'eth7'",
            )?;
            jail.set_env("RINGWAY_PROCESSORS", "2-4,7");
            jail.set_env("RINGWAY_FLAGS", "affinitize, high_priority");
            jail.set_env("RINGWAY_DATAPATH__BACKEND", "af_xdp");
            jail.set_env("RINGWAY_LIMITS__HANDSHAKES_PER_SOURCE", "7");
            jail.set_env("RINGWAY_DATAPATH__AF_XDP__QUEUES", "[1, 3]");
            let expected = ExecutionConfig {
                mode: ExecutionMode::MaxThroughput,
                processors: Some(vec![2, 3, 4, 7]),
                flags: ExecutionFlags::AFFINITIZE | ExecutionFlags::HIGH_PRIORITY,
                polling_idle_timeout: Duration::from_micros(50),
                datapath: DatapathConfig {
                    backend: Backend::AfXdp,
                    gso: false,
                    af_xdp: crate::AfXdpConfig {
                        interface: Some("eth7".to_owned()),
                        queues: Some(vec![1, 3]),
                        ..crate::AfXdpConfig::default()
                    },
                    ..DatapathConfig::default()
                },
                limits: Limits {
                    handshakes_per_source: 7,
                    ..Limits::default()
                },
            };
            assert_eq!(
                ExecutionConfig::load(Some(Path::new("ringway.toml"))).unwrap(),
                expected
            );
            jail.set_env("RINGWAY_CONFIG", "ringway.toml");
            assert_eq!(ExecutionConfig::load(None).unwrap(), expected);
            jail.set_env("RINGWAY_PROCESSORS", "5");
            assert_eq!(ExecutionConfig::load(None).unwrap().processors, Some(vec![5]));
            Ok(())
        });
    }

    #[test]
    #[allow(clippy::result_large_err, reason = "what figment's test environment asks for")]
    fn what_is_not_understood_is_named() {
        for (variable, value, said) in [
            ("RINGWAY_FLAGS", "affinitise", "there is no flag \"affinitise\""),
            ("RINGWAY_PROCESORS", "1", "procesors"),
            ("RINGWAY_PROCESSORS", "3-1", "\"3-1\""),
            ("RINGWAY_POLLING_IDLE_TIMEOUT", "50 bananas", "bananas"),
            ("RINGWAY_CONFIG", "no-such-file", "no-such-file"),
        ] {
            Jail::expect_with(|jail| {
                assert_eq!(ExecutionConfig::load(None).unwrap(), ExecutionConfig::default());
                jail.set_env(variable, value);
                let error = ExecutionConfig::load(None).unwrap_err().to_string();
                assert!(error.contains(said), "{variable}={value}: {error}");
                Ok(())
            });
        }
    }

    #[test]
    fn contradictions_are_told() {
        let flags = |flags| ExecutionConfig {
            flags,
            ..ExecutionConfig::default()
        };
        let said = |config: ExecutionConfig| config.check().unwrap_err().to_string();
        assert!(
            said(flags(ExecutionFlags::AFFINITIZE | ExecutionFlags::NO_IDEAL_PROC)).contains("contradict")
        );
        let limits = |limits| ExecutionConfig {
            limits,
            ..ExecutionConfig::default()
        };
        let no_handshakes = Limits {
            handshakes: 0,
            ..Limits::default()
        };
        assert!(said(limits(no_handshakes)).contains("limits.handshakes must be at least 1"));
        let long_prefix = Limits {
            source_prefix_ipv4: 33,
            ..Limits::default()
        };
        assert!(said(limits(long_prefix)).contains("limits.source_prefix_ipv4 is 33"));
        let mut config = flags(ExecutionFlags::XDP);
        assert!(said(config.clone()).contains("name of the interface"));
        config.datapath.af_xdp.interface = Some("eth0".to_owned());
        config.check().unwrap();
        assert_eq!(config.datapath().backend, Backend::AfXdp);
        config.datapath.backend = Backend::Socket;
        assert!(said(config).contains("contradicts"));
    }
}
