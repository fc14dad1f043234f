//! How execution is configured: mode, processors, flags, and where they come from.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bitflags::bitflags;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use ringway_datapath::config::{Backend, DatapathConfig};
use ringway_datapath::source_rules;
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
    /// Each must be one that the process may use, by its affinity and cpuset. With [`ExecutionFlags::NO_IDEAL_PROC`] they
    /// need not exist: they only count threads.
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
    /// Threads give up all their capabilities before they receive anything: the devices are open by then, and nothing that comes later needs one
    /// (a page of the manual, "Operating Ringway", says what is opened when). Threads have capabilities each of their own: those of the application
    /// keep theirs until they call [`drop_capabilities`](crate::drop_capabilities). Default: false.
    pub drop_capabilities: bool,
    /// How much clients may make each partition, and the process, hold.
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
    /// `RINGWAY_DATAPATH__BACKEND=af_xdp`. Unknown names are errors. (`RINGWAY_AES_GCM` is for tests and measurements of packet protection, and is
    /// read when a registration is opened: one of its forms by name, `avx512`, `vaes256` or `aesni`, or `aws_lc`.)
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
    ///
    /// # Errors
    ///
    /// [`SetupError::Io`]: the file cannot be read. [`SetupError::InvalidConfig`] and [`SetupError::InvalidValue`]: it, or a variable, says what is
    /// not understood, or cannot be; the error says where.
    pub fn load(file: Option<&Path>) -> Result<Self, SetupError> {
        let file = config_file(file);
        let mut sources = Figment::from(Serialized::defaults(ExecutionConfig::default()));
        if let Some(file) = &file {
            let text = std::fs::read_to_string(file)
                .map_err(SetupError::io(format!("reading {}", file.display())))?;
            sources = sources.merge(Toml::string(&text));
        }
        let variables = Env::prefixed(PREFIX).ignore(&["config", "aes_gcm"]).split("__");
        let loaded = sources.merge(variables).extract();
        loaded.map_err(|error| SetupError::InvalidConfig(explain(&error, file.as_deref())))
    }

    /// Where [`ExecutionConfig::load`] takes the value of a key such as `datapath.receive_buffers` from: the name of the
    /// environment variable if there is one, else the key, in the file if one is given: it is not looked up there. For
    /// messages about a value that turns out not to do.
    pub fn origin(key: &str, file: Option<&Path>) -> String {
        let variable = variable(key);
        if std::env::var_os(&variable).is_some() {
            return variable;
        }
        match config_file(file) {
            Some(file) => format!("{key} in {}", file.display()),
            None => key.to_owned(),
        }
    }

    /// Fails if the configuration contradicts itself, or has a value that no device takes.
    pub(super) fn check(&self) -> Result<(), SetupError> {
        let invalid = |text: &str| {
            Err(SetupError::InvalidValue {
                key: "flags",
                problem: text.to_owned(),
            })
        };
        self.check_datapath()?;
        self.limits
            .check()
            .map_err(|(key, problem)| SetupError::InvalidValue { key, problem })?;
        let flags = self.flags;
        if flags.contains(ExecutionFlags::NO_IDEAL_PROC | ExecutionFlags::AFFINITIZE) {
            return invalid("NO_IDEAL_PROC and AFFINITIZE contradict each other: leave one of them out");
        }
        if !flags.contains(ExecutionFlags::XDP) {
            return Ok(());
        }
        if !matches!(self.datapath.backend, Backend::Auto | Backend::AfXdp) {
            return invalid("XDP contradicts a datapath other than af_xdp: leave one of them out");
        }
        if self.datapath.af_xdp.interface.is_none() {
            return invalid("XDP needs the name of the interface whose queues are to be served");
        }
        Ok(())
    }

    /// Whatever datapath is taken in the end: what is given and cannot be had is never passed over.
    fn check_datapath(&self) -> Result<(), SetupError> {
        let datapath = &self.datapath;
        let check = |right: bool, key: &'static str, problem: String| {
            if right {
                Ok(())
            } else {
                Err(SetupError::InvalidValue { key, problem })
            }
        };
        check(
            datapath.receive_buffers.is_power_of_two(),
            "datapath.receive_buffers",
            format!("{} is no power of two up to 32768", datapath.receive_buffers),
        )?;
        check(
            datapath.busy_poll <= BUSY_POLL_MAX,
            "datapath.busy_poll",
            format!("{:?} is more than {BUSY_POLL_MAX:?}", datapath.busy_poll),
        )?;
        check(
            datapath
                .af_xdp
                .queues
                .as_ref()
                .is_none_or(|queues| !queues.is_empty()),
            "datapath.af_xdp.queues",
            "the list is empty: name at least one, or leave it out to serve all".to_owned(),
        )?;
        let rules = &datapath.af_xdp.source_rules;
        source_rules::check(rules).map_err(|problem| SetupError::InvalidValue {
            key: SOURCE_RULES,
            problem,
        })?;
        check(
            rules.is_empty() || datapath.af_xdp.interface.is_some(),
            SOURCE_RULES,
            "there is no AF_XDP without the name of an interface (datapath.af_xdp.interface)".to_owned(),
        )
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

