//! How an application's threads are set up: mode, processors, flags, and where these come from.

use std::path::Path;
use std::time::Duration;

use bitflags::bitflags;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use ringway_datapath::config::{Backend, DatapathConfig};
use serde::{Deserialize, Serialize};

use super::error::SetupError;
use super::processors;

/// How many threads a partition has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionMode {
    /// One: it receives, runs connections and handlers, and sends.
    #[default]
    LowLatency,
    /// Two, on neighbouring processors: one receives and sends, the other runs connections and handlers. More throughput for each
    /// connection, at the cost of some microseconds for each hand-over and of a second processor.
    MaxThroughput,
}

bitflags! {
    /// What is done with threads. MsQuic: `QUIC_EXECUTION_CONFIG_FLAGS`.
    ///
    /// In files and variables a list of the names in small letters: `affinitize, high_priority`.
    #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
    pub struct ExecutionFlags: u32 {
        /// Threads are not put on a processor to begin with. Without this flag and [`AFFINITIZE`](Self::AFFINITIZE), each thread begins on its
        /// processor and is kept to the NUMA node of that.
        const NO_IDEAL_PROC = 0x08;
        /// Threads come before all ordinary ones (`SCHED_RR`, priority 1). Needs CAP_SYS_NICE or an RLIMIT_RTPRIO of 1. Together with polling
        /// for long it leaves nothing to other programs on these processors but what the kernel reserves for them (5 %).
        const HIGH_PRIORITY = 0x10;
        /// Each thread is bound to its processor.
        const AFFINITIZE = 0x20;
        /// Datagrams must come by AF_XDP: opening fails rather than take another datapath.
        const XDP = 0x02;
    }
}

/// Ready-made configurations. MsQuic: `QUIC_EXECUTION_PROFILE`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ExecutionProfile {
    /// The default configuration: one thread for each processor.
    #[default]
    LowLatency,
    /// Two threads for each two processors: [`ExecutionMode::MaxThroughput`].
    MaxThroughput,
    /// Little of the machine: one partition with one thread, anywhere ([`ExecutionFlags::NO_IDEAL_PROC`]).
    Scavenger,
    /// As low latency, with threads that are bound and come first: [`ExecutionFlags::AFFINITIZE`] and
    /// [`ExecutionFlags::HIGH_PRIORITY`], which needs CAP_SYS_NICE.
    RealTime,
}

/// Threads, and what they do when there is nothing to do. MsQuic: `QUIC_EXECUTION_CONFIG`.
///
/// What a program sets in it holds; what it takes from files and variables it gets by [`ExecutionConfig::load`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutionConfig {
    /// How many threads a partition has. Default: [`ExecutionMode::LowLatency`].
    pub mode: ExecutionMode,
    /// Processors to use: a thread for each, and so a partition for each, or for each two of them if it has two threads. Default (`None`):
    /// all that the process may run on, by its affinity, cpuset and quota. Where they are also not bound, numbers of processors that there are
    /// not only count threads. In files and variables a list (`0-3,8`).
    #[serde(with = "processors")]
    pub processors: Option<Vec<usize>>,
    /// What is done with threads. Default: none of the flags; but without a list of processors, and with an interface named
    /// ([`AfXdpConfig::interface`](crate::AfXdpConfig::interface)), threads are put on processors near it, by the queues that they serve,
    /// and bound to them.
    #[serde(with = "flags")]
    pub flags: ExecutionFlags,
    /// How long a thread keeps polling after the last useful work before it sleeps. Default: zero, it sleeps at once, or after 25 us where its
    /// last sleeps were that short. [`Duration::MAX`]: it never sleeps.
    #[serde(with = "humantime_serde")]
    pub polling_idle_timeout: Duration,
    /// What the devices use of the kernel.
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
    /// The defaults, over them what a TOML file says, if one is named here or by the variable `RINGWAY_CONFIG`, and over that what variables
    /// say: `RINGWAY_MODE`, `RINGWAY_PROCESSORS`, and so on by the names of the fields, two underscores leading into a part:
    /// `RINGWAY_DATAPATH__BACKEND=af_xdp`. An unknown name is an error.
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

    /// What contradicts itself is an error that says so.
    pub(super) fn check(&self) -> Result<(), SetupError> {
        let invalid = |text: &str| Err(SetupError::InvalidConfig(text.to_owned()));
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

    /// What devices are opened with.
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

/// Flags as a list of their names, in one string or several.
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
        let mut config = flags(ExecutionFlags::XDP);
        assert!(said(config.clone()).contains("name of the interface"));
        config.datapath.af_xdp.interface = Some("eth0".to_owned());
        config.check().unwrap();
        assert_eq!(config.datapath().backend, Backend::AfXdp);
        config.datapath.backend = Backend::Socket;
        assert!(said(config).contains("contradicts"));
    }
}
