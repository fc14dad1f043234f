//! What applications use: registrations, configurations, listeners, connections, streams.

mod adopted_socket;
mod configuration;
mod connection;
mod custom;
mod datagrams;
mod error;
mod execution;
mod flags;
mod inspect;
mod listener;
mod port_table;
mod ports;
mod processors;
mod registration;
mod resumption;
mod return_path;
mod settings;
mod settings_change;
mod stream;
mod thread_plan;
mod tickets;

pub use self::adopted_socket::AdoptedSocket;
pub use self::configuration::{Configuration, Credential, VERSION, crypto_provider, tls_provider};
pub use self::connection::ConnectTarget;
pub use self::custom::{ContextConfig, Execution};
pub use self::error::{CallError, ConfigurationError, REASON_PHRASE_MAX, SettingsError, SetupError};
pub use self::execution::{ExecutionConfig, ExecutionFlags, ExecutionMode, ExecutionProfile};
pub use self::flags::{OpenFlags, SendFlags, StartFlags};
pub use self::inspect::CorrelationId;
pub use self::listener::{Listener, ListenerOptions};
pub use self::registration::{PartitionStats, Registration, SHUTDOWN_TIMEOUT};
pub use self::settings::Settings;
pub use self::settings_change::SettingsChange;
pub use self::stream::{Direction, StreamShutdown};