/// The key of the rules for sources.
pub(super) const SOURCE_RULES: &str = "datapath.af_xdp.source_rules";
const PREFIX: &str = "RINGWAY_";
const FILE_VARIABLE: &str = "RINGWAY_CONFIG";
/// The kernel holds a processor for this long at a time: longer than any wait that busy polling could spare.
const BUSY_POLL_MAX: Duration = Duration::from_secs(1);

/// The file that is named, or that the environment names.
fn config_file(named: Option<&Path>) -> Option<PathBuf> {
    let file = named.map(Path::to_path_buf);
    file.or_else(|| std::env::var_os(FILE_VARIABLE).map(PathBuf::from))
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    PREFIX.to_owned() + &key.replace('.', "__").to_uppercase()
}

/// What is wrong with which variable, or with which key of the file.
fn explain(error: &figment::Error, file: Option<&Path>) -> String {
    let explain = |error: figment::Error| {
        let key = error.path.join(".");
        let by_variable = (error.metadata.as_ref()).is_some_and(|source| source.name.contains("environment"));
        let origin = match (by_variable, file) {
            (true, _) => variable(&key),
            (false, Some(file)) if key.is_empty() => file.display().to_string(),
            (false, Some(file)) => format!("{key} in {}", file.display()),
            (false, None) => key,
        };
        format!("{origin}: {}", error.kind)
    };
    let errors: Vec<_> = error.clone().into_iter().map(explain).collect();
    errors.join("; ")
}

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
    use ringway_datapath::source_rules::{SourceAction, SourceRule};

    use super::*;

    #[test]
    #[allow(clippy::result_large_err, reason = "what figment's test environment asks for")]
    fn variables_come_before_the_file_and_the_file_before_defaults() {
        Jail::expect_with(|jail| {
            jail.create_file(
                "ringway.toml",
                "mode = 'max_throughput'\nprocessors = [0, 1]\npolling_idle_timeout = '50us'\nflags = ['no_ideal_proc']\n\
                 [datapath]\nbackend = 'socket'\ngso = false\n[datapath.af_xdp]\ninterface = 'eth7'\n\
                 source_rules = [{ prefix = '192.0.2.0/24', action = 'drop' }, { prefix = '2001:db8::/32', action = 'pass' }]",
            )?;
            jail.set_env("RINGWAY_PROCESSORS", "2-4,7");
            jail.set_env("RINGWAY_FLAGS", "affinitize, high_priority");
            jail.set_env("RINGWAY_DATAPATH__BACKEND", "af_xdp");
            jail.set_env("RINGWAY_DROP_CAPABILITIES", "true");
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
                        source_rules: vec![
                            SourceRule {
                                prefix: "192.0.2.0/24".parse().unwrap(),
                                action: SourceAction::Drop,
                            },
                            SourceRule {
                                prefix: "2001:db8::/32".parse().unwrap(),
                                action: SourceAction::Pass,
                            },
                        ],
                        ..crate::AfXdpConfig::default()
                    },
                    ..DatapathConfig::default()
                },
                drop_capabilities: true,
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
            (
                "RINGWAY_DATAPATH__RECEIVE_BUFFERS",
                "70000",
                "RINGWAY_DATAPATH__RECEIVE_BUFFERS: ",
            ),
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
    #[allow(clippy::result_large_err, reason = "what figment's test environment asks for")]
    fn what_is_wrong_is_named_as_it_was_given() {
        Jail::expect_with(|jail| {
            let file = Path::new("ringway.toml");
            let key = "datapath.receive_buffers";
            assert_eq!(ExecutionConfig::origin(key, None), key);
            for (text, said) in [
                ("processors = '3-1'", "processors in ringway.toml: \"3-1\" is not"),
                ("[datapath]\ngso = 7", "datapath.gso in ringway.toml: "),
                (
                    "[datapath.af_xdp]\nsource_rules = [{ prefix = '10.0.0.0/40', action = 'drop' }]",
                    "datapath.af_xdp.source_rules.0.prefix in ringway.toml: ",
                ),
                (
                    "[datapath.af_xdp]\nsource_rules = [{ prefix = '10.0.0.0/8', action = 'reject' }]",
                    "datapath.af_xdp.source_rules.0.action in ringway.toml: ",
                ),
                ("mode =", "ringway.toml: "),
            ] {
                jail.create_file(file, text)?;
                let error = ExecutionConfig::load(Some(file)).unwrap_err().to_string();
                assert!(error.starts_with(said), "{error}");
            }
            assert_eq!(
                ExecutionConfig::origin(key, Some(file)),
                "datapath.receive_buffers in ringway.toml"
            );
            jail.set_env("RINGWAY_DATAPATH__RECEIVE_BUFFERS", "16");
            assert_eq!(
                ExecutionConfig::origin(key, Some(file)),
                "RINGWAY_DATAPATH__RECEIVE_BUFFERS"
            );
            Ok(())
        });
    }

    #[test]
    fn values_that_no_device_takes_are_refused_whatever_the_datapath() {
        let said = |change: fn(&mut ExecutionConfig)| {
            let mut config = ExecutionConfig::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(said(|config| config.datapath.receive_buffers = 0).starts_with("datapath.receive_buffers: "));
        assert!(said(|config| config.datapath.receive_buffers = 3).contains("no power of two"));
        assert!(said(|config| config.datapath.busy_poll = Duration::MAX).starts_with("datapath.busy_poll: "));
        assert!(
            said(|config| config.datapath.af_xdp.queues = Some(Vec::new())).contains("the list is empty")
        );
        let rule = |prefix: &str| SourceRule {
            prefix: prefix.parse().unwrap(),
            action: SourceAction::Drop,
        };
        let with_rule = |prefix, interface: Option<&str>| {
            let mut config = ExecutionConfig::default();
            config.datapath.af_xdp.interface = interface.map(str::to_owned);
            config.datapath.af_xdp.source_rules = vec![rule(prefix)];
            config.check().map_err(|error| error.to_string())
        };
        let said = with_rule("10.0.0.1/8", Some("eth0")).unwrap_err();
        assert!(
            said.starts_with("datapath.af_xdp.source_rules: 10.0.0.1/8 has bits beyond"),
            "{said}"
        );
        assert!(with_rule("10.0.0.0/8", None).unwrap_err().contains("interface"));
        assert_eq!(with_rule("10.0.0.0/8", Some("eth0")), Ok(()));
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
        assert!(said(limits(no_handshakes)).contains("limits.handshakes"));
        let long_prefix = Limits {
            source_prefix_ipv4: 33,
            ..Limits::default()
        };
        assert!(said(limits(long_prefix)).contains("limits.source_prefix_ipv4"));
        let mut config = flags(ExecutionFlags::XDP);
        assert!(said(config.clone()).contains("name of the interface"));
        config.datapath.af_xdp.interface = Some("eth0".to_owned());
        config.check().unwrap();
        assert_eq!(config.datapath().backend, Backend::AfXdp);
        config.datapath.backend = Backend::Socket;
        assert!(said(config).contains("contradicts"));
    }
}
